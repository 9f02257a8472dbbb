/* blip_loss.c - see blip_loss.h.
 *
 * Easy to get wrong: the momentum encoders move before they are used; the queues are filled after ITC; `temp` divides and is clamped
 * in every forward; pre-training draws negatives from softmax + 1e-4, retrieval from the online features without it. */
#include "train/blip_loss.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "nn/ops.h"
#include "train/loss.h"
#include "train/optim.h"

static void move_momentum(nm_blip_train *t)
{
    for (size_t i = 0; i < t->tied.n; i++)
        if (t->slow[i]) {
            nm_ema_update(NULL, t->tied.params[i].n, t->slow[i]->f32, t->tied.params[i].w->f32, t->decay);
            nm_weight_changed(t->slow[i]);
        }
}

/* ---- ITC ---- */

/* Logits of rows a [n, dim] against the batch's and the queue's vectors, divided by temp: [n, n + queue]. */
static double *itc_logits(nm_run *r, const nm_blip_train *t, int64_t n, const float *a, const float *batch, const float *queue, double temp)
{
    int64_t dim = t->m->cfg.embed_dim, all = n + t->queue_size;
    double *z = nm_scratch(r, (size_t)(n * all) * sizeof *z);
    for (int64_t i = 0; z && i < n; i++)
        for (int64_t j = 0; j < all; j++) {
            const float *b = j < n ? batch + j * dim : queue + (j - n) * dim;
            double s = 0;
            for (int64_t c = 0; c < dim; c++)
                s += (double)a[i * dim + c] * (double)b[c];
            z[i * all + j] = s / temp;
        }
    return z;
}

static void softmax(const double *z, int64_t n, double *p)
{
    double most = -INFINITY, sum = 0;
    for (int64_t j = 0; j < n; j++)
        most = z[j] > most ? z[j] : most;
    for (int64_t j = 0; j < n; j++)
        sum += p[j] = exp(z[j] - most);
    for (int64_t j = 0; j < n; j++)
        p[j] /= sum;
}

/* One-hot targets, or uniform over all entries with the same picture id. */
static double hard_target(const nm_blip_train *t, const nm_blip_batch *b, int64_t i, int64_t j)
{
    if (!b->idx)
        return i == j;
    int64_t same = 0, id = b->idx[i];
    for (int64_t k = 0; k < b->n; k++)
        same += b->idx[k] == id;
    for (int64_t k = 0; k < t->queue_size; k++)
        same += t->idx_queue[k] == id;
    return (j < b->n ? b->idx[j] : t->idx_queue[j - b->n]) == id ? 1 / (double)same : 0;
}

/* One direction: soft cross-entropy of `online` rows against the momentum vectors `batch` and `queue`. */
static double itc_direction(nm_run *r, nm_blip_train *t, const nm_blip_batch *b, const nm_tensor *online, const float *own, const float *batch, const float *queue,
                            double temp, double *d_temp)
{
    int64_t n = b->n, all = n + t->queue_size, dim = t->m->cfg.embed_dim;
    double *z = itc_logits(r, t, n, online->data, batch, queue, temp), *soft = itc_logits(r, t, n, own, batch, queue, temp), loss = 0;
    double *p = nm_scratch(r, (size_t)all * sizeof *p);
    float *d = nm_grad_data(r, online);
    if (!z || !soft || !p || !d)
        return NAN;
    for (int64_t i = 0; i < n; i++) {
        softmax(soft + i * all, all, soft + i * all);
        softmax(z + i * all, all, p);
        for (int64_t j = 0; j < all; j++) {
            double target = b->alpha * soft[i * all + j] + (1 - b->alpha) * hard_target(t, b, i, j);
            loss -= target * log(p[j] > 1e-300 ? p[j] : 1e-300);
            /* the two directions are averaged: d loss / d logit */
            double g = (p[j] - target) / (2 * (double)n);
            const float *v = j < n ? batch + j * dim : queue + (j - n) * dim;
            *d_temp -= g * z[i * all + j] / temp;
            for (int64_t c = 0; c < dim; c++)
                d[i * dim + c] += (float)(g * (double)v[c] / temp);
        }
    }
    return loss / (2 * (double)n);
}

