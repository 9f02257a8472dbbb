/* lora.h - low-rank adapters (LoRA, arXiv 2106.09685) as a reparametrisation of weights: rows of W become W0 + (alpha / r) B A with
 * A [r, in] and B [rows, r]; A and B are trained, W0 is fixed. The model always holds the merged weights, so forward and saved files are
 * those of any model; after a backward the gradient of W is folded into those of A and B. */
#ifndef NM_LORA_H
#define NM_LORA_H

#include "base/pool.h"
#include "nn/weight.h"

struct nm_train_param;

/* targets: of q, k, v (thirds of the in-projection), out, fc, proj (the MLP's), separated by commas; NULL: "q,v". */
typedef struct nm_lora_options { int64_t rank; double alpha; const char *targets; bool image, text; uint64_t seed; } nm_lora_options;

typedef struct nm_lora nm_lora;

/* Finds the targets among params, which hold their weights as f32. A is drawn uniformly within 1 / sqrt(in), B is 0: nothing changes at
 * first. Params must stay where they are. */
noema_status nm_lora_new(nm_lora **l, const nm_lora_options *o, struct nm_train_param *params, size_t n, noema_error *err);
void nm_lora_free(nm_lora *l);

/* Adapter matrices, A and B of each site in turn: "visual.transformer.resblocks.0.attn.q.lora_A", ... */
size_t nm_lora_count(const nm_lora *l);
const char *nm_lora_name(const nm_lora *l, size_t i);
nm_weight *nm_lora_weight(nm_lora *l, size_t i);
bool nm_lora_is_adapter(const char *name);
/* Whether gradients of this parameter are wanted for an adapter's sake. */
bool nm_lora_adapts(const nm_lora *l, const nm_weight *w);

void nm_lora_merge(nm_lora *l, nm_pool *pool);     /* W = W0 + (alpha / r) B A */
bool nm_lora_gradients(nm_lora *l, nm_pool *pool); /* adds to the gradients of A and B (w->grad) from those of W; false: out of memory */

/* A and B from / to a safetensors file under their names. Loading merges. */
noema_status nm_lora_load(nm_lora *l, const char *path, nm_pool *pool, noema_error *err);
noema_status nm_lora_save(const nm_lora *l, const char *path, noema_error *err);

#endif
