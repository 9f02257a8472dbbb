/* blip2_loss.c - see blip2_loss.h.
 *
 * Easy to get wrong: a picture's similarity is that of its best query, and only that query gets a gradient; `temp` divides and is not
 * clamped; the pass that gives ITC its queries also gives ITG its keys and values, so one blind pass serves both. */
#include "train/blip2_loss.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "nn/ops.h"
#include "train/loss.h"

/* ---- parameters ---- */

noema_status nm_blip2_train_new(nm_blip2_train **out, nm_blip2 *m, noema_error *err)
{
    nm_blip2_train *t = calloc(1, sizeof *t);
    *out = NULL;
    if (!t)
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory: trainer");
    t->m = m;
    t->label_smoothing = 0.1;
    m->parts = NM_BLIP2_BODY;
    noema_status st = nm_tied_collect(&t->tied, m->base.family->declare, m, NM_BLIP2_OFFICIAL, err);
    m->parts = NM_BLIP2_ALL;
    if (st != NOEMA_OK) {
        nm_blip2_train_free(t);
        return st;
    }
    nm_tied_join(&t->tied, "Qformer.bert.embeddings.word_embeddings.weight", "Qformer.cls.predictions.decoder.weight");
    nm_tied_join(&t->tied, "Qformer.cls.predictions.bias", "Qformer.cls.predictions.decoder.bias");
    nm_tied_attach(&t->tied);
    nm_blip2_train_changed(t);
    *out = t;
    return NOEMA_OK;
}

void nm_blip2_train_free(nm_blip2_train *t)
{
    if (t)
        nm_tied_free(&t->tied);
    free(t);
}

void nm_blip2_train_changed(nm_blip2_train *t)
{
    nm_tied_changed(&t->tied);
    t->m->cfg.temp = nm_has(&t->m->temp) ? t->m->temp.f32[0] : 0;
}

/* ---- ITC ---- */

/* Similarities of n pictures (the best of their queries) with n texts, divided by temp: sim[picture * n + text]; best: which query. */
typedef struct similarity { int64_t n, queries, dim; const float *images, *texts; double temp, *sim, *d; int64_t *best; } similarity;

static bool compare(nm_run *r, similarity *s)
{
    s->sim = nm_scratch(r, (size_t)(s->n * s->n) * sizeof *s->sim);
    s->d = nm_scratch(r, (size_t)(s->n * s->n) * sizeof *s->d);
    s->best = nm_scratch(r, (size_t)(s->n * s->n) * sizeof *s->best);
    for (int64_t i = 0; nm_run_ok(r) && i < s->n; i++)
        for (int64_t j = 0; j < s->n; j++) {
            double most = -INFINITY;
            for (int64_t q = 0; q < s->queries; q++) {
                double dot = 0;
                for (int64_t c = 0; c < s->dim; c++)
                    dot += (double)s->images[(i * s->queries + q) * s->dim + c] * (double)s->texts[j * s->dim + c];
                if (dot > most) {
                    most = dot;
                    s->best[i * s->n + j] = q;
                }
            }
            s->sim[i * s->n + j] = most / s->temp;
            s->d[i * s->n + j] = 0;
        }
    return nm_run_ok(r);
}

/* The share of text (or picture) j in the targets of i. */
static double target(const nm_blip2_train *t, const nm_blip2_batch *b, int64_t i, int64_t j)
{
    double same = 1, e = t->label_smoothing;
    bool hit = i == j;
    if (b->image_id) {
        same = 0;
        for (int64_t k = 0; k < b->n; k++)
            same += b->image_id[k] == b->image_id[i];
        hit = b->image_id[i] == b->image_id[j];
    }
    return (hit ? (1 - e) / same : 0) + e / (double)b->n;
}

/* Mean cross-entropy of the rows (pictures) or columns (texts); adds half of its gradient to s->d. */
static double direction(const nm_blip2_train *t, const nm_blip2_batch *b, const similarity *s, bool rows)
{
    int64_t n = s->n, step = rows ? 1 : n, next = rows ? n : 1;
    double loss = 0;
    for (int64_t i = 0; i < n; i++) {
        const double *z = s->sim + i * next;
        double most = -INFINITY, sum = 0;
        for (int64_t j = 0; j < n; j++)
            most = z[j * step] > most ? z[j * step] : most;
        for (int64_t j = 0; j < n; j++)
            sum += exp(z[j * step] - most);
        double lse = most + log(sum);
        for (int64_t j = 0; j < n; j++) {
            double y = target(t, b, i, j);
            loss += y * (lse - z[j * step]) / (double)n;
            s->d[i * next + j * step] += (exp(z[j * step] - lse) - y) / (2 * (double)n);
        }
    }
    return loss;
}

