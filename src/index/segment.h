/* segment.h - vector segments: files of unit vectors in row order, appended to and mapped, never changed in place.
 *
 * File: 4096 bytes of header area (the header below, little-endian, then zeros), then rows of `dim` elements without gaps.
 * How many rows count, and the checksum of each block of NM_SEG_BLOCK rows, stand in the catalogue, because only there can they
 * change together with the items: whatever lies behind the committed rows is ignored, and overwritten by the next append. */
#ifndef NM_SEGMENT_H
#define NM_SEGMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/dtype.h"
#include "base/err.h"

enum {
    NM_SEG_HEADER_BYTES = 64,  /* of which the last 8 are the hash of the others */
    NM_SEG_DATA_AT = 4096,     /* rows start on a page */
    NM_SEG_BLOCK = 64,         /* rows under one checksum: what one flipped bit costs */
    NM_SEG_CAPACITY = 65536,   /* rows of a segment that we write */
    NM_SEG_MAX_DIM = 65536,
    NM_SEG_VERSION = 1
};

typedef struct nm_segment_header {
    uint64_t uid;       /* of the collection: a segment of another one is refused */
    uint64_t id;        /* number of the segment in its collection */
    nm_dtype dtype;     /* NM_F32 or NM_F16 */
    int dim;
    int64_t capacity;   /* rows at most */
} nm_segment_header;

/* Reads and checks the first `size` bytes of a segment file; `what` names it in messages. */
noema_status nm_segment_parse(nm_segment_header *h, const void *data, size_t size, const char *what, noema_error *err);
void nm_segment_write_header(const nm_segment_header *h, unsigned char out[NM_SEG_HEADER_BYTES]);

/* An open segment. Invariant: checksums cover rows [0, rows); bitmaps have `capacity` bits, rows beyond `rows` are 0. */
typedef struct nm_segment {
    nm_segment_header h;
    char *path;
    int64_t rows;              /* committed */
    int64_t usable;            /* of these, how many the file holds */
    uint64_t *checksums;       /* [capacity / NM_SEG_BLOCK] */
    uint64_t *deleted;         /* bitmap of rows without an item, as committed */
    uint64_t *skip;            /* deleted, or in a block that failed its checksum */
    int64_t n_deleted, n_dropped;
    const unsigned char *data; /* rows, mapped; NULL when the file is missing or refused */
    size_t map_bytes;
    unsigned char *pending;    /* rows put since the last commit, in the segment's dtype; the writer's */
    int64_t n_pending, cap_pending;
    bool fresh;                /* made since the last commit: unlinked when that fails */
} nm_segment;

nm_segment *nm_segment_new(const nm_segment_header *h, const char *path); /* nothing on disk yet; NULL: out of memory */
void nm_segment_free(nm_segment *s);
size_t nm_segment_row_bytes(const nm_segment *s);
static inline int64_t nm_segment_blocks(int64_t rows) { return (rows + NM_SEG_BLOCK - 1) / NM_SEG_BLOCK; }
static inline bool nm_bit(const uint64_t *map, int64_t i) { return map[i >> 6] >> (i & 63) & 1; }
static inline void nm_bit_set(uint64_t *map, int64_t i) { map[i >> 6] |= UINT64_C(1) << (i & 63); }

/* Maps the file so that `rows` rows can be read. Fails (leaving `data` NULL) when the file is missing or not this segment;
 * a file that is too short is mapped as far as it goes: `usable` says so. */
noema_status nm_segment_map(nm_segment *s, int64_t rows, noema_error *err);
uint64_t nm_segment_checksum(const nm_segment *s, int64_t block, int64_t rows); /* of the block's rows below `rows` */
bool nm_segment_block_good(const nm_segment *s, int64_t block); /* readable, and as its checksum says */
void nm_segment_drop_block(nm_segment *s, int64_t block);       /* its rows enter `skip` */
int64_t nm_segment_verify(nm_segment *s);                       /* all blocks; returns how many rows were dropped */
bool nm_segment_good(const nm_segment *s, int64_t row); /* committed, readable, not dropped, not deleted */
bool nm_segment_can_append(const nm_segment *s);        /* room, and the last block is intact */

/* The writer's side. Put converts and buffers; flush writes the buffer behind the committed rows and syncs file and folder. The
 * new checksums go to `sums` [blocks of rows + n_pending]. Nothing of it counts before nm_segment_commit. */
bool nm_segment_put(nm_segment *s, const float *v);
bool nm_segment_put_raw(nm_segment *s, const void *row);
noema_status nm_segment_flush(nm_segment *s, uint64_t *sums, noema_error *err);
void nm_segment_commit(nm_segment *s, const uint64_t *sums);
void nm_segment_read(const nm_segment *s, int64_t row, float *out); /* [dim]; the row must be readable */

#endif
