/* fuzz_cbdt.c - the emoji font reader on hostile tables; every picture it reports must lie inside the font. */
#include <stdint.h>
#include <stdlib.h>

#include "media/cbdt.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    noema_error err = NOEMA_ERROR_INIT;
    nm_emoji *list = NULL;
    size_t n = 0;
    if (nm_emoji_list(&list, &n, data, size, "fuzz", &err) == NOEMA_OK)
        for (size_t i = 0; i < n; i++) {
            char name[160];
            if (list[i].png < data || list[i].png_size > size - (size_t)(list[i].png - data) || list[i].n_cp < 1 ||
                nm_emoji_file_name(&list[i], name) >= 160)
                abort();
        }
    free(list);
    return 0;
}
