/* clip_openclip.c - open_clip's model_cfg and preprocess_cfg (model.py, factory.py, timm_model.py, hf_model.py). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "models/clip.h"

/* int(width * ratio) as Python computes it; -1 (refused later) for what is no width. */
static int mlp_width(const json_t *cfg, int width)
{
    double v = width * nm_json_num(cfg, "mlp_ratio", 4.0);
    return v >= 1 && v < 1 << 28 ? (int)v : -1;
}

static float norm_eps(const json_t *cfg, double dflt) { return (float)nm_json_num(nm_json_get(cfg, "norm_kwargs"), "eps", dflt); }

static nm_act tower_act(const nm_source *s, const json_t *cfg, bool quick)
{
    const char *approximate = nm_json_str(nm_json_get(cfg, "act_kwargs"), "approximate", "none");
    nm_act act = quick ? NM_ACT_QUICK_GELU : strcmp(approximate, "tanh") == 0 ? NM_ACT_GELU_TANH : NM_ACT_GELU;
    return nm_cfg_activation(s, act);
}

/* timm's towers by the words of their names ("vit_so400m_patch14_siglip_384"). */
static const struct timm_arch { const char *word; int width, layers, heads, mlp; } timm_archs[] = {
    { "vit_tiny", 192, 12, 3, 768 },      { "vit_small", 384, 12, 6, 1536 },    { "vit_base", 768, 12, 12, 3072 },
    { "vit_large", 1024, 24, 16, 4096 },  { "vit_so400m", 1152, 27, 16, 4304 }, { "vit_giantopt", 1536, 40, 16, 6144 },
};
/* timm gives these a tanh GELU, the other SigLIP towers the exact one (vision_transformer.py). */
static const char *const timm_tanh[] = { "patch32_siglip_256", "vit_large_patch16_siglip_512", "vit_so400m_patch16_siglip", "vit_giantopt_" };

/* "heads 3" or "patch14" inside a name; 0 when absent. */
static int number_after(const char *text, const char *word)
{
    const char *p = strstr(text, word);
    if (!p)
        return 0;
    p += strlen(word);
    while (*p == ' ' || *p == '_')
        p++;
    long v = strtol(p, NULL, 10);
    return v > 0 && v < 1 << 20 ? (int)v : 0;
}

static int pick(int64_t first, int64_t second, int64_t third) { return (int)(first > 0 ? first : second > 0 ? second : third); }

