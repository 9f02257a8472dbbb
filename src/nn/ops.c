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
    r->flops += 2.0 * (double)g->m * (double)g->b->n * (double)g->b->k;
    nm_arena_rewind(r->arena, mark);
}

void nm_gradient_product(nm_run *r, int64_t m, int64_t n, int64_t k, const void *a, nm_dtype a_dtype, int64_t lda, const void *b, nm_dtype b_dtype,
                         int64_t ldb, bool b_transposed, float *c, int64_t ldc, bool add)
{
    nm_packed p = { 0 };
    nm_dtype compute = r->compute == NM_BF16 ? NM_BF16 : NM_F32;
    nm_arena_mark mark = nm_arena_get_mark(r->arena);
    for (int64_t i = 0; !add && !k && i < m; i++)
        memset(c + i * ldc, 0, (size_t)n * sizeof *c);
    if (!nm_run_ok(r) || !m || !n || !k)
        return;
    void *room = nm_scratch(r, nm_packed_bytes(r->kn, compute, n, k));
    if (room && nm_gemm_pack_into(r->kn, &p, compute, b, b_dtype, ldb, b_transposed, n, k, r->pool, room)) {
        nm_gemm g = { .m = m, .a = a, .a_dtype = a_dtype, .lda = lda, .b = &p, .c = c, .c_dtype = NM_F32, .ldc = ldc, .alpha = 1,
                      .residual = add ? c : NULL, .ldr = ldc };
        nm_product(r, &g);
    } else
        nm_run_fail(r, NOEMA_E_MEMORY, "out of memory: gradient of a product");
    nm_arena_rewind(r->arena, mark);
}

const nm_packed *nm_packed_for(nm_run *r, const nm_weight *w, nm_dtype compute, nm_packed *room)
{
    int64_t n = w->shape.dim[0], k = n ? nm_shape_numel(w->shape) / n : 0;
    const nm_tensor *t = &w->part[0];
    if (!nm_weight_grad_of(w) || !r->training || w->n_parts != 1 || t->dtype != NM_F32 || !nm_is_contiguous(t) || nm_numel(t) != n * k)
        return nm_weight_packed(r, w, compute);
    void *data = nm_scratch(r, nm_packed_bytes(r->kn, compute, n, k));
    if (!data || !nm_gemm_pack_into(r->kn, room, compute, t->data, NM_F32, w->transposed ? n : k, w->transposed, n, k, r->pool, data))
        return NULL;
    return room;
}

typedef struct transpose_job { const nm_run *r; const float *src; float *dst; int64_t rows, cols, ld; } transpose_job;

enum { TURNED_COLUMNS = 64, TURNED_ROWS = 64 }; /* a square that stays in the first-level cache */

static void transpose_part(void *arg, int64_t b, int64_t e, int worker)
{
    const transpose_job *j = arg;
    (void)worker;
    for (int64_t c = b; c < e; c += TURNED_COLUMNS)
        for (int64_t i = 0; i < j->rows; i += TURNED_ROWS)
            j->r->kn->gradient.transpose(j->rows - i < TURNED_ROWS ? j->rows - i : TURNED_ROWS, e - c < TURNED_COLUMNS ? e - c : TURNED_COLUMNS,
                                         j->src + i * j->ld + c, j->ld, j->dst + c * j->rows + i, j->rows);
}

float *nm_transposed(nm_run *r, const float *src, int64_t rows, int64_t cols, int64_t ld)
{
    float *dst = nm_scratch(r, (size_t)(rows * cols) * sizeof *dst);
    transpose_job j = { r, src, dst, rows, cols, ld };
    if (dst)
        nm_parallel_for(r->pool, cols, TURNED_COLUMNS, transpose_part, &j);
    return dst;
}

/* ---- sums over rows: f32 within SUM_ROWS rows, double beyond ---- */

enum { SUM_ROWS = 64, SUM_COLUMNS = 256 };
typedef struct sum_job { const nm_run *r; const float *x; int64_t rows, ld; float *out; } sum_job;

static void sum_columns(void *arg, int64_t b, int64_t e, int worker)
{
    const sum_job *j = arg;
    (void)worker;
    double acc[SUM_COLUMNS] = { 0 };
    for (int64_t i = 0; i < j->rows; i += SUM_ROWS) {
        float part[SUM_COLUMNS] = { 0 };
        j->r->kn->gradient.column_sums(j->rows - i < SUM_ROWS ? j->rows - i : SUM_ROWS, e - b, j->x + i * j->ld + b, j->ld, part);
        for (int64_t c = 0; c < e - b; c++)
            acc[c] += (double)part[c];
    }
    for (int64_t c = 0; c < e - b; c++)
        j->out[b + c] += (float)acc[c];
}

void nm_add_column_sums(nm_run *r, const float *x, int64_t rows, int64_t cols, int64_t ld, float *out)
{
    sum_job j = { r, x, rows, ld, out };
    nm_parallel_for(r->pool, cols, SUM_COLUMNS, sum_columns, &j);
}

void nm_linear_gradients(nm_run *r, const nm_weight *w, const nm_weight *bias, int64_t rows, int64_t n, int64_t k, const float *dy, int64_t ldy,
                         const void *x, nm_dtype x_dtype, int64_t ldx)
{
    if (nm_trains(r, bias))
        nm_add_column_sums(r, dy, rows, n, ldy, nm_weight_grad(r, bias));
    if (!nm_trains(r, w))
        return;
    nm_arena_mark mark = nm_arena_get_mark(r->arena);
    bool add;
    float *dyt = nm_transposed(r, dy, rows, n, ldy), *dw = nm_weight_grad_out(r, w, &add);
    if (dyt && dw)
        nm_gradient_product(r, n, k, rows, dyt, NM_F32, rows, x, x_dtype, ldx, true, dw, k, add);
    nm_arena_rewind(r->arena, mark);
}

/* ---- gradients of weights ---- */

float *nm_weight_grad_out(nm_run *r, const nm_weight *w, bool *add)
{
    nm_grad *g = w->grad;
    *add = true;
    if (w->whole) { /* the other rows too get what others add, or zeros */
        float *all = nm_weight_grad(r, w->whole);
        return all ? all + w->first * (nm_shape_numel(w->shape) / w->shape.dim[0]) : NULL;
    }
    if (!g)
        return NULL;
    if (g->busy) {
        nm_run_fail(r, NOEMA_E_INTERNAL, "a gradient is added to while the ranks sum it");
        return NULL;
    }
    g->touched = r->backwards;
    if (!g->data) {
        g->n = (size_t)nm_shape_numel(w->shape);
        g->keep = g->stale = true;
        if (!(g->data = nm_alloc(g->n * sizeof *g->data)))
            nm_run_fail(r, NOEMA_E_MEMORY, "out of memory: gradient of a weight");
    }
    *add = !g->stale;
    g->stale = false;
    return g->data;
}

float *nm_weight_grad(nm_run *r, const nm_weight *w)
{
    bool add;
    float *d = nm_weight_grad_out(r, w, &add);
    if (d && !add)
        memset(d, 0, w->grad->n * sizeof *d); /* a whole weight: rows of one always add */
    return d;
}
