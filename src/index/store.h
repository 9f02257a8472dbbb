/* store.h - an open collection: the catalogue, its segments and what the writer has not committed yet. */
#ifndef NM_STORE_H
#define NM_STORE_H

#include "base/mem.h"
#include "base/pool.h"
#include "index/catalog.h"
#include "index/segment.h"
#include "noema/collection.h"

enum { NM_STORE_MAX_VECTORS = 256 /* of an item: search takes their square in memory */ };

typedef struct nm_place { nm_segment *segment; int64_t row; } nm_place;

struct noema_collection {
    noema_context *ctx;
    char *path;
    bool read_only, trust;
    int lock_fd;             /* the writer's; -1 */
    nm_catalog cat;
    char *space, *model;     /* "" while empty */
    int dim;                 /* 0 while empty */
    int vectors;             /* of an item: a row is so many of dim / vectors elements, each of length 1 / sqrt(vectors); 1 almost always */
    nm_dtype dtype;
    uint64_t uid;
    nm_segment **segments;   /* in order of their ids */
    int n_segments;
    uint64_t next_segment;
    uint64_t tail_from;      /* rows go to segments of this number and above (compaction) */
    int64_t n_items;
    int64_t data_version;    /* of the catalogue that this state was read from; -1: read again */
    nm_buf notes;
    /* the writer's open transaction */
    bool in_tx;
    nm_place *gone;          /* rows whose items it deletes */
    size_t n_gone, cap_gone;
    int64_t d_items;         /* change of n_items */
    /* what the last call handed out */
    noema_collection_info info;
    nm_arena *results;
    char *note;
};

/* A row of the catalogue's items; strings are borrowed from the statement. */
typedef struct nm_item {
    int64_t id;
    int kind;
    const char *path;
    uint64_t segment;
    int64_t row, size, mtime_ns, added;
    unsigned char hash[32];
    int width, height;
} nm_item;

/* What is put under a path. */
typedef struct nm_entry {
    int kind;
    const char *path;
    int64_t size, mtime_ns;
    const unsigned char *hash; /* [32]: SHA-256 of the content */
    int width, height;
    const void *thumb;         /* or NULL */
    size_t thumb_bytes;
} nm_entry;

/* collection.c */
noema_status nm_store_refresh(noema_collection *c, noema_error *err); /* sees what another process committed */
nm_segment *nm_store_segment(const noema_collection *c, uint64_t id); /* NULL: none of this number */
bool nm_store_readable(const noema_collection *c, uint64_t segment, int64_t row);
noema_status nm_store_row(noema_collection *c, sqlite3_stmt *st, nm_item *item, noema_error *err); /* of a statement that stands on an item */
nm_pool *nm_store_pool(const noema_collection *c);
/* n unit vectors of a model's, a picture's [vectors, dim / vectors] or a text's [dim / vectors], at the front of v become rows [n, dim]. */
void nm_store_rows(const noema_collection *c, size_t n, float *v, bool text);
char *nm_absolute_path(const char *path); /* malloc'd, without "." and ".."; symbolic links stay */

/* write.c: one transaction at a time. A failure rolls back: nothing of the transaction counts, what was committed stays. */
noema_status nm_store_space(noema_collection *c, const char *space, const char *model, int dim, int vectors, noema_error *err); /* sets it, or it must agree */
noema_status nm_store_begin(noema_collection *c, noema_error *err);  /* nothing to do when one is open */
noema_status nm_store_put(noema_collection *c, const nm_entry *e, const float *v, int64_t *id, noema_error *err); /* v: [dim] */
noema_status nm_store_delete(noema_collection *c, const nm_item *item, noema_error *err);
noema_status nm_store_gone(noema_collection *c, uint64_t segment, int64_t row, noema_error *err); /* the row loses its item */
noema_status nm_store_commit(noema_collection *c, noema_error *err);
void nm_store_rollback(noema_collection *c);
nm_segment *nm_store_tail(noema_collection *c, noema_error *err);    /* the segment that takes the next row */

#endif
