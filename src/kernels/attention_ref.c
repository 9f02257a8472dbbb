/* attention_ref.c - attention as it is written: one query row at a time. Specification, fallback and oracle. */
#include <math.h>

#include "base/half.h"
#include "kernels/attention_ref.h"

static inline float load(const void *p, nm_dtype t, int64_t i)
{
    return t == NM_F32 ? ((const float *)p)[i] : nm_bf16_to_f32(((const nm_bf16 *)p)[i]);
}

/* scores[j] = scale q.k_j + bias; returns the largest, -inf when there is none. */
static float score_row(const nm_attn *a, int64_t seq, int head, int64_t i, int64_t n, float *scores)
{
    int64_t q0 = (a->q_offsets[seq] + i) * a->q_stride + (int64_t)head * a->head_dim, key0 = a->k_offsets[seq];
    const float *bias = a->bias ? a->bias + seq * a->bias_seq + head * a->bias_head + i * a->bias_row : NULL;
    float max = -INFINITY;
    for (int64_t j = 0; j < n; j++) {
        int64_t k0 = (key0 + j) * a->k_stride + (int64_t)head * a->head_dim;
        float dot = 0;
        for (int d = 0; d < a->head_dim; d++)
            dot += load(a->q, a->dtype, q0 + d) * load(a->k, a->dtype, k0 + d);
        float t = dot * a->scale;
        if (bias)
            t += bias[j];
        if (a->key_bias)
            t += a->key_bias[key0 + j];
        scores[j] = t;
        max = t > max ? t : max;
    }
    return max;
}

static void ref_row(const nm_attn *a, int64_t seq, int head, int64_t i, int64_t n, float *scores, float *acc)
{
    float max = score_row(a, seq, head, i, n, scores), sum = 0;
    if (max == -INFINITY)
        max = 0; /* all masked: every weight becomes 0 below, NaN scores stay NaN */
    for (int d = 0; d < a->head_dim; d++)
        acc[d] = 0;
    for (int64_t j = 0; j < n; j++) {
        int64_t v0 = (a->k_offsets[seq] + j) * a->v_stride + (int64_t)head * a->head_dim;
        float p = expf(scores[j] - max);
        sum += p;
        for (int d = 0; d < a->head_dim; d++)
            acc[d] += p * load(a->v, a->dtype, v0 + d);
    }
    float inv = sum == 0 ? 0 : 1 / sum;
    int64_t o0 = (a->q_offsets[seq] + i) * a->out_stride + (int64_t)head * a->head_dim;
    for (int d = 0; d < a->head_dim; d++) {
        if (a->dtype == NM_F32)
            ((float *)a->out)[o0 + d] = acc[d] * inv;
        else
            ((nm_bf16 *)a->out)[o0 + d] = nm_f32_to_bf16(acc[d] * inv);
    }
}

size_t nm_attention_scratch_ref(const nm_attn *a, int64_t max_keys)
{
    return ((size_t)max_keys + (size_t)a->head_dim) * sizeof(float);
}

void nm_attention_head_ref(const nm_attn *a, int64_t seq, int head, int64_t q_begin, int64_t q_end, void *scratch)
{
    int64_t queries = a->q_offsets[seq + 1] - a->q_offsets[seq], keys = a->k_offsets[seq + 1] - a->k_offsets[seq];
    for (int64_t i = q_begin; i < q_end; i++)
        ref_row(a, seq, head, i, nm_attn_visible(a, queries, keys, i), scratch, (float *)scratch + keys);
}
