/* collection.c - opening a collection, and keeping step with what another process commits. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <dirent.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "index/store.h"
#include "models/handle.h"

static noema_status no_memory(const noema_collection *c, noema_error *err)
{
    return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", c->path ? c->path : "collection");
}

char *nm_absolute_path(const char *path)
{
    if (strstr(path, "..")) { /* only the file system knows where ".." leads from a link */
        char *dir = nm_path_dir(path), *real = dir ? realpath(dir, NULL) : NULL, *out = NULL;
        const char *base = nm_path_base(path);
        if (real && strcmp(base, "..") != 0 && strcmp(base, ".") != 0)
            out = *base ? nm_path_join(real, base) : nm_strdup(real);
        else if (real)
            out = realpath(path, NULL);
        free(dir);
        free(real);
        if (out)
            return out;
    }
    char *cwd = path[0] == '/' ? nm_strdup("") : getcwd(NULL, 0);
    char *out = cwd ? malloc(strlen(cwd) + strlen(path) + 3) : NULL;
    if (!out) {
        free(cwd);
        return NULL;
    }
    size_t n = 0;
    for (const char *part[2] = { cwd, path }, **p = part; p < part + 2; p++)
        for (const char *s = *p; *s;) { /* copy each component but "" and "." */
            size_t len = strcspn(s, "/");
            if (len && !(len == 1 && s[0] == '.')) {
                out[n++] = '/';
                memcpy(out + n, s, len);
                n += len;
            }
            s += len + (s[len] == '/');
        }
    if (!n)
        out[n++] = '/';
    out[n] = 0;
    free(cwd);
    return out;
}

nm_pool *nm_store_pool(const noema_collection *c)
{
    return c->ctx ? c->ctx->pool : NULL;
}

nm_segment *nm_store_segment(const noema_collection *c, uint64_t id)
{
    for (int i = c->n_segments - 1; i >= 0; i--)
        if (c->segments[i]->h.id == id)
            return c->segments[i];
    return NULL;
}

bool nm_store_readable(const noema_collection *c, uint64_t segment, int64_t row)
{
    const nm_segment *s = nm_store_segment(c, segment);
    return s && nm_segment_good(s, row);
}

noema_status nm_store_row(noema_collection *c, sqlite3_stmt *st, nm_item *item, noema_error *err)
{
    const void *hash = sqlite3_column_blob(st, 7);
    *item = (nm_item){ .id = sqlite3_column_int64(st, 0), .kind = sqlite3_column_int(st, 1), .path = (const char *)sqlite3_column_text(st, 2),
                       .segment = (uint64_t)sqlite3_column_int64(st, 3), .row = sqlite3_column_int64(st, 4), .size = sqlite3_column_int64(st, 5),
                       .mtime_ns = sqlite3_column_int64(st, 6), .width = sqlite3_column_int(st, 8), .height = sqlite3_column_int(st, 9),
                       .added = sqlite3_column_int64(st, 10) };
    if (!item->path || !hash || sqlite3_column_bytes(st, 7) != 32)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: item %lld has no path or no hash", c->cat.path, (long long)item->id);
    memcpy(item->hash, hash, 32);
    return NOEMA_OK;
}

/* Space, model, dim, dtype and uid; all absent while nothing was ever added. */
static noema_status load_meta(noema_collection *c, noema_error *err)
{
    static const char *const key[6] = { "space", "model", "dim", "dtype", "uid", "vectors" };
    char *v[6] = { 0 };
    noema_status s = NOEMA_OK;
    for (int i = 0; i < 6 && s == NOEMA_OK; i++)
        s = nm_catalog_get(&c->cat, key[i], &v[i], err);
    if (s == NOEMA_OK && v[0]) {
        char *end = NULL;
        long dim = v[2] ? strtol(v[2], &end, 10) : 0, vectors = v[5] ? strtol(v[5], NULL, 10) : 1;
        if (!v[1] || !v[3] || !v[4] || *end || dim < 1 || dim > NM_SEG_MAX_DIM || (strcmp(v[3], "f32") != 0 && strcmp(v[3], "f16") != 0))
            s = nm_fail(err, NOEMA_E_FORMAT, "%s: expected model, dim, dtype and uid beside the space, got dim %s, dtype %s", c->cat.path,
                        v[2] ? v[2] : "none", v[3] ? v[3] : "none");
        else if (vectors < 1 || vectors > NM_STORE_MAX_VECTORS || dim % vectors)
            s = nm_fail(err, NOEMA_E_FORMAT, "%s: expected 1 to %d vectors an item that divide dim %ld, got %s", c->cat.path, NM_STORE_MAX_VECTORS, dim, v[5]);
        else if (c->dim && (c->dim != dim || strcmp(c->space, v[0]) != 0))
            s = nm_fail(err, NOEMA_E_MISMATCH, "%s: the collection was replaced by another one while it was open", c->path);
        else {
            free(c->space);
            free(c->model);
            c->space = v[0];
            c->model = v[1];
            v[0] = v[1] = NULL;
            c->dim = (int)dim;
            c->vectors = (int)vectors;
            c->dtype = strcmp(v[3], "f16") == 0 ? NM_F16 : NM_F32;
            c->uid = strtoull(v[4], NULL, 16);
        }
    }
    for (int i = 0; i < 6; i++)
        free(v[i]);
    return s;
}

