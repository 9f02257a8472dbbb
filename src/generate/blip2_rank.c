/* blip2_rank.c - answers of a list, ranked by BLIP-2's language model. Source: salesforce/LAVIS blip2_t5_instruct.py, predict_class: the sum of
 * the log-probabilities of an answer's ids with the end, not divided by its length. BLIP-2's own files have no such function; OPT is ranked in
 * the same way, its answers behind a blank, as it writes them, and with the line feed at which it ends. */
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "generate/blip2_tasks.h"
#include "generate/rank.h"
#include "models/blip2.h"

#define CACHE_BYTES ((size_t)768 << 20) /* keys and values of the answers that are scored together */
#define ROWS_PER_FORWARD 512            /* with 50272 words: 100 MB of logits */

typedef struct ranking {
    noema_session *s;
    const nm_blip2 *m;
    nm_texts answers;        /* what follows the prompt, with the end: the two below */
    int32_t *ids;
    int64_t *offsets;
    const char *const *text;
    int64_t candidates, longest;
    /* of the question that is ranked */
    nm_blip2_prefix prefix;
    nm_tensor *memory;       /* T5 */
    nm_kv_cache cache;       /* its row 0 is the question */
} ranking;

static nm_tensor step(ranking *k, int64_t n, const int64_t *parent, nm_tensor x, const int64_t *offsets)
{
    const nm_blip2 *m = k->m;
    nm_run *r = &k->s->run;
    return m->cfg.lm == NM_LM_OPT ? nm_opt_step(r, &m->opt, &m->cfg.opt, &k->cache, n, parent, x, offsets)
                                  : nm_t5_step(r, &m->t5, &m->cfg.t5, &k->cache, k->memory, k->prefix.offsets, n, parent, x, offsets);
}

static nm_tensor logits_of(const ranking *k, nm_tensor x)
{
    nm_run *r = &k->s->run;
    return k->m->cfg.lm == NM_LM_OPT ? nm_opt_logits(r, &k->m->opt, &k->m->cfg.opt, x) : nm_t5_logits(r, &k->m->t5, &k->m->cfg.t5, x);
}

static int64_t vocab_of(const nm_blip2 *m) { return m->cfg.lm == NM_LM_OPT ? m->cfg.opt.vocab_size : m->cfg.t5.vocab_size; }

/* Ids of all answers as they follow the prompt; malloc'd, since the session's own are overwritten by the prompts. */
static noema_status answer_ids(ranking *k, int32_t end, noema_error *err)
{
    noema_session *s = k->s;
    bool opt = k->m->cfg.lm == NM_LM_OPT;
    int64_t n = k->answers.n, at = 0, *offsets = nm_malloc_array((size_t)n + 1, sizeof *offsets), vocab = vocab_of(k->m);
    char **with = calloc((size_t)n + 1, sizeof *with);
    int32_t *ids = NULL;
    nm_texts t = { 0 };
    const char *nothing = "";
    noema_status st = offsets && with ? NOEMA_OK : nm_fail(err, NOEMA_E_MEMORY, "out of memory: answers");
    if (st == NOEMA_OK)
        st = nm_session_tokenize(s, 1, &nothing, NULL, &t, err);
    int64_t skip = st == NOEMA_OK && opt ? t.offsets[1] : 0; /* OPT's texts begin with an id, T5's end with one */
    for (int64_t a = 0; a < n && st == NOEMA_OK; a++)
        if (!(with[a] = nm_sprintf("%s%s", opt && !isspace((unsigned char)k->text[a][0]) ? " " : "", k->text[a])))
            st = nm_fail(err, NOEMA_E_MEMORY, "out of memory: answers");
    if (st == NOEMA_OK)
        st = nm_session_tokenize(s, (size_t)n, (const char *const *)with, NULL, &t, err);
    if (st == NOEMA_OK && !(ids = nm_malloc_array((size_t)(t.offsets[n] + n) + 1, sizeof *ids)))
        st = nm_fail(err, NOEMA_E_MEMORY, "out of memory: answers");
    for (int64_t a = 0; a < n && st == NOEMA_OK; a++) {
        offsets[a] = at;
        for (int64_t j = t.offsets[a] + skip; j < t.offsets[a + 1]; j++)
            ids[at++] = t.ids[j];
        if (opt)
            ids[at++] = end;
        if (at - offsets[a] < 2)
            st = nm_fail(err, NOEMA_E_ARGUMENT, "answer %lld has no ids", (long long)a);
        for (int64_t j = offsets[a]; j < at && st == NOEMA_OK; j++)
            if (ids[j] < 0 || ids[j] >= vocab)
                st = nm_fail(err, NOEMA_E_MISMATCH, "%s: id %d of the tokenizer is outside the language model's vocabulary of %lld", s->model->name, ids[j],
                             (long long)vocab);
        k->longest = at - offsets[a] > k->longest ? at - offsets[a] : k->longest;
        offsets[a + 1] = at;
    }
    for (int64_t a = 0; with && a < n; a++)
        free(with[a]);
    free(with);
    k->answers.ids = k->ids = ids;
    k->answers.offsets = k->offsets = offsets;
    return st;
}

