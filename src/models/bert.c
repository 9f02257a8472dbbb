/* bert.c - see bert.h. Sources: transformers modeling_bert.py, modeling_xlm_roberta.py, modeling_mpnet.py; BLIP models/med.py for
 * the cross-attention. */
#include "models/bert.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/tape.h"

bool nm_bert_alloc(nm_bert_w *w, const nm_bert_cfg *c)
{
    w->layers_w = calloc((size_t)c->layers + 1, sizeof *w->layers_w);
    return w->layers_w != NULL;
}

void nm_bert_free(nm_bert_w *w)
{
    free(w->layers_w);
    w->layers_w = NULL;
}

/* ---- declaring ---- */

static const nm_names ln_weight = { { "LayerNorm.weight", "LayerNorm.gamma" } }, ln_bias = { { "LayerNorm.bias", "LayerNorm.beta" } };

static nm_names both(const char *name) { return (nm_names){ { name, name } }; }

static void linear(nm_params *p, nm_linear_w *w, int64_t out, int64_t in, const char *weight, const char *bias)
{
    nm_linear_params(p, w, out, in, both(weight), both(bias), 0.02f, 0);
}

static void output_params(nm_params *p, nm_linear_w *w, nm_norm_w *norm, int64_t width, int64_t in, const char *module)
{
    size_t mark = nm_params_push(p, both(module), 0);
    linear(p, w, width, in, "dense.weight", "dense.bias");
    nm_norm_params(p, norm, width, ln_weight, ln_bias);
    nm_params_pop(p, mark);
}

static void layer_params(nm_params *p, nm_bert_layer_w *w, const nm_bert_cfg *c)
{
    int64_t width = c->width;
    if (c->mpnet) {
        linear(p, &w->self.qkv, 3 * width, width, "attention.attn.q.weight|attention.attn.k.weight|attention.attn.v.weight",
               "attention.attn.q.bias|attention.attn.k.bias|attention.attn.v.bias");
        linear(p, &w->self.out, width, width, "attention.attn.o.weight", "attention.attn.o.bias");
        nm_norm_params(p, &w->self.norm, width, both("attention.LayerNorm.weight"), both("attention.LayerNorm.bias"));
    } else {
        linear(p, &w->self.qkv, 3 * width, width, "attention.self.query.weight|attention.self.key.weight|attention.self.value.weight",
               "attention.self.query.bias|attention.self.key.bias|attention.self.value.bias");
        output_params(p, &w->self.out, &w->self.norm, width, width, "attention.output.");
    }
    if (c->cross_width > 0) {
        linear(p, &w->cross.q, width, width, "crossattention.self.query.weight", "crossattention.self.query.bias");
        linear(p, &w->cross.kv, 2 * width, c->cross_width, "crossattention.self.key.weight|crossattention.self.value.weight",
               "crossattention.self.key.bias|crossattention.self.value.bias");
        output_params(p, &w->cross.out, &w->cross.norm, width, width, "crossattention.output.");
    }
    linear(p, &w->fc, c->mlp, width, "intermediate.dense.weight", "intermediate.dense.bias");
    output_params(p, &w->proj, &w->norm, width, c->mlp, "output.");
}

static void positions(nm_params *p, nm_bert_w *w, const nm_bert_cfg *c)
{
    nm_param(p, &w->position, NM_SHAPE(c->max_positions, c->width), both("position_embeddings.weight"), NM_NORMAL(0.02f), NM_NO_DECAY | NM_AS_F32);
}

