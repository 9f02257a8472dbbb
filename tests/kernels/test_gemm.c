/* test_gemm.c - every variant of the product that this machine runs, against sums in double over a grid of shapes, types and
 * epilogues; operands end at a page that cannot be touched. What cannot run here is listed. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/cpu.h"
#include "base/half.h"
#include "base/mem.h"
#include "kernels/gemm_ref.h"
#include "kernels/kernels.h"

static const struct { const char *name; uint32_t features; } levels[] = {
    { "ref", 0 },
    { "avx2", NM_CPU_AVX2 },
    { "avx512", NM_CPU_AVX2 | NM_CPU_AVX512 },
    { "avx512_vnni", NM_CPU_AVX2 | NM_CPU_AVX512 | NM_CPU_AVX512_VNNI },
    { "avx512_bf16", NM_CPU_AVX2 | NM_CPU_AVX512 | NM_CPU_AVX512_VNNI | NM_CPU_AVX512_BF16 },
    { "amx", ~0u },
};
#define LEVELS (int)(sizeof levels / sizeof *levels)

static const nm_dtype computes[] = { NM_F32, NM_BF16, NM_I8 };

static const nm_gemm_variant *variant(const nm_kernels *kn, nm_dtype c)
{
    return c == NM_F32 ? kn->gemm.f32 : c == NM_BF16 ? kn->gemm.bf16 : kn->gemm.i8;
}

/* Calls fn for each level that the machine has and that brings a variant of its own for this compute dtype. */
static void each_variant(void (*fn)(const nm_kernels *kn, nm_dtype compute, const char *name))
{
    for (size_t c = 0; c < 3; c++) {
        const nm_gemm_variant *last = NULL;
        for (int l = 0; l < LEVELS; l++) {
            nm_kernels kn;
            uint32_t f = levels[l].features == ~0u ? nm_cpu_detect() : levels[l].features;
            bool runs = levels[l].features == ~0u ? f & NM_CPU_AMX_BF16 : (f & ~nm_cpu_detect()) == 0;
            if (runs) {
                nm_kernels_init(&kn, f);
                if (variant(&kn, computes[c]) != last)
                    fn(&kn, computes[c], levels[l].name);
                last = variant(&kn, computes[c]);
            }
        }
    }
}

/* ---- operands ---- */

static uint64_t seed = 1;
static float rnd(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (float)((int64_t)(seed >> 33) - (1 << 30)) * 0x1p-30f;
}

/* `bytes` that end where a page without access begins (down to `align`). */
typedef struct guarded { char *map, *data; size_t len; } guarded;

static guarded guard(size_t bytes, size_t align)
{
    size_t page = 4096, len = (bytes + 2 * page - 1) / page * page + page;
    guarded g = { mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), NULL, len };
    assert_true(g.map != MAP_FAILED);
    assert_int_equal(mprotect(g.map + len - page, page, PROT_NONE), 0);
    g.data = g.map + ((len - page - bytes) & ~(align - 1));
    return g;
}

static void unguard(guarded *g) { munmap(g->map, g->len); }

static void put(void *p, nm_dtype t, int64_t i, float v)
{
    if (t == NM_F32)
        ((float *)p)[i] = v;
    else
        ((uint16_t *)p)[i] = t == NM_BF16 ? nm_f32_to_bf16(v) : nm_f32_to_f16(v);
}

static float get(const void *p, nm_dtype t, int64_t i)
{
    return t == NM_F32 ? ((const float *)p)[i] : t == NM_BF16 ? nm_bf16_to_f32(((const uint16_t *)p)[i]) : nm_f16_to_f32(((const uint16_t *)p)[i]);
}

typedef struct problem {
    int64_t m, n, k, lda, ldw, ldc, ldr;
    nm_dtype a_dtype, w_dtype, c_dtype;
    bool transposed, bias, gamma, residual, inplace;
    nm_act act;
    float alpha, scale; /* scale: of the operands' values */
} problem;

typedef struct operands { guarded a, w, c, bias, gamma, residual; } operands;

