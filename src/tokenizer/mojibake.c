/* mojibake.c - finds text that was UTF-8 and was read in a one-byte encoding, and undoes it, with the decisions of
 * ftfy 6.3.1 (Robyn Speer, Apache-2.0; badness.py, fixes.py, __init__.py), written anew on tables of character sets.
 *
 * A text is suspicious ("bad") when some short sequence of characters matches a rule. Then each one-byte encoding that
 * could have produced every character is tried in a fixed order: encode the text in it, restore a few bytes that other
 * programs are known to have damaged, decode the bytes as UTF-8. The first success is the answer. Failing all, sequences
 * that look like UTF-8 in isolation are repaired one by one, and stray C1 controls become windows-1252. */
#include "tokenizer/mojibake.h"

#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "tokenizer/clean.h"
#include "tokenizer/ftfy_tables.inc"

/* Sets that are cheaper computed than stored. */
#define K_AZ (1ULL << K_FREE)            /* a-z */
#define K_ALPHA (1ULL << (K_FREE + 1))   /* A-Za-z */
#define K_SPACE (1ULL << (K_FREE + 2))   /* white space */
#define K_WORD (1ULL << (K_FREE + 3))    /* letters, numbers, underscore */
#define K_BLANK (1ULL << (K_FREE + 4))   /* U+0020 */
#define K_STOP (1ULL << (K_FREE + 5))    /* . , ? ! */
#define K_NALPHA (1ULL << (K_FREE + 6))  /* anything but A-Za-z */
#define K_NLF (1ULL << (K_FREE + 7))     /* anything but line feed */
_Static_assert(K_FREE + 7 < 64, "sets fit a word");

#define ACCENTED (K_LOWER | K_UPPER)
#define SIGNS (K_BOX | K_START | K_END | K_CURRENCY | K_NUMERIC | K_LAW)
#define AFTER_D8 (K_COMMON | K_CURRENCY | K_BAD | K_NUMERIC | K_START | K_AFTER_OU)
#define CYR_MID (K_C1 | K_BAD | K_START | K_END | K_CURRENCY | K_DEG_MU)
#define GRK_MID (K_C1 | K_BAD | K_START | K_END | K_CURRENCY | K_DEGREE)

/* One row per alternative of the badness rule: the sets that consecutive characters must belong to; 0 ends a row. */
static const uint64_t rules[][6] = {
    { K_C1 },
    { ACCENTED | SIGNS | K_BAD, K_BAD },
    { K_ALPHA, K_LOWCOM | K_UPCOM, K_BAD },
    { K_BAD, ACCENTED | SIGNS },
    { K_LOWER | K_LOWCOM | K_BOX | K_END | K_CURRENCY | K_NUMERIC, K_UPPER },
    { K_BOX | K_END | K_CURRENCY | K_NUMERIC, K_LOWER },
    { K_LOWER | K_BOX | K_END, K_CURRENCY },
    { K_SPACE, K_UPPER, K_CURRENCY },
    { K_UPPER | K_BOX, K_NUMERIC | K_LAW },
    { ACCENTED | K_BOX | K_CURRENCY | K_END, K_START, K_NUMERIC },
    { ACCENTED | K_CURRENCY | K_NUMERIC | K_BOX | K_LAW, K_END, K_START },
    { K_CURRENCY | K_NUMERIC | K_BOX, K_START },
    { K_AZ, K_UPPER, K_START | K_CURRENCY },
    { K_BOX, K_KAOMOJI },
    { ACCENTED | K_CURRENCY | K_NUMERIC | K_START | K_END | K_LAW, K_BOX },
    { K_BOX, K_END },
    { ACCENTED, K_START | K_END, K_WORD },
    { K_OE, K_NALPHA },
    { K_UPPER, K_DEGREE },
    { K_AEIN, K_AFTER_AEIN | K_START | K_END },
    { K_TIMES, K_SUP23 },
    { K_OU, AFTER_D8, K_OU, AFTER_D8 },                          /* Arabic in windows-1252 */
    { K_AGRAVE, K_AFTER_AGRAVE },                                /* South Asian scripts in windows-1252 */
    { K_ROOT, K_AFTER_ROOT },                                    /* MacRoman, these five */
    { K_APPROX, K_DEG_CENT },
    { K_LOWQ, K_ADIAER, K_AFTER_LOWQA },
    { K_LOWQ, K_AO, K_AFTER_AO },
    { K_CYR_VE, K_CYR_DJE },                                     /* windows-1251 */
    { K_CYR4, CYR_MID, K_CYR4 },
    { K_CYR_GHE, K_CYR_U, K_CYR_VE_UP, K_CYR_DJE, K_CYR_VE_UP, K_NLF }, /* and then [A-Za-z ], see is_bad */
    { K_ATILDE, K_NBSP_EXCL },                                   /* a grave, a acute, no-break space in windows-1252 */
    { K_AZ, K_AA, K_BLANK },
    { K_AZ, K_SPACE, K_AA, K_BLANK },
    { K_AZ | K_STOP | K_END, K_ACIRC, K_BLANK | K_START | K_END },
    { K_BETA, K_EURO, K_AFTER_BETA },                            /* windows-1253 */
    { K_GRK4, GRK_MID, K_GRK4 },
    { K_AMACRON, K_EURO },                                       /* windows-1257 */
};
enum { N_RULES = sizeof rules / sizeof *rules, N_MOJIBAKE = sizeof mojibake / sizeof *mojibake };

