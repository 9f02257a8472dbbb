/* stats.c - see stats.h. */
#include "base/stats.h"

#include <math.h>
#include <stdlib.h>

#include "base/mem.h"
#include "base/rng.h"

#define Z95 1.959963984540054

void nm_wilson(int64_t right, int64_t n, double interval[2])
{
    interval[0] = 0;
    interval[1] = 1;
    if (n < 1)
        return;
    double p = (double)right / (double)n, k = Z95 * Z95 / (double)n, middle = p + k / 2, half = Z95 * sqrt((p * (1 - p) + k / 4) / (double)n);
    interval[0] = fmax(0, (middle - half) / (1 + k));
    interval[1] = fmin(1, (middle + half) / (1 + k));
}

/* ---- bootstrap ---- */

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Linear interpolation between the order statistics, as numpy.percentile. */
static double percentile(const double *sorted, int64_t n, double q)
{
    double at = q * (double)(n - 1);
    int64_t i = (int64_t)at;
    return i + 1 < n ? sorted[i] + (at - (double)i) * (sorted[i + 1] - sorted[i]) : sorted[n - 1];
}

noema_status nm_bootstrap(nm_interval *out, int64_t n, int64_t rounds, uint64_t seed, nm_statistic_fn *fn, void *arg, noema_error *err)
{
    double *value = nm_malloc_array((size_t)(rounds > 0 ? rounds : 1), sizeof *value);
    int64_t *drawn = nm_malloc_array((size_t)(n > 0 ? n : 1), sizeof *drawn), kept = 0;
    noema_status s = value && drawn ? NOEMA_OK : nm_fail(err, NOEMA_E_MEMORY, "out of memory: %lld bootstrap rounds", (long long)rounds);
    for (int64_t r = 0; s == NOEMA_OK && n > 0 && r < rounds; r++) {
        nm_rng g;
        nm_rng_init(&g, seed, (uint64_t)r);
        for (int64_t i = 0; i < n; i++)
            drawn[i] = (int64_t)nm_rng_below(&g, (uint64_t)n);
        double v = fn(arg, n, drawn);
        if (!isnan(v))
            value[kept++] = v;
    }
    *out = (nm_interval){ NAN, NAN };
    if (s == NOEMA_OK && kept) {
        qsort(value, (size_t)kept, sizeof *value, ascending);
        *out = (nm_interval){ percentile(value, kept, 0.025), percentile(value, kept, 0.975) };
    }
    free(value);
    free(drawn);
    return s;
}

typedef struct ratio { const double *value, *weight; } ratio;

static double ratio_of(void *arg, int64_t n, const int64_t *drawn)
{
    const ratio *r = arg;
    double sum = 0, weight = 0;
    for (int64_t i = 0; i < n; i++) {
        sum += r->value[drawn[i]];
        weight += r->weight ? r->weight[drawn[i]] : 1;
    }
    return sum / weight;
}

noema_status nm_bootstrap_ratio(nm_interval *out, int64_t n, int64_t rounds, uint64_t seed, const double *value, const double *weight, noema_error *err)
{
    ratio r = { value, weight };
    return nm_bootstrap(out, n, rounds, seed, ratio_of, &r, err);
}

/* ---- ranks ---- */

static int ascending_whole(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

noema_status nm_rank_summary(nm_rank_figures *s, int64_t n, const int64_t *rank, int n_k, const int64_t *k, noema_error *err)
{
    int64_t *sorted = nm_malloc_array((size_t)n + 1, sizeof *sorted), m = 0;
    double sum = 0;
    *s = (nm_rank_figures){ .median = NAN, .mean = NAN };
    if (!sorted)
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory: %lld ranks", (long long)n);
    for (int64_t i = 0; i < n; i++)
        if (rank[i] >= 0)
            sorted[m++] = rank[i];
    for (int64_t i = 0; i < m; i++) {
        sum += (double)(sorted[i] + 1);
        for (int c = 0; c < n_k; c++)
            s->recall[c] += sorted[i] < k[c];
    }
    qsort(sorted, (size_t)m, sizeof *sorted, ascending_whole);
    for (int c = 0; c < n_k; c++)
        s->recall[c] = m ? s->recall[c] / (double)m : NAN;
    if (m) {
        s->median = (double)(sorted[(m - 1) / 2] + sorted[m / 2]) / 2 + 1;
        s->mean = sum / (double)m;
    }
    s->queries = m;
    free(sorted);
    return NOEMA_OK;
}
