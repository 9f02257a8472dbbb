/* class_texts.h - several captions for each class, of which every row of the class gets one at random in every epoch. */
#ifndef NM_CLASS_TEXTS_H
#define NM_CLASS_TEXTS_H

#include "data/dataset.h"

typedef struct nm_class_texts nm_class_texts;

/* .jsonl: {"label": class name or number, "captions": ["...", ...]} per line. Every label of `rows` needs a line with at least one
 * caption; labels without rows are allowed. A caption that is listed twice is drawn twice as often. */
noema_status nm_class_texts_open(nm_class_texts **captions, const char *path, const nm_dataset *rows, noema_error *err);
/* All captions of a class; *n of them. */
const char *const *nm_class_texts_of(const nm_class_texts *c, int64_t label, size_t *n);
void nm_class_texts_free(nm_class_texts *c);
/* The caption for a row of class `label`, chosen by `draw` (any 64 random bits). */
const char *nm_class_texts_pick(const nm_class_texts *c, int64_t label, uint64_t draw);

#endif