static void fill_queues(nm_blip_train *t, const nm_blip_batch *b, const float *images, const float *texts)
{
    int64_t dim = t->m->cfg.embed_dim;
    for (int64_t i = 0; i < b->n; i++) {
        int64_t at = (t->ptr + i) % t->queue_size;
        memcpy(t->image_queue + at * dim, images + i * dim, (size_t)dim * sizeof(float));
        memcpy(t->text_queue + at * dim, texts + i * dim, (size_t)dim * sizeof(float));
        if (b->idx)
            t->idx_queue[at] = b->idx[i];
    }
    t->ptr = (t->ptr + b->n) % t->queue_size;
}

/* ---- ITM ---- */

/* Row i: probabilities of drawing j as the negative of i. */
static void draw_weights(const nm_blip_train *t, const nm_blip_batch *b, const float *a, const float *other, double temp, double *w)
{
    int64_t n = b->n, dim = t->m->cfg.embed_dim;
    for (int64_t i = 0; i < n; i++) {
        for (int64_t j = 0; j < n; j++) {
            double s = 0;
            for (int64_t c = 0; c < dim; c++)
                s += (double)a[i * dim + c] * (double)other[j * dim + c];
            w[i * n + j] = s / temp;
        }
        softmax(w + i * n, n, w + i * n);
        for (int64_t j = 0; j < n; j++)
            w[i * n + j] = b->idx ? (b->idx[i] == b->idx[j] ? 0 : w[i * n + j]) : i == j ? 0 : w[i * n + j] + 1e-4;
    }
}

static int64_t draw(nm_rng *g, const double *w, int64_t n)
{
    double sum = 0, at;
    int64_t last = 0;
    for (int64_t j = 0; j < n; j++)
        sum += w[j];
    at = nm_rng_uniform(g) * sum;
    for (int64_t j = 0; j < n; j++) {
        if (w[j] <= 0)
            continue;
        last = j;
        if ((at -= w[j]) < 0)
            break;
    }
    return last;
}

/* Texts pick[0..n) of t as a batch of their own. */
static bool pick_texts(nm_run *r, nm_texts *out, const nm_texts *t, const int64_t *pick, int64_t n)
{
    int64_t total = 0, *offsets = nm_scratch(r, (size_t)(n + 1) * sizeof *offsets);
    for (int64_t i = 0; i < n; i++)
        total += t->offsets[pick[i] + 1] - t->offsets[pick[i]];
    int32_t *ids = nm_scratch(r, (size_t)total * sizeof *ids + 1);
    if (!ids || !offsets)
        return false;
    offsets[0] = 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t len = t->offsets[pick[i] + 1] - t->offsets[pick[i]];
        memcpy(ids + offsets[i], t->ids + t->offsets[pick[i]], (size_t)len * sizeof *ids);
        offsets[i + 1] = offsets[i] + len;
    }
    *out = (nm_texts){ .n = n, .offsets = offsets, .ids = ids, .pad_id = t->pad_id };
    return true;
}

/* States [n, tokens, width] of the pictures pick[0..k), each as [tokens, width] rows of one tensor. */
static nm_tensor pick_states(nm_run *r, nm_tensor states, const int64_t *pick, int64_t k)
{
    if (!states.data)
        return states;
    int64_t n = states.shape[0], tokens = states.shape[1], width = states.shape[2];
    nm_tensor x = nm_gather_rows(r, nm_reshape(states, NM_SHAPE(n, tokens * width)), pick, k);
    return nm_reshape(x, NM_SHAPE(k * tokens, width));
}

