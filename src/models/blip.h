/* blip.h - BLIP (arXiv 2201.12086): a vision transformer and one text network in up to three roles. docs/models/blip.md is the
 * page for readers.
 *
 *     pixels -> visual_encoder -> states [n, tokens, vision width]
 *     itc: cosine of vision_proj(states[0]) and text_proj(text_encoder(text)[0])
 *     itm: itm_head(text_encoder([ENC] text, states)[0])
 *     caption: text_decoder([DEC] prompt, states)
 *     answer: text_decoder([DEC], text_encoder([ENC] question, states))
 *     NLVR2: cls_head(text_encoder([ENC] text, states of two pictures)[0]) */
#ifndef NM_BLIP_H
#define NM_BLIP_H

#include "models/blip_common.h"
#include "models/med.h"
#include "models/vit.h"

enum { NM_BLIP_OFFICIAL = 0, NM_BLIP_HF = 1 }; /* naming schemes */

typedef struct nm_blip_cfg {
    int scheme;
    nm_vit_cfg vit;
    bool has_encoder, has_decoder;
    nm_med_cfg encoder, decoder; /* the decoder's cross_width: vision (captions) or question states */
    bool has_itc, has_itm, nlvr;
    bool plain;                  /* transformers' BlipModel: text_model, visual_projection, text_projection */
    bool vqa;                    /* the decoder looks at question states */
    int embed_dim;               /* of the ITC space */
    bool cls_first;              /* ITM texts and questions begin with [CLS] (folders) instead of [ENC] */
    int bos, eos, pad;           /* of generated text: [DEC] or < 0: from the vocabulary; [SEP]; [PAD] */
    bool has_temp;
    float temp;
    /* what generation does unless told otherwise */
    const char *prompt;
    nm_blip_defaults rules;
} nm_blip_cfg;

typedef struct nm_blip {
    nm_model base;
    nm_blip_cfg cfg;
    nm_vit_w vit;              /* conv1, class token, positions, ln_post, blocks */
    nm_med_w encoder, decoder;
    nm_med_head_w lm;
    nm_linear_w vision_proj, text_proj, itm_head, cls_head[2];
    nm_weight temp;
} nm_blip;

extern const nm_family nm_family_blip;

/* blip_config.c: from tensor shapes and, where given, a configuration in the form of transformers. */
noema_status nm_blip_configure(nm_blip *m, const nm_source *s, noema_error *err);

/* pixels f32 [n, 3, h, w] -> f32 [n, tokens, vision width], after the final norm. */
nm_tensor nm_blip_image_states(nm_run *r, const nm_blip *m, nm_tensor pixels);
/* Unit vectors of the ITC space: states [n, tokens, vision width] -> f32 [n, embed_dim]. */
nm_tensor nm_blip_image_features(nm_run *r, const nm_blip *m, nm_tensor states);

/* ITM logits f32 [texts, 2] of one picture (states [1, tokens, vision width]) with every text; first: id of the texts' first
 * position, < 0: as the tokenizer gave it. */
nm_tensor nm_blip_itm(nm_run *r, const nm_blip *m, nm_tensor states, const nm_texts *texts, int32_t first);
/* NLVR2 logits f32 [texts, 2] of the pair states [2, tokens, vision width]. */
nm_tensor nm_blip_nlvr(nm_run *r, const nm_blip *m, nm_tensor states, const nm_texts *texts, int32_t first);
/* The same of one pair for each text: states [2 texts, tokens, vision width], the pictures of a pair are neighbours. */
nm_tensor nm_blip_nlvr_pairs(nm_run *r, const nm_blip *m, nm_tensor states, const nm_texts *texts, int32_t first);
/* Question states f32 [rows, width], question i about picture i; *rows says where they are. */
nm_tensor nm_blip_questions(nm_run *r, const nm_blip *m, nm_tensor states, const nm_texts *questions, int32_t first, nm_med_rows *rows);

/* Ids of [DEC] and [ENC]: the tokenizer's, or those behind its last line. */
int32_t nm_blip_dec_id(const nm_blip *m, const nm_tokenizer *t);
int32_t nm_blip_enc_id(const nm_tokenizer *t);

#endif
