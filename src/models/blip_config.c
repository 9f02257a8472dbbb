/* blip_config.c - what a BLIP checkpoint is: sizes from the tensors, the rest from a configuration in transformers' form or, where it
 * says nothing, from the authors (configs/med_config.json, models/vit.py): head size 64, vision eps 1e-6, text eps 1e-12, exact
 * GELU. Folders follow transformers' defaults (BlipConfig). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "models/blip.h"
#include "models/clip.h"

static const char *const extra_tokens[] = { "[DEC]", "[ENC]" };

static noema_status heads(int *out, const json_t *j, int width, int dflt, const char *what, const nm_source *s, noema_error *err)
{
    int64_t n = nm_json_int(j, "num_attention_heads", dflt);
    if (n < 1 || n > width || width % n)
        return nm_fail(err, NOEMA_E_MISSING, "%s: a %s width of %d does not tell the number of heads (%lld): give %s.num_attention_heads with --config",
                       s->name, what, width, (long long)n, what);
    *out = (int)n;
    return NOEMA_OK;
}

static noema_status activation(nm_act *act, const json_t *j, const nm_source *s, noema_error *err)
{
    const char *name = nm_json_str(j, "hidden_act", "gelu");
    return nm_act_from_name(name, act) ? NOEMA_OK : nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: hidden_act \"%s\" is not supported", s->name, name);
}

static noema_status eps(float *out, const json_t *j, double dflt, const nm_source *s, noema_error *err)
{
    double v = nm_json_num(j, "layer_norm_eps", dflt);
    if (!(v >= 0 && v < 1))
        return nm_fail(err, NOEMA_E_FORMAT, "%s: configuration: layer_norm_eps is %g", s->name, v);
    *out = (float)v;
    return NOEMA_OK;
}

static bool tower_size(int64_t v, int64_t most) { return v >= 1 && v <= most; }

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
    if (!tower_size(width, 1 << 16) || !tower_size(ph, 512) || !tower_size(pw, 512) || !tower_size(mlp, 1 << 18) || !tower_size(side, 1024) ||
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
    const noema_model_options *o = s->options;
    if (o && o->image_height > 0) {
        c->image_height = o->image_height;
        c->image_width = o->image_width > 0 ? o->image_width : o->image_height;
    }
    if (c->image_height % ph || c->image_width % pw)
        return nm_fail(err, NOEMA_E_ARGUMENT, "%s: an image size of %dx%d is no multiple of the patch size %lldx%lld", s->name, c->image_height,
                       c->image_width, (long long)ph, (long long)pw);
    noema_status st = heads(&c->heads, j, c->width, hf ? 12 : c->width % 64 ? 0 : c->width / 64, "vision_config", s, err);
    if (st == NOEMA_OK)
        st = activation(&c->act, j, s, err);
    return st == NOEMA_OK ? eps(&c->eps, j, hf ? 1e-5 : 1e-6, s, err) : st;
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
    if (!tower_size(vocab, 1 << 24) || !tower_size(width, 1 << 16) || !tower_size(positions, 1 << 20) || !tower_size(mlp, 1 << 18) ||
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
    noema_status st = heads(&c->heads, j, c->width, m->cfg.scheme == NM_BLIP_HF ? 12 : c->width % 64 ? 0 : c->width / 64, "text_config", s, err);
    if (st == NOEMA_OK)
        st = activation(&c->act, j, s, err);
    return st == NOEMA_OK ? eps(&c->eps, j, 1e-12, s, err) : st;
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
    if ((c->nlvr && !c->encoder.twin) || (c->encoder.twin && !c->nlvr) || (c->has_itc && !tower_size(c->embed_dim, 1 << 16)))
        return nm_fail(err, NOEMA_E_FORMAT, "%s: heads and text encoder do not belong together", s->name);
    int want = c->vqa ? c->encoder.width : c->vit.width;
    if ((c->has_encoder && !c->plain && c->encoder.cross_width != c->vit.width) || (c->has_decoder && c->decoder.cross_width != want))
        return nm_fail(err, NOEMA_E_MISMATCH, "%s: cross-attention takes %d columns, the image encoder gives %d", s->name,
                       c->has_encoder && !c->plain ? c->encoder.cross_width : c->decoder.cross_width, want);
    return NOEMA_OK;
}

/* A member of generation_config.json or, in older folders, of config.json or its text_config. */
typedef struct rules { json_t *generation; const json_t *config, *text; } rules;
static double rule(const rules *r, const char *key, double dflt)
{
    return nm_json_num(r->generation, key, nm_json_num(r->config, key, nm_json_num(r->text, key, dflt)));
}

/* A folder decodes greedily unless its generation_config.json says otherwise (transformers' defaults). */
static noema_status folder_generation(nm_blip_cfg *c, const nm_source *s, noema_error *err)
{
    char *path = nm_path_join(s->dir, "generation_config.json");
    rules r = { .config = s->config, .text = nm_json_get(s->config, "text_config") };
    if (path && nm_file_exists(path) && !(r.generation = nm_json_load(path, err))) {
        free(path);
        return err ? err->code : NOEMA_E_FORMAT;
    }
    free(path);
    double beams = rule(&r, "num_beams", 1), most = rule(&r, "max_length", 20), least = rule(&r, "min_length", 0), fresh = rule(&r, "max_new_tokens", 0);
    c->beams = beams >= 1 && beams <= 1024 ? (int)beams : 1;
    c->max_length = most >= 2 && most <= 1 << 20 ? (int)most : 20;
    if (fresh >= 1 && fresh <= 1 << 20)
        c->max_new = (int)fresh;
    c->min_length = least >= 0 && least <= 1 << 20 ? (int)least : 0;
    c->repetition_penalty = rule(&r, "repetition_penalty", 1);
    c->length_penalty = rule(&r, "length_penalty", 1);
    c->early_stopping = nm_json_bool(r.generation, "early_stopping", false);
    c->beam_rule = 500;
    c->eos = (int)nm_json_num(r.text, "sep_token_id", 102);
    c->pad = (int)nm_json_num(r.text, "pad_token_id", 0);
    c->bos = (int)nm_json_num(r.text, "bos_token_id", -1);
    c->cls_first = true;
    json_decref(r.generation);
    return NOEMA_OK;
}

/* models/blip.py BLIP_Decoder.generate, models/blip_vqa.py. */
static void authors_generation(nm_blip_cfg *c)
{
    c->prompt = c->vqa ? NULL : "a picture of ";
    c->beams = 3;
    c->max_length = c->vqa ? 10 : 30;
    c->min_length = c->vqa ? 1 : 10;
    c->repetition_penalty = c->length_penalty = 1;
    c->beam_rule = 415;
    c->eos = 102;
    c->bos = -1;
}

static noema_status preprocessing(nm_blip *m, const nm_source *s, noema_error *err)
{
    nm_model *b = &m->base;
    if (m->cfg.scheme == NM_BLIP_OFFICIAL)
        return nm_preprocess_named(&b->preprocess, "blip", b->image_height, b->image_width, err);
    char *path = nm_path_join(s->dir, "preprocessor_config.json");
    noema_status st = path && nm_file_exists(path) ? nm_preprocess_from_file(&b->preprocess, path, err)
                                                   : nm_preprocess_named(&b->preprocess, "hf5_blip", b->image_height, b->image_width, err);
    free(path);
    if (st == NOEMA_OK && (b->preprocess.fit == NM_FIT_SQUASH || (s->options && s->options->image_height > 0))) {
        b->preprocess.size_h = b->image_height;
        b->preprocess.size_w = b->image_width;
    }
    return st;
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
    return preprocessing(m, s, err);
}
