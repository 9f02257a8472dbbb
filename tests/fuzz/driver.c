/* driver.c - runs a libFuzzer target without libFuzzer: every file of the folders and files named on the command line,
 * then a fixed number of seeded mutations of each (bit flips, truncations, splices), in exact-size heap copies so that
 * AddressSanitizer sees any overread. Prints what it ran; exits non-zero when there was nothing to run. */
#define _GNU_SOURCE
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t rng = 88172645463325252u;
static uint64_t next(void)
{
    rng ^= rng << 13, rng ^= rng >> 7, rng ^= rng << 17;
    return rng;
}

static long n_files, n_runs;

static void run_copy(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size ? size : 1);
    if (!copy)
        exit(3);
    if (size)
        memcpy(copy, data, size);
    LLVMFuzzerTestOneInput(copy, size);
    free(copy);
    n_runs++;
}

static void run_file(const char *path, int mutations)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        return;
    size_t cap = (size_t)8 << 20, size;
    uint8_t *data = malloc(cap);
    if (!data)
        exit(3);
    size = fread(data, 1, cap, f);
    fclose(f);
    n_files++;
    run_copy(data, size);
    uint8_t *m = malloc(size ? size : 1);
    if (!m)
        exit(3);
    for (int i = 0; i < mutations && size; i++) {
        memcpy(m, data, size);
        size_t n = size;
        switch (next() % 4) {
        case 0: n = next() % size; break;
        case 1: m[next() % size] ^= (uint8_t)(1u << next() % 8); break;
        case 2:
            for (int k = 0; k < 8; k++)
                m[next() % size] = (uint8_t)next();
            break;
        default: {
            size_t len = 1 + next() % (size < 64 ? size : 64), a = next() % (size - len + 1), b = next() % (size - len + 1);
            memmove(m + a, data + b, len);
        }
        }
        run_copy(m, n);
    }
    free(m);
    free(data);
}

int main(int argc, char **argv)
{
    const char *e = getenv("FUZZ_MUTATIONS");
    int mutations = e ? atoi(e) : 50;
    for (int i = 1; i < argc; i++) {
        struct stat st;
        if (stat(argv[i], &st) != 0)
            continue;
        if (!S_ISDIR(st.st_mode)) {
            run_file(argv[i], mutations);
            continue;
        }
        struct dirent **list;
        int n = scandir(argv[i], &list, NULL, alphasort);
        for (int k = 0; k < n; k++) {
            char path[4096];
            snprintf(path, sizeof path, "%s/%s", argv[i], list[k]->d_name);
            if (list[k]->d_name[0] != '.')
                run_file(path, mutations);
            free(list[k]);
        }
        if (n >= 0)
            free(list);
    }
    printf("%ld files, %ld runs\n", n_files, n_runs);
    return n_files ? 0 : 1;
}