static guarded matrix(int64_t rows, int64_t cols, int64_t ld, nm_dtype t, float scale)
{
    size_t count = rows && cols ? (size_t)((rows - 1) * ld + cols) : 0;
    guarded g = guard(count * nm_dtype_size(t), nm_dtype_size(t));
    for (size_t i = 0; i < count; i++)
        put(g.data, t, (int64_t)i, rnd() * scale);
    return g;
}

static operands make(const problem *p)
{
    return (operands){
        matrix(p->m, p->k, p->lda, p->a_dtype, p->scale),
        p->transposed ? matrix(p->k, p->n, p->ldw, p->w_dtype, p->scale) : matrix(p->n, p->k, p->ldw, p->w_dtype, p->scale),
        matrix(p->m, p->n, p->ldc, p->c_dtype, 1), matrix(1, p->n, p->n, NM_F32, 1), matrix(1, p->n, p->n, NM_F32, 1), matrix(p->m, p->n, p->ldr, NM_F32, 1),
    };
}

static void drop(operands *o)
{
    guarded *all[] = { &o->a, &o->w, &o->c, &o->bias, &o->gamma, &o->residual };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        unguard(all[i]);
}

static nm_gemm gemm_of(const problem *p, const operands *o, const nm_packed *b)
{
    return (nm_gemm){ .m = p->m, .a = o->a.data, .a_dtype = p->a_dtype, .lda = p->lda, .b = b, .c = o->c.data, .c_dtype = p->c_dtype, .ldc = p->ldc,
                      .alpha = p->alpha, .bias = p->bias ? (float *)o->bias.data : NULL, .act = p->act, .gamma = p->gamma ? (float *)o->gamma.data : NULL,
                      .residual = p->inplace ? (float *)o->c.data : p->residual ? (float *)o->residual.data : NULL, .ldr = p->inplace ? p->ldc : p->ldr };
}

static void run(const nm_kernels *kn, const nm_gemm *g, nm_pool *pool)
{
    size_t bytes = nm_gemm_scratch(kn, g, nm_pool_size(pool));
    guarded s = guard(bytes, 64);
    nm_gemm_run(kn, g, pool, s.data);
    unguard(&s);
}

/* ---- the definition, in double ---- */

static double row_value(const problem *p, const operands *o, int64_t r, int64_t i) { return get(o->a.data, p->a_dtype, r * p->lda + i); }
static double w_value(const problem *p, const operands *o, int64_t j, int64_t i)
{
    return get(o->w.data, p->w_dtype, p->transposed ? i * p->ldw + j : j * p->ldw + i);
}

typedef double value_fn(const problem *, const operands *, int64_t, int64_t);

/* A row as the compute dtype sees it. */
static void rounded_row(const problem *p, const operands *o, nm_dtype compute, value_fn *value, int64_t r, double *out)
{
    float max = 0;
    for (int64_t i = 0; i < p->k; i++) {
        out[i] = value(p, o, r, i);
        max = fmaxf(max, fabsf((float)out[i]));
    }
    for (int64_t i = 0; i < p->k; i++)
        if (compute == NM_BF16)
            out[i] = nm_bf16_to_f32(nm_f32_to_bf16((float)out[i]));
        else if (compute == NM_I8)
            out[i] = max > 0 ? nearbyint((double)((float)out[i] * (127 / max))) * max / 127 : 0;
}

static double activate(double x, nm_act act)
{
    switch (act) {
    case NM_ACT_QUICK_GELU: return x / (1 + exp(-1.702 * x));
    case NM_ACT_GELU: return 0.5 * x * (1 + erf(x * M_SQRT1_2));
    case NM_ACT_GELU_TANH: return 0.5 * x * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case NM_ACT_RELU: return x < 0 ? 0 : x;
    case NM_ACT_SILU: return x / (1 + exp(-x));
    case NM_ACT_TANH: return tanh(x);
    default: return x;
    }
}

