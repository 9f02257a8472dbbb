/* qformer.c - see qformer.h. Sources: salesforce/LAVIS lavis/models/blip2_models/Qformer.py, blip2_qformer.py; transformers
 * modeling_blip_2.py (Blip2QFormerModel).
 *
 * Easy to get wrong: the norm of the embeddings covers the queries too; text positions start at 0 behind the queries; which layers
 * have cross-attention follows from the file. */
#include "models/qformer.h"

#include <stdlib.h>
#include <string.h>

bool nm_qformer_alloc(nm_qformer_w *w, const nm_qformer_cfg *c)
{
    w->layer = calloc((size_t)c->layers + 1, sizeof *w->layer);
    return w->layer != NULL;
}

void nm_qformer_free(nm_qformer_w *w)
{
    free(w->layer);
    w->layer = NULL;
}

/* ---- declaring ---- */

static nm_names same(const char *name) { return (nm_names){ { name, name, name } }; }
static nm_names two(const char *official, const char *hf) { return (nm_names){ { official, hf, official } }; }

static void linear(nm_params *p, nm_linear_w *w, int64_t out, int64_t in, nm_names weight, nm_names bias)
{
    nm_linear_params(p, w, out, in, weight, bias, 0.02f, 0);
}

static void output_params(nm_params *p, nm_linear_w *w, nm_norm_w *norm, int64_t width, int64_t in, const char *module)
{
    size_t mark = nm_params_push(p, same(module), 0);
    linear(p, w, width, in, same("dense.weight"), same("dense.bias"));
    nm_norm_params(p, norm, width, same("LayerNorm.weight"), same("LayerNorm.bias"));
    nm_params_pop(p, mark);
}

static void mlp_params(nm_params *p, nm_qformer_mlp_w *w, const nm_qformer_cfg *c, const char *fc, const char *proj)
{
    size_t mark = nm_params_push(p, same(fc), 0);
    linear(p, &w->fc, c->mlp, c->width, same("dense.weight"), same("dense.bias"));
    nm_params_pop(p, mark);
    output_params(p, &w->proj, &w->norm, c->width, c->mlp, proj);
}

static void layer_params(nm_params *p, nm_qformer_layer_w *w, const nm_qformer_cfg *c)
{
    int64_t width = c->width;
    size_t mark = nm_params_push(p, two("attention.self.", "attention.attention."), 0);
    linear(p, &w->qkv, 3 * width, width, same("query.weight|key.weight|value.weight"), same("query.bias|key.bias|value.bias"));
    nm_params_pop(p, mark);
    output_params(p, &w->out, &w->norm, width, width, "attention.output.");
    if (w->cross) {
        mark = nm_params_push(p, two("crossattention.self.", "crossattention.attention."), 0);
        linear(p, &w->look.q, width, width, same("query.weight"), same("query.bias"));
        linear(p, &w->look.kv, 2 * width, c->cross_width, same("key.weight|value.weight"), same("key.bias|value.bias"));
        nm_params_pop(p, mark);
        output_params(p, &w->look.out, &w->look_norm, width, width, "crossattention.output.");
    }
    if (c->vocab_size)
        mlp_params(p, &w->text, c, "intermediate.", "output.");
    mlp_params(p, &w->query, c, "intermediate_query.", "output_query.");
}

void nm_qformer_params(nm_params *p, nm_qformer_w *w, const nm_qformer_cfg *c)
{
    nm_param(p, &w->query_tokens, NM_SHAPE(1, c->queries, c->width), same("query_tokens"), NM_NORMAL(0.02f), NM_DECAY | NM_AS_F32);
    if (c->vocab_size) {
        nm_param(p, &w->word, NM_SHAPE(c->vocab_size, c->width), two("Qformer.bert.embeddings.word_embeddings.weight", "embeddings.word_embeddings.weight"),
                 NM_NORMAL(0.02f), NM_DECAY);
        nm_param(p, &w->position, NM_SHAPE(c->max_positions, c->width),
                 two("Qformer.bert.embeddings.position_embeddings.weight", "embeddings.position_embeddings.weight"), NM_NORMAL(0.02f),
                 NM_DECAY | NM_AS_F32);
    }
    nm_norm_params(p, &w->norm, c->width, two("Qformer.bert.embeddings.LayerNorm.weight", "qformer.layernorm.weight"),
                   two("Qformer.bert.embeddings.LayerNorm.bias", "qformer.layernorm.bias"));
    for (int i = 0; i < c->layers; i++) {
        size_t mark = nm_params_push(p, two("Qformer.bert.encoder.layer.%d.", "qformer.encoder.layer.%d."), i);
        layer_params(p, &w->layer[i], c);
        nm_params_pop(p, mark);
    }
    if (c->head) {
        nm_med_cfg head = { .width = c->width, .vocab_size = c->vocab_size };
        size_t mark = nm_params_push(p, two("Qformer.", "qformer."), 0);
        nm_med_head_params(p, &w->head, &head);
        nm_params_pop(p, mark);
    }
}

