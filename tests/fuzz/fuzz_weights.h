/* fuzz_weights.h - shared by the targets of the checkpoint readers: open from memory under the format's name, touch every element. */
#include <stdint.h>
#include <stdlib.h>

#include "weights/weights.h"

static inline int fuzz_weights(const uint8_t *data, size_t size, const char *name)
{
    for (int raw = 0; raw < 2; raw++) {
        nm_weights *w;
        noema_error err = NOEMA_ERROR_INIT;
        nm_weights_options o = { .raw = raw != 0, .verify = raw != 0 };
        if (nm_weights_open_memory(&w, data, size, name, &o, &err) != NOEMA_OK) {
            if (!err.code || !err.message[0])
                abort();
            continue;
        }
        char hex[65];
        int64_t left = 1 << 20; /* elements; strides of 0 make huge shapes cheap to write */
        for (size_t i = 0; i < nm_weights_count(w); i++) {
            const nm_wview *v = nm_weights_at(w, i);
            int64_t n = nm_wview_numel(v);
            if (nm_weights_find(w, v->name) != v)
                abort();
            if (n > left)
                continue;
            left -= n;
            float *f = malloc((size_t)n * 4 + 1);
            if (f)
                nm_wview_copy_f32(v, f);
            free(f);
        }
        (void)nm_weights_sha256(w, NM_IDENTITY_QUICK, hex, &err);
        nm_weights_close(w);
    }
    return 0;
}