void nm_bert_params(nm_params *p, nm_bert_w *w, const nm_bert_cfg *c)
{
    size_t mark = nm_params_push(p, both("embeddings."), 0);
    nm_param(p, &w->word, NM_SHAPE(c->vocab_size, c->width), both("word_embeddings.weight"), NM_NORMAL(0.02f), NM_DECAY);
    if (!c->roberta_positions)
        positions(p, w, c);
    if (c->type_vocab > 0)
        nm_param(p, &w->type, NM_SHAPE(c->type_vocab, c->width), both("token_type_embeddings.weight"), NM_NORMAL(0.02f), NM_NO_DECAY | NM_AS_F32);
    nm_norm_params(p, &w->norm, c->width, ln_weight, ln_bias);
    if (c->roberta_positions) /* in the order of transformers 5, which numbers an optimizer's state */
        positions(p, w, c);
    nm_params_pop(p, mark);
    for (int i = 0; i < c->layers; i++) {
        mark = nm_params_push(p, both("encoder.layer.%d."), i);
        layer_params(p, &w->layers_w[i], c);
        nm_params_pop(p, mark);
    }
    if (c->mpnet)
        nm_param(p, &w->relative_bias, NM_SHAPE(c->bias_buckets, c->heads), both("encoder.relative_attention_bias.weight"), NM_NORMAL(0.02f),
                 NM_NO_DECAY | NM_AS_F32);
    if (c->pooler)
        linear(p, &w->pooler, c->width, c->width, "pooler.dense.weight", "pooler.dense.bias");
}

/* ---- rows ---- */

static int64_t text_rows(nm_bert_rows *l, const nm_texts *t, int64_t i, int64_t row, const nm_bert_cfg *c, int64_t padded)
{
    int64_t begin = t->offsets[i], n = t->offsets[i + 1] - begin, used = 0, number = 0;
    for (int64_t j = 0; j < (padded ? padded : n); j++) {
        int32_t id = j < n ? t->ids[begin + j] : c->pad_id;
        bool pad = id == c->pad_id;
        number += !pad;
        if (pad && !padded)
            continue;
        if (l->ids) {
            l->ids[row + used] = id;
            l->pos[row + used] = (int32_t)(!c->roberta_positions ? j : pad ? c->pad_id : c->pad_id + number);
            if (padded)
                l->key_bias[row + used] = pad ? -INFINITY : 0;
        }
        used++;
    }
    return used;
}

bool nm_bert_layout(nm_run *r, nm_bert_rows *l, const nm_texts *t, const nm_bert_cfg *c, int64_t padded_length)
{
    *l = (nm_bert_rows){ .n = t->n };
    int64_t row = 0;
    for (int64_t i = 0; i < t->n; i++)
        row += text_rows(l, t, i, row, c, padded_length);
    l->rows = row;
    l->ids = nm_scratch(r, (size_t)row * sizeof *l->ids);
    l->pos = nm_scratch(r, (size_t)row * sizeof *l->pos);
    l->offsets = nm_scratch(r, (size_t)(t->n + 1) * sizeof *l->offsets);
    l->key_bias = padded_length ? nm_scratch(r, (size_t)row * sizeof *l->key_bias) : NULL;
    if (!nm_run_ok(r))
        return false;
    row = 0;
    for (int64_t i = 0; i < t->n; i++) {
        l->offsets[i] = row;
        if (l->ids)
            row += text_rows(l, t, i, row, c, padded_length);
        if (row == l->offsets[i]) {
            nm_run_fail(r, NOEMA_E_ARGUMENT, "text %lld has no tokens", (long long)i);
            return false;
        }
    }
    l->offsets[t->n] = row;
    return true;
}

/* ---- forward ---- */

/* Every token is of type 0. */
static nm_tensor add_type(nm_run *r, nm_tensor x, const nm_bert_w *w, const nm_bert_cfg *c, int64_t rows)
{
    if (r->tape) {
        int32_t *zeros = nm_scratch(r, (size_t)rows * sizeof *zeros);
        if (!zeros)
            return (nm_tensor){ 0 };
        memset(zeros, 0, (size_t)rows * sizeof *zeros);
        return nm_add(r, x, nm_embedding(r, zeros, rows, &w->type, NULL, NULL));
    }
    for (int64_t i = 0; i < rows; i++) {
        float *row = (float *)x.data + i * c->width;
        r->kn->elementwise.add(c->width, row, w->type.f32, row);
    }
    return x;
}

