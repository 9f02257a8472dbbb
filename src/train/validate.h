/* validate.h - a run's measure on rows that it does not train on, as open_clip's evaluate(). Nothing of the run changes by it. */
#ifndef NM_VALIDATE_H
#define NM_VALIDATE_H

#include "base/mem.h"
#include "models/handle.h"
#include "noema/train.h"
#include "train/trainer.h"

typedef struct nm_validation nm_validation;

/* o->val_data, its first val_num_samples rows. Rows that have captions (or ids) of their own are pairs: loss and ranks. Rows whose text is made from
 * their class (o->captions, templates, or a class name alone) are classified by the classes' vectors. */
noema_status nm_validation_open(nm_validation **v, noema_model *model, const noema_train_options *o, noema_error *err);
void nm_validation_free(nm_validation *v);
/* Of the averaged weights where the run keeps an average. Pictures as in evaluation, a row's first caption, rows in file order; those that cannot be
 * read are left out. out->first_skipped is valid until the next call. */
noema_status nm_validation_run(nm_validation *v, nm_trainer *t, noema_train_validation *out, noema_error *err);
/* Its figures as a JSON object, keys as in open_clip's results. */
bool nm_validation_json(const noema_train_validation *x, nm_buf *b);

#endif
