/* resnet.c - a training step of a ModifiedResNet tower (forward, backward), by itself: bench_resnet [threads] [width] [picture size] [batch] [blocks per stage].
 * Prints milliseconds, and multiply-adds of convolutions and projections against the register-only peak. bench/resnet.py does the same in PyTorch. */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "models/resnet.h"
#include "nn/ops.h"
#include "peak.h"
#include "tensor/tape.h"

typedef struct tower { nm_resnet_w w; nm_resnet_cfg c; } tower;

static void declare(nm_params *p, void *m) { nm_resnet_params(p, &((tower *)m)->w, &((tower *)m)->c); }

static void attach(nm_params *p, const nm_param_info *info)
{
    (void)p;
    if (!(info->flags & NM_BUFFER))
        info->w->grad = calloc(1, sizeof(nm_grad));
}

/* Multiply-adds of one picture's forward; a backward has twice as many, less the first convolution's way to the pixels. */
static double macs(const nm_resnet_cfg *c, double *first)
{
    double s = c->image_size / 2.0, h = c->width / 2.0, w = c->width, in = w, sum = *first = s * s * 27 * h;
    sum += s * s * 9 * h * (h + w);
    s /= 2;
    for (int i = 0; i < 4; i++)
        for (int b = 0; b < c->blocks[i]; b++) {
            double p = w * (1 << i), before = s, after = b == 0 && i > 0 ? s / 2 : s;
            sum += before * before * (in * p + 9 * p * p) + after * after * p * 4 * p + (b == 0 ? after * after * in * 4 * p : 0);
            in = 4 * p;
            s = after;
        }
    return sum + (s * s + 1) * 2 * in * in + in * in + in * c->embed_dim;
}

int main(int argc, char **argv)
{
    int arg[5] = { 1, 32, 64, 256, 1 };
    for (int i = 1; i < argc && i <= 5; i++)
        arg[i - 1] = atoi(argv[i]);
    tower t = { .c = { .blocks = { arg[4], arg[4], arg[4], arg[4] }, .width = arg[1], .image_size = arg[2], .embed_dim = 128, .heads = arg[1] * 32 / 64 } };
    noema_error err = NOEMA_ERROR_INIT;
    if (!nm_resnet_alloc(&t.w, &t.c) || nm_params_init(declare, &t, 1, &err) != NOEMA_OK)
        return 1;
    nm_params p = { .visit = attach };
    declare(&p, &t);
    nm_pool *pool = nm_pool_new(arg[0]);
    nm_arena *arena = nm_arena_new(1 << 20);
    nm_run r;
    nm_run_init(&r, nm_kernels_get(), pool, arena, NM_F32);
    r.tape = nm_tape_new();
    r.training = true;
    int64_t n = arg[3], size = 3 * (int64_t)arg[2] * arg[2];
    float *pixels = nm_alloc((size_t)(n * size) * sizeof *pixels);
    for (int64_t i = 0; i < n * size; i++)
        pixels[i] = nm_rng_normal(&r.rng);
    double best = 1e9, best_forward = 1e9, first, f = macs(&t.c, &first), total = 2.0 * (double)n * (3 * f - first);
    for (int k = 0; k < 6; k++) {
        double t0 = peak_time(arg[0]);
        nm_arena_reset(arena);
        nm_tensor y = nm_resnet_forward(&r, &t.w, &t.c, nm_view(pixels, NM_F32, NM_SHAPE(n, 3, arg[2], arg[2])), NULL);
        double t1 = peak_time(arg[0]);
        float *dy = nm_grad_data(&r, &y);
        for (int64_t i = 0; dy && i < n * t.c.embed_dim; i++)
            dy[i] = i % 3 ? 0.01f : -0.02f;
        nm_backward(&r);
        nm_tape_clear(r.tape);
        double t2 = peak_time(arg[0]);
        if (!nm_run_ok(&r)) {
            fprintf(stderr, "%s\n", r.err.message);
            return 1;
        }
        best = t2 - t0 < best ? t2 - t0 : best;
        best_forward = t1 - t0 < best_forward ? t1 - t0 : best_forward;
    }
    double peak = measure_peak(pool, false);
    printf("threads %d width %d size %d batch %d blocks %d: forward %.0f ms, step %.0f ms, %.1f GFLOP/s of %.1f (%.0f %%)\n", arg[0], arg[1], arg[2], arg[3],
           arg[4], best_forward * 1e3, best * 1e3, total / best * 1e-9, peak, 100e-9 * total / best / peak);
    return 0;
}
