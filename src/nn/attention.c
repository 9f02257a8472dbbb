/* attention.c - attention and token embedding: see nn.h. */
#include <string.h>

#include "base/half.h"
#include "nn/nn.h"

/* Collapses [.., width] into rows with one stride. */
static bool rows_of(const nm_tensor *t, int64_t *rows, int64_t *ld)
{
    if (t->ndim < 2 || t->stride[t->ndim - 1] != 1)
        return false;
    *rows = 1;
    *ld = t->stride[t->ndim - 2];
    for (int i = t->ndim - 2; i >= 0; i--) {
        if (t->shape[i] != 1 && t->stride[i] != *ld * *rows)
            return false;
        *rows *= t->shape[i];
    }
    return true;
}

static int64_t *regular_offsets(nm_run *r, int64_t batch, int64_t len)
{
    int64_t *o = nm_scratch(r, (size_t)(batch + 1) * sizeof *o);
    for (int64_t i = 0; o && i <= batch; i++)
        o[i] = i * len;
    return o;
}

nm_tensor nm_attention(nm_run *r, nm_tensor q, nm_tensor k, nm_tensor v, int heads, const nm_mask *m)
{
    static const nm_mask none = { 0 };
    if (!q.data || !k.data || !v.data || !nm_run_ok(r))
        return (nm_tensor){ 0 };
    if (!m)
        m = &none;
    int64_t width = q.shape[q.ndim - 1], q_rows, k_rows, v_rows;
    nm_attn a = { .dtype = q.dtype, .heads = heads, .causal = m->causal, .key_bias = m->key_bias, .bias = m->bias, .bias_seq = m->bias_seq,
                  .bias_head = m->bias_head, .bias_row = m->bias_row, .q = q.data, .k = k.data, .v = v.data };
    if (heads < 1 || width % heads || q.dtype != k.dtype || q.dtype != v.dtype || k.shape[k.ndim - 1] != width ||
        v.shape[v.ndim - 1] != width || !rows_of(&q, &q_rows, &a.q_stride) || !rows_of(&k, &k_rows, &a.k_stride) ||
        !rows_of(&v, &v_rows, &a.v_stride) || k_rows != v_rows)
        return nm_run_fail(r, NOEMA_E_INTERNAL, "attention: q, k, v do not agree (width %lld, %d heads)", (long long)width, heads);
    a.head_dim = (int)(width / heads);
    a.scale = m->scale != 0 ? m->scale : 1 / __builtin_sqrtf((float)a.head_dim);
    nm_shape out_shape = { .ndim = q.ndim };
    memcpy(out_shape.dim, q.shape, sizeof out_shape.dim);
    nm_tensor out = nm_new(r, q.dtype, out_shape);
    nm_arena_mark mark = nm_arena_get_mark(r->arena);
    if (m->q_offsets) {
        a.n_seq = m->n_seq;
        a.q_offsets = m->q_offsets;
        a.k_offsets = m->k_offsets ? m->k_offsets : m->q_offsets;
    } else {
        a.n_seq = q.ndim == 3 ? q.shape[0] : 1;
        a.q_offsets = regular_offsets(r, a.n_seq, q_rows / (a.n_seq ? a.n_seq : 1));
        a.k_offsets = regular_offsets(r, a.n_seq, k_rows / (a.n_seq ? a.n_seq : 1));
    }
    a.out = out.data;
    a.out_stride = width;
    if (!nm_run_ok(r))
        return (nm_tensor){ 0 };
    if (a.n_seq > 0 && (a.q_offsets[a.n_seq] > q_rows || a.k_offsets[a.n_seq] > k_rows))
        return nm_run_fail(r, NOEMA_E_INTERNAL, "attention: offsets past the rows");
    void *scratch = nm_scratch(r, nm_attention_scratch(r->kn, &a, nm_pool_size(r->pool)));
    if (!nm_run_ok(r))
        return (nm_tensor){ 0 };
    nm_attention_run(r->kn, &a, r->pool, scratch);
    nm_arena_rewind(r->arena, mark);
    return out;
}

/* ---- token embedding ---- */

static bool add_row(nm_run *r, float *dst, const nm_weight *w, int64_t row, bool add, float *tmp)
{
    int64_t width = w->shape.dim[1];
    if (row < 0 || row >= w->shape.dim[0]) {
        nm_run_fail(r, NOEMA_E_ARGUMENT, "token or position %lld is outside a table of %lld rows", (long long)row, (long long)w->shape.dim[0]);
        return false;
    }
    const nm_tensor *t = &w->part[0];
    const float *src = NULL;
    if (w->f32)
        src = w->f32 + row * width;
    else if (t->stride[1] == 1 && (t->dtype == NM_F32 || t->dtype == NM_F16 || t->dtype == NM_BF16)) {
        const char *p = (const char *)t->data + (size_t)(row * t->stride[0]) * nm_dtype_size(t->dtype);
        r->kn->elementwise.cast(width, p, t->dtype, tmp, NM_F32);
        src = tmp;
    } else {
        nm_weight one = { .shape = NM_SHAPE(1, width), .n_parts = 1, .part = { nm_rows(*t, row, row + 1) } };
        nm_weight_copy_f32(&one, tmp);
        src = tmp;
    }
    if (add)
        r->kn->elementwise.add(width, dst, src, dst);
    else
        memcpy(dst, src, (size_t)width * sizeof *dst);
    return true;
}

nm_tensor nm_embedding(nm_run *r, const int32_t *ids, int64_t n, const nm_weight *table, const int32_t *pos, const nm_weight *position)
{
    if (!nm_run_ok(r))
        return (nm_tensor){ 0 };
    if (!nm_has(table) || table->shape.ndim != 2 || (position && (position->shape.ndim != 2 || position->shape.dim[1] != table->shape.dim[1])))
        return nm_run_fail(r, NOEMA_E_INTERNAL, "embedding: expected tables of one width");
    int64_t width = table->shape.dim[1];
    nm_tensor y = nm_new(r, NM_F32, NM_SHAPE(n, width));
    float *tmp = nm_scratch(r, (size_t)width * sizeof *tmp);
    for (int64_t i = 0; y.data && tmp && i < n; i++) {
        float *dst = (float *)y.data + i * width;
        if (!add_row(r, dst, table, ids[i], false, tmp) || (position && !add_row(r, dst, position, pos ? pos[i] : i, true, tmp)))
            return (nm_tensor){ 0 };
    }
    return y;
}
