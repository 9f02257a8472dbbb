/* rows_tensors.c - .safetensors with pictures as the model gets them: `image` f32 [n, 3, h, w] with `text` i64 [n, L] or `label` i64 [n],
 * and maybe `keep` [n, patches]. */
#include <stdio.h>
#include <stdlib.h>

#include "base/file.h"
#include "base/mem.h"
#include "data/format.h"
#include "weights/weights.h"

typedef struct tensors {
    nm_part part;
    nm_weights *file;
    const nm_wview *image, *text, *label;
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
    for (int64_t i = 0; t->text && i < nm_wview_numel(t->text); i++)
        if (((const int64_t *)t->text->data)[i] < 0 || ((const int64_t *)t->text->data)[i] > INT32_MAX)
            return nm_fail(err, NOEMA_E_FORMAT, "%s: `text` holds %lld, which is no token id", p->path, (long long)((const int64_t *)t->text->data)[i]);
    if (!t->label)
        return NOEMA_OK;
    if (!(p->label = nm_malloc_array((size_t)p->n + 1, sizeof *p->label)))
        return nm_part_no_memory(p, err);
    for (int64_t i = 0; i < p->n; i++) {
        int64_t k = ((const int64_t *)t->label->data)[i];
        char where[300];
        snprintf(where, sizeof where, "%s: row %lld", p->path, (long long)i);
        p->label[i] = k < 0 ? -1 : (int32_t)k; /* a row without a class is refused by who needs one */
        if (k >= 0 && nm_class_check(p->owner, k, where, err) != NOEMA_OK)
            return NOEMA_E_FORMAT;
    }
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
    t->text = nm_weights_find(t->file, "text");
    t->label = nm_weights_find(t->file, "label");
    if (!t->image || t->image->ndim != 4 || t->image->dtype != NM_F32 || !nm_wview_contiguous(t->image))
        return nm_fail(err, NOEMA_E_FORMAT, "%s: expected a tensor `image`, f32 [n, 3, height, width]", p->path);
    p->n = t->image->shape[0];
    if (nm_weights_find(t->file, "keep") && (s = read_keep(t, nm_weights_find(t->file, "keep"), err)) != NOEMA_OK)
        return s;
    if (!t->text && !t->label)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: expected a tensor `text` [n, length] or `label` [n]", p->path);
    const nm_wview *both[2] = { t->text, t->label };
    for (int i = 0; i < 2; i++)
        if (both[i] && (both[i]->ndim != (i == 0 ? 2 : 1) || both[i]->shape[0] != p->n || both[i]->dtype != NM_I64 || !nm_wview_contiguous(both[i])))
            return nm_fail(err, NOEMA_E_FORMAT, "%s: `%s`: expected i64 %s for %lld images", p->path, both[i]->name, i == 0 ? "[n, length]" : "[n]",
                           (long long)p->n);
    return check_values(t, err);
}

static noema_status read_row(const nm_part *p, int64_t i, nm_row *row, bool picture, noema_error *err)
{
    const tensors *t = (const tensors *)p;
    (void)picture;
    (void)err;
    for (int k = 0; k < 3; k++)
        row->shape[k] = t->image->shape[k + 1];
    row->tensor = (const float *)t->image->data + i * row->shape[0] * row->shape[1] * row->shape[2];
    if (t->text) {
        row->n_ids = t->text->shape[1];
        row->ids = (const int64_t *)t->text->data + i * row->n_ids;
    }
    return NOEMA_OK;
}

static void close_tensors(nm_part *p) { nm_weights_close(((tensors *)p)->file); }

const nm_data_format nm_format_tensors = { "tensors", "tensors (.safetensors)", sizeof(tensors), probe, open_tensors, close_tensors, read_row };
