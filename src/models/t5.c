/* t5.c - see t5.h. Source: transformers modeling_t5.py.
 *
 * Easy to get wrong: the table of distances belongs to the first layer of each stack and is used in all of its layers, but not in
 * cross-attention; the encoder's buckets have a side for each direction, the decoder's none; inner need not be width. */
#include "models/t5.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

bool nm_t5_alloc(nm_t5_w *w, const nm_t5_cfg *c)
{
    w->encoder.layer = calloc((size_t)c->layers + 1, sizeof *w->encoder.layer);
    w->decoder.layer = calloc((size_t)c->decoder_layers + 1, sizeof *w->decoder.layer);
    return w->encoder.layer && w->decoder.layer;
}

void nm_t5_free(nm_t5_w *w)
{
    free(w->encoder.layer);
    free(w->decoder.layer);
    w->encoder.layer = w->decoder.layer = NULL;
}

/* ---- declaring ---- */

static nm_names same(const char *name) { return (nm_names){ { name, name, name } }; }

static void matrix(nm_params *p, nm_linear_w *w, int64_t out, int64_t in, const char *name)
{
    nm_param(p, &w->weight, NM_SHAPE(out, in), same(name), NM_NORMAL(1 / sqrtf((float)in)), NM_DECAY);
}

static void norm(nm_params *p, nm_weight *w, int64_t width, const char *name) { nm_param(p, w, NM_SHAPE(width), same(name), NM_ONES, NM_NO_DECAY); }

static void layer_params(nm_params *p, nm_t5_layer_w *w, const nm_t5_cfg *c, bool decoder)
{
    int64_t width = c->width, inner = c->inner;
    norm(p, &w->self.norm, width, "layer.0.layer_norm.weight");
    matrix(p, &w->self.qkv, 3 * inner, width, "layer.0.SelfAttention.q.weight|layer.0.SelfAttention.k.weight|layer.0.SelfAttention.v.weight");
    matrix(p, &w->self.o, width, inner, "layer.0.SelfAttention.o.weight");
    if (decoder) {
        norm(p, &w->cross.norm, width, "layer.1.layer_norm.weight");
        matrix(p, &w->cross.q, inner, width, "layer.1.EncDecAttention.q.weight");
        matrix(p, &w->cross.kv, 2 * inner, width, "layer.1.EncDecAttention.k.weight|layer.1.EncDecAttention.v.weight");
        matrix(p, &w->cross.o, width, inner, "layer.1.EncDecAttention.o.weight");
    }
    size_t mark = nm_params_push(p, same(decoder ? "layer.2." : "layer.1."), 0);
    norm(p, &w->norm, width, "layer_norm.weight");
    matrix(p, &w->wi_0, c->mlp, width, c->gated ? "DenseReluDense.wi_0.weight" : "DenseReluDense.wi.weight");
    if (c->gated)
        matrix(p, &w->wi_1, c->mlp, width, "DenseReluDense.wi_1.weight");
    matrix(p, &w->wo, width, c->mlp, "DenseReluDense.wo.weight");
    nm_params_pop(p, mark);
}

static void stack_params(nm_params *p, nm_t5_stack_w *w, const nm_t5_cfg *c, const char *name, int layers)
{
    size_t mark = nm_params_push(p, same(name), 0);
    nm_param(p, &w->relative_attention_bias, NM_SHAPE(c->buckets, c->heads), same("block.0.layer.0.SelfAttention.relative_attention_bias.weight"),
             NM_NORMAL(0.02f), NM_NO_DECAY | NM_AS_F32);
    for (int i = 0; i < layers; i++) {
        size_t at = nm_params_push(p, same("block.%d."), i);
        layer_params(p, &w->layer[i], c, strcmp(name, "decoder.") == 0);
        nm_params_pop(p, at);
    }
    norm(p, &w->final_layer_norm, c->width, "final_layer_norm.weight");
    nm_params_pop(p, mark);
}

void nm_t5_params(nm_params *p, nm_t5_w *w, const nm_t5_cfg *c)
{
    nm_param(p, &w->shared, NM_SHAPE(c->vocab_size, c->width), same("shared.weight"), NM_NORMAL(1), NM_DECAY);
    stack_params(p, &w->encoder, c, "encoder.", c->layers);
    stack_params(p, &w->decoder, c, "decoder.", c->decoder_layers);
    nm_param(p, &w->lm_head, NM_SHAPE(c->vocab_size, c->width), same("lm_head.weight"), NM_NORMAL(1), NM_DECAY | NM_OPTIONAL);
}