typedef struct verify_job { const nm_segment *s; const unsigned char *known; unsigned char *bad; } verify_job;

static void verify_blocks(void *arg, int64_t begin, int64_t end, int worker)
{
    const verify_job *j = arg;
    (void)worker;
    for (int64_t b = begin; b < end; b++)
        j->bad[b] = !j->known[b] && !nm_segment_block_good(j->s, b);
}

/* Maps the rows that are new to `s` and checks the blocks whose checksum is new. What cannot be used is skipped and said. */
static noema_status map_and_verify(noema_collection *c, nm_segment *s, int64_t rows, const uint64_t *sums, noema_error *err)
{
    noema_error why = NOEMA_ERROR_INIT;
    int64_t before = s->n_dropped, n_blocks = nm_segment_blocks(rows), old = nm_segment_blocks(s->rows);
    if (!s->data || rows > s->usable)
        nm_segment_map(s, rows, &why);
    s->rows = rows;
    unsigned char *known = malloc(2 * (size_t)n_blocks);
    if (!known)
        return no_memory(c, err);
    unsigned char *bad = known + n_blocks;
    bool trust = c->trust && s->data && s->usable >= rows;
    for (int64_t b = 0; b < n_blocks; b++) {
        known[b] = trust || (b < old && s->checksums[b] == sums[b]);
        s->checksums[b] = sums[b];
    }
    verify_job job = { s, known, bad };
    nm_parallel_for(nm_store_pool(c), n_blocks, 16, verify_blocks, &job);
    for (int64_t b = 0; b < n_blocks; b++)
        if (bad[b])
            nm_segment_drop_block(s, b);
    free(known);
    int64_t lost = s->n_dropped - before;
    if (!lost)
        return NOEMA_OK;
    if (!s->data)
        nm_buf_printf(&c->notes, "%s; its %lld rows are dropped\n", why.message, (long long)lost);
    else if (s->usable < rows)
        nm_buf_printf(&c->notes, "%s: expected %lld rows, got %lld; %lld rows are dropped\n", s->path, (long long)rows, (long long)s->usable,
                      (long long)lost);
    else
        nm_buf_printf(&c->notes, "%s: %lld rows do not match their checksum and are dropped\n", s->path, (long long)lost);
    return NOEMA_OK;
}

static nm_segment *open_segment(noema_collection *c, uint64_t id)
{
    char name[32];
    snprintf(name, sizeof name, "vectors-%06" PRIu64 ".seg", id);
    char *path = nm_path_join(c->path, name);
    nm_segment_header h = { .uid = c->uid, .id = id, .dtype = c->dtype, .dim = c->dim, .capacity = NM_SEG_CAPACITY };
    nm_segment *s = path ? nm_segment_new(&h, path) : NULL;
    free(path);
    return s;
}

