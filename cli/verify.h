/* verify.h - the parts of `noema verify`: each check is a row of its table. */
#ifndef NOEMA_CLI_VERIFY_H
#define NOEMA_CLI_VERIFY_H

#include "cli.h"

typedef enum verify_result { VERIFY_OK, VERIFY_FAILED, VERIFY_SKIPPED } verify_result;

/* Prints a row and counts it: ok as done, failed as failed. */
void verify_row(cli *c, const char *check, verify_result r, const char *fmt, ...) __attribute__((format(printf, 4, 5)));

/* Instruction sets, compute types, batches and threads against each other, by model `name` (NULL: a small one drawn anew). Must
 * run before the command has started threads: it forks a process per case. */
void verify_model(cli *c, const char *name);

#endif
