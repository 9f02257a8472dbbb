/* loss.c - losses as operators: see nn.h. The gradient for an upstream of 1 is made with the loss and kept: a loss is small beside the
 * network before it. Sums are double. */
#include <math.h>
#include <string.h>

#include "nn/ops.h"

typedef struct loss_saved { nm_tensor x, y; const float *d; int64_t group; } loss_saved;

/* Element i of x belongs to value i / group of the loss. */
static void loss_backward(nm_run *r, void *saved)
{
    loss_saved *s = saved;
    const float *up = nm_grad_read(&s->y);
    float *dx = nm_grad_data(r, &s->x);
    for (int64_t i = 0, n = nm_numel(&s->x); dx && i < n; i++)
        dx[i] += up[i / s->group] * s->d[i];
}

/* Room for the gradient of x; *ok false where the forward must not run. */
static float *start(nm_run *r, const nm_tensor *x, bool fits, bool *ok)
{
    *ok = false;
    if (!x->data || !nm_run_ok(r))
        return NULL;
    if (!fits || x->dtype != NM_F32 || !nm_is_contiguous(x) || nm_numel(x) < 1) {
        nm_run_fail(r, NOEMA_E_INTERNAL, "loss: expected contiguous f32 and targets of its shape");
        return NULL;
    }
    float *d = nm_scratch(r, (size_t)nm_numel(x) * sizeof *d);
    *ok = d != NULL;
    return d;
}

static nm_tensor finish(nm_run *r, nm_tensor x, double loss, const float *d)
{
    nm_tensor y = nm_new(r, NM_F32, NM_SCALAR);
    if (y.data)
        ((float *)y.data)[0] = (float)loss;
    if (nm_wants(r, &x))
        NM_RECORD(r, y, loss_backward, loss_saved, x, y, d, nm_numel(&x));
    return y;
}

/* log of the sum of exp(x / t). */
static double log_sum(const float *x, int64_t n, double t)
{
    double most = -INFINITY, sum = 0;
    for (int64_t c = 0; c < n; c++)
        most = (double)x[c] / t > most ? (double)x[c] / t : most;
    for (int64_t c = 0; c < n; c++)
        sum += exp((double)x[c] / t - most);
    return most + log(sum);
}

/* (1 - smoothing) nll + smoothing / classes * sum of -log p. */
double nm_cross_entropy_sum(const float *logits, const int64_t *label, int64_t rows, int64_t classes, double smoothing, const double *weight, double same, float *d)
{
    double loss = 0;
    for (int64_t i = 0; i < rows; i++) {
        if (label[i] == NM_NO_LABEL)
            continue;
        const float *z = logits + i * classes;
        double most = -INFINITY, sum = 0, mean = 0, w = weight ? weight[i] : same;
        for (int64_t c = 0; c < classes; c++)
            most = (double)z[c] > most ? (double)z[c] : most;
        for (int64_t c = 0; c < classes; c++) {
            sum += exp((double)z[c] - most);
            mean += (double)z[c];
        }
        double lse = log(sum) + most;
        loss += w * ((1 - smoothing) * (lse - (double)z[label[i]]) + smoothing * (lse - mean / (double)classes));
        for (int64_t c = 0; d && c < classes; c++) {
            double target = smoothing / (double)classes + (c == label[i] ? 1 - smoothing : 0);
            d[i * classes + c] += (float)(w * (exp((double)z[c] - lse) - target));
        }
    }
    return loss;
}

nm_tensor nm_cross_entropy(nm_run *r, nm_tensor x, const int64_t *labels, float smoothing)
{
    bool ok;
    int64_t n = x.data && x.ndim ? x.shape[x.ndim - 1] : 0, rows = n ? nm_numel(&x) / n : 0, kept = 0;
    float *d = start(r, &x, n > 0, &ok);
    for (int64_t i = 0; ok && i < rows; i++) {
        if (labels[i] != NM_NO_LABEL && (labels[i] < 0 || labels[i] >= n))
            return nm_run_fail(r, NOEMA_E_ARGUMENT, "cross entropy: label %lld of %lld classes", (long long)labels[i], (long long)n);
        kept += labels[i] != NM_NO_LABEL;
    }
    if (!ok)
        return (nm_tensor){ 0 };
    memset(d, 0, (size_t)nm_numel(&x) * sizeof *d);
    return finish(r, x, nm_cross_entropy_sum(x.data, labels, rows, n, (double)smoothing, NULL, 1 / (double)(kept ? kept : 1), d), d);
}

