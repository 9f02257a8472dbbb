/* pictures_open.c - an evaluation's pictures from data sets and COCO files. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "data/dataset.h"
#include "eval/task.h"

static noema_status no_memory(noema_error *err) { return nm_fail(err, NOEMA_E_MEMORY, "out of memory: data sets"); }

/* The number that the class has in all sets together: by name, or as it is. */
static noema_status common_label(nm_pictures *p, const nm_dataset *set, int64_t label, int64_t *out, noema_error *err)
{
    const char *name = nm_dataset_label_name(set, label);
    *out = label;
    if (label < 0 || (!name && !p->label_name)) {
        if (label >= p->classes)
            p->classes = label + 1;
        return NOEMA_OK;
    }
    if (!name || (!p->label_name && p->classes))
        return nm_fail(err, NOEMA_E_MISMATCH, "%s: labels are names in one data set and numbers in another", nm_dataset_source(set));
    *out = nm_strings_index(&p->label_name, &p->classes, name);
    return *out < 0 ? no_memory(err) : NOEMA_OK;
}

/* Row i's own captions, owned by picture p->n. */
static noema_status add_captions(nm_eval *e, nm_pictures *p, const nm_dataset *set, int64_t i, nm_row *row)
{
    noema_status s = nm_dataset_read_text(set, i, row, e->err);
    for (int64_t k = 0; k < row->n_titles && s == NOEMA_OK; k++) {
        char *text = nm_strndup((const char *)row->title[k].p, row->title[k].n);
        s = text ? nm_pictures_caption(p, text, p->n, e->err) : no_memory(e->err);
        free(text);
    }
    return s;
}

static noema_status add_set(nm_eval *e, nm_pictures *p, const char *path)
{
    nm_dataset *set = NULL;
    noema_status s = nm_dataset_open(&set, path, &(nm_dataset_options){ .img_key = e->o.img_key, .caption_key = e->o.caption_key,
                                                                     .label_key = e->o.label_key }, e->err);
    if (s != NOEMA_OK)
        return s;
    nm_dataset **sets = nm_realloc_array(p->set, (size_t)p->n_sets + 1, sizeof *sets);
    int64_t rows = nm_dataset_count(set), *label = sets ? nm_realloc_array(p->label, (size_t)(p->n + rows) + 1, sizeof *label) : NULL, *number = NULL;
    if (sets)
        p->set = sets;
    if (!label) {
        nm_dataset_free(set);
        return no_memory(e->err);
    }
    p->label = label;
    p->set[p->n_sets++] = set;
    int64_t classes = nm_dataset_classes(set);
    nm_row row = { 0 };
    bool named = nm_dataset_label_name(set, 0) != NULL;
    if (named && !(number = nm_malloc_array((size_t)classes + 1, sizeof *number)))
        return no_memory(e->err);
    p->numbered = named && (p->n_sets == 1 || p->numbered) && nm_dataset_numbered(set);
    for (int64_t k = 0; named && s == NOEMA_OK && k < classes; k++)
        s = common_label(p, set, k, &number[k], e->err);
    for (int64_t i = 0; i < rows && s == NOEMA_OK && (!e->o.limit || p->n < e->o.limit); i++) {
        int64_t own = nm_dataset_label(set, i);
        s = add_captions(e, p, set, i, &row);
        if (named)
            p->label[p->n] = own >= 0 && own < classes ? number[own] : -1;
        else if (s == NOEMA_OK)
            s = common_label(p, set, own, &p->label[p->n], e->err);
        if (s == NOEMA_OK)
            s = nm_pictures_add_row(p, p->n_sets - 1, i, e->err);
    }
    nm_row_release(&row);
    free(number);
    return s;
}

noema_status nm_pictures_open(nm_eval *e, nm_pictures *p, const char *const *data, size_t n)
{
    noema_status s = NOEMA_OK;
    *p = (nm_pictures){ 0 };
    for (size_t i = 0; i < n && s == NOEMA_OK; i++)
        s = nm_has_suffix(data[i], ".json") ? nm_coco_captions(e, p, data[i]) : add_set(e, p, data[i]);
    if (s == NOEMA_OK && p->n < 1)
        s = nm_fail(e->err, NOEMA_E_FORMAT, "%s: no pictures", n ? data[0] : "data");
    bool labelled = false;
    for (int64_t i = 0; s == NOEMA_OK && p->label && i < p->n; i++)
        labelled = labelled || p->label[i] >= 0;
    if (!labelled) {
        free(p->label);
        p->label = NULL;
    }
    if (s != NOEMA_OK)
        nm_pictures_free(p);
    return s;
}
