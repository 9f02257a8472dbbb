/* groupnorm.c - group normalisation of NHWC pictures: see nn.h. With h = (x - mean) rstd over a picture's group and g = dy weight:
 * dx = rstd (g - mean(g) - h mean(g h)). */
#include <math.h>

#include "nn/ops.h"

typedef struct groupnorm_saved { nm_tensor x, y; const nm_norm_w *w; int64_t n, pixels, cols, groups; float eps; } groupnorm_saved;
typedef struct groupnorm_job { const groupnorm_saved *s; const float *dy; float *dx, *dyh; } groupnorm_job;

static void statistics(const groupnorm_saved *s, int64_t image, int64_t group, double *mean, double *rstd)
{
    int64_t width = s->cols / s->groups, count = s->pixels * width;
    const float *x = (const float *)s->x.data + image * s->pixels * s->cols + group * width;
    double sum = 0, square = 0;
    for (int64_t i = 0; i < count; i++)
        sum += (double)x[i / width * s->cols + i % width];
    *mean = sum / (double)count;
    for (int64_t i = 0; i < count; i++) {
        double d = (double)x[i / width * s->cols + i % width] - *mean;
        square += d * d;
    }
    *rstd = 1 / sqrt(square / (double)count + (double)s->eps);
}

/* Unit: one group of one picture. */
static void forward_groups(void *arg, int64_t b, int64_t e, int worker)
{
    const groupnorm_saved *s = ((const groupnorm_job *)arg)->s;
    int64_t width = s->cols / s->groups;
    const float *weight = s->w->weight.f32, *bias = s->w->bias.f32;
    (void)worker;
    for (int64_t u = b; u < e; u++) {
        int64_t first = u % s->groups * width, at = u / s->groups * s->pixels * s->cols + first;
        double mean, rstd;
        statistics(s, u / s->groups, u % s->groups, &mean, &rstd);
        for (int64_t p = 0; p < s->pixels; p++)
            for (int64_t c = 0; c < width; c++) {
                int64_t i = at + p * s->cols + c;
                double h = ((double)((const float *)s->x.data)[i] - mean) * rstd;
                ((float *)s->y.data)[i] = (float)(h * (weight ? (double)weight[first + c] : 1) + (bias ? (double)bias[first + c] : 0));
            }
    }
}

static void backward_groups(void *arg, int64_t b, int64_t e, int worker)
{
    const groupnorm_job *j = arg;
    const groupnorm_saved *s = j->s;
    int64_t width = s->cols / s->groups, count = s->pixels * width;
    const float *weight = s->w->weight.f32, *x = s->x.data;
    (void)worker;
    for (int64_t u = b; u < e; u++) {
        int64_t first = u % s->groups * width, at = u / s->groups * s->pixels * s->cols + first;
        double mean, rstd, mg = 0, mgh = 0;
        statistics(s, u / s->groups, u % s->groups, &mean, &rstd);
        for (int pass = 0; pass < 2; pass++)
            for (int64_t k = 0; k < count; k++) {
                int64_t c = k % width, i = at + k / width * s->cols + c;
                double h = ((double)x[i] - mean) * rstd, g = (double)j->dy[i] * (weight ? (double)weight[first + c] : 1);
                if (pass == 0) {
                    mg += g / (double)count;
                    mgh += g * h / (double)count;
                    if (j->dyh)
                        j->dyh[i] = (float)((double)j->dy[i] * h);
                } else if (j->dx)
                    j->dx[i] += (float)(rstd * (g - mg - h * mgh));
            }
    }
}

static void groupnorm_backward(nm_run *r, void *saved)
{
    groupnorm_saved *s = saved;
    bool trains = nm_trains(r, &s->w->weight);
    int64_t rows = s->n * s->pixels;
    groupnorm_job j = { s, nm_grad_read(&s->y), nm_grad_data(r, &s->x), trains ? nm_scratch(r, (size_t)(rows * s->cols) * sizeof(float)) : NULL };
    if (!nm_run_ok(r))
        return;
    nm_parallel_for(r->pool, s->n * s->groups, 1, backward_groups, &j);
    if (trains)
        nm_add_column_sums(r, j.dyh, rows, s->cols, s->cols, nm_weight_grad(r, &s->w->weight));
    if (nm_trains(r, &s->w->bias))
        nm_add_column_sums(r, j.dy, rows, s->cols, s->cols, nm_weight_grad(r, &s->w->bias));
}

nm_tensor nm_groupnorm(nm_run *r, nm_tensor x, const nm_norm_w *w, int groups, float eps)
{
    if (!x.data || !nm_run_ok(r))
        return (nm_tensor){ 0 };
    int64_t cols = x.shape[x.ndim - 1], n = x.shape[0];
    if (x.ndim < 2 || x.dtype != NM_F32 || !nm_is_contiguous(&x) || groups < 1 || cols % groups || !nm_numel(&x))
        return nm_run_fail(r, NOEMA_E_INTERNAL, "groupnorm: expected contiguous f32 [n, .., channels] of whole groups");
    nm_tensor y = nm_new(r, NM_F32, nm_shape_of(&x));
    groupnorm_saved s = { x, y, w, n, nm_numel(&x) / (n * cols), cols, groups, eps };
    if (y.data)
        nm_parallel_for(r->pool, n * groups, 1, forward_groups, &(groupnorm_job){ .s = &s });
    if (nm_wants(r, &x) || nm_trains(r, &w->weight) || nm_trains(r, &w->bias))
        NM_RECORD(r, y, groupnorm_backward, groupnorm_saved, x, y, w, n, s.pixels, cols, groups, eps);
    return y;
}
