/* text.c - options, texts and results that every family's captions and answers share. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "generate/tasks.h"
#include "models/blip_common.h"
#include "tokenizer/text.h"

void noema_generate_options_default(noema_generate_options *o)
{
    memset(o, 0, sizeof *o);
    o->struct_size = sizeof *o;
    o->max_length = o->min_length = o->max_new = o->min_new = o->early_stopping = -1;
    o->length_penalty = NAN;
}

void noema_generated_free(noema_generated *g, size_t n)
{
    for (size_t i = 0; g && i < n; i++) {
        for (size_t k = 0; k < g[i].n_best; k++)
            free(g[i].best[k].text);
        free(g[i].best);
        free(g[i].text);
        g[i] = (noema_generated){ 0 };
    }
}

nm_rules nm_rules_of(const nm_blip_defaults *c, int eos)
{
    return (nm_rules){ .beams = c->beams, .max_length = c->max_length, .min_length = c->min_length, .max_new = c->max_new > 0 ? c->max_new : -1,
                       .min_new = c->min_new > 0 ? c->min_new : -1, .sample = c->sample, .top_k = c->top_k, .top_p = c->top_p,
                       .temperature = c->temperature, .repetition_penalty = c->repetition_penalty, .length_penalty = c->length_penalty,
                       .early_stopping = c->early_stopping, .release = c->beam_rule, .eos = eos };
}

void nm_rules_apply(nm_rules *r, const noema_generate_options *o)
{
    r->sample = o->sample || (r->sample && o->beams == 0);
    if (o->beams > 0)
        r->beams = o->beams;
    r->temperature = o->temperature > 0 ? o->temperature : r->temperature > 0 ? r->temperature : 1;
    r->top_k = o->top_k > 0 ? o->top_k : r->top_k > 0 ? r->top_k : 50;
    r->top_p = o->top_p > 0 ? o->top_p : r->top_p > 0 ? r->top_p : 0.9;
    r->seed = o->seed;
    r->seeds = o->seeds;
    if (o->max_length >= 0)
        r->max_length = o->max_length;
    if (o->min_length >= 0)
        r->min_length = o->min_length;
    r->max_new = o->max_new >= 0 ? o->max_new : o->max_length >= 0 ? -1 : r->max_new;
    if (o->min_new >= 0)
        r->min_new = o->min_new;
    if (o->repetition_penalty != 0)
        r->repetition_penalty = o->repetition_penalty;
    if (!isnan(o->length_penalty))
        r->length_penalty = o->length_penalty;
    if (o->early_stopping >= 0)
        r->early_stopping = o->early_stopping != 0;
    r->n_best = o->n_best > 0 ? o->n_best : 1;
    if (o->beam_rule)
        r->release = o->beam_rule;
}

noema_status nm_first_ids(noema_session *s, const char *prompt, int32_t first, int32_t **ids, int64_t *n, noema_error *err)
{
    nm_texts text = { 0 };
    noema_status st = prompt ? nm_session_tokenize(s, 1, &prompt, NULL, &text, err) : NOEMA_OK;
    if (st != NOEMA_OK)
        return st;
    *n = prompt && text.offsets[1] > 1 ? text.offsets[1] - 1 : 1;
    if (!(*ids = nm_malloc_array((size_t)*n, sizeof **ids)))
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory: prompt");
    if (prompt)
        memcpy(*ids, text.ids, (size_t)*n * sizeof **ids);
    (*ids)[0] = first;
    return NOEMA_OK;
}

noema_status nm_session_decode(noema_session *s, const int32_t *ids, int64_t n, char **text, noema_error *err)
{
    const nm_tokenizer *t = nm_model_tokenizer(s->model, err);
    const char *p;
    size_t len;
    if (!t)
        return err ? err->code : NOEMA_E_MISSING;
    if (!s->tok && !(s->tok = noema_tokenizer_scratch_new(t)))
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory: tokenizer");
    /* ids that the tokenizer has no token for (the start id of a folder whose tokenizer was saved without it) have no text */
    int32_t *known = nm_malloc_array((size_t)n + 1, sizeof *known), most = noema_tokenizer_vocab_size(t);
    size_t n_known = 0;
    for (int64_t i = 0; known && i < n; i++)
        if (ids[i] >= 0 && ids[i] < most)
            known[n_known++] = ids[i];
    noema_status st = known ? noema_tokenizer_decode(t, s->tok, known, n_known, 1, &p, &len, err) : nm_fail(err, NOEMA_E_MEMORY, "out of memory: text");
    free(known);
    if (st != NOEMA_OK)
        return st;
    *text = nm_strndup(p, len);
    return *text ? NOEMA_OK : nm_fail(err, NOEMA_E_MEMORY, "out of memory: text");
}

