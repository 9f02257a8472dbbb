/* blip.c - the BLIP family: declares, loads, encodes. Configuration: blip_config.c; text network: med.c; captions, answers and
 * matching: src/generate. Sources: salesforce/BLIP models/{blip_pretrain,blip_itm,blip_retrieval,blip_vqa,blip_nlvr,vit}.py;
 * transformers modeling_blip.py.
 *
 * Easy to get wrong: the final norm covers all tokens; vision eps is 1e-6 in the authors' files and 1e-5 in published folders;
 * `temp` divides. */
#include "models/blip.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "models/clip.h"

/* ---- declaring ---- */

static void block_params(nm_params *p, nm_block_w *w, const nm_vit_cfg *c)
{
    int64_t width = c->width;
    nm_norm_params(p, &w->ln_1, width, NM_NAMES("norm1.weight", "layer_norm1.weight"), NM_NAMES("norm1.bias", "layer_norm1.bias"));
    nm_linear_params(p, &w->qkv, 3 * width, width, NM_NAMES("attn.qkv.weight", "self_attn.qkv.weight"),
                     NM_NAMES("attn.qkv.bias", "self_attn.qkv.bias"), 0.02f, NM_OPTIONAL);
    nm_linear_params(p, &w->out, width, width, NM_NAMES("attn.proj.weight", "self_attn.projection.weight"),
                     NM_NAMES("attn.proj.bias", "self_attn.projection.bias"), 0.02f, 0);
    nm_norm_params(p, &w->ln_2, width, NM_NAMES("norm2.weight", "layer_norm2.weight"), NM_NAMES("norm2.bias", "layer_norm2.bias"));
    nm_linear_params(p, &w->fc, c->mlp, width, NM_NAMES("mlp.fc1.weight", "mlp.fc1.weight"), NM_NAMES("mlp.fc1.bias", "mlp.fc1.bias"), 0.02f, 0);
    nm_linear_params(p, &w->proj, width, c->mlp, NM_NAMES("mlp.fc2.weight", "mlp.fc2.weight"), NM_NAMES("mlp.fc2.bias", "mlp.fc2.bias"), 0.02f, 0);
}

static void vision_params(nm_params *p, nm_vit_w *w, const nm_vit_cfg *c)
{
    int64_t width = c->width;
    size_t mark = nm_params_push(p, NM_NAMES("visual_encoder.", "vision_model."), 0);
    nm_param(p, &w->class_embedding, NM_SHAPE(1, 1, width), NM_NAMES("cls_token", "embeddings.class_embedding"), NM_NORMAL(0.02f),
             NM_NO_DECAY | NM_AS_F32);
    nm_param(p, &w->positional_embedding, NM_SHAPE(1, -1, width), NM_NAMES("pos_embed", "embeddings.position_embedding"), NM_NORMAL(0.02f),
             NM_NO_DECAY | NM_AS_F32);
    nm_param(p, &w->conv1.weight, NM_SHAPE(width, 3, c->patch_height, c->patch_width),
             NM_NAMES("patch_embed.proj.weight", "embeddings.patch_embedding.weight"), NM_NORMAL(0.02f), NM_DECAY);
    nm_param(p, &w->conv1.bias, NM_SHAPE(width), NM_NAMES("patch_embed.proj.bias", "embeddings.patch_embedding.bias"), NM_ZEROS, NM_NO_DECAY);
    for (int i = 0; i < c->layers; i++) {
        size_t inner = nm_params_push(p, NM_NAMES("blocks.%d.", "encoder.layers.%d."), i);
        block_params(p, &w->blocks[i], c);
        nm_params_pop(p, inner);
    }
    nm_norm_params(p, &w->ln_post, width, NM_NAMES("norm.weight", "post_layernorm.weight"), NM_NAMES("norm.bias", "post_layernorm.bias"));
    nm_params_pop(p, mark);
}

