/* blip2_config.c - what a BLIP-2 checkpoint is: sizes from the tensors, the rest from a configuration in transformers' form or, where it
 * says nothing, from the authors (eva_vit.py, clip_vit.py, Qformer.py, blip2_opt.py, blip2_t5.py): head sizes 88 (EVA) and 64, eps
 * 1e-6 (EVA), 1e-5 (CLIP, ln_vision), 1e-12 (Q-Former), exact GELU. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "models/blip2.h"
#include "models/blip_common.h"
#include "models/clip.h"

static const char *const extra_tokens[] = { "[DEC]" };

/* ---- image encoder ---- */

/* Tensor names of the three forms: in the authors' file or transformers', EVA alone, CLIP alone. */
typedef struct vision_names { const char *conv, *positions, *layer, *mlp; int position_dim; } vision_names;

static vision_names names_of(const nm_blip2_cfg *c, bool alone)
{
    if (c->scheme == NM_BLIP2_HF)
        return (vision_names){ "vision_model.embeddings.patch_embedding.weight", "vision_model.embeddings.position_embedding",
                               "vision_model.encoder.layers.%d.self_attn.qkv.weight", "vision_model.encoder.layers.0.mlp.fc1.weight", 1 };
    if (c->clip_vision)
        return alone ? (vision_names){ "conv1.weight", "positional_embedding", "transformer.resblocks.%d.attn.in_proj_weight",
                                       "transformer.resblocks.0.mlp.c_fc.weight", 0 }
                     : (vision_names){ "visual_encoder.conv1.weight", "visual_encoder.positional_embedding",
                                       "visual_encoder.transformer.resblocks.%d.attn.in_proj_weight",
                                       "visual_encoder.transformer.resblocks.0.mlp.c_fc.weight", 0 };
    return alone ? (vision_names){ "patch_embed.proj.weight", "pos_embed", "blocks.%d.attn.qkv.weight", "blocks.0.mlp.fc1.weight", 1 }
                 : (vision_names){ "visual_encoder.patch_embed.proj.weight", "visual_encoder.pos_embed", "visual_encoder.blocks.%d.attn.qkv.weight",
                                   "visual_encoder.blocks.0.mlp.fc1.weight", 1 };
}

static noema_status vision_config(nm_blip2 *m, const nm_source *s, const nm_source *v, noema_error *err)
{
    nm_blip2_cfg *all = &m->cfg;
    nm_vit_cfg *c = &all->vit;
    bool hf = all->scheme == NM_BLIP2_HF, alone = v->file != s->file, clip = all->clip_vision;
    const json_t *j = nm_json_get(s->config, "vision_config");
    vision_names n = names_of(all, alone);
    int64_t width = nm_source_dim(v, n.conv, 0), ph = nm_source_dim(v, n.conv, 2), pw = nm_source_dim(v, n.conv, 3);
    int64_t rows = nm_source_dim(v, n.positions, n.position_dim), mlp = nm_source_dim(v, n.mlp, 0), side = llround(sqrt((double)(rows > 1 ? rows - 1 : 0)));
    if (!nm_blip_size_ok(width, 1 << 16) || !nm_blip_size_ok(ph, 512) || !nm_blip_size_ok(pw, 512) || !nm_blip_size_ok(mlp, 1 << 18) ||
        !nm_blip_size_ok(side, 1024) || side * side != rows - 1)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: %s: width %lld, patches %lldx%lld, %lld positions make no image encoder", v->name, n.conv,
                       (long long)width, (long long)ph, (long long)pw, (long long)rows);
    int layers = nm_source_count(v, n.layer);
    if (alone) /* the encoders' own files hold one block more than is used: its output is left out (eva_vit.py, clip_vit.py) */
        layers--;
    if (nm_json_int(j, "num_hidden_layers", 0) > 0 && nm_json_int(j, "num_hidden_layers", 0) < layers + alone)
        layers = (int)nm_json_int(j, "num_hidden_layers", 0);
    if (layers < 1)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: the image encoder has no blocks", v->name);
    *c = (nm_vit_cfg){ .width = (int)width, .embed_dim = (int)width, .patch_height = (int)ph, .patch_width = (int)pw, .mlp = (int)mlp, .layers = layers,
                       .image_height = (int)(side * ph), .image_width = (int)(side * pw), .class_token = true, .patch_bias = !clip, .ln_pre = clip,
                       .from_file = true, .timm = !clip, .resize = clip ? NM_INTERP_BICUBIC_CORNERS : NM_INTERP_BICUBIC };
    int head = clip ? 64 : 88, most = hf ? 16 : width % head ? 0 : (int)(width / head);
    noema_status st = nm_blip_image_size(c, s, err);
    if (st == NOEMA_OK)
        st = nm_blip_heads(&c->heads, j, c->width, most, "vision_config", s, err);
    if (st == NOEMA_OK)
        st = nm_blip_activation(&c->act, nm_json_str(j, "hidden_act", clip ? "quick_gelu" : "gelu"), s, err);
    if (st == NOEMA_OK)
        st = nm_blip_eps(&c->eps, j, "layer_norm_eps", clip ? 1e-5 : 1e-6, s, err);
    all->ln_vision_eps = hf ? c->eps : 1e-5f; /* the authors' LayerNorm has PyTorch's own, transformers uses the tower's */
    return st;
}

