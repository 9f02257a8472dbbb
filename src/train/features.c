/* features.c - see features.h. */
#include "train/features.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "base/rng.h"
#include "train/rows.h"

const char *nm_labelled_class(const nm_labelled *l, int64_t k, char *text, size_t size)
{
    const char *name = nm_dataset_label_name(l->rows, k);
    snprintf(text, size, "%lld", (long long)k);
    return name ? name : text;
}

json_t *nm_labelled_names(const nm_labelled *l)
{
    char text[32];
    json_t *list = nm_dataset_label_name(l->rows, 0) ? json_array() : NULL;
    for (int64_t k = 0; list && k < l->classes; k++)
        json_array_append_new(list, json_string(nm_labelled_class(l, k, text, sizeof text)));
    return list;
}

/* The number of row i's class in the training file, or -1: names are matched by name. */
static int64_t class_of(const nm_labelled *l, const nm_labelled *train, int64_t i)
{
    int64_t label = nm_dataset_label(l->rows, i);
    const char *name = train ? nm_dataset_label_name(l->rows, label) : NULL;
    if (!name)
        return label < l->classes ? label : -1;
    for (int64_t k = 0; nm_dataset_label_name(train->rows, k); k++)
        if (strcmp(nm_dataset_label_name(train->rows, k), name) == 0)
            return k;
    return -1;
}

static noema_status read_labels(nm_labelled *l, const nm_labelled *train, noema_error *err)
{
    for (int64_t i = 0; i < l->n; i++) {
        l->label[i] = class_of(l, train, i);
        if (nm_dataset_label(l->rows, i) < 0)
            return nm_fail(err, NOEMA_E_FORMAT, "%s: row %lld has no label", nm_dataset_source(l->rows), (long long)i);
        if (l->label[i] < 0)
            return nm_fail(err, NOEMA_E_MISMATCH, "%s: row %lld: its label is none of the %lld classes of %s", nm_dataset_source(l->rows), (long long)i,
                           (long long)l->classes, nm_dataset_source((train ? train : l)->rows));
    }
    return NOEMA_OK;
}

/* Everything after opening: l->rows is set. */
static noema_status check_rows(nm_labelled *l, const nm_labelled *train, const noema_model *model, noema_error *err)
{
    const char *path = nm_dataset_source(l->rows);
    (void)model;
    l->n = nm_dataset_count(l->rows);
    if (l->n < 1)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: no rows", path);
    l->classes = train ? train->classes : nm_dataset_classes(l->rows);
    if (l->classes < 2 || l->classes > NM_MAX_CLASSES)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: %lld classes; a classifier needs `label` with 2 to %d", path, (long long)l->classes, NM_MAX_CLASSES);
    if (!(l->label = nm_malloc_array((size_t)l->n, sizeof *l->label)))
        return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory: labels", path);
    return read_labels(l, train, err);
}

static noema_status check_model(nm_labelled *l, const noema_model *model, noema_error *err)
{
    *l = (nm_labelled){ .dim = noema_model_feature_dim(model) };
    return l->dim > 0 ? NOEMA_OK
                      : nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: expected a model with image features before the projection (CLIP, SigLIP, CoCa)", model->name);
}

noema_status nm_labelled_open(nm_labelled *l, const char *path, const nm_dataset_options *o, const nm_labelled *train, const noema_model *model, noema_error *err)
{
    noema_status s = check_model(l, model, err);
    if (s == NOEMA_OK)
        s = nm_dataset_open(&l->rows, path, o, err);
    return s == NOEMA_OK ? check_rows(l, train, model, err) : s;
}

noema_status nm_labelled_of(nm_labelled *l, nm_dataset *rows, const nm_labelled *train, const noema_model *model, noema_error *err)
{
    noema_status s = check_model(l, model, err);
    l->rows = rows;
    l->borrowed = true;
    return s == NOEMA_OK ? check_rows(l, train, model, err) : s;
}

void nm_labelled_free(nm_labelled *l)
{
    if (!l->borrowed)
        nm_dataset_free(l->rows);
    free(l->label);
    *l = (nm_labelled){ 0 };
}

static bool finite_row(const float *x, int64_t dim)
{
    for (int64_t k = 0; k < dim; k++)
        if (!isfinite(x[k]))
            return false;
    return true;
}

noema_status nm_labelled_features(const nm_labelled *l, noema_session *session, int64_t first, int64_t n, float *out, bool *ok, nm_failed_fn *failed,
                                  void *user, noema_error *err)
{
    noema_error *errors = calloc((size_t)n, sizeof *errors);
    noema_status s = errors ? nm_rows_embed(session, l->rows, first, n, NOEMA_FEATURES, out, errors, err) : nm_fail(err, NOEMA_E_MEMORY, "out of memory");
    for (int64_t i = 0; s == NOEMA_OK && i < n; i++) {
        char name[256];
        ok[i] = finite_row(out + i * l->dim, l->dim);
        if (!ok[i] && errors[i].code == NOEMA_OK)
            s = nm_fail(err, NOEMA_E_FORMAT, "%s: row %lld: its features are not finite", nm_dataset_source(l->rows), (long long)(first + i));
        else if (!ok[i] && errors[i].code == NOEMA_E_MISMATCH) /* every row has that size */
            s = nm_fail(err, errors[i].code, "%s", errors[i].message);
        else if (!ok[i] && failed)
            failed(user, nm_rows_name(l->rows, first + i, name), &errors[i]);
    }
    free(errors);
    return s;
}

static int ascending(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

noema_status nm_labelled_shots(const nm_labelled *l, const int64_t *pick, int64_t n, int64_t shots, uint64_t seed, int64_t *out, int64_t *taken,
                               noema_error *err)
{
    int64_t *order = nm_malloc_array((size_t)n + 1, sizeof *order), *seen = calloc((size_t)l->classes, sizeof *seen);
    char text[32];
    nm_rng r;
    noema_status s = order && seen ? NOEMA_OK : nm_fail(err, NOEMA_E_MEMORY, "out of memory: %lld shots", (long long)shots);
    nm_rng_init(&r, seed, 0x5407);
    *taken = 0;
    for (int64_t i = 0; s == NOEMA_OK && i < n; i++) { /* Fisher-Yates, inside out */
        int64_t k = (int64_t)nm_rng_below(&r, (uint64_t)i + 1);
        order[i] = order[k];
        order[k] = pick[i];
    }
    for (int64_t i = 0; s == NOEMA_OK && i < n; i++)
        if (seen[l->label[order[i]]] < shots) {
            seen[l->label[order[i]]]++;
            out[(*taken)++] = order[i];
        }
    for (int64_t k = 0; s == NOEMA_OK && k < l->classes; k++)
        if (seen[k] && seen[k] < shots)
            s = nm_fail(err, NOEMA_E_ARGUMENT, "%s: class %s has %lld rows, %lld shots were asked for", nm_dataset_source(l->rows),
                        nm_labelled_class(l, k, text, sizeof text), (long long)seen[k], (long long)shots);
    if (s == NOEMA_OK)
        qsort(out, (size_t)*taken, sizeof *out, ascending);
    free(order);
    free(seen);
    return s;
}
