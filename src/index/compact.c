/* compact.c - dropping dead rows, and the full check.
 *
 * Compaction moves the live rows of a segment behind a new tail in ordinary commits (a moved row is a deleted one in its old place),
 * and removes segments in which nothing lives any more. It can be cut off anywhere and holds no more than one commit in memory. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "index/store.h"

enum { COMMIT_BYTES = 64 << 20 };

typedef struct pair { int64_t id, row; } pair;

static noema_status code_of(const noema_error *err)
{
    return err && err->code ? err->code : NOEMA_E_IO;
}

/* A statement with up to three numbers. */
static noema_status run3(noema_collection *c, nm_sql which, int64_t a, int64_t b, int64_t d, noema_error *err)
{
    sqlite3_stmt *st = nm_catalog_stmt(&c->cat, which, err);
    if (!st)
        return code_of(err);
    int n = sqlite3_bind_parameter_count(st);
    sqlite3_bind_int64(st, 1, a);
    if (n > 1)
        sqlite3_bind_int64(st, 2, b);
    if (n > 2)
        sqlite3_bind_int64(st, 3, d);
    return nm_catalog_run(&c->cat, st, err);
}

/* Items of a segment, [*n] in row order: collected first, because the rows are changed while they are walked. */
static noema_status items_of(noema_collection *c, const nm_segment *s, pair **out, size_t *n, noema_error *err)
{
    *n = 0;
    *out = nm_malloc_array((size_t)s->rows, sizeof **out);
    if (!*out)
        return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", c->path);
    sqlite3_stmt *st = nm_catalog_stmt(&c->cat, NM_SQL_ITEM_ROWS, err);
    if (!st)
        return code_of(err);
    sqlite3_bind_int64(st, 1, (int64_t)s->h.id);
    int r;
    while ((r = nm_catalog_step(&c->cat, st, err)) > 0) {
        pair p = { sqlite3_column_int64(st, 0), sqlite3_column_int64(st, 1) };
        if (p.row < 0 || p.row >= s->rows || *n == (size_t)s->rows || nm_bit(s->deleted, p.row)) {
            sqlite3_reset(st);
            return nm_fail(err, NOEMA_E_FORMAT, "%s: item %lld claims row %lld of segment %llu (%lld rows), which is not its own", c->cat.path,
                           (long long)p.id, (long long)p.row, (unsigned long long)s->h.id, (long long)s->rows);
        }
        (*out)[(*n)++] = p;
    }
    return r < 0 ? code_of(err) : NOEMA_OK;
}

static noema_status move_row(noema_collection *c, const nm_segment *from, pair p, noema_error *err)
{
    nm_segment *to = nm_store_tail(c, err);
    if (!to)
        return code_of(err);
    if (!nm_segment_put_raw(to, from->data + (size_t)p.row * nm_segment_row_bytes(from)))
        return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", c->path);
    return run3(c, NM_SQL_ITEM_PLACE, p.id, (int64_t)to->h.id, to->rows + to->n_pending - 1, err);
}

static noema_status empty_segment(noema_collection *c, const nm_segment *s, noema_error *err)
{
    pair *p;
    size_t n, per_commit = COMMIT_BYTES / nm_segment_row_bytes(s);
    noema_status r = items_of(c, s, &p, &n, err);
    for (size_t i = 0; i < n && r == NOEMA_OK; i++) {
        r = nm_store_begin(c, err);
        if (r == NOEMA_OK && nm_segment_good(s, p[i].row))
            r = move_row(c, s, p[i], err);
        else if (r == NOEMA_OK) { /* its vector is lost: indexing finds the file again as a new one */
            r = run3(c, NM_SQL_ITEM_DELETE, p[i].id, 0, 0, err);
            c->d_items -= r == NOEMA_OK;
        }
        if (r == NOEMA_OK)
            r = nm_store_gone(c, s->h.id, p[i].row, err);
        if (r == NOEMA_OK && ((i + 1) % per_commit == 0 || i + 1 == n))
            r = nm_store_commit(c, err);
    }
    free(p);
    return r;
}