static double itm_loss(nm_run *r, nm_blip_train *t, const nm_blip_batch *b, nm_tensor states, const int64_t *negative_image, const int64_t *negative_text)
{
    int64_t n = b->n, *texts = nm_scratch(r, (size_t)(9 * n) * sizeof *texts), *images = texts ? texts + 3 * n : NULL, *label = texts ? texts + 6 * n : NULL;
    nm_texts all;
    nm_med_rows l;
    for (int64_t i = 0; texts && i < n; i++) {
        texts[i] = texts[n + i] = images[i] = images[2 * n + i] = i;
        images[n + i] = negative_image[i];
        texts[2 * n + i] = negative_text[i];
        label[i] = 1;
        label[n + i] = label[2 * n + i] = 0;
    }
    if (!texts || !pick_texts(r, &all, &b->texts, texts, 3 * n) || !nm_med_layout(r, &l, &all, b->enc, b->max_ids))
        return NAN;
    nm_med_context context = { .states = pick_states(r, states, images, 3 * n), .n = 3 * n, .q_offsets = l.offsets,
                               .k_offsets = nm_every_row(r, 3 * n + 1, states.shape[1], 0) };
    nm_tensor x = nm_med_first(r, nm_med_forward(r, &t->m->encoder, &t->m->cfg.encoder, &l, false, &context), &l);
    nm_tensor logits = nm_linear(r, x, &t->m->itm_head, (nm_epilogue){ .f32 = true });
    return nm_rows_loss(r, &logits, label, 0, NULL, 1 / (double)(3 * n));
}

/* ---- LM ---- */

/* Labels of rows: the next id of the same text; none at its end and before `skip`. Returns how many count. */
static int64_t next_ids(const nm_med_rows *l, int64_t skip, int64_t *label)
{
    int64_t count = 0;
    for (int64_t s = 0; s < l->n; s++)
        for (int64_t i = l->offsets[s]; i < l->offsets[s + 1]; i++) {
            bool counts = i + 1 < l->offsets[s + 1] && i + 1 - l->offsets[s] >= skip;
            label[i] = counts ? l->ids[i + 1] : NM_NO_LABEL;
            count += counts;
        }
    return count;
}

static double lm_loss(nm_run *r, nm_blip_train *t, const nm_blip_batch *b, nm_tensor states)
{
    nm_med_rows l;
    if (!states.data || !nm_med_layout(r, &l, &b->texts, b->dec, b->max_ids))
        return NAN;
    int64_t *label = nm_scratch(r, (size_t)l.rows * sizeof *label + 1), count = label ? next_ids(&l, b->prompt_ids, label) : 0;
    nm_med_context context = { .states = nm_flatten(states, 2), .n = l.n, .q_offsets = l.offsets,
                               .k_offsets = nm_every_row(r, l.n + 1, states.shape[1], 0) };
    nm_tensor x = nm_med_forward(r, &t->m->decoder, &t->m->cfg.decoder, &l, true, &context);
    nm_tensor logits = nm_med_logits(r, &t->m->lm, &t->m->cfg.decoder, x);
    return label && count ? nm_rows_loss(r, &logits, label, t->label_smoothing, NULL, 1 / (double)count) : NAN;
}

/* ---- the losses ---- */

/* Unit vectors of the ITC space, pictures and texts. */
typedef struct features { nm_tensor states, image, text; } features;

static features encode(nm_run *r, const nm_blip *m, const nm_blip_batch *b)
{
    nm_tensor pixels = nm_view((void *)(uintptr_t)b->pixels, NM_F32, NM_SHAPE(b->n, 3, m->base.image_height, m->base.image_width));
    features f = { .states = nm_blip_image_states(r, m, pixels) };
    nm_med_rows l;
    f.image = nm_blip_image_features(r, m, f.states);
    if (nm_run_ok(r) && nm_med_layout(r, &l, &b->texts, -1, b->max_ids)) {
        nm_tensor x = nm_med_first(r, nm_med_forward(r, &m->encoder, &m->cfg.encoder, &l, false, NULL), &l);
        f.text = nm_normalize(r, nm_linear(r, x, &m->text_proj, (nm_epilogue){ .f32 = true }), 1e-12f);
    }
    return f;
}

