/* parquet.h - Apache Parquet files, reading: schema, row groups, and the values of one leaf column at a time.
 * Source: github.com/apache/parquet-format (README, Encodings.md, Compression.md, parquet.thrift).
 *
 * The file is mapped; nothing is decoded before it is asked for, and then only the pages of one unit (about a megabyte), so that memory
 * stays bounded whatever the size of the row groups. Codecs: none, Snappy, gzip, Brotli, Zstandard, LZ4 (raw and Hadoop's frames).
 * Encodings: PLAIN, dictionaries, RLE, bit-packed, DELTA_*, BYTE_STREAM_SPLIT. Data pages v1 and v2, checksums where there are any.
 * Columns: any nesting of optional groups, and lists of one level. Not read: encryption, INT96, deeper lists, columns in other files. */
#ifndef NM_PARQUET_H
#define NM_PARQUET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

typedef enum nm_parquet_type { NM_PQ_BOOLEAN, NM_PQ_INT32, NM_PQ_INT64, NM_PQ_INT96, NM_PQ_FLOAT, NM_PQ_DOUBLE, NM_PQ_BYTES, NM_PQ_FIXED } nm_parquet_type;

/* One leaf of the schema. */
typedef struct nm_parquet_column {
    char *path;          /* "image.bytes", "captions.list.element" */
    nm_parquet_type type;
    int width;           /* bytes of NM_PQ_FIXED */
    int max_def, max_rep; /* levels: max_rep 1 is a list */
    bool is_text;        /* declared as UTF-8 */
    bool is_unsigned;
    int top;             /* number of the field of the root that it lies in */
} nm_parquet_column;

typedef struct nm_parquet nm_parquet;

noema_status nm_parquet_open(nm_parquet **p, const char *path, noema_error *err);
/* Memory that stays as it is until close. max_page: limit of a decoded page in bytes; 0: NM_PARQUET_MAX_PAGE. */
#define NM_PARQUET_MAX_PAGE ((size_t)1 << 30)
noema_status nm_parquet_open_memory(nm_parquet **p, const void *data, size_t size, const char *name, size_t max_page, noema_error *err);
void nm_parquet_close(nm_parquet *p);

int64_t nm_parquet_rows(const nm_parquet *p);
int nm_parquet_groups(const nm_parquet *p);
int64_t nm_parquet_group_rows(const nm_parquet *p, int group);
int nm_parquet_columns(const nm_parquet *p);
const nm_parquet_column *nm_parquet_column_at(const nm_parquet *p, int column);
/* The leaf of that path; a list is also found by the name of its field ("captions"). -1: not there. */
int nm_parquet_find(const nm_parquet *p, const char *path);
const char *nm_parquet_codec(const nm_parquet *p, int group, int column); /* "SNAPPY", ... */
/* Value of a key of the file's metadata ("huggingface"), or NULL. */
const char *nm_parquet_meta(const nm_parquet *p, const char *key);

/* Consecutive rows of a column that are decoded together: whole pages of a flat column, a whole chunk of a list. */
typedef struct nm_parquet_unit {
    int group, column;
    size_t at, end;      /* the data pages, bytes in the file */
    size_t bytes;        /* decompressed, about */
    int64_t first, rows; /* first: counted from the start of the file */
} nm_parquet_unit;

/* All units of a column in order; *units is malloc'd. Reads page headers only. */
noema_status nm_parquet_units(const nm_parquet *p, int column, nm_parquet_unit **units, int64_t *n, noema_error *err);

typedef struct nm_bytes { const unsigned char *p; uint32_t n; } nm_bytes; /* p NULL: null */

/* Decoded rows. Value i of a flat column belongs to row i; the values of row r of a list are row[r] .. row[r + 1] (nulls left out). */
typedef struct nm_parquet_values {
    int64_t n_rows, n;
    int64_t *row;         /* [n_rows + 1] for lists, else NULL */
    nm_bytes *bytes;      /* [n] BYTES, FIXED */
    int64_t *ints;        /* [n] BOOLEAN, INT32, INT64 */
    double *reals;        /* [n] FLOAT, DOUBLE */
    unsigned char *valid; /* [n] 0: null; NULL: none is null (bytes have p NULL as well) */
    size_t memory;        /* bytes held */
    int64_t cap_rows, cap;
    void **blocks;        /* what `bytes` points into */
    int n_blocks;
} nm_parquet_values;

/* Thread safe: any number of threads may read units of one file. */
noema_status nm_parquet_read(const nm_parquet *p, const nm_parquet_unit *u, nm_parquet_values *v, noema_error *err);
void nm_parquet_values_free(nm_parquet_values *v);

#endif
