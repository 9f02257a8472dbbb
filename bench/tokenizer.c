/* tokenizer.c - texts per second of one tokenizer on one thread: bench_tokenizer TOKENIZER TEXTFILE [kind [rounds]]. One text per
 * line. Prints load time, the best of the rounds, and the number of ids, as one JSON line. bench/tokenizer.py compares with
 * the Python packages on the same lines. */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "noema/tokenizer.h"

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static char *read_all(const char *path, size_t *size)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        return NULL;
    fseek(f, 0, SEEK_END);
    long n = ftell(f);
    rewind(f);
    char *p = malloc((size_t)n + 1);
    *size = p ? fread(p, 1, (size_t)n, f) : 0;
    fclose(f);
    return p;
}

int main(int argc, char **argv)
{
    noema_error err = NOEMA_ERROR_INIT;
    noema_tokenizer *t;
    noema_tokenizer_options o = noema_tokenizer_options_default();
    size_t size, n;
    if (argc < 3) {
        fprintf(stderr, "usage: %s TOKENIZER TEXTFILE [kind [rounds]]\n", argv[0]);
        return 1;
    }
    o.kind = argc > 3 ? (noema_tokenizer_kind)atoi(argv[3]) : NOEMA_TOKENIZER_AUTO;
    int rounds = argc > 4 ? atoi(argv[4]) : 7;
    double load = 1e9, best = 1e9;
    for (int r = 0; r < 3; r++) {
        double t0 = now();
        if (noema_tokenizer_open(&t, argv[1], &o, &err)) {
            fprintf(stderr, "%s\n", err.message);
            return 1;
        }
        load = now() - t0 < load ? now() - t0 : load;
        if (r < 2)
            noema_tokenizer_free(t);
    }
    char *text = read_all(argv[2], &size);
    noema_tokenizer_scratch *s = noema_tokenizer_scratch_new(t);
    if (!text || !s)
        return 1;
    long lines = 0, ids_total = 0;
    for (int r = 0; r < rounds; r++) {
        double t0 = now();
        lines = ids_total = 0;
        for (char *p = text, *end = text + size, *lf; p < end; p = lf + 1) {
            const int32_t *ids;
            lf = memchr(p, '\n', (size_t)(end - p));
            lf = lf ? lf : end;
            if (noema_tokenizer_encode(t, s, p, (size_t)(lf - p), &ids, &n, &err)) {
                fprintf(stderr, "%s\n", err.message);
                return 1;
            }
            lines++, ids_total += (long)n;
        }
        best = now() - t0 < best ? now() - t0 : best;
    }
    printf("{\"name\":\"%s\",\"load_ms\":%.2f,\"texts\":%ld,\"ids\":%ld,\"seconds\":%.6f,\"texts_per_s\":%.0f}\n",
           noema_tokenizer_name(t), load * 1e3, lines, ids_total, best, (double)lines / best);
    free(text);
    noema_tokenizer_scratch_free(s);
    noema_tokenizer_free(t);
    return 0;
}
