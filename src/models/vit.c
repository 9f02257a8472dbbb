/* vit.c - see vit.h. Sources: openai/CLIP clip/model.py (VisionTransformer), open_clip transformer.py, timm
 * vision_transformer.py and attention_pool.py, transformers modeling_clip.py and modeling_siglip.py.
 *
 * Easy to get wrong: proj is applied as x·proj (stored [width, embed_dim]); ln_post comes before the mean unless
 * final_ln_after_pool; timm's kv has the k rows first; SigLIP's head adds its MLP to the attention's output, not to the norm. */
#include "models/vit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

nm_block_cfg nm_vit_block_cfg(const nm_vit_cfg *c)
{
    return (nm_block_cfg){ .width = c->width, .heads = c->heads, .mlp = c->mlp, .act = c->act, .eps = c->eps, .layer_scale = c->layer_scale };
}

bool nm_vit_alloc(nm_vit_w *w, const nm_vit_cfg *c)
{
    w->blocks = calloc((size_t)c->layers + 1, sizeof *w->blocks);
    return w->blocks != NULL;
}

static void linear_free(nm_linear_w *w)
{
    nm_weight_free(&w->weight);
    nm_weight_free(&w->bias);
}

void nm_vit_free(nm_vit_w *w, const nm_vit_cfg *c)
{
    for (int i = 0; w->blocks && i < c->layers; i++)
        nm_block_free(&w->blocks[i]);
    linear_free(&w->map.q), linear_free(&w->map.kv);
    nm_attn_pool_free(&w->attn_pool);
    nm_attn_pool_free(&w->attn_pool_contrastive);
    free(w->blocks);
    w->blocks = NULL;
}

/* ---- declaring ---- */

static void map_params(nm_params *p, nm_map_pool_w *w, const nm_vit_cfg *c)
{
    int64_t width = c->width;
    float xavier = sqrtf(6.0f / (4.0f * (float)width)), std = 1 / sqrtf((float)width);
    nm_param(p, &w->latent, NM_SHAPE(1, 1, width), NM_NAMES("attn_pool.latent", "head.probe", "attn_pool.latent"), NM_NORMAL(std),
             NM_NO_DECAY | NM_AS_F32);
    nm_param(p, &w->qkv.weight, NM_SHAPE(3 * width, width), NM_NAMES(NULL, "head.attention.in_proj_weight"), NM_UNIFORM(xavier), NM_DECAY);
    nm_param(p, &w->qkv.bias, NM_SHAPE(3 * width), NM_NAMES(NULL, "head.attention.in_proj_bias"), NM_ZEROS, NM_NO_DECAY);
    nm_linear_params(p, &w->q, width, width, NM_NAMES("attn_pool.q.weight", NULL, "attn_pool.q.weight"),
                     NM_NAMES("attn_pool.q.bias", NULL, "attn_pool.q.bias"), std, 0);
    nm_linear_params(p, &w->kv, 2 * width, width, NM_NAMES("attn_pool.kv.weight", NULL, "attn_pool.kv.weight"),
                     NM_NAMES("attn_pool.kv.bias", NULL, "attn_pool.kv.bias"), std, 0);
    nm_linear_params(p, &w->proj, width, width, NM_NAMES("attn_pool.proj.weight", "head.attention.out_proj.weight", "attn_pool.proj.weight"),
                     NM_NAMES("attn_pool.proj.bias", "head.attention.out_proj.bias", "attn_pool.proj.bias"), std, 0);
    nm_norm_params(p, &w->norm, width, NM_NAMES("attn_pool.norm.weight", "head.layernorm.weight", "attn_pool.norm.weight"),
                   NM_NAMES("attn_pool.norm.bias", "head.layernorm.bias", "attn_pool.norm.bias"));
    nm_linear_params(p, &w->fc1, c->map_mlp, width, NM_NAMES("attn_pool.mlp.fc1.weight", "head.mlp.fc1.weight", "attn_pool.mlp.fc1.weight"),
                     NM_NAMES("attn_pool.mlp.fc1.bias", "head.mlp.fc1.bias", "attn_pool.mlp.fc1.bias"), std, 0);
    nm_linear_params(p, &w->fc2, width, c->map_mlp, NM_NAMES("attn_pool.mlp.fc2.weight", "head.mlp.fc2.weight", "attn_pool.mlp.fc2.weight"),
                     NM_NAMES("attn_pool.mlp.fc2.bias", "head.mlp.fc2.bias", "attn_pool.mlp.fc2.bias"), std, 0);
}

