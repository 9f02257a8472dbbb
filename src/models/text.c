/* text.c - see text.h. Sources: openai/CLIP clip/model.py (encode_text), open_clip transformer.py (TextTransformer,
 * text_global_pool), transformers modeling_clip.py (pooling by eos_token_id, pull request 24777). */
#include "models/text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

bool nm_text_alloc(nm_text_w *w, const nm_text_cfg *c)
{
    w->blocks = calloc((size_t)c->layers + 1, sizeof *w->blocks);
    return w->blocks != NULL;
}

void nm_text_free(nm_text_w *w, const nm_text_cfg *c)
{
    for (int i = 0; w->blocks && i < c->layers; i++)
        nm_block_free(&w->blocks[i]);
    free(w->blocks);
    w->blocks = NULL;
}

nm_block_cfg nm_text_block_cfg(const nm_text_cfg *c)
{
    float attn = 1 / sqrtf((float)c->width), deep = attn / sqrtf(2 * (float)(c->layers > 0 ? c->layers : 1));
    return (nm_block_cfg){ .width = c->width, .heads = c->heads, .mlp = c->mlp, .act = c->act, .eps = c->eps, .layer_scale = c->layer_scale,
                           .qkv_std = attn, .out_std = deep, .fc_std = 1 / sqrtf(2 * (float)c->width), .proj_std = deep };
}

/* ---- declaring ---- */

void nm_text_params(nm_params *p, nm_text_w *w, const nm_text_cfg *c)
{
    int64_t width = c->width, positions = c->from_file ? -1 : c->context_length + (c->pool == NM_TEXT_POOL_CLS);
    size_t mark = nm_params_push(p, NM_NAMES(c->prefix ? "text." : "", "text_model."), 0);
    nm_param(p, &w->positional_embedding, NM_SHAPE(positions, width), NM_NAMES("positional_embedding", "embeddings.position_embedding.weight"),
             NM_NORMAL(0.01f), NM_NO_DECAY | NM_AS_F32);
    if (c->pool == NM_TEXT_POOL_CLS)
        nm_param(p, &w->cls_emb, NM_SHAPE(width), NM_NAMES("cls_emb"), NM_NORMAL(0.01f), NM_NO_DECAY);
    nm_param(p, &w->token_embedding, NM_SHAPE(c->vocab_size, width), NM_NAMES("token_embedding.weight", "embeddings.token_embedding.weight"),
             NM_NORMAL(0.02f), NM_DECAY);
    nm_block_cfg bc = nm_text_block_cfg(c);
    for (int i = 0; i < c->layers; i++) {
        size_t block = nm_params_push(p, NM_NAMES("transformer.resblocks.%d.", "encoder.layers.%d."), i);
        nm_block_params(p, &w->blocks[i], &bc);
        nm_params_pop(p, block);
    }
    nm_norm_params(p, &w->ln_final, width, NM_NAMES("ln_final.weight", "final_layer_norm.weight"),
                   NM_NAMES("ln_final.bias", "final_layer_norm.bias"));
    nm_init std = NM_NORMAL(1 / sqrtf((float)width));
    if (c->proj && c->proj_bias) { /* SigLIP: a Linear, text_model.head in transformers */
        nm_param(p, &w->proj.weight, NM_SHAPE(c->embed_dim, width), NM_NAMES("text_projection.weight", "head.weight"), std, NM_DECAY);
        nm_param(p, &w->proj.bias, NM_SHAPE(c->embed_dim), NM_NAMES("text_projection.bias", "head.bias"), NM_ZEROS, NM_NO_DECAY);
    }
    if (c->proj && !c->proj_bias && p->scheme != NM_HF)
        nm_param(p, &w->proj.weight, NM_SHAPE(c->embed_dim, width), NM_NAMES("T:text_projection"), std, NM_DECAY);
    nm_params_pop(p, mark);
    if (c->proj && !c->proj_bias && p->scheme == NM_HF) /* beside text_model, not below it */
        nm_param(p, &w->proj.weight, NM_SHAPE(c->embed_dim, width), NM_NAMES(NULL, "text_projection.weight"), std, NM_DECAY);
}

