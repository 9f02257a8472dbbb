/* bleu.c - BLEU-1..4 and ROUGE-L with the constants of pycocoevalcap. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "eval/captions.h"

static int by_words(const int32_t *a, const int32_t *b, int order)
{
    for (int k = 0; k < order; k++)
        if (a[k] != b[k])
            return a[k] < b[k] ? -1 : 1;
    return 0;
}

/* Places of the n-grams of a sentence, sorted by their words: equal ones stand together. */
static void sort_grams(const nm_sentence *s, int order, int32_t *at, int32_t *other)
{
    int32_t n = s->n - order + 1;
    for (int32_t i = 0; i < n; i++)
        at[i] = i;
    for (int32_t width = 1; width < n; width *= 2) { /* merges; qsort has no context in C11 */
        for (int32_t low = 0; low < n; low += 2 * width) {
            int32_t mid = low + width < n ? low + width : n, high = low + 2 * width < n ? low + 2 * width : n, a = low, b = mid;
            for (int32_t i = low; i < high; i++)
                other[i] = a < mid && (b >= high || by_words(s->word + at[a], s->word + at[b], order) <= 0) ? at[a++] : at[b++];
        }
        memcpy(at, other, (size_t)n * sizeof *at);
    }
}

/* How often the n-gram at `gram` is in s, whose n-grams are sorted. */
static int32_t count_of(const nm_sentence *s, const int32_t *sorted, int order, const int32_t *gram)
{
    int32_t n = s->n - order + 1, low = 0, high = n, found = 0;
    while (low < high) {
        int32_t mid = (low + high) / 2;
        if (by_words(s->word + sorted[mid], gram, order) < 0)
            low = mid + 1;
        else
            high = mid;
    }
    while (low < n && by_words(s->word + sorted[low++], gram, order) == 0)
        found++;
    return found;
}

/* Matches of one order, each clipped by the largest count in one reference. */
static int64_t matches(const nm_caption_set *c, int64_t i, int order, int32_t *hyp, int32_t *ref, int32_t *other, int32_t *most)
{
    const nm_sentence *h = &c->hyp[i];
    int32_t n = h->n - order + 1;
    int64_t sum = 0;
    if (n < 1)
        return 0;
    sort_grams(h, order, hyp, other);
    memset(most, 0, (size_t)n * sizeof *most);
    for (int64_t r = c->first[i]; r < c->first[i + 1]; r++) {
        if (c->ref[r].n < order)
            continue;
        sort_grams(&c->ref[r], order, ref, other);
        for (int32_t k = 0; k < n; k++) {
            int32_t found = count_of(&c->ref[r], ref, order, h->word + hyp[k]);
            most[k] = found > most[k] ? found : most[k];
        }
    }
    for (int32_t k = 0, run; k < n; k += run) {
        for (run = 1; k + run < n && by_words(h->word + hyp[k], h->word + hyp[k + run], order) == 0;)
            run++;
        sum += run < most[k] ? run : most[k];
    }
    return sum;
}

noema_status nm_bleu_count(nm_bleu_counts *b, const nm_caption_set *c, int64_t i, noema_error *err)
{
    int32_t length = c->hyp[i].n, longest = length, best = -1;
    for (int64_t r = c->first[i]; r < c->first[i + 1]; r++) {
        int32_t n = c->ref[r].n;
        longest = n > longest ? n : longest;
        if (best < 0 || abs(n - length) < abs(best - length) || (abs(n - length) == abs(best - length) && n < best))
            best = n;
    }
    int32_t *room = nm_malloc_array((size_t)longest + 1, 4 * sizeof *room);
    if (!room)
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory: n-grams");
    b->length += length;
    b->reference += best > 0 ? best : 0;
    for (int order = 1; order <= 4; order++) {
        size_t n = (size_t)longest + 1;
        b->guess[order - 1] += length >= order ? length - order + 1 : 0;
        b->match[order - 1] += matches(c, i, order, room, room + n, room + 2 * n, room + 3 * n);
    }
    free(room);
    return NOEMA_OK;
}

void nm_bleu_score(const nm_bleu_counts *b, double bleu[4])
{
    double product = 1, ratio = ((double)b->length + 1e-15) / ((double)b->reference + 1e-9);
    for (int k = 0; k < 4; k++) {
        product *= ((double)b->match[k] + 1e-15) / ((double)b->guess[k] + 1e-9);
        bleu[k] = pow(product, 1.0 / (k + 1));
        if (ratio < 1)
            bleu[k] *= exp(1 - 1 / ratio);
    }
}

/* Length of the longest common subsequence; row: [b->n + 1]. */
static int32_t common(const nm_sentence *a, const nm_sentence *b, int32_t *row)
{
    memset(row, 0, ((size_t)b->n + 1) * sizeof *row);
    for (int32_t i = 0; i < a->n; i++)
        for (int32_t j = 0, corner = 0; j < b->n; j++) { /* corner: the row above at j */
            int32_t above = row[j + 1];
            row[j + 1] = a->word[i] == b->word[j] ? corner + 1 : above > row[j] ? above : row[j];
            corner = above;
        }
    return row[b->n];
}

double nm_rouge_l(const nm_caption_set *c, int64_t i, noema_error *err)
{
    const nm_sentence *h = &c->hyp_single[i];
    double precision = 0, recall = 0, b = 1.2;
    for (int64_t r = c->first[i]; r < c->first[i + 1]; r++) {
        const nm_sentence *ref = &c->ref_single[r];
        int32_t *row = nm_malloc_array((size_t)ref->n + 1, sizeof *row);
        if (!row) {
            nm_fail(err, NOEMA_E_MEMORY, "out of memory: %d words", ref->n);
            return NAN;
        }
        double lcs = common(h, ref, row);
        free(row);
        precision = fmax(precision, lcs / h->n);
        recall = fmax(recall, lcs / ref->n);
    }
    return precision > 0 && recall > 0 ? (1 + b * b) * precision * recall / (recall + b * b * precision) : 0;
}
