/* ftfy.c - ftfy.fix_text (6.3.1, default options) without its explanations: per line, a fixed list of repairs repeated
 * until the line is stable. Plain ASCII without '&', ESC or control characters is never changed, and the caller skips it. */
#include <string.h>

#include "tokenizer/clean.h"
#include "tokenizer/mojibake.h"

static void fix_ligatures(nm_u32 *a, nm_u32 *tmp)
{
    static const struct { uint16_t c; char to[4]; } map[] = {
        { 0x132, "IJ" }, { 0x133, "ij" }, { 0x1F1, "DZ" }, { 0x1F2, "Dz" },  { 0x1F3, "dz" },  { 0x1C7, "LJ" },
        { 0x1C8, "Lj" }, { 0x1C9, "lj" }, { 0x1CA, "NJ" }, { 0x1CB, "Nj" },  { 0x1CC, "nj" },  { 0xFB00, "ff" },
        { 0xFB01, "fi" }, { 0xFB02, "fl" }, { 0xFB03, "ffi" }, { 0xFB04, "ffl" }, { 0xFB06, "st" },
    };
    tmp->n = 0;
    for (size_t i = 0; i < a->n; i++) {
        uint32_t c = a->p[i];
        size_t k = 0, n = sizeof map / sizeof *map;
        if (c < 0x132 || (c > 0x1F3 && c < 0xFB00) || c > 0xFB06) {
            nm_u32_put(tmp, c);
            continue;
        }
        while (k < n && map[k].c != c)
            k++;
        if (k < n) {
            for (const char *s = map[k].to; *s; s++)
                nm_u32_put(tmp, (unsigned char)*s);
        } else if (c == 0x149) {
            nm_u32_put(tmp, 0x2BC), nm_u32_put(tmp, 'n');
        } else if (c >= 0x1C4 && c <= 0x1C6) {
            nm_u32_put(tmp, c == 0x1C6 ? 'd' : 'D'), nm_u32_put(tmp, c == 0x1C4 ? 0x17D : 0x17E);
        } else if (c == 0xFB05) {
            nm_u32_put(tmp, 0x17F), nm_u32_put(tmp, 't');
        } else {
            nm_u32_put(tmp, c);
        }
    }
    nm_u32_swap(a, tmp);
}

/* Full- and half-width forms, each alone, in their NFKC form. */
static void fix_width(nm_u32 *a, nm_u32 *tmp)
{
    nm_u32 one = { 0 }, scratch = { 0 };
    tmp->n = 0;
    for (size_t i = 0; i < a->n; i++) {
        uint32_t c = a->p[i];
        if (c == 0x3000) {
            nm_u32_put(tmp, ' ');
        } else if (c >= 0xFF01 && c < 0xFF5F) {
            nm_u32_put(tmp, c - 0xFF01 + '!');
        } else if (c >= 0xFF5F && c < 0xFFF0) {
            one.n = 0;
            nm_u32_put(&one, c);
            nm_text_norm(&one, NM_NFKC, &scratch);
            nm_u32_append(tmp, one.p, one.n);
        } else {
            nm_u32_put(tmp, c);
        }
    }
    tmp->failed |= one.failed || scratch.failed;
    nm_u32_free(&one);
    nm_u32_free(&scratch);
    nm_u32_swap(a, tmp);
}

/* Straight quotes, LF as the only line break: one for one or shorter, in place. */
static void fix_quotes_and_breaks(nm_u32 *a)
{
    size_t k = 0;
    for (size_t i = 0; i < a->n; i++) {
        uint32_t c = a->p[i];
        if (c == 0x2BC || (c >= 0x2018 && c <= 0x201B))
            c = '\'';
        else if (c >= 0x201C && c <= 0x201F)
            c = '"';
        else if (c == '\r' && i + 1 < a->n && a->p[i + 1] == '\n')
            continue;
        else if (c == '\r' || c == 0x2028 || c == 0x2029 || c == 0x85)
            c = '\n';
        a->p[k++] = c;
    }
    a->n = k;
}

/* ESC [ digits and semicolons, then a letter. */
static void remove_escapes(nm_u32 *a)
{
    size_t k = 0;
    for (size_t i = 0; i < a->n;) {
        size_t j = i + 2;
        if (a->p[i] == 0x1B && j <= a->n && a->p[i + 1] == '[') {
            while (j < a->n && (a->p[j] == ';' || nm_cat(a->p[j]) & NM_CAT_ND))
                j++;
            if (j < a->n && a->p[j] < 0x80 && (a->p[j] | 32) - 'a' < 26u) {
                i = j + 1;
                continue;
            }
        }
        a->p[k++] = a->p[i++];
    }
    a->n = k;
}

static void remove_controls(nm_u32 *a)
{
    size_t k = 0;
    for (size_t i = 0; i < a->n; i++) {
        uint32_t c = a->p[i];
        bool drop = c < 9 || c == 0xB || (c >= 0xE && c <= 0x1F) || c == 0x7F || (c >= 0x206A && c <= 0x206F) ||
                    c == 0xFEFF || (c >= 0xFFF9 && c <= 0xFFFC);
        if (!drop)
            a->p[k++] = c;
    }
    a->n = k;
}

static noema_status fix_line(nm_u32 *a, nm_u32 *before, nm_u32 *tmp, bool entities, noema_error *err)
{
    long rounds = 20000 + 64 * (long)(a->n / 64 + 1); /* of 64 code points: far more than any honest text needs */
    for (;;) {
        before->n = 0;
        nm_u32_append(before, a->p, a->n);
        if (entities)
            nm_ftfy_unescape(a, tmp);
        bool ok = nm_fix_encoding(a, &rounds);
        nm_fix_c1(a);
        fix_ligatures(a, tmp);
        fix_width(a, tmp);
        fix_quotes_and_breaks(a);
        remove_escapes(a);
        remove_controls(a);
        nm_text_norm(a, NM_NFC, tmp);
        if (a->failed || before->failed || tmp->failed)
            return nm_fail(err, NOEMA_E_MEMORY, "text of %zu characters: out of memory", before->n);
        if (nm_u32_same(a, before))
            return NOEMA_OK;
        rounds -= (long)(a->n / 64 + 1);
        if (!ok || rounds < 0)
            return nm_fail(err, NOEMA_E_LIMIT, "text of %zu characters: its clean-up does not come to an end", before->n);
    }
}

noema_status nm_ftfy_fix(nm_u32 *a, noema_error *err)
{
    nm_u32 line = { 0 }, before = { 0 }, tmp = { 0 }, out = { 0 };
    noema_status st = NOEMA_OK;
    bool entities = true; /* "auto": off from the first line on that has a '<' */
    for (size_t pos = 0; pos < a->n && !st;) {
        size_t end = pos;
        while (end < a->n && a->p[end] != '\n' && end - pos < 1000000)
            end++;
        if (end < a->n && end - pos < 1000000)
            end++;
        for (size_t i = pos; i < end && entities; i++)
            entities = a->p[i] != '<';
        line.n = 0;
        nm_u32_append(&line, a->p + pos, end - pos);
        st = fix_line(&line, &before, &tmp, entities, err);
        nm_u32_append(&out, line.p, line.n);
        pos = end;
    }
    if (!st && (out.failed || line.failed))
        st = nm_fail(err, NOEMA_E_MEMORY, "text of %zu characters: out of memory", a->n);
    if (!st)
        nm_u32_swap(a, &out);
    nm_u32_free(&line), nm_u32_free(&before), nm_u32_free(&tmp), nm_u32_free(&out);
    return st;
}