/* ---- after loading ---- */

noema_status nm_text_ready(nm_text_w *w, const nm_text_cfg *c, noema_error *err)
{
    nm_weight *p = &w->positional_embedding;
    int64_t have = p->shape.dim[0], want = c->context_length + (c->pool == NM_TEXT_POOL_CLS);
    if (have == want)
        return NOEMA_OK;
    if (c->observed == NM_VIEW_HF || c->pool == NM_TEXT_POOL_CLS)
        return nm_fail(err, NOEMA_E_MISMATCH, "text positions: the configuration says %lld, the file has %lld", (long long)want, (long long)have);
    float *rows = nm_alloc((size_t)(want * c->width) * sizeof *rows);
    if (!rows || !nm_resize_positions(p->f32, 0, 1, have, rows, 1, want, c->width, NM_INTERP_LINEAR)) {
        nm_free(rows);
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory: resizing the text positions");
    }
    nm_weight_set(p, rows, NM_SHAPE(want, c->width));
    return nm_weight_make_f32(p) ? NOEMA_OK : nm_fail(err, NOEMA_E_MEMORY, "out of memory: text positions");
}

/* ---- which rows are computed ---- */

typedef struct layout {
    int64_t n, rows;
    int32_t *ids, *pos;
    int64_t *offsets; /* [n + 1] */
    int64_t *pooled;  /* [n]: row of the pooled position */
    float *key_bias;  /* [rows]: CoCa; transformers' padding mask, for its observers */
    int64_t whole;    /* > 0: every text gets that many rows (and CoCa's class row) */
} layout;

static int32_t id_at(const nm_texts *t, int64_t i, int64_t j, int32_t pad)
{
    int64_t n = t->offsets[i + 1] - t->offsets[i];
    return j < n ? t->ids[t->offsets[i] + j] : pad;
}

/* The pooled position of text i in its padded context. */
static int64_t pool_position(const nm_texts *t, int64_t i, int32_t pad, const nm_text_cfg *c)
{
    int64_t best = 0;
    switch (c->pool) {
    case NM_TEXT_POOL_ARGMAX:
        for (int64_t j = 1; j < c->context_length; j++)
            if (id_at(t, i, j, pad) > id_at(t, i, best, pad))
                best = j;
        return best;
    case NM_TEXT_POOL_EOS:
        for (int64_t j = 0; j < c->context_length; j++)
            if (id_at(t, i, j, pad) == c->eos_id)
                return j;
        return 0;
    case NM_TEXT_POOL_LAST: return c->context_length - 1;
    case NM_TEXT_POOL_FIRST: return 0;
    case NM_TEXT_POOL_CLS: return c->context_length;
    }
    return 0;
}

/* CoCa, class mask as in the released weights (open_clip: correct_cls_mask = False): the class row sees key 0 and keys j with
 * ids[j-1] != 0, so also the first pad, and itself only when the text is full. */
static int64_t coca_rows(layout *l, const nm_texts *t, int64_t i, int64_t row, const nm_text_cfg *c)
{
    int64_t n = t->offsets[i + 1] - t->offsets[i], want = l->whole ? l->whole : n < c->context_length ? n + 1 : n;
    if (l->ids) {
        for (int64_t j = 0; j <= want; j++) {
            bool cls = j == want;
            l->ids[row + j] = cls ? 0 : id_at(t, i, j, 0);
            l->pos[row + j] = (int32_t)(cls ? c->context_length : j);
            int64_t at = cls ? c->context_length : j;
            l->key_bias[row + j] = at == 0 || id_at(t, i, at - 1, 0) != 0 ? 0 : -INFINITY;
        }
        l->pooled[i] = row + want;
    }
    return want + 1;
}

