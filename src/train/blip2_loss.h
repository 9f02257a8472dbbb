/* blip2_loss.h - BLIP-2's training losses through the tape (arXiv 2301.12597; salesforce/LAVIS blip2_qformer.py, blip2_opt.py, blip2_t5.py;
 * evaluation mode: no dropout; one process).
 *
 *     stage 1   ITC (best query, label smoothing) + ITM (hard negatives, mean of the queries' logits) + ITG (queries blind to the text)
 *     stage 2   cross-entropy of the frozen language model behind the projected queries
 *
 * The image encoder and the language model are frozen; ln_vision, the Q-Former, the heads and the projection are trained. A loss function
 * runs the forward, adds to every parameter's gradient and leaves the update to its caller. */
#ifndef NM_BLIP2_LOSS_H
#define NM_BLIP2_LOSS_H

#include "models/blip2.h"
#include "train/tied.h"

/* The matrix and bias that write captions are tied to the words and to cls.predictions.bias. */
typedef struct nm_blip2_train { nm_blip2 *m; nm_tied tied; double label_smoothing; } nm_blip2_train;

/* Turns the trained parameters into f32 of their own. The model must outlive the result. */
noema_status nm_blip2_train_new(nm_blip2_train **t, nm_blip2 *m, noema_error *err);
void nm_blip2_train_free(nm_blip2_train *t);
void nm_blip2_train_changed(nm_blip2_train *t); /* after an optimizer step */

typedef struct nm_blip2_batch {
    int64_t n;
    const float *pixels;   /* f32 [n, 3, h, w] */
    nm_texts texts;        /* stage 1: [CLS] .. [SEP]; OPT: </s> .. line feed; T5: the encoder's input */
    nm_texts targets;      /* T5: the decoder's labels, with </s> */
    int64_t max_ids;       /* stage 1: longer texts are cut, [SEP] stays; 0: no limit */
    int64_t prompt_ids;    /* OPT: so many first ids of a text are no targets */
    int32_t dec;           /* stage 1: id of [DEC] */
    const int64_t *image_id;                       /* equal ids are equal positives and no negatives, or NULL */
    const int64_t *negative_image, *negative_text; /* [n] instead of drawing them, or NULL */
} nm_blip2_batch;

typedef struct nm_blip2_losses {
    double itc, itm, lm, total;
    double *weights_i2t, *weights_t2i; /* [n, n] of the draw, when the caller gave room */
} nm_blip2_losses;

/* NaN with r->err set on failure. The run has a tape, is in training and its arena is reset by the caller between steps. */
double nm_blip2_stage1_loss(nm_run *r, nm_blip2_train *t, const nm_blip2_batch *b, nm_blip2_losses *out);
double nm_blip2_stage2_loss(nm_run *r, nm_blip2_train *t, const nm_blip2_batch *b);

#endif
