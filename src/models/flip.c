/* flip.c - FLIP, Fast Language-Image Pre-training (arXiv 2212.00794; facebookresearch/flip models_flip.py, t5x/layers.py).
 *
 *     pixels [n, 3, S, S] -> patches [n, g^2, W] + sin-cos positions -> (training: some of them) -> class token before them -> blocks
 *         -> encoder_norm of every token -> mean over all tokens, the class token included -> img_mlp1 [n, embed_dim]
 *     ids [n, 32] -> token table + positions -> blocks (every position sees every other, padding too) -> encoder_norm -> position 0
 *         -> txt_mlp1 [n, embed_dim]
 *
 * Easy to get wrong: tanh GELU, norms with eps 1e-6, the patch product has a bias, there is no norm before the blocks, a text always has
 * 32 positions filled with id 0, the table of positions has x before y, logit_scale is clipped to [0, ln 100] inside the graph.
 * The reference divides vectors by |v| + 1e-8, which in f32 is |v| for every |v| above 0.2. docs/models/flip.md is the page for readers. */
#include "models/flip.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "models/clip.h"

#define EPS 1e-6f
#define LN_100 4.605170185988092

/* ---- declaring: names and layouts of the published checkpoints ---- */

#define NAME(x) NM_NAMES(x)

/* flax's variance_scaling(1, fan_avg, uniform) is uniform within sqrt(6 / (in + out)); `gain` 0.5 for q, k, v. */
static void dense_params(nm_params *p, nm_linear_w *w, int64_t in, int64_t out, const char *module, float gain)
{
    char kernel[64], bias[64];
    snprintf(kernel, sizeof kernel, "T:%s.kernel", module);
    snprintf(bias, sizeof bias, "%s.bias", module);
    nm_param(p, &w->weight, NM_SHAPE(out, in), NAME(kernel), NM_UNIFORM(sqrtf(6 * gain / (float)(in + out))), NM_DECAY);
    nm_param(p, &w->bias, NM_SHAPE(out), NAME(bias), NM_ZEROS, NM_NO_DECAY);
}

static void norm_params(nm_params *p, nm_norm_w *w, int64_t width, const char *module)
{
    char scale[64], bias[64];
    snprintf(scale, sizeof scale, "%s.scale", module);
    snprintf(bias, sizeof bias, "%s.bias", module);
    nm_param(p, &w->weight, NM_SHAPE(width), NAME(scale), NM_ONES, NM_NO_DECAY);
    nm_param(p, &w->bias, NM_SHAPE(width), NAME(bias), NM_ZEROS, NM_NO_DECAY);
}

static void tower_params(nm_params *p, nm_flip_tower_w *w, const nm_flip_tower *c)
{
    size_t tower = nm_params_push(p, NAME("Transformer."), 0);
    for (int i = 0; i < c->layers; i++) {
        nm_flip_block_w *b = &w->block[i];
        size_t mark = nm_params_push(p, NAME(i < 10 ? "encoderblock_0%d." : "encoderblock_%d."), i);
        norm_params(p, &b->norm[0], c->width, "LayerNorm_0");
        dense_params(p, &b->query, c->width, c->width, "MultiHeadDotProductAttention_0.query", 0.5f);
        dense_params(p, &b->key, c->width, c->width, "MultiHeadDotProductAttention_0.key", 0.5f);
        dense_params(p, &b->value, c->width, c->width, "MultiHeadDotProductAttention_0.value", 0.5f);
        dense_params(p, &b->out, c->width, c->width, "MultiHeadDotProductAttention_0.out", 1);
        norm_params(p, &b->norm[1], c->width, "LayerNorm_1");
        dense_params(p, &b->dense[0], c->width, c->mlp, "MlpBlock_0.Dense_0", 1);
        dense_params(p, &b->dense[1], c->mlp, c->width, "MlpBlock_0.Dense_1", 1);
        nm_params_pop(p, mark);
    }
    norm_params(p, &w->norm, c->width, "encoder_norm");
    nm_params_pop(p, tower);
}

