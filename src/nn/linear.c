/* linear.c - products, normalisations and element-wise operators: see nn.h. */
#include <string.h>

#include "nn/nn.h"

/* Rows and row stride of x seen as [rows, cols]; false when the leading dimensions do not collapse into one stride. */
static bool as_rows(const nm_tensor *x, int64_t *rows, int64_t *ld)
{
    if (x->ndim < 1 || (x->shape[x->ndim - 1] > 1 && x->stride[x->ndim - 1] != 1))
        return false;
    *rows = 1;
    *ld = x->shape[x->ndim - 1];
    bool have = false;
    for (int i = x->ndim - 2; i >= 0; i--) {
        if (x->shape[i] == 1)
            continue;
        if (!have) {
            *ld = x->stride[i];
            have = true;
        } else if (x->stride[i] != *ld * *rows)
            return false;
        *rows *= x->shape[i];
    }
    return true;
}

static nm_shape with_last(const nm_tensor *x, int64_t last)
{
    nm_shape s = { .ndim = x->ndim };
    memcpy(s.dim, x->shape, sizeof s.dim);
    s.dim[x->ndim - 1] = last;
    return s;
}

/* The compute dtype of one product: int8 only where the inner dimension is long enough to average its rounding out. */
static nm_dtype compute_for(const nm_run *r, int64_t k)
{
    if (r->compute == NM_I8)
        return k >= 64 && nm_gemm_has(r->kn, NM_I8) ? NM_I8 : nm_gemm_has(r->kn, NM_BF16) ? NM_BF16 : NM_F32;
    return r->compute;
}

static nm_tensor product(nm_run *r, nm_tensor x, const nm_weight *w, const nm_weight *bias, nm_epilogue e)
{
    if (!x.data || !nm_run_ok(r))
        return (nm_tensor){ 0 };
    int64_t n = w->shape.dim[0], k = n ? nm_shape_numel(w->shape) / n : 0, rows, ld;
    if (!nm_has(w) || !as_rows(&x, &rows, &ld) || x.shape[x.ndim - 1] != k)
        return nm_run_fail(r, NOEMA_E_INTERNAL, "linear: weight [%lld, %lld] against %lld columns", (long long)n, (long long)k,
                           (long long)(x.ndim ? x.shape[x.ndim - 1] : 0));
    const nm_packed *b = nm_weight_packed(r, w, compute_for(r, k));
    nm_tensor y = e.inplace && e.residual ? *e.residual : nm_new(r, e.residual || e.f32 ? NM_F32 : r->act, with_last(&x, n));
    if (!b || !y.data)
        return (nm_tensor){ 0 };
    int64_t y_rows, ldc, r_rows = rows, ldr = 0;
    if (!as_rows(&y, &y_rows, &ldc) || y_rows != rows || (e.residual && (!as_rows(e.residual, &r_rows, &ldr) || r_rows != rows)))
        return nm_run_fail(r, NOEMA_E_INTERNAL, "linear: residual of another shape");
    nm_gemm g = {
        .m = rows, .a = x.data, .a_dtype = x.dtype, .lda = ld, .b = b, .c = y.data, .c_dtype = y.dtype, .ldc = ldc, .alpha = 1,
        .bias = bias && nm_has(bias) ? bias->f32 : NULL, .act = e.act, .gamma = e.gamma && nm_has(e.gamma) ? e.gamma->f32 : NULL,
        .residual = e.residual ? e.residual->data : NULL, .ldr = ldr,
    };
    nm_arena_mark mark = nm_arena_get_mark(r->arena);
    void *scratch = nm_scratch(r, nm_gemm_scratch(r->kn, &g, nm_pool_size(r->pool)));
    if (!nm_run_ok(r))
        return (nm_tensor){ 0 };
    nm_gemm_run(r->kn, &g, r->pool, scratch);
    nm_arena_rewind(r->arena, mark);
    return y;
}

nm_tensor nm_linear(nm_run *r, nm_tensor x, const nm_linear_w *w, nm_epilogue e) { return product(r, x, &w->weight, &w->bias, e); }
nm_tensor nm_matmul_w(nm_run *r, nm_tensor x, const nm_weight *w, nm_epilogue e) { return product(r, x, w, NULL, e); }

