/* loss.h - contrastive losses in closed form: from features to the loss and the gradients of everything that enters it, so that a large
 * batch can be split (two-pass accumulation, ranks) without touching the formula. */
#ifndef NM_LOSS_H
#define NM_LOSS_H

#include "nn/nn.h"

typedef struct nm_pair_loss {
    double loss;
    double d_scale; /* of the stored (logarithmic) logit_scale */
    double d_bias;
} nm_pair_loss;

/* InfoNCE, arXiv 2103.00020 figure 3: 1/2 (CE over rows + CE over columns) of exp(s) I T^T with the diagonal as labels. Rows
 * [row0, row0 + rows) of both matrices belong to this rank; the loss is the mean over them, the gradients are those of the mean over all n
 * when added over the ranks' rows. images, texts: unit features f32 [n, dim]; d_images, d_texts [n, dim] are added to. */
nm_pair_loss nm_clip_loss(nm_run *r, int64_t n, int64_t dim, const float *images, const float *texts, double logit_scale, int64_t row0, int64_t rows,
                          float *d_images, float *d_texts);

/* The label-aware loss of UniCL, arXiv 2204.03610 equations 2-4: as InfoNCE, but the target of a row is spread evenly over all rows of its
 * group (equal numbers: the same class or text), so that a second picture of a class is no false negative. Groups of one row give
 * InfoNCE. */
nm_pair_loss nm_unicl_loss(nm_run *r, int64_t n, int64_t dim, const float *images, const float *texts, double logit_scale, const int64_t *group,
                           float *d_images, float *d_texts);

/* SigLIP, arXiv 2303.15343: sum of softplus(-y z) / n with z = exp(s) I T^T + b, y = 1 on the diagonal, -1 elsewhere. */
nm_pair_loss nm_siglip_loss(nm_run *r, int64_t n, int64_t dim, const float *images, const float *texts, double logit_scale, double logit_bias,
                            float *d_images, float *d_texts);

/* nm_cross_entropy_sum (nn.h) of a tensor, whose gradient is added to; NaN for an empty one. */
double nm_rows_loss(nm_run *r, const nm_tensor *logits, const int64_t *label, double smoothing, const double *weight, double same);

#endif
