/* json.h - jansson with our limits and messages, and the writer for numbers that read back as the same f32. */
#ifndef NM_JSON_H
#define NM_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/mem.h"

/* Parses a text / a file (limit 256 MiB); the message names `what` and the line. Free with json_decref. */
json_t *nm_json_parse(const char *text, size_t size, const char *what, noema_error *err);
json_t *nm_json_load(const char *path, noema_error *err);

/* Member look-ups with a default; a member of another type counts as absent. `o` may be NULL. */
int64_t nm_json_int(const json_t *o, const char *key, int64_t dflt);
double nm_json_num(const json_t *o, const char *key, double dflt);
bool nm_json_bool(const json_t *o, const char *key, bool dflt);
const char *nm_json_str(const json_t *o, const char *key, const char *dflt); /* borrowed */
json_t *nm_json_get(const json_t *o, const char *key);                      /* borrowed; NULL if absent or null */

/* Appends to b: a quoted, escaped string (invalid UTF-8 bytes become U+FFFD); a number whose text reads back as the same
 * f32 with the fewest digits of %.6g..%.9g (NaN and infinities: null); an array of such numbers. */
bool nm_json_put_str(nm_buf *b, const char *s, size_t n);
bool nm_json_put_f32(nm_buf *b, float v);
bool nm_json_put_f32s(nm_buf *b, const float *v, size_t n);

#endif
