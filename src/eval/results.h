/* results.h - captions and references by picture, in the layouts that caption tools write. */
#ifndef NM_EVAL_RESULTS_H
#define NM_EVAL_RESULTS_H

#include "eval/captions.h"
#include "eval/coco.h"

/* Texts by picture id, in the order of the files. */
typedef struct nm_id_texts {
    nm_ids ids;          /* picture -> number */
    char **id, **file;   /* [n]; file: COCO's file_name or NULL */
    int64_t n, cap;
    char **text;         /* [n_texts] */
    int64_t *owner;      /* [n_texts] */
    int64_t n_texts, cap_texts;
} nm_id_texts;

/* .json: COCO captions; [{"image_id", "caption"}]; {"id": "caption"} or {"id": ["caption", ...]}. Else text: line k belongs to picture k.
 * Called again it adds to what is there. */
noema_status nm_id_texts_read(nm_id_texts *t, const char *path, noema_error *err);
noema_status nm_id_texts_json(nm_id_texts *t, const json_t *j, const char *path, noema_error *err);
int64_t nm_id_texts_find(nm_id_texts *t, const char *id); /* picture's number, -1: none */
/* The number of a picture, which is added when it is new; -1: no memory. */
int64_t nm_id_texts_picture(nm_id_texts *t, const char *id, noema_error *err);
noema_status nm_id_texts_add(nm_id_texts *t, const char *id, const char *text, noema_error *err);
void nm_id_texts_free(nm_id_texts *t);

#endif
