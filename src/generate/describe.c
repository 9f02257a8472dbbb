/* describe.c - CLIP Interrogator 0.6.0: fast, classic, best and negative prompts. See noema/describe.h and labels.h.
 *
 *     picture -> RGB -> CLIP's preprocessing -> unit vector
 *     ranking of labels: cosine with f16-rounded label vectors; choices between whole prompts: cosine with unrounded text vectors
 *
 * Upstream's pool of phrases is a set; here it is the ranked list without repetitions, and ties go to the earlier phrase, so that the
 * result is the same on every run. Without `compat` the ranking is exact and negative mode negates its starting score as well. */
#include "noema/describe.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "generate/labels.h"
#include "generate/lists.h"

enum { ARTISTS, FLAVORS, MEDIUMS, MOVEMENTS, TRENDINGS, NEGATIVE, TABLES };
static const char *const table_names[TABLES] = { "artists", "flavors", "mediums", "movements", "trendings", "negative" };

struct noema_describer {
    noema_session *s;
    noema_describer_options o;
    nm_labels table[TABLES];
    size_t dim;
    nm_tok_scratch *tok;
    const nm_tokenizer *tokenizer;
};

void noema_describer_options_default(noema_describer_options *o)
{
    *o = (noema_describer_options){ .struct_size = sizeof *o, .chunk_size = 2048, .flavor_intermediate_count = 2048 };
}

/* ---- tables ---- */

static const char *const sites[] = { "Artstation", "behance", "cg society", "cgsociety", "deviantart", "dribbble", "flickr", "instagram", "pexels",
                                     "pinterest", "pixabay", "pixiv", "polycount", "reddit", "shutterstock", "tumblr", "unsplash", "zbrush central" };

static bool add_trendings(nm_labels *l, const nm_list_form *forms)
{
    bool ok = true;
    for (const nm_list_form *f = forms; f->front; f++)
        for (size_t i = 0; ok && i < sizeof sites / sizeof *sites; i++)
            ok = nm_labels_add(l, f->front, sites[i], strlen(sites[i]), f->back);
    return ok;
}

static bool add_table(nm_labels *l, int table, const nm_lists *lists, const char *text, size_t size)
{
    bool ok = table == ARTISTS || nm_labels_add_lines(l, "", text, size, "");
    for (const nm_list_form *f = lists->artists; table == ARTISTS && ok && f->front; f++)
        ok = nm_labels_add_lines(l, f->front, text, size, f->back);
    return ok;
}

static noema_status load_table(noema_describer *d, int table, const nm_lists *lists, noema_error *err)
{
    nm_labels *l = &d->table[table];
    char *path = NULL, *text = NULL, file[64];
    size_t size = 0;
    bool ok = true;
    noema_status s = NOEMA_OK;
    l->name = table_names[table];
    if (table == TRENDINGS)
        ok = add_trendings(l, lists->sites);
    else if (!d->o.lists)
        ok = add_table(l, table, lists, lists->text[table], strlen(lists->text[table]));
    else {
        snprintf(file, sizeof file, "%s.txt", table_names[table]);
        path = nm_path_join(d->o.lists, file);
        s = path ? nm_read_file(&text, &size, path, (size_t)64 << 20, err) : NOEMA_E_MEMORY;
        ok = s != NOEMA_OK || add_table(l, table, lists, text, size);
        if (s == NOEMA_OK && ok && l->n == 0)
            s = nm_fail(err, NOEMA_E_FORMAT, "%s: expected one phrase per line, got an empty file", path);
    }
    free(text);
    free(path);
    return ok ? s : nm_fail(err, NOEMA_E_MEMORY, "out of memory: %s", table_names[table]);
}

