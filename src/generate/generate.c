/* generate.c - see generate.h: makes the searches, steps them together, takes the results. */
#include "generate/generate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "generate/search.h"

#define MOST_BEAMS 64 /* beam.c keeps so many sums on its stack */
#define MOST_LENGTH (1 << 16)

static int width_of(const nm_rules *r) { return r->sample ? (r->n_best > 1 ? r->n_best : 1) : r->beams; }

static int64_t longest(const nm_rules *r, int64_t prompt) { return r->max_new >= 0 ? prompt + r->max_new : r->max_length; }

int64_t nm_generate_max_length(const nm_rules *r, int64_t items, const int64_t *offsets)
{
    int64_t most = 0;
    for (int64_t i = 0; i < items; i++) {
        int64_t n = longest(r, offsets[i + 1] - offsets[i]);
        most = n > most ? n : most;
    }
    return most;
}

int64_t nm_generate_max_rows(const nm_rules *r, int64_t items) { return items * width_of(r); }

/* ---- one search ---- */

static void search_free(nm_search *s)
{
    for (int i = 0; s->kept && i <= s->width; i++)
        free(s->kept[i].ids);
    free(s->kept);
    free(s->ids[0]);
    free(s->ids[1]);
    free(s->sum);
    free(s->beam);
    free(s->top);
    free(s->rng);
    free(s->slot);
}

static bool search_init(nm_search *s, const nm_rules *r, int64_t item, const int32_t *prompt, int64_t n)
{
    int w = width_of(r);
    size_t room = (size_t)w * (size_t)longest(r, n);
    int64_t least = r->min_new >= 0 && n + r->min_new > r->min_length ? n + r->min_new : r->min_length;
    *s = (nm_search){ .rules = r, .item = item, .prompt = n, .length = n, .max_length = longest(r, n), .min_length = least, .width = w,
                      .rows = r->sample ? w : 1, .first_row = item };
    bool ok = true;
    for (int i = 0; i < 2; i++)
        ok = (s->ids[i] = nm_malloc_array(room, sizeof *s->ids[i])) && ok;
    s->sum = calloc((size_t)w, sizeof *s->sum);
    s->beam = calloc((size_t)w, sizeof *s->beam);
    s->slot = calloc((size_t)w, sizeof *s->slot);
    s->rng = calloc((size_t)w, sizeof *s->rng);
    s->top = calloc(2 * (size_t)w, sizeof *s->top);
    s->kept = calloc((size_t)w + 1, sizeof *s->kept);
    ok = ok && s->sum && s->beam && s->slot && s->rng && s->top && s->kept;
    for (int i = 0; ok && i <= w; i++)
        ok = (s->kept[i].ids = nm_malloc_array((size_t)s->max_length, sizeof *s->kept[i].ids)) != NULL;
    for (int i = 0; ok && i < w; i++) {
        memcpy(nm_search_row(s, i), prompt, (size_t)n * sizeof *prompt);
        s->slot[i] = i;
        nm_rng_init(&s->rng[i], r->seeds ? r->seeds[item] : r->seed, (uint64_t)i); /* nothing of the other items: a text does not depend on its neighbours */
    }
    return ok;
}

/* ---- greedy and sampling: rows that do not compete ---- */

static int32_t choose(nm_search *s, int row, const float *scores, int64_t vocab, int32_t *set, float *probs)
{
    const nm_rules *r = s->rules;
    if (!r->sample) {
        int64_t best = 0;
        for (int64_t v = 1; v < vocab; v++)
            if (scores[v] > scores[best])
                best = v;
        return (int32_t)best;
    }
    int64_t n = nm_sample_set(scores, vocab, r->temperature, r->top_k, r->top_p, set, probs), i = 0;
    double u = (double)nm_rng_uniform(&s->rng[s->slot[row]]), sum = (double)probs[0];
    while (i + 1 < n && u >= sum)
        sum += (double)probs[++i];
    return set[i];
}

static void keep_row(nm_search *s, int slot, const int32_t *ids, int64_t n, bool ended)
{
    nm_hypothesis *h = &s->kept[slot];
    memcpy(h->ids, ids, (size_t)n * sizeof *ids);
    h->n = n;
    h->sum = h->score = NAN;
    h->ended = ended;
    s->n_kept++;
}

