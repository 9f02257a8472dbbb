/* write.c - the writer's transaction. Order of a commit: rows into the segments and synced, then one SQLite transaction that makes
 * them count. A kill or a full disk between the two leaves bytes behind the committed rows, which the next append overwrites. */
#define _GNU_SOURCE
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/file.h"
#include "base/hash.h"
#include "index/store.h"

static noema_status no_memory(const noema_collection *c, noema_error *err)
{
    return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", c->path);
}

static noema_status code_of(const noema_error *err)
{
    return err && err->code ? err->code : NOEMA_E_IO;
}

static noema_status writable(const noema_collection *c, noema_error *err)
{
    return c->read_only ? nm_fail(err, NOEMA_E_ARGUMENT, "%s: the collection is open for reading only", c->path) : NOEMA_OK;
}

noema_status nm_store_space(noema_collection *c, const char *space, const char *model, int dim, int vectors, noema_error *err)
{
    noema_status s = writable(c, err);
    if (s != NOEMA_OK)
        return s;
    if (c->dim) {
        if (strcmp(c->space, space) == 0 && c->dim == dim && c->vectors == vectors)
            return NOEMA_OK;
        return nm_fail(err, NOEMA_E_MISMATCH, "%s: its vectors are of model %.120s, %d dimensions, space %.90s; got model %.120s, %d, space %.90s",
                       c->path, c->model, c->dim, c->space, model, dim, space);
    }
    if (!space[0] || dim < 1 || dim > NM_SEG_MAX_DIM)
        return nm_fail(err, NOEMA_E_ARGUMENT, "%s: expected a named space of 1 to %d dimensions, got '%s', %d", c->path, NM_SEG_MAX_DIM, space, dim);
    if (vectors < 1 || vectors > NM_STORE_MAX_VECTORS)
        return nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: expected 1 to %d vectors a picture, model %.120s has %d", c->path, NM_STORE_MAX_VECTORS, model, vectors);
    uint64_t uid = 0;
    if (getrandom(&uid, sizeof uid, 0) != (ssize_t)sizeof uid)
        return nm_fail(err, NOEMA_E_IO, "%s: no random number from the system", c->path);
    char number[16], many[16], hex[24];
    snprintf(number, sizeof number, "%d", dim);
    snprintf(many, sizeof many, "%d", vectors);
    snprintf(hex, sizeof hex, "%016" PRIx64, uid);
    const char *kv[6][2] = { { "space", space }, { "model", model }, { "dim", number }, { "dtype", nm_dtype_name(c->dtype) }, { "uid", hex },
                             { "vectors", many } }; /* only where there are several */
    bool mine = !c->in_tx;
    if (mine && (s = nm_store_begin(c, err)) != NOEMA_OK)
        return s;
    for (int i = 0; i < 5 + (vectors > 1) && s == NOEMA_OK; i++)
        s = nm_catalog_set(&c->cat, kv[i][0], kv[i][1], err);
    if (s == NOEMA_OK && mine)
        s = nm_store_commit(c, err);
    if (s == NOEMA_OK) {
        c->data_version = -1; /* read it back: the values that count are those on disk */
        return nm_store_refresh(c, err);
    }
    if (mine)
        nm_store_rollback(c);
    return s;
}

noema_status nm_store_begin(noema_collection *c, noema_error *err)
{
    if (c->in_tx)
        return NOEMA_OK;
    noema_status s = writable(c, err);
    if (s == NOEMA_OK)
        s = nm_store_refresh(c, err);
    if (s == NOEMA_OK)
        s = nm_catalog_exec(&c->cat, "BEGIN IMMEDIATE", err);
    c->in_tx = s == NOEMA_OK;
    c->n_gone = 0;
    c->d_items = 0;
    return s;
}

nm_segment *nm_store_tail(noema_collection *c, noema_error *err)
{
    nm_segment *s = c->n_segments ? c->segments[c->n_segments - 1] : NULL;
    if (s && s->h.id >= c->tail_from && (s->n_pending ? s->rows + s->n_pending < s->h.capacity : nm_segment_can_append(s)))
        return s;
    char name[32];
    snprintf(name, sizeof name, "vectors-%06" PRIu64 ".seg", c->next_segment);
    char *path = nm_path_join(c->path, name);
    nm_segment_header h = { .uid = c->uid, .id = c->next_segment, .dtype = c->dtype, .dim = c->dim, .capacity = NM_SEG_CAPACITY };
    nm_segment **more = nm_realloc_array(c->segments, (size_t)c->n_segments + 1, sizeof *more);
    if (more)
        c->segments = more;
    s = path && more ? nm_segment_new(&h, path) : NULL;
    free(path);
    if (!s) {
        no_memory(c, err);
        return NULL;
    }
    s->fresh = true;
    c->segments[c->n_segments++] = s;
    c->next_segment++;
    return s;
}

