/* gradient_variants.h - every variant of gradient.h, chosen in gradient.c. */
#ifndef NM_GRADIENT_VARIANTS_H
#define NM_GRADIENT_VARIANTS_H

#include "kernels/gradient.h"

#define NM_GRADIENT_VARIANT(s)                                                                                                             \
    nm_act_back_fn nm_act_back_##s;                                                                                                        \
    nm_layernorm_back_fn nm_layernorm_back_##s;                                                                                            \
    nm_softmax_back_fn nm_softmax_back_##s;                                                                                                \
    nm_small_product_fn nm_small_product_##s;                                                                                              \
    nm_column_sums_fn nm_column_sums_##s;                                                                                                  \
    nm_transpose_fn nm_transpose_##s;                                                                                                      \
    nm_squares_fn nm_squares_##s;                                                                                                          \
    nm_lerp_fn nm_lerp_##s;                                                                                                                \
    nm_update_fn nm_adamw_##s, nm_sgd_##s, nm_lion_##s;

NM_GRADIENT_VARIANT(ref)
#if defined(__x86_64__)
NM_GRADIENT_VARIANT(avx2)
NM_GRADIENT_VARIANT(avx512)
#endif

#endif