static const struct mojibake_char *look_up(uint32_t c)
{
    size_t lo = 0, hi = N_MOJIBAKE;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (mojibake[mid].c < c)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < N_MOJIBAKE && mojibake[lo].c == c ? &mojibake[lo] : NULL;
}

static uint64_t sets_of(uint32_t c)
{
    uint64_t k = c == '\n' ? 0 : K_NLF;
    if (c < 0x80) {
        uint32_t low = c | 32;
        if (low - 'a' < 26u)
            return k | K_ALPHA | K_WORD | (c >= 'a' ? K_AZ : 0);
        k |= K_NALPHA;
        if (c == ' ')
            return k | K_BLANK | K_SPACE | K_CONT;
        if (c == '.' || c == ',' || c == '?' || c == '!')
            return k | K_STOP;
        if (c - '0' < 10u || c == '_')
            return k | K_WORD;
        return k | (nm_is_pyspace(c) ? K_SPACE : 0);
    }
    const struct mojibake_char *m = c <= 0xFFFF ? look_up(c) : NULL;
    k |= K_NALPHA | (nm_is_pyspace(c) ? K_SPACE : 0) | (m ? m->set : 0);
    return k | (nm_cat(c) & (NM_CAT_L | NM_CAT_N) ? K_WORD : 0);
}

static bool rule_matches(const uint64_t *rule, const uint32_t *p, size_t n)
{
    for (size_t k = 0; k < 6 && rule[k]; k++)
        if (k >= n || !(sets_of(p[k]) & rule[k]))
            return false;
    return rule[0] != 0;
}

bool nm_ftfy_is_bad(const uint32_t *p, size_t n)
{
    uint64_t starts = 0;
    for (size_t r = 0; r < N_RULES; r++)
        starts |= rules[r][0];
    for (size_t i = 0; i < n; i++) {
        /* every rule has a character outside ASCII among its first three */
        if (p[i] < 0x80 && (i + 1 >= n || p[i + 1] < 0x80) && (i + 2 >= n || p[i + 2] < 0x80))
            continue;
        uint64_t here = sets_of(p[i]);
        if (i == 0 && n > 1 && (p[0] == 0xC3 || p[0] == 0xC2) && p[1] == ' ')
            return true;
        if (!(here & starts))
            continue;
        for (size_t r = 0; r < N_RULES; r++) {
            if (!(here & rules[r][0]) || !rule_matches(rules[r], p + i, n - i))
                continue;
            if (rules[r][0] != K_CYR_GHE || (i + 6 < n && sets_of(p[i + 6]) & (K_ALPHA | K_BLANK)))
                return true;
        }
    }
    return false;
}

/* The encodings in ftfy's order: Latin-1 (-1), then the columns of the table. The six sloppy ones (windows-*) encode
 * U+FFFD as byte 1A and U+001A not at all. */
enum { LATIN1 = -1, N_SLOPPY = 6, MACROMAN = 7 };

