/* blip_tasks.h - what BLIP's captions and answers share; private to src/generate and the tests. */
#ifndef NM_BLIP_TASKS_H
#define NM_BLIP_TASKS_H

#include "generate/tasks.h"

/* The first id of a text that looks at pictures; -1: as the tokenizer gave it, [CLS]. choice: 0 the model's own, 1 [ENC], 2 [CLS]. */
noema_status nm_blip_first_id(noema_session *s, int choice, int32_t *id, noema_error *err);

/* The authors' defaults or the folder's, and over them the caller's. */
nm_rules nm_blip_rules(noema_session *s, const noema_generate_options *o);

/* Texts of `items` prompts that look at states [rows, width] in the session's arena; item i at the rows state_offsets[i] ..
 * state_offsets[i+1]. */
noema_status nm_blip_generate(noema_session *s, nm_tensor states, const int64_t *state_offsets, int64_t items, const int32_t *prompts,
                              const int64_t *offsets, const nm_rules *rules, nm_generation *out, noema_error *err);


/* blip_ask.c */
noema_status nm_blip_ask(noema_session *s, nm_tensor pixels, const char *const *questions, const noema_generate_options *o, noema_generated *out,
                         noema_error *err);

#endif