/* Expected value and the error that f32 additions may make: each of k steps rounds once, relative to the sum of magnitudes. */
static double expected(const problem *p, const operands *o, const double *a, const double *w, float before, int64_t r, int64_t j, double *tol)
{
    double t = 0, size = 0;
    for (int64_t i = 0; i < p->k; i++) {
        t += a[i] * w[i];
        size += fabs(a[i] * w[i]);
    }
    t *= p->alpha;
    size = size * fabs(p->alpha) * ((double)p->k + 4) + fabs(t);
    if (p->bias) {
        t += ((float *)o->bias.data)[j];
        size += fabs(t);
    }
    t = activate(t, p->act);
    size = 1.3 * size + 4 * fabs(t);
    if (p->gamma) {
        t *= ((float *)o->gamma.data)[j];
        size *= fabs(((float *)o->gamma.data)[j]);
    }
    if (p->inplace || p->residual)
        t += p->inplace ? before : ((float *)o->residual.data)[r * p->ldr + j];
    size += 2 * fabs(t);
    *tol = size * 0x1p-24 + (p->c_dtype == NM_BF16 ? fabs(t) * 0x1p-8 : 0) + 1e-37;
    return t;
}

static void check(const nm_kernels *kn, nm_dtype compute, const char *name, const problem *p, nm_pool *pool)
{
    operands o = make(p);
    nm_packed b = { 0 };
    assert_true(nm_gemm_pack(kn, &b, compute, o.w.data, p->w_dtype, p->ldw, p->transposed, p->n, p->k, pool));
    size_t c_count = (size_t)((p->m - 1) * p->ldc + p->n), c_size = nm_dtype_size(p->c_dtype);
    char *before = malloc(c_count * c_size);
    memcpy(before, o.c.data, c_count * c_size);
    nm_gemm g = gemm_of(p, &o, &b);
    run(kn, &g, pool);
    double *a = malloc(((size_t)p->k + 1) * sizeof *a), *w = malloc(((size_t)(p->n * p->k) + 1) * sizeof *w);
    for (int64_t j = 0; j < p->n; j++)
        rounded_row(p, &o, compute, w_value, j, w + j * p->k);
    for (int64_t r = 0; r < p->m; r++) {
        rounded_row(p, &o, compute, row_value, r, a);
        for (int64_t j = 0; j < p->n; j++) {
            int64_t at = r * p->ldc + j;
            double tol, want = expected(p, &o, a, w + j * p->k, get(before, p->c_dtype, at), r, j, &tol), got = get(o.c.data, p->c_dtype, at);
            if (!(fabs(got - want) <= tol))
                fail_msg("%s %s m=%d n=%d k=%d act=%d at (%d,%d): expected %.9g got %.9g, tolerance %.2g", name, nm_dtype_name(compute), (int)p->m,
                         (int)p->n, (int)p->k, p->act, (int)r, (int)j, want, got, tol);
        }
        for (int64_t i = r * p->ldc + p->n; r + 1 < p->m && i < (r + 1) * p->ldc; i++)
            assert_memory_equal(o.c.data + (size_t)i * c_size, before + (size_t)i * c_size, c_size); /* between the rows */
    }
    free(before);
    free(a);
    free(w);
    nm_gemm_pack_free(&b);
    drop(&o);
}

static problem plain(int64_t m, int64_t n, int64_t k)
{
    return (problem){ .m = m, .n = n, .k = k, .lda = k, .ldw = k, .ldc = n, .ldr = n, .a_dtype = NM_F32, .w_dtype = NM_F32, .c_dtype = NM_F32, .alpha = 1, .scale = 1 };
}

/* ---- tests ---- */

static void shapes_of(const nm_kernels *kn, nm_dtype compute, const char *name)
{
    static const int ms[] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 25, 31, 32, 33, 50, 67 };
    static const int ns[] = { 1, 15, 16, 17, 31, 32, 33, 65 }, ks[] = { 1, 2, 3, 4, 5, 15, 16, 17, 31, 32, 33, 63, 64, 65, 77, 147 };
    for (size_t i = 0; i < sizeof ms / sizeof *ms; i++)
        for (size_t j = 0; j < sizeof ns / sizeof *ns; j++)
            for (size_t l = 0; l < sizeof ks / sizeof *ks; l++) {
                problem p = plain(ms[i], ns[j], ks[l]);
                int mix = (int)(i * 5 + j * 3 + l);
                p.a_dtype = mix & 1 ? NM_BF16 : NM_F32;
                p.w_dtype = mix % 3 == 0 ? NM_F32 : mix % 3 == 1 ? NM_BF16 : NM_F16;
                p.transposed = mix >> 1 & 1;
                p.lda += mix % 5;
                p.ldw = (p.transposed ? p.n : p.k) + mix % 7;
                p.ldc += mix % 4;
                p.c_dtype = mix >> 2 & 1 ? NM_BF16 : NM_F32;
                check(kn, compute, name, &p, NULL);
            }
    printf("  ran: %s %s\n", nm_dtype_name(compute), name);
}

