/* peak.c - see peak.h. Twelve independent accumulators hide the latency of the multiply-add on every core so far. */
#define _GNU_SOURCE
#include "kernels/peak.h"

#include <time.h>

#include "base/cpu.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define STEPS 100000

#if defined(__x86_64__)

/* The empty asm keeps the accumulators in registers and the loop from being folded. */
__attribute__((target("avx512f"))) static double peak_loop_512(void)
{
    __m512 x = _mm512_set1_ps(0.5f);
    __m512 a0 = x, a1 = x, a2 = x, a3 = x, a4 = x, a5 = x, a6 = x, a7 = x, a8 = x, a9 = x, a10 = x, a11 = x;
    for (int s = 0; s < STEPS; s++) {
        a0 = _mm512_fmadd_ps(a0, x, x); a1 = _mm512_fmadd_ps(a1, x, x); a2 = _mm512_fmadd_ps(a2, x, x); a3 = _mm512_fmadd_ps(a3, x, x);
        a4 = _mm512_fmadd_ps(a4, x, x); a5 = _mm512_fmadd_ps(a5, x, x); a6 = _mm512_fmadd_ps(a6, x, x); a7 = _mm512_fmadd_ps(a7, x, x);
        a8 = _mm512_fmadd_ps(a8, x, x); a9 = _mm512_fmadd_ps(a9, x, x); a10 = _mm512_fmadd_ps(a10, x, x); a11 = _mm512_fmadd_ps(a11, x, x);
        __asm__ volatile("" : "+v"(a0), "+v"(a1), "+v"(a2), "+v"(a3), "+v"(a4), "+v"(a5), "+v"(a6), "+v"(a7), "+v"(a8), "+v"(a9), "+v"(a10), "+v"(a11));
    }
    return 2.0 * 16 * 12 * STEPS;
}

__attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16"))) static double peak_loop_bf16(void)
{
    __m512 x = _mm512_setzero_ps();
    __m512bh h = (__m512bh)_mm512_set1_epi32(0x3F003F00);
    __m512 a0 = x, a1 = x, a2 = x, a3 = x, a4 = x, a5 = x, a6 = x, a7 = x, a8 = x, a9 = x, a10 = x, a11 = x;
    for (int s = 0; s < STEPS; s++) {
        a0 = _mm512_dpbf16_ps(a0, h, h); a1 = _mm512_dpbf16_ps(a1, h, h); a2 = _mm512_dpbf16_ps(a2, h, h); a3 = _mm512_dpbf16_ps(a3, h, h);
        a4 = _mm512_dpbf16_ps(a4, h, h); a5 = _mm512_dpbf16_ps(a5, h, h); a6 = _mm512_dpbf16_ps(a6, h, h); a7 = _mm512_dpbf16_ps(a7, h, h);
        a8 = _mm512_dpbf16_ps(a8, h, h); a9 = _mm512_dpbf16_ps(a9, h, h); a10 = _mm512_dpbf16_ps(a10, h, h); a11 = _mm512_dpbf16_ps(a11, h, h);
        __asm__ volatile("" : "+v"(a0), "+v"(a1), "+v"(a2), "+v"(a3), "+v"(a4), "+v"(a5), "+v"(a6), "+v"(a7), "+v"(a8), "+v"(a9), "+v"(a10), "+v"(a11));
    }
    return 4.0 * 16 * 12 * STEPS;
}

