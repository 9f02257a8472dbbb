/* interval.c - how sure a figure is: Wilson's interval of a share, percentiles of bootstrap resamples. */
#include <math.h>
#include <stdlib.h>

#include "base/mem.h"
#include "base/rng.h"
#include "base/stats.h"
#include "eval/metrics.h"

nm_interval nm_share_interval(double share, int64_t n)
{
    double bounds[2];
    if (n < 1 || isnan(share))
        return (nm_interval){ NAN, NAN };
    nm_wilson((int64_t)llround(share * (double)n), n, bounds);
    return (nm_interval){ bounds[0], bounds[1] };
}

static int up(const void *a, const void *b)
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
        qsort(value, (size_t)kept, sizeof *value, up);
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
