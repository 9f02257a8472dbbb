/* deform.c - deformable convolution: see nn.h. The displaced pixels are gathered into rows [pixels, taps x channels], which one product
 * multiplies by the weight; the way back scatters the rows' gradient to pixels, offsets and masks. */
#include <math.h>
#include <string.h>

#include "nn/ops.h"

typedef struct deform_saved {
    nm_tensor x, offset, mask, y;
    const nm_weight *w, *bias;
    float *rows, *weight;                /* [pixels, taps * c], [out, taps * c] */
    int64_t n, h, wd, c, o, kh, kw, oh, ow;
    int stride, pad;
} deform_saved;

/* The four pixels around a place and their shares; a corner outside has index -1. */
typedef struct corners { int64_t at[4]; double share[4], dy[4], dx[4]; } corners;

static corners around(const deform_saved *s, int64_t image, double y, double x)
{
    corners k;
    double y0 = floor(y), x0 = floor(x), fy = y - y0, fx = x - x0;
    bool inside = y > -1 && y < (double)s->h && x > -1 && x < (double)s->wd;
    for (int i = 0; i < 4; i++) {
        int64_t py = inside ? (int64_t)y0 + i / 2 : -1, px = inside ? (int64_t)x0 + i % 2 : -1;
        double a = i / 2 ? fy : 1 - fy, b = i % 2 ? fx : 1 - fx;
        k.at[i] = py >= 0 && py < s->h && px >= 0 && px < s->wd ? ((image * s->h + py) * s->wd + px) * s->c : -1;
        k.share[i] = a * b;
        k.dy[i] = i / 2 ? b : -b;
        k.dx[i] = i % 2 ? a : -a;
    }
    return k;
}

/* Where tap t of output pixel p reads. */
static corners place(const deform_saved *s, int64_t p, int64_t t)
{
    int64_t taps = s->kh * s->kw, oy = p / s->ow % s->oh, ox = p % s->ow;
    const float *off = (const float *)s->offset.data + (p * taps + t) * 2;
    return around(s, p / (s->oh * s->ow), (double)(oy * s->stride - s->pad + t / s->kw) + (double)off[0],
                  (double)(ox * s->stride - s->pad + t % s->kw) + (double)off[1]);
}

static void gather_pixels(void *arg, int64_t b, int64_t e, int worker)
{
    const deform_saved *s = arg;
    int64_t taps = s->kh * s->kw;
    const float *x = s->x.data, *mask = s->mask.data;
    (void)worker;
    for (int64_t i = b * taps; i < e * taps; i++) {
        corners k = place(s, i / taps, i % taps);
        float *row = s->rows + i * s->c;
        for (int64_t c = 0; c < s->c; c++) {
            double v = 0;
            for (int q = 0; q < 4; q++)
                v += k.at[q] < 0 ? 0 : k.share[q] * (double)x[k.at[q] + c];
            row[c] = (float)(v * (double)mask[i]);
        }
    }
}

typedef struct deform_back { const deform_saved *s; const float *drows; float *dx, *doffset, *dmask; } deform_back;

/* Pictures are independent: their pixels are added to in order. */
static void scatter_images(void *arg, int64_t b, int64_t e, int worker)
{
    const deform_back *j = arg;
    const deform_saved *s = j->s;
    int64_t taps = s->kh * s->kw, each = s->oh * s->ow * taps;
    const float *x = s->x.data, *mask = s->mask.data;
    (void)worker;
    for (int64_t i = b * each; i < e * each; i++) {
        corners k = place(s, i / taps, i % taps);
        double dm = 0, dy = 0, dx = 0, m = (double)mask[i];
        for (int64_t c = 0; c < s->c; c++) {
            double d = (double)j->drows[i * s->c + c];
            for (int q = 0; q < 4; q++) {
                if (k.at[q] < 0)
                    continue;
                double v = (double)x[k.at[q] + c] * d;
                dm += v * k.share[q];
                dy += v * k.dy[q] * m;
                dx += v * k.dx[q] * m;
                if (j->dx)
                    j->dx[k.at[q] + c] += (float)(d * m * k.share[q]);
            }
        }
        if (j->dmask)
            j->dmask[i] += (float)dm;
        if (j->doffset) {
            j->doffset[2 * i] += (float)dy;
            j->doffset[2 * i + 1] += (float)dx;
        }
    }
}

