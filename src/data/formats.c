/* formats.c - the formats of data sets, in the order in which they are asked. */
#include "data/format.h"

static const nm_data_format *const formats[] = { &nm_format_parquet, &nm_format_tar, &nm_format_tensors, &nm_format_csv, &nm_format_jsonl, &nm_format_folder, NULL };

const nm_data_format *const *nm_data_formats(void) { return formats; }
