/* channels_avx2.c - channels.h with 256-bit vectors. */
#if defined(__x86_64__)
#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>

#include "kernels/channels.h"
#include "kernels/x86/target.h"

NM_TARGET_PUSH(NM_ISA_AVX2)
#include "kernels/x86/vec_avx2.h"
#define NAME(x) x##_avx2
#include "kernels/x86/channels_impl.h"
NM_TARGET_POP
#else
typedef int nm_no_channels_avx2;
#endif