/* One row of the table `segments`: an open segment learns what changed, a new one is opened. */
static noema_status load_segment(noema_collection *c, sqlite3_stmt *st, nm_segment **out, noema_error *err)
{
    int64_t id = sqlite3_column_int64(st, 0), rows = sqlite3_column_int64(st, 1);
    const void *sums = sqlite3_column_blob(st, 2), *deleted = sqlite3_column_blob(st, 3);
    int sum_bytes = sqlite3_column_bytes(st, 2), deleted_bytes = sqlite3_column_bytes(st, 3);
    if (!c->dim || id < 1 || id > 999999 || rows < 1 || rows > NM_SEG_CAPACITY || sum_bytes != 8 * nm_segment_blocks(rows) ||
        (deleted_bytes != 0 && deleted_bytes != NM_SEG_CAPACITY / 8))
        return nm_fail(err, NOEMA_E_FORMAT, "%s: segment %lld: expected at most %d rows and their checksums, got %lld rows, %d and %d bytes",
                       c->cat.path, (long long)id, NM_SEG_CAPACITY, (long long)rows, sum_bytes, deleted_bytes);
    nm_segment *s = nm_store_segment(c, (uint64_t)id);
    bool opened = s == NULL;
    if (opened && !(s = open_segment(c, (uint64_t)id)))
        return no_memory(c, err);
    *out = s;
    if (rows < s->rows)
        return nm_fail(err, NOEMA_E_MISMATCH, "%s: segment %lld shrank while it was open", c->cat.path, (long long)id);
    if (deleted_bytes)
        memcpy(s->deleted, deleted, (size_t)deleted_bytes);
    uint64_t *aligned = malloc((size_t)sum_bytes);
    if (!aligned)
        return no_memory(c, err);
    memcpy(aligned, sums, (size_t)sum_bytes);
    for (int64_t i = 0; i < NM_SEG_CAPACITY / 64; i++)
        s->skip[i] |= s->deleted[i];
    s->n_deleted = 0;
    for (int64_t i = 0; i < NM_SEG_CAPACITY / 64; i++)
        s->n_deleted += __builtin_popcountll(s->deleted[i]);
    noema_status r = map_and_verify(c, s, rows, aligned, err);
    free(aligned);
    return r;
}

/* The list of segments as the catalogue has it; segments that compaction replaced are closed. */
static noema_status load_segments(noema_collection *c, noema_error *err)
{
    sqlite3_stmt *st = nm_catalog_stmt(&c->cat, NM_SQL_SEGMENTS, err);
    nm_segment **list = NULL;
    int n = 0, r = -1;
    noema_status s = st ? NOEMA_OK : NOEMA_E_IO;
    while (s == NOEMA_OK && (r = nm_catalog_step(&c->cat, st, err)) > 0) {
        nm_segment **more = realloc(list, ((size_t)n + 1) * sizeof *list);
        if (!more) {
            s = no_memory(c, err);
            break;
        }
        list = more;
        list[n] = NULL;
        s = load_segment(c, st, &list[n], err);
        n += list[n] != NULL;
    }
    if (st)
        sqlite3_reset(st);
    if (s == NOEMA_OK && r < 0)
        s = NOEMA_E_IO;
    for (int i = 0; i < c->n_segments; i++) { /* what is not in the new list */
        bool kept = false;
        for (int j = 0; j < n && !kept; j++)
            kept = list[j] == c->segments[i];
        if (!kept)
            nm_segment_free(c->segments[i]);
    }
    free(c->segments);
    c->segments = list;
    c->n_segments = n;
    c->next_segment = n ? list[n - 1]->h.id + 1 : 1;
    return s;
}

noema_status nm_store_refresh(noema_collection *c, noema_error *err)
{
    int64_t version = nm_catalog_data_version(&c->cat);
    if (version < 0)
        return nm_catalog_fail(&c->cat, err);
    if (version == c->data_version)
        return NOEMA_OK;
    bool mine = !sqlite3_get_autocommit(c->cat.db); /* the caller's transaction: one snapshot already */
    noema_status s = mine ? NOEMA_OK : nm_catalog_exec(&c->cat, "BEGIN", err);
    if (s != NOEMA_OK)
        return s;
    version = nm_catalog_data_version(&c->cat);
    s = load_meta(c, err);
    if (s == NOEMA_OK)
        s = load_segments(c, err);
    sqlite3_stmt *st = s == NOEMA_OK ? nm_catalog_stmt(&c->cat, NM_SQL_ITEM_COUNT, err) : NULL;
    if (st && nm_catalog_step(&c->cat, st, err) > 0)
        c->n_items = sqlite3_column_int64(st, 0);
    else if (s == NOEMA_OK)
        s = NOEMA_E_IO;
    if (st)
        sqlite3_reset(st);
    if (!mine)
        sqlite3_exec(c->cat.db, "COMMIT", NULL, NULL, NULL);
    c->data_version = s == NOEMA_OK ? version : -1;
    return s;
}

