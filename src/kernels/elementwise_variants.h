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

#endif
