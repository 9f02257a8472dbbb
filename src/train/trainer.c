/* trainer.c - see trainer.h. */
#include "train/trainer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "nn/ops.h"
#include "train/loss.h"

#define LN_100 4.6051701859880914

/* ---- parameters ---- */

typedef struct collect { nm_trainer *t; size_t cap; noema_error *err; noema_status status; } collect;

static noema_status own_value(nm_weight *w, noema_error *err, const char *name)
{
    int64_t n = nm_shape_numel(w->shape);
    nm_shape shape = w->shape;
    float *value = nm_alloc((size_t)(n ? n : 1) * sizeof *value);
    if (!value)
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory: %s", name);
    nm_weight_copy_f32(w, value);
    nm_weight_set(w, value, shape);
    return NOEMA_OK;
}

static void collect_visit(nm_params *p, const nm_param_info *info)
{
    collect *c = p->user;
    nm_trainer *t = c->t;
    if (c->status != NOEMA_OK || !nm_has(info->w))
        return;
    if (info->flags & NM_BUFFER) { /* batch norm trains on the statistics of the batch, and the epoch files would lack the running ones */
        c->status = nm_fail(c->err, NOEMA_E_UNSUPPORTED, "%s: training a tower with batch normalisation (ModifiedResNet) is not here yet", info->part_name[0]);
        return;
    }
    if (t->n_params == c->cap) {
        size_t cap = c->cap ? 2 * c->cap : 256;
        nm_train_param *q = nm_realloc_array(t->params, cap, sizeof *q);
        if (!q) {
            c->status = nm_fail(c->err, NOEMA_E_MEMORY, "out of memory: parameters");
            return;
        }
        t->params = q;
        c->cap = cap;
    }
    if (info->n_parts > 1) { /* one tensor here, several in the file: the epoch files cannot hold it yet */
        c->status = nm_fail(c->err, NOEMA_E_UNSUPPORTED, "%s: training towers that store q, k and v apart (XLM-RoBERTa) is not here yet",
                            info->part_name[0]);
        return;
    }
    nm_train_param *q = &t->params[t->n_params++];
    *q = (nm_train_param){ .name = nm_strdup(info->part_name[0]), .w = info->w, .decayed = !(info->flags & NM_NO_DECAY) && info->w->shape.ndim > 1,
                           .transposed = info->transposed && info->w->shape.ndim == 2, .lr_scale = 1 };
    c->status = q->name ? own_value(info->w, c->err, q->name) : nm_fail(c->err, NOEMA_E_MEMORY, "out of memory: parameters");
    q->n = (size_t)nm_shape_numel(info->w->shape);
}

/* A PyTorch module lists its own parameters before those of its children: rank of a name in open_clip's CLIP. */
static int rank(const char *name)
{
    static const char *const first[] = { "positional_embedding", "text_projection", "logit_scale", "logit_bias", "visual.class_embedding",
                                         "visual.positional_embedding", "visual.proj" };
    int n = (int)(sizeof first / sizeof *first);
    for (int i = 0; i < n; i++)
        if (strcmp(name, first[i]) == 0)
            return i;
    if (strncmp(name, "visual.", 7) == 0)
        return strncmp(name, "visual.conv1", 12) == 0 ? n : strncmp(name, "visual.ln_pre", 13) == 0 ? n + 1 : strncmp(name, "visual.ln_post", 14) == 0 ? n + 3 : n + 2;
    return strncmp(name, "transformer.", 12) == 0 ? n + 4 : strncmp(name, "token_embedding", 15) == 0 ? n + 5 : strncmp(name, "ln_final", 8) == 0 ? n + 6 : n + 7;
}

/* Stable insertion by rank: blocks keep the declaration's order, which is the module's. */
static void sort_params(nm_trainer *t)
{
    for (size_t i = 1; i < t->n_params; i++) {
        nm_train_param q = t->params[i];
        size_t k = i;
        for (; k > 0 && rank(t->params[k - 1].name) > rank(q.name); k--)
            t->params[k] = t->params[k - 1];
        t->params[k] = q;
    }
}

