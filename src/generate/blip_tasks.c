/* blip_tasks.c - matching and captions of BLIP; answers: blip_ask.c. Sources: salesforce/BLIP models/{blip,blip_itm,blip_nlvr}.py. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "generate/blip_tasks.h"
#include "models/blip.h"

#define ROWS_PER_FORWARD 4096 /* text rows: 35 ids, about a hundred texts */

static unsigned blip_tasks(const nm_model *base)
{
    const nm_blip_cfg *c = &((const nm_blip *)base)->cfg;
    unsigned text = !c->has_decoder ? 0 : c->vqa ? NOEMA_TASK_ASK : NOEMA_TASK_CAPTION;
    return (c->has_itc || c->has_itm || c->nlvr ? NOEMA_TASK_MATCH : 0) | (c->has_itm ? NOEMA_TASK_ITM : 0) | (c->nlvr ? NOEMA_TASK_PAIR : 0) | text;
}

static bool blip_temperature(const nm_model *base, double *temp)
{
    const nm_blip_cfg *c = &((const nm_blip *)base)->cfg;
    *temp = (double)c->temp;
    return c->has_temp && c->temp > 0;
}

noema_status nm_blip_first_id(noema_session *s, int choice, int32_t *id, noema_error *err)
{
    const nm_blip *m = (const nm_blip *)s->model->m;
    const nm_tokenizer *t = nm_model_tokenizer(s->model, err);
    if (!t)
        return err ? err->code : NOEMA_E_MISSING;
    bool cls = choice == 2 || (choice == 0 && m->cfg.cls_first);
    *id = cls ? -1 : nm_blip_enc_id(t);
    return NOEMA_OK;
}

/* Texts [from, *to) before `end` that stay below the row limit; at least one. */
static nm_texts some_texts(const nm_texts *t, int64_t from, int64_t end, int64_t *to)
{
    *to = from + 1;
    while (*to < end && t->offsets[*to + 1] - t->offsets[from] <= ROWS_PER_FORWARD)
        ++*to;
    return (nm_texts){ .n = *to - from, .offsets = t->offsets + from, .ids = t->ids, .pad_id = t->pad_id };
}

static noema_status blip_itm(noema_session *s, nm_tensor pixels, const nm_texts *texts, const size_t *own, const noema_match_options *o, float *scores,
                             float *probs, noema_error *err)
{
    const nm_blip *m = (const nm_blip *)s->model->m;
    int32_t first = -1;
    noema_status st = nm_blip_first_id(s, o->first_token, &first, err);
    if (st != NOEMA_OK)
        return st;
    nm_run *r = nm_session_run(s);
    nm_tensor states = nm_blip_image_states(r, m, pixels);
    int64_t pictures = m->cfg.nlvr ? pixels.shape[0] / 2 : pixels.shape[0];
    for (int64_t i = 0; nm_run_ok(r) && i < pictures; i++) {
        nm_text_span span = nm_texts_of(texts, own, i);
        for (int64_t from = span.first, to; nm_run_ok(r) && from < span.end; from = to) {
            nm_arena_mark mark = nm_mark(r);
            nm_texts part = some_texts(texts, from, span.end, &to);
            nm_tensor logits = m->cfg.nlvr ? nm_blip_nlvr(r, m, nm_rows(states, 2 * i, 2 * i + 2), &part, first) : nm_blip_itm(r, m, nm_rows(states, i, i + 1), &part, first);
            nm_second_logits(logits, scores + span.at + from, probs + span.at + from);
            nm_reset(r, mark);
        }
    }
    return nm_session_error(s, err);
}

/* ---- the decoder as a step callback ---- */

typedef struct blip_decoder {
    noema_session *s;
    nm_med_cache cache;
    nm_arena_mark mark; /* everything of one step lies behind it */
} blip_decoder;

static float *decoder_step(void *user, int64_t n, const int64_t *parent, const int32_t *ids, const int64_t *offsets, noema_error *err)
{
    blip_decoder *d = user;
    const nm_blip *m = (const nm_blip *)d->s->model->m;
    nm_run *r = &d->s->run;
    nm_reset(r, d->mark);
    nm_tensor x = nm_med_step(r, &d->cache, n, parent, ids, offsets);
    int64_t *last = nm_scratch(r, (size_t)n * sizeof *last);
    for (int64_t i = 0; last && i < n; i++)
        last[i] = offsets[i + 1] - 1;
    nm_tensor logits = nm_med_logits(r, &m->lm, &m->cfg.decoder, nm_gather_rows(r, x, last, n));
    return nm_session_error(d->s, err) == NOEMA_OK ? logits.data : NULL;
}

/* Nucleus sampling has its own penalty in models/blip.py. */
nm_rules nm_blip_rules(noema_session *s, const noema_generate_options *o)
{
    const nm_blip_cfg *c = &((const nm_blip *)s->model->m)->cfg;
    nm_rules r = nm_rules_of(&c->rules, c->eos);
    if (o->sample && c->scheme == NM_BLIP_OFFICIAL && !c->vqa)
        r.repetition_penalty = 1.1;
    if (r.max_length > c->decoder.max_positions) /* a default is no request: transformers cuts it likewise */
        r.max_length = c->decoder.max_positions;
    nm_rules_apply(&r, o);
    noema_tokenizer_ids special = noema_tokenizer_special_ids(s->model->tokenizer);
    if (c->scheme == NM_BLIP_OFFICIAL && special.sep >= 0)
        r.eos = special.sep;
    return r;
}

