/* clip.c - the CLIP family (arXiv 2103.00020, 2212.07143, 2303.15343): declares, loads, encodes. Configuration: clip_config.c;
 * towers: vit.c, resnet.c, text.c, bert.c; caption decoder: coca.c. docs/models/clip.md is the page for readers. */
#include "models/clip.h"
#include "models/registry.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- declaring ---- */

static nm_names same(const char *name) { return (nm_names){ { name, name, name } }; }

static void bert_params(nm_params *p, nm_clip *m)
{
    const nm_clip_cfg *c = &m->cfg;
    size_t mark = nm_params_push(p, same("text."), 0), inner = nm_params_push(p, same("transformer."), 0);
    nm_bert_params(p, &m->bert, &c->bert);
    nm_params_pop(p, inner);
    int64_t width = c->bert.width, embed = c->embed_dim, hidden = (width + embed) / 2;
    nm_init init = NM_UNIFORM(1 / sqrtf((float)width));
    if (c->bert_proj == 1)
        nm_param(p, &m->bert_proj[0], NM_SHAPE(embed, width), same("proj.weight"), init, NM_DECAY);
    if (c->bert_proj == 2) {
        nm_param(p, &m->bert_proj[0], NM_SHAPE(hidden, width), same("proj.0.weight"), init, NM_DECAY);
        nm_param(p, &m->bert_proj[1], NM_SHAPE(embed, hidden), same("proj.2.weight"), init, NM_DECAY);
    }
    nm_params_pop(p, mark);
}

static void clip_params(nm_params *p, void *model)
{
    nm_clip *m = model;
    const nm_clip_cfg *c = &m->cfg;
    if (c->has_text && c->text_tower == NM_TEXT_CLIP)
        nm_text_params(p, &m->text, &c->text);
    if (c->has_text && c->text_tower == NM_TEXT_BERT)
        bert_params(p, m);
    if (c->has_image) {
        size_t mark = nm_params_push(p, NM_NAMES("visual.", "", "visual."), 0);
        if (c->resnet)
            nm_resnet_params(p, &m->rn, &c->rn);
        else
            nm_vit_params(p, &m->vit, &c->vit);
        nm_params_pop(p, mark);
    }
    if (c->coca)
        nm_coca_params(p, &m->decoder, &c->decoder);
    nm_param(p, &m->logit_scale, NM_SCALAR, same("logit_scale"), NM_CONST((float)c->init_logit_scale), NM_NO_DECAY | NM_OPTIONAL);
    if (c->siglip) /* a CLIP checkpoint without it, trained on: 0 */
        nm_param(p, &m->logit_bias, NM_SCALAR, same("logit_bias"), NM_CONST((float)c->init_logit_bias), NM_NO_DECAY | NM_OPTIONAL);
}

/* ---- making, loading, freeing ---- */

static void clip_free(nm_model *base)
{
    nm_clip *m = (nm_clip *)base;
    if (!m)
        return;
    const nm_clip_cfg *c = &m->cfg;
    nm_params_free(clip_params, m);
    nm_vit_free(&m->vit, &c->vit);
    nm_resnet_free(&m->rn);
    nm_text_free(&m->text, &c->text);
    nm_bert_free(&m->bert);
    nm_coca_free(&m->decoder, &c->decoder);
    json_decref(m->config);
    free(m->base.tok_path);
    nm_buf_free(&m->base.report.text);
    free(m);
}

static bool alloc_towers(nm_clip *m)
{
    const nm_clip_cfg *c = &m->cfg;
    bool ok = true;
    if (c->has_image)
        ok = c->resnet ? nm_resnet_alloc(&m->rn, &c->rn) : nm_vit_alloc(&m->vit, &c->vit);
    if (ok && c->has_text)
        ok = c->text_tower == NM_TEXT_BERT ? nm_bert_alloc(&m->bert, &c->bert) : nm_text_alloc(&m->text, &c->text);
    return ok && (!c->coca || nm_coca_alloc(&m->decoder, &c->decoder));
}

static bool scalar(nm_weight *w, float dflt)
{
    if (!nm_has(w)) {
        float *v = nm_alloc(sizeof *v);
        if (!v)
            return false;
        *v = dflt;
        nm_weight_set(w, v, NM_SCALAR);
    }
    return nm_weight_make_f32(w);
}

