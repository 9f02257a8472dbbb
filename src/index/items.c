/* items.c - looking at what a collection holds: items, their vectors and thumbnails, notes. */
#include <stdlib.h>
#include <string.h>

#include "index/store.h"

static noema_status code_of(const noema_error *err)
{
    return err && err->code ? err->code : NOEMA_E_IO;
}

/* The statement with up to one number or path bound, standing on its item; the caller resets it. */
static sqlite3_stmt *look_up(noema_collection *c, nm_sql which, int64_t number, const char *path, nm_item *item, noema_error *err)
{
    if (nm_store_refresh(c, err) != NOEMA_OK)
        return NULL;
    sqlite3_stmt *st = nm_catalog_stmt(&c->cat, which, err);
    if (!st)
        return NULL;
    sqlite3_bind_int64(st, 1, number);
    if (path)
        sqlite3_bind_text(st, 2, path, -1, SQLITE_STATIC);
    int r = nm_catalog_step(&c->cat, st, err);
    if (r == 0 && path)
        nm_fail(err, NOEMA_E_MISSING, "%s: %s is not in it", c->path, path);
    else if (r == 0)
        nm_fail(err, NOEMA_E_MISSING, "%s: no item has the id %lld", c->path, (long long)number);
    if (r > 0 && nm_store_row(c, st, item, err) == NOEMA_OK)
        return st;
    sqlite3_reset(st);
    return NULL;
}

noema_status noema_collection_next(noema_collection *c, int64_t after, noema_item *out, noema_error *err)
{
    nm_item item;
    noema_error why = NOEMA_ERROR_INIT; /* the end is no event worth a message with an id */
    sqlite3_stmt *st = look_up(c, NM_SQL_ITEM_AFTER, after, NULL, &item, &why);
    if (!st)
        return why.code == NOEMA_E_MISSING ? nm_fail(err, NOEMA_E_MISSING, "%s: no more items", c->path) : nm_fail(err, why.code, "%s", why.message);
    nm_arena_reset(c->results);
    size_t n = strlen(item.path) + 1;
    char *path = nm_arena_alloc(c->results, n);
    if (path)
        memcpy(path, item.path, n);
    sqlite3_reset(st);
    *out = (noema_item){ .id = item.id, .kind = (noema_item_kind)item.kind, .path = path, .width = item.width, .height = item.height,
                         .size = item.size, .mtime_ns = item.mtime_ns, .added = item.added };
    return path ? NOEMA_OK : nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", c->path);
}

noema_status noema_collection_vector(noema_collection *c, int64_t id, float *out, noema_error *err)
{
    nm_item item;
    sqlite3_stmt *st = look_up(c, NM_SQL_ITEM_BY_ID, id, NULL, &item, err);
    if (!st)
        return code_of(err);
    sqlite3_reset(st);
    const nm_segment *s = nm_store_segment(c, item.segment);
    if (!s || !nm_segment_good(s, item.row))
        return nm_fail(err, NOEMA_E_FORMAT, "%s: the vector of item %lld is damaged; index its file again", c->path, (long long)id);
    nm_segment_read(s, item.row, out);
    return NOEMA_OK;
}

noema_status noema_collection_find(noema_collection *c, const char *path, int64_t *id, noema_error *err)
{
    char *absolute = nm_absolute_path(path);
    if (!absolute)
        return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", path);
    nm_item item;
    sqlite3_stmt *st = look_up(c, NM_SQL_ITEM_BY_PATH, NOEMA_ITEM_IMAGE, absolute, &item, err);
    free(absolute);
    if (!st)
        return code_of(err);
    sqlite3_reset(st);
    *id = item.id;
    return NOEMA_OK;
}

noema_status noema_collection_thumbnail(noema_collection *c, int64_t id, const void **data, size_t *size, noema_error *err)
{
    sqlite3_stmt *st = nm_catalog_stmt(&c->cat, NM_SQL_THUMB_GET, err);
    if (!st)
        return code_of(err);
    sqlite3_bind_int64(st, 1, id);
    int r = nm_catalog_step(&c->cat, st, err);
    if (r < 0)
        return code_of(err);
    if (r == 0)
        return nm_fail(err, NOEMA_E_MISSING, "%s: item %lld has no thumbnail", c->path, (long long)id);
    size_t n = (size_t)sqlite3_column_bytes(st, 0);
    nm_arena_reset(c->results);
    void *p = nm_arena_alloc(c->results, n ? n : 1);
    if (p && n)
        memcpy(p, sqlite3_column_blob(st, 0), n);
    sqlite3_reset(st);
    *data = p;
    *size = n;
    return p ? NOEMA_OK : nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", c->path);
}

noema_status noema_collection_set_note(noema_collection *c, const char *key, const char *value, noema_error *err)
{
    char *name = nm_sprintf("note.%s", key); /* apart from the names that the store itself uses */
    if (!name)
        return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", c->path);
    noema_status s = nm_store_begin(c, err);
    if (s == NOEMA_OK)
        s = nm_catalog_set(&c->cat, name, value, err);
    if (s == NOEMA_OK)
        s = nm_store_commit(c, err);
    else
        nm_store_rollback(c);
    free(name);
    return s;
}

noema_status noema_collection_get_note(noema_collection *c, const char *key, const char **value, noema_error *err)
{
    char *name = nm_sprintf("note.%s", key);
    if (!name)
        return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", c->path);
    free(c->note);
    noema_status s = nm_catalog_get(&c->cat, name, &c->note, err);
    free(name);
    *value = c->note;
    return s;
}
