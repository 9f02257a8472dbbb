/* embed.c - one wave of new and changed files: contents that are known keep their vectors, the rest is decoded and preprocessed by
 * workers while the model computes, hashed on the way from the same bytes. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/hash.h"
#include "index/intake.h"
#include "media/write.h"

enum { MAX_FILE_BYTES = 1 << 30 };

static noema_status code_of(const noema_error *err)
{
    return err && err->code ? err->code : NOEMA_E_IO;
}

static void hash_bytes(nm_file *f, const void *data, size_t size)
{
    nm_sha256 h;
    nm_sha256_init(&h);
    nm_sha256_update(&h, data, size);
    nm_sha256_final(&h, f->hash);
    f->hashed = true;
}

/* Files whose size some item has may be known contents: they are hashed before anything is decoded. */
static void hash_files(void *arg, int64_t begin, int64_t end, int worker)
{
    nm_file **list = arg;
    (void)worker;
    for (int64_t i = begin; i < end; i++) {
        nm_map m;
        if (nm_map_file(&m, list[i]->path, NULL) == NOEMA_OK) /* what cannot be read fails later, with a message */
            hash_bytes(list[i], m.data, m.size);
        nm_unmap(&m);
    }
}

static bool size_is_known(nm_index_job *j, int64_t size)
{
    sqlite3_stmt *st = nm_catalog_stmt(&j->c->cat, NM_SQL_ITEM_BY_SIZE, NULL);
    if (!st)
        return false;
    sqlite3_bind_int(st, 1, NOEMA_ITEM_IMAGE);
    sqlite3_bind_int64(st, 2, size);
    bool known = nm_catalog_step(&j->c->cat, st, NULL) > 0;
    sqlite3_reset(st);
    return known;
}

static bool is_gone(const char *path)
{
    struct stat st;
    return stat(path, &st) != 0 && (errno == ENOENT || errno == ENOTDIR);
}

/* An item with this content and a usable vector; one whose file is gone is preferred (*moved). */
static noema_status same_content(nm_index_job *j, const nm_file *f, nm_item *item, bool *found, bool *moved)
{
    *found = *moved = false;
    sqlite3_stmt *st = nm_catalog_stmt(&j->c->cat, NM_SQL_ITEM_BY_HASH, j->err);
    if (!st)
        return code_of(j->err);
    sqlite3_bind_blob(st, 1, f->hash, 32, SQLITE_STATIC);
    sqlite3_bind_int(st, 2, NOEMA_ITEM_IMAGE);
    int r;
    while (!*moved && (r = nm_catalog_step(&j->c->cat, st, j->err)) > 0) {
        nm_item it;
        if (nm_store_row(j->c, st, &it, NULL) != NOEMA_OK || !nm_store_readable(j->c, it.segment, it.row))
            continue;
        bool gone = strcmp(it.path, f->path) != 0 && is_gone(it.path);
        if (*found && !gone)
            continue;
        *found = true;
        *moved = gone;
        *item = it;
        item->path = NULL;
    }
    bool failed = !*moved && r < 0;
    sqlite3_reset(st);
    return failed ? code_of(j->err) : NOEMA_OK;
}

static noema_status run_item(nm_index_job *j, nm_sql which, int64_t id, const nm_file *f)
{
    sqlite3_stmt *st = nm_catalog_stmt(&j->c->cat, which, j->err);
    if (!st)
        return code_of(j->err);
    int k = 1;
    sqlite3_bind_int64(st, k++, id);
    if (which == NM_SQL_ITEM_MOVE)
        sqlite3_bind_text(st, k++, f->path, -1, SQLITE_STATIC);
    sqlite3_bind_int64(st, k++, f->size);
    sqlite3_bind_int64(st, k++, f->mtime_ns);
    return nm_catalog_run(&j->c->cat, st, j->err);
}

/* The vector (and thumbnail) of `from` under the path of f as well. */
static noema_status copy_item(nm_index_job *j, nm_file *f, const nm_item *from, bool replaces)
{
    float *v = nm_malloc_array((size_t)j->c->dim, sizeof *v);
    if (!v)
        return nm_fail(j->err, NOEMA_E_MEMORY, "%s: out of memory", f->path);
    nm_segment_read(nm_store_segment(j->c, from->segment), from->row, v);
    const void *thumb = NULL;
    size_t bytes = 0;
    if (j->o.thumbnails && noema_collection_thumbnail(j->c, from->id, &thumb, &bytes, NULL) != NOEMA_OK)
        thumb = NULL;
    nm_entry e = { .kind = NOEMA_ITEM_IMAGE, .path = f->path, .size = f->size, .mtime_ns = f->mtime_ns, .hash = f->hash, .width = from->width,
                   .height = from->height, .thumb = thumb, .thumb_bytes = bytes };
    noema_status s = nm_store_put(j->c, &e, v, NULL, j->err);
    free(v);
    j->now.added += !replaces;
    j->now.changed += replaces;
    j->now.copied += !replaces;
    return s;
}

