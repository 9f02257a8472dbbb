/* bench/gemm.c - products against the multiply-add peak and against oneDNN, in the same run.
 * usage: bench_gemm [seconds per case [name part [f32|bf16|int8]]]. Each round times the register-only loop, ours and oneDNN
 * one after the other; the figures are the best rounds. One thread is timed by its processor time, since other programs may
 * run on the machine. Weights are packed beforehand on both sides, activations are bf16 for
 * bf16, f32 else (int8 includes our quantisation of the rows; oneDNN gets them quantised). FLOP = 2 m n k. */
#define _GNU_SOURCE
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpu.h"
#include "base/half.h"
#include "base/mem.h"
#include "base/pool.h"
#include "kernels/kernels.h"
#include "peak.h"
#ifdef NOEMA_DNNL
#include <dnnl.h>
#include <omp.h>
#endif

typedef struct shape { const char *name; int64_t m, k, n; nm_act act; } shape;

static const shape shapes[] = {
    { "B/32 qkv", 1600, 768, 2304, NM_ACT_NONE },  { "B/32 out", 1600, 768, 768, NM_ACT_NONE },   { "B/32 fc1", 1600, 768, 3072, NM_ACT_NONE },
    { "B/32 fc1 quick_gelu", 1600, 768, 3072, NM_ACT_QUICK_GELU }, { "B/32 fc1 gelu", 1600, 768, 3072, NM_ACT_GELU },
    { "B/32 fc2", 1600, 3072, 768, NM_ACT_NONE },  { "L/14 qkv", 8224, 1024, 3072, NM_ACT_NONE }, { "L/14 out", 8224, 1024, 1024, NM_ACT_NONE },
    { "L/14 fc1", 8224, 1024, 4096, NM_ACT_NONE }, { "L/14 fc2", 8224, 4096, 1024, NM_ACT_NONE }, { "BERT 4x128 out", 512, 768, 768, NM_ACT_NONE },
    { "BERT 4x128 fc2", 512, 3072, 768, NM_ACT_NONE }, { "one image qkv", 50, 768, 2304, NM_ACT_NONE }, { "one image fc1", 50, 768, 3072, NM_ACT_NONE },
    { "one image fc2", 50, 3072, 768, NM_ACT_NONE }, { "one text qkv", 13, 512, 1536, NM_ACT_NONE }, { "one text fc1", 13, 512, 2048, NM_ACT_NONE },
    { "one token", 1, 768, 3072, NM_ACT_NONE }, { "one token vocabulary", 1, 768, 30524, NM_ACT_NONE }, { "three tokens vocabulary", 3, 768, 30524, NM_ACT_NONE }, { "odd", 1597, 771, 1003, NM_ACT_NONE },
    { "conv1 7x7", 12544, 147, 64, NM_ACT_NONE }, { "patch 32", 1568, 3072, 768, NM_ACT_NONE },
};

static float value(size_t i) { return (float)((i * 2654435761u) % 2001) / 1000.0f - 1; }

static void *matrix(size_t n, nm_dtype t)
{
    void *p = nm_alloc(n * nm_dtype_size(t));
    for (size_t i = 0; p && i < n; i++) {
        if (t == NM_F32)
            ((float *)p)[i] = value(i);
        else if (t == NM_BF16)
            ((nm_bf16 *)p)[i] = nm_f32_to_bf16(value(i));
        else
            ((int8_t *)p)[i] = (int8_t)(value(i) * 127);
    }
    return p;
}

/* ---- peaks ---- */

static clockid_t clock_id = CLOCK_THREAD_CPUTIME_ID;

