/* scan_avx512.c - inner products of queries and rows with 512-bit vectors. */
#if defined(__x86_64__)
#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>

#include "kernels/scan_variants.h"
#include "kernels/x86/target.h"

NM_TARGET_PUSH(NM_ISA_AVX512)
#include "kernels/x86/vec_avx512.h"
#define NAME(x) x##_avx512
#define QB 6
#include "kernels/x86/scan_impl.h"
NM_TARGET_POP
#else
typedef int nm_no_scan_avx512;
#endif
