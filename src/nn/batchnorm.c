/* batchnorm.c - batch normalisation, statistics and both directions: see nn.h and ops.h.
 *
 * With h = (x - mean) rstd and y = h weight + bias, N rows:
 *     dweight = sum dy h, dbias = sum dy, dx = weight rstd (dy - sum dy / N - h sum(dy h) / N)
 * and dx = weight rstd dy where mean and rstd are constants (the running statistics). */
#include <math.h>
#include <string.h>

#include "nn/ops.h"

#define MOMENTUM 0.1
#define BLOCK_ROWS 256 /* summed in f32 before they join the sums in double */

/* ---- statistics ---- */

/* Blocks join by Chan's rule: the mean moves by delta n / N, the squares gain delta^2 n_before n / N. */
static void join(double *mean, double *squares, double before, double rows, double block_mean, double block_squares)
{
    double delta = block_mean - *mean, all = before + rows;
    *mean += delta * rows / all;
    *squares += block_squares + delta * delta * before * rows / all;
}

/* Sums are taken around the first row: a far-off mean does not swallow the deviations. */
void nm_bn_moments(const nm_run *r, int64_t rows, int64_t cols, const float *x, float *scratch, nm_bn_block *b)
{
    float *shift = scratch, *sum = shift + cols, *square = sum + cols;
    memset(b->mean, 0, (size_t)cols * sizeof *b->mean);
    memset(b->squares, 0, (size_t)cols * sizeof *b->squares);
    b->rows = rows;
    memcpy(shift, x, (size_t)cols * sizeof *shift);
    for (int64_t at = 0; at < rows; at += BLOCK_ROWS) {
        int64_t n = rows - at < BLOCK_ROWS ? rows - at : BLOCK_ROWS;
        r->kn->channels.moments(n, cols, x + at * cols, shift, sum, square);
        for (int64_t c = 0; c < cols; c++) {
            double mean = (double)sum[c] / (double)n, around = (double)square[c] - mean * (double)sum[c];
            join(&b->mean[c], &b->squares[c], (double)at, (double)n, (double)shift[c] + mean, around > 0 ? around : 0);
        }
    }
}

static bool new_norm(nm_run *r, int64_t cols, nm_bn_norm *s)
{
    float *p = nm_scratch(r, (size_t)(4 * cols) * sizeof *p);
    if (p)
        *s = (nm_bn_norm){ p, p + cols, p + 2 * cols, p + 3 * cols, false };
    return p != NULL;
}

static void set_channel(const nm_batchnorm_w *bn, nm_bn_norm *s, int64_t c, double mean, double var, double eps)
{
    double rstd = 1 / sqrt(var + eps), w = nm_has(&bn->weight) ? (double)bn->weight.f32[c] : 1;
    s->mean[c] = (float)mean;
    s->rstd[c] = (float)rstd;
    s->scale[c] = (float)(w * rstd);
    s->shift[c] = (float)((nm_has(&bn->bias) ? (double)bn->bias.f32[c] : 0) - mean * w * rstd);
}

nm_bn_norm nm_bn_running(nm_run *r, const nm_batchnorm_w *bn, float eps, int64_t cols)
{
    nm_bn_norm s = { 0 };
    if (nm_shape_numel(bn->running_mean.shape) != cols || nm_shape_numel(bn->running_var.shape) != cols) {
        nm_run_fail(r, NOEMA_E_INTERNAL, "batchnorm: statistics of another width");
        return s;
    }
    if (new_norm(r, cols, &s))
        for (int64_t c = 0; c < cols; c++)
            set_channel(bn, &s, c, (double)bn->running_mean.f32[c], (double)bn->running_var.f32[c], (double)eps);
    return s;
}

/* The running statistics are part of the model, which a run in training owns alone. */
static void follow(const nm_batchnorm_w *bn, int64_t c, double mean, double unbiased)
{
    float *m = bn->running_mean.f32, *v = bn->running_var.f32;
    m[c] = (float)((1 - MOMENTUM) * (double)m[c] + MOMENTUM * mean);
    v[c] = (float)((1 - MOMENTUM) * (double)v[c] + MOMENTUM * unbiased);
}

