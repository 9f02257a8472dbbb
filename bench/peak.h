/* bench/peak.h - what the machine can do at most: multiply-adds from registers only, and reading memory once. */
#ifndef BENCH_PEAK_H
#define BENCH_PEAK_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "base/cpu.h"
#include "base/pool.h"
#include "kernels/peak.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

/* One thread is timed by its processor time, which leaves out other load on the machine. */
static inline double peak_time(int threads)
{
    struct timespec t;
    clock_gettime(threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static inline double peak_now(void) { return peak_time(0); }

static inline double peak_run(bool bf16) { return nm_peak_run(bf16 ? NM_BF16 : NM_F32); }

/* GFLOP/s of all threads together. */
static inline double measure_peak(nm_pool *pool, bool bf16) { return 1e-9 * nm_peak_per_second(pool, bf16 ? NM_BF16 : NM_F32); }

/* ---- reading memory ---- */

typedef struct read_job { const char *p; uint64_t sum[64]; } read_job;

#if defined(__x86_64__)
__attribute__((target("avx2"))) static inline uint64_t read_piece(const char *p, int64_t begin, int64_t end)
{
    __m256i a = _mm256_setzero_si256(), b = a, c = a, d = a;
    for (int64_t i = begin; i + 128 <= end; i += 128) {
        a = _mm256_xor_si256(a, _mm256_loadu_si256((const __m256i *)(p + i)));
        b = _mm256_xor_si256(b, _mm256_loadu_si256((const __m256i *)(p + i + 32)));
        c = _mm256_xor_si256(c, _mm256_loadu_si256((const __m256i *)(p + i + 64)));
        d = _mm256_xor_si256(d, _mm256_loadu_si256((const __m256i *)(p + i + 96)));
        _mm_prefetch(p + i + 4096, _MM_HINT_T1);
        _mm_prefetch(p + i + 4160, _MM_HINT_T1);
    }
    a = _mm256_xor_si256(_mm256_xor_si256(a, b), _mm256_xor_si256(c, d));
    return (uint64_t)(_mm256_extract_epi64(a, 0) ^ _mm256_extract_epi64(a, 1) ^ _mm256_extract_epi64(a, 2) ^ _mm256_extract_epi64(a, 3));
}
#else
static inline uint64_t read_piece(const char *p, int64_t begin, int64_t end)
{
    uint64_t x = 0;
    for (int64_t i = begin; i + 8 <= end; i += 8)
        x ^= *(const uint64_t *)(p + i);
    return x;
}
#endif

static inline void read_task(void *arg, int64_t begin, int64_t end, int worker)
{
    read_job *j = arg;
    j->sum[worker & 63] ^= read_piece(j->p, begin, end);
}

/* GB/s of all threads reading `bytes` once, best of a few runs. */
static inline double measure_read(nm_pool *pool, const char *p, size_t bytes)
{
    read_job j = { .p = p };
    double best = 0;
    for (int rep = 0; rep < 5; rep++) {
        double t = peak_time(nm_pool_size(pool));
        nm_parallel_for(pool, (int64_t)bytes, 4 << 20, read_task, &j);
        t = peak_time(nm_pool_size(pool)) - t;
        double g = (double)bytes / t * 1e-9 + (j.sum[0] == 42 ? 1e-9 : 0); /* the sum is used: nothing is optimised away */
        best = g > best ? g : best;
    }
    return best;
}

#endif
