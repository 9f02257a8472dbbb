/* blip_loss.h - BLIP's training losses through the tape (arXiv 2201.12086; salesforce/BLIP models/blip_pretrain.py, blip_retrieval.py,
 * blip.py, blip_vqa.py, blip_nlvr.py; evaluation mode: no dropout).
 *
 *     pre-training   ITC (momentum encoders, queues, soft targets) + ITM (hard negatives) + LM
 *     retrieval      ITC with equal picture ids as equal positives + ITM
 *     captions       LM behind a prompt that is not scored
 *     VQA            LM of weighted answers over question states
 *     NLVR2          cross-entropy of "True"
 *
 * A loss function runs the forward, fills every parameter's gradient (added to what is there) and leaves the update to its caller. */
#ifndef NM_BLIP_LOSS_H
#define NM_BLIP_LOSS_H

#include "models/blip.h"
#include "train/tied.h"
#include "weights/weights.h"

#define NM_BLIP_NO_ID (-100) /* an empty place of the queue of picture ids */

/* Pre-training ties the text encoder and decoder except self-attention, and the LM matrix and the word embeddings. */
typedef struct nm_blip_train {
    nm_blip *m, *momentum;  /* momentum: vision tower, text encoder and projections; NULL without ITC */
    nm_tied tied;
    nm_weight **slow;       /* [tied.n]: each entry's parameter of the momentum encoders, or NULL */
    int64_t queue_size, ptr;
    float *image_queue, *text_queue; /* [queue_size, embed_dim], unit rows */
    int64_t *idx_queue;              /* [queue_size] picture ids of retrieval, -100: empty */
    double decay;                    /* of the momentum encoders: 0.995 */
    double label_smoothing;          /* of LM: 0.1 */
} nm_blip_train;

/* Turns the model's parameters into trainable f32. Momentum encoders and queues come from `file` where it has them; else they start as copies and
 * as random unit rows (queue_size of them; the batch must divide it). The model must outlive the result. */
noema_status nm_blip_train_new(nm_blip_train **t, nm_blip *m, const nm_weights *file, int64_t queue_size, uint64_t seed, noema_error *err);
void nm_blip_train_free(nm_blip_train *t);

typedef struct nm_blip_batch {
    int64_t n;
    const float *pixels;            /* f32 [n, 3, h, w] ([2n, ...] for NLVR2: both pictures of a pair are neighbours) */
    nm_texts texts;                 /* ids as the tokenizer gives them, [CLS] .. [SEP] */
    int64_t max_ids;                /* longer texts are cut, [SEP] stays; 0: no limit */
    double alpha;                   /* share of the momentum model's targets */
    const int64_t *idx;             /* retrieval: picture ids [n]; NULL: pre-training's rules */
    const int64_t *negative_image, *negative_text; /* [n] instead of drawing them, or NULL */
    int32_t dec, enc;               /* ids of [DEC] and [ENC] */
    int64_t prompt_ids;             /* captions: labels before this position do not count */
    nm_texts answers;               /* VQA */
    const int64_t *answers_of;      /* VQA [n]: answers of each question */
    const double *answer_weight;    /* VQA [answers.n] */
    const int64_t *labels;          /* NLVR2 [n] */
} nm_blip_batch;

typedef struct nm_blip_losses {
    double itc, itm, lm, total;
    double *weights_i2t, *weights_t2i; /* [n, n] of the draw, when the caller gave room */
} nm_blip_losses;

/* NaN with r->err set on failure. The run has a tape, is in training and its arena is reset by the caller between steps. */
double nm_blip_pretrain_loss(nm_run *r, nm_blip_train *t, const nm_blip_batch *b, bool with_lm, nm_blip_losses *out);
double nm_blip_caption_loss(nm_run *r, nm_blip_train *t, const nm_blip_batch *b);
double nm_blip_vqa_loss(nm_run *r, nm_blip_train *t, const nm_blip_batch *b);
double nm_blip_nlvr_loss(nm_run *r, nm_blip_train *t, const nm_blip_batch *b);

#endif