/* f's content is hashed: is its vector there already? */
static noema_status try_known(nm_index_job *j, nm_file *f)
{
    nm_item mine = { 0 }, other = { 0 };
    bool have, found, moved;
    noema_status s = nm_index_lookup(j, f->path, &mine, &have);
    if (s != NOEMA_OK)
        return s;
    if (have && memcmp(mine.hash, f->hash, 32) == 0 && nm_store_readable(j->c, mine.segment, mine.row)) { /* only touched */
        f->settled = true;
        j->now.unchanged++;
        s = nm_store_begin(j->c, j->err);
        return s == NOEMA_OK ? run_item(j, NM_SQL_ITEM_TOUCH, mine.id, f) : s;
    }
    s = same_content(j, f, &other, &found, &moved);
    if (s != NOEMA_OK || !found)
        return s;
    f->settled = true;
    if ((s = nm_store_begin(j->c, j->err)) != NOEMA_OK)
        return s;
    if (!moved)
        return copy_item(j, f, &other, have);
    if (have && (s = nm_store_delete(j->c, &mine, j->err)) != NOEMA_OK) /* another picture took its place */
        return s;
    j->now.moved++;
    return run_item(j, NM_SQL_ITEM_MOVE, other.id, f);
}

static noema_status settle_known(nm_index_job *j)
{
    size_t n = 0;
    for (size_t i = 0; i < j->n_files; i++)
        if (!j->file[i].settled && size_is_known(j, j->file[i].size))
            j->todo[n++] = &j->file[i];
    nm_parallel_for(nm_store_pool(j->c), (int64_t)n, 1, hash_files, j->todo);
    noema_status s = NOEMA_OK;
    for (size_t i = 0; i < n && s == NOEMA_OK; i++) {
        if (!j->todo[i]->hashed)
            continue;
        s = try_known(j, j->todo[i]);
        if (s == NOEMA_OK && j->todo[i]->settled && (s = nm_index_commit(j, true)) == NOEMA_OK)
            s = nm_index_progress(j, 1, j->todo[i]->path);
    }
    return s;
}

/* A JPEG of at most o.thumbnails pixels, the right way up. */
static noema_status make_thumb(const nm_index_job *j, nm_file *f, const nm_image *im, noema_error *err)
{
    nm_image small = { 0 };
    nm_buf b = { 0 };
    noema_status s = nm_thumbnail(&small, im, j->o.thumbnails, err);
    if (s == NOEMA_OK && im->orientation > 1)
        s = nm_image_transpose(&small, im->orientation, err);
    if (s == NOEMA_OK)
        s = nm_jpeg_encode(&b, &small, 85, err);
    nm_image_free(&small);
    f->thumb_bytes = b.len;
    f->thumb = s == NOEMA_OK ? nm_buf_take(&b) : NULL;
    nm_buf_free(&b);
    return s;
}

/* A worker's part: read, hash, decode, thumbnail, preprocess. */
static noema_status load(void *arg, size_t i, nm_preprocess_scratch *scratch, nm_image *own, float *out, noema_error *err)
{
    nm_index_job *j = arg;
    nm_file *f = j->todo[i];
    const nm_model *m = j->s->model->m;
    const nm_image *im = own;
    char *data;
    size_t size;
    noema_status s = nm_read_file(&data, &size, f->path, MAX_FILE_BYTES, err);
    if (s != NOEMA_OK)
        return s;
    hash_bytes(f, data, size);
    if (j->o.thumbnails) /* needs all pixels; the model alone often less */
        s = nm_image_decode(own, data, size, f->path, NULL, err);
    else
        s = nm_preprocess_load_bytes(&m->preprocess, scratch, data, size, f->path, NULL, &im, err);
    free(data);
    int h = 0, w = 0;
    if (s == NOEMA_OK) {
        f->width = im->width;
        f->height = im->height;
        s = nm_preprocess_size(&m->preprocess, im->width, im->height, &h, &w, err);
    }
    if (s == NOEMA_OK && (h != m->image_height || w != m->image_width))
        s = nm_fail(err, NOEMA_E_MISMATCH, "%s: preprocessing gives %dx%d, the model takes %dx%d", f->path, h, w, m->image_height, m->image_width);
    if (s == NOEMA_OK)
        s = nm_preprocess_run(&m->preprocess, scratch, im, out, err);
    if (s == NOEMA_OK && j->o.thumbnails)
        s = make_thumb(j, f, im, err);
    return s;
}

