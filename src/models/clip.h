/* clip.h - CLIP in all its published forms (OpenAI, open_clip, SigLIP, CoCa, transformers): configuration and model.
 *
 *     picture f32 [n, 3, H, W] -> image tower -> [n, embed_dim]      text ids -> text tower -> [n, embed_dim]
 *     logits = exp(logit_scale) * normalised image . normalised text (+ logit_bias)
 */
#ifndef NM_CLIP_H
#define NM_CLIP_H

#include "models/bert.h"
#include "models/coca.h"
#include "models/model.h"
#include "models/resnet.h"
#include "models/text.h"
#include "models/vit.h"

typedef enum nm_text_tower { NM_TEXT_CLIP, NM_TEXT_BERT } nm_text_tower;
typedef enum nm_bert_pool { NM_BERT_MEAN, NM_BERT_CLS, NM_BERT_POOLER } nm_bert_pool;

typedef struct nm_clip_cfg {
    int embed_dim;
    bool has_image, has_text;
    bool resnet;
    nm_vit_cfg vit;
    nm_resnet_cfg rn;
    nm_text_tower text_tower;
    nm_text_cfg text;
    nm_bert_cfg bert;
    int bert_context;
    nm_bert_pool bert_pool;
    int bert_proj;          /* 0 none, 1 linear, 2 Linear-GELU-Linear; no biases */
    bool coca;
    nm_coca_cfg decoder;
    bool siglip;            /* sigmoid logits: logit_bias */
    double init_logit_scale, init_logit_bias;
    int scheme;             /* naming scheme of the file */
    nm_act act;             /* of both towers where they agree; for messages and saving */
} nm_clip_cfg;

typedef struct nm_clip {
    nm_model base;
    nm_clip_cfg cfg;
    nm_vit_w vit;
    nm_resnet_w rn;
    nm_text_w text;
    nm_bert_w bert;
    nm_weight bert_proj[2]; /* [hidden or embed, width], [embed, hidden] */
    nm_coca_w decoder;
    nm_weight logit_scale, logit_bias;
    json_t *config;         /* open_clip's form: {"model_cfg", "preprocess_cfg"}, for saving */
} nm_clip;

/* clip_config.c, clip_openclip.c, clip_hf.c: the three sources of a configuration. Each fills m->cfg, the preprocessing and the
 * tokenizer options. */
noema_status nm_clip_config_openai(nm_clip *m, const nm_source *s, noema_error *err);    /* from tensor shapes */
noema_status nm_clip_config_openclip(nm_clip *m, const nm_source *s, noema_error *err);  /* model_cfg */
noema_status nm_clip_config_hf(nm_clip *m, const nm_source *s, noema_error *err);        /* config.json of transformers */
json_t *nm_clip_config_json(const nm_clip *m);
/* clip_transformers.c: config.json and preprocessor_config.json of transformers; NULL for a model that its CLIPModel cannot be. */
json_t *nm_clip_config_transformers(const nm_clip *m);
json_t *nm_clip_preprocessor_transformers(const nm_clip *m);
noema_status nm_clip_config_check(const nm_clip_cfg *c, const char *name, noema_error *err);

/* What the sources share. */
nm_act nm_cfg_activation(const nm_source *s, nm_act configured);          /* the option --activation wins */
void nm_cfg_image_size(nm_clip *m, const noema_model_options *o);
void nm_cfg_fit_preprocess(nm_clip *m, bool forced);                      /* the pipeline at the size that the model runs at */
void nm_cfg_text_defaults(nm_text_cfg *t);
int nm_cfg_heads(int64_t width);                                          /* of published towers of that width; 0: unknown */
int nm_cfg_int(const json_t *o, const char *key, int dflt);               /* -1: no sensible number */
void nm_cfg_pair(const json_t *o, const char *key, int dflt, int *h, int *w); /* a number or [h, w] */

/* The caption decoder: images f32 [n, 3, H, W] -> tokens [n, k, width] and, where it is not NULL, the picture's vector [n, embed_dim]; logits of
 * texts' rows as nm_coca_logits. */
nm_tensor nm_clip_image_tokens(nm_run *r, const nm_clip *m, nm_tensor pixels, nm_tensor *vector);
nm_tensor nm_clip_caption_logits(nm_run *r, const nm_clip *m, nm_tensor image_tokens, const nm_texts *texts, nm_coca_rows which);
/* Patch features in the joint space (NM_DENSE_*), [n, positions, embed_dim]. */
nm_tensor nm_clip_dense(nm_run *r, const nm_clip *m, nm_tensor pixels, unsigned flags);

/* Names of the activation functions as configurations spell them; false: unknown. */
bool nm_act_from_name(const char *name, nm_act *act);

/* Dimension d of a tensor of the file, or 0. */
static inline int64_t nm_source_dim(const nm_source *s, const char *name, int d)
{
    const nm_wview *v = s->file ? nm_weights_find(s->file, name) : NULL;
    return v && d < v->ndim ? v->shape[d] : 0;
}
static inline bool nm_source_has(const nm_source *s, const char *name) { return s->file && nm_weights_find(s->file, name); }
/* Number of consecutive i from 0 for which the name with i in place of %d exists. */
int nm_source_count(const nm_source *s, const char *format);

#endif
