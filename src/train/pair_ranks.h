/* pair_ranks.h - where each of n pairs stands among all others, without the matrix of all scores. */
#ifndef NM_PAIR_RANKS_H
#define NM_PAIR_RANKS_H

#include "tensor/run.h"

/* images, texts: f32 [n, dim]; ranks from 0 [n] of text i for image i among all texts, and of image i for text i. Of equal scores the lower index
 * stands in front, as in open_clip. `r` computes in f32; scratch of a few megabytes from its arena. */
void nm_pair_ranks(nm_run *r, int64_t n, int64_t dim, const float *images, const float *texts, int64_t *image_rank, int64_t *text_rank);

#endif
