/* blip_tasks.c - matching, captions and answers of BLIP. Sources: salesforce/BLIP models/{blip,blip_itm,blip_vqa,blip_nlvr}.py. */
#include <math.h>
#include <string.h>

#include "generate/tasks.h"
#include "models/blip.h"

#define ROWS_PER_FORWARD 4096 /* text rows: 35 ids, about a hundred texts */

static unsigned blip_tasks(const nm_model *base)
{
    const nm_blip_cfg *c = &((const nm_blip *)base)->cfg;
    return (c->has_itc || c->has_itm || c->nlvr ? NOEMA_TASK_MATCH : 0) | (c->has_itm ? NOEMA_TASK_ITM : 0) | (c->nlvr ? NOEMA_TASK_PAIR : 0);
}

static bool blip_temperature(const nm_model *base, double *temp)
{
    const nm_blip_cfg *c = &((const nm_blip *)base)->cfg;
    *temp = (double)c->temp;
    return c->has_temp && c->temp > 0;
}

/* The first id of a text that looks at pictures; -1: as the tokenizer gave it, [CLS]. */
static noema_status first_id(noema_session *s, int choice, int32_t *id, noema_error *err)
{
    const nm_blip *m = (const nm_blip *)s->model->m;
    const nm_tokenizer *t = nm_model_tokenizer(s->model, err);
    if (!t)
        return err ? err->code : NOEMA_E_MISSING;
    bool cls = choice == 2 || (choice == 0 && m->cfg.cls_first);
    *id = cls ? -1 : nm_blip_enc_id(t);
    return NOEMA_OK;
}

/* logits [n, 2] -> the second one and its softmax. */
static void take_second(nm_tensor logits, float *scores, float *probs)
{
    for (int64_t i = 0; logits.data && i < logits.shape[0]; i++) {
        const float *l = (const float *)logits.data + 2 * i;
        scores[i] = l[1];
        probs[i] = (float)(1 / (1 + exp((double)l[0] - (double)l[1])));
    }
}

/* Texts [from, *to) of a batch that stay below the row limit; at least one. */
static nm_texts some_texts(const nm_texts *t, int64_t from, int64_t *to)
{
    *to = from + 1;
    while (*to < t->n && t->offsets[*to + 1] - t->offsets[from] <= ROWS_PER_FORWARD)
        ++*to;
    return (nm_texts){ .n = *to - from, .offsets = t->offsets + from, .ids = t->ids, .pad_id = t->pad_id };
}

static noema_status blip_itm(noema_session *s, nm_tensor pixels, const nm_texts *texts, const noema_match_options *o, float *scores, float *probs,
                             noema_error *err)
{
    const nm_blip *m = (const nm_blip *)s->model->m;
    int32_t first = -1;
    noema_status st = first_id(s, o->first_token, &first, err);
    if (st != NOEMA_OK)
        return st;
    nm_run *r = nm_session_run(s);
    nm_tensor states = nm_blip_image_states(r, m, pixels);
    int64_t pictures = m->cfg.nlvr ? 1 : pixels.shape[0];
    for (int64_t i = 0; nm_run_ok(r) && i < pictures; i++)
        for (int64_t from = 0, to; nm_run_ok(r) && from < texts->n; from = to) {
            nm_arena_mark mark = nm_mark(r);
            nm_texts part = some_texts(texts, from, &to);
            nm_tensor logits = m->cfg.nlvr ? nm_blip_nlvr(r, m, states, &part, first) : nm_blip_itm(r, m, nm_rows(states, i, i + 1), &part, first);
            take_second(logits, scores + i * texts->n + from, probs + i * texts->n + from);
            nm_reset(r, mark);
        }
    return nm_session_error(s, err);
}

const nm_tasks nm_tasks_blip = { .family = &nm_family_blip, .tasks = blip_tasks, .temperature = blip_temperature, .itm = blip_itm };
