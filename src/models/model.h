/* model.h - what a model family gives to the rest of noema. Adding a family: one file with a `const nm_family`, one line in
 * registry.c, one golden, one page. */
#ifndef NM_MODEL_H
#define NM_MODEL_H

#include "base/json.h"
#include "media/preprocess.h"
#include "nn/nn.h"
#include "nn/params.h"
#include "noema/model.h"
#include "tokenizer/tokenizer.h"
#include "weights/weights.h"

/* Token ids of a batch of texts, ragged: text i owns ids[offsets[i]] .. ids[offsets[i+1]]; specials included, no padding. */
typedef struct nm_texts {
    int64_t n;
    const int64_t *offsets;
    const int32_t *ids;
    int32_t pad_id; /* what the tokenizer fills short texts with, for towers that see their padding; -1: as the model says */
    const int32_t *keep; /* in training: positions that are computed of each text, rising, 0 among them [n, n_keep]; its pooled one is besides */
    int64_t n_keep;      /* 0: all */
} nm_texts;

/* Everything a family may look at when it opens a checkpoint. */
typedef struct nm_source {
    const char *name;          /* as the user gave it */
    const char *path;          /* file or folder on disk */
    const char *dir;           /* folder that companion files (tokenizer, config) are looked up in */
    const nm_weights *file;
    const json_t *config;      /* parsed config (config.json, open_clip_config.json, --config), or NULL */
    const noema_model_options *options;
    const char *pretrained;    /* open_clip tag or published identity, when known ("openai", "laion2b_s34b_b79k"), or NULL */
} nm_source;

struct nm_family;

/* The common part; a family's own struct begins with it. Filled by open(). */
typedef struct nm_model {
    const struct nm_family *family;
    int embed_dim, context_length;
    int image_height, image_width;
    int image_vectors;             /* of one picture, [image_vectors, embed_dim]; 0: one */
    int image_tokens;              /* rows of one picture in a forward: how many pictures make a batch; 0: unknown */
    bool has_image, has_text;
    double logit_scale, logit_bias;
    double patch_dropout;          /* its configuration's share of patches left out in training; 0: none */
    int patches;                   /* of one picture, where the image tower heeds nm_run.keep; 0: it does not */
    int text_positions;            /* of one text with its padding, where the text tower heeds nm_texts.keep; 0: it does not */
    bool scale_clipped;            /* logit_scale is clipped to [0, ln 100] where it is used, and has no gradient outside (FLIP) */
    bool has_logit_bias;
    nm_preprocess preprocess;      /* of its pictures */
    nm_tok_options tok;            /* how its texts become ids */
    char *tok_path;                /* file or folder of the tokenizer, malloc'd, or NULL: the registry looks beside the checkpoint */
    bool tok_of_part;              /* it belongs to a language model: a BERT word list given with --tokenizer is another part's */
    const nm_weights *part_file[2]; /* further files that weights lie in; the family closes them */
    nm_load_report report;
} nm_model;

typedef struct nm_family {
    const char *name;
    /* How sure the family is that the source is one of its own: 0 no .. 100. Looks at names and config only. */
    int (*probe)(const nm_source *s);
    noema_status (*open)(nm_model **m, const nm_source *s, noema_error *err);
    /* A fresh model of an architecture ("ViT-B-32") or config with drawn weights; NULL where training is not offered. */
    noema_status (*create)(nm_model **m, const char *arch, const json_t *config, uint64_t seed, noema_error *err);
    /* pixels f32 [n, 3, h, w] -> [n, embed_dim] f32, not normalised. */
    nm_tensor (*encode_image)(nm_run *r, const nm_model *m, nm_tensor pixels);
    /* The image tower's output before the projection, f32 [n, feature_dim(m)]; both NULL: a family without such. */
    nm_tensor (*encode_features)(nm_run *r, const nm_model *m, nm_tensor pixels);
    int (*feature_dim)(const nm_model *m);
    /* The image vector is features W^T + b, W [embed_dim, feature_dim]; *w NULL: the features themselves; *b NULL: no bias. */
    void (*projection)(const nm_model *m, const nm_weight **w, const nm_weight **b);
    nm_tensor (*encode_text)(nm_run *r, const nm_model *m, const nm_texts *texts);
    nm_declare_fn *declare;        /* the one declaration of its parameters */
    int save_scheme;               /* naming scheme of files that we write */
    json_t *(*config)(const nm_model *m); /* open_clip-style or HF config of the model, for saving */
    void (*free)(nm_model *m);
} nm_family;

extern const nm_family nm_family_clip, nm_family_siglip, nm_family_coca, nm_family_sentence;

/* registry.c */
const nm_family *const *nm_families(void); /* NULL-terminated */

/* The loaded model behind the public handle; for the command's own verbs (inspect, convert) and the tests. */
nm_model *noema_model_internal(noema_model *m);

#endif
