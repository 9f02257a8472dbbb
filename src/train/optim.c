/* optim.c - see optim.h. */
#include "train/optim.h"

#include <math.h>

#include "kernels/kernels.h"

enum { BLOCK = 1 << 16 }; /* weights that a thread takes at a time */

typedef struct update_job { nm_update_fn *fn; nm_update u; float *w, *m, *v; const float *g; } update_job;

static void update_part(void *arg, int64_t b, int64_t e, int worker)
{
    const update_job *j = arg;
    (void)worker;
    j->fn(e - b, &j->u, j->w + b, j->g + b, j->m ? j->m + b : NULL, j->v ? j->v + b : NULL);
}

void nm_opt_update(const nm_opt *o, nm_pool *pool, size_t n, float *w, const float *g, double scale, float *m, float *v, int64_t step, double lr,
                   double weight_decay)
{
    const nm_gradient_kernels *kn = &nm_kernels_get()->gradient;
    bool adamw = o->kind == NM_OPT_ADAMW, sgd = o->kind == NM_OPT_SGD;
    double bias1 = 1 - pow(o->beta1, (double)step), bias2 = 1 - pow(o->beta2, (double)step), b1 = sgd ? o->momentum : o->beta1;
    update_job j = { adamw ? kn->adamw : sgd ? kn->sgd : kn->lion,
                     { .scale = (float)scale, .b1 = (float)b1, .b2 = (float)o->beta2, .c1 = (float)(1 - b1), .c2 = (float)(1 - o->beta2),
                       .step = (float)(adamw ? lr / bias1 : lr), .root = (float)(1 / sqrt(bias2)), .eps = (float)o->eps,
                       .keep = (float)(1 - lr * weight_decay), .decay = (float)weight_decay, .first = step == 1, .nesterov = o->nesterov },
                     w, m, v, g };
    nm_parallel_for(pool, (int64_t)n, BLOCK, update_part, &j);
}

/* ---- sums and averages ---- */

enum { BLOCKS = 1024 };
typedef struct norm_job { const float *g; int64_t n; double part[BLOCKS]; } norm_job;

static void norm_part(void *arg, int64_t b, int64_t e, int worker)
{
    norm_job *j = arg;
    (void)worker;
    for (int64_t i = b; i < e; i++)
        j->part[i] = nm_kernels_get()->gradient.squares(j->n - i * BLOCK < BLOCK ? j->n - i * BLOCK : BLOCK, j->g + i * BLOCK);
}

double nm_squared_norm(nm_pool *pool, const float *g, size_t n)
{
    double s = 0;
    for (size_t at = 0; at < n; at += (size_t)BLOCKS * BLOCK) {
        norm_job j = { .g = g + at, .n = (int64_t)(n - at < (size_t)BLOCKS * BLOCK ? n - at : (size_t)BLOCKS * BLOCK) };
        int64_t blocks = (j.n + BLOCK - 1) / BLOCK;
        nm_parallel_for(pool, blocks, 1, norm_part, &j);
        for (int64_t i = 0; i < blocks; i++)
            s += j.part[i];
    }
    return s;
}

double nm_clip_factor(double norm, double max_norm)
{
    double f = max_norm > 0 ? max_norm / (norm + 1e-6) : 1;
    return f < 1 ? f : 1;
}

double nm_schedule_lr(const nm_schedule *s, int64_t step)
{
    if (step < s->warmup)
        return s->base_lr * (double)(step + (s->warmup_from_zero ? 0 : 1)) / (double)s->warmup;
    if (s->kind == NM_LR_COSINE) {
        double e = (double)(step - s->warmup), es = (double)(s->total - s->warmup);
        return 0.5 * (1 + cos(3.14159265358979323846 * e / es)) * s->base_lr;
    }
    int64_t start = s->total - s->cooldown;
    if (s->kind == NM_LR_CONST_COOLDOWN && step >= start) {
        double decay = pow(1 - (double)(step - start) / (double)(s->total - start), s->power);
        return decay * (s->base_lr - s->end_lr) + s->end_lr;
    }
    return s->base_lr;
}

double nm_ema_warm_decay(double decay, int64_t step)
{
    double d = step > 1 ? 1 - pow((double)step, -2.0 / 3) : 0;
    return d < decay ? d : decay;
}

typedef struct ema_job { float *avg; const float *w; float k; } ema_job;

static void ema_part(void *arg, int64_t b, int64_t e, int worker)
{
    const ema_job *j = arg;
    (void)worker;
    nm_kernels_get()->gradient.lerp(e - b, j->avg + b, j->w + b, j->k);
}

void nm_ema_update(nm_pool *pool, size_t n, float *avg, const float *w, double decay)
{
    ema_job j = { avg, w, (float)(1 - decay) };
    nm_parallel_for(pool, (int64_t)n, BLOCK, ema_part, &j);
}
