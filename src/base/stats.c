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

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void nm_bootstrap_mean(const double *d, int64_t n, int samples, uint64_t seed, double interval[2])
{
    double *mean = nm_malloc_array((size_t)samples, sizeof *mean);
    interval[0] = interval[1] = NAN;
    for (int i = 0; mean && n > 0 && i < samples; i++) {
        nm_rng r;
        double sum = 0;
        nm_rng_init(&r, seed, (uint64_t)i + 1);
        for (int64_t k = 0; k < n; k++)
            sum += d[nm_rng_below(&r, (uint64_t)n)];
        mean[i] = sum / (double)n;
    }
    if (mean && n > 0) {
        qsort(mean, (size_t)samples, sizeof *mean, ascending);
        interval[0] = mean[(int)(0.025 * (samples - 1) + 0.5)];
        interval[1] = mean[(int)(0.975 * (samples - 1) + 0.5)];
    }
    free(mean);
}
