/* gemm_ref.h - the plain C variants of gemm.h; the vector variants fall back to their parts. */
#ifndef NM_GEMM_REF_H
#define NM_GEMM_REF_H

#include "kernels/gemm.h"

#define NM_GEMM_REF_NR 16

extern const nm_gemm_variant nm_gemm_f32_ref, nm_gemm_bf16_ref, nm_gemm_i8_ref;

float nm_gemm_quantise_ref(int64_t k, const void *src, nm_dtype src_dtype, int offset, uint8_t *dst);
void nm_gemm_pack_ref(const nm_gemm_panel *p, nm_dtype compute, int nr);

#endif
