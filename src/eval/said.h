/* said.h - what a model says of many items, a batch at a time; with --predictions FILE kept in FILE.part as it comes, so that an interrupted
 * call goes on where it stopped. */
#ifndef NM_EVAL_SAID_H
#define NM_EVAL_SAID_H

#include "base/hash.h"
#include "eval/task.h"

/* Of one item: a text (malloc'd), or which input failed (malloc'd) and why. */
typedef struct nm_said { char *text, *input; noema_error why; } nm_said;
/* out: [n], zeroed, items first .. first + n; results must not depend on which they are. */
typedef noema_status nm_say_fn(void *arg, int64_t first, int64_t n, nm_said *out);

enum { NM_SAID_MOST = 16 }; /* items a call of nm_say_fn */

/* Begins a key with the model and the options of generation. */
void nm_say_key(nm_sha256 *key, nm_eval *e, const char *kind);
/* text: [n], zeroed; malloc'd texts, NULL where an item failed (which was reported). key: what they depend on; the
 * caller adds its inputs. */
noema_status nm_eval_say(nm_eval *e, nm_sha256 *key, const char *unit, int64_t n, nm_say_fn *fn, void *arg, char **text);
/* The predictions are in their file: FILE.part goes. */
void nm_eval_said(const nm_eval *e);

#endif