/* The question into row 0 of the cache -> log-probabilities f32 [1, vocab] of what follows. */
static nm_tensor begin(ranking *k, nm_tensor queries, const nm_texts *prompt, int64_t rows)
{
    const nm_blip2_cfg *c = &k->m->cfg;
    nm_run *r = &k->s->run;
    bool opt = c->lm == NM_LM_OPT;
    k->prefix = nm_blip2_prefix_rows(r, k->m, queries, prompt);
    if (nm_run_ok(r) && !opt)
        k->memory = nm_t5_project(r, &k->m->t5, &c->t5, k->prefix.rows);
    if (!nm_run_ok(r))
        return (nm_tensor){ 0 };
    int64_t length = (opt ? k->prefix.offsets[1] : 1) + k->longest, start[2] = { 0, 1 };
    if (opt && length > c->opt.positions - NM_OPT_OFFSET)
        return nm_run_fail(r, NOEMA_E_ARGUMENT, "%lld ids of picture, prompt and answer: the language model has %d positions", (long long)length,
                           c->opt.positions - NM_OPT_OFFSET);
    if (!nm_kv_init(r, &k->cache, opt ? c->opt.layers : c->t5.decoder_layers, 2 * (int64_t)(opt ? c->opt.width : c->t5.inner), 1, rows, length))
        return (nm_tensor){ 0 };
    int32_t first = c->bos;
    nm_tensor x = opt ? step(k, 1, NULL, k->prefix.rows, k->prefix.offsets) : step(k, 1, NULL, nm_blip2_words(r, k->m, &first, 1), start);
    x = x.data ? logits_of(k, nm_rows(x, x.shape[0] - 1, x.shape[0])) : x;
    if (x.data)
        nm_log_softmax(x.data, vocab_of(k->m));
    return x;
}

/* How many answers share a cache with a question. */
static int64_t rows_at_once(const ranking *k, int64_t prompt)
{
    const nm_blip2_cfg *c = &k->m->cfg;
    bool opt = c->lm == NM_LM_OPT;
    int64_t length = (opt ? c->qformer.queries + prompt : 1) + k->longest;
    size_t one = nm_kv_bytes(&k->s->run, opt ? c->opt.layers : c->t5.decoder_layers, 2 * (int64_t)(opt ? c->opt.width : c->t5.inner), 1, length);
    int64_t n = one ? (int64_t)(CACHE_BYTES / one) : 1;
    return n < 2 ? 2 : n > k->candidates + 1 ? k->candidates + 1 : n;
}

static double log_p(const float *z, int64_t vocab, int32_t id)
{
    double most = -INFINITY, sum = 0;
    for (int64_t v = 0; v < vocab; v++)
        most = (double)z[v] > most ? (double)z[v] : most;
    for (int64_t v = 0; v < vocab; v++)
        sum += exp((double)z[v] - most);
    return (double)z[id] - most - log(sum);
}

