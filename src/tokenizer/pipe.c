/* pipe.c - encoding with a pipeline: added tokens are found first (in the raw text, then in the normalised text between
 * them), the rest is normalised, split and given to the model; then the cut and the template. */
#include "tokenizer/pipe.h"

#include <stdlib.h>
#include <utf8proc.h>

#include "base/utf8.h"

/* White space before `end` / from `at`, in bytes; the code points are decoded forwards only where it is cheap. */
static size_t space_before(const char *t, size_t floor, size_t end)
{
    while (end > floor) {
        size_t k = end - 1;
        while (k > floor && ((unsigned char)t[k] & 0xC0) == 0x80)
            k--;
        uint32_t c;
        nm_utf8_decode(t + k, end - k, &c);
        if (!nm_is_white(c))
            break;
        end = k;
    }
    return end;
}

static size_t space_after(const char *t, size_t at, size_t n)
{
    while (at < n) {
        uint32_t c;
        size_t k = (size_t)nm_utf8_decode(t + at, n - at, &c);
        if (!nm_is_white(c))
            break;
        at += k;
    }
    return at;
}

static bool word_at(const char *t, size_t n, size_t at, bool before)
{
    uint32_t c;
    if (before) {
        if (at == 0)
            return false;
        size_t k = at - 1;
        while (k > 0 && ((unsigned char)t[k] & 0xC0) == 0x80)
            k--;
        nm_utf8_decode(t + k, at - k, &c);
        return nm_is_word_char(c);
    }
    if (at >= n)
        return false;
    nm_utf8_decode(t + at, n - at, &c);
    return nm_is_word_char(c);
}

typedef struct hit { size_t start, end; int32_t id; } hit;

/* Next added token of the trie at or after `from`; gaps end at `floor` at the left. */
static bool next_token(const nm_tok_pipe *p, const nm_trie *trie, const char *t, size_t n, size_t from, hit *h)
{
    if (!trie->n_nodes)
        return false;
    for (size_t i = from; i < n; i++) {
        int32_t k;
        if (!trie->root[(unsigned char)t[i]])
            continue;
        size_t len = nm_trie_longest(trie, t + i, n - i, &k);
        if (!len)
            continue;
        const nm_added *a = &p->added[k];
        *h = (hit){ i, i + len, a->id };
        if (a->single_word && (word_at(t, n, i, true) || word_at(t, n, i + len, false))) {
            i += len - 1; /* the automaton goes on behind the match it refused */
            continue;
        }
        if (a->lstrip)
            h->start = space_before(t, from, i);
        if (a->rstrip)
            h->end = space_after(t, h->end, n);
        return true;
    }
    return false;
}

/* s->a is normalised text without added tokens. */
static noema_status words(const nm_tok_pipe *p, nm_tok_scratch *s, bool first, noema_error *err)
{
    noema_status st = nm_pipe_split(p, s, first, err);
    for (size_t k = 0; k < s->n_span && !st; k++) {
        s->word.len = 0;
        if (!nm_utf8_from_u32(&s->word, s->a.p + s->span[k].start, s->span[k].end - s->span[k].start))
            return nm_fail(err, NOEMA_E_MEMORY, "text: out of memory");
        st = nm_pipe_word(p, s, s->word.data, s->word.len, err);
    }
    return st;
}

static noema_status segment(const nm_tok_pipe *p, nm_tok_scratch *s, const char *t, size_t n, bool first, noema_error *err)
{
    noema_status st = nm_u32_from_utf8(&s->a, t, n, err);
    if (!st)
        st = nm_pipe_normalize(p, s, &s->a, err);
    if (st)
        return st;
    bool any = false;
    for (size_t i = 0; i < s->a.n && p->normal.n_nodes && !any; i++) {
        char b[4];
        nm_utf8_encode(s->a.p[i], b);
        any = p->normal.root[(unsigned char)b[0]] != 0;
    }
    if (!any)
        return words(p, s, first, err);
    s->out.len = 0; /* the normalised text as bytes, to look for tokens in it */
    if (!nm_utf8_from_u32(&s->out, s->a.p, s->a.n))
        return nm_fail(err, NOEMA_E_MEMORY, "text: out of memory");
    hit h;
    size_t at = 0;
    while (!st && next_token(p, &p->normal, s->out.data, s->out.len, at, &h)) {
        st = nm_u32_from_utf8(&s->a, s->out.data + at, h.start - at, err);
        if (!st)
            st = words(p, s, first && at == 0, err);
        nm_tok_put(s, h.id);
        at = h.end;
    }
    if (!st)
        st = nm_u32_from_utf8(&s->a, s->out.data + at, s->out.len - at, err);
    return st ? st : words(p, s, first && at == 0, err);
}

