/* task.h - what a training step computes: outputs of each row of a batch, and a loss over the outputs in closed form, with its gradients.
 * The trainer does the rest: accumulation, backward, clipping, update. */
#ifndef NM_TASK_H
#define NM_TASK_H

#include <stdbool.h>

#include "tensor/tensor.h"

struct nm_trainer;
struct nm_pair_batch;

enum { NM_TASK_OUTPUTS = 2 };
/* t: f32 [rows, width(k)]. logits: what the row loss reads, f32 [tokens, vocabulary]; it stays in the tape, so that it is never there for more
 * than a micro-batch. */
typedef struct nm_outputs { nm_tensor t[NM_TASK_OUTPUTS], logits; } nm_outputs;

typedef struct nm_task {
    int n_outputs;
    /* The loss is a mean over rows that do not see each other: micro-batches need no first pass. */
    bool rowwise;
    int64_t (*width)(const struct nm_trainer *t, int k);
    /* Once for every batch, on all ranks, before anything else; or NULL. */
    void (*begin)(struct nm_trainer *t, const struct nm_pair_batch *b);
    /* row_loss false: only the first of two passes, logits are not needed. */
    nm_outputs (*forward)(struct nm_trainer *t, const struct nm_pair_batch *b, int64_t begin, int64_t end, bool row_loss);
    /* What rows [begin, end) add to the loss of the whole batch (begin 0, end n unless rowwise); out[k], d[k] f32 [end - begin, width(k)];
     * adds to d and, with `scalars`, to the gradients of the parameters that the loss reads itself (logit_scale, logit_bias). */
    double (*loss)(struct nm_trainer *t, const struct nm_pair_batch *b, int64_t begin, int64_t end, float *const *out, float *const *d, bool scalars);
    /* What rows [begin, end) add besides, each by itself: the gradient goes to that of f->logits. NULL: nothing. */
    double (*row_loss)(struct nm_trainer *t, const struct nm_pair_batch *b, int64_t begin, int64_t end, const nm_outputs *f);
} nm_task;

extern const nm_task nm_task_pairs;  /* InfoNCE or SigLIP's loss of image and text vectors */
extern const nm_task nm_task_coca;   /* the same times contrastive_weight, and cross-entropy of each next token times caption_weight (arXiv 2205.01917) */
extern const nm_task nm_task_captions; /* of these the second alone */
extern const nm_task nm_task_labels; /* cross-entropy of a linear head (nm_train_options.head) on the image tower's features */

#endif
