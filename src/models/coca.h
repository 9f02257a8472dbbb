/* coca.h - the caption decoder of open_clip's CoCa (arXiv 2205.01917): per layer a causal self-attention block over the text
 * tower's token rows, then a cross-attention block over the image tokens. */
#ifndef NM_COCA_H
#define NM_COCA_H

#include "models/model.h"
#include "models/transformer.h"

typedef struct nm_coca_cfg { int layers, width, heads, mlp, context_length, vocab_size; nm_act act; float eps; } nm_coca_cfg;

typedef struct nm_coca_w {
    nm_block_w *self, *cross;  /* [layers] */
    nm_norm_w ln_final;
    nm_weight text_projection; /* [vocab, width] */
} nm_coca_w;

bool nm_coca_alloc(nm_coca_w *w, const nm_coca_cfg *c);
void nm_coca_free(nm_coca_w *w, const nm_coca_cfg *c);
void nm_coca_params(nm_params *p, nm_coca_w *w, const nm_coca_cfg *c); /* below "text_decoder." */
bool nm_coca_ready(nm_coca_w *w, const nm_coca_cfg *c);

/* Of which rows of a text the logits are wanted: all; the last, for generation; all but the last, which training has labels for. */
typedef enum nm_coca_rows { NM_COCA_ALL, NM_COCA_LAST, NM_COCA_BUT_LAST } nm_coca_rows;
/* image f32 [n, image tokens, width]; tokens f32 [rows, width] ragged by offsets [n + 1] -> f32 [rows wanted, vocab]. */
nm_tensor nm_coca_logits(nm_run *r, const nm_coca_w *w, const nm_coca_cfg *c, nm_tensor image, nm_tensor tokens, const int64_t *offsets, nm_coca_rows which);

#endif
