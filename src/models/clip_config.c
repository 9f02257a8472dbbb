/* clip_config.c - where CLIP's numbers come from: the shapes of OpenAI's tensors, open_clip's model_cfg, transformers'
 * config.json. All three fill the same nm_clip_cfg, which nothing below this file asks about its origin. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "models/clip.h"

bool nm_act_from_name(const char *name, nm_act *act)
{
    static const struct { const char *name; nm_act act; } acts[] = {
        { "quick_gelu", NM_ACT_QUICK_GELU }, { "gelu", NM_ACT_GELU }, { "gelu_pytorch_tanh", NM_ACT_GELU_TANH },
        { "gelu_new", NM_ACT_GELU_TANH }, { "gelu_tanh", NM_ACT_GELU_TANH }, { "gelu_fast", NM_ACT_GELU_TANH },
        { "gelu_python", NM_ACT_GELU }, { "relu", NM_ACT_RELU }, { "silu", NM_ACT_SILU }, { "tanh", NM_ACT_TANH },
    };
    for (size_t i = 0; i < sizeof acts / sizeof *acts; i++)
        if (strcmp(name, acts[i].name) == 0) {
            *act = acts[i].act;
            return true;
        }
    return false;
}

int nm_source_count(const nm_source *s, const char *format)
{
    const char *d = strstr(format, "%d");
    for (int i = 0; i < 4096; i++) {
        char name[256];
        snprintf(name, sizeof name, "%.*s%d%s", (int)(d - format), format, i, d + 2);
        if (!nm_source_has(s, name))
            return i;
    }
    return 4096;
}

/* ---- limits: every number below came from a file ---- */

static noema_status bad(noema_error *err, const char *name, const char *what, long long got)
{
    return nm_fail(err, NOEMA_E_FORMAT, "%s: configuration: %s is %lld", name, what, got);
}

static noema_status check_tower(const char *name, const char *tower, int width, int layers, int heads, int mlp, noema_error *err)
{
    char what[96];
    const struct { const char *key; int value, most; } v[] = {
        { "width", width, 1 << 16 }, { "layers", layers, 1024 }, { "heads", heads, 1024 }, { "mlp width", mlp, 1 << 18 },
    };
    for (int i = 0; i < 4; i++)
        if (v[i].value < 1 || v[i].value > v[i].most) {
            snprintf(what, sizeof what, "%s %s", tower, v[i].key);
            return bad(err, name, what, v[i].value);
        }
    if (width % heads)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: configuration: %s width %d is no multiple of %d heads", name, tower, width, heads);
    return NOEMA_OK;
}

static noema_status check_image(const nm_clip_cfg *c, const char *name, noema_error *err)
{
    if (c->resnet) {
        for (int i = 0; i < 4; i++)
            if (c->rn.blocks[i] < 1 || c->rn.blocks[i] > 1024)
                return bad(err, name, "a stage's number of blocks", c->rn.blocks[i]);
        if (c->rn.width < 2 || c->rn.width > 4096 || c->rn.width % 2)
            return bad(err, name, "ResNet width", c->rn.width);
        if (c->rn.image_size < 32 || c->rn.image_size > 8192 || c->rn.image_size % 32)
            return bad(err, name, "image size", c->rn.image_size);
        return c->rn.heads < 1 || 32 * c->rn.width % c->rn.heads ? bad(err, name, "attention pool heads", c->rn.heads) : NOEMA_OK;
    }
    const nm_vit_cfg *v = &c->vit;
    if (v->patch_height < 1 || v->patch_height > 512 || v->patch_width < 1 || v->patch_width > 512)
        return bad(err, name, "patch size", v->patch_height);
    if (v->image_height < v->patch_height || v->image_height > 8192 || v->image_width < v->patch_width || v->image_width > 8192)
        return bad(err, name, "image size", v->image_height);
    if (v->pool_queries > 0 && (v->pool_queries > 1 << 16 || v->pool_heads < 1 || v->embed_dim % v->pool_heads))
        return bad(err, name, "attentional pool heads", v->pool_heads);
    if (v->pool_queries > 0 && v->pool_kind != NM_VIT_SINGLE && v->width != v->embed_dim) /* one ln_post serves both widths */
        return nm_fail(err, NOEMA_E_FORMAT, "%s: a contrastive attentional pool needs width %d equal to embed_dim %d", name, v->width, v->embed_dim);
    if (v->pool == NM_VIT_POOL_NONE && v->pool_queries == 0)
        return nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: vision pool_type \"none\" gives no vector per picture", name);
    if (v->pool == NM_VIT_POOL_MAP && (v->map_mlp < 1 || v->map_mlp > 1 << 18))
        return bad(err, name, "pool mlp width", v->map_mlp);
    return check_tower(name, "vision", v->width, v->layers, v->heads, v->mlp, err);
}

