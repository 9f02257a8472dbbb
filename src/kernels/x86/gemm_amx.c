/* gemm_amx.c - bf16 and int8 products on Intel's tile registers. Panels, epilogue and conversions are those of AVX-512. */
#if defined(__x86_64__)
#include <immintrin.h>
#include <stdbool.h>
#include <string.h>

#include "kernels/x86/gemm.h"
#include "kernels/x86/target.h"

NM_TARGET_PUSH("amx-tile,amx-bf16,amx-int8," NM_ISA_AVX512)
#include "kernels/x86/gemm_amx_impl.h"

const nm_gemm_variant nm_gemm_bf16_amx = {
    .compute = NM_BF16, .a_dtype = NM_BF16, .nr = 32, .mr = 32, .row_step = 16, .fast = true, .tile = amx_tile_bf16, .finish = nm_gemm_finish_avx512,
    .convert = nm_gemm_rows_bf16_avx512, .pack = nm_gemm_pack_bf16_avx512, .configure = amx_configure, .release = amx_release,
};
const nm_gemm_variant nm_gemm_i8_amx = {
    .compute = NM_I8, .a_dtype = NM_I8, .nr = 32, .mr = 32, .row_step = 16, .fast = true, .tile = amx_tile_i8, .finish = nm_gemm_finish_i8_avx512,
    .convert = nm_gemm_rows_i8_avx512, .pack = nm_gemm_pack_i8_avx512, .configure = amx_configure, .release = amx_release,
};
NM_TARGET_POP
#else
typedef int nm_no_amx_gemm;
#endif
