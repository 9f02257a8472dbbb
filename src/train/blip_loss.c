/* blip_loss.c - see blip_loss.h.
 *
 * Easy to get wrong: the momentum encoders move before they are used; the queues are filled after ITC; `temp` divides and is clamped
 * in every forward; pre-training draws negatives from softmax + 1e-4, retrieval from the online features without it. */
#include "train/blip_loss.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "nn/ops.h"
#include "train/optim.h"

/* ---- mean cross-entropy of rows, with label smoothing, as a function of finished logits ---- */

#define IGNORED (-100)

/* sum over rows of weight[i] * CE(logits[i], label[i]); adds its gradient to the logits'. weight NULL: `same` for every row. */
static double cross_entropy(nm_run *r, const nm_tensor *logits, const int64_t *label, double smoothing, const double *weight, double same)
{
    if (!logits->data)
        return NAN;
    int64_t rows = logits->shape[0], classes = logits->shape[1];
    float *d = nm_grad_data(r, logits);
    double loss = 0;
    for (int64_t i = 0; i < rows; i++) {
        if (label[i] == IGNORED)
            continue;
        const float *z = (const float *)logits->data + i * classes;
        double most = -INFINITY, sum = 0, mean = 0, w = weight ? weight[i] : same;
        for (int64_t c = 0; c < classes; c++)
            most = (double)z[c] > most ? (double)z[c] : most;
        for (int64_t c = 0; c < classes; c++) {
            sum += exp((double)z[c] - most);
            mean += (double)z[c];
        }
        double lse = log(sum) + most;
        loss += w * ((1 - smoothing) * (lse - (double)z[label[i]]) + smoothing * (lse - mean / (double)classes));
        for (int64_t c = 0; d && c < classes; c++) {
            double target = smoothing / (double)classes + (c == label[i] ? 1 - smoothing : 0);
            d[i * classes + c] += (float)(w * (exp((double)z[c] - lse) - target));
        }
    }
    return loss;
}

/* ---- parameters ---- */

typedef struct collect { nm_blip_train *t; bool tied; size_t cap; noema_status status; noema_error *err; } collect;

static noema_status own_value(nm_weight *w, const char *name, noema_error *err)
{
    nm_shape shape = w->shape;
    float *value = nm_alloc((size_t)nm_shape_numel(shape) * sizeof *value + sizeof *value);
    if (!value)
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory: %s", name);
    nm_weight_copy_f32(w, value);
    nm_weight_set(w, value, shape);
    return NOEMA_OK;
}

static nm_blip_param *find(nm_blip_train *t, const char *name)
{
    for (size_t i = 0; i < t->n_params; i++)
        if (strcmp(t->params[i].name, name) == 0)
            return &t->params[i];
    return NULL;
}

/* The entry that the published pre-training ties this parameter to, or NULL. */
static nm_blip_param *tied_to(nm_blip_train *t, const char *name)
{
    static const char bert[] = "text_decoder.bert.", head[] = "text_decoder.cls.predictions.decoder.";
    char other[256];
    if (strcmp(name, "text_decoder.cls.predictions.decoder.bias") == 0)
        return find(t, "text_decoder.cls.predictions.bias");
    if (strncmp(name, head, sizeof head - 1) == 0)
        snprintf(other, sizeof other, "text_encoder.embeddings.word_embeddings.weight");
    else if (strncmp(name, bert, sizeof bert - 1) == 0 && !strstr(name, ".attention."))
        snprintf(other, sizeof other, "text_encoder.%s", name + sizeof bert - 1);
    else
        return NULL;
    return find(t, other);
}

/* Without an encoder the LM matrix is tied to the decoder's own words. */
static nm_blip_param *tied_in_decoder(nm_blip_train *t, const char *name)
{
    if (strcmp(name, "text_decoder.cls.predictions.decoder.weight") == 0)
        return find(t, "text_decoder.bert.embeddings.word_embeddings.weight");
    return strcmp(name, "text_decoder.cls.predictions.decoder.bias") == 0 ? find(t, "text_decoder.cls.predictions.bias") : NULL;
}

