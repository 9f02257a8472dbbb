/* features.h - rows with labels, and their features: the image tower's output before the projection, not normalised. */
#ifndef NM_FEATURES_H
#define NM_FEATURES_H

#include "models/handle.h"
#include "data/dataset.h"

enum { NM_MAX_CLASSES = 1 << 16, NM_FEATURE_ROWS = 256 };

typedef struct nm_labelled {
    nm_dataset *rows;
    int64_t n, classes, dim;
    int64_t *label; /* [n]: numbers of the training file */
    bool borrowed;  /* rows belong to somebody else */
} nm_labelled;

/* Opens a data file whose every row has a label; dim: of the model's features. train NULL: the file decides on the classes (2 or more);
 * else its labels are matched with the training file's, names by name. Pictures that are tensors must have the model's size. */
noema_status nm_labelled_open(nm_labelled *l, const char *path, const nm_dataset_options *o, const nm_labelled *train, const noema_model *model, noema_error *err);
/* The same of an open data set, which stays its owner's. */
noema_status nm_labelled_of(nm_labelled *l, nm_dataset *rows, const nm_labelled *train, const noema_model *model, noema_error *err);
void nm_labelled_free(nm_labelled *l);

typedef void nm_failed_fn(void *user, const char *what, const noema_error *why);

/* Rows [first, first + n), n <= NM_FEATURE_ROWS -> out f32 [n, dim]. ok[i] false: its picture cannot be read; `failed` was told. */
noema_status nm_labelled_features(const nm_labelled *l, noema_session *s, int64_t first, int64_t n, float *out, bool *ok, nm_failed_fn *failed, void *user,
                                  noema_error *err);

/* Draws `shots` rows of each class that occurs among pick [n] (row numbers): a permutation by seed, the first ones of each class. out [n]
 * gets *taken row numbers in ascending order. A class with fewer rows is an error that names it. */
noema_status nm_labelled_shots(const nm_labelled *l, const int64_t *pick, int64_t n, int64_t shots, uint64_t seed, int64_t *out, int64_t *taken,
                               noema_error *err);

/* The class's name in the file, else its number; into text [size]. */
const char *nm_labelled_class(const nm_labelled *l, int64_t k, char *text, size_t size);

/* All names as a JSON list; NULL where labels are numbers. */
json_t *nm_labelled_names(const nm_labelled *l);

#endif
