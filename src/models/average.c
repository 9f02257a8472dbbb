/* average.c - weighted means of the weights of models of one architecture: WiSE-FT (arXiv 2109.01903), model soups (arXiv 2203.05482). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "models/average.h"
#include "models/handle.h"

typedef struct listed { nm_weight *w; char *name; } listed;
typedef struct list { listed *item; size_t n, cap; bool failed; } list;

static void visit(nm_params *p, const nm_param_info *info)
{
    list *l = p->user;
    if (!nm_has(info->w) || l->failed)
        return;
    if (l->n == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 256;
        listed *q = nm_realloc_array(l->item, cap, sizeof *q);
        if (!q) {
            l->failed = true;
            return;
        }
        l->item = q;
        l->cap = cap;
    }
    l->item[l->n] = (listed){ info->w, nm_strdup(info->part_name[0]) };
    l->failed = !l->item[l->n].name;
    l->n += !l->failed;
}

static void list_weights(list *l, nm_model *m)
{
    nm_params p = { .visit = visit, .user = l, .scheme = m->family->save_scheme };
    m->family->declare(&p, m);
}

static void list_free(list *l)
{
    for (size_t i = 0; i < l->n; i++)
        free(l->item[i].name);
    free(l->item);
}

static bool same_shape(const listed *a, const listed *b)
{
    const nm_shape *s = &a->w->shape, *t = &b->w->shape;
    return s->ndim == t->ndim && memcmp(s->dim, t->dim, (size_t)(s->ndim > 0 ? s->ndim : 0) * sizeof *s->dim) == 0;
}

static bool same(const listed *a, const listed *b) { return strcmp(a->name, b->name) == 0 && same_shape(a, b); }

static noema_status mix_one(nm_weight *dst, double a, const nm_weight *src, double b, const char *name, noema_error *err)
{
    size_t n = (size_t)nm_shape_numel(dst->shape);
    float *x = nm_alloc((n + 1) * sizeof *x), *y = nm_alloc((n + 1) * sizeof *y);
    if (!x || !y) {
        nm_free(x);
        nm_free(y);
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory: %s", name);
    }
    nm_weight_copy_f32(dst, x);
    nm_weight_copy_f32(src, y);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)(a * (double)x[i] + b * (double)y[i]);
    nm_free(y);
    nm_weight_set(dst, x, dst->shape);
    return NOEMA_OK;
}

noema_status nm_model_mix(nm_model *dst, double a, nm_model *src, double b, noema_error *err)
{
    list x = { 0 }, y = { 0 };
    char want[128], got[128];
    list_weights(&x, dst);
    list_weights(&y, src);
    noema_status s = x.failed || y.failed ? nm_fail(err, NOEMA_E_MEMORY, "out of memory: parameters") : NOEMA_OK;
    for (size_t i = 0; s == NOEMA_OK && i < (x.n > y.n ? x.n : y.n); i++)
        if (i >= x.n || i >= y.n || !same(&x.item[i], &y.item[i])) {
            const listed *p = i < x.n ? &x.item[i] : NULL, *q = i < y.n ? &y.item[i] : NULL;
            s = nm_fail(err, NOEMA_E_MISMATCH, "the models differ: %s %s in one, %s %s in the other", p ? p->name : "nothing",
                        p ? nm_shape_text(p->w->shape.ndim, p->w->shape.dim, want) : "", q ? q->name : "nothing",
                        q ? nm_shape_text(q->w->shape.ndim, q->w->shape.dim, got) : "");
        }
    for (size_t i = 0; i < x.n && s == NOEMA_OK; i++)
        s = mix_one(x.item[i].w, a, y.item[i].w, b, x.item[i].name, err);
    list_free(&x);
    list_free(&y);
    return s;
}

static const char *without_tower(const char *name) { return strncmp(name, "text.", 5) == 0 ? name + 5 : name; }

static int by_name(const void *a, const void *b) { return strcmp(without_tower(((const listed *)a)->name), without_tower(((const listed *)b)->name)); }

noema_status nm_model_take(nm_model *dst, nm_model *src, size_t *taken, size_t *all, noema_error *err)
{
    list x = { 0 }, y = { 0 };
    list_weights(&x, dst);
    list_weights(&y, src);
    noema_status s = x.failed || y.failed ? nm_fail(err, NOEMA_E_MEMORY, "out of memory: parameters") : NOEMA_OK;
    qsort(y.item, y.n, sizeof *y.item, by_name);
    *taken = 0;
    *all = x.n;
    for (size_t i = 0; s == NOEMA_OK && i < x.n; i++) {
        const listed *from = bsearch(&x.item[i], y.item, y.n, sizeof *y.item, by_name);
        nm_weight *w = x.item[i].w;
        if (!from || !same_shape(&x.item[i], from))
            continue;
        float *value = nm_alloc(((size_t)nm_shape_numel(w->shape) + 1) * sizeof *value);
        if (!value) {
            s = nm_fail(err, NOEMA_E_MEMORY, "out of memory: %s", x.item[i].name);
            break;
        }
        nm_weight_copy_f32(from->w, value);
        nm_weight_set(w, value, w->shape);
        (*taken)++;
        if (strcmp(x.item[i].name, "logit_scale") == 0)
            dst->logit_scale = exp((double)value[0]);
        if (strcmp(x.item[i].name, "logit_bias") == 0)
            dst->logit_bias = (double)value[0];
    }
    list_free(&x);
    list_free(&y);
    return s;
}

/* ---- heads of classifiers: head.safetensors beside each model ---- */

