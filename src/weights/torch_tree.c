/* torch_tree.c - see torch_tree.h. The tree is what torch.save was given: a state dict, a training checkpoint around one, or a
 * TorchScript module, whose attributes are the names. */
#include "weights/torch_tree.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VISIT_LIMIT 8000000 /* nodes; shared lists of lists make a small pickle a huge tree */
#define FOUND_LIMIT 1000000

typedef struct found { const char *name; const nm_ptensor *tensor; } found;

typedef struct walk {
    nm_pickle *p;
    noema_error *err;
    nm_buf name; /* path of the node being visited */
    found *item;
    size_t n, cap, n_visits;
} walk;

static bool is_dict(const nm_pvalue *v) { return v->kind == NM_P_DICT || v->kind == NM_P_OBJECT; }
static bool is_list(const nm_pvalue *v) { return v->kind == NM_P_LIST || v->kind == NM_P_TUPLE; }
static bool is(const nm_pvalue *v, const char *s) { return v->kind == NM_P_STR && v->n == strlen(s) && memcmp(v->u.s, s, v->n) == 0; }

static noema_status visit(walk *w, const nm_pvalue *v, int depth);

static noema_status keep(walk *w, const nm_pvalue *v)
{
    if (w->n >= FOUND_LIMIT)
        return nm_fail(w->err, NOEMA_E_LIMIT, "%s: more than %d tensors", w->p->path, FOUND_LIMIT);
    if (w->n == w->cap) {
        size_t cap = w->cap ? w->cap * 2 : 256;
        found *item = nm_realloc_array(w->item, cap, sizeof *item);
        if (!item)
            return nm_fail(w->err, NOEMA_E_MEMORY, "%s: out of memory", w->p->path);
        w->item = item;
        w->cap = cap;
    }
    char *name = nm_arena_alloc(w->p->arena, w->name.len + 1);
    if (!name || w->name.failed)
        return nm_fail(w->err, NOEMA_E_MEMORY, "%s: out of memory", w->p->path);
    if (w->name.len)
        memcpy(name, w->name.data, w->name.len);
    name[w->name.len] = 0;
    w->item[w->n++] = (found){ name, v->u.tensor };
    return NOEMA_OK;
}

/* Visits a child under the path so far + "." + key (or its index, for keys that are no names). */
static noema_status visit_child(walk *w, const nm_pvalue *key, uint32_t index, const nm_pvalue *v, int depth)
{
    size_t len = w->name.len;
    if (!is_dict(v) && !is_list(v) && v->kind != NM_P_TENSOR)
        return NOEMA_OK;
    if (len > 8192 || (key && key->kind == NM_P_STR && key->n > 4096))
        return nm_fail(w->err, NOEMA_E_LIMIT, "%s: overlong tensor name", w->p->path);
    if (len)
        nm_buf_putc(&w->name, '.');
    if (key && key->kind == NM_P_STR)
        nm_buf_append(&w->name, key->u.s, key->n);
    else
        nm_buf_printf(&w->name, "%lld", key && key->kind == NM_P_INT ? (long long)key->u.i : (long long)index);
    noema_status s = visit(w, v, depth + 1);
    if (w->name.data) {
        w->name.len = len;
        w->name.data[len] = 0;
    }
    return s;
}

static noema_status visit(walk *w, const nm_pvalue *v, int depth)
{
    w->n_visits += is_dict(v) || is_list(v) ? 1 + (size_t)v->n : 1;
    if (depth > NM_PICKLE_DEPTH || w->n_visits > VISIT_LIMIT)
        return nm_fail(w->err, NOEMA_E_LIMIT, "%s: containers nested more than %d deep, or more than %d of them", w->p->path, NM_PICKLE_DEPTH,
                       VISIT_LIMIT);
    noema_status s = NOEMA_OK;
    if (v->kind == NM_P_TENSOR)
        return keep(w, v);
    if (is_dict(v))
        for (uint32_t i = 0; i + 1 < v->n && s == NOEMA_OK; i += 2)
            s = visit_child(w, v->u.item[i], i / 2, v->u.item[i + 1], depth);
    else if (is_list(v))
        for (uint32_t i = 0; i < v->n && s == NOEMA_OK; i++)
            s = visit_child(w, NULL, i, v->u.item[i], depth);
    return s;
}