static void trunk_params(nm_params *p, nm_vit_w *w, const nm_vit_cfg *c)
{
    int64_t width = c->width, extra = nm_vit_extra(c);
    int64_t grid = (int64_t)(c->image_height / c->patch_height) * (c->image_width / c->patch_width);
    float std = 1 / sqrtf((float)width), bound = 1 / sqrtf(3.0f * (float)c->patch_height * (float)c->patch_width);
    if (c->class_token)
        nm_param(p, &w->class_embedding, c->timm ? NM_SHAPE(1, 1, width) : NM_SHAPE(width),
                 NM_NAMES("class_embedding", "embeddings.class_embedding", "cls_token"), NM_NORMAL(std), NM_NO_DECAY | NM_AS_F32);
    /* rows: as in the file when loading (another grid is resized afterwards) */
    int64_t rows = c->from_file ? -1 : extra + grid;
    nm_param(p, &w->positional_embedding, c->timm ? NM_SHAPE(1, rows, width) : NM_SHAPE(rows, width),
             NM_NAMES("positional_embedding", "embeddings.position_embedding.weight", "pos_embed"), NM_NORMAL(std), NM_NO_DECAY | NM_AS_F32);
    nm_param(p, &w->conv1.weight, NM_SHAPE(width, 3, c->patch_height, c->patch_width),
             NM_NAMES("conv1.weight", "embeddings.patch_embedding.weight", "patch_embed.proj.weight"), NM_UNIFORM(bound), NM_DECAY);
    if (c->patch_bias)
        nm_param(p, &w->conv1.bias, NM_SHAPE(width), NM_NAMES("conv1.bias", "embeddings.patch_embedding.bias", "patch_embed.proj.bias"),
                 NM_UNIFORM(bound), NM_NO_DECAY);
    if (c->ln_pre)
        nm_norm_params(p, &w->ln_pre, width, NM_NAMES("ln_pre.weight", "pre_layrnorm.weight", "norm_pre.weight"),
                       NM_NAMES("ln_pre.bias", "pre_layrnorm.bias", "norm_pre.bias"));
    nm_block_cfg bc = nm_vit_block_cfg(c);
    for (int i = 0; i < c->layers; i++) {
        size_t mark = nm_params_push(p, NM_NAMES("transformer.resblocks.%d.", "encoder.layers.%d.", "blocks.%d."), i);
        nm_block_params(p, &w->blocks[i], &bc);
        nm_params_pop(p, mark);
    }
    if (c->pool_queries > 0)
        nm_attn_pool_params(p, &w->attn_pool, "attn_pool.", c->pool_queries, c->embed_dim, width);
    if (c->pool_queries > 0 && c->pool_kind != NM_VIT_SINGLE)
        nm_attn_pool_params(p, &w->attn_pool_contrastive, "attn_pool_contrastive.", 1, c->embed_dim, width);
    if (c->ln_post)
        nm_norm_params(p, &w->ln_post, c->pool_queries > 0 ? c->embed_dim : width, NM_NAMES("ln_post.weight", "post_layernorm.weight", "norm.weight"),
                       NM_NAMES("ln_post.bias", "post_layernorm.bias", "norm.bias"));
    if (c->pool == NM_VIT_POOL_MAP)
        map_params(p, &w->map, c);
}

