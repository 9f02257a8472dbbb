/* pipe_pre.c - pre-tokenisers: each cuts every span of the text further; ByteLevel and Metaspace also rewrite it. */
#include <stdlib.h>

#include "base/utf8.h"
#include "tokenizer/pipe.h"

typedef struct nm_tok_span span;

static bool push(span **list, size_t *n, size_t *cap, span x)
{
    if (*n == *cap) {
        size_t c = *cap ? *cap * 2 : 256;
        span *q = nm_realloc_array(*list, c, sizeof *q);
        if (!q)
            return false;
        *list = q, *cap = c;
    }
    (*list)[(*n)++] = x;
    return true;
}

/* A list of alternating matches and gaps for one span, then the behaviour that turns it into new spans. */
static bool add(nm_tok_scratch *s, size_t a, size_t b, bool match)
{
    if (a == b)
        return true;
    return push(&s->span2, &s->n_span2, &s->cap_span2, (span){ (uint32_t)a, (uint32_t)b, match, false });
}

static size_t behave(span *m, size_t n, int behavior)
{
    size_t k = 0;
    switch (behavior) {
    case NM_REMOVED:
        for (size_t i = 0; i < n; i++)
            if (!m[i].match)
                m[k++] = m[i];
        return k;
    case NM_CONTIGUOUS:
        for (size_t i = 0; i < n; i++) {
            if (k && m[k - 1].match == m[i].match)
                m[k - 1].end = m[i].end;
            else
                m[k++] = m[i];
        }
        return k;
    case NM_MERGED_PREV: {
        bool before = false;
        for (size_t i = 0; i < n; i++) {
            bool match = m[i].match;
            if (match && !before && k)
                m[k - 1].end = m[i].end;
            else
                m[k++] = m[i];
            before = match;
        }
        return k;
    }
    case NM_MERGED_NEXT: {
        bool after = false;
        k = n;
        for (size_t i = n; i-- > 0;) {
            bool match = m[i].match;
            if (match && !after && k < n)
                m[k].start = m[i].start;
            else
                m[--k] = m[i];
            after = match;
        }
        memmove(m, m + k, (n - k) * sizeof *m);
        return n - k;
    }
    default: return n;
    }
}

typedef bool (*char_test)(const nm_step *st, uint32_t c);
static bool is_white(const nm_step *st, uint32_t c) { (void)st; return nm_is_white(c); }
static bool is_punct(const nm_step *st, uint32_t c) { (void)st; return nm_is_bert_punct(c); }
static bool is_number(const nm_step *st, uint32_t c) { (void)st; return (nm_cat(c) & NM_CAT_N) != 0; }
static bool is_char(const nm_step *st, uint32_t c) { return c == st->ch; }

static bool by_char(nm_tok_scratch *s, span x, const nm_step *st, char_test test)
{
    size_t at = x.start;
    for (size_t i = x.start; i < x.end; i++)
        if (test(st, s->a.p[i])) {
            if (!add(s, at, i, false) || !add(s, i, i + 1, true))
                return false;
            at = i + 1;
        }
    return add(s, at, x.end, false);
}

/* \w+|[^\w\s]+ */
static bool by_word(nm_tok_scratch *s, span x)
{
    for (size_t i = x.start, j; i < x.end; i = j) {
        uint32_t c = s->a.p[i];
        j = i + 1;
        if (nm_is_white(c))
            continue;
        bool word = nm_is_word_char(c);
        while (j < x.end && !nm_is_white(s->a.p[j]) && nm_is_word_char(s->a.p[j]) == word)
            j++;
        if (!add(s, i, j, false))
            return false;
    }
    return true;
}

/* 0 other, 1 letter, 2 number, 3 white space */
static int kind_of(uint32_t c)
{
    if (c < 0x80) {
        if ((c | 32) - 'a' < 26u)
            return 1;
        return c - '0' < 10u ? 2 : c == ' ' || (c >= 9 && c <= 13) ? 3 : 0;
    }
    if (nm_is_white(c))
        return 3;
    uint32_t m = nm_cat(c);
    return m & NM_CAT_L ? 1 : m & NM_CAT_N ? 2 : 0;
}

static size_t contraction(const uint32_t *p, size_t n)
{
    if (n < 2 || p[0] != '\'')
        return 0;
    if (p[1] == 's' || p[1] == 't' || p[1] == 'm' || p[1] == 'd')
        return 2;
    if (n >= 3 && ((p[1] == 'r' && p[2] == 'e') || (p[1] == 'v' && p[2] == 'e') || (p[1] == 'l' && p[2] == 'l')))
        return 3;
    return 0;
}