nm_tensor nm_bert_embed(nm_run *r, const nm_bert_w *w, const nm_bert_cfg *c, const nm_bert_rows *l)
{
    nm_tensor x = nm_embedding(r, l->ids, l->rows, &w->word, l->pos, &w->position);
    if (x.data && c->type_vocab > 0)
        x = add_type(r, x, w, c, l->rows);
    x = nm_layernorm_f32(r, x, &w->norm, c->eps);
    if (x.data && l->key_bias)
        nm_observe(r, nm_reshape(x, NM_SHAPE(l->n, l->rows / l->n, c->width)), "embeddings");
    return x;
}

static nm_tensor self_attention(nm_run *r, nm_tensor x, const nm_bert_attention_w *w, const nm_bert_cfg *c, const nm_mask *mask)
{
    int64_t width = c->width;
    nm_tensor h = nm_linear(r, x, &w->qkv, (nm_epilogue){ 0 }); /* [rows, 3 width] */
    if (!h.data)
        return h;
    nm_tensor a = nm_attention(r, nm_cols(h, 0, width), nm_cols(h, width, 2 * width), nm_cols(h, 2 * width, 3 * width), c->heads, mask);
    return nm_layernorm_f32(r, nm_linear(r, a, &w->out, (nm_epilogue){ .residual = &x }), &w->norm, c->eps);
}

static nm_tensor cross_attention(nm_run *r, nm_tensor x, nm_tensor context, const nm_bert_attention_w *w, const nm_bert_cfg *c, const nm_mask *mask)
{
    int64_t width = c->width;
    nm_tensor q = nm_linear(r, x, &w->q, (nm_epilogue){ 0 }), kv = nm_linear(r, context, &w->kv, (nm_epilogue){ 0 });
    if (!kv.data)
        return kv;
    nm_tensor a = nm_attention(r, q, nm_cols(kv, 0, width), nm_cols(kv, width, 2 * width), c->heads, mask);
    return nm_layernorm_f32(r, nm_linear(r, a, &w->out, (nm_epilogue){ .residual = &x }), &w->norm, c->eps);
}

static nm_tensor bert_layer(nm_run *r, nm_tensor x, const nm_bert_layer_w *w, const nm_bert_cfg *c, const nm_mask *mask, const nm_tensor *context,
                            const nm_mask *cross)
{
    x = self_attention(r, x, &w->self, c, mask);
    if (context)
        x = cross_attention(r, x, *context, &w->cross, c, cross);
    nm_tensor h = nm_linear(r, x, &w->fc, (nm_epilogue){ .act = c->act });
    return nm_layernorm_f32(r, nm_linear(r, h, &w->proj, (nm_epilogue){ .residual = &x }), &w->norm, c->eps);
}

typedef struct segment { const nm_bert_layer_w *w; const nm_bert_cfg *c; nm_mask mask; } segment;

static nm_tensor run_segment(nm_run *r, nm_tensor x, void *arg)
{
    const segment *s = arg;
    return bert_layer(r, x, s->w, s->c, &s->mask, NULL, NULL);
}

static nm_tensor checkpointed(nm_run *r, nm_tensor x, const nm_bert_layer_w *w, const nm_bert_cfg *c, const nm_mask *mask)
{
    segment *s = NM_SAVE(r, segment, w, c, nm_mask_save(r, mask));
    return s ? nm_checkpoint(r, x, run_segment, s) : (nm_tensor){ 0 };
}

nm_tensor nm_bert_layers(nm_run *r, const nm_bert_w *w, const nm_bert_cfg *c, nm_tensor x, const nm_mask *mask, const nm_tensor *context,
                         const nm_mask *cross)
{
    if (!x.data)
        return x;
    /* in inference each layer's result is copied over its input, so that the arena holds one layer */
    nm_tensor keep = r->tape ? x : nm_new(r, NM_F32, NM_SHAPE(x.shape[0], x.shape[1]));
    for (int i = 0; i < c->layers && nm_run_ok(r); i++) {
        nm_arena_mark mark = nm_mark(r);
        bool again = r->checkpoint && r->tape && !context && !(mask && (mask->key_bias || mask->bias || mask->bias_tensor));
        nm_tensor y = again ? checkpointed(r, x, &w->layers_w[i], c, mask) : bert_layer(r, x, &w->layers_w[i], c, mask, context, cross);
        if (!r->tape && y.data && keep.data) {
            memcpy(keep.data, y.data, (size_t)nm_numel(&y) * sizeof(float));
            y = keep;
        }
        nm_reset(r, mark);
        x = y;
        if (mask && mask->key_bias && x.data)
            nm_observe(r, nm_reshape(x, NM_SHAPE(mask->n_seq, x.shape[0] / mask->n_seq, c->width)), "layer.%d", i);
    }
    return nm_run_ok(r) ? x : (nm_tensor){ 0 };
}

