/* bench/train.c - noema's side of bench/train.py: one training step for every line on stdin; prints milliseconds of wall time and of
 * processor time, the peak memory in MiB, the loss, and the share of the machine's multiply-adds.
 * usage: bench_train ARCH|CONFIG.json THREADS fp32|amp_bf16 BATCH TOKENS[,TOKENS..] [checkpoint] [image] [drop=SHARE]
 * TOKENS: the lengths of the texts, repeated over the batch. image: the text tower is locked. drop: of each picture's patches.
 * Under mpirun each process takes its share of BATCH. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "base/file.h"
#include "kernels/peak.h"
#include "models/handle.h"
#include "train/trainer.h"

enum { MAX_BATCH = 1024 };

static double now_ms(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

/* Pictures and ids that are the same in every run; each text ends with the highest id, as CLIP's texts do. */
static nm_pair_batch make_batch(const nm_model *m, int64_t n, const char *lengths, int32_t vocab)
{
    static int64_t offsets[MAX_BATCH + 1];
    size_t pixels = 3 * (size_t)m->image_height * (size_t)m->image_width * (size_t)n;
    float *images = nm_alloc(pixels * sizeof *images);
    int32_t *ids = nm_alloc((size_t)(n * m->context_length) * sizeof *ids);
    const char *at = lengths;
    for (size_t i = 0; images && i < pixels; i++)
        images[i] = (float)(i * 2654435761u >> 8 & 0xFFFF) / 32768.0f - 1.0f;
    for (int64_t i = 0; i < n; i++) {
        char *end;
        long len = strtol(at, &end, 10);
        len = len < 2 ? 2 : len > m->context_length ? m->context_length : len;
        at = *end == ',' ? end + 1 : lengths;
        for (long k = 0; ids && k < len; k++)
            ids[offsets[i] + k] = k == 0 ? vocab - 2 : k == len - 1 ? vocab - 1 : (int32_t)((i * 131 + k * 7) % (vocab - 2));
        offsets[i + 1] = offsets[i] + len;
    }
    return (nm_pair_batch){ .n = n, .images = images, .texts = { .n = n, .offsets = offsets, .ids = ids, .pad_id = -1 } };
}

int main(int argc, char **argv)
{
    noema_error err = NOEMA_ERROR_INIT;
    nm_model *model = NULL;
    nm_trainer *t = NULL;
    char line[64];
    if (argc < 6 || atoi(argv[4]) < 1 || atoi(argv[4]) > MAX_BATCH)
        return fprintf(stderr, "usage: bench_train ARCH|CONFIG THREADS fp32|amp_bf16 BATCH TOKENS[,TOKENS..] [checkpoint] [image] [drop=SHARE]\n"), 1;
    json_t *config = nm_file_exists(argv[1]) ? nm_json_load(argv[1], &err) : NULL;
    nm_train_options o = { .opt = { .kind = NM_OPT_ADAMW, .beta1 = 0.9, .beta2 = 0.98, .eps = 1e-6 }, .weight_decay = 0.2, .accum = 1,
                           .schedule = { .kind = NM_LR_CONST, .base_lr = 1e-5 }, .compute = strcmp(argv[3], "fp32") == 0 ? NM_F32 : NM_BF16 };
    for (int i = 6; i < argc; i++) {
        o.checkpointing |= strcmp(argv[i], "checkpoint") == 0;
        o.lock_text |= strcmp(argv[i], "image") == 0;
        o.patch_dropout = strncmp(argv[i], "drop=", 5) == 0 ? atof(argv[i] + 5) : o.patch_dropout;
    }
    if (nm_ranks_open(&o.ranks, &err) != NOEMA_OK)
        return fprintf(stderr, "%s\n", err.message), 3;
    int64_t mine = atoi(argv[4]) / o.ranks.size;
    nm_pool *pool = nm_pool_new(atoi(argv[2]));
    if (nm_family_clip.create(&model, config ? NULL : argv[1], config, 0, &err) != NOEMA_OK || nm_trainer_new(&t, model, pool, &o, &err) != NOEMA_OK)
        return fprintf(stderr, "%s\n", err.message), 3;
    const json_t *vocab = json_object_get(json_object_get(json_object_get(config, "model_cfg"), "text_cfg"), "vocab_size");
    nm_pair_batch b = make_batch(model, mine, argv[5], vocab ? (int32_t)json_integer_value(vocab) : 49408);
    json_decref(config);
    b.first = mine * o.ranks.rank;
    double peak = nm_peak_per_second(pool, o.compute);
    if (o.ranks.rank == 0)
        puts("ready");
    fflush(stdout);
    while (nm_ranks_most(&o.ranks, o.ranks.rank == 0 && fgets(line, sizeof line, stdin))) {
        double wall = now_ms(CLOCK_MONOTONIC), cpu = now_ms(CLOCK_PROCESS_CPUTIME_ID);
        nm_step_result x;
        if (nm_trainer_step(t, &b, &x, &err) != NOEMA_OK)
            return fprintf(stderr, "%s\n", err.message), 3;
        wall = now_ms(CLOCK_MONOTONIC) - wall;
        cpu = now_ms(CLOCK_PROCESS_CPUTIME_ID) - cpu;
        struct rusage u;
        getrusage(RUSAGE_SELF, &u);
        if (o.ranks.rank == 0)
            printf("%.2f %.2f %ld %.6f %.1f %.1f\n", wall, cpu, u.ru_maxrss / 1024, x.loss, 1e-6 * x.flops / wall, 1e-9 * peak);
        fflush(stdout);
    }
    nm_trainer_free(t);
    model->family->free(model);
    nm_ranks_close(&o.ranks, true);
    nm_free((void *)(uintptr_t)b.images);
    nm_free((void *)(uintptr_t)b.texts.ids);
    nm_pool_free(pool);
    return 0;
}