static nm_names same(const char *name) { return (nm_names){ { name, name } }; }

static void projection(nm_params *p, nm_linear_w *w, int64_t out, int64_t in, const char *weight, const char *bias)
{
    nm_linear_params(p, w, out, in, same(weight), same(bias), 0, NM_OPTIONAL);
}

static void blip_params(nm_params *p, void *model)
{
    nm_blip *m = model;
    const nm_blip_cfg *c = &m->cfg;
    vision_params(p, &m->vit, &c->vit);
    if (c->has_encoder) {
        size_t mark = nm_params_push(p, same(c->plain ? "text_model." : "text_encoder."), 0);
        nm_med_params(p, &m->encoder, &c->encoder);
        nm_params_pop(p, mark);
    }
    if (c->has_decoder) {
        size_t mark = nm_params_push(p, same("text_decoder."), 0), inner = nm_params_push(p, same("bert."), 0);
        nm_med_params(p, &m->decoder, &c->decoder);
        nm_params_pop(p, inner);
        nm_med_head_params(p, &m->lm, &c->decoder);
        nm_params_pop(p, mark);
    }
    if (c->has_itc && c->plain) {
        nm_param(p, &m->vision_proj.weight, NM_SHAPE(c->embed_dim, c->vit.width), same("visual_projection.weight"), NM_NORMAL(0.02f), NM_DECAY);
        nm_param(p, &m->text_proj.weight, NM_SHAPE(c->embed_dim, c->encoder.width), same("text_projection.weight"), NM_NORMAL(0.02f), NM_DECAY);
        nm_param(p, &m->temp, NM_SCALAR, same("logit_scale"), NM_CONST(2.6592f), NM_NO_DECAY);
    } else if (c->has_itc) {
        projection(p, &m->vision_proj, c->embed_dim, c->vit.width, "vision_proj.weight", "vision_proj.bias");
        projection(p, &m->text_proj, c->embed_dim, c->encoder.width, "text_proj.weight", "text_proj.bias");
        nm_param(p, &m->temp, NM_SCALAR, same("temp"), NM_CONST(0.07f), NM_NO_DECAY | NM_OPTIONAL);
    }
    if (c->has_itm)
        projection(p, &m->itm_head, 2, c->encoder.width, "itm_head.weight", "itm_head.bias");
    if (c->nlvr) {
        projection(p, &m->cls_head[0], c->encoder.width, c->encoder.width, "cls_head.0.weight", "cls_head.0.bias");
        projection(p, &m->cls_head[1], 2, c->encoder.width, "cls_head.2.weight", "cls_head.2.bias");
    }
}

/* ---- loading, freeing ---- */

static void blip_free(nm_model *base)
{
    nm_blip *m = (nm_blip *)base;
    if (!m)
        return;
    if (m->vit.blocks)
        nm_params_free(blip_params, m);
    nm_vit_free(&m->vit, &m->cfg.vit);
    nm_med_free(&m->encoder);
    nm_med_free(&m->decoder);
    free(m->base.tok_path);
    nm_buf_free(&m->base.report.text);
    free(m);
}

static bool alloc_parts(nm_blip *m)
{
    bool ok = (!m->cfg.has_encoder || nm_med_alloc(&m->encoder, &m->cfg.encoder)) && (!m->cfg.has_decoder || nm_med_alloc(&m->decoder, &m->cfg.decoder));
    return ok && nm_vit_alloc(&m->vit, &m->cfg.vit); /* last: blip_free takes its blocks as the sign that all is there */
}