static void flip_params(nm_params *p, void *model)
{
    nm_flip *m = model;
    const nm_flip_cfg *c = &m->cfg;
    int64_t iw = c->image.width, tw = c->text.width, ps = c->patch, rows = m->positions_known ? 1 + (int64_t)c->grid * c->grid : -1;
    size_t mark = nm_params_push(p, NAME("img_encoder."), 0);
    nm_param(p, &m->embedding.weight, NM_SHAPE(iw, 3, ps, ps), NAME("HWIO:embedding.kernel"), NM_UNIFORM(sqrtf(6.0f / (float)(3 * ps * ps + iw))), NM_DECAY);
    nm_param(p, &m->embedding.bias, NM_SHAPE(iw), NAME("embedding.bias"), NM_ZEROS, NM_NO_DECAY);
    nm_param(p, &m->cls, NM_SHAPE(1, 1, iw), NAME("cls"), NM_NORMAL(0.02f), NM_DECAY | NM_AS_F32);
    nm_param(p, &m->image_positions, NM_SHAPE(1, rows, iw), NAME("posembed_encoder.pos_embedding"), NM_ZEROS, NM_BUFFER | NM_OPTIONAL | NM_AS_F32);
    tower_params(p, &m->image, &c->image);
    nm_params_pop(p, mark);
    mark = nm_params_push(p, NAME("txt_encoder."), 0);
    nm_param(p, &m->token_embedding, NM_SHAPE(c->vocab_size, tw), NAME("token_embedding.embedding"), NM_NORMAL(0.02f), NM_DECAY);
    nm_param(p, &m->text_positions, NM_SHAPE(1, c->context_length, tw), NAME("posembed_encoder.pos_embedding"), NM_NORMAL(0.02f), NM_NO_DECAY | NM_AS_F32);
    tower_params(p, &m->text, &c->text);
    nm_params_pop(p, mark);
    nm_param(p, &m->img_mlp1, NM_SHAPE(c->embed_dim, iw), NAME("T:img_mlp1.kernel"), NM_UNIFORM(sqrtf(6.0f / (float)(iw + c->embed_dim))), NM_DECAY);
    nm_param(p, &m->txt_mlp1, NM_SHAPE(c->embed_dim, tw), NAME("T:txt_mlp1.kernel"), NM_UNIFORM(sqrtf(6.0f / (float)(tw + c->embed_dim))), NM_DECAY);
    nm_param(p, &m->logit_scale, NM_SHAPE(1), NAME("logit_scale"), NM_CONST(2.6592600f), NM_DECAY);
}

/* ---- positions: row of patch (y, x) = [sin xw, cos xw, sin yw, cos yw], w_k = 10000^(-k / (width / 4)); the class token's row is 0 ---- */

bool nm_flip_positions(float *rows, int grid, int width)
{
    int quarter = width / 4;
    if (width % 4)
        return false;
    memset(rows, 0, (size_t)width * sizeof *rows);
    for (int y = 0; y < grid; y++)
        for (int x = 0; x < grid; x++)
            for (int k = 0; k < quarter; k++) {
                double w = pow(10000, -(double)k / quarter);
                float *row = rows + (size_t)(1 + y * grid + x) * (size_t)width + k;
                row[0] = (float)sin(x * w);
                row[quarter] = (float)cos(x * w);
                row[2 * quarter] = (float)sin(y * w);
                row[3 * quarter] = (float)cos(y * w);
            }
    return true;
}

/* A table of another grid than the picture's is made anew, as the reference does. */
static noema_status fix_positions(nm_flip *m, noema_error *err)
{
    const nm_flip_cfg *c = &m->cfg;
    int64_t rows = 1 + (int64_t)c->grid * c->grid;
    nm_weight *p = &m->image_positions;
    m->positions_known = true;
    if (nm_has(p) && p->shape.dim[0] == 1 && p->shape.dim[1] == rows && !m->drawn)
        return NOEMA_OK;
    float *v = nm_alloc((size_t)(rows * c->image.width) * sizeof *v);
    if (!v)
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory: positions");
    if (!nm_flip_positions(v, c->grid, c->image.width)) {
        nm_free(v);
        return nm_fail(err, NOEMA_E_FORMAT, "image width %d is no multiple of 4: no sin-cos positions", c->image.width);
    }
    nm_weight_set(p, v, NM_SHAPE(1, rows, c->image.width));
    return nm_weight_make_f32(p) ? NOEMA_OK : nm_fail(err, NOEMA_E_MEMORY, "out of memory: positions");
}

