/* gemm_ref.c - the product as it is defined, in plain C: specification, fallback and oracle. */
#include "kernels/gemm_ref.h"

#include <math.h>
#include <string.h>

#include "base/half.h"
#include "kernels/math_ref.h"

#define NR NM_GEMM_REF_NR

static inline float load(const void *p, nm_dtype t, int64_t i)
{
    switch (t) {
    case NM_BF16: return nm_bf16_to_f32(((const nm_bf16 *)p)[i]);
    case NM_F16: return nm_f16_to_f32(((const nm_f16 *)p)[i]);
    default: return ((const float *)p)[i];
    }
}

/* ---- quantisation: q = round(x * 127 / max|x|), to nearest even; x is about q * scale, scale = max|x| / 127 ---- */

/* 127 / max, or 0 for a row of zeros (and of values so small that the quotient overflows). */
static inline float inverse_scale(float max) { return max < 0x1p-100f ? 0 : 127 / max; }

/* The largest |x|; NaN when the row has a NaN or an infinity, which then makes all results of the row NaN. */
static float row_max(int64_t k, const void *src, nm_dtype t, int64_t step)
{
    float max = 0, poison = 0;
    for (int64_t i = 0; i < k; i++) {
        float x = fabsf(load(src, t, i * step));
        max = x > max ? x : max;
        poison += x * 0;
    }
    return max + poison;
}

static inline int quantise(float x, float inv) { return isnan(inv) ? 0 : (int)lrintf(x * inv); }

float nm_gemm_quantise_ref(int64_t k, const void *src, nm_dtype src_dtype, int offset, uint8_t *dst)
{
    float max = row_max(k, src, src_dtype, 1), inv = inverse_scale(max);
    for (int64_t i = 0; i < ((k + 3) & ~(int64_t)3); i++)
        dst[i] = (uint8_t)(i < k ? quantise(load(src, src_dtype, i), inv) + offset : 0);
    return max < 0x1p-100f ? 0 : max / 127;
}

/* ---- rows of A ---- */

static float convert_f32(int64_t k, const void *src, nm_dtype t, void *dst)
{
    for (int64_t i = 0; i < k; i++)
        ((float *)dst)[i] = load(src, t, i);
    return 1;
}

static float convert_bf16(int64_t k, const void *src, nm_dtype t, void *dst)
{
    for (int64_t i = 0; i < ((k + 1) & ~(int64_t)1); i++)
        ((nm_bf16 *)dst)[i] = i < k ? nm_f32_to_bf16(load(src, t, i)) : 0;
    return 1;
}

static float convert_i8(int64_t k, const void *src, nm_dtype t, void *dst) { return nm_gemm_quantise_ref(k, src, t, 0, dst); }

/* ---- panels: see gemm_kernels.h ---- */

void nm_gemm_pack_ref(const nm_gemm_panel *p, nm_dtype compute, int nr)
{
    int per = nm_gemm_per_unit(compute);
    size_t size = nm_dtype_size(p->dtype);
    memset(p->data, 0, (size_t)nm_gemm_units(compute, p->k) * (size_t)nr * 4);
    for (int j = 0; j < nr; j++) {
        const char *row = (const char *)p->w + (size_t)(j * p->row_step) * size;
        float max = compute == NM_I8 && j < p->cols ? row_max(p->k, row, p->dtype, p->k_step) : 0, inv = inverse_scale(max);
        int32_t sum = 0;
        for (int64_t i = 0; j < p->cols && i < p->k; i++) {
            float x = load(row, p->dtype, i * p->k_step);
            int64_t at = (i / per * nr + j) * per + i % per;
            if (compute == NM_F32)
                ((float *)p->data)[at] = x;
            else if (compute == NM_BF16)
                ((nm_bf16 *)p->data)[at] = nm_f32_to_bf16(x);
            else
                sum += ((int8_t *)p->data)[at] = (int8_t)quantise(x, inv);
        }
        if (compute == NM_I8) {
            p->scale[j] = max < 0x1p-100f ? 0 : max / 127;
            p->sum[j] = sum;
        }
    }
}