#define TRUNK "visual.trunk."
static noema_status timm_image(nm_clip_cfg *c, const json_t *cfg, const nm_source *s, noema_error *err)
{
    const char *name = nm_json_str(cfg, "timm_model_name", "");
    static const struct timm_arch none = { "", 0, 0, 0, 0 };
    const struct timm_arch *a = &none;
    for (size_t i = 0; i < sizeof timm_archs / sizeof *timm_archs; i++)
        if (strstr(name, timm_archs[i].word))
            a = &timm_archs[i];
    if (s->file && !nm_source_has(s, TRUNK "blocks.0.attn.qkv.weight"))
        return nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: image tower \"%s\": of timm's models only plain vision transformers are supported", s->name, name);
    nm_vit_cfg *v = &c->vit;
    v->timm = v->patch_bias = v->ln_post = true;
    v->width = pick(nm_source_dim(s, TRUNK "patch_embed.proj.weight", 0), a->width, number_after(name, "width"));
    v->patch_height = pick(nm_source_dim(s, TRUNK "patch_embed.proj.weight", 2), number_after(name, "patch"), 16);
    v->patch_width = pick(nm_source_dim(s, TRUNK "patch_embed.proj.weight", 3), v->patch_height, 16);
    v->patch_bias = !s->file || nm_source_has(s, TRUNK "patch_embed.proj.bias");
    v->layers = s->file ? nm_source_count(s, TRUNK "blocks.%d.attn.qkv.weight") : pick(a->layers, number_after(name, "depth"), 0);
    v->mlp = pick(nm_source_dim(s, TRUNK "blocks.0.mlp.fc1.weight", 0), a->mlp, pick(number_after(name, "mlp"), 4 * v->width, 0));
    v->heads = pick(a->width == v->width ? a->heads : 0, number_after(name, "heads"), nm_cfg_heads(v->width));
    v->class_token = s->file ? nm_source_has(s, TRUNK "cls_token") : false;
    v->ln_pre = nm_source_has(s, TRUNK "norm_pre.weight");
    v->layer_scale = nm_source_has(s, TRUNK "blocks.0.ls1.gamma");
    const char *pool = nm_json_str(cfg, "timm_pool", "avg"), *proj = nm_json_str(cfg, "timm_proj", "");
    v->pool = strcmp(pool, "map") == 0 ? NM_VIT_POOL_MAP : strcmp(pool, "token") == 0 ? NM_VIT_POOL_TOK : NM_VIT_POOL_AVG;
    v->map_mlp = pick(nm_source_dim(s, TRUNK "attn_pool.mlp.fc1.weight", 0), v->mlp, 0);
    v->head_proj = strcmp(proj, "linear") == 0;
    v->head_proj_bias = v->head_proj && nm_json_bool(cfg, "timm_proj_bias", false);
    v->embed_dim = v->head_proj ? c->embed_dim : v->width;
    if (!v->head_proj && strcmp(proj, "none") != 0 && v->width != c->embed_dim)
        return nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: image tower \"%s\": timm's own classifier head as projection is not supported", s->name, name);
    nm_cfg_pair(cfg, "image_size", pick(number_after(name, "siglip"), 224, 0), &v->image_height, &v->image_width);
    v->act = NM_ACT_GELU;
    for (size_t i = 0; i < sizeof timm_tanh / sizeof *timm_tanh; i++)
        if (strstr(name, timm_tanh[i]))
            v->act = NM_ACT_GELU_TANH;
    v->eps = 1e-6f;
    v->resize = NM_INTERP_BICUBIC_AA;
    return NOEMA_OK;
}

static bool attentional(const json_t *cfg)
{
    const json_t *j = nm_json_get(cfg, "attentional_pool");
    return j && !json_is_false(j);
}

/* "": one pool for both uses. */
static const char *pool_kind(const json_t *cfg) { return nm_json_str(cfg, "attentional_pool", ""); }

static noema_status openclip_resnet(nm_clip_cfg *c, const json_t *cfg, const char *name, noema_error *err)
{
    const json_t *layers = nm_json_get(cfg, "layers");
    if (json_array_size(layers) != 4)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: vision_cfg.layers: expected a number or four", name);
    c->resnet = true;
    for (size_t i = 0; i < 4; i++)
        c->rn.blocks[i] = (int)json_integer_value(json_array_get(layers, i));
    c->rn.width = nm_cfg_int(cfg, "width", 64);
    int head = nm_cfg_int(cfg, "head_width", 64), w;
    nm_cfg_pair(cfg, "image_size", 224, &c->rn.image_size, &w);
    c->rn.heads = head > 0 ? c->rn.width * 32 / head : 0;
    c->rn.embed_dim = c->embed_dim;
    if (!attentional(cfg))
        return NOEMA_OK;
    if (strcmp(pool_kind(cfg), "parallel") == 0 || strcmp(pool_kind(cfg), "cascade") == 0)
        return nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: attentional_pool \"%s\" of a ModifiedResNet is not supported (true is)", name, pool_kind(cfg));
    c->rn.pool_queries = nm_cfg_int(cfg, "attn_pooler_queries", 256);
    c->rn.pool_heads = nm_cfg_int(cfg, "attn_pooler_heads", 8);
    c->rn.pool_stage = nm_cfg_int(cfg, "attn_pooler_stage", 4);
    return NOEMA_OK;
}