/* From s->d into the features and temp. */
static void spread(nm_run *r, nm_blip2_train *t, const similarity *s, const nm_tensor *images, const nm_tensor *texts)
{
    float *di = nm_grad_data(r, images), *dt = nm_grad_data(r, texts);
    double d_temp = 0;
    for (int64_t i = 0; di && dt && i < s->n; i++)
        for (int64_t j = 0; j < s->n; j++) {
            double d = s->d[i * s->n + j];
            int64_t row = (i * s->queries + s->best[i * s->n + j]) * s->dim;
            for (int64_t c = 0; c < s->dim; c++) {
                di[row + c] += (float)(d / s->temp * (double)s->texts[j * s->dim + c]);
                dt[j * s->dim + c] += (float)(d / s->temp * (double)s->images[row + c]);
            }
            d_temp -= d * s->sim[i * s->n + j] / s->temp;
        }
    float *g = t->m->temp.grad ? nm_weight_grad(r, &t->m->temp) : NULL;
    if (g)
        g[0] += (float)d_temp;
}

/* ---- negatives ---- */

static bool excluded(const nm_blip2_batch *b, int64_t i, int64_t j) { return b->image_id ? b->image_id[i] == b->image_id[j] : i == j; }

/* Softmax of a row (or column) without the own and equal ones, into w [n]. */
static void draw_weights(const nm_blip2_batch *b, const similarity *s, int64_t i, bool rows, double *w)
{
    double most = -INFINITY, sum = 0;
    for (int64_t j = 0; j < s->n; j++) {
        w[j] = excluded(b, i, j) ? -10000 : rows ? s->sim[i * s->n + j] : s->sim[j * s->n + i];
        most = w[j] > most ? w[j] : most;
    }
    for (int64_t j = 0; j < s->n; j++)
        sum += w[j] = exp(w[j] - most);
    for (int64_t j = 0; j < s->n; j++)
        w[j] /= sum;
}

static int64_t draw(nm_run *r, const double *w, int64_t n)
{
    double u = (double)nm_rng_uniform(&r->rng), sum = 0;
    for (int64_t j = 0; j < n; j++)
        if (u < (sum += w[j]))
            return j;
    return n - 1;
}

/* Hard negatives: a picture for every text, a text for every picture. */
static bool negatives(nm_run *r, const nm_blip2_batch *b, const similarity *s, nm_blip2_losses *out, int64_t **image, int64_t **text)
{
    double *w = nm_scratch(r, (size_t)b->n * sizeof *w);
    *image = nm_scratch(r, (size_t)b->n * sizeof **image);
    *text = nm_scratch(r, (size_t)b->n * sizeof **text);
    for (int64_t i = 0; nm_run_ok(r) && i < b->n; i++)
        for (int k = 0; k < 2; k++) {
            const int64_t *given = k ? b->negative_text : b->negative_image;
            double *room = k ? out->weights_i2t : out->weights_t2i;
            draw_weights(b, s, i, k, w);
            if (room)
                memcpy(room + i * b->n, w, (size_t)b->n * sizeof *w);
            (k ? *text : *image)[i] = given ? given[i] : draw(r, w, b->n);
        }
    return nm_run_ok(r);
}

/* ---- passes ---- */

/* [start, start + tokens) of each chosen picture, one after another. */
static nm_tensor chosen_states(nm_run *r, nm_tensor states, const int64_t *picture, int64_t n)
{
    if (!states.data)
        return states;
    int64_t tokens = states.shape[1], *rows = nm_scratch(r, (size_t)(n * tokens) * sizeof *rows);
    for (int64_t i = 0; rows && i < n * tokens; i++)
        rows[i] = picture[i / tokens] * tokens + i % tokens;
    return rows ? nm_gather_rows(r, nm_flatten(states, 2), rows, n * tokens) : (nm_tensor){ 0 };
}

/* Picture picture[i] with text text[i], bidirectional: logits f32 [n, 2], the mean over the queries. */
static nm_tensor itm_logits(nm_run *r, const nm_blip2 *m, nm_tensor states, const nm_med_rows *texts, const int64_t *picture, const int64_t *text,
                            int64_t n)
{
    int64_t rows = 0, q = m->cfg.qformer.queries;
    for (int64_t i = 0; i < n; i++)
        rows += texts->offsets[text[i] + 1] - texts->offsets[text[i]];
    nm_med_rows l = { .n = n, .rows = rows, .ids = nm_scratch(r, (size_t)rows * 4), .pos = nm_scratch(r, (size_t)rows * 4),
                      .offsets = nm_scratch(r, (size_t)(n + 1) * 8) };
    nm_tensor chosen = chosen_states(r, states, picture, n);
    if (!nm_run_ok(r))
        return (nm_tensor){ 0 };
    l.offsets[0] = 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t from = texts->offsets[text[i]], k = texts->offsets[text[i] + 1] - from;
        memcpy(l.ids + l.offsets[i], texts->ids + from, (size_t)k * 4);
        memcpy(l.pos + l.offsets[i], texts->pos + from, (size_t)k * 4);
        l.offsets[i + 1] = l.offsets[i] + k;
    }
    nm_med_context image = { .states = chosen, .n = n, .q_offsets = nm_every_row(r, n + 1, q, 0), .k_offsets = nm_every_row(r, n + 1, states.shape[1], 0) };
    nm_tensor x = nm_qformer_forward(r, &m->qformer, &m->cfg.qformer, &(nm_qformer_input){ .items = n, .text = &l, .image = &image }).query;
    x = nm_linear(r, x, &m->itm_head, (nm_epilogue){ .f32 = true });
    return x.data ? nm_mean_rows(r, x, nm_every_row(r, n + 1, q, 0), n) : x;
}