static noema_status ready(nm_blip *m, noema_error *err)
{
    nm_blip_cfg *c = &m->cfg;
    noema_status st = nm_vit_ready(&m->vit, &c->vit, err);
    if (st != NOEMA_OK)
        return st;
    if (c->has_decoder && !nm_has(&m->lm.vocab.bias) && !nm_has(&m->lm.bias))
        return nm_fail(err, NOEMA_E_MISSING, "text_decoder.cls.predictions: expected bias or decoder.bias");
    if (c->has_decoder && !nm_med_head_ready(&m->lm, &m->decoder, &c->decoder))
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory");
    if (nm_has(&m->temp) && nm_weight_make_f32(&m->temp)) {
        c->has_temp = true;
        c->temp = c->plain ? expf(-m->temp.f32[0]) : m->temp.f32[0];
    }
    m->base.logit_scale = c->has_temp && c->temp != 0 ? 1 / (double)c->temp : 1;
    return NOEMA_OK;
}

static noema_status blip_open(nm_model **out, const nm_source *s, noema_error *err)
{
    static const char *const ignore[] = { "image_queue", "text_queue", "idx_queue", "queue_ptr", "ptr_queue", "visual_encoder_m.*", "text_encoder_m.*",
                                          "vision_proj_m.*", "text_proj_m.*", "text_encoder.embeddings.position_ids", "text_encoder.pooler.*",
                                          "text_decoder.bert.embeddings.position_ids", "text_model.embeddings.position_ids", NULL };
    nm_blip *m = calloc(1, sizeof *m);
    if (!m)
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory");
    m->base.family = &nm_family_blip;
    noema_status st = nm_blip_configure(m, s, err);
    if (st == NOEMA_OK && !alloc_parts(m))
        st = nm_fail(err, NOEMA_E_MEMORY, "out of memory: %s", s->name);
    if (st == NOEMA_OK)
        st = nm_params_load(blip_params, m, m->cfg.scheme, s->file, "", ignore, &m->base.report, err);
    if (st == NOEMA_OK)
        st = ready(m, err);
    if (st != NOEMA_OK) {
        blip_free(&m->base);
        return st;
    }
    *out = &m->base;
    return NOEMA_OK;
}

/* Other models have a visual_encoder too (BLIP-2): the text network decides. */
static int blip_probe(const nm_source *s)
{
    static const char *const words[] = { "text_encoder.embeddings.word_embeddings.weight", "text_decoder.bert.embeddings.word_embeddings.weight",
                                         "text_model.embeddings.word_embeddings.weight" };
    bool vision = nm_source_has(s, "visual_encoder.patch_embed.proj.weight") || nm_source_has(s, "vision_model.embeddings.patch_embedding.weight");
    for (size_t i = 0; vision && i < sizeof words / sizeof *words; i++)
        if (nm_source_has(s, words[i]))
            return 95;
    return 0;
}

/* ---- forward ---- */

nm_tensor nm_blip_image_states(nm_run *r, const nm_blip *m, nm_tensor pixels)
{
    const nm_vit_cfg *c = &m->cfg.vit;
    nm_observe_mark old = nm_observe_enter(r, "vision.");
    nm_tensor x = nm_add_positions(r, nm_patch_embed(r, pixels, &m->vit.conv1), &m->vit.class_embedding, &m->vit.positional_embedding);
    nm_observe(r, x, "embeddings");
    nm_block_cfg bc = nm_vit_block_cfg(c);
    for (int i = 0; i < c->layers; i++)
        x = nm_block_forward(r, x, &m->vit.blocks[i], &bc, NULL, i);
    x = nm_layernorm_f32(r, x, &m->vit.ln_post, c->eps);
    nm_observe(r, x, "final_norm");
    nm_observe_leave(r, old);
    return x;
}

static nm_tensor first_tokens(nm_run *r, nm_tensor x)
{
    if (!x.data)
        return x;
    return nm_gather_rows(r, nm_flatten(x, 2), nm_every_row(r, x.shape[0], x.shape[1], 0), x.shape[0]);
}