noema_status nm_clip_config_check(const nm_clip_cfg *c, const char *name, noema_error *err)
{
    if (c->embed_dim < 1 || c->embed_dim > 1 << 16)
        return bad(err, name, "embed_dim", c->embed_dim);
    noema_status st = c->has_image ? check_image(c, name, err) : NOEMA_OK;
    if (st != NOEMA_OK || !c->has_text)
        return st;
    if (c->text_tower == NM_TEXT_BERT) {
        const nm_bert_cfg *b = &c->bert;
        if (b->vocab_size < 1 || b->max_positions < 4 || b->type_vocab < 0)
            return bad(err, name, "text vocabulary or positions", b->vocab_size);
        if (c->bert_context < 1 || c->bert_context > b->max_positions)
            return bad(err, name, "context_length", c->bert_context);
        return check_tower(name, "text", b->width, b->layers, b->heads, b->mlp, err);
    }
    const nm_text_cfg *t = &c->text;
    if (t->context_length < 1 || t->context_length > 1 << 16)
        return bad(err, name, "context_length", t->context_length);
    if (t->vocab_size < 1 || t->vocab_size > 1 << 24)
        return bad(err, name, "vocab_size", t->vocab_size);
    st = check_tower(name, "text", t->width, t->layers, t->heads, t->mlp, err);
    if (st == NOEMA_OK && c->coca) {
        st = check_tower(name, "decoder", c->decoder.width, c->decoder.layers, c->decoder.heads, c->decoder.mlp, err);
        if (st == NOEMA_OK && (c->decoder.vocab_size < 1 || c->decoder.vocab_size > 1 << 24))
            st = bad(err, name, "decoder vocab_size", c->decoder.vocab_size);
    }
    return st;
}

/* ---- what every source ends with ---- */

static void set_image_size(nm_clip *m, const noema_model_options *o)
{
    nm_clip_cfg *c = &m->cfg;
    if (o && o->image_height > 0 && !c->resnet) {
        c->vit.image_height = o->image_height;
        c->vit.image_width = o->image_width > 0 ? o->image_width : o->image_height;
    }
    m->base.image_height = c->resnet ? c->rn.image_size : c->vit.image_height;
    m->base.image_width = c->resnet ? c->rn.image_size : c->vit.image_width;
}

/* The pipeline of a configuration, brought to the size that the model runs at. */
static void fit_preprocess(nm_clip *m, bool forced)
{
    nm_preprocess *p = &m->base.preprocess;
    if (!forced && p->size_h > 0)
        return;
    p->size_h = m->base.image_height;
    p->size_w = m->base.image_width;
    if (p->edge > 0)
        p->edge = p->size_h > p->size_w ? p->size_h : p->size_w;
}

static nm_act pick_activation(const nm_source *s, nm_act configured)
{
    int forced = s->options ? s->options->activation : 0;
    return forced == 1 ? NM_ACT_QUICK_GELU : forced == 2 ? NM_ACT_GELU : configured;
}

/* ---- OpenAI: everything follows from the shapes (clip/model.py, build_model) ---- */

/* Published towers of open_clip whose heads are not 64 wide; the file does not say. */
static int heads_of_width(int64_t width)
{
    static const struct { int width, heads; } known[] = { { 1280, 16 }, { 1408, 16 }, { 1664, 16 }, { 1792, 16 }, { 1152, 16 }, { 1536, 16 } };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i].width == width)
            return known[i].heads;
    return width >= 64 && width % 64 == 0 ? (int)(width / 64) : 0;
}

