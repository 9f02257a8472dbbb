/* elementwise_variants.h - every variant of elementwise.h, chosen in elementwise.c. */
#ifndef NM_ELEMENTWISE_VARIANTS_H
#define NM_ELEMENTWISE_VARIANTS_H

#include "kernels/elementwise.h"

nm_cast_fn nm_cast_ref;
nm_act_fn nm_act_ref;
nm_add_fn nm_add_ref;
nm_mul_fn nm_mul_ref;
nm_patchify_fn nm_patchify_ref;
nm_im2col_fn nm_im2col_ref;
nm_avgpool_fn nm_avgpool_ref;

#if defined(__x86_64__)
nm_cast_fn nm_cast_avx2;
nm_act_fn nm_act_avx2;
nm_add_fn nm_add_avx2;
nm_mul_fn nm_mul_avx2;
nm_patchify_fn nm_patchify_avx2;
nm_avgpool_fn nm_avgpool_avx2;
nm_cast_fn nm_cast_avx512;
nm_act_fn nm_act_avx512;
nm_add_fn nm_add_avx512;
nm_mul_fn nm_mul_avx512;
nm_patchify_fn nm_patchify_avx512;
nm_avgpool_fn nm_avgpool_avx512;
#endif

#endif