/* (picture, text), (negative picture, text), (picture, negative text); only the first third belongs together. */
static double itm(nm_run *r, const nm_blip2 *m, const nm_blip2_batch *b, nm_tensor states, const nm_med_rows *texts, const int64_t *image,
                  const int64_t *text)
{
    int64_t n = b->n, *p = nm_scratch(r, (size_t)(3 * n) * sizeof *p), *t = nm_scratch(r, (size_t)(3 * n) * sizeof *t);
    int64_t *label = nm_scratch(r, (size_t)(3 * n) * sizeof *label);
    for (int64_t i = 0; nm_run_ok(r) && i < 3 * n; i++) {
        p[i] = i / n == 1 ? image[i % n] : i % n;
        t[i] = i / n == 2 ? text[i % n] : i % n;
        label[i] = i < n;
    }
    nm_tensor logits = nm_run_ok(r) ? itm_logits(r, m, states, texts, p, t, 3 * n) : (nm_tensor){ 0 };
    return nm_rows_loss(r, &logits, label, 0, NULL, 1 / (3 * (double)n));
}

/* Labels of rows that predict the next id of their text; the last row of each predicts nothing. Returns how many count. */
static int64_t next_ids(const int32_t *ids, const int64_t *offsets, int64_t n, int64_t *label)
{
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = offsets[i]; j < offsets[i + 1]; j++) {
            bool last = j + 1 == offsets[i + 1];
            label[j] = last ? NM_NO_LABEL : ids[j + 1];
            count += !last;
        }
    return count;
}

double nm_blip2_stage1_loss(nm_run *r, nm_blip2_train *t, const nm_blip2_batch *b, nm_blip2_losses *out)
{
    const nm_blip2 *m = t->m;
    const nm_qformer_cfg *c = &m->cfg.qformer;
    nm_med_rows cls, dec;
    int64_t n = b->n, q = c->queries, *image, *text;
    if (!m->cfg.has_itc || !m->cfg.has_itm || !c->head || !m->cfg.has_temp) {
        nm_run_fail(r, NOEMA_E_UNSUPPORTED, "stage 1 trains a checkpoint with vision_proj, itm_head, cls.predictions and temp");
        return NAN;
    }
    if (!nm_med_layout(r, &cls, &b->texts, -1, b->max_ids) || !nm_med_layout(r, &dec, &b->texts, b->dec, b->max_ids))
        return NAN;
    nm_tensor pixels = nm_view((void *)(uintptr_t)b->pixels, NM_F32, NM_SHAPE(n, 3, m->base.image_height, m->base.image_width));
    nm_tensor states = nm_blip2_image_states(r, m, pixels);
    if (!states.data)
        return NAN;
    nm_med_context look = { .states = nm_flatten(states, 2), .n = n, .q_offsets = nm_every_row(r, n + 1, q, 0),
                            .k_offsets = nm_every_row(r, n + 1, states.shape[1], 0) };
    nm_qformer_states blind = nm_qformer_forward(r, &m->qformer, c, &(nm_qformer_input){ .items = n, .text = &dec, .image = &look, .blind = true });
    nm_tensor words = nm_qformer_forward(r, &m->qformer, c, &(nm_qformer_input){ .text = &cls }).text;
    nm_tensor images = nm_normalize(r, nm_linear(r, blind.query, &m->vision_proj, (nm_epilogue){ .f32 = true }), 1e-12f);
    nm_tensor texts = nm_normalize(r, nm_linear(r, nm_med_first(r, words, &cls), &m->text_proj, (nm_epilogue){ .f32 = true }), 1e-12f);
    similarity s = { .n = n, .queries = q, .dim = m->cfg.embed_dim, .images = images.data, .texts = texts.data, .temp = (double)m->temp.f32[0] };
    if (!nm_run_ok(r) || !compare(r, &s))
        return NAN;
    out->itc = (direction(t, b, &s, true) + direction(t, b, &s, false)) / 2;
    spread(r, t, &s, &images, &texts);
    if (!negatives(r, b, &s, out, &image, &text))
        return NAN;
    out->itm = itm(r, m, b, states, &cls, image, text);
    nm_tensor logits = nm_qformer_logits(r, &m->qformer, c, blind.text);
    int64_t *label = nm_scratch(r, (size_t)dec.rows * sizeof *label);
    if (!label)
        return NAN;
    int64_t count = next_ids(dec.ids, dec.offsets, n, label);
    out->lm = nm_rows_loss(r, &logits, label, t->label_smoothing, NULL, 1 / (double)(count ? count : 1));
    if (nm_run_ok(r))
        nm_backward(r);
    out->total = out->itc + out->itm + out->lm;
    return nm_run_ok(r) ? out->total : NAN;
}

