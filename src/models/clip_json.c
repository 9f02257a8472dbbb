/* clip_json.c - a model's configuration in open_clip's form, for the files that we write. */
#include <string.h>

#include "models/clip.h"

static const char *text_pool_name(nm_text_pool p)
{
    return p == NM_TEXT_POOL_EOS ? "eos" : p == NM_TEXT_POOL_LAST ? "last" : p == NM_TEXT_POOL_FIRST ? "first" : "argmax";
}

static json_t *vision_json(const nm_clip_cfg *c)
{
    const nm_vit_cfg *v = &c->vit;
    if (c->resnet)
        return json_pack("{s:i,s:[i,i,i,i],s:i,s:n}", "image_size", c->rn.image_size, "layers", c->rn.blocks[0], c->rn.blocks[1], c->rn.blocks[2],
                         c->rn.blocks[3], "width", c->rn.width, "patch_size");
    json_t *size = v->image_height == v->image_width ? json_integer(v->image_height) : json_pack("[i,i]", v->image_height, v->image_width);
    if (v->timm)
        return json_pack("{s:o,s:o,s:b,s:s,s:s}", "image_size", size, "timm_model_name",
                         json_sprintf("ViT patch %d, width %d, depth %d, heads %d, mlp %d", v->patch_height, v->width, v->layers, v->heads, v->mlp),
                         "timm_model_pretrained", 0, "timm_pool", v->pool == NM_VIT_POOL_MAP ? "map" : "avg", "timm_proj",
                         v->head_proj ? "linear" : "none");
    json_t *j = json_pack("{s:o,s:i,s:i,s:i,s:i}", "image_size", size, "layers", v->layers, "width", v->width, "head_width", v->width / v->heads,
                          "patch_size", v->patch_height);
    if (v->mlp != 4 * v->width) /* int(width * ratio) must give the same number again: aim at its middle */
        json_object_set_new(j, "mlp_ratio", json_real((v->mlp + 0.5) / v->width));
    if (!v->ln_pre)
        json_object_set_new(j, "no_ln_pre", json_true());
    if (v->layer_scale)
        json_object_set_new(j, "ls_init_value", json_real(1e-4));
    if (v->pool == NM_VIT_POOL_AVG)
        json_object_set_new(j, "pool_type", json_string("avg"));
    if (v->final_ln_after_pool)
        json_object_set_new(j, "final_ln_after_pool", json_true());
    if (v->eps != 1e-5f)
        json_object_set_new(j, "norm_kwargs", json_pack("{s:f}", "eps", (double)v->eps));
    return j;
}

static json_t *text_json(const nm_clip_cfg *c)
{
    const nm_text_cfg *t = &c->text;
    json_t *j = json_pack("{s:i,s:i,s:i,s:i,s:i}", "context_length", t->context_length, "vocab_size", t->vocab_size, "width", t->width, "heads", t->heads,
                          "layers", t->layers);
    if (t->mlp != 4 * t->width)
        json_object_set_new(j, "mlp_ratio", json_real((t->mlp + 0.5) / t->width));
    if (!t->causal)
        json_object_set_new(j, "no_causal_mask", json_true());
    if (t->proj_bias)
        json_object_set_new(j, "proj_bias", json_true());
    if (!t->proj)
        json_object_set_new(j, "proj_type", json_string("none"));
    if (t->pool != NM_TEXT_POOL_ARGMAX)
        json_object_set_new(j, "pool_type", json_string(text_pool_name(t->pool)));
    if (t->pool == NM_TEXT_POOL_EOS)
        json_object_set_new(j, "eos_id", json_integer(t->eos_id));
    if (t->layer_scale)
        json_object_set_new(j, "ls_init_value", json_real(1e-4));
    if (t->eps != 1e-5f)
        json_object_set_new(j, "norm_kwargs", json_pack("{s:f}", "eps", (double)t->eps));
    if (t->act == NM_ACT_GELU_TANH)
        json_object_set_new(j, "act_kwargs", json_pack("{s:s}", "approximate", "tanh"));
    return j;
}

static json_t *preprocess_json(const nm_preprocess *p)
{
    static const char *const filters[] = { "nearest", "lanczos", "bilinear", "bicubic", "box", "hamming" }; /* Pillow's numbers */
    return json_pack("{s:[f,f,f],s:[f,f,f],s:s,s:s,s:[i,i]}", "mean", (double)p->mean[0], (double)p->mean[1], (double)p->mean[2], "std",
                     (double)p->std[0], (double)p->std[1], (double)p->std[2], "interpolation", filters[(unsigned)p->filter % 6], "resize_mode",
                     p->fit == NM_FIT_SQUASH ? "squash" : p->fit == NM_FIT_LONGEST ? "longest" : "shortest", "size", p->size_h, p->size_w);
}

json_t *nm_clip_config_json(const nm_clip *m)
{
    const nm_clip_cfg *c = &m->cfg;
    json_t *model = nm_json_get(m->config, "model_cfg"), *out;
    if (m->config) /* as it was given; sizes that options changed are written over */
        model = json_deep_copy(model ? model : m->config);
    else
        model = json_pack("{s:i,s:b,s:o,s:o}", "embed_dim", c->embed_dim, "quick_gelu", c->act == NM_ACT_QUICK_GELU, "vision_cfg", vision_json(c),
                          "text_cfg", text_json(c));
    if (!m->config && (c->text.prefix || c->siglip))
        json_object_set_new(model, "custom_text", json_true());
    if (!m->config && c->siglip)
        json_object_set_new(model, "init_logit_bias", json_real(c->init_logit_bias));
    if (m->config) {
        json_object_set_new(model, "quick_gelu", json_boolean(c->act == NM_ACT_QUICK_GELU));
        json_object_set_new(nm_json_get(model, "vision_cfg"), "image_size",
                            m->base.image_height == m->base.image_width ? json_integer(m->base.image_height)
                                                                        : json_pack("[i,i]", m->base.image_height, m->base.image_width));
    }
    out = json_pack("{s:o,s:o}", "model_cfg", model, "preprocess_cfg", preprocess_json(&m->base.preprocess));
    static const char *const beside[] = { "hf_text_config", "caption_cfg" };
    for (size_t i = 0; out && i < sizeof beside / sizeof *beside; i++)
        if (nm_json_get(m->config, beside[i]))
            json_object_set_new(out, beside[i], json_deep_copy(nm_json_get(m->config, beside[i])));
    return out;
}
