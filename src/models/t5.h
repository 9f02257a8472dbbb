/* t5.h - T5 (arXiv 1910.10683) as version 1.1 and Flan have it: BLIP-2's other language model.
 *
 *     encoder: x += o(attention(layer_norm(x)));                                   x += wo(act(wi_0 h) * wi_1 h), h = layer_norm(x)
 *     decoder: the same with a causal mask, and between the two x += o(attention to the encoder's rows)
 *
 * RMS norms, no biases, scores are not scaled; their bias depends on the distance of key and query through a table of buckets that the
 * first layer of each stack owns. */
#ifndef NM_T5_H
#define NM_T5_H

#include "models/kv_cache.h"
#include "models/transformer.h"

typedef struct nm_t5_cfg {
    int vocab_size, width, inner, heads, mlp; /* inner: heads * d_kv */
    int layers, decoder_layers;
    int buckets, max_distance;
    bool gated;
    float logits_scale; /* width^-0.5 where lm_head is the word table, else 1 */
    nm_act act;
    float eps;
} nm_t5_cfg;

typedef struct nm_t5_attention_w { nm_weight norm; nm_linear_w qkv, q, kv, o; } nm_t5_attention_w; /* self: qkv; cross: q and kv */

typedef struct nm_t5_layer_w {
    nm_t5_attention_w self, cross;
    nm_weight norm;
    nm_linear_w wi_0, wi_1, wo; /* [mlp, width], [mlp, width], [width, mlp] */
} nm_t5_layer_w;

typedef struct nm_t5_stack_w { nm_weight relative_attention_bias, final_layer_norm; nm_t5_layer_w *layer; } nm_t5_stack_w; /* [buckets, heads] */

typedef struct nm_t5_w {
    nm_weight shared, lm_head; /* [vocab, width] each; lm_head may be absent: shared */
    nm_t5_stack_w encoder, decoder;
} nm_t5_w;

bool nm_t5_alloc(nm_t5_w *w, const nm_t5_cfg *c);
void nm_t5_free(nm_t5_w *w);
void nm_t5_params(nm_params *p, nm_t5_w *w, const nm_t5_cfg *c);
bool nm_t5_ready(nm_t5_w *w, const nm_t5_cfg *c);

/* Which row of the table a distance key - query takes. */
int nm_t5_bucket(int64_t delta, bool encoder, int buckets, int max_distance);

/* x f32 [rows, width] (embeddings), n ragged sequences -> f32 [rows, width] after the last norm. Overwrites x. */
nm_tensor nm_t5_encode(nm_run *r, const nm_t5_w *w, const nm_t5_cfg *c, int64_t n, nm_tensor x, const int64_t *offsets);
/* Keys and values of the decoder's cross-attention, [decoder_layers]; NULL with r->err set. */
nm_tensor *nm_t5_project(nm_run *r, const nm_t5_w *w, const nm_t5_cfg *c, nm_tensor states);
/* The decoder behind a cache; items look at rows memory_offsets[i] .. memory_offsets[i+1] of memory. cache NULL: whole sequences, sequence
 * i of item i. x: embeddings of the new ids. -> f32 [rows, width], before the last norm */
nm_tensor nm_t5_step(nm_run *r, const nm_t5_w *w, const nm_t5_cfg *c, nm_kv_cache *cache, const nm_tensor *memory, const int64_t *memory_offsets,
                     int64_t n, const int64_t *parent, nm_tensor x, const int64_t *new_offsets);
nm_tensor nm_t5_logits(nm_run *r, const nm_t5_w *w, const nm_t5_cfg *c, nm_tensor x);

#endif
