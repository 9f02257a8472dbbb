/* resnet.c - see resnet.h. Source: openai/CLIP clip/model.py (ModifiedResNet, Bottleneck, AttentionPool2d).
 *
 *     [n, 3, S, S] -> stem /4 -> layer1 /4 -> layer2 /8 -> layer3 /16 -> layer4 /32 [n, S/32, S/32, 32 width] -> attention pool
 *
 * Easy to get wrong: a stride is an average pool after the 3x3 convolution (and before the 1x1 of the shortcut), never a strided
 * convolution; ReLU everywhere, QuickGELU nowhere; the pool's query is the mean token alone. Activations are NHWC here. */
#include "models/resnet.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BN_EPS 1e-5f

bool nm_resnet_alloc(nm_resnet_w *w, const nm_resnet_cfg *c)
{
    w->blocks = calloc((size_t)nm_resnet_count(c) + 1, sizeof *w->blocks);
    return w->blocks != NULL;
}

void nm_resnet_free(nm_resnet_w *w)
{
    free(w->blocks);
    nm_attn_pool_free(&w->attn_pool);
    w->blocks = NULL;
}

bool nm_resnet_ready(nm_resnet_w *w, const nm_resnet_cfg *c) { return !c->pool_queries || nm_attn_pool_ready(&w->attn_pool, c->embed_dim); }

/* ---- declaring ---- */

static void conv_bn_params(nm_params *p, nm_conv_bn_w *w, int64_t out, int64_t in, int64_t k, const char *conv, const char *bn, bool zero)
{
    nm_param(p, &w->conv, NM_SHAPE(out, in, k, k), NM_NAMES(conv), NM_UNIFORM(1 / sqrtf((float)(in * k * k))), NM_DECAY);
    size_t mark = nm_params_push(p, NM_NAMES(bn), 0);
    nm_param(p, &w->bn.weight, NM_SHAPE(out), NM_NAMES("weight"), zero ? NM_ZEROS : NM_ONES, NM_NO_DECAY);
    nm_param(p, &w->bn.bias, NM_SHAPE(out), NM_NAMES("bias"), NM_ZEROS, NM_NO_DECAY);
    nm_param(p, &w->bn.running_mean, NM_SHAPE(out), NM_NAMES("running_mean"), NM_ZEROS, NM_BUFFER);
    nm_param(p, &w->bn.running_var, NM_SHAPE(out), NM_NAMES("running_var"), NM_ONES, NM_BUFFER);
    nm_param(p, &w->bn.num_batches_tracked, NM_SCALAR, NM_NAMES("num_batches_tracked"), NM_ZEROS, NM_COUNTER | NM_OPTIONAL);
    nm_params_pop(p, mark);
}

static void attention_pool_params(nm_params *p, nm_resnet_w *w, const nm_resnet_cfg *c)
{
    int64_t channels = 32 * (int64_t)c->width, grid = c->image_size / 32;
    float std = 1 / sqrtf((float)channels);
    size_t mark = nm_params_push(p, NM_NAMES("attnpool."), 0);
    nm_param(p, &w->positional_embedding, NM_SHAPE(grid * grid + 1, channels), NM_NAMES("positional_embedding"), NM_NORMAL(std),
             NM_NO_DECAY | NM_AS_F32);
    nm_linear_params(p, &w->k, channels, channels, NM_NAMES("k_proj.weight"), NM_NAMES("k_proj.bias"), std, 0);
    nm_linear_params(p, &w->q, channels, channels, NM_NAMES("q_proj.weight"), NM_NAMES("q_proj.bias"), std, 0);
    nm_linear_params(p, &w->v, channels, channels, NM_NAMES("v_proj.weight"), NM_NAMES("v_proj.bias"), std, 0);
    nm_linear_params(p, &w->c, c->embed_dim, channels, NM_NAMES("c_proj.weight"), NM_NAMES("c_proj.bias"), std, 0);
    nm_params_pop(p, mark);
}

/* Under the names of open_clip's VisionTransformer with attentional_pool, which has no ResNet of the kind. */
static void attentional_params(nm_params *p, nm_resnet_w *w, const nm_resnet_cfg *c, int64_t channels)
{
    nm_attn_pool_params(p, &w->attn_pool, "attn_pool.", c->pool_queries, c->embed_dim, channels);
    nm_norm_params(p, &w->ln_post, c->embed_dim, NM_NAMES("ln_post.weight"), NM_NAMES("ln_post.bias"));
    nm_param(p, &w->proj, NM_SHAPE(c->embed_dim, c->embed_dim), NM_NAMES("T:proj"), NM_NORMAL(1 / sqrtf((float)c->embed_dim)), NM_DECAY);
}

