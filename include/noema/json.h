/* noema/json.h - text of numbers and strings as noema writes them in JSON, for programs that print results. */
#ifndef NOEMA_JSON_H
#define NOEMA_JSON_H

#include <stddef.h>

#include "noema/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The shortest of %.6g .. %.9g that reads back as the same f32; NaN and infinities: "null". Returns the length. */
NOEMA_API size_t noema_json_f32(char out[32], float v);

/* Quotes and escapes s[0..n) into out (at most cap bytes with a NUL, never more); bytes that are not UTF-8 become U+FFFD.
 * Returns the length without the NUL, whether it fitted or not, like snprintf: 6 n + 2 always fits. */
NOEMA_API size_t noema_json_string(char *out, size_t cap, const char *s, size_t n);

#ifdef __cplusplus
}
#endif
#endif
