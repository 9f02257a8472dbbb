/* blip2.h - BLIP-2 (arXiv 2301.12597): a frozen image encoder, the Q-Former, and either contrastive and matching heads (stage 1) or a
 * frozen language model behind a projection (stage 2). docs/models/blip2.md is the page for readers.
 *
 *     pixels -> image encoder -> ln_vision -> states [n, tokens, vision width]
 *     itc: best over the queries of cosine(vision_proj(qformer(queries, states)), text_proj(qformer(text)[0]))
 *     itm: mean over the queries of itm_head(qformer(queries and text, states))
 *     stage 1 caption: cls(qformer([DEC] ..., queries))
 *     stage 2 caption, answer: language model(proj(qformer(queries, states)), prompt) */
#ifndef NM_BLIP2_H
#define NM_BLIP2_H

#include "models/blip_common.h"
#include "models/opt.h"
#include "models/qformer.h"
#include "models/t5.h"
#include "models/vit.h"

/* Naming schemes: the authors' and transformers' files, and a part in a file of its own (image encoder, language model). */
enum { NM_BLIP2_OFFICIAL = 0, NM_BLIP2_HF = 1, NM_BLIP2_PART = 2 };
enum { NM_BLIP2_VISION = 1, NM_BLIP2_BODY = 2, NM_BLIP2_LM = 4, NM_BLIP2_ALL = 7 };

typedef enum nm_blip2_lm { NM_LM_NONE, NM_LM_OPT, NM_LM_T5 } nm_blip2_lm;

typedef struct nm_blip2_cfg {
    int scheme;
    nm_vit_cfg vit;
    bool clip_vision;       /* OpenAI's names (clip_vit_L.pth) instead of EVA's */
    bool split_bias;        /* EVA: q_bias and v_bias, no bias of k */
    float ln_vision_eps;
    nm_qformer_cfg qformer;
    bool has_itc, has_itm;
    int embed_dim;          /* of the ITC space */
    bool has_temp;
    float temp;
    int text_limit;         /* ids of a text that is matched; 0: none of its own */
    nm_blip2_lm lm;
    nm_opt_cfg opt;
    nm_t5_cfg t5;
    int lm_width;
    char lm_body[32];       /* before OPT's "decoder." */
    int bos, eos, pad;      /* of the language model; eos < 0: OPT's line feed */
    int image_token;        /* placeholder of a query in the row; < 0: older folders and the authors' files */
    int prompt_limit;       /* ids of a prompt; 0: no limit */
    /* what generation does unless told otherwise */
    nm_blip_defaults rules;
} nm_blip2_cfg;

typedef struct nm_eva_bias_w { nm_weight q, v; } nm_eva_bias_w; /* [width] each */

typedef struct nm_blip2 {
    nm_model base;
    nm_blip2_cfg cfg;
    int parts;                  /* which the declaration visits */
    nm_weights *vision_file, *lm_file; /* where they are files of their own */
    nm_vit_w vit;
    nm_eva_bias_w *eva_bias;    /* [layers] */
    nm_norm_w ln_vision;
    nm_qformer_w qformer;
    nm_linear_w vision_proj, text_proj, itm_head;
    nm_weight temp;
    nm_linear_w lm_proj;        /* [language model width, width] */
    nm_opt_w opt;
    nm_t5_w t5;
} nm_blip2;

extern const nm_family nm_family_blip2;

/* blip2_config.c: from tensor shapes and, where given, a configuration in the form of transformers. vision, lm: the sources that hold
 * these parts; lm->config: the language model's own. */
noema_status nm_blip2_configure(nm_blip2 *m, const nm_source *s, const nm_source *vision, const nm_source *lm, noema_error *err);

/* pixels f32 [n, 3, h, w] -> f32 [n, tokens, vision width], after ln_vision. */
nm_tensor nm_blip2_image_states(nm_run *r, const nm_blip2 *m, nm_tensor pixels);
/* Query rows of pictures: f32 [n * queries, width]. cache: see nm_qformer_input. */
nm_tensor nm_blip2_queries(nm_run *r, const nm_blip2 *m, nm_tensor states, nm_kv_cache *cache);
/* ITM logits f32 [texts, 2] of one picture (states [1, tokens, vision width]) with every text. */
nm_tensor nm_blip2_itm(nm_run *r, const nm_blip2 *m, nm_tensor states, const nm_texts *texts, int64_t limit);
/* The joint pass of texts with their pictures, states [texts, tokens, vision width]: f32 [texts, queries, width]. */
nm_tensor nm_blip2_multimodal(nm_run *r, const nm_blip2 *m, nm_tensor states, const nm_texts *texts);

/* ---- language model: n rows that begin with a picture's queries, then a prompt's ids ---- */

/* What a prompt becomes: OPT: embeddings, ragged (offsets [n + 1]); T5: the encoder's states. queries f32 [n * queries, width]. */
typedef struct nm_blip2_prefix { nm_tensor rows; int64_t *offsets; } nm_blip2_prefix;
nm_blip2_prefix nm_blip2_prefix_rows(nm_run *r, const nm_blip2 *m, nm_tensor queries, const nm_texts *prompts);
/* Ids of the language model's words as its embeddings, f32 [n, lm width]. */
nm_tensor nm_blip2_words(nm_run *r, const nm_blip2 *m, const int32_t *ids, int64_t n);

/* Id of [DEC]: the tokenizer's, or the one behind its last line. */
int32_t nm_blip2_dec_id(const nm_tokenizer *t);

#endif
