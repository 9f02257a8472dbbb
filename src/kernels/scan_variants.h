/* scan_variants.h - every variant of nm_dots_fn, chosen in scan.c. */
#ifndef NM_SCAN_VARIANTS_H
#define NM_SCAN_VARIANTS_H

#include "kernels/scan.h"

nm_dots_fn nm_dots_ref;

#if defined(__x86_64__)
nm_dots_fn nm_dots_avx2, nm_dots_avx512;
#endif

#endif
