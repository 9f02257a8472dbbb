/* kv_cache.h - keys and values of the live rows of a search, behind which a decoder computes new rows only. Each row belongs to one item
 * (picture); any number of rows may continue one parent. Rows are ragged: row i owns offsets[i] .. offsets[i+1].
 *
 * A step writes a layer's rows anew from their parents' into a spare buffer, which then takes the layer's place: layers + 1 buffers. */
#ifndef NM_KV_CACHE_H
#define NM_KV_CACHE_H

#include "nn/nn.h"

typedef struct nm_kv_cache {
    int layers;
    int64_t width;                  /* of keys and values together */
    nm_dtype dtype;                 /* the run's activation type */
    int64_t items, max_rows, max_length;
    int64_t n, n_new;               /* rows after the last step, and of the one that is going on */
    int64_t *offsets[2], *item[2];  /* [max_rows + 1], [max_rows] */
    int side;                       /* of these: the current one */
    char **kv;                      /* [layers + 1]: [max_rows * max_length, width]; the last one is spare */
} nm_kv_cache;

bool nm_kv_init(nm_run *r, nm_kv_cache *k, int layers, int64_t width, int64_t items, int64_t max_rows, int64_t max_length);
/* Bytes that nm_kv_init takes; 0: too many. */
size_t nm_kv_bytes(const nm_run *r, int layers, int64_t width, int64_t max_rows, int64_t max_length);

/* A step of n rows: row i continues row parent[i] (NULL: row i, or where there is none yet begins item i) with the new rows new_offsets[i] ..
 * new_offsets[i+1]. Rows of one item are neighbours, items ascend. false with r->err set when they do not fit. */
bool nm_kv_begin(nm_run *r, nm_kv_cache *k, int64_t n, const int64_t *parent, const int64_t *new_offsets);
/* Within a step: the offsets of all rows' keys, [n + 1], and the item of each row. */
static inline const int64_t *nm_kv_offsets(const nm_kv_cache *k) { return k->offsets[!k->side]; }
static inline const int64_t *nm_kv_items(const nm_kv_cache *k) { return k->item[!k->side]; }
/* Keys and values of a layer with those of the new rows, kv [new rows, width] (columns of a wider tensor are fine), behind them. */
nm_tensor nm_kv_extend(nm_kv_cache *k, int layer, nm_tensor kv, const int64_t *parent, const int64_t *new_offsets);
void nm_kv_end(nm_kv_cache *k);
/* Where each new row stands in its sequence, from 0; in the run's scratch memory. */
int32_t *nm_kv_positions(nm_run *r, const nm_kv_cache *k, const int64_t *new_offsets);
/* [items + 1]: the new rows of each item, which cross-attention takes as one sequence; a finished item has none. */
int64_t *nm_kv_item_rows(nm_run *r, const nm_kv_cache *k, const int64_t *new_offsets);

#endif
