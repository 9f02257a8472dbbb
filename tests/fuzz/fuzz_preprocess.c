/* fuzz_preprocess.c - pipeline configurations from hostile JSON, and each accepted one run on a small picture whose mode and
 * size come from the last bytes; windowed decoding of the rest as an image. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "media/preprocess.h"

static void run(const nm_preprocess *p, nm_preprocess_scratch *s, const nm_image *im)
{
    noema_error err = NOEMA_ERROR_INIT;
    int h = 0, w = 0;
    if (nm_preprocess_size(p, im->width, im->height, &h, &w, &err) != NOEMA_OK || (int64_t)h * w > 1 << 18)
        return;
    unsigned char *u8 = nm_alloc((size_t)h * (size_t)w * 3);
    float *f32 = nm_alloc((size_t)h * (size_t)w * 12);
    char text[512];
    if (u8 && f32 && nm_preprocess_run_u8(p, s, im, u8, &err) == NOEMA_OK)
        nm_preprocess_run(p, s, im, f32, &err);
    if (nm_preprocess_identity(p, text) > 511)
        abort();
    nm_free(u8);
    nm_free(f32);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    noema_error err = NOEMA_ERROR_INIT;
    nm_preprocess p;
    nm_preprocess_scratch *s = nm_preprocess_scratch_new();
    if (!s || size < 3)
        goto done;
    json_t *j = data[0] == '{' ? nm_json_parse((const char *)data, size, "fuzz", &err) : NULL;
    if (j && nm_preprocess_from_json(&p, j, "fuzz", &err) == NOEMA_OK) {
        nm_image im = { 0 };
        nm_mode mode = (nm_mode)(1 + data[size - 1] % (NM_MODES - 1));
        if (nm_image_reset(&im, mode, 1 + data[size - 2] % 40, 1 + data[size - 3] % 40, &err) == NOEMA_OK) {
            memset(im.data, 77, im.stride * (size_t)im.height);
            run(&p, s, &im);
        }
        nm_image_free(&im);
    }
    json_decref(j);
    if (data[0] != '{') {
        const nm_image *im;
        nm_image_options o = { .max_pixels = 1 << 18 };
        nm_err_clear(&err);
        if (nm_preprocess_named(&p, data[size - 1] & 1 ? "openai" : "hf5_clip", 32, 32, &err) == NOEMA_OK &&
            nm_preprocess_load_bytes(&p, s, data, size, "fuzz", &o, &im, &err) == NOEMA_OK)
            run(&p, s, im);
    }
done:
    nm_preprocess_scratch_free(s);
    return 0;
}
