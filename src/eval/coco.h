/* coco.h - ids of pictures in JSON files, which are numbers in some and strings in others. */
#ifndef NM_EVAL_COCO_H
#define NM_EVAL_COCO_H

#include "eval/task.h"

/* id -> number; of equal ids the first one counts. */
typedef struct nm_id_entry { char *id; int64_t at; } nm_id_entry;
typedef struct nm_ids { nm_id_entry *entry; int64_t n; size_t slots; } nm_ids; /* open addressing, slots a power of two above 2n */
noema_status nm_ids_add(nm_ids *s, char *id /* taken; NULL: no memory */, int64_t at, noema_error *err);
int64_t nm_ids_find(const nm_ids *s, const char *id); /* its `at`, -1: none */
void nm_ids_free(nm_ids *s);
char *nm_id_text(const json_t *v); /* of a number or a string; malloc'd or NULL */

/* The file of a picture that a JSON file names. */
char *nm_eval_image_path(const nm_eval *e, const char *json_path, const char *name);

#endif
