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

typedef struct linear_saved { nm_tensor x, y; const nm_weight *w, *bias; int64_t rows, n, k, ldx, ldy; } linear_saved;

/* dx += dy W: the weight as it lies in memory is the transposed operand. */
static void input_gradient(nm_run *r, const linear_saved *s, const float *dy)
{
    float *dx = nm_grad_data(r, &s->x);
    const nm_weight *w = s->w;
    const nm_tensor *t = &w->part[0];
    bool direct = w->n_parts == 1 && nm_is_contiguous(t) && (t->dtype == NM_F32 || t->dtype == NM_BF16 || t->dtype == NM_F16);
    if (!dx)
        return;
    if (direct) {
        nm_accumulate_product(r, s->rows, s->k, s->n, dy, NM_F32, s->ldy, t->data, t->dtype, w->transposed ? s->n : s->k, !w->transposed, dx, s->ldx);
        return;
    }
    float *copy = nm_scratch(r, (size_t)(s->n * s->k) * sizeof *copy);
    if (copy) {
        nm_weight_copy_f32(w, copy);
        nm_accumulate_product(r, s->rows, s->k, s->n, dy, NM_F32, s->ldy, copy, NM_F32, s->k, true, dx, s->ldx);
    }
}

static void linear_backward(nm_run *r, void *saved)
{
    linear_saved *s = saved;
    const float *dy = nm_grad_read(&s->y);
    if (nm_trains(r, s->bias))
        nm_add_column_sums(r, dy, s->rows, s->n, s->ldy, nm_weight_grad(r, s->bias));
    if (nm_trains(r, s->w)) { /* dW += dy^T x */
        float *dyt = nm_transposed(r, dy, s->rows, s->n, s->ldy), *dw = nm_weight_grad(r, s->w);
        if (dyt && dw)
            nm_accumulate_product(r, s->n, s->k, s->rows, dyt, NM_F32, s->rows, s->x.data, s->x.dtype, s->ldx, true, dw, s->k);
    }
    if (s->x.grad)
        input_gradient(r, s, dy);
}

static nm_tensor product(nm_run *r, nm_tensor x, const nm_weight *w, const nm_weight *bias, nm_epilogue e);

/* With a tape the epilogue's steps are operators of their own, each with its backward; the numbers are the same up to the fusion. */
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

static nm_tensor product(nm_run *r, nm_tensor x, const nm_weight *w, const nm_weight *bias, nm_epilogue e)
{
    if (!x.data || !nm_run_ok(r))
        return (nm_tensor){ 0 };
    bool plain = e.act == NM_ACT_NONE && !(e.gamma && nm_has(e.gamma)) && !e.residual;
    if (r->tape && !plain)
        return unfused(r, x, w, bias, e);
    int64_t n = w->shape.dim[0], k = n ? nm_shape_numel(w->shape) / n : 0, rows, ld;
    if (!nm_has(w) || !nm_as_rows(&x, &rows, &ld) || x.shape[x.ndim - 1] != k)
        return nm_run_fail(r, NOEMA_E_INTERNAL, "linear: weight [%lld, %lld] against %lld columns", (long long)n, (long long)k,
                           (long long)(x.ndim ? x.shape[x.ndim - 1] : 0));
    nm_gemm_part parts[NM_MAX_PARTS];
    nm_packed bare = { .compute = compute_for(r, k), .n = n, .k = k };
    int n_parts = r->mapped_weights ? nm_weight_parts(r, w, bare.compute, parts) : 0;
    const nm_packed *b = n_parts ? &bare : nm_weight_packed(r, w, bare.compute);
    nm_tensor y = e.inplace && e.residual ? *e.residual : nm_new(r, e.residual || e.f32 ? NM_F32 : r->act, nm_with_last(&x, n));
    if (!b || !y.data)
        return (nm_tensor){ 0 };
    int64_t y_rows, ldc, r_rows = rows, ldr = 0;
    if (!nm_as_rows(&y, &y_rows, &ldc) || y_rows != rows || (e.residual && (!nm_as_rows(e.residual, &r_rows, &ldr) || r_rows != rows)))
        return nm_run_fail(r, NOEMA_E_INTERNAL, "linear: residual of another shape");
    nm_gemm g = {
        .m = rows, .a = x.data, .a_dtype = x.dtype, .lda = ld, .b = b, .parts = n_parts ? parts : NULL, .n_parts = n_parts,
        .c = y.data, .c_dtype = y.dtype, .ldc = ldc, .alpha = 1,
        .bias = bias && nm_has(bias) ? bias->f32 : NULL, .act = e.act, .gamma = e.gamma && nm_has(e.gamma) ? e.gamma->f32 : NULL,
        .residual = e.residual ? e.residual->data : NULL, .ldr = ldr,
    };
    nm_product(r, &g);
    if (nm_wants(r, &x) || nm_trains(r, w) || nm_trains(r, bias))
        NM_RECORD(r, y, linear_backward, linear_saved, x, y, w, bias, rows, n, k, ld, ldc);
    return y;
}

nm_tensor nm_linear(nm_run *r, nm_tensor x, const nm_linear_w *w, nm_epilogue e) { return product(r, x, &w->weight, &w->bias, e); }
nm_tensor nm_matmul_w(nm_run *r, nm_tensor x, const nm_weight *w, nm_epilogue e) { return product(r, x, w, NULL, e); }

