/* score.h - a classifier's answers on labelled rows, and what is said about them. */
#ifndef NM_SCORE_H
#define NM_SCORE_H

#include "train/features.h"
#include "train/head.h"

typedef struct nm_score {
    int64_t rows, right, unreadable;
    double loss;               /* mean cross-entropy */
    int64_t n, classes;        /* rows in the file */
    float *probs;              /* [n, classes]; NaN where the picture cannot be read */
    int8_t *answer;            /* [n]: 1 right, 0 wrong, -1 unreadable */
    int64_t *class_rows, *class_right; /* [classes] */
} nm_score;

/* Features of the session's model, then the head. Rows in file order. */
noema_status nm_score_rows(nm_score *sc, noema_session *s, const nm_labelled *l, const nm_head *h, nm_failed_fn *failed, void *user, noema_error *err);
void nm_score_free(nm_score *sc);

/* {"rows","right","accuracy","interval":[lo,hi],"mean_per_class_accuracy","cross_entropy","unreadable"}: 95 % Wilson interval. */
json_t *nm_score_json(const nm_score *sc);
/* Difference of two scores of the same rows: {"accuracy","interval"}: 95 % of 1000 bootstrap samples over the rows both could read. */
json_t *nm_score_difference(const nm_score *before, const nm_score *after);
/* [{"class","rows","before","after","interval"}...]; names [classes] or NULL: numbers; the interval is Wilson's of
 * `after`; before may be NULL. */
json_t *nm_score_classes(const json_t *names, const nm_score *before, const nm_score *after);
/* probs as .npy f32 [n, classes]. */
noema_status nm_score_write(const nm_score *sc, const char *path, noema_error *err);

#endif
