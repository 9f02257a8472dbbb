/* convnet.h - what training a convolutional tower needs besides products: gradients of convolution weights and batch normalisation.
 * All f32; pictures are NHWC, so that `c` values of one pixel are neighbours. Sums over pixels run in f32 within a call: callers cut long
 * sums into calls and add those in double. */
#ifndef NM_CONVNET_H
#define NM_CONVNET_H

#include <stdint.h>

#include "kernels/gemm.h"

/* A convolution of one picture x [h, w, c] to y [oh, ow, o]. */
typedef struct nm_conv_shape { int64_t h, w, c, kh, kw, stride, pad, oh, ow, o; } nm_conv_shape;

/* dw[o, ky, kx, c] += sum over n pictures and their pixels of dy[oy, ox, o] * x[oy * stride + ky - pad, ox * stride + kx - pad, c], for the
 * outputs o in [o_begin, o_end) alone, so that threads share the work without sharing sums. */
typedef void nm_conv_weight_grad_fn(const nm_conv_shape *s, int64_t n, const float *x, const float *dy, int64_t o_begin, int64_t o_end, float *dw);

/* sum[j] += sum over rows of x[i, j] - shift[j]; square[j] likewise of the squares. */
typedef void nm_bn_sums_fn(int64_t rows, int64_t c, const float *x, const float *shift, float *sum, float *square);
/* y = act(x * scale + bias) with a scale and bias per channel; act: none or ReLU. */
typedef void nm_bn_apply_fn(int64_t rows, int64_t c, const float *x, const float *scale, const float *bias, nm_act act, float *y);
/* g = dy, or 0 where act is ReLU and y <= 0: d_bias[j] += sum of g, d_scale[j] += sum of g * (x - mean) * rstd. */
typedef void nm_bn_back_sums_fn(int64_t rows, int64_t c, const float *x, const float *y, const float *dy, const float *mean, const float *rstd, nm_act act,
                                float *d_bias, float *d_scale);
/* dx += a[j] * g + b[j] * x + d[j], g as above. */
typedef void nm_bn_back_apply_fn(int64_t rows, int64_t c, const float *x, const float *y, const float *dy, const float *a, const float *b, const float *d, nm_act act,
                                 float *dx);

typedef struct nm_convnet_kernels {
    nm_conv_weight_grad_fn *weight_grad;
    nm_bn_sums_fn *bn_sums;
    nm_bn_apply_fn *bn_apply;
    nm_bn_back_sums_fn *bn_back_sums;
    nm_bn_back_apply_fn *bn_back_apply;
} nm_convnet_kernels;

void nm_convnet_kernels_init(nm_convnet_kernels *k, uint32_t features);

#endif
