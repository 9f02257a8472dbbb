/* gemm.h - C[m,n] = epilogue(A[m,k] B^T), B[n,k] packed once: the operator that the models spend their time in.
 *
 * Numbers: accumulation is f32 (int8: i32, exact) in one fixed order over k for every element of C, whatever m, the row's
 * position, the number of threads or the other rows are: a row's result is the same bits in a batch of 1 and of 1000. */
#ifndef NM_GEMM_H
#define NM_GEMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/dtype.h"
#include "base/pool.h"

struct nm_kernels;

typedef enum nm_act {
    NM_ACT_NONE,
    NM_ACT_QUICK_GELU, /* x * sigmoid(1.702 x) */
    NM_ACT_GELU,       /* 0.5 x (1 + erf(x / sqrt 2)) */
    NM_ACT_GELU_TANH,  /* 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) */
    NM_ACT_RELU,
    NM_ACT_SILU,
    NM_ACT_TANH,
    NM_ACTS
} nm_act;

/* A weight in the layout of one instruction set. Made by nm_gemm_pack, read-only afterwards, freed by nm_gemm_pack_free. */
typedef struct nm_packed {
    nm_dtype compute; /* NM_F32, NM_BF16 or NM_I8 */
    uint32_t layout;  /* which kernel family may read it; private to src/kernels */
    int64_t n, k;
    size_t bytes;
    void *data;       /* 64-byte aligned; may point into a mapped pack file (then owned == false) */
    float *scale;     /* NM_I8: [n], the factor of each output channel (symmetric) */
    int32_t *sum;     /* NM_I8: [n], sum of the int8 weights over k (offset correction of u8 activations) */
    bool owned;
} nm_packed;

/* Rows of a stored weight that has no packed form: [rows, k] of f32, f16 or bf16, row stride ldw (elements), or [k, rows] transposed. */
typedef struct nm_gemm_part { const void *w; nm_dtype dtype; int64_t ldw, rows; bool transposed; } nm_gemm_part;

/* One product. Strides are in elements. c may alias residual (in-place residual add) but nothing else. */
typedef struct nm_gemm {
    int64_t m;
    const void *a;          /* [m,k], row stride lda */
    nm_dtype a_dtype;       /* NM_F32 or NM_BF16; converted on the fly where the compute dtype differs: bf16 compute rounds f32 rows
                             * to bf16; int8 compute quantises each row to int8 with its own scale max|a|/127 */
    int64_t lda;
    const nm_packed *b;
    /* Instead of packed data (b->data NULL; b gives compute, n and k): panels are packed from here as they are needed, bit for bit the
     * same. Little memory for weights that a product reads once. All parts but the last have rows in multiples of nm_gemm_panel_rows. */
    const nm_gemm_part *parts;
    int n_parts;
    void *c;                /* [m,n], row stride ldc */
    nm_dtype c_dtype;       /* NM_F32 or NM_BF16 */
    int64_t ldc;
    /* epilogue, in this order: t = alpha * acc; t += bias[n]; t = act(t); t *= gamma[n]; t += residual[m,n]; c = t */
    float alpha;            /* 1 where unused */
    const float *bias;      /* [n] or NULL */
    nm_act act;
    const float *gamma;     /* [n] or NULL (LayerScale) */
    const float *residual;  /* f32 [m,n], row stride ldr, or NULL */
    int64_t ldr;
} nm_gemm;

/* Packs w [n,k] (transposed == true: w is stored [k,n]) of dtype f32, f16 or bf16; `ldw` is the row stride of the stored
 * matrix in elements. Returns false when out of memory, when the compute dtype is unknown, or for int8
 * with k > 65536 (sums would not fit). Parallel over n. Packing is one pass at memory speed: activations may be packed per step. */
bool nm_gemm_pack(const struct nm_kernels *kn, nm_packed *p, nm_dtype compute, const void *w, nm_dtype w_dtype, int64_t ldw, bool transposed,
                  int64_t n, int64_t k, nm_pool *pool);
/* The same into `data`, 64-byte aligned, of nm_packed_bytes, which stays the caller's. False: a dtype that cannot be packed. */
bool nm_gemm_pack_into(const struct nm_kernels *kn, nm_packed *p, nm_dtype compute, const void *w, nm_dtype w_dtype, int64_t ldw, bool transposed,
                       int64_t n, int64_t k, nm_pool *pool, void *data);
void nm_gemm_pack_free(nm_packed *p);

int64_t nm_gemm_panel_rows(const struct nm_kernels *kn, nm_dtype compute);

/* Scratch bytes that nm_gemm_run needs for this product on `workers` threads (row quantisation, bf16 rounding of A, ...);
 * 0 is common. `scratch` is 64-byte aligned. */
size_t nm_gemm_scratch(const struct nm_kernels *kn, const nm_gemm *g, int workers);
void nm_gemm_run(const struct nm_kernels *kn, const nm_gemm *g, nm_pool *pool, void *scratch);

/* Which compute dtypes run faster than f32 on these features: bf16 dot products, int8 dot products. */
bool nm_gemm_has(const struct nm_kernels *kn, nm_dtype compute);

/* Packed weights in a file: the bytes of p->data (p->bytes of them, scales included) may be written out and mapped again where
 * layout, n and k are the same. nm_packed_bytes is 0 when the sizes are out of range; nm_packed_from_mapped is false when the
 * file is of another layout (instruction set, version) or size; `data` is 64-byte aligned and outlives p. */
size_t nm_packed_bytes(const struct nm_kernels *kn, nm_dtype compute, int64_t n, int64_t k);
uint32_t nm_packed_layout(const struct nm_kernels *kn, nm_dtype compute);
bool nm_packed_from_mapped(const struct nm_kernels *kn, nm_packed *p, nm_dtype compute, uint32_t layout, int64_t n, int64_t k, const void *data,
                           size_t bytes);

/* Private to src/kernels: the micro-kernels of one instruction set, per compute dtype (f32, bf16, i8). Yours to shape. */
typedef struct nm_gemm_kernels nm_gemm_kernels;
#include "kernels/gemm_kernels.h"

#endif
