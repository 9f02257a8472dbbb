/* fuzz_segment.c - the header reader of vector segments; a header that is accepted must be written back as the same bytes. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "index/segment.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try(const uint8_t *data, size_t size)
{
    nm_segment_header h;
    noema_error err = NOEMA_ERROR_INIT;
    if (nm_segment_parse(&h, data, size, "fuzz", &err) != NOEMA_OK) {
        if (!err.message[0])
            abort();
        return;
    }
    unsigned char back[NM_SEG_HEADER_BYTES];
    nm_segment_write_header(&h, back);
    if (h.dim < 1 || h.dim > NM_SEG_MAX_DIM || h.capacity > NM_SEG_CAPACITY || memcmp(back, data, 48) != 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    try(data, size);
    if (size >= NM_SEG_HEADER_BYTES) { /* with a checksum that fits, so that the fields behind it are reached */
        uint8_t fixed[NM_SEG_HEADER_BYTES];
        memcpy(fixed, data, sizeof fixed);
        uint64_t sum = nm_hash64(fixed, 56, 0);
        for (int i = 0; i < 8; i++)
            fixed[56 + i] = (uint8_t)(sum >> 8 * i);
        try(fixed, sizeof fixed);
    }
    return 0;
}