void nm_resnet_params(nm_params *p, nm_resnet_w *w, const nm_resnet_cfg *c)
{
    static const char *const conv[] = { "conv1.weight", "conv2.weight", "conv3.weight" }, *const bn[] = { "bn1.", "bn2.", "bn3." };
    int64_t half = c->width / 2, stem[] = { 3, half, half, c->width };
    for (int i = 0; i < 3; i++)
        conv_bn_params(p, &w->stem[i], stem[i + 1], stem[i], 3, conv[i], bn[i], false);
    int64_t in = c->width;
    nm_bottleneck_w *b = w->blocks;
    for (int s = 0; s < nm_resnet_stages(c); s++)
        for (int i = 0; i < c->blocks[s]; i++, b++) {
            char module[32];
            snprintf(module, sizeof module, "layer%d.%%d.", s + 1);
            size_t mark = nm_params_push(p, NM_NAMES(module), i);
            int64_t planes = (int64_t)c->width << s;
            conv_bn_params(p, &b->c1, planes, in, 1, conv[0], bn[0], false);
            conv_bn_params(p, &b->c2, planes, planes, 3, conv[1], bn[1], false);
            conv_bn_params(p, &b->c3, 4 * planes, planes, 1, conv[2], bn[2], true);
            if (i == 0)
                conv_bn_params(p, &b->down, 4 * planes, in, 1, "downsample.0.weight", "downsample.1.", false);
            in = 4 * planes;
            nm_params_pop(p, mark);
        }
    if (c->pool_queries)
        attentional_params(p, w, c, in);
    else
        attention_pool_params(p, w, c);
}

/* ---- forward ---- */

static nm_tensor conv_bn(nm_run *r, nm_tensor x, const nm_conv_bn_w *w, int stride, const nm_tensor *residual, bool relu)
{
    int pad = w->conv.shape.dim[2] == 3;
    return nm_conv2d(r, x, &w->conv, (nm_conv){ .stride = { stride, stride }, .pad = { pad, pad }, .bn = &w->bn, .eps = BN_EPS, .residual = residual,
                                                .relu = relu });
}

static nm_tensor bottleneck(nm_run *r, nm_tensor x, const nm_bottleneck_w *w, int stride)
{
    nm_tensor y = conv_bn(r, x, &w->c1, 1, NULL, true);
    y = conv_bn(r, y, &w->c2, 1, NULL, true);
    if (stride > 1)
        y = nm_avgpool2d(r, y, stride);
    if (nm_has(&w->down.conv)) {
        if (stride > 1)
            x = nm_avgpool2d(r, x, stride);
        x = conv_bn(r, x, &w->down, 1, NULL, false);
    }
    return conv_bn(r, y, &w->c3, 1, &x, true);
}

static void observe_nchw(nm_run *r, nm_tensor x, const char *name, int number)
{
    if (!r->observe || !x.data)
        return;
    nm_arena_mark mark = nm_arena_get_mark(r->arena);
    nm_observe(r, nm_permute(r, x, (const int[]){ 0, 3, 1, 2 }), name, number);
    nm_arena_rewind(r->arena, mark);
}

/* Runs one stage. In inference its blocks write to two buffers in turn and everything else is given back after each block, so
 * that the arena holds one block at a time (RN50x64 would otherwise need gigabytes per picture). */
static nm_tensor stage(nm_run *r, nm_tensor x, const nm_bottleneck_w *b, int blocks, int stride, int64_t channels)
{
    if (!x.data || r->tape) {
        for (int i = 0; i < blocks; i++)
            x = bottleneck(r, x, b + i, i == 0 ? stride : 1);
        return x;
    }
    nm_shape shape = NM_SHAPE(x.shape[0], x.shape[1] / stride, x.shape[2] / stride, channels);
    nm_tensor slot[2] = { nm_new(r, NM_F32, shape), blocks > 1 ? nm_new(r, NM_F32, shape) : (nm_tensor){ 0 } };
    for (int i = 0; i < blocks && nm_run_ok(r); i++) {
        nm_arena_mark mark = nm_mark(r);
        nm_tensor y = bottleneck(r, x, b + i, i == 0 ? stride : 1);
        if (y.data && !nm_same_shape(&y, &slot[i & 1]))
            return nm_run_fail(r, NOEMA_E_INTERNAL, "stage: unexpected shape");
        if (y.data)
            memcpy(slot[i & 1].data, y.data, (size_t)nm_numel(&y) * sizeof(float));
        nm_reset(r, mark);
        x = slot[i & 1];
    }
    return nm_run_ok(r) ? x : (nm_tensor){ 0 };
}

/* Whether anything before the pool is trained. */
static bool trunk_trains(const nm_resnet_w *w, const nm_resnet_cfg *c)
{
    const nm_conv_bn_w *part;
    for (int i = 0; i < 3 + 4 * nm_resnet_count(c); i++) {
        const nm_bottleneck_w *b = i < 3 ? NULL : &w->blocks[(i - 3) / 4];
        part = !b ? &w->stem[i] : (i - 3) % 4 == 0 ? &b->c1 : (i - 3) % 4 == 1 ? &b->c2 : (i - 3) % 4 == 2 ? &b->c3 : &b->down;
        if (nm_weight_grad_of(&part->conv) || nm_weight_grad_of(&part->bn.weight) || nm_weight_grad_of(&part->bn.bias))
            return true;
    }
    return false;
}

