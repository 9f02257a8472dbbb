/* tasks.c - the public face of noema/generate.h: reads pictures in batches and hands them to the family. */
#include "generate/tasks.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

#define TOKENS_PER_BATCH 2400 /* image tokens of one forward: full tiles on many cores, and memory that does not grow with the call */

/* A further family is one line here. */
static const nm_tasks *const table[] = { &nm_tasks_blip, &nm_tasks_blip2, &nm_tasks_coca };

static const nm_tasks *tasks_of(const noema_model *m)
{
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (table[i]->family == m->m->family)
            return table[i];
    return NULL;
}

unsigned noema_model_tasks(const noema_model *model)
{
    const nm_tasks *t = model ? tasks_of(model) : NULL;
    return t ? t->tasks(model->m) : 0;
}

noema_status nm_session_error(noema_session *s, noema_error *err)
{
    return nm_run_ok(&s->run) ? NOEMA_OK : nm_fail(err, s->run.err.code, "%s: %s", s->model->name, s->run.err.message);
}

/* ---- reading pictures ---- */

typedef struct job {
    noema_session *s;
    const noema_picture *pictures;
    /* match */
    const nm_tasks *t;
    const noema_match_options *match;
    const nm_texts *texts;
    const float *vectors;       /* ITC: [texts, embed_dim], of length 1 */
    float *scores, *probs;
    double temp;                /* 0: none */
    size_t n_texts;
    const size_t *own;          /* [pictures + 1] noema_match_own: each picture's texts; NULL: all */
    /* text */
    const noema_generate_options *generate;
    const char *const *questions;
    noema_generated *out;
} job;

static noema_status copy_pixels(nm_image *im, const noema_pixels *p, size_t i, noema_error *err)
{
    if (!p->data || p->width < 1 || p->height < 1 || (p->channels != 3 && p->channels != 4) || p->stride < (size_t)p->width * (size_t)p->channels)
        return nm_fail(err, NOEMA_E_ARGUMENT, "picture %zu: %d x %d, %d channels, stride %zu", i, p->width, p->height, p->channels, p->stride);
    noema_status st = nm_image_reset(im, p->channels == 4 ? NM_MODE_RGBA : NM_MODE_RGB, p->width, p->height, err);
    for (int y = 0; st == NOEMA_OK && y < p->height; y++)
        memcpy(im->data + (size_t)y * im->stride, p->data + (size_t)y * p->stride, (size_t)p->width * (size_t)p->channels);
    return st;
}

static noema_status load(void *arg, size_t i, nm_preprocess_scratch *scratch, nm_image *own, float *out, noema_error *err)
{
    const job *j = arg;
    const nm_model *m = j->s->model->m;
    const noema_picture *p = &j->pictures[i];
    const nm_image *im = own;
    int h = 0, w = 0;
    if (p->tensor) {
        memcpy(out, p->tensor, 3 * (size_t)m->image_height * (size_t)m->image_width * sizeof *out);
        return NOEMA_OK;
    }
    if (!p->path && !p->pixels && !p->bytes)
        return nm_fail(err, NOEMA_E_ARGUMENT, "picture %zu: expected a path, pixels, bytes or a tensor", i);
    noema_status st = p->path ? nm_preprocess_load(&m->preprocess, scratch, p->path, NULL, &im, err)
                      : p->bytes ? nm_preprocess_load_bytes(&m->preprocess, scratch, p->bytes, p->n_bytes, p->name ? p->name : "picture", NULL, &im, err)
                                 : copy_pixels(own, p->pixels, i, err);
    if (st == NOEMA_OK)
        st = nm_preprocess_size(&m->preprocess, im->width, im->height, &h, &w, err);
    if (st == NOEMA_OK && (h != m->image_height || w != m->image_width))
        st = nm_fail(err, NOEMA_E_MISMATCH, "%s: preprocessing gives %dx%d, the model takes %dx%d", p->path ? p->path : p->name ? p->name : "picture", h, w,
                     m->image_height, m->image_width);
    return st == NOEMA_OK ? nm_preprocess_run(&m->preprocess, scratch, im, out, err) : st;
}

