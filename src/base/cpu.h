/* cpu.h - what the processor and the operating system let us use. NOEMA_CPU=ref|avx2|avx512|avx512_bf16|amx forces a lower
 * path (tests); a level the machine lacks is clamped to the best it has. */
#ifndef NM_CPU_H
#define NM_CPU_H

#include <stdint.h>

enum {
    NM_CPU_AVX2 = 1 << 0,        /* AVX2 + FMA + F16C */
    NM_CPU_AVX512 = 1 << 1,      /* F, BW, DQ, VL, CD */
    NM_CPU_AVX512_VNNI = 1 << 2,
    NM_CPU_AVX512_BF16 = 1 << 3,
    NM_CPU_AMX_BF16 = 1 << 4,    /* tile state enabled by the kernel as well */
    NM_CPU_AMX_INT8 = 1 << 5
};

uint32_t nm_cpu_detect(void);                 /* what the machine has */
uint32_t nm_cpu_mask(const char *level);      /* the features a NOEMA_CPU level allows; NULL or unknown: all */
uint32_t nm_cpu_features(void);               /* detect & mask(getenv NOEMA_CPU), fixed at the first call */
const char *nm_cpu_level_name(uint32_t features); /* "ref", "avx2", "avx512", "avx512_bf16", "amx" */
const char *nm_cpu_model_name(char buf[64]);  /* the brand string */
int nm_cpu_count(void);                       /* processors this process may run on (affinity and cgroup quota) */

#endif
