/* classifier.c - noema_head: a trained head by itself. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "noema/train.h"
#include "train/features.h"
#include "train/head.h"

struct noema_head { nm_head h; char **names; };

static noema_status read_names(noema_head *x, const nm_weights *f, const char *path, noema_error *err)
{
    const char *text = nm_json_str(nm_weights_meta(f), "classes", NULL);
    json_t *list = text ? nm_json_parse(text, strlen(text), path, err) : NULL;
    noema_status s = text && !list ? NOEMA_E_FORMAT : NOEMA_OK;
    if (list && json_array_size(list) != (size_t)x->h.classes)
        s = nm_fail(err, NOEMA_E_FORMAT, "%s: names %zu classes, head.weight has %lld", path, json_array_size(list), (long long)x->h.classes);
    if (s == NOEMA_OK && !(x->names = calloc((size_t)x->h.classes, sizeof *x->names)))
        s = nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", path);
    for (int64_t k = 0; s == NOEMA_OK && k < x->h.classes; k++) {
        const char *name = json_string_value(json_array_get(list, (size_t)k));
        if (!(x->names[k] = name ? nm_strdup(name) : nm_sprintf("%lld", (long long)k)))
            s = nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", path);
    }
    json_decref(list);
    return s;
}

noema_status noema_head_open(noema_head **out, const char *path, noema_error *err)
{
    nm_weights *f = NULL;
    *out = NULL;
    noema_head *x = calloc(1, sizeof *x);
    noema_status s = x ? nm_weights_open(&f, path, err) : nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", path);
    const nm_wview *w = s == NOEMA_OK ? nm_weights_find(f, "head.weight") : NULL;
    if (s == NOEMA_OK && (!w || w->ndim != 2 || w->shape[0] < 1 || w->shape[0] > NM_MAX_CLASSES || w->shape[1] < 1))
        s = nm_fail(err, NOEMA_E_FORMAT, "%s: expected a tensor head.weight [classes, dim] with at most %d classes", path, NM_MAX_CLASSES);
    if (s == NOEMA_OK)
        s = nm_head_new(&x->h, w->shape[0], w->shape[1], err);
    if (s == NOEMA_OK)
        s = nm_head_load(&x->h, path, NULL, err);
    if (s == NOEMA_OK)
        s = read_names(x, f, path, err);
    nm_weights_close(f);
    if (s != NOEMA_OK) {
        noema_head_free(x);
        return s;
    }
    *out = x;
    return NOEMA_OK;
}

void noema_head_free(noema_head *x)
{
    if (!x)
        return;
    for (int64_t k = 0; x->names && k < x->h.classes; k++)
        free(x->names[k]);
    free(x->names);
    nm_head_free(&x->h);
    free(x);
}

int64_t noema_head_classes(const noema_head *x, int64_t *dim)
{
    if (dim)
        *dim = x->h.dim;
    return x->h.classes;
}

const char *noema_head_class(const noema_head *x, int64_t k) { return k >= 0 && k < x->h.classes ? x->names[k] : NULL; }

void noema_head_apply(const noema_head *x, int64_t n, const float *features, float *probs)
{
    int64_t classes = x->h.classes, dim = x->h.dim;
    double lost;
    for (int64_t i = 0; i < n; i++) {
        float *p = probs + i * classes;
        for (int64_t k = 0; k < classes; k++) {
            double z = (double)x->h.w.bias.f32[k];
            for (int64_t d = 0; d < dim; d++)
                z += (double)features[i * dim + d] * (double)x->h.w.weight.f32[k * dim + d];
            p[k] = (float)z;
        }
        nm_head_probabilities(p, classes, p, 0, &lost);
    }
}
