/* rows_tensors.c - .safetensors with pictures as the model gets them: `image` f32 [n, 3, h, w] with `text` [n, L] or `label` [n], and maybe
 * `keep` [n, patches], i64 or i32. */
#include <stdio.h>
#include <stdlib.h>

#include "base/file.h"
#include "base/mem.h"
#include "data/format.h"
#include "weights/weights.h"

typedef struct tensors {
    nm_part part;
    nm_weights *file;
    const nm_wview *image;
    nm_wview text, label;  /* i64; data NULL: not there */
    int64_t *own[2];       /* those that the file has as i32 */
} tensors;

static bool probe(const char *path, bool folder, const unsigned char *head, size_t n)
{
    (void)head;
    (void)n;
    return !folder && nm_has_suffix(path, ".safetensors");
}

static noema_status check_values(tensors *t, noema_error *err)
{
    nm_part *p = &t->part;
    const int64_t *id = t->text.data, *label = t->label.data;
    for (int64_t i = 0; id && i < nm_wview_numel(&t->text); i++)
        if (id[i] < 0 || id[i] > INT32_MAX)
            return nm_fail(err, NOEMA_E_FORMAT, "%s: `text` holds %lld, which is no token id", p->path, (long long)id[i]);
    if (!label)
        return NOEMA_OK;
    if (!(p->label = nm_malloc_array((size_t)p->n + 1, sizeof *p->label)))
        return nm_part_no_memory(p, err);
    for (int64_t i = 0; i < p->n; i++) {
        char where[300];
        snprintf(where, sizeof where, "%s: row %lld", p->path, (long long)i);
        p->label[i] = label[i] < 0 ? -1 : (int32_t)label[i]; /* a row without a class is refused by who needs one */
        if (label[i] >= 0 && nm_class_check(p->owner, label[i], where, err) != NOEMA_OK)
            return NOEMA_E_FORMAT;
    }
    return NOEMA_OK;
}

/* A tensor of whole numbers for all images, as i64; *to stays empty where the file has none. */
static noema_status read_numbers(tensors *t, const char *name, int ndim, nm_wview *to, int64_t **own, noema_error *err)
{
    nm_part *p = &t->part;
    const nm_wview *v = nm_weights_find(t->file, name);
    if (!v)
        return NOEMA_OK;
    if (v->ndim != ndim || v->shape[0] != p->n || (v->dtype != NM_I64 && v->dtype != NM_I32) || !nm_wview_contiguous(v))
        return nm_fail(err, NOEMA_E_FORMAT, "%s: `%s`: expected i64 or i32 %s for %lld images", p->path, name, ndim == 2 ? "[n, length]" : "[n]", (long long)p->n);
    *to = *v;
    if (v->dtype == NM_I64)
        return NOEMA_OK;
    int64_t n = nm_wview_numel(v);
    if (!(*own = nm_malloc_array((size_t)n + 1, sizeof **own)))
        return nm_part_no_memory(p, err);
    for (int64_t i = 0; i < n; i++)
        (*own)[i] = ((const int32_t *)v->data)[i];
    to->data = *own;
    return NOEMA_OK;
}

/* `keep` i64 or i32 [n, patches]. */
static noema_status read_keep(tensors *t, const nm_wview *v, noema_error *err)
{
    nm_part *p = &t->part;
    if (v->ndim != 2 || v->shape[0] != p->n || v->shape[1] < 1 || v->shape[1] > 1 << 20 || (v->dtype != NM_I64 && v->dtype != NM_I32) || !nm_wview_contiguous(v))
        return nm_fail(err, NOEMA_E_FORMAT, "%s: `keep`: expected i64 or i32 [n, patches] for %lld images", p->path, (long long)p->n);
    int64_t n = nm_wview_numel(v);
    if (!(p->keep = nm_malloc_array((size_t)n + 1, sizeof *p->keep)))
        return nm_part_no_memory(p, err);
    p->n_keep = v->shape[1];
    for (int64_t i = 0; i < n; i++) {
        int64_t k = v->dtype == NM_I64 ? ((const int64_t *)v->data)[i] : ((const int32_t *)v->data)[i];
        p->keep[i] = k < 0 || k > 1 << 24 ? -1 : (int32_t)k; /* refused against the model's grid */
    }
    return NOEMA_OK;
}

static noema_status open_tensors(nm_part *p, const nm_dataset_options *o, noema_error *err)
{
    tensors *t = (tensors *)p;
    (void)o;
    noema_status s = nm_weights_open(&t->file, p->path, err);
    if (s != NOEMA_OK)
        return s;
    t->image = nm_weights_find(t->file, "image");
    if (!t->image || t->image->ndim != 4 || t->image->dtype != NM_F32 || !nm_wview_contiguous(t->image))
        return nm_fail(err, NOEMA_E_FORMAT, "%s: expected a tensor `image`, f32 [n, 3, height, width]", p->path);
    p->n = t->image->shape[0];
    if (nm_weights_find(t->file, "keep") && (s = read_keep(t, nm_weights_find(t->file, "keep"), err)) != NOEMA_OK)
        return s;
    s = read_numbers(t, "text", 2, &t->text, &t->own[0], err);
    if (s == NOEMA_OK)
        s = read_numbers(t, "label", 1, &t->label, &t->own[1], err);
    if (s == NOEMA_OK && !t->text.data && !t->label.data)
        s = nm_fail(err, NOEMA_E_FORMAT, "%s: expected a tensor `text` [n, length] or `label` [n]", p->path);
    return s == NOEMA_OK ? check_values(t, err) : s;
}

static noema_status read_row(const nm_part *p, int64_t i, nm_row *row, bool picture, noema_error *err)
{
    const tensors *t = (const tensors *)p;
    (void)picture;
    (void)err;
    for (int k = 0; k < 3; k++)
        row->shape[k] = t->image->shape[k + 1];
    row->tensor = (const float *)t->image->data + i * row->shape[0] * row->shape[1] * row->shape[2];
    if (t->text.data) {
        row->n_ids = t->text.shape[1];
        row->ids = (const int64_t *)t->text.data + i * row->n_ids;
    }
    return NOEMA_OK;
}

static void close_tensors(nm_part *p)
{
    tensors *t = (tensors *)p;
    nm_weights_close(t->file);
    free(t->own[0]);
    free(t->own[1]);
}

const nm_data_format nm_format_tensors = { "tensors", "tensors (.safetensors)", sizeof(tensors), probe, open_tensors, close_tensors, read_row };
