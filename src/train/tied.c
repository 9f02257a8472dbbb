/* tied.c - see tied.h. */
#include "train/tied.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

typedef struct collect { nm_tied *t; noema_status status; noema_error *err; } collect;

static noema_status add(nm_tied *t, const nm_param_info *info, noema_error *err)
{
    if (t->n == t->cap) {
        size_t cap = t->cap ? 2 * t->cap : 256;
        nm_tied_param *p = nm_realloc_array(t->params, cap, sizeof *p);
        if (!p)
            return nm_fail(err, NOEMA_E_MEMORY, "out of memory: parameters");
        t->params = p;
        t->cap = cap;
    }
    nm_tied_param *q = &t->params[t->n++];
    *q = (nm_tied_param){ .n_parts = info->n_parts, .w = info->w, .n = (size_t)nm_shape_numel(info->w->shape) };
    for (int i = 0; i < info->n_parts; i++)
        if (!(q->part[i] = nm_strdup(info->part_name[i])))
            return nm_fail(err, NOEMA_E_MEMORY, "out of memory: parameters");
    return nm_weight_own(info->w) ? NOEMA_OK : nm_fail(err, NOEMA_E_MEMORY, "out of memory: %s", info->part_name[0]);
}

static void collect_visit(nm_params *p, const nm_param_info *info)
{
    collect *c = p->user;
    if (c->status == NOEMA_OK && nm_has(info->w))
        c->status = add(c->t, info, c->err);
}

noema_status nm_tied_collect(nm_tied *t, nm_declare_fn *declare, void *model, int scheme, noema_error *err)
{
    collect c = { .t = t, .err = err };
    nm_params p = { .visit = collect_visit, .user = &c, .scheme = scheme, .err = err };
    declare(&p, model);
    return c.status;
}

nm_tied_param *nm_tied_find(const nm_tied *t, const char *name)
{
    for (size_t i = 0; i < t->n; i++)
        if (strcmp(t->params[i].part[0], name) == 0)
            return &t->params[i];
    return NULL;
}

static void free_names(nm_tied_param *q)
{
    for (int k = 0; k < q->n_parts; k++)
        free(q->part[k]);
}

bool nm_tied_join(nm_tied *t, const char *name, const char *other)
{
    nm_tied_param *a = nm_tied_find(t, name), *b = nm_tied_find(t, other);
    if (!a || !b || a == b || a->n != b->n || a->n_copies == NM_TIED_COPIES)
        return false;
    a->copy[a->n_copies++] = b->w;
    free_names(b);
    memmove(b, b + 1, (size_t)(t->params + --t->n - b) * sizeof *b);
    return true;
}

void nm_tied_attach(nm_tied *t)
{
    for (size_t i = 0; i < t->n; i++) {
        nm_tied_param *q = &t->params[i];
        q->w->grad = &q->grad;
        for (int k = 0; k < q->n_copies; k++)
            q->copy[k]->grad = &q->grad;
    }
    nm_tied_changed(t);
}

void nm_tied_zero(nm_tied *t)
{
    for (size_t i = 0; i < t->n; i++)
        if (t->params[i].grad.data)
            memset(t->params[i].grad.data, 0, t->params[i].n * sizeof(float));
}

void nm_tied_changed(nm_tied *t)
{
    for (size_t i = 0; i < t->n; i++) {
        nm_tied_param *q = &t->params[i];
        nm_weight_changed(q->w);
        for (int k = 0; k < q->n_copies; k++) {
            memcpy(q->copy[k]->f32, q->w->f32, q->n * sizeof(float));
            nm_weight_changed(q->copy[k]);
        }
    }
}

void nm_tied_free(nm_tied *t)
{
    for (size_t i = 0; i < t->n; i++) {
        nm_tied_param *q = &t->params[i];
        q->w->grad = NULL;
        for (int k = 0; k < q->n_copies; k++)
            q->copy[k]->grad = NULL;
        nm_free(q->grad.data);
        free_names(q);
    }
    free(t->params);
    *t = (nm_tied){ 0 };
}
