/* blip_common.h - what the configurations of BLIP and BLIP-2 share. */
#ifndef NM_BLIP_COMMON_H
#define NM_BLIP_COMMON_H

#include "models/model.h"
#include "models/vit.h"

static inline bool nm_blip_size_ok(int64_t v, int64_t most) { return v >= 1 && v <= most; }

/* Members of a part `j` of transformers' configuration (may be NULL); `what` names it: "vision_config". */
noema_status nm_blip_heads(int *out, const json_t *j, int width, int dflt, const char *what, const nm_source *s, noema_error *err);
noema_status nm_blip_eps(float *out, const json_t *j, const char *key, double dflt, const nm_source *s, noema_error *err);
noema_status nm_blip_activation(nm_act *act, const char *name, const nm_source *s, noema_error *err);

/* --image-size over the size of the position table; it must be a multiple of the patch. */
noema_status nm_blip_image_size(nm_vit_cfg *c, const nm_source *s, noema_error *err);
/* The authors' preprocessing, or a folder's. */
noema_status nm_blip_preprocessing(nm_model *b, bool official, const nm_source *s, noema_error *err);

/* What generation does unless told otherwise. */
typedef struct nm_blip_defaults {
    int beams, max_length, min_length, beam_rule;
    int max_new, min_new; /* 0: not said */
    double repetition_penalty, length_penalty;
    bool early_stopping;
    bool sample; /* with top_k, temperature and top_p, 0: not said */
    int top_k;
    double temperature, top_p;
} nm_blip_defaults;

/* What a folder says about generation: generation_config.json or, in older folders, config.json or its text_config. */
typedef struct nm_blip_generation {
    json_t *generation;          /* of generation_config.json, or NULL; freed by the caller */
    const json_t *config, *text; /* config.json, its text_config */
    nm_blip_defaults rules;
} nm_blip_generation;
noema_status nm_blip_folder_generation(nm_blip_generation *g, const nm_source *s, noema_error *err);

#endif