static void collect_visit(nm_params *p, const nm_param_info *info)
{
    collect *c = p->user;
    nm_blip_train *t = c->t;
    const char *name = info->part_name[0];
    if (c->status != NOEMA_OK || !nm_has(info->w) || (c->status = own_value(info->w, name, c->err)) != NOEMA_OK)
        return;
    nm_blip_param *q = c->tied ? tied_to(t, name) : tied_in_decoder(t, name);
    if (q && q->n == (size_t)nm_shape_numel(info->w->shape) && q->n_copies < 3) {
        q->copy[q->n_copies++] = info->w;
        return;
    }
    if (t->n_params == c->cap) {
        size_t cap = c->cap ? 2 * c->cap : 256;
        q = nm_realloc_array(t->params, cap, sizeof *q);
        if (!q) {
            c->status = nm_fail(c->err, NOEMA_E_MEMORY, "out of memory: parameters");
            return;
        }
        t->params = q;
        c->cap = cap;
    }
    q = &t->params[t->n_params];
    *q = (nm_blip_param){ .name = nm_strdup(name), .w = info->w, .n = (size_t)nm_shape_numel(info->w->shape) };
    if (q->name)
        t->n_params++;
    else
        c->status = nm_fail(c->err, NOEMA_E_MEMORY, "out of memory: parameters");
}

/* `decoder.bias` is declared before `bias`; an entry must stand before its copy. */
static void join_head_bias(nm_blip_train *t)
{
    nm_blip_param *bias = find(t, "text_decoder.cls.predictions.bias"), *decoder = find(t, "text_decoder.cls.predictions.decoder.bias");
    if (!bias || !decoder)
        return;
    bias->copy[bias->n_copies++] = decoder->w;
    free(decoder->name);
    *decoder = t->params[--t->n_params];
}

/* ---- momentum encoders ---- */

typedef struct momentum_load { nm_blip_train *t; const nm_weights *file; noema_status status; noema_error *err; } momentum_load;

/* "text_encoder.x" -> "text_encoder_m.x" */
static bool momentum_name(const char *name, char out[320])
{
    const char *dot = strchr(name, '.');
    return dot && snprintf(out, 320, "%.*s_m%s", (int)(dot - name), name, dot) < 320;
}

static bool read_parts(const momentum_load *l, const nm_param_info *info, float *value)
{
    char name[320];
    int64_t at = 0, n = nm_shape_numel(info->w->shape);
    for (int i = 0; i < info->n_parts; i++) {
        const nm_wview *v = l->file && momentum_name(info->part_name[i], name) ? nm_weights_find(l->file, name) : NULL;
        int64_t part = v ? nm_wview_numel(v) : 0;
        if (!v || part > n - at)
            return false;
        nm_wview_copy_f32(v, value + at);
        at += part;
    }
    return at == n;
}

static void momentum_visit(nm_params *p, const nm_param_info *info)
{
    momentum_load *l = p->user;
    nm_blip_param *q = find(l->t, info->part_name[0]);
    if (l->status != NOEMA_OK || !q || strcmp(info->part_name[0], "temp") == 0)
        return;
    nm_shape shape = q->w->shape;
    float *value = nm_alloc(q->n * sizeof *value + sizeof *value);
    if (!value) {
        l->status = nm_fail(l->err, NOEMA_E_MEMORY, "out of memory: momentum encoders");
        return;
    }
    info->w->shape = shape;
    if (!read_parts(l, info, value))
        memcpy(value, q->w->f32, q->n * sizeof *value);
    nm_weight_set(info->w, value, shape);
    q->momentum = info->w;
}

static noema_status momentum_new(nm_blip_train *t, const nm_weights *file, noema_error *err)
{
    nm_blip *k = calloc(1, sizeof *k);
    t->momentum = k;
    if (!k)
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory: momentum encoders");
    k->base = (nm_model){ .family = t->m->base.family, .embed_dim = t->m->base.embed_dim, .context_length = t->m->base.context_length,
                          .image_height = t->m->base.image_height, .image_width = t->m->base.image_width };
    k->cfg = t->m->cfg;
    k->cfg.has_decoder = k->cfg.has_itm = false;
    if (!nm_med_alloc(&k->encoder, &k->cfg.encoder) || !nm_vit_alloc(&k->vit, &k->cfg.vit))
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory: momentum encoders");
    momentum_load l = { t, file, NOEMA_OK, err };
    nm_params p = { .visit = momentum_visit, .user = &l, .scheme = NM_BLIP_OFFICIAL, .err = err };
    k->base.family->declare(&p, k);
    return l.status;
}

