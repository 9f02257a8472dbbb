/* x86/attention.h - the vector variants of attention.h. */
#ifndef NM_X86_ATTENTION_H
#define NM_X86_ATTENTION_H

#include "kernels/attention.h"

extern const nm_attn_variant nm_attn_avx2, nm_attn_avx512, nm_attn_avx512_bf16;

#endif
