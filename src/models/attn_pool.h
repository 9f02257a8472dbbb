/* attn_pool.h - pools whose learned queries attend to a picture's tokens: open_clip's AttentionalPooler of CoCa, and what SigLIP's shares with it. */
#ifndef NM_ATTN_POOL_H
#define NM_ATTN_POOL_H

#include "models/transformer.h"

/* open_clip's AttentionalPooler: queries attend to ln_k(tokens). */
typedef struct nm_attn_pool_w {
    nm_weight query;      /* [queries, embed] */
    nm_norm_w ln_q, ln_k; /* [embed], [width] */
    nm_weight qkv;        /* width == embed: fused [3 embed, embed]; q, k and v then are its rows */
    nm_linear_w q, k, v;  /* [embed, embed], [embed, width] twice; biases are rows of bias */
    nm_weight bias;       /* [3 embed] */
    nm_linear_w out;      /* [embed, embed] */
} nm_attn_pool_w;

void nm_attn_pool_params(nm_params *p, nm_attn_pool_w *w, const char *module, int queries, int64_t embed, int64_t width);
bool nm_attn_pool_ready(nm_attn_pool_w *w, int64_t embed); /* after loading or drawing */
void nm_attn_pool_free(nm_attn_pool_w *w);
/* x f32 [n, tokens, width] -> f32 [n, queries, embed] */
nm_tensor nm_attn_pool(nm_run *r, const nm_attn_pool_w *w, int heads, nm_tensor x);
/* One pool for both uses: *pooled f32 [n, embed] is its first query (or the mean of the others), normalised; returns the other queries, f32
 * [n, queries - 1, embed]. */
nm_tensor nm_attn_pool_single(nm_run *r, const nm_attn_pool_w *w, const nm_norm_w *ln_post, int heads, float eps, bool average, nm_tensor x, nm_tensor *pooled);

/* Learned queries as a tensor that is trained, f32 [rows, width]. */
nm_tensor nm_query_rows(nm_run *r, const nm_weight *w, int64_t rows);
/* The same queries q f32 [queries, dim] for each of n items attend to its k, v [n, tokens, dim]. */
nm_tensor nm_pool_attention(nm_run *r, nm_tensor q, nm_tensor k, nm_tensor v, int heads);

#endif
