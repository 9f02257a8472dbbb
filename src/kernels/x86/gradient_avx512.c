/* gradient_avx512.c - backwards and updates with 512-bit vectors. */
#if defined(__x86_64__)
#include <immintrin.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>

#include "kernels/gradient_variants.h"
#include "kernels/x86/target.h"

NM_TARGET_PUSH(NM_ISA_AVX512)
#include "kernels/x86/vec_avx512.h"
#include "kernels/x86/math_avx512.h"
#define NAME(x) x##_avx512
#include "kernels/x86/gradient_impl.h"
NM_TARGET_POP
#else
typedef int nm_no_gradient_avx512;
#endif