static noema_status openai_image(nm_clip_cfg *c, const nm_source *s, nm_act act, noema_error *err)
{
    if (!nm_source_has(s, "visual.proj")) {
        static const char *const stage[] = { "visual.layer1.%d.conv1.weight", "visual.layer2.%d.conv1.weight", "visual.layer3.%d.conv1.weight",
                                             "visual.layer4.%d.conv1.weight" };
        c->resnet = true;
        for (int i = 0; i < 4; i++)
            c->rn.blocks[i] = nm_source_count(s, stage[i]);
        c->rn.width = (int)nm_source_dim(s, "visual.layer1.0.conv1.weight", 0);
        int64_t rows = nm_source_dim(s, "visual.attnpool.positional_embedding", 0);
        c->rn.image_size = 32 * (int)lround(sqrt((double)(rows > 1 ? rows - 1 : 1)));
        c->rn.embed_dim = c->embed_dim;
        c->rn.heads = c->rn.width * 32 / 64;
        return NOEMA_OK;
    }
    nm_vit_cfg *v = &c->vit;
    int64_t width = nm_source_dim(s, "visual.conv1.weight", 0), rows = nm_source_dim(s, "visual.positional_embedding", 0);
    v->width = (int)width;
    v->patch_height = (int)nm_source_dim(s, "visual.conv1.weight", 2);
    v->patch_width = (int)nm_source_dim(s, "visual.conv1.weight", 3);
    v->layers = nm_source_count(s, "visual.transformer.resblocks.%d.attn.in_proj_weight");
    v->mlp = (int)nm_source_dim(s, "visual.transformer.resblocks.0.mlp.c_fc.weight", 0);
    v->heads = heads_of_width(width);
    if (v->heads == 0)
        return nm_fail(err, NOEMA_E_MISSING, "%s: a vision width of %lld does not tell the number of heads: give open_clip's configuration with --config",
                       s->name, (long long)width);
    int side = (int)lround(sqrt((double)(rows > 1 ? rows - 1 : 1)));
    v->image_height = v->patch_height * side;
    v->image_width = v->patch_width * side;
    v->embed_dim = c->embed_dim;
    v->class_token = v->proj = v->ln_post = v->from_file = true;
    v->ln_pre = nm_source_has(s, "visual.ln_pre.weight");
    v->layer_scale = nm_source_has(s, "visual.transformer.resblocks.0.ls_1.gamma");
    v->act = act;
    v->eps = 1e-5f;
    v->resize = NM_INTERP_BICUBIC_AA;
    return NOEMA_OK;
}

static bool is_f16(const nm_source *s, const char *name)
{
    const nm_wview *v = nm_weights_find(s->file, name);
    return v && v->dtype == NM_F16;
}

/* OpenAI's own conversion leaves f16 products beside f32 norms; with its archive or its three extra integers that names the
 * author, and all of OpenAI's weights were trained with QuickGELU. */
static bool is_openai(const nm_source *s)
{
    const nm_wview *ln = nm_weights_find(s->file, "ln_final.weight");
    return strcmp(nm_weights_format(s->file), "torchscript") == 0 || (s->pretrained && strcmp(s->pretrained, "openai") == 0) ||
           nm_source_has(s, "input_resolution") ||
           (is_f16(s, "transformer.resblocks.0.attn.in_proj_weight") && is_f16(s, "text_projection") && ln && ln->dtype == NM_F32);
}

static void text_defaults(nm_text_cfg *t)
{
    t->causal = true;
    t->pool = NM_TEXT_POOL_ARGMAX;
    t->eps = 1e-5f;
    t->from_file = true;
}

noema_status nm_clip_config_openai(nm_clip *m, const nm_source *s, noema_error *err)
{
    nm_clip_cfg *c = &m->cfg;
    bool openai = is_openai(s), custom = nm_source_has(s, "text.token_embedding.weight");
    if (custom || !nm_source_has(s, "token_embedding.weight") || !nm_source_has(s, "text_projection"))
        return nm_fail(err, NOEMA_E_MISSING, "%s: this checkpoint does not describe itself: give open_clip's configuration with --config", s->name);
    if (!openai && (!s->options || s->options->activation == 0))
        return nm_fail(err, NOEMA_E_ARGUMENT,
                       "%s: the file does not say which activation it was trained with, and the wrong one changes every vector: give its configuration "
                       "(--config FILE), or --activation quickgelu (OpenAI, MetaCLIP, DFN, early LAION-400M B/32) or --activation gelu (other open_clip models)",
                       s->name);
    nm_act act = pick_activation(s, NM_ACT_QUICK_GELU);
    c->has_image = c->has_text = true;
    c->scheme = NM_OPENCLIP;
    c->act = act;
    c->embed_dim = (int)nm_source_dim(s, "text_projection", 1);
    c->init_logit_scale = log(1 / 0.07);
    noema_status st = openai_image(c, s, act, err);
    nm_text_cfg *t = &c->text;
    text_defaults(t);
    t->context_length = (int)nm_source_dim(s, "positional_embedding", 0);
    t->vocab_size = (int)nm_source_dim(s, "token_embedding.weight", 0);
    t->width = (int)nm_source_dim(s, "ln_final.weight", 0);
    t->layers = nm_source_count(s, "transformer.resblocks.%d.attn.in_proj_weight");
    t->heads = t->width / 64;
    t->mlp = (int)nm_source_dim(s, "transformer.resblocks.0.mlp.c_fc.weight", 0);
    t->layer_scale = nm_source_has(s, "transformer.resblocks.0.ls_1.gamma");
    t->embed_dim = c->embed_dim;
    t->proj = true;
    t->act = act;
    if (openai)
        c->vit.observed = t->observed = NM_VIEW_OPENAI;
    if (st == NOEMA_OK)
        st = nm_clip_config_check(c, s->name, err);
    if (st != NOEMA_OK)
        return st;
    set_image_size(m, s->options);
    st = nm_preprocess_named(&m->base.preprocess, "openai", m->base.image_height, m->base.image_width, err);
    m->base.tok = noema_tokenizer_options_default();
    m->base.tok.kind = openai ? NOEMA_TOKENIZER_OPENAI : NOEMA_TOKENIZER_OPEN_CLIP;
    m->base.tok.context_length = t->context_length;
    m->base.tok.vocab_size = t->vocab_size;
    return st;
}

