/* blip2.c - BLIP-2: declares, loads, encodes. Configuration: blip2_config.c; Q-Former: qformer.c; language models: opt.c, t5.c;
 * captions, answers and matching: src/generate. Sources: salesforce/LAVIS lavis/models/blip2_models, eva_vit.py, clip_vit.py;
 * transformers modeling_blip_2.py.
 *
 * Easy to get wrong: the authors' files leave out what was frozen, so an image encoder and a language model have files of their own;
 * these encoders hold one block too many; the bias of k is zero; ln_vision has an eps of its own in the authors' code. */
#include "models/blip2.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "models/clip.h"
#include "models/handle.h"

/* ---- declaring ---- */

static void block_params(nm_params *p, nm_block_w *w, nm_eva_bias_w *split, const nm_vit_cfg *c)
{
    int64_t width = c->width;
    nm_norm_params(p, &w->ln_1, width, NM_NAMES("norm1.weight", "layer_norm1.weight", "norm1.weight"),
                   NM_NAMES("norm1.bias", "layer_norm1.bias", "norm1.bias"));
    nm_linear_params(p, &w->qkv, 3 * width, width, NM_NAMES("attn.qkv.weight", "self_attn.qkv.weight", "attn.qkv.weight"),
                     NM_NAMES("attn.qkv.bias", "self_attn.qkv.bias", "attn.qkv.bias"), 0.02f, NM_OPTIONAL);
    nm_param(p, &split->q, NM_SHAPE(width), NM_NAMES("attn.q_bias", NULL, "attn.q_bias"), NM_ZEROS, NM_NO_DECAY | NM_OPTIONAL);
    nm_param(p, &split->v, NM_SHAPE(width), NM_NAMES("attn.v_bias", NULL, "attn.v_bias"), NM_ZEROS, NM_NO_DECAY | NM_OPTIONAL);
    nm_linear_params(p, &w->out, width, width, NM_NAMES("attn.proj.weight", "self_attn.projection.weight", "attn.proj.weight"),
                     NM_NAMES("attn.proj.bias", "self_attn.projection.bias", "attn.proj.bias"), 0.02f, 0);
    nm_norm_params(p, &w->ln_2, width, NM_NAMES("norm2.weight", "layer_norm2.weight", "norm2.weight"),
                   NM_NAMES("norm2.bias", "layer_norm2.bias", "norm2.bias"));
    nm_linear_params(p, &w->fc, c->mlp, width, NM_NAMES("mlp.fc1.weight", "mlp.fc1.weight", "mlp.fc1.weight"),
                     NM_NAMES("mlp.fc1.bias", "mlp.fc1.bias", "mlp.fc1.bias"), 0.02f, 0);
    nm_linear_params(p, &w->proj, width, c->mlp, NM_NAMES("mlp.fc2.weight", "mlp.fc2.weight", "mlp.fc2.weight"),
                     NM_NAMES("mlp.fc2.bias", "mlp.fc2.bias", "mlp.fc2.bias"), 0.02f, 0);
}

static void eva_params(nm_params *p, nm_blip2 *m)
{
    nm_vit_w *w = &m->vit;
    const nm_vit_cfg *c = &m->cfg.vit;
    int64_t width = c->width;
    nm_param(p, &w->class_embedding, NM_SHAPE(1, 1, width), NM_NAMES("cls_token", "embeddings.class_embedding", "cls_token"), NM_NORMAL(0.02f),
             NM_NO_DECAY | NM_AS_F32);
    nm_param(p, &w->positional_embedding, NM_SHAPE(1, -1, width), NM_NAMES("pos_embed", "embeddings.position_embedding", "pos_embed"),
             NM_NORMAL(0.02f), NM_NO_DECAY | NM_AS_F32);
    nm_param(p, &w->conv1.weight, NM_SHAPE(width, 3, c->patch_height, c->patch_width),
             NM_NAMES("patch_embed.proj.weight", "embeddings.patch_embedding.weight", "patch_embed.proj.weight"), NM_NORMAL(0.02f), NM_DECAY);
    nm_param(p, &w->conv1.bias, NM_SHAPE(width), NM_NAMES("patch_embed.proj.bias", "embeddings.patch_embedding.bias", "patch_embed.proj.bias"), NM_ZEROS,
             NM_NO_DECAY);
    for (int i = 0; i < c->layers; i++) {
        size_t mark = nm_params_push(p, NM_NAMES("blocks.%d.", "encoder.layers.%d.", "blocks.%d."), i);
        block_params(p, &w->blocks[i], &m->eva_bias[i], c);
        nm_params_pop(p, mark);
    }
}

