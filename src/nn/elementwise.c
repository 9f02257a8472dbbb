/* elementwise.c - additions, activations, conversions and row copies, each beside its backward: see nn.h. */
#include <string.h>

#include "nn/ops.h"

typedef enum map_op { MAP_ADD, MAP_MUL, MAP_ACT, MAP_CAST, MAP_ACT_BACK, MAP_ACT_BACK_ADD } map_op;

typedef struct map_job {
    const nm_run *r;
    const char *a, *b;
    char *y;
    nm_dtype from, to;
    nm_act act;
    map_op op;
} map_job;

static void map_part(void *arg, int64_t b, int64_t e, int worker)
{
    const map_job *j = arg;
    (void)worker;
    const nm_elementwise_kernels *k = &j->r->kn->elementwise;
    size_t in = (size_t)b * nm_dtype_size(j->from), out = (size_t)b * nm_dtype_size(j->to);
    const float *fa = (const float *)(j->a + in), *fb = j->b ? (const float *)(j->b + in) : NULL;
    float *fy = (float *)(j->y + out);
    switch (j->op) {
    case MAP_ADD: k->add(e - b, fa, fb, fy); break;
    case MAP_MUL: k->mul(e - b, fa, fb, fy); break;
    case MAP_ACT: k->act(e - b, fa, j->act, fy); break;
    case MAP_CAST: k->cast(e - b, j->a + in, j->from, j->y + out, j->to); break;
    case MAP_ACT_BACK:
    case MAP_ACT_BACK_ADD: j->r->kn->gradient.act_back(e - b, fa, j->act, fb, fy, j->op == MAP_ACT_BACK_ADD); break;
    }
}

#define MAP_GRAIN (16 << 10)

static void map(nm_run *r, int64_t n, map_job j) { nm_parallel_for(r->pool, n, MAP_GRAIN, map_part, &j); }

/* dst += src, when dst is wanted. */
static void add_to(nm_run *r, float *dst, const float *src, int64_t n)
{
    if (dst)
        map(r, n, (map_job){ r, (char *)dst, (const char *)src, (char *)dst, NM_F32, NM_F32, NM_ACT_NONE, MAP_ADD });
}

/* ---- y = a + b ---- */

typedef struct pair_saved { nm_tensor a, b, y; nm_act act; } pair_saved;

static void add_backward(nm_run *r, void *saved)
{
    pair_saved *s = saved;
    add_to(r, nm_grad_data(r, &s->b), nm_grad_read(&s->y), nm_numel(&s->y));
    nm_grad_pass(r, &s->y, &s->a);
}

nm_tensor nm_add(nm_run *r, nm_tensor a, nm_tensor b)
{
    if (!a.data || !b.data || !nm_run_ok(r))
        return (nm_tensor){ 0 };
    if (a.dtype != NM_F32 || b.dtype != NM_F32 || !nm_same_shape(&a, &b) || !nm_is_contiguous(&a) || !nm_is_contiguous(&b))
        return nm_run_fail(r, NOEMA_E_INTERNAL, "add: expected two contiguous f32 tensors of one shape");
    nm_tensor y = nm_new(r, NM_F32, nm_shape_of(&a));
    if (!y.data)
        return y;
    map(r, nm_numel(&a), (map_job){ r, a.data, b.data, y.data, NM_F32, NM_F32, NM_ACT_NONE, MAP_ADD });
    if (nm_wants(r, &a) || nm_wants(r, &b))
        NM_RECORD(r, y, add_backward, pair_saved, a, b, y, NM_ACT_NONE);
    return y;
}

/* ---- y = a * b ---- */

static void mul_backward(nm_run *r, void *saved)
{
    pair_saved *s = saved;
    const float *dy = nm_grad_read(&s->y);
    int64_t n = nm_numel(&s->y);
    float *da = nm_grad_data(r, &s->a), *db = nm_grad_data(r, &s->b);
    for (int64_t i = 0; da && i < n; i++)
        da[i] += dy[i] * ((const float *)s->b.data)[i];
    for (int64_t i = 0; db && i < n; i++)
        db[i] += dy[i] * ((const float *)s->a.data)[i];
}

