/* bert.h - the BERT / RoBERTa / XLM-RoBERTa encoder: text tower of multilingual CLIP, sentence embeddings, and (with
 * cross-attention) BLIP's text models. Post-norm: x = LN(x + sublayer(x)).
 *
 *     ids -> word + position + type 0 -> LN -> layers -> rows [sum of lengths, width]
 */
#ifndef NM_BERT_H
#define NM_BERT_H

#include "models/model.h"
#include "models/transformer.h"

typedef struct nm_bert_cfg {
    int vocab_size, width, layers, heads, mlp;
    int max_positions;      /* rows of the position table */
    int type_vocab;         /* 0: none (BLIP) */
    bool roberta_positions; /* position of a token = pad_id + its number, from 1 (RoBERTa counts from pad_id + 1) */
    int pad_id;             /* such ids are no part of the text */
    bool pooler;            /* tanh(dense(first row)) */
    int cross_width;        /* width of the sequence that cross-attention looks at; 0: no cross-attention */
    bool causal;
    nm_act act;
    float eps;              /* 1e-12 (BERT), 1e-5 (RoBERTa) */
    bool mpnet;             /* MPNet's names and relative position bias */
    int bias_buckets;       /* of it: 32 */
} nm_bert_cfg;

typedef struct nm_bert_attention_w {
    nm_linear_w qkv;     /* self: [3 width, width] */
    nm_linear_w q, kv;   /* cross: [width, width], [2 width, cross_width] */
    nm_linear_w out;
    nm_norm_w norm;
} nm_bert_attention_w;

typedef struct nm_bert_layer_w {
    nm_bert_attention_w self, cross;
    nm_linear_w fc, proj; /* [mlp, width], [width, mlp] */
    nm_norm_w norm;
} nm_bert_layer_w;

typedef struct nm_bert_w {
    nm_weight word, position, type; /* [vocab, width], [max_positions, width], [type_vocab, width] */
    nm_norm_w norm;
    nm_bert_layer_w *layers_w;      /* [layers] */
    nm_linear_w pooler;             /* [width, width] */
    nm_weight relative_bias;        /* MPNet: [buckets, heads] */
} nm_bert_w;

/* Schemes 0: weight and bias of LayerNorms; 1: gamma and beta (files of 2018-2019). */
enum { NM_BERT_NAMES = 0, NM_BERT_OLD_NAMES = 1 };

bool nm_bert_alloc(nm_bert_w *w, const nm_bert_cfg *c);
void nm_bert_free(nm_bert_w *w);
void nm_bert_params(nm_params *p, nm_bert_w *w, const nm_bert_cfg *c);

/* Rows of a batch. offsets [n + 1]; key_bias only where padding is kept for an observer. */
typedef struct nm_bert_rows {
    int64_t n, rows;
    int32_t *ids, *pos;
    int64_t *offsets;
    float *key_bias;
} nm_bert_rows;

/* Drops pads, counts positions. padded_length > 0: every text gets that many rows (what an observer of the reference sees). */
bool nm_bert_layout(nm_run *r, nm_bert_rows *l, const nm_texts *t, const nm_bert_cfg *c, int64_t padded_length);
nm_tensor nm_bert_embed(nm_run *r, const nm_bert_w *w, const nm_bert_cfg *c, const nm_bert_rows *l);
/* x f32 [rows, width]. context (or NULL): f32 [context rows, cross_width] with cross-offsets in cross->k_offsets. */
nm_tensor nm_bert_layers(nm_run *r, const nm_bert_w *w, const nm_bert_cfg *c, nm_tensor x, const nm_mask *mask, const nm_tensor *context,
                         const nm_mask *cross);
nm_tensor nm_bert_encode(nm_run *r, const nm_bert_w *w, const nm_bert_cfg *c, const nm_bert_rows *l);

/* First rows of the texts, f32 [n, width]; tanh(pooler(first row)); mean over the unmasked rows. */
nm_tensor nm_bert_first(nm_run *r, nm_tensor x, const nm_bert_rows *l);
nm_tensor nm_bert_pooled(nm_run *r, const nm_bert_w *w, nm_tensor x, const nm_bert_rows *l);
nm_tensor nm_bert_mean(nm_run *r, nm_tensor x, const nm_bert_rows *l);

#endif
