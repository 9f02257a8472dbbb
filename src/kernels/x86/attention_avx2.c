/* attention_avx2.c - attention with 256-bit vectors: f32 products, 6 x 16 register block. */
#if defined(__x86_64__)
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "kernels/x86/attention.h"
#include "kernels/x86/target.h"

NM_TARGET_PUSH(NM_ISA_AVX2)
#include "kernels/x86/vec_avx2.h"
#define MR 6
#define DOT_BF16 0
#include "kernels/x86/attention_impl.h"

const nm_attn_variant nm_attn_avx2 = { MR, head_scratch, attend_head, packed_head, pack_head };
NM_TARGET_POP
#else
typedef int nm_no_avx2;
#endif
