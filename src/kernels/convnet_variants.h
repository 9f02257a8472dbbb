/* convnet_variants.h - every variant of convnet.h, chosen in convnet.c. */
#ifndef NM_CONVNET_VARIANTS_H
#define NM_CONVNET_VARIANTS_H

#include "kernels/convnet.h"

#define NM_CONVNET_VARIANT(suffix)                                                                                                                          \
    nm_conv_weight_grad_fn nm_conv_weight_grad_##suffix;                                                                                                    \
    nm_bn_sums_fn nm_bn_sums_##suffix;                                                                                                                      \
    nm_bn_apply_fn nm_bn_apply_##suffix;                                                                                                                    \
    nm_bn_back_sums_fn nm_bn_back_sums_##suffix;                                                                                                            \
    nm_bn_back_apply_fn nm_bn_back_apply_##suffix;

NM_CONVNET_VARIANT(ref)
#if defined(__x86_64__)
NM_CONVNET_VARIANT(avx2)
NM_CONVNET_VARIANT(avx512)
#endif

#endif