static void independent_step(nm_search *s, const float *scores, int64_t vocab, int32_t *set, float *probs)
{
    int rows = 0;
    for (int i = 0; i < s->rows; i++) {
        int32_t id = choose(s, i, scores + (int64_t)i * vocab, vocab, set, probs), *row = nm_search_row(s, i);
        row[s->length] = id;
        bool end = id == s->rules->eos;
        if (end || s->length + 1 >= s->max_length) {
            keep_row(s, s->slot[i], row, s->length + !end, end);
            continue;
        }
        memmove(nm_search_row(s, rows), row, (size_t)(s->length + 1) * sizeof *row);
        s->beam[rows] = i;
        s->slot[rows] = s->slot[i]; /* rows <= i: generators stay in their slots */
        rows++;
    }
    s->rows = rows;
    s->length++;
    s->done = rows == 0;
}

/* ---- all together ---- */

typedef struct group {
    nm_search *s;
    int64_t items;
    int64_t *parent, *offsets;
    int32_t *ids;
    int32_t *set; /* sampling: [vocab] */
    float *probs;
} group;

static void process(nm_search *s, float *scores, int64_t vocab)
{
    const nm_rules *r = s->rules;
    for (int i = 0; i < s->rows; i++) {
        float *x = scores + (int64_t)i * vocab;
        if (!r->sample && r->beams > 1)
            nm_log_softmax(x, vocab);
        nm_penalise(x, vocab, nm_search_row(s, i), s->length, r->repetition_penalty);
        if (s->length < s->min_length && r->eos >= 0 && r->eos < vocab)
            x[r->eos] = -INFINITY;
    }
}

/* Several texts drawn for one item begin with the same logits. */
static noema_status fan_out(nm_search *s, const float *row, int64_t vocab, group *g, noema_error *err)
{
    float *all = nm_malloc_array((size_t)s->rows * (size_t)vocab, sizeof *all);
    if (!all)
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory: %d texts", s->rows);
    for (int i = 0; i < s->rows; i++)
        memcpy(all + (int64_t)i * vocab, row, (size_t)vocab * sizeof *row);
    process(s, all, vocab);
    independent_step(s, all, vocab, g->set, g->probs);
    for (int i = 0; i < s->rows; i++)
        s->beam[i] = 0; /* all continue the item's one row */
    free(all);
    return NOEMA_OK;
}

static noema_status step_item(nm_search *s, float *logits, int64_t vocab, bool first, group *g, noema_error *err)
{
    if (first && s->rows > 1)
        return fan_out(s, logits, vocab, g, err);
    process(s, logits, vocab);
    if (s->rules->sample || s->rules->beams == 1)
        independent_step(s, logits, vocab, g->set, g->probs);
    else
        nm_beam_step(s, logits, vocab);
    return NOEMA_OK;
}

/* The rows of the next step; 0: all searches are done. */
static int64_t gather(group *g)
{
    int64_t n = 0;
    for (int64_t i = 0; i < g->items; i++) {
        nm_search *s = &g->s[i];
        int64_t first = s->first_row;
        s->first_row = n;
        for (int b = 0; !s->done && b < s->rows; b++, n++) {
            g->parent[n] = first + s->beam[b];
            g->ids[n] = nm_search_row(s, b)[s->length - 1];
            g->offsets[n] = n;
        }
    }
    g->offsets[n] = n;
    return n;
}

static noema_status run(const nm_decoder *d, group *g, const int32_t *prompts, const int64_t *offsets, noema_error *err)
{
    float *logits = d->step(d->user, g->items, NULL, prompts, offsets, err);
    bool first = true;
    int64_t n = g->items;
    while (logits && n > 0) {
        for (int64_t i = 0; i < g->items; i++) {
            nm_search *s = &g->s[i];
            noema_status st = s->done ? NOEMA_OK : step_item(s, logits + (first ? i : s->first_row) * d->vocab, d->vocab, first, g, err);
            if (st != NOEMA_OK)
                return st;
        }
        first = false;
        n = gather(g);
        if (n > 0)
            logits = d->step(d->user, n, g->parent, g->ids, g->offsets, err);
    }
    return logits ? NOEMA_OK : err && err->code ? err->code : NOEMA_E_INTERNAL;
}

static int better(const void *a, const void *b)
{
    const nm_hypothesis *x = a, *y = b;
    return (x->score < y->score) - (x->score > y->score);
}

