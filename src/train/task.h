/* task.h - what a training step computes: outputs of each row of a batch, and a loss over the outputs in closed form, with its gradients.
 * The trainer does the rest: accumulation, backward, clipping, update. */
#ifndef NM_TASK_H
#define NM_TASK_H

#include <stdbool.h>

#include "tensor/tensor.h"

struct nm_trainer;
struct nm_pair_batch;

enum { NM_TASK_OUTPUTS = 2 };
typedef struct nm_outputs { nm_tensor t[NM_TASK_OUTPUTS]; } nm_outputs; /* f32 [rows, width(k)] */

typedef struct nm_task {
    int n_outputs;
    /* The loss is a mean over rows that do not see each other: micro-batches need no first pass. */
    bool rowwise;
    int64_t (*width)(const struct nm_trainer *t, int k);
    nm_outputs (*forward)(struct nm_trainer *t, const struct nm_pair_batch *b, int64_t begin, int64_t end);
    /* What rows [begin, end) add to the loss of the whole batch (begin 0, end n unless rowwise); out[k], d[k] f32 [end - begin, width(k)];
     * adds to d and, with `scalars`, to the gradients of the parameters that the loss reads itself (logit_scale, logit_bias). */
    double (*loss)(struct nm_trainer *t, const struct nm_pair_batch *b, int64_t begin, int64_t end, float *const *out, float *const *d, bool scalars);
} nm_task;

extern const nm_task nm_task_pairs;  /* InfoNCE or SigLIP's loss of image and text vectors */
extern const nm_task nm_task_labels; /* cross-entropy of a linear head (nm_train_options.head) on the image tower's features */

#endif
