/* public.c - data sets in the public interface (noema/data.h). */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "data/dataset.h"
#include "media/image.h"
#include "noema/data.h"

struct noema_dataset { nm_dataset *d; nm_row row; nm_image picture; };

noema_status noema_dataset_open(noema_dataset **out, const char *source, const noema_dataset_options *o, noema_error *err)
{
    nm_dataset_options n = { 0 };
    noema_dataset *d = calloc(1, sizeof *d);
    *out = NULL;
    if (!d)
        return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", source);
    if (o)
        n = (nm_dataset_options){ .type = o->type, .img_key = o->img_key, .caption_key = o->caption_key, .label_key = o->label_key,
                                  .class_names = o->class_names, .n_class_names = o->n_class_names };
    noema_status s = nm_dataset_open(&d->d, source, &n, err);
    if (s == NOEMA_OK)
        *out = d;
    else
        noema_dataset_free(d);
    return s;
}

void noema_dataset_free(noema_dataset *d)
{
    if (!d)
        return;
    nm_row_release(&d->row);
    nm_image_free(&d->picture);
    nm_dataset_free(d->d);
    free(d);
}

int64_t noema_dataset_count(const noema_dataset *d) { return nm_dataset_count(d->d); }
int64_t noema_dataset_classes(const noema_dataset *d) { return nm_dataset_classes(d->d); }
const char *noema_dataset_class(const noema_dataset *d, int64_t label) { return nm_dataset_label_name(d->d, label); }
size_t noema_dataset_parts(const noema_dataset *d) { return nm_dataset_parts(d->d); }
const char *noema_dataset_part(const noema_dataset *d, size_t i, const char **format, int64_t *rows) { return nm_dataset_part(d->d, i, format, rows); }

noema_status noema_dataset_read(noema_dataset *d, int64_t i, noema_dataset_row *row, noema_error *err)
{
    if (i < 0 || i >= nm_dataset_count(d->d))
        return nm_fail(err, NOEMA_E_ARGUMENT, "row %lld of %lld", (long long)i, (long long)nm_dataset_count(d->d));
    noema_status s = nm_dataset_read(d->d, i, &d->row, err);
    const nm_row *r = &d->row;
    *row = (noema_dataset_row){ .name = r->name, .path = r->path, .bytes = r->bytes, .n_bytes = r->n_bytes, .label = r->label, .n_captions = (size_t)r->n_titles,
                                .is_tensor = r->tensor != NULL, .synthetic = r->synthetic };
    if (r->path)
        row->name = r->path;
    return s;
}

const char *noema_dataset_caption(const noema_dataset *d, size_t k, size_t *bytes)
{
    if ((int64_t)k >= d->row.n_titles)
        return NULL;
    *bytes = d->row.title[k].n;
    return (const char *)d->row.title[k].p;
}

noema_status noema_dataset_decode(noema_dataset *d, int *width, int *height, const char **format, noema_error *err)
{
    const nm_row *r = &d->row;
    *width = *height = 0;
    *format = NULL;
    if (r->tensor) {
        *width = (int)r->shape[2];
        *height = (int)r->shape[1];
        *format = "tensor";
        return NOEMA_OK;
    }
    if (!r->path && !r->bytes)
        return nm_fail(err, NOEMA_E_MISSING, "%s: no picture", r->name);
    noema_status s = r->path ? nm_image_open(&d->picture, r->path, NULL, err) : nm_image_decode(&d->picture, r->bytes, r->n_bytes, r->name, NULL, err);
    if (s == NOEMA_OK) {
        *width = d->picture.width;
        *height = d->picture.height;
        *format = d->picture.format;
    }
    return s;
}
