/* attn_pool.c - see attn_pool.h. Source: open_clip transformer.py (AttentionalPooler, VisionTransformer._pool). */
#include "models/attn_pool.h"

#include <math.h>

void nm_attn_pool_params(nm_params *p, nm_attn_pool_w *w, const char *module, int queries, int64_t embed, int64_t width)
{
    size_t mark = nm_params_push(p, NM_NAMES(module), 0);
    nm_param(p, &w->query, NM_SHAPE(queries, embed), NM_NAMES("query"), NM_NORMAL(1), NM_DECAY | NM_AS_F32);
    float xavier = sqrtf(6.0f / (float)(embed + width));
    if (width == embed) /* torch.nn.MultiheadAttention fuses the three only when the dimensions agree */
        nm_param(p, &w->qkv, NM_SHAPE(3 * embed, embed), NM_NAMES("attn.in_proj_weight"), NM_UNIFORM(sqrtf(6.0f / (4.0f * (float)embed))), NM_DECAY);
    else {
        nm_param(p, &w->q.weight, NM_SHAPE(embed, embed), NM_NAMES("attn.q_proj_weight"), NM_UNIFORM(sqrtf(3.0f / (float)embed)), NM_DECAY);
        nm_param(p, &w->k.weight, NM_SHAPE(embed, width), NM_NAMES("attn.k_proj_weight"), NM_UNIFORM(xavier), NM_DECAY);
        nm_param(p, &w->v.weight, NM_SHAPE(embed, width), NM_NAMES("attn.v_proj_weight"), NM_UNIFORM(xavier), NM_DECAY);
    }
    nm_param(p, &w->bias, NM_SHAPE(3 * embed), NM_NAMES("attn.in_proj_bias"), NM_ZEROS, NM_NO_DECAY);
    nm_linear_params(p, &w->out, embed, embed, NM_NAMES("attn.out_proj.weight"), NM_NAMES("attn.out_proj.bias"), 0, 0);
    nm_norm_params(p, &w->ln_q, embed, NM_NAMES("ln_q.weight"), NM_NAMES("ln_q.bias"));
    nm_norm_params(p, &w->ln_k, width, NM_NAMES("ln_k.weight"), NM_NAMES("ln_k.bias"));
    nm_params_pop(p, mark);
}

bool nm_attn_pool_ready(nm_attn_pool_w *w, int64_t embed)
{
    nm_linear_w *part[] = { &w->q, &w->k, &w->v };
    bool ok = true;
    for (int64_t i = 0; ok && i < 3; i++)
        ok = (!nm_has(&w->qkv) || nm_weight_rows_of(&part[i]->weight, &w->qkv, i * embed, (i + 1) * embed)) &&
             nm_weight_rows_of(&part[i]->bias, &w->bias, i * embed, (i + 1) * embed);
    return ok;
}

void nm_attn_pool_free(nm_attn_pool_w *w)
{
    nm_linear_w *part[] = { &w->q, &w->k, &w->v };
    for (int i = 0; i < 3; i++) {
        nm_weight_free(&part[i]->weight);
        nm_weight_free(&part[i]->bias);
    }
}

/* ---- forward ---- */

/* q f32 [queries, dim] repeated for each of n items -> r->act [n, queries, dim]. */
static nm_tensor repeat_queries(nm_run *r, nm_tensor q, int64_t n)
{
    if (!q.data)
        return q;
    int64_t queries = q.shape[0], dim = q.shape[1];
    int64_t *rows = nm_scratch(r, (size_t)(n * queries) * sizeof *rows);
    for (int64_t i = 0; rows && i < n * queries; i++)
        rows[i] = i % queries;
    return nm_reshape(nm_cast(r, nm_gather_rows(r, q, rows, n * queries), r->act), NM_SHAPE(n, queries, dim));
}

nm_tensor nm_pool_attention(nm_run *r, nm_tensor q, nm_tensor k, nm_tensor v, int heads)
{
    if (!q.data || !k.data || !v.data)
        return (nm_tensor){ 0 };
    return nm_attention(r, repeat_queries(r, q, k.shape[0]), k, v, heads, NULL);
}

nm_tensor nm_query_rows(nm_run *r, const nm_weight *w, int64_t rows)
{
    int32_t *ids = nm_scratch(r, (size_t)rows * sizeof *ids);
    for (int32_t i = 0; ids && i < rows; i++)
        ids[i] = i;
    return ids ? nm_embedding(r, ids, rows, w, NULL, NULL) : (nm_tensor){ 0 };
}

nm_tensor nm_attn_pool(nm_run *r, const nm_attn_pool_w *w, int heads, nm_tensor x)
{
    const float eps = 1e-5f; /* open_clip passes the plain LayerNorm here, without norm_kwargs */
    nm_tensor q = nm_layernorm(r, nm_query_rows(r, &w->query, w->query.shape.dim[0]), &w->ln_q, eps);
    q = nm_linear(r, q, &w->q, (nm_epilogue){ .f32 = true });
    x = nm_layernorm(r, x, &w->ln_k, eps);
    nm_tensor a = nm_pool_attention(r, q, nm_linear(r, x, &w->k, (nm_epilogue){ 0 }), nm_linear(r, x, &w->v, (nm_epilogue){ 0 }), heads);
    return nm_linear(r, a, &w->out, (nm_epilogue){ .f32 = true });
}

nm_tensor nm_attn_pool_single(nm_run *r, const nm_attn_pool_w *w, const nm_norm_w *ln_post, int heads, float eps, bool average, nm_tensor x, nm_tensor *pooled)
{
    x = nm_layernorm_f32(r, nm_attn_pool(r, w, heads, x), ln_post, eps);
    *pooled = average ? nm_mean_tokens(r, x, 1) : nm_first_token(r, x);
    return nm_drop_first(r, x);
}