static int encode_char(uint32_t c, int enc)
{
    if (c == 0x1A)
        return enc >= 0 && enc < N_SLOPPY ? -1 : 0x1A;
    if (c < 0x80)
        return (int)c;
    if (enc == LATIN1)
        return c < 0x100 ? (int)c : -1;
    if (c == 0xFFFD && enc < N_SLOPPY)
        return 0x1A;
    const struct mojibake_char *m = c <= 0xFFFF ? look_up(c) : NULL;
    return m && m->byte[enc] ? m->byte[enc] : -1;
}

static bool encode_all(const nm_u32 *a, int enc, unsigned char *out)
{
    for (size_t i = 0; i < a->n; i++) {
        int b = encode_char(a->p[i], enc);
        if (b < 0)
            return false;
        out[i] = (unsigned char)b;
    }
    return true;
}

static bool in(int b, int lo, int hi)
{
    return b >= lo && b <= hi;
}
static bool tail(int b) /* a continuation byte that may stand beside a lost A0: not 85, not A0 */
{
    return in(b, 0x80, 0xBF) && b != 0x85 && b != 0xA0;
}

/* Length of a UTF-8 sequence at b in which a byte A0 was turned into a space, or 0. */
static size_t lost_a0(const unsigned char *b, size_t n)
{
    if (n >= 2 && memchr("\xC2\xC3\xC5\xCE\xD0\xD9", b[0], 6) && b[1] == ' ')
        return 2;
    if (n >= 3 && in(b[0], 0xE0, 0xE3) && ((b[0] >= 0xE2 && b[1] == ' ' && tail(b[2])) || (tail(b[1]) && b[2] == ' ')))
        return 3;
    if (n >= 4 && b[0] == 0xF0) {
        int spaces = (b[1] == ' ') + (b[2] == ' ') + (b[3] == ' ');
        int tails = in(b[1], 0x80, 0xBF) + in(b[2], 0x80, 0xBF) + in(b[3], 0x80, 0xBF);
        if (spaces == 1 && tails == 2)
            return 4;
    }
    return 0;
}

static bool any_lost_a0(const unsigned char *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (b[i] >= 0xC2 && lost_a0(b + i, n - i))
            return true;
    return false;
}

/* "C3 20" alone is the word "a grave" and keeps its space, except before a few Portuguese words that start with it. */
static bool a_grave_word(const unsigned char *b, size_t n)
{
    static const char *const not_before[] = { " ", "quele", "quela", "quilo", "s " };
    if (n < 2 || b[0] != 0xC3 || b[1] != ' ')
        return false;
    for (int i = 0; i < 5; i++) {
        size_t k = strlen(not_before[i]);
        if (n - 2 >= k && memcmp(b + 2, not_before[i], k) == 0)
            return false;
    }
    return true;
}

/* Both passes of restoring; out holds 3 bytes per byte at most. Returns the new length. */
static size_t restore_a0(const unsigned char *b, size_t n, unsigned char *out)
{
    size_t k = 0;
    for (size_t i = 0; i < n; i++) {
        if (a_grave_word(b + i, n - i)) {
            out[k++] = 0xC3, out[k++] = 0xA0, out[k++] = ' ', i++;
            continue;
        }
        out[k++] = b[i];
    }
    for (size_t i = 0; i < k;) {
        size_t len = out[i] >= 0xC2 ? lost_a0(out + i, k - i) : 0;
        for (size_t j = i; j < i + len; j++)
            out[j] = out[j] == ' ' ? 0xA0 : out[j];
        i += len ? len : 1;
    }
    return k;
}

