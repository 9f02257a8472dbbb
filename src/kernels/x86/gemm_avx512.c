/* gemm_avx512.c - products with 512-bit vectors: f32, and bf16 weights widened in registers where the CPU has no bf16 dot
 * product. Register block 12 x 32: 24 accumulators, two vectors of B and one broadcast of A. Also the epilogue, packing and
 * row conversions of all variants with panels of 32 columns. */
#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>

#include "kernels/x86/gemm.h"
#include "kernels/x86/target.h"

NM_TARGET_PUSH(NM_ISA_AVX512)
#include "kernels/x86/vec_avx512.h"
#include "kernels/x86/math_avx512.h"
#include "kernels/x86/gemm_words_avx512.h"
#include "kernels/x86/gemm_finish_impl.h"
#include "kernels/x86/gemm_pack_impl.h"

#define MR 12
#define TILE tile_f32
#define ACC vf
#define ACC_ZERO vf_zero()
#define PER_UNIT 1
#define LOAD_B(p) vf_load((const float *)(p))
#define LOAD_A(p) vf_set1(*(const float *)(p))
#define MADD(c, a, b) vf_fma(a, b, c)
#define STORE_ACC(p, c) vf_store(p, c)
#include "kernels/x86/gemm_tile_impl.h"

#define WIDE_TILE tile_bf16
#include "kernels/x86/gemm_wide_impl.h"

void nm_gemm_finish_avx512(const nm_gemm_out *o) { finish_any(o, false); }
void nm_gemm_finish_i8_avx512(const nm_gemm_out *o) { finish_any(o, true); }
float nm_gemm_rows_bf16_avx512(int64_t k, const void *src, nm_dtype t, void *dst) { return rows_bf16(k, src, t, dst); }
float nm_gemm_rows_i8_avx512(int64_t k, const void *src, nm_dtype t, void *dst) { return rows_i8(k, src, t, dst, false); }
float nm_gemm_rows_u8_avx512(int64_t k, const void *src, nm_dtype t, void *dst) { return rows_i8(k, src, t, dst, true); }
void nm_gemm_pack_bf16_avx512(const nm_gemm_panel *p) { pack_any(p, NM_BF16); }
void nm_gemm_pack_i8_avx512(const nm_gemm_panel *p) { pack_any(p, NM_I8); }

static void pack_f32(const nm_gemm_panel *p) { pack_any(p, NM_F32); }
static float rows_of_f32(int64_t k, const void *src, nm_dtype t, void *dst) { return rows_f32(k, src, t, dst); }
static float rows_rounded(int64_t k, const void *src, nm_dtype t, void *dst) { return rows_f32_rounded(k, src, t, dst); }

const nm_gemm_variant nm_gemm_f32_avx512 = {
    .compute = NM_F32, .a_dtype = NM_F32, .nr = 32, .mr = MR, .row_step = 1, .fast = true, .tile = tile_f32, .finish = nm_gemm_finish_avx512,
    .convert = rows_of_f32, .pack = pack_f32,
};
const nm_gemm_variant nm_gemm_bf16_avx512 = {
    .compute = NM_BF16, .a_dtype = NM_F32, .nr = 32, .mr = MR, .row_step = 1, .tile = tile_bf16, .finish = nm_gemm_finish_avx512, .always_convert = true,
    .convert = rows_rounded, .pack = nm_gemm_pack_bf16_avx512,
};
NM_TARGET_POP
#else
typedef int nm_no_avx512;
#endif
