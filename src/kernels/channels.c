/* channels.c - fills the table of channels.h. */
#include "kernels/channels.h"

#include "base/cpu.h"

void nm_channel_kernels_init(nm_channel_kernels *k, uint32_t features)
{
    *k = (nm_channel_kernels){ nm_outer_ref, nm_outer_bf16_ref, nm_moments_ref, nm_affine_ref, nm_back_sums_ref, nm_back_rows_ref };
#if defined(__x86_64__)
    if (features & NM_CPU_AVX2)
        *k = (nm_channel_kernels){ nm_outer_avx2, nm_outer_bf16_ref, nm_moments_avx2, nm_affine_avx2, nm_back_sums_avx2, nm_back_rows_avx2 };
    if (features & NM_CPU_AVX512)
        *k = (nm_channel_kernels){ nm_outer_avx512, nm_outer_bf16_ref, nm_moments_avx512, nm_affine_avx512, nm_back_sums_avx512, nm_back_rows_avx512 };
    if ((features & NM_CPU_AVX512) && (features & NM_CPU_AVX512_BF16))
        k->outer_bf16 = nm_outer_bf16_avx512_bf16;
#else
    (void)features;
#endif
}
