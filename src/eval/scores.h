/* scores.h - vectors in double, and all their products, a block of rows at a time.
 *
 * Evaluation compares scores for equality and order, so products are sums in double over the dimension in order: a pair's score has the
 * same bits wherever it stands in the matrix and whatever the number of threads. */
#ifndef NM_EVAL_SCORES_H
#define NM_EVAL_SCORES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/pool.h"

typedef struct nm_vectors { int64_t n, dim; double *x; /* [n, dim] */ } nm_vectors;

/* Copies f32 rows. */
noema_status nm_vectors_from_f32(nm_vectors *v, const float *x, int64_t n, int64_t dim, noema_error *err);
void nm_vectors_free(nm_vectors *v);

/* How far the rows' lengths are from 1 at most; NaN when a row is not finite. */
double nm_vectors_off_unit(const nm_vectors *v);
/* Divides every row by its length (rows of length 0 stay 0). */
void nm_vectors_normalise(nm_vectors *v);
double nm_dot64(const double *a, const double *b, int64_t n);

/* scores [rows, b->n]: products of a's rows first .. first + rows with all rows of b; from any thread, `worker` as in nm_parallel_for. */
typedef void nm_scores_fn(void *arg, int64_t first, int64_t rows, const double *scores, int worker);
noema_status nm_scores(nm_pool *pool, const nm_vectors *a, const nm_vectors *b, nm_scores_fn *fn, void *arg, noema_error *err);

/* Indices of the k largest of s[0..n), largest first, equal ones by index; k <= n. `heap` has room for k. */
void nm_largest(const double *s, int64_t n, int64_t k, int64_t *heap);

#endif