static double now(void)
{
    struct timespec t;
    clock_gettime(clock_id, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

typedef struct peak_case { nm_dtype compute; double flops[64]; } peak_case;

static void peak_part(void *arg, int64_t begin, int64_t end, int worker)
{
    peak_case *c = arg;
    (void)worker;
    for (int64_t i = begin; i < end; i++)
        c->flops[i] = nm_peak_run(c->compute);
}

static double peak_round(nm_pool *pool, nm_dtype compute)
{
    peak_case c = { compute, { 0 } };
    double t = now(), sum = 0;
    nm_parallel_for(pool, nm_pool_size(pool), 1, peak_part, &c);
    t = now() - t;
    for (int i = 0; i < nm_pool_size(pool); i++)
        sum += c.flops[i];
    return sum / t;
}

/* ---- oneDNN: one matmul primitive with weights reordered to the layout it prefers ---- */

#ifdef NOEMA_DNNL
typedef struct peer { dnnl_engine_t engine; dnnl_stream_t stream; dnnl_primitive_t prim; dnnl_exec_arg_t arg[3]; } peer;

static dnnl_memory_desc_t describe(int64_t rows, int64_t cols, dnnl_data_type_t t, dnnl_format_tag_t tag)
{
    dnnl_memory_desc_t d;
    dnnl_dims_t dims = { rows, cols };
    dnnl_memory_desc_init_by_tag(&d, 2, dims, t, tag);
    return d;
}

static bool peer_init(peer *p, const shape *s, nm_dtype compute, void *a, void *w, void *c)
{
    dnnl_data_type_t ta = compute == NM_F32 ? dnnl_f32 : compute == NM_BF16 ? dnnl_bf16 : dnnl_u8, tw = compute == NM_I8 ? dnnl_s8 : ta;
    dnnl_data_type_t tc = compute == NM_BF16 ? dnnl_bf16 : dnnl_f32;
    dnnl_memory_desc_t da = describe(s->m, s->k, ta, dnnl_ab), any = describe(s->k, s->n, tw, dnnl_format_tag_any), dc = describe(s->m, s->n, tc, dnnl_ab);
    dnnl_memory_desc_t dw = describe(s->k, s->n, tw, dnnl_ba);
    dnnl_matmul_desc_t op;
    dnnl_primitive_desc_t pd, rpd;
    dnnl_primitive_t reorder;
    if (dnnl_engine_create(&p->engine, dnnl_cpu, 0) || dnnl_stream_create(&p->stream, p->engine, dnnl_stream_default_flags) ||
        dnnl_matmul_desc_init(&op, &da, &any, NULL, &dc) || dnnl_primitive_desc_create(&pd, &op, NULL, p->engine, NULL) || dnnl_primitive_create(&p->prim, pd))
        return false;
    dnnl_memory_t ma, mw, mp, mc;
    const dnnl_memory_desc_t *dp = dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
    if (dnnl_memory_create(&ma, &da, p->engine, a) || dnnl_memory_create(&mw, &dw, p->engine, w) || dnnl_memory_create(&mc, &dc, p->engine, c) ||
        dnnl_memory_create(&mp, dp, p->engine, DNNL_MEMORY_ALLOCATE) || dnnl_reorder_primitive_desc_create(&rpd, &dw, p->engine, dp, p->engine, NULL) ||
        dnnl_primitive_create(&reorder, rpd))
        return false;
    dnnl_exec_arg_t r[2] = { { DNNL_ARG_FROM, mw }, { DNNL_ARG_TO, mp } };
    dnnl_primitive_execute(reorder, p->stream, 2, r);
    dnnl_stream_wait(p->stream);
    p->arg[0] = (dnnl_exec_arg_t){ DNNL_ARG_SRC, ma };
    p->arg[1] = (dnnl_exec_arg_t){ DNNL_ARG_WEIGHTS, mp };
    p->arg[2] = (dnnl_exec_arg_t){ DNNL_ARG_DST, mc };
    return true;
}

static void peer_run(peer *p)
{
    dnnl_primitive_execute(p->prim, p->stream, 3, p->arg);
    dnnl_stream_wait(p->stream);
}
#endif

/* ---- cases ---- */

static double since(double *t)
{
    double end = now(), d = end - *t;
    *t = end;
    return d;
}

static void bench(const shape *s, nm_dtype compute, nm_pool *pool, double seconds)
{
    const nm_kernels *kn = nm_kernels_get();
    nm_dtype io = compute == NM_BF16 ? NM_BF16 : NM_F32;
    float *w = matrix((size_t)(s->n * s->k), NM_F32), *bias = matrix((size_t)s->n, NM_F32);
    void *a = matrix((size_t)(s->m * s->k), io), *c = matrix((size_t)(s->m * s->n), io);
    nm_packed b;
    double t = now(), pack = 1e9;
    for (int i = 0; i < 3; i++) {
        t = now();
        nm_gemm_pack(kn, &b, compute, w, NM_F32, s->k, false, s->n, s->k, pool);
        double d = since(&t);
        pack = d < pack ? d : pack;
        if (i < 2)
            nm_gemm_pack_free(&b);
    }
    nm_gemm g = { .m = s->m, .a = a, .a_dtype = io, .lda = s->k, .b = &b, .c = c, .c_dtype = io, .ldc = s->n, .alpha = 1, .bias = bias, .act = s->act };
    void *scratch = nm_alloc(nm_gemm_scratch(kn, &g, nm_pool_size(pool)) + 64);
    double ours = 1e9, peak = 0, theirs = 1e9, end = peak_now() + seconds;
#ifdef NOEMA_DNNL
    peer p;
    void *pa = matrix((size_t)(s->m * s->k), compute), *pw = matrix((size_t)(s->n * s->k), compute), *pc = matrix((size_t)(s->m * s->n), io);
    omp_set_num_threads(nm_pool_size(pool));
    bool have = peer_init(&p, s, compute, pa, pw, pc);
#endif
    int inner = 1 + (int)(2e6 / ((double)s->m * (double)s->n * (double)s->k / 100 + 1));
    do {
        peak = fmax(peak, peak_round(pool, compute));
        for (int i = 0; i < inner; i++) {
            t = now();
            nm_gemm_run(kn, &g, pool, scratch);
            ours = fmin(ours, since(&t));
        }
#ifdef NOEMA_DNNL
        for (int i = 0; have && i < inner; i++) {
            t = now();
            peer_run(&p);
            theirs = fmin(theirs, since(&t));
        }
#endif
    } while (peak_now() < end);
    double flop = 2.0 * (double)s->m * (double)s->n * (double)s->k;
    printf("  %-21s %5d %5d %5d  %-4s %7.1f GFLOP/s %5.1f %% of %4.0f", s->name, (int)s->m, (int)s->k, (int)s->n, compute == NM_I8 ? "int8" : nm_dtype_name(compute),
           flop / ours * 1e-9, 100 * flop / ours / peak, peak * 1e-9);
    if (theirs < 1e8)
        printf("  oneDNN %7.1f, ours %.2fx", flop / theirs * 1e-9, theirs / ours);
    printf("  weights %5.1f GB/s, packed at %4.1f GB/s\n", (double)b.bytes / ours * 1e-9, 4.0 * (double)(s->n * s->k) / pack * 1e-9);
    fflush(stdout);
    nm_gemm_pack_free(&b);
    void *all[] = { w, bias, a, c, scratch };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        nm_free(all[i]);
#ifdef NOEMA_DNNL
    nm_free(pa);
    nm_free(pw);
    nm_free(pc);
#endif
}

int main(int argc, char **argv)
{
    double seconds = argc > 1 ? atof(argv[1]) : 0.2;
    const char *part = argc > 2 ? argv[2] : "", *only = argc > 3 ? argv[3] : "", *th = getenv("THREADS");
    char model[64];
    static const nm_dtype computes[] = { NM_F32, NM_BF16, NM_I8 };
    static const char *const names[] = { "f32", "bf16", "int8" };
    printf("%s, %s\n  %-21s %5s %5s %5s\n", nm_cpu_model_name(model), nm_cpu_level_name(nm_cpu_features()), "product", "m", "k", "n");
    for (int threads = th ? atoi(th) : 1; threads <= (th ? atoi(th) : nm_cpu_count() < 2 ? 1 : 2); threads++) {
        nm_pool *pool = nm_pool_new(threads);
        clock_id = threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC;
        printf("%d thread%s\n", threads, threads > 1 ? "s" : "");
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
            for (int c = 0; c < 3; c++)
                if (strstr(shapes[i].name, part) && strstr(names[c], only) && nm_gemm_has(nm_kernels_get(), computes[c]))
                    bench(&shapes[i], computes[c], pool, seconds);
        nm_pool_free(pool);
    }
    return 0;
}