static noema_status take_lock(noema_collection *c, noema_error *err)
{
    char *path = nm_path_join(c->path, "lock");
    if (!path)
        return no_memory(c, err);
    c->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    noema_status s = NOEMA_OK;
    if (c->lock_fd < 0)
        s = nm_fail(err, NOEMA_E_IO, "%s: cannot open the lock for writing: %s", path, strerror(errno));
    else if (flock(c->lock_fd, LOCK_EX | LOCK_NB) != 0)
        s = nm_fail(err, NOEMA_E_IO, errno == EWOULDBLOCK ? "%s: another process is writing to this collection" : "%s: cannot lock", c->path);
    free(path);
    return s;
}

static bool is_ours(const char *name)
{
    size_t n = strlen(name);
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || strcmp(name, "lock") == 0 || strncmp(name, "catalog.sqlite", 14) == 0 ||
           (n == 18 && strncmp(name, "vectors-", 8) == 0 && strcmp(name + 14, ".seg") == 0);
}

/* A new collection gets a folder of its own: nobody's pictures are mixed with our files by a mistyped option. */
static noema_status make_folder(noema_collection *c, noema_error *err)
{
    if (!nm_dir_exists(c->path))
        return nm_mkdirs(c->path, err);
    DIR *d = opendir(c->path);
    if (!d)
        return nm_fail(err, NOEMA_E_IO, "%s: cannot read the folder: %s", c->path, strerror(errno));
    noema_status s = NOEMA_OK;
    for (struct dirent *e; s == NOEMA_OK && (e = readdir(d));)
        if (!is_ours(e->d_name))
            s = nm_fail(err, NOEMA_E_ARGUMENT, "%s: expected a collection or an empty folder, got one with %s in it", c->path, e->d_name);
    closedir(d);
    return s;
}

/* Segment files that no commit knows: left by a writer that was killed. Called with the lock. The first segment comes after the
 * commit that names the space: segments beside a catalogue without one mean that the catalogue is lost, and nothing is touched. */
static noema_status sweep(noema_collection *c, noema_error *err)
{
    DIR *d = opendir(c->path);
    if (!d)
        return nm_fail(err, NOEMA_E_IO, "%s: cannot read the folder: %s", c->path, strerror(errno));
    noema_status s = NOEMA_OK;
    for (struct dirent *e; s == NOEMA_OK && (e = readdir(d));) {
        if (!is_ours(e->d_name) || strncmp(e->d_name, "vectors-", 8) != 0)
            continue;
        char *end;
        uint64_t id = strtoull(e->d_name + 8, &end, 10);
        if (strcmp(end, ".seg") != 0 || nm_store_segment(c, id))
            continue;
        if (!c->dim)
            s = nm_fail(err, NOEMA_E_FORMAT, "%s: expected a catalogue that knows %s, got an empty one: restore catalog.sqlite from a backup, or "
                        "delete the vectors too", c->path, e->d_name);
        else
            unlinkat(dirfd(d), e->d_name, 0);
    }
    closedir(d);
    return s;
}

static noema_status open_in(noema_collection *c, unsigned flags, noema_error *err)
{
    char *catalog = nm_path_join(c->path, "catalog.sqlite");
    if (!catalog)
        return no_memory(c, err);
    bool there = nm_file_exists(catalog), create = flags & NOEMA_COLLECTION_CREATE && !c->read_only;
    noema_status s = NOEMA_OK;
    if (!there && !create)
        s = nm_fail(err, NOEMA_E_MISSING, "%s: no collection is there", c->path);
    else if (!there)
        s = make_folder(c, err);
    if (s == NOEMA_OK && !c->read_only)
        s = take_lock(c, err);
    if (s == NOEMA_OK)
        s = nm_catalog_open(&c->cat, catalog, create, c->read_only, err);
    if (s == NOEMA_OK)
        s = nm_store_refresh(c, err);
    if (s == NOEMA_OK && !c->read_only)
        s = sweep(c, err);
    free(catalog);
    return s;
}

noema_status noema_collection_open(noema_collection **out, noema_context *ctx, const char *path, unsigned flags, noema_error *err)
{
    *out = NULL;
    noema_collection *c = calloc(1, sizeof *c);
    if (!c)
        return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", path);
    c->ctx = ctx;
    c->lock_fd = -1;
    c->data_version = -1;
    c->read_only = flags & NOEMA_COLLECTION_READONLY;
    c->trust = flags & NOEMA_COLLECTION_TRUST;
    c->dtype = flags & NOEMA_COLLECTION_F16 ? NM_F16 : NM_F32;
    c->path = nm_absolute_path(path);
    c->space = nm_strdup("");
    c->model = nm_strdup("");
    c->results = nm_arena_new(4096);
    noema_status s = c->path && c->space && c->model && c->results ? open_in(c, flags, err) : no_memory(c, err);
    if (s != NOEMA_OK) {
        noema_collection_free(c);
        return err && err->code ? err->code : s;
    }
    *out = c;
    return NOEMA_OK;
}

