/* med.h - BLIP's text network (arXiv 2201.12086: "mixture of encoder-decoder"): BERT without token types, with cross-attention
 * to a second sequence in every layer. One set of weights serves four uses:
 *
 *     text encoder           x = LN(x + self(x));                                       x = LN(x + mlp(x))
 *     multimodal encoder     x = LN(x + self(x)); x = LN(x + cross(x, context));        x = LN(x + mlp(x))
 *     decoder                the same with a causal mask, token by token behind a key/value cache
 *     NLVR2                  two cross-attentions, one per picture; their results averaged or merged
 *
 * Rows are ragged: sequence i owns rows offsets[i] .. offsets[i+1]; no padding is ever computed. */
#ifndef NM_MED_H
#define NM_MED_H

#include "models/model.h"
#include "models/transformer.h"

typedef struct nm_med_cfg {
    int vocab_size, width, layers, heads, mlp;
    int max_positions;
    int cross_width;  /* width of the context */
    bool twin;        /* NLVR2: self0, self1, dense0, dense1 */
    int merge_from;   /* NLVR2: the layers from here on have merge_layer; layers where none has */
    bool pooler;      /* tanh(dense(first row)) */
    nm_act act;
    float eps;
} nm_med_cfg;

typedef struct nm_med_cross_w { nm_linear_w q, kv, out; } nm_med_cross_w; /* [width, width], [2 width, cross_width], [width, width] */

typedef struct nm_med_layer_w {
    nm_linear_w qkv, out;    /* [3 width, width], [width, width] */
    nm_norm_w norm;
    nm_med_cross_w cross[2]; /* the second one: NLVR2 */
    nm_linear_w merge;       /* [width, 2 width] */
    nm_norm_w cross_norm;
    nm_linear_w fc, proj;    /* [mlp, width], [width, mlp] */
    nm_norm_w mlp_norm;
} nm_med_layer_w;

typedef struct nm_med_w {
    nm_weight word, position; /* [vocab, width], [max_positions, width] */
    nm_norm_w norm;
    nm_med_layer_w *layer;    /* [layers] */
    nm_linear_w pooler;
} nm_med_w;

/* LN(gelu(dense(x))) -> vocabulary. */
typedef struct nm_med_head_w { nm_linear_w dense; nm_norm_w norm; nm_linear_w vocab; nm_weight bias; } nm_med_head_w;

bool nm_med_alloc(nm_med_w *w, const nm_med_cfg *c);
void nm_med_free(nm_med_w *w);
void nm_med_params(nm_params *p, nm_med_w *w, const nm_med_cfg *c);
void nm_med_head_params(nm_params *p, nm_med_head_w *w, const nm_med_cfg *c);
/* After loading: a head that shares its matrix with the word embeddings, or has its bias under one of two names. */
bool nm_med_head_ready(nm_med_head_w *w, const nm_med_w *body, const nm_med_cfg *c);

/* ---- rows ---- */

typedef struct nm_med_rows { int64_t n, rows; int32_t *ids, *pos; int64_t *offsets; } nm_med_rows;

/* first >= 0 replaces each text's first id; limit > 0 cuts a longer text and keeps its last id. */
bool nm_med_layout(nm_run *r, nm_med_rows *l, const nm_texts *t, int32_t first, int64_t limit);

/* What cross-attention looks at. Queries q_offsets[s] .. q_offsets[s+1] see the context rows k_offsets[s] .. k_offsets[s+1]. */
typedef struct nm_med_context {
    nm_tensor states;         /* f32 [rows, cross_width]; may be empty where kv is given */
    const nm_tensor *kv;      /* [layers], [rows, 2 width] each: made once by nm_med_project, or NULL */
    bool packed;              /* kv[i].data is what nm_pack_kv made of them */
    int64_t n;
    const int64_t *q_offsets, *k_offsets;
} nm_med_context;

/* Keys and values of every layer for a context: the same in all steps and for all texts. NULL with r->err set. */
nm_tensor *nm_med_project(nm_run *r, const nm_med_w *w, const nm_med_cfg *c, nm_tensor states, int which);

/* -> f32 [rows, width]. context: NULL (text mode), one, or two for NLVR2. */
nm_tensor nm_med_forward(nm_run *r, const nm_med_w *w, const nm_med_cfg *c, const nm_med_rows *l, bool causal, const nm_med_context *context);
nm_tensor nm_med_first(nm_run *r, nm_tensor x, const nm_med_rows *l); /* f32 [n, width] */
nm_tensor nm_med_logits(nm_run *r, const nm_med_head_w *head, const nm_med_cfg *c, nm_tensor x); /* [n, width] -> f32 [n, vocab] */

/* ---- decoding behind a cache ---- */

/* Self-attention keys and values of all live rows of a search; each row belongs to one item (picture). Two sides: a step reads one
 * and writes the other, so that any number of rows may continue one parent. */
typedef struct nm_med_cache {
    const nm_med_w *w;
    const nm_med_cfg *c;
    nm_tensor *memory;               /* [layers] keys and values of the context, as in nm_med_context */
    bool packed;
    const int64_t *memory_offsets;   /* [items + 1] */
    int64_t items, max_rows, max_length;
    int64_t n;                       /* rows now */
    int64_t *offsets[2], *item[2];   /* [max_rows + 1], [max_rows] */
    char **kv[2];                    /* [layers]: [max_rows * max_length, 2 width] in the run's activation type */
    int side;
} nm_med_cache;

/* The context: item i's rows of states are state_offsets[i] .. state_offsets[i+1] (kept until the last step). */
bool nm_med_cache_init(nm_run *r, nm_med_cache *k, const nm_med_w *w, const nm_med_cfg *c, nm_tensor states, const int64_t *state_offsets,
                       int64_t items, int64_t max_rows, int64_t max_length);
/* Row i continues row parent[i] of the last call (parent NULL: row i begins item i) with ids[new_offsets[i]] .. ids[new_offsets[i+1]].
 * Rows of one item are neighbours, items ascend. -> f32 [new ids, width]. */
nm_tensor nm_med_step(nm_run *r, nm_med_cache *k, int64_t n, const int64_t *parent, const int32_t *ids, const int64_t *new_offsets);

#endif
