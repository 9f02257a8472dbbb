/* collections.c - see collections.h. */
#define _GNU_SOURCE
#include "collections.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

char *cli_collection_root(void)
{
    const char *data = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
    if (data && data[0] == '/')
        return cli_text("%s/noema/collections", data);
    return cli_text("%s/.local/share/noema/collections", home && home[0] ? home : ".");
}

char *cli_collection_path(const char *name)
{
    if (strchr(name, '/') || !strcmp(name, ".") || !strcmp(name, ".."))
        return cli_dup(name);
    char *root = cli_collection_root(), *path = cli_text("%s/%s", root, name), *there = cli_text("%s/catalog.sqlite", path),
         *here = cli_text("./%s/catalog.sqlite", name);
    if (access(there, F_OK) && !access(here, F_OK)) { /* a collection of that name lies in the working folder, and only there */
        free(path);
        path = cli_text("./%s", name);
    }
    free(root);
    free(there);
    free(here);
    return path;
}

/* Each line of the notes is a message. */
static void say_notes(const cli *c, const char *notes)
{
    for (size_t n; *notes; notes += n + (notes[n] == '\n')) {
        n = strcspn(notes, "\n");
        if (n)
            cli_warn(c, "%.*s", (int)n, notes);
    }
}

noema_collection *cli_collection_open(cli *c, const char *name, unsigned flags, int *code)
{
    noema_collection *col = NULL;
    noema_error err = NOEMA_ERROR_INIT;
    char *path = cli_collection_path(name ? name : "default");
    if (!cli_context(c))
        *code = CLI_NOTHING_DONE;
    else if (noema_collection_open(&col, c->ctx, path, flags, &err) != NOEMA_OK) {
        if (err.code == NOEMA_E_MISSING)
            cli_say(c, "`noema index --collection %s PICTURES...` makes one", name ? name : "default");
        *code = cli_fatal(c, &err);
    } else
        say_notes(c, noema_collection_get_info(col)->notes);
    free(path);
    return col;
}

/* ---- the model ---- */

static const char *const noted[] = { "tokenizer", "config", "preprocess", "image-size", "activation", "vision", "language-model" };
static const char *const dtypes[] = { "auto", "f32", "bf16", "f16", "int8" }; /* in the order of noema_dtype */

noema_status cli_note_model(cli *c, noema_collection *col, const noema_model *m, noema_error *err)
{
    noema_status s = noema_collection_set_note(col, "dtype", dtypes[noema_model_get_info(m)->dtype], err);
    for (size_t i = 0; i < sizeof noted / sizeof *noted && s == NOEMA_OK; i++) {
        const char *v = cli_str(c, noted[i], NULL);
        char *real = v && !access(v, F_OK) ? realpath(v, NULL) : NULL;
        if (v)
            s = noema_collection_set_note(col, noted[i], real ? real : v, err);
        free(real);
    }
    return s;
}

/* What the command line leaves open is as the collection notes it. */
static bool options_of(cli_searcher *s, noema_model_options *o, char **keep, noema_error *err)
{
    if (!cli_model_options(s->c, o))
        return false;
    const char *v;
    if (!cli_str(s->c, "dtype", NULL) && noema_collection_get_note(s->col, "dtype", &v, err) == NOEMA_OK && v)
        for (int i = 1; i < 5; i++)
            o->dtype = strcmp(v, dtypes[i]) ? o->dtype : (noema_dtype)i;
    for (int i = 0; i < 5; i++) {
        if (cli_str(s->c, noted[i], NULL) || noema_collection_get_note(s->col, noted[i], &v, err) != NOEMA_OK || !v)
            continue;
        keep[i] = cli_dup(v);
        if (i == 0)
            o->tokenizer = keep[i];
        else if (i == 1)
            o->config = keep[i];
        else if (i == 2)
            o->preprocess = keep[i];
        else if (i == 3)
            cli_parse_size(v, &o->image_height, &o->image_width);
        else
            o->activation = !strcmp(v, "quickgelu") ? 1 : !strcmp(v, "gelu") ? 2 : 0;
    }
    return true;
}

