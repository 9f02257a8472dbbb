/* ledger.h - what a run skipped: LOGS/NAME/skipped.jsonl, one object per row that could not be used, {"step","row","input","error"}. */
#ifndef NM_LEDGER_H
#define NM_LEDGER_H

#include <stdint.h>
#include <stdio.h>

#include "base/err.h"

typedef struct nm_ledger { char *path; FILE *f; int64_t n; } nm_ledger;

/* Keeps the lines of steps before `step` (a run that goes on there will find the others again); n counts them. path NULL: nothing is written. */
noema_status nm_ledger_open(nm_ledger *l, const char *path, int64_t step, noema_error *err);
noema_status nm_ledger_add(nm_ledger *l, int64_t step, int64_t row, const char *input, const char *error, noema_error *err);
void nm_ledger_close(nm_ledger *l);

#endif
