/* variants.h - the dispatch tables of every level this machine has, for tests that compare them. */
#ifndef TEST_VARIANTS_H
#define TEST_VARIANTS_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cpu.h"
#include "kernels/kernels.h"

static const char *const levels[] = { "ref", "avx2", "avx512", "avx512_bf16" };
#define LEVELS 4

/* False when the machine lacks the level: it would be a lower one tested twice. */
static inline bool level_table(int i, nm_kernels *k)
{
    uint32_t f = nm_cpu_detect() & nm_cpu_mask(levels[i]);
    if (strcmp(nm_cpu_level_name(f), levels[i]) != 0)
        return false;
    nm_kernels_init(k, f);
    return true;
}

static inline int say_skipped_levels(void **state)
{
    nm_kernels k;
    (void)state;
    for (int i = 0; i < LEVELS; i++)
        if (!level_table(i, &k))
            print_message("SKIPPED: this machine has no %s, its kernels are not tested\n", levels[i]);
    return 0;
}

/* A small generator, so that a failing case can be run again. */
static inline uint32_t next_u32(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 32);
}

static inline float next_float(uint64_t *state) { return (float)(int32_t)next_u32(state) * 0x1p-31f; } /* [-1, 1) */

/* Exact-size blocks, so that the address sanitizer sees a read past the end. */
static inline void *block(size_t bytes)
{
    void *p = malloc(bytes ? bytes : 1);
    assert_non_null(p);
    return p;
}

#endif
