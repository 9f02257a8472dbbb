/* tasks.h - what a model family can do with pictures besides vectors; each family's hooks stand in one file of this folder. */
#ifndef NM_TASKS_H
#define NM_TASKS_H

#include "generate/generate.h"
#include "models/handle.h"
#include "noema/generate.h"

typedef struct nm_tasks {
    const nm_family *family;
    unsigned (*tasks)(const nm_model *m);                  /* NOEMA_TASK_* */
    bool (*temperature)(const nm_model *m, double *temp);  /* of ITC; false: none */
    int64_t (*text_limit)(const nm_model *m);              /* ids of a text that is matched; 0 or NULL: as the tokenizer cuts */
    /* Logits [n, texts] of pictures f32 [n, 3, h, w] (pairs: 2n of them) into scores, and their probabilities. own: picture i
     * (pairs: pair i) has the texts own[i] .. own[i + 1], and the results are [texts]. */
    noema_status (*itm)(noema_session *s, nm_tensor pixels, const nm_texts *texts, const size_t *own /* or NULL */, const noema_match_options *o,
                        float *scores, float *probs, noema_error *err);
    noema_status (*caption)(noema_session *s, nm_tensor pixels, const noema_generate_options *o, noema_generated *out, noema_error *err);
    noema_status (*ask)(noema_session *s, nm_tensor pixels, const char *const *questions, const noema_generate_options *o, noema_generated *out,
                        noema_error *err);
    /* {language: how its captions begin}, the first is what it writes unasked; NULL as hook or result: there is one language. */
    const json_t *(*languages)(const nm_model *m);
} nm_tasks;

extern const nm_tasks nm_tasks_blip, nm_tasks_blip2, nm_tasks_coca;

/* text.c: what the families' hooks share. */

struct nm_blip_defaults;
/* What a BLIP or BLIP-2 does by itself. */
nm_rules nm_rules_of(const struct nm_blip_defaults *c, int eos);
/* The options over what the model does by itself (rules holds its defaults). */
void nm_rules_apply(nm_rules *rules, const noema_generate_options *o);
/* The text of ids without special tokens; malloc'd. */
noema_status nm_session_decode(noema_session *s, const int32_t *ids, int64_t n, char **text, noema_error *err);
/* Drops the first `cut` code points and outer white space, in place. */
void nm_trim_text(char *text, size_t cut);
/* Python's str.strip(): white space of every script and U+001C..U+001F, at both ends of s[0..n). */
void nm_strip(const char **s, size_t *n);
size_t nm_code_points(const char *text);
/* Takes texts over: out->best, and a copy of the first as out->text. */
noema_status nm_generated_set(noema_generated *out, noema_scored_text *best, size_t n, noema_error *err);
/* Decoded, `cut` code points and outer white space taken off. */
noema_status nm_generated_take(noema_session *s, const nm_generation *g, size_t cut, noema_generated *out, noema_error *err);
/* A decoder's first row: `first` (from the tokenizer) in the place of the prompt's first id, its end taken off; malloc'd. prompt NULL: `first` alone. */
noema_status nm_first_ids(noema_session *s, const char *prompt, int32_t first, int32_t **ids, int64_t *n, noema_error *err);
/* Every "{}" of the template replaced; malloc'd. */
char *nm_fill_template(const char *template, const char *text);

/* Texts [first, end) belong to picture i (own as in itm); the result of text k stands at `at` + k. */
typedef struct nm_text_span { int64_t first, end, at; } nm_text_span;
static inline nm_text_span nm_texts_of(const nm_texts *t, const size_t *own, int64_t i)
{
    return own ? (nm_text_span){ (int64_t)own[i], (int64_t)own[i + 1], 0 } : (nm_text_span){ 0, t->n, i * t->n };
}

/* Logits f32 [n, 2] of a matching head: the second one and its softmax. */
void nm_second_logits(nm_tensor logits, float *scores, float *probs);

/* The first error of a session's run, with the model's name. */
noema_status nm_session_error(noema_session *s, noema_error *err);

#endif
