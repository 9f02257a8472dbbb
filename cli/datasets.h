/* datasets.h - data sets as arguments: the options that say how they are read. */
#ifndef NOEMA_CLI_DATASETS_H
#define NOEMA_CLI_DATASETS_H

#include "cli.h"
#include "noema/data.h"

#define CLI_DATASET_OPTIONS \
    { "dataset-type", 0, CLI_STRING, "TYPE", "parquet, webdataset, folder, jsonl, csv, tensors (by content and name)" }, \
    { "class-names", 0, CLI_STRING, "FILE", "names of label 0, 1, ...: one per line, or JSON (what the data says)" }, \
    { "csv-img-key", 0, CLI_STRING, "COLUMN", "column, or suffix in a tar, of the pictures" }, \
    { "csv-caption-key", 0, CLI_STRING, "COLUMN", "of the captions" }, \
    { "csv-label-key", 0, CLI_STRING, "COLUMN", "of the classes" }

/* Both to be freed, also after a failure. */
bool cli_open_dataset(const cli *c, const char *source, noema_dataset **d, noema_names **names, noema_error *err);

#endif
