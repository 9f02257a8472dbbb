/* bench/rows.c - row kernels (norms, softmax, activations, conversions) in GB/s of bytes read and written once, one thread, on
 * rows that fit the second cache and on rows that do not. Processor time, best of many: other load on the machine is left out. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/cpu.h"
#include "kernels/kernels.h"

#define COLS 1024

typedef struct bench { const nm_kernels *k; int64_t rows; float *x, *y, *w, *b; } bench;

static void layernorm_f32(bench *t) { t->k->norm.layernorm(t->rows, COLS, t->x, COLS, t->w, t->b, 1e-5f, t->y, NM_F32, COLS); }
static void layernorm_bf16(bench *t) { t->k->norm.layernorm(t->rows, COLS, t->x, COLS, t->w, t->b, 1e-5f, t->y, NM_BF16, COLS); }
static void rmsnorm_bf16(bench *t) { t->k->norm.rmsnorm(t->rows, COLS, t->x, COLS, t->w, 1e-5f, t->y, NM_BF16, COLS); }
static void softmax(bench *t) { t->k->norm.softmax(t->rows, COLS, t->y, COLS); }
static void gelu(bench *t) { t->k->elementwise.act(t->rows * COLS, t->x, NM_ACT_GELU, t->y); }
static void quick_gelu(bench *t) { t->k->elementwise.act(t->rows * COLS, t->x, NM_ACT_QUICK_GELU, t->y); }
static void add(bench *t) { t->k->elementwise.add(t->rows * COLS, t->x, t->y, t->y); }
static void to_bf16(bench *t) { t->k->elementwise.cast(t->rows * COLS, t->x, NM_F32, t->y, NM_BF16); }
static void from_bf16(bench *t) { t->k->elementwise.cast(t->rows * COLS, t->x, NM_BF16, t->y, NM_F32); }
static void from_f16(bench *t) { t->k->elementwise.cast(t->rows * COLS, t->x, NM_F16, t->y, NM_F32); }

static const struct { const char *name; void (*run)(bench *); double bytes; /* per element */ } cases[] = {
    { "layernorm f32", layernorm_f32, 8 }, { "layernorm bf16", layernorm_bf16, 6 }, { "rmsnorm bf16", rmsnorm_bf16, 6 }, { "softmax", softmax, 8 },
    { "gelu", gelu, 8 },                   { "quick_gelu", quick_gelu, 8 },         { "add", add, 12 },                   { "f32 to bf16", to_bf16, 6 },
    { "bf16 to f32", from_bf16, 6 },       { "f16 to f32", from_f16, 6 },
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int main(void)
{
    char name[64];
    bench t = { .k = nm_kernels_get() };
    printf("%s, %s, rows of %d\n", nm_cpu_model_name(name), nm_cpu_level_name(nm_cpu_features()), COLS);
    for (t.rows = 64; t.rows <= 8192; t.rows *= 128) {
        size_t n = (size_t)t.rows * COLS * 4;
        float **all[4] = { &t.x, &t.y, &t.w, &t.b };
        for (int i = 0; i < 4; i++) {
            *all[i] = aligned_alloc(64, n);
            for (size_t j = 0; *all[i] && j < n / 4; j++)
                (*all[i])[j] = (float)(j * 2654435761u % 1999) / 1000.0f - 1;
        }
        for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
            double best = 1e9, end = now() + 0.1;
            do {
                double s = now();
                cases[c].run(&t);
                s = now() - s;
                best = s < best ? s : best;
            } while (now() < end);
            printf("  %5lld rows  %-15s %6.1f GB/s\n", (long long)t.rows, cases[c].name, cases[c].bytes * (double)(t.rows * COLS) / best * 1e-9);
        }
        for (int i = 0; i < 4; i++)
            free(*all[i]);
    }
    return 0;
}
