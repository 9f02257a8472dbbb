/* scores.c - see scores.h. b is packed once into panels of four rows, [dim][4], so that four columns are summed side by side. */
#include "eval/scores.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

enum { PANEL = 4, ROWS = 4, BLOCK = 16 };

noema_status nm_vectors_from_f32(nm_vectors *v, const float *x, int64_t n, int64_t dim, noema_error *err)
{
    size_t floats;
    *v = (nm_vectors){ .n = n, .dim = dim };
    if (!nm_mul_size((size_t)n, (size_t)dim, &floats) || !(v->x = nm_malloc_array(floats ? floats : 1, sizeof *v->x)))
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory: %lld vectors of %lld numbers", (long long)n, (long long)dim);
    for (size_t i = 0; i < floats; i++)
        v->x[i] = x[i];
    return NOEMA_OK;
}

void nm_vectors_free(nm_vectors *v)
{
    free(v->x);
    *v = (nm_vectors){ 0 };
}

double nm_dot64(const double *a, const double *b, int64_t n)
{
    double s = 0;
    for (int64_t i = 0; i < n; i++)
        s += a[i] * b[i];
    return s;
}

double nm_vectors_off_unit(const nm_vectors *v)
{
    double most = 0;
    for (int64_t i = 0; i < v->n; i++) {
        double off = fabs(sqrt(nm_dot64(v->x + i * v->dim, v->x + i * v->dim, v->dim)) - 1);
        if (!isfinite(off))
            return NAN;
        most = off > most ? off : most;
    }
    return most;
}

void nm_vectors_normalise(nm_vectors *v)
{
    for (int64_t i = 0; i < v->n; i++) {
        double *x = v->x + i * v->dim, norm = sqrt(nm_dot64(x, x, v->dim));
        for (int64_t d = 0; norm > 0 && d < v->dim; d++)
            x[d] /= norm;
    }
}

typedef struct job {
    const nm_vectors *a;
    int64_t m;      /* columns */
    double *packed; /* [ceil(m / PANEL), dim, PANEL] */
    double *room;   /* [workers, BLOCK, m] */
    nm_scores_fn *fn;
    void *arg;
} job;

/* out[r, 0..PANEL) of one panel for up to ROWS rows. */
static void panel(const double *const rows[ROWS], const double *b, int64_t dim, double out[ROWS][PANEL])
{
    double s[ROWS][PANEL] = { { 0 } };
    for (int64_t d = 0; d < dim; d++)
        for (int r = 0; r < ROWS; r++)
            for (int c = 0; c < PANEL; c++)
                s[r][c] += rows[r][d] * b[d * PANEL + c];
    memcpy(out, s, sizeof s);
}

/* ROWS rows (fewer at the end: the last one stands in) against every panel. */
static void some_rows(const job *j, int64_t first, int64_t n, double *out)
{
    const double *rows[ROWS];
    double part[ROWS][PANEL];
    for (int64_t r = 0; r < ROWS; r++)
        rows[r] = j->a->x + (first + (r < n ? r : n - 1)) * j->a->dim;
    for (int64_t c = 0; c < j->m; c += PANEL) {
        panel(rows, j->packed + c * j->a->dim, j->a->dim, part);
        for (int64_t r = 0; r < n; r++)
            for (int64_t k = 0; k < PANEL && c + k < j->m; k++)
                out[r * j->m + c + k] = part[r][k];
    }
}

static void block(void *arg, int64_t begin, int64_t end, int worker)
{
    job *j = arg;
    double *out = j->room + (int64_t)worker * BLOCK * j->m;
    for (int64_t first = begin; first < end; first += BLOCK) {
        int64_t n = end - first < BLOCK ? end - first : BLOCK;
        for (int64_t r = 0; r < n; r += ROWS)
            some_rows(j, first + r, n - r < ROWS ? n - r : ROWS, out + r * j->m);
        j->fn(j->arg, first, n, out, worker);
    }
}

static void pack(const nm_vectors *b, double *packed)
{
    for (int64_t i = 0; i < b->n; i++)
        for (int64_t d = 0; d < b->dim; d++)
            packed[i / PANEL * PANEL * b->dim + d * PANEL + i % PANEL] = b->x[i * b->dim + d];
}

noema_status nm_scores(nm_pool *pool, const nm_vectors *a, const nm_vectors *b, nm_scores_fn *fn, void *arg, noema_error *err)
{
    size_t panels = ((size_t)b->n + PANEL - 1) / PANEL, n;
    job j = { .a = a, .m = b->n, .fn = fn, .arg = arg };
    if (a->dim != b->dim)
        return nm_fail(err, NOEMA_E_MISMATCH, "vectors of %lld and of %lld numbers have no product", (long long)a->dim, (long long)b->dim);
    if (nm_mul_size(panels * PANEL, (size_t)b->dim, &n) && (j.packed = nm_calloc(n ? n : 1, sizeof *j.packed)))
        j.room = nm_malloc_array((size_t)nm_pool_size(pool) * BLOCK, (size_t)(b->n ? b->n : 1) * sizeof *j.room);
    if (!j.room) {
        nm_free(j.packed);
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory: scores of %lld x %lld vectors", (long long)a->n, (long long)b->n);
    }
    pack(b, j.packed);
    nm_parallel_for(pool, a->n, BLOCK, block, &j);
    nm_free(j.packed);
    free(j.room);
    return NOEMA_OK;
}

/* The heap's root is the last of the kept ones: the smallest, of equal ones the highest index. */
static bool behind(const double *s, int64_t a, int64_t b) { return s[a] != s[b] ? s[a] < s[b] : a > b; }

static void sift(const double *s, int64_t *heap, int64_t n, int64_t i)
{
    for (int64_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && behind(s, heap[child + 1], heap[child]))
            child++;
        if (!behind(s, heap[child], heap[i]))
            return;
        int64_t t = heap[i];
        heap[i] = heap[child];
        heap[child] = t;
    }
}

void nm_largest(const double *s, int64_t n, int64_t k, int64_t *heap)
{
    if (k < 1)
        return;
    for (int64_t i = 0; i < k; i++)
        heap[i] = i;
    for (int64_t i = k / 2; i-- > 0;)
        sift(s, heap, k, i);
    for (int64_t i = k; i < n; i++)
        if (behind(s, heap[0], i)) {
            heap[0] = i;
            sift(s, heap, k, 0);
        }
    for (int64_t left = k; left > 1;) { /* the last one goes to the end each time */
        int64_t t = heap[0];
        heap[0] = heap[--left];
        heap[left] = t;
        sift(s, heap, left, 0);
    }
}