static void test_shapes(void **state)
{
    (void)state;
    for (int l = 0; l < LEVELS; l++)
        if (levels[l].features == ~0u ? !(nm_cpu_detect() & NM_CPU_AMX_BF16) : (levels[l].features & ~nm_cpu_detect()) != 0)
            printf("  NOT RUN, this machine lacks it: %s\n", levels[l].name);
    each_variant(shapes_of);
}

static void epilogues_of(const nm_kernels *kn, nm_dtype compute, const char *name)
{
    for (int bits = 0; bits < 64; bits++)
        for (int act = 0; act < NM_ACTS; act++) {
            problem p = plain(1 + bits % 15, 1 + (bits * 7 + act * 5) % 40, 24);
            p.bias = bits & 1;
            p.gamma = bits & 2;
            p.residual = bits & 4;
            p.c_dtype = bits & 8 ? NM_BF16 : NM_F32;
            p.a_dtype = bits & 16 ? NM_BF16 : NM_F32;
            p.alpha = bits & 32 ? 0.37f : 1;
            p.inplace = p.c_dtype == NM_F32 && p.residual && bits & 1;
            p.ldr = p.n + bits % 3;
            p.ldc = p.n + bits % 5;
            p.act = (nm_act)act;
            check(kn, compute, name, &p, NULL);
        }
}

static void test_epilogues(void **state)
{
    (void)state;
    each_variant(epilogues_of);
}

/* The activations on their own (a product by 1) over all magnitudes: within 1.5e-7 |x| of the exact value, tanh within 3 ulp. */
static void activations_of(const nm_kernels *kn, nm_dtype compute, const char *name)
{
    enum { COUNT = 1 << 17 };
    static float x[COUNT], y[COUNT];
    float one = 1;
    nm_packed b = { 0 };
    if (compute != NM_F32)
        return;
    assert_true(nm_gemm_pack(kn, &b, NM_F32, &one, NM_F32, 1, false, 1, 1, NULL));
    for (int i = 0; i < COUNT; i++) { /* half over all exponents, half within +-8 */
        uint32_t u = (uint32_t)i << 16 | 0x1234;
        memcpy(&x[i], &u, 4);
        if (i & 1)
            x[i] = rnd() * 8;
        if (!isfinite(x[i]))
            x[i] = 0;
    }
    for (int act = 0; act < NM_ACTS; act++) {
        nm_gemm g = { .m = COUNT, .a = x, .a_dtype = NM_F32, .lda = 1, .b = &b, .c = y, .c_dtype = NM_F32, .ldc = 1, .alpha = 1, .act = (nm_act)act };
        double worst = 0;
        run(kn, &g, NULL);
        for (int i = 0; i < COUNT; i++) {
            double want = activate(x[i], g.act), error = fabs(y[i] - want), size = act == NM_ACT_TANH ? fabs(want) : fabs((double)x[i]);
            if (error > 1e-37 && error / size > worst)
                worst = error / size;
            if (!(error <= (act == NM_ACT_TANH ? 3 * 0x1p-23 * size : 1.5e-7 * size) + 1e-37))
                fail_msg("%s activation %d of %.9g: expected %.9g got %.9g", name, act, x[i], want, y[i]);
        }
        printf("  %s activation %d: largest error %.2e |%s|\n", name, act, worst, act == NM_ACT_TANH ? "y" : "x");
    }
    nm_gemm_pack_free(&b);
}

static void test_activations(void **state)
{
    (void)state;
    each_variant(activations_of);
}

