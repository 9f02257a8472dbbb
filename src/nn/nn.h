/* nn.h - operators on tensors. Each takes the run context first; given an empty tensor (an earlier failure) it returns an empty
 * tensor, so a forward is written without checks and r->err is read once at its end. Row counts are flattened leading
 * dimensions. With a tape the same calls record their backward. */
#ifndef NM_NN_H
#define NM_NN_H

#include "nn/weight.h"

/* What a product does to its result before storing it; zero-initialised: nothing, result in r->act. */
typedef struct nm_epilogue {
    nm_act act;
    const nm_weight *gamma;    /* LayerScale [out], or NULL / absent */
    const nm_tensor *residual; /* f32 [rows, out] added last; the result then is f32 and, when `inplace`, written over it */
    bool inplace;
    bool f32;                  /* result in f32 whatever r->act is */
} nm_epilogue;

/* y[..., out] = epilogue(x[..., in] W^T + b); x f32 or bf16, last dimension contiguous. */
nm_tensor nm_linear(nm_run *r, nm_tensor x, const nm_linear_w *w, nm_epilogue e);
/* y = x W^T with a bare weight (projections without bias). */
nm_tensor nm_matmul_w(nm_run *r, nm_tensor x, const nm_weight *w, nm_epilogue e);

/* x f32 [..., width] -> r->act; nm_layernorm_f32 keeps f32. */
nm_tensor nm_layernorm(nm_run *r, nm_tensor x, const nm_norm_w *w, float eps);
nm_tensor nm_layernorm_f32(nm_run *r, nm_tensor x, const nm_norm_w *w, float eps);
/* y = x / sqrt(mean(x^2) + eps) * weight, without mean or bias (T5); nm_rmsnorm_f32 keeps f32. */
nm_tensor nm_rmsnorm(nm_run *r, nm_tensor x, const nm_weight *w, float eps);
nm_tensor nm_rmsnorm_f32(nm_run *r, nm_tensor x, const nm_weight *w, float eps);

/* Which keys a query sees. Sequences are ragged: offsets as in kernels/attention.h; q_offsets == NULL means q is
 * [batch, queries, width] and k, v are [batch, keys, width]. */
typedef struct nm_mask {
    bool causal;
    int64_t n_seq;
    const int64_t *q_offsets, *k_offsets;
    const float *key_bias; /* [key rows] or NULL */
    const float *bias;     /* see nm_attn */
    int64_t bias_seq, bias_head, bias_row;
    float scale;           /* 0: head_dim^-0.5 */
} nm_mask;

/* q [.., heads*head_dim], k, v likewise (views into one fused projection are fine) -> [query rows, heads*head_dim], same dtype. */
nm_tensor nm_attention(nm_run *r, nm_tensor q, nm_tensor k, nm_tensor v, int heads, const nm_mask *m);

/* rows[i] = table[ids[i]] (+ position[pos[i]] when given), f32 [n, width]. Ids outside the table are an error. Leading dimensions of a
 * table count together ([1, queries, width]). */
nm_tensor nm_embedding(nm_run *r, const int32_t *ids, int64_t n, const nm_weight *table, const int32_t *pos, const nm_weight *position);

/* Images f32 [batch, channels, height, width] -> patch tokens f32 [batch, grid_h * grid_w, width], row-major over the grid; conv weight
 * [width, channels, ph, pw] with kernel = stride. With `keep` (or NULL) those patches alone, in its order: [batch, keep->n, width]. */
nm_tensor nm_patch_embed_kept(nm_run *r, nm_tensor pixels, const nm_linear_w *conv, const nm_keep *keep);
static inline nm_tensor nm_patch_embed(nm_run *r, nm_tensor pixels, const nm_linear_w *conv) { return nm_patch_embed_kept(r, pixels, conv, NULL); }

/* tokens f32 [batch, n, width] -> [batch, extra + n, width]: the rows of `first` ([extra, width] or [width], class tokens; NULL or absent:
 * extra = 0) before each image's tokens, then positions ([extra + n, width] with its f32 form made, NULL or absent: none) added. With
 * `keep` (or NULL) token j of image i is patch keep->patch[i * n + j] of the table. */
nm_tensor nm_add_positions_kept(nm_run *r, nm_tensor tokens, const nm_weight *first, const nm_weight *positions, const nm_keep *keep);
static inline nm_tensor nm_add_positions(nm_run *r, nm_tensor tokens, const nm_weight *first, const nm_weight *positions)
{
    return nm_add_positions_kept(r, tokens, first, positions, NULL);
}

