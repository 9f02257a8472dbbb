/* clip_transformers.c - the configuration that makes transformers' CLIPModel of a CLIP of ours, for saving in its layout. */
#include "models/clip.h"

static const char *act_name(nm_act a) { return a == NM_ACT_QUICK_GELU ? "quick_gelu" : a == NM_ACT_GELU_TANH ? "gelu_pytorch_tanh" : "gelu"; }

/* What CLIPModel has no switch for: ResNets, CoCa, SigLIP (its own class), BERT towers, and the variations of open_clip. */
static bool fits(const nm_clip_cfg *c)
{
    const nm_vit_cfg *v = &c->vit;
    const nm_text_cfg *t = &c->text;
    return c->has_image && c->has_text && !c->resnet && !c->coca && !c->siglip && c->text_tower == NM_TEXT_CLIP && v->class_token && v->ln_pre && v->ln_post &&
           v->proj && !v->timm && !v->layer_scale && !v->patch_bias && !v->final_ln_after_pool && !v->pool_queries && v->pool == NM_VIT_POOL_TOK &&
           v->image_height == v->image_width && v->patch_height == v->patch_width && t->causal && t->proj && !t->proj_bias && !t->layer_scale &&
           (t->pool == NM_TEXT_POOL_ARGMAX || t->pool == NM_TEXT_POOL_EOS);
}

json_t *nm_clip_config_transformers(const nm_clip *m)
{
    const nm_clip_cfg *c = &m->cfg;
    const nm_vit_cfg *v = &c->vit;
    const nm_text_cfg *t = &c->text;
    if (!fits(c))
        return NULL;
    /* eos_token_id 2 is transformers' sign for "the largest id of the text" */
    json_t *text = json_pack("{s:s,s:i,s:i,s:i,s:i,s:i,s:i,s:s,s:f,s:i,s:i,s:i}", "model_type", "clip_text_model", "hidden_size", t->width, "intermediate_size",
                             t->mlp, "num_hidden_layers", t->layers, "num_attention_heads", t->heads, "max_position_embeddings", t->context_length, "vocab_size",
                             t->vocab_size, "hidden_act", act_name(t->act), "layer_norm_eps", (double)t->eps, "projection_dim", c->embed_dim, "bos_token_id",
                             t->vocab_size - 2, "eos_token_id", t->pool == NM_TEXT_POOL_EOS ? t->eos_id : 2);
    json_t *vision = json_pack("{s:s,s:i,s:i,s:i,s:i,s:i,s:i,s:s,s:f,s:i}", "model_type", "clip_vision_model", "hidden_size", v->width, "intermediate_size",
                               v->mlp, "num_hidden_layers", v->layers, "num_attention_heads", v->heads, "image_size", v->image_height, "patch_size",
                               v->patch_height, "hidden_act", act_name(v->act), "layer_norm_eps", (double)v->eps, "projection_dim", c->embed_dim);
    return json_pack("{s:s,s:[s],s:i,s:f,s:o,s:o}", "model_type", "clip", "architectures", "CLIPModel", "projection_dim", c->embed_dim,
                     "logit_scale_init_value", c->init_logit_scale, "text_config", text, "vision_config", vision);
}

json_t *nm_clip_preprocessor_transformers(const nm_clip *m)
{
    const nm_preprocess *p = &m->base.preprocess;
    bool squash = p->fit == NM_FIT_SQUASH;
    json_t *size = squash ? json_pack("{s:i,s:i}", "height", p->size_h, "width", p->size_w) : json_pack("{s:i}", "shortest_edge", p->size_h);
    return json_pack("{s:s,s:b,s:o,s:b,s:{s:i,s:i},s:i,s:b,s:f,s:b,s:[f,f,f],s:[f,f,f],s:b}", "image_processor_type", "CLIPImageProcessor", "do_resize", 1,
                     "size", size, "do_center_crop", !squash, "crop_size", "height", p->size_h, "width", p->size_w, "resample", (int)p->filter, "do_rescale", 1,
                     "rescale_factor", 1 / 255.0, "do_normalize", 1, "image_mean", (double)p->mean[0], (double)p->mean[1], (double)p->mean[2], "image_std",
                     (double)p->std[0], (double)p->std[1], (double)p->std[2], "do_convert_rgb", 1);
}
