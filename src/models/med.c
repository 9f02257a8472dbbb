/* med.c - see med.h. Sources: salesforce/BLIP models/med.py and models/nlvr_encoder.py; transformers modeling_blip_text.py.
 *
 * Easy to get wrong: each LayerNorm belongs to its own output module; text mode skips cross-attention instead of attending to
 * nothing; merge_layer has no activation behind it. */
#include "models/med.h"

#include <stdlib.h>
#include <string.h>

bool nm_med_alloc(nm_med_w *w, const nm_med_cfg *c)
{
    w->layer = calloc((size_t)c->layers + 1, sizeof *w->layer);
    return w->layer != NULL;
}

void nm_med_free(nm_med_w *w)
{
    free(w->layer);
    w->layer = NULL;
}

/* ---- declaring: the official files and transformers use the same names ---- */

static nm_names same(const char *name) { return (nm_names){ { name, name, name, name } }; }

static void linear(nm_params *p, nm_linear_w *w, int64_t out, int64_t in, const char *weight, const char *bias)
{
    nm_linear_params(p, w, out, in, same(weight), same(bias), 0.02f, 0);
}

static void norm(nm_params *p, nm_norm_w *w, int64_t width) { nm_norm_params(p, w, width, same("LayerNorm.weight"), same("LayerNorm.bias")); }

static void output_params(nm_params *p, nm_linear_w *w, nm_norm_w *ln, int64_t width, int64_t in, const char *module)
{
    size_t mark = nm_params_push(p, same(module), 0);
    linear(p, w, width, in, "dense.weight", "dense.bias");
    norm(p, ln, width);
    nm_params_pop(p, mark);
}

static void cross_params(nm_params *p, nm_med_cross_w *w, const nm_med_cfg *c, const char *module)
{
    size_t mark = nm_params_push(p, same(module), 0);
    linear(p, &w->q, c->width, c->width, "query.weight", "query.bias");
    linear(p, &w->kv, 2 * c->width, c->cross_width, "key.weight|value.weight", "key.bias|value.bias");
    nm_params_pop(p, mark);
}

static void twin_params(nm_params *p, nm_med_layer_w *w, const nm_med_cfg *c, bool merge)
{
    int64_t width = c->width;
    cross_params(p, &w->cross[0], c, "crossattention.self0.");
    cross_params(p, &w->cross[1], c, "crossattention.self1.");
    size_t mark = nm_params_push(p, same("crossattention.output."), 0);
    linear(p, &w->cross[0].out, width, width, "dense0.weight", "dense0.bias");
    linear(p, &w->cross[1].out, width, width, "dense1.weight", "dense1.bias");
    if (merge)
        linear(p, &w->merge, width, 2 * width, "merge_layer.weight", "merge_layer.bias");
    norm(p, &w->cross_norm, width);
    nm_params_pop(p, mark);
}

static void layer_params(nm_params *p, nm_med_layer_w *w, const nm_med_cfg *c, int index)
{
    int64_t width = c->width;
    linear(p, &w->qkv, 3 * width, width, "attention.self.query.weight|attention.self.key.weight|attention.self.value.weight",
           "attention.self.query.bias|attention.self.key.bias|attention.self.value.bias");
    output_params(p, &w->out, &w->norm, width, width, "attention.output.");
    if (c->twin)
        twin_params(p, w, c, index >= c->merge_from);
    else if (c->cross_width > 0) {
        cross_params(p, &w->cross[0], c, "crossattention.self.");
        output_params(p, &w->cross[0].out, &w->cross_norm, width, width, "crossattention.output.");
    }
    linear(p, &w->fc, c->mlp, width, "intermediate.dense.weight", "intermediate.dense.bias");
    output_params(p, &w->proj, &w->mlp_norm, width, c->mlp, "output.");
}

void nm_med_params(nm_params *p, nm_med_w *w, const nm_med_cfg *c)
{
    size_t mark = nm_params_push(p, same("embeddings."), 0);
    nm_param(p, &w->word, NM_SHAPE(c->vocab_size, c->width), same("word_embeddings.weight"), NM_NORMAL(0.02f), NM_DECAY);
    nm_param(p, &w->position, NM_SHAPE(c->max_positions, c->width), same("position_embeddings.weight"), NM_NORMAL(0.02f), NM_DECAY | NM_AS_F32);
    norm(p, &w->norm, c->width);
    nm_params_pop(p, mark);
    for (int i = 0; i < c->layers; i++) {
        mark = nm_params_push(p, same("encoder.layer.%d."), i);
        layer_params(p, &w->layer[i], c, i);
        nm_params_pop(p, mark);
    }
    if (c->pooler)
        linear(p, &w->pooler, c->width, c->width, "pooler.dense.weight", "pooler.dense.bias");
}

