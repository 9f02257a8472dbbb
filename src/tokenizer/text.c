/* text.c - code point arrays, categories, lower case and normal forms; the Unicode data is utf8proc's. */
#include "tokenizer/text.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/utf8.h"

bool nm_u32_reserve(nm_u32 *a, size_t extra)
{
    size_t need, cap = a->cap ? a->cap : 64;
    if (a->failed)
        return false;
    if (!nm_add_size(a->n, extra, &need)) {
        a->failed = true;
        return false;
    }
    if (need <= a->cap)
        return true;
    while (cap < need)
        cap = cap < SIZE_MAX / 8 ? cap * 2 : need;
    uint32_t *p = nm_realloc_array(a->p, cap, sizeof *p);
    if (!p) {
        a->failed = true;
        return false;
    }
    a->p = p, a->cap = cap;
    return true;
}

void nm_u32_append(nm_u32 *a, const uint32_t *p, size_t n)
{
    if (n && nm_u32_reserve(a, n)) {
        memcpy(a->p + a->n, p, n * sizeof *p);
        a->n += n;
    }
}

void nm_u32_free(nm_u32 *a)
{
    free(a->p);
    *a = (nm_u32){ 0 };
}

noema_status nm_tok_bad_utf8(const char *s, size_t n, noema_error *err)
{
    size_t at = 0;
    while (at < n) {
        uint32_t c;
        int k = nm_utf8_decode(s + at, n - at, &c);
        if (c == UINT32_MAX)
            break;
        at += (size_t)k;
    }
    unsigned b = at < n ? (unsigned char)s[at] : 0;
    return nm_fail(err, NOEMA_E_FORMAT, "text: expected UTF-8, got byte 0x%02X at offset %zu", b, at);
}

noema_status nm_u32_from_utf8(nm_u32 *a, const char *s, size_t n, noema_error *err)
{
    a->n = 0;
    if (!nm_u32_reserve(a, n + 1))
        return nm_fail(err, NOEMA_E_MEMORY, "text of %zu bytes: out of memory", n);
    uint32_t *p = a->p;
    for (size_t i = 0; i < n;) {
        unsigned char b = (unsigned char)s[i];
        if (b < 0x80) {
            *p++ = b, i++;
            continue;
        }
        uint32_t c;
        i += (size_t)nm_utf8_decode(s + i, n - i, &c);
        if (c == UINT32_MAX)
            return nm_tok_bad_utf8(s, n, err);
        *p++ = c;
    }
    a->n = (size_t)(p - a->p);
    return NOEMA_OK;
}

bool nm_utf8_from_u32(nm_buf *b, const uint32_t *p, size_t n)
{
    if (!nm_buf_reserve(b, n * 4 + 1))
        return false;
    char *o = b->data + b->len;
    for (size_t i = 0; i < n; i++) {
        if (p[i] < 0x80)
            *o++ = (char)p[i];
        else
            o += nm_utf8_encode(p[i] - 0xD800u < 0x800u || p[i] > 0x10FFFF ? 0xFFFD : p[i], o);
    }
    *o = 0;
    b->len = (size_t)(o - b->data);
    return true;
}

uint32_t nm_cat(uint32_t c)
{
    return c > 0x10FFFF ? 1u : 1u << utf8proc_category((utf8proc_int32_t)c);
}

bool nm_is_white(uint32_t c)
{
    if (c < 0x85)
        return c == ' ' || (c >= 9 && c <= 13);
    return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 ||
           c == 0x202F || c == 0x205F || c == 0x3000;
}

bool nm_is_pyspace(uint32_t c)
{
    return (c >= 0x1C && c <= 0x1F) || nm_is_white(c);
}

uint32_t nm_lower_simple(uint32_t c)
{
    if (c < 0x80)
        return c - 'A' < 26u ? c + 32 : c;
    return (uint32_t)utf8proc_tolower((utf8proc_int32_t)c);
}

/* Cased (D135): Lu Ll Lt, Other_Lowercase, Other_Uppercase. Case_Ignorable (D136): Mn Me Cf Lm Sk and the word-break
 * classes MidLetter, MidNumLet, Single_Quote. Code points with both properties count as ignorable in the sigma rule, so a
 * run of ignorables is looked through once per sigma that stands before it: linear in total. */
static bool case_ignorable(uint32_t c)
{
    static const uint16_t mid[] = { 0x27,   0x2E,   0x3A,   0xB7,   0x387,  0x55F,  0x5F4,  0x2018, 0x2019,
                                    0x2024, 0x2027, 0xFE13, 0xFE52, 0xFE55, 0xFF07, 0xFF0E, 0xFF1A };
    for (size_t i = 0; i < sizeof mid / sizeof *mid; i++)
        if (c == mid[i])
            return true;
    const uint32_t m = 1u << UTF8PROC_CATEGORY_MN | 1u << UTF8PROC_CATEGORY_ME | 1u << UTF8PROC_CATEGORY_CF |
                       1u << UTF8PROC_CATEGORY_LM | 1u << UTF8PROC_CATEGORY_SK;
    return (nm_cat(c) & m) != 0;
}

static bool cased(uint32_t c)
{
    const uint32_t m = 1u << UTF8PROC_CATEGORY_LU | 1u << UTF8PROC_CATEGORY_LL | 1u << UTF8PROC_CATEGORY_LT;
    return (nm_cat(c) & m) || c == 0xAA || c == 0xBA || (c >= 0x2160 && c <= 0x217F) || (c >= 0x24B6 && c <= 0x24E9) ||
           (c >= 0x1F130 && c <= 0x1F149) || (c >= 0x1F150 && c <= 0x1F169) || (c >= 0x1F170 && c <= 0x1F189);
}

