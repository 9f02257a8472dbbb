/* retrieval.c - ranks of images and texts among each other (specs/evaluation.md, section 2), without storing the score matrix. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "eval/metrics.h"

typedef struct search {
    nm_retrieval *r;
    const int64_t *owner;
    nm_ties rule;
    int64_t *first, *next; /* texts of an image in order: first[i], next[j], -1 ends */
    double *right;         /* [n_texts]: score of each text with its image */
    int32_t *higher, *equal_before, *equal_after; /* [workers, n_texts]: images against the right one */
    int64_t n_counts;
    int32_t *ties;         /* [n_images]: 1 where a wrong text equals the best right one */
    bool second;           /* the pass that counts; the first one only notes the right scores */
} search;

/* The best text of image i: of equal ones the lowest index (highest by that rule). */
static int64_t best_text(const search *q, const double *s, int64_t i)
{
    int64_t best = q->first[i];
    for (int64_t j = q->next[best]; j >= 0; j = q->next[j])
        if (s[j] > s[best] || (s[j] == s[best] && q->rule == NM_TIES_HIGHEST))
            best = j;
    return best;
}

/* The image's rank by its best text; other right texts never stand in front of it, so equal ones are not counted. */
static void rank_image(search *q, const double *s, int64_t i)
{
    nm_retrieval *r = q->r;
    r->image_rank[i] = -1;
    if (q->first[i] < 0)
        return;
    int64_t best = best_text(q, s, i), higher = 0, before = 0, after = 0;
    for (int64_t j = 0; j < r->n_texts; j++) {
        higher += s[j] > s[best];
        if (s[j] == s[best] && q->owner[j] != i) {
            before += j < best;
            after += j > best;
        }
    }
    q->ties[i] = before + after > 0;
    r->image_rank[i] = higher + (q->rule == NM_TIES_LOWEST ? before : q->rule == NM_TIES_HIGHEST ? after : q->rule == NM_TIES_PESSIMISTIC ? before + after : 0);
}

/* Precision at each right text, and the share of right ones among the first R. */
static void precision_image(search *q, const double *s, int64_t i)
{
    nm_retrieval *r = q->r;
    int64_t n = 0, in_r = 0;
    double sum = 0;
    for (int64_t j = q->first[i]; j >= 0; j = q->next[j])
        n++;
    for (int64_t j = q->first[i]; j >= 0; j = q->next[j]) {
        int64_t rank = nm_rank_of(s, r->n_texts, j, NM_TIES_LOWEST, NULL), right = 0;
        for (int64_t k = q->first[i]; k >= 0; k = q->next[k])
            right += s[k] > s[j] || (s[k] == s[j] && k <= j);
        sum += (double)right / (double)(rank + 1);
        in_r += rank < n;
    }
    r->image_ap[i] = n ? sum / (double)n : NAN;
    r->image_r_precision[i] = n ? (double)in_r / (double)n : NAN;
}

static void rows(void *arg, int64_t first, int64_t n, const double *scores, int worker)
{
    search *q = arg;
    int64_t m = q->r->n_texts;
    int32_t *higher = q->higher + worker * m, *before = q->equal_before + worker * m, *after = q->equal_after + worker * m;
    for (int64_t k = 0; k < n; k++) {
        const double *s = scores + k * m;
        int64_t i = first + k;
        if (!q->second) {
            for (int64_t j = q->first[i]; j >= 0; j = q->next[j])
                q->right[j] = s[j];
            rank_image(q, s, i);
            precision_image(q, s, i);
            continue;
        }
        for (int64_t j = 0; j < m; j++) {
            higher[j] += s[j] > q->right[j];
            if (s[j] == q->right[j]) {
                before[j] += i < q->owner[j];
                after[j] += i > q->owner[j];
            }
        }
    }
}

