/* blip2_tasks.h - BLIP-2's searches, for the tests; private to src/generate. */
#ifndef NM_BLIP2_TASKS_H
#define NM_BLIP2_TASKS_H

#include "generate/tasks.h"

/* Stage 2: texts for pictures f32 [n, 3, h, w] behind their prompts' ids, decoded together. Hypotheses hold new ids alone. */
noema_status nm_blip2_lm_generate(noema_session *s, nm_tensor pixels, const nm_texts *prompts, const nm_rules *rules, nm_generation *out,
                                  noema_error *err);
/* Stage 1: the Q-Former writes behind prompt[length], the same for all pictures. */
noema_status nm_blip2_qformer_generate(noema_session *s, nm_tensor pixels, const int32_t *prompt, int64_t length, const nm_rules *rules,
                                       nm_generation *out, noema_error *err);
/* Ids of n prompts, each cut to its first `prompt_limit`; the session's until its next text. */
noema_status nm_blip2_prompt_ids(noema_session *s, int64_t n, const char *const *texts, nm_texts *out, noema_error *err);
/* blip2_rank.c: the likeliest of o->answers behind each prompt; end: the id that ends OPT's. */
noema_status nm_blip2_rank(noema_session *s, nm_tensor pixels, const char *const *prompts, int32_t end, const noema_generate_options *o, noema_generated *out,
                           noema_error *err);

#endif
