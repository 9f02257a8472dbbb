/* loss.c - see loss.h. */
#include "train/loss.h"

#include <math.h>
#include <string.h>

#include "nn/ops.h"

/* z[rows, n] = a[rows, dim] b[n, dim]^T */
static float *similarities(nm_run *r, int64_t rows, int64_t n, int64_t dim, const float *a, const float *b)
{
    float *z = nm_scratch(r, (size_t)(rows * n) * sizeof *z);
    if (!z)
        return NULL;
    memset(z, 0, (size_t)(rows * n) * sizeof *z);
    nm_dtype compute = r->compute;
    r->compute = NM_F32; /* logits are scaled by up to 100: bf16 would move them by half a unit */
    nm_accumulate_product(r, rows, n, dim, a, NM_F32, dim, b, NM_F32, dim, false, z, n);
    r->compute = compute;
    return z;
}

static void add_product(nm_run *r, int64_t m, int64_t n, int64_t k, const float *a, const float *b, float *c)
{
    nm_dtype compute = r->compute;
    r->compute = NM_F32;
    nm_accumulate_product(r, m, n, k, a, NM_F32, k, b, NM_F32, n, true, c, n);
    r->compute = compute;
}

/* Targets of row i: its own column row0 + i, or evenly all columns of its group. */
typedef struct targets { int64_t row0; const int64_t *group; } targets;

static double share_of_group(const targets *t, int64_t i, int64_t n)
{
    int64_t same = 0;
    for (int64_t j = 0; t->group && j < n; j++)
        same += t->group[j] == t->group[t->row0 + i];
    return t->group ? 1 / (double)same : 1;
}

/* One direction: CE of rows of exp(s) a b^T against their targets. g = d loss / d z, in place over z. */
static double one_direction(int64_t rows, int64_t n, double scale, const targets *t, double weight, float *z, double *d_scale)
{
    double loss = 0;
    for (int64_t i = 0; i < rows; i++) {
        float *row = z + i * n;
        double most = -INFINITY, sum = 0, hit = 0, share = share_of_group(t, i, n);
        for (int64_t j = 0; j < n; j++)
            most = (double)row[j] * scale > most ? (double)row[j] * scale : most;
        for (int64_t j = 0; j < n; j++)
            sum += exp((double)row[j] * scale - most);
        for (int64_t j = 0; j < n; j++) {
            bool mine = t->group ? t->group[j] == t->group[t->row0 + i] : j == t->row0 + i;
            double x = (double)row[j] * scale, target = mine ? share : 0, g = (exp(x - most) / sum - target) * weight;
            hit += target * x;
            *d_scale += g * x;
            row[j] = (float)(g * scale);
        }
        loss += log(sum) + most - hit;
    }
    return loss * weight;
}

/* InfoNCE and its label-aware form: both directions, over the rows of this rank. */
static nm_pair_loss both_directions(nm_run *r, int64_t n, int64_t dim, const float *images, const float *texts, double logit_scale, const targets *t, int64_t rows,
                                    float *d_images, float *d_texts)
{
    nm_pair_loss out = { 0 };
    double scale = exp(logit_scale), weight = 0.5 / (double)rows;
    nm_arena_mark m = nm_arena_get_mark(r->arena);
    int64_t row0 = t->row0;
    const float *a[2] = { images + row0 * dim, texts + row0 * dim }, *b[2] = { texts, images };
    float *da[2] = { d_images + row0 * dim, d_texts + row0 * dim }, *db[2] = { d_texts, d_images };
    for (int d = 0; d < 2 && nm_run_ok(r); d++) {
        float *g = similarities(r, rows, n, dim, a[d], b[d]);
        if (!g)
            break;
        out.loss += one_direction(rows, n, scale, t, weight, g, &out.d_scale);
        add_product(r, rows, dim, n, g, b[d], da[d]);
        float *gt = nm_transposed(r, g, rows, n, n);
        if (gt)
            add_product(r, n, dim, rows, gt, a[d], db[d]);
        nm_arena_rewind(r->arena, m);
    }
    return out;
}

nm_pair_loss nm_clip_loss(nm_run *r, int64_t n, int64_t dim, const float *images, const float *texts, double logit_scale, int64_t row0, int64_t rows,
                          float *d_images, float *d_texts)
{
    return both_directions(r, n, dim, images, texts, logit_scale, &(targets){ row0, NULL }, rows, d_images, d_texts);
}

nm_pair_loss nm_unicl_loss(nm_run *r, int64_t n, int64_t dim, const float *images, const float *texts, double logit_scale, const int64_t *group,
                           float *d_images, float *d_texts)
{
    return both_directions(r, n, dim, images, texts, logit_scale, &(targets){ 0, group }, n, d_images, d_texts);
}

nm_pair_loss nm_siglip_loss(nm_run *r, int64_t n, int64_t dim, const float *images, const float *texts, double logit_scale, double logit_bias,
                            float *d_images, float *d_texts)
{
    nm_pair_loss out = { 0 };
    double scale = exp(logit_scale);
    nm_arena_mark m = nm_arena_get_mark(r->arena);
    float *z = similarities(r, n, n, dim, images, texts);
    for (int64_t i = 0; z && i < n; i++)
        for (int64_t j = 0; j < n; j++) {
            double y = i == j ? 1 : -1, dot = (double)z[i * n + j], t = -y * (dot * scale + logit_bias);
            /* softplus(t) without overflow; its slope is the sigmoid */
            out.loss += (t > 0 ? t : 0) + log1p(exp(-fabs(t)));
            double g = -y / (1 + exp(-t)) / (double)n;
            out.d_bias += g;
            out.d_scale += g * dot * scale;
            z[i * n + j] = (float)(g * scale);
        }
    out.loss /= (double)n;
    float *zt = z ? nm_transposed(r, z, n, n, n) : NULL;
    if (zt) {
        add_product(r, n, dim, n, z, texts, d_images);
        add_product(r, n, dim, n, zt, images, d_texts);
    }
    nm_arena_rewind(r->arena, m);
    return out;
}

/* ---- cross-entropy of rows ---- */

typedef struct rows_job { const float *logits; const int64_t *label; int64_t classes; double smoothing; const double *weight; double same; float *d; double *loss; } rows_job;

static void rows_part(void *arg, int64_t begin, int64_t end, int worker)
{
    const rows_job *j = arg;
    (void)worker;
    for (int64_t i = begin; i < end; i++)
        j->loss[i] = nm_cross_entropy_sum(j->logits + i * j->classes, j->label + i, 1, j->classes, j->smoothing, j->weight ? j->weight + i : NULL, j->same,
                                          j->d ? j->d + i * j->classes : NULL);
}

double nm_rows_loss(nm_run *r, const nm_tensor *logits, const int64_t *label, double smoothing, const double *weight, double same)
{
    if (!logits->data)
        return NAN;
    int64_t rows = logits->shape[0];
    double loss = 0, *each = nm_scratch(r, (size_t)(rows + 1) * sizeof *each);
    rows_job j = { logits->data, label, logits->shape[1], smoothing, weight, same, nm_grad_data(r, logits), each };
    if (!each)
        return NAN;
    nm_parallel_for(r->pool, rows, 1, rows_part, &j);
    for (int64_t i = 0; i < rows; i++) /* in order: the same sum on any number of threads */
        loss += each[i];
    return loss;
}
