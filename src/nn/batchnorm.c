/* batchnorm.c - batch normalisation over the pixels of NHWC pictures, with its activation, beside its backward: see nn.h.
 *
 * Inference uses the running statistics. A training run uses those of the batch where the scale is being trained, with the biased variance, and
 * moves the running ones by a tenth (PyTorch's momentum 0.1, unbiased variance) when it has a tape: the first pass of two-pass
 * accumulation sees the same values and leaves them alone. */
#include <math.h>
#include <string.h>

#include "nn/ops.h"

#define ROWS 1024 /* pixels per call of a kernel: sums of more are added in double */

typedef struct stats_job { const nm_run *r; const float *x, *y, *dy, *mean, *rstd; nm_act act; int64_t rows, c; float *part; } stats_job;

/* Piece i: ROWS pixels, two sums per channel into part[i]. */
static void stats_part(void *arg, int64_t b, int64_t e, int worker)
{
    const stats_job *j = arg;
    (void)worker;
    for (int64_t i = b; i < e; i++) {
        int64_t at = i * ROWS, n = j->rows - at < ROWS ? j->rows - at : ROWS;
        float *p = j->part + i * 2 * j->c;
        memset(p, 0, (size_t)(2 * j->c) * sizeof *p);
        if (j->dy)
            j->r->kn->convnet.bn_back_sums(n, j->c, j->x + at * j->c, j->y + at * j->c, j->dy + at * j->c, j->mean, j->rstd, j->act, p, p + j->c);
        else
            j->r->kn->convnet.bn_sums(n, j->c, j->x + at * j->c, j->mean, p, p + j->c);
    }
}

/* sums [2 c]: the two sums of stats_part over all pixels, added in a fixed order. */
static bool all_sums(nm_run *r, stats_job j, double *sums)
{
    int64_t pieces = (j.rows + ROWS - 1) / ROWS;
    nm_arena_mark mark = nm_arena_get_mark(r->arena);
    j.part = nm_scratch(r, (size_t)(pieces * 2 * j.c) * sizeof *j.part);
    if (!j.part)
        return false;
    nm_parallel_for(r->pool, pieces, 1, stats_part, &j);
    memset(sums, 0, (size_t)(2 * j.c) * sizeof *sums);
    for (int64_t i = 0; i < pieces; i++)
        for (int64_t k = 0; k < 2 * j.c; k++)
            sums[k] += (double)j.part[i * 2 * j.c + k];
    nm_arena_rewind(r->arena, mark);
    return true;
}

typedef struct apply_job { const nm_run *r; const float *x, *y, *dy, *a, *b, *d; nm_act act; int64_t c; float *out; } apply_job;

static void apply_part(void *arg, int64_t b, int64_t e, int worker)
{
    const apply_job *j = arg;
    (void)worker;
    if (j->dy)
        j->r->kn->convnet.bn_back_apply(e - b, j->c, j->x + b * j->c, j->y + b * j->c, j->dy + b * j->c, j->a, j->b, j->d, j->act, j->out + b * j->c);
    else
        j->r->kn->convnet.bn_apply(e - b, j->c, j->x + b * j->c, j->a, j->b, j->act, j->out + b * j->c);
}

typedef struct batchnorm_saved {
    nm_tensor x, y;
    const nm_batchnorm_w *w;
    const float *mean, *rstd; /* [c] */
    nm_act act;
    int64_t rows, c;
    bool batch; /* of the batch: they depend on x */
} batchnorm_saved;

/* With h = (x - mean) rstd and g the gradient behind the activation: dw = sum g h, db = sum g; with statistics of the batch
 * dx = w rstd (g - db / rows - h dw / rows), else dx = w rstd g. */
