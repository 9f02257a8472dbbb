/* search.h - the state of one item's search; private to src/generate. */
#ifndef NM_SEARCH_H
#define NM_SEARCH_H

#include "generate/generate.h"

typedef struct nm_candidate { double sum; int32_t id; int beam; } nm_candidate;

typedef struct nm_search {
    const nm_rules *rules;
    int64_t item, prompt, length, max_length, min_length; /* length: of the live rows */
    int width;                 /* beams, or rows drawn independently */
    int rows;                  /* live now */
    int64_t first_row;         /* of these in the last step */
    int32_t *ids[2];           /* [width, max_length]; side: the current one */
    int side;
    double *sum;               /* [width] */
    int *beam;                 /* [width]: the row each live row continues */
    nm_candidate *top;         /* [2 width] */
    nm_hypothesis *kept;       /* [width + 1]; beam search: finished texts */
    int n_kept;
    nm_rng *rng;               /* [width]; sampling */
    int *slot;                 /* [width]: which of the independent texts a live row is */
    bool done;
} nm_search;

static inline int32_t *nm_search_row(const nm_search *s, int i) { return s->ids[s->side] + (int64_t)i * s->max_length; }

/* One step of beam search from log-probabilities [rows, vocab] (processed already): finishes, continues, or ends the search. */
void nm_beam_step(nm_search *s, const float *scores, int64_t vocab);

#endif