bool nm_qformer_ready(nm_qformer_w *w, const nm_qformer_cfg *c)
{
    nm_med_cfg head = { .width = c->width, .vocab_size = c->vocab_size };
    nm_med_w body = { .word = { .shape = w->word.shape, .n_parts = w->word.n_parts, .part = { w->word.part[0] }, .transposed = w->word.transposed } };
    return !c->head || nm_med_head_ready(&w->head, &body, &head);
}

/* ---- forward ---- */

/* What one pass through the layers needs besides its rows. */
typedef struct pass {
    const nm_qformer_cfg *c;
    const nm_qformer_input *in;
    int64_t *queries;       /* [items + 1]: query rows of each item */
    int64_t *joint;         /* rows of (queries, text), put side by side item by item */
    int64_t *joint_offsets; /* [items + 1] */
    int64_t n_joint;
} pass;

static bool layout(nm_run *r, pass *p)
{
    const nm_qformer_input *in = p->in;
    int64_t q = p->c->queries, n = in->items, at = 0;
    p->queries = nm_every_row(r, n + 1, q, 0);
    if (!in->text || n == 0)
        return nm_run_ok(r);
    p->n_joint = n * q + in->text->rows;
    p->joint = nm_scratch(r, (size_t)p->n_joint * sizeof *p->joint);
    p->joint_offsets = nm_scratch(r, (size_t)(n + 1) * sizeof *p->joint_offsets);
    if (nm_run_ok(r) && in->text->n != n)
        nm_run_fail(r, NOEMA_E_INTERNAL, "%lld texts for %lld sets of queries", (long long)in->text->n, (long long)n);
    if (!nm_run_ok(r))
        return false;
    for (int64_t i = 0; i < n; i++) {
        p->joint_offsets[i] = at;
        for (int64_t j = 0; j < q; j++)
            p->joint[at++] = i * q + j;
        for (int64_t j = in->text->offsets[i]; j < in->text->offsets[i + 1]; j++)
            p->joint[at++] = n * q + j;
    }
    p->joint_offsets[n] = at;
    return true;
}

/* Both kinds of rows as the reference has them: [items, rows, width] where all items are equally long. */
static void observe(nm_run *r, const pass *p, nm_qformer_states x, const char *name, int layer)
{
    if (!r->observe || !nm_run_ok(r))
        return;
    const nm_qformer_input *in = p->in;
    nm_tensor all = p->joint ? nm_join_rows(r, x.query, x.text, p->joint, p->n_joint) : x.query.data ? x.query : x.text;
    const int64_t *offsets = p->joint ? p->joint_offsets : x.query.data ? p->queries : in->text->offsets;
    int64_t n = in->items ? in->items : in->text->n, length = n ? offsets[1] - offsets[0] : 0;
    bool even = all.data != NULL;
    for (int64_t i = 0; even && i < n; i++)
        even = offsets[i + 1] - offsets[i] == length;
    nm_observe(r, even ? nm_reshape(all, NM_SHAPE(n, length, all.shape[1])) : all, name, layer);
}

static nm_tensor attention_out(nm_run *r, nm_tensor x, nm_tensor a, const nm_linear_w *out, const nm_norm_w *norm, float eps)
{
    return nm_layernorm_f32(r, nm_linear(r, a, out, (nm_epilogue){ .residual = &x }), norm, eps);
}

/* Attention of rows h [rows, 3 width] over keys and values kv [.., 2 width]. */
static nm_tensor attend(nm_run *r, const pass *p, nm_tensor h, nm_tensor kv, const nm_mask *mask)
{
    int64_t width = p->c->width;
    return h.data && kv.data ? nm_attention(r, nm_cols(h, 0, width), nm_cols(kv, 0, width), nm_cols(kv, width, 2 * width), p->c->heads, mask)
                             : (nm_tensor){ 0 };
}

