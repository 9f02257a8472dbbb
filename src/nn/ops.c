/* ops.c - see ops.h. */
#include "nn/ops.h"

#include <string.h>

bool nm_as_rows(const nm_tensor *x, int64_t *rows, int64_t *ld)
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

nm_shape nm_shape_of(const nm_tensor *t)
{
    nm_shape s = { .ndim = t->ndim };
    memcpy(s.dim, t->shape, sizeof s.dim);
    return s;
}

nm_shape nm_with_last(const nm_tensor *x, int64_t last)
{
    nm_shape s = nm_shape_of(x);
    s.dim[x->ndim - 1] = last;
    return s;
}

void nm_product(nm_run *r, nm_gemm *g)
{
    nm_arena_mark mark = nm_arena_get_mark(r->arena);
    void *scratch = nm_scratch(r, nm_gemm_scratch(r->kn, g, nm_pool_size(r->pool)));
    if (nm_run_ok(r))
        nm_gemm_run(r->kn, g, r->pool, scratch);
    nm_arena_rewind(r->arena, mark);
}

void nm_accumulate_product(nm_run *r, int64_t m, int64_t n, int64_t k, const void *a, nm_dtype a_dtype, int64_t lda, const void *b, nm_dtype b_dtype,
                           int64_t ldb, bool b_transposed, float *c, int64_t ldc)
{
    nm_packed p = { 0 };
    nm_dtype compute = r->compute == NM_BF16 ? NM_BF16 : NM_F32;
    if (!nm_run_ok(r) || !m || !n || !k)
        return;
    if (!nm_gemm_pack(r->kn, &p, compute, b, b_dtype, ldb, b_transposed, n, k, r->pool)) {
        nm_run_fail(r, NOEMA_E_MEMORY, "out of memory: gradient of a product");
        return;
    }
    nm_gemm g = { .m = m, .a = a, .a_dtype = a_dtype, .lda = lda, .b = &p, .c = c, .c_dtype = NM_F32, .ldc = ldc, .alpha = 1, .residual = c, .ldr = ldc };
    nm_product(r, &g);
    nm_gemm_pack_free(&p);
}

typedef struct transpose_job { const float *src; float *dst; int64_t rows, cols, ld; } transpose_job;

static void transpose_part(void *arg, int64_t b, int64_t e, int worker)
{
    const transpose_job *j = arg;
    (void)worker;
    for (int64_t c0 = b; c0 < e; c0 += 16) /* 16 columns x all rows: writes go along rows of dst, reads hit one line 16 times */
        for (int64_t i0 = 0; i0 < j->rows; i0 += 16)
            for (int64_t c = c0; c < e && c < c0 + 16; c++)
                for (int64_t i = i0; i < j->rows && i < i0 + 16; i++)
                    j->dst[c * j->rows + i] = j->src[i * j->ld + c];
}

float *nm_transposed(nm_run *r, const float *src, int64_t rows, int64_t cols, int64_t ld)
{
    float *dst = nm_scratch(r, (size_t)(rows * cols) * sizeof *dst);
    transpose_job j = { src, dst, rows, cols, ld };
    if (dst)
        nm_parallel_for(r->pool, cols, 64, transpose_part, &j);
    return dst;
}

typedef struct sum_job { const float *x; int64_t rows, ld; float *out; } sum_job;

static void sum_columns(void *arg, int64_t b, int64_t e, int worker)
{
    const sum_job *j = arg;
    (void)worker;
    double acc[256];
    int64_t n = e - b;
    memset(acc, 0, (size_t)n * sizeof *acc);
    for (int64_t i = 0; i < j->rows; i++)
        for (int64_t c = 0; c < n; c++)
            acc[c] += (double)j->x[i * j->ld + b + c];
    for (int64_t c = 0; c < n; c++)
        j->out[b + c] += (float)acc[c];
}

void nm_add_column_sums(nm_run *r, const float *x, int64_t rows, int64_t cols, int64_t ld, float *out)
{
    sum_job j = { x, rows, ld, out };
    nm_parallel_for(r->pool, cols, 256, sum_columns, &j);
}

float *nm_weight_grad(nm_run *r, const nm_weight *w)
{
    nm_grad *g = w->grad;
    if (!g)
        return NULL;
    if (!g->data) {
        size_t n = (size_t)nm_shape_numel(w->shape);
        g->n = n;
        g->keep = true;
        g->data = nm_calloc(n, sizeof *g->data);
        if (!g->data)
            nm_run_fail(r, NOEMA_E_MEMORY, "out of memory: gradient of a weight");
    }
    return g->data;
}
