/* bench/attention.c - fused attention against the multiply-add peak of the same run.
 * usage: bench_attention [seconds per case]. FLOPs count both products (4 queries keys head_dim; causal: half); peaks are
 * measured by register-only loops on each thread count, best of the run. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>

#include "base/cpu.h"
#include "base/half.h"
#include "base/pool.h"
#include "kernels/kernels.h"
#include "peak.h"

typedef struct shape { const char *name; int64_t len, batch; int heads, head_dim; bool causal; } shape;

static const shape shapes[] = {
    { "B/32  L=50", 50, 16, 12, 64, false }, { "B/16  L=197", 197, 4, 12, 64, false },    { "L/14  L=257", 257, 4, 16, 64, false },
    { "L/14  L=577", 577, 1, 16, 64, false }, { "text  L=77 causal", 77, 16, 8, 64, true }, { "H/14  L=257 d=80", 257, 2, 16, 80, false },
    { "G/14  L=257 d=104", 257, 2, 16, 104, false }, { "text  L=12 causal", 12, 64, 8, 64, true },
};

static double time_case(const shape *s, nm_dtype dtype, nm_pool *pool, double seconds)
{
    int64_t rows = s->len * s->batch, width = (int64_t)s->heads * s->head_dim, *offsets = malloc((size_t)(s->batch + 1) * sizeof *offsets);
    for (int64_t i = 0; i <= s->batch; i++)
        offsets[i] = i * s->len;
    size_t size = nm_dtype_size(dtype), n = (size_t)(rows * width * 3);
    char *qkv = aligned_alloc(64, (n * size + 63) / 64 * 64), *out = aligned_alloc(64, (n * size + 63) / 64 * 64);
    for (size_t i = 0; i < n; i++) {
        float x = (float)((i * 2654435761u) % 2001) / 1000.0f - 1;
        if (dtype == NM_F32)
            ((float *)qkv)[i] = x;
        else
            ((nm_bf16 *)qkv)[i] = nm_f32_to_bf16(x);
    }
    const nm_kernels *kn = nm_kernels_get();
    nm_attn a = { .dtype = dtype, .heads = s->heads, .head_dim = s->head_dim, .scale = 0.125f, .n_seq = s->batch, .q_offsets = offsets,
                  .k_offsets = offsets, .q = qkv, .k = qkv + (size_t)width * size, .v = qkv + 2 * (size_t)width * size, .q_stride = 3 * width,
                  .k_stride = 3 * width, .v_stride = 3 * width, .out = out, .out_stride = width, .causal = s->causal };
    void *scratch = aligned_alloc(64, nm_attention_scratch(kn, &a, nm_pool_size(pool)));
    int threads = nm_pool_size(pool);
    double best = 1e9, end = peak_time(threads) + seconds;
    do {
        double t = peak_time(threads);
        nm_attention_run(kn, &a, pool, scratch);
        t = peak_time(threads) - t;
        best = t < best ? t : best;
    } while (peak_time(threads) < end);
    free(scratch);
    free(out);
    free(qkv);
    free(offsets);
    return best;
}

int main(int argc, char **argv)
{
    double seconds = argc > 1 ? atof(argv[1]) : 0.2;
    char model[64];
    printf("%s, %s\n", nm_cpu_model_name(model), nm_cpu_level_name(nm_cpu_features()));
    for (int threads = 1; threads <= nm_cpu_count() && threads <= 2; threads++) {
        nm_pool *pool = nm_pool_new(threads);
        double peak_f32 = measure_peak(pool, false), peak_bf16 = measure_peak(pool, true);
        printf("\n%d thread%s: peak f32 %.0f, bf16 %.0f GFLOP/s\n", threads, threads > 1 ? "s" : "", peak_f32, peak_bf16);
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
            const shape *s = &shapes[i];
            double flops = 4.0 * (double)(s->len * s->len * s->batch) * s->heads * s->head_dim * (s->causal ? 0.5 : 1);
            printf("  %-20s", s->name);
            for (int bf16 = 0; bf16 < 2; bf16++) {
                double g = flops / time_case(s, bf16 ? NM_BF16 : NM_F32, pool, seconds) * 1e-9;
                printf("  %s %6.1f GFLOP/s %3.0f %%", bf16 ? "bf16" : "f32", g, 100 * g / (bf16 ? peak_bf16 : peak_f32));
            }
            printf("\n");
        }
        nm_pool_free(pool);
    }
    return 0;
}