static noema_status attach(nm_trainer *t, noema_error *err)
{
    for (size_t i = 0; i < t->n_params; i++) {
        nm_train_param *q = &t->params[i];
        bool image = strncmp(q->name, "visual.", 7) == 0, scalar = strcmp(q->name, "logit_scale") == 0 || strcmp(q->name, "logit_bias") == 0;
        q->frozen = (t->o.lock_image && image) || (t->o.lock_text && !image && !scalar);
        if (strcmp(q->name, "logit_scale") == 0)
            t->logit_scale = q;
        if (strcmp(q->name, "logit_bias") == 0)
            t->logit_bias = q;
        if (!q->frozen) {
            q->w->grad = &q->grad;
            q->m = nm_calloc(q->n, sizeof *q->m);
            q->v = t->o.opt.kind == NM_OPT_ADAMW ? nm_calloc(q->n, sizeof *q->v) : NULL;
            if (!q->m || (t->o.opt.kind == NM_OPT_ADAMW && !q->v))
                return nm_fail(err, NOEMA_E_MEMORY, "out of memory: optimizer state");
        }
        if (t->o.ema_decay > 0) {
            q->ema = nm_alloc(q->n * sizeof *q->ema);
            if (!q->ema)
                return nm_fail(err, NOEMA_E_MEMORY, "out of memory: averages");
            memcpy(q->ema, q->w->f32, q->n * sizeof *q->ema);
        }
    }
    if (!t->logit_scale)
        return nm_fail(err, NOEMA_E_UNSUPPORTED, "the model has no logit_scale: it cannot be trained contrastively");
    if (t->o.siglip && !t->logit_bias)
        return nm_fail(err, NOEMA_E_UNSUPPORTED, "the sigmoid loss needs a model with logit_bias");
    return NOEMA_OK;
}

noema_status nm_trainer_new(nm_trainer **out, nm_model *model, nm_pool *pool, const nm_train_options *o, noema_error *err)
{
    nm_trainer *t = calloc(1, sizeof *t);
    *out = NULL;
    if (!t)
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory: trainer");
    t->model = model;
    t->o = *o;
    t->pool = pool;
    t->arena = nm_arena_new(1 << 20);
    collect c = { .t = t, .err = err };
    nm_params p = { .visit = collect_visit, .user = &c, .scheme = model->family->save_scheme, .err = err };
    model->family->declare(&p, model);
    noema_status s = c.status;
    sort_params(t);
    if (s == NOEMA_OK)
        s = attach(t, err);
    nm_tape *tape = nm_tape_new();
    if (s == NOEMA_OK && (!t->arena || !tape))
        s = nm_fail(err, NOEMA_E_MEMORY, "out of memory: trainer");
    if (t->arena)
        nm_run_init(&t->run, nm_kernels_get(), pool, t->arena, o->compute);
    t->run.tape = tape;
    t->run.training = true;
    if (s != NOEMA_OK) {
        nm_trainer_free(t);
        return s;
    }
    *out = t;
    return NOEMA_OK;
}

void nm_trainer_free(nm_trainer *t)
{
    if (!t)
        return;
    for (size_t i = 0; i < t->n_params; i++) {
        nm_train_param *q = &t->params[i];
        q->w->grad = NULL;
        nm_free(q->grad.data);
        nm_free(q->m);
        nm_free(q->v);
        nm_free(q->ema);
        free(q->name);
    }
    free(t->params);
    nm_tape_free(t->run.tape);
    nm_arena_free(t->arena);
    free(t);
}

/* ---- forward ---- */

typedef struct features { nm_tensor image, text; } features;

/* Rows [begin, end) of the batch through both towers, normalised. A locked tower runs without the tape. */
static features forward(nm_trainer *t, const nm_pair_batch *b, int64_t begin, int64_t end)
{
    nm_run *r = &t->run;
    const nm_model *m = t->model;
    int64_t h = m->image_height, w = m->image_width, n = end - begin;
    nm_tensor pixels = nm_view((void *)(uintptr_t)(b->images + begin * 3 * h * w), NM_F32, NM_SHAPE(n, 3, h, w));
    int64_t *offsets = nm_scratch(r, (size_t)(n + 1) * sizeof *offsets);
    features f = { 0 };
    if (!offsets)
        return f;
    for (int64_t i = 0; i <= n; i++)
        offsets[i] = b->texts.offsets[begin + i] - b->texts.offsets[begin];
    nm_texts texts = b->texts;
    texts.n = n;
    texts.offsets = offsets;
    texts.ids = b->texts.ids + b->texts.offsets[begin];
    nm_tape *tape = r->tape;
    r->tape = t->o.lock_image ? NULL : tape;
    f.image = nm_normalize(r, m->family->encode_image(r, m, pixels), 1e-12f);
    r->tape = t->o.lock_text ? NULL : tape;
    f.text = nm_normalize(r, m->family->encode_text(r, m, &texts), 1e-12f);
    r->tape = tape;
    return f;
}