static noema_status each_batch(job *j, size_t n, size_t batch, nm_intake_batch_fn *compute, noema_error *errors, noema_error *err)
{
    noema_session *s = j->s;
    const nm_model *m = s->model->m;
    if (!s->intake && !(s->intake = nm_intake_new(nm_pool_size(s->model->ctx->pool))))
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory: decoders");
    for (size_t i = 0; errors && i < n; i++)
        nm_err_clear(&errors[i]);
    return nm_intake_run(s->intake, n, batch, 3 * (size_t)m->image_height * (size_t)m->image_width, load, compute, j, errors, err);
}

static size_t batch_size(const nm_model *m)
{
    size_t tokens = (size_t)m->image_height * (size_t)m->image_width / 256 + 1, b = TOKENS_PER_BATCH / tokens;
    return b < 1 ? 1 : b > 16 ? 16 : b;
}

static nm_tensor as_pixels(const job *j, size_t n, float *tensors)
{
    const nm_model *m = j->s->model->m;
    return nm_view(tensors, NM_F32, NM_SHAPE((int64_t)n, 3, m->image_height, m->image_width));
}

/* ---- matching ---- */

/* The best product of a picture's vectors [n, dim] with text k. */
static double itc_cosine(const job *j, const float *x, size_t n, size_t dim, size_t k)
{
    double best = -INFINITY;
    for (size_t v = 0; v < n; v++) {
        double dot = 0;
        for (size_t d = 0; d < dim; d++)
            dot += (double)x[v * dim + d] * (double)j->vectors[k * dim + d];
        best = dot > best ? dot : best;
    }
    return best;
}

/* Cosines of one picture with all texts, and their softmax over the texts, each divided by the temperature. */
static void itc_row(const job *j, const float *x, size_t n, size_t dim, float *score, float *prob)
{
    double most = -INFINITY, sum = 0;
    for (size_t k = 0; k < j->n_texts; k++) {
        double best = itc_cosine(j, x, n, dim, k);
        score[k] = (float)best;
        most = best > most ? best : most;
    }
    for (size_t k = 0; k < j->n_texts && j->temp > 0; k++)
        sum += exp(((double)score[k] - most) / j->temp);
    for (size_t k = 0; k < j->n_texts; k++)
        prob[k] = j->temp > 0 ? (float)(exp(((double)score[k] - most) / j->temp) / sum) : NAN;
}

/* own: of the first picture of the batch; scores of the first text of the call. */
static noema_status itc_batch(const job *j, nm_tensor pixels, const size_t *own, float *scores, float *probs, noema_error *err)
{
    nm_run *r = nm_session_run(j->s);
    const nm_model *m = j->s->model->m;
    nm_tensor x = nm_normalize(r, m->family->encode_image(r, m, pixels), 1e-12f);
    size_t dim = (size_t)m->embed_dim, n = m->image_vectors > 1 ? (size_t)m->image_vectors : 1;
    for (size_t i = 0; own && x.data && i < (size_t)x.shape[0]; i++)
        for (size_t k = own[i]; k < own[i + 1]; k++) {
            scores[k] = (float)itc_cosine(j, (const float *)x.data + i * n * dim, n, dim, k);
            probs[k] = NAN;
        }
    for (size_t i = 0; !own && x.data && i < (size_t)x.shape[0]; i++)
        itc_row(j, (const float *)x.data + i * n * dim, n, dim, scores + i * j->n_texts, probs + i * j->n_texts);
    return nm_session_error(j->s, err);
}

static noema_status match_batch(void *arg, size_t first, size_t n, float *tensors, const bool *ok, noema_error *err)
{
    job *j = arg;
    const size_t *own = j->own ? j->own + first : NULL;
    float *scores = j->scores + (own ? 0 : first * j->n_texts), *probs = j->probs + (own ? 0 : first * j->n_texts);
    nm_tensor pixels = as_pixels(j, n, tensors);
    noema_status st = j->vectors ? itc_batch(j, pixels, own, scores, probs, err) : j->t->itm(j->s, pixels, j->texts, own, j->match, scores, probs, err);
    for (size_t i = 0; i < n; i++)
        for (size_t k = own ? own[i] : i * j->n_texts; !ok[i] && k < (own ? own[i + 1] : (i + 1) * j->n_texts); k++)
            scores[k] = probs[k] = NAN;
    return st;
}

