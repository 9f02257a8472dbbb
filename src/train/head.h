/* head.h - a linear classifier on features: logits [n, classes] = x [n, dim] W^T + b, its file and its answers. */
#ifndef NM_HEAD_H
#define NM_HEAD_H

#include "nn/nn.h"
#include "weights/weights.h"

typedef struct nm_head { nm_linear_w w; int64_t classes, dim; } nm_head;

/* All zeros. */
noema_status nm_head_new(nm_head *h, int64_t classes, int64_t dim, noema_error *err);
void nm_head_free(nm_head *h);

/* A safetensors file with head.weight [classes, dim] and head.bias [classes] (absent: zeros) into h, whose shapes they must have. Where
 * the file names its classes (metadata `classes`) and names, a JSON list, is not NULL, rows go to the class of their name. */
noema_status nm_head_load(nm_head *h, const char *path, const json_t *names, noema_error *err);

/* Writes head.weight and head.bias; names [classes] go into the metadata as `classes`, a JSON list (NULL: left out). */
noema_status nm_head_write(const char *path, int64_t classes, int64_t dim, const float *weight, const float *bias, const json_t *names, noema_error *err);

/* Softmax of one row, p [classes] in f32 (may be the logits themselves); returns the likeliest class (the first among equals). *loss: the label's cross-entropy. */
int64_t nm_head_probabilities(const float *logits, int64_t classes, float *p, int64_t label, double *loss);

#endif