bool nm_t5_ready(nm_t5_w *w, const nm_t5_cfg *c)
{
    return nm_has(&w->lm_head) || nm_weight_row_view(&w->lm_head, &w->shared, 0, c->vocab_size);
}

/* ---- distances ---- */

int nm_t5_bucket(int64_t delta, bool encoder, int buckets, int max_distance)
{
    int at = 0;
    int64_t n = -delta;
    if (encoder) {
        buckets /= 2;
        at = delta > 0 ? buckets : 0;
        n = n < 0 ? -n : n;
    } else if (n < 0)
        n = 0;
    int exact = buckets / 2;
    if (n < exact)
        return at + (int)n;
    /* in f32 and in this order, as the reference computes it */
    float share = logf((float)n / (float)exact) / (float)log((double)max_distance / (double)exact);
    int large = exact + (int)(share * (float)(buckets - exact));
    return at + (large < buckets - 1 ? large : buckets - 1);
}

static int64_t longest(const int64_t *offsets, int64_t n)
{
    int64_t most = 0;
    for (int64_t i = 0; i < n; i++)
        most = offsets[i + 1] - offsets[i] > most ? offsets[i + 1] - offsets[i] : most;
    return most;
}

/* The bias of query i and key j depends on j - i alone: per head one line of all distances, read from i places further left in each row.
 * Query i of a sequence stands (keys - queries) + i; one set of lines serves all sequences of equal lengths. */
static bool distances(nm_run *r, const nm_t5_stack_w *w, const nm_t5_cfg *c, bool encoder, nm_mask *m)
{
    int64_t lq = longest(m->q_offsets, m->n_seq), lk = longest(m->k_offsets, m->n_seq), line = lq + lk, sets = 1;
    for (int64_t s = 1; !encoder && s < m->n_seq; s++)
        if (m->q_offsets[s + 1] - m->q_offsets[s] != m->q_offsets[1] || m->k_offsets[s + 1] - m->k_offsets[s] != m->k_offsets[1])
            sets = m->n_seq;
    const float *table = w->relative_attention_bias.f32;
    float *b = nm_scratch(r, (size_t)(sets * c->heads * line) * sizeof *b);
    for (int64_t s = 0; b && s < sets; s++) {
        int64_t before = encoder ? 0 : (m->k_offsets[s + 1] - m->k_offsets[s]) - (m->q_offsets[s + 1] - m->q_offsets[s]);
        for (int64_t at = 0; at < line; at++) {
            int64_t delta = at - (lq - 1) - before;
            const float *row = table + (int64_t)nm_t5_bucket(delta, encoder, c->buckets, c->max_distance) * c->heads;
            for (int h = 0; h < c->heads; h++)
                b[(s * c->heads + h) * line + at] = row[h];
        }
    }
    m->bias = b ? b + lq - 1 : NULL;
    m->bias_seq = sets > 1 ? c->heads * line : 0;
    m->bias_head = line;
    m->bias_row = -1;
    return b != NULL;
}

/* ---- forward ---- */

/* The three attentions end alike. */
static nm_tensor attention_out(nm_run *r, nm_tensor x, nm_tensor a, const nm_t5_attention_w *w)
{
    return nm_matmul_w(r, a, &w->o.weight, (nm_epilogue){ .residual = &x, .inplace = !r->tape });
}

static nm_tensor self_attention(nm_run *r, nm_tensor x, const nm_t5_attention_w *w, const nm_t5_cfg *c, const nm_mask *mask, nm_kv_cache *cache,
                                int layer, const int64_t *parent)
{
    int64_t inner = c->inner;
    nm_tensor h = nm_matmul_w(r, nm_rmsnorm(r, x, &w->norm, c->eps), &w->qkv.weight, (nm_epilogue){ 0 }); /* [rows, 3 inner] */
    if (!h.data)
        return h;
    nm_tensor kv = nm_cols(h, inner, 3 * inner);
    if (cache)
        kv = nm_kv_extend(cache, layer, kv, parent, mask->q_offsets);
    return attention_out(r, x, nm_attention(r, nm_cols(h, 0, inner), nm_cols(kv, 0, inner), nm_cols(kv, inner, 2 * inner), c->heads, mask), w);
}

static nm_tensor cross_attention(nm_run *r, nm_tensor x, const nm_t5_attention_w *w, const nm_t5_cfg *c, nm_tensor kv, const nm_mask *mask)
{
    int64_t inner = c->inner;
    nm_tensor q = nm_matmul_w(r, nm_rmsnorm(r, x, &w->norm, c->eps), &w->q.weight, (nm_epilogue){ 0 });
    if (!q.data || !kv.data)
        return (nm_tensor){ 0 };
    return attention_out(r, x, nm_attention(r, q, nm_cols(kv, 0, inner), nm_cols(kv, inner, 2 * inner), c->heads, mask), w);
}

