/* blip_params.c - what BLIP's training keeps beside the model: tied parameters, momentum encoders, queues. See blip_loss.h. */
#include "train/blip_loss.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- tied parameters ---- */

/* What the published pre-training ties: with both a text encoder and a decoder everything but self-attention; the words and the matrix that
 * writes them; the two names of its bias. */
static void tie(nm_tied *t, bool encoder_too)
{
    static const char bert[] = "text_decoder.bert.";
    char other[384];
    nm_tied_join(t, "text_decoder.cls.predictions.bias", "text_decoder.cls.predictions.decoder.bias");
    for (size_t i = 0; encoder_too && i < t->n;) {
        const char *name = t->params[i].part[0];
        bool shared = strncmp(name, bert, sizeof bert - 1) == 0 && !strstr(name, ".attention.");
        snprintf(other, sizeof other, "text_encoder.%s", shared ? name + sizeof bert - 1 : "");
        i += !(shared && nm_tied_join(t, other, name));
    }
    nm_tied_join(t, encoder_too ? "text_encoder.embeddings.word_embeddings.weight" : "text_decoder.bert.embeddings.word_embeddings.weight",
                 "text_decoder.cls.predictions.decoder.weight");
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
    nm_tied_param *q = nm_tied_find(&l->t->tied, info->part_name[0]);
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
    l->t->slow[q - l->t->tied.params] = info->w;
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
        t->idx_queue[i] = NM_BLIP_NO_ID;
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
    noema_status s = nm_tied_collect(&t->tied, m->base.family->declare, m, NM_BLIP_OFFICIAL, err);
    if (s == NOEMA_OK) {
        tie(&t->tied, m->cfg.has_encoder && m->cfg.has_decoder && !m->cfg.vqa);
        nm_tied_attach(&t->tied);
    }
    if (s == NOEMA_OK && !(t->slow = calloc(t->tied.n + 1, sizeof *t->slow)))
        s = nm_fail(err, NOEMA_E_MEMORY, "out of memory: momentum encoders");
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
    nm_tied_free(&t->tied);
    free(t->slow);
    if (t->momentum)
        t->momentum->base.family->free(&t->momentum->base);
    free(t->image_queue);
    free(t->text_queue);
    free(t->idx_queue);
    free(t);
}