nm_bn_norm nm_bn_batch(nm_run *r, const nm_batchnorm_w *bn, float eps, int64_t cols, const nm_bn_block *blocks, int64_t n_blocks)
{
    nm_bn_norm s = { 0 };
    int64_t rows = 0;
    for (int64_t i = 0; i < n_blocks; i++)
        rows += blocks[i].rows;
    if (rows < 2) {
        nm_run_fail(r, NOEMA_E_ARGUMENT, "batch normalisation in training needs more than one value per channel; expected a larger batch");
        return s;
    }
    if (!new_norm(r, cols, &s))
        return s;
    s.batch = true;
    for (int64_t c = 0; c < cols; c++) {
        double mean = 0, squares = 0, before = 0;
        for (int64_t i = 0; i < n_blocks; before += (double)blocks[i++].rows)
            join(&mean, &squares, before, (double)blocks[i].rows, blocks[i].mean[c], blocks[i].squares[c]);
        set_channel(bn, &s, c, mean, squares / (double)rows, (double)eps);
        if (!r->rehearsal)
            follow(bn, c, mean, squares / (double)(rows - 1));
    }
    if (!r->rehearsal && nm_has(&bn->num_batches_tracked))
        bn->num_batches_tracked.f32[0]++;
    return s;
}

/* ---- forward ---- */

typedef struct apply_job { const nm_run *r; const nm_bn_norm *s; const float *x, *residual; float *y; int64_t cols; bool relu; } apply_job;

static void apply_rows(void *arg, int64_t b, int64_t e, int worker)
{
    const apply_job *j = arg;
    int64_t at = b * j->cols;
    (void)worker;
    j->r->kn->channels.affine(e - b, j->cols, j->x + at, j->s->scale, j->s->shift, j->residual ? j->residual + at : NULL, j->relu, j->y + at);
}

void nm_bn_apply(nm_run *r, const nm_bn_norm *s, nm_tensor x, const nm_tensor *residual, bool relu, nm_tensor y)
{
    int64_t cols = x.shape[x.ndim - 1];
    apply_job j = { r, s, x.data, residual ? residual->data : NULL, y.data, cols, relu };
    nm_parallel_for(r->pool, nm_numel(&x) / cols, nm_row_grain(cols), apply_rows, &j);
}

/* ---- the way back ---- */

typedef struct sums_job { const nm_run *r; const nm_channel_back *j; int64_t rows; float *sums; } sums_job; /* per block [2][cols] */

/* The rows of `j` from row on. */
static nm_channel_back from_row(const nm_channel_back *j, int64_t row)
{
    nm_channel_back p = *j;
    int64_t at = row * j->cols;
    p.dy += at;
    p.x += at;
    p.y = j->y ? j->y + at : NULL;
    p.dx = j->dx ? j->dx + at : NULL;
    p.residual = j->residual ? j->residual + at : NULL;
    return p;
}

static void sum_blocks(void *arg, int64_t b, int64_t e, int worker)
{
    const sums_job *s = arg;
    (void)worker;
    for (int64_t i = b; i < e; i++) {
        nm_channel_back p = from_row(s->j, i * BLOCK_ROWS);
        int64_t left = s->rows - i * BLOCK_ROWS;
        s->r->kn->channels.back_sums(left < BLOCK_ROWS ? left : BLOCK_ROWS, &p, s->sums + 2 * i * p.cols, s->sums + (2 * i + 1) * p.cols);
    }
}

void nm_bn_prepare_back(nm_run *r, const nm_batchnorm_w *bn, const nm_bn_norm *s, int64_t rows, nm_channel_back *j)
{
    int64_t cols = j->cols, blocks = (rows + BLOCK_ROWS - 1) / BLOCK_ROWS;
    float *abk = nm_scratch(r, (size_t)(2 * cols) * sizeof *abk);
    j->scale = s->scale;
    j->shift = s->shift;
    j->mean = s->mean;
    if (!abk)
        return;
    j->a = abk;
    j->b = abk + cols;
    j->k = s->scale; /* weight rstd */
    memset(abk, 0, (size_t)(2 * cols) * sizeof *abk);
    float *dw = nm_trains(r, &bn->weight) ? nm_weight_grad(r, &bn->weight) : NULL, *db = nm_trains(r, &bn->bias) ? nm_weight_grad(r, &bn->bias) : NULL;
    if (!s->batch && !dw && !db)
        return;
    nm_arena_mark mark = nm_arena_get_mark(r->arena);
    sums_job sj = { r, j, rows, nm_scratch(r, (size_t)(2 * cols * blocks) * sizeof(float)) };
    if (!sj.sums)
        return;
    nm_parallel_for(r->pool, blocks, 1, sum_blocks, &sj);
    for (int64_t c = 0; c < cols; c++) {
        double sum = 0, product = 0, rstd = (double)s->rstd[c];
        for (int64_t i = 0; i < blocks; i++) {
            sum += (double)sj.sums[2 * i * cols + c];
            product += (double)sj.sums[(2 * i + 1) * cols + c];
        }
        if (dw)
            dw[c] += (float)(product * rstd);
        if (db)
            db[c] += (float)sum;
        if (s->batch) {
            abk[c] = (float)(sum / (double)rows);
            abk[cols + c] = (float)(product * rstd * rstd / (double)rows);
        }
    }
    nm_arena_rewind(r->arena, mark);
}

