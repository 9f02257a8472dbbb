/* parquet_impl.h - what the files of the Parquet reader share. */
#ifndef NM_PARQUET_IMPL_H
#define NM_PARQUET_IMPL_H

#include "base/file.h"
#include "data/parquet.h"
#include "data/thrift.h"

enum { NM_PQ_PLAIN = 0, NM_PQ_PLAIN_DICTIONARY = 2, NM_PQ_RLE = 3, NM_PQ_BIT_PACKED = 4, NM_PQ_DELTA_BINARY = 5, NM_PQ_DELTA_LENGTH = 6,
       NM_PQ_DELTA_BYTES = 7, NM_PQ_RLE_DICTIONARY = 8, NM_PQ_SPLIT = 9 };

/* A column of a row group. */
typedef struct nm_parquet_chunk {
    int codec;
    int64_t n_values;
    size_t at, end;      /* its pages: [at, end) of the file */
    size_t data_at;      /* the first data page */
    bool elsewhere;      /* in another file */
} nm_parquet_chunk;

typedef struct nm_parquet_group { int64_t rows; nm_parquet_chunk *chunk; } nm_parquet_group;

struct nm_parquet {
    char *name;
    nm_map map;                  /* when we mapped it */
    const unsigned char *data;
    size_t size, max_page;
    int64_t rows;
    nm_parquet_column *column;
    int n_columns;
    nm_parquet_group *group;
    int n_groups;
    struct { char *key, *value; } *meta;
    int n_meta;
};

/* ---- parquet_encoding.c: all read [p, end) and return false on anything that does not fit ---- */

/* RLE / bit-packed hybrid of values of `width` bits: n of them to out. */
bool nm_pq_hybrid(const unsigned char *p, const unsigned char *end, int width, uint32_t *out, int64_t n);
/* The deprecated MSB-first packing of levels. */
bool nm_pq_packed_levels(const unsigned char *p, const unsigned char *end, int width, uint32_t *out, int64_t n);
/* DELTA_BINARY_PACKED: exactly n values; *rest is where it ended. */
bool nm_pq_delta(const unsigned char *p, const unsigned char *end, int64_t *out, int64_t n, const unsigned char **rest);
bool nm_pq_delta_lengths(const unsigned char *p, const unsigned char *end, nm_bytes *out, int64_t n, const unsigned char **rest);
/* DELTA_BYTE_ARRAY: the strings are put together in a block of their own, which the caller frees; at most `limit` bytes. */
bool nm_pq_delta_bytes(const unsigned char *p, const unsigned char *end, nm_bytes *out, int64_t n, size_t limit, unsigned char **block, size_t *size);
bool nm_pq_plain_bytes(const unsigned char *p, const unsigned char *end, nm_bytes *out, int64_t n);

/* ---- parquet_codec.c ---- */
/* Exactly n_out bytes; `what` names the page in messages. */
noema_status nm_pq_decompress(int codec, const void *in, size_t n_in, void *out, size_t n_out, const char *what, noema_error *err);
const char *nm_pq_codec_name(int codec);

#endif
