/* mask.c - see mask.h. */
#include "train/mask.h"

#include "base/rng.h"

int64_t nm_mask_kept(int64_t n, double ratio)
{
    int64_t kept = (int64_t)((double)n * (1.0 - ratio));
    return kept < 1 ? 1 : kept > n ? n : kept;
}

void nm_mask_draw(int32_t *keep, int64_t first, int64_t pictures, int64_t n, int64_t kept, uint64_t seed, int64_t step, int32_t *work)
{
    for (int64_t i = first; i < first + pictures; i++) {
        nm_rng r;
        nm_rng_init(&r, seed, ((uint64_t)1 << 62) + ((uint64_t)step << 24) + (uint64_t)i);
        for (int64_t k = 0; k < n; k++)
            work[k] = (int32_t)k;
        for (int64_t k = 0; k < kept; k++, keep++) { /* the first steps of Fisher and Yates */
            int64_t at = k + (int64_t)nm_rng_below(&r, (uint64_t)(n - k));
            *keep = work[at];
            work[at] = work[k];
        }
    }
}
