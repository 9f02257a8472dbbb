/* blip2_tasks.c - matching, captions and answers of BLIP-2; answers of a list: blip2_rank.c. Sources: salesforce/LAVIS blip2_models/{blip2_qformer,blip2_image_text_matching,
 * blip2_opt,blip2_t5}.py; transformers modeling_blip_2.py, processing_blip_2.py.
 *
 * Easy to get wrong: the authors' OPT ends at a line feed; their row begins with one id that counts in lengths and scores, transformers' 5
 * with the placeholders and the prompt, which the repetition penalty sees too. */
#include <stdlib.h>
#include <string.h>

#include "generate/blip2_tasks.h"
#include "models/blip2.h"

#define MOST_PICTURES 16
#define CACHE_BYTES ((size_t)768 << 20) /* keys and values of the pictures that are decoded together */
#define ROWS_PER_FORWARD 4096           /* query and text rows of one joint pass */

static const nm_blip2 *model_of(const noema_session *s) { return (const nm_blip2 *)s->model->m; }

static unsigned blip2_tasks(const nm_model *base)
{
    const nm_blip2_cfg *c = &((const nm_blip2 *)base)->cfg;
    unsigned text = c->lm ? NOEMA_TASK_CAPTION | NOEMA_TASK_ASK : c->qformer.head ? NOEMA_TASK_CAPTION : 0;
    return (c->has_itc || c->has_itm ? NOEMA_TASK_MATCH : 0) | (c->has_itm ? NOEMA_TASK_ITM : 0) | text;
}

static bool blip2_temperature(const nm_model *base, double *temp)
{
    const nm_blip2_cfg *c = &((const nm_blip2 *)base)->cfg;
    *temp = (double)c->temp;
    return c->has_temp && c->temp > 0;
}

static int64_t blip2_text_limit(const nm_model *base) { return ((const nm_blip2 *)base)->cfg.text_limit; }

/* ---- ITM ---- */

/* Texts [from, *to) before `end` whose rows and queries stay below the limit; at least one. */
static nm_texts some_texts(const nm_texts *t, int64_t from, int64_t end, int64_t *to, int64_t queries)
{
    *to = from + 1;
    while (*to < end && t->offsets[*to + 1] - t->offsets[from] + (*to + 1 - from) * queries <= ROWS_PER_FORWARD)
        ++*to;
    return (nm_texts){ .n = *to - from, .offsets = t->offsets + from, .ids = t->ids, .pad_id = t->pad_id };
}

static noema_status blip2_itm(noema_session *s, nm_tensor pixels, const nm_texts *texts, const size_t *own, const noema_match_options *o, float *scores,
                              float *probs, noema_error *err)
{
    const nm_blip2 *m = model_of(s);
    if (o->first_token == 1)
        return nm_fail(err, NOEMA_E_ARGUMENT, "%s: BLIP-2 has no [ENC]: its texts begin with [CLS]", s->model->name);
    nm_run *r = nm_session_run(s);
    nm_tensor states = nm_blip2_image_states(r, m, pixels);
    for (int64_t i = 0; nm_run_ok(r) && i < pixels.shape[0]; i++) {
        nm_text_span span = nm_texts_of(texts, own, i);
        for (int64_t from = span.first, to; nm_run_ok(r) && from < span.end; from = to) {
            nm_arena_mark mark = nm_mark(r);
            nm_texts part = some_texts(texts, from, span.end, &to, m->cfg.qformer.queries);
            nm_tensor logits = nm_blip2_itm(r, m, nm_rows(states, i, i + 1), &part, m->cfg.text_limit);
            nm_second_logits(logits, scores + span.at + from, probs + span.at + from);
            nm_reset(r, mark);
        }
    }
    return nm_session_error(s, err);
}

/* ---- rules ---- */

/* The id that ends a text where the configuration does not say: the authors' OPT stops at a line feed, stage 1 at [SEP]. */
static noema_status end_id(noema_session *s, nm_rules *rules, noema_error *err)
{
    const nm_tokenizer *t = nm_model_tokenizer(s->model, err);
    const char *line = "\n";
    nm_texts ids;
    if (!t)
        return err ? err->code : NOEMA_E_MISSING;
    if (model_of(s)->cfg.lm == NM_LM_NONE) {
        rules->eos = noema_tokenizer_special_ids(t).sep;
        return NOEMA_OK;
    }
    if (rules->eos >= 0)
        return NOEMA_OK;
    noema_status st = nm_session_tokenize(s, 1, &line, NULL, &ids, err);
    if (st == NOEMA_OK && ids.offsets[1] < 1)
        st = nm_fail(err, NOEMA_E_MISMATCH, "%s: the tokenizer has no id for a line feed, at which OPT's texts end", s->model->name);
    if (st == NOEMA_OK)
        rules->eos = ids.ids[ids.offsets[1] - 1];
    return st;
}

