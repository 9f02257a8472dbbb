/* elementwise.h - conversions, activations, additions, gathers and the patch and pooling copies around convolutions. */
#ifndef NM_ELEMENTWISE_H
#define NM_ELEMENTWISE_H

#include <stdint.h>

#include "base/dtype.h"
#include "kernels/gemm.h"

/* dst[i] = (dst_dtype)src[i]; any pair of f32, bf16, f16; the same type is a copy. */
typedef void nm_cast_fn(int64_t n, const void *src, nm_dtype src_dtype, void *dst, nm_dtype dst_dtype);
/* y[i] = act(x[i]), f32; x may be y. The same polynomials as the GEMM epilogues: bitwise equal results. */
typedef void nm_act_fn(int64_t n, const float *x, nm_act act, float *y);
/* y[i] = a[i] + b[i], f32; y may be a or b. */
typedef void nm_add_fn(int64_t n, const float *a, const float *b, float *y);
/* y[i] = a[i] * b[i], f32; y may be a or b. */
typedef void nm_mul_fn(int64_t n, const float *a, const float *b, float *y);
/* One image f32 [channels, height, width] -> rows of patches [grid_h * grid_w, channels * ph * pw], each patch in (channel, row,
 * column) order as a flattened conv weight [out, channels, ph, pw]; the grid is floor(height / ph) x floor(width / pw). dst f32 or bf16. */
typedef void nm_patchify_fn(const float *image, int64_t channels, int64_t height, int64_t width, int64_t ph, int64_t pw, void *dst,
                            nm_dtype dst_dtype);
/* How a kernel of kh x kw steps over an image: output (oy, ox) reads row oy * stride[0] - pad[0] + ky * dilation[0], columns likewise. */
typedef struct nm_window { int64_t kh, kw, stride[2], pad[2], dilation[2]; } nm_window;
/* im2col of one NHWC f32 image [h, w] whose pixels are ld apart, their first c channels: row (oy, ox) of dst holds kh * kw * c values in
 * (ky, kx, c) order, zeros outside. */
typedef void nm_im2col_fn(const float *x, int64_t h, int64_t w, int64_t c, int64_t ld, const nm_window *win, int64_t oy_begin, int64_t oy_end,
                          int64_t out_w, float *dst);
/* Average pooling of one NHWC f32 image with window and stride s (floor). */
typedef void nm_avgpool_fn(const float *x, int64_t h, int64_t w, int64_t c, int64_t s, float *y);

typedef struct nm_elementwise_kernels {
    nm_cast_fn *cast;
    nm_act_fn *act;
    nm_add_fn *add;
    nm_mul_fn *mul;
    nm_patchify_fn *patchify;
    nm_im2col_fn *im2col;
    nm_avgpool_fn *avgpool;
} nm_elementwise_kernels;

void nm_elementwise_kernels_init(nm_elementwise_kernels *k, uint32_t features);

#endif