/* ---- open_clip ---- */

/* [h, w] or a number. */
static void json_pair(const json_t *o, const char *key, int dflt, int *h, int *w)
{
    const json_t *j = nm_json_get(o, key);
    *h = *w = dflt;
    if (json_is_integer(j))
        *h = *w = (int)json_integer_value(j);
    else if (json_is_array(j) && json_array_size(j) == 2) {
        *h = (int)json_integer_value(json_array_get(j, 0));
        *w = (int)json_integer_value(json_array_get(j, 1));
    }
}

static int json_i(const json_t *o, const char *key, int dflt)
{
    int64_t v = nm_json_int(o, key, dflt);
    return v < -(1 << 28) || v > 1 << 28 ? -1 : (int)v;
}

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
    return pick_activation(s, act);
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
    v->heads = pick(a->width == v->width ? a->heads : 0, number_after(name, "heads"), heads_of_width(v->width));
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
    json_pair(cfg, "image_size", pick(number_after(name, "siglip"), 224, 0), &v->image_height, &v->image_width);
    v->act = NM_ACT_GELU;
    for (size_t i = 0; i < sizeof timm_tanh / sizeof *timm_tanh; i++)
        if (strstr(name, timm_tanh[i]))
            v->act = NM_ACT_GELU_TANH;
    v->eps = 1e-6f;
    v->resize = NM_INTERP_BICUBIC_AA;
    return NOEMA_OK;
}

