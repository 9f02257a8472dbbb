/* softmax.c - see softmax.h. Rows are cut into a fixed number of pieces whose sums are added in order, so that the result does not
 * depend on threads. The head lies as [dim + 1, classes]: both products then run along classes, without sums across a vector. */
#include "train/softmax.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

enum { PIECES = 16 };

typedef struct piece { double loss; int64_t right; double *grad, *p; } piece;

typedef struct problem {
    const nm_softmax_data *d;
    const double *head;
    double C;
    bool gradient;
    piece piece[PIECES];
} problem;

static int64_t unknowns(const nm_softmax_data *d) { return (d->dim + 1) * d->classes; }

/* p = head applied to x, returns the largest logit. */
static double logits(const float *x, int64_t dim, int64_t classes, const double *head, double *p)
{
    memcpy(p, head + dim * classes, (size_t)classes * sizeof *p);
    for (int64_t i = 0; i < dim; i++)
        for (int64_t k = 0; k < classes; k++)
            p[k] += (double)x[i] * head[i * classes + k];
    double top = p[0];
    for (int64_t k = 1; k < classes; k++)
        top = fmax(top, p[k]);
    return top;
}

/* Logits to probabilities; returns the logarithm of the sum of exponentials. */
static double normalise(double *p, int64_t classes, double top)
{
    double sum = 0;
    for (int64_t k = 0; k < classes; k++)
        sum += p[k] = exp(p[k] - top);
    for (int64_t k = 0; k < classes; k++)
        p[k] /= sum;
    return top + log(sum);
}

void nm_softmax_row(const float *x, int64_t dim, int64_t classes, const double *head, double *p)
{
    normalise(p, classes, logits(x, dim, classes, head, p));
}

static void one_row(const problem *q, piece *w, int64_t row)
{
    const nm_softmax_data *d = q->d;
    const float *x = d->x + row * d->dim;
    int64_t label = d->label[row], best = 0;
    double top = logits(x, d->dim, d->classes, q->head, w->p), own = w->p[label];
    while (w->p[best] < top)
        best++;
    w->right += best == label;
    w->loss += normalise(w->p, d->classes, top) - own;
    if (!q->gradient)
        return;
    w->p[label] -= 1;
    for (int64_t i = 0; i <= d->dim; i++) {
        double v = i < d->dim ? (double)x[i] : 1;
        double *g = w->grad + i * d->classes;
        for (int64_t k = 0; k < d->classes; k++)
            g[k] += v * w->p[k];
    }
}

static void some_pieces(void *arg, int64_t begin, int64_t end, int worker)
{
    problem *q = arg;
    (void)worker;
    for (int64_t i = begin; i < end; i++) {
        piece *w = &q->piece[i];
        w->loss = 0;
        w->right = 0;
        if (q->gradient)
            memset(w->grad, 0, (size_t)unknowns(q->d) * sizeof *w->grad);
        for (int64_t r = q->d->rows * i / PIECES; r < q->d->rows * (i + 1) / PIECES; r++)
            one_row(q, w, q->d->pick ? q->d->pick[r] : r);
    }
}

static double objective(void *arg, const double *x, double *g)
{
    problem *q = arg;
    int64_t weights = q->d->dim * q->d->classes;
    double loss = 0, square = 0;
    q->head = x;
    nm_parallel_for(q->d->pool, PIECES, 1, some_pieces, q);
    memset(g, 0, (size_t)unknowns(q->d) * sizeof *g);
    for (int i = 0; i < PIECES; i++) {
        loss += q->piece[i].loss;
        for (int64_t k = 0; k < unknowns(q->d); k++)
            g[k] += q->C * q->piece[i].grad[k];
    }
    for (int64_t k = 0; k < weights; k++) {
        square += x[k] * x[k];
        g[k] += x[k];
    }
    return q->C * loss + 0.5 * square;
}

/* Room for the pieces; NULL: none. */
static double *prepare(problem *q)
{
    size_t each = (size_t)q->d->classes + (q->gradient ? (size_t)unknowns(q->d) : 0);
    double *room = nm_malloc_array(each, PIECES * sizeof *room);
    for (size_t i = 0; room && i < PIECES; i++) {
        q->piece[i].p = room + i * each;
        q->piece[i].grad = room + i * each + q->d->classes;
    }
    return room;
}

noema_status nm_softmax_fit(const nm_softmax_data *d, double C, int max_iterations, double *head, nm_lbfgs_result *result, noema_error *err)
{
    problem q = { .d = d, .C = C, .gradient = true };
    nm_lbfgs_options o = { .max_iterations = max_iterations, .tolerance = 1e-8 };
    double *room = prepare(&q);
    if (!room)
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory: a head of %lld x %lld", (long long)d->classes, (long long)d->dim);
    memset(head, 0, (size_t)unknowns(d) * sizeof *head);
    noema_status s = nm_lbfgs((size_t)unknowns(d), head, objective, &q, &o, result, err);
    free(room);
    return s;
}

noema_status nm_softmax_score(const nm_softmax_data *d, const double *head, int64_t *right, double *loss, noema_error *err)
{
    problem q = { .d = d, .head = head };
    double *room = prepare(&q);
    if (!room)
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory: %lld classes", (long long)d->classes);
    nm_parallel_for(d->pool, PIECES, 1, some_pieces, &q);
    *right = 0;
    *loss = 0;
    for (int i = 0; i < PIECES; i++) {
        *right += q.piece[i].right;
        *loss += q.piece[i].loss;
    }
    free(room);
    return NOEMA_OK;
}
