/* convert.c - any data set as webdataset shards (ustar, mode 0444, members of a sample sorted by suffix, as webdataset writes them). */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "media/image.h"
#include "noema/data.h"

#define BLOCK 512
#define MAX_PICTURE ((size_t)1 << 30)

void noema_convert_options_default(noema_convert_options *o) { *o = (noema_convert_options){ .struct_size = sizeof *o, .shard_rows = 10000 }; }

typedef struct writer { FILE *f; const char *path; noema_error *err; } writer;

static noema_status put(writer *w, const void *p, size_t n)
{
    return fwrite(p, 1, n, w->f) == n ? NOEMA_OK : nm_fail(w->err, NOEMA_E_IO, "%s: cannot write", w->path);
}

static noema_status put_member(writer *w, const char *key, const char *suffix, const void *data, size_t n)
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

static const char *suffix_of(const void *bytes, size_t n)
{
    const char *format = nm_image_sniff(bytes, n);
    return !format ? NULL : strcmp(format, "JPEG") == 0 ? "jpg" : strcmp(format, "PNG") == 0 ? "png" : strcmp(format, "WEBP") == 0 || strcmp(format, "WebP") == 0 ? "webp" : NULL;
}

/* Members of one sample: cls, jpg|png|webp, txt. */
static noema_status put_sample(writer *w, const noema_dataset *d, const noema_dataset_row *row, const char *key, const void *bytes, size_t n)
{
    char number[32];
    size_t caption = 0;
    const char *text = noema_dataset_caption(d, 0, &caption), *suffix = suffix_of(bytes, n);
    snprintf(number, sizeof number, "%lld", (long long)row->label);
    noema_status s = row->label >= 0 ? put_member(w, key, "cls", number, strlen(number)) : NOEMA_OK;
    if (s == NOEMA_OK)
        s = put_member(w, key, suffix, bytes, n);
    return s == NOEMA_OK && text ? put_member(w, key, "txt", text, caption) : s;
}

/* The picture's bytes: *own is to be freed. */
static noema_status picture_of(const noema_dataset_row *row, const void **bytes, size_t *n, char **own, noema_error *err)
{
    *own = NULL;
    *bytes = row->bytes;
    *n = row->n_bytes;
    if (row->is_tensor)
        return nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: a tensor, no picture file", row->name);
    noema_status s = row->path ? nm_read_file(own, n, row->path, MAX_PICTURE, err) : NOEMA_OK;
    if (row->path)
        *bytes = *own;
    if (s == NOEMA_OK && !suffix_of(*bytes, *n))
        s = nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: expected a JPEG, PNG or WebP picture", row->name);
    return s;
}

static noema_status put_row(writer *w, noema_dataset *d, int64_t i, const char *key, const noema_convert_options *o, int64_t *rows)
{
    noema_dataset_row row;
    noema_error why = NOEMA_ERROR_INIT;
    const void *bytes = NULL;
    size_t n = 0;
    char *own = NULL;
    noema_status s = noema_dataset_read(d, i, &row, &why);
    if (s == NOEMA_OK)
        s = picture_of(&row, &bytes, &n, &own, &why);
    if (s != NOEMA_OK) {
        if (o->failed)
            o->failed(o->user, row.name, &why);
        free(own);
        return NOEMA_OK;
    }
    s = put_sample(w, d, &row, key, bytes, n);
    free(own);
    ++*rows;
    return s;
}

/* Rows [first, last) to PATH, complete or not at all. */
static noema_status put_shard(noema_dataset *d, const char *path, int64_t shard, int64_t first, int64_t last, const noema_convert_options *o, int64_t *rows,
                              noema_error *err)
{
    static const unsigned char end[2 * BLOCK];
    char *temporary = nm_sprintf("%s.tmp.%ld", path, (long)getpid());
    writer w = { temporary ? fopen(temporary, "we") : NULL, path, err };
    noema_status s = w.f ? NOEMA_OK : nm_fail(err, NOEMA_E_IO, "%s: cannot write", path);
    for (int64_t i = first; i < last && s == NOEMA_OK; i++) {
        char key[48];
        snprintf(key, sizeof key, "%05lld%06lld", (long long)shard, (long long)(i - first));
        s = put_row(&w, d, i, key, o, rows);
    }
    if (s == NOEMA_OK)
        s = put(&w, end, sizeof end);
    if (w.f && s == NOEMA_OK && (fflush(w.f) != 0 || fsync(fileno(w.f)) != 0))
        s = nm_fail(err, NOEMA_E_IO, "%s: cannot write", path);
    if (w.f && fclose(w.f) != 0 && s == NOEMA_OK)
        s = nm_fail(err, NOEMA_E_IO, "%s: cannot write", path);
    if (s == NOEMA_OK && rename(temporary, path) != 0)
        s = nm_fail(err, NOEMA_E_IO, "%s: cannot rename", path);
    if (s != NOEMA_OK && w.f)
        unlink(temporary);
    free(temporary);
    return s;
}

