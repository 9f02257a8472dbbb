/* lbfgs.h - minimum of a smooth convex function in double precision (Nocedal and Wright, Numerical Optimization, algorithm 7.5). */
#ifndef NM_LBFGS_H
#define NM_LBFGS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

/* Value at x [n]; fills the gradient g [n]. */
typedef double nm_objective_fn(void *arg, const double *x, double *g);

typedef struct nm_lbfgs_options {
    int max_iterations;
    double tolerance; /* stop when the largest |g| is at most this part of the largest |g| at the start */
} nm_lbfgs_options;

typedef struct nm_lbfgs_result { int iterations; bool converged; double value, gradient; /* largest |g| */ } nm_lbfgs_result;

/* x: start, then the minimum. Running out of iterations is no error. */
noema_status nm_lbfgs(size_t n, double *x, nm_objective_fn *f, void *arg, const nm_lbfgs_options *o, nm_lbfgs_result *result, noema_error *err);

#endif