/* -> the last stage, NHWC [n, S/32, S/32, 32 width]. */
static nm_tensor stages(nm_run *r, const nm_resnet_w *w, const nm_resnet_cfg *c, nm_tensor pixels)
{
    if (!pixels.data || pixels.ndim != 4 || pixels.shape[1] != 3)
        return nm_run_fail(r, NOEMA_E_ARGUMENT, "expected pictures f32 [n, 3, height, width]");
    nm_tensor x = nm_permute(r, pixels, (const int[]){ 0, 2, 3, 1 });
    x = conv_bn(r, x, &w->stem[0], 2, NULL, true);
    x = conv_bn(r, x, &w->stem[1], 1, NULL, true);
    x = conv_bn(r, x, &w->stem[2], 1, NULL, true);
    observe_nchw(r, x, "stem.relu%d", 3);
    x = nm_avgpool2d(r, x, 2);
    observe_nchw(r, x, "stem.avgpool", 0);
    const nm_bottleneck_w *b = w->blocks;
    for (int s = 0; s < nm_resnet_stages(c); b += c->blocks[s++]) {
        x = stage(r, x, b, c->blocks[s], s > 0 ? 2 : 1, (int64_t)c->width << (s + 2));
        observe_nchw(r, x, "layer%d", s + 1);
    }
    return x;
}

/* A locked trunk runs as in inference, in the memory of one block. */
static nm_tensor trunk(nm_run *r, const nm_resnet_w *w, const nm_resnet_cfg *c, nm_tensor pixels)
{
    struct nm_tape *tape = r->tape;
    if (!trunk_trains(w, c))
        r->tape = NULL;
    nm_tensor x = stages(r, w, c, pixels);
    r->tape = tape;
    return x;
}

/* [mean; positions] + positional_embedding; the mean token alone asks. */
static nm_tensor attention_pool(nm_run *r, const nm_resnet_w *w, const nm_resnet_cfg *c, nm_tensor x)
{
    if (!x.data)
        return x;
    int64_t n = x.shape[0], g = x.shape[1] * x.shape[2], channels = x.shape[3];
    x = nm_reshape(x, NM_SHAPE(n, g, channels));
    nm_tensor mean = nm_mean_tokens(r, x, 0); /* [n, C] */
    if (nm_shape_numel(w->positional_embedding.shape) != (g + 1) * channels)
        return nm_run_fail(r, NOEMA_E_ARGUMENT, "this picture size has %lld positions, the model %lld", (long long)g + 1,
                           (long long)w->positional_embedding.shape.dim[0]);
    nm_tensor t = nm_add_positions(r, nm_prepend(r, mean, x), NULL, &w->positional_embedding);
    if (!t.data)
        return t;
    nm_tensor query = nm_gather_rows(r, nm_flatten(t, 2), nm_every_row(r, n, g + 1, 0), n);
    nm_tensor q = nm_linear(r, query, &w->q, (nm_epilogue){ 0 });
    nm_tensor k = nm_linear(r, t, &w->k, (nm_epilogue){ 0 }), v = nm_linear(r, t, &w->v, (nm_epilogue){ 0 });
    nm_tensor a = nm_attention(r, nm_reshape(q, NM_SHAPE(n, 1, channels)), k, v, c->heads, NULL);
    return nm_linear(r, nm_flatten(a, 2), &w->c, (nm_epilogue){ .f32 = true });
}

static nm_tensor attentional_pool(nm_run *r, const nm_resnet_w *w, const nm_resnet_cfg *c, nm_tensor x, nm_tensor *tokens)
{
    nm_tensor pooled = { 0 };
    if (!x.data)
        return x;
    x = nm_reshape(x, NM_SHAPE(x.shape[0], x.shape[1] * x.shape[2], x.shape[3]));
    nm_tensor t = nm_attn_pool_single(r, &w->attn_pool, &w->ln_post, c->pool_heads, BN_EPS, false, x, &pooled);
    if (tokens)
        *tokens = t;
    nm_observe_above(r, t, "image_embs");
    return nm_matmul_w(r, pooled, &w->proj, (nm_epilogue){ .f32 = true });
}

nm_tensor nm_resnet_forward(nm_run *r, const nm_resnet_w *w, const nm_resnet_cfg *c, nm_tensor pixels, nm_tensor *tokens)
{
    nm_tensor x = trunk(r, w, c, pixels);
    return c->pool_queries ? attentional_pool(r, w, c, x, tokens) : attention_pool(r, w, c, x);
}

nm_tensor nm_resnet_dense(nm_run *r, const nm_resnet_w *w, const nm_resnet_cfg *c, nm_tensor pixels)
{
    if (c->pool_queries)
        return nm_run_fail(r, NOEMA_E_UNSUPPORTED, "patch features need a tower with a linear projection, not an attentional pool");
    nm_tensor x = trunk(r, w, c, pixels);
    if (!x.data)
        return x;
    x = nm_reshape(x, NM_SHAPE(x.shape[0], x.shape[1] * x.shape[2], x.shape[3]));
    return nm_linear(r, nm_linear(r, x, &w->v, (nm_epilogue){ 0 }), &w->c, (nm_epilogue){ .f32 = true });
}
