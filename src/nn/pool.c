/* pool.c - pooling of NHWC pictures, each beside its backward: see nn.h. */
#include <math.h>

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

/* ---- any window ---- */

typedef struct window_saved { nm_tensor x, y; nm_pooling p; int32_t *from; } window_saved; /* from: the maximum's pixel, [n, oh, ow, c] */
typedef struct window_job { const window_saved *s; const float *dy; float *dx; } window_job;

/* Pixels [*begin, *end) of one axis under output o, cut to the picture; returns the length that an average divides by. */
static int64_t under(const nm_pooling *p, int axis, int64_t o, int64_t in, int64_t out, int64_t *begin, int64_t *end)
{
    if (p->adaptive) {
        *begin = o * in / out;
        *end = ((o + 1) * in + out - 1) / out;
        return *end - *begin;
    }
    int64_t from = o * p->stride[axis] - p->pad[axis], to = from + p->kernel[axis];
    *begin = from < 0 ? 0 : from;
    *end = to < in ? to : in;
    return p->kernel[axis]; /* padding counts */
}

static void window_images(void *arg, int64_t b, int64_t e, int worker)
{
    const window_job *j = arg;
    const window_saved *s = j->s;
    int64_t h = s->x.shape[1], w = s->x.shape[2], c = s->x.shape[3], oh = s->y.shape[1], ow = s->y.shape[2];
    (void)worker;
    for (int64_t o = b * oh * ow; o < e * oh * ow; o++) {
        int64_t y0, y1, x0, x1, image = o / (oh * ow) * h * w;
        int64_t area = under(&s->p, 0, o / ow % oh, h, oh, &y0, &y1) * under(&s->p, 1, o % ow, w, ow, &x0, &x1);
        for (int64_t k = 0; k < c; k++) {
            float sum = 0, most = -INFINITY;
            int64_t at = -1;
            for (int64_t i = y0; i < y1; i++)
                for (int64_t l = x0; l < x1; l++) {
                    float v = ((const float *)s->x.data)[(image + i * w + l) * c + k];
                    sum += v;
                    if (at < 0 || v > most || v != v) { /* the first of equals */
                        most = v;
                        at = image + i * w + l;
                    }
                }
            ((float *)s->y.data)[o * c + k] = s->p.max ? most : sum / (float)area;
            if (s->from)
                s->from[o * c + k] = (int32_t)at;
        }
    }
}

static void window_back_images(void *arg, int64_t b, int64_t e, int worker)
{
    const window_job *j = arg;
    const window_saved *s = j->s;
    int64_t h = s->x.shape[1], w = s->x.shape[2], c = s->x.shape[3], oh = s->y.shape[1], ow = s->y.shape[2];
    (void)worker;
    for (int64_t o = b * oh * ow; o < e * oh * ow; o++) {
        int64_t y0, y1, x0, x1, image = o / (oh * ow) * h * w;
        int64_t area = under(&s->p, 0, o / ow % oh, h, oh, &y0, &y1) * under(&s->p, 1, o % ow, w, ow, &x0, &x1);
        for (int64_t k = 0; s->p.max && k < c; k++)
            if (s->from[o * c + k] >= 0)
                j->dx[s->from[o * c + k] * c + k] += j->dy[o * c + k];
        for (int64_t i = y0; !s->p.max && i < y1; i++)
            for (int64_t l = x0; l < x1; l++)
                for (int64_t k = 0; k < c; k++)
                    j->dx[(image + i * w + l) * c + k] += j->dy[o * c + k] / (float)area;
    }
}

static void window_backward(nm_run *r, void *saved)
{
    window_job j = { saved, nm_grad_read(&((window_saved *)saved)->y), nm_grad_data(r, &((window_saved *)saved)->x) };
    if (j.dx)
        nm_parallel_for(r->pool, j.s->x.shape[0], 1, window_back_images, &j);
}

nm_tensor nm_pool2d(nm_run *r, nm_tensor x, nm_pooling p)
{
    int64_t out[2];
    if (!x.data || !nm_run_ok(r))
        return (nm_tensor){ 0 };
    for (int i = 0; i < 2 && x.ndim == 4; i++)
        out[i] = p.adaptive ? p.out[i] : p.stride[i] > 0 ? (x.shape[1 + i] + 2 * p.pad[i] - p.kernel[i]) / p.stride[i] + 1 : 0;
    if (x.ndim != 4 || x.dtype != NM_F32 || !nm_is_contiguous(&x) || out[0] < 1 || out[1] < 1 || nm_numel(&x) / (x.shape[3] ? x.shape[3] : 1) > INT32_MAX)
        return nm_run_fail(r, NOEMA_E_INTERNAL, "pool: expected f32 [n, h, w, c] of at least one window");
    nm_tensor y = nm_new(r, NM_F32, NM_SHAPE(x.shape[0], out[0], out[1], x.shape[3]));
    bool record = nm_wants(r, &x);
    window_saved s = { x, y, p, record && p.max ? nm_scratch(r, (size_t)nm_numel(&y) * sizeof(int32_t)) : NULL };
    if (!nm_run_ok(r))
        return (nm_tensor){ 0 };
    nm_parallel_for(r->pool, x.shape[0], 1, window_images, &(window_job){ .s = &s });
    if (record)
        NM_RECORD(r, y, window_backward, window_saved, x, y, p, s.from);
    return y;
}