noema_status nm_blip_generate(noema_session *s, nm_tensor states, const int64_t *state_offsets, int64_t items, const int32_t *prompts,
                              const int64_t *offsets, const nm_rules *rules, nm_generation *out, noema_error *err)
{
    const nm_blip *m = (const nm_blip *)s->model->m;
    const nm_med_cfg *c = &m->cfg.decoder;
    nm_run *r = &s->run;
    blip_decoder d = { .s = s };
    nm_decoder decoder = { .user = &d, .vocab = c->vocab_size, .step = decoder_step };
    int64_t length = nm_generate_max_length(rules, items, offsets);
    if (length > c->max_positions)
        return nm_fail(err, NOEMA_E_ARGUMENT, "%s: at most %d ids, got %lld: the decoder has no more positions", s->model->name, c->max_positions,
                       (long long)length);
    if (nm_med_cache_init(r, &d.cache, &m->decoder, c, states, state_offsets, items, nm_generate_max_rows(rules, items), length))
        d.mark = nm_mark(r);
    noema_status st = nm_session_error(s, err);
    return st == NOEMA_OK ? nm_generate(&decoder, items, prompts, offsets, rules, out, err) : st;
}

/* ---- captions ---- */

/* [DEC] and the prompt's ids without the end, at the start of ids (malloc'd). *cut: code points that the prompt takes in the decoded text: in
 * the authors' code the prompt's own length ("a picture of " with its space); where the prompt does not come back as it was
 * given, and in folders, what it decodes to. */
static noema_status caption_prompt(noema_session *s, const char *prompt, int32_t **ids, int64_t *n, size_t *cut, noema_error *err)
{
    const nm_blip *m = (const nm_blip *)s->model->m;
    const nm_tokenizer *t = nm_model_tokenizer(s->model, err);
    char *decoded = NULL;
    if (!t)
        return err ? err->code : NOEMA_E_MISSING;
    noema_status st = nm_first_ids(s, prompt, nm_blip_dec_id(m, t), ids, n, err);
    if (st == NOEMA_OK)
        st = nm_session_decode(s, *ids, *n, &decoded, err);
    if (st != NOEMA_OK)
        return st;
    size_t same = strlen(decoded);
    bool back = prompt && strncmp(prompt, decoded, same) == 0 && strspn(prompt + same, " ") == strlen(prompt + same);
    *cut = back && m->cfg.scheme == NM_BLIP_OFFICIAL ? nm_code_points(prompt) : nm_code_points(decoded);
    free(decoded);
    return NOEMA_OK;
}

static noema_status caption_states(noema_session *s, nm_tensor pixels, const int32_t *prompt, int64_t length, const nm_rules *rules, nm_generation *out,
                                   noema_error *err)
{
    const nm_blip *m = (const nm_blip *)s->model->m;
    int64_t items = pixels.shape[0];
    nm_run *r = nm_session_run(s);
    nm_tensor states = nm_blip_image_states(r, m, pixels);
    int32_t *prompts = nm_scratch(r, (size_t)(items * length) * sizeof *prompts);
    int64_t *offsets = nm_every_row(r, items + 1, length, 0), *keys = nm_every_row(r, items + 1, states.data ? states.shape[1] : 0, 0);
    for (int64_t i = 0; prompts && i < items; i++)
        memcpy(prompts + i * length, prompt, (size_t)length * sizeof *prompt);
    noema_status st = nm_session_error(s, err);
    return st == NOEMA_OK ? nm_blip_generate(s, nm_flatten(states, 2), keys, items, prompts, offsets, rules, out, err) : st;
}

static noema_status blip_caption(noema_session *s, nm_tensor pixels, const noema_generate_options *o, noema_generated *out, noema_error *err)
{
    const nm_blip *m = (const nm_blip *)s->model->m;
    int64_t items = pixels.shape[0], length = 0;
    int32_t *prompt = NULL;
    size_t cut = 0;
    nm_generation g[16] = { { 0 } };
    noema_status st = items <= 16 ? caption_prompt(s, o->prompt ? o->prompt : m->cfg.prompt, &prompt, &length, &cut, err)
                                  : nm_fail(err, NOEMA_E_INTERNAL, "a batch of %lld pictures", (long long)items);
    if (st == NOEMA_OK) {
        nm_rules rules = nm_blip_rules(s, o);
        st = caption_states(s, pixels, prompt, length, &rules, g, err);
    }
    for (int64_t i = 0; st == NOEMA_OK && i < items; i++)
        st = nm_generated_take(s, &g[i], cut, &out[i], err);
    nm_generation_free(g, 16);
    free(prompt);
    return st;
}

const nm_tasks nm_tasks_blip = { .family = &nm_family_blip, .tasks = blip_tasks, .temperature = blip_temperature, .itm = blip_itm,
                                 .caption = blip_caption, .ask = nm_blip_ask };