/* ---- configuration: sizes from the arrays; heads from an open_clip configuration or the published widths ---- */

static const struct { int width, heads; } image_heads[] = { { 768, 12 }, { 1024, 16 }, { 1280, 16 } }, /* B/16, L/16, H/14 */
                                         text_heads[] = { { 512, 8 }, { 768, 12 }, { 1024, 16 } };

static const json_t *tower_cfg(const nm_source *s, const char *key)
{
    const json_t *model = nm_json_get(s->config, "model_cfg");
    return nm_json_get(model ? model : s->config, key);
}

static noema_status read_heads(nm_flip_cfg *c, const nm_source *s, noema_error *err)
{
    const json_t *vision = tower_cfg(s, "vision_cfg"), *text = tower_cfg(s, "text_cfg");
    for (size_t i = 0; i < 3; i++) {
        if (image_heads[i].width == c->image.width)
            c->image.heads = image_heads[i].heads;
        if (text_heads[i].width == c->text.width)
            c->text.heads = text_heads[i].heads;
    }
    int head = nm_cfg_int(vision, "head_width", 64);
    if (vision)
        c->image.heads = head > 0 ? c->image.width / head : 0;
    if (text)
        c->text.heads = nm_cfg_int(text, "heads", 8);
    if ((vision || text) && (nm_cfg_int(vision, "width", c->image.width) != c->image.width || nm_cfg_int(text, "width", c->text.width) != c->text.width))
        return nm_fail(err, NOEMA_E_MISMATCH, "%s: the configuration's widths are %d and %d, the arrays' %d and %d", s->name,
                       nm_cfg_int(vision, "width", 0), nm_cfg_int(text, "width", 0), c->image.width, c->text.width);
    if (c->image.heads < 1 || c->text.heads < 1)
        return nm_fail(err, NOEMA_E_MISSING, "%s: widths %d and %d are those of no published FLIP and do not tell the number of heads: give open_clip's "
                       "configuration (vision_cfg.head_width, text_cfg.heads) with --config", s->name, c->image.width, c->text.width);
    return NOEMA_OK;
}

static noema_status check_tower(const nm_flip_tower *t, const char *name, const char *tower, noema_error *err)
{
    if (t->width < 4 || t->width > 1 << 16 || t->layers < 1 || t->layers > 100 || t->mlp < 1 || t->mlp > 1 << 18 || t->heads < 1 || t->width % t->heads)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: %s tower of width %d, %d layers, %d heads, mlp width %d", name, tower, t->width, t->layers, t->heads, t->mlp);
    return NOEMA_OK;
}

static noema_status check(const nm_flip_cfg *c, const char *name, noema_error *err)
{
    noema_status st = check_tower(&c->image, name, "image", err);
    if (st == NOEMA_OK)
        st = check_tower(&c->text, name, "text", err);
    if (st == NOEMA_OK && (c->patch < 1 || c->patch > 512 || c->grid < 1 || c->grid > 1024 || c->grid * c->patch > 8192 || c->embed_dim < 1 ||
                           c->embed_dim > 1 << 16 || c->vocab_size < 1 || c->vocab_size > 1 << 24 || c->context_length < 1 || c->context_length > 1 << 16))
        st = nm_fail(err, NOEMA_E_FORMAT, "%s: patch %d, grid %d, embedding %d, vocabulary %d, context %d", name, c->patch, c->grid, c->embed_dim,
                     c->vocab_size, c->context_length);
    return st;
}