/* ---- language models as a step callback ---- */

typedef struct lm_decoder {
    noema_session *s;
    nm_blip2_prefix prefix;
    nm_tensor *memory;  /* T5: keys and values of the encoder's rows */
    nm_kv_cache cache;
    nm_arena_mark mark; /* everything of one step lies behind it */
} lm_decoder;

static float *lm_step(void *user, int64_t n, const int64_t *parent, const int32_t *ids, const int64_t *offsets, noema_error *err)
{
    lm_decoder *d = user;
    const nm_blip2 *m = model_of(d->s);
    nm_run *r = &d->s->run;
    bool opt = m->cfg.lm == NM_LM_OPT, begin = opt && !parent; /* OPT's row begins with the pictures' queries and the prompt */
    nm_reset(r, d->mark);
    const int64_t *at = begin ? d->prefix.offsets : offsets;
    nm_tensor x = begin ? d->prefix.rows : nm_blip2_words(r, m, ids, offsets[n]);
    x = opt ? nm_opt_step(r, &m->opt, &m->cfg.opt, &d->cache, n, parent, x, at)
            : nm_t5_step(r, &m->t5, &m->cfg.t5, &d->cache, d->memory, d->prefix.offsets, n, parent, x, at);
    int64_t *last = nm_scratch(r, (size_t)n * sizeof *last);
    for (int64_t i = 0; last && i < n; i++)
        last[i] = at[i + 1] - 1;
    x = nm_gather_rows(r, x, last, n);
    nm_tensor logits = opt ? nm_opt_logits(r, &m->opt, &m->cfg.opt, x) : nm_t5_logits(r, &m->t5, &m->cfg.t5, x);
    return nm_session_error(d->s, err) == NOEMA_OK ? logits.data : NULL;
}

/* The row that the search sees: in newer folders of OPT placeholders and prompt, else the one id that begins it. */
typedef struct rows { int32_t *ids; int64_t *offsets; int64_t longest; /* with keys of the cache */ } rows;

static bool search_rows(nm_run *r, const nm_blip2 *m, const nm_texts *prompts, const nm_rules *rules, rows *w)
{
    const nm_blip2_cfg *c = &m->cfg;
    bool whole = c->lm == NM_LM_OPT && c->image_token >= 0;
    int64_t n = prompts->n, q = c->qformer.queries, at = 0;
    w->ids = nm_scratch(r, (size_t)(n * (q + 1) + prompts->offsets[n] - prompts->offsets[0]) * sizeof *w->ids);
    w->offsets = nm_scratch(r, (size_t)(n + 1) * sizeof *w->offsets);
    w->longest = 0;
    if (!nm_run_ok(r))
        return false;
    for (int64_t i = 0; i < n; i++) {
        int64_t begin = prompts->offsets[i], ids = prompts->offsets[i + 1] - begin;
        w->offsets[i] = at;
        for (int64_t j = 0; whole && j < q; j++)
            w->ids[at++] = c->image_token;
        if (whole)
            memcpy(w->ids + at, prompts->ids + begin, (size_t)ids * sizeof *w->ids);
        else
            w->ids[at] = c->bos;
        at += whole ? ids : 1;
        w->offsets[i + 1] = at;
        int64_t row = at - w->offsets[i], fresh = nm_generate_max_length(rules, 1, w->offsets + i) - row;
        int64_t keys = (c->lm == NM_LM_OPT ? q + ids : row) + (fresh > 0 ? fresh : 0);
        w->longest = keys > w->longest ? keys : w->longest;
    }
    if (c->lm == NM_LM_OPT && w->longest > c->opt.positions - NM_OPT_OFFSET) {
        nm_run_fail(r, NOEMA_E_ARGUMENT, "%lld ids of picture, prompt and answer: the language model has %d positions", (long long)w->longest,
                    c->opt.positions - NM_OPT_OFFSET);
        return false;
    }
    return true;
}

