/* gemm_ref.c - the products in plain C: specification, fallback and oracle. B keeps its rows: [n, k] in the compute dtype. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "base/mem.h"
#include "kernels/kernels.h"

static float load(const void *p, nm_dtype t, int64_t i)
{
    return t == NM_F32 ? ((const float *)p)[i] : t == NM_BF16 ? nm_bf16_to_f32(((const nm_bf16 *)p)[i]) : nm_f16_to_f32(((const nm_f16 *)p)[i]);
}

bool nm_gemm_pack(const nm_kernels *kn, nm_packed *p, nm_dtype compute, const void *w, nm_dtype w_dtype, int64_t ldw, bool transposed, int64_t n,
                  int64_t k, nm_pool *pool)
{
    (void)kn, (void)pool;
    *p = (nm_packed){ .compute = NM_F32, .n = n, .k = k, .bytes = (size_t)(n * k) * sizeof(float), .owned = true };
    float *d = p->data = nm_alloc(p->bytes);
    for (int64_t i = 0; d && i < n; i++)
        for (int64_t j = 0; j < k; j++) {
            float v = load(w, w_dtype, transposed ? j * ldw + i : i * ldw + j);
            d[i * k + j] = compute == NM_F32 ? v : nm_bf16_to_f32(nm_f32_to_bf16(v));
        }
    return d != NULL;
}

void nm_gemm_pack_free(nm_packed *p)
{
    if (p->owned)
        nm_free(p->data);
    *p = (nm_packed){ 0 };
}

size_t nm_gemm_scratch(const nm_kernels *kn, const nm_gemm *g, int workers)
{
    (void)kn, (void)g, (void)workers;
    return 0;
}

typedef struct job { const nm_kernels *kn; const nm_gemm *g; } job;

static void rows(void *arg, int64_t b, int64_t e, int worker)
{
    const job *j = arg;
    const nm_gemm *g = j->g;
    (void)worker;
    int64_t n = g->b->n, k = g->b->k;
    for (int64_t i = b; i < e; i++)
        for (int64_t o = 0; o < n; o++) {
            const float *w = (const float *)g->b->data + o * k;
            float acc = 0;
            for (int64_t t = 0; t < k; t++)
                acc += load(g->a, g->a_dtype, i * g->lda + t) * w[t];
            acc *= g->alpha;
            if (g->bias)
                acc += g->bias[o];
            j->kn->elementwise.act(1, &acc, g->act, &acc);
            if (g->gamma)
                acc *= g->gamma[o];
            if (g->residual)
                acc += g->residual[i * g->ldr + o];
            if (g->c_dtype == NM_F32)
                ((float *)g->c)[i * g->ldc + o] = acc;
            else
                ((nm_bf16 *)g->c)[i * g->ldc + o] = nm_f32_to_bf16(acc);
        }
}

void nm_gemm_run(const nm_kernels *kn, const nm_gemm *g, nm_pool *pool, void *scratch)
{
    (void)scratch;
    job j = { kn, g };
    nm_parallel_for(pool, g->m, 4, rows, &j);
}

bool nm_gemm_has(const nm_kernels *kn, nm_dtype compute)
{
    (void)kn;
    return compute == NM_F32;
}