static int64_t plain_rows(layout *l, const nm_texts *t, int64_t i, int64_t row, const nm_text_cfg *c, int32_t pad)
{
    int64_t pooled = pool_position(t, i, pad, c), want = l->whole > pooled ? l->whole : pooled + 1;
    const int32_t *keep = t->n_keep ? t->keep + i * t->n_keep : NULL;
    int64_t first = row, k = 0;
    for (int64_t j = 0; j < want; j++) {
        bool kept = !keep || (k < t->n_keep && keep[k] == j);
        k += kept;
        if (!kept && j != pooled)
            continue;
        if (l->ids) {
            l->ids[row] = id_at(t, i, j, pad);
            l->pos[row] = (int32_t)j;
            if (l->key_bias)
                l->key_bias[row] = j > pooled ? -INFINITY : 0;
            if (j == pooled)
                l->pooled[i] = row;
        }
        row++;
    }
    return row - first;
}

/* A bidirectional tower needs the full context. An observer sees what the reference computes: the full context, in transformers
 * padded to the longest text with the padding masked. */
static int64_t whole_length(const nm_run *r, const nm_texts *t, const nm_text_cfg *c)
{
    int64_t longest = 0;
    if (!c->causal)
        return c->context_length;
    if (!r->observe)
        return 0;
    for (int64_t i = 0; i < t->n; i++)
        longest = t->offsets[i + 1] - t->offsets[i] > longest ? t->offsets[i + 1] - t->offsets[i] : longest;
    return c->observed == NM_VIEW_HF ? longest : c->context_length;
}

static bool make_layout(nm_run *r, layout *l, const nm_texts *t, const nm_text_cfg *c)
{
    bool cls = c->pool == NM_TEXT_POOL_CLS, masked = r->observe && c->causal && c->observed == NM_VIEW_HF;
    int32_t pad = t->pad_id >= 0 ? t->pad_id : c->pad_id;
    *l = (layout){ .n = t->n, .whole = whole_length(r, t, c) };
    for (int64_t i = 0; i < t->n; i++)
        if (t->offsets[i + 1] - t->offsets[i] > c->context_length) {
            nm_run_fail(r, NOEMA_E_ARGUMENT, "text %lld has %lld tokens, the model takes %d", (long long)i,
                        (long long)(t->offsets[i + 1] - t->offsets[i]), c->context_length);
            return false;
        }
    for (int pass = 0; pass < 2; pass++) {
        int64_t row = 0;
        for (int64_t i = 0; i < t->n; i++) {
            if (pass)
                l->offsets[i] = row;
            row += cls ? coca_rows(l, t, i, row, c) : plain_rows(l, t, i, row, c, pad);
        }
        if (pass) {
            l->offsets[t->n] = row;
            break;
        }
        l->rows = row;
        l->ids = nm_scratch(r, (size_t)row * sizeof *l->ids);
        l->pos = nm_scratch(r, (size_t)row * sizeof *l->pos);
        l->offsets = nm_scratch(r, (size_t)(t->n + 1) * sizeof *l->offsets);
        l->pooled = nm_scratch(r, (size_t)t->n * sizeof *l->pooled);
        l->key_bias = cls || masked ? nm_scratch(r, (size_t)row * sizeof *l->key_bias) : NULL;
        if (!nm_run_ok(r))
            return false;
    }
    return true;
}

/* ---- forward ---- */

/* Token rows of every text, then the class rows; and where each row of the layout is among them. */
static nm_tensor embed_with_class(nm_run *r, const nm_text_w *w, const layout *l)
{
    int64_t tokens = l->rows - l->n, *rows = nm_scratch(r, (size_t)l->rows * sizeof *rows);
    int32_t *ids = nm_scratch(r, (size_t)l->rows * sizeof *ids), *pos = nm_scratch(r, (size_t)l->rows * sizeof *pos);
    if (!nm_run_ok(r))
        return (nm_tensor){ 0 };
    for (int64_t i = 0, row = 0, at = 0; i < l->n; i++)
        for (; row <= l->pooled[i]; row++) {
            bool cls = row == l->pooled[i];
            rows[row] = cls ? tokens + i : at++;
            ids[rows[row]] = cls ? 0 : l->ids[row];
            pos[rows[row]] = l->pos[row];
        }
    nm_tensor x = nm_embedding(r, ids, tokens, &w->token_embedding, pos, &w->positional_embedding);
    return nm_join_rows(r, x, nm_embedding(r, ids + tokens, l->n, &w->cls_emb, pos + tokens, &w->positional_embedding), rows, l->rows);
}

