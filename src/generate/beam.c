/* beam.c - beam search. Sources: transformers 4.15 generation_beam_search.py (BeamSearchScorer, BeamHypotheses); 4.33, where is_done counts
 * one id more; 5.x generation/utils.py (_beam_search, _update_finished_beams, _check_early_stop_heuristic).
 *
 * Easy to get wrong: an end id counts only among the best `beams` candidates; 4.x divides by the length with the prompt and without the
 * end, 5 by the new ids with the end; the live beams are added at max_length only if the search has not ended before. */
#include <math.h>
#include <string.h>

#include "generate/search.h"

/* The best 2 width continuations of all rows, sorted; among equals the first row and id (the order of torch.topk on a CPU). */
static int best_candidates(const nm_search *s, const float *scores, int64_t vocab)
{
    nm_candidate *top = s->top;
    int n = 0, most = 2 * s->width;
    for (int b = 0; b < s->rows; b++)
        for (int64_t v = 0; v < vocab; v++) {
            double sum = s->sum[b] + (double)scores[(int64_t)b * vocab + v];
            if (n == most && !(sum > top[n - 1].sum))
                continue;
            int at = n < most ? n++ : n - 1;
            while (at > 0 && top[at - 1].sum < sum) {
                top[at] = top[at - 1];
                at--;
            }
            top[at] = (nm_candidate){ sum, (int32_t)v, b };
        }
    return n;
}

static void report(const nm_search *s, const nm_hypothesis *h, bool stored, double worst)
{
    if (s->rules->finished)
        s->rules->finished(s->rules->finished_user, s->item, h, stored, worst);
}

static int worst_of(const nm_search *s)
{
    int at = 0;
    for (int i = 1; i < s->n_kept; i++)
        if (s->kept[i].score < s->kept[at].score)
            at = i;
    return at;
}

/* Keeps the `width` best in the order of their arrival; kept[width] is the spare place whose ids are written first. */
static void finish(nm_search *s, const int32_t *ids, int64_t n, double sum, double divisor, bool ended)
{
    nm_hypothesis h = s->kept[s->n_kept]; /* its memory */
    memcpy(h.ids, ids, (size_t)n * sizeof *ids);
    h.n = n;
    h.sum = sum;
    h.score = sum / pow(divisor, s->rules->length_penalty);
    h.ended = ended;
    s->kept[s->n_kept] = h;
    bool full = s->n_kept == s->width, stored = !full || h.score > s->kept[worst_of(s)].score;
    if (stored && full) { /* the worst leaves, its memory becomes the spare one */
        int at = worst_of(s);
        nm_hypothesis out = s->kept[at];
        memmove(&s->kept[at], &s->kept[at + 1], (size_t)(s->n_kept - at) * sizeof h);
        s->kept[s->n_kept] = out;
    } else if (stored)
        s->n_kept++;
    report(s, &h, stored, s->n_kept ? s->kept[worst_of(s)].score : 0);
}

/* Row `to` of the next side = row c.beam of this one and c.id. */
static void extend(nm_search *s, int to, nm_candidate c)
{
    int32_t *dst = s->ids[!s->side] + (int64_t)to * s->max_length;
    memcpy(dst, nm_search_row(s, c.beam), (size_t)s->length * sizeof *dst);
    dst[s->length] = c.id;
    s->beam[to] = c.beam;
}

static void take_side(nm_search *s, int rows)
{
    s->side = !s->side;
    s->rows = rows;
    s->length++;
}

static bool is_done_4(const nm_search *s, double best)
{
    if (s->n_kept < s->width)
        return false;
    if (s->rules->early_stopping)
        return true;
    double length = (double)(s->length + (s->rules->release >= NM_RELEASE_4_33));
    return s->kept[worst_of(s)].score >= best / pow(length, s->rules->length_penalty);
}

static void step_4(nm_search *s, int n)
{
    int rows = 0, width = s->width;
    double sums[64], best = n ? s->top[0].sum : -INFINITY;
    for (int rank = 0; rank < n && rows < width; rank++) {
        nm_candidate c = s->top[rank];
        if (c.id != s->rules->eos) {
            extend(s, rows, c);
            sums[rows++] = c.sum;
        } else if (rank < width)
            finish(s, nm_search_row(s, c.beam), s->length, c.sum, (double)s->length, true);
    }
    s->done = is_done_4(s, best) || rows == 0;
    memcpy(s->sum, sums, (size_t)rows * sizeof *sums);
    take_side(s, rows);
    if (s->done || s->length < s->max_length)
        return;
    for (int i = 0; i < rows; i++)
        finish(s, nm_search_row(s, i), s->length, s->sum[i], (double)s->length, false);
    s->done = true;
}

static void step_5(nm_search *s, int n)
{
    int rows = 0, width = s->width;
    bool last = s->length + 1 >= s->max_length, full = s->n_kept == width && s->rules->early_stopping;
    double sums[64], fresh = (double)(s->length + 1 - s->prompt);
    for (int rank = 0; rank < n; rank++) {
        nm_candidate c = s->top[rank];
        bool end = c.id == s->rules->eos;
        if ((end || last) && rank < width && !full) {
            extend(s, width - 1, c); /* built in a place that the live rows take only afterwards */
            finish(s, s->ids[!s->side] + (int64_t)(width - 1) * s->max_length, s->length + !end, c.sum, fresh, end);
        }
    }
    for (int rank = 0; rank < n && rows < width && !last; rank++)
        if (s->top[rank].id != s->rules->eos) {
            extend(s, rows, s->top[rank]);
            sums[rows++] = s->top[rank].sum;
        }
    memcpy(s->sum, sums, (size_t)rows * sizeof *sums);
    take_side(s, rows);
    full = s->n_kept == width;
    s->done = rows == 0 || (full && s->rules->early_stopping) ||
              (full && !(s->sum[0] / pow((double)(s->length - s->prompt), s->rules->length_penalty) > s->kept[worst_of(s)].score));
}

void nm_beam_step(nm_search *s, const float *scores, int64_t vocab)
{
    int n = best_candidates(s, scores, vocab);
    if (s->rules->release >= NM_RELEASE_5)
        step_5(s, n);
    else
        step_4(s, n);
}
