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

/* epilogue(proj(act(fc(x)))), the epilogue's residual given: a transformer block's second half. */
nm_tensor nm_mlp(nm_run *r, nm_tensor x, const nm_linear_w *fc, nm_act act, const nm_linear_w *proj, nm_epilogue e);

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
    const nm_tensor *bias_tensor; /* instead of bias: f32 [sequences or 1, heads, lq, lk], all sequences of one length; it gets its gradient */
    float scale;           /* 0: head_dim^-0.5 */
    const void *packed;    /* from nm_pack_kv of these k and v, heads and k_offsets (needed then): k and v give their shapes only */
} nm_mask;

/* q [.., heads*head_dim], k, v likewise (views into one fused projection are fine) -> [query rows, heads*head_dim], same dtype. */
nm_tensor nm_attention(nm_run *r, nm_tensor q, nm_tensor k, nm_tensor v, int heads, const nm_mask *m);

/* Inference: keys and values that many calls attend to, packed once instead of in each call (kernels/attention.h); results keep their
 * bits. Bytes of the packed form for k, v of `dtype` [rows, width], 0: there is none, nm_attention reads k and v; `to` is 64-byte aligned. */
size_t nm_packed_kv_bytes(const nm_run *r, nm_dtype dtype, int64_t width, int heads, int64_t n_seq, const int64_t *k_offsets);
void nm_pack_kv(nm_run *r, nm_tensor k, nm_tensor v, int heads, int64_t n_seq, const int64_t *k_offsets, void *to);

/* rows[i] = table[ids[i]], where row `padding` of the table gets no gradient. */
nm_tensor nm_embedding_padded(nm_run *r, const int32_t *ids, int64_t n, const nm_weight *table, int32_t padding);
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
/* Pooling of NHWC f32 pictures by any window; an average counts the padding, and the gradient of a maximum goes to the first of equals.
 * Adaptive: windows [floor(o in / out), ceil((o + 1) in / out)). */
typedef struct nm_pooling { bool max, adaptive; int kernel[2], stride[2], pad[2]; int64_t out[2]; } nm_pooling;
nm_tensor nm_pool2d(nm_run *r, nm_tensor x, nm_pooling p);
/* Dimension i of the result is dimension axes[i] of x (f32). */
nm_tensor nm_permute(nm_run *r, nm_tensor x, const int *axes);

/* Deformable convolution with modulation, arXiv 1811.11168: each tap of each output pixel is read off its place by offset f32 [n, oh, ow, taps, 2]
 * (dy, dx), bilinearly, zeros outside, and multiplied by mask [n, oh, ow, taps]. x NHWC, weight [out, in, kh, kw]; groups, dilation 1. */
nm_tensor nm_deform_conv2d(nm_run *r, nm_tensor x, nm_tensor offset, nm_tensor mask, const nm_weight *w, const nm_weight *bias, int stride, int pad);

/* Group normalisation of f32 [n, .., channels] over everything of a picture but the groups. */
nm_tensor nm_groupnorm(nm_run *r, nm_tensor x, const nm_norm_w *w, int groups, float eps);

/* y = scale a b of f32 [.., m, k] and [.., k, n] ([.., n, k] with transpose_b); b of two dimensions serves all of a. */
nm_tensor nm_matmul(nm_run *r, nm_tensor a, nm_tensor b, bool transpose_b, float scale);
/* Over the last dimension, f32. */
nm_tensor nm_softmax(nm_run *r, nm_tensor x);
nm_tensor nm_log_probs(nm_run *r, nm_tensor x);
/* x exp(s) (CLIP's logit_scale) or x / s (ALBEF's temperature), s one number. */
typedef enum nm_temperature_kind { NM_TIMES_EXP, NM_DIVIDED_BY } nm_temperature_kind;
nm_tensor nm_temperature(nm_run *r, nm_tensor x, nm_tensor s, nm_temperature_kind kind);
nm_tensor nm_sigmoid(nm_run *r, nm_tensor x);
nm_tensor nm_hard_sigmoid(nm_run *r, nm_tensor x); /* min(max(x + 3, 0), 6) / 6 */

