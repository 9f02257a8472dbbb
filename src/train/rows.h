/* rows.h - rows of a data set through a model's preprocessing. */
#ifndef NM_TRAIN_ROWS_H
#define NM_TRAIN_ROWS_H

#include "data/dataset.h"
#include "models/handle.h"
#include "noema/train.h"
#include "train/class_texts.h"

/* What a run's options say about its data; borrowed strings. */
nm_dataset_options nm_rows_options(const noema_train_options *o);

/* The row's picture as the model gets it: f32 [3, image_height, image_width]. */
noema_status nm_row_tensor(const nm_row *row, const nm_model *m, nm_preprocess_scratch *scratch, float *out, noema_error *err);

/* Rows [first, first + n) -> out, as noema_embed_image_files. */
noema_status nm_rows_embed(noema_session *s, const nm_dataset *rows, int64_t first, int64_t n, unsigned flags, float *out, noema_error *errors, noema_error *err);

/* Where the ids of a row's text come from. */
typedef struct nm_row_texts {
    const nm_dataset *rows;
    const nm_class_texts *captions; /* by class, instead of the rows' own; or NULL */
    const nm_tokenizer *tokenizer;  /* NULL: the rows have ids */
    int64_t max_ids;                /* the model's context length */
} nm_row_texts;
/* One of the row's captions, chosen by `draw` (any 64 bits; 0: the first), or its ids; to[max_ids] gets *n. No text, and one that is too long, are
 * errors. */
noema_status nm_row_ids(const nm_row_texts *t, nm_tok_scratch *tok, const nm_row *row, int64_t number, uint64_t draw, int32_t *to, int64_t *n, noema_error *err);

/* What a row is called in messages. */
const char *nm_rows_name(const nm_dataset *rows, int64_t i, char name[256]);

#endif