static void pack_f32(const nm_gemm_panel *p) { nm_gemm_pack_ref(p, NM_F32, NR); }
static void pack_bf16(const nm_gemm_panel *p) { nm_gemm_pack_ref(p, NM_BF16, NR); }
static void pack_i8(const nm_gemm_panel *p) { nm_gemm_pack_ref(p, NM_I8, NR); }

/* ---- tiles ---- */

static void tile_f32(const nm_gemm_tile *t)
{
    for (int r = 0; r < t->rows; r++) {
        const void *a = t->a + r * t->a_stride;
        float sum[NR] = { 0 };
        for (int64_t i = 0; i < t->k; i++)
            for (int j = 0; j < NR; j++)
                sum[j] += ((const float *)a)[i] * ((const float *)(const void *)t->panel)[i * NR + j];
        memcpy((float *)t->acc + r * NR, sum, sizeof sum);
    }
}

static void tile_bf16(const nm_gemm_tile *t)
{
    for (int r = 0; r < t->rows; r++) {
        const void *a = t->a + r * t->a_stride;
        float sum[NR] = { 0 };
        for (int64_t i = 0; i < t->k; i++)
            for (int j = 0; j < NR; j++)
                sum[j] += nm_bf16_to_f32(((const nm_bf16 *)a)[i]) * nm_bf16_to_f32(((const nm_bf16 *)(const void *)t->panel)[(i / 2 * NR + j) * 2 + i % 2]);
        memcpy((float *)t->acc + r * NR, sum, sizeof sum);
    }
}

static void tile_i8(const nm_gemm_tile *t)
{
    for (int r = 0; r < t->rows; r++) {
        const void *a = t->a + r * t->a_stride;
        int32_t sum[NR] = { 0 };
        for (int64_t i = 0; i < t->k; i++)
            for (int j = 0; j < NR; j++)
                sum[j] += ((const int8_t *)a)[i] * ((const int8_t *)t->panel)[(i / 4 * NR + j) * 4 + i % 4];
        memcpy((int32_t *)t->acc + r * NR, sum, sizeof sum);
    }
}

/* ---- epilogue, in the order of gemm.h ---- */

static void finish_ref(const nm_gemm_out *o)
{
    const nm_gemm *g = o->g;
    for (int r = 0; r < o->rows; r++)
        for (int j = 0; j < o->cols; j++) {
            int64_t row = o->row + r, col = o->col + j;
            float t;
            if (g->b->compute == NM_I8)
                t = (float)(((const int32_t *)o->acc)[r * NR + j] - o->offset * g->b->sum[col]) * (o->row_scale[row] * g->b->scale[col]);
            else
                t = ((const float *)o->acc)[r * NR + j];
            t *= g->alpha;
            if (g->bias)
                t += g->bias[col];
            t = nm_activate_ref(t, g->act);
            if (g->gamma)
                t *= g->gamma[col];
            if (g->residual)
                t += g->residual[row * g->ldr + col];
            if (g->c_dtype == NM_F32)
                ((float *)g->c)[row * g->ldc + col] = t;
            else
                ((nm_bf16 *)g->c)[row * g->ldc + col] = nm_f32_to_bf16(t);
        }
}

const nm_gemm_variant nm_gemm_f32_ref = {
    .compute = NM_F32, .a_dtype = NM_F32, .nr = NR, .mr = 8, .row_step = 1, .tile = tile_f32, .finish = finish_ref, .convert = convert_f32, .pack = pack_f32,
};
const nm_gemm_variant nm_gemm_bf16_ref = {
    .compute = NM_BF16, .a_dtype = NM_BF16, .nr = NR, .mr = 8, .row_step = 1, .tile = tile_bf16, .finish = finish_ref, .convert = convert_bf16, .pack = pack_bf16,
};
const nm_gemm_variant nm_gemm_i8_ref = {
    .compute = NM_I8, .a_dtype = NM_I8, .nr = NR, .mr = 8, .row_step = 1, .tile = tile_i8, .finish = finish_ref, .convert = convert_i8, .pack = pack_i8,
};