nm_tensor nm_mul(nm_run *r, nm_tensor a, nm_tensor b)
{
    if (!a.data || !b.data || !nm_run_ok(r))
        return (nm_tensor){ 0 };
    if (a.dtype != NM_F32 || b.dtype != NM_F32 || !nm_same_shape(&a, &b) || !nm_is_contiguous(&a) || !nm_is_contiguous(&b))
        return nm_run_fail(r, NOEMA_E_INTERNAL, "mul: expected two contiguous f32 tensors of one shape");
    nm_tensor y = nm_new(r, NM_F32, nm_shape_of(&a));
    if (!y.data)
        return y;
    map(r, nm_numel(&a), (map_job){ r, a.data, b.data, y.data, NM_F32, NM_F32, NM_ACT_NONE, MAP_MUL });
    if (nm_wants(r, &a) || nm_wants(r, &b))
        NM_RECORD(r, y, mul_backward, pair_saved, a, b, y, NM_ACT_NONE);
    return y;
}

/* ---- y = act(x) ---- */

static void activation_backward(nm_run *r, void *saved)
{
    pair_saved *s = saved;
    bool add;
    float *dx = nm_grad_out(r, &s->a, &add);
    if (dx)
        map(r, nm_numel(&s->y), (map_job){ r, s->a.data, (const char *)nm_grad_read(&s->y), (char *)dx, NM_F32, NM_F32, s->act, add ? MAP_ACT_BACK_ADD : MAP_ACT_BACK });
}

nm_tensor nm_activation(nm_run *r, nm_tensor x, nm_act act)
{
    if (!x.data || !nm_run_ok(r))
        return (nm_tensor){ 0 };
    if (x.dtype != NM_F32 || !nm_is_contiguous(&x))
        return nm_run_fail(r, NOEMA_E_INTERNAL, "activation: expected a contiguous f32 tensor");
    nm_tensor y = nm_new(r, NM_F32, nm_shape_of(&x));
    if (!y.data)
        return y;
    map(r, nm_numel(&x), (map_job){ r, x.data, NULL, y.data, NM_F32, NM_F32, act, MAP_ACT });
    if (nm_wants(r, &x))
        NM_RECORD(r, y, activation_backward, pair_saved, x, { 0 }, y, act);
    return y;
}

/* ---- y = factor x ---- */

typedef struct times_saved { nm_tensor x, y; float factor; } times_saved;

static void times_backward(nm_run *r, void *saved)
{
    times_saved *s = saved;
    const float *dy = nm_grad_read(&s->y);
    float *dx = nm_grad_data(r, &s->x);
    for (int64_t i = 0, n = nm_numel(&s->y); dx && i < n; i++)
        dx[i] += s->factor * dy[i];
}

nm_tensor nm_times(nm_run *r, nm_tensor x, float factor)
{
    if (!x.data || !nm_run_ok(r))
        return (nm_tensor){ 0 };
    if (x.dtype != NM_F32 || !nm_is_contiguous(&x))
        return nm_run_fail(r, NOEMA_E_INTERNAL, "times: expected a contiguous f32 tensor");
    nm_tensor y = nm_new(r, NM_F32, nm_shape_of(&x));
    for (int64_t i = 0, n = nm_numel(&x); y.data && i < n; i++)
        ((float *)y.data)[i] = factor * ((const float *)x.data)[i];
    if (nm_wants(r, &x))
        NM_RECORD(r, y, times_backward, times_saved, x, y, factor);
    return y;
}

/* ---- y = [a b] ---- */

typedef struct beside_saved { nm_tensor a, b, y; int64_t rows, m, n; } beside_saved;

static void beside_backward(nm_run *r, void *saved)
{
    beside_saved *s = saved;
    const float *dy = nm_grad_read(&s->y);
    float *da = nm_grad_data(r, &s->a), *db = nm_grad_data(r, &s->b);
    for (int64_t i = 0; i < s->rows; i++, dy += s->m + s->n) {
        if (da)
            r->kn->elementwise.add(s->m, da + i * s->m, dy, da + i * s->m);
        if (db)
            r->kn->elementwise.add(s->n, db + i * s->n, dy + s->m, db + i * s->n);
    }
}