/* 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+ : covers the whole text. */
static bool by_gpt2(nm_tok_scratch *s, span x)
{
    const uint32_t *p = s->a.p;
    for (size_t i = x.start, j; i < x.end; i = j) {
        j = i + contraction(p + i, x.end - i);
        if (j > i) {
            if (!add(s, i, j, true))
                return false;
            continue;
        }
        size_t k = i + (p[i] == ' ' && i + 1 < x.end);
        int kind = kind_of(p[k]);
        if (kind != 3) {
            for (j = k + 1; j < x.end && kind_of(p[j]) == kind; j++)
                ;
        } else { /* all white space but the last, unless it is alone or ends the text */
            for (j = i; j < x.end && kind_of(p[j]) == 3; j++)
                ;
            if (j < x.end && j - i > 1)
                j--;
        }
        if (!add(s, i, j, true))
            return false;
    }
    return true;
}

static size_t clip_special(const uint32_t *p, size_t n)
{
    static const char *const sp[] = { "<|startoftext|>", "<|endoftext|>" };
    for (int k = 0; k < 2; k++) {
        size_t len = strlen(sp[k]), i = 0;
        while (i < len && i < n && p[i] == (unsigned char)sp[k][i])
            i++;
        if (i == len)
            return len;
    }
    return 0;
}

/* CLIP's pattern in the Hugging Face form (case-sensitive); white space is no match. */
static bool by_clip(nm_tok_scratch *s, span x)
{
    const uint32_t *p = s->a.p;
    size_t gap = x.start;
    for (size_t i = x.start, j; i < x.end; i = j) {
        int kind = kind_of(p[i]);
        j = i + 1;
        if (kind == 3)
            continue;
        size_t m = p[i] == '<' ? clip_special(p + i, x.end - i) : p[i] == '\'' ? contraction(p + i, x.end - i) : 0;
        if (m)
            j = i + m;
        else if (kind != 2)
            while (j < x.end && kind_of(p[j]) == kind)
                j++;
        if (!add(s, gap, i, false) || !add(s, i, j, true))
            return false;
        gap = j;
    }
    return add(s, gap, x.end, false);
}

int nm_fast_pattern(const char *pattern, size_t n)
{
    static const struct { int fast; const char *s; } known[] = {
        { NM_FAST_CLIP, "<\\|startoftext\\|>|<\\|endoftext\\|>|'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+" },
        { NM_FAST_GPT2, "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+" },
    };
    for (size_t k = 0; k < sizeof known / sizeof *known; k++)
        if (strlen(known[k].s) == n && memcmp(known[k].s, pattern, n) == 0)
            return known[k].fast;
    return NM_FAST_NONE;
}

static int by_pattern(nm_tok_scratch *s, span x, const nm_step *st, long *budget)
{
    const uint32_t *p = s->a.p + x.start;
    size_t n = x.end - x.start, at = 0, from = 0, b, e;
    int r = 0;
    if (st->fast == NM_FAST_GPT2)
        return by_gpt2(s, x) ? 0 : -2;
    if (st->fast == NM_FAST_CLIP)
        return by_clip(s, x) ? 0 : -2;
    while (from <= n) {
        if (st->re) {
            r = nm_regex_find(st->re, p, n, from, &b, &e, budget);
            if (r < 1)
                break;
        } else {
            for (b = from; b + st->pat.n <= n && memcmp(p + b, st->pat.p, st->pat.n * sizeof *p) != 0; b++)
                ;
            if (b + st->pat.n > n || st->pat.n == 0)
                break;
            e = b + st->pat.n;
        }
        if (!add(s, x.start + at, x.start + b, false) || !add(s, x.start + b, x.start + e, true))
            return -2;
        at = e;
        from = e > b ? e : e + 1;
    }
    return r < 0 ? -1 : add(s, x.start + at, x.end, false) ? 0 : -2;
}

/* One span to the matches in span2. 0, -1: too many steps, -2: memory. */
static int cut(nm_tok_scratch *s, span x, const nm_step *st, long *budget)
{
    switch (st->type) {
    case NM_P_WORDS: return by_word(s, x) ? 0 : -2;
    case NM_P_WHITE:
    case NM_P_BERT: return by_char(s, x, st, is_white) ? 0 : -2;
    case NM_P_DIGITS: return by_char(s, x, st, is_number) ? 0 : -2;
    case NM_P_PUNCT: return by_char(s, x, st, is_punct) ? 0 : -2;
    case NM_P_META:
    case NM_P_CHAR: return by_char(s, x, st, is_char) ? 0 : -2;
    case NM_P_BYTES: return by_gpt2(s, x) ? 0 : -2;
    default: return by_pattern(s, x, st, budget);
    }
}

static int behavior_of(const nm_step *st)
{
    switch (st->type) {
    case NM_P_WHITE:
    case NM_P_BERT:
    case NM_P_CHAR: return NM_REMOVED;
    case NM_P_DIGITS: return st->individual ? NM_ISOLATED : NM_CONTIGUOUS;
    case NM_P_META: return NM_MERGED_NEXT;
    case NM_P_WORDS:
    case NM_P_BYTES: return NM_ISOLATED;
    default: return st->behavior;
    }
}