/* Options of open_clip that no published model uses and that change the block. */
static noema_status refuse_custom_blocks(const json_t *cfg, const char *name, const char *tower, noema_error *err)
{
    static const char *const keys[] = { "qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc" };
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (nm_json_bool(cfg, keys[i], false))
            return nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: %s.%s is not supported", name, tower, keys[i]);
    return NOEMA_OK;
}

static noema_status openclip_image(nm_clip_cfg *c, const json_t *cfg, const nm_source *s, bool quick, noema_error *err)
{
    if (nm_json_get(cfg, "timm_model_name"))
        return timm_image(c, cfg, s, err);
    if (json_is_array(nm_json_get(cfg, "layers")))
        return openclip_resnet(c, cfg, s->name, err);
    nm_vit_cfg *v = &c->vit;
    v->width = nm_cfg_int(cfg, "width", 768);
    v->layers = nm_cfg_int(cfg, "layers", 12);
    int head = nm_cfg_int(cfg, "head_width", 64);
    v->heads = head > 0 ? v->width / head : 0;
    v->mlp = mlp_width(cfg, v->width);
    nm_cfg_pair(cfg, "patch_size", 16, &v->patch_height, &v->patch_width);
    nm_cfg_pair(cfg, "image_size", 224, &v->image_height, &v->image_width);
    v->embed_dim = c->embed_dim;
    v->class_token = v->proj = v->ln_post = true;
    v->ln_pre = !nm_json_bool(cfg, "no_ln_pre", false);
    v->layer_scale = nm_json_get(cfg, "ls_init_value") != NULL;
    v->final_ln_after_pool = nm_json_bool(cfg, "final_ln_after_pool", false);
    const char *pool = nm_json_str(cfg, "pool_type", "tok");
    v->pool = strcmp(pool, "avg") == 0 ? NM_VIT_POOL_AVG : strcmp(pool, "none") == 0 ? NM_VIT_POOL_NONE : NM_VIT_POOL_TOK;
    if (attentional(cfg)) {
        const char *kind = pool_kind(cfg);
        v->pool_kind = strcmp(kind, "parallel") == 0 ? NM_VIT_PARALLEL : strcmp(kind, "cascade") == 0 ? NM_VIT_CASCADE : NM_VIT_SINGLE;
        v->pool_queries = nm_cfg_int(cfg, "attn_pooler_queries", 256);
        v->pool_heads = nm_cfg_int(cfg, "attn_pooler_heads", 8);
    }
    v->act = tower_act(s, cfg, quick);
    v->eps = norm_eps(cfg, 1e-5);
    v->resize = NM_INTERP_BICUBIC_AA;
    return refuse_custom_blocks(cfg, s->name, "vision_cfg", err);
}

