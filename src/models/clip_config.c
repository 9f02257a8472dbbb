/* clip_config.c - where CLIP's numbers come from: the shapes of OpenAI's tensors (here), open_clip's model_cfg (clip_openclip.c),
 * transformers' config.json (clip_hf.c). All three fill the same nm_clip_cfg, and nothing else asks for its origin. */
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
        if (c->rn.pool_queries && (c->rn.pool_queries < 2 || c->rn.pool_queries > 1 << 16 || c->rn.pool_heads < 1 || c->embed_dim % c->rn.pool_heads))
            return bad(err, name, "attentional pool queries (at least 2) or heads", c->rn.pool_heads);
        if (c->rn.pool_queries && (c->rn.pool_stage < 1 || c->rn.pool_stage > 4))
            return bad(err, name, "attentional pool stage", c->rn.pool_stage);
        if (c->rn.pool_queries)
            return NOEMA_OK;
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
        if (st == NOEMA_OK && (c->decoder.width != c->embed_dim || c->decoder.width != t->width))
            st = nm_fail(err, NOEMA_E_FORMAT, "%s: configuration: a caption decoder of width %d between text rows of %d and image tokens of %d (embed_dim)", name,
                         c->decoder.width, t->width, c->embed_dim);
    }
    return st;
}

/* ---- what every source ends with ---- */

void nm_cfg_image_size(nm_clip *m, const noema_model_options *o)
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
void nm_cfg_fit_preprocess(nm_clip *m, bool forced)
{
    nm_preprocess *p = &m->base.preprocess;
    if (!forced && p->size_h > 0)
        return;
    p->size_h = m->base.image_height;
    p->size_w = m->base.image_width;
    if (p->edge > 0)
        p->edge = p->size_h > p->size_w ? p->size_h : p->size_w;
}

nm_act nm_cfg_activation(const nm_source *s, nm_act configured)
{
    int forced = s->options ? s->options->activation : 0;
    return forced == 1 ? NM_ACT_QUICK_GELU : forced == 2 ? NM_ACT_GELU : configured;
}

/* ---- reading JSON ---- */

/* [h, w] or a number. */
void nm_cfg_pair(const json_t *o, const char *key, int dflt, int *h, int *w)
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

int nm_cfg_int(const json_t *o, const char *key, int dflt)
{
    int64_t v = nm_json_int(o, key, dflt);
    return v < -(1 << 28) || v > 1 << 28 ? -1 : (int)v;
}

/* ---- OpenAI: everything follows from the shapes (clip/model.py, build_model) ---- */

/* Published towers of open_clip whose heads are not 64 wide; the file does not say. */
int nm_cfg_heads(int64_t width)
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
    v->heads = nm_cfg_heads(width);
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

void nm_cfg_text_defaults(nm_text_cfg *t)
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
    nm_act act = nm_cfg_activation(s, NM_ACT_QUICK_GELU);
    c->has_image = c->has_text = true;
    c->scheme = NM_OPENCLIP;
    c->act = act;
    c->embed_dim = (int)nm_source_dim(s, "text_projection", 1);
    c->init_logit_scale = log(1 / 0.07);
    noema_status st = openai_image(c, s, act, err);
    nm_text_cfg *t = &c->text;
    nm_cfg_text_defaults(t);
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
    nm_cfg_image_size(m, s->options);
    st = nm_preprocess_named(&m->base.preprocess, "openai", m->base.image_height, m->base.image_width, err);
    m->base.tok = noema_tokenizer_options_default();
    m->base.tok.kind = openai ? NOEMA_TOKENIZER_OPENAI : NOEMA_TOKENIZER_OPEN_CLIP;
    m->base.tok.context_length = t->context_length;
    m->base.tok.vocab_size = t->vocab_size;
    return st;
}
