/* transformer.c - see transformer.h. */
#include "models/transformer.h"

#include <math.h>
#include <string.h>

#include "tensor/tape.h"

/* ---- declaring ---- */

void nm_linear_params(nm_params *p, nm_linear_w *w, int64_t out, int64_t in, nm_names weight, nm_names bias, float std, unsigned bias_flags)
{
    float bound = 1 / sqrtf((float)in); /* torch.nn.Linear: kaiming_uniform(sqrt 5) is uniform within 1/sqrt(in) */
    nm_param(p, &w->weight, NM_SHAPE(out, in), weight, std > 0 ? NM_NORMAL(std) : NM_UNIFORM(bound), NM_DECAY);
    nm_param(p, &w->bias, NM_SHAPE(out), bias, std > 0 ? NM_ZEROS : NM_UNIFORM(bound), NM_NO_DECAY | bias_flags);
}

void nm_norm_params(nm_params *p, nm_norm_w *w, int64_t width, nm_names weight, nm_names bias)
{
    nm_param(p, &w->weight, NM_SHAPE(width), weight, NM_ONES, NM_NO_DECAY);
    nm_param(p, &w->bias, NM_SHAPE(width), bias, NM_ZEROS, NM_NO_DECAY);
}

void nm_block_params(nm_params *p, nm_block_w *w, const nm_block_cfg *c)
{
    int64_t width = c->width;
    nm_norm_params(p, &w->ln_1, width, NM_NAMES("ln_1.weight", "layer_norm1.weight", "norm1.weight"),
                   NM_NAMES("ln_1.bias", "layer_norm1.bias", "norm1.bias"));
    /* torch.nn.MultiheadAttention: xavier_uniform over [3 width, width], zero biases */
    float xavier = sqrtf(6.0f / (4.0f * (float)width));
    nm_param(p, &w->qkv.weight, NM_SHAPE(3 * width, width),
             NM_NAMES("attn.in_proj_weight", "self_attn.q_proj.weight|self_attn.k_proj.weight|self_attn.v_proj.weight", "attn.qkv.weight"),
             c->qkv_std > 0 ? NM_NORMAL(c->qkv_std) : NM_UNIFORM(xavier), NM_DECAY);
    nm_param(p, &w->qkv.bias, NM_SHAPE(3 * width),
             NM_NAMES("attn.in_proj_bias", "self_attn.q_proj.bias|self_attn.k_proj.bias|self_attn.v_proj.bias", "attn.qkv.bias"), NM_ZEROS,
             NM_NO_DECAY | NM_OPTIONAL);
    nm_param(p, &w->out.weight, NM_SHAPE(width, width), NM_NAMES("attn.out_proj.weight", "self_attn.out_proj.weight", "attn.proj.weight"),
             c->out_std > 0 ? NM_NORMAL(c->out_std) : NM_UNIFORM(1 / sqrtf((float)width)), NM_DECAY);
    nm_param(p, &w->out.bias, NM_SHAPE(width), NM_NAMES("attn.out_proj.bias", "self_attn.out_proj.bias", "attn.proj.bias"), NM_ZEROS, NM_NO_DECAY);
    if (c->layer_scale)
        nm_param(p, &w->ls_1, NM_SHAPE(width), NM_NAMES("ls_1.gamma", NULL, "ls1.gamma"), NM_CONST(1e-4f), NM_NO_DECAY);
    if (c->cross)
        nm_norm_params(p, &w->ln_1_kv, width, NM_NAMES("ln_1_kv.weight"), NM_NAMES("ln_1_kv.bias"));
    nm_norm_params(p, &w->ln_2, width, NM_NAMES("ln_2.weight", "layer_norm2.weight", "norm2.weight"),
                   NM_NAMES("ln_2.bias", "layer_norm2.bias", "norm2.bias"));
    nm_linear_params(p, &w->fc, c->mlp, width, NM_NAMES("mlp.c_fc.weight", "mlp.fc1.weight", "mlp.fc1.weight"),
                     NM_NAMES("mlp.c_fc.bias", "mlp.fc1.bias", "mlp.fc1.bias"), c->fc_std, 0);
    nm_linear_params(p, &w->proj, width, c->mlp, NM_NAMES("mlp.c_proj.weight", "mlp.fc2.weight", "mlp.fc2.weight"),
                     NM_NAMES("mlp.c_proj.bias", "mlp.fc2.bias", "mlp.fc2.bias"), c->proj_std, 0);
    if (c->layer_scale)
        nm_param(p, &w->ls_2, NM_SHAPE(width), NM_NAMES("ls_2.gamma", NULL, "ls2.gamma"), NM_CONST(1e-4f), NM_NO_DECAY);
}