static nm_tensor embed_rows(nm_run *r, const nm_text_w *w, const nm_text_cfg *c, const layout *l)
{
    return c->pool == NM_TEXT_POOL_CLS ? embed_with_class(r, w, l) : nm_embedding(r, l->ids, l->rows, &w->token_embedding, l->pos, &w->positional_embedding);
}

/* Rows [n * context, width] as observers know them. */
static void observe_rows(nm_run *r, nm_tensor x, const layout *l, const char *name, int index)
{
    if (r->observe && x.data && l->n && l->rows % l->n == 0)
        nm_observe(r, nm_reshape(x, NM_SHAPE(l->n, l->rows / l->n, x.shape[1])), name, index);
}

/* Token rows of a CoCa batch without the class rows and without pads (those behind the text, or with `pads` none are left out). */
static nm_tensor token_rows(nm_run *r, nm_tensor x, const nm_texts *t, const layout *l, bool pads)
{
    int64_t k = 0, *rows = nm_scratch(r, (size_t)l->rows * sizeof *rows);
    for (int64_t i = 0; rows && i < t->n; i++)
        for (int64_t j = 0; j < (pads ? l->whole : t->offsets[i + 1] - t->offsets[i]); j++)
            rows[k++] = l->offsets[i] + j;
    return rows ? nm_gather_rows(r, x, rows, k) : (nm_tensor){ 0 };
}

nm_tensor nm_text_forward_tokens(nm_run *r, const nm_text_w *w, const nm_text_cfg *c, const nm_texts *texts, nm_tensor *tokens)
{
    layout l;
    if (!nm_run_ok(r) || !make_layout(r, &l, texts, c))
        return (nm_tensor){ 0 };
    bool hf = c->observed == NM_VIEW_HF;
    nm_mask mask = { .causal = c->causal, .n_seq = l.n, .q_offsets = l.offsets, .k_offsets = l.offsets, .key_bias = l.key_bias };
    nm_block_cfg bc = nm_text_block_cfg(c);
    nm_tensor x = embed_rows(r, w, c, &l); /* [rows, width] */
    if (hf)
        observe_rows(r, x, &l, "hidden_states.%d", 0);
    for (int i = 0; i < c->layers; i++) {
        x = nm_block_forward(r, x, &w->blocks[i], &bc, &mask, -1);
        observe_rows(r, x, &l, hf ? "hidden_states.%d" : "block.%d", hf ? i + 1 : i);
    }
    if (tokens && x.data)
        *tokens = token_rows(r, x, texts, &l, false);
    if (r->observe && x.data && c->pool == NM_TEXT_POOL_CLS)
        nm_observe_above(r, nm_reshape(token_rows(r, x, texts, &l, true), NM_SHAPE(l.n, l.whole, c->width)), "token_embs");
    if (r->observe && !hf)
        observe_rows(r, nm_layernorm_f32(r, x, &w->ln_final, c->eps), &l, "ln_final", 0);
    x = nm_gather_rows(r, x, l.pooled, l.n); /* [n, width]: LayerNorm is per row, so the others need none */
    x = c->proj ? nm_layernorm(r, x, &w->ln_final, c->eps) : nm_layernorm_f32(r, x, &w->ln_final, c->eps);
    if (hf)
        nm_observe(r, x, "pooler_output");
    return c->proj ? nm_linear(r, x, &w->proj, (nm_epilogue){ .f32 = true }) : x;
}

nm_tensor nm_text_forward(nm_run *r, const nm_text_w *w, const nm_text_cfg *c, const nm_texts *texts)
{
    return nm_text_forward_tokens(r, w, c, texts, NULL);
}
