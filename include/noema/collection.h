/* noema/collection.h - a searchable collection of pictures and texts on disk: a folder with a SQLite catalogue and vector segments.
 *
 *     noema_collection *c;
 *     noema_collection_open(&c, ctx, "photos.noema", NOEMA_COLLECTION_CREATE, &err);
 *     noema_collection_index(c, session, 1, (const char *[]){ "/home/me/photos" }, NULL, NULL, &err);
 *     noema_match hits[10];  size_t found;
 *     noema_collection_search(c, 1, query, 10, NULL, hits, &found, &err);
 *
 * Crash safe: what was committed is there after kill -9, power loss or a full disk. One writer at a time (a lock file), many
 * readers, also while the writer works: they see its commits at their next call. A handle is used by one thread at a time. */
#ifndef NOEMA_COLLECTION_H
#define NOEMA_COLLECTION_H

#include <stddef.h>
#include <stdint.h>

#include "noema/model.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct noema_collection noema_collection;

enum {
    NOEMA_COLLECTION_CREATE = 1,   /* make it where there is none */
    NOEMA_COLLECTION_READONLY = 2, /* no lock, no changes; also on media that cannot be written */
    NOEMA_COLLECTION_F16 = 4,      /* a new collection stores its vectors as f16: half the space, scores within 1e-3 */
    NOEMA_COLLECTION_TRUST = 8     /* opening checks sizes and headers, not the checksums of all rows */
};

typedef enum noema_item_kind { NOEMA_ITEM_ANY = -1, NOEMA_ITEM_IMAGE = 0, NOEMA_ITEM_TEXT = 1 } noema_item_kind;

typedef struct noema_collection_info {
    size_t struct_size;
    const char *path;
    const char *space;       /* noema_model_info.space of what it holds; "" while empty */
    const char *model;       /* the model's name as given when it was made; a file or folder as absolute path */
    const char *dtype;       /* of the stored rows: "f32" or "f16" */
    int dim;
    int64_t n_items;         /* alive */
    int64_t n_deleted;       /* rows waiting for compaction */
    int64_t n_dropped;       /* rows that opening could not use: `notes` says why; indexing again restores them */
    int64_t n_failed;        /* files that could not be read, remembered */
    int64_t n_segments;
    int64_t bytes;           /* on disk */
    const char *notes;       /* lines about what was dropped and why; "" when all is well */
    int vectors;             /* of an item, 1 almost always; a row [dim] is so many (BLIP-2), each of length 1 / sqrt(vectors), a text's all the same */
} noema_collection_info;

NOEMA_API noema_status noema_collection_open(noema_collection **c, noema_context *ctx, const char *path, unsigned flags, noema_error *err);
NOEMA_API void noema_collection_free(noema_collection *c);
/* Valid until the next call on the collection. */
NOEMA_API const noema_collection_info *noema_collection_get_info(noema_collection *c);

/* Small texts kept with the collection (how its model is to be opened, for instance). get: NULL in *value when there is none; the
 * value lives until the next get. */
NOEMA_API noema_status noema_collection_set_note(noema_collection *c, const char *key, const char *value, noema_error *err);
NOEMA_API noema_status noema_collection_get_note(noema_collection *c, const char *key, const char **value, noema_error *err);

/* Progress of a long call: done and total items (total -1: unknown); return non-zero to stop (what is committed stays). */
typedef int noema_progress_fn(void *user, int64_t done, int64_t total, const char *item);

/* What noema_collection_index did. */
typedef struct noema_index_report {
    size_t struct_size;
    int64_t added, changed, moved, unchanged, deleted, failed;
    int64_t copied;          /* of `added`: same content as an item that is there, so its vector was taken */
    int64_t failed_before;   /* of `failed`: not tried again, because the file has not changed since it failed */
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
    int retry_failed;        /* try files again that failed before and have not changed */
    void *reserved[7];
} noema_index_options;

NOEMA_API void noema_index_options_default(noema_index_options *o);

/* Brings the collection up to date with files and folders: new and changed files are embedded, moved ones (same content) keep
 * their vectors. Commits every few hundred items. The session's model must be of the collection's space. */
NOEMA_API noema_status noema_collection_index(noema_collection *c, noema_session *s, size_t n_paths, const char *const *paths,
                                              const noema_index_options *o, noema_index_report *report, noema_error *err);