void nm_vit_params(nm_params *p, nm_vit_w *w, const nm_vit_cfg *c)
{
    int scheme = p->scheme;
    if (c->timm && scheme == NM_OPENCLIP)
        p->scheme = NM_TIMM;
    size_t mark = nm_params_push(p, NM_NAMES("", "vision_model.", "trunk."), 0);
    trunk_params(p, w, c);
    nm_params_pop(p, mark);
    int64_t pooled = c->pool_queries > 0 ? c->embed_dim : c->width;
    if (c->proj)
        nm_param(p, &w->proj, NM_SHAPE(c->embed_dim, pooled), NM_NAMES("T:proj", "visual_projection.weight", "T:proj"),
                 NM_NORMAL(1 / sqrtf((float)c->width)), NM_DECAY);
    if (c->head_proj)
        nm_param(p, &w->head_proj.weight, NM_SHAPE(c->embed_dim, c->width), NM_NAMES("head.proj.weight", NULL, "head.proj.weight"),
                 NM_UNIFORM(1 / sqrtf((float)c->width)), NM_DECAY);
    if (c->head_proj_bias)
        nm_param(p, &w->head_proj.bias, NM_SHAPE(c->embed_dim), NM_NAMES("head.proj.bias", NULL, "head.proj.bias"), NM_ZEROS, NM_NO_DECAY);
    p->scheme = scheme;
}

/* ---- after loading ---- */

/* transformers' fused head becomes timm's q and kv, so that there is one forward and one saved form. */
static bool map_ready(nm_map_pool_w *w, int64_t width)
{
    if (!nm_has(&w->qkv.weight))
        return true;
    bool ok = nm_weight_row_view(&w->q.weight, &w->qkv.weight, 0, width) && nm_weight_row_view(&w->q.bias, &w->qkv.bias, 0, width) &&
              nm_weight_row_view(&w->kv.weight, &w->qkv.weight, width, 3 * width) &&
              nm_weight_row_view(&w->kv.bias, &w->qkv.bias, width, 3 * width);
    nm_weight_free(&w->qkv.weight);
    nm_weight_free(&w->qkv.bias);
    w->qkv = (nm_linear_w){ 0 };
    return ok;
}

static noema_status resize_positions(nm_vit_w *w, const nm_vit_cfg *c, noema_error *err)
{
    nm_weight *p = &w->positional_embedding;
    int64_t extra = nm_vit_extra(c), gh = c->image_height / c->patch_height, gw = c->image_width / c->patch_width;
    int64_t have = nm_shape_numel(p->shape) / c->width - extra, side = llround(sqrt((double)(have > 0 ? have : 0)));
    if (have == gh * gw)
        return NOEMA_OK;
    if (have <= 0 || side * side != have)
        return nm_fail(err, NOEMA_E_MISMATCH, "positional_embedding: %lld rows are no square grid with %lld extra rows, and the picture has %lldx%lld patches",
                       (long long)(have + extra), (long long)extra, (long long)gh, (long long)gw);
    float *rows = nm_alloc((size_t)((extra + gh * gw) * c->width) * sizeof *rows);
    if (!rows || !nm_resize_positions(p->f32, extra, side, side, rows, gh, gw, c->width, c->resize)) {
        nm_free(rows);
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory: resizing the position table");
    }
    nm_weight_set(p, rows, c->timm ? NM_SHAPE(1, extra + gh * gw, c->width) : NM_SHAPE(extra + gh * gw, c->width));
    return nm_weight_make_f32(p) ? NOEMA_OK : nm_fail(err, NOEMA_E_MEMORY, "out of memory: position table");
}

noema_status nm_vit_ready(nm_vit_w *w, const nm_vit_cfg *c, noema_error *err)
{
    bool ok = c->pool != NM_VIT_POOL_MAP || map_ready(&w->map, c->width);
    if (c->pool_queries > 0)
        ok = ok && nm_attn_pool_ready(&w->attn_pool, c->embed_dim);
    if (c->pool_queries > 0 && c->pool_kind != NM_VIT_SINGLE)
        ok = ok && nm_attn_pool_ready(&w->attn_pool_contrastive, c->embed_dim);
    if (!ok)
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory: image tower");
    return resize_positions(w, c, err);
}

/* ---- forward ---- */

/* f32 [n, extra + grid, width], ready for the blocks. */
static nm_tensor embeddings(nm_run *r, const nm_vit_w *w, const nm_vit_cfg *c, nm_tensor pixels)
{
    bool hf = c->observed == NM_VIEW_HF;
    nm_tensor x = nm_patch_embed_kept(r, pixels, &w->conv1, r->keep); /* [n, grid or kept, width] */
    if (!c->class_token)
        nm_observe(r, x, "patch_embed");
    x = nm_add_positions_kept(r, x, &w->class_embedding, &w->positional_embedding, r->keep); /* [n, extra + grid, width] */
    if (!hf)
        nm_observe(r, x, "embeddings");
    if (c->ln_pre) {
        x = nm_layernorm_f32(r, x, &w->ln_pre, c->eps);
        if (!hf)
            nm_observe(r, x, "ln_pre");
    }
    if (hf)
        nm_observe(r, x, "hidden_states.0");
    return x;
}