/* Everything that follows from the loaded or drawn weights. */
static noema_status ready(nm_clip *m, noema_error *err)
{
    nm_clip_cfg *c = &m->cfg;
    nm_model *b = &m->base;
    noema_status st = NOEMA_OK;
    if (c->has_image && !c->resnet)
        st = nm_vit_ready(&m->vit, &c->vit, err);
    else if (c->has_image && !nm_resnet_ready(&m->rn, &c->rn))
        st = nm_fail(err, NOEMA_E_MEMORY, "out of memory: image tower");
    if (st == NOEMA_OK && c->has_text && c->text_tower == NM_TEXT_CLIP)
        st = nm_text_ready(&m->text, &c->text, err);
    if (st != NOEMA_OK)
        return st;
    if ((c->coca && !nm_coca_ready(&m->decoder, &c->decoder)) || !scalar(&m->logit_scale, 0) || (c->siglip && !scalar(&m->logit_bias, 0)))
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory");
    b->family = c->coca ? &nm_family_coca : c->siglip ? &nm_family_siglip : &nm_family_clip;
    b->embed_dim = c->embed_dim;
    b->context_length = c->text_tower == NM_TEXT_BERT ? c->bert_context : c->text.context_length;
    b->has_image = c->has_image;
    if (c->has_image) /* ModifiedResNet: its stages cost as much as about 200 tokens */
        b->image_tokens = c->resnet ? 200 : (c->vit.image_height / c->vit.patch_height) * (c->vit.image_width / c->vit.patch_width) + 1;
    b->patches = c->has_image && !c->resnet ? b->image_tokens - 1 : 0;
    b->has_text = c->has_text;
    b->text_positions = c->has_text && c->text_tower != NM_TEXT_BERT && c->text.pool != NM_TEXT_POOL_CLS ? c->text.context_length : 0;
    b->logit_scale = exp((double)m->logit_scale.f32[0]);
    b->has_logit_bias = c->siglip;
    b->logit_bias = c->siglip ? (double)m->logit_bias.f32[0] : 0;
    return NOEMA_OK;
}

static bool hf_names(const nm_source *s)
{
    return nm_source_has(s, "vision_model.embeddings.patch_embedding.weight") || nm_source_has(s, "text_model.embeddings.token_embedding.weight");
}

static bool openclip_json(const json_t *config)
{
    const json_t *cfg = nm_json_get(config, "model_cfg");
    return json_is_object(nm_json_get(cfg ? cfg : config, "vision_cfg"));
}

static noema_status configure(nm_clip *m, const nm_source *s, noema_error *err)
{
    if (hf_names(s))
        return nm_clip_config_hf(m, s, err);
    bool openai = strcmp(nm_weights_format(s->file), "torchscript") == 0 && s->pretrained && strcmp(s->pretrained, "openai") == 0;
    return openclip_json(s->config) && !openai ? nm_clip_config_openclip(m, s, err) : nm_clip_config_openai(m, s, err);
}

static noema_status clip_open(nm_model **out, const nm_source *s, noema_error *err)
{
    /* integers of OpenAI's archive, buffers that older code saved, statistics that inference does not read */
    static const char *const ignore[] = { "input_resolution", "context_length", "vocab_size", "attn_mask", "text.attn_mask", "text_decoder.attn_mask",
                                          "text_model.embeddings.position_ids", "vision_model.embeddings.position_ids",
                                          "text.transformer.embeddings.position_ids", NULL };
    nm_clip *m = calloc(1, sizeof *m);
    if (!m)
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory");
    m->base.family = &nm_family_clip;
    noema_status st = configure(m, s, err);
    const noema_model_options *o = s->options;
    int size = m->cfg.rn.image_size;
    if (st == NOEMA_OK && m->cfg.resnet && o && o->image_height > 0 && (o->image_height != size || (o->image_width > 0 && o->image_width != size)))
        st = nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: a ModifiedResNet runs at the size of its attention pool, %d", s->name, size);
    if (st == NOEMA_OK && !alloc_towers(m))
        st = nm_fail(err, NOEMA_E_MEMORY, "out of memory: %s", s->name);
    if (st == NOEMA_OK)
        st = nm_params_load(clip_params, m, m->cfg.scheme, s->file, "", ignore, &m->base.report, err);
    if (st == NOEMA_OK)
        st = ready(m, err);
    if (st != NOEMA_OK) {
        if (!m->vit.blocks && !m->rn.blocks && !m->text.blocks && !m->bert.layers_w)
            m->cfg = (nm_clip_cfg){ 0 }; /* nothing was declared yet */
        clip_free(&m->base);
        return st;
    }
    *out = &m->base;
    return NOEMA_OK;
}