/* A queue as the file has it, [embed_dim, size], turned into rows. */
static bool read_queue(const nm_weights *file, const char *name, int64_t dim, int64_t size, float *rows)
{
    const nm_wview *v = file ? nm_weights_find(file, name) : NULL;
    float *q = v && v->ndim == 2 && v->shape[0] == dim && v->shape[1] == size ? nm_alloc((size_t)(dim * size) * sizeof *q) : NULL;
    if (!q)
        return false;
    nm_wview_copy_f32(v, q);
    for (int64_t c = 0; c < dim; c++)
        for (int64_t i = 0; i < size; i++)
            rows[i * dim + c] = q[c * size + i];
    nm_free(q);
    return true;
}

static void random_rows(nm_rng *g, float *rows, int64_t n, int64_t dim)
{
    for (int64_t i = 0; i < n; i++) {
        double sum = 0;
        for (int64_t c = 0; c < dim; c++) {
            rows[i * dim + c] = (float)nm_rng_normal(g);
            sum += (double)rows[i * dim + c] * (double)rows[i * dim + c];
        }
        for (int64_t c = 0; c < dim; c++)
            rows[i * dim + c] /= (float)sqrt(sum);
    }
}

static noema_status queues_new(nm_blip_train *t, const nm_weights *file, uint64_t seed, noema_error *err)
{
    int64_t dim = t->m->cfg.embed_dim;
    const nm_wview *v = file ? nm_weights_find(file, "image_queue") : NULL;
    if (v && v->ndim == 2 && v->shape[1] > 0)
        t->queue_size = v->shape[1];
    t->image_queue = nm_malloc_array((size_t)t->queue_size, (size_t)dim * sizeof(float));
    t->text_queue = nm_malloc_array((size_t)t->queue_size, (size_t)dim * sizeof(float));
    t->idx_queue = nm_malloc_array((size_t)t->queue_size, sizeof *t->idx_queue);
    if (!t->image_queue || !t->text_queue || !t->idx_queue)
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory: queues of %lld", (long long)t->queue_size);
    nm_rng g;
    nm_rng_init(&g, seed, 0);
    if (!read_queue(file, "image_queue", dim, t->queue_size, t->image_queue))
        random_rows(&g, t->image_queue, t->queue_size, dim);
    if (!read_queue(file, "text_queue", dim, t->queue_size, t->text_queue))
        random_rows(&g, t->text_queue, t->queue_size, dim);
    for (int64_t i = 0; i < t->queue_size; i++)
        t->idx_queue[i] = IGNORED;
    const nm_wview *idx = file ? nm_weights_find(file, "idx_queue") : NULL;
    if (idx && idx->dtype == NM_I64 && nm_wview_numel(idx) == t->queue_size && nm_wview_contiguous(idx))
        memcpy(t->idx_queue, idx->data, (size_t)t->queue_size * sizeof *t->idx_queue);
    const nm_wview *ptr = file ? nm_weights_find(file, "queue_ptr") : NULL;
    if (!ptr && file)
        ptr = nm_weights_find(file, "ptr_queue");
    if (ptr && ptr->dtype == NM_I64 && nm_wview_numel(ptr) == 1)
        memcpy(&t->ptr, ptr->data, sizeof t->ptr);
    if (t->ptr < 0 || t->ptr >= t->queue_size)
        return nm_fail(err, NOEMA_E_FORMAT, "queue_ptr: expected 0 .. %lld, got %lld", (long long)t->queue_size - 1, (long long)t->ptr);
    return NOEMA_OK;
}