/* A Hugging Face text tower: sizes from the tensors or from "hf_text_config" beside model_cfg, the rest from the model's kind. */
#define HFT "text.transformer."
static noema_status openclip_bert(nm_clip_cfg *c, const json_t *cfg, const json_t *hf, const nm_source *s, noema_error *err)
{
    const char *name = nm_json_str(cfg, "hf_model_name", ""), *type = nm_json_str(hf, "model_type", name);
    bool roberta = strstr(type, "roberta") || strstr(type, "xlm-v");
    if (!roberta && !strstr(type, "bert"))
        return nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: text tower \"%s\": BERT and (XLM-)RoBERTa are supported", s->name, type);
    bool large = strstr(name, "large") != NULL;
    nm_bert_cfg *b = &c->bert;
    c->text_tower = NM_TEXT_BERT;
    b->width = pick(nm_source_dim(s, HFT "embeddings.word_embeddings.weight", 1), nm_json_int(hf, "hidden_size", 0), large ? 1024 : 768);
    b->vocab_size = pick(nm_source_dim(s, HFT "embeddings.word_embeddings.weight", 0), nm_json_int(hf, "vocab_size", 0),
                         strstr(name, "xlm-v") ? 901629 : strstr(name, "xlm") ? 250002 : roberta ? 50265 : 30522);
    b->max_positions = pick(nm_source_dim(s, HFT "embeddings.position_embeddings.weight", 0), nm_json_int(hf, "max_position_embeddings", 0),
                            roberta ? 514 : 512);
    b->type_vocab = pick(nm_source_dim(s, HFT "embeddings.token_type_embeddings.weight", 0), nm_json_int(hf, "type_vocab_size", 0), roberta ? 1 : 2);
    b->layers = s->file ? nm_source_count(s, HFT "encoder.layer.%d.attention.self.query.weight") : nm_cfg_int(hf, "num_hidden_layers", large ? 24 : 12);
    b->mlp = pick(nm_source_dim(s, HFT "encoder.layer.0.intermediate.dense.weight", 0), nm_json_int(hf, "intermediate_size", 0), 4 * b->width);
    b->heads = pick(nm_json_int(hf, "num_attention_heads", 0), b->width / 64, 1);
    b->roberta_positions = roberta;
    b->pad_id = nm_cfg_int(hf, "pad_token_id", roberta ? 1 : 0);
    b->eps = (float)nm_json_num(hf, "layer_norm_eps", roberta ? 1e-5 : 1e-12);
    if (!nm_act_from_name(nm_json_str(hf, "hidden_act", "gelu"), &b->act))
        return nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: hidden_act \"%s\"", s->name, nm_json_str(hf, "hidden_act", ""));
    const char *pool = nm_json_str(cfg, "hf_pooler_type", "mean_pooler"), *proj = nm_json_str(cfg, "hf_proj_type", "mlp");
    b->pooler = s->file ? nm_source_has(s, HFT "pooler.dense.weight") : strcmp(pool, "cls_pooler") == 0;
    c->bert_pool = strcmp(pool, "mean_pooler") == 0 ? NM_BERT_MEAN : strcmp(pool, "cls_pooler") == 0 && b->pooler ? NM_BERT_POOLER : NM_BERT_CLS;
    if (strcmp(pool, "max_pooler") == 0)
        return nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: hf_pooler_type \"max_pooler\" is not supported", s->name);
    c->bert_proj = strcmp(proj, "linear") == 0 ? 1 : strcmp(proj, "mlp") == 0 ? 2 : 0;
    if (c->bert_proj == 0 && b->width != c->embed_dim)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: hf_proj_type \"%s\" cannot join width %d with embed_dim %d", s->name, proj, b->width, c->embed_dim);
    c->bert_context = nm_cfg_int(cfg, "context_length", 77);
    if (c->bert_context > b->max_positions - (roberta ? b->pad_id + 1 : 0))
        c->bert_context = b->max_positions - (roberta ? b->pad_id + 1 : 0);
    return NOEMA_OK;
}

static noema_status openclip_text(nm_clip_cfg *c, const json_t *cfg, const json_t *hf, const nm_source *s, bool quick, bool custom, noema_error *err)
{
    if (nm_json_get(cfg, "hf_model_name"))
        return openclip_bert(c, cfg, hf, s, err);
    nm_text_cfg *t = &c->text;
    nm_cfg_text_defaults(t);
    t->from_file = s->file != NULL;
    t->context_length = nm_cfg_int(cfg, "context_length", 77);
    t->vocab_size = nm_cfg_int(cfg, "vocab_size", 49408);
    t->width = nm_cfg_int(cfg, "width", 512);
    t->heads = nm_cfg_int(cfg, "heads", 8);
    t->layers = nm_cfg_int(cfg, "layers", 12);
    t->mlp = mlp_width(cfg, t->width);
    t->layer_scale = nm_json_get(cfg, "ls_init_value") != NULL;
    t->causal = !nm_json_bool(cfg, "no_causal_mask", false);
    t->proj = strcmp(nm_json_str(cfg, "proj_type", "linear"), "none") != 0;
    t->proj_bias = t->proj && nm_json_bool(cfg, "proj_bias", false);
    t->embed_dim = t->proj ? c->embed_dim : t->width;
    t->eos_id = nm_cfg_int(cfg, "eos_id", 2);
    const char *pool = nm_json_str(cfg, "pool_type", "argmax");
    t->pool = nm_json_bool(cfg, "embed_cls", false) ? NM_TEXT_POOL_CLS : strcmp(pool, "last") == 0 ? NM_TEXT_POOL_LAST :
              strcmp(pool, "first") == 0 ? NM_TEXT_POOL_FIRST : strcmp(pool, "eos") == 0 ? NM_TEXT_POOL_EOS : NM_TEXT_POOL_ARGMAX;
    if (strcmp(pool, "none") == 0 || t->embed_dim != c->embed_dim)
        return nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: this text tower gives no vector of %d values per text", s->name, c->embed_dim);
    if (t->pool == NM_TEXT_POOL_CLS && !t->causal)
        return nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: embed_cls without a causal mask", s->name);
    t->act = tower_act(s, cfg, quick);
    t->eps = norm_eps(cfg, 1e-5);
    /* open_clip moves a flat text tower below "text." when the model is custom; files exist in both forms */
    t->prefix = s->file ? nm_source_has(s, "text.token_embedding.weight") : custom || t->pool == NM_TEXT_POOL_CLS;
    return refuse_custom_blocks(cfg, s->name, "text_cfg", err);
}

