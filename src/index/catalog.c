/* catalog.c - see catalog.h. */
#include "index/catalog.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

/* items.path: absolute path of a picture (kind 0), or the text itself (kind 1). hash: SHA-256 of the content.
 * segments.deleted: bitmap of rows without item, 8192 bytes; checksums: 8 bytes for each block of 64 rows. */
static const char schema[] =
    "CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE segments(id INTEGER PRIMARY KEY, rows INTEGER NOT NULL, checksums BLOB NOT NULL, deleted BLOB NOT NULL);"
    "CREATE TABLE items(id INTEGER PRIMARY KEY AUTOINCREMENT, kind INTEGER NOT NULL, path TEXT NOT NULL, segment INTEGER NOT NULL,"
    " row INTEGER NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, hash BLOB NOT NULL, width INTEGER NOT NULL,"
    " height INTEGER NOT NULL, added INTEGER NOT NULL);"
    "CREATE UNIQUE INDEX items_path ON items(kind, path);"
    "CREATE UNIQUE INDEX items_row ON items(segment, row);"
    "CREATE INDEX items_hash ON items(hash);"
    "CREATE INDEX items_size ON items(kind, size);"
    "CREATE TABLE thumbs(id INTEGER PRIMARY KEY, data BLOB NOT NULL);"
    "CREATE TABLE failed(path TEXT PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, code INTEGER NOT NULL,"
    " message TEXT NOT NULL) WITHOUT ROWID;"
    "CREATE VIRTUAL TABLE names USING fts5(path, content='items', content_rowid='id', tokenize='unicode61 remove_diacritics 2');"
    "CREATE TRIGGER items_added AFTER INSERT ON items BEGIN INSERT INTO names(rowid, path) VALUES(new.id, new.path); END;"
    "CREATE TRIGGER items_gone AFTER DELETE ON items BEGIN"
    " INSERT INTO names(names, rowid, path) VALUES('delete', old.id, old.path); DELETE FROM thumbs WHERE id = old.id; END;"
    "CREATE TRIGGER items_moved AFTER UPDATE OF path ON items BEGIN"
    " INSERT INTO names(names, rowid, path) VALUES('delete', old.id, old.path);"
    " INSERT INTO names(rowid, path) VALUES(new.id, new.path); END;";