static void vision_params(nm_params *p, nm_blip2 *m)
{
    size_t mark = nm_params_push(p, NM_NAMES("visual_encoder.", "vision_model.", ""), 0);
    if (m->cfg.clip_vision) {
        int scheme = p->scheme;
        p->scheme = NM_OPENCLIP;
        nm_vit_params(p, &m->vit, &m->cfg.vit);
        p->scheme = scheme;
    } else
        eva_params(p, m);
    nm_params_pop(p, mark);
}

static void projection(nm_params *p, nm_linear_w *w, int64_t out, int64_t in, const char *official, const char *hf)
{
    size_t mark = nm_params_push(p, NM_NAMES(official, hf, official), 0);
    nm_linear_params(p, w, out, in, NM_NAMES("weight", "weight", "weight"), NM_NAMES("bias", "bias", "bias"), 0, NM_OPTIONAL);
    nm_params_pop(p, mark);
}

static void body_params(nm_params *p, nm_blip2 *m)
{
    const nm_blip2_cfg *c = &m->cfg;
    size_t mark = nm_params_push(p, NM_NAMES("ln_vision.", "vision_model.post_layernorm.", "ln_vision."), 0);
    nm_norm_params(p, &m->ln_vision, c->vit.width, NM_NAMES("weight", "weight", "weight"), NM_NAMES("bias", "bias", "bias"));
    nm_params_pop(p, mark);
    nm_qformer_params(p, &m->qformer, &c->qformer);
    if (c->has_itc) {
        projection(p, &m->vision_proj, c->embed_dim, c->qformer.width, "vision_proj.", "vision_projection.");
        projection(p, &m->text_proj, c->embed_dim, c->qformer.width, "text_proj.", "text_projection.");
        nm_param(p, &m->temp, NM_SCALAR, NM_NAMES("temp", NULL, "temp"), NM_CONST(0.07f), NM_NO_DECAY | NM_OPTIONAL);
    }
    if (c->has_itm)
        projection(p, &m->itm_head, 2, c->qformer.width, "itm_head.", "itm_head.");
    if (c->lm)
        projection(p, &m->lm_proj, c->lm_width, c->qformer.width, c->lm == NM_LM_OPT ? "opt_proj." : "t5_proj.", "language_projection.");
}

static void blip2_params(nm_params *p, void *model)
{
    nm_blip2 *m = model;
    if (m->parts & NM_BLIP2_VISION)
        vision_params(p, m);
    if (m->parts & NM_BLIP2_BODY)
        body_params(p, m);
    if (m->parts & NM_BLIP2_LM && m->cfg.lm) {
        size_t mark = nm_params_push(p, NM_NAMES(m->cfg.lm == NM_LM_OPT ? "opt_model." : "t5_model.", "language_model.", ""), 0);
        if (m->cfg.lm == NM_LM_OPT)
            nm_opt_params(p, &m->opt, &m->cfg.opt, m->cfg.lm_body);
        else
            nm_t5_params(p, &m->t5, &m->cfg.t5);
        nm_params_pop(p, mark);
    }
}

/* ---- loading, freeing ---- */

static void blip2_free(nm_model *base)
{
    nm_blip2 *m = (nm_blip2 *)base;
    if (!m)
        return;
    m->parts = NM_BLIP2_ALL;
    if (m->vit.blocks) /* allocated last: all is there */
        nm_params_free(blip2_params, m);
    nm_vit_free(&m->vit, &m->cfg.vit);
    nm_qformer_free(&m->qformer);
    nm_opt_free(&m->opt);
    nm_t5_free(&m->t5);
    free(m->eva_bias);
    nm_weights_close(m->vision_file);
    nm_weights_close(m->lm_file);
    free(m->base.tok_path);
    nm_buf_free(&m->base.report.text);
    free(m);
}

