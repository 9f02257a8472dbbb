/* bench/caption.c - noema's side of bench/caption.py: captions one picture for every line on stdin, prints milliseconds and the text.
 * usage: bench_caption MODEL_FOLDER PICTURE THREADS f32|bf16|int8 BEAMS NEW_IDS BATCH */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "noema/context.h"
#include "noema/generate.h"

enum { MAX_BATCH = 64 };

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

int main(int argc, char **argv)
{
    noema_error err = NOEMA_ERROR_INIT;
    noema_context_options co;
    noema_model_options mo;
    noema_generate_options go;
    noema_context *ctx = NULL;
    noema_model *model = NULL;
    noema_session *s = NULL;
    noema_picture pictures[MAX_BATCH];
    noema_generated out[MAX_BATCH];
    char line[64];
    if (argc != 8 || atoi(argv[7]) < 1 || atoi(argv[7]) > MAX_BATCH)
        return fprintf(stderr, "usage: bench_caption MODEL PICTURE THREADS f32|bf16|int8 BEAMS NEW_IDS BATCH\n"), 1;
    size_t batch = (size_t)atoi(argv[7]);
    for (size_t i = 0; i < batch; i++)
        pictures[i] = (noema_picture){ .path = argv[2] };
    noema_context_options_default(&co);
    noema_model_options_default(&mo);
    noema_generate_options_default(&go);
    co.n_threads = atoi(argv[3]);
    mo.dtype = strcmp(argv[4], "f32") == 0 ? NOEMA_DTYPE_F32 : strcmp(argv[4], "bf16") == 0 ? NOEMA_DTYPE_BF16 : NOEMA_DTYPE_INT8;
    go.beams = atoi(argv[5]);
    go.max_new = go.min_new = atoi(argv[6]);
    go.prompt = "";
    if (noema_context_create(&ctx, &co, &err) != NOEMA_OK || noema_model_open(&model, ctx, argv[1], &mo, &err) != NOEMA_OK ||
        noema_session_create(&s, model, &err) != NOEMA_OK)
        return fprintf(stderr, "%s\n", err.message), 3;
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        double start = now_ms();
        if (noema_caption(s, batch, pictures, &go, out, NULL, &err) != NOEMA_OK)
            return fprintf(stderr, "%s\n", err.message), 3;
        struct rusage u;
        getrusage(RUSAGE_SELF, &u);
        printf("%.2f %ld %s\n", now_ms() - start, u.ru_maxrss / 1024, out[0].text);
        fflush(stdout);
        noema_generated_free(out, batch);
    }
    noema_session_free(s);
    noema_model_free(model);
    noema_context_free(ctx);
    return 0;
}
