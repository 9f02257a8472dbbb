/* shards.c - see shards.h. */
#define _GNU_SOURCE
#include "data/shards.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "media/image.h"

#define BLOCK 512
#define MAX_PICTURE ((size_t)1 << 30)

/* ---- one shard ---- */

static noema_status put(nm_shard *w, const void *p, size_t n)
{
    return fwrite(p, 1, n, w->f) == n ? NOEMA_OK : nm_fail(w->err, NOEMA_E_IO, "%s: cannot write", w->path);
}

noema_status nm_shard_member(nm_shard *w, const char *key, const char *suffix, const void *data, size_t n)
{
    static const unsigned char zeros[BLOCK];
    unsigned char h[BLOCK] = { 0 };
    unsigned sum = 0;
    if (n >= (size_t)1 << 33) /* eleven octal digits */
        return nm_fail(w->err, NOEMA_E_LIMIT, "%s: %s.%s: %zu bytes", w->path, key, suffix, n);
    snprintf((char *)h, 100, "%s.%s", key, suffix);
    memcpy(h + 100, "0000444\0" "0000000\0" "0000000\0", 24);
    snprintf((char *)h + 124, 12, "%011zo", n);
    memcpy(h + 136, "00000000000\0" "        " "0", 21);
    memcpy(h + 257, "ustar\0" "00" "bigdata", 15);
    memcpy(h + 297, "bigdata", 7);
    for (int i = 0; i < BLOCK; i++)
        sum += h[i];
    snprintf((char *)h + 148, 8, "%06o", sum);
    h[155] = ' ';
    noema_status s = put(w, h, BLOCK);
    if (s == NOEMA_OK)
        s = put(w, data, n);
    return s == NOEMA_OK && n % BLOCK ? put(w, zeros, BLOCK - n % BLOCK) : s;
}

noema_status nm_shard_create(nm_shard *w, const char *path, noema_error *err)
{
    *w = (nm_shard){ .path = nm_strdup(path), .temporary = nm_sprintf("%s.tmp.%ld", path, (long)getpid()), .err = err };
    if (!w->path || !w->temporary)
        return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", path);
    w->f = fopen(w->temporary, "we");
    return w->f ? NOEMA_OK : nm_fail(err, NOEMA_E_IO, "%s: cannot write", path);
}

noema_status nm_shard_close(nm_shard *w, noema_status s)
{
    static const unsigned char end[2 * BLOCK];
    if (s == NOEMA_OK)
        s = put(w, end, sizeof end);
    if (w->f && s == NOEMA_OK && (fflush(w->f) != 0 || fsync(fileno(w->f)) != 0))
        s = nm_fail(w->err, NOEMA_E_IO, "%s: cannot write", w->path);
    if (w->f && fclose(w->f) != 0 && s == NOEMA_OK)
        s = nm_fail(w->err, NOEMA_E_IO, "%s: cannot write", w->path);
    if (s == NOEMA_OK && rename(w->temporary, w->path) != 0)
        s = nm_fail(w->err, NOEMA_E_IO, "%s: cannot rename", w->path);
    if (s != NOEMA_OK && w->f)
        unlink(w->temporary);
    free(w->path);
    free(w->temporary);
    *w = (nm_shard){ 0 };
    return s;
}

char *nm_shard_path(const char *dir, int64_t shard, const char *suffix)
{
    char name[64];
    snprintf(name, sizeof name, "%05lld.%s", (long long)shard, suffix);
    return nm_path_join(dir, name);
}

/* ---- pictures ---- */

static const char *suffix_of(const void *bytes, size_t n)
{
    const char *format = nm_image_sniff(bytes, n);
    return !format ? NULL : strcmp(format, "JPEG") == 0 ? "jpg" : strcmp(format, "PNG") == 0 ? "png" : strcmp(format, "WEBP") == 0 || strcmp(format, "WebP") == 0 ? "webp" : NULL;
}

noema_status nm_shard_picture(const noema_dataset_row *row, const void **bytes, size_t *n, const char **suffix, char **own, noema_error *err)
{
    *own = NULL;
    *bytes = row->bytes;
    *n = row->n_bytes;
    if (row->is_tensor)
        return nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: a tensor, no picture file", row->name);
    noema_status s = row->path ? nm_read_file(own, n, row->path, MAX_PICTURE, err) : NOEMA_OK;
    if (row->path)
        *bytes = *own;
    if (s == NOEMA_OK && !(*suffix = suffix_of(*bytes, *n)))
        s = nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: expected a JPEG, PNG or WebP picture", row->name);
    return s;
}

/* ---- the folder ---- */

void nm_shards_put_parts(nm_buf *b, const noema_dataset *d)
{
    nm_buf_puts(b, "\"parts\":[");
    for (size_t i = 0; i < noema_dataset_parts(d); i++) {
        const char *format, *part;
        int64_t rows;
        part = noema_dataset_part(d, i, &format, &rows);
        nm_buf_puts(b, i ? "," : "");
        nm_json_put_str(b, part, strlen(part));
    }
    nm_buf_putc(b, ']');
}

noema_status nm_shards_claim(const char *dir, const char *name, nm_buf *text, noema_error *err)
{
    char *path = nm_path_join(dir, name), *old = NULL;
    size_t size = 0;
    noema_status s = path && !text->failed ? nm_mkdirs(dir, err) : nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", dir);
    if (s == NOEMA_OK && nm_file_exists(path)) {
        s = nm_read_file(&old, &size, path, (size_t)64 << 20, err);
        if (s == NOEMA_OK && (size != text->len || memcmp(old, text->data, size) != 0))
            s = nm_fail(err, NOEMA_E_ARGUMENT, "%s holds what was made of another data set or with other options (%s): choose another folder", dir, name);
    } else if (s == NOEMA_OK)
        s = nm_write_file_atomic(path, text->data, text->len, err);
    nm_buf_free(text);
    free(path);
    free(old);
    return s;
}

noema_status nm_shards_write(const char *dir, const char *name, const nm_buf *b, noema_error *err)
{
    char *path = nm_path_join(dir, name);
    noema_status s = path && !b->failed ? nm_write_file_atomic(path, b->data ? b->data : "", b->len, err) : nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", dir);
    free(path);
    return s;
}

noema_status nm_shards_class_names(const noema_dataset *d, const char *dir, noema_error *err)
{
    nm_buf b = { 0 };
    for (int64_t k = 0; noema_dataset_class(d, k); k++)
        nm_buf_printf(&b, "%s\n", noema_dataset_class(d, k));
    noema_status s = b.len ? nm_shards_write(dir, "classnames.txt", &b, err) : NOEMA_OK;
    nm_buf_free(&b);
    return s;
}
