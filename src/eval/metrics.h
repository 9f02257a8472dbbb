/* metrics.h - the measures of specs/evaluation.md as pure functions, sums in double. */
#ifndef NM_EVAL_METRICS_H
#define NM_EVAL_METRICS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/stats.h"
#include "eval/scores.h"

/* What an equal score counts as. LAVIS reverses an ascending sort: NM_TIES_HIGHEST. */
typedef enum nm_ties { NM_TIES_LOWEST, NM_TIES_HIGHEST, NM_TIES_OPTIMISTIC, NM_TIES_PESSIMISTIC } nm_ties;

/* ---- classification (classify.c) ---- */

/* Candidates in front of `j` in scores[0..n): those with a higher score, and equal ones by the rule. *tied (or NULL): equal ones. */
int64_t nm_rank_of(const double *scores, int64_t n, int64_t j, nm_ties rule, int64_t *tied);
int64_t nm_argmax(const double *scores, int64_t n); /* of equal ones the lowest index */

/* rank[i]: of the right class, from 0. */
double nm_topk_accuracy(int64_t n, const int64_t *rank, int64_t k);
/* Mean over the classes that occur in `label` of the share that is right; = balanced accuracy. recall: [classes] (NaN: absent) or NULL. */
double nm_mean_per_class_recall(int64_t n, int64_t classes, const int64_t *label, const int64_t *predicted, double *recall, noema_error *err);
/* Mean of F1 over the classes that occur in label or prediction. */
double nm_macro_f1(int64_t n, int64_t classes, const int64_t *label, const int64_t *predicted, noema_error *err);
/* scores, positive: [n]. Sum of the precision at each positive, sorted by score (equal ones by index) / max(positives, 1). NaN: no memory. */
double nm_average_precision(int64_t n, const double *scores, const uint8_t *positive, noema_error *err);
/* VOC 2007: mean over r = 0, 0.1 .. 1 of the largest precision at recall >= r. */
double nm_average_precision_11(int64_t n, const double *scores, const uint8_t *positive, noema_error *err);
/* P(positive > negative) + P(equal) / 2; NaN where one of the two is missing. */
double nm_roc_auc(int64_t n, const double *scores, const uint8_t *positive, noema_error *err);
/* Expected calibration error: confidence in `bins` equal steps. */
double nm_calibration_error(int64_t n, const double *confidence, const uint8_t *right, int bins);

/* ---- retrieval (retrieval.c) ---- */

/* owner[j]: the image of text j, -1: none. Ranks from 0 among all candidates; an image's rank is that of its best text, -1 without texts. */
typedef struct nm_retrieval {
    int64_t n_images, n_texts;
    int64_t *image_rank; /* [n_images]: images as queries ("text retrieval") */
    int64_t *text_rank;  /* [n_texts]: texts as queries ("image retrieval") */
    int64_t image_ties, text_ties; /* queries with a wrong candidate that equals the right one */
    double *image_ap, *image_r_precision; /* [n_images], by lowest index whatever the rule */
} nm_retrieval;

noema_status nm_retrieve(nm_retrieval *r, nm_pool *pool, const nm_vectors *images, const nm_vectors *texts, const int64_t *owner, nm_ties rule,
                         noema_error *err);
void nm_retrieval_free(nm_retrieval *r);

/* ---- k nearest neighbours (knn.c) ---- */

typedef struct nm_knn_options {
    int64_t k;
    bool euclid;        /* nearest by Euclidean distance; else by product (cosine of unit vectors) */
    double temperature; /* > 0: a vote weighs exp(score / temperature) (euclid: exp(-distance / temperature)); 0: one each */
} nm_knn_options;
/* predicted: [test->n]; equal votes: the lowest class. */
noema_status nm_knn(nm_pool *pool, const nm_vectors *train, const int64_t *label, int64_t classes, const nm_vectors *test, const nm_knn_options *o,
                    int64_t *predicted, noema_error *err);

/* ---- quality of embeddings (geometry.c, spectrum.c) ---- */

double nm_alignment(const nm_vectors *a, const nm_vectors *b, const int64_t *of_b, double alpha); /* mean |a[of_b[j]] - b[j]|^alpha */
/* ln of the mean over pairs i < j of exp(-t |x_i - x_j|^2). */
noema_status nm_uniformity(nm_pool *pool, const nm_vectors *v, double t, double *value, noema_error *err);
/* Length of the difference of the means, cosine of the means. */
noema_status nm_modality_gap(const nm_vectors *a, const nm_vectors *b, double *gap, double *cosine, noema_error *err);
/* Mean cosine of two different rows. */
double nm_anisotropy(const nm_vectors *v);

typedef struct nm_spectrum { double effective_rank, participation_ratio, stable_rank; } nm_spectrum;
noema_status nm_spectrum_of(nm_spectrum *s, const nm_vectors *v, bool centred, noema_error *err);
/* Eigenvalues of a symmetric matrix [n, n] (destroyed), ascending. false: no convergence. */
bool nm_eigenvalues(double *a, int64_t n, double *values, double *work /* [n] */);

typedef struct nm_hubness { double mean, skewness, zero_share; int64_t max, zero; } nm_hubness;
/* How often each row of `items` is among the k nearest of a row of `queries`; equal scores by lowest index. */
noema_status nm_hubness_of(nm_hubness *h, nm_pool *pool, const nm_vectors *queries, const nm_vectors *items, int64_t k, noema_error *err);

typedef struct nm_clip_loss { double image_to_text, text_to_image, loss; } nm_clip_loss;
/* Cross-entropy of the pairs (row i of both) over the whole matrix, scores * scale. */
noema_status nm_clip_loss_of(nm_clip_loss *l, nm_pool *pool, const nm_vectors *images, const nm_vectors *texts, double scale, noema_error *err);

/* ---- composition (composition.c) ---- */

/* s: [n, 2, 2], score of caption c and image i at [., c, i]. */
typedef struct nm_winoground { double text, image, group; } nm_winoground;
nm_winoground nm_winoground_scores(int64_t n, const double *s);
/* s: [n, choices], the right one first; a tie is wrong. */
double nm_first_wins(int64_t n, int64_t choices, const double *s);

/* ---- confidence (interval.c) ---- */

nm_interval nm_share_interval(double share, int64_t n); /* of a share of n, 95 % (Wilson) */

#endif
