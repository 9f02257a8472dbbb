/* fuzz_zarr.c - T5X checkpoints in a zip: index, .zarray, chunks. */
#include "fuzz_weights.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    return fuzz_weights(data, size, "x.zip");
}