/* FLIP: TF-Text's BertTokenizer (specs: NFKC_Casefold, NFD without marks, controls as spaces, punctuation and CJK alone). */
static noema_status flip(const nm_tok_pipe *p, nm_tok_scratch *s, const char *t, size_t n, noema_error *err);

noema_status nm_tok_pipe_encode(const nm_tokenizer *t, nm_tok_scratch *s, const char *text, size_t n, noema_error *err)
{
    const nm_tok_pipe *p = t->pipe;
    noema_status st = NOEMA_OK;
    hit h;
    size_t at = 0;
    for (int k = 0; k < p->n_before; k++)
        nm_tok_put(s, p->before[k]);
    const size_t first = s->n_ids;
    if (p->flip) {
        st = flip(p, s, text, n, err);
    } else {
        while (!st && next_token(p, &p->raw, text, n, at, &h)) {
            if (h.start > at)
                st = segment(p, s, text + at, h.start - at, at == 0, err);
            nm_tok_put(s, h.id);
            at = h.end;
        }
        if (!st && at < n)
            st = segment(p, s, text + at, n - at, at == 0, err);
    }
    if (st)
        return st;
    size_t extra = (size_t)(p->n_before + p->n_after), limit = (size_t)t->context_length;
    s->full_length = s->n_ids + (size_t)p->n_after;
    if (limit && s->full_length > limit) {
        size_t keep = limit > extra ? limit - extra : 0;
        if (p->cut_left)
            memmove(s->ids + first, s->ids + s->n_ids - keep, keep * sizeof *s->ids);
        s->n_ids = first + keep;
    }
    for (int k = 0; k < p->n_after; k++)
        nm_tok_put(s, p->after[k]);
    return NOEMA_OK;
}

/* NFKC_Casefold per code point: compatibility decomposition, full case folding, ignorables dropped; utf8proc does all of
 * it in one decomposition. What follows is decomposed and stripped of marks anyway, so no composition is needed. */

static void fold(nm_u32 *a, nm_u32 *tmp)
{
    tmp->n = 0;
    for (size_t i = 0; i < a->n; i++) {
        if (!nm_u32_reserve(tmp, 64))
            return;
        utf8proc_ssize_t k = utf8proc_decompose_char((utf8proc_int32_t)a->p[i], (utf8proc_int32_t *)(tmp->p + tmp->n), 64,
                                                     UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT | UTF8PROC_CASEFOLD | UTF8PROC_IGNORE |
                                                         UTF8PROC_STABLE, NULL);
        tmp->n += k > 0 && k <= 64 ? (size_t)k : 0;
    }
    nm_u32_swap(a, tmp);
}

static noema_status flip(const nm_tok_pipe *p, nm_tok_scratch *s, const char *t, size_t n, noema_error *err)
{
    noema_status st = nm_u32_from_utf8(&s->a, t, n, err);
    if (st)
        return st;
    fold(&s->a, &s->b);
    nm_strip_marks(&s->a);
    for (size_t i = 0; i < s->a.n; i++)
        if ((s->a.p[i] < 0x20 || s->a.p[i] >= 0x7F) && nm_cat(s->a.p[i]) & (NM_CAT_CC | NM_CAT_CF))
            s->a.p[i] = ' ';
    if (s->a.failed || s->b.failed)
        return nm_fail(err, NOEMA_E_MEMORY, "text: out of memory");
    const uint32_t *q = s->a.p;
    for (size_t i = 0, j; i < s->a.n && !st; i = j) {
        j = i + 1;
        if (q[i] == ' ' || (q[i] >= 9 && q[i] <= 13))
            continue;
        if (!nm_is_bert_punct(q[i]) && !nm_is_cjk(q[i]))
            while (j < s->a.n && q[j] != ' ' && !(q[j] >= 9 && q[j] <= 13) && !nm_is_bert_punct(q[j]) && !nm_is_cjk(q[j]))
                j++;
        s->word.len = 0;
        if (!nm_utf8_from_u32(&s->word, q + i, j - i))
            return nm_fail(err, NOEMA_E_MEMORY, "text: out of memory");
        st = nm_pipe_word(p, s, s->word.data, s->word.len, err);
    }
    return st;
}