void noema_collection_free(noema_collection *c)
{
    if (!c)
        return;
    if (c->in_tx)
        nm_store_rollback(c);
    nm_catalog_close(&c->cat);
    for (int i = 0; i < c->n_segments; i++)
        nm_segment_free(c->segments[i]);
    free(c->segments);
    if (c->lock_fd >= 0)
        close(c->lock_fd);
    nm_arena_free(c->results);
    nm_buf_free(&c->notes);
    free(c->gone);
    free(c->note);
    free(c->path);
    free(c->space);
    free(c->model);
    free(c);
}

void nm_store_rows(const noema_collection *c, size_t n, float *v, bool text)
{
    size_t parts = (size_t)c->vectors, dim = (size_t)c->dim, each = dim / parts;
    float scale = (float)(1 / sqrt((double)parts));
    if (parts == 1)
        return;
    for (size_t i = 0; i < n * (text ? each : dim); i++)
        v[i] *= scale;
    for (size_t i = n; text && i-- > 0;) { /* from behind: texts grow in place */
        memmove(v + i * dim, v + i * each, each * sizeof *v);
        for (size_t k = 1; k < parts; k++)
            memcpy(v + i * dim + k * each, v + i * dim, each * sizeof *v);
    }
}

/* A query's row has room for the collection's dim; a model of another width must not write beyond it. */
static noema_status same_width(noema_collection *c, const noema_session *s, noema_error *err)
{
    const noema_model_info *i = noema_model_get_info(s->model);
    if (c->dim == i->embed_dim * i->image_vectors && c->vectors == i->image_vectors)
        return NOEMA_OK;
    return nm_fail(err, NOEMA_E_MISMATCH, "%s: its rows are %d vectors of %d elements; model %s has %d of %d", c->path, c->vectors,
                   c->vectors ? c->dim / c->vectors : 0, i->name, i->image_vectors, i->embed_dim);
}

noema_status noema_collection_query_text(noema_collection *c, noema_session *s, const char *text, float *v, noema_error *err)
{
    noema_status st = same_width(c, s, err);
    if (st == NOEMA_OK)
        st = noema_embed_texts(s, 1, &text, NULL, NOEMA_NORMALIZE, v, err);
    if (st == NOEMA_OK)
        nm_store_rows(c, 1, v, true);
    return st;
}

noema_status noema_collection_query_image(noema_collection *c, noema_session *s, const char *path, float *v, noema_error *err)
{
    noema_status st = same_width(c, s, err);
    if (st == NOEMA_OK)
        st = noema_embed_image_files(s, 1, &path, NOEMA_NORMALIZE | NOEMA_ALL_VECTORS, v, NULL, err);
    if (st == NOEMA_OK)
        nm_store_rows(c, 1, v, false);
    return st;
}

const noema_collection_info *noema_collection_get_info(noema_collection *c)
{
    nm_store_refresh(c, NULL);
    noema_collection_info *i = &c->info;
    *i = (noema_collection_info){ .struct_size = sizeof *i, .path = c->path, .space = c->space, .model = c->model,
                                  .dtype = nm_dtype_name(c->dtype), .dim = c->dim, .n_items = c->n_items, .n_segments = c->n_segments,
                                  .notes = c->notes.data ? c->notes.data : "", .vectors = c->dim ? c->vectors : 1 };
    struct stat st;
    for (int k = 0; k < c->n_segments; k++) {
        i->n_deleted += c->segments[k]->n_deleted;
        i->n_dropped += c->segments[k]->n_dropped;
        i->bytes += stat(c->segments[k]->path, &st) == 0 ? st.st_size : 0;
    }
    i->bytes += stat(c->cat.path, &st) == 0 ? st.st_size : 0;
    sqlite3_stmt *q = nm_catalog_stmt(&c->cat, NM_SQL_FAILED_COUNT, NULL);
    if (q && nm_catalog_step(&c->cat, q, NULL) > 0)
        i->n_failed = sqlite3_column_int64(q, 0);
    if (q)
        sqlite3_reset(q);
    return i;
}
