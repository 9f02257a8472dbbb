/* geometry.c - how a set of unit vectors lies on the sphere (specs/evaluation.md, section 10). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "eval/metrics.h"

double nm_alignment(const nm_vectors *a, const nm_vectors *b, const int64_t *of_b, double alpha)
{
    double sum = 0;
    int64_t n = 0;
    for (int64_t j = 0; j < b->n; j++) {
        double square = 0;
        if (of_b[j] < 0)
            continue;
        for (int64_t d = 0; d < b->dim; d++) {
            double x = a->x[of_b[j] * a->dim + d] - b->x[j * b->dim + d];
            square += x * x;
        }
        sum += alpha == 2 ? square : pow(square, alpha / 2);
        n++;
    }
    return n ? sum / (double)n : NAN;
}

/* Rows of any height: partial sums per row, added in order afterwards. */
typedef struct sums { const nm_vectors *v; double t; double *square, *row; } sums;

static void uniform_rows(void *arg, int64_t first, int64_t n, const double *scores, int worker)
{
    sums *q = arg;
    (void)worker;
    for (int64_t r = 0; r < n; r++) {
        int64_t i = first + r;
        double sum = 0;
        for (int64_t j = i + 1; j < q->v->n; j++)
            sum += exp(-q->t * (q->square[i] + q->square[j] - 2 * scores[r * q->v->n + j]));
        q->row[i] = sum;
    }
}

noema_status nm_uniformity(nm_pool *pool, const nm_vectors *v, double t, double *value, noema_error *err)
{
    sums q = { .v = v, .t = t };
    double sum = 0, pairs = (double)v->n * (double)(v->n - 1) / 2;
    q.square = nm_malloc_array((size_t)v->n + 1, 2 * sizeof *q.square);
    if (!q.square)
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory: uniformity of %lld vectors", (long long)v->n);
    q.row = q.square + v->n;
    bool unit = nm_vectors_off_unit(v) <= 1e-4; /* rounded to f32: meant to be exactly 1 */
    for (int64_t i = 0; i < v->n; i++)
        q.square[i] = unit ? 1 : nm_dot64(v->x + i * v->dim, v->x + i * v->dim, v->dim);
    noema_status s = nm_scores(pool, v, v, uniform_rows, &q, err);
    for (int64_t i = 0; s == NOEMA_OK && i < v->n; i++)
        sum += q.row[i];
    *value = v->n > 1 ? log(sum / pairs) : NAN;
    free(q.square);
    return s;
}

static void mean_of(const nm_vectors *v, double *mean)
{
    memset(mean, 0, (size_t)v->dim * sizeof *mean);
    for (int64_t i = 0; i < v->n; i++)
        for (int64_t d = 0; d < v->dim; d++)
            mean[d] += v->x[i * v->dim + d];
    for (int64_t d = 0; d < v->dim; d++)
        mean[d] /= (double)v->n;
}

noema_status nm_modality_gap(const nm_vectors *a, const nm_vectors *b, double *gap, double *cosine, noema_error *err)
{
    double *m = nm_malloc_array((size_t)a->dim + 1, 2 * sizeof *m), square = 0;
    if (!m)
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory: means of %lld numbers", (long long)a->dim);
    double *k = m + a->dim;
    mean_of(a, m);
    mean_of(b, k);
    for (int64_t d = 0; d < a->dim; d++)
        square += (m[d] - k[d]) * (m[d] - k[d]);
    *gap = sqrt(square);
    *cosine = nm_dot64(m, k, a->dim) / sqrt(nm_dot64(m, m, a->dim) * nm_dot64(k, k, a->dim));
    free(m);
    return NOEMA_OK;
}

double nm_anisotropy(const nm_vectors *v)
{
    double square = 0, own = 0; /* |sum of rows|^2 = n + sum of the products of different rows */
    for (int64_t d = 0; d < v->dim; d++) {
        double sum = 0;
        for (int64_t i = 0; i < v->n; i++)
            sum += v->x[i * v->dim + d];
        square += sum * sum;
    }
    for (int64_t i = 0; i < v->n; i++)
        own += nm_dot64(v->x + i * v->dim, v->x + i * v->dim, v->dim);
    return v->n > 1 ? (square - own) / ((double)v->n * (double)(v->n - 1)) : NAN;
}

typedef struct hubs { int64_t k, m; int64_t *heap; int32_t *count; /* [workers, m] */ } hubs;

