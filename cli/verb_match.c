/* verb_match.c - `noema match`: every picture against every text. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "pictures.h"

static const cli_option options[] = {
    { "image", 'i', CLI_LIST, "FILE", "a picture, or .npy tensors (each row a picture)" },
    { "text", 't', CLI_LIST, "T", "a text" },
    { "text-file", 0, CLI_LIST, "FILE", "one text per line, kept as it is" },
    { "head", 0, CLI_STRING, "itc|itm", "BLIP: cosines of the vectors (itc), or the head that looks at both (itm)" },
    { "itm-token", 0, CLI_STRING, "enc|cls", "with --head itm: what the texts begin with (default: the model's own)" },
    { NULL, 0, CLI_FLAG, NULL, NULL }
};

/* Unit vectors and names of one side. */
typedef struct side { float *v; char **name; size_t *len; size_t n, cap_v, cap_n, cap_l, dim, seen; const cli_texts *texts; } side;

static bool keep(void *user, const char *name, const float *v, noema_error *err)
{
    side *s = user;
    size_t at = s->seen++;
    (void)err;
    if (!v)
        return true;
    s->v = cli_grow(s->v, &s->cap_v, (s->n + 1) * s->dim, sizeof *s->v);
    s->name = cli_grow(s->name, &s->cap_n, s->n + 1, sizeof *s->name);
    s->len = cli_grow(s->len, &s->cap_l, s->n + 1, sizeof *s->len);
    memcpy(s->v + s->n * s->dim, v, s->dim * sizeof *v);
    s->len[s->n] = name ? strlen(name) : s->texts->len[at];
    s->name[s->n] = cli_alloc(s->len[s->n] + 1, 1);
    memcpy(s->name[s->n], name ? name : s->texts->text[at], s->len[s->n]);
    s->n++;
    return true;
}

static void side_free(side *s)
{
    for (size_t i = 0; i < s->n; i++)
        free(s->name[i]);
    free(s->name);
    free(s->len);
    free(s->v);
}

static void put_names(cli_buf *b, const char *key, const side *s)
{
    cli_printf(b, "\"%s\":[", key);
    for (size_t i = 0; i < s->n; i++) {
        cli_puts(b, i ? "," : "");
        cli_put_jsonn(b, s->name[i], s->len[i]);
    }
    cli_puts(b, "],");
}

static void put_matrix(cli_buf *b, const char *key, const float *x, size_t rows, size_t cols)
{
    cli_printf(b, "\"%s\":[", key);
    for (size_t i = 0; i < rows; i++) {
        cli_puts(b, i ? "," : "");
        cli_put_f32s(b, x + i * cols, cols);
    }
    cli_puts(b, "]");
}

/* SigLIP: a probability per pair. CLIP: a softmax over the texts of a picture. */
static void probabilities(const float *scores, size_t n, bool sigmoid, float *probs)
{
    double most = -INFINITY, sum = 0;
    for (size_t i = 0; i < n; i++)
        most = scores[i] > most ? scores[i] : most;
    for (size_t i = 0; i < n; i++)
        sum += exp((double)scores[i] - most);
    for (size_t i = 0; i < n; i++)
        probs[i] = (float)(sigmoid ? 1 / (1 + exp(-(double)scores[i])) : exp((double)scores[i] - most) / sum);
}

static void print_result(const side *images, const side *texts, const noema_model_info *info)
{
    cli_buf b = { 0 };
    size_t n = images->n, k = texts->n;
    float *scores = cli_alloc(n * k, sizeof *scores), *probs = cli_alloc(n * k, sizeof *probs);
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < k; j++) {
            double dot = 0;
            for (size_t d = 0; d < images->dim; d++)
                dot += (double)images->v[i * images->dim + d] * texts->v[j * texts->dim + d];
            scores[i * k + j] = (float)(info->logit_scale * dot + (info->has_logit_bias ? info->logit_bias : 0));
        }
        probabilities(scores + i * k, k, info->has_logit_bias, probs + i * k);
    }
    cli_puts(&b, "{");
    put_names(&b, "images", images);
    put_names(&b, "texts", texts);
    put_matrix(&b, "scores", scores, n, k);
    cli_puts(&b, ",");
    put_matrix(&b, "probs", probs, n, k);
    cli_puts(&b, "}");
    cli_emit(&b);
    cli_buf_free(&b);
    free(scores);
    free(probs);
}

static int match(cli *c, noema_session *s, const noema_model_info *info, const char *const *paths, size_t n, const cli_texts *t)
{
    noema_error err = NOEMA_ERROR_INIT;
    side images = { .dim = (size_t)info->embed_dim }, texts = { .dim = (size_t)info->embed_dim, .texts = t };
    int code;
    if (!cli_embed_images(c, s, info, NOEMA_NORMALIZE, paths, n, keep, &images, &err) ||
        !cli_embed_texts(c, s, info, NOEMA_NORMALIZE, t, 0, keep, &texts, &err))
        code = cli_fatal(c, &err);
    else if (images.n && texts.n && !cli_interrupted()) {
        print_result(&images, &texts, info);
        code = cli_exit(c);
    } else {
        code = cli_exit(c);
        code = code == CLI_SOME_FAILED ? CLI_NOTHING_DONE : code; /* one side is empty: there is no pair */
    }
    side_free(&images);
    side_free(&texts);
    return code;
}

/* ---- models with heads of their own: BLIP ---- */

typedef struct head_job {
    cli *c;
    noema_session *s;
    const cli_texts *texts;
    noema_match_options o;
    bool pair;
} head_job;