static void deform_backward(nm_run *r, void *saved)
{
    deform_saved *s = saved;
    const float *dy = nm_grad_read(&s->y);
    int64_t taps = s->kh * s->kw, k = taps * s->c, pixels = s->n * s->oh * s->ow;
    if (nm_trains(r, s->bias))
        nm_add_column_sums(r, dy, pixels, s->o, s->o, nm_weight_grad(r, s->bias));
    if (nm_trains(r, s->w)) {
        float *turned = nm_transposed(r, dy, pixels, s->o, s->o), *dw = nm_scratch(r, (size_t)(s->o * k) * sizeof *dw), *g = nm_weight_grad(r, s->w);
        if (!turned || !dw || !g)
            return;
        memset(dw, 0, (size_t)(s->o * k) * sizeof *dw);
        nm_accumulate_product(r, s->o, k, pixels, turned, NM_F32, pixels, s->rows, NM_F32, k, true, dw, k);
        for (int64_t i = 0; i < s->o * k; i++)
            g[(i / k * s->c + i % s->c) * taps + i % k / s->c] += dw[i];
    }
    float *drows = nm_scratch(r, (size_t)(pixels * k) * sizeof *drows);
    if (!drows)
        return;
    memset(drows, 0, (size_t)(pixels * k) * sizeof *drows);
    nm_accumulate_product(r, pixels, k, s->o, dy, NM_F32, s->o, s->weight, NM_F32, k, true, drows, k);
    deform_back j = { s, drows, nm_grad_data(r, &s->x), nm_grad_data(r, &s->offset), nm_grad_data(r, &s->mask) };
    nm_parallel_for(r->pool, s->n, 1, scatter_images, &j);
}

static bool fits(const deform_saved *s)
{
    const nm_tensor *all[] = { &s->x, &s->offset, &s->mask };
    for (int i = 0; i < 3; i++)
        if (all[i]->dtype != NM_F32 || !nm_is_contiguous(all[i]))
            return false;
    int64_t pixels = s->n * s->oh * s->ow * s->kh * s->kw;
    return s->oh > 0 && s->ow > 0 && nm_numel(&s->offset) == 2 * pixels && nm_numel(&s->mask) == pixels;
}

nm_tensor nm_deform_conv2d(nm_run *r, nm_tensor x, nm_tensor offset, nm_tensor mask, const nm_weight *w, const nm_weight *bias, int stride, int pad)
{
    if (!x.data || !offset.data || !mask.data || !nm_run_ok(r))
        return (nm_tensor){ 0 };
    const int64_t *d = w->shape.dim;
    if (x.ndim != 4 || w->shape.ndim != 4 || d[1] != x.shape[3] || stride < 1)
        return nm_run_fail(r, NOEMA_E_INTERNAL, "deformable convolution: expected f32 [n, h, w, c] with the weight's channels");
    deform_saved s = { .x = x, .offset = offset, .mask = mask, .w = w, .bias = bias, .n = x.shape[0], .h = x.shape[1], .wd = x.shape[2], .c = d[1], .o = d[0],
                       .kh = d[2], .kw = d[3], .stride = stride, .pad = pad };
    int64_t taps = s.kh * s.kw, k = taps * s.c;
    s.oh = (s.h + 2 * pad - s.kh) / stride + 1;
    s.ow = (s.wd + 2 * pad - s.kw) / stride + 1;
    if (!fits(&s))
        return nm_run_fail(r, NOEMA_E_INTERNAL, "deformable convolution: expected an offset pair and a mask for each tap of [%lld, %lld]", (long long)s.oh,
                           (long long)s.ow);
    int64_t pixels = s.n * s.oh * s.ow;
    s.y = nm_new(r, NM_F32, NM_SHAPE(s.n, s.oh, s.ow, s.o));
    s.rows = nm_scratch(r, (size_t)(pixels * k) * sizeof *s.rows);
    s.weight = nm_scratch(r, (size_t)(2 * s.o * k) * sizeof *s.weight);
    if (!nm_run_ok(r))
        return (nm_tensor){ 0 };
    float *stored = s.weight + s.o * k, *y = s.y.data;
    nm_weight_copy_f32(w, stored);
    for (int64_t i = 0; i < s.o * k; i++)
        s.weight[i] = stored[(i / k * s.c + i % s.c) * taps + i % k / s.c];
    nm_parallel_for(r->pool, pixels, 64, gather_pixels, &s);
    for (int64_t i = 0; i < pixels * s.o; i++)
        y[i] = bias && nm_has(bias) ? bias->f32[i % s.o] : 0;
    nm_accumulate_product(r, pixels, s.o, k, s.rows, NM_F32, k, s.weight, NM_F32, k, false, y, s.o);
    if (nm_wants(r, &x) || nm_wants(r, &offset) || nm_wants(r, &mask) || nm_trains(r, w) || nm_trains(r, bias)) {
        nm_track(r, &s.y);
        nm_record(r, &s.y, deform_backward, nm_save_(r, &s, sizeof s));
    }
    return s.y;
}