/* v / |v|, in double; a vector that is of length 1 already keeps its bits. false: not finite, or zero. */
static bool unit(const float *v, int dim, float *out)
{
    double sum = 0;
    for (int i = 0; i < dim; i++)
        sum += (double)v[i] * v[i];
    if (!isfinite(sum) || sum <= 0)
        return false;
    double scale = fabs(sum - 1) < 1e-6 ? 1 : 1 / sqrt(sum);
    for (int i = 0; i < dim; i++)
        out[i] = (float)(v[i] * scale);
    return true;
}

noema_status nm_store_gone(noema_collection *c, uint64_t segment, int64_t row, noema_error *err)
{
    nm_segment *s = nm_store_segment(c, segment);
    if (!s || row < 0 || row >= s->rows + s->n_pending)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: an item claims row %lld of segment %llu, which is not there", c->cat.path, (long long)row,
                       (unsigned long long)segment);
    if (c->n_gone == c->cap_gone) {
        size_t cap = c->cap_gone ? 2 * c->cap_gone : 64;
        nm_place *p = nm_realloc_array(c->gone, cap, sizeof *p);
        if (!p)
            return no_memory(c, err);
        c->gone = p;
        c->cap_gone = cap;
    }
    c->gone[c->n_gone++] = (nm_place){ s, row };
    return NOEMA_OK;
}

/* Writes the row of `items`: of the item `old`, or a new one. */
static noema_status put_item(noema_collection *c, const nm_entry *e, const nm_item *old, const nm_segment *seg, int64_t *id, noema_error *err)
{
    sqlite3_stmt *st = nm_catalog_stmt(&c->cat, old ? NM_SQL_ITEM_UPDATE : NM_SQL_ITEM_INSERT, err);
    if (!st)
        return code_of(err);
    if (old)
        sqlite3_bind_int64(st, 1, old->id);
    else {
        sqlite3_bind_int(st, 1, e->kind);
        sqlite3_bind_text(st, 2, e->path, -1, SQLITE_STATIC);
    }
    sqlite3_bind_int64(st, 3, (int64_t)seg->h.id);
    sqlite3_bind_int64(st, 4, seg->rows + seg->n_pending - 1);
    sqlite3_bind_int64(st, 5, e->size);
    sqlite3_bind_int64(st, 6, e->mtime_ns);
    sqlite3_bind_blob(st, 7, e->hash, 32, SQLITE_STATIC);
    sqlite3_bind_int(st, 8, e->width);
    sqlite3_bind_int(st, 9, e->height);
    noema_status s = nm_catalog_run(&c->cat, st, err);
    *id = old ? old->id : sqlite3_last_insert_rowid(c->cat.db);
    c->d_items += old == NULL;
    return s;
}

static noema_status put_thumb(noema_collection *c, const nm_entry *e, int64_t id, noema_error *err)
{
    sqlite3_stmt *st = nm_catalog_stmt(&c->cat, e->thumb ? NM_SQL_THUMB_PUT : NM_SQL_THUMB_DELETE, err);
    if (!st)
        return code_of(err);
    sqlite3_bind_int64(st, 1, id);
    if (e->thumb)
        sqlite3_bind_blob64(st, 2, e->thumb, e->thumb_bytes, SQLITE_STATIC);
    return nm_catalog_run(&c->cat, st, err);
}

