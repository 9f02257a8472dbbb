/* rows.c - see rows.h. The cache is DIR/KEY.f32: rows and nothing else; a part of a row at its end is cut off. */
#define _GNU_SOURCE
#include "eval/rows.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"

void nm_rows_key_text(nm_sha256 *key, const char *text)
{
    uint64_t n = text ? strlen(text) : UINT64_MAX;
    nm_sha256_update(key, &n, sizeof n);
    if (text)
        nm_sha256_update(key, text, (size_t)n);
}

void nm_rows_key_file(nm_sha256 *key, const char *path)
{
    struct stat st;
    int64_t facts[3] = { -1, 0, 0 };
    if (stat(path, &st) == 0) {
        facts[0] = (int64_t)st.st_size;
        facts[1] = (int64_t)st.st_mtim.tv_sec;
        facts[2] = (int64_t)st.st_mtim.tv_nsec;
    }
    nm_rows_key_text(key, path);
    nm_sha256_update(key, facts, sizeof facts);
}

void nm_rows_key(nm_sha256 *key, nm_eval *e, const char *kind, unsigned flags)
{
    nm_sha256_init(key);
    nm_rows_key_text(key, kind);
    nm_rows_key_text(key, noema_model_get_info(e->session->model)->space);
    nm_sha256_update(key, &flags, sizeof flags);
}

typedef struct cache { FILE *f; char *path; int64_t rows; } cache;

static noema_status io_fail(nm_eval *e, const char *path) { return nm_fail(e->err, NOEMA_E_IO, "%s: cannot read or write: %m", path); }

/* Opens DIR/KEY.f32 and reads the whole rows that it has. */
static noema_status open_cache(nm_eval *e, nm_sha256 *key, int64_t n, int64_t dim, float *x, cache *c)
{
    unsigned char digest[32];
    char name[80];
    struct stat st;
    noema_status s = nm_mkdirs(e->o.cache, e->err);
    nm_sha256_final(key, digest);
    nm_hex(digest, 16, name);
    strcat(name, ".f32");
    if (s != NOEMA_OK)
        return s;
    if (!(c->path = nm_path_join(e->o.cache, name)))
        return nm_fail(e->err, NOEMA_E_MEMORY, "out of memory: %s", e->o.cache);
    if (!(c->f = fopen(c->path, "a+be")) || fstat(fileno(c->f), &st) != 0)
        return io_fail(e, c->path);
    size_t row = (size_t)dim * sizeof *x;
    c->rows = (int64_t)((size_t)st.st_size / row);
    if (c->rows > n)
        c->rows = n;
    if (ftruncate(fileno(c->f), (off_t)((size_t)c->rows * row)) != 0 || fseek(c->f, 0, SEEK_SET) != 0 ||
        fread(x, row, (size_t)c->rows, c->f) != (size_t)c->rows || fseek(c->f, 0, SEEK_END) != 0)
        return io_fail(e, c->path);
    return NOEMA_OK;
}

noema_status nm_stored_rows(nm_eval *e, nm_sha256 *key, const char *unit, int64_t n, int64_t dim, int64_t step, nm_stored_rows_fn *fn, void *arg, float *x)
{
    cache c = { 0 };
    noema_status s = e->o.cache ? open_cache(e, key, n, dim, x, &c) : NOEMA_OK;
    for (int64_t i = c.rows; i < n && s == NOEMA_OK; i += step) {
        int64_t some = n - i < step ? n - i : step;
        if (nm_eval_stopped(e))
            s = nm_fail(e->err, NOEMA_E_CANCELLED, "interrupted after %lld of %lld %s%s", (long long)i, (long long)n, unit,
                        c.f ? "; the same command goes on from there" : "");
        else
            s = fn(arg, i, some, x + i * dim);
        if (s == NOEMA_OK && c.f && (fwrite(x + i * dim, (size_t)dim * sizeof *x, (size_t)some, c.f) != (size_t)some || fflush(c.f) != 0))
            s = io_fail(e, c.path);
        nm_eval_progress(e, unit, i + some, n);
    }
    if (c.f && fclose(c.f) != 0 && s == NOEMA_OK)
        s = io_fail(e, c.path);
    free(c.path);
    return s;
}