/* ---- Q-Former and heads ---- */

static noema_status qformer_config(nm_blip2 *m, const nm_source *s, noema_error *err)
{
    nm_qformer_cfg *c = &m->cfg.qformer;
    bool hf = m->cfg.scheme == NM_BLIP2_HF;
    const json_t *j = nm_json_get(s->config, "qformer_config");
    const char *self = hf ? "qformer.encoder.layer.%d.attention.attention.query.weight" : "Qformer.bert.encoder.layer.%d.attention.self.query.weight";
    const char *cross = hf ? "qformer.encoder.layer.%d.crossattention.attention.key.weight" : "Qformer.bert.encoder.layer.%d.crossattention.self.key.weight";
    const char *mlp = hf ? "qformer.encoder.layer.0.intermediate_query.dense.weight" : "Qformer.bert.encoder.layer.0.intermediate_query.dense.weight";
    const char *text = hf ? "qformer.encoder.layer.0.intermediate.dense.weight" : "Qformer.bert.encoder.layer.0.intermediate.dense.weight";
    const char *word = hf ? "embeddings.word_embeddings.weight" : "Qformer.bert.embeddings.word_embeddings.weight";
    const char *position = hf ? "embeddings.position_embeddings.weight" : "Qformer.bert.embeddings.position_embeddings.weight";
    int64_t queries = nm_source_dim(s, "query_tokens", 1), width = nm_source_dim(s, "query_tokens", 2), fc = nm_source_dim(s, mlp, 0);
    if (!nm_blip_size_ok(queries, 4096) || !nm_blip_size_ok(width, 1 << 16) || !nm_blip_size_ok(fc, 1 << 18))
        return nm_fail(err, NOEMA_E_FORMAT, "%s: query_tokens: %lld queries of width %lld make no Q-Former", s->name, (long long)queries,
                       (long long)width);
    *c = (nm_qformer_cfg){ .queries = (int)queries, .width = (int)width, .mlp = (int)fc, .layers = nm_source_count(s, self) };
    if (nm_source_has(s, text) && nm_source_has(s, word)) {
        int64_t vocab = nm_source_dim(s, word, 0), rows = nm_source_dim(s, position, 0);
        if (!nm_blip_size_ok(vocab, 1 << 24) || !nm_blip_size_ok(rows, 1 << 20))
            return nm_fail(err, NOEMA_E_FORMAT, "%s: %s: a vocabulary of %lld, %lld positions", s->name, word, (long long)vocab, (long long)rows);
        c->vocab_size = (int)vocab;
        c->max_positions = (int)rows;
        c->head = !hf && nm_source_has(s, "Qformer.cls.predictions.transform.dense.weight");
    }
    if (!nm_qformer_alloc(&m->qformer, c))
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory: %s", s->name);
    for (int i = 0; i < c->layers; i++) {
        char name[160];
        snprintf(name, sizeof name, cross, i);
        m->qformer.layer[i].cross = nm_source_has(s, name);
        int64_t columns = nm_source_dim(s, name, 1);
        if (columns)
            c->cross_width = (int)columns;
    }
    noema_status st = nm_blip_heads(&c->heads, j, c->width, hf ? 12 : c->width % 64 ? 0 : c->width / 64, "qformer_config", s, err);
    if (st == NOEMA_OK)
        st = nm_blip_activation(&c->act, nm_json_str(j, "hidden_act", "gelu"), s, err);
    return st == NOEMA_OK ? nm_blip_eps(&c->eps, j, "layer_norm_eps", 1e-12, s, err) : st;
}