static int count_blocks(const nm_source *s, const char *tower)
{
    char name[128];
    int n = 0;
    for (; n < 100; n++) {
        snprintf(name, sizeof name, "%s.Transformer.encoderblock_%02d.LayerNorm_0.scale", tower, n);
        if (!nm_source_has(s, name))
            break;
    }
    return n;
}

static int dim(const nm_source *s, const char *name, int d)
{
    int64_t v = nm_source_dim(s, name, d);
    return v > 1 << 28 ? -1 : (int)v;
}

static noema_status config_arrays(nm_flip *m, const nm_source *s, noema_error *err)
{
    nm_flip_cfg *c = &m->cfg;
    const noema_model_options *o = s->options;
    c->patch = dim(s, "img_encoder.embedding.kernel", 0);
    c->image = (nm_flip_tower){ .width = dim(s, "img_encoder.embedding.kernel", 3), .layers = count_blocks(s, "img_encoder"),
                                .mlp = dim(s, "img_encoder.Transformer.encoderblock_00.MlpBlock_0.Dense_0.kernel", 1) };
    c->text = (nm_flip_tower){ .width = dim(s, "txt_encoder.token_embedding.embedding", 1), .layers = count_blocks(s, "txt_encoder"),
                               .mlp = dim(s, "txt_encoder.Transformer.encoderblock_00.MlpBlock_0.Dense_0.kernel", 1) };
    c->vocab_size = dim(s, "txt_encoder.token_embedding.embedding", 0);
    c->context_length = dim(s, "txt_encoder.posembed_encoder.pos_embedding", 1);
    c->embed_dim = dim(s, "img_mlp1.kernel", 1);
    int rows = dim(s, "img_encoder.posembed_encoder.pos_embedding", 1), side = (int)lround(sqrt(rows > 1 ? rows - 1 : 0));
    if (c->patch < 1)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: img_encoder.embedding.kernel has no patch size", s->name);
    c->grid = rows > 0 ? side : 224 / c->patch;
    if (rows > 0 && 1 + side * side != rows)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: %d image positions are no class token and square grid", s->name, rows);
    if (o && o->image_height > 0) {
        if (o->image_height % c->patch || (o->image_width > 0 && o->image_width != o->image_height))
            return nm_fail(err, NOEMA_E_ARGUMENT, "%s: FLIP takes square pictures, a multiple of its patch %d", s->name, c->patch);
        c->grid = o->image_height / c->patch;
    }
    noema_status st = read_heads(c, s, err);
    return st == NOEMA_OK ? check(c, s->name, err) : st;
}

/* open_clip's keys, for drawn weights. */
static noema_status config_json(nm_flip *m, const nm_source *s, noema_error *err)
{
    nm_flip_cfg *c = &m->cfg;
    const json_t *vision = tower_cfg(s, "vision_cfg"), *text = tower_cfg(s, "text_cfg"), *model = nm_json_get(s->config, "model_cfg");
    int head = nm_cfg_int(vision, "head_width", 64), size = nm_cfg_int(vision, "image_size", 224);
    c->patch = nm_cfg_int(vision, "patch_size", 16);
    c->grid = c->patch > 0 ? size / c->patch : 0;
    c->image = (nm_flip_tower){ .width = nm_cfg_int(vision, "width", 768), .layers = nm_cfg_int(vision, "layers", 12) };
    c->image.heads = head > 0 ? c->image.width / head : 0;
    c->text = (nm_flip_tower){ .width = nm_cfg_int(text, "width", 512), .layers = nm_cfg_int(text, "layers", 12), .heads = nm_cfg_int(text, "heads", 8) };
    c->image.mlp = 4 * c->image.width;
    c->text.mlp = 4 * c->text.width;
    c->vocab_size = nm_cfg_int(text, "vocab_size", 30523);
    c->context_length = nm_cfg_int(text, "context_length", 32);
    c->embed_dim = nm_cfg_int(model ? model : s->config, "embed_dim", 512);
    return check(c, s->name, err);
}

