/* dropout.c - dropout, drop path and sigmoid gates, each beside its backward: see nn.h. */
#include <math.h>

#include "nn/ops.h"

/* ---- y = x keep / (1 - p) ---- */

typedef struct keep_saved { nm_tensor x, y; const float *factor; int64_t group; } keep_saved;

static void keep_backward(nm_run *r, void *saved)
{
    keep_saved *s = saved;
    const float *dy = nm_grad_read(&s->y);
    float *dx = nm_grad_data(r, &s->x);
    for (int64_t i = 0, n = nm_numel(&s->y); dx && i < n; i++)
        dx[i] += dy[i] * s->factor[i / s->group];
}

/* One factor for each `group` elements. */
static nm_tensor times_factors(nm_run *r, nm_tensor x, const float *factor, int64_t group)
{
    nm_tensor y = nm_new(r, NM_F32, nm_shape_of(&x));
    for (int64_t i = 0, n = nm_numel(&x); y.data && factor && i < n; i++)
        ((float *)y.data)[i] = ((const float *)x.data)[i] * factor[i / group];
    if (nm_wants(r, &x))
        NM_RECORD(r, y, keep_backward, keep_saved, x, y, factor, group);
    return y;
}

nm_tensor nm_keep_where(nm_run *r, nm_tensor x, const float *keep, int64_t group, float p)
{
    if (!x.data || !nm_run_ok(r))
        return (nm_tensor){ 0 };
    if (x.dtype != NM_F32 || !nm_is_contiguous(&x) || group < 1)
        return nm_run_fail(r, NOEMA_E_INTERNAL, "dropout: expected contiguous f32");
    int64_t n = (nm_numel(&x) + group - 1) / group;
    float *factor = nm_scratch(r, (size_t)n * sizeof *factor);
    for (int64_t i = 0; factor && i < n; i++) /* keep NULL: drawn */
        factor[i] = (keep ? keep[i] != 0 : nm_rng_uniform(&r->rng) >= p) ? 1 / (1 - p) : 0;
    return factor || !n ? times_factors(r, x, factor, group) : (nm_tensor){ 0 };
}

nm_tensor nm_dropout(nm_run *r, nm_tensor x, float p) { return x.data && r->training && p > 0 ? nm_keep_where(r, x, NULL, 1, p) : x; }

nm_tensor nm_drop_path(nm_run *r, nm_tensor x, float p)
{
    return x.data && r->training && p > 0 && x.shape[0] ? nm_keep_where(r, x, NULL, nm_numel(&x) / x.shape[0], p) : x;
}

/* ---- gates ---- */

typedef struct gate_saved { nm_tensor x, y; bool hard; } gate_saved;

static void gate_backward(nm_run *r, void *saved)
{
    gate_saved *s = saved;
    const float *dy = nm_grad_read(&s->y), *x = s->x.data, *y = s->y.data;
    float *dx = nm_grad_data(r, &s->x);
    for (int64_t i = 0, n = nm_numel(&s->y); dx && i < n; i++)
        dx[i] += s->hard ? (x[i] > -3 && x[i] < 3 ? dy[i] / 6 : 0) : dy[i] * y[i] * (1 - y[i]);
}

static nm_tensor gate(nm_run *r, nm_tensor x, bool hard)
{
    if (!x.data || !nm_run_ok(r))
        return (nm_tensor){ 0 };
    if (x.dtype != NM_F32 || !nm_is_contiguous(&x))
        return nm_run_fail(r, NOEMA_E_INTERNAL, "sigmoid: expected a contiguous f32 tensor");
    nm_tensor y = nm_new(r, NM_F32, nm_shape_of(&x));
    for (int64_t i = 0, n = nm_numel(&x); y.data && i < n; i++) {
        float v = ((const float *)x.data)[i];
        ((float *)y.data)[i] = hard ? (v <= -3 ? 0 : v >= 3 ? 1 : (v + 3) / 6) : 1 / (1 + expf(-v));
    }
    if (nm_wants(r, &x))
        NM_RECORD(r, y, gate_backward, gate_saved, x, y, hard);
    return y;
}

nm_tensor nm_sigmoid(nm_run *r, nm_tensor x) { return gate(r, x, false); }
nm_tensor nm_hard_sigmoid(nm_run *r, nm_tensor x) { return gate(r, x, true); }
