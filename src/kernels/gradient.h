/* gradient.h - what backwards and optimisers need besides large products. All f32. */
#ifndef NM_GRADIENT_H
#define NM_GRADIENT_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/gemm.h"

/* dx[i] (+)= dy[i] * d act(x[i]) / dx; `add` false: written, not added. dx may be dy. */
typedef void nm_act_back_fn(int64_t n, const float *x, nm_act act, const float *dy, float *dx, bool add);

/* LayerNorm of nm_layernorm_fn, backward. With h = (x - mean) rstd, g = dy * weight: dx (+)= rstd (g - mean(g) - h mean(g h)),
 * dweight[c] += sum over rows of dy h, dbias[c] += sum over rows of dy. dy is [rows, cols] without gaps, dx has x's row stride; weight, dx,
 * dweight, dbias: NULL where there is none. Sums over rows run in f32: callers cut long ones into calls. */
typedef void nm_layernorm_back_fn(int64_t rows, int64_t cols, const float *x, int64_t ldx, const float *weight, float eps, const float *dy, float *dx,
                                  bool add, float *dweight, float *dbias);

/* In place over dp, rows of stride ld: dp = scale * p * (dp - sum(p dp)). */
typedef void nm_softmax_back_fn(int64_t rows, int64_t cols, const float *p, float *dp, int64_t ld, float scale);

/* c[i, j] (+)= sum over t < k of a[i * a_row + t * a_step] b[t * ldb + j]: products too small to be packed. */
typedef void nm_small_product_fn(int64_t m, int64_t n, int64_t k, const float *a, int64_t a_row, int64_t a_step, const float *b, int64_t ldb, float *c,
                                 int64_t ldc, bool add);

/* out[c] += sum over rows of x[r * ld + c], in f32: callers cut long sums into calls. */
typedef void nm_column_sums_fn(int64_t rows, int64_t cols, const float *x, int64_t ld, float *out);
/* dst[c * ldd + r] = src[r * ld + c]. */
typedef void nm_transpose_fn(int64_t rows, int64_t cols, const float *src, int64_t ld, float *dst, int64_t ldd);
/* Sum of squares; f32 within 1024 values, double beyond. */
typedef double nm_squares_fn(int64_t n, const float *x);
/* avg += k (w - avg). */
typedef void nm_lerp_fn(int64_t n, float *avg, const float *w, float k);

/* One update of n weights by their gradients (train/optim.h has the formulas' sources); g is multiplied by `scale` first.
 * AdamW: m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2; w = keep w - step m / (sqrt(v) root + eps).
 * SGD:   g += decay w; m = first ? g : b1 m + g; w -= step (nesterov ? g + b1 m : m); b1 0: w -= step g, m is not read.
 * Lion:  u = b1 m + (1 - b1) g; w = keep w - step sign(u); m = b2 m + (1 - b2) g. */
typedef struct nm_update { float scale, b1, b2, c1, c2 /* 1 - b1, 1 - b2 */, step, root, eps, keep, decay; bool first, nesterov; } nm_update;
typedef void nm_update_fn(int64_t n, const nm_update *u, float *w, const float *g, float *m, float *v);

typedef struct nm_gradient_kernels {
    nm_act_back_fn *act_back;
    nm_layernorm_back_fn *layernorm_back;
    nm_softmax_back_fn *softmax_back;
    nm_small_product_fn *small_product;
    nm_column_sums_fn *column_sums;
    nm_transpose_fn *transpose;
    nm_squares_fn *squares;
    nm_lerp_fn *lerp;
    nm_update_fn *adamw, *sgd, *lion;
} nm_gradient_kernels;

void nm_gradient_kernels_init(nm_gradient_kernels *k, uint32_t features);

#endif