static noema_status cut_all(nm_tok_scratch *s, const nm_step *st, noema_error *err)
{
    size_t n_old = s->n_span;
    long budget = 200000 + 400 * (long)s->a.n;
    /* the new list is built behind the old one, then moved to the front */
    for (size_t k = 0; k < n_old; k++) {
        span x = s->span[k];
        s->n_span2 = 0;
        int r = cut(s, x, st, &budget);
        if (r == -1)
            return nm_fail(err, NOEMA_E_LIMIT, "text of %zu characters: a regular expression takes too many steps", s->a.n);
        for (size_t i = 0; st->invert && i < s->n_span2; i++)
            s->span2[i].match = !s->span2[i].match;
        size_t n = r ? 0 : behave(s->span2, s->n_span2, behavior_of(st));
        for (size_t i = 0; i < n; i++) {
            span y = s->span2[i];
            y.first = x.first && y.start == x.start;
            if (!push(&s->span, &s->n_span, &s->cap_span, y))
                r = -2;
        }
        if (r)
            return nm_fail(err, NOEMA_E_MEMORY, "text: out of memory");
    }
    memmove(s->span, s->span + n_old, (s->n_span - n_old) * sizeof *s->span);
    s->n_span -= n_old;
    return NOEMA_OK;
}

/* Metaspace: every space becomes the replacement, and one is put in front. */
static void rewrite_meta(nm_tok_scratch *s, const nm_step *st)
{
    nm_u32 *o = &s->b;
    o->n = 0;
    for (size_t k = 0; k < s->n_span; k++) {
        span *x = &s->span[k];
        size_t at = o->n;
        uint32_t c0 = s->a.p[x->start];
        if ((c0 != ' ' && c0 != st->ch) && (st->scheme == 2 || (st->scheme == 1 && x->first)))
            nm_u32_put(o, st->ch);
        for (size_t i = x->start; i < x->end; i++)
            nm_u32_put(o, s->a.p[i] == ' ' ? st->ch : s->a.p[i]);
        x->start = (uint32_t)at, x->end = (uint32_t)o->n;
    }
    nm_u32_swap(&s->a, o);
}

static void add_prefix_space(nm_tok_scratch *s)
{
    nm_u32 *o = &s->b;
    o->n = 0;
    for (size_t k = 0; k < s->n_span; k++) {
        span *x = &s->span[k];
        size_t at = o->n;
        if (s->a.p[x->start] != ' ')
            nm_u32_put(o, ' ');
        nm_u32_append(o, s->a.p + x->start, x->end - x->start);
        x->start = (uint32_t)at, x->end = (uint32_t)o->n;
    }
    nm_u32_swap(&s->a, o);
}

static void rewrite_bytes(nm_tok_scratch *s)
{
    nm_u32 *o = &s->b;
    o->n = 0;
    for (size_t k = 0; k < s->n_span; k++) {
        span *x = &s->span[k];
        size_t at = o->n;
        for (size_t i = x->start; i < x->end; i++) {
            uint32_t c = s->a.p[i];
            char b[4];
            if (c >= 0x21 && c < 0x7F) {
                nm_u32_put(o, c);
                continue;
            }
            int n = nm_utf8_encode(c, b);
            for (int q = 0; q < n; q++)
                nm_u32_put(o, nm_byte_char((unsigned char)b[q]));
        }
        x->start = (uint32_t)at, x->end = (uint32_t)o->n;
    }
    nm_u32_swap(&s->a, o);
}

noema_status nm_pipe_split(const nm_tok_pipe *p, nm_tok_scratch *s, bool first, noema_error *err)
{
    s->n_span = 0;
    if (s->a.n == 0)
        return NOEMA_OK;
    if (s->a.n > UINT32_MAX / 8)
        return nm_fail(err, NOEMA_E_LIMIT, "text of %zu characters: too long", s->a.n);
    if (!push(&s->span, &s->n_span, &s->cap_span, (span){ 0, (uint32_t)s->a.n, false, first }))
        return nm_fail(err, NOEMA_E_MEMORY, "text: out of memory");
    for (size_t k = 0; k < p->pre.n; k++) {
        const nm_step *st = &p->pre.p[k];
        noema_status r = NOEMA_OK;
        if (st->type == NM_P_BYTES && st->prefix_space)
            add_prefix_space(s);
        if (st->type == NM_P_META)
            rewrite_meta(s, st);
        if (!(st->type == NM_P_BYTES && !st->use_regex) && !(st->type == NM_P_META && !st->split))
            r = cut_all(s, st, err);
        if (!r && st->type == NM_P_BERT) {
            const nm_step punct = { .type = NM_P_PUNCT, .behavior = NM_ISOLATED };
            r = cut_all(s, &punct, err);
        }
        if (r)
            return r;
        if (st->type == NM_P_BYTES)
            rewrite_bytes(s);
        if (s->a.failed || s->b.failed)
            return nm_fail(err, NOEMA_E_MEMORY, "text: out of memory");
    }
    return NOEMA_OK;
}
