/* head.c - see head.h. */
#include "train/head.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"

static float *zeros(int64_t n) { return nm_calloc((size_t)n, sizeof(float)); }

noema_status nm_head_new(nm_head *h, int64_t classes, int64_t dim, noema_error *err)
{
    float *w = classes <= ((int64_t)1 << 32) / dim ? zeros(classes * dim) : NULL, *b = zeros(classes);
    *h = (nm_head){ .classes = classes, .dim = dim };
    if (!w || !b) {
        nm_free(w);
        nm_free(b);
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory: a head of %lld x %lld", (long long)classes, (long long)dim);
    }
    nm_weight_set(&h->w.weight, w, NM_SHAPE(classes, dim));
    nm_weight_set(&h->w.bias, b, NM_SHAPE(classes));
    return NOEMA_OK;
}

void nm_head_free(nm_head *h)
{
    nm_weight_free(&h->w.weight);
    nm_weight_free(&h->w.bias);
}

static noema_status check(const nm_wview *v, const char *path, int ndim, const int64_t *shape, noema_error *err)
{
    char want[128], got[128];
    if (v->ndim == ndim && memcmp(v->shape, shape, (size_t)ndim * sizeof *shape) == 0)
        return NOEMA_OK;
    return nm_fail(err, NOEMA_E_MISMATCH, "%s: %s: expected %s (classes of the data%s), got %s", path, v->name, nm_shape_text(ndim, shape, want),
                   ndim == 2 ? ", features of the model" : "", nm_shape_text(v->ndim, v->shape, got));
}

/* Row of the file for each class of h: the same name, or the same number where one side has no names. */
static noema_status match_rows(const nm_head *h, const nm_weights *file, const char *path, const json_t *names, int64_t *row, noema_error *err)
{
    const char *text = nm_json_str(nm_weights_meta(file), "classes", NULL);
    json_t *have = names && text ? nm_json_parse(text, strlen(text), path, err) : NULL;
    noema_status s = names && text && !have ? NOEMA_E_FORMAT : NOEMA_OK;
    if (have && json_array_size(have) != (size_t)h->classes)
        s = nm_fail(err, NOEMA_E_MISMATCH, "%s: names %zu classes, expected %lld", path, json_array_size(have), (long long)h->classes);
    for (int64_t k = 0; k < h->classes && s == NOEMA_OK; k++) {
        const char *want = have ? json_string_value(json_array_get(names, (size_t)k)) : NULL;
        row[k] = want ? -1 : k;
        for (size_t i = 0; want && i < json_array_size(have); i++) {
            const char *name = json_string_value(json_array_get(have, i));
            if (name && strcmp(name, want) == 0)
                row[k] = (int64_t)i;
        }
        if (row[k] < 0)
            s = nm_fail(err, NOEMA_E_MISMATCH, "%s: has no class '%s', which the data have", path, want);
    }
    json_decref(have);
    return s;
}

static noema_status take(nm_head *h, const nm_weights *file, const char *path, const json_t *names, int64_t *row, noema_error *err)
{
    const nm_wview *w = nm_weights_find(file, "head.weight"), *b = nm_weights_find(file, "head.bias");
    int64_t shape[2] = { h->classes, h->dim };
    if (!w)
        return nm_fail(err, NOEMA_E_MISSING, "%s: expected a tensor head.weight [classes, dim]", path);
    noema_status s = check(w, path, 2, shape, err);
    if (s == NOEMA_OK && b)
        s = check(b, path, 1, shape, err);
    if (s == NOEMA_OK)
        s = match_rows(h, file, path, names, row, err);
    for (int64_t k = 0; k < h->classes && s == NOEMA_OK; k++) {
        nm_wview one = *w;
        one.data = (const char *)w->data + (size_t)(row[k] * w->stride[0]) * nm_dtype_size(w->dtype);
        one.shape[0] = 1;
        nm_wview_copy_f32(&one, h->w.weight.f32 + k * h->dim);
        h->w.bias.f32[k] = 0;
        if (b) {
            one = *b;
            one.data = (const char *)b->data + (size_t)(row[k] * b->stride[0]) * nm_dtype_size(b->dtype);
            one.shape[0] = 1;
            nm_wview_copy_f32(&one, h->w.bias.f32 + k);
        }
        for (int64_t i = 0; i < h->dim; i++)
            if (!isfinite(h->w.weight.f32[k * h->dim + i]) || !isfinite(h->w.bias.f32[k]))
                return nm_fail(err, NOEMA_E_FORMAT, "%s: row %lld of the head is not finite", path, (long long)row[k]);
    }
    return s;
}

noema_status nm_head_load(nm_head *h, const char *path, const json_t *names, noema_error *err)
{
    nm_weights *f = NULL;
    int64_t *row = nm_malloc_array((size_t)h->classes, sizeof *row);
    noema_status s = row ? nm_weights_open(&f, path, err) : nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", path);
    if (s == NOEMA_OK)
        s = take(h, f, path, names, row, err);
    nm_weights_close(f);
    free(row);
    nm_weight_changed(&h->w.weight);
    nm_weight_changed(&h->w.bias);
    return s;
}

noema_status nm_head_write(const char *path, int64_t classes, int64_t dim, const float *weight, const float *bias, const json_t *names, noema_error *err)
{
    nm_wview v[2] = { { .name = "head.weight", .dtype = NM_F32, .ndim = 2, .shape = { classes, dim }, .stride = { dim, 1 }, .data = weight },
                      { .name = "head.bias", .dtype = NM_F32, .ndim = 1, .shape = { classes }, .stride = { 1 }, .data = bias } };
    char *text = names ? json_dumps(names, JSON_COMPACT) : NULL;
    json_t *meta = text ? json_pack("{s:s,s:s}", "format", "pt", "classes", text) : NULL;
    noema_status s = names && !meta ? nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory: names of the classes", path)
                                    : nm_safetensors_write(path, v, 2, meta, err);
    json_decref(meta);
    free(text);
    return s;
}

int64_t nm_head_probabilities(const float *logits, int64_t classes, float *p, int64_t label, double *loss)
{
    int64_t best = 0;
    double sum = 0;
    for (int64_t k = 0; k < classes; k++)
        best = logits[k] > logits[best] ? k : best;
    double most = (double)logits[best];
    for (int64_t k = 0; k < classes; k++)
        sum += exp((double)logits[k] - most);
    double log_z = log(sum);
    *loss = most + log_z - (double)logits[label];
    for (int64_t k = 0; k < classes; k++)
        p[k] = (float)exp((double)logits[k] - most - log_z);
    return best;
}