nm_tensor nm_beside(nm_run *r, nm_tensor a, nm_tensor b)
{
    if (!a.data || !b.data || !nm_run_ok(r))
        return (nm_tensor){ 0 };
    if (a.ndim != 2 || b.ndim != 2 || a.shape[0] != b.shape[0] || a.dtype != NM_F32 || b.dtype != NM_F32 || !nm_is_contiguous(&a) || !nm_is_contiguous(&b))
        return nm_run_fail(r, NOEMA_E_INTERNAL, "beside: expected contiguous f32 [rows, m] and [rows, n]");
    int64_t rows = a.shape[0], m = a.shape[1], n = b.shape[1];
    nm_tensor y = nm_new(r, NM_F32, NM_SHAPE(rows, m + n));
    for (int64_t i = 0; y.data && i < rows; i++) {
        memcpy((float *)y.data + i * (m + n), (const float *)a.data + i * m, (size_t)m * sizeof(float));
        memcpy((float *)y.data + i * (m + n) + m, (const float *)b.data + i * n, (size_t)n * sizeof(float));
    }
    if (nm_wants(r, &a) || nm_wants(r, &b))
        NM_RECORD(r, y, beside_backward, beside_saved, a, b, y, rows, m, n);
    return y;
}

/* ---- y = (dtype)x ---- */

typedef struct cast_saved { nm_tensor x, y; int64_t rows, cols, ld; } cast_saved;

static void cast_backward(nm_run *r, void *saved)
{
    cast_saved *s = saved;
    const float *dy = nm_grad_read(&s->y);
    float *dx = nm_grad_data(r, &s->x);
    if (s->ld == s->cols)
        add_to(r, dx, dy, s->rows * s->cols);
    else
        for (int64_t i = 0; dx && i < s->rows; i++)
            r->kn->elementwise.add(s->cols, dx + i * s->ld, dy + i * s->cols, dx + i * s->ld);
}

nm_tensor nm_cast(nm_run *r, nm_tensor x, nm_dtype dtype)
{
    int64_t rows, ld;
    if (!x.data || !nm_run_ok(r))
        return (nm_tensor){ 0 };
    if (!nm_as_rows(&x, &rows, &ld))
        return nm_run_fail(r, NOEMA_E_INTERNAL, "cast: expected rows");
    nm_tensor y = nm_new(r, dtype, nm_shape_of(&x));
    if (!y.data)
        return y;
    int64_t cols = x.shape[x.ndim - 1];
    if (nm_is_contiguous(&x))
        map(r, rows * cols, (map_job){ r, x.data, NULL, y.data, x.dtype, dtype, NM_ACT_NONE, MAP_CAST });
    else
        for (int64_t i = 0; i < rows; i++)
            r->kn->elementwise.cast(cols, (char *)x.data + (size_t)(i * ld) * nm_dtype_size(x.dtype), x.dtype,
                                    (char *)y.data + (size_t)(i * cols) * nm_dtype_size(dtype), dtype);
    if (nm_wants(r, &x))
        NM_RECORD(r, y, cast_backward, cast_saved, x, y, rows, cols, ld);
    return y;
}

/* ---- y[.., c] = x[.., c] * gamma[c] ---- */

typedef struct scale_saved { nm_tensor x, y; const nm_weight *gamma; int64_t rows, cols; } scale_saved;

static void scale_backward(nm_run *r, void *saved)
{
    scale_saved *s = saved;
    const float *dy = nm_grad_read(&s->y), *x = s->x.data, *g = s->gamma->f32;
    float *dx = nm_grad_data(r, &s->x);
    for (int64_t i = 0; dx && i < s->rows * s->cols; i++)
        dx[i] += dy[i] * g[i % s->cols];
    if (!nm_trains(r, s->gamma))
        return;
    float *t = nm_scratch(r, (size_t)(s->rows * s->cols) * sizeof *t);
    if (!t)
        return;
    r->kn->elementwise.mul(s->rows * s->cols, dy, x, t);
    nm_add_column_sums(r, t, s->rows, s->cols, s->cols, nm_weight_grad(r, s->gamma));
}

nm_tensor nm_scale_columns(nm_run *r, nm_tensor x, const nm_weight *gamma)
{
    if (!x.data || !nm_run_ok(r))
        return (nm_tensor){ 0 };
    int64_t cols = x.shape[x.ndim - 1], rows = cols ? nm_numel(&x) / cols : 0;
    if (x.dtype != NM_F32 || !nm_is_contiguous(&x) || !gamma->f32 || nm_shape_numel(gamma->shape) != cols)
        return nm_run_fail(r, NOEMA_E_INTERNAL, "scale: expected contiguous f32 rows of the weight's width");
    nm_tensor y = nm_new(r, NM_F32, nm_shape_of(&x));
    for (int64_t i = 0; y.data && i < rows; i++)
        r->kn->elementwise.mul(cols, (float *)x.data + i * cols, gamma->f32, (float *)y.data + i * cols);
    if (nm_wants(r, &x) || nm_trains(r, gamma))
        NM_RECORD(r, y, scale_backward, scale_saved, x, y, gamma, rows, cols);
    return y;
}

