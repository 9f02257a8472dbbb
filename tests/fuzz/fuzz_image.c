/* fuzz_image.c - every image decoder on hostile bytes, with a small pixel limit; then the conversions and a turn. */
#include <stdint.h>
#include <stdlib.h>

#include "media/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    noema_error err = NOEMA_ERROR_INIT;
    nm_image im = { 0 }, out = { 0 };
    nm_image_options o = { .max_pixels = 1 << 18, .allow_truncated = size & 1, .apply_orientation = size & 2 };
    noema_status st = nm_image_decode(&im, data, size, "fuzz", &o, &err);
    if (st != err.code)
        abort(); /* an error without message, or a message without error */
    if (st == NOEMA_OK) {
        if ((uint64_t)im.width * (uint64_t)im.height > o.max_pixels)
            abort();
        static volatile unsigned char sink; /* every pixel is readable */
        for (size_t i = 0, n = im.stride * (size_t)im.height; i < n; i++)
            sink = im.data[i];
        (void)sink;
        nm_image_to_rgba(&out, &im, &err);
        nm_image_on_white(&out, &im, &err);
        nm_image_transpose(&im, 5, &err);
    }
    nm_image_free(&im);
    nm_image_free(&out);
    return 0;
}
