/* bench/media.c - one thread from JPEG bytes to the model's tensor (openai, 224). usage: bench_media FOLDER [passes]
 * Prints one JSON object; times are milliseconds per image, the fastest of the passes over all images. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cpu.h"
#include "base/file.h"
#include "media/preprocess.h"

enum { MAX_FILES = 4096, SIZE = 224 };

/* Processor time: everything runs on one thread, and the wall clock of a shared machine says more about its other users. */
static double now_ms(void) { return 1e3 * (double)clock() / CLOCKS_PER_SEC; }

typedef struct work {
    nm_map file[MAX_FILES];
    nm_image image[MAX_FILES];
    int n;
    nm_preprocess p;
    nm_preprocess_scratch *s;
    float out[3 * SIZE * SIZE];
} work;

static noema_status load_all(work *w, const char *dir, noema_error *err)
{
    DIR *d = opendir(dir);
    if (!d)
        return nm_fail(err, NOEMA_E_MISSING, "%s: cannot open", dir);
    for (struct dirent *e; (e = readdir(d)) && w->n < MAX_FILES;) {
        if (!nm_has_suffix(e->d_name, ".jpg"))
            continue;
        char *path = nm_path_join(dir, e->d_name);
        noema_status st = nm_map_file(&w->file[w->n], path, err);
        if (st == NOEMA_OK)
            st = nm_image_decode(&w->image[w->n], w->file[w->n].data, w->file[w->n].size, path, NULL, err);
        free(path);
        if (st != NOEMA_OK)
            return closedir(d), st;
        w->n++;
    }
    closedir(d);
    return w->n ? NOEMA_OK : nm_fail(err, NOEMA_E_MISSING, "%s: no .jpg files", dir);
}

/* kind 0: bytes -> tensor; 1: decoding the whole picture; 2: decoded picture -> tensor. */
static double pass(work *w, int kind, noema_error *err)
{
    static nm_image whole;
    double t = now_ms();
    for (int i = 0; i < w->n; i++) {
        const nm_image *im = &w->image[i];
        if (kind == 0)
            nm_preprocess_load_bytes(&w->p, w->s, w->file[i].data, w->file[i].size, "bench", NULL, &im, err);
        if (kind == 1)
            nm_image_decode(&whole, w->file[i].data, w->file[i].size, "bench", NULL, err);
        if (kind != 1)
            nm_preprocess_run(&w->p, w->s, im, w->out, err);
    }
    return (now_ms() - t) / w->n;
}

int main(int argc, char **argv)
{
    static work w;
    noema_error err = NOEMA_ERROR_INIT;
    int passes = argc > 2 ? atoi(argv[2]) : 7;
    double best[3] = { 1e9, 1e9, 1e9 };
    if (argc < 2)
        return fprintf(stderr, "usage: bench_media FOLDER [passes]\n"), 1;
    w.s = nm_preprocess_scratch_new();
    if (nm_preprocess_named(&w.p, "openai", SIZE, SIZE, &err) != NOEMA_OK || load_all(&w, argv[1], &err) != NOEMA_OK)
        return fprintf(stderr, "%s\n", err.message), 3;
    for (int k = 0; k < passes; k++)
        for (int kind = 0; kind < 3; kind++) {
            double t = pass(&w, kind, &err);
            best[kind] = t < best[kind] ? t : best[kind];
        }
    if (err.code)
        return fprintf(stderr, "%s\n", err.message), 3;
    printf("{\"images\":%d,\"cpu\":\"%s\",\"full_ms\":%.4f,\"decode_ms\":%.4f,\"preprocess_ms\":%.4f}\n", w.n,
           nm_cpu_level_name(nm_cpu_features()), best[0], best[1], best[2]);
    return 0;
}
