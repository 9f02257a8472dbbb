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

bool nm_resize_positions(const float *rows, int64_t extra, int64_t old_h, int64_t old_w, float *out, int64_t new_h, int64_t new_w, int64_t width,
                         nm_interp how)
{
    memcpy(out, rows, (size_t)(extra * width) * sizeof *out);
    rows += extra * width;
    out += extra * width;
    size_t most = (size_t)(old_h > old_w ? old_h : old_w) + 8;
    int64_t *iy = malloc(2 * most * sizeof *iy);
    double *wy = malloc(2 * most * sizeof *wy), *acc = malloc((size_t)width * sizeof *acc);
    bool ok = iy && wy && acc;
    int64_t *ix = ok ? iy + most : NULL;
    double *wx = ok ? wy + most : NULL;
    for (int64_t y = 0; ok && y < new_h; y++) {
        int ny = taps(y, old_h, new_h, how, iy, wy);
        for (int64_t x = 0; x < new_w; x++) {
            int nx = taps(x, old_w, new_w, how, ix, wx);
            memset(acc, 0, (size_t)width * sizeof *acc);
            for (int a = 0; a < ny; a++)
                for (int b = 0; b < nx; b++) {
                    const float *src = rows + (iy[a] * old_w + ix[b]) * width;
                    double wt = wy[a] * wx[b];
                    for (int64_t c = 0; c < width; c++)
                        acc[c] += wt * (double)src[c];
                }
            for (int64_t c = 0; c < width; c++)
                out[(y * new_w + x) * width + c] = (float)acc[c];
        }
    }
    free(iy);
    free(wy);
    free(acc);
    return ok;
}