/* ---- row operators ---- */

#define ROW_GRAIN_BYTES (64 << 10) /* a piece of work: larger than the cost of handing it out, smaller than L2 */

static int64_t row_grain(int64_t cols)
{
    int64_t g = ROW_GRAIN_BYTES / (cols * 4 + 1);
    return g < 1 ? 1 : g;
}

typedef struct norm_job {
    const nm_run *r;
    const float *x, *weight, *bias;
    int64_t cols, ldx, ldy;
    float eps;
    char *y;
    nm_dtype dtype;
} norm_job;

static void norm_rows(void *arg, int64_t b, int64_t e, int worker)
{
    const norm_job *j = arg;
    (void)worker;
    j->r->kn->norm.layernorm(e - b, j->cols, j->x + b * j->ldx, j->ldx, j->weight, j->bias, j->eps,
                             j->y + (size_t)(b * j->ldy) * nm_dtype_size(j->dtype), j->dtype, j->ldy);
}

static nm_tensor layernorm_as(nm_run *r, nm_tensor x, const nm_norm_w *w, float eps, nm_dtype dtype)
{
    int64_t rows, ld;
    if (!x.data || !nm_run_ok(r))
        return (nm_tensor){ 0 };
    int64_t cols = x.shape[x.ndim - 1];
    if (x.dtype != NM_F32 || !as_rows(&x, &rows, &ld) || (nm_has(&w->weight) && nm_shape_numel(w->weight.shape) != cols))
        return nm_run_fail(r, NOEMA_E_INTERNAL, "layernorm: expected f32 rows of the weight's width");
    nm_tensor y = nm_new(r, dtype, with_last(&x, cols));
    if (!y.data)
        return y;
    norm_job j = { r, x.data, w->weight.f32, w->bias.f32, cols, ld, cols, eps, y.data, dtype };
    nm_parallel_for(r->pool, rows, row_grain(cols), norm_rows, &j);
    return y;
}

nm_tensor nm_layernorm(nm_run *r, nm_tensor x, const nm_norm_w *w, float eps) { return layernorm_as(r, x, w, eps, r->act); }
nm_tensor nm_layernorm_f32(nm_run *r, nm_tensor x, const nm_norm_w *w, float eps) { return layernorm_as(r, x, w, eps, NM_F32); }

nm_tensor nm_normalize(nm_run *r, nm_tensor x, float eps)
{
    if (!x.data || !nm_run_ok(r))
        return (nm_tensor){ 0 };
    nm_tensor y = nm_cast(r, x, NM_F32);
    int64_t cols = x.shape[x.ndim - 1];
    if (y.data && cols)
        r->kn->norm.l2norm(nm_numel(&y) / cols, cols, y.data, cols, eps);
    return y;
}

/* ---- element-wise ---- */

typedef struct map_job {
    const nm_run *r;
    const char *a, *b;
    char *y;
    nm_dtype from, to;
    nm_act act;
    int op; /* 0 add, 1 act, 2 cast */
} map_job;

static void map_part(void *arg, int64_t b, int64_t e, int worker)
{
    const map_job *j = arg;
    (void)worker;
    const nm_elementwise_kernels *k = &j->r->kn->elementwise;
    size_t in = (size_t)b * nm_dtype_size(j->from), out = (size_t)b * nm_dtype_size(j->to);
    if (j->op == 0)
        k->add(e - b, (const float *)(j->a + in), (const float *)(j->b + in), (float *)(j->y + out));
    else if (j->op == 1)
        k->act(e - b, (const float *)(j->a + in), j->act, (float *)(j->y + out));
    else
        k->cast(e - b, j->a + in, j->from, j->y + out, j->to);
}

#define MAP_GRAIN (16 << 10)

static nm_shape shape_of(const nm_tensor *t)
{
    nm_shape s = { .ndim = t->ndim };
    memcpy(s.dim, t->shape, sizeof s.dim);
    return s;
}