void nm_med_head_params(nm_params *p, nm_med_head_w *w, const nm_med_cfg *c)
{
    size_t mark = nm_params_push(p, same("cls.predictions."), 0);
    linear(p, &w->dense, c->width, c->width, "transform.dense.weight", "transform.dense.bias");
    nm_norm_params(p, &w->norm, c->width, same("transform.LayerNorm.weight"), same("transform.LayerNorm.bias"));
    nm_param(p, &w->vocab.weight, NM_SHAPE(c->vocab_size, c->width), same("decoder.weight"), NM_NORMAL(0.02f), NM_DECAY | NM_OPTIONAL);
    nm_param(p, &w->vocab.bias, NM_SHAPE(c->vocab_size), same("decoder.bias"), NM_ZEROS, NM_NO_DECAY | NM_OPTIONAL);
    nm_param(p, &w->bias, NM_SHAPE(c->vocab_size), same("bias"), NM_ZEROS, NM_NO_DECAY | NM_OPTIONAL);
    nm_params_pop(p, mark);
}

bool nm_med_head_ready(nm_med_head_w *w, const nm_med_w *body, const nm_med_cfg *c)
{
    bool ok = true;
    if (!nm_has(&w->vocab.weight))
        ok = nm_weight_row_view(&w->vocab.weight, &body->word, 0, c->vocab_size);
    if (!nm_has(&w->vocab.bias))
        ok = ok && nm_weight_row_view(&w->vocab.bias, &w->bias, 0, c->vocab_size);
    return ok;
}

/* ---- rows ---- */

bool nm_med_layout(nm_run *r, nm_med_rows *l, const nm_texts *t, int32_t first, int64_t limit)
{
    int64_t total = t->offsets[t->n] - t->offsets[0], row = 0;
    *l = (nm_med_rows){ .n = t->n };
    l->ids = nm_scratch(r, (size_t)total * sizeof *l->ids + 1);
    l->pos = nm_scratch(r, (size_t)total * sizeof *l->pos + 1);
    l->offsets = nm_scratch(r, (size_t)(t->n + 1) * sizeof *l->offsets);
    if (!nm_run_ok(r))
        return false;
    for (int64_t i = 0; i < t->n; i++) {
        const int32_t *ids = t->ids + t->offsets[i];
        int64_t n = t->offsets[i + 1] - t->offsets[i], keep = limit > 0 && n > limit ? limit : n;
        l->offsets[i] = row;
        if (n == 0) {
            nm_run_fail(r, NOEMA_E_ARGUMENT, "text %lld has no tokens", (long long)i);
            return false;
        }
        for (int64_t j = 0; j < keep; j++) {
            l->ids[row] = j == 0 && first >= 0 ? first : j == keep - 1 ? ids[n - 1] : ids[j];
            l->pos[row++] = (int32_t)j;
        }
    }
    l->offsets[t->n] = l->rows = row;
    return true;
}

nm_tensor nm_med_first(nm_run *r, nm_tensor x, const nm_med_rows *l) { return nm_gather_rows(r, x, l->offsets, l->n); }

/* ---- forward ---- */

nm_tensor *nm_med_project(nm_run *r, const nm_med_w *w, const nm_med_cfg *c, nm_tensor states, int which)
{
    nm_tensor *kv = nm_scratch(r, (size_t)c->layers * sizeof *kv);
    for (int i = 0; kv && i < c->layers; i++)
        kv[i] = nm_linear(r, states, &w->layer[i].cross[which].kv, (nm_epilogue){ 0 });
    return nm_run_ok(r) ? kv : NULL;
}

/* What one pass through the layers needs besides x. */
typedef struct pass {
    const nm_med_cfg *c;
    nm_mask self;
    const nm_med_context *context; /* [1] or, twin, [2]; NULL: text mode */
    nm_med_cache *cache;           /* NULL: keys and values are those of the rows themselves */
    const int64_t *parent;
    const nm_med_rows *rows;       /* shape for observers, or NULL */
} pass;