/* out = a + mlp(norm(a)), a = proj(attention(q(latent), kv(x))); x r->act [n, tokens, width] -> f32 [n, width] */
static nm_tensor map_pool(nm_run *r, const nm_map_pool_w *w, const nm_vit_cfg *c, nm_tensor x)
{
    nm_tensor q = nm_linear(r, nm_query_rows(r, &w->latent, 1), &w->q, (nm_epilogue){ .f32 = true });
    nm_tensor kv = nm_linear(r, x, &w->kv, (nm_epilogue){ 0 }), a = { 0 };
    if (kv.data)
        a = nm_pool_attention(r, q, nm_cols(kv, 0, c->width), nm_cols(kv, c->width, 2 * c->width), c->heads);
    a = nm_linear(r, nm_flatten(a, 2), &w->proj, (nm_epilogue){ .f32 = true }); /* [n, width] */
    nm_tensor h = nm_linear(r, nm_layernorm(r, a, &w->norm, c->eps), &w->fc1, (nm_epilogue){ .act = c->act });
    nm_tensor y = nm_linear(r, h, &w->fc2, (nm_epilogue){ .residual = &a });
    nm_observe(r, y, "attn_pool");
    return y;
}

/* CoCa. `*pooled` f32 [n, embed_dim]; returns the tokens for the decoder. */
static nm_tensor coca_pool(nm_run *r, const nm_vit_w *w, const nm_vit_cfg *c, nm_tensor x, nm_tensor *pooled)
{
    if (c->pool_kind == NM_VIT_SINGLE)
        return nm_attn_pool_single(r, &w->attn_pool, &w->ln_post, c->pool_heads, c->eps, c->pool == NM_VIT_POOL_AVG, x, pooled);
    x = nm_layernorm_f32(r, x, &w->ln_post, c->eps);
    nm_tensor tokens = nm_attn_pool(r, &w->attn_pool, c->pool_heads, x);
    *pooled = nm_flatten(nm_attn_pool(r, &w->attn_pool_contrastive, c->pool_heads, c->pool_kind == NM_VIT_CASCADE ? tokens : x), 2);
    return tokens;
}

/* x f32 [n, tokens, width] -> pooled, before the projection. r->act or f32 [n, width]. */
static nm_tensor pool(nm_run *r, const nm_vit_w *w, const nm_vit_cfg *c, nm_tensor x, nm_tensor *tokens)
{
    if (!x.data)
        return x;
    if (c->pool_queries > 0) {
        nm_tensor pooled, t = coca_pool(r, w, c, x, &pooled);
        nm_observe_above(r, t, "image_embs");
        if (tokens)
            *tokens = t;
        return pooled;
    }
    if (c->pool == NM_VIT_POOL_MAP) {
        nm_tensor h = nm_layernorm(r, x, &w->ln_post, c->eps);
        nm_observe(r, h, "norm");
        return map_pool(r, &w->map, c, h);
    }
    if (tokens) {
        nm_tensor h = nm_layernorm_f32(r, x, &w->ln_post, c->eps);
        *tokens = c->class_token ? nm_drop_first(r, h) : h;
    }
    if (c->pool == NM_VIT_POOL_AVG && !c->final_ln_after_pool) {
        x = nm_layernorm_f32(r, x, &w->ln_post, c->eps);
        nm_observe(r, x, "ln_post");
        return nm_mean_tokens(r, x, nm_vit_extra(c));
    }
    /* LayerNorm is per row: normalising the pooled row alone equals normalising all tokens first */
    x = c->pool == NM_VIT_POOL_AVG ? nm_mean_tokens(r, x, nm_vit_extra(c)) : nm_first_token(r, x);
    return c->ln_post ? nm_layernorm(r, x, &w->ln_post, c->eps) : x;
}

