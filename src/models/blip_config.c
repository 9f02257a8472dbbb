/* blip_config.c - what a BLIP checkpoint is: sizes from the tensors, the rest from a configuration in transformers' form or, where it
 * says nothing, from the authors (configs/med_config.json, models/vit.py): head size 64, vision eps 1e-6, text eps 1e-12, exact
 * GELU. Folders follow transformers' defaults (BlipConfig). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "models/blip.h"
#include "models/blip_common.h"
#include "models/clip.h"

static const char *const extra_tokens[] = { "[DEC]", "[ENC]" };

static noema_status vision_config(nm_blip *m, const nm_source *s, noema_error *err)
{
    nm_vit_cfg *c = &m->cfg.vit;
    bool hf = m->cfg.scheme == NM_BLIP_HF;
    const json_t *j = nm_json_get(s->config, "vision_config");
    const char *conv = hf ? "vision_model.embeddings.patch_embedding.weight" : "visual_encoder.patch_embed.proj.weight";
    const char *positions = hf ? "vision_model.embeddings.position_embedding" : "visual_encoder.pos_embed";
    int64_t width = nm_source_dim(s, conv, 0), ph = nm_source_dim(s, conv, 2), pw = nm_source_dim(s, conv, 3), rows = nm_source_dim(s, positions, 1);
    int64_t mlp = nm_source_dim(s, hf ? "vision_model.encoder.layers.0.mlp.fc1.weight" : "visual_encoder.blocks.0.mlp.fc1.weight", 0);
    int64_t side = llround(sqrt((double)(rows > 1 ? rows - 1 : 0)));
    if (!nm_blip_size_ok(width, 1 << 16) || !nm_blip_size_ok(ph, 512) || !nm_blip_size_ok(pw, 512) || !nm_blip_size_ok(mlp, 1 << 18) || !nm_blip_size_ok(side, 1024) ||
        side * side != rows - 1)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: %s: width %lld, patches %lldx%lld, %lld positions make no image encoder", s->name, conv, (long long)width,
                       (long long)ph, (long long)pw, (long long)rows);
    c->width = c->embed_dim = (int)width;
    c->patch_height = (int)ph;
    c->patch_width = (int)pw;
    c->mlp = (int)mlp;
    c->layers = nm_source_count(s, hf ? "vision_model.encoder.layers.%d.self_attn.qkv.weight" : "visual_encoder.blocks.%d.attn.qkv.weight");
    c->image_height = (int)(side * ph);
    c->image_width = (int)(side * pw);
    c->class_token = c->patch_bias = c->ln_post = c->from_file = c->timm = true;
    c->resize = NM_INTERP_BICUBIC; /* models/vit.py interpolate_pos_embed: torch's bicubic, no antialias */
    noema_status st = nm_blip_image_size(c, s, err);
    if (st == NOEMA_OK)
        st = nm_blip_heads(&c->heads, j, c->width, hf ? 12 : c->width % 64 ? 0 : c->width / 64, "vision_config", s, err);
    if (st == NOEMA_OK)
        st = nm_blip_activation(&c->act, nm_json_str(j, "hidden_act", "gelu"), s, err);
    return st == NOEMA_OK ? nm_blip_eps(&c->eps, j, "layer_norm_eps", hf ? 1e-5 : 1e-6, s, err) : st;
}

static int64_t dim_of(const nm_source *s, const char *prefix, const char *name, int d)
{
    char full[160];
    snprintf(full, sizeof full, "%s%s", prefix, name);
    return nm_source_dim(s, full, d);
}

/* prefix: "text_encoder." ...; the same names in both schemes. */
static noema_status text_config(nm_med_cfg *c, const nm_blip *m, const nm_source *s, const char *prefix, noema_error *err)
{
    const json_t *j = nm_json_get(s->config, "text_config");
    char layer[96];
    snprintf(layer, sizeof layer, "%sencoder.layer.%%d.attention.self.query.weight", prefix);
    int64_t vocab = dim_of(s, prefix, "embeddings.word_embeddings.weight", 0), width = dim_of(s, prefix, "embeddings.word_embeddings.weight", 1);
    int64_t positions = dim_of(s, prefix, "embeddings.position_embeddings.weight", 0);
    int64_t mlp = dim_of(s, prefix, "encoder.layer.0.intermediate.dense.weight", 0);
    int64_t cross = dim_of(s, prefix, "encoder.layer.0.crossattention.self.key.weight", 1);
    int64_t twin = dim_of(s, prefix, "encoder.layer.0.crossattention.self0.key.weight", 1);
    if (!nm_blip_size_ok(vocab, 1 << 24) || !nm_blip_size_ok(width, 1 << 16) || !nm_blip_size_ok(positions, 1 << 20) || !nm_blip_size_ok(mlp, 1 << 18) ||
        cross > 1 << 16 || twin > 1 << 16)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: %s*: vocabulary %lld, width %lld, %lld positions make no text network", s->name, prefix,
                       (long long)vocab, (long long)width, (long long)positions);
    c->vocab_size = (int)vocab;
    c->width = (int)width;
    c->max_positions = (int)positions;
    c->mlp = (int)mlp;
    c->layers = nm_source_count(s, layer);
    c->twin = twin > 0;
    c->cross_width = (int)(twin > 0 ? twin : cross);
    c->merge_from = 0;
    while (c->twin && c->merge_from < c->layers) {
        snprintf(layer, sizeof layer, "encoder.layer.%d.crossattention.output.merge_layer.weight", c->merge_from);
        if (dim_of(s, prefix, layer, 0) > 0)
            break;
        c->merge_from++;
    }
    noema_status st = nm_blip_heads(&c->heads, j, c->width, m->cfg.scheme == NM_BLIP_HF ? 12 : c->width % 64 ? 0 : c->width / 64, "text_config", s, err);
    if (st == NOEMA_OK)
        st = nm_blip_activation(&c->act, nm_json_str(j, "hidden_act", "gelu"), s, err);
    return st == NOEMA_OK ? nm_blip_eps(&c->eps, j, "layer_norm_eps", 1e-12, s, err) : st;
}

