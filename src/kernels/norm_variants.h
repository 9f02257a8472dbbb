/* norm_variants.h - every variant of norm.h, chosen in norm.c. */
#ifndef NM_NORM_VARIANTS_H
#define NM_NORM_VARIANTS_H

#include "kernels/norm.h"

nm_layernorm_fn nm_layernorm_ref;
nm_rmsnorm_fn nm_rmsnorm_ref;
nm_l2norm_fn nm_l2norm_ref;
nm_softmax_fn nm_softmax_ref;

#endif