static nm_qformer_states self_attention(nm_run *r, const pass *p, nm_qformer_states x, const nm_qformer_layer_w *w, int layer)
{
    const nm_qformer_input *in = p->in;
    int64_t width = p->c->width, n = in->items;
    bool queries = n > 0, text = in->text != NULL;
    nm_tensor hq = { 0 }, ht = { 0 }, joint = { 0 };
    if (queries)
        hq = nm_linear(r, x.query, &w->qkv, (nm_epilogue){ 0 });
    if (text)
        ht = nm_linear(r, x.text, &w->qkv, (nm_epilogue){ 0 });
    if (!nm_run_ok(r))
        return (nm_qformer_states){ 0 };
    nm_tensor own_q = queries ? nm_cols(hq, width, 3 * width) : hq, own_t = text ? nm_cols(ht, width, 3 * width) : ht;
    if (queries && text)
        joint = nm_join_rows(r, own_q, own_t, p->joint, p->n_joint);
    if (in->cache)
        nm_kv_extend(in->cache, layer, own_q, NULL, p->queries);
    if (queries) {
        bool all = text && !in->blind;
        nm_mask m = { .n_seq = n, .q_offsets = p->queries, .k_offsets = all ? p->joint_offsets : p->queries };
        x.query = attention_out(r, x.query, attend(r, p, hq, all ? joint : own_q, &m), &w->out, &w->norm, p->c->eps);
    }
    if (text) {
        nm_mask m = { .causal = in->blind, .n_seq = in->text->n, .q_offsets = in->text->offsets,
                      .k_offsets = queries ? p->joint_offsets : in->text->offsets };
        x.text = attention_out(r, x.text, attend(r, p, ht, queries ? joint : own_t, &m), &w->out, &w->norm, p->c->eps);
    }
    return x;
}

static nm_tensor look_at_picture(nm_run *r, const pass *p, nm_tensor x, const nm_qformer_layer_w *w, int layer)
{
    const nm_med_context *t = p->in->image;
    int64_t width = p->c->width;
    nm_mask mask = { .n_seq = t->n, .q_offsets = t->q_offsets, .k_offsets = t->k_offsets };
    nm_tensor q = nm_linear(r, x, &w->look.q, (nm_epilogue){ 0 }), kv = t->kv ? t->kv[layer] : nm_linear(r, t->states, &w->look.kv, (nm_epilogue){ 0 });
    if (!kv.data)
        return kv;
    nm_tensor a = nm_attention(r, q, nm_cols(kv, 0, width), nm_cols(kv, width, 2 * width), p->c->heads, &mask);
    return attention_out(r, x, a, &w->look.out, &w->look_norm, p->c->eps);
}

static nm_tensor feed_forward(nm_run *r, nm_tensor x, const nm_qformer_mlp_w *w, const nm_qformer_cfg *c)
{
    nm_tensor h = nm_linear(r, x, &w->fc, (nm_epilogue){ .act = c->act }); /* [rows, mlp] */
    return nm_layernorm_f32(r, nm_linear(r, h, &w->proj, (nm_epilogue){ .residual = &x }), &w->norm, c->eps);
}

static nm_qformer_states one_layer(nm_run *r, const pass *p, nm_qformer_states x, const nm_qformer_layer_w *w, int layer)
{
    x = self_attention(r, p, x, w, layer);
    observe(r, p, x, "layer.%d.after_self_attention", layer);
    if (x.query.data && w->cross) {
        x.query = look_at_picture(r, p, x.query, w, layer);
        if (r->observe && x.query.data)
            nm_observe(r, nm_reshape(x.query, NM_SHAPE(p->in->items, p->c->queries, p->c->width)), "layer.%d.query_after_cross_attention", layer);
    }
    if (x.query.data)
        x.query = feed_forward(r, x.query, &w->query, p->c);
    if (x.text.data)
        x.text = feed_forward(r, x.text, &w->text, p->c);
    return x;
}

/* In inference a layer's result is copied over its input, so that the arena holds one layer. */
static nm_tensor keep(nm_run *r, nm_tensor x, nm_tensor y)
{
    if (!r->tape && y.data && x.data) {
        memcpy(x.data, y.data, (size_t)nm_numel(&y) * sizeof(float));
        return x;
    }
    return y;
}

