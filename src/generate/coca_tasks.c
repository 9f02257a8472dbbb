/* coca_tasks.c - captions of open_clip's CoCa (coca_model.py, generate): start token, then the decoder's argmax, a beam or a sample. Each step
 * computes the whole text again, as the reference does: its texts are a few dozen ids. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "generate/tasks.h"
#include "models/clip.h"

#define MOST_PICTURES 16

static unsigned coca_tasks(const nm_model *base)
{
    (void)base;
    return NOEMA_TASK_CAPTION;
}

/* Live rows: what each has so far and which picture it looks at. Two sets, since the next one is built from parents. */
typedef struct rows { int32_t *ids; int64_t *length, *item; } rows;
typedef struct coca_decoder {
    noema_session *s;
    nm_tensor image;   /* f32 [items, tokens, width] */
    nm_arena_mark mark;
    int64_t most_length;
    rows now, next;
} coca_decoder;

static bool rows_new(rows *w, int64_t n, int64_t length)
{
    size_t ids;
    if (!nm_mul_size((size_t)n, (size_t)length, &ids))
        return false;
    w->ids = nm_malloc_array(ids + 1, sizeof *w->ids);
    w->length = nm_malloc_array((size_t)n + 1, sizeof *w->length);
    w->item = nm_malloc_array((size_t)n + 1, sizeof *w->item);
    return w->ids && w->length && w->item;
}

static void rows_free(rows *w)
{
    free(w->ids);
    free(w->length);
    free(w->item);
}

/* next = the parents' rows with the new ids behind them. */
static bool advance(coca_decoder *d, int64_t n, const int64_t *parent, const int32_t *ids, const int64_t *offsets)
{
    for (int64_t i = 0; i < n; i++) {
        int64_t have = parent ? d->now.length[parent[i]] : 0, more = offsets[i + 1] - offsets[i];
        int32_t *row = d->next.ids + i * d->most_length;
        if (have + more > d->most_length)
            return false;
        if (have)
            memcpy(row, d->now.ids + parent[i] * d->most_length, (size_t)have * sizeof *row);
        memcpy(row + have, ids + offsets[i], (size_t)more * sizeof *row);
        d->next.length[i] = have + more;
        d->next.item[i] = parent ? d->now.item[parent[i]] : i;
    }
    rows t = d->now;
    d->now = d->next;
    d->next = t;
    return true;
}

static float *decoder_step(void *user, int64_t n, const int64_t *parent, const int32_t *ids, const int64_t *offsets, noema_error *err)
{
    coca_decoder *d = user;
    nm_run *r = &d->s->run;
    nm_reset(r, d->mark);
    if (!advance(d, n, parent, ids, offsets)) {
        nm_fail(err, NOEMA_E_INTERNAL, "a caption of more than %lld ids", (long long)d->most_length);
        return NULL;
    }
    int64_t tokens = d->image.shape[1], total = 0, *begin = nm_scratch(r, (size_t)(n + 1) * sizeof *begin);
    int64_t *from = nm_scratch(r, (size_t)(n * tokens) * sizeof *from);
    int32_t *flat = nm_scratch(r, (size_t)(n * d->most_length) * sizeof *flat);
    for (int64_t i = 0; begin && from && flat && i < n; i++) {
        begin[i] = total;
        memcpy(flat + total, d->now.ids + i * d->most_length, (size_t)d->now.length[i] * sizeof *flat);
        total += d->now.length[i];
        begin[i + 1] = total;
        for (int64_t k = 0; k < tokens; k++)
            from[i * tokens + k] = d->now.item[i] * tokens + k;
    }
    nm_tensor logits = { 0 };
    if (nm_run_ok(r)) {
        nm_texts t = { .n = n, .offsets = begin, .ids = flat, .pad_id = -1 };
        nm_tensor image = nm_gather_rows(r, nm_flatten(d->image, 2), from, n * tokens);
        logits = nm_clip_caption_logits(r, (const nm_clip *)d->s->model->m, nm_reshape(image, NM_SHAPE(n, tokens, d->image.shape[2])), &t, NM_COCA_LAST);
    }
    return nm_session_error(d->s, err) == NOEMA_OK ? logits.data : NULL;
}