/* -sum t log softmax(x), mean over rows; targets need not add up to 1. */
nm_tensor nm_soft_cross_entropy(nm_run *r, nm_tensor x, const float *targets)
{
    bool ok;
    int64_t n = x.data && x.ndim ? x.shape[x.ndim - 1] : 0, rows = n ? nm_numel(&x) / n : 0;
    float *d = start(r, &x, n > 0, &ok);
    double loss = 0;
    for (int64_t i = 0; ok && i < rows; i++) {
        const float *row = (const float *)x.data + i * n, *t = targets + i * n;
        double lse = log_sum(row, n, 1), all = 0;
        for (int64_t c = 0; c < n; c++) {
            all += (double)t[c];
            loss -= t[c] != 0 ? (double)t[c] * ((double)row[c] - lse) : 0;
        }
        for (int64_t c = 0; c < n; c++)
            d[i * n + c] = (float)((all * exp((double)row[c] - lse) - (double)t[c]) / (double)rows);
    }
    return ok ? finish(r, x, loss / (double)rows, d) : (nm_tensor){ 0 };
}

/* T^2 KL(softmax(teacher / T) | softmax(x / T)), mean over rows. */
nm_tensor nm_distillation(nm_run *r, nm_tensor x, const float *teacher, float temperature)
{
    bool ok;
    int64_t n = x.data && x.ndim ? x.shape[x.ndim - 1] : 0, rows = n ? nm_numel(&x) / n : 0;
    float *d = start(r, &x, n > 0, &ok);
    double loss = 0, t = (double)temperature;
    for (int64_t i = 0; ok && i < rows; i++) {
        const float *row = (const float *)x.data + i * n, *want = teacher + i * n;
        double lse = log_sum(row, n, t), lse_t = log_sum(want, n, t);
        for (int64_t c = 0; c < n; c++) {
            double lp = (double)row[c] / t - lse, lq = (double)want[c] / t - lse_t, q = exp(lq);
            loss += q > 0 ? q * (lq - lp) * t * t : 0;
            d[i * n + c] = (float)((exp(lp) - q) * t / (double)rows);
        }
    }
    return ok ? finish(r, x, loss / (double)rows, d) : (nm_tensor){ 0 };
}

static double sigmoid(double z) { return z >= 0 ? 1 / (1 + exp(-z)) : exp(z) / (1 + exp(z)); }
static double softplus(double z) { return (z > 0 ? z : 0) + log1p(exp(-fabs(z))); }

/* softplus(x) - t x, mean. */
nm_tensor nm_bce_logits(nm_run *r, nm_tensor x, const float *targets)
{
    bool ok;
    float *d = start(r, &x, true, &ok);
    int64_t n = ok ? nm_numel(&x) : 0;
    double loss = 0;
    for (int64_t i = 0; i < n; i++) {
        double z = (double)((const float *)x.data)[i], t = (double)targets[i];
        loss += softplus(z) - t * z;
        d[i] = (float)((sigmoid(z) - t) / (double)n);
    }
    return ok ? finish(r, x, loss / (double)n, d) : (nm_tensor){ 0 };
}

/* alpha_t (1 - p_t)^gamma ce with q = 1 - p_t = t (1 - p) + (1 - t) p, which does not cancel. */
nm_tensor nm_focal_loss(nm_run *r, nm_tensor x, const float *targets, const uint8_t *keep, float alpha, float gamma, bool mean)
{
    bool ok;
    float *d = start(r, &x, true, &ok);
    int64_t n = ok ? nm_numel(&x) : 0;
    double loss = 0, share = mean ? 1 / (double)(n ? n : 1) : 1;
    for (int64_t i = 0; i < n; i++) {
        double z = (double)((const float *)x.data)[i], t = (double)targets[i], p = sigmoid(z), not_p = sigmoid(-z), g = (double)gamma;
        double q = t * not_p + (1 - t) * p, ce = softplus(z) - t * z, a = ((double)alpha * t + (1 - (double)alpha) * (1 - t)) * share;
        bool counts = !keep || keep[i];
        loss += counts ? a * ce * pow(q, g) : 0;
        d[i] = counts ? (float)(a * ((p - t) * pow(q, g) + ce * g * pow(q, g - 1) * (1 - 2 * t) * p * not_p)) : 0;
    }
    return ok ? finish(r, x, loss, d) : (nm_tensor){ 0 };
}

