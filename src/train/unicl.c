/* unicl.c - the label-aware contrastive loss: see loss.h. */
#include <math.h>
#include <string.h>

#include "nn/ops.h"
#include "train/loss.h"

/* One direction over z = a b^T, n x n: cross-entropy of softmax(scale z) against targets spread over the columns of the row's group.
 * z becomes d loss / d z. positives[i]: rows of i's group. */
static double spread_rows(int64_t n, double scale, const int64_t *group, const int64_t *positives, double weight, float *z, double *d_scale)
{
    double loss = 0;
    for (int64_t i = 0; i < n; i++) {
        float *row = z + i * n;
        double most = -INFINITY, sum = 0, target = 1 / (double)positives[i];
        for (int64_t j = 0; j < n; j++)
            most = (double)row[j] * scale > most ? (double)row[j] * scale : most;
        for (int64_t j = 0; j < n; j++)
            sum += exp((double)row[j] * scale - most);
        loss += log(sum) + most;
        for (int64_t j = 0; j < n; j++) {
            double x = (double)row[j] * scale, t = group[j] == group[i] ? target : 0, g = (exp(x - most) / sum - t) * weight;
            loss -= t * x;
            *d_scale += g * x;
            row[j] = (float)(g * scale);
        }
    }
    return loss * weight;
}

static void multiply(nm_run *r, int64_t m, int64_t n, int64_t k, const float *a, const float *b, bool b_is_kn, float *c)
{
    nm_dtype compute = r->compute;
    r->compute = NM_F32; /* logits are scaled by up to 100: bf16 would move them by half a unit */
    nm_accumulate_product(r, m, n, k, a, NM_F32, k, b, NM_F32, b_is_kn ? n : k, b_is_kn, c, n);
    r->compute = compute;
}

nm_pair_loss nm_unicl_loss(nm_run *r, int64_t n, int64_t dim, const float *images, const float *texts, double logit_scale, const int64_t *group,
                           float *d_images, float *d_texts)
{
    nm_pair_loss out = { 0 };
    double scale = exp(logit_scale), weight = 0.5 / (double)n;
    nm_arena_mark start = nm_arena_get_mark(r->arena);
    int64_t *positives = nm_scratch(r, (size_t)n * sizeof *positives);
    for (int64_t i = 0; positives && i < n; i++) {
        positives[i] = 0;
        for (int64_t j = 0; j < n; j++)
            positives[i] += group[j] == group[i];
    }
    const float *a[2] = { images, texts }, *b[2] = { texts, images };
    float *da[2] = { d_images, d_texts }, *db[2] = { d_texts, d_images };
    for (int d = 0; d < 2 && positives && nm_run_ok(r); d++) {
        nm_arena_mark m = nm_arena_get_mark(r->arena);
        float *z = nm_scratch(r, (size_t)(n * n) * sizeof *z);
        if (!z)
            break;
        memset(z, 0, (size_t)(n * n) * sizeof *z);
        multiply(r, n, n, dim, a[d], b[d], false, z);
        out.loss += spread_rows(n, scale, group, positives, weight, z, &out.d_scale);
        multiply(r, n, dim, n, z, b[d], true, da[d]);
        float *zt = nm_transposed(r, z, n, n, n);
        if (zt)
            multiply(r, n, dim, n, zt, a[d], true, db[d]);
        nm_arena_rewind(r->arena, m);
    }
    nm_arena_rewind(r->arena, start);
    return out;
}