noema_status noema_describer_create(noema_describer **out, noema_session *s, const noema_describer_options *o, noema_error *err)
{
    noema_describer *d = calloc(1, sizeof *d);
    *out = NULL;
    if (!d)
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory: describer");
    noema_describer_options_default(&d->o);
    if (o)
        d->o = *o;
    d->s = s;
    d->dim = (size_t)s->model->info.embed_dim;
    size_t done = 0, total = 0;
    noema_status st = !s->model->info.has_image || !s->model->info.has_text
                          ? nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: describing needs a model with an image and a text tower", s->model->name)
                          : d->o.chunk_size < 1 || d->o.flavor_intermediate_count < 0 ? nm_fail(err, NOEMA_E_ARGUMENT, "the chunk size must be at least 1") : NOEMA_OK;
    const nm_lists *lists = nm_lists_find(d->o.language ? d->o.language : "en");
    if (st == NOEMA_OK && !lists)
        st = nm_fail(err, NOEMA_E_ARGUMENT, "no phrase lists in language \"%s\": expected en or ko", d->o.language);
    if (st == NOEMA_OK && !(d->tokenizer = nm_model_tokenizer(s->model, err)))
        st = err && err->code ? err->code : NOEMA_E_MISSING;
    if (st == NOEMA_OK && !(d->tok = noema_tokenizer_scratch_new(d->tokenizer)))
        st = nm_fail(err, NOEMA_E_MEMORY, "out of memory: describer");
    for (int i = 0; st == NOEMA_OK && i < TABLES; i++) {
        st = load_table(d, i, lists, err);
        total += d->table[i].n;
    }
    for (int i = 0; st == NOEMA_OK && i < TABLES; i++)
        st = nm_labels_embed(&d->table[i], s, d->o.cache, d->o.model_name ? d->o.model_name : s->model->name, &done, total, d->o.progress, d->o.progress_user, err);
    if (st != NOEMA_OK) {
        noema_describer_free(d);
        return st;
    }
    *out = d;
    return NOEMA_OK;
}

void noema_describer_free(noema_describer *d)
{
    if (!d)
        return;
    for (int i = 0; i < TABLES; i++)
        nm_labels_free(&d->table[i]);
    noema_tokenizer_scratch_free(d->tok);
    free(d);
}

/* ---- one call ---- */

typedef struct call {
    noema_describer *d;
    const float *image; /* unit vector */
    noema_error *err;
    noema_status status;
} call;

static char *fail_memory(call *c)
{
    c->status = nm_fail(c->err, NOEMA_E_MEMORY, "out of memory: prompt");
    return NULL;
}

static float cosine(const call *c, const float *v)
{
    double s = 0;
    for (size_t i = 0; i < c->d->dim; i++)
        s += (double)c->image[i] * (double)v[i];
    return (float)s;
}

/* Cosines of whole texts with the picture, unrounded. */
static bool similarities(call *c, char *const *texts, size_t n, float *out)
{
    float *v = n && c->status == NOEMA_OK ? nm_alloc(n * c->d->dim * sizeof *v) : NULL;
    if (!v) {
        if (c->status == NOEMA_OK && n)
            (void)fail_memory(c);
        return n == 0 && c->status == NOEMA_OK;
    }
    c->status = noema_embed_texts(c->d->s, n, (const char *const *)texts, NULL, NOEMA_NORMALIZE, v, c->err);
    for (size_t i = 0; c->status == NOEMA_OK && i < n; i++)
        out[i] = cosine(c, v + i * c->d->dim);
    nm_free(v);
    return c->status == NOEMA_OK;
}

static float similarity(call *c, const char *text)
{
    float s = 0;
    char *const one[1] = { (char *)(uintptr_t)text };
    (void)similarities(c, one, 1, &s);
    return s;
}

/* At or past the last slot of the context. */
static bool at_max(call *c, const char *text)
{
    const int32_t *ids;
    size_t n;
    if (c->status != NOEMA_OK)
        return true;
    c->status = noema_tokenizer_encode(c->d->tokenizer, c->d->tok, text, strlen(text), &ids, &n, c->err);
    return c->status != NOEMA_OK || noema_tokenizer_full_length(c->d->tok) >= (size_t)c->d->s->model->info.context_length;
}

static char *join(call *c, const char *a, const char *sep, const char *b)
{
    char *t = nm_sprintf("%s%s%s", a, sep, b);
    return t ? t : fail_memory(c);
}

/* Keeps leading parts while `current + part` (without the separator, as upstream) stays short of the context; takes `text`. */
static char *truncate_to_fit(call *c, char *text)
{
    if (!text)
        return NULL;
    char *part = strstr(text, ", "), *out = part ? nm_strndup(text, (size_t)(part - text)) : nm_strdup(text);
    while (out && part) {
        char *begin = part + 2, *next = strstr(begin, ", "), *piece = next ? nm_strndup(begin, (size_t)(next - begin)) : nm_strdup(begin);
        char *test = piece ? join(c, out, "", piece) : NULL;
        bool stop = !test || at_max(c, test);
        char *longer = stop ? NULL : join(c, out, ", ", piece);
        free(piece);
        free(test);
        if (stop)
            break;
        free(out);
        out = longer;
        part = next;
    }
    free(text);
    return out ? out : fail_memory(c);
}

