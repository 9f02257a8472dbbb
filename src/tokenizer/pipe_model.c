/* pipe_model.c - the models of tokenizer.json: one pre-tokenised word to ids. */
#include "base/utf8.h"
#include "tokenizer/pipe.h"

/* The id of character text[0..n) with BPE's prefix and suffix, or -1. */
static int32_t char_id(const nm_tok_pipe *p, nm_tok_scratch *s, const char *c, size_t n, bool first, bool last)
{
    if ((first || !*p->sub_prefix) && (!last || !*p->end_suffix))
        return nm_vocab_find(&p->vocab, c, n);
    s->text.len = 0;
    if (!first)
        nm_buf_puts(&s->text, p->sub_prefix);
    nm_buf_append(&s->text, c, n);
    if (last)
        nm_buf_puts(&s->text, p->end_suffix);
    return s->text.failed ? -1 : nm_vocab_find(&p->vocab, s->text.data, s->text.len);
}

static bool put_bytes(const nm_tok_pipe *p, const char *c, size_t n, int32_t *sym, size_t *k)
{
    for (size_t i = 0; i < n; i++)
        if (p->byte_piece[(unsigned char)c[i]] < 0)
            return false;
    for (size_t i = 0; i < n; i++)
        sym[(*k)++] = p->byte_piece[(unsigned char)c[i]];
    return true;
}

/* Symbols of a word; an unknown character waits, so that runs of them can become one. */
static size_t split_word(const nm_tok_pipe *p, nm_tok_scratch *s, const char *w, size_t n, int32_t *sym)
{
    size_t k = 0;
    bool unk = false;
    for (size_t i = 0; i < n;) {
        uint32_t c;
        size_t len = (size_t)nm_utf8_decode(w + i, n - i, &c);
        int32_t id = char_id(p, s, w + i, len, i == 0, i + len == n);
        if (id >= 0) {
            if (unk)
                sym[k++] = p->unk_id;
            unk = false;
            sym[k++] = id;
        } else if (p->byte_fallback && put_bytes(p, w + i, len, sym, &k)) {
            /* the reference leaves a waiting unknown where it is */
        } else if (p->unk_id >= 0) {
            if (unk && !p->fuse_unk)
                sym[k++] = p->unk_id;
            unk = true;
        }
        i += len;
    }
    if (unk)
        sym[k++] = p->unk_id;
    return k;
}

static noema_status bpe(const nm_tok_pipe *p, nm_tok_scratch *s, const char *w, size_t n, noema_error *err)
{
    int32_t id;
    if (p->ignore_merges && (id = nm_vocab_find(&p->vocab, w, n)) >= 0) {
        nm_tok_put(s, id);
        return NOEMA_OK;
    }
    int32_t *sym = nm_tok_symbols(s, 2 * n + 2);
    size_t k = sym ? nm_bpe_merge(&p->bpe, &s->work, sym, split_word(p, s, w, n, sym)) : SIZE_MAX;
    if (k == SIZE_MAX || !nm_tok_ids_reserve(s, k))
        return nm_fail(err, NOEMA_E_MEMORY, "word of %zu bytes: out of memory", n);
    memcpy(s->ids + s->n_ids, sym, k * sizeof *sym);
    s->n_ids += k;
    return NOEMA_OK;
}