static bool alloc_parts(nm_blip2 *m)
{
    const nm_blip2_cfg *c = &m->cfg;
    m->eva_bias = calloc((size_t)c->vit.layers + 1, sizeof *m->eva_bias);
    bool ok = m->eva_bias && (c->lm != NM_LM_OPT || nm_opt_alloc(&m->opt, &c->opt)) && (c->lm != NM_LM_T5 || nm_t5_alloc(&m->t5, &c->t5));
    return ok && nm_vit_alloc(&m->vit, &c->vit);
}

/* The bias of a fused product from EVA's two: [q_bias | 0 | v_bias]. */
static bool join_bias(nm_blip2 *m)
{
    int64_t width = m->cfg.vit.width;
    for (int i = 0; !m->cfg.clip_vision && i < m->cfg.vit.layers; i++) {
        nm_eva_bias_w *s = &m->eva_bias[i];
        nm_weight *bias = &m->vit.blocks[i].qkv.bias;
        if (nm_has(bias) || !nm_has(&s->q) || !nm_has(&s->v))
            continue;
        float *all = nm_calloc((size_t)(3 * width), sizeof *all);
        if (!all)
            return false;
        memcpy(all, s->q.f32, (size_t)width * sizeof *all);
        memcpy(all + 2 * width, s->v.f32, (size_t)width * sizeof *all);
        nm_weight_set(bias, all, NM_SHAPE(3 * width));
        nm_weight_free(&s->q);
        nm_weight_free(&s->v);
    }
    return true;
}

static noema_status ready(nm_blip2 *m, noema_error *err)
{
    nm_blip2_cfg *c = &m->cfg;
    noema_status st = nm_vit_ready(&m->vit, &c->vit, err);
    if (st != NOEMA_OK)
        return st;
    if (c->qformer.head && !nm_has(&m->qformer.head.vocab.bias) && !nm_has(&m->qformer.head.bias))
        return nm_fail(err, NOEMA_E_MISSING, "Qformer.cls.predictions: expected bias or decoder.bias");
    if (!join_bias(m) || !nm_qformer_ready(&m->qformer, &c->qformer) || (c->lm == NM_LM_OPT && !nm_opt_ready(&m->opt, &c->opt)) ||
        (c->lm == NM_LM_T5 && !nm_t5_ready(&m->t5, &c->t5)))
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory");
    if (nm_has(&m->temp) && nm_weight_make_f32(&m->temp)) {
        c->has_temp = true;
        c->temp = m->temp.f32[0];
    }
    m->base.logit_scale = c->has_temp && c->temp != 0 ? 1 / (double)c->temp : 1;
    return NOEMA_OK;
}

/* Opens `path` as the image encoder when its tensors are one; *fits: as wide as the checkpoint's ln_vision. */
static noema_status open_vision(nm_blip2 *m, nm_source *v, const char *path, const nm_source *s, noema_error *err)
{
    noema_status st = nm_weights_open(&m->vision_file, path, err);
    if (st != NOEMA_OK)
        return st;
    *v = (nm_source){ .name = path, .path = path, .dir = s->dir, .file = m->vision_file, .options = s->options };
    m->cfg.clip_vision = nm_source_has(v, "conv1.weight");
    if (!m->cfg.clip_vision && !nm_source_has(v, "patch_embed.proj.weight"))
        return nm_fail(err, NOEMA_E_FORMAT, "%s: expected an image encoder (patch_embed.proj.weight of EVA or conv1.weight of CLIP)", path);
    m->base.part_file[0] = m->vision_file;
    return NOEMA_OK;
}