/* Rows of the tables [first, last] as one, ranked. */
static size_t rank_tables(call *c, int first, int last, size_t top, bool reverse, const char **out)
{
    noema_describer *d = c->d;
    size_t n = 0, at = 0;
    for (int t = first; t <= last; t++)
        n += d->table[t].n;
    float *scores = nm_malloc_array(n + 1, sizeof *scores);
    nm_ranked *r = nm_malloc_array(n + 1, sizeof *r);
    size_t found = SIZE_MAX;
    if (scores && r) {
        for (int t = first; t <= last; t++) {
            d->s->run.kn->scan.dots(1, c->image, (int64_t)d->table[t].n, (int64_t)d->dim, d->table[t].vectors, NM_F16, (int64_t)d->dim, NULL, scores + at,
                                    (int64_t)n);
            at += d->table[t].n;
        }
        found = nm_rank(scores, n, top, reverse, (nm_rank_rule){ (size_t)d->o.chunk_size, d->o.compat != 0 }, r);
        if (found == SIZE_MAX)
            c->status = nm_fail(c->err, NOEMA_E_ARGUMENT, "--compat: chunks of %d are too small for %zu labels", d->o.chunk_size, n);
    } else
        (void)fail_memory(c);
    for (size_t i = 0; found != SIZE_MAX && i < found; i++) {
        size_t row = r[i].row;
        int t = first;
        while (row >= d->table[t].n)
            row -= d->table[t++].n;
        out[i] = d->table[t].text[row];
    }
    free(scores);
    free(r);
    return found == SIZE_MAX ? 0 : found;
}

static char *join_all(call *c, const char *const *text, size_t n)
{
    nm_buf b = { 0 };
    nm_buf_puts(&b, "");
    for (size_t i = 0; i < n; i++) {
        if (i)
            nm_buf_puts(&b, ", ");
        nm_buf_puts(&b, text[i]);
    }
    char *s = nm_buf_take(&b);
    return s ? s : fail_memory(c);
}

/* Room for n labels, or for all there are. */
static const char **label_array(call *c, size_t n)
{
    size_t all = 0;
    for (int t = 0; t < TABLES; t++)
        all += c->d->table[t].n;
    const char **p = nm_malloc_array((n < all ? n : all) + 1, sizeof *p);
    if (!p)
        (void)fail_memory(c);
    return p;
}

static char *fast(call *c, const char *caption, size_t max_flavors)
{
    const char **top = label_array(c, max_flavors);
    size_t n = top ? rank_tables(c, ARTISTS, TRENDINGS, max_flavors, false, top) : 0;
    char *all = top ? join_all(c, top, n) : NULL, *text = all ? join(c, caption, ", ", all) : NULL;
    free(all);
    free(top);
    return truncate_to_fit(c, text);
}

static char *classic(call *c, const char *caption, size_t max_flavors)
{
    const char *m = "", *a = "", *t = "", *v = "", **f = label_array(c, max_flavors);
    if (!f)
        return NULL;
    rank_tables(c, MEDIUMS, MEDIUMS, 1, false, &m);
    rank_tables(c, ARTISTS, ARTISTS, 1, false, &a);
    rank_tables(c, TRENDINGS, TRENDINGS, 1, false, &t);
    rank_tables(c, MOVEMENTS, MOVEMENTS, 1, false, &v);
    size_t n = rank_tables(c, FLAVORS, FLAVORS, max_flavors, false, f);
    char *flavors = join_all(c, f, n), *text = NULL;
    if (flavors && strncmp(caption, m, strlen(m)) == 0)
        text = nm_sprintf("%s %s, %s, %s, %s", caption, a, t, v, flavors);
    else if (flavors)
        text = nm_sprintf("%s, %s %s, %s, %s, %s", caption, m, a, t, v, flavors);
    free(flavors);
    free(f);
    return text ? truncate_to_fit(c, text) : fail_memory(c);
}

/* ---- the chain ---- */

typedef struct pool { const char **text; size_t n; } pool;

static int by_text(const void *a, const void *b)
{
    const char *const *x = *(const char *const *const *)a, *const *y = *(const char *const *const *)b;
    int d = strcmp(*x, *y);
    return d ? d : (x > y) - (x < y);
}

/* Keeps the first of equal phrases, in order. */
static bool drop_repeated(call *c, pool *p)
{
    const char ***order = nm_malloc_array(p->n + 1, sizeof *order);
    bool *drop = calloc(p->n + 1, 1);
    if (!order || !drop) {
        free(order);
        free(drop);
        (void)fail_memory(c);
        return false;
    }
    for (size_t i = 0; i < p->n; i++)
        order[i] = &p->text[i];
    qsort(order, p->n, sizeof *order, by_text);
    for (size_t i = 1; i < p->n; i++)
        if (strcmp(*order[i], *order[i - 1]) == 0)
            drop[order[i] - p->text] = true;
    size_t n = 0;
    for (size_t i = 0; i < p->n; i++)
        if (!drop[i])
            p->text[n++] = p->text[i];
    p->n = n;
    free(order);
    free(drop);
    return true;
}