static noema_status heads_config(nm_blip2_cfg *c, const nm_source *s, noema_error *err)
{
    const char *projection = c->scheme == NM_BLIP2_HF ? "vision_projection.weight" : "vision_proj.weight";
    c->has_itc = nm_source_has(s, projection);
    c->has_itm = nm_source_has(s, "itm_head.weight");
    c->embed_dim = (int)nm_source_dim(s, projection, 0);
    if (c->has_itc && !nm_blip_size_ok(c->embed_dim, 1 << 16))
        return nm_fail(err, NOEMA_E_FORMAT, "%s: %s: a width of %d", s->name, projection, c->embed_dim);
    if (c->has_itm && !c->qformer.vocab_size)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: itm_head without the Q-Former's text layers", s->name);
    return NOEMA_OK;
}

/* ---- language models ---- */

/* `prefix` + name, with %d in place. */
static const char *lm_name(char full[160], const char *prefix, const char *name)
{
    snprintf(full, 160, "%s%s", prefix, name);
    return full;
}

static noema_status opt_config(nm_blip2_cfg *all, const nm_source *s, const json_t *j, const char *prefix, noema_error *err)
{
    nm_opt_cfg *c = &all->opt;
    char a[160];
    snprintf(all->lm_body, sizeof all->lm_body, "%s", nm_source_has(s, lm_name(a, prefix, "model.decoder.embed_tokens.weight")) ? "model." : "");
    char body[96];
    snprintf(body, sizeof body, "%s%sdecoder.", prefix, all->lm_body);
    int64_t vocab = nm_source_dim(s, lm_name(a, body, "embed_tokens.weight"), 0), width = nm_source_dim(s, a, 1);
    int64_t rows = nm_source_dim(s, lm_name(a, body, "embed_positions.weight"), 0), mlp = nm_source_dim(s, lm_name(a, body, "layers.0.fc1.weight"), 0);
    if (!nm_blip_size_ok(vocab, 1 << 24) || !nm_blip_size_ok(width, 1 << 16) || !nm_blip_size_ok(rows, 1 << 20) || !nm_blip_size_ok(mlp, 1 << 20))
        return nm_fail(err, NOEMA_E_FORMAT, "%s: %s*: vocabulary %lld, width %lld, %lld positions make no OPT", s->name, body, (long long)vocab,
                       (long long)width, (long long)rows);
    if (!nm_json_bool(j, "do_layer_norm_before", true) || nm_source_has(s, lm_name(a, body, "project_in.weight")))
        return nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: OPT with norms behind its layers or with project_in (350m) is not supported", s->name);
    *c = (nm_opt_cfg){ .vocab_size = (int)vocab, .width = (int)width, .positions = (int)rows, .mlp = (int)mlp, .eps = 1e-5f };
    c->layers = nm_source_count(s, lm_name(a, body, "layers.%d.fc1.weight"));
    c->final_norm = nm_source_has(s, lm_name(a, body, "final_layer_norm.weight"));
    all->lm_width = c->width;
    all->bos = (int)nm_json_int(j, "bos_token_id", 2);
    all->pad = (int)nm_json_int(j, "pad_token_id", 1);
    noema_status st = nm_blip_heads(&c->heads, j, c->width, c->width == 2560 || c->width == 4096 ? 32 : 0, "text_config", s, err);
    return st == NOEMA_OK ? nm_blip_activation(&c->act, nm_json_str(j, "activation_function", "relu"), s, err) : st;
}

/* transformers: "gated-gelu" means the tanh form, unless dense_act_fn says otherwise; the authors of BLIP-2 set the exact one. */
static const char *t5_activation(const nm_blip2_cfg *c, const json_t *j)
{
    const char *form = nm_json_str(j, "feed_forward_proj", "relu"), *dash = strrchr(form, '-');
    if (c->scheme == NM_BLIP2_OFFICIAL)
        return "gelu";
    return nm_json_str(j, "dense_act_fn", strcmp(form, "gated-gelu") == 0 ? "gelu_new" : dash ? dash + 1 : form);
}

