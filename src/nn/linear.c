/* linear.c - products with their fused epilogues, and the backward: see nn.h. */
#include "nn/ops.h"

/* The compute dtype of one product: int8 only where the inner dimension is long enough to average its rounding out. */
static nm_dtype compute_for(const nm_run *r, int64_t k)
{
    if (r->compute == NM_I8)
        return k >= 64 && nm_gemm_has(r->kn, NM_I8) ? NM_I8 : nm_gemm_has(r->kn, NM_BF16) ? NM_BF16 : NM_F32;
    return r->compute;
}

/* ---- backward of y = x W^T + b ---- */

typedef struct linear_saved { nm_tensor x, y, residual; const nm_weight *w, *bias; int64_t rows, n, k, ldx, ldy; } linear_saved;

void nm_input_gradient(nm_run *r, const nm_weight *w, int64_t rows, int64_t n, int64_t k, const float *dy, int64_t ldy, float *dx, int64_t ldx, bool add)
{
    const nm_tensor *t = &w->part[0];
    nm_arena_mark mark = nm_arena_get_mark(r->arena);
    if (w->n_parts == 1 && nm_is_contiguous(t) && (t->dtype == NM_F32 || t->dtype == NM_BF16 || t->dtype == NM_F16)) {
        /* the weight as it lies in memory is the transposed operand */
        nm_gradient_product(r, rows, k, n, dy, NM_F32, ldy, t->data, t->dtype, w->transposed ? n : k, !w->transposed, dx, ldx, add);
        return;
    }
    float *copy = nm_scratch(r, (size_t)(n * k) * sizeof *copy);
    if (copy) {
        nm_weight_copy_f32(w, copy);
        nm_gradient_product(r, rows, k, n, dy, NM_F32, ldy, copy, NM_F32, k, true, dx, ldx, add);
    }
    nm_arena_rewind(r->arena, mark);
}

static void linear_backward(nm_run *r, void *saved)
{
    linear_saved *s = saved;
    const float *dy = nm_grad_read(&s->y);
    bool add;
    nm_linear_gradients(r, s->w, s->bias, s->rows, s->n, s->k, dy, s->ldy, s->x.data, s->x.dtype, s->ldx);
    float *dx = s->x.grad ? nm_grad_out(r, &s->x, &add) : NULL;
    if (dx)
        nm_input_gradient(r, s->w, s->rows, s->n, s->k, dy, s->ldy, dx, s->ldx, add);
    nm_grad_pass(r, &s->y, &s->residual);
}

static nm_tensor product(nm_run *r, nm_tensor x, const nm_weight *w, const nm_weight *bias, nm_epilogue e);

/* With a tape activations and scales are operators of their own, each with its backward; the numbers are the same up to the fusion. */
static nm_tensor unfused(nm_run *r, nm_tensor x, const nm_weight *w, const nm_weight *bias, nm_epilogue e)
{
    nm_tensor y = product(r, x, w, bias, (nm_epilogue){ .f32 = e.f32 || e.residual || e.act != NM_ACT_NONE || (e.gamma && nm_has(e.gamma)) });
    if (e.act != NM_ACT_NONE)
        y = nm_activation(r, y, e.act);
    if (e.gamma && nm_has(e.gamma))
        y = nm_scale_columns(r, y, e.gamma);
    if (e.residual)
        y = nm_add(r, *e.residual, y);
    return e.residual || e.f32 || y.dtype == r->act ? y : nm_cast(r, y, r->act);
}

void nm_product_into(nm_run *r, nm_tensor x, const nm_weight *w, const nm_weight *bias, nm_epilogue e, nm_tensor y)
{
    int64_t k = x.shape[x.ndim - 1], rows, ld, y_rows, ldc, r_rows, ldr = 0;
    nm_arena_mark mark = nm_arena_get_mark(r->arena);
    nm_gemm_part parts[NM_MAX_PARTS];
    nm_packed room, bare = { .compute = compute_for(r, k), .n = y.shape[y.ndim - 1], .k = k };
    int n_parts = r->mapped_weights ? nm_weight_parts(r, w, bare.compute, parts) : 0;
    const nm_packed *b = n_parts ? &bare : nm_packed_for(r, w, bare.compute, &room);
    bool fits = nm_as_rows(&x, &rows, &ld) && nm_as_rows(&y, &y_rows, &ldc) && y_rows == rows;
    if (!fits || (e.residual && (!nm_as_rows(e.residual, &r_rows, &ldr) || r_rows != rows)))
        nm_run_fail(r, NOEMA_E_INTERNAL, "linear: result or residual of another shape");
    if (!b || !nm_run_ok(r))
        return;
    nm_gemm g = {
        .m = rows, .a = x.data, .a_dtype = x.dtype, .lda = ld, .b = b, .parts = n_parts ? parts : NULL, .n_parts = n_parts,
        .c = y.data, .c_dtype = y.dtype, .ldc = ldc, .alpha = 1,
        .bias = bias && nm_has(bias) ? bias->f32 : NULL, .act = e.act, .gamma = e.gamma && nm_has(e.gamma) ? e.gamma->f32 : NULL,
        .residual = e.residual ? e.residual->data : NULL, .ldr = ldr,
    };
    nm_product(r, &g);
    nm_arena_rewind(r->arena, mark);
}

static nm_tensor product(nm_run *r, nm_tensor x, const nm_weight *w, const nm_weight *bias, nm_epilogue e)
{
    if (!x.data || !nm_run_ok(r))
        return (nm_tensor){ 0 };
    bool plain = e.act == NM_ACT_NONE && !(e.gamma && nm_has(e.gamma)), inplace = e.inplace && e.residual;
    if (r->tape && !plain)
        return unfused(r, x, w, bias, e);
    int64_t n = w->shape.dim[0], k = n ? nm_shape_numel(w->shape) / n : 0, rows, ld;
    if (!nm_has(w) || !nm_as_rows(&x, &rows, &ld) || x.shape[x.ndim - 1] != k)
        return nm_run_fail(r, NOEMA_E_INTERNAL, "linear: weight [%lld, %lld] against %lld columns", (long long)n, (long long)k,
                           (long long)(x.ndim ? x.shape[x.ndim - 1] : 0));
    nm_tensor y = inplace ? *e.residual : nm_new(r, e.residual || e.f32 ? NM_F32 : r->act, nm_with_last(&x, n));
    if (!y.data)
        return y;
    nm_product_into(r, x, w, bias, e, y);
    if (!nm_run_ok(r))
        return (nm_tensor){ 0 };
    nm_tensor residual = e.residual && !inplace ? *e.residual : (nm_tensor){ 0 };
    if (nm_wants(r, &x) || nm_wants(r, &residual) || nm_trains(r, w) || nm_trains(r, bias))
        NM_RECORD(r, y, linear_backward, linear_saved, x, y, residual, w, bias, rows, n, k, ld, n);
    return y;
}

nm_tensor nm_linear(nm_run *r, nm_tensor x, const nm_linear_w *w, nm_epilogue e) { return product(r, x, &w->weight, &w->bias, e); }
nm_tensor nm_matmul_w(nm_run *r, nm_tensor x, const nm_weight *w, nm_epilogue e) { return product(r, x, w, NULL, e); }

