/* norm.h - row normalisations. Statistics in f32 (two passes over the row: mean, then centred sum of squares). */
#ifndef NM_NORM_H
#define NM_NORM_H

#include <stdint.h>

#include "base/dtype.h"

/* y[r] = (x[r] - mean) / sqrt(var + eps) * weight + bias for `rows` rows of `cols`; x f32 with row stride ldx, y f32 or bf16 with
 * row stride ldy; weight, bias f32 [cols] or NULL. x may be y (f32). */
typedef void nm_layernorm_fn(int64_t rows, int64_t cols, const float *x, int64_t ldx, const float *weight, const float *bias, float eps,
                             void *y, nm_dtype y_dtype, int64_t ldy);
/* y = x / sqrt(mean(x^2) + eps) * weight (T5, Llama). */
typedef void nm_rmsnorm_fn(int64_t rows, int64_t cols, const float *x, int64_t ldx, const float *weight, float eps, void *y, nm_dtype y_dtype,
                           int64_t ldy);
/* In place: x[r] /= max(|x[r]|_2, eps); returns nothing. torch.nn.functional.normalize has eps 1e-12. */
typedef void nm_l2norm_fn(int64_t rows, int64_t cols, float *x, int64_t ldx, float eps);
/* In place softmax of each row of `cols` values. */
typedef void nm_softmax_fn(int64_t rows, int64_t cols, float *x, int64_t ldx);
/* In place: x[r] -= log(sum(exp(x[r]))). The sum runs in f32 within 1024 values, in double beyond. */
typedef void nm_log_softmax_fn(int64_t rows, int64_t cols, float *x, int64_t ldx);

typedef struct nm_norm_kernels {
    nm_layernorm_fn *layernorm;
    nm_rmsnorm_fn *rmsnorm;
    nm_l2norm_fn *l2norm;
    nm_softmax_fn *softmax;
    nm_log_softmax_fn *log_softmax;
} nm_norm_kernels;

void nm_norm_kernels_init(nm_norm_kernels *k, uint32_t features);

#endif