int cli_searcher_model(cli_searcher *s)
{
    if (s->session)
        return CLI_OK;
    const noema_collection_info *i = noema_collection_get_info(s->col);
    noema_error err = NOEMA_ERROR_INIT;
    if (cli_str(s->c, "model", NULL) || !i->model[0]) {
        int code = cli_open_model(s->c, &s->model, &s->session);
        if (code)
            return code;
    } else {
        noema_model_options o;
        char *keep[5] = { 0 };
        if (!options_of(s, &o, keep, &err))
            return CLI_USAGE;
        noema_status st = noema_model_open(&s->model, s->c->ctx, i->model, &o, &err);
        if (st == NOEMA_OK)
            st = noema_session_create(&s->session, s->model, &err);
        for (int k = 0; k < 5; k++)
            free(keep[k]);
        if (st != NOEMA_OK) {
            cli_say(s->c, "the collection was made with model %s; -m MODEL gives another place of it", i->model);
            return cli_fatal(s->c, &err);
        }
    }
    const noema_model_info *m = noema_model_get_info(s->model);
    i = noema_collection_get_info(s->col);
    if (i->dim && strcmp(i->space, m->space)) {
        snprintf(err.message, sizeof err.message, "%s: its vectors are of model %.150s (space %.80s); got model %.150s (space %.80s)", i->path,
                 i->model, i->space, m->name, m->space);
        err.code = NOEMA_E_MISMATCH;
        return cli_fatal(s->c, &err);
    }
    return CLI_OK;
}

void cli_searcher_free(cli_searcher *s)
{
    noema_session_free(s->session);
    noema_model_free(s->model);
    noema_collection_free(s->col);
}

/* ---- vectors of queries ---- */

static noema_status fail(noema_error *err, noema_status code, const char *what, const char *why)
{
    err->code = code;
    snprintf(err->message, sizeof err->message, "%.400s: %.500s", what, why);
    return code;
}

static noema_status need_model(cli_searcher *s, noema_error *err)
{
    if (cli_searcher_model(s) == CLI_OK)
        return NOEMA_OK;
    err->code = NOEMA_E_CANCELLED; /* told already */
    return NOEMA_E_CANCELLED;
}

noema_status cli_text_vector(cli_searcher *s, const char *text, float *v, noema_error *err)
{
    noema_status st = need_model(s, err);
    return st == NOEMA_OK ? noema_collection_query_text(s->col, s->session, text, v, err) : st;
}

/* The stored vector, when the file is in the collection and has its size and time of then. */
static bool stored(cli_searcher *s, const char *path, float *v)
{
    int64_t id;
    noema_item item;
    struct stat st;
    if (cli_str(s->c, "model", NULL) || noema_collection_find(s->col, path, &id, NULL) != NOEMA_OK ||
        noema_collection_next(s->col, id - 1, &item, NULL) != NOEMA_OK || item.id != id || stat(path, &st))
        return false;
    int64_t mtime = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
    return item.size == st.st_size && item.mtime_ns == mtime && noema_collection_vector(s->col, id, v, NULL) == NOEMA_OK;
}

noema_status cli_image_vector(cli_searcher *s, const char *path, float *v, noema_error *err)
{
    if (stored(s, path, v))
        return NOEMA_OK;
    noema_status st = need_model(s, err);
    return st == NOEMA_OK ? noema_collection_query_image(s->col, s->session, path, v, err) : st;
}

/* The end of the term at s: a "+" or "-" that stands alone between blanks, outside of quotes, or the end of the text. */
static const char *term_end(const char *s)
{
    bool quoted = false;
    for (const char *p = s; *p; p++) {
        if (*p == '"')
            quoted = !quoted;
        if (!quoted && p > s && isspace((unsigned char)p[-1]) && (*p == '+' || *p == '-') && isspace((unsigned char)p[1]))
            return p;
    }
    return s + strlen(s);
}

/* "0.5*" in front of a term. */
static double take_weight(const char **s)
{
    char *end;
    if (!isdigit((unsigned char)**s) && **s != '.')
        return 1;
    double w = strtod(*s, &end);
    while (*end == ' ')
        end++;
    if (*end != '*' || !isfinite(w))
        return 1;
    for (*s = end + 1; **s == ' ';)
        ++*s;
    return w;
}

/* One term, [s, end): its vector times its weight is added to sum. */
static noema_status add_term(cli_searcher *s, const char *query, const char *t, const char *end, double sign, int dim, float *v, double *sum,
                             noema_error *err)
{
    while (t < end && isspace((unsigned char)*t))
        t++;
    double w = sign * take_weight(&t);
    while (end > t && isspace((unsigned char)end[-1]))
        end--;
    bool image = t < end && *t == '@';
    t += image;
    if (end - t >= 2 && *t == '"' && end[-1] == '"')
        t++, end--;
    if (t >= end)
        return fail(err, NOEMA_E_ARGUMENT, query, "expected a text or @FILE on both sides of + and -");
    char *term = cli_text("%.*s", (int)(end - t), t);
    noema_status st = image ? cli_image_vector(s, term, v, err) : cli_text_vector(s, term, v, err);
    free(term);
    for (int i = 0; i < dim && st == NOEMA_OK; i++)
        sum[i] += w * v[i];
    return st;
}