static char *head_of(const noema_model *m) { return m->dir ? nm_path_join(m->dir, "head.safetensors") : NULL; }

/* total += weight * head; the first one gives shapes and names of the classes. */
static noema_status add_head(nm_weights **first, float **total, const char *path, double weight, noema_error *err)
{
    static const char *const names[2] = { "head.weight", "head.bias" };
    nm_weights *f = NULL;
    noema_status s = nm_weights_open(&f, path, err);
    for (int i = 0; i < 2 && s == NOEMA_OK; i++) {
        const nm_wview *v = nm_weights_find(f, names[i]), *as = *first ? nm_weights_find(*first, names[i]) : v;
        if (!v || !as || v->ndim != as->ndim || memcmp(v->shape, as->shape, (size_t)v->ndim * sizeof *v->shape) != 0)
            return nm_weights_close(f), nm_fail(err, NOEMA_E_MISMATCH, "%s: %s: missing, or of other classes than the first model's", path, names[i]);
        size_t n = (size_t)nm_wview_numel(v);
        float *x = nm_malloc_array(n + 1, sizeof *x);
        if (!total[i] && x)
            total[i] = calloc(n + 1, sizeof *x);
        if (!x || !total[i])
            s = nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", path);
        else
            nm_wview_copy_f32(v, x);
        for (size_t k = 0; k < n && s == NOEMA_OK; k++)
            total[i][k] += (float)(weight * (double)x[k]);
        free(x);
    }
    if (s == NOEMA_OK && *first) {
        const char *a = nm_json_str(nm_weights_meta(*first), "classes", ""), *b = nm_json_str(nm_weights_meta(f), "classes", "");
        if (strcmp(a, b) != 0)
            s = nm_fail(err, NOEMA_E_MISMATCH, "%s: its classes are not those of the first model's head", path);
    }
    if (!*first)
        *first = f;
    else
        nm_weights_close(f);
    return s;
}

static noema_status write_head(const nm_weights *first, float **total, const char *path, noema_error *err)
{
    nm_wview v[2] = { *nm_weights_find(first, "head.weight"), *nm_weights_find(first, "head.bias") };
    for (int i = 0; i < 2; i++) {
        int64_t step = 1;
        for (int d = v[i].ndim - 1; d >= 0; step *= v[i].shape[d--])
            v[i].stride[d] = step;
        v[i].dtype = NM_F32;
        v[i].data = total[i];
    }
    return nm_safetensors_write(path, v, 2, nm_weights_meta(first), err);
}

/* ---- the public call ---- */

typedef struct average { noema_context *ctx; const noema_model_options *o; noema_model *sum; nm_weights *head; float *total[2]; size_t heads; } average;

static noema_status add_model(average *a, const char *name, double weight, double before, noema_error *err)
{
    noema_model *m = NULL;
    noema_status s = noema_model_open(&m, a->ctx, name, a->o, err);
    char *head = s == NOEMA_OK ? head_of(m) : NULL;
    if (s == NOEMA_OK && head && nm_file_exists(head)) {
        s = add_head(&a->head, a->total, head, weight, err);
        a->heads++;
    }
    free(head);
    if (s == NOEMA_OK && !a->sum) {
        a->sum = m;
        return nm_model_mix(m->m, weight, m->m, 0, err);
    }
    if (s == NOEMA_OK && nm_model_mix(a->sum->m, before, m->m, weight, err) != NOEMA_OK)
        s = nm_fail_prefix(err, name);
    noema_model_free(m);
    return s;
}

noema_status noema_models_average(noema_context *ctx, size_t n, const char *const *names, const double *weights, const noema_model_options *options,
                                  const char *folder, noema_layout layout, noema_dtype dtype, noema_error *err)
{
    noema_model_options o;
    if (!ctx || n < 1 || !names || !folder)
        return nm_fail(err, NOEMA_E_ARGUMENT, "noema_models_average: a context, models and a folder are needed");
    noema_model_options_default(&o);
    if (options)
        o = *options;
    o.dtype = NOEMA_DTYPE_F32;
    average a = { .ctx = ctx, .o = &o };
    noema_status s = NOEMA_OK;
    for (size_t i = 0; i < n && s == NOEMA_OK; i++)
        s = add_model(&a, names[i], weights ? weights[i] : 1.0 / (double)n, 1, err);
    if (s == NOEMA_OK && a.heads != 0 && a.heads != n)
        nm_log(ctx, NOEMA_LOG_WARNING, "%zu of %zu models have a head.safetensors beside them: the heads are left out", a.heads, n);
    if (s == NOEMA_OK)
        s = noema_model_save(a.sum, folder, layout, dtype, err);
    char *path = s == NOEMA_OK && a.head && a.heads == n ? nm_path_join(folder, "head.safetensors") : NULL;
    if (path)
        s = write_head(a.head, a.total, path, err);
    free(path);
    nm_weights_close(a.head);
    noema_model_free(a.sum);
    free(a.total[0]);
    free(a.total[1]);
    return s;
}