static noema_status openclip_decoder(nm_clip_cfg *c, const json_t *cfg, const json_t *text, const nm_source *s, bool quick, noema_error *err)
{
    if (c->text_tower == NM_TEXT_BERT || c->text.pool != NM_TEXT_POOL_CLS)
        return nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: CoCa with another text tower than its own is not supported", s->name);
    if (c->resnet && !c->rn.pool_queries)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: a caption decoder behind a ModifiedResNet needs vision_cfg.attentional_pool", s->name);
    c->coca = true;
    c->decoder = (nm_coca_cfg){ .layers = nm_cfg_int(cfg, "layers", 12), .width = nm_cfg_int(cfg, "width", 512), .heads = nm_cfg_int(cfg, "heads", 8),
                                .context_length = nm_cfg_int(cfg, "context_length", 77), .vocab_size = nm_cfg_int(text, "vocab_size", 49408),
                                .act = quick ? NM_ACT_QUICK_GELU : NM_ACT_GELU, .eps = 1e-5f };
    c->decoder.mlp = 4 * c->decoder.width; /* open_clip passes no mlp_ratio on */
    c->decoder.act = nm_cfg_activation(s, c->decoder.act);
    return NOEMA_OK;
}

static void openclip_tokenizer(nm_clip *m, const json_t *text)
{
    nm_clip_cfg *c = &m->cfg;
    nm_tok_options *o = &m->base.tok;
    const json_t *kw = nm_json_get(text, "tokenizer_kwargs");
    const char *clean = nm_json_str(kw, "clean", "");
    bool hf = nm_json_get(text, "hf_tokenizer_name") != NULL;
    *o = noema_tokenizer_options_default();
    o->kind = hf ? NOEMA_TOKENIZER_AUTO : NOEMA_TOKENIZER_OPEN_CLIP;
    o->context_length = c->text_tower == NM_TEXT_BERT ? c->bert_context : c->text.context_length;
    o->vocab_size = hf ? 0 : c->text.vocab_size;
    o->sep_to_zero = nm_json_bool(kw, "strip_sep_token", false);
    if (hf)
        o->clean = NOEMA_CLEAN_WHITESPACE; /* HFTokenizer's default */
    if (c->siglip && !hf && !kw && !c->text.causal && c->text.vocab_size != 49408) { /* SigLIP's tower without its tokenizer's name */
        o->kind = NOEMA_TOKENIZER_SIGLIP;
        o->clean = NOEMA_CLEAN_CANONICALIZE;
        o->vocab_size = 0;
    }
    if (strcmp(clean, "lower") == 0)
        o->clean = NOEMA_CLEAN_LOWER;
    else if (strcmp(clean, "whitespace") == 0)
        o->clean = NOEMA_CLEAN_WHITESPACE;
    else if (strcmp(clean, "canonicalize") == 0)
        o->clean = NOEMA_CLEAN_CANONICALIZE;
}