/* What the shards of a folder were made of: another source or size must not be mixed in. */
static noema_status check_folder(const noema_dataset *d, const char *dir, int64_t shard_rows, noema_error *err)
{
    nm_buf b = { 0 };
    char *path = nm_path_join(dir, "convert.json"), *old = NULL;
    size_t size = 0;
    nm_buf_printf(&b, "{\"rows\":%lld,\"shard_rows\":%lld,\"parts\":[", (long long)noema_dataset_count(d), (long long)shard_rows);
    for (size_t i = 0; i < noema_dataset_parts(d); i++) {
        const char *format, *part;
        int64_t rows;
        part = noema_dataset_part(d, i, &format, &rows);
        nm_buf_puts(&b, i ? "," : "");
        nm_json_put_str(&b, part, strlen(part));
    }
    nm_buf_puts(&b, "]}\n");
    noema_status s = path && !b.failed ? nm_mkdirs(dir, err) : nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", dir);
    if (s == NOEMA_OK && nm_file_exists(path)) {
        s = nm_read_file(&old, &size, path, (size_t)64 << 20, err);
        if (s == NOEMA_OK && (size != b.len || memcmp(old, b.data, size) != 0))
            s = nm_fail(err, NOEMA_E_ARGUMENT, "%s holds the shards of another data set or size (convert.json): choose another folder", dir);
    } else if (s == NOEMA_OK)
        s = nm_write_file_atomic(path, b.data, b.len, err);
    nm_buf_free(&b);
    free(path);
    free(old);
    return s;
}

static noema_status put_text(const char *dir, const char *name, const nm_buf *b, noema_error *err)
{
    char *path = nm_path_join(dir, name);
    noema_status s = path && !b->failed ? nm_write_file_atomic(path, b->data ? b->data : "", b->len, err) : nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", dir);
    free(path);
    return s;
}

static noema_status put_class_names(const noema_dataset *d, const char *dir, noema_error *err)
{
    nm_buf b = { 0 };
    for (int64_t k = 0; noema_dataset_class(d, k); k++)
        nm_buf_printf(&b, "%s\n", noema_dataset_class(d, k));
    noema_status s = b.len ? put_text(dir, "classnames.txt", &b, err) : NOEMA_OK;
    nm_buf_free(&b);
    return s;
}

/* How many samples a shard of an earlier run holds. */
static noema_status count_shard(const char *path, int64_t *rows, noema_error *err)
{
    noema_dataset *d = NULL;
    noema_dataset_options o = { .struct_size = sizeof o, .type = "webdataset" };
    noema_error why = NOEMA_ERROR_INIT;
    noema_status s = noema_dataset_open(&d, path, &o, &why);
    *rows = d ? noema_dataset_count(d) : 0;
    noema_dataset_free(d);
    if (s != NOEMA_OK && !strstr(why.message, "empty"))
        return nm_fail(err, s, "%s", why.message);
    return NOEMA_OK;
}

noema_status noema_dataset_convert(noema_dataset *d, const char *dir, const noema_convert_options *options, noema_error *err)
{
    noema_convert_options o;
    noema_convert_options_default(&o);
    if (options)
        o = *options;
    if (o.shard_rows < 1 || o.shard_rows > 1000000)
        return nm_fail(err, NOEMA_E_ARGUMENT, "%lld rows a shard: expected 1 to 1000000", (long long)o.shard_rows);
    int64_t total = noema_dataset_count(d), shards = (total + o.shard_rows - 1) / o.shard_rows;
    nm_buf sizes = { 0 };
    noema_status s = check_folder(d, dir, o.shard_rows, err);
    for (int64_t k = 0; k < shards && s == NOEMA_OK; k++) {
        char name[32];
        snprintf(name, sizeof name, "%05lld.tar", (long long)k);
        char *path = nm_path_join(dir, name);
        int64_t rows = 0, last = (k + 1) * o.shard_rows < total ? (k + 1) * o.shard_rows : total;
        s = !path ? nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", dir)
            : nm_file_exists(path) ? count_shard(path, &rows, err) : put_shard(d, path, k, k * o.shard_rows, last, &o, &rows, err);
        free(path);
        nm_buf_printf(&sizes, "%s\"%s\": %lld", k ? ", " : "{", name, (long long)rows);
        if (s == NOEMA_OK && o.progress && o.progress(o.user, last, total))
            s = nm_fail(err, NOEMA_E_CANCELLED, "%s: stopped after %lld of %lld rows; the same call goes on", dir, (long long)last, (long long)total);
    }
    nm_buf_puts(&sizes, "}\n");
    if (s == NOEMA_OK)
        s = put_text(dir, "sizes.json", &sizes, err);
    if (s == NOEMA_OK)
        s = put_class_names(d, dir, err);
    nm_buf_free(&sizes);
    return s;
}