bool nm_block_ready(nm_block_w *w, const nm_block_cfg *c)
{
    if (!c->cross)
        return true;
    int64_t width = c->width;
    return nm_weight_rows_of(&w->q.weight, &w->qkv.weight, 0, width) && nm_weight_rows_of(&w->q.bias, &w->qkv.bias, 0, width) &&
           nm_weight_rows_of(&w->kv.weight, &w->qkv.weight, width, 3 * width) && nm_weight_rows_of(&w->kv.bias, &w->qkv.bias, width, 3 * width);
}

void nm_block_free(nm_block_w *w)
{
    nm_weight_free(&w->q.weight);
    nm_weight_free(&w->q.bias);
    nm_weight_free(&w->kv.weight);
    nm_weight_free(&w->kv.bias);
}

/* ---- forward ---- */

/* x + gamma * out(a); with an observer the sum is split so that the attention's own output can be shown (same bits: the
 * epilogue adds the residual last). */
static nm_tensor attention_out(nm_run *r, nm_tensor x, nm_tensor a, const nm_block_w *w, int index)
{
    if (r->observe && index >= 0 && !nm_has(&w->ls_1)) {
        nm_tensor out = nm_linear(r, a, &w->out, (nm_epilogue){ .f32 = true });
        nm_observe(r, out, "block.%d.attn_out", index);
    }
    return nm_linear(r, a, &w->out, (nm_epilogue){ .gamma = &w->ls_1, .residual = &x, .inplace = !r->tape });
}

nm_tensor nm_block_mlp(nm_run *r, nm_tensor x, const nm_block_w *w, const nm_block_cfg *c)
{
    nm_tensor h = nm_layernorm(r, x, &w->ln_2, c->eps);
    return nm_mlp(r, h, &w->fc, c->act, &w->proj, (nm_epilogue){ .gamma = &w->ls_2, .residual = &x, .inplace = !r->tape });
}

static nm_tensor block(nm_run *r, nm_tensor x, const nm_block_w *w, const nm_block_cfg *c, const nm_mask *mask, int index)
{
    int64_t width = c->width;
    nm_tensor h = nm_layernorm(r, x, &w->ln_1, c->eps);
    h = nm_linear(r, h, &w->qkv, (nm_epilogue){ 0 }); /* [rows, 3 width] */
    if (h.data)
        h = nm_attention(r, nm_cols(h, 0, width), nm_cols(h, width, 2 * width), nm_cols(h, 2 * width, 3 * width), c->heads, mask);
    x = attention_out(r, x, h, w, index);
    return nm_block_mlp(r, x, w, c);
}

static nm_tensor cross(nm_run *r, nm_tensor x, nm_tensor context, const nm_block_w *w, const nm_block_cfg *c, const nm_mask *mask)
{
    int64_t width = c->width;
    nm_tensor q = nm_linear(r, nm_layernorm(r, x, &w->ln_1, c->eps), &w->q, (nm_epilogue){ 0 });
    nm_tensor kv = nm_linear(r, nm_layernorm(r, context, &w->ln_1_kv, c->eps), &w->kv, (nm_epilogue){ 0 }), a = { 0 };
    if (kv.data)
        a = nm_attention(r, q, nm_cols(kv, 0, width), nm_cols(kv, width, 2 * width), c->heads, mask);
    return nm_block_mlp(r, attention_out(r, x, a, w, -1), w, c);
}

typedef struct segment { const nm_block_w *w; nm_block_cfg c; nm_mask mask; nm_tensor context; } segment;

static nm_tensor run_segment(nm_run *r, nm_tensor x, void *arg)
{
    const segment *s = arg;
    return s->c.cross ? cross(r, x, s->context, s->w, &s->c, &s->mask) : block(r, x, s->w, &s->c, &s->mask, -1);
}

nm_mask nm_mask_save(nm_run *r, const nm_mask *mask)
{
    nm_mask m = mask ? *mask : (nm_mask){ 0 };
    if (m.key_bias && m.k_offsets)
        m.key_bias = nm_save_(r, m.key_bias, (size_t)m.k_offsets[m.n_seq] * sizeof *m.key_bias);
    if (m.q_offsets)
        m.q_offsets = nm_save_(r, m.q_offsets, (size_t)(m.n_seq + 1) * sizeof *m.q_offsets);
    if (m.k_offsets)
        m.k_offsets = nm_save_(r, m.k_offsets, (size_t)(m.n_seq + 1) * sizeof *m.k_offsets);
    return m;
}

