/* matmul.c - products of activations: see nn.h. */
#include <string.h>

#include "nn/ops.h"

typedef struct matmul_saved { nm_tensor a, b, y; int64_t batch, m, n, k; bool transpose_b, shared_b; float scale; } matmul_saved;

/* da += dy b^T, db += a^T dy (or, with b transposed, dy^T a), both times scale; batch by batch. */
static void matmul_backward(nm_run *r, void *saved)
{
    matmul_saved *s = saved;
    int64_t m = s->m, n = s->n, k = s->k;
    float *g = nm_scratch(r, (size_t)(m * n) * sizeof *g), *da = nm_grad_data(r, &s->a), *db = nm_grad_data(r, &s->b);
    nm_arena_mark mark = nm_arena_get_mark(r->arena);
    for (int64_t i = 0; g && i < s->batch; i++) {
        const float *dy = nm_grad_read(&s->y) + i * m * n, *a = (const float *)s->a.data + i * m * k;
        int64_t at = s->shared_b ? 0 : i * k * n;
        const float *b = (const float *)s->b.data + at;
        for (int64_t e = 0; e < m * n; e++)
            g[e] = dy[e] * s->scale;
        if (da)
            nm_accumulate_product(r, m, k, n, g, NM_F32, n, b, NM_F32, s->transpose_b ? k : n, s->transpose_b, da + i * m * k, k);
        float *turned = !db ? NULL : s->transpose_b ? nm_transposed(r, g, m, n, n) : nm_transposed(r, a, m, k, k);
        if (turned && s->transpose_b)
            nm_accumulate_product(r, n, k, m, turned, NM_F32, m, a, NM_F32, k, true, db + at, k);
        else if (turned)
            nm_accumulate_product(r, k, n, m, turned, NM_F32, m, g, NM_F32, n, true, db + at, n);
        nm_arena_rewind(r->arena, mark);
    }
}

nm_tensor nm_matmul(nm_run *r, nm_tensor a, nm_tensor b, bool transpose_b, float scale)
{
    if (!a.data || !b.data || !nm_run_ok(r))
        return (nm_tensor){ 0 };
    bool fit = a.ndim >= 2 && b.ndim >= 2 && (b.ndim == 2 || b.ndim == a.ndim) && a.dtype == NM_F32 && b.dtype == NM_F32 && nm_is_contiguous(&a) && nm_is_contiguous(&b);
    int64_t m = fit ? a.shape[a.ndim - 2] : 0, k = fit ? a.shape[a.ndim - 1] : 0, n = fit ? b.shape[b.ndim - (transpose_b ? 2 : 1)] : 0, batch = 1;
    fit = fit && b.shape[b.ndim - (transpose_b ? 1 : 2)] == k;
    for (int i = 0; fit && i < a.ndim - 2; i++) {
        batch *= a.shape[i];
        fit = b.ndim == 2 || b.shape[i] == a.shape[i];
    }
    if (!fit)
        return nm_run_fail(r, NOEMA_E_INTERNAL, "matmul: expected contiguous f32 [.., m, k] and [.., k, n]");
    nm_tensor y = nm_new(r, NM_F32, nm_with_last(&a, n));
    if (b.ndim == 2) { /* one product of all rows */
        m *= batch;
        batch = 1;
    }
    if (y.data)
        memset(y.data, 0, (size_t)(batch * m * n) * sizeof(float));
    for (int64_t i = 0; y.data && i < batch; i++)
        nm_accumulate_product(r, m, n, k, (float *)a.data + i * m * k, NM_F32, k, (float *)b.data + i * k * n, NM_F32, transpose_b ? k : n, !transpose_b,
                              (float *)y.data + i * m * n, n);
    for (int64_t i = 0; y.data && scale != 1 && i < batch * m * n; i++)
        ((float *)y.data)[i] *= scale;
    if (nm_wants(r, &a) || nm_wants(r, &b))
        NM_RECORD(r, y, matmul_backward, matmul_saved, a, b, y, batch, m, n, k, transpose_b, b.ndim == 2, scale);
    return y;
}