/* Greedy longest match; a rest without match makes the whole word unknown. The longest entry bounds the search. */
static noema_status wordpiece(const nm_tok_pipe *p, nm_tok_scratch *s, const char *w, size_t n, noema_error *err)
{
    const size_t n_prefix = strlen(p->sub_prefix), first_id = s->n_ids;
    if (p->max_in_bytes ? n > p->max_word : n > p->max_word && nm_utf8_count(w, n) > p->max_word) {
        nm_tok_put(s, p->unk_id);
        return NOEMA_OK;
    }
    s->text.len = 0;
    if (!nm_buf_append(&s->text, p->sub_prefix, n_prefix) || !nm_buf_append(&s->text, w, n))
        return nm_fail(err, NOEMA_E_MEMORY, "word of %zu bytes: out of memory", n);
    for (size_t at = 0; at < n;) {
        char *from = s->text.data + at; /* "##" stands in front of what is left */
        const char *key = at ? from : w;
        const size_t extra = at ? n_prefix : 0;
        int32_t id = -1;
        size_t end = n;
        if (at)
            memcpy(from, p->sub_prefix, n_prefix);
        for (; end > at; end--) {
            if (end < n && ((unsigned char)w[end] & 0xC0) == 0x80)
                continue;
            id = nm_vocab_find(&p->vocab, key, end - at + extra);
            if (id >= 0)
                break;
        }
        if (id < 0) {
            s->n_ids = first_id;
            nm_tok_put(s, p->unk_id);
            return NOEMA_OK;
        }
        nm_tok_put(s, id);
        at = end;
    }
    return NOEMA_OK;
}

static noema_status unigram(const nm_tok_pipe *p, nm_tok_scratch *s, const char *w, size_t n, noema_error *err)
{
    nm_tok_piece *pc;
    size_t k;
    if (!nm_unigram_encode(&p->uni, s, w, n, &pc, &k))
        return nm_fail(err, NOEMA_E_MEMORY, "word of %zu bytes: out of memory", n);
    for (size_t i = 0; i < k; i++) {
        if (pc[i].id != p->unk_id) {
            nm_tok_put(s, pc[i].id);
            continue;
        }
        size_t j = i; /* a run of unknown characters is one token */
        while (j + 1 < k && pc[j + 1].id == p->unk_id)
            j++;
        uint32_t a = pc[i].start, b = pc[j].end;
        bool all = p->byte_fallback;
        for (uint32_t q = a; q < b && all; q++)
            all = p->byte_piece[(unsigned char)w[q]] >= 0;
        for (uint32_t q = a; q < b && all; q++)
            nm_tok_put(s, p->byte_piece[(unsigned char)w[q]]);
        if (!all) {
            int32_t id = nm_vocab_find(&p->vocab, w + a, b - a); /* a fused run may happen to be a piece */
            nm_tok_put(s, id >= 0 ? id : p->unk_id);
        }
        i = j;
    }
    return NOEMA_OK;
}

static noema_status model(const nm_tok_pipe *p, nm_tok_scratch *s, const char *w, size_t n, noema_error *err)
{
    int32_t id;
    switch (p->model) {
    case NM_M_BPE: return bpe(p, s, w, n, err);
    case NM_M_WORDPIECE: return wordpiece(p, s, w, n, err);
    case NM_M_UNIGRAM: return unigram(p, s, w, n, err);
    default:
        id = nm_vocab_find(&p->vocab, w, n);
        nm_tok_put(s, id >= 0 ? id : p->unk_id);
        return NOEMA_OK;
    }
}

noema_status nm_pipe_word(const nm_tok_pipe *p, nm_tok_scratch *s, const char *w, size_t n, noema_error *err)
{
    char key[NM_TOK_KEY];
    nm_tok_cached *e = n <= NM_TOK_KEY ? nm_tok_cache_at(s, w, n, key) : NULL;
    if (e && e->n_key == n && memcmp(e->key, key, NM_TOK_KEY) == 0) {
        if (!nm_tok_ids_reserve(s, NM_TOK_KEY_IDS))
            return nm_fail(err, NOEMA_E_MEMORY, "text: out of memory");
        memcpy(s->ids + s->n_ids, e->id, sizeof e->id);
        s->n_ids += e->n_ids;
        return NOEMA_OK;
    }
    size_t at = s->n_ids;
    noema_status st = model(p, s, w, n, err);
    if (!st && e && s->n_ids - at <= NM_TOK_KEY_IDS && !s->failed) {
        memcpy(e->key, key, NM_TOK_KEY);
        memcpy(e->id, s->ids + at, (s->n_ids - at) * sizeof *s->ids);
        e->n_key = (uint8_t)n, e->n_ids = (uint8_t)(s->n_ids - at);
    }
    return st;
}
