/* attention.h - softmax(scale Q K^T + mask) V, fused: scores never leave the cache (blockwise softmax).
 *
 * Rows of q, k, v are tokens; a token's head h starts at element h * head_dim of its row, so that a fused [tokens, 3 width]
 * projection is read in place. Sequences of different lengths lie one after another: sequence s owns query rows
 * q_offsets[s] .. q_offsets[s+1] and key rows k_offsets[s] .. k_offsets[s+1]. The result of a row depends on its own
 * sequence only, with a fixed order of additions (not on batch or threads). */
#ifndef NM_ATTENTION_H
#define NM_ATTENTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/dtype.h"
#include "base/pool.h"

struct nm_kernels;

typedef struct nm_attn {
    nm_dtype dtype;      /* of q, k, v and out: NM_F32 or NM_BF16; scores, softmax and accumulation are f32 */
    int heads, head_dim; /* head_dim 1..256 */
    float scale;         /* usually head_dim^-0.5 */
    int64_t n_seq;
    const int64_t *q_offsets, *k_offsets; /* [n_seq + 1], may be the same array */
    const void *q, *k, *v;
    int64_t q_stride, k_stride, v_stride; /* elements between rows */
    void *out;                            /* [query rows, heads * head_dim], row stride out_stride */
    int64_t out_stride;
    bool causal;            /* query i of a sequence sees keys j <= i + (keys - queries) of it */
    const float *key_bias;  /* [key rows] added to every score of that key (0 or -INFINITY: padding), or NULL */
    const float *bias;      /* added to the scores: element (s, h, i, j) at s*bias_seq + h*bias_head + i*bias_row + j, or NULL */
    int64_t bias_seq, bias_head, bias_row; /* strides in elements; 0 broadcasts */
    const void *packed;     /* from nm_attention_pack with the same dtype, heads, head_dim, n_seq and k_offsets: k and v are not read; or NULL */
} nm_attn;

/* A row whose keys are all masked (or that has no keys) gives zeros. */
size_t nm_attention_scratch(const struct nm_kernels *kn, const nm_attn *a, int workers);
void nm_attention_run(const struct nm_kernels *kn, const nm_attn *a, nm_pool *pool, void *scratch);

/* Keys and values in the form in which the kernels read them, for those that many calls attend to: otherwise each call packs them anew.
 * The results are the same, bit for bit. Reads dtype, heads, head_dim, n_seq, k_offsets, k, v and their strides of `a`. Bytes of the
 * packed form (64-byte aligned); 0: the kernels read k and v in place, there is nothing to pack. */
size_t nm_attention_packed_bytes(const struct nm_kernels *kn, const nm_attn *a);
void nm_attention_pack(const struct nm_kernels *kn, const nm_attn *a, nm_pool *pool, void *packed);

typedef struct nm_attention_kernels nm_attention_kernels;
#include "kernels/attention_kernels.h"

#endif
