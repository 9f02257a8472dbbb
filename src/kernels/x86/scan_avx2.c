/* scan_avx2.c - inner products of queries and rows with 256-bit vectors. */
#if defined(__x86_64__)
#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>

#include "kernels/scan_variants.h"
#include "kernels/x86/target.h"

NM_TARGET_PUSH(NM_ISA_AVX2)
#include "kernels/x86/vec_avx2.h"
#define NAME(x) x##_avx2
#define QB 3
#include "kernels/x86/scan_impl.h"
NM_TARGET_POP
#else
typedef int nm_no_scan_avx2;
#endif
