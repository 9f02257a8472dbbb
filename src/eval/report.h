/* report.h - building of a noema_report: what was measured on what, as JSON in the layout of CLIP_benchmark. */
#ifndef NM_EVAL_REPORT_H
#define NM_EVAL_REPORT_H

#include <jansson.h>

#include "base/err.h"
#include "base/mem.h"
#include "eval/metrics.h"
#include "noema/eval.h"

noema_report *nm_eval_report_new(const char *task);
/* Facts beside the metrics: {"task", "dataset", "model", ...}. They take the value over; NULL (no memory) is kept in mind. */
void nm_eval_report_set(noema_report *r, const char *key, json_t *value);
void nm_eval_report_text(noema_report *r, const char *key, const char *text); /* NULL: left out */
void nm_eval_report_count(noema_report *r, const char *key, int64_t n);
/* A metric; NaN becomes null. interval: NULL or its 95 % bounds. */
void nm_eval_report_metric(noema_report *r, const char *name, double value, const nm_interval *interval);
/* An accuracy of n items with Wilson's interval. */
void nm_eval_report_share(noema_report *r, const char *name, double share, int64_t n);
noema_status nm_eval_report_check(const noema_report *r, noema_error *err); /* memory failed meanwhile? */
json_t *nm_eval_report_root(noema_report *r); /* borrowed */

/* Compact JSON; reals with the fewest digits that read back. */
bool nm_eval_report_write(nm_buf *b, const json_t *j);

#endif