static json_t *flip_config(const nm_model *base)
{
    const nm_flip_cfg *c = &((const nm_flip *)base)->cfg;
    return json_pack("{s:{s:s,s:i,s:{s:i,s:i,s:i,s:i,s:i},s:{s:i,s:i,s:i,s:i,s:i}}}", "model_cfg", "model_type", "flip", "embed_dim", c->embed_dim,
                     "vision_cfg", "image_size", c->grid * c->patch, "patch_size", c->patch, "width", c->image.width, "layers", c->image.layers, "head_width",
                     c->image.width / c->image.heads, "text_cfg", "context_length", c->context_length, "vocab_size", c->vocab_size, "width", c->text.width,
                     "heads", c->text.heads, "layers", c->text.layers);
}

/* ---- opening ---- */

static void flip_free(nm_model *base)
{
    nm_flip *m = (nm_flip *)base;
    if (m->image.block && m->text.block)
        nm_params_free(flip_params, m);
    free(m->image.block);
    free(m->text.block);
    free(m->base.tok_path);
    nm_buf_free(&m->base.report.text);
    free(m);
}

static bool alloc_blocks(nm_flip *m)
{
    m->image.block = calloc((size_t)m->cfg.image.layers, sizeof *m->image.block);
    m->text.block = calloc((size_t)m->cfg.text.layers, sizeof *m->text.block);
    return m->image.block && m->text.block;
}

/* The reference's word list beside the checkpoint. */
static char *find_words(const char *dir)
{
    static const char *const names[] = { "vocab_bert_base.txt", "vocab.txt" };
    for (size_t i = 0; dir && i < sizeof names / sizeof *names; i++) {
        char *path = nm_path_join(dir, names[i]);
        if (path && nm_file_exists(path))
            return path;
        free(path);
    }
    return NULL;
}

static noema_status ready(nm_flip *m, const nm_source *s, noema_error *err)
{
    const nm_flip_cfg *c = &m->cfg;
    nm_model *b = &m->base;
    int size = c->grid * c->patch;
    noema_status st = fix_positions(m, err);
    double scale = nm_has(&m->logit_scale) ? (double)m->logit_scale.f32[0] : 0;
    b->embed_dim = c->embed_dim;
    b->context_length = c->context_length;
    b->image_height = b->image_width = size;
    b->image_tokens = c->grid * c->grid + 1;
    b->has_image = b->has_text = true;
    b->scale_clipped = true;
    b->patches = c->grid * c->grid;
    b->text_positions = c->context_length;
    b->patch_dropout = nm_json_num(tower_cfg(s, "vision_cfg"), "patch_dropout", 0);
    b->logit_scale = exp(scale < 0 ? 0 : scale > LN_100 ? LN_100 : scale);
    b->tok = noema_tokenizer_options_default();
    b->tok.kind = NOEMA_TOKENIZER_FLIP;
    b->tok.context_length = c->context_length;
    b->tok_path = find_words(s->dir);
    return st == NOEMA_OK ? nm_preprocess_named(&b->preprocess, "flip", size, size, err) : st;
}

static noema_status make(nm_model **out, const nm_source *s, bool drawn, uint64_t seed, noema_error *err)
{
    nm_flip *m = calloc(1, sizeof *m);
    if (!m)
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory: %s", s->name);
    m->base.family = &nm_family_flip;
    m->drawn = m->positions_known = drawn;
    noema_status st = drawn ? config_json(m, s, err) : config_arrays(m, s, err);
    if (st == NOEMA_OK && !alloc_blocks(m))
        st = nm_fail(err, NOEMA_E_MEMORY, "out of memory: %s", s->name);
    if (st == NOEMA_OK)
        st = drawn ? nm_params_init(flip_params, m, seed, err) : nm_params_load(flip_params, m, 0, s->file, "", NULL, &m->base.report, err);
    if (st == NOEMA_OK)
        st = ready(m, s, err);
    if (st != NOEMA_OK) {
        flip_free(&m->base);
        return st;
    }
    *out = &m->base;
    return NOEMA_OK;
}

