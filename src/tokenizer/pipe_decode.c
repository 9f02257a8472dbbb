/* pipe_decode.c - ids to text: token strings pass through the decoders as a list, then are joined. */
#include <stdlib.h>

#include "base/utf8.h"
#include "tokenizer/pipe.h"

/* The list: strings end to end in one buffer, `end` of each; a step writes the next list from the last. */
typedef struct list { nm_buf text; size_t *end; size_t n, cap; bool failed; } list;

static void close_item(list *l)
{
    if (l->n == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 64;
        size_t *p = nm_realloc_array(l->end, cap, sizeof *p);
        if (!p) {
            l->failed = true;
            return;
        }
        l->end = p, l->cap = cap;
    }
    l->end[l->n++] = l->text.len;
}

static const char *item(const list *l, size_t k, size_t *n)
{
    size_t a = k ? l->end[k - 1] : 0;
    *n = l->end[k] - a;
    return l->text.data + a;
}

static void replace(nm_buf *b, const char *s, size_t n, const char *from, const char *to)
{
    size_t m = strlen(from);
    for (size_t i = 0; i < n;) {
        if (m && n - i >= m && memcmp(s + i, from, m) == 0) {
            nm_buf_puts(b, to);
            i += m;
        } else {
            nm_buf_putc(b, s[i++]);
        }
    }
}

/* One string for the whole list: the bytes that the characters stand for; a token with other characters is taken as it is. */
static void d_bytes(const list *in, list *out)
{
    for (size_t k = 0; k < in->n; k++) {
        size_t n;
        const char *s = item(in, k, &n);
        bool ok = true;
        uint32_t c;
        for (size_t i = 0; i < n && ok;) {
            i += (size_t)nm_utf8_decode(s + i, n - i, &c);
            ok = nm_char_byte(c) >= 0;
        }
        if (!ok) {
            nm_buf_append(&out->text, s, n);
            continue;
        }
        for (size_t i = 0; i < n;) {
            i += (size_t)nm_utf8_decode(s + i, n - i, &c);
            nm_buf_putc(&out->text, (char)nm_char_byte(c));
        }
    }
    close_item(out);
}

/* English spacing: the Rust decoder does it per token and also says "don't", transformers once on the whole text. */
static void clean_up(nm_buf *a, nm_buf *b, bool per_token)
{
    static const char *const clean[][2] = { { " .", "." }, { " ?", "?" }, { " !", "!" }, { " ,", "," }, { " ' ", "'" },
                                            { " n't", "n't" }, { " 'm", "'m" }, { " do not", " don't" }, { " 's", "'s" },
                                            { " 've", "'ve" }, { " 're", "'re" } };
    for (size_t q = 0; q < sizeof clean / sizeof *clean; q++) {
        if (q == 7 && !per_token)
            continue;
        b->len = 0;
        nm_buf_reserve(b, 1);
        replace(b, a->data, a->len, clean[q][0], clean[q][1]);
        nm_buf t = *a;
        *a = *b, *b = t;
    }
}

static void d_wordpiece(const nm_step *st, const list *in, list *out)
{
    size_t np = strlen(st->text);
    nm_buf a = { 0 }, b = { 0 };
    for (size_t k = 0; k < in->n; k++) {
        size_t n;
        const char *s = item(in, k, &n);
        a.len = 0;
        if (k && n >= np && memcmp(s, st->text, np) == 0) {
            nm_buf_append(&a, s + np, n - np);
        } else {
            if (k)
                nm_buf_putc(&a, ' ');
            nm_buf_append(&a, s, n);
        }
        if (st->cleanup)
            clean_up(&a, &b, true);
        nm_buf_append(&out->text, a.data, a.len);
        close_item(out);
    }
    out->failed |= a.failed || b.failed;
    nm_buf_free(&a), nm_buf_free(&b);
}

static void d_meta(const nm_step *st, const list *in, list *out)
{
    char r[4];
    size_t nr = (size_t)nm_utf8_encode(st->ch, r);
    for (size_t k = 0; k < in->n; k++) {
        size_t n;
        const char *s = item(in, k, &n);
        for (size_t i = 0; i < n;) {
            if (n - i >= nr && memcmp(s + i, r, nr) == 0) {
                if (k || st->scheme == 0)
                    nm_buf_putc(&out->text, ' ');
                i += nr;
            } else {
                nm_buf_putc(&out->text, s[i++]);
            }
        }
        close_item(out);
    }
}

static void flush_bytes(nm_buf *bytes, list *out)
{
    if (!bytes->len)
        return;
    if (nm_utf8_valid(bytes->data, bytes->len)) {
        nm_buf_append(&out->text, bytes->data, bytes->len);
        close_item(out);
    } else {
        for (size_t i = 0; i < bytes->len; i++) {
            nm_buf_append(&out->text, "\xEF\xBF\xBD", 3);
            close_item(out);
        }
    }
    bytes->len = 0;
}

