/* inputs.c - vectors, labels and scores from .npy and .safetensors; predictions to .npy. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/half.h"
#include "eval/task.h"
#include "weights/weights.h"

/* Opens "FILE" or "FILE:name"; the view lives as long as *w. */
static noema_status open_view(const char *file, nm_weights **w, const nm_wview **v, noema_error *err)
{
    const char *colon = nm_file_exists(file) ? NULL : strrchr(file, ':');
    char *path = colon ? nm_strndup(file, (size_t)(colon - file)) : nm_strdup(file);
    if (!path)
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory: %s", file);
    noema_status s = nm_weights_open(w, path, err);
    if (s == NOEMA_OK && !colon && nm_weights_count(*w) != 1)
        s = nm_fail(err, NOEMA_E_FORMAT, "%s: expected one array, got %zu; name one as %s:NAME", path, nm_weights_count(*w), path);
    else if (s == NOEMA_OK && !(*v = colon ? nm_weights_find(*w, colon + 1) : nm_weights_at(*w, 0)))
        s = nm_fail(err, NOEMA_E_MISSING, "%s: no tensor '%s'", path, colon + 1);
    free(path);
    return s;
}

/* Any dtype as doubles, row-major; f64 keeps its digits. */
static double *doubles(const nm_wview *v)
{
    size_t n = (size_t)nm_wview_numel(v);
    double *d = nm_malloc_array(n + 1, sizeof *d);
    if (!d)
        return NULL;
    if (v->dtype == NM_F64 || v->dtype == NM_I64) {
        nm_wview_copy_raw(v, d);
        for (size_t i = 0; v->dtype == NM_I64 && i < n; i++) {
            int64_t x;
            memcpy(&x, d + i, sizeof x);
            d[i] = (double)x;
        }
        return d;
    }
    float *f = (float *)d; /* the upper half is converted in place, from the end */
    nm_wview_copy_f32(v, f);
    for (size_t i = n; i-- > 0;) {
        double x = f[i];
        memcpy(d + i, &x, sizeof x);
    }
    return d;
}

noema_status nm_eval_array(nm_eval *e, const char *file, double **data, int *ndim, int64_t shape[3])
{
    nm_weights *w = NULL;
    const nm_wview *v = NULL;
    noema_status s = open_view(file, &w, &v, e->err);
    *data = NULL;
    shape[0] = shape[1] = shape[2] = 1;
    if (s == NOEMA_OK && (v->ndim < 1 || v->ndim > 3))
        s = nm_fail(e->err, NOEMA_E_FORMAT, "%s: expected an array of 1 to 3 dimensions, got %d", file, v->ndim);
    if (s == NOEMA_OK && !(*data = doubles(v)))
        s = nm_fail(e->err, NOEMA_E_MEMORY, "%s: out of memory", file);
    if (s == NOEMA_OK) {
        memcpy(shape, v->shape, (size_t)v->ndim * sizeof *shape);
        *ndim = v->ndim;
    }
    nm_weights_close(w);
    return s;
}

noema_status nm_eval_scores(nm_eval *e, const char *form, double **data, int64_t shape[3])
{
    int ndim = 0;
    noema_status s = nm_eval_array(e, e->o.scores, data, &ndim, shape);
    if (s != NOEMA_OK || ndim == 2)
        return s;
    free(*data);
    *data = NULL;
    return nm_fail(e->err, NOEMA_E_FORMAT, "%s: expected scores %s, got %d dimensions", e->o.scores, form, ndim);
}

noema_status nm_eval_vectors(nm_eval *e, const char *file, nm_vectors *v)
{
    double *x;
    int ndim = 0;
    int64_t shape[3];
    noema_status s = nm_eval_array(e, file, &x, &ndim, shape);
    *v = (nm_vectors){ 0 };
    if (s != NOEMA_OK)
        return s;
    *v = (nm_vectors){ .n = shape[0], .dim = shape[1], .x = x };
    if (ndim != 2 || shape[0] < 1 || shape[1] < 1)
        s = nm_fail(e->err, NOEMA_E_FORMAT, "%s: expected vectors [n, dim], got %d dimensions [%lld, %lld]", file, ndim, (long long)shape[0],
                    (long long)shape[1]);
    double off = s == NOEMA_OK ? nm_vectors_off_unit(v) : 0;
    if (isnan(off))
        s = nm_fail(e->err, NOEMA_E_FORMAT, "%s: some numbers are not finite", file);
    else if (off > 1e-4 && !e->o.no_normalize)
        nm_vectors_normalise(v);
    if (s != NOEMA_OK)
        nm_vectors_free(v);
    return s;
}

noema_status nm_eval_integers(nm_eval *e, const char *file, int64_t **data, int64_t *n)
{
    double *x;
    int ndim = 0;
    int64_t shape[3];
    noema_status s = nm_eval_array(e, file, &x, &ndim, shape);
    *data = NULL;
    *n = shape[0];
    if (s != NOEMA_OK)
        return s;
    if (ndim != 1)
        s = nm_fail(e->err, NOEMA_E_FORMAT, "%s: expected whole numbers [n], got %d dimensions", file, ndim);
    else if (!(*data = nm_malloc_array((size_t)*n + 1, sizeof **data)))
        s = nm_fail(e->err, NOEMA_E_MEMORY, "%s: out of memory", file);
    for (int64_t i = 0; s == NOEMA_OK && i < *n; i++) {
        if (x[i] != floor(x[i]) || fabs(x[i]) > 1e9)
            s = nm_fail(e->err, NOEMA_E_FORMAT, "%s: expected whole numbers, got %g at %lld", file, x[i], (long long)i);
        else
            (*data)[i] = (int64_t)x[i];
    }
    free(x);
    if (s != NOEMA_OK) {
        free(*data);
        *data = NULL;
    }
    return s;
}

noema_status nm_eval_save(nm_eval *e, const char *path, nm_dtype dtype, const void *data, int64_t rows, int64_t columns)
{
    nm_wview v = { .name = "predictions", .dtype = dtype, .ndim = columns ? 2 : 1, .shape = { rows, columns }, .stride = { columns ? columns : 1, 1 }, .data = data };
    return nm_npy_write(path, &v, e->err);
}