/* Texts of one length are shown as [n, length, width], as the reference has them; others as rows. */
static void observe(nm_run *r, nm_tensor x, const pass *p, const char *name, int index)
{
    const nm_med_rows *l = p->rows;
    if (!r->observe || !x.data || !l)
        return;
    bool even = true;
    for (int64_t i = 0; i < l->n; i++)
        even = even && l->offsets[i + 1] - l->offsets[i] == l->offsets[1];
    nm_observe(r, even ? nm_reshape(x, NM_SHAPE(l->n, l->offsets[1], x.shape[1])) : x, name, index);
}

/* The cache's other side of layer `index`: for each row its parent's keys and values, then its own from h [rows, 3 width]. */
static nm_tensor extend_cache(nm_med_cache *k, int index, nm_tensor h, const int64_t *parent, const int64_t *new_offsets)
{
    int64_t width = k->c->width;
    size_t row = 2 * (size_t)width * nm_dtype_size(h.dtype);
    const int64_t *from = k->offsets[k->side], *to = k->offsets[!k->side];
    const char *old = k->kv[k->side][index];
    char *dst = k->kv[!k->side][index];
    for (int64_t i = 0; i < k->n; i++) {
        int64_t before = parent ? from[parent[i] + 1] - from[parent[i]] : 0;
        if (before)
            memcpy(dst + (size_t)to[i] * row, old + (size_t)from[parent[i]] * row, (size_t)before * row);
        for (int64_t j = new_offsets[i]; j < new_offsets[i + 1]; j++)
            memcpy(dst + (size_t)(to[i] + before + j - new_offsets[i]) * row,
                   (const char *)h.data + (size_t)(j * 3 * width + width) * nm_dtype_size(h.dtype), row);
    }
    return nm_view(dst, h.dtype, NM_SHAPE(to[k->n], 2 * width));
}

static nm_tensor self_attention(nm_run *r, nm_tensor x, const nm_med_layer_w *w, const pass *p, int index)
{
    int64_t width = p->c->width;
    nm_tensor h = nm_linear(r, x, &w->qkv, (nm_epilogue){ 0 }); /* [rows, 3 width] */
    if (!h.data)
        return h;
    nm_tensor kv = p->cache ? extend_cache(p->cache, index, h, p->parent, p->self.q_offsets) : nm_cols(h, width, 3 * width);
    nm_tensor a = nm_attention(r, nm_cols(h, 0, width), nm_cols(kv, 0, width), nm_cols(kv, width, 2 * width), p->c->heads, &p->self);
    return nm_layernorm_f32(r, nm_linear(r, a, &w->out, (nm_epilogue){ .residual = &x }), &w->norm, p->c->eps);
}

static nm_tensor look(nm_run *r, nm_tensor x, const nm_med_cross_w *w, const pass *p, const nm_med_context *t, int index)
{
    int64_t width = p->c->width;
    nm_mask mask = { .n_seq = t->n, .q_offsets = t->q_offsets, .k_offsets = t->k_offsets };
    nm_tensor q = nm_linear(r, x, &w->q, (nm_epilogue){ 0 }), kv = t->kv ? t->kv[index] : nm_linear(r, t->states, &w->kv, (nm_epilogue){ 0 });
    if (t->kv && t->packed)
        mask.packed = kv.data;
    return kv.data ? nm_attention(r, q, nm_cols(kv, 0, width), nm_cols(kv, width, 2 * width), p->c->heads, &mask) : kv;
}

static nm_tensor cross_attention(nm_run *r, nm_tensor x, const nm_med_layer_w *w, const pass *p, int index)
{
    nm_tensor a = look(r, x, &w->cross[0], p, &p->context[0], index);
    if (!p->c->twin)
        return nm_layernorm_f32(r, nm_linear(r, a, &w->cross[0].out, (nm_epilogue){ .residual = &x }), &w->cross_norm, p->c->eps);
    nm_tensor b = look(r, x, &w->cross[1], p, &p->context[1], index);
    a = nm_linear(r, a, &w->cross[0].out, (nm_epilogue){ .f32 = true });
    b = nm_linear(r, b, &w->cross[1].out, (nm_epilogue){ .f32 = true });
    if (nm_has(&w->merge.weight))
        return nm_layernorm_f32(r, nm_linear(r, nm_beside(r, a, b), &w->merge, (nm_epilogue){ .residual = &x }), &w->cross_norm, p->c->eps);
    return nm_layernorm_f32(r, nm_add(r, nm_times(r, nm_add(r, a, b), 0.5f), x), &w->cross_norm, p->c->eps);
}