/* Best first; among equals the one that came last (4.x sorts upwards and takes from the end). */
static noema_status take(nm_search *s, nm_generation *out, noema_error *err)
{
    int n = s->n_kept < s->rules->n_best ? s->n_kept : s->rules->n_best;
    out->best = calloc((size_t)n + 1, sizeof *out->best);
    if (!out->best)
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory");
    bool ranked = !s->rules->sample && s->rules->beams > 1;
    for (int i = 0; ranked && s->rules->release < NM_RELEASE_5 && i < s->n_kept / 2; i++) {
        nm_hypothesis h = s->kept[i];
        s->kept[i] = s->kept[s->n_kept - 1 - i];
        s->kept[s->n_kept - 1 - i] = h;
    }
    if (ranked)
        for (int i = 1; i < s->n_kept; i++) /* few, and the order of equals matters: insertion */
            for (int j = i; j > 0 && better(&s->kept[j - 1], &s->kept[j]) > 0; j--) {
                nm_hypothesis h = s->kept[j];
                s->kept[j] = s->kept[j - 1];
                s->kept[j - 1] = h;
            }
    for (int i = 0; i < n; i++) {
        out->best[i] = s->kept[i];
        s->kept[i].ids = NULL;
    }
    out->n = n;
    return NOEMA_OK;
}

static noema_status check(const nm_decoder *d, int64_t items, const int64_t *offsets, const nm_rules *r, noema_error *err)
{
    if (items < 1 || r->beams < 1 || r->beams > MOST_BEAMS || r->n_best < 1 || r->n_best > MOST_BEAMS)
        return nm_fail(err, NOEMA_E_ARGUMENT, "generation: %d beams, %d best: expected 1 to %d", r->beams, r->n_best, MOST_BEAMS);
    if (d->vocab < 2 * r->beams)
        return nm_fail(err, NOEMA_E_ARGUMENT, "generation: %d beams need a vocabulary of twice as many words, got %lld", r->beams, (long long)d->vocab);
    if (!r->sample && r->n_best > r->beams)
        return nm_fail(err, NOEMA_E_ARGUMENT, "generation: the %d best texts of a search with %d beam%s: expected at least %d beams", r->n_best, r->beams,
                       r->beams == 1 ? "" : "s", r->n_best);
    if (!(r->repetition_penalty > 0) || !isfinite(r->repetition_penalty) || !isfinite(r->length_penalty) || !(r->temperature > 0) || !(r->top_p > 0))
        return nm_fail(err, NOEMA_E_ARGUMENT, "generation: penalties %g and %g, temperature %g, top p %g", r->repetition_penalty, r->length_penalty,
                       r->temperature, r->top_p);
    for (int64_t i = 0; i < items; i++) {
        int64_t n = offsets[i + 1] - offsets[i];
        if (n < 1 || longest(r, n) <= n || longest(r, n) > MOST_LENGTH)
            return nm_fail(err, NOEMA_E_ARGUMENT, "generation: at most %lld ids with a prompt of %lld leave no room for text", (long long)longest(r, n),
                           (long long)n);
    }
    return NOEMA_OK;
}

noema_status nm_generate(const nm_decoder *d, int64_t items, const int32_t *prompts, const int64_t *offsets, const nm_rules *rules, nm_generation *out,
                         noema_error *err)
{
    for (int64_t i = 0; i < items; i++)
        out[i] = (nm_generation){ 0 };
    noema_status st = check(d, items, offsets, rules, err);
    if (st != NOEMA_OK)
        return st;
    size_t rows = (size_t)nm_generate_max_rows(rules, items) + (size_t)items + 1;
    group g = { .items = items, .s = calloc((size_t)items, sizeof *g.s), .parent = nm_malloc_array(rows, sizeof *g.parent),
                .offsets = nm_malloc_array(rows, sizeof *g.offsets), .ids = nm_malloc_array(rows, sizeof *g.ids),
                .set = nm_malloc_array((size_t)d->vocab, sizeof *g.set), .probs = nm_malloc_array((size_t)d->vocab, sizeof *g.probs) };
    bool ok = g.s && g.parent && g.offsets && g.ids && g.set && g.probs;
    for (int64_t i = 0; ok && i < items; i++)
        ok = search_init(&g.s[i], rules, i, prompts + offsets[i], offsets[i + 1] - offsets[i]);
    st = ok ? run(d, &g, prompts, offsets, err) : nm_fail(err, NOEMA_E_MEMORY, "out of memory: %lld searches", (long long)items);
    for (int64_t i = 0; st == NOEMA_OK && i < items; i++)
        st = take(&g.s[i], &out[i], err);
    for (int64_t i = 0; g.s && i < items; i++)
        search_free(&g.s[i]);
    if (st != NOEMA_OK)
        nm_generation_free(out, items);
    free(g.s), free(g.parent), free(g.offsets), free(g.ids), free(g.set), free(g.probs);
    return st;
}

void nm_generation_free(nm_generation *g, int64_t items)
{
    for (int64_t i = 0; i < items; i++) {
        for (int k = 0; k < g[i].n; k++)
            free(g[i].best[k].ids);
        free(g[i].best);
        g[i] = (nm_generation){ 0 };
    }
}
