/* gradient.c - fills the table of gradient.h. */
#include "kernels/gradient.h"

#include "base/cpu.h"
#include "kernels/gradient_variants.h"

#define TABLE(s)                                                                                                                           \
    ((nm_gradient_kernels){ nm_act_back_##s, nm_layernorm_back_##s, nm_softmax_back_##s, nm_small_product_##s, nm_column_sums_##s,         \
                            nm_transpose_##s, nm_squares_##s, nm_lerp_##s, nm_adamw_##s, nm_sgd_##s, nm_lion_##s })

void nm_gradient_kernels_init(nm_gradient_kernels *k, uint32_t features)
{
    *k = TABLE(ref);
#if defined(__x86_64__)
    if (features & NM_CPU_AVX2)
        *k = TABLE(avx2);
    if (features & NM_CPU_AVX512)
        *k = TABLE(avx512);
#else
    (void)features;
#endif
}