static noema_status openclip_resnet(nm_clip_cfg *c, const json_t *cfg, const char *name, noema_error *err)
{
    const json_t *layers = nm_json_get(cfg, "layers");
    if (json_array_size(layers) != 4)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: vision_cfg.layers: expected a number or four", name);
    c->resnet = true;
    for (size_t i = 0; i < 4; i++)
        c->rn.blocks[i] = (int)json_integer_value(json_array_get(layers, i));
    c->rn.width = json_i(cfg, "width", 64);
    int head = json_i(cfg, "head_width", 64), w;
    json_pair(cfg, "image_size", 224, &c->rn.image_size, &w);
    c->rn.heads = head > 0 ? c->rn.width * 32 / head : 0;
    c->rn.embed_dim = c->embed_dim;
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
    v->width = json_i(cfg, "width", 768);
    v->layers = json_i(cfg, "layers", 12);
    int head = json_i(cfg, "head_width", 64);
    v->heads = head > 0 ? v->width / head : 0;
    v->mlp = mlp_width(cfg, v->width);
    json_pair(cfg, "patch_size", 16, &v->patch_height, &v->patch_width);
    json_pair(cfg, "image_size", 224, &v->image_height, &v->image_width);
    v->embed_dim = c->embed_dim;
    v->class_token = v->proj = v->ln_post = true;
    v->ln_pre = !nm_json_bool(cfg, "no_ln_pre", false);
    v->layer_scale = nm_json_get(cfg, "ls_init_value") != NULL;
    v->final_ln_after_pool = nm_json_bool(cfg, "final_ln_after_pool", false);
    const char *pool = nm_json_str(cfg, "pool_type", "tok");
    v->pool = strcmp(pool, "avg") == 0 ? NM_VIT_POOL_AVG : strcmp(pool, "none") == 0 ? NM_VIT_POOL_NONE : NM_VIT_POOL_TOK;
    const json_t *attentional = nm_json_get(cfg, "attentional_pool");
    if (attentional && !json_is_false(attentional)) {
        const char *kind = json_is_string(attentional) ? json_string_value(attentional) : "";
        v->pool_kind = strcmp(kind, "parallel") == 0 ? NM_VIT_PARALLEL : strcmp(kind, "cascade") == 0 ? NM_VIT_CASCADE : NM_VIT_SINGLE;
        v->pool_queries = json_i(cfg, "attn_pooler_queries", 256);
        v->pool_heads = json_i(cfg, "attn_pooler_heads", 8);
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
    b->layers = s->file ? nm_source_count(s, HFT "encoder.layer.%d.attention.self.query.weight") : json_i(hf, "num_hidden_layers", large ? 24 : 12);
    b->mlp = pick(nm_source_dim(s, HFT "encoder.layer.0.intermediate.dense.weight", 0), nm_json_int(hf, "intermediate_size", 0), 4 * b->width);
    b->heads = pick(nm_json_int(hf, "num_attention_heads", 0), b->width / 64, 1);
    b->roberta_positions = roberta;
    b->pad_id = json_i(hf, "pad_token_id", roberta ? 1 : 0);
    b->eps = (float)nm_json_num(hf, "layer_norm_eps", roberta ? 1e-5 : 1e-12);
    if (!nm_act_from_name(nm_json_str(hf, "hidden_act", "gelu"), &b->act))
        return nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: hidden_act \"%s\"", s->name, nm_json_str(hf, "hidden_act", ""));
    const char *pool = nm_json_str(cfg, "hf_pooler_type", "mean_pooler"), *proj = nm_json_str(cfg, "hf_proj_type", "mlp");
    b->pooler = nm_source_has(s, HFT "pooler.dense.weight");
    c->bert_pool = strcmp(pool, "mean_pooler") == 0 ? NM_BERT_MEAN : strcmp(pool, "cls_pooler") == 0 && b->pooler ? NM_BERT_POOLER : NM_BERT_CLS;
    if (strcmp(pool, "max_pooler") == 0)
        return nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: hf_pooler_type \"max_pooler\" is not supported", s->name);
    c->bert_proj = strcmp(proj, "linear") == 0 ? 1 : strcmp(proj, "mlp") == 0 ? 2 : 0;
    if (c->bert_proj == 0 && b->width != c->embed_dim)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: hf_proj_type \"%s\" cannot join width %d with embed_dim %d", s->name, proj, b->width, c->embed_dim);
    c->bert_context = json_i(cfg, "context_length", 77);
    if (c->bert_context > b->max_positions - (roberta ? b->pad_id + 1 : 0))
        c->bert_context = b->max_positions - (roberta ? b->pad_id + 1 : 0);
    return NOEMA_OK;
}

static noema_status openclip_text(nm_clip_cfg *c, const json_t *cfg, const json_t *hf, const nm_source *s, bool quick, bool custom, noema_error *err)
{
    if (nm_json_get(cfg, "hf_model_name"))
        return openclip_bert(c, cfg, hf, s, err);
    nm_text_cfg *t = &c->text;
    text_defaults(t);
    t->from_file = s->file != NULL;
    t->context_length = json_i(cfg, "context_length", 77);
    t->vocab_size = json_i(cfg, "vocab_size", 49408);
    t->width = json_i(cfg, "width", 512);
    t->heads = json_i(cfg, "heads", 8);
    t->layers = json_i(cfg, "layers", 12);
    t->mlp = mlp_width(cfg, t->width);
    t->layer_scale = nm_json_get(cfg, "ls_init_value") != NULL;
    t->causal = !nm_json_bool(cfg, "no_causal_mask", false);
    t->proj = strcmp(nm_json_str(cfg, "proj_type", "linear"), "none") != 0;
    t->proj_bias = t->proj && nm_json_bool(cfg, "proj_bias", false);
    t->embed_dim = t->proj ? c->embed_dim : t->width;
    t->eos_id = json_i(cfg, "eos_id", 2);
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
    t->prefix = s->file ? nm_source_has(s, "text.token_embedding.weight") : custom;
    return refuse_custom_blocks(cfg, s->name, "text_cfg", err);
}

