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

/* c[m, n] (+)= a[m, k] b, for gradients: b is stored [n, k], or [k, n] when b_transposed; a, b f32 or bf16, c f32. b is packed into the
 * arena: it is read once. */
void nm_gradient_product(nm_run *r, int64_t m, int64_t n, int64_t k, const void *a, nm_dtype a_dtype, int64_t lda, const void *b, nm_dtype b_dtype,
                         int64_t ldb, bool b_transposed, float *c, int64_t ldc, bool add);
static inline void nm_accumulate_product(nm_run *r, int64_t m, int64_t n, int64_t k, const void *a, nm_dtype a_dtype, int64_t lda, const void *b,
                                         nm_dtype b_dtype, int64_t ldb, bool b_transposed, float *c, int64_t ldc)
{
    nm_gradient_product(r, m, n, k, a, a_dtype, lda, b, b_dtype, ldb, b_transposed, c, ldc, true);
}
/* The gradients of a weight and a bias from dy f32 [rows, n] and x f32 or bf16 [rows, k]: dW += dy^T x, db += column sums of dy. */
void nm_linear_gradients(nm_run *r, const nm_weight *w, const nm_weight *bias, int64_t rows, int64_t n, int64_t k, const float *dy, int64_t ldy,
                         const void *x, nm_dtype x_dtype, int64_t ldx);
/* y = epilogue(x W^T + b) into a tensor that is there, without a record. */
void nm_product_into(nm_run *r, nm_tensor x, const nm_weight *w, const nm_weight *bias, nm_epilogue e, nm_tensor y);
/* dx[rows, k] (+)= dy[rows, n] W. */
void nm_input_gradient(nm_run *r, const nm_weight *w, int64_t rows, int64_t n, int64_t k, const float *dy, int64_t ldy, float *dx, int64_t ldx, bool add);
/* The packed form of a weight: kept with it, or, where the weight is being trained, made in the arena into *room. */
const nm_packed *nm_packed_for(nm_run *r, const nm_weight *w, nm_dtype compute, nm_packed *room);
/* dst[cols, rows] = src[rows, cols]^T, f32; dst from the arena. */
float *nm_transposed(nm_run *r, const float *src, int64_t rows, int64_t cols, int64_t ld);
/* out[c] += sum over rows of x[r, c], added in an order that does not depend on the threads. */
void nm_add_column_sums(nm_run *r, const float *x, int64_t rows, int64_t cols, int64_t ld, float *out);

/* Whether a weight collects gradients in this run, and where (contiguous, the declared layout). */
static inline bool nm_trains(const nm_run *r, const nm_weight *w) { return r->tape && w && nm_weight_grad_of(w) && nm_has(w); }
float *nm_weight_grad(nm_run *r, const nm_weight *w);
/* For a backward that writes the whole gradient: *add false when it holds nothing yet and is to be written. */
float *nm_weight_grad_out(nm_run *r, const nm_weight *w, bool *add);

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
/* Whether the batch's statistics are used, and the running ones moved. */
static inline bool nm_bn_follows(const nm_run *r, const nm_batchnorm_w *bn) { return r->training && !bn->running_mean.still; }
/* Sums what a, b and k of `j` need over all rows and collects the gradients of weight and bias; then j->dx may be made in any order. */
void nm_bn_prepare_back(nm_run *r, const nm_batchnorm_w *bn, const nm_bn_norm *s, int64_t rows, nm_channel_back *j);

#define NM_ROW_GRAIN_BYTES (64 << 10) /* a piece of work: larger than the cost of handing it out, smaller than L2 */
static inline int64_t nm_row_grain(int64_t cols)
{
    int64_t g = NM_ROW_GRAIN_BYTES / (cols * 4 + 1);
    return g < 1 ? 1 : g;
}

#endif