noema_status nm_store_put(noema_collection *c, const nm_entry *e, const float *v, int64_t *id, noema_error *err)
{
    noema_status s = nm_store_begin(c, err);
    float *u = s == NOEMA_OK ? nm_malloc_array((size_t)c->dim, sizeof *u) : NULL;
    if (!u)
        return s != NOEMA_OK ? s : no_memory(c, err);
    nm_segment *seg = NULL;
    if (!unit(v, c->dim, u))
        s = nm_fail(err, NOEMA_E_ARGUMENT, "%s: expected a vector of finite length, got zeros, NaN or infinities", e->path);
    else if (!(seg = nm_store_tail(c, err)))
        s = code_of(err);
    else if (!nm_segment_put(seg, u))
        s = no_memory(c, err);
    free(u);
    if (s != NOEMA_OK)
        return s;

    sqlite3_stmt *st = nm_catalog_stmt(&c->cat, NM_SQL_ITEM_BY_PATH, err);
    if (!st)
        return code_of(err);
    sqlite3_bind_int(st, 1, e->kind);
    sqlite3_bind_text(st, 2, e->path, -1, SQLITE_STATIC);
    nm_item old;
    int r = nm_catalog_step(&c->cat, st, err);
    if (r > 0)
        s = nm_store_row(c, st, &old, err);
    sqlite3_reset(st);
    if (r < 0)
        return code_of(err);
    if (s == NOEMA_OK && r > 0)
        s = nm_store_gone(c, old.segment, old.row, err);
    int64_t got = 0;
    if (s == NOEMA_OK)
        s = put_item(c, e, r > 0 ? &old : NULL, seg, &got, err);
    if (s == NOEMA_OK && (e->thumb || r > 0))
        s = put_thumb(c, e, got, err);
    if (id)
        *id = got;
    return s;
}

noema_status nm_store_delete(noema_collection *c, const nm_item *item, noema_error *err)
{
    int64_t id = item->id; /* the strings of `item` may belong to a statement that is used below */
    noema_status s = nm_store_begin(c, err);
    if (s == NOEMA_OK)
        s = nm_store_gone(c, item->segment, item->row, err);
    sqlite3_stmt *st = s == NOEMA_OK ? nm_catalog_stmt(&c->cat, NM_SQL_ITEM_DELETE, err) : NULL;
    if (!st)
        return code_of(err);
    sqlite3_bind_int64(st, 1, id);
    s = nm_catalog_run(&c->cat, st, err);
    c->d_items -= s == NOEMA_OK;
    return s;
}

/* Rows, checksums and bitmap of one segment, as they will be. */
static noema_status put_segment(noema_collection *c, const nm_segment *s, const uint64_t *sums, const uint64_t *deleted, noema_error *err)
{
    int64_t rows = s->rows + s->n_pending;
    sqlite3_stmt *st = nm_catalog_stmt(&c->cat, NM_SQL_SEGMENT_PUT, err);
    if (!st)
        return code_of(err);
    sqlite3_bind_int64(st, 1, (int64_t)s->h.id);
    sqlite3_bind_int64(st, 2, rows);
    sqlite3_bind_blob(st, 3, sums, (int)(8 * nm_segment_blocks(rows)), SQLITE_STATIC);
    sqlite3_bind_blob(st, 4, deleted, NM_SEG_CAPACITY / 8, SQLITE_STATIC);
    return nm_catalog_run(&c->cat, st, err);
}

enum { SUMS = NM_SEG_CAPACITY / NM_SEG_BLOCK, WORDS = NM_SEG_CAPACITY / 64 };

/* Flushes the segments that changed and writes their rows of the catalogue; plan [n_segments]: their new checksums and bitmaps. */
static noema_status write_segments(noema_collection *c, uint64_t **plan, noema_error *err)
{
    noema_status s = NOEMA_OK;
    for (int i = 0; i < c->n_segments && s == NOEMA_OK; i++) {
        nm_segment *g = c->segments[i];
        bool touched = g->n_pending > 0;
        for (size_t k = 0; k < c->n_gone && !touched; k++)
            touched = c->gone[k].segment == g;
        if (!touched)
            continue;
        if (!(plan[i] = nm_malloc_array(SUMS + WORDS, 8)))
            return no_memory(c, err);
        uint64_t *sums = plan[i], *deleted = plan[i] + SUMS;
        memcpy(sums, g->checksums, SUMS * 8);
        memcpy(deleted, g->deleted, WORDS * 8);
        for (size_t k = 0; k < c->n_gone; k++)
            if (c->gone[k].segment == g)
                nm_bit_set(deleted, c->gone[k].row);
        if (g->n_pending)
            s = nm_segment_flush(g, sums, err);
        if (s == NOEMA_OK)
            s = put_segment(c, g, sums, deleted, err);
    }
    return s;
}

