/* pictures.c - the list of an evaluation's pictures and captions, and the vectors of both. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "eval/rows.h"
#include "train/rows.h"

enum { STEP = 512 /* pictures or texts a call */ };

void nm_pictures_free(nm_pictures *p)
{
    for (int64_t i = 0; i < p->n; i++)
        free(p->item[i].path);
    for (int k = 0; k < p->n_sets; k++)
        nm_dataset_free(p->set[k]);
    nm_strings_free(p->caption, p->n_captions);
    nm_strings_free(p->label_name, p->label_name ? p->classes : 0);
    free(p->item);
    free(p->label);
    free(p->set);
    free(p->owner);
    free(p->bad);
    *p = (nm_pictures){ 0 };
}

static noema_status no_memory(noema_error *err) { return nm_fail(err, NOEMA_E_MEMORY, "out of memory: pictures"); }

static noema_status add_ref(nm_pictures *p, nm_picture_ref ref, noema_error *err)
{
    if (p->n == p->cap) {
        int64_t cap = p->cap ? 2 * p->cap : 1024;
        nm_picture_ref *q = nm_realloc_array(p->item, (size_t)cap, sizeof *q);
        if (!q) {
            free(ref.path);
            return no_memory(err);
        }
        p->item = q;
        p->cap = cap;
    }
    p->item[p->n++] = ref;
    return NOEMA_OK;
}

noema_status nm_pictures_add(nm_pictures *p, char *path, noema_error *err)
{
    return path ? add_ref(p, (nm_picture_ref){ .set = -1, .path = path }, err) : no_memory(err);
}

noema_status nm_pictures_add_row(nm_pictures *p, int set, int64_t row, noema_error *err)
{
    return add_ref(p, (nm_picture_ref){ .set = set, .row = row }, err);
}

noema_status nm_pictures_caption(nm_pictures *p, const char *text, int64_t owner, noema_error *err)
{
    if (p->n_captions == p->cap_captions) {
        int64_t cap = p->cap_captions ? 2 * p->cap_captions : 1024;
        char **c = nm_realloc_array(p->caption, (size_t)cap, sizeof *c);
        if (c)
            p->caption = c;
        int64_t *o = c ? nm_realloc_array(p->owner, (size_t)cap, sizeof *o) : NULL;
        if (!o)
            return no_memory(err);
        p->owner = o;
        p->cap_captions = cap;
    }
    if (!(p->caption[p->n_captions] = nm_strdup(text)))
        return no_memory(err);
    p->owner[p->n_captions++] = owner;
    return NOEMA_OK;
}

const char *nm_pictures_name(const nm_pictures *p, int64_t i, char buf[512])
{
    const nm_picture_ref *r = &p->item[i];
    return r->path ? r->path : nm_rows_name(p->set[r->set], r->row, buf);
}

/* ---- vectors ---- */

typedef struct embedding { nm_eval *e; nm_pictures *p; unsigned flags; int64_t first, dim; noema_error errors[STEP]; } embedding;

static noema_status load(void *arg, size_t i, nm_preprocess_scratch *scratch, nm_image *own, float *out, noema_error *err)
{
    const embedding *w = arg;
    const nm_picture_ref *r = &w->p->item[w->first + (int64_t)i];
    nm_row row = { .path = r->path };
    (void)own;
    noema_status s = r->path ? NOEMA_OK : nm_dataset_read(w->p->set[r->set], r->row, &row, err);
    if (r->path)
        snprintf(row.name, sizeof row.name, "%s", r->path);
    if (s == NOEMA_OK)
        s = nm_row_tensor(&row, w->e->session->model->m, scratch, out, err);
    nm_row_release(&row);
    return s;
}

static noema_status embed_some(void *arg, int64_t first, int64_t n, float *out)
{
    embedding *w = arg;
    char buf[512];
    w->first = first;
    memset(w->errors, 0, (size_t)n * sizeof *w->errors);
    noema_status s = nm_embed_loaded(w->e->session, (size_t)n, load, w, w->flags, out, w->errors, w->e->err);
    for (int64_t i = 0; i < n && s == NOEMA_OK; i++)
        if (w->errors[i].code == NOEMA_E_MISMATCH) /* a wrong size is no fault of one picture */
            s = nm_fail(w->e->err, w->errors[i].code, "%s", w->errors[i].message);
        else if (w->errors[i].code != NOEMA_OK)
            nm_eval_failed(w->e, nm_pictures_name(w->p, first + i, buf), &w->errors[i]);
    return s;
}

static void pictures_key(nm_sha256 *key, const nm_pictures *p)
{
    char name[512];
    for (int k = 0; k < p->n_sets; k++)
        for (size_t i = 0; i < nm_dataset_parts(p->set[k]); i++) {
            const char *format;
            int64_t rows;
            nm_rows_key_file(key, nm_dataset_part(p->set[k], i, &format, &rows));
        }
    for (int64_t i = 0; i < p->n; i++) {
        const nm_picture_ref *r = &p->item[i];
        const char *path = nm_pictures_name(p, i, name);
        nm_sha256_update(key, &r->row, sizeof r->row);
        if (nm_file_exists(path))
            nm_rows_key_file(key, path);
    }
}