static void d_byte_fallback(const list *in, list *out)
{
    nm_buf bytes = { 0 };
    for (size_t k = 0; k < in->n; k++) {
        size_t n;
        const char *s = item(in, k, &n);
        int byte = nm_byte_piece(s, n);
        if (byte >= 0) {
            nm_buf_putc(&bytes, (char)byte);
            continue;
        }
        flush_bytes(&bytes, out);
        nm_buf_append(&out->text, s, n);
        close_item(out);
    }
    flush_bytes(&bytes, out);
    out->failed |= bytes.failed;
    nm_buf_free(&bytes);
}

static void d_strip(const nm_step *st, const char *s, size_t n, nm_buf *b)
{
    char r[4];
    size_t nr = (size_t)nm_utf8_encode(st->ch, r), a = 0;
    for (uint32_t k = 0; k < st->start && n - a >= nr && memcmp(s + a, r, nr) == 0; k++)
        a += nr;
    for (uint32_t k = 0; k < st->stop && n - a >= nr && memcmp(s + n - nr, r, nr) == 0; k++)
        n -= nr;
    nm_buf_append(b, s + a, n - a);
}

static void decode_step(const nm_step *st, const list *in, list *out)
{
    if (st->type == NM_D_BYTES || st->type == NM_D_FUSE) {
        if (st->type == NM_D_BYTES) {
            d_bytes(in, out);
        } else {
            nm_buf_append(&out->text, in->text.data ? in->text.data : "", in->text.len);
            close_item(out);
        }
        return;
    }
    if (st->type == NM_D_WORDPIECE) {
        d_wordpiece(st, in, out);
        return;
    }
    if (st->type == NM_D_META) {
        d_meta(st, in, out);
        return;
    }
    if (st->type == NM_D_BYTE_FALLBACK) {
        d_byte_fallback(in, out);
        return;
    }
    for (size_t k = 0; k < in->n; k++) {
        size_t n;
        const char *s = item(in, k, &n);
        if (st->type == NM_D_BPE)
            replace(&out->text, s, n, st->text, k + 1 == in->n ? "" : " ");
        else if (st->type == NM_D_STRIP)
            d_strip(st, s, n, &out->text);
        else
            replace(&out->text, s, n, st->text, st->text2);
        close_item(out);
    }
}

static bool is_special(const nm_tok_pipe *p, int32_t id)
{
    for (size_t k = 0; k < p->n_added; k++)
        if (p->added[k].id == id)
            return p->added[k].special;
    return false;
}

/* transformers' CLIPTokenizer: "</w>" as a space, then str.strip (of ASCII). */
static bool is_space(char c)
{
    return c == ' ' || (c >= 9 && c <= 13) || (c >= 0x1C && c <= 0x1F);
}

static void clip_spaces(nm_buf *b)
{
    nm_buf o = { 0 };
    nm_buf_reserve(&o, b->len + 1);
    replace(&o, b->data ? b->data : "", b->len, "</w>", " ");
    size_t i = 0, j = o.len;
    while (i < j && is_space(o.data[i]))
        i++;
    while (j > i && is_space(o.data[j - 1]))
        j--;
    b->len = 0;
    nm_buf_append(b, o.data + i, j - i);
    b->failed |= o.failed;
    nm_buf_free(&o);
}

noema_status nm_tok_pipe_decode(const nm_tokenizer *t, nm_tok_scratch *s, const int32_t *ids, size_t n, bool skip,
                                noema_error *err)
{
    const nm_tok_pipe *p = t->pipe;
    list a = { 0 }, b = { 0 };
    noema_status st = NOEMA_OK;
    for (size_t k = 0; k < n && !st; k++) {
        size_t len;
        const char *tok = nm_pipe_token(p, ids[k], &len);
        if (!tok)
            st = nm_fail(err, NOEMA_E_ARGUMENT, "id %d: expected a token of 0..%d", (int)ids[k], (int)p->max_id);
        else if (!skip || !is_special(p, ids[k])) {
            if (p->dec.n == 0 && a.n)
                nm_buf_putc(&a.text, ' ');
            nm_buf_append(&a.text, tok, len);
            close_item(&a);
        }
    }
    for (size_t k = 0; k < p->dec.n && !st; k++) {
        b.text.len = 0, b.n = 0;
        decode_step(&p->dec.p[k], &a, &b);
        list x = a;
        a = b, b = x;
    }
    s->text.len = 0;
    if (!st) {
        nm_buf_append(&s->text, a.text.data ? a.text.data : "", a.text.len);
        if (p->clip_decode)
            clip_spaces(&s->text);
        if (p->clean_text && nm_buf_reserve(&s->text, 1))
            clean_up(&s->text, &b.text, false);
        if (a.failed || b.failed || a.text.failed || b.text.failed || s->text.failed)
            st = nm_fail(err, NOEMA_E_MEMORY, "decoding %zu ids: out of memory", n);
    }
    nm_buf_free(&a.text), nm_buf_free(&b.text);
    free(a.end), free(b.end);
    return st;
}
