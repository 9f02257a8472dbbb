/* norm.c - LayerNorm, RMS norm and L2 normalisation, each beside its backward: see nn.h. */
#include <math.h>
#include <string.h>

#include "nn/ops.h"

typedef struct norm_job {
    const nm_run *r;
    const float *x, *weight, *bias;
    int64_t cols, ldx, ldy;
    float eps;
    char *y;
    nm_dtype dtype;
} norm_job;

static void norm_rows(void *arg, int64_t b, int64_t e, int worker)
{
    const norm_job *j = arg;
    (void)worker;
    j->r->kn->norm.layernorm(e - b, j->cols, j->x + b * j->ldx, j->ldx, j->weight, j->bias, j->eps,
                             j->y + (size_t)(b * j->ldy) * nm_dtype_size(j->dtype), j->dtype, j->ldy);
}

/* Pieces of LN_ROWS rows, each with sums of its own for the weight and the bias, added in the order of the rows afterwards. */
enum { LN_ROWS = 32 };
typedef struct layernorm_saved { nm_tensor x, y; const nm_norm_w *w; int64_t rows, cols, ldx; float eps; } layernorm_saved;
typedef struct layernorm_back { const nm_run *r; const layernorm_saved *s; const float *dy; float *dx, *dweight, *dbias; bool add; } layernorm_back;

static void layernorm_back_part(void *arg, int64_t b, int64_t e, int worker)
{
    const layernorm_back *j = arg;
    const layernorm_saved *s = j->s;
    (void)worker;
    for (int64_t i = b; i < e; i++) {
        int64_t row = i * LN_ROWS, rows = s->rows - row < LN_ROWS ? s->rows - row : LN_ROWS;
        float *dw = j->dweight ? j->dweight + i * s->cols : NULL, *db = j->dbias ? j->dbias + i * s->cols : NULL;
        for (int64_t c = 0; c < s->cols; c++) {
            if (dw)
                dw[c] = 0;
            if (db)
                db[c] = 0;
        }
        j->r->kn->gradient.layernorm_back(rows, s->cols, (const float *)s->x.data + row * s->ldx, s->ldx, s->w->weight.f32, s->eps, j->dy + row * s->cols,
                                          j->dx ? j->dx + row * s->ldx : NULL, j->add, dw, db);
    }
}

static void layernorm_backward(nm_run *r, void *saved)
{
    layernorm_saved *s = saved;
    bool weight = nm_trains(r, &s->w->weight), bias = nm_trains(r, &s->w->bias);
    int64_t parts = (s->rows + LN_ROWS - 1) / LN_ROWS;
    layernorm_back j = { .r = r, .s = s, .dy = nm_grad_read(&s->y) };
    j.dx = nm_grad_out(r, &s->x, &j.add);
    if (weight)
        j.dweight = nm_scratch(r, (size_t)(parts * s->cols) * sizeof(float));
    if (bias)
        j.dbias = nm_scratch(r, (size_t)(parts * s->cols) * sizeof(float));
    if (!nm_run_ok(r))
        return;
    nm_parallel_for(r->pool, parts, 1, layernorm_back_part, &j);
    if (weight)
        nm_add_column_sums(r, j.dweight, parts, s->cols, s->cols, nm_weight_grad(r, &s->w->weight));
    if (bias)
        nm_add_column_sums(r, j.dbias, parts, s->cols, s->cols, nm_weight_grad(r, &s->w->bias));
}

static nm_tensor layernorm_as(nm_run *r, nm_tensor x, const nm_norm_w *w, float eps, nm_dtype dtype)
{
    int64_t rows, ld;
    if (!x.data || !nm_run_ok(r))
        return (nm_tensor){ 0 };
    int64_t cols = x.shape[x.ndim - 1];
    if (x.dtype != NM_F32 || !nm_as_rows(&x, &rows, &ld) || (nm_has(&w->weight) && nm_shape_numel(w->weight.shape) != cols))
        return nm_run_fail(r, NOEMA_E_INTERNAL, "layernorm: expected f32 rows of the weight's width");
    nm_tensor y = nm_new(r, dtype, nm_with_last(&x, cols));
    if (!y.data)
        return y;
    norm_job j = { r, x.data, w->weight.f32, w->bias.f32, cols, ld, cols, eps, y.data, dtype };
    nm_parallel_for(r->pool, rows, nm_row_grain(cols), norm_rows, &j);
    if (nm_wants(r, &x) || nm_trains(r, &w->weight) || nm_trains(r, &w->bias))
        NM_RECORD(r, y, layernorm_backward, layernorm_saved, x, y, w, rows, cols, ld, eps);
    return y;
}

nm_tensor nm_layernorm(nm_run *r, nm_tensor x, const nm_norm_w *w, float eps) { return layernorm_as(r, x, w, eps, r->act); }
nm_tensor nm_layernorm_f32(nm_run *r, nm_tensor x, const nm_norm_w *w, float eps) { return layernorm_as(r, x, w, eps, NM_F32); }

/* ---- y = x / sqrt(mean(x^2) + eps) * weight ---- */

typedef struct rmsnorm_saved { nm_tensor x, y; const nm_weight *w; int64_t rows, cols, ldx; float eps; } rmsnorm_saved;

