/* run.h - the run context that every operator gets: threads, kernels, arena, tape, first error. One owner at a time. */
#ifndef NM_RUN_H
#define NM_RUN_H

#include "base/err.h"
#include "base/mem.h"
#include "base/pool.h"
#include "base/rng.h"
#include "kernels/kernels.h"
#include "tensor/tensor.h"

struct nm_tape;

/* Called with every named intermediate of a forward (`inspect activations`, depth goldens); f32 or bf16 tensors, valid during
 * the call only. The name is the checkpoint's module path. */
typedef void nm_observe_fn(void *user, const char *name, const nm_tensor *t);

/* Masked training (arXiv 2212.00794): the patches that an image tower computes, numbers row-major over the grid, patch [pictures, n]. */
typedef struct nm_keep { const int32_t *patch; int64_t n; } nm_keep;

typedef struct nm_run {
    const nm_kernels *kn;
    nm_pool *pool;
    nm_arena *arena;
    struct nm_tape *tape; /* NULL in inference: nothing is recorded */
    bool training;
    bool rehearsal;       /* in training: this forward runs once more, so that running statistics do not move */
    bool checkpoint;      /* blocks of transformers keep their input only (tape.h) */
    nm_dtype compute;     /* of matrix products: NM_F32, NM_BF16 or NM_I8 */
    nm_dtype act;         /* of activations between a norm and the next product: NM_F32 or NM_BF16; the residual stream is f32 */
    bool mapped_weights;  /* products read weights as they are stored; no packed copies are made */
    nm_rng rng;
    const nm_keep *keep;  /* of the pictures of the next forward; NULL: every patch. Models with nm_model.patches heed it */
    uint64_t backwards;   /* backward functions run since it was set to 0 */
    void (*after_backward)(struct nm_run *r, void *user); /* after each of them; or NULL */
    void *after_user;
    nm_observe_fn *observe;
    void *observe_user;
    char observe_prefix[96]; /* e.g. "visual." */
    double flops;         /* of products, convolutions and attention so far, two per multiply-add; the owner sets it to 0 */
    noema_error err;      /* the first error; operators do nothing once it is set */
} nm_run;

/* compute F32, BF16 or I8; act follows: f32 for F32, bf16 where the compute is lower and the CPU computes with bf16. */
void nm_run_init(nm_run *r, const nm_kernels *kn, nm_pool *pool, nm_arena *arena, nm_dtype compute);

/* A contiguous tensor from the arena, not initialised; empty (and r->err set) on failure. */
nm_tensor nm_new(nm_run *r, nm_dtype dtype, nm_shape shape);
void *nm_scratch(nm_run *r, size_t bytes); /* NULL only for 0 bytes or with r->err set */

/* Sets the first error and returns the empty tensor. */
nm_tensor nm_run_fail(nm_run *r, noema_status code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static inline bool nm_run_ok(const nm_run *r) { return r->err.code == NOEMA_OK; }

/* Inference forgets the activations between mark and reset; with a tape they must live until the backward. */
static inline nm_arena_mark nm_mark(nm_run *r) { return nm_arena_get_mark(r->arena); }
static inline void nm_reset(nm_run *r, nm_arena_mark m)
{
    if (!r->tape)
        nm_arena_rewind(r->arena, m);
}

/* Names shown until nm_observe_leave begin with what they begin with now and then `module` ("visual."). */
typedef struct nm_observe_mark { char prefix[96]; } nm_observe_mark;
nm_observe_mark nm_observe_enter(nm_run *r, const char *module);
void nm_observe_leave(nm_run *r, nm_observe_mark mark);

/* Shows t to the observer, if there is one, under "prefix" + the formatted name. */
void nm_observe(nm_run *r, nm_tensor t, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#endif
