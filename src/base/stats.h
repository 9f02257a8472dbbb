/* stats.h - intervals that go with measured figures, and what is said of ranks. */
#ifndef NM_STATS_H
#define NM_STATS_H

#include <stdint.h>

#include "base/err.h"

/* 95 % interval of a share of `right` in n (Wilson, JASA 1927); n = 0: [0, 1]. */
void nm_wilson(int64_t right, int64_t n, double interval[2]);

typedef struct nm_interval { double low, high; } nm_interval;
/* Percentile interval (95 %) of a statistic over `rounds` resamples of n items. fn gets the drawn indices. */
typedef double nm_statistic_fn(void *arg, int64_t n, const int64_t *drawn);
noema_status nm_bootstrap(nm_interval *out, int64_t n, int64_t rounds, uint64_t seed, nm_statistic_fn *fn, void *arg, noema_error *err);
/* The same for sum of value / sum of weight over the drawn items (weight NULL: 1 each). */
noema_status nm_bootstrap_ratio(nm_interval *out, int64_t n, int64_t rounds, uint64_t seed, const double *value, const double *weight, noema_error *err);

typedef struct nm_rank_figures { double recall[8]; /* at k[0..] */ double median, mean; int64_t queries; } nm_rank_figures;
/* rank[i] from 0, < 0: no such query. Of the queries with a rank; median and mean count from 1. */
noema_status nm_rank_summary(nm_rank_figures *s, int64_t n, const int64_t *rank, int n_k, const int64_t *k, noema_error *err);

#endif