/* Larger products, so that there are several blocks of rows, on two threads. */
static void blocks_of(const nm_kernels *kn, nm_dtype compute, const char *name)
{
    nm_pool *pool = nm_pool_new(2);
    problem p = plain(401, 129, 300);
    check(kn, compute, name, &p, pool);
    p = plain(60, 70, 4111);
    check(kn, compute, name, &p, pool);
    p = plain(13, 800, 1024);
    p.bias = true;
    p.act = NM_ACT_QUICK_GELU;
    check(kn, compute, name, &p, pool);
    for (int bf16 = 0; bf16 < 2; bf16++) { /* rows 4096 bytes apart are copied, by both workers */
        p = plain(130, 260, 1024 << bf16);
        p.a_dtype = bf16 ? NM_BF16 : NM_F32;
        check(kn, compute, name, &p, pool);
    }
    nm_pool_free(pool);
}

static void test_blocks(void **state)
{
    (void)state;
    each_variant(blocks_of);
}

/* A row has the same bits alone, in a batch, at any position and on any number of threads. */
static void invariance_of(const nm_kernels *kn, nm_dtype compute, const char *name)
{
    enum { M = 230, N = 75, K = 203 };
    problem p = plain(M, N, K);
    p.act = NM_ACT_GELU;
    p.bias = true;
    operands o = make(&p);
    nm_packed b = { 0 };
    assert_true(nm_gemm_pack(kn, &b, compute, o.w.data, NM_F32, K, false, N, K, NULL));
    nm_gemm g = gemm_of(&p, &o, &b);
    run(kn, &g, NULL);
    float *c = malloc(sizeof(float) * M * N), *part = malloc(sizeof(float) * M * N);
    memcpy(c, o.c.data, sizeof(float) * M * N);
    for (int threads = 1; threads <= 3; threads++) {
        nm_pool *pool = nm_pool_new(threads);
        for (int rows = 1; rows <= M; rows += rows < 40 ? 1 : 37) {
            int first = (rows * 31) % (M - rows + 1);
            nm_gemm s = g;
            s.m = rows;
            s.a = (const float *)g.a + first * K;
            s.c = part;
            run(kn, &s, pool);
            if (memcmp(part, c + first * N, sizeof(float) * (size_t)rows * N) != 0)
                fail_msg("%s %s: %d rows from %d on %d threads differ from the same rows in a batch of %d", name, nm_dtype_name(compute), rows, first, threads, M);
        }
        nm_pool_free(pool);
    }
    free(c);
    free(part);
    nm_gemm_pack_free(&b);
    drop(&o);
}

static void test_invariance(void **state)
{
    (void)state;
    each_variant(invariance_of);
}

/* Zeros, large values that do not overflow f32, and a NaN and an infinity that stay in their row. */
static void values_of(const nm_kernels *kn, nm_dtype compute, const char *name)
{
    enum { M = 14, N = 40, K = 37 };
    problem p = plain(M, N, K);
    static const float scales[] = { 0, 1e-30f, 1e-12f, 1e15f };
    for (size_t i = 0; i < 4; i++) {
        p.scale = scales[i];
        check(kn, compute, name, &p, NULL);
    }
    p.scale = 1;
    for (int act = 0; act < NM_ACTS; act++) {
        p.act = (nm_act)act;
        operands o = make(&p);
        ((float *)o.a.data)[3 * K + 36] = NAN;
        ((float *)o.a.data)[9 * K + 1] = NAN;
        nm_packed b = { 0 };
        assert_true(nm_gemm_pack(kn, &b, compute, o.w.data, NM_F32, K, false, N, K, NULL));
        nm_gemm g = gemm_of(&p, &o, &b);
        run(kn, &g, NULL);
        for (int r = 0; r < M; r++)
            for (int j = 0; j < N; j++)
                if ((r == 3 || r == 9) != !!isnan(((float *)o.c.data)[r * N + j]))
                    fail_msg("%s %s act %d: NaN in rows 3 and 9, result (%d,%d) is %g", name, nm_dtype_name(compute), act, r, j, ((float *)o.c.data)[r * N + j]);
        nm_gemm_pack_free(&b);
        drop(&o);
    }
}