/* Adds what follows the first ids of list[from .. to). Row 0 of the step is the question, which stays as it is. */
static void score_some(ranking *k, nm_ranked *list, int64_t from, int64_t to)
{
    const nm_texts *t = &k->answers;
    nm_run *r = &k->s->run;
    nm_arena_mark mark = nm_mark(r);
    int64_t n = to - from + 1, rows = 0, vocab = vocab_of(k->m);
    for (int64_t i = from; i < to; i++)
        rows += t->offsets[list[i].answer + 1] - t->offsets[list[i].answer] - 1;
    int64_t *offsets = nm_scratch(r, (size_t)(n + 1) * sizeof *offsets), *parent = nm_scratch(r, (size_t)n * sizeof *parent);
    int32_t *ids = nm_scratch(r, (size_t)rows * sizeof *ids);
    if (!nm_run_ok(r))
        return;
    offsets[0] = offsets[1] = parent[0] = 0;
    for (int64_t i = from, at = 0; i < to; i++) {
        int64_t first = t->offsets[list[i].answer], count = t->offsets[list[i].answer + 1] - first - 1;
        memcpy(ids + at, t->ids + first, (size_t)count * sizeof *ids);
        parent[i - from + 1] = 0;
        offsets[i - from + 2] = at += count;
    }
    nm_tensor x = logits_of(k, step(k, n, parent, nm_blip2_words(r, k->m, ids, rows), offsets));
    for (int64_t i = from; x.data && i < to; i++)
        for (int64_t row = offsets[i - from + 1], j = t->offsets[list[i].answer] + 1; row < offsets[i - from + 2]; row++, j++)
            list[i].score += log_p((const float *)x.data + row * vocab, vocab, t->ids[j]);
    nm_reset(r, mark);
}

static noema_status rank_one(ranking *k, nm_tensor queries, const nm_texts *prompt, noema_generated *out, noema_error *err)
{
    nm_run *r = &k->s->run;
    const int64_t *at = k->answers.offsets, most = rows_at_once(k, prompt->offsets[1] - prompt->offsets[0]);
    nm_tensor first = begin(k, queries, prompt, most);
    noema_status st = nm_session_error(k->s, err);
    nm_ranked *list = st == NOEMA_OK ? nm_rank_first(&k->answers, 0, first.data) : NULL;
    if (st == NOEMA_OK && !list)
        st = nm_fail(err, NOEMA_E_MEMORY, "out of memory: answers");
    for (int64_t from = 0, to; st == NOEMA_OK && from < k->candidates; from = to) {
        int64_t rows = 0;
        for (to = from; to < k->candidates && to - from < most - 1 && (to == from || rows < ROWS_PER_FORWARD); to++)
            rows += at[list[to].answer + 1] - at[list[to].answer];
        score_some(k, list, from, to);
        st = nm_run_ok(r) ? NOEMA_OK : nm_session_error(k->s, err);
    }
    if (st == NOEMA_OK) {
        nm_rank_sort(list, k->candidates);
        st = nm_rank_take(list, k->candidates, k->text, out, err);
    }
    free(list);
    return st;
}

noema_status nm_blip2_rank(noema_session *s, nm_tensor pixels, const char *const *prompts, int32_t end, const noema_generate_options *o, noema_generated *out,
                           noema_error *err)
{
    ranking k = { .s = s, .m = (const nm_blip2 *)s->model->m, .text = o->answers, .answers = { .n = (int64_t)o->n_answers } };
    int64_t most = o->candidates > 0 ? o->candidates : 128, n = pixels.shape[0], q = k.m->cfg.qformer.queries;
    nm_texts ids;
    k.candidates = most < k.answers.n ? most : k.answers.n;
    noema_status st = answer_ids(&k, end, err);
    if (st == NOEMA_OK)
        st = nm_blip2_prompt_ids(s, n, prompts, &ids, err);
    if (st == NOEMA_OK) {
        nm_run *r = nm_session_run(s);
        nm_tensor queries = nm_blip2_queries(r, k.m, nm_blip2_image_states(r, k.m, pixels), NULL);
        st = nm_session_error(s, err);
        for (int64_t i = 0; i < n && st == NOEMA_OK; i++) {
            nm_arena_mark mark = nm_mark(r);
            nm_texts one = { .n = 1, .offsets = ids.offsets + i, .ids = ids.ids, .pad_id = ids.pad_id };
            st = rank_one(&k, nm_rows(queries, i * q, (i + 1) * q), &one, &out[i], err);
            nm_reset(r, mark);
        }
    }
    free(k.ids);
    free(k.offsets);
    return st;
}
