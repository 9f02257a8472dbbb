/* weight.h - a model's parameters: views into the checkpoint in their stored dtype, packed for a kernel once, lazily. */
#ifndef NM_WEIGHT_H
#define NM_WEIGHT_H

#include <pthread.h>
#include <stdatomic.h>

#include "tensor/run.h"

#define NM_MAX_PARTS 3

/* One parameter. A fused one (q, k, v as one [3 width, width] matrix) may lie in the file in parts, stacked along dimension 0;
 * a transposed one is stored [in, out] where the declaration says [out, in]. */
typedef struct nm_weight {
    nm_shape shape;                   /* as declared; ndim < 0: absent (optional and not in the file) */
    int n_parts;                      /* 0: not loaded */
    nm_tensor part[NM_MAX_PARTS];     /* stored dtype, any strides */
    bool transposed;
    float *f32;                       /* vectors, scalars and position tables: made at load, [numel] contiguous, as declared */
    bool still;                       /* running statistics that training uses and leaves as they are */
    bool owned_part;                  /* part[0].data was allocated for this weight (initialised, resized, trained) */
    _Atomic(nm_packed *) packed[NM_DTYPES]; /* by compute dtype, made at first use */
    struct nm_grad *grad;
    /* Rows [first, first + shape.dim[0]) of another weight, whose value and gradient this one shares; and those that show rows of this one. */
    struct nm_weight *whole, *shown[NM_MAX_PARTS];
    int64_t first;
} nm_weight;

typedef struct nm_linear_w { nm_weight weight /* [out, in] */, bias /* [out], optional */; } nm_linear_w;
typedef struct nm_norm_w { nm_weight weight /* [width] */, bias /* [width], optional */; } nm_norm_w;

static inline bool nm_has(const nm_weight *w) { return w->n_parts > 0; }
/* Whose gradient it collects in; NULL: it is not trained. */
static inline struct nm_grad *nm_weight_grad_of(const nm_weight *w) { return w->whole ? w->whole->grad : w->grad; }

/* The whole parameter as contiguous f32 in the declared layout, into dst [numel]. */
void nm_weight_copy_f32(const nm_weight *w, float *dst);
/* Sets w->f32 (once). */
bool nm_weight_make_f32(nm_weight *w);
/* The packed form for a compute dtype, made under a lock at the first call; matrices of [out, in...] are packed as
 * [out, product of the rest]. NULL with r->err set on failure. Thread safe. */
const nm_packed *nm_weight_packed(nm_run *r, const nm_weight *w, nm_dtype compute);
/* The stored matrix as nm_gemm reads it without a packed form; returns the number of parts, 0: it must be packed. */
int nm_weight_parts(const nm_run *r, const nm_weight *w, nm_dtype compute, nm_gemm_part part[NM_MAX_PARTS]);
/* Replaces the value by `data` (f32, contiguous, allocated with nm_alloc, owned from now on) of `shape`. */
void nm_weight_set(nm_weight *w, float *data, nm_shape shape);
/* The value becomes f32 of this weight alone, so that it may change; an absent one becomes a scalar 0. */
bool nm_weight_own(nm_weight *w);
/* After the value changed in place (an optimiser's step): forgets packed forms. No other thread may use the weight meanwhile. */
void nm_weight_changed(nm_weight *w);
void nm_weight_free(nm_weight *w); /* what the weight owns, not the file's memory */

/* dst becomes rows [begin, end) of src as it is now, in the file's memory (vectors: a copy); vectors and matrices in one part or several. */
bool nm_weight_row_view(nm_weight *dst, const nm_weight *src, int64_t begin, int64_t end);
/* The same, but dst goes on showing what becomes of src (nm_weight_set, nm_weight_own, nm_weight_changed) and collects its gradient there. At
 * most NM_MAX_PARTS per weight; neither may move in memory. */
bool nm_weight_rows_of(nm_weight *dst, nm_weight *src, int64_t begin, int64_t end);

#endif