/* The image encoder: in the checkpoint, by --vision, or beside it under the authors' names. */
static noema_status find_vision(nm_blip2 *m, nm_source *v, char **path, const nm_source *s, noema_error *err)
{
    static const char *const names[] = { "eva_vit_g.pth", "clip_vit_L.pth", "eva_vit_g.pth" };
    const noema_model_options *o = s->options;
    *v = *s;
    if (o && o->vision)
        return (*path = nm_strdup(o->vision)) ? open_vision(m, v, *path, s, err) : nm_fail(err, NOEMA_E_MEMORY, "out of memory");
    if (nm_source_has(s, "visual_encoder.patch_embed.proj.weight") || nm_source_has(s, "vision_model.embeddings.patch_embedding.weight"))
        return NOEMA_OK;
    m->cfg.clip_vision = nm_source_has(s, "visual_encoder.conv1.weight");
    if (m->cfg.clip_vision)
        return NOEMA_OK;
    int first = strstr(nm_path_base(s->path), "vitL") != NULL;
    for (int i = first; i < first + 2; i++) {
        *path = nm_path_join(s->dir, names[i]);
        if (*path && nm_file_exists(*path))
            return open_vision(m, v, *path, s, err);
        free(*path);
        *path = NULL;
    }
    return nm_fail(err, NOEMA_E_MISSING, "%s: holds no image encoder: expected eva_vit_g.pth or clip_vit_L.pth beside it, or --vision FILE", s->name);
}

static noema_status find_lm(nm_blip2 *m, nm_source *lm, json_t **config, const nm_source *s, noema_error *err)
{
    const noema_model_options *o = s->options;
    const char *dir = o ? o->language_model : NULL;
    bool opt = m->cfg.lm == NM_LM_OPT;
    *lm = *s;
    if (!m->cfg.lm || (!dir && (m->cfg.scheme == NM_BLIP2_HF || nm_source_has(s, opt ? "opt_model.model.decoder.layers.0.fc1.weight" : "t5_model.shared.weight"))))
        return NOEMA_OK;
    if (!dir)
        return nm_fail(err, NOEMA_E_MISSING, "%s: holds no language model: give the folder of %s with --language-model DIR", s->name,
                       opt ? "its OPT (facebook/opt-2.7b or opt-6.7b)" : "its T5 (google/flan-t5-xl or flan-t5-xxl)");
    noema_status st = nm_weights_open(&m->lm_file, dir, err);
    char *path = nm_path_join(dir, "config.json");
    if (st == NOEMA_OK && path && nm_file_exists(path) && !(*config = nm_json_load(path, err)))
        st = err ? err->code : NOEMA_E_FORMAT;
    free(path);
    *lm = (nm_source){ .name = dir, .path = dir, .dir = dir, .file = m->lm_file, .config = *config, .options = o };
    m->base.part_file[1] = m->lm_file;
    if (st == NOEMA_OK) { /* the prompts are the language model's */
        m->base.tok_of_part = true;
        m->base.tok_path = nm_locate_tokenizer(dir, &m->base.tok);
    }
    return st;
}

static const char *const ignore[] = { "Qformer.bert.embeddings.position_ids", "opt_model.*", "t5_model.*", "visual_encoder.norm.*", "visual_encoder.head.*",
                                      "embeddings.position_ids", "qformer.embeddings.position_ids", NULL };

static noema_status load(nm_blip2 *m, const nm_source *s, noema_error *err)
{
    static const char *const all[] = { "*", NULL };
    nm_load_report *report = &m->base.report;
    m->parts = NM_BLIP2_BODY | (m->vision_file ? 0 : NM_BLIP2_VISION) | (m->lm_file ? 0 : NM_BLIP2_LM);
    noema_status st = nm_params_load(blip2_params, m, m->cfg.scheme, s->file, "", ignore, report, err);
    m->parts = NM_BLIP2_VISION;
    if (st == NOEMA_OK && m->vision_file)
        st = nm_params_load(blip2_params, m, NM_BLIP2_PART, m->vision_file, "", all, report, err);
    m->parts = NM_BLIP2_LM;
    if (st == NOEMA_OK && m->lm_file)
        st = nm_params_load(blip2_params, m, NM_BLIP2_PART, m->lm_file, "", all, report, err);
    m->parts = NM_BLIP2_ALL;
    return st;
}

