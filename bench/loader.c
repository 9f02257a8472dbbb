/* loader.c - pictures a second that the training loader's parts give on one thread: reading rows, decoding, preprocessing, augmenting. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "data/dataset.h"
#include "train/augment.h"

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

typedef struct job { const nm_dataset *d; const int64_t *order; int64_t n; int size; const nm_augment *a; bool decode; } job;

static double rate(const job *j)
{
    nm_preprocess rule;
    nm_preprocess_scratch *p = nm_preprocess_scratch_new();
    nm_augment_scratch s = { 0 };
    nm_image picture = { 0 };
    nm_row row = { 0 };
    noema_error err = NOEMA_ERROR_INIT;
    float *out = malloc((size_t)(3 * j->size * j->size) * sizeof *out);
    int64_t bad = 0;
    nm_preprocess_named(&rule, "openai", j->size, j->size, &err);
    double start = now();
    for (int64_t i = 0; i < j->n; i++) {
        nm_rng r;
        nm_rng_init(&r, 1, (uint64_t)i);
        noema_status st = nm_dataset_read(j->d, j->order[i], &row, &err);
        if (st == NOEMA_OK && j->decode)
            st = row.path ? nm_image_open(&picture, row.path, NULL, &err) : nm_image_decode(&picture, row.bytes, row.n_bytes, row.name, NULL, &err);
        if (st == NOEMA_OK && j->a)
            st = nm_augment_run(j->a, &rule, p, &s, &picture, &r, out, &err);
        bad += st != NOEMA_OK;
    }
    double t = now() - start;
    if (bad)
        printf("%lld of %lld rows failed: %s\n", (long long)bad, (long long)j->n, err.message);
    nm_row_release(&row);
    nm_image_free(&picture);
    nm_augment_scratch_free(&s);
    nm_preprocess_scratch_free(p);
    free(out);
    return (double)j->n / t;
}

int main(int argc, char **argv)
{
    static const struct { const char *name, *cfg; } cases[] = { { "crop", "" }, { "pad_crop=4 hflip=0.5", "pad_crop=4 hflip=0.5" },
        { "crop, colours", "color_jitter=0.4,0.4,0.4,0.1 color_jitter_prob=0.8 gray_scale_prob=0.2" } };
    noema_error err = NOEMA_ERROR_INIT;
    nm_dataset *d;
    if (argc < 3) {
        fprintf(stderr, "usage: bench_loader DATA SIZE [ROWS]\n");
        return 1;
    }
    double start = now();
    if (nm_dataset_open(&d, argv[1], NULL, &err) != NOEMA_OK) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    int64_t count = nm_dataset_count(d), n = argc > 3 ? atoll(argv[3]) : count;
    int64_t *order = malloc((size_t)count * sizeof *order);
    printf("open: %.3f s, %lld rows\n", now() - start, (long long)count);
    start = now();
    nm_dataset_order(d, 1, 0, order);
    printf("order: %.3f s (%s)\n", now() - start, nm_dataset_scattered(d) ? "over everything" : "by blocks");
    n = n < count ? n : count;
    job j = { d, order, n, atoi(argv[2]), NULL, false };
    printf("read, first pass: %10.0f rows/s\n", rate(&j));
    printf("read, cached:     %10.0f rows/s\n", rate(&j));
    j.decode = true;
    printf("+ decode:         %10.0f rows/s\n", rate(&j));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        nm_augment a;
        nm_augment_default(&a);
        nm_augment_parse(&a, cases[i].cfg, &err);
        j.a = &a;
        printf("+ augment (%s): %10.0f rows/s\n", cases[i].name, rate(&j));
    }
    nm_dataset_free(d);
    free(order);
    return 0;
}
