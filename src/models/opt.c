/* opt.c - see opt.h. Source: transformers modeling_opt.py.
 *
 * Easy to get wrong: a layer's second norm is called final_layer_norm, as the decoder's last one; position tables begin with two rows
 * that no position uses; ReLU. */
#include "models/opt.h"

#include <stdlib.h>
#include <string.h>

bool nm_opt_alloc(nm_opt_w *w, const nm_opt_cfg *c)
{
    w->layer = calloc((size_t)c->layers + 1, sizeof *w->layer);
    return w->layer != NULL;
}

void nm_opt_free(nm_opt_w *w)
{
    free(w->layer);
    w->layer = NULL;
}

/* ---- declaring ---- */

static nm_names same(const char *name) { return (nm_names){ { name, name, name } }; }

static void linear(nm_params *p, nm_linear_w *w, int64_t out, int64_t in, const char *weight, const char *bias)
{
    nm_linear_params(p, w, out, in, same(weight), same(bias), 0.02f, 0);
}

static void layer_params(nm_params *p, nm_opt_layer_w *w, const nm_opt_cfg *c)
{
    int64_t width = c->width;
    nm_norm_params(p, &w->ln_1, width, same("self_attn_layer_norm.weight"), same("self_attn_layer_norm.bias"));
    linear(p, &w->qkv, 3 * width, width, "self_attn.q_proj.weight|self_attn.k_proj.weight|self_attn.v_proj.weight",
           "self_attn.q_proj.bias|self_attn.k_proj.bias|self_attn.v_proj.bias");
    linear(p, &w->out, width, width, "self_attn.out_proj.weight", "self_attn.out_proj.bias");
    nm_norm_params(p, &w->ln_2, width, same("final_layer_norm.weight"), same("final_layer_norm.bias"));
    linear(p, &w->fc1, c->mlp, width, "fc1.weight", "fc1.bias");
    linear(p, &w->fc2, width, c->mlp, "fc2.weight", "fc2.bias");
}

void nm_opt_params(nm_params *p, nm_opt_w *w, const nm_opt_cfg *c, const char *body)
{
    size_t mark = nm_params_push(p, same(body), 0), inner = nm_params_push(p, same("decoder."), 0);
    nm_param(p, &w->embed_tokens, NM_SHAPE(c->vocab_size, c->width), same("embed_tokens.weight"), NM_NORMAL(0.02f), NM_DECAY);
    nm_param(p, &w->embed_positions, NM_SHAPE(c->positions, c->width), same("embed_positions.weight"), NM_NORMAL(0.02f), NM_DECAY);
    for (int i = 0; i < c->layers; i++) {
        size_t at = nm_params_push(p, same("layers.%d."), i);
        layer_params(p, &w->layer[i], c);
        nm_params_pop(p, at);
    }
    if (c->final_norm)
        nm_norm_params(p, &w->final_layer_norm, c->width, same("final_layer_norm.weight"), same("final_layer_norm.bias"));
    nm_params_pop(p, inner);
    nm_params_pop(p, mark);
    nm_param(p, &w->lm_head, NM_SHAPE(c->vocab_size, c->width), same("lm_head.weight"), NM_NORMAL(0.02f), NM_DECAY | NM_OPTIONAL);
}

bool nm_opt_ready(nm_opt_w *w, const nm_opt_cfg *c)
{
    return nm_has(&w->lm_head) || nm_weight_row_view(&w->lm_head, &w->embed_tokens, 0, c->vocab_size);
}

/* ---- forward ---- */

static nm_tensor with_positions(nm_run *r, const nm_opt_w *w, const nm_opt_cfg *c, const nm_kv_cache *cache, int64_t n, nm_tensor x,
                                const int64_t *new_offsets)
{
    int64_t rows = new_offsets[n];
    int32_t *pos = cache ? nm_kv_positions(r, cache, new_offsets) : nm_scratch(r, (size_t)rows * sizeof *pos + 1);
    for (int64_t i = 0; pos && i < n; i++)
        for (int64_t j = new_offsets[i]; j < new_offsets[i + 1]; j++) {
            if (!cache)
                pos[j] = (int32_t)(j - new_offsets[i]);
            pos[j] += NM_OPT_OFFSET;
            if (pos[j] >= c->positions)
                return nm_run_fail(r, NOEMA_E_ARGUMENT, "a row of more than %d ids: the language model has no more positions",
                                   c->positions - NM_OPT_OFFSET);
        }
    return pos ? nm_add(r, x, nm_embedding(r, pos, rows, &w->embed_positions, NULL, NULL)) : (nm_tensor){ 0 };
}

nm_tensor nm_opt_step(nm_run *r, const nm_opt_w *w, const nm_opt_cfg *c, nm_kv_cache *cache, int64_t n, const int64_t *parent, nm_tensor x,
                      const int64_t *new_offsets)
{
    int64_t width = c->width;
    if (!x.data || (cache && !nm_kv_begin(r, cache, n, parent, new_offsets)))
        return (nm_tensor){ 0 };
    x = with_positions(r, w, c, cache, n, x, new_offsets);
    nm_mask mask = { .causal = true, .n_seq = n, .q_offsets = new_offsets, .k_offsets = cache ? nm_kv_offsets(cache) : new_offsets };
    nm_observe(r, x, "hidden.0");
    for (int i = 0; i < c->layers && nm_run_ok(r); i++) {
        const nm_opt_layer_w *l = &w->layer[i];
        nm_arena_mark mark = nm_mark(r);
        nm_tensor h = nm_linear(r, nm_layernorm(r, x, &l->ln_1, c->eps), &l->qkv, (nm_epilogue){ 0 }); /* [rows, 3 width] */
        nm_tensor kv = h.data ? nm_cols(h, width, 3 * width) : h;
        if (cache)
            kv = nm_kv_extend(cache, i, kv, parent, new_offsets);
        if (h.data && kv.data)
            h = nm_attention(r, nm_cols(h, 0, width), nm_cols(kv, 0, width), nm_cols(kv, width, 2 * width), c->heads, &mask);
        x = nm_linear(r, h, &l->out, (nm_epilogue){ .residual = &x, .inplace = !r->tape });
        h = nm_linear(r, nm_layernorm(r, x, &l->ln_2, c->eps), &l->fc1, (nm_epilogue){ .act = c->act }); /* [rows, mlp] */
        x = nm_linear(r, h, &l->fc2, (nm_epilogue){ .residual = &x, .inplace = !r->tape });
        nm_reset(r, mark); /* x lies before the mark: it was written in place */
        nm_observe(r, x, "hidden.%d", i + 1);
    }
    if (cache)
        nm_kv_end(cache);
    return nm_run_ok(r) ? x : (nm_tensor){ 0 };
}

nm_tensor nm_opt_logits(nm_run *r, const nm_opt_w *w, const nm_opt_cfg *c, nm_tensor x)
{
    if (c->final_norm)
        x = nm_layernorm(r, x, &w->final_layer_norm, c->eps);
    return nm_matmul_w(r, x, &w->lm_head, (nm_epilogue){ .f32 = true });
}
