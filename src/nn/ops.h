/* ops.h - what the operators' files share; private to src/nn. */
#ifndef NM_OPS_H
#define NM_OPS_H

#include "nn/nn.h"
#include "tensor/tape.h"

/* Rows and row stride of x seen as [rows, last dimension]; false when the leading dimensions do not collapse into one stride. */
bool nm_as_rows(const nm_tensor *x, int64_t *rows, int64_t *ld);
nm_shape nm_shape_of(const nm_tensor *t);
nm_shape nm_with_last(const nm_tensor *x, int64_t last);

/* Runs one product with scratch from the arena. */
void nm_product(nm_run *r, nm_gemm *g);

/* c[m, n] += a[m, k] b, for gradients: b is stored [n, k], or [k, n] when b_transposed; a, b f32 or bf16, c f32. */
void nm_accumulate_product(nm_run *r, int64_t m, int64_t n, int64_t k, const void *a, nm_dtype a_dtype, int64_t lda, const void *b, nm_dtype b_dtype,
                           int64_t ldb, bool b_transposed, float *c, int64_t ldc);
/* dst[cols, rows] = src[rows, cols]^T, f32; dst from the arena. */
float *nm_transposed(nm_run *r, const float *src, int64_t rows, int64_t cols, int64_t ld);
/* out[c] += sum over rows of x[r, c], added in a fixed order. */
void nm_add_column_sums(nm_run *r, const float *x, int64_t rows, int64_t cols, int64_t ld, float *out);

/* Whether a weight collects gradients in this run, and where (contiguous, the declared layout). */
static inline bool nm_trains(const nm_run *r, const nm_weight *w) { return r->tape && w && w->grad && nm_has(w); }
float *nm_weight_grad(nm_run *r, const nm_weight *w);

/* batchnorm.c, for convolutions that work on a block of rows while it is in the cache. A block's statistics per channel: mean, and sum of
 * squares around it. Rows are grouped by the caller in a way that does not depend on the number of threads. */
typedef struct nm_bn_block { double *mean, *squares; int64_t rows; } nm_bn_block;
void nm_bn_moments(const nm_run *r, int64_t rows, int64_t cols, const float *x, float *scratch /* [3 cols] */, nm_bn_block *b);
/* What the rows are multiplied by and shifted with, and what the way back needs; all [cols]. */
typedef struct nm_bn_norm { float *scale, *shift, *mean, *rstd; bool batch; } nm_bn_norm;
nm_bn_norm nm_bn_running(nm_run *r, const nm_batchnorm_w *bn, float eps, int64_t cols);
nm_bn_norm nm_bn_batch(nm_run *r, const nm_batchnorm_w *bn, float eps, int64_t cols, const nm_bn_block *blocks, int64_t n_blocks);
void nm_bn_apply(nm_run *r, const nm_bn_norm *s, nm_tensor x, const nm_tensor *residual, bool relu, nm_tensor y);
static inline bool nm_bn_trains(const nm_run *r, const nm_batchnorm_w *bn) { return bn && (nm_trains(r, &bn->weight) || nm_trains(r, &bn->bias)); }
/* Whether the batch's statistics are used. Also without a tape: the first pass of two-pass accumulation must see what the second does. */
static inline bool nm_bn_follows(const nm_run *r, const nm_batchnorm_w *bn) { return r->training && (bn->weight.grad || bn->bias.grad); }
/* Sums what a, b and k of `j` need over all rows and collects the gradients of weight and bias; then j->dx may be made in any order. */
void nm_bn_prepare_back(nm_run *r, const nm_batchnorm_w *bn, const nm_bn_norm *s, int64_t rows, nm_channel_back *j);

#define NM_ROW_GRAIN_BYTES (64 << 10) /* a piece of work: larger than the cost of handing it out, smaller than L2 */
static inline int64_t nm_row_grain(int64_t cols)
{
    int64_t g = NM_ROW_GRAIN_BYTES / (cols * 4 + 1);
    return g < 1 ? 1 : g;
}

#endif