/* NaN rows are marked bad and become 0. */
static void mark_bad(nm_pictures *p, float *x, int64_t dim)
{
    for (int64_t i = 0; i < p->n; i++) {
        p->bad[i] = isnan(x[i * dim]);
        if (p->bad[i])
            memset(x + i * dim, 0, (size_t)dim * sizeof *x);
    }
}

noema_status nm_eval_embed_pictures(nm_eval *e, nm_pictures *p, unsigned flags, nm_vectors *v)
{
    noema_status s = nm_eval_need_model(e, true, false);
    *v = (nm_vectors){ 0 };
    if (s != NOEMA_OK)
        return s;
    int64_t dim = flags & NOEMA_FEATURES ? noema_model_feature_dim(e->session->model) : noema_model_get_info(e->session->model)->embed_dim;
    if (dim < 1)
        return nm_fail(e->err, NOEMA_E_UNSUPPORTED, "%s has no image features before the projection", e->session->model->name);
    size_t floats;
    embedding *w = calloc(1, sizeof *w);
    float *x = nm_mul_size((size_t)p->n, (size_t)dim, &floats) ? nm_malloc_array(floats, sizeof *x) : NULL;
    if (!p->bad)
        p->bad = calloc((size_t)p->n, sizeof *p->bad);
    if (!w || !x || !p->bad)
        s = no_memory(e->err);
    if (s == NOEMA_OK) {
        nm_sha256 key;
        *w = (embedding){ .e = e, .p = p, .flags = flags, .dim = dim };
        nm_rows_key(&key, e, "pictures", flags);
        if (e->o.cache)
            pictures_key(&key, p);
        s = nm_stored_rows(e, &key, "pictures", p->n, dim, STEP, embed_some, w, x);
    }
    if (s == NOEMA_OK) {
        mark_bad(p, x, dim);
        s = nm_vectors_from_f32(v, x, p->n, dim, e->err);
    }
    free(w);
    free(x);
    return s;
}

typedef struct texts { nm_eval *e; char *const *text; } texts;

static noema_status embed_some_texts(void *arg, int64_t first, int64_t n, float *out)
{
    texts *t = arg;
    return noema_embed_texts(t->e->session, (size_t)n, (const char *const *)t->text + first, NULL, NOEMA_NORMALIZE, out, t->e->err);
}

noema_status nm_eval_embed_texts(nm_eval *e, int64_t n, char *const *text, nm_vectors *v)
{
    noema_status s = nm_eval_need_model(e, false, true);
    *v = (nm_vectors){ 0 };
    if (s != NOEMA_OK)
        return s;
    int64_t dim = noema_model_get_info(e->session->model)->embed_dim;
    float *x = nm_malloc_array((size_t)n * (size_t)dim + 1, sizeof *x);
    texts t = { e, text };
    nm_sha256 key;
    nm_rows_key(&key, e, "texts", NOEMA_NORMALIZE);
    for (int64_t i = 0; e->o.cache && i < n; i++)
        nm_rows_key_text(&key, text[i]);
    s = x ? nm_stored_rows(e, &key, "texts", n, dim, STEP, embed_some_texts, &t, x) : no_memory(e->err);
    if (s == NOEMA_OK)
        s = nm_vectors_from_f32(v, x, n, dim, e->err);
    free(x);
    return s;
}

typedef struct class_job { nm_eval *e; const nm_prompts *p; } class_job;

static noema_status some_classes(void *arg, int64_t first, int64_t n, float *out)
{
    class_job *c = arg;
    return noema_class_vectors(c->e->session, (size_t)n, (const char *const *)c->p->name + first, (size_t)c->p->n_texts,
                               (const char *const *)c->p->text, out, c->e->err);
}

noema_status nm_eval_class_vectors(nm_eval *e, const nm_prompts *p, nm_vectors *v)
{
    noema_status s = nm_eval_need_model(e, false, true);
    *v = (nm_vectors){ 0 };
    if (s != NOEMA_OK)
        return s;
    int64_t dim = noema_model_get_info(e->session->model)->embed_dim, step = p->n_texts > 1 ? 1 + STEP / p->n_texts : STEP;
    float *x = nm_malloc_array((size_t)p->n_names * (size_t)dim + 1, sizeof *x);
    class_job c = { e, p };
    nm_sha256 key;
    nm_rows_key(&key, e, "classes", 0);
    for (int64_t i = 0; e->o.cache && i < p->n_texts; i++)
        nm_rows_key_text(&key, p->text[i]);
    for (int64_t i = 0; e->o.cache && i < p->n_names; i++)
        nm_rows_key_text(&key, p->name[i]);
    s = x ? nm_stored_rows(e, &key, "class names", p->n_names, dim, step, some_classes, &c, x) : no_memory(e->err);
    if (s == NOEMA_OK)
        s = nm_vectors_from_f32(v, x, p->n_names, dim, e->err);
    free(x);
    return s;
}

int64_t nm_eval_drop_bad(const nm_pictures *p, nm_vectors *v, int64_t *label, int64_t *keep)
{
    int64_t n = 0;
    for (int64_t i = 0; i < v->n; i++) {
        if (p->bad && p->bad[i])
            continue;
        memmove(v->x + n * v->dim, v->x + i * v->dim, (size_t)v->dim * sizeof *v->x);
        if (label)
            label[n] = label[i];
        if (keep)
            keep[n] = i;
        n++;
    }
    return v->n = n;
}