/* Removes the segments in which every row is deleted. */
static noema_status purge(noema_collection *c, noema_error *err)
{
    noema_status s = nm_store_begin(c, err);
    for (int i = 0; i < c->n_segments && s == NOEMA_OK; i++)
        if (c->segments[i]->n_deleted == c->segments[i]->rows)
            s = run3(c, NM_SQL_SEGMENT_DELETE, (int64_t)c->segments[i]->h.id, 0, 0, err);
    if (s == NOEMA_OK)
        s = nm_store_commit(c, err);
    if (s != NOEMA_OK)
        return s;
    int kept = 0;
    for (int i = 0; i < c->n_segments; i++) {
        nm_segment *g = c->segments[i];
        if (g->n_deleted != g->rows) {
            c->segments[kept++] = g;
            continue;
        }
        unlink(g->path); /* readers that have it mapped keep it until they see the commit */
        nm_segment_free(g);
    }
    c->n_segments = kept;
    return NOEMA_OK;
}

noema_status noema_collection_compact(noema_collection *c, noema_error *err)
{
    noema_status s = nm_store_begin(c, err);
    if (s == NOEMA_OK)
        s = nm_store_commit(c, err);
    if (s != NOEMA_OK)
        return s;
    int partial = 0, n = c->n_segments;
    for (int i = 0; i < n; i++)
        partial += c->segments[i]->rows < c->segments[i]->h.capacity;
    c->tail_from = c->next_segment;
    for (int i = 0; i < n && s == NOEMA_OK; i++) {
        nm_segment *g = c->segments[i];
        if (g->n_deleted || g->n_dropped || (partial > 1 && g->rows < g->h.capacity))
            s = empty_segment(c, g, err);
    }
    c->tail_from = 0;
    if (s != NOEMA_OK) {
        nm_store_rollback(c);
        return s;
    }
    s = purge(c, err);
    if (s != NOEMA_OK) {
        nm_store_rollback(c);
        return s;
    }
    nm_buf_free(&c->notes); /* what was dropped is gone now */
    return nm_catalog_exec(&c->cat, "VACUUM", err);
}

/* One text from a query, compared with `want`. */
static noema_status expect(noema_collection *c, const char *sql, const char *want, const char *what, noema_error *err)
{
    sqlite3_stmt *st;
    if (sqlite3_prepare_v2(c->cat.db, sql, -1, &st, NULL) != SQLITE_OK)
        return nm_catalog_fail(&c->cat, err);
    noema_status s = NOEMA_OK;
    if (sqlite3_step(st) != SQLITE_ROW)
        s = nm_catalog_fail(&c->cat, err);
    else {
        const char *got = (const char *)sqlite3_column_text(st, 0);
        if (!got || strcmp(got, want) != 0)
            s = nm_fail(err, NOEMA_E_FORMAT, "%s: %s: expected %s, got %.200s", c->cat.path, what, want, got ? got : "nothing");
    }
    sqlite3_finalize(st);
    return s;
}

static noema_status check_segment(noema_collection *c, nm_segment *s, noema_error *err)
{
    pair *p;
    size_t n;
    noema_status r = items_of(c, s, &p, &n, err);
    free(p);
    if (r != NOEMA_OK)
        return r;
    if ((int64_t)n != s->rows - s->n_deleted)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: segment %llu: expected %lld items, got %zu", c->cat.path, (unsigned long long)s->h.id,
                       (long long)(s->rows - s->n_deleted), n);
    int64_t lost = nm_segment_verify(s);
    if (lost)
        nm_buf_printf(&c->notes, "%s: %lld rows do not match their checksum and are dropped\n", s->path, (long long)lost);
    if (s->n_dropped)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: %lld of %lld rows are damaged", s->path, (long long)s->n_dropped, (long long)s->rows);
    return NOEMA_OK;
}

noema_status noema_collection_check(noema_collection *c, noema_error *err)
{
    noema_status s = nm_store_refresh(c, err);
    if (s == NOEMA_OK)
        s = nm_catalog_exec(&c->cat, "BEGIN", err);
    if (s != NOEMA_OK)
        return s;
    s = expect(c, "PRAGMA integrity_check(1)", "ok", "integrity", err);
    if (s == NOEMA_OK)
        s = expect(c, "SELECT count(*) FROM items WHERE segment NOT IN (SELECT id FROM segments)", "0", "items without segment", err);
    if (s == NOEMA_OK)
        s = expect(c, "SELECT count(*) FROM thumbs WHERE id NOT IN (SELECT id FROM items)", "0", "thumbnails without item", err);
    for (int i = 0; i < c->n_segments && s == NOEMA_OK; i++)
        s = check_segment(c, c->segments[i], err);
    sqlite3_exec(c->cat.db, "COMMIT", NULL, NULL, NULL);
    return s;
}