#define ITEM "id, kind, path, segment, row, size, mtime_ns, hash, width, height, added"
static const char *const text[NM_SQL_COUNT] = {
    [NM_SQL_META_GET] = "SELECT value FROM meta WHERE key = ?1",
    [NM_SQL_META_SET] = "INSERT INTO meta VALUES(?1, ?2) ON CONFLICT(key) DO UPDATE SET value = ?2",
    [NM_SQL_SEGMENTS] = "SELECT id, rows, checksums, deleted FROM segments ORDER BY id",
    [NM_SQL_SEGMENT_PUT] = "INSERT INTO segments VALUES(?1, ?2, ?3, ?4) ON CONFLICT(id) DO UPDATE SET rows = ?2, checksums = ?3, deleted = ?4",
    [NM_SQL_SEGMENT_DELETE] = "DELETE FROM segments WHERE id = ?1",
    [NM_SQL_ITEM_BY_PATH] = "SELECT " ITEM " FROM items WHERE kind = ?1 AND path = ?2",
    [NM_SQL_ITEM_BY_ID] = "SELECT " ITEM " FROM items WHERE id = ?1",
    [NM_SQL_ITEM_BY_ROW] = "SELECT " ITEM " FROM items WHERE segment = ?1 AND row = ?2",
    [NM_SQL_ITEM_BY_HASH] = "SELECT " ITEM " FROM items WHERE hash = ?1 AND kind = ?2 ORDER BY id",
    [NM_SQL_ITEM_BY_SIZE] = "SELECT 1 FROM items WHERE kind = ?1 AND size = ?2 LIMIT 1",
    [NM_SQL_ITEM_COUNT] = "SELECT count(*) FROM items",
    [NM_SQL_ITEM_AFTER] = "SELECT " ITEM " FROM items WHERE id > ?1 ORDER BY id LIMIT 1",
    /* '/' + 1 == '0': every path below a folder lies in [folder/, folder0) */
    [NM_SQL_ITEM_BELOW] = "SELECT " ITEM " FROM items WHERE kind = 0 AND path > ?1 || '/' AND path < ?1 || '0' AND path > ?2 ORDER BY path LIMIT 1",
    [NM_SQL_ITEM_ROWS] = "SELECT id, row FROM items WHERE segment = ?1 ORDER BY row",
    [NM_SQL_ITEM_INSERT] = "INSERT INTO items(kind, path, segment, row, size, mtime_ns, hash, width, height, added)"
                           " VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, unixepoch())",
    [NM_SQL_ITEM_UPDATE] = "UPDATE items SET segment = ?3, row = ?4, size = ?5, mtime_ns = ?6, hash = ?7, width = ?8, height = ?9 WHERE id = ?1",
    [NM_SQL_ITEM_MOVE] = "UPDATE items SET path = ?2, size = ?3, mtime_ns = ?4 WHERE id = ?1",
    [NM_SQL_ITEM_TOUCH] = "UPDATE items SET size = ?2, mtime_ns = ?3 WHERE id = ?1",
    [NM_SQL_ITEM_PLACE] = "UPDATE items SET segment = ?2, row = ?3 WHERE id = ?1",
    [NM_SQL_ITEM_DELETE] = "DELETE FROM items WHERE id = ?1",
    /* ?1 kind or -1, ?2 path glob or NULL, ?3 FTS5 query or NULL */
    [NM_SQL_ITEM_FILTER] = "SELECT segment, row FROM items WHERE (?1 < 0 OR kind = ?1) AND (?2 IS NULL OR path GLOB ?2)"
                           " AND (?3 IS NULL OR id IN (SELECT rowid FROM names WHERE names MATCH ?3))",
    [NM_SQL_THUMB_PUT] = "INSERT INTO thumbs VALUES(?1, ?2) ON CONFLICT(id) DO UPDATE SET data = ?2",
    [NM_SQL_THUMB_GET] = "SELECT data FROM thumbs WHERE id = ?1",
    [NM_SQL_THUMB_DELETE] = "DELETE FROM thumbs WHERE id = ?1",
    [NM_SQL_FAILED_PUT] = "INSERT INTO failed VALUES(?1, ?2, ?3, ?4, ?5) ON CONFLICT(path) DO UPDATE SET size = ?2, mtime_ns = ?3,"
                          " code = ?4, message = ?5",
    [NM_SQL_FAILED_GET] = "SELECT size, mtime_ns, code, message FROM failed WHERE path = ?1",
    [NM_SQL_FAILED_DELETE] = "DELETE FROM failed WHERE path = ?1",
    [NM_SQL_FAILED_COUNT] = "SELECT count(*) FROM failed",
    [NM_SQL_FAILED_BELOW] = "SELECT path FROM failed WHERE path > ?1 || '/' AND path < ?1 || '0' AND path > ?2 ORDER BY path LIMIT 1",
};

noema_status nm_catalog_fail(nm_catalog *k, noema_error *err)
{
    int code = k->db ? sqlite3_extended_errcode(k->db) : SQLITE_NOMEM;
    noema_status s = NOEMA_E_IO;
    switch (code & 0xff) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB: s = NOEMA_E_FORMAT; break;
    case SQLITE_NOMEM: s = NOEMA_E_MEMORY; break;
    case SQLITE_TOOBIG: s = NOEMA_E_LIMIT; break;
    case SQLITE_ERROR:
    case SQLITE_CONSTRAINT:
    case SQLITE_MISMATCH: s = NOEMA_E_FORMAT; break;
    default: break;
    }
    return nm_fail(err, s, "%s: %s (SQLite %d)", k->path, k->db ? sqlite3_errmsg(k->db) : "out of memory", code);
}

noema_status nm_catalog_exec(nm_catalog *k, const char *sql, noema_error *err)
{
    return sqlite3_exec(k->db, sql, NULL, NULL, NULL) == SQLITE_OK ? NOEMA_OK : nm_catalog_fail(k, err);
}

sqlite3_stmt *nm_catalog_stmt(nm_catalog *k, nm_sql which, noema_error *err)
{
    sqlite3_stmt **st = &k->stmt[which];
    if (!*st && sqlite3_prepare_v3(k->db, text[which], -1, SQLITE_PREPARE_PERSISTENT, st, NULL) != SQLITE_OK) {
        nm_catalog_fail(k, err);
        return NULL;
    }
    sqlite3_reset(*st);
    sqlite3_clear_bindings(*st);
    return *st;
}

