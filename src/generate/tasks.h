/* tasks.h - what a model family can do with pictures besides vectors; each family's hooks stand in one file of this folder. */
#ifndef NM_TASKS_H
#define NM_TASKS_H

#include "models/handle.h"
#include "noema/generate.h"

typedef struct nm_tasks {
    const nm_family *family;
    unsigned (*tasks)(const nm_model *m);                  /* NOEMA_TASK_* */
    bool (*temperature)(const nm_model *m, double *temp);  /* of ITC; false: none */
    /* Logits [n, texts] of pictures f32 [n, 3, h, w] (pairs: n = 2, one row) into scores, and their probabilities. */
    noema_status (*itm)(noema_session *s, nm_tensor pixels, const nm_texts *texts, const noema_match_options *o, float *scores, float *probs,
                        noema_error *err);
    noema_status (*caption)(noema_session *s, nm_tensor pixels, const noema_generate_options *o, noema_generated *out, noema_error *err);
    noema_status (*ask)(noema_session *s, nm_tensor pixels, const char *const *questions, const noema_generate_options *o, noema_generated *out,
                        noema_error *err);
} nm_tasks;

extern const nm_tasks nm_tasks_blip;

/* The first error of a session's run, with the model's name. */
noema_status nm_session_error(noema_session *s, noema_error *err);

#endif
