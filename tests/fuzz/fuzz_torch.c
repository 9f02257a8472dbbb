/* fuzz_torch.c - zip, pickle, TorchScript and legacy files of torch. */
#include "fuzz_weights.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    return fuzz_weights(data, size, "x.pt");
}