static noema_status clip_create(nm_model **out, const char *arch, const json_t *config, uint64_t seed, noema_error *err)
{
    nm_clip *m = calloc(1, sizeof *m);
    if (!m)
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory");
    json_t *known = config ? NULL : nm_published_config(arch ? arch : "", NULL, err);
    nm_source s = { .name = arch ? arch : "new model", .dir = ".", .config = config ? config : known };
    noema_status st = openclip_json(s.config) ? nm_clip_config_openclip(m, &s, err)
                                              : nm_fail(err, NOEMA_E_ARGUMENT, "%s: expected an architecture or an open_clip configuration", s.name);
    json_decref(known);
    bool declared = false;
    if (st == NOEMA_OK && !(declared = alloc_towers(m)))
        st = nm_fail(err, NOEMA_E_MEMORY, "out of memory: %s", s.name);
    if (st == NOEMA_OK)
        st = nm_params_init(clip_params, m, seed, err);
    if (st == NOEMA_OK)
        st = ready(m, err);
    if (st != NOEMA_OK) {
        if (!declared)
            m->cfg = (nm_clip_cfg){ 0 };
        clip_free(&m->base);
        return st;
    }
    *out = &m->base;
    return NOEMA_OK;
}

/* 100: transformers' name says so; 80: the names are CLIP's. */
static int clip_probe(const nm_source *s)
{
    const char *type = nm_json_str(s->config, "model_type", "");
    if (type[0] && strncmp(type, "clip", 4) != 0 && strncmp(type, "siglip", 6) != 0 && strncmp(type, "metaclip_2", 10) != 0)
        return 0;
    if (hf_names(s))
        return type[0] ? 100 : 70;
    bool image = nm_source_has(s, "visual.conv1.weight") || nm_source_has(s, "visual.trunk.patch_embed.proj.weight");
    bool text = nm_source_has(s, "token_embedding.weight") || nm_source_has(s, "text.token_embedding.weight") ||
                nm_source_has(s, "text.transformer.embeddings.word_embeddings.weight");
    return image && text ? 80 : openclip_json(s->config) && nm_source_has(s, "logit_scale") ? 40 : 0;
}

/* ---- forward ---- */

static nm_tensor encode_image(nm_run *r, const nm_model *base, nm_tensor pixels)
{
    const nm_clip *m = (const nm_clip *)base;
    nm_observe_mark old = nm_observe_enter(r, "visual.");
    nm_tensor x = m->cfg.resnet ? nm_resnet_forward(r, &m->rn, &m->cfg.rn, pixels, NULL) : nm_vit_forward(r, &m->vit, &m->cfg.vit, pixels, NULL);
    nm_observe_leave(r, old);
    return x;
}

/* A ModifiedResNet's attention pool ends in its projection: its features are its vectors. */
static nm_tensor encode_features(nm_run *r, const nm_model *base, nm_tensor pixels)
{
    const nm_clip *m = (const nm_clip *)base;
    if (m->cfg.resnet)
        return encode_image(r, base, pixels);
    nm_observe_mark old = nm_observe_enter(r, "visual.");
    nm_tensor x = nm_vit_features(r, &m->vit, &m->cfg.vit, pixels);
    nm_observe_leave(r, old);
    return x;
}

static int feature_dim(const nm_model *base)
{
    const nm_clip *m = (const nm_clip *)base;
    return m->cfg.resnet ? base->embed_dim : nm_vit_feature_dim(&m->cfg.vit);
}

