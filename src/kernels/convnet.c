/* convnet.c - fills the table of convnet.h. */
#include "kernels/convnet.h"

#include "base/cpu.h"
#include "kernels/convnet_variants.h"

#define TABLE(s) ((nm_convnet_kernels){ nm_conv_weight_grad_##s, nm_bn_sums_##s, nm_bn_apply_##s, nm_bn_back_sums_##s, nm_bn_back_apply_##s })

void nm_convnet_kernels_init(nm_convnet_kernels *k, uint32_t features)
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
