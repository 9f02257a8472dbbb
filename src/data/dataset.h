/* dataset.h - a data set as numbered rows, whatever it is stored as. A row is a picture (a file, bytes inside a data file, or a tensor that is
 * ready for the model) with captions, a class, or both.
 *
 * A source is a path, or several joined by "::"; {0000..0009} and {a,b} in it stand for several. Each one is a file or a folder of one of
 * the formats in formats.c; rows are numbered through all of them. Nothing is decoded before it is read: pictures inside data files
 * come through a cache of limited size. */
#ifndef NM_DATASET_H
#define NM_DATASET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "data/cache.h"
#include "data/parquet.h"

typedef struct nm_dataset nm_dataset;

typedef struct nm_dataset_options {
    const char *type;        /* a format's name; NULL or "auto": by content and name */
    const char *img_key, *caption_key, *label_key; /* columns; NULL: the usual names of each format */
    const char *const *class_names; /* [n_class_names] of label 0, 1, ...; NULL: what the data says */
    size_t n_class_names;
    const char *const *templates;   /* captions of rows that have a class but no caption, "{}" is the name; NULL: no such captions */
    size_t n_templates;
    size_t cache_bytes;      /* 0: NM_DATASET_CACHE */
} nm_dataset_options;
#define NM_DATASET_CACHE ((size_t)1 << 30)

/* o may be NULL. No rows at all is an error. A damaged table is refused here, with line or row; a damaged picture when it is read. */
noema_status nm_dataset_open(nm_dataset **d, const char *source, const nm_dataset_options *o, noema_error *err);
void nm_dataset_free(nm_dataset *d);

int64_t nm_dataset_count(const nm_dataset *d);
const char *nm_dataset_source(const nm_dataset *d); /* as given */
size_t nm_dataset_parts(const nm_dataset *d);
const char *nm_dataset_part(const nm_dataset *d, size_t i, const char **format, int64_t *rows); /* its path */

/* Class number of a row, or -1. Names in the data are numbered by the list of names that the data or the options give, else in the order of
 * their first appearance. */
int64_t nm_dataset_label(const nm_dataset *d, int64_t i);
const char *nm_dataset_label_name(const nm_dataset *d, int64_t label); /* NULL: labels are numbers */
/* Whether the names came with their numbers (ClassLabel, the options), and not in the order in which rows have them. */
bool nm_dataset_numbered(const nm_dataset *d);
int64_t nm_dataset_classes(const nm_dataset *d);                       /* number of names, or 1 + the largest label */

/* What a row holds; zeros before the first read. Everything in it is valid until the next read into it or its release. */
typedef struct nm_row {
    char name[256];             /* for messages: the picture's path, or "FILE: row 12" */
    const char *path;           /* a picture file, or NULL */
    const unsigned char *bytes; /* an encoded picture, or NULL */
    size_t n_bytes;
    const float *tensor;        /* f32 shape[3], or NULL */
    int64_t shape[3];
    const int64_t *ids;         /* token ids, or NULL */
    int64_t n_ids;
    const nm_bytes *title;      /* [n_titles] captions of the row itself */
    int64_t n_titles;
    int64_t label;              /* or -1 */
    bool synthetic;             /* the caption was written by a model */
    const int32_t *keep;        /* [n_keep] patches that the image tower shall get (< 0: no patch); n_keep 0: the data names none */
    int64_t n_keep;
    /* of the reader */
    struct nm_dataset *owner;
    nm_cached *held[4];
    int n_held;
    nm_bytes own_title, *own_titles;
    char *own_path, *own_text;
} nm_row;

/* Thread safe for distinct rows structs. A row whose picture is missing is an error of that row alone. */
noema_status nm_dataset_read(const nm_dataset *d, int64_t i, nm_row *row, noema_error *err);
noema_status nm_dataset_read_text(const nm_dataset *d, int64_t i, nm_row *row, noema_error *err); /* captions, label, name; maybe the picture */
void nm_row_release(nm_row *row);

/* Captions of a row: its own, or its class name in every template; *text is one of them, chosen by `pick` (modulo their number), valid as
 * long as the row; a templated one is written to `buf`. False: the row has none. */
bool nm_row_title(const nm_row *row, uint64_t pick, nm_bytes *text, char *buf, size_t size);
int64_t nm_row_titles(const nm_row *row);

/* The order of an epoch to order[count]. Rows that can be reached one by one are shuffled over everything (Fisher-Yates). Where that would
 * mean decoding a file again and again (tar shards, Parquet files larger than the cache), the blocks that are read together are shuffled, and
 * their rows through a buffer of NM_SHUFFLE_ROWS. The same on every machine. */
#define NM_SHUFFLE_ROWS 5000
void nm_dataset_order(const nm_dataset *d, uint64_t seed, uint64_t pass, int64_t *order);
bool nm_dataset_scattered(const nm_dataset *d); /* true: Fisher-Yates over everything */

#endif