/* ---- selection ---- */

static const nm_pvalue *member(const nm_pvalue *d, const char *key)
{
    for (uint32_t i = 0; i + 1 < d->n; i += 2)
        if (is(d->u.item[i], key))
            return d->u.item[i + 1];
    return NULL;
}

/* The container that a training checkpoint keeps its weights in; NULL when the top level is the weights, whose keys are flat. */
static const nm_pvalue *container_of(const nm_pvalue *root)
{
    static const char *const names[] = { "state_dict", "model_state_dict", "model", "module" };
    if (root->kind != NM_P_DICT)
        return NULL;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const nm_pvalue *v = member(root, names[i]);
        if (v && is_dict(v) && v->n)
            return v;
    }
    return NULL;
}

static bool optimizer_like(const nm_pvalue *key)
{
    static const char *const names[] = { "optimizer", "optimizers", "optimizer_state_dict", "optimizer_states", "optim", "opt", "scaler",
                                         "amp", "lr_scheduler", "lr_schedulers", "scheduler", "scheduler_state_dict", "loss_scaler", "rng",
                                         "rng_state" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (is(key, names[i]))
            return true;
    return false;
}

/* The node at a dotted path; keys may hold dots themselves. */
static const nm_pvalue *at_path(const nm_pvalue *v, const char *path, int depth)
{
    size_t len = strlen(path);
    if (!len || depth > NM_PICKLE_DEPTH || !is_dict(v))
        return len ? NULL : v;
    for (uint32_t i = 0; i + 1 < v->n; i += 2) {
        const nm_pvalue *key = v->u.item[i];
        if (key->kind != NM_P_STR || !key->n || key->n > len || memcmp(path, key->u.s, key->n) != 0)
            continue;
        if (key->n == len)
            return v->u.item[i + 1];
        const nm_pvalue *r = path[key->n] == '.' ? at_path(v->u.item[i + 1], path + key->n + 1, depth + 1) : NULL;
        if (r)
            return r;
    }
    return NULL;
}

/* What DataParallel and torch.compile put before every name goes. */
static void strip_wrappers(walk *w, size_t n)
{
    static const char *const wrappers[] = { "module.", "_orig_mod." };
    bool again = n > 0;
    while (again) {
        again = false;
        for (size_t k = 0; k < sizeof wrappers / sizeof *wrappers; k++) {
            size_t len = strlen(wrappers[k]), i = 0;
            while (i < n && strncmp(w->item[i].name, wrappers[k], len) == 0 && w->item[i].name[len])
                i++;
            if (i < n)
                continue;
            for (i = 0; i < n; i++)
                w->item[i].name += len;
            again = true;
        }
    }
}

static noema_status select_default(walk *w, const nm_pvalue *root)
{
    const nm_pvalue *c = container_of(root);
    noema_status s = visit(w, c ? c : root, 0);
    strip_wrappers(w, w->n);
    for (uint32_t i = 0; c && s == NOEMA_OK && i + 1 < root->n; i += 2)
        if (root->u.item[i + 1] != c && !optimizer_like(root->u.item[i]))
            s = visit_child(w, root->u.item[i], i / 2, root->u.item[i + 1], 0);
    return s;
}

static noema_status select_tensors(walk *w, const nm_weights_options *o)
{
    const nm_pvalue *root = w->p->root;
    if (o->subtree) {
        const nm_pvalue *v = at_path(root, o->subtree, 0);
        if (!v)
            return nm_fail(w->err, NOEMA_E_MISSING, "%s: nothing is named '%s' in it", w->p->path, o->subtree);
        noema_status s = visit(w, v, 0);
        if (!o->raw)
            strip_wrappers(w, w->n);
        return s;
    }
    return o->raw ? visit(w, root, 0) : select_default(w, root);
}

/* ---- JSON ---- */

static json_t *to_json(const nm_pvalue *v, int depth, size_t *budget);

static void set_member(json_t *o, const nm_pvalue *key, const nm_pvalue *v, int depth, size_t *budget)
{
    char text[24];
    if (*budget)
        --*budget;
    size_t n = key->n;
    const char *s = key->u.s;
    if (key->kind == NM_P_INT) {
        n = (size_t)snprintf(text, sizeof text, "%lld", (long long)key->u.i);
        s = text;
    } else if (key->kind != NM_P_STR || memchr(s, 0, n))
        return;
    if (v->kind == NM_P_TENSOR || v->kind == NM_P_STORAGE)
        return;
    char *k = nm_strndup(s, n);
    json_t *j = k ? to_json(v, depth + 1, budget) : NULL;
    if (j)
        json_object_set_new(o, k, j); /* refuses names that are not UTF-8 */
    free(k);
}

/* NULL only when out of memory or budget: metadata is then incomplete, weights are not touched. */
static json_t *to_json(const nm_pvalue *v, int depth, size_t *budget)
{
    if (depth > NM_PICKLE_DEPTH || *budget == 0)
        return json_null();
    --*budget;
    json_t *j;
    switch (v->kind) {
    case NM_P_BOOL: return json_boolean(v->u.i != 0);
    case NM_P_INT: return json_integer(v->u.i);
    case NM_P_FLOAT: j = json_real(v->u.f); return j ? j : json_null(); /* NaN and infinities have no JSON */
    case NM_P_STR: j = json_stringn(v->u.s, v->n); return j ? j : json_null();
    case NM_P_DTYPE: return json_string(nm_dtype_name((nm_dtype)v->u.i));
    case NM_P_DICT: case NM_P_OBJECT:
        j = json_object();
        for (uint32_t i = 0; j && *budget && i + 1 < v->n; i += 2)
            set_member(j, v->u.item[i], v->u.item[i + 1], depth, budget);
        return j;
    case NM_P_LIST: case NM_P_TUPLE:
        j = json_array();
        for (uint32_t i = 0; j && *budget && i < v->n; i++)
            json_array_append_new(j, to_json(v->u.item[i], depth + 1, budget));
        return j;
    default: return json_null();
    }
}

/* ---- views ---- */

/* The base of a storage, aligned for `size`-byte elements. Bytes of numpy arrays may lie in the pickle's arena: they are copied. */
static const unsigned char *base_of(nm_weights *w, nm_pstorage *s, size_t size)
{
    if (!s->key) {
        void *copy = nm_weights_block(w, s->bytes);
        if (copy && s->bytes)
            memcpy(copy, s->data, s->bytes);
        s->key = "";
        s->data = copy;
    } else
        s->data = nm_weights_aligned(w, s->data, s->bytes, size);
    return s->data;
}

noema_status nm_torch_add_tree(nm_weights *w, const nm_wfile *f, nm_pickle *p, const nm_weights_options *o, noema_error *err)
{
    walk k = { .p = p, .err = err };
    noema_status s = select_tensors(&k, o);
    for (size_t i = 0; i < k.n && s == NOEMA_OK; i++) {
        const nm_ptensor *t = k.item[i].tensor;
        nm_wview v = t->view;
        size_t size = nm_dtype_size(v.dtype);
        const unsigned char *base = base_of(w, &p->storage[t->storage], size);
        if (!base) {
            s = nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", f->path);
            break;
        }
        v.data = base + (size_t)t->offset * size;
        s = nm_weights_add(w, f, &v, k.item[i].name, strlen(k.item[i].name), err);
    }
    size_t budget = 1000000;
    if (s == NOEMA_OK && !w->meta && p->root->kind == NM_P_DICT)
        w->meta = to_json(p->root, 0, &budget);
    free(k.item);
    nm_buf_free(&k.name);
    return s;
}