static void hub_rows(void *arg, int64_t first, int64_t n, const double *scores, int worker)
{
    hubs *q = arg;
    (void)first;
    for (int64_t r = 0; r < n; r++) {
        nm_largest(scores + r * q->m, q->m, q->k, q->heap + worker * q->k);
        for (int64_t i = 0; i < q->k; i++)
            q->count[worker * q->m + q->heap[worker * q->k + i]]++;
    }
}

static void summarise(nm_hubness *h, const hubs *q, int workers)
{
    double mean = 0, two = 0, three = 0;
    for (int64_t j = 0; j < q->m; j++) {
        for (int w = 1; w < workers; w++)
            q->count[j] += q->count[w * q->m + j];
        mean += q->count[j];
        h->max = q->count[j] > h->max ? q->count[j] : h->max;
        h->zero += q->count[j] == 0;
    }
    h->mean = mean /= (double)q->m;
    for (int64_t j = 0; j < q->m; j++) {
        double d = q->count[j] - mean;
        two += d * d;
        three += d * d * d;
    }
    two /= (double)q->m;
    h->skewness = two > 0 ? three / (double)q->m / pow(two, 1.5) : 0;
    h->zero_share = (double)h->zero / (double)q->m;
}

noema_status nm_hubness_of(nm_hubness *h, nm_pool *pool, const nm_vectors *queries, const nm_vectors *items, int64_t k, noema_error *err)
{
    size_t workers = (size_t)nm_pool_size(pool);
    hubs q = { .k = k < items->n ? k : items->n, .m = items->n };
    *h = (nm_hubness){ 0 };
    if (items->n < 1 || k < 1)
        return nm_fail(err, NOEMA_E_ARGUMENT, "hubness: expected vectors and k >= 1");
    q.heap = nm_malloc_array(workers * (size_t)q.k, sizeof *q.heap);
    q.count = calloc(workers * (size_t)q.m, sizeof *q.count);
    noema_status s = q.heap && q.count ? nm_scores(pool, queries, items, hub_rows, &q, err)
                                       : nm_fail(err, NOEMA_E_MEMORY, "out of memory: hubness of %lld vectors", (long long)q.m);
    if (s == NOEMA_OK)
        summarise(h, &q, (int)workers);
    free(q.heap);
    free(q.count);
    return s;
}

typedef struct entropy { double scale; int64_t m; double *row; } entropy;

/* -log softmax of the diagonal. */
static void entropy_rows(void *arg, int64_t first, int64_t n, const double *scores, int worker)
{
    entropy *q = arg;
    (void)worker;
    for (int64_t r = 0; r < n; r++) {
        const double *s = scores + r * q->m;
        double most = s[nm_argmax(s, q->m)], sum = 0;
        for (int64_t j = 0; j < q->m; j++)
            sum += exp(q->scale * (s[j] - most));
        q->row[first + r] = log(sum) - q->scale * (s[first + r] - most);
    }
}

static noema_status one_way(double *mean, nm_pool *pool, const nm_vectors *a, const nm_vectors *b, double scale, noema_error *err)
{
    entropy q = { .scale = scale, .m = b->n, .row = nm_malloc_array((size_t)a->n + 1, sizeof(double)) };
    noema_status s = q.row ? nm_scores(pool, a, b, entropy_rows, &q, err) : nm_fail(err, NOEMA_E_MEMORY, "out of memory: %lld pairs", (long long)a->n);
    double sum = 0;
    for (int64_t i = 0; s == NOEMA_OK && i < a->n; i++)
        sum += q.row[i];
    *mean = sum / (double)a->n;
    free(q.row);
    return s;
}

noema_status nm_clip_loss_of(nm_clip_loss *l, nm_pool *pool, const nm_vectors *images, const nm_vectors *texts, double scale, noema_error *err)
{
    if (images->n != texts->n || images->n < 1)
        return nm_fail(err, NOEMA_E_MISMATCH, "contrastive loss: expected pairs, got %lld images and %lld texts", (long long)images->n, (long long)texts->n);
    noema_status s = one_way(&l->image_to_text, pool, images, texts, scale, err);
    if (s == NOEMA_OK)
        s = one_way(&l->text_to_image, pool, texts, images, scale, err);
    l->loss = (l->image_to_text + l->text_to_image) / 2;
    return s;
}