static void take_out(pool *p, size_t i)
{
    memmove(p->text + i, p->text + i + 1, (p->n - i - 1) * sizeof *p->text);
    p->n--;
}

#define CHAIN_STEP 512 /* candidates per call of the text tower: bounds the memory of a step */

/* The phrase that, appended to `front` (NULL: alone), scores highest (lowest when reverse); *sim: its signed cosine. */
static size_t best_next(call *c, const pool *p, const char *front, bool reverse, float *sim)
{
    size_t best = 0;
    float scores[CHAIN_STEP];
    char *texts[CHAIN_STEP];
    *sim = -INFINITY;
    for (size_t at = 0; at < p->n && c->status == NOEMA_OK; at += CHAIN_STEP) {
        size_t n = p->n - at < CHAIN_STEP ? p->n - at : CHAIN_STEP, made = 0;
        while (made < n && (texts[made] = join(c, front ? front : "", front ? ", " : "", p->text[at + made])))
            made++;
        if (made == n && similarities(c, texts, n, scores))
            for (size_t i = 0; i < n; i++) {
                float s = reverse ? -scores[i] : scores[i];
                if (s > *sim) {
                    *sim = s;
                    best = at + i;
                }
            }
        for (size_t i = 0; i < made; i++)
            free(texts[i]);
    }
    return best;
}

/* Appends phrases while that helps; takes the pool's order, returns the best prompt seen. start NULL or "": the best phrase alone. */
static char *chain(call *c, pool *p, const char *start, int min_count, int max_count, bool reverse)
{
    bool empty = !start || !start[0];
    if (!drop_repeated(c, p) || (empty && p->n == 0))
        return c->status == NOEMA_OK ? nm_strdup("") : NULL;
    float best_sim, cur_sim;
    char *cur, *best;
    if (!empty) {
        best_sim = similarity(c, start);
        cur = nm_strdup(start);
    } else {
        float signed_sim;
        size_t i = best_next(c, p, NULL, reverse, &signed_sim);
        best_sim = reverse && c->d->o.compat ? -signed_sim : signed_sim; /* upstream forgets the sign here */
        cur = nm_strdup(p->text[i]);
        take_out(p, i);
    }
    best = cur ? nm_strdup(cur) : NULL;
    cur_sim = best_sim;
    for (int step = 0; best && step < max_count && p->n && c->status == NOEMA_OK; step++) {
        float sim;
        size_t i = best_next(c, p, cur, reverse, &sim);
        char *next = c->status == NOEMA_OK ? join(c, cur, ", ", p->text[i]) : NULL;
        if (!next)
            break;
        if (sim > best_sim) {
            best_sim = sim;
            free(best);
            best = nm_strdup(next);
        }
        if (!(sim > cur_sim) && step >= min_count) {
            free(next);
            break;
        }
        free(cur);
        cur = next;
        cur_sim = sim;
        if (at_max(c, cur))
            break;
        take_out(p, i);
    }
    free(cur);
    return best ? best : fail_memory(c);
}

/* ---- modes ---- */

static char *best_mode(call *c, const char *caption, int min_flavors, int max_flavors)
{
    size_t want = (size_t)c->d->o.flavor_intermediate_count;
    pool p = { label_array(c, want), 0 };
    char *candidate[4] = { 0 }, *winner = NULL;
    if (!p.text)
        return NULL;
    p.n = rank_tables(c, ARTISTS, TRENDINGS, want, false, p.text);
    candidate[0] = nm_strdup(caption);
    candidate[1] = classic(c, caption, (size_t)max_flavors);
    candidate[2] = fast(c, caption, (size_t)max_flavors);
    candidate[3] = c->status == NOEMA_OK ? chain(c, &p, caption, min_flavors, max_flavors, false) : NULL;
    free(p.text);
    float s[4];
    size_t best = 0;
    bool ok = candidate[0] && candidate[1] && candidate[2] && candidate[3] && similarities(c, candidate, 4, s);
    for (size_t i = 1; ok && i < 4; i++)
        if (s[i] > s[best])
            best = i;
    for (size_t i = 0; i < 4; i++)
        if (ok && i == best)
            winner = candidate[i];
        else
            free(candidate[i]);
    return winner;
}