/* Dropout and drop path (timm: per sample, dimension 0) in training runs: what stays is divided by 1 - p. Masks come from r->rng, so that a
 * forward that is run again must start from the same state. nm_keep_where takes the mask: one number (0 or not) per `group` elements. */
nm_tensor nm_dropout(nm_run *r, nm_tensor x, float p);
nm_tensor nm_drop_path(nm_run *r, nm_tensor x, float p);
nm_tensor nm_keep_where(nm_run *r, nm_tensor x, const float *keep, int64_t group, float p);

/* Biases of attention from a table [rows, heads] that is trained (relative positions: T5's buckets, Swin's distances): bias [sets, heads, lq, lk],
 * element (s, h, i, j) = table[rows[i lk + j], h] + mask[s % n_masks][i lk + j]. mask NULL: one set (sets is 1) for all sequences. */
nm_tensor nm_bias_table(nm_run *r, const nm_weight *table, const int32_t *rows, int64_t lq, int64_t lk, int64_t sets, const float *mask, int64_t n_masks);
/* Swin's attention inside windows, arXiv 2103.14030: x f32 [n, h, w, width] (after the norm); pictures are padded with zeros to whole windows
 * (padded keys take part), with a shift rolled up-left and regions kept apart by -100. table [(2 window - 1)^2, heads]. */
typedef struct nm_window_w { nm_linear_w qkv, proj; nm_weight table; } nm_window_w;
nm_tensor nm_window_attention(nm_run *r, nm_tensor x, const nm_window_w *w, int heads, int window, int shift);

/* Losses: one f32 number (GIoU: one per box), gradients to x alone; targets are constants, read during the call only. */
#define NM_NO_LABEL (-100) /* a row that does not count */
/* Sum over rows of weight[i] * CE(logits[i], label[i]) with label smoothing (torch.nn.functional.cross_entropy); adds its gradient to d (may be
 * NULL). weight NULL: `same` for every row. logits, d f32 [rows, classes], sums in double. */
double nm_cross_entropy_sum(const float *logits, const int64_t *label, int64_t rows, int64_t classes, double smoothing, const double *weight, double same, float *d);
nm_tensor nm_cross_entropy(nm_run *r, nm_tensor x, const int64_t *labels, float smoothing); /* mean over the rows that count */
nm_tensor nm_soft_cross_entropy(nm_run *r, nm_tensor x, const float *targets);                              /* -sum t log softmax(x), mean over rows */
nm_tensor nm_distillation(nm_run *r, nm_tensor x, const float *teacher, float temperature);                 /* T^2 KL of the softened softmaxes, mean over rows */
nm_tensor nm_bce_logits(nm_run *r, nm_tensor x, const float *targets);                                      /* mean */
/* arXiv 1708.02002 over sigmoids; sum or mean of the elements with keep != 0 (NULL: all; the mean divides by all). */
nm_tensor nm_focal_loss(nm_run *r, nm_tensor x, const float *targets, const uint8_t *keep, float alpha, float gamma, bool mean);
nm_tensor nm_smooth_l1(nm_run *r, nm_tensor x, const float *targets, float beta, bool mean);                /* or sum */
nm_tensor nm_giou_loss(nm_run *r, nm_tensor boxes, const float *targets, float eps);                        /* f32 [n, 4] x0 y0 x1 y1 -> [n] */

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
/* The same as an operator. */
nm_tensor nm_resize_rows(nm_run *r, nm_tensor x, int64_t extra, int64_t old_h, int64_t old_w, int64_t new_h, int64_t new_w, nm_interp how);
bool nm_resize_positions(const float *rows, int64_t extra, int64_t old_h, int64_t old_w, float *out, int64_t new_h, int64_t new_w, int64_t width,
                         nm_interp how);

#endif