/* ---- the operator alone ---- */

typedef struct batchnorm_saved { nm_tensor x, y, residual; const nm_batchnorm_w *bn; nm_bn_norm norm; int64_t rows, cols; bool relu; } batchnorm_saved;
typedef struct rows_job { const nm_run *r; const nm_channel_back *j; float *dx; } rows_job;

/* dx is added to: the rows come by way of a small block. */
static void back_rows(void *arg, int64_t b, int64_t e, int worker)
{
    const rows_job *w = arg;
    float block[1024];
    (void)worker;
    for (int64_t i = b; i < e; i++) {
        nm_channel_back p = from_row(w->j, i);
        p.dx = p.cols <= 1024 ? block : (float *)(uintptr_t)p.dy;
        w->r->kn->channels.back_rows(1, &p);
        if (w->dx)
            w->r->kn->elementwise.add(p.cols, w->dx + i * p.cols, p.dx, w->dx + i * p.cols);
    }
}

static void batchnorm_backward(nm_run *r, void *saved)
{
    batchnorm_saved *s = saved;
    nm_channel_back j = { .cols = s->cols, .relu = s->relu, .dy = nm_grad_read(&s->y), .x = s->x.data,
                          .y = s->relu && s->residual.data ? s->y.data : NULL };
    bool add = true;
    if (s->residual.grad)
        j.residual = nm_grad_out(r, &s->residual, &add);
    j.residual_fresh = !add;
    rows_job w = { r, &j, nm_grad_data(r, &s->x) };
    nm_bn_prepare_back(r, s->bn, &s->norm, s->rows, &j);
    if (nm_run_ok(r) && (w.dx || j.residual))
        nm_parallel_for(r->pool, s->rows, nm_row_grain(s->cols), back_rows, &w);
}

nm_tensor nm_batchnorm(nm_run *r, nm_tensor x, const nm_batchnorm_w *bn, float eps, const nm_tensor *residual, bool relu)
{
    if (!x.data || (residual && !residual->data) || !nm_run_ok(r))
        return (nm_tensor){ 0 };
    if (x.dtype != NM_F32 || !nm_is_contiguous(&x) || (residual && (!nm_same_shape(&x, residual) || !nm_is_contiguous(residual))))
        return nm_run_fail(r, NOEMA_E_INTERNAL, "batchnorm: expected contiguous f32 rows, and a residual of their shape");
    int64_t cols = x.shape[x.ndim - 1], rows = cols ? nm_numel(&x) / cols : 0;
    nm_tensor y = nm_new(r, NM_F32, nm_shape_of(&x));
    nm_bn_norm s = { 0 };
    if (nm_bn_follows(r, bn)) {
        nm_bn_block b = { nm_scratch(r, (size_t)cols * sizeof(double)), nm_scratch(r, (size_t)cols * sizeof(double)), 0 };
        float *scratch = nm_scratch(r, (size_t)(3 * cols) * sizeof *scratch);
        if (!nm_run_ok(r))
            return (nm_tensor){ 0 };
        nm_bn_moments(r, rows, cols, x.data, scratch, &b);
        s = nm_bn_batch(r, bn, eps, cols, &b, 1);
    } else
        s = nm_bn_running(r, bn, eps, cols);
    if (!nm_run_ok(r))
        return (nm_tensor){ 0 };
    nm_bn_apply(r, &s, x, residual, relu, y);
    if (nm_wants(r, &x) || (residual && nm_wants(r, residual)) || nm_bn_trains(r, bn))
        NM_RECORD(r, y, batchnorm_backward, batchnorm_saved, x, y, residual ? *residual : (nm_tensor){ 0 }, bn, s, rows, cols, relu);
    return y;
}
