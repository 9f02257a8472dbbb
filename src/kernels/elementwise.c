/* elementwise.c - fills the table of elementwise.h. */
#include "kernels/elementwise.h"

#include "base/cpu.h"
#include "kernels/elementwise_variants.h"

void nm_elementwise_kernels_init(nm_elementwise_kernels *k, uint32_t features)
{
    (void)features;
    *k = (nm_elementwise_kernels){ nm_cast_ref, nm_act_ref, nm_add_ref, nm_mul_ref, nm_patchify_ref, nm_im2col_ref, nm_avgpool_ref };
}
