/* fuzz_parquet.c - footer, pages and encodings of Parquet. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "data/parquet.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    noema_error err = NOEMA_ERROR_INIT;
    nm_parquet *p;
    if (nm_parquet_open_memory(&p, data, size, "x.parquet", (size_t)1 << 20, &err) != NOEMA_OK)
        return 0;
    for (int c = 0; c < nm_parquet_columns(p); c++) {
        nm_parquet_unit *u;
        int64_t n;
        if (nm_parquet_units(p, c, &u, &n, &err) != NOEMA_OK)
            continue;
        for (int64_t k = 0; k < n; k++) {
            nm_parquet_values v;
            if (nm_parquet_read(p, &u[k], &v, &err) != NOEMA_OK)
                continue;
            uint64_t sum = 0; /* touch every byte */
            for (int64_t i = 0; v.bytes && i < v.n; i++)
                for (uint32_t b = 0; b < v.bytes[i].n; b++)
                    sum += v.bytes[i].p[b];
            if (sum == UINT64_MAX)
                abort();
            nm_parquet_values_free(&v);
        }
        free(u);
    }
    nm_parquet_close(p);
    return 0;
}
