/* elementwise_ref.c - conversions, activations, patches and pooling in plain C: see elementwise.h. */
#include <stdbool.h>
#include <string.h>

#include "base/half.h"
#include "kernels/elementwise.h"
#include "kernels/elementwise_variants.h"
#include "kernels/math_ref.h"

static inline float load(const void *p, nm_dtype t, int64_t i)
{
    switch (t) {
    case NM_BF16: return nm_bf16_to_f32(((const nm_bf16 *)p)[i]);
    case NM_F16: return nm_f16_to_f32(((const nm_f16 *)p)[i]);
    default: return ((const float *)p)[i];
    }
}

static inline void store(void *p, nm_dtype t, int64_t i, float v)
{
    switch (t) {
    case NM_BF16: ((nm_bf16 *)p)[i] = nm_f32_to_bf16(v); break;
    case NM_F16: ((nm_f16 *)p)[i] = nm_f32_to_f16(v); break;
    default: ((float *)p)[i] = v; break;
    }
}

void nm_cast_ref(int64_t n, const void *src, nm_dtype src_dtype, void *dst, nm_dtype dst_dtype)
{
    if (src_dtype == dst_dtype) {
        if (n > 0)
            memmove(dst, src, (size_t)n * nm_dtype_size(src_dtype));
        return;
    }
    for (int64_t i = 0; i < n; i++)
        store(dst, dst_dtype, i, load(src, src_dtype, i));
}

void nm_act_ref(int64_t n, const float *x, nm_act act, float *y)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = nm_activate_ref(x[i], act);
}

void nm_add_ref(int64_t n, const float *a, const float *b, float *y)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = a[i] + b[i];
}

void nm_mul_ref(int64_t n, const float *a, const float *b, float *y)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = a[i] * b[i];
}

void nm_patchify_ref(const float *image, int64_t channels, int64_t height, int64_t width, int64_t ph, int64_t pw, void *dst,
                     nm_dtype dst_dtype)
{
    int64_t grid_h = height / ph, grid_w = width / pw, o = 0;
    for (int64_t gy = 0; gy < grid_h; gy++)
        for (int64_t gx = 0; gx < grid_w; gx++)
            for (int64_t c = 0; c < channels; c++)
                for (int64_t y = 0; y < ph; y++, o += pw)
                    nm_cast_ref(pw, image + (c * height + gy * ph + y) * width + gx * pw, NM_F32,
                                (char *)dst + (size_t)o * nm_dtype_size(dst_dtype), dst_dtype);
}

/* The kx of one ky are neighbours in x where nothing lies between: one copy, with zeros before and after where the window hangs over. */
static void copy_taps(const float *row, int64_t w, int64_t c, int64_t kw, int64_t ix, float *dst)
{
    int64_t lo = ix < 0 ? -ix : 0, hi = w - ix < kw ? w - ix : kw;
    size_t pixel = (size_t)c * sizeof *dst;
    if (lo >= hi) {
        memset(dst, 0, (size_t)kw * pixel);
        return;
    }
    if (lo)
        memset(dst, 0, (size_t)lo * pixel);
    memcpy(dst + lo * c, row + (ix + lo) * c, (size_t)(hi - lo) * pixel);
    if (hi < kw)
        memset(dst + hi * c, 0, (size_t)(kw - hi) * pixel);
}

static void copy_far_taps(const float *row, int64_t w, int64_t c, int64_t ld, int64_t kw, int64_t ix, int64_t step, float *dst)
{
    for (int64_t kx = 0; kx < kw; kx++, ix += step, dst += c)
        if (ix < 0 || ix >= w)
            memset(dst, 0, (size_t)c * sizeof *dst);
        else
            memcpy(dst, row + ix * ld, (size_t)c * sizeof *dst);
}

void nm_im2col_ref(const float *x, int64_t h, int64_t w, int64_t c, int64_t ld, const nm_window *win, int64_t oy_begin, int64_t oy_end, int64_t out_w,
                   float *dst)
{
    int64_t kw = win->kw;
    bool near = win->dilation[1] == 1 && c == ld;
    for (int64_t oy = oy_begin; oy < oy_end; oy++)
        for (int64_t ox = 0; ox < out_w; ox++)
            for (int64_t ky = 0; ky < win->kh; ky++, dst += kw * c) {
                int64_t iy = oy * win->stride[0] - win->pad[0] + ky * win->dilation[0], ix = ox * win->stride[1] - win->pad[1];
                if (iy < 0 || iy >= h)
                    memset(dst, 0, (size_t)(kw * c) * sizeof *dst);
                else if (near)
                    copy_taps(x + iy * w * c, w, c, kw, ix, dst);
                else
                    copy_far_taps(x + iy * w * ld, w, c, ld, kw, ix, win->dilation[1], dst);
            }
}

void nm_avgpool_ref(const float *x, int64_t h, int64_t w, int64_t c, int64_t s, float *y)
{
    float inv = 1 / (float)(s * s);
    for (int64_t oy = 0; oy < h / s; oy++)
        for (int64_t ox = 0; ox < w / s; ox++, y += c) {
            for (int64_t i = 0; i < c; i++)
                y[i] = 0;
            for (int64_t ky = 0; ky < s; ky++)
                for (int64_t kx = 0; kx < s; kx++) {
                    const float *p = x + ((oy * s + ky) * w + ox * s + kx) * c;
                    for (int64_t i = 0; i < c; i++)
                        y[i] += p[i];
                }
            for (int64_t i = 0; i < c; i++)
                y[i] *= inv;
        }
}
