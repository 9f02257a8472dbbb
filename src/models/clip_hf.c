/* clip_hf.c - config.json of transformers' CLIPModel and SiglipModel (configuration_clip.py, configuration_siglip.py). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "models/clip.h"

/* text_config_dict, with the class's defaults for what it leaves out, replaces text_config (configuration_clip.py). */
static const json_t *hf_part(const json_t *config, const char *dict, const char *part)
{
    const json_t *d = nm_json_get(config, dict);
    return json_is_object(d) ? d : nm_json_get(config, part);
}

typedef struct hf_defaults { int text_width, text_mlp, text_heads, context, vocab, image, patch; double eps; const char *act; } hf_defaults;
static const hf_defaults hf_clip = { 512, 2048, 8, 77, 49408, 224, 32, 1e-5, "quick_gelu" };
static const hf_defaults hf_siglip = { 768, 3072, 12, 64, 32000, 224, 16, 1e-6, "gelu_pytorch_tanh" };

static noema_status hf_act(const json_t *cfg, const char *dflt, const nm_source *s, nm_act *act, noema_error *err)
{
    const char *name = nm_json_str(cfg, "hidden_act", dflt);
    if (!nm_act_from_name(name, act))
        return nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: hidden_act \"%s\" is not supported", s->name, name);
    *act = nm_cfg_activation(s, *act);
    return NOEMA_OK;
}

static noema_status hf_image(nm_clip_cfg *c, const json_t *cfg, const hf_defaults *d, const nm_source *s, noema_error *err)
{
    nm_vit_cfg *v = &c->vit;
    v->width = nm_cfg_int(cfg, "hidden_size", 768);
    v->mlp = nm_cfg_int(cfg, "intermediate_size", 3072);
    v->layers = nm_cfg_int(cfg, "num_hidden_layers", 12);
    v->heads = nm_cfg_int(cfg, "num_attention_heads", 12);
    nm_cfg_pair(cfg, "image_size", d->image, &v->image_height, &v->image_width);
    nm_cfg_pair(cfg, "patch_size", d->patch, &v->patch_height, &v->patch_width);
    v->eps = (float)nm_json_num(cfg, "layer_norm_eps", d->eps);
    v->ln_post = v->from_file = true;
    v->class_token = v->ln_pre = v->proj = !c->siglip;
    v->patch_bias = c->siglip;
    v->pool = c->siglip ? NM_VIT_POOL_MAP : NM_VIT_POOL_TOK;
    v->map_mlp = v->mlp;
    v->embed_dim = c->siglip ? v->width : c->embed_dim;
    v->resize = NM_INTERP_BICUBIC;
    v->observed = NM_VIEW_HF;
    if (c->siglip && !nm_json_bool(cfg, "vision_use_head", true))
        return nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: vision_use_head false gives no vector per picture", s->name);
    return hf_act(cfg, d->act, s, &v->act, err);
}

static noema_status hf_text(nm_clip_cfg *c, const json_t *cfg, const hf_defaults *d, const nm_source *s, noema_error *err)
{
    nm_text_cfg *t = &c->text;
    nm_cfg_text_defaults(t);
    t->width = nm_cfg_int(cfg, "hidden_size", d->text_width);
    t->mlp = nm_cfg_int(cfg, "intermediate_size", d->text_mlp);
    t->layers = nm_cfg_int(cfg, "num_hidden_layers", 12);
    t->heads = nm_cfg_int(cfg, "num_attention_heads", d->text_heads);
    t->context_length = nm_cfg_int(cfg, "max_position_embeddings", d->context);
    t->vocab_size = nm_cfg_int(cfg, "vocab_size", d->vocab);
    t->eps = (float)nm_json_num(cfg, "layer_norm_eps", d->eps);
    t->proj = true;
    t->observed = NM_VIEW_HF;
    t->embed_dim = c->embed_dim;
    if (c->siglip) {
        t->causal = false;
        t->pool = NM_TEXT_POOL_LAST;
        t->proj_bias = true;
        t->embed_dim = c->embed_dim = nm_cfg_int(cfg, "projection_size", t->width);
        t->pad_id = nm_cfg_int(cfg, "pad_token_id", 1);
    } else {
        /* 2 was written by mistake into early CLIP files: pool at the largest id then (transformers pull request 24777); in MetaCLIP 2
         * it is XLM-V's end token */
        bool mistake = strncmp(nm_json_str(s->config, "model_type", "clip"), "clip", 4) == 0;
        t->eos_id = nm_cfg_int(cfg, "eos_token_id", 49407);
        t->pool = t->eos_id == 2 && mistake ? NM_TEXT_POOL_ARGMAX : NM_TEXT_POOL_EOS;
    }
    return hf_act(cfg, d->act, s, &t->act, err);
}

