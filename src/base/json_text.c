/* json_text.c - the public face of the JSON writer in json.c. */
#include <string.h>

#include "base/json.h"
#include "noema/json.h"

static size_t copy_out(nm_buf *b, char *out, size_t cap)
{
    size_t n = b->len;
    if (cap) {
        size_t m = n < cap ? n : cap - 1;
        if (m)
            memcpy(out, b->data, m);
        out[m] = 0;
    }
    nm_buf_free(b);
    return n;
}

size_t noema_json_f32(char out[32], float v)
{
    nm_buf b = { 0 };
    nm_json_put_f32(&b, v);
    return copy_out(&b, out, 32);
}

size_t noema_json_string(char *out, size_t cap, const char *s, size_t n)
{
    nm_buf b = { 0 };
    nm_json_put_str(&b, s, n);
    return copy_out(&b, out, cap);
}