int nm_catalog_step(nm_catalog *k, sqlite3_stmt *st, noema_error *err)
{
    int r = sqlite3_step(st);
    if (r == SQLITE_ROW)
        return 1;
    if (r != SQLITE_DONE)
        nm_catalog_fail(k, err);
    sqlite3_reset(st);
    return r == SQLITE_DONE ? 0 : -1;
}

noema_status nm_catalog_run(nm_catalog *k, sqlite3_stmt *st, noema_error *err)
{
    if (!st)
        return NOEMA_E_IO; /* err is set */
    int r = nm_catalog_step(k, st, err);
    if (r > 0)
        sqlite3_reset(st);
    return r < 0 ? (err && err->code ? err->code : NOEMA_E_IO) : NOEMA_OK;
}

/* One number from a query; -1 when there is none. */
static int64_t number(nm_catalog *k, const char *sql)
{
    sqlite3_stmt *st;
    int64_t v = -1;
    if (sqlite3_prepare_v2(k->db, sql, -1, &st, NULL) != SQLITE_OK)
        return -1;
    if (sqlite3_step(st) == SQLITE_ROW)
        v = sqlite3_column_int64(st, 0);
    sqlite3_finalize(st);
    return v;
}

int64_t nm_catalog_data_version(nm_catalog *k)
{
    return number(k, "PRAGMA data_version");
}

noema_status nm_catalog_get(nm_catalog *k, const char *key, char **value, noema_error *err)
{
    *value = NULL;
    sqlite3_stmt *st = nm_catalog_stmt(k, NM_SQL_META_GET, err);
    if (!st)
        return NOEMA_E_IO;
    sqlite3_bind_text(st, 1, key, -1, SQLITE_STATIC);
    int r = nm_catalog_step(k, st, err);
    if (r < 0)
        return NOEMA_E_IO;
    if (r == 0)
        return NOEMA_OK;
    const char *t = (const char *)sqlite3_column_text(st, 0);
    *value = t ? nm_strdup(t) : NULL;
    sqlite3_reset(st);
    return *value ? NOEMA_OK : nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", k->path);
}

noema_status nm_catalog_set(nm_catalog *k, const char *key, const char *value, noema_error *err)
{
    sqlite3_stmt *st = nm_catalog_stmt(k, NM_SQL_META_SET, err);
    if (!st)
        return NOEMA_E_IO;
    sqlite3_bind_text(st, 1, key, -1, SQLITE_STATIC);
    sqlite3_bind_text(st, 2, value, -1, SQLITE_STATIC);
    return nm_catalog_run(k, st, err);
}

/* Everything in sqlite_master that SQL can make, in a fixed order. FTS5's own tables are only counted by name: their text is
 * that of whichever SQLite made them. */
static char *describe(sqlite3 *db)
{
    sqlite3_stmt *st;
    nm_buf b = { 0 };
    if (sqlite3_prepare_v2(db, "SELECT type, name, tbl_name, CASE WHEN name LIKE 'names\\_%' ESCAPE '\\' THEN '' ELSE ifnull(sql, '') END"
                               " FROM sqlite_master ORDER BY 1, 2", -1, &st, NULL) != SQLITE_OK)
        return NULL;
    while (sqlite3_step(st) == SQLITE_ROW)
        for (int i = 0; i < 4; i++) {
            const char *t = (const char *)sqlite3_column_text(st, i);
            nm_buf_puts(&b, t ? t : "");
            nm_buf_putc(&b, i < 3 ? '|' : '\n');
        }
    bool ok = sqlite3_finalize(st) == SQLITE_OK && !b.failed;
    if (!ok)
        nm_buf_free(&b);
    return ok ? nm_buf_take(&b) : NULL;
}

/* A foreign trigger or view could make our statements do something else: the schema must be exactly ours. */
static noema_status check_schema(nm_catalog *k, noema_error *err)
{
    sqlite3 *ref = NULL;
    char *want = NULL, *got = NULL;
    noema_status s = NOEMA_OK;
    if (sqlite3_open(":memory:", &ref) == SQLITE_OK && sqlite3_exec(ref, schema, NULL, NULL, NULL) == SQLITE_OK)
        want = describe(ref);
    got = describe(k->db);
    if (!want)
        s = nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: this SQLite cannot make the catalogue's schema (FTS5 is needed): %s", k->path,
                    ref ? sqlite3_errmsg(ref) : "out of memory");
    else if (!got)
        s = nm_catalog_fail(k, err);
    else if (strcmp(want, got) != 0)
        s = nm_fail(err, NOEMA_E_FORMAT, "%s: expected the tables of a noema collection, version %d, and nothing else", k->path, NM_CATALOG_VERSION);
    sqlite3_close(ref);
    free(want);
    free(got);
    return s;
}

