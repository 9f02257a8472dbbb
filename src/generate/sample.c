/* sample.c - what happens to scores before a choice. Source: transformers 4.15 generation_logits_process.py (RepetitionPenalty, TopK,
 * TopP); release 5 gives the same sets. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "generate/generate.h"
#include "kernels/kernels.h"

void nm_penalise(float *scores, int64_t vocab, const int32_t *ids, int64_t n, double penalty)
{
    for (int64_t i = 0; i < n && penalty != 1; i++) {
        bool before = ids[i] < 0 || ids[i] >= vocab;
        for (int64_t j = 0; j < i && !before; j++)
            before = ids[j] == ids[i];
        if (!before)
            scores[ids[i]] = (float)(scores[ids[i]] < 0 ? (double)scores[ids[i]] * penalty : (double)scores[ids[i]] / penalty);
    }
}

void nm_log_softmax(float *x, int64_t n)
{
    nm_kernels_get()->norm.log_softmax(1, n, x, n);
}

typedef struct entry { float score; int32_t id; } entry;

static int best_first(const void *a, const void *b)
{
    const entry *x = a, *y = b;
    return x->score != y->score ? (x->score < y->score ? 1 : -1) : (x->id > y->id) - (x->id < y->id);
}

/* The k largest, sorted: a list kept in order while the scores go by (k is small). */
static int64_t largest(const float *logits, int64_t vocab, int64_t k, int32_t *ids, float *kept)
{
    int64_t n = 0;
    for (int64_t i = 0; i < vocab; i++) {
        if (n == k && !(logits[i] > kept[n - 1]))
            continue;
        int64_t at = n < k ? n++ : n - 1;
        while (at > 0 && kept[at - 1] < logits[i]) {
            kept[at] = kept[at - 1];
            ids[at] = ids[at - 1];
            at--;
        }
        kept[at] = logits[i];
        ids[at] = (int32_t)i;
    }
    return n;
}

static int64_t all_sorted(const float *logits, int64_t vocab, int32_t *ids, float *kept)
{
    entry *e = malloc((size_t)vocab * sizeof *e);
    if (!e)
        return largest(logits, vocab, 1, ids, kept);
    for (int64_t i = 0; i < vocab; i++)
        e[i] = (entry){ logits[i], (int32_t)i };
    qsort(e, (size_t)vocab, sizeof *e, best_first);
    for (int64_t i = 0; i < vocab; i++) {
        ids[i] = e[i].id;
        kept[i] = e[i].score;
    }
    free(e);
    return vocab;
}

static void softmax(float *x, int64_t n, double temperature)
{
    double sum = 0, most = n ? (double)x[0] : 0;
    for (int64_t i = 0; i < n; i++)
        sum += exp(((double)x[i] - most) / temperature);
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)(exp(((double)x[i] - most) / temperature) / sum);
}

int64_t nm_sample_set(const float *logits, int64_t vocab, double temperature, int64_t top_k, double top_p, int32_t *ids, float *probs)
{
    int64_t n = top_k > 0 && top_k < vocab ? largest(logits, vocab, top_k, ids, probs) : all_sorted(logits, vocab, ids, probs), keep = 0;
    softmax(probs, n, temperature);
    double sum = 0;
    for (; keep < n && (keep == 0 || sum <= top_p || top_p >= 1); keep++) /* up to and with the one that crosses top_p */
        sum += (double)probs[keep];
    for (int64_t i = 0; i < keep; i++)
        probs[i] = (float)((double)probs[i] / sum);
    return keep;
}
