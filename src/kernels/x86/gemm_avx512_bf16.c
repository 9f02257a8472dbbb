/* gemm_avx512_bf16.c - bf16 products with 512-bit bf16 dot products: vdpbf16ps adds two products to each f32 lane. A is read in
 * place; an odd last element is paired with zero. */
#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>

#include "kernels/x86/gemm.h"
#include "kernels/x86/target.h"

NM_TARGET_PUSH(NM_ISA_AVX512_BF16)
#include "kernels/x86/vec_avx512.h"

NM_INLINE __m512 unit(const char *p)
{
    int32_t u;
    memcpy(&u, p, 4);
    return _mm512_castsi512_ps(_mm512_set1_epi32(u));
}

NM_INLINE __m512 half_unit(const char *p)
{
    uint16_t u;
    memcpy(&u, p, 2);
    return _mm512_castsi512_ps(_mm512_set1_epi32(u));
}

#define MR 12
#define TILE tile_bf16
#define ACC vf
#define ACC_ZERO vf_zero()
#define PER_UNIT 2
#define LOAD_B(p) vf_load((const float *)(const void *)(p))
#define LOAD_A(p) unit(p)
#define LOAD_A_LAST(p, n) half_unit(p)
#define MADD(c, a, b) _mm512_dpbf16_ps(c, (__m512bh)(a), (__m512bh)(b))
#define STORE_ACC(p, c) vf_store(p, c)
#include "kernels/x86/gemm_tile_impl.h"

const nm_gemm_variant nm_gemm_bf16_avx512_bf16 = {
    .compute = NM_BF16, .a_dtype = NM_BF16, .nr = 32, .mr = MR, .row_step = 1, .fast = true, .tile = tile_bf16, .finish = nm_gemm_finish_avx512,
    .convert = nm_gemm_rows_bf16_avx512, .pack = nm_gemm_pack_bf16_avx512,
};
NM_TARGET_POP
#else
typedef int nm_no_avx512_bf16;
#endif