noema_status nm_blip2_lm_generate(noema_session *s, nm_tensor pixels, const nm_texts *prompts, const nm_rules *rules, nm_generation *out,
                                  noema_error *err)
{
    const nm_blip2 *m = model_of(s);
    const nm_blip2_cfg *c = &m->cfg;
    nm_run *r = nm_session_run(s);
    lm_decoder d = { .s = s };
    nm_decoder decoder = { .user = &d, .vocab = c->lm == NM_LM_OPT ? c->opt.vocab_size : c->t5.vocab_size, .step = lm_step };
    rows w;
    nm_tensor queries = nm_blip2_queries(r, m, nm_blip2_image_states(r, m, pixels), NULL);
    d.prefix = nm_blip2_prefix_rows(r, m, queries, prompts);
    if (nm_run_ok(r) && c->lm == NM_LM_T5)
        d.memory = nm_t5_project(r, &m->t5, &m->cfg.t5, d.prefix.rows);
    int layers = c->lm == NM_LM_OPT ? c->opt.layers : c->t5.decoder_layers;
    int64_t width = c->lm == NM_LM_OPT ? c->opt.width : c->t5.inner;
    if (search_rows(r, m, prompts, rules, &w) &&
        nm_kv_init(r, &d.cache, layers, 2 * width, prompts->n, nm_generate_max_rows(rules, prompts->n), w.longest))
        d.mark = nm_mark(r);
    noema_status st = nm_session_error(s, err);
    if (st == NOEMA_OK)
        st = nm_generate(&decoder, prompts->n, w.ids, w.offsets, rules, out, err);
    for (int64_t i = 0; st == NOEMA_OK && i < prompts->n; i++)
        for (int k = 0; k < out[i].n; k++) {
            nm_hypothesis *h = &out[i].best[k];
            int64_t row = w.offsets[i + 1] - w.offsets[i];
            h->n -= row;
            memmove(h->ids, h->ids + row, (size_t)h->n * sizeof *h->ids);
        }
    return st;
}

/* How many pictures are decoded together: as many as keep their keys and values below CACHE_BYTES. */
static int64_t part_size(noema_session *s, const nm_texts *prompts, const nm_rules *rules)
{
    const nm_blip2_cfg *c = &model_of(s)->cfg;
    int64_t zero[2] = { 0, 1 }, most = 0;
    for (int64_t i = 0; i < prompts->n; i++) {
        int64_t ids = prompts->offsets[i + 1] - prompts->offsets[i];
        most = ids > most ? ids : most;
    }
    int64_t length = nm_generate_max_length(rules, 1, zero) + (c->lm == NM_LM_OPT ? c->qformer.queries + most : 0);
    size_t one = c->lm == NM_LM_OPT ? nm_kv_bytes(&s->run, c->opt.layers, 2 * (int64_t)c->opt.width, nm_generate_max_rows(rules, 1), length)
                                    : nm_kv_bytes(&s->run, c->t5.decoder_layers, 2 * (int64_t)c->t5.inner, nm_generate_max_rows(rules, 1), length);
    int64_t n = one ? (int64_t)(CACHE_BYTES / one) : 1;
    return n < 1 ? 1 : n;
}

static noema_status lm_generate(noema_session *s, nm_tensor pixels, const nm_texts *prompts, const nm_rules *rules, noema_generated *out, noema_error *err)
{
    nm_generation g[MOST_PICTURES] = { { 0 } };
    int64_t n = pixels.shape[0], size = part_size(s, prompts, rules);
    noema_status st = NOEMA_OK;
    for (int64_t from = 0, to; st == NOEMA_OK && from < n; from = to) {
        to = from + size < n ? from + size : n;
        nm_texts part = { .n = to - from, .offsets = prompts->offsets + from, .ids = prompts->ids, .pad_id = prompts->pad_id };
        nm_rules own = *rules;
        own.seeds = rules->seeds ? rules->seeds + from : NULL;
        st = nm_blip2_lm_generate(s, nm_rows(pixels, from, to), &part, &own, g + from, err);
    }
    for (int64_t i = 0; st == NOEMA_OK && i < n; i++)
        st = nm_generated_take(s, &g[i], 0, &out[i], err);
    nm_generation_free(g, MOST_PICTURES);
    return st;
}

/* ---- prompts ---- */