noema_status cli_query_vector(cli_searcher *s, const char *query, float *v, noema_error *err)
{
    int dim = noema_collection_get_info(s->col)->dim;
    double *sum = cli_alloc((size_t)dim + 1, sizeof *sum), sign = 1, norm = 0;
    const char *t = query;
    while (isspace((unsigned char)*t))
        t++;
    if ((*t == '-' || *t == '+') && isspace((unsigned char)t[1]))
        sign = *t++ == '-' ? -1 : 1;
    noema_status st = NOEMA_OK;
    for (;;) {
        const char *end = term_end(t);
        st = add_term(s, query, t, end, sign, dim, v, sum, err);
        if (st != NOEMA_OK || !*end)
            break;
        sign = *end == '-' ? -1 : 1;
        t = end + 1;
    }
    for (int i = 0; i < dim; i++)
        norm += sum[i] * sum[i];
    if (st == NOEMA_OK && !(norm > 1e-12))
        st = fail(err, NOEMA_E_ARGUMENT, query, "the terms cancel out");
    for (int i = 0; i < dim && st == NOEMA_OK; i++)
        v[i] = (float)(sum[i] / sqrt(norm));
    free(sum);
    return st;
}

/* ---- results ---- */

noema_search_options cli_search_options(const cli *c)
{
    noema_search_options o;
    const char *kind = cli_str(c, "kind", "any");
    noema_search_options_default(&o);
    o.threshold = (float)cli_num(c, "threshold", -2);
    o.path_glob = cli_str(c, "path", NULL);
    o.name = cli_str(c, "name", NULL);
    o.kind = !strcmp(kind, "image") ? NOEMA_ITEM_IMAGE : !strcmp(kind, "text") ? NOEMA_ITEM_TEXT : NOEMA_ITEM_ANY;
    return o;
}

static void put_json(cli_buf *b, const char *name, const noema_match *m, size_t n)
{
    cli_puts(b, "{\"query\":");
    cli_put_json(b, name);
    cli_puts(b, ",\"results\":[");
    for (size_t i = 0; i < n; i++) {
        cli_printf(b, "%s{\"id\":%lld,\"path\":", i ? "," : "", (long long)m[i].id);
        cli_put_json(b, m[i].path);
        cli_puts(b, ",\"score\":");
        cli_put_f32(b, m[i].score);
        cli_puts(b, m[i].kind == NOEMA_ITEM_TEXT ? ",\"kind\":\"text\"}" : ",\"kind\":\"image\"}");
    }
    cli_puts(b, "]}");
}

static void put_table(cli_buf *b, const char *name, const noema_match *m, size_t n)
{
    cli_printf(b, "%s\n", name);
    for (size_t i = 0; i < n; i++)
        cli_printf(b, "  %6.3f  %s\n", (double)m[i].score, m[i].path);
    if (!n)
        cli_puts(b, "  nothing found\n");
}

noema_status cli_run_query(cli_searcher *s, const char *name, const float *v, const noema_search_options *o, noema_error *err)
{
    int64_t items = noema_collection_get_info(s->col)->n_items, k = cli_int(s->c, "top", 10);
    size_t n = 0, most = (size_t)(k < items ? k : items);
    const char *sheet = cli_str(s->c, "contact-sheet", NULL);
    noema_match *m = cli_alloc(most + 1, sizeof *m);
    noema_status st = noema_collection_search(s->col, 1, v, most, o, m, &n, err);
    cli_buf b = { 0 };
    if (st == NOEMA_OK) {
        (cli_tables(s->c) ? put_table : put_json)(&b, name, m, n);
        cli_emit(&b);
        s->c->n_done++;
    }
    if (st == NOEMA_OK && sheet && n)
        st = noema_collection_contact_sheet(s->col, n, m, 0, sheet, err);
    else if (st == NOEMA_OK && sheet)
        cli_warn(s->c, "nothing found: %s is not written", sheet);
    free(m);
    cli_buf_free(&b);
    return st;
}
