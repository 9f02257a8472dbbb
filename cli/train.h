/* train.h - what `noema train` and `noema finetune` share (verb_train.c). */
#ifndef NOEMA_CLI_TRAIN_H
#define NOEMA_CLI_TRAIN_H

#include "cli.h"
#include "noema/train.h"

typedef struct cli_train_view { cli *c; int64_t failed; double shown, start; int64_t first; } cli_train_view;

/* The options of train_options.inc, with progress and skipped rows shown through v; a recipe (or NULL) changes the
 * defaults. false: usage error, already said. */
bool cli_train_read(cli *c, noema_train_options *o, cli_train_view *v, const char *recipe);
/* Says how a run ended; 0 or the exit code. */
int cli_train_end(cli *c, noema_status s, const cli_train_view *v, const noema_error *err);

#endif