noema_status nm_blip2_prompt_ids(noema_session *s, int64_t n, const char *const *texts, nm_texts *out, noema_error *err)
{
    const nm_blip2_cfg *c = &model_of(s)->cfg;
    noema_status st = nm_session_tokenize(s, (size_t)n, texts, NULL, out, err);
    if (st != NOEMA_OK)
        return st;
    int vocab = c->lm == NM_LM_OPT ? c->opt.vocab_size : c->t5.vocab_size;
    int64_t at = 0, begin = 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t end = s->offsets[i + 1], keep = c->prompt_limit && end - begin > c->prompt_limit ? c->prompt_limit : end - begin;
        memmove(s->ids + at, s->ids + begin, (size_t)keep * sizeof *s->ids);
        for (int64_t j = at; j < at + keep; j++)
            if (s->ids[j] < 0 || s->ids[j] >= vocab)
                return nm_fail(err, NOEMA_E_MISMATCH, "%s: id %d of the tokenizer is outside the language model's vocabulary of %d", s->model->name,
                               s->ids[j], vocab);
        begin = end;
        s->offsets[i + 1] = at += keep;
    }
    return NOEMA_OK;
}

static noema_status lm_caption(noema_session *s, nm_tensor pixels, const noema_generate_options *o, noema_generated *out, noema_error *err)
{
    nm_rules rules = nm_rules_of(&model_of(s)->cfg.rules, model_of(s)->cfg.eos);
    const char *text[MOST_PICTURES];
    nm_texts prompts;
    noema_status st = end_id(s, &rules, err);
    nm_rules_apply(&rules, o);
    for (int64_t i = 0; i < pixels.shape[0]; i++)
        text[i] = o->prompt ? o->prompt : "";
    if (st == NOEMA_OK)
        st = nm_blip2_prompt_ids(s, pixels.shape[0], text, &prompts, err);
    return st == NOEMA_OK ? lm_generate(s, pixels, &prompts, &rules, out, err) : st;
}

/* predict_answers(): 5 beams, 10 new ids, scores divided by length^0 (OPT) or ^-1 (T5). */
static nm_rules answer_rules(const nm_blip2 *m)
{
    nm_rules rules = nm_rules_of(&m->cfg.rules, m->cfg.eos);
    if (m->cfg.scheme == NM_BLIP2_OFFICIAL) {
        rules.max_new = 10;
        rules.length_penalty = m->cfg.lm == NM_LM_OPT ? 0 : -1;
    }
    return rules;
}

static noema_status blip2_ask(noema_session *s, nm_tensor pixels, const char *const *questions, const noema_generate_options *o, noema_generated *out,
                              noema_error *err)
{
    nm_rules rules = answer_rules(model_of(s));
    char *text[MOST_PICTURES] = { NULL };
    nm_texts prompts;
    int64_t n = pixels.shape[0];
    noema_status st = end_id(s, &rules, err);
    nm_rules_apply(&rules, o);
    for (int64_t i = 0; i < n && st == NOEMA_OK; i++)
        if (!(text[i] = nm_fill_template(o->prompt ? o->prompt : "Question: {} Short answer:", questions[i])))
            st = nm_fail(err, NOEMA_E_MEMORY, "out of memory: questions");
    if (st == NOEMA_OK && o->n_answers)
        st = nm_blip2_rank(s, pixels, (const char *const *)text, rules.eos, o, out, err);
    if (st == NOEMA_OK && !o->n_answers)
        st = nm_blip2_prompt_ids(s, n, (const char *const *)text, &prompts, err);
    if (st == NOEMA_OK && !o->n_answers)
        st = lm_generate(s, pixels, &prompts, &rules, out, err);
    for (int64_t i = 0; i < n; i++)
        free(text[i]);
    return st;
}

/* ---- stage 1: the Q-Former writes ---- */

typedef struct qformer_decoder { noema_session *s; nm_kv_cache cache; nm_arena_mark mark; } qformer_decoder;