static nm_tensor one_layer(nm_run *r, nm_tensor x, const nm_med_layer_w *w, const pass *p, int index)
{
    x = self_attention(r, x, w, p, index);
    observe(r, x, p, "layer.%d.after_self_attention", index);
    if (p->context) {
        x = cross_attention(r, x, w, p, index);
        observe(r, x, p, "layer.%d.after_cross_attention", index);
    }
    nm_tensor h = nm_linear(r, x, &w->fc, (nm_epilogue){ .act = p->c->act }); /* [rows, mlp] */
    return nm_layernorm_f32(r, nm_linear(r, h, &w->proj, (nm_epilogue){ .residual = &x }), &w->mlp_norm, p->c->eps);
}

static nm_tensor run_layers(nm_run *r, const nm_med_w *w, nm_tensor x, const pass *p)
{
    x = nm_layernorm_f32(r, x, &w->norm, p->c->eps);
    observe(r, x, p, "embeddings", 0);
    if (!x.data)
        return x;
    /* in inference each layer's result is copied over its input, so that the arena holds one layer */
    for (int i = 0; i < p->c->layers && nm_run_ok(r); i++) {
        nm_arena_mark mark = nm_mark(r);
        nm_tensor y = one_layer(r, x, &w->layer[i], p, i);
        if (!r->tape && y.data) {
            memcpy(x.data, y.data, (size_t)nm_numel(&y) * sizeof(float));
            y = x;
        }
        nm_reset(r, mark);
        x = y;
        observe(r, x, p, "layer.%d", i);
    }
    return nm_run_ok(r) ? x : (nm_tensor){ 0 };
}

nm_tensor nm_med_forward(nm_run *r, const nm_med_w *w, const nm_med_cfg *c, const nm_med_rows *l, bool causal, const nm_med_context *context)
{
    pass p = { .c = c, .self = { .causal = causal, .n_seq = l->n, .q_offsets = l->offsets, .k_offsets = l->offsets }, .context = context, .rows = l };
    return run_layers(r, w, nm_embedding(r, l->ids, l->rows, &w->word, l->pos, &w->position), &p);
}

nm_tensor nm_med_logits(nm_run *r, const nm_med_head_w *head, const nm_med_cfg *c, nm_tensor x)
{
    nm_tensor h = nm_linear(r, x, &head->dense, (nm_epilogue){ .act = c->act, .f32 = true });
    return nm_linear(r, nm_layernorm(r, h, &head->norm, c->eps), &head->vocab, (nm_epilogue){ .f32 = true });
}

/* ---- decoding behind a cache ---- */

/* Keys and values of the context, packed where the kernels have a packed form: each step reads them all. */
static bool remember(nm_run *r, nm_med_cache *k, nm_tensor states)
{
    const nm_med_cfg *c = k->c;
    int64_t width = c->width;
    size_t bytes = nm_packed_kv_bytes(r, r->act, width, c->heads, k->items, k->memory_offsets);
    k->packed = bytes > 0;
    if (!k->packed)
        return (k->memory = nm_med_project(r, k->w, c, states, 0)) != NULL;
    k->memory = nm_scratch(r, (size_t)(c->layers + 1) * sizeof *k->memory);
    for (int i = 0; k->memory && states.data && nm_run_ok(r) && i < c->layers; i++) {
        void *room = nm_scratch(r, bytes);
        nm_arena_mark mark = nm_mark(r);
        nm_tensor kv = nm_linear(r, states, &k->w->layer[i].cross[0].kv, (nm_epilogue){ 0 });
        if (!kv.data || !room)
            return false;
        nm_pack_kv(r, nm_cols(kv, 0, width), nm_cols(kv, width, 2 * width), c->heads, k->items, k->memory_offsets, room);
        k->memory[i] = nm_view(room, kv.dtype, NM_SHAPE(kv.shape[0], 2 * width));
        nm_reset(r, mark);
    }
    return nm_run_ok(r);
}