/* Sums the workers' counts. */
static void rank_texts(search *q, int workers)
{
    nm_retrieval *r = q->r;
    for (int64_t j = 0; j < r->n_texts; j++) {
        int64_t higher = 0, before = 0, after = 0;
        for (int w = 0; w < workers; w++) {
            higher += q->higher[w * r->n_texts + j];
            before += q->equal_before[w * r->n_texts + j];
            after += q->equal_after[w * r->n_texts + j];
        }
        r->text_rank[j] = q->owner[j] < 0 ? -1 : higher;
        if (q->owner[j] < 0)
            continue;
        r->text_ties += before + after > 0;
        r->text_rank[j] += q->rule == NM_TIES_LOWEST ? before : q->rule == NM_TIES_HIGHEST ? after : q->rule == NM_TIES_PESSIMISTIC ? before + after : 0;
    }
    for (int64_t i = 0; i < r->n_images; i++)
        r->image_ties += q->ties[i];
}

static bool prepare(search *q, int workers)
{
    nm_retrieval *r = q->r;
    size_t ni = (size_t)r->n_images + 1, nt = (size_t)r->n_texts + 1, counts = nt * (size_t)workers;
    r->image_rank = nm_malloc_array(ni, sizeof(int64_t));
    r->text_rank = nm_malloc_array(nt, sizeof(int64_t));
    r->image_ap = nm_malloc_array(ni, sizeof(double));
    r->image_r_precision = nm_malloc_array(ni, sizeof(double));
    q->first = nm_malloc_array(ni, sizeof(int64_t));
    q->next = nm_malloc_array(nt, sizeof(int64_t));
    q->right = nm_malloc_array(nt, sizeof(double));
    q->ties = calloc(ni, sizeof *q->ties);
    q->higher = calloc(counts, 3 * sizeof(int32_t));
    if (!r->image_rank || !r->text_rank || !r->image_ap || !r->image_r_precision || !q->first || !q->next || !q->right || !q->ties || !q->higher)
        return false;
    q->equal_before = q->higher + counts;
    q->equal_after = q->equal_before + counts;
    for (int64_t i = 0; i < r->n_images; i++)
        q->first[i] = -1;
    for (int64_t j = r->n_texts; j-- > 0;) { /* lists in ascending order */
        q->right[j] = NAN;                   /* no comparison with it is true */
        q->next[j] = -1;
        if (q->owner[j] >= 0) {
            q->next[j] = q->first[q->owner[j]];
            q->first[q->owner[j]] = j;
        }
    }
    return true;
}

noema_status nm_retrieve(nm_retrieval *r, nm_pool *pool, const nm_vectors *images, const nm_vectors *texts, const int64_t *owner, nm_ties rule,
                         noema_error *err)
{
    search q = { .r = r, .owner = owner, .rule = rule };
    noema_status s = NOEMA_OK;
    *r = (nm_retrieval){ .n_images = images->n, .n_texts = texts->n };
    for (int64_t j = 0; j < texts->n; j++)
        if (owner[j] >= images->n)
            return nm_fail(err, NOEMA_E_MISMATCH, "text %lld belongs to image %lld, there are %lld", (long long)j, (long long)owner[j], (long long)images->n);
    if (!prepare(&q, nm_pool_size(pool)))
        s = nm_fail(err, NOEMA_E_MEMORY, "out of memory: ranks of %lld images and %lld texts", (long long)images->n, (long long)texts->n);
    for (int pass = 0; pass < 2 && s == NOEMA_OK; pass++) {
        q.second = pass == 1;
        s = nm_scores(pool, images, texts, rows, &q, err);
    }
    if (s == NOEMA_OK)
        rank_texts(&q, nm_pool_size(pool));
    free(q.first);
    free(q.next);
    free(q.right);
    free(q.ties);
    free(q.higher);
    if (s != NOEMA_OK)
        nm_retrieval_free(r);
    return s;
}

void nm_retrieval_free(nm_retrieval *r)
{
    free(r->image_rank);
    free(r->text_rank);
    free(r->image_ap);
    free(r->image_r_precision);
    *r = (nm_retrieval){ 0 };
}
