/* rng.h - Philox 4x32-10 (Salmon et al., SC 2011): a counter-based generator, so that the n-th number of a stream is known
 * without drawing the ones before it; results do not depend on threads. */
#ifndef NM_RNG_H
#define NM_RNG_H

#include <stdint.h>

typedef struct nm_rng {
    uint32_t key[2];
    uint64_t stream, counter;
    uint32_t out[4];
    int left;
} nm_rng;

void nm_rng_init(nm_rng *r, uint64_t seed, uint64_t stream);
uint32_t nm_rng_u32(nm_rng *r);
uint64_t nm_rng_u64(nm_rng *r);
uint64_t nm_rng_below(nm_rng *r, uint64_t n); /* uniform in [0, n), n >= 1, without bias */
float nm_rng_uniform(nm_rng *r);              /* [0, 1), 24 bits */
float nm_rng_normal(nm_rng *r);               /* Box-Muller, mean 0, deviation 1 */

#endif