/* Rows of pictures that could not be read are left out. */
static void print_heads(const head_job *j, size_t n, const char *const *names, const noema_error *errors, const float *scores, const float *probs)
{
    cli_buf b = { 0 }, rows[2] = { { 0 }, { 0 } };
    size_t k = j->texts->n, shown = 0;
    cli_puts(&b, "{\"images\":[");
    for (size_t i = 0; i < n; i++) {
        if (errors[i].code != NOEMA_OK)
            continue;
        cli_puts(&b, shown ? "," : "");
        cli_put_json(&b, names[i]);
        for (int r = 0; r < 2 && !(j->pair && shown); r++) {
            cli_puts(&rows[r], shown ? "," : "");
            cli_put_f32s(&rows[r], (r ? probs : scores) + i * k, k);
        }
        shown++;
    }
    cli_puts(&b, "],\"texts\":[");
    for (size_t i = 0; i < k; i++) {
        cli_puts(&b, i ? "," : "");
        cli_put_jsonn(&b, j->texts->text[i], j->texts->len[i]);
    }
    cli_printf(&b, "],\"scores\":[%s],\"probs\":", rows[0].data);
    if (isnan(probs[0]) && !isnan(scores[0])) /* the checkpoint defines none */
        cli_puts(&b, "null}");
    else
        cli_printf(&b, "[%s]}", rows[1].data);
    cli_emit(&b);
    cli_buf_free(&b);
    cli_buf_free(&rows[0]);
    cli_buf_free(&rows[1]);
}

static bool on_pictures(void *user, size_t n, const noema_picture *pictures, const char *const *names, noema_error *err)
{
    head_job *j = user;
    size_t k = j->texts->n, done = 0;
    float *scores = cli_alloc(n * k, sizeof *scores), *probs = cli_alloc(n * k, sizeof *probs);
    noema_error *errors = cli_alloc(n, sizeof *errors);
    bool ok = noema_match_pictures(j->s, n, pictures, k, j->texts->text, j->texts->len, &j->o, scores, probs, errors, err) == NOEMA_OK;
    for (size_t i = 0; ok && i < n; i++)
        if (errors[i].code != NOEMA_OK)
            cli_failed(j->c, names[i], &errors[i]);
        else
            done++;
    if (ok && (j->pair ? done == n : done > 0)) {
        size_t first = 0;
        while (errors[first].code != NOEMA_OK)
            first++;
        if (first > 0) { /* so that the first row shown is the first stored */
            memmove(scores, scores + first * k, (n - first) * k * sizeof *scores);
            memmove(probs, probs + first * k, (n - first) * k * sizeof *probs);
        }
        print_heads(j, n - first, names + first, errors + first, scores, probs);
        j->c->n_done += done;
    }
    free(scores);
    free(probs);
    free(errors);
    return ok;
}

static int match_heads(cli *c, const noema_model *m, noema_session *s, const char *const *paths, size_t n, const cli_texts *texts)
{
    const char *token = cli_str(c, "itm-token", "");
    head_job j = { .c = c, .s = s, .texts = texts, .pair = noema_model_tasks(m) & NOEMA_TASK_PAIR };
    noema_error err = NOEMA_ERROR_INIT;
    j.o = (noema_match_options){ .struct_size = sizeof j.o, .head = !strcmp(cli_str(c, "head", "itc"), "itm") ? 2 : 1,
                                 .first_token = !strcmp(token, "enc") ? 1 : !strcmp(token, "cls") ? 2 : 0 };
    if (!cli_each_picture(c, noema_model_get_info(m), paths, n, SIZE_MAX, on_pictures, &j, &err))
        return cli_fatal(c, &err);
    return c->n_done ? cli_exit(c) : CLI_NOTHING_DONE;
}

static int run(cli *c)
{
    noema_model *m = NULL;
    noema_session *s = NULL;
    cli_texts texts;
    size_t n;
    const char **paths = cli_list(c, "image", &n);
    int code;
    if (!cli_texts_read(c, &texts))
        code = CLI_NOTHING_DONE;
    else if (!n || !texts.n)
        code = cli_usage(c, "expected at least one --image and one --text");
    else if ((code = cli_open_model(c, &m, &s)) == CLI_OK) {
        const noema_model_info *info = noema_model_get_info(m);
        unsigned tasks = noema_model_tasks(m);
        if (!strcmp(cli_str(c, "head", "itc"), "itm") && !(tasks & (NOEMA_TASK_ITM | NOEMA_TASK_PAIR)))
            code = cli_usage(c, "--head itm: %s has no such head; BLIP models have one", info->name);
        else if (tasks & NOEMA_TASK_MATCH)
            code = match_heads(c, m, s, paths, n, &texts);
        else if (!info->has_image || !info->has_text) {
            cli_warn(c, "%s: expected a model of pictures and texts, this one has no %s tower", info->name, info->has_image ? "text" : "image");
            code = CLI_NOTHING_DONE;
        } else
            code = match(c, s, info, paths, n, &texts);
    }
    noema_session_free(s);
    noema_model_free(m);
    cli_texts_free(&texts);
    free((void *)paths);
    return code;
}

const cli_verb cli_verb_match = {
    "match", "scores of every picture with every text", "-m MODEL --image I [--image I]... --text T [--text T]... [--text-file F]",
    "Prints {\"images\":[...],\"texts\":[...],\"scores\":[[...]],\"probs\":[[...]]}, rows are images: the model's logits, and their softmax\n"
    "over the texts (SigLIP: sigmoids). BLIP: cosines and their softmax (null where the file has no temperature), or with --head itm the\n"
    "match logits and their probabilities. A NLVR2 file takes two --image as one pair: one row, logit and probability of \"True\".",
    "noema match --image photo.jpg --text \"a cat\" --text \"a dog\"", options, CLI_WITH_MODEL | CLI_NO_INPUTS, run
};
