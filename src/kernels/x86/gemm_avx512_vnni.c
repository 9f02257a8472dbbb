/* gemm_avx512_vnni.c - int8 products with vpdpbusd: unsigned A (quantised + 128) times signed B, four products per i32 lane,
 * exact. The epilogue takes 128 times the column's sum of B away. */
#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>

#include "kernels/x86/gemm.h"
#include "kernels/x86/target.h"

NM_TARGET_PUSH("avx512vnni," NM_ISA_AVX512)
#include "kernels/x86/vec_avx512.h"

NM_INLINE vi unit(const char *p)
{
    int32_t u;
    memcpy(&u, p, 4);
    return _mm512_set1_epi32(u);
}

#define MR 12
#define TILE tile_i8
#define ACC vi
#define ACC_ZERO vi_zero()
#define PER_UNIT 4
#define LOAD_B(p) vi_load(p)
#define LOAD_A(p) unit(p)
#define MADD(c, a, b) _mm512_dpbusd_epi32(c, a, b)
#define STORE_ACC(p, c) vi_store(p, c)
#include "kernels/x86/gemm_tile_impl.h"

const nm_gemm_variant nm_gemm_i8_avx512_vnni = {
    .compute = NM_I8, .a_dtype = NM_U8, .nr = 32, .mr = MR, .row_step = 1, .fast = true, .tile = tile_i8, .finish = nm_gemm_finish_i8_avx512,
    .convert = nm_gemm_rows_u8_avx512, .pack = nm_gemm_pack_i8_avx512,
};
NM_TARGET_POP
#else
typedef int nm_no_avx512_vnni;
#endif