static nm_tensor checkpointed(nm_run *r, nm_tensor x, nm_tensor context, const nm_block_w *w, const nm_block_cfg *c, const nm_mask *mask)
{
    segment *s = NM_SAVE(r, segment, w, *c, nm_mask_save(r, mask), context);
    return s ? nm_checkpoint(r, x, run_segment, s) : (nm_tensor){ 0 };
}

nm_tensor nm_block_forward(nm_run *r, nm_tensor x, const nm_block_w *w, const nm_block_cfg *c, const nm_mask *mask, int index)
{
    bool unknown = mask && (mask->bias || (mask->key_bias && !mask->k_offsets)); /* of unknown length: kept as ever */
    if (r->checkpoint && r->tape && !r->observe && !unknown)
        return checkpointed(r, x, (nm_tensor){ 0 }, w, c, mask);
    nm_arena_mark mark = nm_mark(r);
    x = block(r, x, w, c, mask, index);
    nm_reset(r, mark); /* x lies before the mark: it was written in place */
    if (index >= 0)
        nm_observe(r, x, "block.%d", index);
    return x;
}

nm_tensor nm_block_cross(nm_run *r, nm_tensor x, nm_tensor context, const nm_block_w *w, const nm_block_cfg *c, const nm_mask *mask)
{
    if (r->checkpoint && r->tape && !r->observe)
        return checkpointed(r, x, context, w, c, mask);
    nm_arena_mark mark = nm_mark(r);
    x = cross(r, x, context, w, c, mask);
    nm_reset(r, mark);
    return x;
}

void nm_observe_above(nm_run *r, nm_tensor t, const char *name)
{
    char old[sizeof r->observe_prefix];
    memcpy(old, r->observe_prefix, sizeof old);
    size_t n = strlen(r->observe_prefix);
    while (n > 0 && (r->observe_prefix[--n] = 0, n > 0) && r->observe_prefix[n - 1] != '.')
        ;
    nm_observe(r, t, "%s", name);
    memcpy(r->observe_prefix, old, sizeof old);
}

/* ---- tokens ---- */

int64_t *nm_every_row(nm_run *r, int64_t n, int64_t step, int64_t first)
{
    int64_t *rows = nm_scratch(r, (size_t)n * sizeof *rows);
    for (int64_t i = 0; rows && i < n; i++)
        rows[i] = i * step + first;
    return rows;
}

nm_tensor nm_first_token(nm_run *r, nm_tensor x)
{
    if (!x.data)
        return x;
    return nm_gather_rows(r, nm_flatten(x, 2), nm_every_row(r, x.shape[0], x.shape[1], 0), x.shape[0]);
}

nm_tensor nm_drop_first(nm_run *r, nm_tensor x)
{
    if (!x.data)
        return x;
    int64_t n = x.shape[0], t = x.shape[1], width = x.shape[2];
    int64_t *rows = nm_scratch(r, (size_t)(n * (t - 1)) * sizeof *rows);
    for (int64_t i = 0; rows && i < n * (t - 1); i++)
        rows[i] = i / (t - 1) * t + 1 + i % (t - 1);
    return nm_reshape(nm_gather_rows(r, nm_flatten(x, 2), rows, n * (t - 1)), NM_SHAPE(n, t - 1, width));
}

nm_tensor nm_mean_tokens(nm_run *r, nm_tensor x, int64_t first)
{
    if (!x.data || !nm_run_ok(r))
        return (nm_tensor){ 0 };
    int64_t batch = x.shape[0], tokens = x.shape[1], keep = tokens - first;
    int64_t *rows = nm_scratch(r, (size_t)(batch * keep) * sizeof *rows);
    int64_t *offsets = nm_every_row(r, batch + 1, keep, 0);
    for (int64_t i = 0; rows && i < batch * keep; i++)
        rows[i] = i / keep * tokens + first + i % keep;
    nm_tensor flat = nm_flatten(x, 2);
    if (first > 0)
        flat = nm_gather_rows(r, flat, rows, batch * keep);
    return nm_mean_rows(r, flat, offsets, batch);
}