nm_tensor nm_add(nm_run *r, nm_tensor a, nm_tensor b)
{
    if (!a.data || !b.data || !nm_run_ok(r))
        return (nm_tensor){ 0 };
    if (a.dtype != NM_F32 || b.dtype != NM_F32 || !nm_same_shape(&a, &b) || !nm_is_contiguous(&a) || !nm_is_contiguous(&b))
        return nm_run_fail(r, NOEMA_E_INTERNAL, "add: expected two contiguous f32 tensors of one shape");
    nm_tensor y = nm_new(r, NM_F32, shape_of(&a));
    map_job j = { r, a.data, b.data, y.data, NM_F32, NM_F32, NM_ACT_NONE, 0 };
    if (y.data)
        nm_parallel_for(r->pool, nm_numel(&a), MAP_GRAIN, map_part, &j);
    return y;
}

nm_tensor nm_activation(nm_run *r, nm_tensor x, nm_act act)
{
    if (!x.data || !nm_run_ok(r))
        return (nm_tensor){ 0 };
    if (x.dtype != NM_F32 || !nm_is_contiguous(&x))
        return nm_run_fail(r, NOEMA_E_INTERNAL, "activation: expected a contiguous f32 tensor");
    nm_tensor y = nm_new(r, NM_F32, shape_of(&x));
    map_job j = { r, x.data, NULL, y.data, NM_F32, NM_F32, act, 1 };
    if (y.data)
        nm_parallel_for(r->pool, nm_numel(&x), MAP_GRAIN, map_part, &j);
    return y;
}

nm_tensor nm_cast(nm_run *r, nm_tensor x, nm_dtype dtype)
{
    int64_t rows, ld;
    if (!x.data || !nm_run_ok(r))
        return (nm_tensor){ 0 };
    if (!as_rows(&x, &rows, &ld))
        return nm_run_fail(r, NOEMA_E_INTERNAL, "cast: expected rows");
    nm_tensor y = nm_new(r, dtype, shape_of(&x));
    if (!y.data)
        return y;
    int64_t cols = x.shape[x.ndim - 1];
    if (nm_is_contiguous(&x)) {
        map_job j = { r, x.data, NULL, y.data, x.dtype, dtype, NM_ACT_NONE, 2 };
        nm_parallel_for(r->pool, rows * cols, MAP_GRAIN, map_part, &j);
        return y;
    }
    for (int64_t i = 0; i < rows; i++)
        r->kn->elementwise.cast(cols, (char *)x.data + (size_t)(i * ld) * nm_dtype_size(x.dtype), x.dtype,
                                (char *)y.data + (size_t)(i * cols) * nm_dtype_size(dtype), dtype);
    return y;
}

nm_tensor nm_gather_rows(nm_run *r, nm_tensor x, const int64_t *rows, int64_t n)
{
    int64_t have, ld;
    if (!x.data || !nm_run_ok(r))
        return (nm_tensor){ 0 };
    if (!as_rows(&x, &have, &ld))
        return nm_run_fail(r, NOEMA_E_INTERNAL, "gather: expected rows");
    int64_t cols = x.shape[x.ndim - 1];
    nm_tensor y = nm_new(r, x.dtype, NM_SHAPE(n, cols));
    size_t size = nm_dtype_size(x.dtype);
    for (int64_t i = 0; y.data && i < n; i++) {
        if (rows[i] < 0 || rows[i] >= have)
            return nm_run_fail(r, NOEMA_E_INTERNAL, "gather: row %lld of %lld", (long long)rows[i], (long long)have);
        memcpy((char *)y.data + (size_t)(i * cols) * size, (char *)x.data + (size_t)(rows[i] * ld) * size, (size_t)cols * size);
    }
    return y;
}

nm_tensor nm_mean_rows(nm_run *r, nm_tensor x, const int64_t *offsets, int64_t n_seq)
{
    int64_t have, ld;
    if (!x.data || !nm_run_ok(r))
        return (nm_tensor){ 0 };
    if (x.dtype != NM_F32 || !as_rows(&x, &have, &ld) || offsets[n_seq] > have)
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
    return y;
}
