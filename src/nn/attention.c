/* attention.c - attention and its backward: see nn.h. */
#include <math.h>
#include <string.h>

#include "nn/ops.h"

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

/* ---- backward ----
 * Per sequence and head, P recomputed: dV = P^T dO; dP = dO V^T; dS = scale P (dP - rowsum(P dP)); dQ = dS K; dK = dS^T Q. */

typedef struct attention_saved { nm_attn a; nm_tensor q, k, v, out, bias; int64_t most_q, most_k; double flops; } attention_saved; /* bias: where it is a tensor */
typedef struct attention_back {
    const attention_saved *s;
    nm_run *r;
    const float *dout;
    float *dq, *dk, *dv, *scratch;
    float *ds;          /* gradient of the scores, [sequences, heads, lq, lk], where the bias wants it */
    bool add;           /* to what the gradients hold already */
    int64_t per_worker; /* floats of scratch */
} attention_back;

/* Rows of one head as f32; in place where they are f32. */
static const float *head_rows(const attention_back *j, const void *p, int64_t row, int64_t stride, int head, int64_t rows, float *room, int64_t *ld)
{
    const nm_attn *a = &j->s->a;
    const char *first = (const char *)p + (size_t)(row * stride + (int64_t)head * a->head_dim) * nm_dtype_size(a->dtype);
    *ld = stride;
    if (a->dtype == NM_F32)
        return (const float *)(const void *)first;
    *ld = a->head_dim;
    for (int64_t i = 0; i < rows; i++)
        j->r->kn->elementwise.cast(a->head_dim, first + (size_t)(i * stride) * nm_dtype_size(a->dtype), a->dtype, room + i * a->head_dim, NM_F32);
    return room;
}

/* Scores [lq, lk] with rows of stride ld become probabilities. */
static void probabilities(const attention_back *j, int64_t seq, int head, int64_t lq, int64_t lk, float *p, int64_t ld)
{
    const nm_attn *a = &j->s->a;
    for (int64_t i = 0; i < lq; i++) {
        float *row = p + i * ld;
        for (int64_t c = 0; c < lk; c++)
            row[c] *= a->scale;
        for (int64_t c = 0; a->key_bias && c < lk; c++)
            row[c] += a->key_bias[a->k_offsets[seq] + c];
        for (int64_t c = 0; a->bias && c < lk; c++)
            row[c] += a->bias[seq * a->bias_seq + head * a->bias_head + i * a->bias_row + c];
        int64_t hidden = a->causal ? i + lk - lq + 1 : lk; /* the first key that is not seen */
        for (int64_t c = hidden < 0 ? 0 : hidden; c < lk; c++)
            row[c] = -INFINITY;
    }
    j->r->kn->norm.softmax(lq, lk, p, ld);
    for (int64_t i = 0; (a->key_bias || a->bias || a->causal) && i < lq; i++)
        for (int64_t c = 0; c < lk; c++)
            p[i * ld + c] = p[i * ld + c] > 0 ? p[i * ld + c] : 0; /* a fully masked row gives zeros */
}

static int64_t padded(int64_t n) { return (n + 15) & ~(int64_t)15; }

static void attention_back_heads(void *arg, int64_t begin, int64_t end, int worker)
{
    const attention_back *j = arg;
    const attention_saved *s = j->s;
    const nm_attn *a = &s->a;
    const nm_gradient_kernels *kn = &j->r->kn->gradient;
    int64_t d = a->head_dim, mq = s->most_q, mk = s->most_k, ldq, ldk, ldv, os = a->out_stride;
    float *room = j->scratch + worker * j->per_worker, *turned = room + (mq + 2 * mk) * d, *p = turned + padded(mk) * d, *dp = p + mq * padded(mk);
    for (int64_t unit = begin; unit < end; unit++) {
        int64_t seq = unit / a->heads, q0 = a->q_offsets[seq], k0 = a->k_offsets[seq], lq = a->q_offsets[seq + 1] - q0, lk = a->k_offsets[seq + 1] - k0;
        int64_t ld = padded(lk);
        int head = (int)(unit % a->heads);
        const float *q = head_rows(j, a->q, q0, a->q_stride, head, lq, room, &ldq);
        const float *k = head_rows(j, a->k, k0, a->k_stride, head, lk, room + mq * d, &ldk);
        const float *v = head_rows(j, a->v, k0, a->v_stride, head, lk, room + (mq + mk) * d, &ldv);
        const float *dout = j->dout + q0 * os + head * d;
        memset(turned, 0, (size_t)(ld * d) * sizeof *turned); /* whole vectors of keys: those past the last are zeros */
        kn->transpose(lk, d, k, ldk, turned, ld);
        kn->small_product(lq, ld, d, q, ldq, 1, turned, ld, p, ld, false);
        probabilities(j, seq, head, lq, lk, p, ld);
        if (j->dv)
            kn->small_product(lk, d, lq, p, 1, ld, dout, os, j->dv + k0 * a->v_stride + head * d, a->v_stride, j->add);
        kn->transpose(lk, d, v, ldv, turned, ld);
        kn->small_product(lq, ld, d, dout, os, 1, turned, ld, dp, ld, false);
        kn->softmax_back(lq, lk, p, dp, ld, a->scale);
        for (int64_t i = 0; j->ds && i < lq; i++) /* the bias stands behind the scale */
            for (int64_t c = 0; c < lk; c++)
                j->ds[(unit * lq + i) * lk + c] = dp[i * ld + c] / a->scale;
        if (j->dq)
            kn->small_product(lq, d, lk, dp, ld, 1, k, ldk, j->dq + q0 * a->q_stride + head * d, a->q_stride, j->add);
        if (j->dk)
            kn->small_product(lk, d, lq, dp, 1, ld, q, ldq, j->dk + k0 * a->k_stride + head * d, a->k_stride, j->add);
    }
}