static noema_status t5_config(nm_blip2_cfg *all, const nm_source *s, const json_t *j, const char *prefix, noema_error *err)
{
    nm_t5_cfg *c = &all->t5;
    char a[160];
    int64_t vocab = nm_source_dim(s, lm_name(a, prefix, "shared.weight"), 0), width = nm_source_dim(s, a, 1);
    int64_t inner = nm_source_dim(s, lm_name(a, prefix, "encoder.block.0.layer.0.SelfAttention.q.weight"), 0);
    c->gated = nm_source_has(s, lm_name(a, prefix, "encoder.block.0.layer.1.DenseReluDense.wi_0.weight"));
    int64_t mlp = nm_source_dim(s, lm_name(a, prefix, c->gated ? "encoder.block.0.layer.1.DenseReluDense.wi_0.weight"
                                                               : "encoder.block.0.layer.1.DenseReluDense.wi.weight"), 0);
    int64_t buckets = nm_source_dim(s, lm_name(a, prefix, "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"), 0);
    int64_t heads = nm_source_dim(s, a, 1), distance = nm_json_int(j, "relative_attention_max_distance", 128);
    if (!nm_blip_size_ok(vocab, 1 << 24) || !nm_blip_size_ok(width, 1 << 16) || !nm_blip_size_ok(inner, 1 << 16) || !nm_blip_size_ok(mlp, 1 << 20) ||
        !nm_blip_size_ok(buckets, 1 << 12) || buckets < 4 || !nm_blip_size_ok(heads, 1 << 10) || inner % heads || inner / heads > 256 || distance <= buckets / 2 || distance > 1 << 20)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: %s*: vocabulary %lld, width %lld, %lld heads of %lld, %lld buckets make no T5", s->name, prefix,
                       (long long)vocab, (long long)width, (long long)heads, (long long)inner, (long long)buckets);
    c->vocab_size = (int)vocab;
    c->width = all->lm_width = (int)width;
    c->inner = (int)inner;
    c->mlp = (int)mlp;
    c->heads = (int)heads;
    c->buckets = (int)buckets;
    c->max_distance = (int)distance;
    c->layers = nm_source_count(s, lm_name(a, prefix, "encoder.block.%d.layer.0.layer_norm.weight"));
    c->decoder_layers = nm_source_count(s, lm_name(a, prefix, "decoder.block.%d.layer.0.layer_norm.weight"));
    /* tied words are scaled; newer configurations say so apart from how the file stores them */
    bool scaled = nm_json_bool(j, "scale_decoder_outputs", !nm_source_has(s, lm_name(a, prefix, "lm_head.weight")));
    c->logits_scale = scaled ? 1 / sqrtf((float)width) : 1;
    all->bos = (int)nm_json_int(j, "decoder_start_token_id", nm_json_int(j, "pad_token_id", 0));
    all->pad = (int)nm_json_int(j, "pad_token_id", 0);
    noema_status st = nm_blip_activation(&c->act, t5_activation(all, j), s, err);
    return st == NOEMA_OK ? nm_blip_eps(&c->eps, j, "layer_norm_epsilon", 1e-6, s, err) : st;
}

static noema_status lm_config(nm_blip2 *m, const nm_source *s, const nm_source *lm, noema_error *err)
{
    nm_blip2_cfg *c = &m->cfg;
    bool hf = c->scheme == NM_BLIP2_HF;
    const char *projection = hf ? "language_projection.weight" : c->lm == NM_LM_OPT ? "opt_proj.weight" : "t5_proj.weight";
    const char *prefix = lm->file != s->file ? "" : hf ? "language_model." : c->lm == NM_LM_OPT ? "opt_model." : "t5_model.";
    const json_t *j = lm->file != s->file ? lm->config : nm_json_get(s->config, "text_config"), *own = nm_json_get(s->config, "text_config");
    json_t *both = json_object(); /* what --config says, and over it the language model's own configuration */
    if (!both || (own && own != j && json_object_update(both, (json_t *)(uintptr_t)own)) || (j && json_object_update(both, (json_t *)(uintptr_t)j))) {
        json_decref(both);
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory: %s", s->name);
    }
    noema_status st = c->lm == NM_LM_OPT ? opt_config(c, lm, both, prefix, err) : t5_config(c, lm, both, prefix, err);
    c->eos = (int)nm_json_int(both, "eos_token_id", c->lm == NM_LM_OPT ? 2 : 1);
    json_decref(both);
    if (st == NOEMA_OK && (nm_source_dim(s, projection, 0) != c->lm_width || nm_source_dim(s, projection, 1) != c->qformer.width))
        st = nm_fail(err, NOEMA_E_MISMATCH, "%s: %s: expected [%d, %d] for this language model, got [%lld, %lld]", s->name, projection, c->lm_width,
                     c->qformer.width, (long long)nm_source_dim(s, projection, 0), (long long)nm_source_dim(s, projection, 1));
    return st;
}

/* ---- generation ---- */