static void batchnorm_backward(nm_run *r, void *saved)
{
    batchnorm_saved *s = saved;
    const float *dy = nm_grad_read(&s->y), *w = s->w->weight.f32;
    float *dx = s->x.grad ? nm_grad_data(r, &s->x) : NULL;
    int64_t c = s->c;
    double *sums = nm_scratch(r, (size_t)(2 * c) * sizeof *sums);
    float *coef = nm_scratch(r, (size_t)(3 * c) * sizeof *coef);
    if (!sums || !coef || !all_sums(r, (stats_job){ r, s->x.data, s->y.data, dy, s->mean, s->rstd, s->act, s->rows, c, NULL }, sums))
        return;
    float *dw = nm_trains(r, &s->w->weight) ? nm_weight_grad(r, &s->w->weight) : NULL, *db = nm_trains(r, &s->w->bias) ? nm_weight_grad(r, &s->w->bias) : NULL;
    for (int64_t i = 0; i < c; i++) {
        double a = (double)w[i] * (double)s->rstd[i], gh = sums[c + i] / (double)s->rows * (double)s->rstd[i];
        if (db)
            db[i] += (float)sums[i];
        if (dw)
            dw[i] += (float)sums[c + i];
        coef[i] = (float)a;
        coef[c + i] = s->batch ? (float)(-a * gh) : 0;
        coef[2 * c + i] = s->batch ? (float)(a * (gh * (double)s->mean[i] - sums[i] / (double)s->rows)) : 0;
    }
    apply_job j = { r, s->x.data, s->y.data, dy, coef, coef + c, coef + 2 * c, s->act, c, dx };
    if (dx)
        nm_parallel_for(r->pool, s->rows, nm_row_grain(c), apply_part, &j);
}

/* mean and 1 / sqrt(var + eps) of the batch; moves the running statistics when there is a tape. */
static bool batch_statistics(nm_run *r, const nm_batchnorm_w *w, const float *x, int64_t rows, int64_t c, float eps, float *mean, float *rstd)
{
    double *sums = nm_scratch(r, (size_t)(2 * c) * sizeof *sums);
    /* squares of the distance to the first pixel: a mean far from zero costs no digits */
    if (!sums || !all_sums(r, (stats_job){ .r = r, .x = x, .mean = x, .rows = rows, .c = c }, sums))
        return false;
    for (int64_t i = 0; i < c; i++) {
        double d = sums[i] / (double)rows, var = sums[c + i] / (double)rows - d * d, m = d + (double)x[i];
        var = var > 0 ? var : 0;
        mean[i] = (float)m;
        rstd[i] = (float)(1 / sqrt(var + (double)eps));
        if (r->tape) {
            float *rm = w->running_mean.f32, *rv = w->running_var.f32;
            double unbiased = rows > 1 ? var * (double)rows / (double)(rows - 1) : var;
            rm[i] = (float)(0.9 * (double)rm[i] + 0.1 * m);
            rv[i] = (float)(0.9 * (double)rv[i] + 0.1 * unbiased);
        }
    }
    return true;
}

nm_tensor nm_batchnorm(nm_run *r, nm_tensor x, const nm_batchnorm_w *w, float eps, nm_act act)
{
    if (!x.data || !nm_run_ok(r))
        return (nm_tensor){ 0 };
    int64_t c = x.shape[x.ndim - 1], rows = c ? nm_numel(&x) / c : 0;
    if (x.dtype != NM_F32 || !nm_is_contiguous(&x) || nm_shape_numel(w->weight.shape) != c || (act != NM_ACT_NONE && act != NM_ACT_RELU) || rows < 1)
        return nm_run_fail(r, NOEMA_E_INTERNAL, "batchnorm: expected contiguous f32 [.., channels] and ReLU or nothing");
    bool records = nm_wants(r, &x) || nm_trains(r, &w->weight), batch = r->training && w->weight.grad;
    nm_tensor y = records ? nm_new(r, NM_F32, nm_shape_of(&x)) : x; /* without a backward in place: x is a convolution's own result */
    nm_arena_mark mark = nm_arena_get_mark(r->arena);
    float *mean = nm_scratch(r, (size_t)(4 * c) * sizeof *mean), *rstd = mean + c, *scale = mean + 2 * c, *bias = mean + 3 * c;
    if (!y.data || !mean)
        return (nm_tensor){ 0 };
    for (int64_t i = 0; i < c; i++) {
        mean[i] = w->running_mean.f32[i];
        rstd[i] = 1 / sqrtf(w->running_var.f32[i] + eps);
    }
    if (batch && !batch_statistics(r, w, x.data, rows, c, eps, mean, rstd))
        return (nm_tensor){ 0 };
    for (int64_t i = 0; i < c; i++) {
        scale[i] = w->weight.f32[i] * rstd[i];
        bias[i] = w->bias.f32[i] - mean[i] * scale[i];
    }
    apply_job j = { .r = r, .x = x.data, .a = scale, .b = bias, .act = act, .c = c, .out = y.data };
    nm_parallel_for(r->pool, rows, nm_row_grain(c), apply_part, &j);
    if (records)
        NM_RECORD(r, y, batchnorm_backward, batchnorm_saved, x, y, w, mean, rstd, act, rows, c, batch);
    else
        nm_arena_rewind(r->arena, mark);
    return y;
}