static noema_status openclip_decoder(nm_clip_cfg *c, const json_t *cfg, const json_t *text, const nm_source *s, bool quick, noema_error *err)
{
    if (c->text_tower == NM_TEXT_BERT || c->text.pool != NM_TEXT_POOL_CLS)
        return nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: CoCa with another text tower than its own is not supported", s->name);
    c->coca = true;
    c->decoder = (nm_coca_cfg){ .layers = json_i(cfg, "layers", 12), .width = json_i(cfg, "width", 512), .heads = json_i(cfg, "heads", 8),
                                .context_length = json_i(cfg, "context_length", 77), .vocab_size = json_i(text, "vocab_size", 49408),
                                .act = quick ? NM_ACT_QUICK_GELU : NM_ACT_GELU, .eps = 1e-5f };
    c->decoder.mlp = 4 * c->decoder.width; /* open_clip passes no mlp_ratio on */
    c->decoder.act = pick_activation(s, c->decoder.act);
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
    fit_preprocess(m, forced || p->size_h != m->base.image_height || p->size_w != m->base.image_width);
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
    c->embed_dim = json_i(cfg, "embed_dim", 512);
    c->init_logit_scale = nm_json_num(cfg, "init_logit_scale", log(1 / 0.07));
    c->siglip = nm_json_get(cfg, "init_logit_bias") || nm_source_has(s, "logit_bias");
    c->init_logit_bias = nm_json_num(cfg, "init_logit_bias", 0);
    c->act = pick_activation(s, quick ? NM_ACT_QUICK_GELU : NM_ACT_GELU);
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
    set_image_size(m, s->options);
    openclip_tokenizer(m, text);
    m->config = json_deep_copy(s->config);
    return openclip_preprocess(m, s, cfg, err);
}

/* ---- transformers ---- */

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
    *act = pick_activation(s, *act);
    return NOEMA_OK;
}

static noema_status hf_image(nm_clip_cfg *c, const json_t *cfg, const hf_defaults *d, const nm_source *s, noema_error *err)
{
    nm_vit_cfg *v = &c->vit;
    v->width = json_i(cfg, "hidden_size", 768);
    v->mlp = json_i(cfg, "intermediate_size", 3072);
    v->layers = json_i(cfg, "num_hidden_layers", 12);
    v->heads = json_i(cfg, "num_attention_heads", 12);
    json_pair(cfg, "image_size", d->image, &v->image_height, &v->image_width);
    json_pair(cfg, "patch_size", d->patch, &v->patch_height, &v->patch_width);
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
    text_defaults(t);
    t->width = json_i(cfg, "hidden_size", d->text_width);
    t->mlp = json_i(cfg, "intermediate_size", d->text_mlp);
    t->layers = json_i(cfg, "num_hidden_layers", 12);
    t->heads = json_i(cfg, "num_attention_heads", d->text_heads);
    t->context_length = json_i(cfg, "max_position_embeddings", d->context);
    t->vocab_size = json_i(cfg, "vocab_size", d->vocab);
    t->eps = (float)nm_json_num(cfg, "layer_norm_eps", d->eps);
    t->proj = true;
    t->observed = NM_VIEW_HF;
    t->embed_dim = c->embed_dim;
    if (c->siglip) {
        t->causal = false;
        t->pool = NM_TEXT_POOL_LAST;
        t->proj_bias = true;
        t->embed_dim = c->embed_dim = json_i(cfg, "projection_size", t->width);
        t->pad_id = json_i(cfg, "pad_token_id", 1);
    } else {
        /* 2 was written by mistake into early files: pool at the largest id then (transformers pull request 24777) */
        t->eos_id = json_i(cfg, "eos_token_id", 49407);
        t->pool = t->eos_id == 2 ? NM_TEXT_POOL_ARGMAX : NM_TEXT_POOL_EOS;
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
    fit_preprocess(m, forced);
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
    if (!text && strcmp(type, "clip_text_model") == 0)
        text = s->config;
    if (!vision && strcmp(type, "clip_vision_model") == 0)
        vision = s->config;
    c->scheme = NM_HF;
    c->embed_dim = json_i(s->config, "projection_dim", 512);
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
    set_image_size(m, s->options);
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

/* ---- writing: open_clip's form ---- */

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
    const json_t *hf = nm_json_get(m->config, "hf_text_config");
    if (out && hf)
        json_object_set_new(out, "hf_text_config", json_deep_copy(hf));
    return out;
}
