/* classify.c - accuracy and its relatives (specs/evaluation.md, section 1). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "eval/metrics.h"

int64_t nm_rank_of(const double *scores, int64_t n, int64_t j, nm_ties rule, int64_t *tied)
{
    int64_t higher = 0, before = 0, after = 0;
    for (int64_t i = 0; i < n; i++) {
        higher += scores[i] > scores[j];
        before += i < j && scores[i] == scores[j];
        after += i > j && scores[i] == scores[j];
    }
    if (tied)
        *tied = before + after;
    switch (rule) {
    case NM_TIES_HIGHEST: return higher + after;
    case NM_TIES_OPTIMISTIC: return higher;
    case NM_TIES_PESSIMISTIC: return higher + before + after;
    default: return higher + before;
    }
}

int64_t nm_argmax(const double *scores, int64_t n)
{
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++)
        if (scores[i] > scores[best])
            best = i;
    return best;
}

double nm_topk_accuracy(int64_t n, const int64_t *rank, int64_t k)
{
    int64_t right = 0;
    for (int64_t i = 0; i < n; i++)
        right += rank[i] >= 0 && rank[i] < k;
    return n ? (double)right / (double)n : NAN;
}

/* Per class: rows, rows predicted so, rows that are both; [3, classes]. */
static int64_t *counts(int64_t n, int64_t classes, const int64_t *label, const int64_t *predicted, noema_error *err)
{
    int64_t *c = classes > 0 ? nm_malloc_array((size_t)classes, 3 * sizeof *c) : NULL;
    if (!c) {
        nm_fail(err, NOEMA_E_MEMORY, "out of memory: %lld classes", (long long)classes);
        return NULL;
    }
    memset(c, 0, 3 * (size_t)classes * sizeof *c);
    for (int64_t i = 0; i < n; i++) {
        c[label[i]]++;
        c[classes + predicted[i]]++;
        c[2 * classes + label[i]] += label[i] == predicted[i];
    }
    return c;
}

double nm_mean_per_class_recall(int64_t n, int64_t classes, const int64_t *label, const int64_t *predicted, double *recall, noema_error *err)
{
    int64_t *c = counts(n, classes, label, predicted, err), present = 0;
    double sum = 0;
    for (int64_t k = 0; c && k < classes; k++) {
        double r = c[k] ? (double)c[2 * classes + k] / (double)c[k] : NAN;
        if (recall)
            recall[k] = r;
        if (c[k]) {
            sum += r;
            present++;
        }
    }
    free(c);
    return present ? sum / (double)present : NAN;
}

double nm_macro_f1(int64_t n, int64_t classes, const int64_t *label, const int64_t *predicted, noema_error *err)
{
    int64_t *c = counts(n, classes, label, predicted, err), present = 0;
    double sum = 0;
    for (int64_t k = 0; c && k < classes; k++)
        if (c[k] + c[classes + k]) {
            sum += 2 * (double)c[2 * classes + k] / (double)(c[k] + c[classes + k]);
            present++;
        }
    free(c);
    return present ? sum / (double)present : NAN;
}

typedef struct scored { double score; int64_t index; bool positive; } scored;

static int down(const void *a, const void *b)
{
    const scored *x = a, *y = b;
    return x->score != y->score ? (x->score < y->score ? 1 : -1) : (x->index > y->index) - (x->index < y->index);
}

static scored *sorted(int64_t n, const double *scores, const uint8_t *positive, noema_error *err)
{
    scored *s = nm_malloc_array((size_t)(n ? n : 1), sizeof *s);
    if (!s) {
        nm_fail(err, NOEMA_E_MEMORY, "out of memory: %lld scores", (long long)n);
        return NULL;
    }
    for (int64_t i = 0; i < n; i++)
        s[i] = (scored){ scores[i], i, positive[i] != 0 };
    qsort(s, (size_t)n, sizeof *s, down);
    return s;
}

double nm_average_precision(int64_t n, const double *scores, const uint8_t *positive, noema_error *err)
{
    scored *s = sorted(n, scores, positive, err);
    int64_t found = 0;
    double sum = 0;
    if (!s)
        return NAN;
    for (int64_t i = 0; i < n; i++)
        if (s[i].positive)
            sum += (double)++found / (double)(i + 1);
    free(s);
    return sum / (double)(found ? found : 1);
}

double nm_average_precision_11(int64_t n, const double *scores, const uint8_t *positive, noema_error *err)
{
    scored *s = sorted(n, scores, positive, err);
    int64_t total = 0, found = 0;
    double best[11] = { 0 }, sum = 0;
    if (!s)
        return NAN;
    for (int64_t i = 0; i < n; i++)
        total += s[i].positive;
    for (int64_t i = 0; i < n && total; i++) {
        found += s[i].positive;
        double precision = (double)found / (double)(i + 1), recall = (double)found / (double)total;
        for (int r = 0; r < 11; r++)
            if (recall >= r / 10.0 && precision > best[r])
                best[r] = precision;
    }
    free(s);
    for (int r = 0; r < 11; r++)
        sum += best[r];
    return sum / 11;
}

double nm_roc_auc(int64_t n, const double *scores, const uint8_t *positive, noema_error *err)
{
    scored *s = sorted(n, scores, positive, err);
    int64_t above = 0, total = 0; /* positives with a higher score */
    double wins = 0;
    if (!s)
        return NAN;
    for (int64_t i = 0, end; i < n; i = end) {
        int64_t here = 0;
        for (end = i; end < n && s[end].score == s[i].score; end++)
            here += s[end].positive;
        wins += (double)(end - i - here) * ((double)above + (double)here / 2);
        above += here;
    }
    total = above;
    free(s);
    return total && total < n ? wins / ((double)total * (double)(n - total)) : NAN;
}

double nm_calibration_error(int64_t n, const double *confidence, const uint8_t *right, int bins)
{
    double error = 0;
    for (int b = 0; b < bins; b++) { /* (b/bins, (b+1)/bins], the first one with 0 */
        double sum = 0, hits = 0;
        int64_t in = 0;
        for (int64_t i = 0; i < n; i++) {
            int bin = (int)ceil(confidence[i] * bins) - 1;
            if ((bin < 0 ? 0 : bin >= bins ? bins - 1 : bin) != b)
                continue;
            in++;
            sum += confidence[i];
            hits += right[i];
        }
        error += in ? fabs(hits - sum) / (double)n : 0;
    }
    return error;
}