/* 0.5 e^2 / beta where |e| < beta, else |e| - beta / 2. */
nm_tensor nm_smooth_l1(nm_run *r, nm_tensor x, const float *targets, float beta, bool mean)
{
    bool ok;
    float *d = start(r, &x, true, &ok);
    int64_t n = ok ? nm_numel(&x) : 0;
    double loss = 0, b = (double)beta, share = mean && n ? 1 / (double)n : 1;
    for (int64_t i = 0; i < n; i++) {
        double e = (double)((const float *)x.data)[i] - (double)targets[i];
        loss += fabs(e) < b ? 0.5 * e * e / b : fabs(e) - 0.5 * b;
        d[i] = (float)((fabs(e) < b ? e / b : (e > 0) - (e < 0)) * share);
    }
    return ok ? finish(r, x, loss * share, d) : (nm_tensor){ 0 };
}

/* ---- generalised intersection over union, arXiv 1902.09630; boxes x0 y0 x1 y1 ---- */

/* Share of the gradient that a's side of max(a, b) gets: PyTorch halves it between equals. */
static double takes(double a, double b) { return a > b ? 1 : a == b ? 0.5 : 0; }

static double giou_one(const float *p, const float *t, double eps, float *d)
{
    double lo[2], hi[2], in[2], out[2], size[2], want[2];
    for (int k = 0; k < 2; k++) {
        lo[k] = fmax((double)p[k], (double)t[k]), hi[k] = fmin((double)p[k + 2], (double)t[k + 2]);
        in[k] = hi[k] - lo[k], out[k] = fmax((double)p[k + 2], (double)t[k + 2]) - fmin((double)p[k], (double)t[k]);
        size[k] = (double)p[k + 2] - (double)p[k], want[k] = (double)t[k + 2] - (double)t[k];
    }
    bool meet = in[0] > 0 && in[1] > 0;
    double inter = meet ? in[0] * in[1] : 0, area = size[0] * size[1], all = area + want[0] * want[1] - inter, hull = out[0] * out[1];
    /* loss = 1 - inter / (all + eps) + (hull - all) / (hull + eps) */
    double d_inter = -1 / (all + eps), d_all = inter / ((all + eps) * (all + eps)) - 1 / (hull + eps), d_hull = (all + eps) / ((hull + eps) * (hull + eps));
    d_inter -= d_all;
    for (int k = 0; k < 2; k++) {
        int o = 1 - k;
        double to_in = meet ? d_inter * in[o] : 0, to_size = d_all * size[o], to_out = d_hull * out[o];
        d[k] = (float)(-to_in * takes((double)p[k], (double)t[k]) - to_size - to_out * takes(-(double)p[k], -(double)t[k]));
        d[k + 2] = (float)(to_in * takes(-(double)p[k + 2], -(double)t[k + 2]) + to_size + to_out * takes((double)p[k + 2], (double)t[k + 2]));
    }
    return 1 - inter / (all + eps) + (hull - all) / (hull + eps);
}

nm_tensor nm_giou_loss(nm_run *r, nm_tensor boxes, const float *targets, float eps)
{
    bool ok;
    float *d = start(r, &boxes, boxes.data && boxes.ndim == 2 && boxes.shape[1] == 4, &ok);
    nm_tensor y = ok ? nm_new(r, NM_F32, NM_SHAPE(boxes.shape[0])) : (nm_tensor){ 0 };
    for (int64_t i = 0; y.data && i < boxes.shape[0]; i++)
        ((float *)y.data)[i] = (float)giou_one((const float *)boxes.data + 4 * i, targets + 4 * i, (double)eps, d + 4 * i);
    if (nm_wants(r, &boxes))
        NM_RECORD(r, y, loss_backward, loss_saved, boxes, y, d, 4);
    return y;
}
