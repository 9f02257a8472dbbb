/* stats.h - intervals that go with measured shares. */
#ifndef NM_STATS_H
#define NM_STATS_H

#include <stdint.h>

/* 95 % interval of a share of `right` in n (Wilson, JASA 1927); n = 0: [0, 1]. */
void nm_wilson(int64_t right, int64_t n, double interval[2]);
/* 95 % percentile interval of the mean of d[0..n) over `samples` bootstrap samples drawn by seed. */
void nm_bootstrap_mean(const double *d, int64_t n, int samples, uint64_t seed, double interval[2]);

#endif
