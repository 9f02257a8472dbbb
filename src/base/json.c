/* json.c - see json.h. */
#include "base/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/utf8.h"

#define JSON_LIMIT ((size_t)256 << 20)

/* Integers beyond 64 bits (every Hugging Face tokenizer_config.json says model_max_length 1000000000000000019884624838656)
 * get ".0" behind them, so that jansson reads them as reals. NULL: out of memory. */
static char *widen_integers(const char *text, size_t size, size_t *n)
{
    nm_buf b = { 0 };
    bool in_string = false, real = false; /* real: behind a '.' or 'e' of this number */
    size_t digits = 0;
    for (size_t i = 0; i < size; i++) {
        char c = text[i];
        if (!in_string && c >= '0' && c <= '9') {
            digits++;
        } else {
            bool point = !in_string && digits && (c == '.' || c == 'e' || c == 'E');
            if (digits >= 19 && !real && !point)
                nm_buf_puts(&b, ".0");
            real = point || (real && (c == '+' || c == '-'));
            digits = point ? digits : 0;
        }
        if (c == '"')
            in_string = !in_string;
        nm_buf_putc(&b, c);
        if (in_string && c == '\\' && i + 1 < size)
            nm_buf_putc(&b, text[++i]);
    }
    *n = b.len;
    return nm_buf_take(&b);
}

json_t *nm_json_parse(const char *text, size_t size, const char *what, noema_error *err)
{
    json_error_t e;
    json_t *j = json_loadb(text, size, JSON_DECODE_ANY | JSON_ALLOW_NUL, &e);
    if (!j && json_error_code(&e) == json_error_numeric_overflow) {
        size_t n;
        char *wide = widen_integers(text, size, &n);
        j = wide ? json_loadb(wide, n, JSON_DECODE_ANY | JSON_ALLOW_NUL, &e) : NULL;
        free(wide);
    }
    if (!j)
        nm_fail(err, NOEMA_E_FORMAT, "%s: expected JSON, line %d: %s", what, e.line, e.text);
    return j;
}

json_t *nm_json_load(const char *path, noema_error *err)
{
    char *text;
    size_t size;
    if (nm_read_file(&text, &size, path, JSON_LIMIT, err) != NOEMA_OK)
        return NULL;
    json_t *j = nm_json_parse(text, size, path, err);
    free(text);
    return j;
}

json_t *nm_json_get(const json_t *o, const char *key)
{
    json_t *v = o ? json_object_get(o, key) : NULL;
    return v && !json_is_null(v) ? v : NULL;
}

int64_t nm_json_int(const json_t *o, const char *key, int64_t dflt)
{
    json_t *v = nm_json_get(o, key);
    if (v && json_is_integer(v))
        return (int64_t)json_integer_value(v);
    if (v && json_is_real(v) && fabs(json_real_value(v)) < 9e15)
        return (int64_t)json_real_value(v);
    return dflt;
}

double nm_json_num(const json_t *o, const char *key, double dflt)
{
    json_t *v = nm_json_get(o, key);
    return v && json_is_number(v) ? json_number_value(v) : dflt;
}

bool nm_json_bool(const json_t *o, const char *key, bool dflt)
{
    json_t *v = nm_json_get(o, key);
    return v && json_is_boolean(v) ? json_is_true(v) : dflt;
}

const char *nm_json_str(const json_t *o, const char *key, const char *dflt)
{
    json_t *v = nm_json_get(o, key);
    return v && json_is_string(v) ? json_string_value(v) : dflt;
}

bool nm_json_put_str(nm_buf *b, const char *s, size_t n)
{
    nm_buf_putc(b, '"');
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        int len = nm_utf8_decode(s + i, n - i, &cp);
        if (cp == UINT32_MAX)
            nm_buf_puts(b, "\xEF\xBF\xBD");
        else if (cp == '"' || cp == '\\')
            nm_buf_putc(b, '\\'), nm_buf_putc(b, (char)cp);
        else if (cp == '\n')
            nm_buf_puts(b, "\\n");
        else if (cp == '\t')
            nm_buf_puts(b, "\\t");
        else if (cp < 0x20 || (cp >= 0x7F && cp < 0xA0) || cp == 0x2028 || cp == 0x2029) /* some readers end a line at these */
            nm_buf_printf(b, "\\u%04x", (unsigned)cp);
        else
            nm_buf_append(b, s + i, (size_t)len);
        i += (size_t)len;
    }
    return nm_buf_putc(b, '"');
}

bool nm_json_put_f32(nm_buf *b, float v)
{
    char t[32];
    if (!isfinite(v))
        return nm_buf_puts(b, "null");
    for (int digits = 6; digits <= 9; digits++) {
        snprintf(t, sizeof t, "%.*g", digits, (double)v);
        if (digits == 9 || strtof(t, NULL) == v)
            break;
    }
    return nm_buf_puts(b, t);
}

bool nm_json_put_f32s(nm_buf *b, const float *v, size_t n)
{
    nm_buf_putc(b, '[');
    for (size_t i = 0; i < n; i++) {
        if (i)
            nm_buf_putc(b, ',');
        nm_json_put_f32(b, v[i]);
    }
    return nm_buf_putc(b, ']');
}
