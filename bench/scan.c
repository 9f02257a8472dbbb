/* bench/scan.c - exact top-10 over n rows of dim values, against the memory bandwidth and multiply-add peak of the same run.
 * usage: bench_scan [n [dim [threads [dtype [seconds]]]]]; bench/scan.py compares with FAISS at the same number of threads. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/half.h"
#include "kernels/kernels.h"
#include "peak.h"

#define HUGE_PAGE ((size_t)2 << 20)

static void fill_rows(char *rows, nm_dtype t, int64_t n)
{
    uint32_t x = 1;
    for (int64_t i = 0; i < n; i++) {
        x = x * 1664525u + 1013904223u;
        float v = (float)(int32_t)x * 0x1p-31f;
        if (t == NM_F32)
            ((float *)rows)[i] = v;
        else if (t == NM_I8)
            ((int8_t *)rows)[i] = (int8_t)(v * 127);
        else
            ((uint16_t *)rows)[i] = t == NM_BF16 ? nm_f32_to_bf16(v) : nm_f32_to_f16(v);
    }
}

int main(int argc, char **argv)
{
    int64_t n = argc > 1 ? atoll(argv[1]) : 1000000, dim = argc > 2 ? atoll(argv[2]) : 512, k = 10;
    int threads = argc > 3 ? atoi(argv[3]) : 0;
    nm_dtype t = argc <= 4 || !strcmp(argv[4], "f32") ? NM_F32 : !strcmp(argv[4], "bf16") ? NM_BF16 : !strcmp(argv[4], "f16") ? NM_F16 : NM_I8;
    double seconds = argc > 5 ? atof(argv[5]) : 1;
    size_t bytes = (size_t)(n * dim) * nm_dtype_size(t);
    char *rows = aligned_alloc(HUGE_PAGE, (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE);
    float *queries = malloc((size_t)(256 * dim) * sizeof *queries);
    nm_hit *hits = malloc((size_t)(256 * k) * sizeof *hits);
    if (!rows || !queries || !hits)
        return 1;
#ifdef MADV_HUGEPAGE
    madvise(rows, bytes, MADV_HUGEPAGE); /* as numpy does for FAISS; 4 KiB pages cost a third of the bandwidth */
#endif
    fill_rows(rows, t, n * dim);
    fill_rows((char *)queries, NM_F32, 256 * dim);
    nm_pool *pool = nm_pool_new(threads);
    double stream = measure_read(pool, rows, bytes), peak = measure_peak(pool, false);
    printf("rows %lld dim %lld %s threads %d: read %.1f GB/s, peak %.0f GFLOP/s\n", (long long)n, (long long)dim, nm_dtype_name(t),
           nm_pool_size(pool), stream, peak);
    for (int64_t nq = 1; nq <= 256; nq *= 16) {
        void *scratch = aligned_alloc(64, nm_scan_scratch(nq, k, nm_pool_size(pool)));
        double best = 1e9, end = peak_time(nm_pool_size(pool)) + seconds;
        do {
            double s = peak_time(nm_pool_size(pool));
            nm_scan_topk(nm_kernels_get(), nq, queries, n, dim, rows, t, dim, NULL, NULL, k, hits, pool, scratch);
            s = peak_time(nm_pool_size(pool)) - s;
            best = s < best ? s : best;
        } while (peak_time(nm_pool_size(pool)) < end);
        double gb = (double)bytes / best * 1e-9, gf = 2.0 * (double)(n * dim * nq) / best * 1e-9;
        printf("nq %lld ms %.2f GB/s %.1f (%.0f %% of read) GFLOP/s %.1f (%.0f %% of peak)\n", (long long)nq, best * 1e3, gb, 100 * gb / stream, gf,
               100 * gf / peak);
        free(scratch);
    }
    nm_pool_free(pool);
    free(rows);
    free(queries);
    free(hits);
    return 0;
}
