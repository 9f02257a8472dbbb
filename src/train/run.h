/* run.h - what another kind of training adds to a run in its folder (run.c). */
#ifndef NM_TRAIN_RUN_H
#define NM_TRAIN_RUN_H

#include "noema/train.h"
#include "data/dataset.h"
#include "train/trainer.h"

typedef struct nm_job {
    void *self;
    /* The model and its training rows are open: fills `trainer` (task, head), may change options of the run and set pick. */
    noema_status (*opened)(void *self, noema_model *model, nm_dataset *rows, noema_train_options *o, nm_train_options *trainer, noema_error *err);
    void (*describe)(void *self, json_t *config);                                   /* adds to config.json */
    noema_status (*save)(void *self, const char *folder, noema_error *err);         /* with every checkpoint, after the model's files */
    noema_status (*measure)(void *self, nm_trainer *t, noema_train_validation *out, noema_error *err); /* on val_data, as nm_validation_run(); or NULL */
    noema_status (*finished)(void *self, nm_trainer *t, const char *folder, noema_error *err); /* after the last epoch */
    const int64_t *pick; /* rows to train on [n_pick]; NULL: all */
    int64_t n_pick;
} nm_job;

/* job NULL: contrastive training. */
noema_status nm_run_training(noema_context *ctx, const noema_train_options *o, nm_job *job, noema_error *err);

#endif