static nm_tensor feed_forward(nm_run *r, nm_tensor x, const nm_t5_layer_w *w, const nm_t5_cfg *c)
{
    nm_tensor h = nm_rmsnorm(r, x, &w->norm, c->eps), a = nm_matmul_w(r, h, &w->wi_0.weight, (nm_epilogue){ .act = c->act, .f32 = true });
    if (c->gated)
        a = nm_mul(r, a, nm_matmul_w(r, h, &w->wi_1.weight, (nm_epilogue){ .f32 = true }));
    return nm_matmul_w(r, a, &w->wo.weight, (nm_epilogue){ .residual = &x, .inplace = !r->tape });
}

nm_tensor nm_t5_encode(nm_run *r, const nm_t5_w *w, const nm_t5_cfg *c, int64_t n, nm_tensor x, const int64_t *offsets)
{
    nm_mask mask = { .n_seq = n, .q_offsets = offsets, .k_offsets = offsets, .scale = 1 };
    if (!x.data || !distances(r, &w->encoder, c, true, &mask))
        return (nm_tensor){ 0 };
    nm_observe(r, x, "encoder_hidden.0");
    for (int i = 0; i < c->layers && nm_run_ok(r); i++) {
        nm_arena_mark mark = nm_mark(r);
        x = self_attention(r, x, &w->encoder.layer[i].self, c, &mask, NULL, i, NULL);
        x = feed_forward(r, x, &w->encoder.layer[i], c);
        nm_reset(r, mark); /* x was written in place */
        nm_observe(r, x, "encoder_hidden.%d", i + 1);
    }
    return nm_rmsnorm_f32(r, x, &w->encoder.final_layer_norm, c->eps);
}

nm_tensor *nm_t5_project(nm_run *r, const nm_t5_w *w, const nm_t5_cfg *c, nm_tensor states)
{
    nm_tensor *kv = nm_scratch(r, (size_t)c->decoder_layers * sizeof *kv);
    for (int i = 0; kv && i < c->decoder_layers; i++)
        kv[i] = nm_matmul_w(r, states, &w->decoder.layer[i].cross.kv.weight, (nm_epilogue){ 0 });
    return nm_run_ok(r) ? kv : NULL;
}

nm_tensor nm_t5_step(nm_run *r, const nm_t5_w *w, const nm_t5_cfg *c, nm_kv_cache *cache, const nm_tensor *memory, const int64_t *memory_offsets,
                     int64_t n, const int64_t *parent, nm_tensor x, const int64_t *new_offsets)
{
    if (!x.data || !memory || (cache && !nm_kv_begin(r, cache, n, parent, new_offsets)))
        return (nm_tensor){ 0 };
    nm_mask mask = { .causal = true, .n_seq = n, .q_offsets = new_offsets, .k_offsets = cache ? nm_kv_offsets(cache) : new_offsets, .scale = 1 };
    nm_mask look = { .n_seq = cache ? cache->items : n, .q_offsets = cache ? nm_kv_item_rows(r, cache, new_offsets) : new_offsets,
                     .k_offsets = memory_offsets, .scale = 1 };
    if (!nm_run_ok(r) || !distances(r, &w->decoder, c, false, &mask))
        return (nm_tensor){ 0 };
    nm_observe(r, x, "decoder_hidden.0");
    for (int i = 0; i < c->decoder_layers && nm_run_ok(r); i++) {
        const nm_t5_layer_w *l = &w->decoder.layer[i];
        nm_arena_mark mark = nm_mark(r);
        x = self_attention(r, x, &l->self, c, &mask, cache, i, parent);
        x = cross_attention(r, x, &l->cross, c, memory[i], &look);
        x = feed_forward(r, x, l, c);
        nm_reset(r, mark);
        nm_observe(r, x, "decoder_hidden.%d", i + 1);
    }
    if (cache)
        nm_kv_end(cache);
    return nm_run_ok(r) ? x : (nm_tensor){ 0 };
}

nm_tensor nm_t5_logits(nm_run *r, const nm_t5_w *w, const nm_t5_cfg *c, nm_tensor x)
{
    x = nm_rmsnorm_f32(r, x, &w->decoder.final_layer_norm, c->eps);
    if (c->logits_scale != 1)
        x = nm_times(r, x, c->logits_scale);
    return nm_matmul_w(r, x, &w->lm_head, (nm_epilogue){ .f32 = true });
}