static nm_tensor query_rows(nm_run *r, const nm_qformer_w *w, const nm_qformer_cfg *c, int64_t items)
{
    int32_t *row = nm_scratch(r, (size_t)(items * c->queries) * sizeof *row + 1);
    for (int64_t i = 0; row && i < items * c->queries; i++)
        row[i] = (int32_t)(i % c->queries);
    return row ? nm_layernorm_f32(r, nm_embedding(r, row, items * c->queries, &w->query_tokens, NULL, NULL), &w->norm, c->eps) : (nm_tensor){ 0 };
}

nm_qformer_states nm_qformer_forward(nm_run *r, const nm_qformer_w *w, const nm_qformer_cfg *c, const nm_qformer_input *in)
{
    pass p = { .c = c, .in = in };
    nm_qformer_states x = { 0 };
    if (!nm_run_ok(r) || !layout(r, &p))
        return x;
    if (in->text && !c->vocab_size) {
        nm_run_fail(r, NOEMA_E_UNSUPPORTED, "this checkpoint's Q-Former has no text layers (intermediate, output): it takes no text");
        return x;
    }
    if (in->cache && !nm_kv_begin(r, in->cache, in->items, NULL, p.queries))
        return x;
    if (in->items)
        x.query = query_rows(r, w, c, in->items);
    if (in->text)
        x.text = nm_layernorm_f32(r, nm_embedding(r, in->text->ids, in->text->rows, &w->word, in->text->pos, &w->position), &w->norm, c->eps);
    observe(r, &p, x, "embeddings", 0);
    for (int i = 0; i < c->layers && nm_run_ok(r); i++) {
        nm_arena_mark mark = nm_mark(r);
        nm_qformer_states y = one_layer(r, &p, x, &w->layer[i], i);
        x.query = keep(r, x.query, y.query);
        x.text = keep(r, x.text, y.text);
        nm_reset(r, mark);
        observe(r, &p, x, "layer.%d", i);
    }
    if (in->cache)
        nm_kv_end(in->cache);
    return nm_run_ok(r) ? x : (nm_qformer_states){ 0 };
}

nm_tensor *nm_qformer_project(nm_run *r, const nm_qformer_w *w, const nm_qformer_cfg *c, nm_tensor states)
{
    nm_tensor *kv = nm_scratch(r, (size_t)c->layers * sizeof *kv);
    for (int i = 0; kv && i < c->layers; i++)
        kv[i] = w->layer[i].cross ? nm_linear(r, states, &w->layer[i].look.kv, (nm_epilogue){ 0 }) : (nm_tensor){ 0 };
    return nm_run_ok(r) ? kv : NULL;
}

nm_tensor nm_qformer_step(nm_run *r, const nm_qformer_w *w, const nm_qformer_cfg *c, nm_kv_cache *k, int64_t n, const int64_t *parent,
                          const int32_t *ids, const int64_t *new_offsets)
{
    int64_t rows = new_offsets[n], width = c->width;
    pass p = { .c = c };
    if (!nm_kv_begin(r, k, n, parent, new_offsets))
        return (nm_tensor){ 0 };
    int32_t *pos = nm_kv_positions(r, k, new_offsets);
    for (int64_t i = 0; pos && i < rows; i++)
        pos[i] -= c->queries;
    nm_tensor x = nm_layernorm_f32(r, nm_embedding(r, ids, rows, &w->word, pos, &w->position), &w->norm, c->eps);
    nm_mask mask = { .causal = true, .n_seq = n, .q_offsets = new_offsets, .k_offsets = nm_kv_offsets(k) };
    for (int i = 0; i < c->layers && nm_run_ok(r); i++) {
        const nm_qformer_layer_w *l = &w->layer[i];
        nm_arena_mark mark = nm_mark(r);
        nm_tensor h = nm_linear(r, x, &l->qkv, (nm_epilogue){ 0 });
        nm_tensor kv = h.data ? nm_kv_extend(k, i, nm_cols(h, width, 3 * width), parent, new_offsets) : h;
        nm_tensor y = attention_out(r, x, attend(r, &p, h, kv, &mask), &l->out, &l->norm, c->eps);
        x = keep(r, x, feed_forward(r, y, &l->text, c));
        nm_reset(r, mark);
    }
    nm_kv_end(k);
    return nm_run_ok(r) ? x : (nm_tensor){ 0 };
}

nm_tensor nm_qformer_logits(nm_run *r, const nm_qformer_w *w, const nm_qformer_cfg *c, nm_tensor x)
{
    nm_med_cfg head = { .width = c->width, .vocab_size = c->vocab_size, .act = c->act, .eps = c->eps };
    return nm_med_logits(r, &w->head, &head, x);
}
