/* optim.h - optimisers on one parameter at a time, gradient clipping, learning-rate schedules, averages of weights. f32 state; the
 * formulas and their order are PyTorch's (AdamW: Loshchilov & Hutter, arXiv 1711.05101; Lion: arXiv 2302.06675, timm's form). */
#ifndef NM_OPTIM_H
#define NM_OPTIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/pool.h"

typedef enum nm_opt_kind { NM_OPT_ADAMW, NM_OPT_SGD, NM_OPT_LION } nm_opt_kind;

typedef struct nm_opt {
    nm_opt_kind kind;
    double beta1, beta2, eps;
    double momentum;
    bool nesterov;
} nm_opt;

/* One update of w [n] by its gradient g; `scale` multiplies g first (clipping). step counts from 1. m, v: state [n], zeros at the
 * start (SGD and Lion use m alone; v may be NULL). weight_decay 0 for parameters outside the decay group. */
void nm_opt_update(const nm_opt *o, nm_pool *pool, size_t n, float *w, const float *g, double scale, float *m, float *v, int64_t step, double lr,
                   double weight_decay);

double nm_squared_norm(nm_pool *pool, const float *g, size_t n); /* in an order that does not depend on the threads */
/* torch's clip_grad_norm_: min(1, max_norm / (norm + 1e-6)); 1 where max_norm is 0 (off). */
double nm_clip_factor(double norm, double max_norm);

typedef enum nm_schedule_kind { NM_LR_COSINE, NM_LR_CONST, NM_LR_CONST_COOLDOWN } nm_schedule_kind;
typedef struct nm_schedule {
    nm_schedule_kind kind;
    double base_lr;
    int64_t warmup, total;
    int64_t cooldown;        /* steps at the end (const-cooldown) */
    double power, end_lr;    /* const-cooldown: lr = ((1 - e/es)^power) (base - end) + end */
    bool warmup_from_zero;   /* FLIP: lr = base * step / warmup instead of (step + 1) / warmup */
} nm_schedule;
double nm_schedule_lr(const nm_schedule *s, int64_t step); /* step from 0 */

/* timm's ModelEmaV3 with warm-up: the decay of the step-th update, from 1: 1 - step^(-2/3), at most `decay`; 0 in the first. */
double nm_ema_warm_decay(double decay, int64_t step);
/* avg += (1 - decay) (w - avg). */
void nm_ema_update(nm_pool *pool, size_t n, float *avg, const float *w, double decay);

#endif
