/* pipe_norm.c - normalisers of tokenizer.json, in place on code points. */
#include <utf8proc.h>

#include "base/utf8.h"
#include "tokenizer/pipe.h"

bool nm_is_cjk(uint32_t c)
{
    return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) || (c >= 0x20000 && c <= 0x2A6DF) ||
           (c >= 0x2A700 && c <= 0x2B73F) || (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) ||
           (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

bool nm_is_bert_punct(uint32_t c)
{
    if (c < 0x80)
        return (c >= 0x21 && c <= 0x2F) || (c >= 0x3A && c <= 0x40) || (c >= 0x5B && c <= 0x60) || (c >= 0x7B && c <= 0x7E);
    return (nm_cat(c) & NM_CAT_P) || c == 0x166D; /* punctuation in Unicode 8, whose tables the Rust BERT steps use */
}

bool nm_is_word_char(uint32_t c)
{
    if (c < 0x80)
        return (c | 32) - 'a' < 26u || c - '0' < 10u || c == '_';
    return (nm_cat(c) & (NM_CAT_L | NM_CAT_M | NM_CAT_ND | 1u << 10 | 1u << 12)) || c == 0x200C || c == 0x200D ||
           (c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) || (c >= 0x1F150 && c <= 0x1F169) ||
           (c >= 0x1F170 && c <= 0x1F189);
}

/* clean_text, spaces around CJK characters, accents, lower case. */
static void bert(const nm_step *st, nm_u32 *a, nm_u32 *tmp)
{
    tmp->n = 0;
    for (size_t i = 0; i < a->n; i++) {
        uint32_t c = a->p[i];
        if (st->clean) {
            if (c == 0 || c == 0xFFFD)
                continue;
            if (c == '\t' || c == '\n' || c == '\r' || nm_is_white(c))
                c = (c >= 0x7F && c <= 0x9F) || c == 0xB || c == 0xC ? 0 : ' ';
            else if ((c < 0x20 || c >= 0x7F) && nm_cat(c) & (st->python ? NM_CAT_C : NM_CAT_C & ~1u))
                c = 0;
            if (c == 0)
                continue; /* control characters, U+000B, U+000C and U+0085 among them */
        }
        if (st->chinese && c >= 0x3400 && nm_is_cjk(c)) {
            nm_u32_put(tmp, ' '), nm_u32_put(tmp, c), nm_u32_put(tmp, ' ');
            continue;
        }
        nm_u32_put(tmp, c);
    }
    nm_u32_swap(a, tmp);
    if (st->accents) {
        nm_text_norm(a, NM_NFD, tmp);
        nm_strip_marks(a);
    }
    if (st->lower)
        nm_lower_per_char(a, tmp);
}

static void replace_string(const nm_step *st, nm_u32 *a, nm_u32 *tmp)
{
    const size_t m = st->pat.n;
    if (m == 0)
        return;
    tmp->n = 0;
    for (size_t i = 0; i < a->n;) {
        if (a->n - i >= m && a->p[i] == st->pat.p[0] && memcmp(a->p + i, st->pat.p, m * sizeof *a->p) == 0) {
            nm_u32_append(tmp, st->to.p, st->to.n);
            i += m;
        } else {
            nm_u32_put(tmp, a->p[i++]);
        }
    }
    nm_u32_swap(a, tmp);
}

static noema_status replace_regex(const nm_step *st, nm_u32 *a, nm_u32 *tmp, noema_error *err)
{
    size_t at = 0, from = 0, b, e;
    long budget = 100000 + 200 * (long)a->n;
    int r;
    tmp->n = 0;
    while ((r = nm_regex_find(st->re, a->p, a->n, from, &b, &e, &budget)) == 1) {
        nm_u32_append(tmp, a->p + at, b - at);
        nm_u32_append(tmp, st->to.p, st->to.n);
        at = e;
        from = e > b ? e : e + 1;
        if (from > a->n)
            break;
    }
    if (r < 0)
        return nm_fail(err, NOEMA_E_LIMIT, "text of %zu characters: a regular expression takes too many steps", a->n);
    nm_u32_append(tmp, a->p + at, a->n - at);
    nm_u32_swap(a, tmp);
    return NOEMA_OK;
}

static void strip(const nm_step *st, nm_u32 *a)
{
    size_t i = 0, j = a->n;
    while (st->left && i < j && nm_is_white(a->p[i]))
        i++;
    while (st->right && j > i && nm_is_white(a->p[j - 1]))
        j--;
    if (i)
        memmove(a->p, a->p + i, (j - i) * sizeof *a->p);
    a->n = j - i;
}

static void nmt(nm_u32 *a)
{
    size_t k = 0;
    for (size_t i = 0; i < a->n; i++) {
        uint32_t c = a->p[i];
        if ((c >= 1 && c <= 8) || c == 0xB || (c >= 0xE && c <= 0x1F) || c == 0x7F || c == 0x8F || c == 0x9F)
            continue;
        bool space = c == 9 || c == 0xA || c == 0xC || c == 0xD || c == 0x1680 || (c >= 0x200B && c <= 0x200F) || c == 0x2028 ||
                     c == 0x2029 || c == 0x2581 || c == 0xFEFF || c == 0xFFFD;
        a->p[k++] = space ? ' ' : c;
    }
    a->n = k;
}

static void put_utf8(nm_u32 *out, const char *s)
{
    for (size_t n = strlen(s); n;) {
        uint32_t c;
        size_t k = (size_t)nm_utf8_decode(s, n, &c);
        nm_u32_put(out, c == UINT32_MAX ? 0xFFFD : c);
        s += k, n -= k;
    }
}

/* The Rust normaliser looks up whole grapheme clusters of fewer than six bytes, and by their shortest prefix in the table;
 * otherwise single code points. */
static void charsmap(const nm_step *st, nm_u32 *a, nm_u32 *tmp)
{
    tmp->n = 0;
    for (size_t i = 0; i < a->n;) {
        size_t j = i + 1, len = 0;
        utf8proc_int32_t state = 0;
        char buf[8];
        const char *to;
        while (j < a->n && !(a->p[j - 1] < 0x80 && a->p[j] < 0x80 && a->p[j] != '\n') &&
               !utf8proc_grapheme_break_stateful((utf8proc_int32_t)a->p[j - 1], (utf8proc_int32_t)a->p[j], &state))
            j++;
        for (size_t k = i; k < j && len < 6; k++) {
            char one[4];
            int m = nm_utf8_encode(a->p[k], one);
            for (int q = 0; q < m && len < 6; q++)
                buf[len++] = one[q];
        }
        if (len < 6 && nm_charsmap_find(&st->map, buf, len, true, &to)) {
            put_utf8(tmp, to);
            i = j;
            continue;
        }
        for (; i < j; i++) {
            len = (size_t)nm_utf8_encode(a->p[i], buf);
            if (nm_charsmap_find(&st->map, buf, len, true, &to))
                put_utf8(tmp, to);
            else
                nm_u32_put(tmp, a->p[i]);
        }
    }
    nm_u32_swap(a, tmp);
}

/* SentencePiece's own order: the longest prefix of what is left, across clusters. */
static void charsmap_longest(const nm_step *st, nm_u32 *a, nm_buf *text, nm_u32 *tmp)
{
    tmp->n = 0, text->len = 0;
    if (!nm_utf8_from_u32(text, a->p, a->n)) {
        a->failed = true;
        return;
    }
    for (size_t i = 0, k; i < text->len; i += k) {
        const char *to;
        uint32_t c;
        k = nm_charsmap_find(&st->map, text->data + i, text->len - i, false, &to);
        if (k) {
            put_utf8(tmp, to);
        } else {
            k = (size_t)nm_utf8_decode(text->data + i, text->len - i, &c);
            nm_u32_put(tmp, c);
        }
    }
    nm_u32_swap(a, tmp);
}

static void to_byte_chars(nm_u32 *a, nm_u32 *tmp)
{
    tmp->n = 0;
    for (size_t i = 0; i < a->n; i++) {
        char b[4];
        int n = nm_utf8_encode(a->p[i], b);
        for (int k = 0; k < n; k++)
            nm_u32_put(tmp, nm_byte_char((unsigned char)b[k]));
    }
    nm_u32_swap(a, tmp);
}

/* transformers' SiglipTokenizer.canonicalize_text: lower (when asked), no ASCII punctuation, single spaces. */
static void canonical(const nm_step *st, nm_u32 *a, nm_u32 *tmp)
{
    if (st->lower)
        nm_lower_full(a, tmp);
    nm_clean_punctuation(a, false);
    nm_clean_whitespace(a);
}

noema_status nm_pipe_normalize(const nm_tok_pipe *p, nm_tok_scratch *s, nm_u32 *a, noema_error *err)
{
    nm_u32 *tmp = &s->b;
    for (size_t k = 0; k < p->norm.n; k++) {
        const nm_step *st = &p->norm.p[k];
        noema_status r = NOEMA_OK;
        switch (st->type) {
        case NM_N_FORM: nm_text_norm(a, st->form, tmp); break;
        case NM_N_LOWER: nm_lower_per_char(a, tmp); break;
        case NM_N_MARKS: {
            size_t n = 0;
            for (size_t i = 0; i < a->n; i++)
                if (!(nm_cat(a->p[i]) & NM_CAT_M))
                    a->p[n++] = a->p[i];
            a->n = n;
            break;
        }
        case NM_N_BERT: bert(st, a, tmp); break;
        case NM_N_REPLACE:
            if (st->re)
                r = replace_regex(st, a, tmp, err);
            else
                replace_string(st, a, tmp);
            break;
        case NM_N_PREPEND:
            if (a->n) {
                tmp->n = 0;
                nm_u32_append(tmp, st->to.p, st->to.n);
                nm_u32_append(tmp, a->p, a->n);
                nm_u32_swap(a, tmp);
            }
            break;
        case NM_N_STRIP: strip(st, a); break;
        case NM_N_CHARSMAP:
            if (st->python)
                charsmap_longest(st, a, &s->word, tmp);
            else
                charsmap(st, a, tmp);
            break;
        case NM_N_NMT: nmt(a); break;
        case NM_N_BYTES: to_byte_chars(a, tmp); break;
        case NM_N_CANON: canonical(st, a, tmp); break;
        }
        if (r)
            return r;
        if (a->failed || tmp->failed)
            return nm_fail(err, NOEMA_E_MEMORY, "text: out of memory");
    }
    return NOEMA_OK;
}
