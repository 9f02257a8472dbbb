/* x86/gemm.h - the vector variants of gemm.h, and the parts that they share. */
#ifndef NM_X86_GEMM_H
#define NM_X86_GEMM_H

#include "kernels/gemm.h"

extern const nm_gemm_variant nm_gemm_f32_avx2, nm_gemm_bf16_avx2, nm_gemm_i8_avx2;
extern const nm_gemm_variant nm_gemm_f32_avx512, nm_gemm_bf16_avx512, nm_gemm_i8_avx512_vnni, nm_gemm_bf16_avx512_bf16;
extern const nm_gemm_variant nm_gemm_bf16_amx, nm_gemm_i8_amx;

/* Of gemm_avx512.c, for the variants with other products and the same panels of 32 columns. */
void nm_gemm_finish_avx512(const nm_gemm_out *o);
void nm_gemm_finish_i8_avx512(const nm_gemm_out *o);
float nm_gemm_rows_bf16_avx512(int64_t k, const void *src, nm_dtype src_dtype, void *dst);
float nm_gemm_rows_i8_avx512(int64_t k, const void *src, nm_dtype src_dtype, void *dst);
float nm_gemm_rows_u8_avx512(int64_t k, const void *src, nm_dtype src_dtype, void *dst);
void nm_gemm_pack_bf16_avx512(const nm_gemm_panel *p);
void nm_gemm_pack_i8_avx512(const nm_gemm_panel *p);

#endif
