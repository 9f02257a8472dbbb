/* mask.h - which patches of each training picture the image tower computes (arXiv 2212.00794; open_clip's patch_dropout). */
#ifndef NM_MASK_H
#define NM_MASK_H

#include <stdint.h>

#include "base/err.h"

/* Patches kept of n at a ratio of dropped ones: int(n (1 - ratio)) as both references compute it in double, at least 1. */
int64_t nm_mask_kept(int64_t n, double ratio);

/* keep [pictures, kept]: for each picture `kept` different patches of n, every subset equally likely, in random order. Picture i of the step
 * draws from a stream of its own, so that neither micro-batches nor ranks change anything. work: [n]. */
void nm_mask_draw(int32_t *keep, int64_t first, int64_t pictures, int64_t n, int64_t kept, uint64_t seed, int64_t step, int32_t *work);

#endif
