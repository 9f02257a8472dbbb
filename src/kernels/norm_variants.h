/* norm_variants.h - every variant of norm.h, chosen in norm.c. */
#ifndef NM_NORM_VARIANTS_H
#define NM_NORM_VARIANTS_H

#include "kernels/norm.h"

#define NM_LOG_SOFTMAX_RUN 1024 /* values whose powers are added in f32 */

nm_layernorm_fn nm_layernorm_ref;
nm_rmsnorm_fn nm_rmsnorm_ref;
nm_l2norm_fn nm_l2norm_ref;
nm_softmax_fn nm_softmax_ref;
nm_log_softmax_fn nm_log_softmax_ref;

#if defined(__x86_64__)
nm_layernorm_fn nm_layernorm_avx2;
nm_rmsnorm_fn nm_rmsnorm_avx2;
nm_l2norm_fn nm_l2norm_avx2;
nm_softmax_fn nm_softmax_avx2;
nm_log_softmax_fn nm_log_softmax_avx2;
nm_layernorm_fn nm_layernorm_avx512;
nm_rmsnorm_fn nm_rmsnorm_avx512;
nm_l2norm_fn nm_l2norm_avx512;
nm_softmax_fn nm_softmax_avx512;
nm_log_softmax_fn nm_log_softmax_avx512;
#endif

#endif
