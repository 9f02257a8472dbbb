/* mask.c - see mask.h. */
#include "train/mask.h"

#include <stdlib.h>
#include <string.h>

#include "base/rng.h"

int64_t nm_mask_kept(int64_t n, double ratio)
{
    int64_t kept = (int64_t)((double)n * (1.0 - ratio));
    return kept < 1 ? 1 : kept > n ? n : kept;
}

/* `kept` of work's n, every subset equally likely, to its front: the first steps of Fisher and Yates. */
static void pick(nm_rng *r, int32_t *work, int64_t n, int64_t kept)
{
    for (int64_t k = 0; k < kept; k++) {
        int64_t at = k + (int64_t)nm_rng_below(r, (uint64_t)(n - k));
        int32_t x = work[at];
        work[at] = work[k];
        work[k] = x;
    }
}

void nm_mask_draw(int32_t *keep, int64_t first, int64_t pictures, int64_t n, int64_t kept, uint64_t seed, int64_t step, int32_t *work)
{
    for (int64_t i = first; i < first + pictures; i++) {
        nm_rng r;
        nm_rng_init(&r, seed, ((uint64_t)1 << 62) + ((uint64_t)step << 24) + (uint64_t)i);
        for (int64_t k = 0; k < n; k++)
            work[k] = (int32_t)k;
        pick(&r, work, n, kept);
        memcpy(keep, work, (size_t)kept * sizeof *keep);
        keep += kept;
    }
}

static int rising(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

void nm_mask_draw_text(int32_t *keep, int64_t first, int64_t texts, const int64_t *offsets, const int32_t *ids, int64_t n, int64_t kept,
                       bool prioritized, uint64_t seed, int64_t step, int32_t *work)
{
    for (int64_t i = 0; i < texts; i++, keep += kept) {
        int64_t tokens = offsets[i + 1] - offsets[i];
        while (ids && tokens > 0 && ids[offsets[i] + tokens - 1] == 0)
            tokens--;
        int64_t drawn = prioritized && tokens < n ? tokens : n, words = drawn < kept ? drawn - 1 : kept - 1;
        nm_rng r;
        nm_rng_init(&r, seed, ((uint64_t)3 << 61) + ((uint64_t)step << 24) + (uint64_t)(first + i));
        for (int64_t k = 0; k < n; k++)
            work[k] = (int32_t)k;
        words = words < 0 ? 0 : words;
        pick(&r, work + 1, drawn > 1 ? drawn - 1 : 0, words);
        memcpy(keep, work, (size_t)(1 + words) * sizeof *keep);
        if (1 + words < kept) { /* all its tokens, then padding */
            int64_t from = drawn > 1 ? drawn : 1;
            pick(&r, work + from, n - from, kept - 1 - words);
            memcpy(keep + 1 + words, work + from, (size_t)(kept - 1 - words) * sizeof *keep);
        }
        qsort(keep, (size_t)kept, sizeof *keep, rising);
    }
}
