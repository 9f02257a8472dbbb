/* blip_ask.c - answers to questions about pictures: written freely or ranked. Source: salesforce/BLIP models/blip_vqa.py.
 *
 * Easy to get wrong: the decoder looks at the question's states, not at the picture's; ranking uses the training loss, with its label
 * smoothing, which can change the winner. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "generate/blip_tasks.h"
#include "generate/rank.h"
#include "models/blip.h"

#define LABEL_SMOOTHING 0.1
#define ROWS_PER_FORWARD 2048 /* with 30524 words: 250 MB of logits */

static noema_status tokenize_questions(noema_session *s, int64_t n, const char *const *questions, const char *template, nm_texts *out, noema_error *err)
{
    char *text[16] = { NULL };
    noema_status st = NOEMA_OK;
    for (int64_t i = 0; i < n && st == NOEMA_OK; i++)
        if (!(text[i] = nm_fill_template(template ? template : "{}", questions[i])))
            st = nm_fail(err, NOEMA_E_MEMORY, "out of memory: questions");
    if (st == NOEMA_OK)
        st = nm_session_tokenize(s, (size_t)n, (const char *const *)text, NULL, out, err);
    for (int64_t i = 0; i < n; i++)
        free(text[i]);
    return st;
}

/* ---- free answers ---- */

static noema_status write_answers(noema_session *s, nm_tensor states, const nm_med_rows *l, const noema_generate_options *o, noema_generated *out,
                                  noema_error *err)
{
    const nm_blip *m = (const nm_blip *)s->model->m;
    nm_run *r = &s->run;
    nm_rules rules = nm_blip_rules(s, o);
    nm_generation g[16] = { { 0 } };
    int32_t start[16];
    int64_t *offsets = nm_every_row(r, l->n + 1, 1, 0);
    for (int64_t i = 0; i < l->n; i++)
        start[i] = nm_blip_dec_id(m, s->model->tokenizer);
    noema_status st = nm_session_error(s, err);
    if (st == NOEMA_OK)
        st = nm_blip_generate(s, states, l->offsets, l->n, start, offsets, &rules, g, err);
    for (int64_t i = 0; st == NOEMA_OK && i < l->n; i++)
        st = nm_generated_take(s, &g[i], 0, &out[i], err);
    nm_generation_free(g, 16);
    return st;
}

/* ---- ranked answers ---- */

typedef struct ranking {
    noema_session *s;
    const nm_blip *m;
    const nm_tensor *memory;  /* [layers]: keys and values of all questions' states */
    const nm_med_rows *rows;  /* of the questions */
    nm_texts answers;         /* [DEC] answer [SEP] */
    int64_t candidates;
} ranking;

/* Log-probabilities f32 [n, vocab] of what follows [DEC], for every question. */
static nm_tensor first_words(const ranking *k)
{
    nm_run *r = &k->s->run;
    const nm_med_cfg *c = &k->m->cfg.decoder;
    int64_t n = k->rows->n, *offsets = nm_every_row(r, n + 1, 1, 0);
    int32_t *ids = nm_scratch(r, (size_t)n * sizeof *ids), *pos = nm_scratch(r, (size_t)n * sizeof *pos);
    for (int64_t i = 0; ids && pos && i < n; i++) {
        ids[i] = k->answers.ids[k->answers.offsets[0]];
        pos[i] = 0;
    }
    if (!nm_run_ok(r))
        return (nm_tensor){ 0 };
    nm_med_rows l = { .n = n, .rows = n, .ids = ids, .pos = pos, .offsets = offsets };
    nm_med_context context = { .kv = k->memory, .n = n, .q_offsets = offsets, .k_offsets = k->rows->offsets };
    nm_tensor x = nm_med_logits(r, &k->m->lm, c, nm_med_forward(r, &k->m->decoder, c, &l, true, &context));
    for (int64_t i = 0; x.data && i < n; i++)
        nm_log_softmax((float *)x.data + i * c->vocab_size, c->vocab_size);
    return x;
}

/* Minus the training loss of one position: (1 - e) log p(label) + e / vocab * sum of log p. */
static double smoothed(const float *logits, int64_t vocab, int32_t label)
{
    double most = -INFINITY, sum = 0, total = 0;
    for (int64_t v = 0; v < vocab; v++) {
        most = (double)logits[v] > most ? (double)logits[v] : most;
        total += (double)logits[v];
    }
    for (int64_t v = 0; v < vocab; v++)
        sum += exp((double)logits[v] - most);
    double lse = most + log(sum);
    return (1 - LABEL_SMOOTHING) * ((double)logits[label] - lse) + LABEL_SMOOTHING / (double)vocab * (total - (double)vocab * lse);
}