/* T5's buckets as MPNet has them: half for each direction, exact below a quarter, logarithmic up to 128. */
static int bucket(int64_t relative, int buckets)
{
    int half = buckets / 2, at = relative < 0 ? half : 0; /* transformers: n = -(key - query), ret for n < 0 */
    int64_t n = relative < 0 ? -relative : relative;
    int exact = half / 2;
    if (n < exact)
        return at + (int)n;
    int large = exact + (int)(logf((float)n / (float)exact) / logf(128.0f / (float)exact) * (float)(half - exact));
    return at + (large < half - 1 ? large : half - 1);
}

/* bias [heads, longest, longest] shared by all texts: it depends on distances only. */
static bool relative_bias(nm_run *r, const nm_bert_w *w, const nm_bert_cfg *c, const nm_bert_rows *l, nm_mask *mask)
{
    int64_t longest = 0;
    for (int64_t i = 0; i < l->n; i++)
        longest = l->offsets[i + 1] - l->offsets[i] > longest ? l->offsets[i + 1] - l->offsets[i] : longest;
    float *b = nm_scratch(r, (size_t)(c->heads * longest * longest) * sizeof *b);
    if (!b)
        return false;
    for (int64_t q = 0; q < longest; q++)
        for (int64_t k = 0; k < longest; k++) {
            const float *row = w->relative_bias.f32 + (int64_t)bucket(q - k, c->bias_buckets) * c->heads;
            for (int h = 0; h < c->heads; h++)
                b[(h * longest + q) * longest + k] = row[h];
        }
    mask->bias = b;
    mask->bias_head = longest * longest;
    mask->bias_row = longest;
    return true;
}

nm_tensor nm_bert_encode(nm_run *r, const nm_bert_w *w, const nm_bert_cfg *c, const nm_bert_rows *l)
{
    nm_mask mask = { .causal = c->causal, .n_seq = l->n, .q_offsets = l->offsets, .k_offsets = l->offsets, .key_bias = l->key_bias };
    if (c->mpnet && !relative_bias(r, w, c, l, &mask))
        return (nm_tensor){ 0 };
    return nm_bert_layers(r, w, c, nm_bert_embed(r, w, c, l), &mask, NULL, NULL);
}

nm_tensor nm_bert_first(nm_run *r, nm_tensor x, const nm_bert_rows *l) { return nm_gather_rows(r, x, l->offsets, l->n); }

nm_tensor nm_bert_pooled(nm_run *r, const nm_bert_w *w, nm_tensor x, const nm_bert_rows *l)
{
    return nm_linear(r, nm_bert_first(r, x, l), &w->pooler, (nm_epilogue){ .act = NM_ACT_TANH, .f32 = true });
}

nm_tensor nm_bert_mean(nm_run *r, nm_tensor x, const nm_bert_rows *l)
{
    if (!l->key_bias)
        return nm_mean_rows(r, x, l->offsets, l->n);
    /* padded for an observer: the mean leaves the pads out */
    int64_t *rows = nm_scratch(r, (size_t)l->rows * sizeof *rows), *offsets = nm_scratch(r, (size_t)(l->n + 1) * sizeof *offsets), k = 0;
    for (int64_t i = 0; rows && offsets && i < l->n; i++) {
        offsets[i] = k;
        for (int64_t j = l->offsets[i]; j < l->offsets[i + 1]; j++)
            if (l->key_bias[j] == 0)
                rows[k++] = j;
    }
    if (!rows || !offsets)
        return (nm_tensor){ 0 };
    offsets[l->n] = k;
    return nm_mean_rows(r, nm_gather_rows(r, x, rows, k), offsets, l->n);
}