/* ---- rows ---- */

typedef struct rows_saved { nm_tensor x, y; const int64_t *rows; int64_t n, cols, ld; } rows_saved;

/* Copies the caller's array into the arena: a backward reads it long after the call. */
static const int64_t *keep_array(nm_run *r, const int64_t *p, int64_t n)
{
    return nm_save_(r, p, (size_t)n * sizeof *p);
}

static void gather_backward(nm_run *r, void *saved)
{
    rows_saved *s = saved;
    const float *dy = nm_grad_read(&s->y);
    float *dx = nm_grad_data(r, &s->x);
    for (int64_t i = 0; dx && i < s->n; i++)
        r->kn->elementwise.add(s->cols, dx + s->rows[i] * s->ld, dy + i * s->cols, dx + s->rows[i] * s->ld);
}

nm_tensor nm_gather_rows(nm_run *r, nm_tensor x, const int64_t *rows, int64_t n)
{
    int64_t have, ld;
    if (!x.data || !nm_run_ok(r))
        return (nm_tensor){ 0 };
    if (!nm_as_rows(&x, &have, &ld))
        return nm_run_fail(r, NOEMA_E_INTERNAL, "gather: expected rows");
    int64_t cols = x.shape[x.ndim - 1];
    nm_tensor y = nm_new(r, x.dtype, NM_SHAPE(n, cols));
    size_t size = nm_dtype_size(x.dtype);
    for (int64_t i = 0; y.data && i < n; i++) {
        if (rows[i] < 0 || rows[i] >= have)
            return nm_run_fail(r, NOEMA_E_INTERNAL, "gather: row %lld of %lld", (long long)rows[i], (long long)have);
        memcpy((char *)y.data + (size_t)(i * cols) * size, (char *)x.data + (size_t)(rows[i] * ld) * size, (size_t)cols * size);
    }
    if (nm_wants(r, &x))
        NM_RECORD(r, y, gather_backward, rows_saved, x, y, keep_array(r, rows, n), n, cols, ld);
    return y;
}

typedef struct join_saved { nm_tensor a, b, y; const int64_t *rows; int64_t n, cols, have, lda, ldb; } join_saved;

static void join_backward(nm_run *r, void *saved)
{
    join_saved *s = saved;
    const float *dy = nm_grad_read(&s->y);
    float *da = nm_grad_data(r, &s->a), *db = nm_grad_data(r, &s->b);
    for (int64_t i = 0; i < s->n; i++) {
        bool first = s->rows[i] < s->have;
        float *d = first ? da : db;
        if (!d)
            continue;
        d += first ? s->rows[i] * s->lda : (s->rows[i] - s->have) * s->ldb;
        r->kn->elementwise.add(s->cols, d, dy + i * s->cols, d);
    }
}

nm_tensor nm_join_rows(nm_run *r, nm_tensor a, nm_tensor b, const int64_t *rows, int64_t n)
{
    int64_t have = 0, more = 0, lda = 0, ldb = 0;
    if ((!a.data && !b.data) || !nm_run_ok(r))
        return (nm_tensor){ 0 };
    const nm_tensor *any = a.data ? &a : &b;
    int64_t cols = any->shape[any->ndim - 1];
    if ((a.data && !nm_as_rows(&a, &have, &lda)) || (b.data && (!nm_as_rows(&b, &more, &ldb) || b.dtype != any->dtype || b.shape[b.ndim - 1] != cols)))
        return nm_run_fail(r, NOEMA_E_INTERNAL, "join: expected rows of one width and type");
    nm_tensor y = nm_new(r, any->dtype, NM_SHAPE(n, cols));
    size_t size = nm_dtype_size(y.dtype);
    for (int64_t i = 0; y.data && i < n; i++) {
        if (rows[i] < 0 || rows[i] >= have + more)
            return nm_run_fail(r, NOEMA_E_INTERNAL, "join: row %lld of %lld", (long long)rows[i], (long long)(have + more));
        const char *src = rows[i] < have ? (const char *)a.data + (size_t)(rows[i] * lda) * size
                                         : (const char *)b.data + (size_t)((rows[i] - have) * ldb) * size;
        memcpy((char *)y.data + (size_t)(i * cols) * size, src, (size_t)cols * size);
    }
    if (nm_wants(r, &a) || nm_wants(r, &b))
        NM_RECORD(r, y, join_backward, join_saved, a, b, y, keep_array(r, rows, n), n, cols, have, lda, ldb);
    return y;
}