/* With s = 1 / sqrt(mean(x^2) + eps), g = dy * weight: dx = s (g - x s^2 mean(g x)), dweight = sum of dy x s. */
static void rmsnorm_backward(nm_run *r, void *saved)
{
    rmsnorm_saved *s = saved;
    const float *dy = nm_grad_read(&s->y), *w = s->w->f32;
    float *dx = nm_grad_data(r, &s->x), *dw = nm_trains(r, s->w) ? nm_weight_grad(r, s->w) : NULL;
    int64_t n = s->cols;
    for (int64_t i = 0; i < s->rows; i++, dy += n) {
        const float *x = (const float *)s->x.data + i * s->ldx;
        double sq = 0, gx = 0;
        for (int64_t c = 0; c < n; c++) {
            sq += (double)x[c] * (double)x[c];
            gx += (double)dy[c] * (double)w[c] * (double)x[c];
        }
        double scale = 1 / sqrt(sq / (double)n + (double)s->eps), pull = scale * scale * gx / (double)n;
        for (int64_t c = 0; dx && c < n; c++)
            dx[i * s->ldx + c] += (float)(scale * ((double)dy[c] * (double)w[c] - (double)x[c] * pull));
        for (int64_t c = 0; dw && c < n; c++)
            dw[c] += (float)((double)dy[c] * (double)x[c] * scale);
    }
}

static void rms_rows(void *arg, int64_t b, int64_t e, int worker)
{
    const norm_job *j = arg;
    (void)worker;
    j->r->kn->norm.rmsnorm(e - b, j->cols, j->x + b * j->ldx, j->ldx, j->weight, j->eps, j->y + (size_t)(b * j->ldy) * nm_dtype_size(j->dtype),
                           j->dtype, j->ldy);
}

static nm_tensor rmsnorm_as(nm_run *r, nm_tensor x, const nm_weight *w, float eps, nm_dtype dtype)
{
    int64_t rows, ld;
    if (!x.data || !nm_run_ok(r))
        return (nm_tensor){ 0 };
    int64_t cols = x.shape[x.ndim - 1];
    if (x.dtype != NM_F32 || !nm_as_rows(&x, &rows, &ld) || !w->f32 || nm_shape_numel(w->shape) != cols)
        return nm_run_fail(r, NOEMA_E_INTERNAL, "rmsnorm: expected f32 rows of the weight's width");
    nm_tensor y = nm_new(r, dtype, nm_with_last(&x, cols));
    if (!y.data)
        return y;
    norm_job j = { r, x.data, w->f32, NULL, cols, ld, cols, eps, y.data, dtype };
    nm_parallel_for(r->pool, rows, nm_row_grain(cols), rms_rows, &j);
    if (nm_wants(r, &x) || nm_trains(r, w))
        NM_RECORD(r, y, rmsnorm_backward, rmsnorm_saved, x, y, w, rows, cols, ld, eps);
    return y;
}

nm_tensor nm_rmsnorm(nm_run *r, nm_tensor x, const nm_weight *w, float eps) { return rmsnorm_as(r, x, w, eps, r->act); }
nm_tensor nm_rmsnorm_f32(nm_run *r, nm_tensor x, const nm_weight *w, float eps) { return rmsnorm_as(r, x, w, eps, NM_F32); }

/* ---- y = x / max(|x|, eps) ---- */

typedef struct normalize_saved { nm_tensor x, y; int64_t rows, cols; float eps; } normalize_saved;

/* dx = (dy - y (y . dy)) / |x| where the norm is above eps, else dy / eps. */
static void normalize_backward(nm_run *r, void *saved)
{
    normalize_saved *s = saved;
    const float *dy = nm_grad_read(&s->y), *x = s->x.data, *y = s->y.data;
    float *dx = nm_grad_data(r, &s->x);
    int64_t n = s->cols;
    for (int64_t i = 0; dx && i < s->rows; i++, dy += n, x += n, y += n, dx += n) {
        double norm = 0, dot = 0;
        for (int64_t c = 0; c < n; c++) {
            norm += (double)x[c] * (double)x[c];
            dot += (double)y[c] * (double)dy[c];
        }
        norm = sqrt(norm);
        if (norm <= (double)s->eps) {
            dot = 0;
            norm = (double)s->eps;
        }
        for (int64_t c = 0; c < n; c++)
            dx[c] += (float)(((double)dy[c] - (double)y[c] * dot) / norm);
    }
}

nm_tensor nm_normalize(nm_run *r, nm_tensor x, float eps)
{
    if (!x.data || !nm_run_ok(r))
        return (nm_tensor){ 0 };
    x = x.dtype == NM_F32 && nm_is_contiguous(&x) ? x : nm_cast(r, x, NM_F32);
    nm_tensor y = nm_new(r, NM_F32, nm_shape_of(&x));
    if (!y.data)
        return y;
    int64_t cols = x.shape[x.ndim - 1], rows = cols ? nm_numel(&x) / cols : 0;
    memcpy(y.data, x.data, (size_t)nm_numel(&x) * sizeof(float));
    r->kn->norm.l2norm(rows, cols, y.data, cols, eps);
    if (nm_wants(r, &x))
        NM_RECORD(r, y, normalize_backward, normalize_saved, x, y, rows, cols, eps);
    return y;
}
