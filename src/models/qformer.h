/* qformer.h - BLIP-2's Q-Former (arXiv 2301.12597): BERT whose input is learned queries, text, or both. Queries look at a picture by
 * cross-attention in every other layer; queries and text have feed-forward layers of their own and share self-attention.
 *
 *     x = LN(queries | word + position)             one norm over all rows; queries have no positions
 *     x = LN(x + self(x))                           all rows
 *     q = LN(q + cross(q, picture))                 query rows, in layers that have it
 *     q = LN(q + mlp_query(q)); t = LN(t + mlp(t))
 *
 * Query rows [items * queries, width] and text rows (ragged, see med.h) are tensors of their own; only keys and values are put side
 * by side: an item's queries, then its text. */
#ifndef NM_QFORMER_H
#define NM_QFORMER_H

#include "models/kv_cache.h"
#include "models/med.h"

typedef struct nm_qformer_cfg {
    int queries, width, layers, heads, mlp;
    int cross_width;               /* of the picture's states */
    int vocab_size, max_positions; /* 0: no text */
    bool head;                     /* cls.predictions: writes captions */
    nm_act act;
    float eps;
} nm_qformer_cfg;

typedef struct nm_qformer_mlp_w { nm_linear_w fc, proj; nm_norm_w norm; } nm_qformer_mlp_w; /* [mlp, width], [width, mlp] */

typedef struct nm_qformer_layer_w {
    nm_linear_w qkv, out;   /* [3 width, width], [width, width] */
    nm_norm_w norm;
    bool cross;
    nm_med_cross_w look;    /* q [width, width], kv [2 width, cross_width], out */
    nm_norm_w look_norm;
    nm_qformer_mlp_w query, text;
} nm_qformer_layer_w;

typedef struct nm_qformer_w {
    nm_weight query_tokens;   /* [1, queries, width] */
    nm_weight word, position; /* [vocab, width], [max_positions, width] */
    nm_norm_w norm;
    nm_qformer_layer_w *layer;
    nm_med_head_w head;
} nm_qformer_w;

bool nm_qformer_alloc(nm_qformer_w *w, const nm_qformer_cfg *c);
void nm_qformer_free(nm_qformer_w *w);
/* Naming schemes: 0 the authors' ("Qformer.bert."), 1 transformers' ("qformer."). */
void nm_qformer_params(nm_params *p, nm_qformer_w *w, const nm_qformer_cfg *c);
bool nm_qformer_ready(nm_qformer_w *w, const nm_qformer_cfg *c);

typedef struct nm_qformer_states { nm_tensor query, text; } nm_qformer_states;

typedef struct nm_qformer_input {
    int64_t items;                 /* sets of queries; 0: text alone */
    const nm_med_rows *text;       /* one per item, or NULL: queries alone */
    const nm_med_context *image;   /* what the query rows look at */
    bool blind;                    /* queries do not see the text, and text sees queries and earlier text (captions) */
    nm_kv_cache *cache;            /* queries alone: takes their keys and values, for nm_qformer_step; or NULL */
} nm_qformer_input;

/* -> f32 [items * queries, width] and f32 [text rows, width]. */
nm_qformer_states nm_qformer_forward(nm_run *r, const nm_qformer_w *w, const nm_qformer_cfg *c, const nm_qformer_input *in);
/* Keys and values of the pictures' states for every layer that looks at them; NULL with r->err set. */
nm_tensor *nm_qformer_project(nm_run *r, const nm_qformer_w *w, const nm_qformer_cfg *c, nm_tensor states);
/* Text rows behind a cache that holds the queries. -> f32 [new ids, width] */
nm_tensor nm_qformer_step(nm_run *r, const nm_qformer_w *w, const nm_qformer_cfg *c, nm_kv_cache *k, int64_t n, const int64_t *parent,
                          const int32_t *ids, const int64_t *new_offsets);
/* [n, width] -> f32 [n, vocab] */
nm_tensor nm_qformer_logits(nm_run *r, const nm_qformer_w *w, const nm_qformer_cfg *c, nm_tensor x);

#endif