noema_status nm_blip_train_new(nm_blip_train **out, nm_blip *m, const nm_weights *file, int64_t queue_size, uint64_t seed, noema_error *err)
{
    nm_blip_train *t = calloc(1, sizeof *t);
    *out = NULL;
    if (!t)
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory: trainer");
    t->m = m;
    t->queue_size = queue_size;
    t->decay = 0.995;
    t->label_smoothing = 0.1;
    collect c = { .t = t, .tied = m->cfg.has_encoder && m->cfg.has_decoder && !m->cfg.vqa, .err = err };
    nm_params p = { .visit = collect_visit, .user = &c, .scheme = NM_BLIP_OFFICIAL, .err = err };
    m->base.family->declare(&p, m);
    noema_status s = c.status;
    if (s == NOEMA_OK) {
        join_head_bias(t);
        for (size_t i = 0; i < t->n_params; i++) { /* the array has its final place: now the weights may point into it */
            t->params[i].w->grad = &t->params[i].grad;
            for (int k = 0; k < t->params[i].n_copies; k++)
                t->params[i].copy[k]->grad = &t->params[i].grad;
        }
        nm_blip_train_changed(t);
    }
    if (s == NOEMA_OK && m->cfg.has_itc && (s = momentum_new(t, file, err)) == NOEMA_OK)
        s = queues_new(t, file, seed, err);
    if (s != NOEMA_OK) {
        nm_blip_train_free(t);
        return s;
    }
    *out = t;
    return NOEMA_OK;
}

void nm_blip_train_free(nm_blip_train *t)
{
    if (!t)
        return;
    for (size_t i = 0; i < t->n_params; i++) {
        nm_blip_param *q = &t->params[i];
        q->w->grad = NULL;
        for (int k = 0; k < q->n_copies; k++)
            q->copy[k]->grad = NULL;
        nm_free(q->grad.data);
        free(q->name);
    }
    free(t->params);
    if (t->momentum)
        t->momentum->base.family->free(&t->momentum->base);
    free(t->image_queue);
    free(t->text_queue);
    free(t->idx_queue);
    free(t);
}

void nm_blip_train_zero(nm_blip_train *t)
{
    for (size_t i = 0; i < t->n_params; i++)
        if (t->params[i].grad.data)
            memset(t->params[i].grad.data, 0, t->params[i].n * sizeof(float));
}

void nm_blip_train_changed(nm_blip_train *t)
{
    for (size_t i = 0; i < t->n_params; i++) {
        nm_blip_param *q = &t->params[i];
        nm_weight_changed(q->w);
        for (int k = 0; k < q->n_copies; k++) {
            memcpy(q->copy[k]->f32, q->w->f32, q->n * sizeof(float));
            nm_weight_changed(q->copy[k]);
        }
    }
}

static void move_momentum(nm_blip_train *t)
{
    for (size_t i = 0; i < t->n_params; i++)
        if (t->params[i].momentum) {
            nm_ema_update(t->params[i].n, t->params[i].momentum->f32, t->params[i].w->f32, t->decay);
            nm_weight_changed(t->params[i].momentum);
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
    return cross_entropy(r, &logits, label, 0, NULL, 1 / (double)(3 * n));
}

/* ---- LM ---- */

/* Labels of rows: the next id of the same text; none at its end and before `skip`. Returns how many count. */
static int64_t next_ids(const nm_med_rows *l, int64_t skip, int64_t *label)
{
    int64_t count = 0;
    for (int64_t s = 0; s < l->n; s++)
        for (int64_t i = l->offsets[s]; i < l->offsets[s + 1]; i++) {
            bool counts = i + 1 < l->offsets[s + 1] && i + 1 - l->offsets[s] >= skip;
            label[i] = counts ? l->ids[i + 1] : IGNORED;
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
    return label && count ? cross_entropy(r, &logits, label, t->label_smoothing, NULL, 1 / (double)count) : NAN;
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
    double loss = cross_entropy(r, &logits, label, t->label_smoothing, weight, 0);
    if (nm_run_ok(r))
        nm_backward(r);
    return nm_run_ok(r) ? loss : NAN;
}

double nm_blip_nlvr_loss(nm_run *r, nm_blip_train *t, const nm_blip_batch *b)
{
    nm_tensor states = states_of(r, t, b, 2 * b->n), logits = nm_blip_nlvr_pairs(r, t->m, states, &b->texts, b->enc);
    double loss = cross_entropy(r, &logits, b->labels, 0, NULL, 1 / (double)b->n);
    if (nm_run_ok(r))
        nm_backward(r);
    return nm_run_ok(r) ? loss : NAN;
}