static double clamp_temp(nm_blip_train *t)
{
    float *x = t->m->temp.f32;
    *x = *x < 0.001f ? 0.001f : *x > 0.5f ? 0.5f : *x;
    return (double)*x;
}

/* negative_image of text i and negative_text of picture i: given, or drawn. */
static bool negatives(nm_run *r, nm_blip_train *t, const nm_blip_batch *b, const features *f, const float *other_image, const float *other_text, double temp,
                      int64_t *image, int64_t *text, nm_blip_losses *out)
{
    int64_t n = b->n;
    double *w = nm_scratch(r, (size_t)(2 * n * n) * sizeof *w);
    if (!w)
        return false;
    draw_weights(t, b, f->image.data, other_text, temp, w);
    draw_weights(t, b, f->text.data, other_image, temp, w + n * n);
    for (int64_t i = 0; i < n; i++) {
        image[i] = b->negative_image ? b->negative_image[i] : draw(&r->rng, w + n * n + i * n, n);
        text[i] = b->negative_text ? b->negative_text[i] : draw(&r->rng, w + i * n, n);
        if (image[i] < 0 || image[i] >= n || text[i] < 0 || text[i] >= n)
            return nm_run_fail(r, NOEMA_E_ARGUMENT, "a negative is outside the batch"), false;
    }
    if (out->weights_i2t)
        memcpy(out->weights_i2t, w, (size_t)(n * n) * sizeof *w);
    if (out->weights_t2i)
        memcpy(out->weights_t2i, w + n * n, (size_t)(n * n) * sizeof *w);
    return true;
}

double nm_blip_pretrain_loss(nm_run *r, nm_blip_train *t, const nm_blip_batch *b, bool with_lm, nm_blip_losses *out)
{
    if (!t->momentum || !t->m->cfg.has_itm || !nm_has(&t->m->temp) || (with_lm && !t->m->cfg.has_decoder)) {
        nm_run_fail(r, NOEMA_E_UNSUPPORTED, "these losses need ITC and ITM heads, temp%s", with_lm ? " and a decoder" : "");
        return NAN;
    }
    if (b->n < 2 || t->queue_size % b->n != 0) {
        nm_run_fail(r, NOEMA_E_ARGUMENT, "the queue of %lld must be a multiple of the batch of %lld (at least 2)", (long long)t->queue_size, (long long)b->n);
        return NAN;
    }
    double temp = clamp_temp(t), d_temp = 0;
    move_momentum(t);
    struct nm_tape *tape = r->tape;
    r->tape = NULL;
    features k = encode(r, t->momentum, b);
    r->tape = tape;
    features f = encode(r, t->m, b);
    int64_t *pick = nm_scratch(r, (size_t)(2 * b->n) * sizeof *pick);
    if (!nm_run_ok(r) || !pick)
        return NAN;
    out->itc = itc_direction(r, t, b, &f.image, k.image.data, k.text.data, t->text_queue, temp, &d_temp) +
               itc_direction(r, t, b, &f.text, k.text.data, k.image.data, t->image_queue, temp, &d_temp);
    float *g = nm_weight_grad(r, &t->m->temp);
    if (g)
        g[0] += (float)d_temp;
    fill_queues(t, b, k.image.data, k.text.data);
    /* retrieval draws by the online features, pre-training by its ITC logits, whose other side is the momentum model's */
    if (!negatives(r, t, b, &f, b->idx ? f.image.data : k.image.data, b->idx ? f.text.data : k.text.data, temp, pick, pick + b->n, out))
        return NAN;
    out->itm = itm_loss(r, t, b, f.states, pick, pick + b->n);
    out->lm = with_lm ? lm_loss(r, t, b, f.states) : 0;
    if (nm_run_ok(r))
        nm_backward(r);
    return out->total = nm_run_ok(r) ? out->itc + out->itm + out->lm : NAN;
}

