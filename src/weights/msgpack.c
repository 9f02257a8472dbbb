/* msgpack.c - see msgpack.h. Format: msgpack/spec.md. */
#include "weights/msgpack.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define DEPTH_LIMIT 64
#define VALUE_LIMIT 2000000 /* a published index has a few thousand */

typedef struct reader { const unsigned char *data; size_t size, at, left; const char *what; noema_error *err; } reader;

static json_t *broken(reader *r, const char *why)
{
    nm_fail(r->err, NOEMA_E_FORMAT, "%s: MessagePack at byte %zu: %s", r->what, r->at, why);
    return NULL;
}

/* A big-endian number of `n` bytes; false at the end of the data. */
static bool number(reader *r, int n, uint64_t *v)
{
    if (r->size - r->at < (size_t)n)
        return broken(r, "truncated"), false;
    *v = 0;
    for (int i = 0; i < n; i++)
        *v = *v << 8 | r->data[r->at++];
    return true;
}

static json_t *value(reader *r, int depth);

static json_t *text(reader *r, uint64_t n)
{
    if (n > r->size - r->at)
        return broken(r, "a string ends outside the data");
    json_t *s = json_stringn((const char *)r->data + r->at, (size_t)n); /* refuses what is not UTF-8 */
    r->at += (size_t)n;
    return s ? s : broken(r, "a string that is no text");
}

static json_t *bytes(reader *r, uint64_t n, bool ext, int type)
{
    if (n > r->size - r->at)
        return broken(r, "a binary ends outside the data");
    json_int_t at = (json_int_t)r->at;
    r->at += (size_t)n;
    return ext ? json_pack("{s:[i,I,I]}", "$ext", type, at, (json_int_t)n) : json_pack("{s:[I,I]}", "$bin", at, (json_int_t)n);
}

static json_t *list(reader *r, uint64_t n, int depth)
{
    json_t *a = json_array();
    if (n > r->size - r->at) { /* each value takes a byte or more */
        json_decref(a);
        return broken(r, "a list longer than the data");
    }
    for (uint64_t i = 0; a && i < n; i++) {
        json_t *v = value(r, depth + 1);
        if (!v || json_array_append_new(a, v) != 0) {
            json_decref(a);
            return NULL;
        }
    }
    return a;
}

static json_t *map(reader *r, uint64_t n, int depth)
{
    json_t *o = json_object();
    if (n > (r->size - r->at) / 2) {
        json_decref(o);
        return broken(r, "a map longer than the data");
    }
    for (uint64_t i = 0; o && i < n; i++) {
        char digits[32];
        json_t *key = value(r, depth + 1), *v = NULL;
        const char *k = json_string_value(key);
        if (json_is_integer(key)) {
            snprintf(digits, sizeof digits, "%lld", (long long)json_integer_value(key));
            k = digits;
        }
        bool ok = k && (!json_is_string(key) || strlen(k) == json_string_length(key));
        if (key && (!ok || json_object_get(o, k)))
            broken(r, ok ? "a key is there twice" : "a key that is no text");
        else if (key && (v = value(r, depth + 1)))
            ok = json_object_set_new(o, k, v) == 0;
        json_decref(key);
        if (!v || !ok) {
            json_decref(o);
            return NULL;
        }
    }
    return o;
}

static json_t *real(uint64_t bits, int n)
{
    double d;
    float f;
    uint32_t low = (uint32_t)bits;
    memcpy(&d, &bits, sizeof d);
    memcpy(&f, &low, sizeof f);
    if (n == 4)
        d = (double)f;
    return isfinite(d) ? json_real(d) : json_null();
}

/* The types from 0xC0 to 0xDF: a length or value of `n` bytes follows. */
static json_t *wide(reader *r, unsigned t, int depth)
{
    static const unsigned char width[32] = { 0, 0, 0, 0, 1, 2, 4, 1, 2, 4, 4, 8, 1, 2, 4, 8, 1, 2, 4, 8, 0, 0, 0, 0, 0, 1, 2, 4, 2, 4, 2, 4 };
    uint64_t v, type;
    if (t == 0xC0)
        return json_null();
    if (t == 0xC2 || t == 0xC3)
        return json_boolean(t == 0xC3);
    if (t == 0xC1)
        return broken(r, "an unknown type");
    int n = width[t - 0xC0];
    if (!number(r, n, &v))
        return NULL;
    if (t <= 0xC6)
        return bytes(r, v, false, 0);
    if (t <= 0xC9 || (t >= 0xD4 && t <= 0xD8)) /* ext 8..32, fixext 1..16 */
        return number(r, 1, &type) ? bytes(r, t <= 0xC9 ? v : (uint64_t)1 << (t - 0xD4), true, (int8_t)type) : NULL;
    if (t <= 0xCB)
        return real(v, n);
    if (t <= 0xCF)
        return v <= INT64_MAX ? json_integer((json_int_t)v) : broken(r, "a number too large");
    if (t <= 0xD3) /* sign-extended */
        return json_integer((json_int_t)(n == 8 ? (int64_t)v : (int64_t)(v << (64 - 8 * n)) >> (64 - 8 * n)));
    return t <= 0xDB ? text(r, v) : t <= 0xDD ? list(r, v, depth) : map(r, v, depth);
}

static json_t *value(reader *r, int depth)
{
    uint64_t t;
    if (depth > DEPTH_LIMIT || r->left-- == 0)
        return broken(r, depth > DEPTH_LIMIT ? "nested too deeply" : "too many values");
    if (!number(r, 1, &t))
        return NULL;
    if (t < 0x80 || t >= 0xE0)
        return json_integer((int8_t)t);
    return t < 0x90 ? map(r, t & 15, depth) : t < 0xA0 ? list(r, t & 15, depth) : t < 0xC0 ? text(r, t & 31) : wide(r, (unsigned)t, depth);
}

json_t *nm_msgpack_parse(const unsigned char *data, size_t size, const char *what, noema_error *err)
{
    noema_error local = NOEMA_ERROR_INIT;
    reader r = { data, size, 0, VALUE_LIMIT, what, &local };
    json_t *v = value(&r, 0);
    if (v && r.at != size) {
        json_decref(v);
        v = broken(&r, "bytes follow the value");
    }
    if (!v)
        nm_fail(err, local.code ? local.code : NOEMA_E_MEMORY, "%s", local.code ? local.message : "out of memory");
    return v;
}