static char *negative_mode(call *c, int min_flavors, int max_flavors)
{
    const nm_labels *neg = &c->d->table[NEGATIVE];
    size_t want = (size_t)c->d->o.flavor_intermediate_count;
    pool p = { label_array(c, want + neg->n), 0 };
    if (!p.text)
        return NULL;
    p.n = rank_tables(c, FLAVORS, FLAVORS, want, true, p.text);
    for (size_t i = 0; i < neg->n; i++)
        p.text[p.n++] = neg->text[i];
    char *out = chain(c, &p, NULL, min_flavors, max_flavors, true);
    free(p.text);
    return out;
}

/* The picture as RGB through the model's own preprocessing. */
static noema_status embed_picture(noema_describer *d, const noema_picture *p, float *v, noema_error *err)
{
    if (p->tensor)
        return noema_embed_tensors(d->s, 1, p->tensor, NOEMA_NORMALIZE, v, err);
    nm_image im = { 0 }, rgb = { 0 };
    noema_status s;
    if (p->pixels) {
        s = nm_image_reset(&im, p->pixels->channels == 4 ? NM_MODE_RGBA : NM_MODE_RGB, p->pixels->width, p->pixels->height, err);
        for (int y = 0; s == NOEMA_OK && y < p->pixels->height; y++)
            memcpy(im.data + (size_t)y * im.stride, p->pixels->data + (size_t)y * p->pixels->stride, im.stride);
    } else
        s = nm_image_open(&im, p->path, NULL, err);
    if (s == NOEMA_OK)
        s = nm_image_to_rgb(&rgb, &im, err);
    if (s == NOEMA_OK) {
        noema_pixels px = { rgb.data, rgb.width, rgb.height, 3, rgb.stride };
        s = noema_embed_pixels(d->s, 1, &px, NOEMA_NORMALIZE, v, err);
    }
    nm_image_free(&im);
    nm_image_free(&rgb);
    return s;
}

noema_status noema_describe(noema_describer *d, const noema_picture *picture, const char *caption, noema_describe_mode mode, int min_flavors, int max_flavors,
                            char **prompt, float *score, noema_error *err)
{
    *prompt = NULL;
    *score = NAN;
    if (mode != NOEMA_DESCRIBE_NEGATIVE && !caption)
        return nm_fail(err, NOEMA_E_ARGUMENT, "this mode needs a caption to start from");
    float *v = nm_alloc(d->dim * sizeof *v);
    if (!v)
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory: prompt");
    call c = { .d = d, .image = v, .err = err };
    c.status = embed_picture(d, picture, v, err);
    min_flavors = min_flavors < 0 ? 8 : min_flavors;
    max_flavors = max_flavors >= 0 ? max_flavors : mode == NOEMA_DESCRIBE_CLASSIC ? 3 : 32;
    char *text = NULL;
    if (c.status == NOEMA_OK)
        text = mode == NOEMA_DESCRIBE_FAST      ? fast(&c, caption, (size_t)max_flavors)
               : mode == NOEMA_DESCRIBE_CLASSIC ? classic(&c, caption, (size_t)max_flavors)
               : mode == NOEMA_DESCRIBE_BEST    ? best_mode(&c, caption, min_flavors, max_flavors)
                                                : negative_mode(&c, min_flavors, max_flavors);
    if (text && c.status == NOEMA_OK)
        *score = similarity(&c, text);
    nm_free(v);
    if (!text && c.status == NOEMA_OK)
        (void)fail_memory(&c);
    if (c.status != NOEMA_OK) {
        free(text);
        return c.status;
    }
    *prompt = text;
    return NOEMA_OK;
}

noema_status noema_describe_analyze(noema_describer *d, const noema_picture *picture, noema_table_top top[NOEMA_DESCRIBE_TABLES], noema_error *err)
{
    static const int order[NOEMA_DESCRIBE_TABLES] = { MEDIUMS, ARTISTS, MOVEMENTS, TRENDINGS, FLAVORS };
    float *v = nm_alloc(d->dim * sizeof *v);
    if (!v)
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory: analysis");
    call c = { .d = d, .image = v, .err = err };
    c.status = embed_picture(d, picture, v, err);
    for (int i = 0; i < NOEMA_DESCRIBE_TABLES && c.status == NOEMA_OK; i++) {
        top[i] = (noema_table_top){ .table = table_names[order[i]] };
        top[i].n = rank_tables(&c, order[i], order[i], 5, false, top[i].label);
        char *texts[5];
        for (size_t k = 0; k < top[i].n; k++)
            texts[k] = (char *)(uintptr_t)top[i].label[k];
        (void)similarities(&c, texts, top[i].n, top[i].score);
    }
    nm_free(v);
    return c.status;
}