/* ---- what broke ---- */

static void first_bad(void *user, const char *name, const nm_tensor *x)
{
    nm_trainer *t = user;
    if (t->failed_at[0] || x->dtype != NM_F32 || !nm_is_contiguous(x))
        return;
    for (int64_t i = 0, n = nm_numel(x); i < n; i++)
        if (!isfinite(((const float *)x->data)[i])) {
            strncpy(t->failed_at, name, sizeof t->failed_at - 1);
            return;
        }
}

static noema_status not_finite(nm_trainer *t, const nm_pair_batch *b, double loss, noema_error *err)
{
    t->failed_at[0] = 0;
    for (size_t i = 0; i < t->n_params && !t->failed_at[0]; i++)
        for (size_t k = 0; k < t->params[i].n; k++)
            if (!isfinite(t->params[i].w->f32[k])) {
                strncpy(t->failed_at, t->params[i].name, sizeof t->failed_at - 1);
                break;
            }
    if (!t->failed_at[0]) { /* run once more, watching every named activation */
        nm_tape *tape = t->run.tape;
        t->run.tape = NULL;
        t->run.observe = first_bad;
        t->run.observe_user = t;
        (void)forward(t, b, 0, b->n);
        t->run.observe = NULL;
        t->run.tape = tape;
    }
    for (size_t i = 0; i < t->n_params && !t->failed_at[0]; i++)
        if (t->params[i].grad.data && !isfinite(nm_squared_norm(t->params[i].grad.data, t->params[i].n)))
            strncpy(t->failed_at, t->params[i].name, sizeof t->failed_at - 1);
    return nm_fail(err, NOEMA_E_FORMAT, "step %lld: %s is not finite; first seen at %s", (long long)t->step, isfinite(loss) ? "the gradient" : "the loss",
                   t->failed_at[0] ? t->failed_at : "the loss itself");
}

/* ---- loss and gradients ---- */

static nm_pair_loss pair_loss(nm_trainer *t, int64_t n, const float *images, const float *texts, float *d_images, float *d_texts)
{
    int64_t dim = t->model->embed_dim;
    double s = (double)t->logit_scale->w->f32[0];
    if (t->o.siglip)
        return nm_siglip_loss(&t->run, n, dim, images, texts, s, (double)t->logit_bias->w->f32[0], d_images, d_texts);
    return nm_clip_loss(&t->run, n, dim, images, texts, s, 0, n, d_images, d_texts);
}

static void scalar_grad(nm_trainer *t, nm_train_param *p, double d)
{
    if (p && !p->frozen) {
        float *g = nm_weight_grad(&t->run, p->w);
        if (g)
            g[0] += (float)d;
    }
}

static void copy_rows(float *dst, const nm_tensor *src)
{
    if (src->data)
        memcpy(dst, src->data, (size_t)nm_numel(src) * sizeof *dst);
}

static void add_rows(nm_run *r, const nm_tensor *y, const float *d)
{
    float *g = nm_grad_data(r, y);
    for (int64_t i = 0, n = nm_numel(y); g && i < n; i++)
        g[i] += d[i];
}

static void clear(nm_trainer *t)
{
    nm_tape_clear(t->run.tape);
}

