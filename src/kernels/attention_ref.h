/* attention_ref.h - the plain C variant of attention.h. */
#ifndef NM_ATTENTION_REF_H
#define NM_ATTENTION_REF_H

#include "kernels/attention.h"

size_t nm_attention_scratch_ref(const nm_attn *a, int64_t max_keys);
void nm_attention_head_ref(const nm_attn *a, int64_t seq, int head, int64_t q_begin, int64_t q_end, void *scratch);

#endif