static noema_status parts(nm_blip *m, const nm_source *s, noema_error *err)
{
    nm_blip_cfg *c = &m->cfg;
    noema_status st = NOEMA_OK;
    c->plain = nm_source_has(s, "text_model.embeddings.word_embeddings.weight");
    c->has_encoder = c->plain || nm_source_has(s, "text_encoder.embeddings.word_embeddings.weight");
    c->has_decoder = nm_source_has(s, "text_decoder.bert.embeddings.word_embeddings.weight");
    const char *projection = c->plain ? "visual_projection.weight" : "vision_proj.weight";
    c->has_itc = c->has_encoder && nm_source_has(s, projection);
    c->has_itm = c->has_encoder && nm_source_has(s, "itm_head.weight");
    c->nlvr = c->has_encoder && nm_source_has(s, "cls_head.0.weight");
    c->embed_dim = (int)nm_source_dim(s, projection, 0);
    if (c->has_encoder)
        st = text_config(&c->encoder, m, s, c->plain ? "text_model." : "text_encoder.", err);
    if (c->has_decoder && st == NOEMA_OK)
        st = text_config(&c->decoder, m, s, "text_decoder.bert.", err);
    if (st != NOEMA_OK)
        return st;
    c->encoder.pooler = c->plain;
    c->vqa = c->has_encoder && c->has_decoder && !c->has_itc && !c->has_itm;
    if ((c->nlvr && !c->encoder.twin) || (c->encoder.twin && !c->nlvr) || (c->has_itc && !nm_blip_size_ok(c->embed_dim, 1 << 16)))
        return nm_fail(err, NOEMA_E_FORMAT, "%s: heads and text encoder do not belong together", s->name);
    int want = c->vqa ? c->encoder.width : c->vit.width;
    if ((c->has_encoder && !c->plain && c->encoder.cross_width != c->vit.width) || (c->has_decoder && c->decoder.cross_width != want))
        return nm_fail(err, NOEMA_E_MISMATCH, "%s: cross-attention takes %d columns, the image encoder gives %d", s->name,
                       c->has_encoder && !c->plain ? c->encoder.cross_width : c->decoder.cross_width, want);
    return NOEMA_OK;
}

/* A folder decodes greedily unless its generation_config.json says otherwise (transformers' defaults). */
static noema_status folder_generation(nm_blip_cfg *c, const nm_source *s, noema_error *err)
{
    nm_blip_generation g;
    noema_status st = nm_blip_folder_generation(&g, s, err);
    if (st != NOEMA_OK)
        return st;
    c->rules = g.rules;
    c->eos = (int)nm_json_num(g.text, "sep_token_id", 102);
    c->pad = (int)nm_json_num(g.text, "pad_token_id", 0);
    c->bos = (int)nm_json_num(g.text, "bos_token_id", -1);
    c->cls_first = true;
    json_decref(g.generation);
    return NOEMA_OK;
}

/* models/blip.py BLIP_Decoder.generate, models/blip_vqa.py. */
static void authors_generation(nm_blip_cfg *c)
{
    c->prompt = c->vqa ? NULL : "a picture of ";
    c->rules.beams = 3;
    c->rules.max_length = c->vqa ? 10 : 30;
    c->rules.min_length = c->vqa ? 1 : 10;
    c->rules.repetition_penalty = c->rules.length_penalty = 1;
    c->rules.beam_rule = 415;
    c->eos = 102;
    c->bos = -1;
}

noema_status nm_blip_configure(nm_blip *m, const nm_source *s, noema_error *err)
{
    nm_blip_cfg *c = &m->cfg;
    nm_model *b = &m->base;
    c->scheme = nm_source_has(s, "visual_encoder.patch_embed.proj.weight") ? NM_BLIP_OFFICIAL : NM_BLIP_HF;
    if (c->scheme == NM_BLIP_HF && !s->config)
        return nm_fail(err, NOEMA_E_MISSING, "%s: the tensors are named as in transformers, which needs config.json beside the file or --config", s->name);
    noema_status st = vision_config(m, s, err);
    if (st == NOEMA_OK)
        st = parts(m, s, err);
    if (st != NOEMA_OK)
        return st;
    b->image_height = c->vit.image_height;
    b->image_width = c->vit.image_width;
    b->has_image = b->has_text = true;
    b->embed_dim = c->has_itc ? c->embed_dim : c->vit.width;
    b->logit_scale = 1;
    /* 35 ids at most in the authors' code, but no limit of their own in NLVR2, in captions' prompts and in folders */
    int positions = c->has_encoder ? c->encoder.max_positions : c->decoder.max_positions;
    b->context_length = c->scheme == NM_BLIP_OFFICIAL && c->has_encoder && !c->nlvr && positions > 35 ? 35 : positions;
    b->tok = noema_tokenizer_options_default();
    b->tok.context_length = b->context_length;
    if (c->scheme == NM_BLIP_OFFICIAL) {
        b->tok.extra_tokens = extra_tokens;
        b->tok.n_extra_tokens = 2;
        authors_generation(c);
    } else if ((st = folder_generation(c, s, err)) != NOEMA_OK)
        return st;
    return nm_blip_preprocessing(b, c->scheme == NM_BLIP_OFFICIAL, s, err);
}