__attribute__((target("avx2,fma"))) static double peak_loop_256(void)
{
    __m256 x = _mm256_set1_ps(0.5f);
    __m256 a0 = x, a1 = x, a2 = x, a3 = x, a4 = x, a5 = x, a6 = x, a7 = x, a8 = x, a9 = x, a10 = x, a11 = x;
    for (int s = 0; s < STEPS; s++) {
        a0 = _mm256_fmadd_ps(a0, x, x); a1 = _mm256_fmadd_ps(a1, x, x); a2 = _mm256_fmadd_ps(a2, x, x); a3 = _mm256_fmadd_ps(a3, x, x);
        a4 = _mm256_fmadd_ps(a4, x, x); a5 = _mm256_fmadd_ps(a5, x, x); a6 = _mm256_fmadd_ps(a6, x, x); a7 = _mm256_fmadd_ps(a7, x, x);
        a8 = _mm256_fmadd_ps(a8, x, x); a9 = _mm256_fmadd_ps(a9, x, x); a10 = _mm256_fmadd_ps(a10, x, x); a11 = _mm256_fmadd_ps(a11, x, x);
        __asm__ volatile("" : "+x"(a0), "+x"(a1), "+x"(a2), "+x"(a3), "+x"(a4), "+x"(a5), "+x"(a6), "+x"(a7), "+x"(a8), "+x"(a9), "+x"(a10), "+x"(a11));
    }
    return 2.0 * 8 * 12 * STEPS;
}

__attribute__((target("avx512f,avx512vnni"))) static double peak_loop_i8(void)
{
    __m512i x = _mm512_setzero_si512();
    __m512i a0 = x, a1 = x, a2 = x, a3 = x, a4 = x, a5 = x, a6 = x, a7 = x, a8 = x, a9 = x, a10 = x, a11 = x;
    for (int s = 0; s < STEPS; s++) {
        a0 = _mm512_dpbusd_epi32(a0, x, x); a1 = _mm512_dpbusd_epi32(a1, x, x); a2 = _mm512_dpbusd_epi32(a2, x, x); a3 = _mm512_dpbusd_epi32(a3, x, x);
        a4 = _mm512_dpbusd_epi32(a4, x, x); a5 = _mm512_dpbusd_epi32(a5, x, x); a6 = _mm512_dpbusd_epi32(a6, x, x); a7 = _mm512_dpbusd_epi32(a7, x, x);
        a8 = _mm512_dpbusd_epi32(a8, x, x); a9 = _mm512_dpbusd_epi32(a9, x, x); a10 = _mm512_dpbusd_epi32(a10, x, x); a11 = _mm512_dpbusd_epi32(a11, x, x);
        __asm__ volatile("" : "+v"(a0), "+v"(a1), "+v"(a2), "+v"(a3), "+v"(a4), "+v"(a5), "+v"(a6), "+v"(a7), "+v"(a8), "+v"(a9), "+v"(a10), "+v"(a11));
    }
    return 8.0 * 16 * 12 * STEPS;
}

double nm_peak_run(nm_dtype compute)
{
    uint32_t f = nm_cpu_features();
    if (compute == NM_I8 && f & NM_CPU_AVX512_VNNI)
        return peak_loop_i8();
    if (compute == NM_BF16 && f & NM_CPU_AVX512_BF16)
        return peak_loop_bf16();
    return f & NM_CPU_AVX512 ? peak_loop_512() : f & NM_CPU_AVX2 ? peak_loop_256() : 0;
}
#else
double nm_peak_run(nm_dtype compute) { return (void)compute, 0; }
#endif

typedef struct job { nm_dtype compute; double rate[64]; } job;

/* Of the calling thread: what else the machine does must not look like a slower processor. */
static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void task(void *arg, int64_t begin, int64_t end, int worker)
{
    job *j = arg;
    (void)worker;
    for (int64_t i = begin; i < end; i++) {
        double t = seconds(), done = nm_peak_run(j->compute);
        j->rate[i] = done / (seconds() - t);
    }
}

double nm_peak_per_second(nm_pool *pool, nm_dtype compute)
{
    job j = { .compute = compute };
    int n = nm_pool_size(pool) < 64 ? nm_pool_size(pool) : 64;
    double best = 0;
    for (int rep = 0; rep < 20; rep++) {
        double sum = 0;
        nm_parallel_for(pool, n, 1, task, &j);
        for (int i = 0; i < n; i++)
            sum += j.rate[i];
        best = sum > best ? sum : best;
    }
    return best;
}
