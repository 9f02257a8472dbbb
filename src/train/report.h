/* report.h - what fine-tuning changed: report.json and report.txt of a run. */
#ifndef NM_REPORT_H
#define NM_REPORT_H

#include "noema/train.h"
#include "train/score.h"

typedef struct nm_report {
    const char *model, *train_data, *val_data;
    const json_t *names;         /* of the classes, or NULL */
    const char *before_head;     /* NULL: not measured */
    nm_score before, after, wise; /* classes 0: not measured */
    double alpha, seconds;
    int64_t rows, steps, parameters, trained;
} nm_report;

/* Both files, atomically. */
noema_status nm_report_write(const nm_report *r, const char *folder, noema_error *err);
void nm_report_result(const nm_report *r, noema_finetune_result *out);
void nm_report_free(nm_report *r);

#endif