/* What is now true on disk becomes true in memory. */
static void settle(noema_collection *c, uint64_t **plan)
{
    for (int i = 0; i < c->n_segments; i++) {
        if (!plan[i])
            continue;
        nm_segment *g = c->segments[i];
        nm_segment_commit(g, plan[i]);
        memcpy(g->deleted, plan[i] + SUMS, WORDS * 8);
        g->n_deleted = 0;
        for (int w = 0; w < WORDS; w++) {
            g->n_deleted += __builtin_popcountll(g->deleted[w]);
            g->skip[w] |= g->deleted[w];
        }
    }
    c->n_items += c->d_items;
    c->in_tx = false;
    c->n_gone = 0;
}

noema_status nm_store_commit(noema_collection *c, noema_error *err)
{
    if (!c->in_tx)
        return NOEMA_OK;
    uint64_t **plan = calloc((size_t)c->n_segments + 1, sizeof *plan);
    noema_status s = plan ? write_segments(c, plan, err) : no_memory(c, err);
    if (s == NOEMA_OK)
        s = nm_catalog_exec(&c->cat, "COMMIT", err);
    if (s == NOEMA_OK)
        settle(c, plan);
    for (int i = 0; plan && i < c->n_segments; i++)
        free(plan[i]);
    free(plan);
    if (s != NOEMA_OK)
        nm_store_rollback(c);
    return s;
}

void nm_store_rollback(noema_collection *c)
{
    if (!c->in_tx)
        return;
    sqlite3_exec(c->cat.db, "ROLLBACK", NULL, NULL, NULL); /* an error only says that SQLite has done so itself */
    c->in_tx = false;
    c->n_gone = 0;
    int kept = 0;
    for (int i = 0; i < c->n_segments; i++) {
        nm_segment *g = c->segments[i];
        g->n_pending = 0;
        if (g->fresh) {
            unlink(g->path);
            nm_segment_free(g);
            continue;
        }
        if (!g->data)
            nm_segment_map(g, g->rows, NULL);
        c->segments[kept++] = g;
    }
    c->n_segments = kept;
    c->data_version = -1; /* what counts is in the catalogue */
    nm_store_refresh(c, NULL);
}

noema_status noema_collection_add(noema_collection *c, const char *space, const char *model, noema_item_kind kind, size_t n,
                                  const char *const *paths, int dim, const float *vectors, noema_error *err)
{
    if (kind != NOEMA_ITEM_IMAGE && kind != NOEMA_ITEM_TEXT)
        return nm_fail(err, NOEMA_E_ARGUMENT, "%s: expected images or texts, got kind %d", c->path, (int)kind);
    noema_status s = nm_store_space(c, space, model, dim, 1, err);
    for (size_t i = 0; i < n && s == NOEMA_OK; i++) {
        unsigned char digest[32];
        nm_sha256 h;
        nm_sha256_init(&h);
        nm_sha256_update(&h, vectors + i * (size_t)dim, (size_t)dim * 4);
        nm_sha256_final(&h, digest);
        nm_entry e = { .kind = kind, .path = paths[i], .hash = digest };
        s = nm_store_put(c, &e, vectors + i * (size_t)dim, NULL, err);
    }
    if (s == NOEMA_OK)
        return nm_store_commit(c, err);
    nm_store_rollback(c);
    return s;
}

noema_status noema_collection_remove(noema_collection *c, size_t n, const int64_t *ids, noema_error *err)
{
    noema_status s = nm_store_begin(c, err);
    for (size_t i = 0; i < n && s == NOEMA_OK; i++) {
        sqlite3_stmt *st = nm_catalog_stmt(&c->cat, NM_SQL_ITEM_BY_ID, err);
        nm_item item;
        if (!st)
            s = code_of(err);
        else {
            sqlite3_bind_int64(st, 1, ids[i]);
            int r = nm_catalog_step(&c->cat, st, err);
            s = r > 0 ? nm_store_row(c, st, &item, err) : r < 0 ? code_of(err)
                : nm_fail(err, NOEMA_E_MISSING, "%s: no item has the id %lld", c->path, (long long)ids[i]);
            sqlite3_reset(st);
        }
        if (s == NOEMA_OK)
            s = nm_store_delete(c, &item, err);
    }
    if (s == NOEMA_OK)
        return nm_store_commit(c, err);
    nm_store_rollback(c);
    return s;
}
