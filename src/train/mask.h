/* mask.h - which patches of each training picture the image tower computes (arXiv 2212.00794; open_clip's patch_dropout), and which
 * positions of each text the text tower does (section 4.1 of the paper; its code has none). */
#ifndef NM_MASK_H
#define NM_MASK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

/* Patches kept of n at a ratio of dropped ones: int(n (1 - ratio)) as both references compute it in double, at least 1. */
int64_t nm_mask_kept(int64_t n, double ratio);

/* keep [pictures, kept]: for each picture `kept` different patches of n, every subset equally likely, in random order. Picture i of the step
 * draws from a stream of its own, so that neither micro-batches nor ranks change anything. work: [n]. */
void nm_mask_draw(int32_t *keep, int64_t first, int64_t pictures, int64_t n, int64_t kept, uint64_t seed, int64_t step, int32_t *work);

/* keep [texts, kept]: for each text `kept` different positions of n in rising order, 0 always among them. Text i has ids
 * [offsets[i], offsets[i + 1]) but for zeros at its end (stored rows may be padded; ids NULL: none are), the rest is padding: prioritized
 * leaves padding out first, else every position but 0 is as likely. offsets of texts from `first` on; work: [n]. */
void nm_mask_draw_text(int32_t *keep, int64_t first, int64_t texts, const int64_t *offsets, const int32_t *ids, int64_t n, int64_t kept,
                       bool prioritized, uint64_t seed, int64_t step, int32_t *work);

#endif