static noema_status make_schema(nm_catalog *k, noema_error *err)
{
    noema_status s = nm_catalog_exec(k, "BEGIN IMMEDIATE", err);
    if (s == NOEMA_OK)
        s = nm_catalog_exec(k, schema, err);
    if (s == NOEMA_OK) {
        char *sql = nm_sprintf("PRAGMA application_id=%d;PRAGMA user_version=%d", NM_CATALOG_APP, NM_CATALOG_VERSION);
        s = sql ? nm_catalog_exec(k, sql, err) : nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", k->path);
        free(sql);
    }
    if (s == NOEMA_OK)
        s = nm_catalog_exec(k, "COMMIT", err);
    if (s != NOEMA_OK)
        sqlite3_exec(k->db, "ROLLBACK", NULL, NULL, NULL);
    return s;
}

static noema_status settle(nm_catalog *k, bool create, bool read_only, noema_error *err)
{
    sqlite3_db_config(k->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    sqlite3_db_config(k->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
    sqlite3_limit(k->db, SQLITE_LIMIT_LENGTH, 64 << 20);
    sqlite3_busy_timeout(k->db, 30000);
    noema_status s = nm_catalog_exec(k, "PRAGMA cell_size_check=ON;PRAGMA mmap_size=0;PRAGMA foreign_keys=OFF;PRAGMA temp_store=MEMORY;PRAGMA cache_size=-32768", err);
    /* The first statement that reads the file: says whether it is a database, and rolls an interrupted commit back. */
    if (s == NOEMA_OK)
        s = nm_catalog_exec(k, "SELECT count(*) FROM sqlite_master", err);
    if (s != NOEMA_OK)
        return s;
    int64_t app = number(k, "PRAGMA application_id"), version = number(k, "PRAGMA user_version");
    int64_t objects = number(k, "SELECT count(*) FROM sqlite_master");
    if (create && !app && !version && !objects) {
        s = nm_catalog_exec(k, "PRAGMA journal_mode=DELETE;PRAGMA synchronous=EXTRA", err);
        if (s == NOEMA_OK)
            s = make_schema(k, err);
        version = NM_CATALOG_VERSION;
    } else if (app != NM_CATALOG_APP)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: expected the catalogue of a noema collection, got %s", k->path,
                       objects ? "another SQLite database" : "an empty file");
    if (s == NOEMA_OK && version != NM_CATALOG_VERSION)
        return nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: expected version %d, got %lld: made by %s release of noema", k->path, NM_CATALOG_VERSION,
                       (long long)version, version > NM_CATALOG_VERSION ? "a later" : "another");
    if (s == NOEMA_OK)
        s = check_schema(k, err);
    sqlite3_db_config(k->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 1, NULL); /* it is ours now, and FTS5 in a trigger counts as unsafe */
    if (s == NOEMA_OK)
        s = nm_catalog_exec(k, read_only ? "PRAGMA query_only=ON" : "PRAGMA journal_mode=DELETE;PRAGMA synchronous=EXTRA", err);
    return s;
}

noema_status nm_catalog_open(nm_catalog *k, const char *path, bool create, bool read_only, noema_error *err)
{
    *k = (nm_catalog){ .path = nm_strdup(path) };
    if (!k->path)
        return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", path);
    /* Readers too ask for write access, for the roll-back of a commit that was cut off; SQLite goes on without where it is refused. */
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | (create ? SQLITE_OPEN_CREATE : 0);
    noema_status s = sqlite3_open_v2(path, &k->db, flags, NULL) == SQLITE_OK ? NOEMA_OK : nm_catalog_fail(k, err);
    if (s == NOEMA_OK)
        s = settle(k, create, read_only, err);
    if (s != NOEMA_OK)
        nm_catalog_close(k);
    return s;
}

void nm_catalog_close(nm_catalog *k)
{
    for (int i = 0; i < NM_SQL_COUNT; i++)
        sqlite3_finalize(k->stmt[i]);
    sqlite3_close(k->db);
    free(k->path);
    *k = (nm_catalog){ 0 };
}