static noema_status hf_preprocess(nm_clip *m, const nm_source *s, noema_error *err)
{
    char *path = nm_path_join(s->dir, "preprocessor_config.json");
    bool forced = s->options && s->options->image_height > 0, have = path && nm_file_exists(path);
    noema_status st = have ? nm_preprocess_from_file(&m->base.preprocess, path, err)
                           : nm_preprocess_named(&m->base.preprocess, m->cfg.siglip ? "hf5_siglip" : "hf5_clip", m->base.image_height,
                                                 m->base.image_width, err);
    free(path);
    nm_cfg_fit_preprocess(m, forced);
    return st;
}

noema_status nm_clip_config_hf(nm_clip *m, const nm_source *s, noema_error *err)
{
    nm_clip_cfg *c = &m->cfg;
    const char *type = nm_json_str(s->config, "model_type", "");
    if (!s->config)
        return nm_fail(err, NOEMA_E_MISSING, "%s: the tensors are named as in transformers, which needs config.json beside the file or --config", s->name);
    c->siglip = nm_source_has(s, "logit_bias") || strcmp(type, "siglip") == 0;
    if (strcmp(type, "siglip2") == 0)
        return nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: SigLIP 2 NaFlex (variable resolution) is not supported; the fixed-resolution models are", s->name);
    const hf_defaults *d = c->siglip ? &hf_siglip : &hf_clip;
    const json_t *text = hf_part(s->config, "text_config_dict", "text_config"), *vision = hf_part(s->config, "vision_config_dict", "vision_config");
    c->has_image = nm_source_has(s, "vision_model.embeddings.patch_embedding.weight");
    c->has_text = nm_source_has(s, "text_model.embeddings.token_embedding.weight");
    if (!text && nm_has_suffix(type, "_text_model"))
        text = s->config;
    if (!vision && nm_has_suffix(type, "_vision_model"))
        vision = s->config;
    c->scheme = NM_HF;
    c->embed_dim = nm_cfg_int(s->config, "projection_dim", 512);
    c->init_logit_scale = nm_json_num(s->config, "logit_scale_init_value", 2.6592);
    noema_status st = c->has_text ? hf_text(c, text, d, s, err) : NOEMA_OK; /* first: SigLIP's embed_dim is there */
    if (st == NOEMA_OK && c->has_image)
        st = hf_image(c, vision, d, s, err);
    if (st == NOEMA_OK && c->siglip && !c->has_text)
        c->embed_dim = c->vit.width;
    c->act = c->has_text ? c->text.act : c->vit.act;
    if (st == NOEMA_OK)
        st = nm_clip_config_check(c, s->name, err);
    if (st != NOEMA_OK)
        return st;
    nm_cfg_image_size(m, s->options);
    nm_tok_options *o = &m->base.tok;
    *o = noema_tokenizer_options_default();
    o->context_length = c->text.context_length;
    o->vocab_size = c->siglip ? 0 : c->text.vocab_size;
    char *declared = nm_path_join(s->dir, "tokenizer_config.json");
    if (c->siglip && !(declared && nm_file_exists(declared)) && c->text.vocab_size < 256000) {
        o->kind = NOEMA_TOKENIZER_SIGLIP; /* SiglipTokenizer's clean-up, which a bare vocabulary does not tell */
        o->clean = NOEMA_CLEAN_CANONICALIZE;
    }
    free(declared);
    return hf_preprocess(m, s, err);
}
