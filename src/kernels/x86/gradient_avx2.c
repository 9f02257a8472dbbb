/* gradient_avx2.c - backwards and updates with 256-bit vectors. */
#if defined(__x86_64__)
#include <immintrin.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>

#include "kernels/gradient_variants.h"
#include "kernels/x86/target.h"

NM_TARGET_PUSH(NM_ISA_AVX2)
#include "kernels/x86/vec_avx2.h"
#include "kernels/x86/math_avx2.h"
#define NAME(x) x##_avx2
#include "kernels/x86/gradient_impl.h"
NM_TARGET_POP
#else
typedef int nm_no_gradient_avx2;
#endif