/* Length of a UTF-8 or CESU-8 sequence that lost some continuation bytes (1A, once also '?'), or 0. */
static size_t lossy(const unsigned char *b, size_t n)
{
    if (b[0] == 0x1A)
        return 1;
    if (n >= 2 && ((in(b[0], 0xC2, 0xDF) && b[1] == 0x1A) || (in(b[0], 0xC2, 0xC3) && b[1] == '?')))
        return 2;
#define SUB(x) ((x) == 0x1A || in(x, 0x80, 0xBF))
#define LOST(x) ((x) == 0x1A || (x) == '?')
    if (n >= 5 && b[0] == 0xED && in(b[1], 0xA0, 0xAF) && b[3] == 0xED && in(b[4], 0xB0, 0xBF) && n >= 6 &&
        ((LOST(b[2]) && (LOST(b[5]) || in(b[5], 0x80, 0xBF))) || ((LOST(b[2]) || in(b[2], 0x80, 0xBF)) && LOST(b[5]))))
        return 6;
    if (n >= 3 && in(b[0], 0xE0, 0xEF) && ((LOST(b[1]) && SUB(b[2])) || (SUB(b[1]) && LOST(b[2]))))
        return 3;
    if (n >= 4 && in(b[0], 0xF0, 0xF4) &&
        ((LOST(b[1]) && SUB(b[2]) && SUB(b[3])) || (SUB(b[1]) && LOST(b[2]) && SUB(b[3])) ||
         (SUB(b[1]) && SUB(b[2]) && LOST(b[3]))))
        return 4;
    return 0;
#undef SUB
#undef LOST
}

static size_t replace_lossy(const unsigned char *b, size_t n, unsigned char *out)
{
    size_t k = 0;
    for (size_t i = 0; i < n;) {
        size_t len = lossy(b + i, n - i);
        if (len) {
            out[k++] = 0xEF, out[k++] = 0xBF, out[k++] = 0xBD, i += len;
        } else {
            out[k++] = b[i++];
        }
    }
    return k;
}

/* Strict UTF-8, plus, when a byte ED or C0 occurs, Java's C0 80 for U+0000 and CESU-8 surrogate pairs. */
static bool decode_variants(const unsigned char *b, size_t n, nm_u32 *out)
{
    out->n = 0;
    for (size_t i = 0; i < n;) {
        uint32_t c;
        if (b[i] == 0xC0 && i + 1 < n && (b[i + 1] == 0x80 || (b[i + 1] == '\n' && i + 2 == n))) {
            c = 0, i += 2; /* the reference's pattern also takes C0 before a final line feed */
        } else if (n - i >= 6 && b[i] == 0xED && in(b[i + 1], 0xA0, 0xAF) && in(b[i + 2], 0x80, 0xBF) && b[i + 3] == 0xED &&
                   in(b[i + 4], 0xB0, 0xBF) && in(b[i + 5], 0x80, 0xBF)) {
            c = 0x10000 + ((b[i + 1] & 0x0Fu) << 16) + ((b[i + 2] & 0x3Fu) << 10) + ((b[i + 4] & 0x0Fu) << 6) +
                (b[i + 5] & 0x3Fu);
            i += 6;
        } else {
            i += (size_t)nm_utf8_decode((const char *)b + i, n - i, &c);
            if (c == UINT32_MAX)
                return false;
        }
        nm_u32_put(out, c);
    }
    return !out->failed;
}

/* Tries one encoding; true: *a is repaired. buf: two halves of 9 bytes per code point. */
static bool try_encoding(nm_u32 *a, int enc, unsigned char *buf, nm_u32 *tmp)
{
    unsigned char *b = buf, *other = buf + a->n * 9;
    size_t n = a->n;
    if (enc != MACROMAN && any_lost_a0(b, n)) {
        n = restore_a0(b, n, other);
        unsigned char *t = b;
        b = other, other = t;
    }
    if (enc >= 0 && enc < N_SLOPPY) {
        n = replace_lossy(b, n, other);
        b = other;
    }
    if (!decode_variants(b, n, tmp))
        return false;
    nm_u32_swap(a, tmp);
    return true;
}

/* UTF8_DETECTOR: a maximal run of sequences that look like UTF-8 in a Latin-like encoding. */
static size_t detect_run(const uint32_t *p, size_t n, bool strict_before)
{
    size_t i = 0;
    if (strict_before)
        return 0;
    for (;;) {
        uint64_t lead = i < n ? sets_of(p[i]) & (K_F2 | K_F3 | K_F4) : 0;
        size_t cont = 0;
        while (lead && cont < 3 && i + 1 + cont < n && sets_of(p[i + 1 + cont]) & K_CONT)
            cont++;
        if (lead & K_F2 && cont >= 1)
            i += 2;
        else if (lead & K_F3 && cont >= 2)
            i += 3;
        else if (lead & K_F4 && cont >= 3)
            i += 4;
        else
            return i;
    }
}

