/* bench/peak.h - what the machine can do at most: multiply-adds from registers only, and reading memory once. */
#ifndef BENCH_PEAK_H
#define BENCH_PEAK_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "base/cpu.h"
#include "base/pool.h"

static inline double peak_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

#if defined(__x86_64__)
#include <immintrin.h>
#define PEAK_STEPS 100000

/* The empty asm keeps the accumulators in registers and the loop from being folded. */
__attribute__((target("avx512f"))) static inline double peak_loop_512(void)
{
    __m512 x = _mm512_set1_ps(0.5f);
    __m512 a0 = x, a1 = x, a2 = x, a3 = x, a4 = x, a5 = x, a6 = x, a7 = x, a8 = x, a9 = x, a10 = x, a11 = x;
    for (int s = 0; s < PEAK_STEPS; s++) {
        a0 = _mm512_fmadd_ps(a0, x, x); a1 = _mm512_fmadd_ps(a1, x, x); a2 = _mm512_fmadd_ps(a2, x, x); a3 = _mm512_fmadd_ps(a3, x, x);
        a4 = _mm512_fmadd_ps(a4, x, x); a5 = _mm512_fmadd_ps(a5, x, x); a6 = _mm512_fmadd_ps(a6, x, x); a7 = _mm512_fmadd_ps(a7, x, x);
        a8 = _mm512_fmadd_ps(a8, x, x); a9 = _mm512_fmadd_ps(a9, x, x); a10 = _mm512_fmadd_ps(a10, x, x); a11 = _mm512_fmadd_ps(a11, x, x);
        __asm__ volatile("" : "+v"(a0), "+v"(a1), "+v"(a2), "+v"(a3), "+v"(a4), "+v"(a5), "+v"(a6), "+v"(a7), "+v"(a8), "+v"(a9), "+v"(a10), "+v"(a11));
    }
    return 2.0 * 16 * 12 * PEAK_STEPS;
}

__attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16"))) static inline double peak_loop_bf16(void)
{
    __m512 x = _mm512_setzero_ps();
    __m512bh h = (__m512bh)_mm512_set1_epi32(0x3F003F00);
    __m512 a0 = x, a1 = x, a2 = x, a3 = x, a4 = x, a5 = x, a6 = x, a7 = x, a8 = x, a9 = x, a10 = x, a11 = x;
    for (int s = 0; s < PEAK_STEPS; s++) {
        a0 = _mm512_dpbf16_ps(a0, h, h); a1 = _mm512_dpbf16_ps(a1, h, h); a2 = _mm512_dpbf16_ps(a2, h, h); a3 = _mm512_dpbf16_ps(a3, h, h);
        a4 = _mm512_dpbf16_ps(a4, h, h); a5 = _mm512_dpbf16_ps(a5, h, h); a6 = _mm512_dpbf16_ps(a6, h, h); a7 = _mm512_dpbf16_ps(a7, h, h);
        a8 = _mm512_dpbf16_ps(a8, h, h); a9 = _mm512_dpbf16_ps(a9, h, h); a10 = _mm512_dpbf16_ps(a10, h, h); a11 = _mm512_dpbf16_ps(a11, h, h);
        __asm__ volatile("" : "+v"(a0), "+v"(a1), "+v"(a2), "+v"(a3), "+v"(a4), "+v"(a5), "+v"(a6), "+v"(a7), "+v"(a8), "+v"(a9), "+v"(a10), "+v"(a11));
    }
    return 4.0 * 16 * 12 * PEAK_STEPS;
}

__attribute__((target("avx2,fma"))) static inline double peak_loop_256(void)
{
    __m256 x = _mm256_set1_ps(0.5f);
    __m256 a0 = x, a1 = x, a2 = x, a3 = x, a4 = x, a5 = x, a6 = x, a7 = x, a8 = x, a9 = x, a10 = x, a11 = x;
    for (int s = 0; s < PEAK_STEPS; s++) {
        a0 = _mm256_fmadd_ps(a0, x, x); a1 = _mm256_fmadd_ps(a1, x, x); a2 = _mm256_fmadd_ps(a2, x, x); a3 = _mm256_fmadd_ps(a3, x, x);
        a4 = _mm256_fmadd_ps(a4, x, x); a5 = _mm256_fmadd_ps(a5, x, x); a6 = _mm256_fmadd_ps(a6, x, x); a7 = _mm256_fmadd_ps(a7, x, x);
        a8 = _mm256_fmadd_ps(a8, x, x); a9 = _mm256_fmadd_ps(a9, x, x); a10 = _mm256_fmadd_ps(a10, x, x); a11 = _mm256_fmadd_ps(a11, x, x);
        __asm__ volatile("" : "+x"(a0), "+x"(a1), "+x"(a2), "+x"(a3), "+x"(a4), "+x"(a5), "+x"(a6), "+x"(a7), "+x"(a8), "+x"(a9), "+x"(a10), "+x"(a11));
    }
    return 2.0 * 8 * 12 * PEAK_STEPS;
}

static inline double peak_run(bool bf16)
{
    uint32_t f = nm_cpu_features();
    return bf16 && (f & NM_CPU_AVX512_BF16) ? peak_loop_bf16() : f & NM_CPU_AVX512 ? peak_loop_512() : f & NM_CPU_AVX2 ? peak_loop_256() : 0;
}
#else
static inline double peak_run(bool bf16) { return bf16 ? 0 : 0; }
#endif

typedef struct peak_job { bool bf16; double flops[64]; } peak_job;

static inline void peak_task(void *arg, int64_t begin, int64_t end, int worker)
{
    peak_job *j = arg;
    (void)worker;
    for (int64_t i = begin; i < end; i++)
        j->flops[i] = peak_run(j->bf16);
}

/* FLOP/s of all threads together / 1e9: best of a few runs. */
static inline double measure_peak(nm_pool *pool, bool bf16)
{
    peak_job j = { .bf16 = bf16 };
    int n = nm_pool_size(pool) < 64 ? nm_pool_size(pool) : 64;
    double best = 0;
    for (int rep = 0; rep < 20; rep++) {
        double t = peak_now(), sum = 0;
        nm_parallel_for(pool, n, 1, peak_task, &j);
        t = peak_now() - t;
        for (int i = 0; i < n; i++)
            sum += j.flops[i];
        best = sum / t > best ? sum / t : best;
    }
    return best * 1e-9;
}

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
        _mm_prefetch(p + i + 16384, _MM_HINT_T1);
        _mm_prefetch(p + i + 16448, _MM_HINT_T1);
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
        double t = peak_now();
        nm_parallel_for(pool, (int64_t)bytes, 4 << 20, read_task, &j);
        t = peak_now() - t;
        double g = (double)bytes / t * 1e-9 + (j.sum[0] == 42 ? 1e-9 : 0); /* the sum is used: nothing is optimised away */
        best = g > best ? g : best;
    }
    return best;
}

#endif