/* Both pictures of a pair are in one batch; without one of them there is no result. */
static noema_status pair_batch(void *arg, size_t first, size_t n, float *tensors, const bool *ok, noema_error *err)
{
    job *j = arg;
    const size_t *own = j->own + first / 2;
    noema_status st = j->t->itm(j->s, as_pixels(j, n, tensors), j->texts, own, j->match, j->scores, j->probs, err);
    for (size_t i = 0; i + 1 < n; i += 2)
        for (size_t k = own[i / 2]; !(ok[i] && ok[i + 1]) && k < own[i / 2 + 1]; k++)
            j->scores[k] = j->probs[k] = NAN;
    return st;
}

/* Ids of a text beyond the limit go, its last one stays. */
static void cut_texts(noema_session *s, int64_t n, int64_t limit)
{
    int64_t at = 0, begin = 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t end = s->offsets[i + 1], keep = end - begin < limit ? end - begin : limit;
        memmove(s->ids + at, s->ids + begin, (size_t)keep * sizeof *s->ids);
        if (keep)
            s->ids[at + keep - 1] = s->ids[end - 1];
        begin = end;
        s->offsets[i + 1] = at += keep;
    }
}

/* Unit vectors of the texts; where a model's authors match shorter texts than they embed, of these. */
static noema_status text_vectors(const job *j, const char *const *texts, const size_t *lengths, float *out, noema_error *err)
{
    noema_session *s = j->s;
    const nm_model *m = s->model->m;
    int64_t limit = j->t && j->t->text_limit ? j->t->text_limit(m) : 0;
    if (!limit)
        return noema_embed_texts(s, j->n_texts, texts, lengths, NOEMA_NORMALIZE, out, err);
    noema_status st = NOEMA_OK;
    for (size_t i = 0, n; st == NOEMA_OK && i < j->n_texts; i += n) {
        nm_texts ids;
        n = j->n_texts - i < 128 ? j->n_texts - i : 128;
        st = nm_session_tokenize(s, n, texts + i, lengths ? lengths + i : NULL, &ids, err);
        if (st != NOEMA_OK)
            return st;
        cut_texts(s, (int64_t)n, limit);
        nm_run *r = nm_session_run(s);
        st = nm_session_take(s, m->family->encode_text(r, m, &ids), (int64_t)n, NOEMA_NORMALIZE, out + i * (size_t)m->embed_dim, err);
    }
    return st;
}

static noema_status match_itc(job *j, size_t n, const char *const *texts, const size_t *lengths, noema_error *errors, noema_error *err)
{
    size_t dim = (size_t)j->s->model->m->embed_dim, floats;
    float *vectors = nm_mul_size(j->n_texts, dim, &floats) ? nm_malloc_array(floats + 1, sizeof *vectors) : NULL;
    if (!vectors)
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory: %zu texts", j->n_texts);
    noema_status st = text_vectors(j, texts, lengths, vectors, err);
    j->vectors = vectors;
    if (st == NOEMA_OK)
        st = each_batch(j, n, batch_size(j->s->model->m), match_batch, errors, err);
    free(vectors);
    return st;
}

static noema_status take_match_options(noema_match_options *own, const noema_match_options *o, noema_error *err)
{
    if (o && (o->struct_size < offsetof(noema_match_options, reserved) || o->head < 0 || o->head > 2 || o->first_token < 0 || o->first_token > 2))
        return nm_fail(err, NOEMA_E_ARGUMENT, "noema_match_options: head %d, first_token %d", o->head, o->first_token);
    if (o)
        *own = *o;
    return NOEMA_OK;
}