static noema_status flip_open(nm_model **out, const nm_source *s, noema_error *err) { return make(out, s, false, 0, err); }

static noema_status flip_create(nm_model **out, const char *arch, const json_t *config, uint64_t seed, noema_error *err)
{
    nm_source s = { .name = arch ? arch : "new model", .dir = ".", .config = config };
    return make(out, &s, true, seed, err);
}

static int flip_probe(const nm_source *s)
{
    return nm_source_has(s, "img_encoder.embedding.kernel") && nm_source_has(s, "txt_encoder.token_embedding.embedding") ? 90 : 0;
}

/* ---- forward; observers see the reference's module paths ---- */

static nm_tensor attention(nm_run *r, nm_tensor x, const nm_flip_block_w *w, const nm_flip_tower *c)
{
    nm_tensor q = nm_linear(r, x, &w->query, (nm_epilogue){ 0 }), k = nm_linear(r, x, &w->key, (nm_epilogue){ 0 });
    return nm_attention(r, q, k, nm_linear(r, x, &w->value, (nm_epilogue){ 0 }), c->heads, NULL);
}

/* x + f(a); with an observer the sum is split so that f's own result can be shown (same bits: the residual is added last). */
static nm_tensor add_branch(nm_run *r, nm_tensor x, nm_tensor a, const nm_linear_w *w, const char *module, int i)
{
    if (r->observe)
        nm_observe(r, nm_linear(r, a, w, (nm_epilogue){ .f32 = true }), "encoderblock_%02d.%s", i, module);
    return nm_linear(r, a, w, (nm_epilogue){ .residual = &x, .inplace = !r->tape });
}

static nm_tensor block(nm_run *r, nm_tensor x, const nm_flip_block_w *w, const nm_flip_tower *c, int i)
{
    nm_arena_mark mark = nm_mark(r);
    nm_tensor h = nm_layernorm(r, x, &w->norm[0], EPS);
    nm_observe(r, h, "encoderblock_%02d.LayerNorm_0", i);
    x = add_branch(r, x, attention(r, h, w, c), &w->out, "MultiHeadDotProductAttention_0", i);
    h = nm_linear(r, nm_layernorm(r, x, &w->norm[1], EPS), &w->dense[0], (nm_epilogue){ .act = NM_ACT_GELU_TANH });
    x = add_branch(r, x, h, &w->dense[1], "MlpBlock_0", i);
    nm_reset(r, mark); /* x lies before the mark: it was written in place */
    nm_observe(r, x, "encoderblock_%02d", i);
    return x;
}

static nm_tensor blocks(nm_run *r, nm_tensor x, const nm_flip_tower_w *w, const nm_flip_tower *c)
{
    nm_observe_mark old = nm_observe_enter(r, "Transformer.");
    for (int i = 0; i < c->layers; i++)
        x = block(r, x, &w->block[i], c, i);
    if (r->observe)
        nm_observe(r, nm_layernorm_f32(r, x, &w->norm, EPS), "encoder_norm");
    nm_observe_leave(r, old);
    return x;
}

static nm_tensor observe_patches(nm_run *r, nm_tensor x, const nm_flip *m)
{
    int64_t n = x.shape[0], g = m->cfg.grid, width = m->cfg.image.width;
    if (r->observe && nm_numel(&x) == n * g * g * width)
        nm_observe(r, nm_reshape(x, NM_SHAPE(n, g, g, width)), "embedding");
    return x;
}

static nm_tensor encode_features(nm_run *r, const nm_model *base, nm_tensor pixels)
{
    const nm_flip *m = (const nm_flip *)base;
    nm_observe_mark old = nm_observe_enter(r, "img_encoder.");
    nm_tensor x = nm_patch_embed_kept(r, pixels, &m->embedding, r->keep);
    if (x.data)
        x = nm_add_positions_kept(r, observe_patches(r, x, m), &m->cls, &m->image_positions, r->keep); /* [n, 1 + patches, width] */
    if (r->observe && x.data)
        nm_observe(r, nm_drop_first(r, x), "posembed_encoder");
    x = nm_layernorm_f32(r, blocks(r, x, &m->image, &m->cfg.image), &m->image.norm, EPS);
    nm_observe_leave(r, old);
    return nm_mean_tokens(r, x, 0);
}