/* A folder decodes greedily, 20 new ids, unless its generation_config.json says otherwise (transformers' defaults). */
static noema_status folder_generation(nm_blip2_cfg *c, const nm_source *s, noema_error *err)
{
    nm_blip_generation g;
    noema_status st = nm_blip_folder_generation(&g, s, err);
    if (st != NOEMA_OK)
        return st;
    c->rules = g.rules;
    if (!c->rules.max_new && c->rules.max_length == 20)
        c->rules.max_new = 20;
    double eos = nm_json_num(g.generation, "eos_token_id", nm_json_num(g.text, "eos_token_id", c->eos));
    c->eos = eos >= 0 && eos < 1 << 24 ? (int)eos : c->eos;
    if (c->lm == NM_LM_OPT)
        c->bos = (int)nm_json_int(g.text, "bos_token_id", c->bos);
    else
        c->bos = (int)nm_json_num(g.generation, "decoder_start_token_id", c->bos);
    c->image_token = (int)nm_json_int(s->config, "image_token_index", nm_json_int(s->config, "image_token_id", -1));
    json_decref(g.generation);
    return NOEMA_OK;
}

/* blip2_opt.py, blip2_t5.py, blip2_qformer.py: generate(). T5's max_length there counts new ids alone. */
static void authors_generation(nm_blip2_cfg *c)
{
    c->rules.beams = c->lm ? 5 : 3;
    c->rules.max_length = 30;
    c->rules.max_new = c->lm == NM_LM_T5 ? 30 : 0;
    c->rules.min_length = c->lm ? 1 : 10;
    c->rules.repetition_penalty = c->rules.length_penalty = 1;
    c->rules.beam_rule = 433;
    c->image_token = -1;
    c->prompt_limit = c->lm == NM_LM_OPT ? 32 : 0;
    if (c->lm == NM_LM_OPT)
        c->eos = -1; /* the id of a line feed, which the tokenizer knows */
}

static void tokenizer_options(nm_blip2 *m)
{
    const nm_blip2_cfg *c = &m->cfg;
    nm_model *b = &m->base;
    b->tok = noema_tokenizer_options_default();
    if (c->lm) { /* no cut: the prompt's limit and the positions are looked after where rows are made */
        b->context_length = c->lm == NM_LM_OPT ? c->opt.positions - NM_OPT_OFFSET : 0;
        if (c->lm == NM_LM_T5)
            b->tok.kind = NOEMA_TOKENIZER_T5;
        return;
    }
    b->tok.context_length = b->context_length = c->qformer.max_positions;
    if (c->scheme == NM_BLIP2_OFFICIAL) {
        b->tok.extra_tokens = extra_tokens;
        b->tok.n_extra_tokens = 1;
    }
}

noema_status nm_blip2_configure(nm_blip2 *m, const nm_source *s, const nm_source *vision, const nm_source *lm, noema_error *err)
{
    nm_blip2_cfg *c = &m->cfg;
    nm_model *b = &m->base;
    noema_status st = vision_config(m, s, vision, err);
    if (st == NOEMA_OK)
        st = qformer_config(m, s, err);
    if (st == NOEMA_OK)
        st = heads_config(c, s, err);
    if (st == NOEMA_OK && c->qformer.cross_width != c->vit.width)
        st = nm_fail(err, NOEMA_E_MISMATCH, "%s: cross-attention takes %d columns, the image encoder %s gives %d", s->name, c->qformer.cross_width,
                     vision->path, c->vit.width);
    if (st == NOEMA_OK && c->lm)
        st = lm_config(m, s, lm, err);
    if (st != NOEMA_OK)
        return st;
    b->image_height = c->vit.image_height;
    b->image_width = c->vit.image_width;
    b->image_tokens = c->vit.image_height / c->vit.patch_height * (c->vit.image_width / c->vit.patch_width) + 1;
    b->has_image = true;
    b->has_text = c->lm || c->qformer.vocab_size;
    b->embed_dim = c->has_itc ? c->embed_dim : c->qformer.width;
    b->image_vectors = c->has_itc ? c->qformer.queries : 0;
    b->logit_scale = 1;
    c->text_limit = c->scheme == NM_BLIP2_OFFICIAL ? 32 : 0; /* max_txt_len of blip2_image_text_matching.py */
    tokenizer_options(m);
    if (c->scheme == NM_BLIP2_OFFICIAL)
        authors_generation(c);
    else if ((st = folder_generation(c, s, err)) != NOEMA_OK)
        return st;
    return nm_blip_preprocessing(b, c->scheme == NM_BLIP2_OFFICIAL, s, err);
}
