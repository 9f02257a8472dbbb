/* scan_ref.c - inner products of queries and rows in plain C: see scan.h. The sum runs in 16 interleaved lanes that are added
 * as a tree, the order of the vector variants (which round once per multiply-add where this rounds twice). */
#include "base/half.h"
#include "kernels/scan_variants.h"

#define LANES 16

static inline float load(const void *p, nm_dtype t, int64_t i)
{
    switch (t) {
    case NM_BF16: return nm_bf16_to_f32(((const nm_bf16 *)p)[i]);
    case NM_F16: return nm_f16_to_f32(((const nm_f16 *)p)[i]);
    case NM_I8: return ((const int8_t *)p)[i];
    default: return ((const float *)p)[i];
    }
}

static float dot(int64_t dim, const float *q, const void *row, nm_dtype dtype)
{
    float lane[LANES] = { 0 };
    for (int64_t i = 0; i < dim; i++)
        lane[i % LANES] += q[i] * load(row, dtype, i);
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++)
            lane[i] += lane[i + half];
    return lane[0];
}

void nm_dots_ref(int64_t nq, const float *queries, int64_t n_rows, int64_t dim, const void *rows, nm_dtype dtype, int64_t stride,
                 const float *row_scale, float *scores, int64_t ld)
{
    for (int64_t r = 0; r < n_rows; r++) {
        const char *row = (const char *)rows + (size_t)(r * stride) * nm_dtype_size(dtype);
        float scale = dtype == NM_I8 && row_scale ? row_scale[r] : 1;
        for (int64_t q = 0; q < nq; q++)
            scores[q * ld + r] = dot(dim, queries + q * dim, row, dtype) * scale;
    }
}
