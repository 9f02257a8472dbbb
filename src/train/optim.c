/* optim.c - see optim.h. */
#include "train/optim.h"

#include <math.h>

typedef struct update_job {
    const nm_opt *o;
    float *w, *m, *v;
    const float *g;
    double scale, lr, decay, bias1, bias2;
    bool first;
} update_job;

static void adamw(const update_job *j, int64_t b, int64_t e)
{
    const nm_opt *o = j->o;
    float keep = (float)(1 - j->lr * j->decay), b1 = (float)o->beta1, b2 = (float)o->beta2, c1 = (float)(1 - o->beta1), c2 = (float)(1 - o->beta2);
    float step = (float)(j->lr / j->bias1), root = (float)sqrt(j->bias2), eps = (float)o->eps, scale = (float)j->scale;
    for (int64_t i = b; i < e; i++) {
        float g = j->g[i] * scale;
        float m = j->m[i] = b1 * j->m[i] + c1 * g;
        float v = j->v[i] = b2 * j->v[i] + c2 * g * g;
        j->w[i] = j->w[i] * keep - step * (m / (sqrtf(v) / root + eps));
    }
}

/* torch.optim.SGD: coupled decay; the buffer starts as the first gradient. */
static void sgd(const update_job *j, int64_t b, int64_t e)
{
    float mu = (float)j->o->momentum, lr = (float)j->lr, decay = (float)j->decay, scale = (float)j->scale;
    for (int64_t i = b; i < e; i++) {
        float g = j->g[i] * scale + decay * j->w[i];
        if (mu != 0) {
            float m = j->m[i] = j->first ? g : mu * j->m[i] + g;
            g = j->o->nesterov ? g + mu * m : m;
        }
        j->w[i] -= lr * g;
    }
}

static void lion(const update_job *j, int64_t b, int64_t e)
{
    float b1 = (float)j->o->beta1, b2 = (float)j->o->beta2, lr = (float)j->lr, keep = (float)(1 - j->lr * j->decay), scale = (float)j->scale;
    for (int64_t i = b; i < e; i++) {
        float g = j->g[i] * scale, u = b1 * j->m[i] + (1 - b1) * g;
        j->w[i] = j->w[i] * keep - lr * (float)((u > 0) - (u < 0));
        j->m[i] = b2 * j->m[i] + (1 - b2) * g;
    }
}

static void update_part(void *arg, int64_t b, int64_t e, int worker)
{
    const update_job *j = arg;
    (void)worker;
    if (j->o->kind == NM_OPT_ADAMW)
        adamw(j, b, e);
    else if (j->o->kind == NM_OPT_SGD)
        sgd(j, b, e);
    else
        lion(j, b, e);
}

void nm_opt_update(const nm_opt *o, nm_pool *pool, size_t n, float *w, const float *g, double scale, float *m, float *v, int64_t step, double lr,
                   double weight_decay)
{
    update_job j = { o, w, m, v, g, scale, lr, weight_decay, 1 - pow(o->beta1, (double)step), 1 - pow(o->beta2, (double)step), step == 1 };
    nm_parallel_for(pool, (int64_t)n, 1 << 16, update_part, &j);
}

double nm_squared_norm(const float *g, size_t n)
{
    double s = 0;
    for (size_t i = 0; i < n; i++)
        s += (double)g[i] * (double)g[i];
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

void nm_ema_update(size_t n, float *avg, const float *w, double decay)
{
    float k = (float)(1 - decay);
    for (size_t i = 0; i < n; i++)
        avg[i] += k * (w[i] - avg[i]);
}
