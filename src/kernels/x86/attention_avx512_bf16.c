/* attention_avx512_bf16.c - attention with 512-bit vectors: bf16 products (vdpbf16ps), 12 x 32 register block. */
#if defined(__x86_64__)
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "kernels/x86/attention.h"
#include "kernels/x86/target.h"

NM_TARGET_PUSH(NM_ISA_AVX512_BF16)
#include "kernels/x86/vec_avx512.h"
#define MR 12
#define DOT_BF16 1
#include "kernels/x86/attention_impl.h"

const nm_attn_variant nm_attn_avx512_bf16 = { MR, head_scratch, attend_head, packed_head, pack_head };
NM_TARGET_POP
#else
typedef int nm_no_avx512_bf16;
#endif
