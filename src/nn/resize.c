/* resize.c - position tables on another grid: see nn.h. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "nn/ops.h"

static double cubic(double x, double a)
{
    x = fabs(x);
    if (x < 1)
        return ((a + 2) * x - (a + 3)) * x * x + 1;
    if (x < 2)
        return (((x - 5) * x + 8) * x - 4) * a;
    return 0;
}

/* Taps of output i of `out` over `in`: PyTorch's upsample kernels, align_corners=False (CORNERS: True). Returns the number of taps written;
 * index and weight hold in + 8 at the most. Antialiased kernels widen with the scale, skip taps outside and are normalised;
 * the others clamp taps to the edge. */
static int taps(int64_t i, int64_t in, int64_t out, nm_interp how, int64_t *index, double *weight)
{
    double scale = (double)in / (double)out;
    int n = 0;
    if (how == NM_INTERP_BICUBIC_AA) {
        double fs = scale > 1 ? scale : 1, support = 2 * fs, c = scale * ((double)i + 0.5), sum = 0;
        int64_t lo = (int64_t)(c - support + 0.5), hi = (int64_t)(c + support + 0.5);
        lo = lo < 0 ? 0 : lo;
        hi = hi > in ? in : hi;
        for (int64_t j = lo; j < hi; j++) {
            index[n] = j;
            weight[n] = cubic(((double)j - c + 0.5) / fs, -0.5);
            sum += weight[n++];
        }
        for (int k = 0; k < n; k++)
            weight[k] /= sum;
        return n;
    }
    bool corners = how == NM_INTERP_BICUBIC_CORNERS, bicubic = how == NM_INTERP_BICUBIC || corners;
    double src = !corners ? scale * ((double)i + 0.5) - 0.5 : out > 1 ? (double)i * (double)(in - 1) / (double)(out - 1) : 0;
    if (!bicubic && src < 0)
        src = 0;
    double base = floor(src), t = src - base;
    int from = bicubic ? -1 : 0, to = bicubic ? 2 : 1;
    for (int k = from; k <= to; k++) {
        int64_t j = (int64_t)base + k;
        index[n] = j < 0 ? 0 : j >= in ? in - 1 : j;
        weight[n++] = bicubic ? cubic(k - t, -0.75) : k ? t : 1 - t;
    }
    return n;
}

typedef struct grid { int64_t extra, old_h, old_w, new_h, new_w, width; nm_interp how; } grid;

/* out += the resized rows, or, with back, rows += what reaches them of out; linear, so that both are one loop. */
static bool resize(const grid *g, float *rows, float *out, bool back)
{
    size_t most = (size_t)(g->old_h > g->old_w ? g->old_h : g->old_w) + 8;
    int64_t *iy = malloc(2 * most * sizeof *iy), width = g->width;
    double *wy = malloc(2 * most * sizeof *wy), *acc = malloc((size_t)(width ? width : 1) * sizeof *acc);
    bool ok = iy && wy && acc;
    int64_t *ix = ok ? iy + most : NULL;
    double *wx = ok ? wy + most : NULL;
    for (int64_t y = 0; ok && y < g->new_h; y++) {
        int ny = taps(y, g->old_h, g->new_h, g->how, iy, wy);
        for (int64_t x = 0; x < g->new_w; x++) {
            int nx = taps(x, g->old_w, g->new_w, g->how, ix, wx);
            float *to = out + (g->extra + y * g->new_w + x) * width;
            memset(acc, 0, (size_t)width * sizeof *acc);
            for (int k = 0; k < ny * nx; k++) {
                float *src = rows + (g->extra + iy[k / nx] * g->old_w + ix[k % nx]) * width;
                double wt = wy[k / nx] * wx[k % nx];
                for (int64_t c = 0; c < width; c++)
                    if (back)
                        src[c] += (float)(wt * (double)to[c]);
                    else
                        acc[c] += wt * (double)src[c];
            }
            for (int64_t c = 0; !back && c < width; c++)
                to[c] = (float)acc[c];
        }
    }
    free(iy);
    free(wy);
    free(acc);
    return ok;
}

bool nm_resize_positions(const float *rows, int64_t extra, int64_t old_h, int64_t old_w, float *out, int64_t new_h, int64_t new_w, int64_t width,
                         nm_interp how)
{
    grid g = { extra, old_h, old_w, new_h, new_w, width, how };
    memcpy(out, rows, (size_t)(extra * width) * sizeof *out);
    return resize(&g, (float *)(uintptr_t)rows, out, false);
}

typedef struct resize_saved { nm_tensor x, y; grid g; } resize_saved;

static void resize_backward(nm_run *r, void *saved)
{
    resize_saved *s = saved;
    const float *dy = nm_grad_read(&s->y);
    float *dx = nm_grad_data(r, &s->x);
    if (!dx)
        return;
    r->kn->elementwise.add(s->g.extra * s->g.width, dx, dy, dx);
    if (!resize(&s->g, dx, (float *)(uintptr_t)dy, true))
        nm_run_fail(r, NOEMA_E_MEMORY, "out of memory: resizing");
}

nm_tensor nm_resize_rows(nm_run *r, nm_tensor x, int64_t extra, int64_t old_h, int64_t old_w, int64_t new_h, int64_t new_w, nm_interp how)
{
    if (!x.data || !nm_run_ok(r))
        return (nm_tensor){ 0 };
    if (x.ndim != 2 || x.dtype != NM_F32 || !nm_is_contiguous(&x) || x.shape[0] != extra + old_h * old_w)
        return nm_run_fail(r, NOEMA_E_INTERNAL, "resize: expected contiguous f32 [extra + h w, width]");
    grid g = { extra, old_h, old_w, new_h, new_w, x.shape[1], how };
    nm_tensor y = nm_new(r, NM_F32, NM_SHAPE(extra + new_h * new_w, x.shape[1]));
    if (y.data && !nm_resize_positions(x.data, extra, old_h, old_w, y.data, new_h, new_w, g.width, how))
        return nm_run_fail(r, NOEMA_E_MEMORY, "out of memory: resizing");
    if (nm_wants(r, &x))
        NM_RECORD(r, y, resize_backward, resize_saved, x, y, g);
    return y;
}
