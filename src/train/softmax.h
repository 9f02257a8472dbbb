/* softmax.h - multinomial logistic regression: minimum of C * sum of cross-entropies + 1/2 |W|^2, bias free. */
#ifndef NM_SOFTMAX_H
#define NM_SOFTMAX_H

#include "base/pool.h"
#include "train/lbfgs.h"

/* x [rows, dim], label [rows]; rows may be chosen by number: row i of the problem is row pick[i] (NULL: i). */
typedef struct nm_softmax_data {
    const float *x;
    const int64_t *label;
    const int64_t *pick;
    int64_t rows, dim, classes;
    nm_pool *pool;
} nm_softmax_data;

/* head: [dim + 1, classes], the last row is the bias; from 0. */
noema_status nm_softmax_fit(const nm_softmax_data *d, double C, int max_iterations, double *head, nm_lbfgs_result *result, noema_error *err);
/* Rows whose most likely class (the first among equals) is the label; *loss: sum of cross-entropies. */
noema_status nm_softmax_score(const nm_softmax_data *d, const double *head, int64_t *right, double *loss, noema_error *err);
/* p [classes]: probabilities of one row x [dim]. */
void nm_softmax_row(const float *x, int64_t dim, int64_t classes, const double *head, double *p);

#endif
