/* html.c - character references, as Python's html.unescape decodes them (the HTML standard's "consume a character
 * reference" without a parser around it) and as ftfy decodes them. */
#include <string.h>
#include <utf8proc.h>

#include "base/utf8.h"
#include "tokenizer/clean.h"
#include "tokenizer/html_entities.inc"

const uint16_t nm_cp1252[32] = {
    0x20AC, 0x81,   0x201A, 0x192,  0x201E, 0x2026, 0x2020, 0x2021, 0x2C6, 0x2030, 0x160, 0x2039, 0x152, 0x8D, 0x17D, 0x8F,
    0x90,   0x2018, 0x2019, 0x201C, 0x201D, 0x2022, 0x2013, 0x2014, 0x2DC, 0x2122, 0x161, 0x203A, 0x153, 0x9D, 0x17E, 0x178,
};

enum { NAME_MAX = 33 }; /* 32 characters and a ';' */

/* Finds the longest entity name that is a prefix of name[0..n); returns its length (0: none) and its value as UTF-8. */
static size_t find_prefix(const char *name, size_t n, const char **value, size_t *n_value)
{
    size_t best = 0;
    unsigned char c = n ? (unsigned char)name[0] : 0;
    if (!((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z')))
        return 0;
    int letter = c <= 'Z' ? c - 'A' : c - 'a' + 26;
    const char *p = entity_text + entity_first[letter], *end = entity_text + entity_first[letter + 1];
    while (p < end) {
        const char *tab = strchr(p, '\t'), *lf = strchr(tab + 1, '\n');
        size_t len = (size_t)(tab - p);
        if (len > best && len <= n && memcmp(p, name, len) == 0)
            best = len, *value = tab + 1, *n_value = (size_t)(lf - tab - 1);
        p = lf + 1;
    }
    return best;
}

static void put_value(nm_u32 *out, const char *v, size_t n)
{
    if (n == 2 && v[0] == 1) {
        nm_u32_put(out, v[1] == 't' ? '\t' : '\n');
        return;
    }
    for (size_t i = 0; i < n;) {
        uint32_t c;
        i += (size_t)nm_utf8_decode(v + i, n - i, &c);
        nm_u32_put(out, c);
    }
}

/* The value of a numeric reference; false: it stands for nothing. */
static bool numeric_value(uint32_t v, uint32_t *c)
{
    *c = v;
    if (v == 0 || v > 0x10FFFF || (v >= 0xD800 && v <= 0xDFFF))
        *c = 0xFFFD;
    else if (v >= 0x80 && v <= 0x9F)
        *c = nm_cp1252[v - 0x80];
    else if (v != 0xD && (v <= 8 || v == 0xB || (v >= 0xE && v <= 0x1F) || v == 0x7F || (v >= 0xFDD0 && v <= 0xFDEF) ||
                          (v & 0xFFFE) == 0xFFFE))
        return false;
    return true;
}

static int digit(uint32_t c, bool hex)
{
    if (c - '0' < 10u)
        return (int)(c - '0');
    if (hex && (c | 32) - 'a' < 6u && c < 0x80)
        return (int)((c | 32) - 'a') + 10;
    return -1;
}

/* p[0] is '#'. Returns how many code points the reference takes without ';' (0: none) and its number (saturated). */
static size_t scan_number(const uint32_t *p, size_t n, uint32_t *value)
{
    bool hex = n > 1 && (p[1] == 'x' || p[1] == 'X');
    size_t i = hex ? 2 : 1, first = i;
    uint64_t v = 0;
    for (int d; i < n && (d = digit(p[i], hex)) >= 0; i++)
        v = v > 0x10FFFF ? v : v * (hex ? 16 : 10) + (uint64_t)d;
    *value = (uint32_t)(v > 0x10FFFF ? 0x110000 : v);
    return i > first ? i : 0;
}

/* Copies p[0..n) while `stop` allows into name as bytes; non-ASCII becomes 0x7F, which no entity has. */
static size_t copy_name(char *name, const uint32_t *p, size_t n, size_t limit)
{
    size_t k = 0;
    while (k < n && k < limit) {
        uint32_t c = p[k];
        if (c == '\t' || c == '\n' || c == '\f' || c == ' ' || c == '<' || c == '&' || c == '#' || c == ';')
            break;
        name[k++] = c < 0x7F ? (char)c : 0x7F;
    }
    return k;
}

/* One reference at p (just after '&'); appends its value and returns the code points consumed, 0 when it is none. */
static size_t unescape_one(const uint32_t *p, size_t n, nm_u32 *out)
{
    uint32_t v, c;
    if (n && p[0] == '#') {
        size_t k = scan_number(p, n, &v);
        if (!k)
            return 0;
        if (numeric_value(v, &c))
            nm_u32_put(out, c);
        return k + (k < n && p[k] == ';');
    }
    char name[NAME_MAX];
    const char *val = NULL;
    size_t nv = 0, k = copy_name(name, p, n, 32);
    if (k && k < n && p[k] == ';')
        name[k++] = ';';
    size_t len = find_prefix(name, k, &val, &nv);
    if (!len)
        return 0;
    put_value(out, val, nv);
    nm_u32_append(out, p + len, k - len); /* the rest of the match is not looked at again */
    return k;
}

static bool has_amp(const nm_u32 *a)
{
    for (size_t i = 0; i < a->n; i++)
        if (a->p[i] == '&')
            return true;
    return false;
}

void nm_html_unescape(nm_u32 *a, nm_u32 *tmp)
{
    if (!has_amp(a))
        return;
    tmp->n = 0;
    for (size_t i = 0; i < a->n;) {
        size_t k = a->p[i] == '&' ? unescape_one(a->p + i + 1, a->n - i - 1, tmp) : 0;
        if (!k)
            nm_u32_put(tmp, a->p[i]);
        i += k + 1;
    }
    nm_u32_swap(a, tmp);
}

/* str.upper of one code point of an entity's value: the values with a full mapping of several are listed. */
static void put_upper(nm_u32 *out, uint32_t c)
{
    static const struct { uint16_t c; char up[4]; } full[] = {
        { 0xDF, "SS" }, { 0xFB00, "FF" }, { 0xFB01, "FI" }, { 0xFB02, "FL" }, { 0xFB03, "FFI" }, { 0xFB04, "FFL" },
    };
    if (c == 0x149) {
        nm_u32_put(out, 0x2BC), nm_u32_put(out, 'N');
        return;
    }
    for (size_t i = 0; i < sizeof full / sizeof *full; i++)
        if (c == full[i].c) {
            for (const char *u = full[i].up; *u; u++)
                nm_u32_put(out, (unsigned char)*u);
            return;
        }
    nm_u32_put(out, (uint32_t)utf8proc_toupper((utf8proc_int32_t)c));
}

/* "&NTILDE;" means what "&ntilde;" does, in capitals, when html.unescape leaves the capitals alone. */
static bool upper_entity(const char *name, size_t n, nm_u32 *out)
{
    char low[NAME_MAX];
    const char *v = NULL;
    size_t nv = 0;
    if (find_prefix(name, n, &v, &nv))
        return false;
    for (size_t i = 0; i < n; i++) {
        if (name[i] >= 'a' && name[i] <= 'z')
            return false;
        low[i] = name[i] >= 'A' && name[i] <= 'Z' ? (char)(name[i] + 32) : name[i];
    }
    if (find_prefix(low, n, &v, &nv) != n)
        return false;
    for (size_t i = 0; i < nv;) {
        uint32_t c;
        i += (size_t)nm_utf8_decode(v + i, nv - i, &c);
        put_upper(out, c);
    }
    return true;
}

/* p is just after '&': #?[0-9A-Za-z]{1,24}; with ftfy's meaning. */
static size_t ftfy_one(const uint32_t *p, size_t n, nm_u32 *out)
{
    size_t start = n && p[0] == '#', k = start;
    char name[NAME_MAX];
    const char *v = NULL;
    size_t nv = 0, at;
    while (k < n && k - start < 24 && p[k] < 0x80 && (p[k] - '0' < 10u || (p[k] | 32) - 'a' < 26u))
        k++;
    if (k == start || k == n || p[k] != ';')
        return 0;
    k++;
    if (start) {
        uint32_t c, num;
        size_t used = scan_number(p, k, &num);
        if (used + 1 != k) /* the ';' must be part of it */
            return 0;
        if (!numeric_value(num, &c))
            return k;
        if (c == ';')
            return 0;
        nm_u32_put(out, c);
        return k;
    }
    for (at = 0; at < k; at++)
        name[at] = (char)p[at];
    if (find_prefix(name, k, &v, &nv) == k) {
        put_value(out, v, nv);
        return k;
    }
    return upper_entity(name, k, out) ? k : 0;
}

void nm_ftfy_unescape(nm_u32 *a, nm_u32 *tmp)
{
    if (!has_amp(a))
        return;
    tmp->n = 0;
    for (size_t i = 0; i < a->n;) {
        size_t k = a->p[i] == '&' ? ftfy_one(a->p + i + 1, a->n - i - 1, tmp) : 0;
        if (!k)
            nm_u32_put(tmp, a->p[i]);
        i += k + 1;
    }
    nm_u32_swap(a, tmp);
}
