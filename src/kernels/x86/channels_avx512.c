/* channels_avx512.c - channels.h with 512-bit vectors. */
#if defined(__x86_64__)
#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>

#include "kernels/channels.h"
#include "kernels/x86/target.h"

NM_TARGET_PUSH(NM_ISA_AVX512)
#include "kernels/x86/vec_avx512.h"
#define NAME(x) x##_avx512
#include "kernels/x86/channels_impl.h"
NM_TARGET_POP
#else
typedef int nm_no_channels_avx512;
#endif