/* Repairs embedded sequences one by one when the text as a whole has no consistent answer. */
static bool fix_inconsistent(nm_u32 *a, nm_u32 *tmp, long *rounds)
{
    nm_u32 part = { 0 };
    bool changed = false, ok = true;
    tmp->n = 0;
    for (size_t i = 0; i < a->n;) {
        size_t len = detect_run(a->p + i, a->n - i, i > 0 && sets_of(a->p[i - 1]) & K_STRICT);
        if (len == 0) {
            nm_u32_put(tmp, a->p[i++]);
            continue;
        }
        part.n = 0;
        nm_u32_append(&part, a->p + i, len);
        if (len < a->n && ok && nm_ftfy_is_bad(part.p, part.n)) {
            ok = nm_fix_encoding(&part, rounds);
            changed |= part.n != len || memcmp(part.p, a->p + i, len * sizeof *part.p) != 0;
        }
        nm_u32_append(tmp, part.p, part.n);
        i += len;
    }
    a->failed |= part.failed;
    nm_u32_free(&part);
    if (changed)
        nm_u32_swap(a, tmp);
    return changed;
}

void nm_fix_c1(nm_u32 *a)
{
    for (size_t i = 0; i < a->n; i++)
        if (a->p[i] >= 0x80 && a->p[i] <= 0x9F)
            a->p[i] = nm_cp1252[a->p[i] - 0x80];
}

static bool has_c1(const nm_u32 *a)
{
    for (size_t i = 0; i < a->n; i++)
        if (a->p[i] >= 0x80 && a->p[i] <= 0x9F)
            return true;
    return false;
}

/* Latin-1 text with C1 controls was meant as windows-1252, if every one of them is assigned there (the table leaves the
 * five unassigned bytes as they are). */
static bool latin1_as_1252(nm_u32 *a)
{
    if (!has_c1(a))
        return false;
    for (size_t i = 0; i < a->n; i++)
        if (a->p[i] >= 0x80 && a->p[i] <= 0x9F && nm_cp1252[a->p[i] - 0x80] < 0xA0)
            return false;
    nm_fix_c1(a);
    return true;
}

/* One step; true: something changed and the next step may find more. */
static bool fix_step(nm_u32 *a, unsigned char *buf, nm_u32 *tmp, long *rounds)
{
    bool latin1 = false, ascii = true;
    for (size_t i = 0; i < a->n && ascii; i++)
        ascii = a->p[i] < 0x80;
    if (ascii || !nm_ftfy_is_bad(a->p, a->n))
        return false;
    for (int enc = LATIN1; enc < N_ENCODINGS; enc++) {
        if (!encode_all(a, enc, buf))
            continue;
        latin1 |= enc == LATIN1;
        if (try_encoding(a, enc, buf, tmp))
            return !nm_u32_same(a, tmp);
    }
    if (fix_inconsistent(a, tmp, rounds))
        return true;
    if (latin1 && latin1_as_1252(a))
        return true;
    if (has_c1(a)) {
        tmp->n = 0;
        nm_u32_append(tmp, a->p, a->n);
        nm_fix_c1(a);
        return !nm_u32_same(a, tmp);
    }
    return false;
}

bool nm_fix_encoding(nm_u32 *a, long *rounds)
{
    nm_u32 tmp = { 0 };
    unsigned char *buf = NULL;
    size_t size = 0;
    bool ok = true;
    for (;;) {
        if (a->n * 18 + 1 > size) {
            free(buf);
            size = a->n * 18 + 64;
            buf = a->n < SIZE_MAX / 32 ? malloc(size) : NULL;
        }
        if (!buf || a->failed || tmp.failed) {
            a->failed = true;
            break;
        }
        if (!fix_step(a, buf, &tmp, rounds))
            break;
        *rounds -= (long)(a->n / 64 + 1);
        if (*rounds < 0) {
            ok = false;
            break;
        }
    }
    a->failed |= tmp.failed;
    free(buf);
    nm_u32_free(&tmp);
    return ok;
}