static nm_tensor project(nm_run *r, const nm_vit_w *w, const nm_vit_cfg *c, nm_tensor x)
{
    if (c->proj)
        return nm_matmul_w(r, x, &w->proj, (nm_epilogue){ .f32 = true });
    if (c->head_proj)
        return nm_linear(r, x, &w->head_proj, (nm_epilogue){ .f32 = true });
    return x.dtype == NM_F32 ? x : nm_cast(r, x, NM_F32);
}

/* Everything but the projection; r->act or f32 [n, nm_vit_feature_dim]. */
static nm_tensor pooled(nm_run *r, const nm_vit_w *w, const nm_vit_cfg *c, nm_tensor pixels, nm_tensor *tokens)
{
    bool hf = c->observed == NM_VIEW_HF;
    nm_tensor x = embeddings(r, w, c, pixels);
    nm_block_cfg bc = nm_vit_block_cfg(c);
    for (int i = 0; i < c->layers; i++) {
        x = nm_block_forward(r, x, &w->blocks[i], &bc, NULL, hf ? -1 : i);
        if (hf)
            nm_observe(r, x, "hidden_states.%d", i + 1);
    }
    if (r->observe && c->observed == NM_VIEW_OPENCLIP && c->pool == NM_VIT_POOL_TOK && !c->pool_queries)
        nm_observe(r, nm_layernorm_f32(r, x, &w->ln_post, c->eps), "ln_post"); /* open_clip normalises every token */
    x = pool(r, w, c, x, tokens);
    if (c->observed == NM_VIEW_OPENAI)
        nm_observe(r, x, "ln_post");
    if (hf)
        nm_observe(r, x, "pooler_output");
    return x;
}

nm_tensor nm_vit_forward(nm_run *r, const nm_vit_w *w, const nm_vit_cfg *c, nm_tensor pixels, nm_tensor *tokens)
{
    return project(r, w, c, pooled(r, w, c, pixels, tokens));
}

nm_tensor nm_vit_features(nm_run *r, const nm_vit_w *w, const nm_vit_cfg *c, nm_tensor pixels)
{
    nm_tensor x = pooled(r, w, c, pixels, NULL);
    return !x.data || x.dtype == NM_F32 ? x : nm_cast(r, x, NM_F32);
}

/* The last block with its attention replaced by the value path: x + out(v(ln_1(x))), then the MLP. */
static nm_tensor maskclip_block(nm_run *r, nm_tensor x, const nm_block_w *w, const nm_block_cfg *c, unsigned flags)
{
    int64_t width = c->width;
    nm_tensor h = nm_linear(r, nm_layernorm(r, x, &w->ln_1, c->eps), &w->qkv, (nm_epilogue){ 0 });
    if (!h.data)
        return h;
    h = nm_cols(h, 2 * width, 3 * width);
    if (flags & NM_DENSE_NO_RESIDUAL)
        x = nm_linear(r, h, &w->out, (nm_epilogue){ .gamma = &w->ls_1, .f32 = true });
    else
        x = nm_linear(r, h, &w->out, (nm_epilogue){ .gamma = &w->ls_1, .residual = &x });
    return flags & NM_DENSE_NO_MLP ? x : nm_block_mlp(r, x, w, c);
}

nm_tensor nm_vit_dense(nm_run *r, const nm_vit_w *w, const nm_vit_cfg *c, nm_tensor pixels, unsigned flags)
{
    if (c->pool_queries > 0 || c->pool == NM_VIT_POOL_MAP)
        return nm_run_fail(r, NOEMA_E_UNSUPPORTED, "patch features need a tower with a linear projection, not an attention pool");
    nm_tensor x = embeddings(r, w, c, pixels);
    nm_block_cfg bc = nm_vit_block_cfg(c);
    bool mask = flags & NM_DENSE_MASKCLIP;
    for (int i = 0; i < c->layers - mask; i++)
        x = nm_block_forward(r, x, &w->blocks[i], &bc, NULL, i);
    if (mask)
        x = maskclip_block(r, x, &w->blocks[c->layers - 1], &bc, flags);
    if (c->class_token)
        x = nm_drop_first(r, x);
    x = c->ln_post ? nm_layernorm(r, x, &w->ln_post, c->eps) : x;
    return project(r, w, c, x);
}