/* [n, embed_dim], not normalised. BlipModel normalises its class token a second time (BlipVisionModel.forward). */
static nm_tensor image_vectors(nm_run *r, const nm_blip *m, nm_tensor states)
{
    if (!m->cfg.has_itc)
        return nm_run_fail(r, NOEMA_E_UNSUPPORTED, "this checkpoint has no ITC head (vision_proj, text_proj): its pictures and texts have no vectors");
    nm_tensor x = first_tokens(r, states);
    if (m->cfg.plain)
        x = nm_layernorm_f32(r, x, &m->vit.ln_post, m->cfg.vit.eps);
    return nm_linear(r, x, &m->vision_proj, (nm_epilogue){ .f32 = true });
}

/* An observer of a model without vectors sees the tower all the same; what is returned then is the class token's state. */
static nm_tensor encode_image(nm_run *r, const nm_model *base, nm_tensor pixels)
{
    const nm_blip *m = (const nm_blip *)base;
    if (m->cfg.has_itc || !r->observe)
        return image_vectors(r, m, m->cfg.has_itc ? nm_blip_image_states(r, m, pixels) : pixels);
    return first_tokens(r, nm_blip_image_states(r, m, pixels));
}

nm_tensor nm_blip_image_features(nm_run *r, const nm_blip *m, nm_tensor states) { return nm_normalize(r, image_vectors(r, m, states), 1e-12f); }

static nm_tensor encode_text(nm_run *r, const nm_model *base, const nm_texts *texts)
{
    const nm_blip *m = (const nm_blip *)base;
    nm_med_rows l;
    if (!m->cfg.has_itc)
        return nm_run_fail(r, NOEMA_E_UNSUPPORTED, "this checkpoint has no ITC head (vision_proj, text_proj): its pictures and texts have no vectors");
    if (!nm_run_ok(r) || !nm_med_layout(r, &l, texts, -1, m->base.context_length))
        return (nm_tensor){ 0 };
    nm_observe_mark old = nm_observe_enter(r, "text.");
    nm_tensor x = nm_med_first(r, nm_med_forward(r, &m->encoder, &m->cfg.encoder, &l, false, NULL), &l);
    nm_observe_leave(r, old);
    if (m->cfg.plain)
        x = nm_linear(r, x, &m->encoder.pooler, (nm_epilogue){ .act = NM_ACT_TANH, .f32 = true });
    return nm_linear(r, x, &m->text_proj, (nm_epilogue){ .f32 = true });
}

/* Rows of texts against one context each, or all against the same one. */
static nm_tensor multimodal(nm_run *r, const nm_blip *m, const nm_med_rows *l, const nm_med_context *context)
{
    nm_observe_mark old = nm_observe_enter(r, "multimodal.");
    nm_tensor x = nm_med_forward(r, &m->encoder, &m->cfg.encoder, l, false, context);
    nm_observe_leave(r, old);
    return x;
}

static nm_tensor one_state(nm_tensor states, int64_t i)
{
    return states.data ? nm_flatten(nm_rows(states, i, i + 1), 2) : states;
}

nm_tensor nm_blip_itm(nm_run *r, const nm_blip *m, nm_tensor states, const nm_texts *texts, int32_t first)
{
    nm_med_rows l;
    if (!m->cfg.has_itm)
        return nm_run_fail(r, NOEMA_E_UNSUPPORTED, "this checkpoint has no ITM head (itm_head)");
    if (!nm_run_ok(r) || !nm_med_layout(r, &l, texts, first, m->base.context_length))
        return (nm_tensor){ 0 };
    int64_t queries[2] = { 0, l.rows }, keys[2] = { 0, states.data ? states.shape[1] : 0 };
    nm_med_context context = { .states = one_state(states, 0), .n = 1, .q_offsets = queries, .k_offsets = keys };
    nm_tensor x = nm_med_first(r, multimodal(r, m, &l, &context), &l);
    return nm_linear(r, x, &m->itm_head, (nm_epilogue){ .f32 = true });
}

