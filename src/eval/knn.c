/* knn.c - classes by the nearest training rows (specs/evaluation.md, section 3). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "eval/metrics.h"

typedef struct neighbours {
    const nm_knn_options *o;
    const int64_t *label;
    int64_t k, classes, n_train;
    const double *train_square, *test_square; /* squared lengths, for distances */
    int64_t *predicted;
    int64_t *heap; /* [workers, k] */
    double *vote;  /* [workers, classes] */
    double *near;  /* [workers, n_train]: larger is nearer */
} neighbours;

static void rows(void *arg, int64_t first, int64_t n, const double *scores, int worker)
{
    neighbours *q = arg;
    int64_t *heap = q->heap + worker * q->k;
    double *vote = q->vote + worker * q->classes, *near = q->near + worker * q->n_train;
    for (int64_t r = 0; r < n; r++) {
        const double *s = scores + r * q->n_train;
        for (int64_t j = 0; q->o->euclid && j < q->n_train; j++)
            near[j] = 2 * s[j] - q->train_square[j]; /* -|x - y|^2 without the part that all share */
        if (q->o->euclid)
            s = near;
        nm_largest(s, q->n_train, q->k, heap);
        memset(vote, 0, (size_t)q->classes * sizeof *vote);
        for (int64_t i = 0; i < q->k; i++) {
            double x = s[heap[i]];
            if (q->o->euclid)
                x = -sqrt(fmax(0, q->test_square[first + r] - x));
            vote[q->label[heap[i]]] += q->o->temperature > 0 ? exp(x / q->o->temperature) : 1;
        }
        q->predicted[first + r] = nm_argmax(vote, q->classes);
    }
}

static double *squares(const nm_vectors *v)
{
    double *s = nm_malloc_array((size_t)v->n + 1, sizeof *s);
    for (int64_t i = 0; s && i < v->n; i++)
        s[i] = nm_dot64(v->x + i * v->dim, v->x + i * v->dim, v->dim);
    return s;
}

noema_status nm_knn(nm_pool *pool, const nm_vectors *train, const int64_t *label, int64_t classes, const nm_vectors *test, const nm_knn_options *o,
                    int64_t *predicted, noema_error *err)
{
    if (train->n < 1 || o->k < 1)
        return nm_fail(err, NOEMA_E_ARGUMENT, "k-NN: expected training rows and k >= 1, got %lld rows, k = %lld", (long long)train->n, (long long)o->k);
    neighbours q = { .o = o, .label = label, .k = o->k < train->n ? o->k : train->n, .classes = classes, .n_train = train->n, .predicted = predicted };
    size_t workers = (size_t)nm_pool_size(pool);
    double *a = squares(train), *b = squares(test);
    q.train_square = a;
    q.test_square = b;
    q.heap = nm_malloc_array(workers * (size_t)q.k, sizeof *q.heap);
    q.vote = nm_malloc_array(workers * (size_t)classes, sizeof *q.vote);
    q.near = nm_malloc_array(workers * (size_t)train->n, sizeof *q.near);
    noema_status s = a && b && q.heap && q.vote && q.near ? nm_scores(pool, test, train, rows, &q, err)
                                                          : nm_fail(err, NOEMA_E_MEMORY, "out of memory: k-NN over %lld rows", (long long)train->n);
    free(a);
    free(b);
    free(q.heap);
    free(q.vote);
    free(q.near);
    return s;
}