noema_status noema_match_pictures(noema_session *s, size_t n, const noema_picture *pictures, size_t n_texts, const char *const *texts, const size_t *lengths,
                         const noema_match_options *o, float *scores, float *probs, noema_error *errors, noema_error *err)
{
    noema_error local = NOEMA_ERROR_INIT;
    noema_match_options own = { .struct_size = sizeof own };
    if (!err)
        err = &local;
    if (!s || !pictures || !texts || !scores || !probs || n == 0 || n_texts == 0)
        return nm_fail(err, NOEMA_E_ARGUMENT, "noema_match_pictures: a session, pictures, texts and room for the results are needed");
    if (take_match_options(&own, o, err) != NOEMA_OK)
        return err->code;
    const nm_tasks *t = tasks_of(s->model);
    unsigned can = noema_model_tasks(s->model);
    if (!t || !(can & NOEMA_TASK_MATCH))
        return nm_fail(err, NOEMA_E_UNSUPPORTED, "%s has no head that matches pictures and texts", s->model->name);
    job j = { .s = s, .pictures = pictures, .t = t, .match = &own, .scores = scores, .probs = probs, .n_texts = n_texts };
    if (!(can & NOEMA_TASK_PAIR) && own.head != 2) {
        if (!t->temperature(s->model->m, &j.temp))
            j.temp = 0;
        return match_itc(&j, n, texts, lengths, errors, err);
    }
    if (can & NOEMA_TASK_PAIR && n != 2)
        return nm_fail(err, NOEMA_E_ARGUMENT, "%s takes two pictures as one pair, got %zu", s->model->name, n);
    if (!(can & (NOEMA_TASK_PAIR | NOEMA_TASK_ITM)))
        return nm_fail(err, NOEMA_E_UNSUPPORTED, "%s has no ITM head", s->model->name);
    nm_texts ids;
    const size_t pair[2] = { 0, n_texts };
    noema_status st = nm_session_tokenize(s, n_texts, texts, lengths, &ids, err);
    j.texts = &ids;
    j.own = can & NOEMA_TASK_PAIR ? pair : NULL;
    if (st == NOEMA_OK)
        st = can & NOEMA_TASK_PAIR ? each_batch(&j, 2, 2, pair_batch, errors, err)
                                   : each_batch(&j, n, batch_size(s->model->m), match_batch, errors, err);
    return st;
}

static noema_status match_own(job *j, size_t n, const char *const *texts, noema_error *errors, noema_error *err)
{
    noema_session *s = j->s;
    unsigned can = noema_model_tasks(s->model);
    nm_texts ids;
    if (!(can & NOEMA_TASK_PAIR) && j->match->head != 2) {
        if (!s->model->m->has_image || !s->model->m->has_text)
            return nm_fail(err, NOEMA_E_UNSUPPORTED, "%s has no vectors of pictures and texts to compare", s->model->name);
        return match_itc(j, n, texts, NULL, errors, err);
    }
    if (!(can & (NOEMA_TASK_PAIR | NOEMA_TASK_ITM)))
        return nm_fail(err, NOEMA_E_UNSUPPORTED, "%s has no ITM head", s->model->name);
    noema_status st = nm_session_tokenize(s, j->n_texts, texts, NULL, &ids, err);
    size_t batch = batch_size(s->model->m);
    j->texts = &ids;
    if (st == NOEMA_OK)
        st = can & NOEMA_TASK_PAIR ? each_batch(j, n, batch < 2 ? 2 : batch & ~(size_t)1, pair_batch, errors, err)
                                   : each_batch(j, n, batch, match_batch, errors, err);
    return st;
}