/* The start id and the ids of a prompt, without the end. */
static noema_status start_ids(noema_session *s, const char *prompt, int32_t *ids, int64_t most, int64_t *n, noema_error *err)
{
    const nm_tokenizer *t = nm_model_tokenizer(s->model, err);
    const char *text = prompt ? prompt : "";
    nm_texts x;
    if (!t)
        return err ? err->code : NOEMA_E_MISSING;
    noema_status st = nm_session_tokenize(s, 1, &text, NULL, &x, err);
    if (st != NOEMA_OK)
        return st;
    *n = x.offsets[1] - 1;
    if (*n < 1 || *n > most)
        return nm_fail(err, NOEMA_E_ARGUMENT, "%s: a prompt of %lld ids", s->model->name, (long long)*n);
    memcpy(ids, x.ids, (size_t)*n * sizeof *ids);
    return NOEMA_OK;
}

static noema_status generate(noema_session *s, nm_tensor pixels, const int32_t *prompt, int64_t length, const nm_rules *rules, nm_generation *g,
                             noema_error *err)
{
    const nm_clip *m = (const nm_clip *)s->model->m;
    int64_t items = pixels.shape[0];
    nm_run *r = nm_session_run(s);
    coca_decoder d = { .s = s, .image = nm_clip_image_tokens(r, m, pixels, NULL) };
    int32_t *prompts = nm_scratch(r, (size_t)(items * length) * sizeof *prompts);
    int64_t *offsets = nm_every_row(r, items + 1, length, 0);
    noema_status st = nm_session_error(s, err);
    if (st != NOEMA_OK)
        return st;
    for (int64_t i = 0; i < items; i++)
        memcpy(prompts + i * length, prompt, (size_t)length * sizeof *prompt);
    d.mark = nm_mark(r);
    d.most_length = nm_generate_max_length(rules, items, offsets);
    int64_t most_rows = nm_generate_max_rows(rules, items), context = m->cfg.text.context_length;
    if (d.most_length > context || d.most_length < length)
        st = nm_fail(err, NOEMA_E_ARGUMENT, "%s: a caption has %lld to %lld ids, got %lld", s->model->name, (long long)length, (long long)context,
                     (long long)d.most_length);
    else if (!rows_new(&d.now, most_rows, d.most_length) || !rows_new(&d.next, most_rows, d.most_length))
        st = nm_fail(err, NOEMA_E_MEMORY, "out of memory: captions");
    nm_decoder decoder = { .user = &d, .vocab = m->cfg.decoder.vocab_size, .step = decoder_step };
    if (st == NOEMA_OK)
        st = nm_generate(&decoder, items, prompts, offsets, rules, g, err);
    rows_free(&d.now);
    rows_free(&d.next);
    return st;
}

static noema_status coca_caption(noema_session *s, nm_tensor pixels, const noema_generate_options *o, noema_generated *out, noema_error *err)
{
    const nm_clip *m = (const nm_clip *)s->model->m;
    int64_t items = pixels.shape[0], length = 0;
    int32_t prompt[64];
    nm_generation g[MOST_PICTURES] = { { 0 } };
    noema_status st = items <= MOST_PICTURES ? start_ids(s, o->prompt, prompt, 64, &length, err)
                                             : nm_fail(err, NOEMA_E_INTERNAL, "a batch of %lld pictures", (long long)items);
    if (st != NOEMA_OK)
        return st;
    int most = m->cfg.text.context_length < 30 ? m->cfg.text.context_length : 30; /* generate(): seq_len 30 */
    nm_rules rules = { .beams = 1, .max_length = most, .max_new = -1, .min_new = -1, .repetition_penalty = 1, .length_penalty = 1,
                       .release = NM_RELEASE_4_33, .eos = m->cfg.text.vocab_size - 1 };
    nm_rules_apply(&rules, o);
    char *decoded = NULL; /* the prompt's part of the decoded text is taken off again */
    st = nm_session_decode(s, prompt, length, &decoded, err);
    if (st == NOEMA_OK)
        st = generate(s, pixels, prompt, length, &rules, g, err);
    for (int64_t i = 0; st == NOEMA_OK && i < items; i++)
        st = nm_generated_take(s, &g[i], nm_code_points(decoded), &out[i], err);
    nm_generation_free(g, MOST_PICTURES);
    free(decoded);
    return st;
}

/* Beside model_cfg: "caption_cfg": {"languages": {"en": "en:", "ko": "ko:"}}. */
static const json_t *coca_languages(const nm_model *base)
{
    const json_t *j = nm_json_get(nm_json_get(((const nm_clip *)base)->config, "caption_cfg"), "languages");
    return json_is_object(j) ? j : NULL;
}

const nm_tasks nm_tasks_coca = { .family = &nm_family_coca, .tasks = coca_tasks, .caption = coca_caption, .languages = coca_languages };