static void mean_backward(nm_run *r, void *saved)
{
    rows_saved *s = saved;
    const float *dy = nm_grad_read(&s->y);
    float *dx = nm_grad_data(r, &s->x);
    for (int64_t q = 0; dx && q < s->n; q++)
        for (int64_t i = s->rows[q]; i < s->rows[q + 1]; i++)
            for (int64_t c = 0; c < s->cols; c++)
                dx[i * s->ld + c] += dy[q * s->cols + c] / (float)(s->rows[q + 1] - s->rows[q]);
}

nm_tensor nm_mean_rows(nm_run *r, nm_tensor x, const int64_t *offsets, int64_t n_seq)
{
    int64_t have, ld;
    if (!x.data || !nm_run_ok(r))
        return (nm_tensor){ 0 };
    if (x.dtype != NM_F32 || !nm_as_rows(&x, &have, &ld) || offsets[n_seq] > have)
        return nm_run_fail(r, NOEMA_E_INTERNAL, "mean: expected f32 rows");
    int64_t cols = x.shape[x.ndim - 1];
    nm_tensor y = nm_new(r, NM_F32, NM_SHAPE(n_seq, cols));
    for (int64_t s = 0; y.data && s < n_seq; s++) {
        float *o = (float *)y.data + s * cols;
        int64_t count = offsets[s + 1] - offsets[s];
        memset(o, 0, (size_t)cols * sizeof *o);
        for (int64_t i = offsets[s]; i < offsets[s + 1]; i++)
            r->kn->elementwise.add(cols, o, (const float *)x.data + i * ld, o);
        for (int64_t c = 0; c < cols; c++)
            o[c] /= (float)(count ? count : 1);
    }
    if (nm_wants(r, &x))
        NM_RECORD(r, y, mean_backward, rows_saved, x, y, keep_array(r, offsets, n_seq + 1), n_seq, cols, ld);
    return y;
}

typedef struct prepend_saved { nm_tensor first, tokens, y; int64_t batch, n, width; } prepend_saved;

static void prepend_backward(nm_run *r, void *saved)
{
    prepend_saved *s = saved;
    const float *dy = nm_grad_read(&s->y);
    float *df = nm_grad_data(r, &s->first), *dt = nm_grad_data(r, &s->tokens);
    for (int64_t i = 0; i < s->batch; i++, dy += (s->n + 1) * s->width) {
        if (df)
            r->kn->elementwise.add(s->width, df + i * s->width, dy, df + i * s->width);
        if (dt)
            r->kn->elementwise.add(s->n * s->width, dt + i * s->n * s->width, dy + s->width, dt + i * s->n * s->width);
    }
}

nm_tensor nm_prepend(nm_run *r, nm_tensor first, nm_tensor tokens)
{
    if (!first.data || !tokens.data || !nm_run_ok(r))
        return (nm_tensor){ 0 };
    int64_t batch = tokens.shape[0], n = tokens.shape[1], width = tokens.shape[2];
    if (tokens.ndim != 3 || nm_numel(&first) != batch * width || first.dtype != NM_F32 || tokens.dtype != NM_F32 || !nm_is_contiguous(&first) ||
        !nm_is_contiguous(&tokens))
        return nm_run_fail(r, NOEMA_E_INTERNAL, "prepend: expected contiguous f32 [batch, width] and [batch, n, width]");
    nm_tensor y = nm_new(r, NM_F32, NM_SHAPE(batch, n + 1, width));
    for (int64_t i = 0; y.data && i < batch; i++) {
        float *d = (float *)y.data + i * (n + 1) * width;
        memcpy(d, (const float *)first.data + i * width, (size_t)width * sizeof *d);
        memcpy(d + width, (const float *)tokens.data + i * n * width, (size_t)(n * width) * sizeof *d);
    }
    if (nm_wants(r, &first) || nm_wants(r, &tokens))
        NM_RECORD(r, y, prepend_backward, prepend_saved, first, tokens, y, batch, n, width);
    return y;
}
