/* fuzz_file.h - for targets whose parser reads a file: the input as /tmp/noema-fuzz-PID-NAME. */
#ifndef FUZZ_FILE_H
#define FUZZ_FILE_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct fuzz_file { char path[96]; } fuzz_file;

static inline fuzz_file fuzz_file_put(const char *name, const uint8_t *data, size_t size)
{
    fuzz_file f;
    snprintf(f.path, sizeof f.path, "/tmp/noema-fuzz-%d-%s", (int)getpid(), name);
    FILE *out = fopen(f.path, "wb");
    if (!out || fwrite(data, 1, size, out) != size || fclose(out) != 0)
        abort();
    return f;
}

/* The input up to its first NUL, which *data and *size then lie behind: several files in one input. */
static inline fuzz_file fuzz_file_next(const char *name, const uint8_t **data, size_t *size)
{
    const uint8_t *nul = *size ? memchr(*data, 0, *size) : NULL;
    size_t n = nul ? (size_t)(nul - *data) : *size;
    fuzz_file f = fuzz_file_put(name, *data, n);
    n += nul != NULL;
    *data += n;
    *size -= n;
    return f;
}

static inline void fuzz_file_done(const fuzz_file *f) { unlink(f->path); }

#endif