static void test_values(void **state)
{
    (void)state;
    each_variant(values_of);
}

/* Vector packing gives the bytes of the plain one; mapped back, it is accepted; other layouts and sizes are refused. */
static void packing_of(const nm_kernels *kn, nm_dtype compute, const char *name)
{
    static const int ns[] = { 1, 16, 31, 32, 33, 70 }, ks[] = { 1, 3, 16, 33, 64, 130 };
    const nm_gemm_variant *v = variant(kn, compute);
    for (int i = 0; i < 6 * 6 * 6; i++) {
        int64_t n = ns[i % 6], k = ks[i / 6 % 6];
        problem p = plain(1, n, k);
        p.w_dtype = i / 36 % 3 == 0 ? NM_F32 : i / 36 % 3 == 1 ? NM_BF16 : NM_F16;
        p.transposed = i / 36 / 3;
        p.ldw = p.transposed ? n + 1 : k + 1;
        operands o = make(&p);
        nm_packed b = { 0 }, mapped;
        assert_true(nm_gemm_pack(kn, &b, compute, o.w.data, p.w_dtype, p.ldw, p.transposed, n, k, NULL));
        size_t panel = (size_t)nm_gemm_units(compute, k) * (size_t)v->nr * 4, size = nm_dtype_size(p.w_dtype);
        char *want = malloc(panel);
        float scale[NM_GEMM_MAX_NR];
        int32_t sum[NM_GEMM_MAX_NR];
        for (int64_t col = 0, at = 0; col < n; col += v->nr, at++) {
            nm_gemm_panel q = { .w = o.w.data + (size_t)(p.transposed ? col : col * p.ldw) * size, .dtype = p.w_dtype, .row_step = p.transposed ? 1 : p.ldw,
                                .k_step = p.transposed ? p.ldw : 1, .k = k, .cols = (int)(n - col < v->nr ? n - col : v->nr), .data = want, .scale = scale, .sum = sum };
            nm_gemm_pack_ref(&q, compute, v->nr);
            if (memcmp(want, (char *)b.data + (size_t)at * panel, panel) != 0)
                fail_msg("%s %s: panel %d of n=%d k=%d %s differs", name, nm_dtype_name(compute), (int)at, (int)n, (int)k, nm_dtype_name(p.w_dtype));
            if (compute == NM_I8) {
                assert_memory_equal(scale, b.scale + col, sizeof(float) * (size_t)v->nr);
                assert_memory_equal(sum, b.sum + col, sizeof(int32_t) * (size_t)v->nr);
            }
        }
        assert_int_equal(nm_packed_bytes(kn, compute, n, k), b.bytes);
        assert_true(nm_packed_from_mapped(kn, &mapped, compute, nm_packed_layout(kn, compute), n, k, b.data, b.bytes));
        assert_true(mapped.scale == b.scale && mapped.sum == b.sum && !mapped.owned);
        assert_false(nm_packed_from_mapped(kn, &mapped, compute, b.layout + 0x10000, n, k, b.data, b.bytes));
        assert_false(nm_packed_from_mapped(kn, &mapped, compute, b.layout, n, k, b.data, b.bytes - 1));
        free(want);
        nm_gemm_pack_free(&b);
        drop(&o);
    }
}

static void test_packing(void **state)
{
    (void)state;
    each_variant(packing_of);
    nm_kernels kn;
    nm_packed p;
    nm_kernels_init(&kn, 0);
    assert_int_equal(nm_packed_bytes(&kn, NM_F32, INT64_MAX / 2, INT64_MAX / 2), 0);
    assert_false(nm_gemm_pack(&kn, &p, NM_F16, "", NM_F32, 1, false, 0, 0, NULL));
    assert_false(nm_gemm_pack(&kn, &p, NM_I8, "", NM_F32, 1 << 20, false, 1, 1 << 20, NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes), cmocka_unit_test(test_epilogues), cmocka_unit_test(test_activations), cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_invariance), cmocka_unit_test(test_values), cmocka_unit_test(test_packing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