static void projection(const nm_model *base, const nm_weight **w, const nm_weight **b)
{
    const nm_clip *m = (const nm_clip *)base;
    const nm_vit_cfg *c = &m->cfg.vit;
    *w = m->cfg.resnet ? NULL : c->proj ? &m->vit.proj : c->head_proj ? &m->vit.head_proj.weight : NULL;
    *b = !m->cfg.resnet && c->head_proj && c->head_proj_bias ? &m->vit.head_proj.bias : NULL;
}

static nm_tensor bert_forward(nm_run *r, const nm_clip *m, const nm_texts *texts)
{
    const nm_clip_cfg *c = &m->cfg;
    nm_bert_rows l;
    if (!nm_run_ok(r) || !nm_bert_layout(r, &l, texts, &c->bert, r->observe ? c->bert_context : 0))
        return (nm_tensor){ 0 };
    nm_tensor x = nm_bert_encode(r, &m->bert, &c->bert, &l);
    x = c->bert_pool == NM_BERT_MEAN ? nm_bert_mean(r, x, &l) : c->bert_pool == NM_BERT_POOLER ? nm_bert_pooled(r, &m->bert, x, &l)
                                                                                                : nm_bert_first(r, x, &l);
    nm_observe(r, x, "pooled");
    if (c->bert_proj == 2)
        x = nm_matmul_w(r, x, &m->bert_proj[0], (nm_epilogue){ .act = NM_ACT_GELU });
    return c->bert_proj ? nm_matmul_w(r, x, &m->bert_proj[c->bert_proj - 1], (nm_epilogue){ .f32 = true }) : x;
}

static nm_tensor encode_text(nm_run *r, const nm_model *base, const nm_texts *texts)
{
    const nm_clip *m = (const nm_clip *)base;
    nm_observe_mark old = nm_observe_enter(r, "text.");
    nm_tensor x = m->cfg.text_tower == NM_TEXT_BERT ? bert_forward(r, m, texts) : nm_text_forward(r, &m->text, &m->cfg.text, texts);
    nm_observe_leave(r, old);
    return x;
}

nm_tensor nm_clip_dense(nm_run *r, const nm_clip *m, nm_tensor pixels, unsigned flags)
{
    return m->cfg.resnet ? nm_resnet_dense(r, &m->rn, &m->cfg.rn, pixels) : nm_vit_dense(r, &m->vit, &m->cfg.vit, pixels, flags);
}

nm_tensor nm_clip_image_tokens(nm_run *r, const nm_clip *m, nm_tensor pixels, nm_tensor *vector)
{
    nm_tensor tokens = { 0 };
    if (!m->cfg.coca)
        return nm_run_fail(r, NOEMA_E_UNSUPPORTED, "this model has no caption decoder");
    nm_tensor v = m->cfg.resnet ? nm_resnet_forward(r, &m->rn, &m->cfg.rn, pixels, &tokens) : nm_vit_forward(r, &m->vit, &m->cfg.vit, pixels, &tokens);
    if (vector)
        *vector = v;
    return tokens;
}

nm_tensor nm_clip_caption_logits(nm_run *r, const nm_clip *m, nm_tensor image_tokens, const nm_texts *texts, nm_coca_rows which)
{
    nm_tensor tokens = { 0 };
    if (!m->cfg.coca)
        return nm_run_fail(r, NOEMA_E_UNSUPPORTED, "this model has no caption decoder");
    nm_text_forward_tokens(r, &m->text, &m->cfg.text, texts, &tokens);
    return nm_coca_logits(r, &m->decoder, &m->cfg.decoder, image_tokens, tokens, texts->offsets, which);
}

static json_t *clip_config(const nm_model *m) { return nm_clip_config_json((const nm_clip *)m); }

#define CLIP_FAMILY(family, text) \
    const nm_family family = { .name = text, .probe = clip_probe, .open = clip_open, .create = clip_create, .encode_image = encode_image, \
                               .encode_features = encode_features, .feature_dim = feature_dim, .projection = projection, \
                               .encode_text = encode_text, .declare = clip_params, .save_scheme = NM_OPENCLIP, .config = clip_config, .free = clip_free }
CLIP_FAMILY(nm_family_clip, "clip");
CLIP_FAMILY(nm_family_siglip, "siglip");
CLIP_FAMILY(nm_family_coca, "coca");
