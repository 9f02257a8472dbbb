/* gradsum.h - the mean of the ranks' gradients. A parameter's sum starts as soon as its last backward has run, while the others still
 * compute. When that is, the step before tells: the graph is the same. */
#ifndef NM_GRADSUM_H
#define NM_GRADSUM_H

#include "train/ranks.h"
#include "train/trainer.h"

typedef struct nm_gradsum nm_gradsum;

nm_gradsum *nm_gradsum_new(const nm_ranks *ranks, nm_train_param *params, size_t n); /* NULL: out of memory */
void nm_gradsum_free(nm_gradsum *g);
/* Before the loss and the backward whose end completes the gradients. */
void nm_gradsum_begin(nm_gradsum *g, nm_run *r);
/* After it: waits; every gradient is the mean over the ranks. */
void nm_gradsum_end(nm_gradsum *g, nm_run *r);

#endif