static noema_status put_file(nm_index_job *j, const nm_file *f, const float *v)
{
    nm_item old;
    bool have;
    noema_error why = NOEMA_ERROR_INIT;
    noema_status s = nm_index_lookup(j, f->path, &old, &have);
    if (s != NOEMA_OK)
        return s;
    nm_entry e = { .kind = NOEMA_ITEM_IMAGE, .path = f->path, .size = f->size, .mtime_ns = f->mtime_ns, .hash = f->hash, .width = f->width,
                   .height = f->height, .thumb = f->thumb, .thumb_bytes = f->thumb_bytes };
    s = nm_store_put(j->c, &e, v, NULL, &why);
    if (s == NOEMA_E_ARGUMENT) /* the model gave no usable vector: this picture alone fails */
        return nm_index_failed(j, f, &why);
    if (s != NOEMA_OK)
        return nm_fail(j->err, s, "%s", why.message);
    j->now.added += !have;
    j->now.changed += have;
    sqlite3_stmt *st = nm_catalog_stmt(&j->c->cat, NM_SQL_FAILED_DELETE, j->err);
    if (!st)
        return code_of(j->err);
    sqlite3_bind_text(st, 1, f->path, -1, SQLITE_STATIC);
    return nm_catalog_run(&j->c->cat, st, j->err);
}

/* The caller's part: a batch that is ready is embedded and put. */
static noema_status compute(void *arg, size_t first, size_t n, float *tensors, const bool *ok, noema_error *err)
{
    nm_index_job *j = arg;
    size_t dim = (size_t)j->c->dim;
    noema_status s = noema_embed_tensors(j->s, n, tensors, NOEMA_NORMALIZE | NOEMA_ALL_VECTORS, j->vectors, err);
    if (s == NOEMA_OK)
        nm_store_rows(j->c, n, j->vectors, false);
    for (size_t i = 0; i < n && s == NOEMA_OK; i++) {
        nm_file *f = j->todo[first + i];
        s = ok[i] ? put_file(j, f, j->vectors + i * dim) : nm_index_failed(j, f, &j->errors[first + i]);
        free(f->thumb);
        f->thumb = NULL;
        if (s == NOEMA_OK && (s = nm_index_commit(j, true)) == NOEMA_OK)
            s = nm_index_progress(j, 1, f->path);
    }
    return s;
}

static int by_path(const void *a, const void *b)
{
    const nm_file *x = *(nm_file *const *)a, *y = *(nm_file *const *)b;
    int r = strcmp(x->path, y->path);
    return r ? r : (x > y) - (x < y);
}

/* A path that was named twice counts once. */
static void settle_twins(nm_index_job *j)
{
    for (size_t i = 0; i < j->n_files; i++)
        j->todo[i] = &j->file[i];
    qsort(j->todo, j->n_files, sizeof *j->todo, by_path);
    for (size_t i = 1; i < j->n_files; i++)
        if (strcmp(j->todo[i]->path, j->todo[i - 1]->path) == 0)
            j->todo[i]->settled = true;
}

static noema_status embed_rest(nm_index_job *j)
{
    size_t n = 0;
    for (size_t i = 0; i < j->n_files; i++)
        if (!j->file[i].settled)
            j->todo[n++] = &j->file[i];
    noema_session *s = j->s;
    const nm_model *m = s->model->m;
    if (!s->intake && !(s->intake = nm_intake_new(nm_pool_size(s->model->ctx->pool))))
        return nm_fail(j->err, NOEMA_E_MEMORY, "out of memory: decoders");
    for (size_t i = 0; i < n; i++)
        nm_err_clear(&j->errors[i]);
    return nm_intake_run(s->intake, n, j->batch, 3 * (size_t)m->image_height * (size_t)m->image_width, load, compute, j, j->errors, j->err);
}

noema_status nm_index_wave(nm_index_job *j)
{
    settle_twins(j);
    noema_status s = settle_known(j);
    if (s == NOEMA_OK)
        s = embed_rest(j);
    if (s == NOEMA_OK) /* rows count as readable from here on: what the next wave meets again is unchanged */
        s = nm_index_commit(j, false);
    for (size_t i = 0; i < j->n_files; i++) {
        free(j->file[i].path);
        free(j->file[i].thumb);
    }
    j->n_files = 0;
    return s;
}