static nm_blip2_lm lm_kind(const nm_source *s)
{
    if (nm_source_has(s, "opt_proj.weight") || nm_source_has(s, "language_model.model.decoder.embed_tokens.weight"))
        return NM_LM_OPT;
    return nm_source_has(s, "t5_proj.weight") || nm_source_has(s, "language_model.shared.weight") ? NM_LM_T5 : NM_LM_NONE;
}

static noema_status open_parts(nm_blip2 *m, const nm_source *s, noema_error *err)
{
    nm_source vision = *s, lm = *s;
    char *path = NULL;
    json_t *config = NULL;
    m->cfg.scheme = nm_source_has(s, "qformer.layernorm.weight") ? NM_BLIP2_HF : NM_BLIP2_OFFICIAL;
    m->cfg.lm = lm_kind(s);
    if (nm_source_has(s, "llm_proj.weight") || nm_source_has(s, "qformer.embeddings.word_embeddings.weight"))
        return nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: InstructBLIP, whose Q-Former reads the instruction, is not supported", s->name);
    if (m->cfg.scheme == NM_BLIP2_HF && !s->config)
        return nm_fail(err, NOEMA_E_MISSING, "%s: the tensors are named as in transformers, which needs config.json beside the file or --config", s->name);
    if (m->cfg.scheme == NM_BLIP2_HF && !m->cfg.lm && nm_source_has(s, "language_projection.weight"))
        return nm_fail(err, NOEMA_E_MISSING, "%s: language_projection without a language_model of the kind OPT or T5", s->name);
    noema_status st = find_vision(m, &vision, &path, s, err);
    if (st == NOEMA_OK)
        st = find_lm(m, &lm, &config, s, err);
    if (st == NOEMA_OK)
        st = nm_blip2_configure(m, s, &vision, &lm, err);
    if (st == NOEMA_OK && !alloc_parts(m))
        st = nm_fail(err, NOEMA_E_MEMORY, "out of memory: %s", s->name);
    if (st == NOEMA_OK)
        st = load(m, s, err);
    if (st == NOEMA_OK)
        st = ready(m, err);
    json_decref(config);
    free(path);
    return st;
}

static noema_status blip2_open(nm_model **out, const nm_source *s, noema_error *err)
{
    nm_blip2 *m = calloc(1, sizeof *m);
    if (!m)
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory");
    m->base.family = &nm_family_blip2;
    noema_status st = open_parts(m, s, err);
    if (st != NOEMA_OK) {
        blip2_free(&m->base);
        return st;
    }
    *out = &m->base;
    return NOEMA_OK;
}

static int blip2_probe(const nm_source *s)
{
    bool body = nm_source_has(s, "Qformer.bert.encoder.layer.0.attention.self.query.weight") ||
                nm_source_has(s, "qformer.encoder.layer.0.attention.attention.query.weight");
    return body && nm_source_has(s, "query_tokens") ? 96 : 0;
}

/* ---- forward ---- */

nm_tensor nm_blip2_image_states(nm_run *r, const nm_blip2 *m, nm_tensor pixels)
{
    const nm_vit_cfg *c = &m->cfg.vit;
    nm_observe_mark old = nm_observe_enter(r, "vision.");
    nm_tensor x = nm_add_positions(r, nm_patch_embed(r, pixels, &m->vit.conv1), &m->vit.class_embedding, &m->vit.positional_embedding);
    nm_observe(r, x, "embeddings");
    if (c->ln_pre) {
        x = nm_layernorm_f32(r, x, &m->vit.ln_pre, c->eps);
        nm_observe(r, x, "ln_pre");
    }
    nm_block_cfg bc = nm_vit_block_cfg(c);
    for (int i = 0; i < c->layers; i++)
        x = nm_block_forward(r, x, &m->vit.blocks[i], &bc, NULL, i);
    x = nm_layernorm_f32(r, x, &m->ln_vision, m->cfg.ln_vision_eps);
    nm_observe(r, x, "ln_vision");
    nm_observe_leave(r, old);
    return x;
}