static float *qformer_step(void *user, int64_t n, const int64_t *parent, const int32_t *ids, const int64_t *offsets, noema_error *err)
{
    qformer_decoder *d = user;
    const nm_blip2 *m = model_of(d->s);
    nm_run *r = &d->s->run;
    nm_reset(r, d->mark);
    nm_tensor x = nm_qformer_step(r, &m->qformer, &m->cfg.qformer, &d->cache, n, parent, ids, offsets);
    int64_t *last = nm_scratch(r, (size_t)n * sizeof *last);
    for (int64_t i = 0; last && i < n; i++)
        last[i] = offsets[i + 1] - 1;
    nm_tensor logits = nm_qformer_logits(r, &m->qformer, &m->cfg.qformer, nm_gather_rows(r, x, last, n));
    return nm_session_error(d->s, err) == NOEMA_OK ? logits.data : NULL;
}

noema_status nm_blip2_qformer_generate(noema_session *s, nm_tensor pixels, const int32_t *prompt, int64_t length, const nm_rules *rules,
                                       nm_generation *out, noema_error *err)
{
    const nm_blip2 *m = model_of(s);
    const nm_qformer_cfg *c = &m->cfg.qformer;
    nm_run *r = nm_session_run(s);
    int64_t items = pixels.shape[0], *offsets = nm_every_row(r, items + 1, length, 0);
    int32_t *prompts = nm_scratch(r, (size_t)(items * length) * sizeof *prompts);
    for (int64_t i = 0; prompts && i < items; i++)
        memcpy(prompts + i * length, prompt, (size_t)length * sizeof *prompt);
    int64_t most = nm_run_ok(r) ? nm_generate_max_length(rules, items, offsets) : 0;
    if (most > c->max_positions)
        return nm_fail(err, NOEMA_E_ARGUMENT, "%s: at most %d ids, got %lld: the Q-Former has no more positions", s->model->name, c->max_positions,
                       (long long)most);
    qformer_decoder d = { .s = s };
    nm_decoder decoder = { .user = &d, .vocab = c->vocab_size, .step = qformer_step };
    if (nm_kv_init(r, &d.cache, c->layers, 2 * (int64_t)c->width, items, nm_generate_max_rows(rules, items), c->queries + most))
        nm_blip2_queries(r, m, nm_blip2_image_states(r, m, pixels), &d.cache);
    noema_status st = nm_session_error(s, err);
    d.mark = nm_mark(r);
    return st == NOEMA_OK ? nm_generate(&decoder, items, prompts, offsets, rules, out, err) : st;
}

static noema_status qformer_caption(noema_session *s, nm_tensor pixels, const noema_generate_options *o, noema_generated *out, noema_error *err)
{
    nm_rules rules = nm_rules_of(&model_of(s)->cfg.rules, model_of(s)->cfg.eos);
    nm_generation g[MOST_PICTURES] = { { 0 } };
    int32_t *prompt = NULL;
    int64_t length = 0;
    char *decoded = NULL; /* the prompt's part of the decoded text is taken off again */
    noema_status st = end_id(s, &rules, err);
    if (rules.max_length > model_of(s)->cfg.qformer.max_positions) /* a default is no request */
        rules.max_length = model_of(s)->cfg.qformer.max_positions;
    nm_rules_apply(&rules, o);
    if (st == NOEMA_OK)
        st = nm_first_ids(s, o->prompt, nm_blip2_dec_id(s->model->tokenizer), &prompt, &length, err);
    if (st == NOEMA_OK)
        st = nm_session_decode(s, prompt, length, &decoded, err);
    if (st == NOEMA_OK)
        st = nm_blip2_qformer_generate(s, pixels, prompt, length, &rules, g, err);
    for (int64_t i = 0; st == NOEMA_OK && i < pixels.shape[0]; i++)
        st = nm_generated_take(s, &g[i], nm_code_points(decoded), &out[i], err);
    nm_generation_free(g, MOST_PICTURES);
    free(prompt);
    free(decoded);
    return st;
}

static noema_status blip2_caption(noema_session *s, nm_tensor pixels, const noema_generate_options *o, noema_generated *out, noema_error *err)
{
    if (pixels.shape[0] > MOST_PICTURES)
        return nm_fail(err, NOEMA_E_INTERNAL, "a batch of %lld pictures", (long long)pixels.shape[0]);
    return model_of(s)->cfg.lm ? lm_caption(s, pixels, o, out, err) : qformer_caption(s, pixels, o, out, err);
}

const nm_tasks nm_tasks_blip2 = { .family = &nm_family_blip2, .tasks = blip2_tasks, .temperature = blip2_temperature, .text_limit = blip2_text_limit,
                                  .itm = blip2_itm, .caption = blip2_caption, .ask = blip2_ask };