static nm_tensor nlvr(nm_run *r, const nm_blip *m, nm_med_rows *l, const nm_med_context pair[2])
{
    nm_tensor x = nm_med_first(r, multimodal(r, m, l, pair), l);
    x = nm_linear(r, x, &m->cls_head[0], (nm_epilogue){ .act = NM_ACT_RELU, .f32 = true });
    return nm_linear(r, x, &m->cls_head[1], (nm_epilogue){ .f32 = true });
}

static bool nlvr_rows(nm_run *r, const nm_blip *m, nm_med_rows *l, const nm_texts *texts, int32_t first)
{
    if (!m->cfg.nlvr)
        nm_run_fail(r, NOEMA_E_UNSUPPORTED, "this checkpoint does not compare two pictures (cls_head)");
    return nm_run_ok(r) && nm_med_layout(r, l, texts, first, m->base.context_length);
}

nm_tensor nm_blip_nlvr(nm_run *r, const nm_blip *m, nm_tensor states, const nm_texts *texts, int32_t first)
{
    nm_med_rows l;
    if (!nlvr_rows(r, m, &l, texts, first))
        return (nm_tensor){ 0 };
    int64_t queries[2] = { 0, l.rows }, keys[2] = { 0, states.data ? states.shape[1] : 0 };
    nm_med_context pair[2];
    for (int i = 0; i < 2; i++)
        pair[i] = (nm_med_context){ .states = one_state(states, i), .n = 1, .q_offsets = queries, .k_offsets = keys };
    return nlvr(r, m, &l, pair);
}

nm_tensor nm_blip_nlvr_pairs(nm_run *r, const nm_blip *m, nm_tensor states, const nm_texts *texts, int32_t first)
{
    nm_med_rows l;
    if (!states.data || !nlvr_rows(r, m, &l, texts, first))
        return (nm_tensor){ 0 };
    int64_t n = l.n, tokens = states.shape[1], width = states.shape[2];
    const int64_t *keys = nm_every_row(r, n + 1, tokens, 0);
    nm_med_context pair[2];
    for (int i = 0; i < 2; i++) {
        nm_tensor x = nm_gather_rows(r, nm_reshape(states, NM_SHAPE(2 * n, tokens * width)), nm_every_row(r, n, 2, i), n);
        pair[i] = (nm_med_context){ .states = nm_reshape(x, NM_SHAPE(n * tokens, width)), .n = n, .q_offsets = l.offsets, .k_offsets = keys };
    }
    return nlvr(r, m, &l, pair);
}

nm_tensor nm_blip_questions(nm_run *r, const nm_blip *m, nm_tensor states, const nm_texts *questions, int32_t first, nm_med_rows *l)
{
    if (!nm_run_ok(r) || !states.data || !nm_med_layout(r, l, questions, first, m->base.context_length))
        return (nm_tensor){ 0 };
    nm_med_context context = { .states = nm_flatten(states, 2), .n = l->n, .q_offsets = l->offsets,
                               .k_offsets = nm_every_row(r, l->n + 1, states.shape[1], 0) };
    return multimodal(r, m, l, &context);
}

int32_t nm_blip_enc_id(const nm_tokenizer *t)
{
    int32_t id = noema_tokenizer_token_id(t, "[ENC]", 5);
    return id >= 0 ? id : noema_tokenizer_vocab_size(t) + 1;
}

int32_t nm_blip_dec_id(const nm_blip *m, const nm_tokenizer *t)
{
    int32_t id = m->cfg.bos >= 0 ? m->cfg.bos : noema_tokenizer_token_id(t, "[DEC]", 5);
    return id >= 0 ? id : noema_tokenizer_vocab_size(t);
}

const nm_family nm_family_blip = { .name = "blip", .probe = blip_probe, .open = blip_open, .encode_image = encode_image, .encode_text = encode_text,
                                   .declare = blip_params, .save_scheme = NM_BLIP_OFFICIAL, .free = blip_free };
