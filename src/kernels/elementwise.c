/* elementwise.c - fills the table of elementwise.h. */
#include "kernels/elementwise.h"

#include "base/cpu.h"
#include "kernels/elementwise_variants.h"

void nm_elementwise_kernels_init(nm_elementwise_kernels *k, uint32_t features)
{
    *k = (nm_elementwise_kernels){ nm_cast_ref, nm_act_ref, nm_add_ref, nm_mul_ref, nm_patchify_ref, nm_im2col_ref, nm_avgpool_ref };
#if defined(__x86_64__)
    if (features & NM_CPU_AVX2) {
        k->cast = nm_cast_avx2;
        k->act = nm_act_avx2;
        k->add = nm_add_avx2;
        k->mul = nm_mul_avx2;
        k->patchify = nm_patchify_avx2;
        k->avgpool = nm_avgpool_avx2;
    }
    if (features & NM_CPU_AVX512) {
        k->cast = nm_cast_avx512;
        k->act = nm_act_avx512;
        k->add = nm_add_avx512;
        k->mul = nm_mul_avx512;
        k->patchify = nm_patchify_avx512;
        k->avgpool = nm_avgpool_avx512;
    }
#else
    (void)features;
#endif
}
