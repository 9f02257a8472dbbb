/* norm.c - fills the table of norm.h. */
#include "kernels/norm.h"

#include "base/cpu.h"
#include "kernels/norm_variants.h"

void nm_norm_kernels_init(nm_norm_kernels *k, uint32_t features)
{
    *k = (nm_norm_kernels){ nm_layernorm_ref, nm_rmsnorm_ref, nm_l2norm_ref, nm_softmax_ref, nm_log_softmax_ref };
#if defined(__x86_64__)
    if (features & NM_CPU_AVX2)
        *k = (nm_norm_kernels){ nm_layernorm_avx2, nm_rmsnorm_avx2, nm_l2norm_avx2, nm_softmax_avx2, nm_log_softmax_avx2 };
    if (features & NM_CPU_AVX512)
        *k = (nm_norm_kernels){ nm_layernorm_avx512, nm_rmsnorm_avx512, nm_l2norm_avx512, nm_softmax_avx512, nm_log_softmax_avx512 };
#else
    (void)features;
#endif
}