/* ---- stage 2 ---- */

/* OPT reads the queries and the text; rows of the queries but the last predict nothing, nor do those inside the prompt. */
static double opt_loss(nm_run *r, const nm_blip2 *m, const nm_blip2_batch *b, nm_tensor queries)
{
    nm_blip2_prefix p = nm_blip2_prefix_rows(r, m, queries, &b->texts);
    if (!p.rows.data)
        return NAN;
    int64_t q = m->cfg.qformer.queries, count = 0, rows = p.offsets[b->n], *label = nm_scratch(r, (size_t)rows * sizeof *label);
    for (int64_t i = 0; label && i < b->n; i++)
        for (int64_t j = p.offsets[i]; j < p.offsets[i + 1]; j++) {
            int64_t next = j + 1 - p.offsets[i] - q; /* in the text */
            bool counts = next >= b->prompt_ids && j + 1 < p.offsets[i + 1] && next >= 0;
            label[j] = counts ? b->texts.ids[b->texts.offsets[i] + next] : NM_NO_LABEL;
            count += counts;
        }
    nm_tensor x = nm_opt_step(r, &m->opt, &m->cfg.opt, NULL, b->n, NULL, p.rows, p.offsets);
    nm_tensor logits = nm_opt_logits(r, &m->opt, &m->cfg.opt, x);
    return label ? nm_rows_loss(r, &logits, label, 0, NULL, 1 / (double)(count ? count : 1)) : NAN;
}

/* T5's decoder gets its labels one place later, behind its start id. */
static double t5_loss(nm_run *r, const nm_blip2 *m, const nm_blip2_batch *b, nm_tensor queries)
{
    const nm_texts *y = &b->targets;
    int64_t rows = y->offsets[y->n] - y->offsets[0], *label = nm_scratch(r, (size_t)rows * sizeof *label), *offsets = nm_scratch(r, (size_t)(y->n + 1) * 8);
    int32_t *ids = nm_scratch(r, (size_t)rows * sizeof *ids);
    nm_blip2_prefix p = nm_blip2_prefix_rows(r, m, queries, &b->texts);
    nm_tensor *memory = p.rows.data ? nm_t5_project(r, &m->t5, &m->cfg.t5, p.rows) : NULL;
    if (!nm_run_ok(r) || !memory)
        return NAN;
    for (int64_t i = 0; i <= y->n; i++)
        offsets[i] = y->offsets[i] - y->offsets[0];
    for (int64_t i = 0; i < y->n; i++)
        for (int64_t j = offsets[i]; j < offsets[i + 1]; j++) {
            label[j] = y->ids[y->offsets[0] + j];
            ids[j] = j == offsets[i] ? m->cfg.bos : (int32_t)label[j - 1];
        }
    nm_tensor x = nm_t5_step(r, &m->t5, &m->cfg.t5, NULL, memory, p.offsets, y->n, NULL, nm_blip2_words(r, m, ids, rows), offsets);
    nm_tensor logits = nm_t5_logits(r, &m->t5, &m->cfg.t5, x);
    return nm_rows_loss(r, &logits, label, 0, NULL, 1 / (double)rows);
}

double nm_blip2_stage2_loss(nm_run *r, nm_blip2_train *t, const nm_blip2_batch *b)
{
    const nm_blip2 *m = t->m;
    if (!m->cfg.lm) {
        nm_run_fail(r, NOEMA_E_UNSUPPORTED, "stage 2 trains a checkpoint with a language model");
        return NAN;
    }
    nm_tensor pixels = nm_view((void *)(uintptr_t)b->pixels, NM_F32, NM_SHAPE(b->n, 3, m->base.image_height, m->base.image_width));
    nm_tensor queries = nm_blip2_queries(r, m, nm_blip2_image_states(r, m, pixels), NULL);
    double loss = m->cfg.lm == NM_LM_OPT ? opt_loss(r, m, b, queries) : t5_loss(r, m, b, queries);
    if (nm_run_ok(r))
        nm_backward(r);
    return nm_run_ok(r) ? loss : NAN;
}
