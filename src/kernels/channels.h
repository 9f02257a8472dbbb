/* channels.h - what a convolution does around its product, on rows of channels (f32, NHWC pixels [rows, cols]): the gradient of
 * its weight, statistics of a batch, normalisation, and the way back. */
#ifndef NM_CHANNELS_H
#define NM_CHANNELS_H

#include <stdbool.h>
#include <stdint.h>

/* c[m, n] += sum over k of a[k, m] b[k, n], without packing; k in order, so that a result does not depend on m and n. */
typedef void nm_outer_fn(int64_t k, int64_t m, int64_t n, const float *a, int64_t lda, const float *b, int64_t ldb, float *c, int64_t ldc);

/* The same of bf16 values, sums in f32: pairs of rows may be added to a sum together. For CPUs with bf16 dot products. */
typedef void nm_outer_bf16_fn(int64_t k, int64_t m, int64_t n, const uint16_t *a, int64_t lda, const uint16_t *b, int64_t ldb, float *c, int64_t ldc);

/* sum[c] = sum over rows of x - shift, square[c] = of (x - shift)^2; rows up to a few hundred, sums in f32. */
typedef void nm_moments_fn(int64_t rows, int64_t cols, const float *x, const float *shift, float *sum, float *square);

/* y = x * scale[c] + shift[c] (+ residual) (then ReLU); residual may be NULL, y may be x. */
typedef void nm_affine_fn(int64_t rows, int64_t cols, const float *x, const float *scale, const float *shift, const float *residual, bool relu, float *y);

/* What the way back of y = relu(x * scale + shift (+ residual)) reads. y: NULL without ReLU, or where x tells the sign of the
 * sum (no residual); then scale and shift do. */
typedef struct nm_channel_back {
    int64_t cols;
    bool relu;
    const float *dy, *x, *y;         /* [rows, cols] */
    const float *scale, *shift;      /* [cols] */
    const float *mean, *a, *b, *k;   /* [cols]: dx = (dz - a - (x - mean) b) k */
    float *dx;                       /* [rows, cols], may be dy */
    float *residual;                 /* += dz (= dz where it is fresh), or NULL */
    bool residual_fresh;
} nm_channel_back;

/* sum[c] = sum over rows of dz, product[c] = of dz (x - mean), where dz = dy behind the ReLU; as nm_moments_fn. */
typedef void nm_back_sums_fn(int64_t rows, const nm_channel_back *j, float *sum, float *product);
typedef void nm_back_rows_fn(int64_t rows, const nm_channel_back *j);

typedef struct nm_channel_kernels {
    nm_outer_fn *outer;
    nm_outer_bf16_fn *outer_bf16;
    nm_moments_fn *moments;
    nm_affine_fn *affine;
    nm_back_sums_fn *back_sums;
    nm_back_rows_fn *back_rows;
} nm_channel_kernels;

void nm_channel_kernels_init(nm_channel_kernels *k, uint32_t features);

/* The variants, chosen in channels.c. */
nm_outer_fn nm_outer_ref;
nm_outer_bf16_fn nm_outer_bf16_ref;
nm_moments_fn nm_moments_ref;
nm_affine_fn nm_affine_ref;
nm_back_sums_fn nm_back_sums_ref;
nm_back_rows_fn nm_back_rows_ref;
#if defined(__x86_64__)
nm_outer_fn nm_outer_avx2, nm_outer_avx512;
nm_outer_bf16_fn nm_outer_bf16_avx512_bf16;
nm_moments_fn nm_moments_avx2, nm_moments_avx512;
nm_affine_fn nm_affine_avx2, nm_affine_avx512;
nm_back_sums_fn nm_back_sums_avx2, nm_back_sums_avx512;
nm_back_rows_fn nm_back_rows_avx2, nm_back_rows_avx512;
#endif

#endif