/* Scores list[from, to) for question q: every answer read in one pass, its positions but the last judged. */
static void score_some(const ranking *k, int64_t q, nm_ranked *list, int64_t from, int64_t to)
{
    nm_run *r = &k->s->run;
    const nm_med_cfg *c = &k->m->cfg.decoder;
    const nm_texts *t = &k->answers;
    nm_arena_mark mark = nm_mark(r);
    int64_t rows = 0;
    for (int64_t i = from; i < to; i++)
        rows += t->offsets[list[i].answer + 1] - t->offsets[list[i].answer];
    nm_med_rows l = { .n = to - from, .rows = rows, .ids = nm_scratch(r, (size_t)rows * 4), .pos = nm_scratch(r, (size_t)rows * 4),
                      .offsets = nm_scratch(r, (size_t)(to - from + 1) * 8) };
    if (!nm_run_ok(r))
        return;
    for (int64_t i = from, row = 0; i < to; i++) {
        int64_t begin = t->offsets[list[i].answer], n = t->offsets[list[i].answer + 1] - begin;
        l.offsets[i - from] = row;
        for (int64_t j = 0; j < n; j++, row++) {
            l.ids[row] = t->ids[begin + j];
            l.pos[row] = (int32_t)j;
        }
        l.offsets[i - from + 1] = row;
    }
    int64_t queries[2] = { 0, rows };
    nm_med_context context = { .kv = k->memory, .n = 1, .q_offsets = queries, .k_offsets = k->rows->offsets + q };
    nm_tensor x = nm_med_logits(r, &k->m->lm, c, nm_med_forward(r, &k->m->decoder, c, &l, true, &context));
    for (int64_t i = from; x.data && i < to; i++) {
        list[i].score = 0;
        for (int64_t row = l.offsets[i - from]; row + 1 < l.offsets[i - from + 1]; row++)
            list[i].score += smoothed((const float *)x.data + row * c->vocab_size, c->vocab_size, l.ids[row + 1]);
    }
    nm_reset(r, mark);
}

static noema_status rank_one(const ranking *k, int64_t q, const float *first, const char *const *answers, noema_generated *out, noema_error *err)
{
    nm_ranked *list = nm_rank_first(&k->answers, 1, first);
    if (!list)
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory: answers");
    const int64_t *at = k->answers.offsets;
    for (int64_t from = 0, to; from < k->candidates; from = to) {
        int64_t rows = at[list[from].answer + 1] - at[list[from].answer];
        for (to = from + 1; to < k->candidates && rows < ROWS_PER_FORWARD; to++)
            rows += at[list[to].answer + 1] - at[list[to].answer];
        score_some(k, q, list, from, to);
    }
    noema_status st = nm_session_error(k->s, err);
    nm_rank_sort(list, k->candidates);
    if (st == NOEMA_OK)
        st = nm_rank_take(list, k->candidates, answers, out, err);
    free(list);
    return st;
}

/* Ids of the answers with [DEC] in front; they stay in the session until its next text. */
static noema_status answer_ids(ranking *k, const noema_generate_options *o, noema_error *err)
{
    noema_status st = nm_session_tokenize(k->s, o->n_answers, o->answers, NULL, &k->answers, err);
    int32_t *ids = k->s->ids, dec = nm_blip_dec_id(k->m, k->s->model->tokenizer);
    for (int64_t a = 0; st == NOEMA_OK && a < k->answers.n; a++) {
        if (k->answers.offsets[a + 1] - k->answers.offsets[a] < 2)
            return nm_fail(err, NOEMA_E_ARGUMENT, "answer %lld has no ids", (long long)a);
        ids[k->answers.offsets[a]] = dec;
        for (int64_t j = k->answers.offsets[a]; j < k->answers.offsets[a + 1]; j++)
            if (ids[j] < 0 || ids[j] >= k->m->cfg.decoder.vocab_size)
                return nm_fail(err, NOEMA_E_MISMATCH, "%s: id %d of the tokenizer is outside a vocabulary of %d", k->s->model->name, ids[j],
                               k->m->cfg.decoder.vocab_size);
    }
    return st;
}

static noema_status rank_answers(noema_session *s, nm_tensor states, const nm_med_rows *l, const noema_generate_options *o, noema_generated *out,
                                 noema_error *err)
{
    ranking k = { .s = s, .m = (const nm_blip *)s->model->m, .rows = l };
    int64_t most = o->candidates > 0 ? o->candidates : 128;
    k.memory = nm_med_project(&s->run, &k.m->decoder, &k.m->cfg.decoder, states, 0);
    noema_status st = nm_session_error(s, err);
    if (st == NOEMA_OK)
        st = answer_ids(&k, o, err);
    if (st != NOEMA_OK)
        return st;
    k.candidates = most < k.answers.n ? most : k.answers.n;
    nm_tensor first = first_words(&k);
    st = nm_session_error(s, err);
    for (int64_t q = 0; st == NOEMA_OK && q < l->n; q++)
        st = rank_one(&k, q, (const float *)first.data + q * k.m->cfg.decoder.vocab_size, o->answers, &out[q], err);
    return st;
}

noema_status nm_blip_ask(noema_session *s, nm_tensor pixels, const char *const *questions, const noema_generate_options *o, noema_generated *out,
                         noema_error *err)
{
    const nm_blip *m = (const nm_blip *)s->model->m;
    int64_t n = pixels.shape[0];
    int32_t first = -1;
    nm_texts ids;
    nm_med_rows l;
    noema_status st = n <= 16 ? nm_blip_first_id(s, o->first_token, &first, err) : nm_fail(err, NOEMA_E_INTERNAL, "a batch of %lld pictures", (long long)n);
    if (st == NOEMA_OK)
        st = tokenize_questions(s, n, questions, o->prompt, &ids, err);
    if (st != NOEMA_OK)
        return st;
    nm_run *r = nm_session_run(s);
    nm_tensor states = nm_blip_questions(r, m, nm_blip_image_states(r, m, pixels), &ids, first, &l);
    st = nm_session_error(s, err);
    if (st != NOEMA_OK)
        return st;
    return o->n_answers ? rank_answers(s, states, &l, o, out, err) : write_answers(s, states, &l, o, out, err);
}