noema_status noema_match_own(noema_session *s, size_t n, const noema_picture *pictures, const size_t *first, const char *const *texts,
                             const noema_match_options *o, float *scores, float *probs, noema_error *errors, noema_error *err)
{
    noema_error local = NOEMA_ERROR_INIT;
    noema_match_options own = { .struct_size = sizeof own };
    float *none = NULL;
    if (!err)
        err = &local;
    if (!s || !n || !pictures || !first || first[0] || !texts || !scores)
        return nm_fail(err, NOEMA_E_ARGUMENT, "noema_match_own: a session, pictures, texts and room for the results are needed");
    bool pairs = noema_model_tasks(s->model) & NOEMA_TASK_PAIR;
    size_t rows = pairs ? n / 2 : n;
    if (pairs && n % 2)
        return nm_fail(err, NOEMA_E_ARGUMENT, "%s takes pairs of pictures, got %zu", s->model->name, n);
    for (size_t i = 0; i < rows; i++)
        if (first[i + 1] < first[i])
            return nm_fail(err, NOEMA_E_ARGUMENT, "noema_match_own: picture %zu has the texts %zu to %zu", i, first[i], first[i + 1]);
    if (!first[rows])
        return nm_fail(err, NOEMA_E_ARGUMENT, "noema_match_own: no texts");
    if (take_match_options(&own, o, err) != NOEMA_OK)
        return err->code;
    if (!probs && !(probs = none = nm_malloc_array(first[rows], sizeof *none)))
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory: %zu texts", first[rows]);
    job j = { .s = s, .pictures = pictures, .t = tasks_of(s->model), .match = &own, .scores = scores, .probs = probs, .n_texts = first[rows], .own = first };
    noema_status st = match_own(&j, n, texts, errors, err);
    free(none);
    return st;
}

/* ---- text ---- */

static noema_status check_options(const noema_generate_options *o, noema_error *err)
{
    if (!o)
        return NOEMA_OK;
    if (o->struct_size < offsetof(noema_generate_options, reserved))
        return nm_fail(err, NOEMA_E_ARGUMENT, "noema_generate_options: struct_size is %zu", o->struct_size);
    if (o->beam_rule != 0 && o->beam_rule != NM_RELEASE_4_15 && o->beam_rule != NM_RELEASE_4_33 && o->beam_rule != NM_RELEASE_5)
        return nm_fail(err, NOEMA_E_ARGUMENT, "noema_generate_options: beam_rule is %d, expected 415, 433 or 500", o->beam_rule);
    if (o->beams < 0 || o->n_best < 0 || o->top_k < 0 || o->candidates < 0 || o->first_token < 0 || o->first_token > 2)
        return nm_fail(err, NOEMA_E_ARGUMENT, "noema_generate_options: a negative number");
    return NOEMA_OK;
}

/* Good pictures of the batch move together, so that bad ones cost nothing; at[k] is where picture k was. */
static size_t compact(const job *j, size_t n, float *tensors, const bool *ok, size_t *at)
{
    const nm_model *m = j->s->model->m;
    size_t floats = 3 * (size_t)m->image_height * (size_t)m->image_width, k = 0;
    for (size_t i = 0; i < n; i++) {
        if (!ok[i])
            continue;
        if (k != i)
            memcpy(tensors + k * floats, tensors + i * floats, floats * sizeof *tensors);
        at[k++] = i;
    }
    return k;
}

static noema_status text_batch(void *arg, size_t first, size_t n, float *tensors, const bool *ok, noema_error *err)
{
    job *j = arg;
    size_t at[16], k = compact(j, n, tensors, ok, at);
    const char *questions[16];
    uint64_t seeds[16];
    noema_generate_options o = *j->generate;
    noema_generated out[16] = { { 0 } };
    if (k == 0)
        return NOEMA_OK;
    for (size_t i = 0; o.seeds && i < k; i++)
        seeds[i] = o.seeds[first + at[i]];
    o.seeds = o.seeds ? seeds : NULL;
    for (size_t i = 0; j->questions && i < k; i++)
        questions[i] = j->questions[first + at[i]];
    nm_tensor pixels = as_pixels(j, k, tensors);
    noema_status st = j->questions ? j->t->ask(j->s, pixels, questions, &o, out, err) : j->t->caption(j->s, pixels, &o, out, err);
    for (size_t i = 0; st == NOEMA_OK && i < k; i++)
        j->out[first + at[i]] = out[i];
    if (st != NOEMA_OK)
        noema_generated_free(out, k);
    return st;
}

