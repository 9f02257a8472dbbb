/* lbfgs.c - see lbfgs.h. Ten pairs of steps and gradient changes; the step length by bisection to the weak Wolfe conditions, which
 * keep every pair's product positive. */
#include "train/lbfgs.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

enum { PAIRS = 10, MAX_TRIALS = 60 };

typedef struct state {
    size_t n;
    double *x, *g, *next_x, *next_g, *d; /* point, gradient, trial, direction; [n] each */
    double *s[PAIRS], *y[PAIRS];         /* steps and changes of the gradient; [n] each */
    double rho[PAIRS];
    int used, newest;
    double f;
    nm_objective_fn *fn;
    void *arg;
} state;

static double dot(size_t n, const double *a, const double *b)
{
    double s = 0;
    for (size_t i = 0; i < n; i++)
        s += a[i] * b[i];
    return s;
}

static void add(size_t n, double *a, double k, const double *b)
{
    for (size_t i = 0; i < n; i++)
        a[i] += k * b[i];
}

static double largest(size_t n, const double *a)
{
    double m = 0;
    for (size_t i = 0; i < n; i++)
        m = fmax(m, fabs(a[i]));
    return m;
}

/* d = -H g, two loops over the pairs, newest first and back. */
static void direction(state *t)
{
    double alpha[PAIRS];
    for (size_t i = 0; i < t->n; i++)
        t->d[i] = -t->g[i];
    for (int k = 0; k < t->used; k++) {
        int p = (t->newest - k + PAIRS) % PAIRS;
        alpha[p] = t->rho[p] * dot(t->n, t->s[p], t->d);
        add(t->n, t->d, -alpha[p], t->y[p]);
    }
    double scale = t->used ? 1 / (t->rho[t->newest] * dot(t->n, t->y[t->newest], t->y[t->newest])) : 1 / sqrt(dot(t->n, t->g, t->g));
    for (size_t i = 0; i < t->n; i++)
        t->d[i] *= scale;
    for (int k = t->used - 1; k >= 0; k--) {
        int p = (t->newest - k + PAIRS) % PAIRS;
        add(t->n, t->d, alpha[p] - t->rho[p] * dot(t->n, t->y[p], t->d), t->s[p]);
    }
}

/* Moves next_x, next_g and *value to a point of sufficient decrease and curvature; false: rounding hides any decrease. */
static bool search(state *t, double *value)
{
    const double c1 = 1e-4, c2 = 0.9, noise = 1e-14 * fabs(t->f); /* sums of doubles differ by that much */
    double slope = dot(t->n, t->g, t->d), low = 0, high = INFINITY, step = 1;
    if (!(slope < 0))
        return false;
    for (int i = 0; i < MAX_TRIALS; i++) {
        memcpy(t->next_x, t->x, t->n * sizeof *t->x);
        add(t->n, t->next_x, step, t->d);
        *value = t->fn(t->arg, t->next_x, t->next_g);
        if (!(*value <= t->f + c1 * step * slope + noise))
            high = step;
        else if (dot(t->n, t->next_g, t->d) < c2 * slope)
            low = step;
        else
            return true;
        step = isinf(high) ? 2 * low : (low + high) / 2;
    }
    return false;
}

/* The pair of the step taken; takes the trial over. */
static void remember(state *t, double value)
{
    int p = (t->newest + 1) % PAIRS;
    for (size_t i = 0; i < t->n; i++) {
        t->s[p][i] = t->next_x[i] - t->x[i];
        t->y[p][i] = t->next_g[i] - t->g[i];
    }
    double sy = dot(t->n, t->s[p], t->y[p]);
    if (sy > 0) {
        t->rho[p] = 1 / sy;
        t->newest = p;
        t->used += t->used < PAIRS;
    }
    memcpy(t->x, t->next_x, t->n * sizeof *t->x);
    memcpy(t->g, t->next_g, t->n * sizeof *t->g);
    t->f = value;
}

noema_status nm_lbfgs(size_t n, double *x, nm_objective_fn *fn, void *arg, const nm_lbfgs_options *o, nm_lbfgs_result *result, noema_error *err)
{
    double *room = n <= SIZE_MAX / (4 + 2 * PAIRS) ? nm_malloc_array(n * (4 + 2 * PAIRS), sizeof *room) : NULL;
    state t = { .n = n, .x = x, .fn = fn, .arg = arg, .newest = PAIRS - 1 };
    if (!room)
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory: L-BFGS with %zu unknowns", n);
    t.g = room;
    t.next_x = room + n;
    t.next_g = room + 2 * n;
    t.d = room + 3 * n;
    for (int i = 0; i < PAIRS; i++) {
        t.s[i] = room + (4 + 2 * (size_t)i) * n;
        t.y[i] = t.s[i] + n;
    }
    t.f = fn(arg, x, t.g);
    double enough = o->tolerance * largest(n, t.g), value;
    *result = (nm_lbfgs_result){ 0 };
    while (!(result->converged = largest(n, t.g) <= enough) && result->iterations < o->max_iterations) {
        direction(&t);
        if (!search(&t, &value))
            break;
        remember(&t, value);
        result->iterations++;
    }
    result->value = t.f;
    result->gradient = largest(n, t.g);
    free(room);
    return isfinite(t.f) ? NOEMA_OK : nm_fail(err, NOEMA_E_FORMAT, "L-BFGS: the function is not finite");
}
