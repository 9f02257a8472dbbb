/* softmax.c - softmax, its logarithm, and temperatures, each beside its backward: see nn.h. */
#include <math.h>
#include <string.h>

#include "nn/ops.h"

typedef struct softmax_saved { nm_tensor x, y; int64_t rows, cols; bool log; } softmax_saved;
typedef struct softmax_job { const softmax_saved *s; const float *dy; float *dx; } softmax_job;

/* dx = y (dy - sum y dy); of the logarithm: dx = dy - exp(y) sum dy. */
static void softmax_back_rows(void *arg, int64_t b, int64_t e, int worker)
{
    const softmax_job *j = arg;
    int64_t n = j->s->cols;
    (void)worker;
    for (int64_t i = b; i < e; i++) {
        const float *y = (const float *)j->s->y.data + i * n, *dy = j->dy + i * n;
        float *dx = j->dx + i * n;
        double sum = 0;
        for (int64_t c = 0; c < n; c++)
            sum += j->s->log ? (double)dy[c] : (double)dy[c] * (double)y[c];
        for (int64_t c = 0; c < n; c++)
            dx[c] += (float)(j->s->log ? (double)dy[c] - exp((double)y[c]) * sum : (double)y[c] * ((double)dy[c] - sum));
    }
}

static void softmax_backward(nm_run *r, void *saved)
{
    softmax_saved *s = saved;
    softmax_job j = { s, nm_grad_read(&s->y), nm_grad_data(r, &s->x) };
    if (j.dx)
        nm_parallel_for(r->pool, s->rows, nm_row_grain(s->cols), softmax_back_rows, &j);
}

/* In place. */
static void log_softmax_row(float *y, int64_t n)
{
    double most = -INFINITY, sum = 0;
    for (int64_t c = 0; c < n; c++)
        most = (double)y[c] > most ? (double)y[c] : most;
    for (int64_t c = 0; c < n; c++)
        sum += exp((double)y[c] - most);
    for (int64_t c = 0; c < n; c++)
        y[c] = (float)((double)y[c] - most - log(sum));
}

static void softmax_rows(void *arg, int64_t b, int64_t e, int worker)
{
    const softmax_job *j = arg;
    (void)worker;
    for (int64_t i = b; i < e; i++)
        log_softmax_row((float *)j->s->y.data + i * j->s->cols, j->s->cols);
}

static nm_tensor softmax_of(nm_run *r, nm_tensor x, bool log)
{
    if (!x.data || !nm_run_ok(r))
        return (nm_tensor){ 0 };
    if (x.ndim < 1 || x.dtype != NM_F32 || !nm_is_contiguous(&x))
        return nm_run_fail(r, NOEMA_E_INTERNAL, "softmax: expected contiguous f32 rows");
    int64_t cols = x.shape[x.ndim - 1], rows = cols ? nm_numel(&x) / cols : 0;
    nm_tensor y = nm_new(r, NM_F32, nm_shape_of(&x));
    if (!y.data)
        return y;
    memcpy(y.data, x.data, (size_t)(rows * cols) * sizeof(float));
    softmax_saved s = { x, y, rows, cols, log };
    if (log)
        nm_parallel_for(r->pool, rows, nm_row_grain(cols), softmax_rows, &(softmax_job){ .s = &s });
    else
        r->kn->norm.softmax(rows, cols, y.data, cols);
    if (nm_wants(r, &x))
        NM_RECORD(r, y, softmax_backward, softmax_saved, x, y, rows, cols, log);
    return y;
}

nm_tensor nm_softmax(nm_run *r, nm_tensor x) { return softmax_of(r, x, false); }
nm_tensor nm_log_probs(nm_run *r, nm_tensor x) { return softmax_of(r, x, true); }

/* ---- y = x exp(s), y = x / s ---- */

typedef struct temperature_saved { nm_tensor x, s, y; nm_temperature_kind kind; } temperature_saved;

static double factor_of(const nm_tensor *s, nm_temperature_kind kind)
{
    double v = (double)((const float *)s->data)[0];
    return kind == NM_TIMES_EXP ? exp(v) : 1 / v;
}

/* ds is sum dy y, or minus that over s. */
static void temperature_backward(nm_run *r, void *saved)
{
    temperature_saved *t = saved;
    const float *dy = nm_grad_read(&t->y), *y = t->y.data;
    float *dx = nm_grad_data(r, &t->x), *ds = nm_grad_data(r, &t->s);
    double f = factor_of(&t->s, t->kind), sum = 0;
    for (int64_t i = 0, n = nm_numel(&t->y); i < n; i++) {
        sum += (double)dy[i] * (double)y[i];
        if (dx)
            dx[i] += (float)((double)dy[i] * f);
    }
    if (ds)
        ds[0] += (float)(t->kind == NM_TIMES_EXP ? sum : -sum * f);
}

nm_tensor nm_temperature(nm_run *r, nm_tensor x, nm_tensor s, nm_temperature_kind kind)
{
    if (!x.data || !s.data || !nm_run_ok(r))
        return (nm_tensor){ 0 };
    if (x.dtype != NM_F32 || s.dtype != NM_F32 || !nm_is_contiguous(&x) || nm_numel(&s) != 1)
        return nm_run_fail(r, NOEMA_E_INTERNAL, "temperature: expected contiguous f32 and one number");
    nm_tensor y = nm_new(r, NM_F32, nm_shape_of(&x));
    double f = factor_of(&s, kind);
    for (int64_t i = 0, n = nm_numel(&x); y.data && i < n; i++)
        ((float *)y.data)[i] = (float)((double)((const float *)x.data)[i] * f);
    if (nm_wants(r, &x) || nm_wants(r, &s))
        NM_RECORD(r, y, temperature_backward, temperature_saved, x, s, y, kind);
    return y;
}