/* Fills all gradients; returns the loss. Everything is carved from the arena, which the caller resets. */
static double loss_and_gradients(nm_trainer *t, const nm_pair_batch *b)
{
    nm_run *r = &t->run;
    int64_t dim = t->model->embed_dim, micro = (b->n + t->o.accum - 1) / t->o.accum;
    size_t bytes = (size_t)(b->n * dim) * sizeof(float);
    float *all = nm_scratch(r, 4 * bytes), *img = all, *txt = all ? img + b->n * dim : NULL;
    if (!all)
        return NAN;
    float *d_img = txt + b->n * dim, *d_txt = d_img + b->n * dim;
    memset(d_img, 0, 2 * bytes);
    nm_arena_mark mark = nm_arena_get_mark(t->arena);
    features f = { 0 };
    for (int64_t at = 0; at < b->n && nm_run_ok(r); at += micro) {
        nm_tape *tape = r->tape;
        if (t->o.accum > 1)
            r->tape = NULL;
        int64_t end = at + micro < b->n ? at + micro : b->n;
        f = forward(t, b, at, end);
        r->tape = tape;
        copy_rows(img + at * dim, &f.image);
        copy_rows(txt + at * dim, &f.text);
        if (t->o.accum > 1)
            nm_arena_rewind(t->arena, mark);
    }
    if (!nm_run_ok(r))
        return NAN;
    nm_pair_loss l = pair_loss(t, b->n, img, txt, d_img, d_txt);
    scalar_grad(t, t->logit_scale, l.d_scale);
    if (t->o.siglip)
        scalar_grad(t, t->logit_bias, l.d_bias);
    for (int64_t at = 0; at < b->n && nm_run_ok(r); at += micro) {
        int64_t end = at + micro < b->n ? at + micro : b->n;
        if (t->o.accum > 1)
            f = forward(t, b, at, end);
        add_rows(r, &f.image, d_img + at * dim);
        add_rows(r, &f.text, d_txt + at * dim);
        nm_backward(r);
        clear(t);
        if (t->o.accum > 1)
            nm_arena_rewind(t->arena, mark);
    }
    return l.loss;
}

static void zero_gradients(nm_trainer *t)
{
    for (size_t i = 0; i < t->n_params; i++)
        if (t->params[i].grad.data)
            memset(t->params[i].grad.data, 0, t->params[i].n * sizeof(float));
}

static void update(nm_trainer *t, double factor, double lr)
{
    for (size_t i = 0; i < t->n_params; i++) {
        nm_train_param *p = &t->params[i];
        if (p->frozen || !p->grad.data)
            continue;
        nm_opt_update(&t->o.opt, t->pool, p->n, p->w->f32, p->grad.data, factor, p->m, p->v, t->step + 1, lr * p->lr_scale,
                      p->decayed ? t->o.weight_decay : 0);
        nm_weight_changed(p->w);
    }
    float *s = t->logit_scale->w->f32;
    s[0] = s[0] < 0 ? 0 : s[0] > (float)LN_100 ? (float)LN_100 : s[0];
    t->model->logit_scale = exp((double)s[0]);
    if (t->logit_bias)
        t->model->logit_bias = (double)t->logit_bias->w->f32[0];
    for (size_t i = 0; i < t->n_params; i++)
        if (t->params[i].ema)
            nm_ema_update(t->params[i].n, t->params[i].ema, t->params[i].w->f32, t->o.ema_decay);
}

noema_status nm_trainer_step(nm_trainer *t, const nm_pair_batch *b, nm_step_result *result, noema_error *err)
{
    nm_run *r = &t->run;
    double lr = nm_schedule_lr(&t->o.schedule, t->step);
    nm_arena_reset(t->arena);
    nm_rng_init(&r->rng, t->o.seed, (uint64_t)t->step);
    zero_gradients(t);
    double loss = loss_and_gradients(t, b), sum = 0;
    if (!nm_run_ok(r))
        return nm_fail(err, r->err.code, "%s", r->err.message);
    for (size_t i = 0; i < t->n_params; i++)
        if (t->params[i].grad.data)
            sum += nm_squared_norm(t->params[i].grad.data, t->params[i].n);
    if (!isfinite(loss) || !isfinite(sum))
        return not_finite(t, b, loss, err);
    update(t, nm_clip_factor(sqrt(sum), t->o.clip_norm), lr);
    t->step++;
    *result = (nm_step_result){ loss, lr, sqrt(sum), (double)t->logit_scale->w->f32[0] };
    return NOEMA_OK;
}

noema_status nm_trainer_loss(nm_trainer *t, const nm_pair_batch *b, double *loss, noema_error *err)
{
    nm_run *r = &t->run;
    nm_tape *tape = r->tape;
    int64_t dim = t->model->embed_dim;
    nm_arena_reset(t->arena);
    r->tape = NULL;
    features f = forward(t, b, 0, b->n);
    float *d = nm_scratch(r, (size_t)(2 * b->n * dim) * sizeof *d);
    if (d) {
        memset(d, 0, (size_t)(2 * b->n * dim) * sizeof *d);
        *loss = pair_loss(t, b->n, f.image.data, f.text.data, d, d + b->n * dim).loss;
    }
    r->tape = tape;
    return nm_run_ok(r) ? NOEMA_OK : nm_fail(err, r->err.code, "%s", r->err.message);
}
