/* text.h - growing arrays of code points and the Unicode rules that tokenizers share: white space, categories, full lower
 * case, normal forms. All of it works on UTF-32, because every rule here is stated per code point. */
#ifndef NM_TOK_TEXT_H
#define NM_TOK_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/mem.h"

/* Code points; `failed` stays set once an allocation failed, and appends then do nothing (checked once at the end). */
typedef struct nm_u32 {
    uint32_t *p;
    size_t n, cap;
    bool failed;
} nm_u32;

bool nm_u32_reserve(nm_u32 *a, size_t extra);
void nm_u32_append(nm_u32 *a, const uint32_t *p, size_t n);
void nm_u32_free(nm_u32 *a);
static inline void nm_u32_swap(nm_u32 *a, nm_u32 *b)
{
    nm_u32 t = *a;
    *a = *b, *b = t;
}
static inline void nm_u32_put(nm_u32 *a, uint32_t c)
{
    if (a->n < a->cap || nm_u32_reserve(a, 1))
        a->p[a->n++] = c;
}
static inline bool nm_u32_same(const nm_u32 *a, const nm_u32 *b)
{
    return a->n == b->n && (a->n == 0 || __builtin_memcmp(a->p, b->p, a->n * sizeof *a->p) == 0);
}

/* Replaces *a by the code points of s[0..n); invalid UTF-8 is NOEMA_E_FORMAT with the offset of the first bad byte. */
noema_status nm_u32_from_utf8(nm_u32 *a, const char *s, size_t n, noema_error *err);
bool nm_utf8_from_u32(nm_buf *b, const uint32_t *p, size_t n); /* appends; surrogates become U+FFFD */
noema_status nm_tok_bad_utf8(const char *s, size_t n, noema_error *err); /* the message alone */

/* General categories as masks: nm_cat(c) is one bit, 1 << utf8proc_category_t. */
uint32_t nm_cat(uint32_t c);
#define NM_CAT_L 0x0000003Eu  /* Lu Ll Lt Lm Lo */
#define NM_CAT_M 0x000001C0u  /* Mn Mc Me */
#define NM_CAT_N 0x00000E00u  /* Nd Nl No */
#define NM_CAT_P 0x0007F000u  /* Pc Pd Ps Pe Pi Pf Po */
#define NM_CAT_S 0x00780000u  /* Sm Sc Sk So */
#define NM_CAT_Z 0x03800000u  /* Zs Zl Zp */
#define NM_CAT_MN (1u << 6)
#define NM_CAT_ND (1u << 9)
#define NM_CAT_CC (1u << 26)
#define NM_CAT_CF (1u << 27)
#define NM_CAT_C 0x3C000001u  /* Cc Cf Cs Co Cn */

bool nm_is_white(uint32_t c);    /* the White_Space property: \s of Rust and of the regex module */
bool nm_is_pyspace(uint32_t c);  /* str.isspace: the same and U+001C..U+001F */
uint32_t nm_lower_simple(uint32_t c);

/* Python's str.lower: U+0130 becomes two code points, capital sigma follows the final-sigma rule. per_char: Rust's
 * char::to_lowercase on each code point (no sigma rule). */
void nm_lower_full(nm_u32 *a, nm_u32 *tmp);
void nm_lower_per_char(nm_u32 *a, nm_u32 *tmp);

enum { NM_NFC, NM_NFD, NM_NFKC, NM_NFKD };
/* Normal form in place, O(n log n) also for long runs of combining marks; `tmp` is scratch. */
void nm_text_norm(nm_u32 *a, int form, nm_u32 *tmp);
void nm_strip_marks(nm_u32 *a); /* deletes category Mn */

#endif