/* q, k and v are the thirds of one buffer, every row of which belongs to a sequence: its gradient is written as a whole. */
static bool fills_buffer(const attention_saved *s)
{
    const nm_attn *a = &s->a;
    int64_t width = (int64_t)a->heads * a->head_dim, rows = a->q_offsets[a->n_seq];
    const nm_grad *g = s->q.grad;
    for (int64_t i = 0; i <= a->n_seq; i++)
        if (a->q_offsets[i] != a->k_offsets[i])
            return false;
    return g && s->k.grad == g && s->v.grad == g && !g->data && a->q_offsets[0] == 0 && (int64_t)g->n == 3 * width * rows && a->q_stride == 3 * width &&
           a->k_stride == 3 * width && a->v_stride == 3 * width && a->k != a->q && a->v != a->k && a->v != a->q;
}

static void attention_backward(nm_run *r, void *saved)
{
    attention_saved *s = saved;
    int64_t d = s->a.head_dim, pk = padded(s->most_k), per = (s->most_q + 2 * s->most_k + pk) * d + 2 * s->most_q * pk + 64;
    attention_back j = { .s = s, .r = r, .dout = nm_grad_read(&s->out), .add = true, .per_worker = per };
    nm_tensor whole = s->q;
    if (fills_buffer(s)) {
        whole = nm_view((void *)(uintptr_t)s->q.grad->base, s->q.dtype, NM_SHAPE((int64_t)s->q.grad->n));
        whole.grad = s->q.grad;
        (void)nm_grad_out(r, &whole, &j.add);
    }
    j.dq = nm_grad_data(r, &s->q);
    j.dk = nm_grad_data(r, &s->k);
    j.dv = nm_grad_data(r, &s->v);
    int64_t cells = s->a.heads * s->most_q * s->most_k;
    float *dbias = nm_grad_data(r, &s->bias);
    if (dbias)
        j.ds = nm_scratch(r, (size_t)(s->a.n_seq * cells) * sizeof(float));
    j.scratch = nm_scratch(r, (size_t)(per * nm_pool_size(r->pool)) * sizeof(float));
    r->flops += 2.5 * s->flops;
    if (nm_run_ok(r))
        nm_parallel_for(r->pool, s->a.n_seq * s->a.heads, 1, attention_back_heads, &j);
    for (int64_t i = 0; j.ds && nm_run_ok(r) && i < s->a.n_seq; i++) { /* sequences that share a bias add up in order */
        float *to = dbias + i * s->a.bias_seq;
        r->kn->elementwise.add(cells, to, j.ds + i * cells, to);
    }
}

/* Of the forward; the backward has five products for its two. A causal mask leaves half. */
static double attention_flops(const nm_attn *a)
{
    double pairs = 0;
    for (int64_t i = 0; i < a->n_seq; i++)
        pairs += (double)(a->q_offsets[i + 1] - a->q_offsets[i]) * (double)(a->k_offsets[i + 1] - a->k_offsets[i]);
    return 4 * pairs * a->heads * a->head_dim * (a->causal ? 0.5 : 1);
}

