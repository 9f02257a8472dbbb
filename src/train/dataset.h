/* dataset.h - training data as numbered rows: pictures in files with a title (or a label), or tensors that are ready for the model. */
#ifndef NM_DATASET_H
#define NM_DATASET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

typedef struct nm_dataset nm_dataset;

/* .jsonl: objects with filepath and title or label; .csv, .tsv: the columns img_key and caption_key (NULL: "filepath", "title"), `label`
 * where there is one; .safetensors: `image` f32 [n, 3, h, w] with `text` ids [n, L] or `label` [n]. Paths are relative to the file.
 * A row without path or without title and label is an error that names the line. */
noema_status nm_dataset_open(nm_dataset **rows, const char *path, const char *img_key, const char *caption_key, noema_error *err);
void nm_dataset_free(nm_dataset *rows);

int64_t nm_dataset_count(const nm_dataset *rows);
const char *nm_dataset_source(const nm_dataset *rows); /* the file's path */

/* Rows of files: path (joined with the folder of the data file) and title. NULL for tensors or where absent. */
const char *nm_dataset_path(const nm_dataset *rows, int64_t i);
const char *nm_dataset_title(const nm_dataset *rows, int64_t i);
/* Class number, or -1. Labels that are strings in the file are numbered in the order of their first appearance. */
int64_t nm_dataset_label(const nm_dataset *rows, int64_t i);
const char *nm_dataset_label_name(const nm_dataset *rows, int64_t label); /* NULL: labels are numbers */
int64_t nm_dataset_classes(const nm_dataset *rows); /* 1 + the largest label */

/* Rows of tensors: the picture [3, h, w] and its shape; NULL for rows of files. */
const float *nm_dataset_image(const nm_dataset *rows, int64_t i, int64_t shape[3]);
/* Token ids of a row of tensors (int64 in the file); returns their number, 0 where there are none. */
int64_t nm_dataset_ids(const nm_dataset *rows, int64_t i, int32_t *ids, int64_t cap);

#endif