static noema_status openclip_preprocess(nm_clip *m, const nm_source *s, const json_t *model_cfg, noema_error *err)
{
    const json_t *pre = nm_json_get(s->config, "preprocess_cfg");
    bool forced = s->options && s->options->image_height > 0;
    noema_status st;
    if (pre)
        st = nm_preprocess_from_json(&m->base.preprocess, s->config, s->name, err);
    else { /* what open_clip means by an absent preprocess_cfg; SigLIP's rule where the tower is SigLIP's */
        json_t *j = m->cfg.siglip && m->cfg.vit.timm
                        ? json_pack("{s:{s:[f,f,f],s:[f,f,f],s:s,s:s}}", "preprocess_cfg", "mean", 0.5, 0.5, 0.5, "std", 0.5, 0.5, 0.5,
                                    "interpolation", "bicubic", "resize_mode", "squash")
                        : json_pack("{s:{}}", "preprocess_cfg");
        if (!j)
            return nm_fail(err, NOEMA_E_MEMORY, "out of memory");
        st = nm_preprocess_from_json(&m->base.preprocess, j, s->name, err);
        json_decref(j);
        m->base.preprocess.size_h = m->base.preprocess.size_w = 0;
    }
    /* the tower's size wins over a preprocess_cfg of another one */
    const nm_preprocess *p = &m->base.preprocess;
    nm_cfg_fit_preprocess(m, forced || p->size_h != m->base.image_height || p->size_w != m->base.image_width);
    (void)model_cfg;
    return st;
}

noema_status nm_clip_config_openclip(nm_clip *m, const nm_source *s, noema_error *err)
{
    nm_clip_cfg *c = &m->cfg;
    const json_t *cfg = nm_json_get(s->config, "model_cfg");
    if (!cfg)
        cfg = s->config;
    const json_t *vision = nm_json_get(cfg, "vision_cfg"), *text = nm_json_get(cfg, "text_cfg"), *decoder = nm_json_get(cfg, "multimodal_cfg");
    if (!json_is_object(vision) || !json_is_object(text))
        return nm_fail(err, NOEMA_E_FORMAT, "%s: configuration: expected embed_dim, vision_cfg and text_cfg (open_clip)", s->name);
    bool quick = nm_json_bool(cfg, "quick_gelu", false), custom = nm_json_bool(cfg, "custom_text", false) || nm_json_get(text, "hf_model_name");
    c->has_image = c->has_text = true;
    c->scheme = NM_OPENCLIP;
    c->embed_dim = nm_cfg_int(cfg, "embed_dim", 512);
    c->init_logit_scale = nm_json_num(cfg, "init_logit_scale", log(1 / 0.07));
    c->siglip = nm_json_get(cfg, "init_logit_bias") || nm_source_has(s, "logit_bias");
    c->init_logit_bias = nm_json_num(cfg, "init_logit_bias", 0);
    c->act = nm_cfg_activation(s, quick ? NM_ACT_QUICK_GELU : NM_ACT_GELU);
    noema_status st = openclip_image(c, vision, s, quick, err);
    c->vit.from_file = s->file != NULL;
    if (st == NOEMA_OK)
        st = openclip_text(c, text, nm_json_get(s->config, "hf_text_config"), s, quick, custom, err);
    if (st == NOEMA_OK && json_is_object(decoder))
        st = openclip_decoder(c, decoder, text, s, quick, err);
    if (st == NOEMA_OK)
        st = nm_clip_config_check(c, s->name, err);
    if (st != NOEMA_OK)
        return st;
    nm_cfg_image_size(m, s->options);
    m->base.patch_dropout = nm_json_num(vision, "patch_dropout", 0);
    openclip_tokenizer(m, text);
    m->config = json_deep_copy(s->config);
    return openclip_preprocess(m, s, cfg, err);
}
