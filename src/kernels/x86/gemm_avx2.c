/* gemm_avx2.c - products with 256-bit vectors. f32 and widened bf16: register block 6 x 16. int8: 4 x 16 with vpmaddubsw on
 * |a| and b with a's sign: both are at most 127, so that the 16-bit sums of two products do not saturate and all is exact. */
#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>

#include "kernels/x86/gemm.h"
#include "kernels/x86/target.h"

NM_TARGET_PUSH(NM_ISA_AVX2)
#include "kernels/x86/vec_avx2.h"
#include "kernels/x86/math_avx2.h"
#include "kernels/x86/gemm_words_avx2.h"
#include "kernels/x86/gemm_finish_impl.h"
#include "kernels/x86/gemm_pack_impl.h"

#define MR 6
#define TILE tile_f32
#define ACC vf
#define ACC_ZERO vf_zero()
#define PER_UNIT 1
#define LOAD_B(p) vf_load((const float *)(const void *)(p))
#define LOAD_A(p) vf_set1(*(const float *)(const void *)(p))
#define MADD(c, a, b) vf_fma(a, b, c)
#define STORE_ACC(p, c) vf_store(p, c)
#include "kernels/x86/gemm_tile_impl.h"

#define WIDE_TILE tile_bf16
#include "kernels/x86/gemm_wide_impl.h"

#undef MR
#undef TILE
#undef ACC
#undef ACC_ZERO
#undef PER_UNIT
#undef LOAD_B
#undef LOAD_A
#undef MADD
#undef STORE_ACC

NM_INLINE vi unit(const char *p)
{
    int32_t u;
    memcpy(&u, p, 4);
    return _mm256_set1_epi32(u);
}

NM_INLINE vi madd_i8(vi c, vi a, vi b)
{
    vi pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(a), _mm256_sign_epi8(b, a));
    return _mm256_add_epi32(c, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

#define MR 4
#define TILE tile_i8
#define ACC vi
#define ACC_ZERO vi_zero()
#define PER_UNIT 4
#define LOAD_B(p) vi_load(p)
#define LOAD_A(p) unit(p)
#define MADD(c, a, b) madd_i8(c, a, b)
#define STORE_ACC(p, c) vi_store(p, c)
#include "kernels/x86/gemm_tile_impl.h"

static void finish_f32(const nm_gemm_out *o) { finish_any(o, false); }
static void finish_i8(const nm_gemm_out *o) { finish_any(o, true); }
static float rows_of_f32(int64_t k, const void *src, nm_dtype t, void *dst) { return rows_f32(k, src, t, dst); }
static float rows_rounded(int64_t k, const void *src, nm_dtype t, void *dst) { return rows_f32_rounded(k, src, t, dst); }
static float rows_of_i8(int64_t k, const void *src, nm_dtype t, void *dst) { return rows_i8(k, src, t, dst, false); }
static void pack_f32(const nm_gemm_panel *p) { pack_any(p, NM_F32); }
static void pack_bf16(const nm_gemm_panel *p) { pack_any(p, NM_BF16); }
static void pack_i8(const nm_gemm_panel *p) { pack_any(p, NM_I8); }

const nm_gemm_variant nm_gemm_f32_avx2 = {
    .compute = NM_F32, .a_dtype = NM_F32, .nr = 16, .mr = 6, .row_step = 1, .fast = true, .tile = tile_f32, .finish = finish_f32,
    .convert = rows_of_f32, .pack = pack_f32,
};
const nm_gemm_variant nm_gemm_bf16_avx2 = {
    .compute = NM_BF16, .a_dtype = NM_F32, .nr = 16, .mr = 6, .row_step = 1, .always_convert = true, .tile = tile_bf16, .finish = finish_f32,
    .convert = rows_rounded, .pack = pack_bf16,
};
const nm_gemm_variant nm_gemm_i8_avx2 = {
    .compute = NM_I8, .a_dtype = NM_I8, .nr = 16, .mr = 4, .row_step = 1, .fast = true, .tile = tile_i8, .finish = finish_i8,
    .convert = rows_of_i8, .pack = pack_i8,
};
NM_TARGET_POP
#else
typedef int nm_no_avx2_gemm;
#endif