/* The beginning that the wanted language has in the model's configuration becomes the prompt, before the caller's own. */
static noema_status choose_language(const noema_session *s, noema_generate_options *o, char **prompt, noema_error *err)
{
    const nm_tasks *t = tasks_of(s->model);
    json_t *known = t->languages ? (json_t *)(uintptr_t)t->languages(s->model->m) : NULL, *v;
    const char *begin = NULL, *key;
    nm_buf list = { 0 };
    if (!json_object_size(known))
        return o->language ? nm_fail(err, NOEMA_E_UNSUPPORTED, "%s names no languages to choose from", s->model->name) : NOEMA_OK;
    if (!o->language && o->prompt)
        return NOEMA_OK;
    json_object_foreach(known, key, v) {
        nm_buf_printf(&list, "%s%s", list.len ? ", " : "", key);
        if (!begin && json_is_string(v) && (!o->language || strcmp(key, o->language) == 0))
            begin = json_string_value(v);
    }
    noema_status st = begin ? NOEMA_OK : nm_fail(err, NOEMA_E_ARGUMENT, "%s writes captions in %.300s; got \"%s\"", s->model->name, list.data ? list.data : "?", o->language ? o->language : "");
    nm_buf_free(&list);
    if (st != NOEMA_OK)
        return st;
    *prompt = o->prompt ? nm_sprintf("%s %s", begin, o->prompt) : nm_strdup(begin);
    o->prompt = *prompt;
    return *prompt ? NOEMA_OK : nm_fail(err, NOEMA_E_MEMORY, "out of memory: prompt");
}

static noema_status write_texts(noema_session *s, unsigned task, size_t n, const noema_picture *pictures, const char *const *questions,
                                const noema_generate_options *o, noema_generated *out, noema_error *errors, noema_error *err)
{
    noema_error local = NOEMA_ERROR_INIT;
    noema_generate_options own;
    if (!err)
        err = &local;
    if (!s || (n && (!pictures || !out)) || (task == NOEMA_TASK_ASK && n && !questions))
        return nm_fail(err, NOEMA_E_ARGUMENT, "noema_caption, noema_ask: a session, pictures, questions and room for the results are needed");
    noema_status st = check_options(o, err);
    if (st != NOEMA_OK)
        return st;
    if (!(noema_model_tasks(s->model) & task))
        return nm_fail(err, NOEMA_E_UNSUPPORTED, task == NOEMA_TASK_ASK ? "%s answers no questions" : "%s writes no captions", s->model->name);
    noema_generate_options_default(&own);
    if (o)
        own = *o;
    char *prompt = NULL;
    memset(out, 0, n * sizeof *out);
    job j = { .s = s, .pictures = pictures, .t = tasks_of(s->model), .generate = &own, .questions = questions, .out = out };
    st = task == NOEMA_TASK_CAPTION ? choose_language(s, &own, &prompt, err) : NOEMA_OK;
    if (st == NOEMA_OK && n)
        st = each_batch(&j, n, batch_size(s->model->m), text_batch, errors, err);
    free(prompt);
    if (st != NOEMA_OK)
        noema_generated_free(out, n);
    return st;
}

noema_status noema_caption(noema_session *s, size_t n, const noema_picture *pictures, const noema_generate_options *o, noema_generated *out,
                           noema_error *errors, noema_error *err)
{
    return write_texts(s, NOEMA_TASK_CAPTION, n, pictures, NULL, o, out, errors, err);
}

noema_status noema_ask(noema_session *s, size_t n, const noema_picture *pictures, const char *const *questions, const noema_generate_options *o,
                       noema_generated *out, noema_error *errors, noema_error *err)
{
    for (size_t i = 0; questions && i < n; i++)
        if (!questions[i])
            return nm_fail(err, NOEMA_E_ARGUMENT, "question %zu is NULL", i);
    return write_texts(s, NOEMA_TASK_ASK, n, pictures, questions, o, out, errors, err);
}