static nm_tensor encode_image(nm_run *r, const nm_model *base, nm_tensor pixels)
{
    const nm_flip *m = (const nm_flip *)base;
    nm_tensor x = nm_matmul_w(r, encode_features(r, base, pixels), &m->img_mlp1, (nm_epilogue){ .f32 = true });
    nm_observe(r, x, "img_mlp1");
    return x;
}

static int feature_dim(const nm_model *base) { return ((const nm_flip *)base)->cfg.image.width; }

/* Ids [n, context], short texts filled with 0; NULL with r->err set. */
static int32_t *padded(nm_run *r, const nm_texts *t, int64_t context)
{
    int32_t *ids = nm_scratch(r, (size_t)(t->n * context) * sizeof *ids);
    for (int64_t i = 0; ids && i < t->n; i++) {
        int64_t n = t->offsets[i + 1] - t->offsets[i];
        if (n > context) {
            nm_run_fail(r, NOEMA_E_ARGUMENT, "text %lld has %lld tokens, the model takes %lld", (long long)i, (long long)n, (long long)context);
            return NULL;
        }
        memset(ids + i * context, 0, (size_t)context * sizeof *ids);
        memcpy(ids + i * context, t->ids + t->offsets[i], (size_t)n * sizeof *ids);
    }
    return ids;
}

/* [n, context, width] -> [n, n_keep, width] */
static nm_tensor kept_tokens(nm_run *r, nm_tensor x, const nm_texts *t)
{
    int64_t *rows = x.data ? nm_scratch(r, (size_t)(t->n * t->n_keep) * sizeof *rows) : NULL;
    if (!rows)
        return (nm_tensor){ 0 };
    for (int64_t i = 0; i < t->n * t->n_keep; i++)
        rows[i] = i / t->n_keep * x.shape[1] + t->keep[i];
    return nm_reshape(nm_gather_rows(r, nm_flatten(x, 2), rows, t->n * t->n_keep), NM_SHAPE(t->n, t->n_keep, x.shape[2]));
}

static nm_tensor encode_text(nm_run *r, const nm_model *base, const nm_texts *texts)
{
    const nm_flip *m = (const nm_flip *)base;
    int64_t n = texts->n, context = m->cfg.context_length, width = m->cfg.text.width;
    int32_t *ids = nm_run_ok(r) ? padded(r, texts, context) : NULL;
    if (!ids)
        return (nm_tensor){ 0 };
    nm_observe_mark old = nm_observe_enter(r, "txt_encoder.");
    nm_tensor x = nm_reshape(nm_embedding(r, ids, n * context, &m->token_embedding, NULL, NULL), NM_SHAPE(n, context, width));
    nm_observe(r, x, "token_embedding");
    x = nm_add_positions(r, x, NULL, &m->text_positions);
    nm_observe(r, x, "posembed_encoder");
    if (texts->n_keep && texts->n_keep < context) {
        x = kept_tokens(r, x, texts);
        context = texts->n_keep;
    }
    x = blocks(r, x, &m->text, &m->cfg.text);
    nm_observe_leave(r, old);
    if (x.data) /* LayerNorm is per row: the others need none */
        x = nm_gather_rows(r, nm_flatten(x, 2), nm_every_row(r, n, context, 0), n);
    x = nm_matmul_w(r, nm_layernorm(r, x, &m->text.norm, EPS), &m->txt_mlp1, (nm_epilogue){ .f32 = true });
    nm_observe(r, x, "txt_mlp1");
    return x;
}

const nm_family nm_family_flip = { .name = "flip", .probe = flip_probe, .open = flip_open, .create = flip_create, .encode_image = encode_image,
                                   .encode_features = encode_features, .feature_dim = feature_dim, .encode_text = encode_text, .declare = flip_params,
                                   .config = flip_config, .free = flip_free };