/* Texts as items (their `path` is the text itself); those that are there already are left alone. */
NOEMA_API noema_status noema_collection_index_texts(noema_collection *c, noema_session *s, size_t n, const char *const *texts,
                                                    noema_index_report *report, noema_error *err);

/* Adds vectors made elsewhere, [n, dim], in one commit: paths are their names, an item of the same kind and path is replaced.
 * `space` says what they are (noema_model_info.space, or a name of the caller's); vectors are brought to length 1. */
NOEMA_API noema_status noema_collection_add(noema_collection *c, const char *space, const char *model, noema_item_kind kind, size_t n,
                                            const char *const *paths, int dim, const float *vectors, noema_error *err);
NOEMA_API noema_status noema_collection_remove(noema_collection *c, size_t n, const int64_t *ids, noema_error *err);

typedef struct noema_search_options {
    size_t struct_size;
    float threshold;         /* least score; default -2: no limit */
    noema_item_kind kind;    /* default NOEMA_ITEM_ANY */
    const char *path_glob;   /* only paths that match: *, ?, [..]; a star also matches '/' */
    const char *name;        /* only paths that contain words which begin with each of these */
    const int64_t *exclude;  /* ids that are left out */
    size_t n_exclude;
    void *reserved[8];
} noema_search_options;

NOEMA_API void noema_search_options_default(noema_search_options *o);

/* One result. `path` lives until the next call on this collection. */
typedef struct noema_match { int64_t id; float score; const char *path; int width, height; noema_item_kind kind; } noema_match;

/* A query as the collection's rows are, v [dim], by a session of its model. Needed where an item has several vectors; else the same as the model's
 * own unit vector. */
NOEMA_API noema_status noema_collection_query_text(noema_collection *c, noema_session *s, const char *text, float *v, noema_error *err);
NOEMA_API noema_status noema_collection_query_image(noema_collection *c, noema_session *s, const char *path, float *v, noema_error *err);

/* Exact search: the k items nearest to each unit query [n_queries, dim] by cosine, best first, equal scores in the order of adding;
 * matches [n_queries, k], n_found [n_queries]. Items of several vectors: a picture and a text have the best cosine (BLIP-2's ITC), two
 * pictures the mean of the best ones.  `o` may be NULL. */
NOEMA_API noema_status noema_collection_search(noema_collection *c, size_t n_queries, const float *queries, size_t k,
                                               const noema_search_options *o, noema_match *matches, size_t *n_found, noema_error *err);

typedef struct noema_item {
    int64_t id;
    noema_item_kind kind;
    const char *path;        /* of a text: the text; lives until the next call on this collection */
    int width, height;       /* pixels; 0: unknown, or a text */
    int64_t size, mtime_ns;  /* of the file when it was read */
    int64_t added;           /* seconds since 1970 */
} noema_item;

/* The item with the smallest id above `after` (0: the first); NOEMA_E_MISSING behind the last one. */
NOEMA_API noema_status noema_collection_next(noema_collection *c, int64_t after, noema_item *item, noema_error *err);
/* The stored unit vector of an item. */
NOEMA_API noema_status noema_collection_vector(noema_collection *c, int64_t id, float *out, noema_error *err);
/* The id of the picture with this path (made absolute); NOEMA_E_MISSING when there is none. */
NOEMA_API noema_status noema_collection_find(noema_collection *c, const char *path, int64_t *id, noema_error *err);
/* The stored thumbnail of an item (a JPEG or PNG file); lives until the next call. NOEMA_E_MISSING when there is none. */
NOEMA_API noema_status noema_collection_thumbnail(noema_collection *c, int64_t id, const void **data, size_t *size, noema_error *err);

/* Writes a picture (.png or .jpg by its name) with the matches in rows, best first: stored thumbnails, else the files. Texts and what
 * cannot be read stay empty cells. cell_px: longest side of each; 0: chosen. */
NOEMA_API noema_status noema_collection_contact_sheet(noema_collection *c, size_t n, const noema_match *matches, int cell_px, const char *path,
                                                      noema_error *err);

/* Rows of deleted and dropped items go, and segments are merged. Readers that are open go on. */
NOEMA_API noema_status noema_collection_compact(noema_collection *c, noema_error *err);
/* Reads everything: catalogue, checksums, and that items and rows belong together. NOEMA_E_FORMAT with the first fault; `notes` of
 * the info lists the dropped rows. */
NOEMA_API noema_status noema_collection_check(noema_collection *c, noema_error *err);

#ifdef __cplusplus
}
#endif
#endif
