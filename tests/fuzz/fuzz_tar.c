/* fuzz_tar.c - members and keys of tar archives. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "data/tar.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    nm_tar t = { .data = data, .size = size, .file = "x.tar" };
    nm_tar_member m;
    noema_error err = NOEMA_ERROR_INIT;
    bool more = true;
    while (more && nm_tar_next(&t, &m, &more, &err) == NOEMA_OK && more) {
        size_t key;
        uint64_t sum = 0;
        for (size_t i = 0; i < m.size; i++)
            sum += data[m.at + i];
        if (nm_tar_key(m.name, &key) && (key >= strlen(m.name) || sum == UINT64_MAX))
            abort();
    }
    nm_tar_free(&t);
    return 0;
}
