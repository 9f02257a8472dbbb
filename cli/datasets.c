/* datasets.c - see datasets.h. */
#include "datasets.h"

bool cli_open_dataset(const cli *c, const char *source, noema_dataset **d, noema_names **names, noema_error *err)
{
    const char *file = cli_str(c, "class-names", NULL);
    noema_dataset_options o = { .struct_size = sizeof o, .type = cli_str(c, "dataset-type", NULL), .img_key = cli_str(c, "csv-img-key", NULL),
                                .caption_key = cli_str(c, "csv-caption-key", NULL), .label_key = cli_str(c, "csv-label-key", NULL) };
    if (file && noema_names_read(names, file, err) != NOEMA_OK)
        return false;
    o.class_names = noema_names_items(*names, &o.n_class_names);
    return noema_dataset_open(d, source, &o, err) == NOEMA_OK;
}