static nm_tensor states_of(nm_run *r, const nm_blip_train *t, const nm_blip_batch *b, int64_t pictures)
{
    const nm_model *base = &t->m->base;
    return nm_blip_image_states(r, t->m, nm_view((void *)(uintptr_t)b->pixels, NM_F32, NM_SHAPE(pictures, 3, base->image_height, base->image_width)));
}

double nm_blip_caption_loss(nm_run *r, nm_blip_train *t, const nm_blip_batch *b)
{
    double loss = lm_loss(r, t, b, states_of(r, t, b, b->n));
    if (nm_run_ok(r))
        nm_backward(r);
    return nm_run_ok(r) ? loss : NAN;
}

double nm_blip_vqa_loss(nm_run *r, nm_blip_train *t, const nm_blip_batch *b)
{
    nm_med_rows q, l;
    nm_tensor x = nm_blip_questions(r, t->m, states_of(r, t, b, b->n), &b->texts, b->enc, &q);
    if (!x.data || !nm_med_layout(r, &l, &b->answers, b->dec, 0))
        return NAN;
    /* the states of each question once per answer */
    int64_t n = b->answers.n, total = 0, a = 0, rows = 0;
    int64_t *k_offsets = nm_scratch(r, (size_t)(n + 1) * sizeof *k_offsets), *label = nm_scratch(r, (size_t)l.rows * sizeof *label + 1);
    double *weight = nm_scratch(r, (size_t)l.rows * sizeof *weight + 1);
    for (int64_t i = 0; i < b->n; i++)
        total += b->answers_of[i] * (q.offsets[i + 1] - q.offsets[i]);
    int64_t *pick = nm_scratch(r, (size_t)total * sizeof *pick + 1);
    if (!nm_run_ok(r))
        return NAN;
    for (int64_t i = 0; i < b->n; i++)
        for (int64_t k = 0; k < b->answers_of[i] && a < n; k++) {
            k_offsets[a++] = rows;
            for (int64_t j = q.offsets[i]; j < q.offsets[i + 1]; j++)
                pick[rows++] = j;
        }
    if (a != n || rows != total) {
        nm_run_fail(r, NOEMA_E_ARGUMENT, "VQA: expected %lld answers by their counts, got %lld", (long long)a, (long long)n);
        return NAN;
    }
    k_offsets[n] = rows;
    next_ids(&l, 0, label);
    for (int64_t s = 0; s < n; s++)
        for (int64_t i = l.offsets[s]; i < l.offsets[s + 1]; i++)
            weight[i] = b->answer_weight[s] / (double)b->n;
    nm_med_context context = { .states = nm_gather_rows(r, x, pick, total), .n = n, .q_offsets = l.offsets, .k_offsets = k_offsets };
    nm_tensor y = nm_med_forward(r, &t->m->decoder, &t->m->cfg.decoder, &l, true, &context);
    nm_tensor logits = nm_med_logits(r, &t->m->lm, &t->m->cfg.decoder, y);
    double loss = nm_rows_loss(r, &logits, label, t->label_smoothing, weight, 0);
    if (nm_run_ok(r))
        nm_backward(r);
    return nm_run_ok(r) ? loss : NAN;
}

double nm_blip_nlvr_loss(nm_run *r, nm_blip_train *t, const nm_blip_batch *b)
{
    nm_tensor states = states_of(r, t, b, 2 * b->n), logits = nm_blip_nlvr_pairs(r, t->m, states, &b->texts, b->enc);
    double loss = nm_rows_loss(r, &logits, b->labels, 0, NULL, 1 / (double)b->n);
    if (nm_run_ok(r))
        nm_backward(r);
    return nm_run_ok(r) ? loss : NAN;
}