bool nm_med_cache_init(nm_run *r, nm_med_cache *k, const nm_med_w *w, const nm_med_cfg *c, nm_tensor states, const int64_t *state_offsets,
                       int64_t items, int64_t max_rows, int64_t max_length)
{
    size_t rows, bytes;
    *k = (nm_med_cache){ .w = w, .c = c, .memory_offsets = state_offsets, .items = items, .max_rows = max_rows, .max_length = max_length };
    if (!nm_mul_size((size_t)max_rows, (size_t)max_length, &rows) || !nm_mul_size(rows, 2 * (size_t)c->width * nm_dtype_size(r->act), &bytes)) {
        nm_run_fail(r, NOEMA_E_LIMIT, "a search of %lld rows and %lld ids is too large", (long long)max_rows, (long long)max_length);
        return false;
    }
    for (int s = 0; s < 2; s++) {
        k->offsets[s] = nm_scratch(r, (size_t)(max_rows + 1) * sizeof *k->offsets[s]);
        k->item[s] = nm_scratch(r, (size_t)(max_rows + 1) * sizeof *k->item[s]);
        k->kv[s] = nm_scratch(r, (size_t)(c->layers + 1) * sizeof *k->kv[s]);
        for (int i = 0; k->kv[s] && i < c->layers; i++)
            k->kv[s][i] = nm_scratch(r, bytes);
    }
    return remember(r, k, states);
}

/* Offsets and items of the new rows; false: they do not fit. */
static bool advance(nm_run *r, nm_med_cache *k, int64_t n, const int64_t *parent, const int64_t *new_offsets)
{
    const int64_t *from = k->offsets[k->side];
    int64_t *to = k->offsets[!k->side], *item = k->item[!k->side], row = 0;
    for (int64_t i = 0; i < n && n <= k->max_rows; i++) {
        int64_t before = parent ? from[parent[i] + 1] - from[parent[i]] : 0, length = before + new_offsets[i + 1] - new_offsets[i];
        item[i] = parent ? k->item[k->side][parent[i]] : i;
        to[i] = row;
        row += length;
        if (length > k->max_length || item[i] >= k->items || (i && item[i] < item[i - 1]))
            break;
        to[i + 1] = row;
        if (i + 1 == n)
            return k->n = n, true;
    }
    nm_run_fail(r, NOEMA_E_INTERNAL, "a step of %lld rows does not fit its cache", (long long)n);
    return false;
}

nm_tensor nm_med_step(nm_run *r, nm_med_cache *k, int64_t n, const int64_t *parent, const int32_t *ids, const int64_t *new_offsets)
{
    int64_t rows = new_offsets[n];
    int32_t *pos = nm_scratch(r, (size_t)rows * sizeof *pos + 1);
    int64_t *queries = nm_scratch(r, (size_t)(k->items + 1) * sizeof *queries);
    if (!nm_run_ok(r) || !advance(r, k, n, parent, new_offsets))
        return (nm_tensor){ 0 };
    const int64_t *offsets = k->offsets[!k->side], *item = k->item[!k->side];
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = new_offsets[i]; j < new_offsets[i + 1]; j++) /* the last ids of the row */
            pos[j] = (int32_t)(offsets[i + 1] - offsets[i] - (new_offsets[i + 1] - j));
    for (int64_t t = 0, i = 0; t <= k->items; t++) { /* rows of an item are one query sequence; a finished item has none */
        while (i < n && item[i] < t)
            i++;
        queries[t] = new_offsets[i];
    }
    nm_med_context context = { .kv = k->memory, .packed = k->packed, .n = k->items, .q_offsets = queries, .k_offsets = k->memory_offsets };
    nm_med_rows shape = { .n = n, .rows = rows, .offsets = (int64_t *)(uintptr_t)new_offsets };
    pass p = { .c = k->c, .self = { .causal = true, .n_seq = n, .q_offsets = new_offsets, .k_offsets = offsets }, .context = &context, .cache = k,
               .parent = parent, .rows = &shape };
    nm_tensor x = run_layers(r, k->w, nm_embedding(r, ids, rows, &k->w->word, pos, &k->w->position), &p);
    k->side = !k->side;
    return x;
}
