/* layout.c - dimensions in another order: see nn.h. */
#include "nn/ops.h"

/* Element of y, dimension by dimension: how far its source moves. */
typedef struct walk { int ndim; int64_t shape[NM_MAX_DIMS], step[NM_MAX_DIMS]; } walk;
typedef struct permute_saved { nm_tensor x, y; walk w; } permute_saved;
typedef struct permute_job { const walk *w; float *x, *y; bool back; } permute_job;

/* Lines [begin, end) of y, its last dimension each. */
static void permute_lines(void *arg, int64_t begin, int64_t end, int worker)
{
    const permute_job *j = arg;
    const walk *w = j->w;
    int64_t n = w->shape[w->ndim - 1], step = w->step[w->ndim - 1];
    (void)worker;
    for (int64_t line = begin; line < end; line++) {
        int64_t at = 0, left = line;
        for (int d = w->ndim - 2; d >= 0; d--) {
            at += left % w->shape[d] * w->step[d];
            left /= w->shape[d];
        }
        float *x = j->x + at, *y = j->y + line * n;
        if (j->back)
            for (int64_t i = 0; i < n; i++)
                x[i * step] += y[i];
        else
            for (int64_t i = 0; i < n; i++)
                y[i] = x[i * step];
    }
}

static void run_permute(nm_run *r, const walk *w, float *x, float *y, int64_t count, bool back)
{
    int64_t n = w->shape[w->ndim - 1];
    permute_job j = { w, x, y, back };
    if (n)
        nm_parallel_for(r->pool, count / n, nm_row_grain(n), permute_lines, &j);
}

static void permute_backward(nm_run *r, void *saved)
{
    permute_saved *s = saved;
    float *dx = nm_grad_data(r, &s->x);
    if (dx)
        run_permute(r, &s->w, dx, (float *)(uintptr_t)nm_grad_read(&s->y), nm_numel(&s->y), true);
}

nm_tensor nm_permute(nm_run *r, nm_tensor x, const int *axes)
{
    if (!x.data || !nm_run_ok(r))
        return (nm_tensor){ 0 };
    if (x.dtype != NM_F32 || x.ndim < 1)
        return nm_run_fail(r, NOEMA_E_INTERNAL, "permute: expected f32 with dimensions");
    walk w = { .ndim = x.ndim };
    nm_shape shape = { .ndim = x.ndim };
    for (int i = 0; i < x.ndim; i++) {
        shape.dim[i] = w.shape[i] = x.shape[axes[i]];
        w.step[i] = x.stride[axes[i]];
    }
    nm_tensor y = nm_new(r, NM_F32, shape);
    if (y.data)
        run_permute(r, &w, x.data, y.data, nm_numel(&y), false);
    if (nm_wants(r, &x))
        NM_RECORD(r, y, permute_backward, permute_saved, x, y, w);
    return y;
}
