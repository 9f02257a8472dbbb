/* catalog.h - the SQLite side of a collection: what is where. It alone decides what exists; segments only hold rows.
 *
 * Rollback journal, not WAL: one file that opens on read-only media, a writer that commits once per few hundred items, and readers
 * that hold their lock for one search. synchronous=EXTRA, so that a commit survives power loss. */
#ifndef NM_CATALOG_H
#define NM_CATALOG_H

#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum { NM_CATALOG_VERSION = 1, NM_CATALOG_APP = 0x6e6f656d /* "noem" */ };

/* The statements of this library; their text is in catalog.c. */
typedef enum nm_sql {
    NM_SQL_META_GET, NM_SQL_META_SET,
    NM_SQL_SEGMENTS, NM_SQL_SEGMENT_PUT, NM_SQL_SEGMENT_DELETE,
    NM_SQL_ITEM_BY_PATH, NM_SQL_ITEM_BY_ID, NM_SQL_ITEM_BY_ROW, NM_SQL_ITEM_BY_HASH, NM_SQL_ITEM_BY_SIZE, NM_SQL_ITEM_COUNT, NM_SQL_ITEM_AFTER,
    NM_SQL_ITEM_BELOW, NM_SQL_ITEM_ROWS, NM_SQL_ITEM_INSERT, NM_SQL_ITEM_UPDATE, NM_SQL_ITEM_MOVE, NM_SQL_ITEM_TOUCH, NM_SQL_ITEM_PLACE,
    NM_SQL_ITEM_DELETE, NM_SQL_ITEM_FILTER,
    NM_SQL_THUMB_PUT, NM_SQL_THUMB_GET, NM_SQL_THUMB_DELETE,
    NM_SQL_FAILED_PUT, NM_SQL_FAILED_GET, NM_SQL_FAILED_DELETE, NM_SQL_FAILED_COUNT, NM_SQL_FAILED_BELOW,
    NM_SQL_COUNT
} nm_sql;

typedef struct nm_catalog {
    sqlite3 *db;
    char *path;
    sqlite3_stmt *stmt[NM_SQL_COUNT];
} nm_catalog;

/* create: an absent or empty file gets the schema. A file that is not such a catalogue, has another schema, or is of a later
 * version is refused. read_only forbids changes of content; an interrupted commit is still rolled back where the disk allows. */
noema_status nm_catalog_open(nm_catalog *k, const char *path, bool create, bool read_only, noema_error *err);
void nm_catalog_close(nm_catalog *k);

noema_status nm_catalog_fail(nm_catalog *k, noema_error *err);            /* SQLite's last error as ours */
noema_status nm_catalog_exec(nm_catalog *k, const char *sql, noema_error *err);
sqlite3_stmt *nm_catalog_stmt(nm_catalog *k, nm_sql which, noema_error *err); /* reset, nothing bound; NULL: failed */
int nm_catalog_step(nm_catalog *k, sqlite3_stmt *st, noema_error *err);   /* 1: a row; 0: done, and reset; -1: failed */
noema_status nm_catalog_run(nm_catalog *k, sqlite3_stmt *st, noema_error *err); /* a statement without result */
int64_t nm_catalog_data_version(nm_catalog *k);                           /* changes when another connection commits; -1: failed */

/* Values of the table `meta`: malloc'd, NULL when absent. */
noema_status nm_catalog_get(nm_catalog *k, const char *key, char **value, noema_error *err);
noema_status nm_catalog_set(nm_catalog *k, const char *key, const char *value, noema_error *err);

#endif
