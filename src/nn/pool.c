/* pool.c - pooling of NHWC pictures, change of layout, each beside its backward: see nn.h. */
#include "nn/ops.h"

/* ---- average pooling ---- */

typedef struct pool_saved { nm_tensor x, y; int64_t size; } pool_saved;
typedef struct pool_job { const nm_run *r; const pool_saved *s; const float *from; float *to; } pool_job;

static void pool_images(void *arg, int64_t b, int64_t e, int worker)
{
    const pool_job *j = arg;
    const int64_t *d = j->s->x.shape, size = j->s->size;
    (void)worker;
    for (int64_t i = b; i < e; i++)
        j->r->kn->elementwise.avgpool(j->from + i * d[1] * d[2] * d[3], d[1], d[2], d[3], size, j->to + i * (d[1] / size) * (d[2] / size) * d[3]);
}

/* Each pixel of a window gets dy / size^2; pixels beyond the last whole window get nothing. */
static void pool_back_images(void *arg, int64_t b, int64_t e, int worker)
{
    const pool_job *j = arg;
    int64_t h = j->s->x.shape[1], w = j->s->x.shape[2], c = j->s->x.shape[3], s = j->s->size, oh = h / s, ow = w / s;
    float inv = 1 / (float)(s * s), share[256];
    (void)worker;
    for (int64_t p = b * oh * ow; p < e * oh * ow; p++)
        for (int64_t c0 = 0; c0 < c; c0 += 256) {
            int64_t n = c - c0 < 256 ? c - c0 : 256, y = p / ow % oh * s, x = p % ow * s;
            for (int64_t i = 0; i < n; i++)
                share[i] = j->from[p * c + c0 + i] * inv;
            for (int64_t k = 0; k < s * s; k++) {
                float *dx = j->to + ((p / (oh * ow) * h + y + k / s) * w + x + k % s) * c + c0;
                j->r->kn->elementwise.add(n, dx, share, dx);
            }
        }
}

static void pool_backward(nm_run *r, void *saved)
{
    pool_saved *s = saved;
    pool_job j = { r, s, nm_grad_read(&s->y), nm_grad_data(r, &s->x) };
    if (j.to)
        nm_parallel_for(r->pool, s->x.shape[0], 1, pool_back_images, &j);
}

nm_tensor nm_avgpool2d(nm_run *r, nm_tensor x, int size)
{
    if (!x.data || !nm_run_ok(r) || size == 1)
        return x;
    if (x.ndim != 4 || x.dtype != NM_F32 || !nm_is_contiguous(&x))
        return nm_run_fail(r, NOEMA_E_INTERNAL, "avgpool: expected f32 [n, h, w, c]");
    nm_tensor y = nm_new(r, NM_F32, NM_SHAPE(x.shape[0], x.shape[1] / size, x.shape[2] / size, x.shape[3]));
    pool_saved s = { x, y, size };
    pool_job j = { r, &s, x.data, y.data };
    if (y.data)
        nm_parallel_for(r->pool, x.shape[0], 1, pool_images, &j);
    if (nm_wants(r, &x))
        NM_RECORD(r, y, pool_backward, pool_saved, x, y, size);
    return y;
}

/* ---- [n, a, b] -> [n, b, a] ---- */

typedef struct swap_saved { nm_tensor x, y; int64_t n, a, b; } swap_saved;
typedef struct swap_job { const float *from; float *to; int64_t a, b; bool add; } swap_job;

static void swap_items(void *arg, int64_t begin, int64_t end, int worker)
{
    const swap_job *j = arg;
    (void)worker;
    for (int64_t i = begin; i < end; i++) {
        const float *s = j->from + i * j->a * j->b;
        float *d = j->to + i * j->a * j->b;
        for (int64_t p = 0; p < j->b; p++)
            for (int64_t c = 0; c < j->a; c++)
                d[p * j->a + c] = s[c * j->b + p] + (j->add ? d[p * j->a + c] : 0);
    }
}

static void swap_backward(nm_run *r, void *saved)
{
    swap_saved *s = saved;
    swap_job j = { nm_grad_read(&s->y), nm_grad_data(r, &s->x), s->b, s->a, true };
    if (j.to)
        nm_parallel_for(r->pool, s->n, 1, swap_items, &j);
}

nm_tensor nm_swap_last(nm_run *r, nm_tensor x, int64_t n, int64_t a, int64_t b, nm_shape shape)
{
    if (!x.data || !nm_run_ok(r))
        return (nm_tensor){ 0 };
    if (x.dtype != NM_F32 || !nm_is_contiguous(&x) || nm_numel(&x) != n * a * b || nm_shape_numel(shape) != n * a * b)
        return nm_run_fail(r, NOEMA_E_INTERNAL, "swap: expected contiguous f32 [n, a, b]");
    nm_tensor y = nm_new(r, NM_F32, shape);
    swap_job j = { x.data, y.data, a, b, false };
    if (y.data)
        nm_parallel_for(r->pool, n, 1, swap_items, &j);
    if (nm_wants(r, &x))
        NM_RECORD(r, y, swap_backward, swap_saved, x, y, n, a, b);
    return y;
}