nm_tensor nm_blip2_queries(nm_run *r, const nm_blip2 *m, nm_tensor states, nm_kv_cache *cache)
{
    if (!states.data)
        return states;
    int64_t n = states.shape[0], q = m->cfg.qformer.queries;
    nm_observe_mark old = nm_observe_enter(r, "image.");
    nm_med_context image = { .states = nm_flatten(states, 2), .n = n, .q_offsets = nm_every_row(r, n + 1, q, 0),
                             .k_offsets = nm_every_row(r, n + 1, states.shape[1], 0) };
    nm_tensor x = nm_qformer_forward(r, &m->qformer, &m->cfg.qformer, &(nm_qformer_input){ .items = n, .image = &image, .cache = cache }).query;
    nm_observe_leave(r, old);
    if (x.data)
        nm_observe(r, nm_reshape(x, NM_SHAPE(n, q, m->cfg.qformer.width)), m->cfg.lm ? "query_output" : "image_embeds");
    return x;
}

static nm_tensor no_vectors(nm_run *r)
{
    return nm_run_fail(r, NOEMA_E_UNSUPPORTED, "this checkpoint has no ITC head (vision_proj, text_proj): its pictures and texts have no vectors");
}

/* [n, queries, embed_dim]. An observer of a model without vectors sees its parts all the same; what is returned then is each picture's
 * first query. */
static nm_tensor encode_image(nm_run *r, const nm_model *base, nm_tensor pixels)
{
    const nm_blip2 *m = (const nm_blip2 *)base;
    const nm_blip2_cfg *c = &m->cfg;
    if (!c->has_itc && !r->observe)
        return no_vectors(r);
    int64_t n = pixels.data ? pixels.shape[0] : 0, q = c->qformer.queries;
    nm_tensor x = nm_blip2_queries(r, m, nm_blip2_image_states(r, m, pixels), NULL);
    if (c->lm && r->observe && x.data)
        nm_observe(r, nm_reshape(nm_linear(r, x, &m->lm_proj, (nm_epilogue){ .f32 = true }), NM_SHAPE(n, q, c->lm_width)), "%s",
                   c->scheme == NM_BLIP2_HF ? "language_projection" : c->lm == NM_LM_OPT ? "opt_proj" : "t5_proj");
    if (!c->has_itc)
        return x.data ? nm_gather_rows(r, x, nm_every_row(r, n, q, 0), n) : x;
    x = nm_linear(r, x, &m->vision_proj, (nm_epilogue){ .f32 = true });
    return x.data ? nm_reshape(x, NM_SHAPE(n, q, c->embed_dim)) : x;
}

static nm_tensor encode_text(nm_run *r, const nm_model *base, const nm_texts *texts)
{
    const nm_blip2 *m = (const nm_blip2 *)base;
    nm_med_rows l;
    if (!m->cfg.has_itc)
        return no_vectors(r);
    if (!nm_run_ok(r) || !nm_med_layout(r, &l, texts, -1, m->base.context_length))
        return (nm_tensor){ 0 };
    nm_observe_mark old = nm_observe_enter(r, "text.");
    nm_tensor x = nm_qformer_forward(r, &m->qformer, &m->cfg.qformer, &(nm_qformer_input){ .text = &l }).text;
    nm_observe_leave(r, old);
    return nm_linear(r, nm_med_first(r, x, &l), &m->text_proj, (nm_epilogue){ .f32 = true });
}

