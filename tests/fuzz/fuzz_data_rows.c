/* fuzz_data_rows.c - tables of pictures as JSON lines, CSV and TSV: opened, every row's captions and class read. */
#include "data/dataset.h"
#include "fuzz_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const names[] = { "rows.jsonl", "rows.csv", "rows.tsv" };
    for (int k = 0; k < 3; k++) {
        fuzz_file f = fuzz_file_put(names[k], data, size);
        noema_error err = NOEMA_ERROR_INIT;
        nm_dataset *d;
        if (nm_dataset_open(&d, f.path, NULL, &err) == NOEMA_OK) {
            nm_row row = { 0 };
            uint64_t sum = 0;
            for (int64_t i = 0; i < nm_dataset_count(d); i++) {
                if (nm_dataset_label(d, i) >= nm_dataset_classes(d))
                    abort();
                if (nm_dataset_read_text(d, i, &row, &err) != NOEMA_OK)
                    continue;
                for (int64_t t = 0; t < row.n_titles; t++)
                    for (size_t b = 0; b < row.title[t].n; b++)
                        sum += row.title[t].p[b];
                for (int64_t p = 0; p < row.n_keep; p++)
                    sum += (uint32_t)row.keep[p];
            }
            if (sum == UINT64_MAX)
                abort();
            nm_row_release(&row);
            nm_dataset_free(d);
        } else if (!err.code || !err.message[0])
            abort();
        fuzz_file_done(&f);
    }
    return 0;
}