size_t nm_code_points(const char *text)
{
    size_t n = 0;
    for (; *text; text++)
        n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

void nm_strip(const char **s, size_t *n)
{
    uint32_t cp;
    while (*n) {
        int len = nm_utf8_decode(*s, *n, &cp);
        if (!nm_is_pyspace(cp))
            break;
        *s += len;
        *n -= (size_t)len;
    }
    while (*n) {
        size_t k = 1;
        while (k < *n && k < 4 && ((*s)[*n - k] & 0xC0) == 0x80)
            k++;
        if (nm_utf8_decode(*s + *n - k, k, &cp) != (int)k || !nm_is_pyspace(cp))
            break;
        *n -= k;
    }
}

void nm_trim_text(char *text, size_t cut)
{
    const char *p = text;
    for (; *p && cut > 0; cut--) /* one code point: its first byte and the ones that continue it */
        do
            p++;
        while (((unsigned char)*p & 0xc0) == 0x80);
    size_t n = strlen(p);
    nm_strip(&p, &n);
    memmove(text, p, n);
    text[n] = 0;
}

noema_status nm_generated_set(noema_generated *out, noema_scored_text *best, size_t n, noema_error *err)
{
    out->best = best;
    out->n_best = n;
    out->text = n ? nm_strdup(best[0].text) : nm_strdup("");
    out->score = n ? best[0].score : NAN;
    return out->text ? NOEMA_OK : nm_fail(err, NOEMA_E_MEMORY, "out of memory: text");
}

char *nm_fill_template(const char *template, const char *text)
{
    nm_buf b = { 0 };
    bool ok = true;
    for (const char *p; ok && (p = strstr(template, "{}")); template = p + 2)
        ok = nm_buf_append(&b, template, (size_t)(p - template)) && nm_buf_puts(&b, text);
    if (ok && nm_buf_puts(&b, template))
        return nm_buf_take(&b);
    nm_buf_free(&b);
    return NULL;
}

noema_status nm_generated_take(noema_session *s, const nm_generation *g, size_t cut, noema_generated *out, noema_error *err)
{
    noema_scored_text *best = calloc((size_t)g->n + 1, sizeof *best);
    noema_status st = best ? NOEMA_OK : nm_fail(err, NOEMA_E_MEMORY, "out of memory");
    int n = 0;
    for (; st == NOEMA_OK && n < g->n; n++) {
        st = nm_session_decode(s, g->best[n].ids, g->best[n].n, &best[n].text, err);
        best[n].score = (float)g->best[n].score;
        if (st == NOEMA_OK)
            nm_trim_text(best[n].text, cut);
    }
    if (st == NOEMA_OK)
        return nm_generated_set(out, best, (size_t)n, err);
    for (int i = 0; best && i < n; i++)
        free(best[i].text);
    free(best);
    return st;
}

void nm_second_logits(nm_tensor logits, float *scores, float *probs)
{
    for (int64_t i = 0; logits.data && i < logits.shape[0]; i++) {
        const float *l = (const float *)logits.data + 2 * i;
        scores[i] = l[1];
        probs[i] = (float)(1 / (1 + exp((double)l[0] - (double)l[1])));
    }
}