/* Query rows of the joint pass: text i looks at picture i, or all at the one picture there is. */
static nm_tensor joint(nm_run *r, const nm_blip2 *m, nm_tensor states, const nm_texts *texts, int64_t limit)
{
    nm_med_rows l;
    if (!nm_run_ok(r) || !states.data || !nm_med_layout(r, &l, texts, -1, limit > 0 ? limit : m->base.context_length))
        return (nm_tensor){ 0 };
    int64_t pictures = states.shape[0], rows = l.n * m->cfg.qformer.queries / pictures;
    nm_observe_mark old = nm_observe_enter(r, "multimodal.");
    nm_med_context image = { .states = nm_flatten(states, 2), .n = pictures, .q_offsets = nm_every_row(r, pictures + 1, rows, 0),
                             .k_offsets = nm_every_row(r, pictures + 1, states.shape[1], 0) };
    nm_tensor x = nm_qformer_forward(r, &m->qformer, &m->cfg.qformer, &(nm_qformer_input){ .items = l.n, .text = &l, .image = &image }).query;
    nm_observe_leave(r, old);
    return x;
}

nm_tensor nm_blip2_itm(nm_run *r, const nm_blip2 *m, nm_tensor states, const nm_texts *texts, int64_t limit)
{
    if (!m->cfg.has_itm)
        return nm_run_fail(r, NOEMA_E_UNSUPPORTED, "this checkpoint has no ITM head (itm_head)");
    nm_tensor x = nm_linear(r, joint(r, m, states, texts, limit), &m->itm_head, (nm_epilogue){ .f32 = true });
    return x.data ? nm_mean_rows(r, x, nm_every_row(r, texts->n + 1, m->cfg.qformer.queries, 0), texts->n) : x;
}

nm_tensor nm_blip2_multimodal(nm_run *r, const nm_blip2 *m, nm_tensor states, const nm_texts *texts)
{
    nm_tensor x = joint(r, m, states, texts, 0);
    return x.data ? nm_reshape(x, NM_SHAPE(texts->n, m->cfg.qformer.queries, m->cfg.qformer.width)) : x;
}

nm_tensor nm_blip2_words(nm_run *r, const nm_blip2 *m, const int32_t *ids, int64_t n)
{
    return nm_embedding(r, ids, n, m->cfg.lm == NM_LM_OPT ? &m->opt.embed_tokens : &m->t5.shared, NULL, NULL);
}

nm_blip2_prefix nm_blip2_prefix_rows(nm_run *r, const nm_blip2 *m, nm_tensor queries, const nm_texts *prompts)
{
    int64_t n = prompts->n, q = m->cfg.qformer.queries, ids = prompts->offsets[n] - prompts->offsets[0], at = 0;
    nm_blip2_prefix p = { .offsets = nm_scratch(r, (size_t)(n + 1) * sizeof *p.offsets) };
    int64_t *rows = nm_scratch(r, (size_t)(n * q + ids) * sizeof *rows);
    for (int64_t i = 0; rows && p.offsets && i <= n; i++) {
        p.offsets[i] = at;
        for (int64_t j = 0; i < n && j < q; j++)
            rows[at++] = i * q + j;
        for (int64_t j = prompts->offsets[i]; i < n && j < prompts->offsets[i + 1]; j++)
            rows[at++] = n * q + j - prompts->offsets[0];
    }
    nm_tensor x = nm_linear(r, queries, &m->lm_proj, (nm_epilogue){ .f32 = true });
    if (!nm_run_ok(r))
        return (nm_blip2_prefix){ 0 };
    x = nm_join_rows(r, x, ids ? nm_blip2_words(r, m, prompts->ids + prompts->offsets[0], ids) : (nm_tensor){ 0 }, rows, at);
    nm_observe(r, x, "inputs_embeds");
    p.rows = m->cfg.lm == NM_LM_T5 ? nm_t5_encode(r, &m->t5, &m->cfg.t5, n, x, p.offsets) : x;
    return p;
}

int32_t nm_blip2_dec_id(const nm_tokenizer *t)
{
    int32_t id = noema_tokenizer_token_id(t, "[DEC]", 5);
    return id >= 0 ? id : noema_tokenizer_vocab_size(t);
}

const nm_family nm_family_blip2 = { .name = "blip2", .probe = blip2_probe, .open = blip2_open, .encode_image = encode_image, .encode_text = encode_text,
                                    .declare = blip2_params, .save_scheme = NM_BLIP2_OFFICIAL, .free = blip2_free };
