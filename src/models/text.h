/* text.h - the text transformer of CLIP, open_clip, SigLIP and CoCa.
 *
 *     ids -> token_embedding + positional_embedding -> blocks (causal or not) -> one row per text -> ln_final -> projection
 *
 * Texts are ragged: with a causal mask only the positions up to the pooled one are computed, since nothing behind it can reach
 * it. Towers that see their padding (SigLIP, CLIPA) get it explicitly. */
#ifndef NM_TEXT_H
#define NM_TEXT_H

#include "models/model.h"
#include "models/transformer.h"

typedef enum nm_text_pool {
    NM_TEXT_POOL_ARGMAX, /* first occurrence of the largest id */
    NM_TEXT_POOL_EOS,    /* first occurrence of eos_id; position 0 without one */
    NM_TEXT_POOL_LAST,   /* the last position of the full context */
    NM_TEXT_POOL_FIRST,
    NM_TEXT_POOL_CLS     /* CoCa: a learned token after the context (embed_cls) */
} nm_text_pool;

typedef struct nm_text_cfg {
    int context_length, vocab_size, width, layers, heads, mlp;
    int embed_dim;                 /* width where there is no projection */
    bool causal, proj, proj_bias, layer_scale;
    bool prefix;                   /* open_clip's custom_text: names below "text." */
    nm_text_pool pool;
    int eos_id;
    int pad_id;                    /* fills short texts where the batch does not say (nm_texts.pad_id < 0) */
    nm_act act;
    float eps;
    bool from_file;                /* the position table has the file's rows until nm_text_ready */
    nm_naming observed;
} nm_text_cfg;

typedef struct nm_text_w {
    nm_weight token_embedding;      /* [vocab, width] */
    nm_weight positional_embedding; /* [context (+ 1 for the class token), width] */
    nm_weight cls_emb;              /* [width] */
    nm_block_w *blocks;             /* [layers] */
    nm_norm_w ln_final;
    nm_linear_w proj;               /* [embed_dim, width] */
} nm_text_w;

bool nm_text_alloc(nm_text_w *w, const nm_text_cfg *c);
void nm_text_free(nm_text_w *w, const nm_text_cfg *c);
void nm_text_params(nm_params *p, nm_text_w *w, const nm_text_cfg *c);
noema_status nm_text_ready(nm_text_w *w, const nm_text_cfg *c, noema_error *err);
/* -> [n, embed_dim] f32 */
nm_tensor nm_text_forward(nm_run *r, const nm_text_w *w, const nm_text_cfg *c, const nm_texts *texts);
/* CoCa: also the token rows before the class token, ragged as the texts (offsets = texts->offsets), f32 [ids, width]. */
nm_tensor nm_text_forward_tokens(nm_run *r, const nm_text_w *w, const nm_text_cfg *c, const nm_texts *texts, nm_tensor *tokens);
nm_block_cfg nm_text_block_cfg(const nm_text_cfg *c);

#endif
