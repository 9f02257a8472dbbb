/* scan.h - exact vector search: scores of a few queries against many rows, as fast as memory delivers the rows. */
#ifndef NM_SCAN_H
#define NM_SCAN_H

#include <stddef.h>
#include <stdint.h>

#include "base/dtype.h"
#include "base/pool.h"

struct nm_kernels;

typedef struct nm_hit { float score; int64_t row; } nm_hit;

/* scores[q * ld + r] = dot(queries[q], rows[r]) for a block of rows: f32 queries [nq, dim], rows f32 | bf16 | f16 | i8 with row stride
 * `stride` elements (i8: score is multiplied by row_scale[r] when row_scale is not NULL). A score has the same bits whatever nq and
 * the block are. */
typedef void nm_dots_fn(int64_t nq, const float *queries, int64_t n_rows, int64_t dim, const void *rows, nm_dtype dtype, int64_t stride,
                        const float *row_scale, float *scores, int64_t ld);

typedef struct nm_scan_kernels { nm_dots_fn *dots; } nm_scan_kernels;

void nm_scan_kernels_init(nm_scan_kernels *k, uint32_t features);

/* The k best rows of each query by inner product, best first, ties by the smaller row number; hits [nq, k], unused places have
 * row -1. `skip` is a bitmap of rows to leave out (deleted), or NULL. Parallel over rows; scratch as stated by nm_scan_scratch. */
size_t nm_scan_scratch(int64_t nq, int64_t k, int workers);
void nm_scan_topk(const struct nm_kernels *kn, int64_t nq, const float *queries, int64_t n_rows, int64_t dim, const void *rows, nm_dtype dtype,
                  int64_t stride, const float *row_scale, const uint64_t *skip, int64_t k, nm_hit *hits, nm_pool *pool, void *scratch);

#endif
