/* bench/decode.c - BLIP-2's OPT writing text beside the memory it has to read: each new id reads every weight once.
 *
 *     bench_decode MODEL [f32|bf16|int8] [packed|mapped] [rows]     MODEL: bench/blip2_random.py
 *
 * One thread is timed by its processor time, which leaves out other load; all threads by the clock, best of many. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/blip2.h"
#include "models/handle.h"
#include "peak.h"

static double matrix_bytes(const nm_weight *w, nm_dtype compute) { return (double)nm_shape_numel(w->shape) * (double)nm_dtype_size(compute); }

static double bytes_per_step(const nm_blip2 *m, nm_dtype compute)
{
    double sum = matrix_bytes(&m->opt.lm_head, compute);
    for (int i = 0; i < m->cfg.opt.layers; i++) {
        const nm_opt_layer_w *l = &m->opt.layer[i];
        sum += matrix_bytes(&l->qkv.weight, compute) + matrix_bytes(&l->out.weight, compute) + matrix_bytes(&l->fc1.weight, compute) +
               matrix_bytes(&l->fc2.weight, compute);
    }
    return sum;
}

/* Best seconds of a step of `rows` rows, after a prefix of 34 positions. */
static double decode(noema_session *s, const nm_blip2 *m, int64_t rows, int threads)
{
    enum { STEPS = 20, PREFIX = 34 };
    nm_run *r = nm_session_run(s);
    const nm_opt_cfg *c = &m->cfg.opt;
    nm_kv_cache cache;
    double best = 1e9;
    int64_t offsets[65], parent[64], first[65];
    int32_t ids[64 * PREFIX];
    for (int64_t i = 0; i <= rows; i++) {
        offsets[i] = i;
        first[i] = i * PREFIX;
        parent[i < rows ? i : 0] = i < rows ? i : 0;
    }
    for (int i = 0; i < 64 * PREFIX; i++)
        ids[i] = 4 + i % 300;
    nm_kv_init(r, &cache, c->layers, 2 * (int64_t)c->width, rows, rows, PREFIX + STEPS);
    nm_opt_step(r, &m->opt, c, &cache, rows, NULL, nm_blip2_words(r, m, ids, rows * PREFIX), first);
    for (int i = 0; i < STEPS && nm_run_ok(r); i++) {
        nm_arena_mark mark = nm_mark(r);
        double t = peak_time(threads);
        nm_tensor x = nm_opt_step(r, &m->opt, c, &cache, rows, parent, nm_blip2_words(r, m, ids, rows), offsets);
        nm_opt_logits(r, &m->opt, c, x);
        t = peak_time(threads) - t;
        best = t < best ? t : best;
        nm_reset(r, mark);
    }
    if (!nm_run_ok(r))
        fprintf(stderr, "%s\n", r->err.message);
    return best;
}

static int run(const char *path, noema_dtype dtype, int weights, int64_t rows, int threads)
{
    noema_context_options co;
    noema_model_options o;
    noema_context *ctx;
    noema_model *x;
    noema_session *s;
    noema_error err = NOEMA_ERROR_INIT;
    noema_context_options_default(&co);
    noema_model_options_default(&o);
    co.n_threads = threads;
    o.dtype = dtype;
    o.weights = weights;
    if (noema_context_create(&ctx, &co, &err) != NOEMA_OK || noema_model_open(&x, ctx, path, &o, &err) != NOEMA_OK ||
        noema_session_create(&s, x, &err) != NOEMA_OK) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    const nm_blip2 *m = (const nm_blip2 *)x->m;
    size_t n = (size_t)256 << 20;
    char *buffer = nm_alloc(n);
    memset(buffer, 1, n);
    decode(s, m, rows, threads); /* packs */
    double t = 1e9, read = 0, bytes = bytes_per_step(m, x->compute);
    for (int i = 0; i < 4; i++) { /* in turns, so that both see the same machine */
        double g = measure_read(ctx->pool, buffer, n), d = decode(s, m, rows, threads);
        read = g > read ? g : read;
        t = d < t ? d : t;
    }
    printf("  %d thread%s, %lld row%s: %.1f ms a step of %.2f GB, %.1f GB/s = %.0f %% of the %.1f GB/s that memory gives\n", threads,
           threads > 1 ? "s" : "", (long long)rows, rows > 1 ? "s" : "", t * 1e3, bytes * 1e-9, bytes / t * 1e-9, 100 * bytes / t * 1e-9 / read, read);
    nm_free(buffer);
    noema_session_free(s);
    noema_model_free(x);
    noema_context_free(ctx);
    return 0;
}

int main(int argc, char **argv)
{
    char name[64];
    if (argc < 2) {
        fprintf(stderr, "usage: bench_decode MODEL [f32|bf16|int8] [packed|mapped] [rows]\n");
        return 1;
    }
    const char *dtype = argc > 2 ? argv[2] : "bf16";
    noema_dtype d = !strcmp(dtype, "int8") ? NOEMA_DTYPE_INT8 : !strcmp(dtype, "f32") ? NOEMA_DTYPE_F32 : NOEMA_DTYPE_BF16;
    int weights = argc > 3 && !strcmp(argv[3], "mapped") ? 2 : 1;
    int64_t rows = argc > 4 ? strtol(argv[4], NULL, 10) : 1;
    rows = rows < 1 ? 1 : rows > 64 ? 64 : rows;
    printf("%s, %s, %s, %s weights\n", nm_cpu_model_name(name), nm_cpu_level_name(nm_cpu_features()), dtype, weights == 2 ? "mapped" : "packed");
    int code = run(argv[1], d, weights, rows, 1);
    return code ? code : run(argv[1], d, weights, rows, 2);
}
