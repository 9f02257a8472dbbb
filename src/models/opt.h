/* opt.h - the OPT decoder (arXiv 2205.01068): BLIP-2's language model.
 *
 *     ids -> embed_tokens + embed_positions[position + 2] -> pre-norm layers, ReLU -> final_layer_norm -> logits by embed_tokens */
#ifndef NM_OPT_H
#define NM_OPT_H

#include "models/kv_cache.h"
#include "models/transformer.h"

typedef struct nm_opt_cfg {
    int vocab_size, width, layers, heads, mlp;
    int positions;      /* rows of the position table; the first NM_OPT_OFFSET are of no position */
    bool final_norm;
    nm_act act;
    float eps;
} nm_opt_cfg;
enum { NM_OPT_OFFSET = 2 };

typedef struct nm_opt_layer_w {
    nm_norm_w ln_1, ln_2;
    nm_linear_w qkv, out;  /* [3 width, width], [width, width] */
    nm_linear_w fc1, fc2;  /* [mlp, width], [width, mlp] */
} nm_opt_layer_w;

typedef struct nm_opt_w {
    nm_weight embed_tokens, embed_positions, lm_head; /* [vocab, width], [positions, width], [vocab, width] or absent: embed_tokens */
    nm_norm_w final_layer_norm;
    nm_opt_layer_w *layer;
} nm_opt_w;

bool nm_opt_alloc(nm_opt_w *w, const nm_opt_cfg *c);
void nm_opt_free(nm_opt_w *w);
/* Below the caller's prefix; `body` is what stands before "decoder." in the file ("model." or ""). */
void nm_opt_params(nm_params *p, nm_opt_w *w, const nm_opt_cfg *c, const char *body);
bool nm_opt_ready(nm_opt_w *w, const nm_opt_cfg *c);

/* Positions are added to token (or query) embeddings x f32 [rows, width], then the layers run behind the cache (see kv_cache.h).
 * -> f32 [rows, width], before the last norm. cache NULL: whole sequences, n of them with rows new_offsets[i] .. new_offsets[i+1]. */
nm_tensor nm_opt_step(nm_run *r, const nm_opt_w *w, const nm_opt_cfg *c, nm_kv_cache *cache, int64_t n, const int64_t *parent, nm_tensor x,
                      const int64_t *new_offsets);
/* [n, width] -> f32 [n, vocab], with the last norm */
nm_tensor nm_opt_logits(nm_run *r, const nm_opt_w *w, const nm_opt_cfg *c, nm_tensor x);

#endif
