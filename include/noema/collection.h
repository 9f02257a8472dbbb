/* noema/collection.h - a searchable collection of pictures and texts on disk: a folder with a SQLite catalogue and vector segments.
 *
 * Crash safe: what was committed is there after kill -9 or a full disk. One writer at a time (a lock file), many readers. */
#ifndef NOEMA_COLLECTION_H
#define NOEMA_COLLECTION_H

#include <stddef.h>
#include <stdint.h>

#include "noema/model.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct noema_collection noema_collection;

enum { NOEMA_COLLECTION_CREATE = 1, NOEMA_COLLECTION_READONLY = 2 };

typedef struct noema_collection_info {
    size_t struct_size;
    const char *path;
    const char *space;       /* noema_model_info.space of what it holds; "" while empty */
    const char *model;       /* the model's name as given when it was made */
    int dim;
    int64_t n_items;         /* alive */
    int64_t n_deleted;       /* rows waiting for compaction */
    int64_t bytes;
} noema_collection_info;

NOEMA_API noema_status noema_collection_open(noema_collection **c, noema_context *ctx, const char *path, unsigned flags, noema_error *err);
NOEMA_API void noema_collection_free(noema_collection *c);
NOEMA_API const noema_collection_info *noema_collection_get_info(noema_collection *c);

/* Progress of a long call: done and total items (total -1: unknown); return non-zero to stop (what is committed stays). */
typedef int noema_progress_fn(void *user, int64_t done, int64_t total, const char *item);

/* What noema_collection_index did. */
typedef struct noema_index_report {
    size_t struct_size;
    int64_t added, changed, moved, unchanged, deleted, failed;
} noema_index_report;

typedef struct noema_index_options {
    size_t struct_size;
    int recursive;           /* folders: descend */
    int prune;               /* delete items below the given folders whose files are gone */
    int thumbnails;          /* longest side in pixels of stored thumbnails; 0: none */
    int batch;               /* pictures per forward; 0: chosen */
    noema_progress_fn *progress;
    void *progress_user;
    /* called for each file that failed; the others go on */
    void (*failed)(void *user, const char *path, const noema_error *why);
    void *failed_user;
    void *reserved[8];
} noema_index_options;

NOEMA_API void noema_index_options_default(noema_index_options *o);

/* Brings the collection up to date with files and folders: new and changed files are embedded, moved ones (same content) keep
 * their vectors. Commits every few hundred items. The session's model must be of the collection's space. */
NOEMA_API noema_status noema_collection_index(noema_collection *c, noema_session *s, size_t n_paths, const char *const *paths,
                                              const noema_index_options *o, noema_index_report *report, noema_error *err);

/* One result. `path` lives until the next search on this collection or its end. */
typedef struct noema_match { int64_t id; float score; const char *path; int width, height; } noema_match;

/* Exact search: the k items nearest to each unit query [n_queries, dim] by cosine; matches [n_queries, k], n_found [n_queries]. */
NOEMA_API noema_status noema_collection_search(noema_collection *c, size_t n_queries, const float *queries, size_t k, noema_match *matches,
                                               size_t *n_found, noema_error *err);
/* The stored unit vector of an item. */
NOEMA_API noema_status noema_collection_vector(noema_collection *c, int64_t id, float *out, noema_error *err);
/* The id of the item with this path; NOEMA_E_MISSING when there is none. */
NOEMA_API noema_status noema_collection_find(noema_collection *c, const char *path, int64_t *id, noema_error *err);
/* Rows of deleted items are dropped and segments merged. */
NOEMA_API noema_status noema_collection_compact(noema_collection *c, noema_error *err);

#ifdef __cplusplus
}
#endif
#endif
