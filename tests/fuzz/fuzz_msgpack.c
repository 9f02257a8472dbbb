/* fuzz_msgpack.c - the index of a flax checkpoint. */
#include <stdint.h>
#include <stdlib.h>

#include "weights/msgpack.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    noema_error err = NOEMA_ERROR_INIT;
    json_t *j = nm_msgpack_parse(data, size, "x", &err);
    if (!j && (!err.code || !err.message[0]))
        abort();
    json_decref(j);
    return 0;
}