static void record_attention(nm_run *r, nm_attn a, nm_tensor q, nm_tensor k, nm_tensor v, const nm_tensor *bias, nm_tensor *out)
{
    nm_track(r, out);
    attention_saved *s = NM_SAVE(r, attention_saved, a, q, k, v, *out, bias ? *bias : (nm_tensor){ 0 }, 0, 0, attention_flops(&a));
    if (!s)
        return;
    s->a.q_offsets = nm_save_(r, a.q_offsets, (size_t)(a.n_seq + 1) * sizeof *a.q_offsets);
    s->a.k_offsets = nm_save_(r, a.k_offsets, (size_t)(a.n_seq + 1) * sizeof *a.k_offsets);
    if (a.key_bias)
        s->a.key_bias = nm_save_(r, a.key_bias, (size_t)a.k_offsets[a.n_seq] * sizeof *a.key_bias);
    for (int64_t i = 0; nm_run_ok(r) && i < a.n_seq; i++) {
        int64_t lq = a.q_offsets[i + 1] - a.q_offsets[i], lk = a.k_offsets[i + 1] - a.k_offsets[i];
        s->most_q = lq > s->most_q ? lq : s->most_q;
        s->most_k = lk > s->most_k ? lk : s->most_k;
    }
    nm_record(r, out, attention_backward, s);
}

/* A bias that is a tensor belongs to sequences of one length. */
static bool use_bias(nm_attn *a, const nm_tensor *b)
{
    int64_t lq = a->n_seq ? a->q_offsets[1] - a->q_offsets[0] : 0, lk = a->n_seq ? a->k_offsets[1] - a->k_offsets[0] : 0;
    for (int64_t i = 0; i < a->n_seq; i++)
        if (a->q_offsets[i + 1] - a->q_offsets[i] != lq || a->k_offsets[i + 1] - a->k_offsets[i] != lk)
            return false;
    a->bias = b->data;
    a->bias_row = lk;
    a->bias_head = lq * lk;
    a->bias_seq = b->shape[0] > 1 ? a->heads * lq * lk : 0;
    return b->data && b->ndim == 4 && b->dtype == NM_F32 && nm_is_contiguous(b) && (b->shape[0] == 1 || b->shape[0] == a->n_seq) && b->shape[1] == a->heads &&
           b->shape[2] == lq && b->shape[3] == lk;
}

size_t nm_packed_kv_bytes(const nm_run *r, nm_dtype dtype, int64_t width, int heads, int64_t n_seq, const int64_t *k_offsets)
{
    nm_attn a = { .dtype = dtype, .heads = heads, .head_dim = (int)(width / heads), .n_seq = n_seq, .k_offsets = k_offsets };
    return nm_attention_packed_bytes(r->kn, &a);
}

void nm_pack_kv(nm_run *r, nm_tensor k, nm_tensor v, int heads, int64_t n_seq, const int64_t *k_offsets, void *to)
{
    if (!k.data || !v.data || !nm_run_ok(r))
        return;
    int64_t width = k.shape[k.ndim - 1], k_rows, v_rows;
    nm_attn a = { .dtype = k.dtype, .heads = heads, .n_seq = n_seq, .k_offsets = k_offsets, .k = k.data, .v = v.data };
    if (r->tape || heads < 1 || width % heads || k.dtype != v.dtype || v.shape[v.ndim - 1] != width || !rows_of(&k, &k_rows, &a.k_stride) ||
        !rows_of(&v, &v_rows, &a.v_stride) || k_rows != v_rows || k_offsets[n_seq] > k_rows) {
        nm_run_fail(r, NOEMA_E_INTERNAL, "attention: k, v cannot be packed (width %lld, %d heads)", (long long)width, heads);
        return;
    }
    a.head_dim = (int)(width / heads);
    nm_attention_pack(r->kn, &a, r->pool, to);
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
                  .bias_head = m->bias_head, .bias_row = m->bias_row, .q = q.data, .k = k.data, .v = v.data, .packed = m->packed };
    if (heads < 1 || width % heads || (m->packed && (r->tape || !m->k_offsets)) || q.dtype != k.dtype || q.dtype != v.dtype ||
        k.shape[k.ndim - 1] != width || v.shape[v.ndim - 1] != width || !rows_of(&q, &q_rows, &a.q_stride) || !rows_of(&k, &k_rows, &a.k_stride) ||
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
    if (m->bias_tensor && !use_bias(&a, m->bias_tensor))
        return m->bias_tensor->data ? nm_run_fail(r, NOEMA_E_INTERNAL, "attention: expected a bias f32 [sequences or 1, heads, lq, lk]") : (nm_tensor){ 0 };
    void *scratch = nm_scratch(r, nm_attention_scratch(r->kn, &a, nm_pool_size(r->pool)));
    if (!nm_run_ok(r))
        return (nm_tensor){ 0 };
    nm_attention_run(r->kn, &a, r->pool, scratch);
    r->flops += attention_flops(&a);
    bool wants = nm_wants(r, &q) || nm_wants(r, &k) || nm_wants(r, &v) || (m->bias_tensor && nm_wants(r, m->bias_tensor));
    if (wants)
        record_attention(r, a, q, k, v, m->bias_tensor, &out); /* copies the offsets: the arena is not rewound below it */
    else
        nm_arena_rewind(r->arena, mark);
    return out;
}
