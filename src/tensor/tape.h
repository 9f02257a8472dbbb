/* tape.h - reverse-mode differentiation. A run with a tape records, for every operator whose inputs or weights want a gradient,
 * a function that adds to their gradients; nm_backward calls them in reverse. Values that a backward needs stay in the run's
 * arena (nm_reset does nothing while a tape is on); gradients of activations come from a free list and are given back as soon as
 * the operator that made the value has run its backward, so that they need about one block's memory, not the whole network's. */
#ifndef NM_TAPE_H
#define NM_TAPE_H

#include "tensor/run.h"

/* The gradient of one buffer, f32, element for element at the same offsets; views of the buffer share it. */
typedef struct nm_grad {
    float *data;      /* NULL until something is added */
    const void *base; /* first element of the value (activations); NULL for weights */
    size_t n;         /* elements of the whole buffer */
    bool keep;        /* weights and inputs: not given back after use */
    bool stale;       /* of weights: data is of an earlier step and counts as zeros */
    bool busy;        /* weights: a sum over the ranks is on its way, nothing may be added */
    uint64_t touched; /* weights: nm_run.backwards when something was last added */
} nm_grad;

typedef void nm_backward_fn(nm_run *r, void *saved);
typedef struct nm_tape nm_tape;

nm_tape *nm_tape_new(void);
void nm_tape_free(nm_tape *t);
void nm_tape_clear(nm_tape *t); /* forgets the records, gives gradients of activations back, keeps the memory */

/* Whether an operator must record: a tape is on and the tensor (or weight) wants a gradient. */
static inline bool nm_wants(const nm_run *r, const nm_tensor *t) { return r->tape && t->grad; }

/* Memory that lives until nm_tape_clear, for what a backward needs. */
#define NM_SAVE(r, type, ...) ((type *)nm_save_(r, &(type){ __VA_ARGS__ }, sizeof(type)))
void *nm_save_(nm_run *r, const void *value, size_t bytes);

/* Records fn(saved), whose output is y; y has a gradient already (nm_track). NM_RECORD does both around the saving, so that the
 * copy of y in `saved` carries its gradient. */
void nm_track(nm_run *r, nm_tensor *y);
void nm_record(nm_run *r, nm_tensor *y, nm_backward_fn *fn, void *saved);
#define NM_RECORD(r, y, fn, type, ...) (nm_track(r, &(y)), nm_record(r, &(y), fn, NM_SAVE(r, type, __VA_ARGS__)))

/* Marks a leaf (an input whose gradient is wanted); its gradient stays until nm_tape_clear. */
void nm_want_grad(nm_run *r, nm_tensor *x);

/* The gradient's first element for this view, zeroed at first use; NULL when t wants none (or with r->err set). The view's own
 * strides apply. */
float *nm_grad_data(nm_run *r, const nm_tensor *t);
/* For a backward that writes every element of t: *add false when nothing was added before and t is the whole buffer, which then is not
 * zeroed and must be written, not added to. */
float *nm_grad_out(nm_run *r, const nm_tensor *t, bool *add);
/* The gradient of `from`, complete and not needed any more, becomes (or is added to) that of `to`, a tensor of its shape. */
void nm_grad_pass(nm_run *r, const nm_tensor *from, const nm_tensor *to);
/* The same, but NULL when nothing was ever added: then the backward of its producer has nothing to do. */
const float *nm_grad_read(const nm_tensor *t);

/* Runs the records in reverse. The caller has filled the gradients of the outputs (nm_grad_data). */
void nm_backward(nm_run *r);

/* Activation checkpointing (arXiv 1604.06174): y = fn(r, x, arg), of x's shape and f32, is computed without keeping what its backward
 * needs; in the backward it runs again, with the same bits. `arg`, and what it points to, lives until nm_tape_clear; the run's generator is
 * put back for the second time. */
typedef nm_tensor nm_segment_fn(nm_run *r, nm_tensor x, void *arg);
nm_tensor nm_checkpoint(nm_run *r, nm_tensor x, nm_segment_fn *fn, void *arg);

size_t nm_tape_bytes(const nm_tape *t);   /* of gradients of activations */
size_t nm_tape_mallocs(const nm_tape *t); /* how often they went to the system (tests) */

#endif
