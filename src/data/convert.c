/* convert.c - any data set as webdataset shards. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "data/shards.h"

void noema_convert_options_default(noema_convert_options *o) { *o = (noema_convert_options){ .struct_size = sizeof *o, .shard_rows = 10000 }; }

/* Members of one sample: cls, jpg|png|webp, source, txt. */
static noema_status put_sample(nm_shard *w, const noema_dataset *d, const noema_dataset_row *row, const char *key, const void *bytes, size_t n,
                               const char *suffix)
{
    char number[32];
    size_t caption = 0;
    const char *text = noema_dataset_caption(d, 0, &caption);
    snprintf(number, sizeof number, "%lld", (long long)row->label);
    noema_status s = row->label >= 0 ? nm_shard_member(w, key, "cls", number, strlen(number)) : NOEMA_OK;
    if (s == NOEMA_OK)
        s = nm_shard_member(w, key, suffix, bytes, n);
    if (s == NOEMA_OK && row->synthetic)
        s = nm_shard_member(w, key, "source", "synthetic", 9);
    return s == NOEMA_OK && text ? nm_shard_member(w, key, "txt", text, caption) : s;
}

static noema_status put_row(nm_shard *w, noema_dataset *d, int64_t i, const char *key, const noema_convert_options *o, int64_t *rows)
{
    noema_dataset_row row;
    noema_error why = NOEMA_ERROR_INIT;
    const void *bytes = NULL;
    size_t n = 0;
    char *own = NULL;
    const char *suffix = NULL;
    noema_status s = noema_dataset_read(d, i, &row, &why);
    if (s == NOEMA_OK)
        s = nm_shard_picture(&row, &bytes, &n, &suffix, &own, &why);
    if (s != NOEMA_OK) {
        if (o->failed)
            o->failed(o->user, row.name, &why);
        free(own);
        return NOEMA_OK;
    }
    s = put_sample(w, d, &row, key, bytes, n, suffix);
    free(own);
    ++*rows;
    return s;
}

/* Rows [first, last) to PATH, complete or not at all. */
static noema_status put_shard(noema_dataset *d, const char *path, int64_t shard, int64_t first, int64_t last, const noema_convert_options *o, int64_t *rows,
                              noema_error *err)
{
    nm_shard w;
    noema_status s = nm_shard_create(&w, path, err);
    for (int64_t i = first; i < last && s == NOEMA_OK; i++) {
        char key[48];
        snprintf(key, sizeof key, "%05lld%06lld", (long long)shard, (long long)(i - first));
        s = put_row(&w, d, i, key, o, rows);
    }
    return nm_shard_close(&w, s);
}

/* Another source or size must not be mixed in. */
static noema_status check_folder(const noema_dataset *d, const char *dir, int64_t shard_rows, noema_error *err)
{
    nm_buf b = { 0 };
    nm_buf_printf(&b, "{\"rows\":%lld,\"shard_rows\":%lld,", (long long)noema_dataset_count(d), (long long)shard_rows);
    nm_shards_put_parts(&b, d);
    nm_buf_puts(&b, "}\n");
    return nm_shards_claim(dir, "convert.json", &b, err);
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
        char *path = nm_shard_path(dir, k, "tar");
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
        s = nm_shards_write(dir, "sizes.json", &sizes, err);
    if (s == NOEMA_OK)
        s = nm_shards_class_names(d, dir, err);
    nm_buf_free(&sizes);
    return s;
}