/* Batch normalisation over the rows of [.., channels]. Where its scale is trained, a training run takes the statistics of the batch (biased
 * variance), and with a tape the running ones move a tenth of the way to them (unbiased variance, as PyTorch). A locked layer, validation and
 * inference use the running ones. */
typedef struct nm_batchnorm_w { nm_weight weight, bias, running_mean, running_var, num_batches_tracked; } nm_batchnorm_w;
/* y = (x - mean) / sqrt(var + eps) * weight + bias (+ residual) (then ReLU); x, residual f32, contiguous. */
nm_tensor nm_batchnorm(nm_run *r, nm_tensor x, const nm_batchnorm_w *bn, float eps, const nm_tensor *residual, bool relu);

/* 2-D convolution of NHWC f32 [batch, h, w, in] by [out, in / groups, kh, kw]. What is zero in the options: stride 1, dilation 1, one group. */
typedef struct nm_conv {
    int stride[2], pad[2], dilation[2], groups; /* [vertical, horizontal] */
    const nm_weight *bias;                      /* [out], or NULL / absent */
    const nm_batchnorm_w *bn;                   /* normalises the result, or NULL */
    float eps;                                  /* of bn */
    const nm_tensor *residual;                  /* with bn: added after it, f32 [batch, out h, out w, out] */
    bool relu;                                  /* last */
} nm_conv;
nm_tensor nm_conv2d(nm_run *r, nm_tensor x, const nm_weight *w, nm_conv c);
nm_tensor nm_avgpool2d(nm_run *r, nm_tensor x, int size);
/* f32 [n, a, b] -> [n, b, a], as the given shape: pixels from NCHW to NHWC and back. */
nm_tensor nm_swap_last(nm_run *r, nm_tensor x, int64_t n, int64_t a, int64_t b, nm_shape shape);

/* Element-wise and row operators on f32 tensors of one shape. */
nm_tensor nm_add(nm_run *r, nm_tensor a, nm_tensor b);
nm_tensor nm_times(nm_run *r, nm_tensor x, float factor);
/* [rows, m], [rows, n] -> [rows, m + n]. */
nm_tensor nm_beside(nm_run *r, nm_tensor a, nm_tensor b);
nm_tensor nm_mul(nm_run *r, nm_tensor a, nm_tensor b);
nm_tensor nm_activation(nm_run *r, nm_tensor x, nm_act act);
nm_tensor nm_cast(nm_run *r, nm_tensor x, nm_dtype dtype);
nm_tensor nm_scale_columns(nm_run *r, nm_tensor x, const nm_weight *gamma); /* x[.., c] * gamma[c] */
/* out[i] = x[rows[i]] for i < n: f32 [n, width]. */
nm_tensor nm_gather_rows(nm_run *r, nm_tensor x, const int64_t *rows, int64_t n);
/* The same over the rows of a followed by those of b, both of one width and dtype; either may be empty (ndim 0). */
nm_tensor nm_join_rows(nm_run *r, nm_tensor a, nm_tensor b, const int64_t *rows, int64_t n);
/* first [batch, width] and tokens [batch, n, width] -> [batch, 1 + n, width], f32. */
nm_tensor nm_prepend(nm_run *r, nm_tensor first, nm_tensor tokens);
/* Mean over rows [offsets[s], offsets[s+1]) of x f32 [rows, width] -> [n_seq, width]. */
nm_tensor nm_mean_rows(nm_run *r, nm_tensor x, const int64_t *offsets, int64_t n_seq);
/* Rows divided by max(norm, eps). */
nm_tensor nm_normalize(nm_run *r, nm_tensor x, float eps);

/* Position tables on another grid, f32: rows = [extra + old_h*old_w, width] -> [extra + new_h*new_w, width], the first `extra`
 * rows kept. cubic -0.5 with antialias (open_clip, DINO) or -0.75 without (transformers); linear for 1-D tables (old_h == new_h == 1). */
typedef enum nm_interp { NM_INTERP_BICUBIC_AA, NM_INTERP_BICUBIC, NM_INTERP_BICUBIC_CORNERS, NM_INTERP_BILINEAR, NM_INTERP_LINEAR } nm_interp;
bool nm_resize_positions(const float *rows, int64_t extra, int64_t old_h, int64_t old_w, float *out, int64_t new_h, int64_t new_w, int64_t width,
                         nm_interp how);

#endif
