/* kernels.h - the dispatch table: one function pointer per kernel, filled with plain C first and overridden upwards by each
 * instruction set that the features allow. A family's contract is in its own header; this one only gathers them. */
#ifndef NM_KERNELS_H
#define NM_KERNELS_H

#include <stdint.h>

#include "kernels/attention.h"
#include "kernels/channels.h"
#include "kernels/elementwise.h"
#include "kernels/gemm.h"
#include "kernels/gradient.h"
#include "kernels/norm.h"
#include "kernels/scan.h"

typedef struct nm_kernels {
    uint32_t features; /* NM_CPU_* that the table was made for */
    nm_gemm_kernels gemm;
    nm_attention_kernels attention;
    nm_channel_kernels channels;
    nm_elementwise_kernels elementwise;
    nm_norm_kernels norm;
    nm_gradient_kernels gradient;
    nm_scan_kernels scan;
} nm_kernels;

void nm_kernels_init(nm_kernels *k, uint32_t features); /* any subset of nm_cpu_detect(): tests force lower paths */
const nm_kernels *nm_kernels_get(void);                 /* the table of this process: nm_cpu_features(), made once */

#endif