/* Final_Sigma (Unicode 3.13, table 3-17): a cased letter before (the caller knows), none after, ignorables skipped. */
static bool final_sigma(const uint32_t *p, size_t n, size_t i)
{
    for (i++; i < n && case_ignorable(p[i]); i++)
        ;
    return i == n || !cased(p[i]);
}

static void lower_into(const nm_u32 *a, nm_u32 *out, bool sigma)
{
    bool before = false;
    out->n = 0;
    if (!nm_u32_reserve(out, a->n * 2 + 1))
        return;
    for (size_t i = 0; i < a->n; i++) {
        uint32_t c = a->p[i];
        if (c < 0x80) {
            out->p[out->n++] = c - 'A' < 26u ? c + 32 : c;
        } else if (c == 0x130) {
            out->p[out->n++] = 'i', out->p[out->n++] = 0x307;
        } else if (c == 0x3A3 && sigma) {
            out->p[out->n++] = before && final_sigma(a->p, a->n, i) ? 0x3C2 : 0x3C3;
        } else {
            out->p[out->n++] = nm_lower_simple(c);
        }
        if (sigma && !case_ignorable(c))
            before = cased(c);
    }
    out->failed |= a->failed;
}

void nm_lower_full(nm_u32 *a, nm_u32 *tmp)
{
    bool sigma = false;
    for (size_t i = 0; i < a->n && !sigma; i++)
        sigma = a->p[i] == 0x3A3;
    lower_into(a, tmp, sigma);
    nm_u32_swap(a, tmp);
}

void nm_lower_per_char(nm_u32 *a, nm_u32 *tmp)
{
    lower_into(a, tmp, false);
    nm_u32_swap(a, tmp);
}

static int ccc(uint32_t c)
{
    return c < 0x300 ? 0 : (int)utf8proc_get_property((utf8proc_int32_t)c)->combining_class;
}

/* Stable sort of a run of combining marks by class: insertion for the usual two or three, counting for a long run. */
static void order_run(uint32_t *p, size_t n, uint32_t *tmp)
{
    if (n <= 16) {
        for (size_t i = 1; i < n; i++) {
            uint32_t c = p[i];
            size_t j = i;
            for (; j && ccc(p[j - 1]) > ccc(c); j--)
                p[j] = p[j - 1];
            p[j] = c;
        }
        return;
    }
    size_t start[257] = { 0 };
    for (size_t i = 0; i < n; i++)
        start[ccc(p[i]) + 1]++;
    for (int k = 0; k < 256; k++)
        start[k + 1] += start[k];
    for (size_t i = 0; i < n; i++)
        tmp[start[ccc(p[i])]++] = p[i];
    memcpy(p, tmp, n * sizeof *p);
}

static void order_marks(nm_u32 *a, uint32_t *tmp)
{
    for (size_t i = 0; i < a->n;) {
        size_t j = i;
        while (j < a->n && ccc(a->p[j]))
            j++;
        if (j - i > 1)
            order_run(a->p + i, j - i, tmp);
        i = j > i ? j : i + 1;
    }
}

void nm_text_norm(nm_u32 *a, int form, nm_u32 *tmp)
{
    const bool compat = form == NM_NFKC || form == NM_NFKD, compose = form == NM_NFC || form == NM_NFKC;
    const uint32_t quiet = form == NM_NFC ? 0x300 : compat ? 0xA0 : 0xC0; /* below: already in the form, alone and together */
    size_t i = 0;
    while (i < a->n && a->p[i] < quiet)
        i++;
    if (i == a->n || a->failed)
        return;
    const utf8proc_option_t opt = (compose ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE) | UTF8PROC_STABLE |
                                  (compat ? UTF8PROC_COMPAT : 0);
    tmp->n = 0;
    for (i = 0; i < a->n; i++) {
        if (a->p[i] < 0xA0) {
            nm_u32_put(tmp, a->p[i]);
            continue;
        }
        if (!nm_u32_reserve(tmp, 32)) /* U+FDFA, the longest decomposition, has 18 */
            break;
        utf8proc_ssize_t k = utf8proc_decompose_char((utf8proc_int32_t)a->p[i], (utf8proc_int32_t *)(tmp->p + tmp->n), 32,
                                                     opt, NULL);
        if (k < 0 || k > 32)
            tmp->p[tmp->n++] = a->p[i];
        else
            tmp->n += (size_t)k;
    }
    a->n = 0;
    if (tmp->failed || !nm_u32_reserve(a, tmp->n)) {
        a->failed = true;
        return;
    }
    order_marks(tmp, a->p);
    if (compose && tmp->n) {
        utf8proc_ssize_t k = utf8proc_normalize_utf32((utf8proc_int32_t *)tmp->p, (utf8proc_ssize_t)tmp->n, opt);
        tmp->n = k < 0 ? tmp->n : (size_t)k;
    }
    nm_u32_swap(a, tmp);
}

void nm_strip_marks(nm_u32 *a)
{
    size_t k = 0;
    for (size_t i = 0; i < a->n; i++)
        if (a->p[i] < 0x300 || !(nm_cat(a->p[i]) & NM_CAT_MN))
            a->p[k++] = a->p[i];
    a->n = k;
}
