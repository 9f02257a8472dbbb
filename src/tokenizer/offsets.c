/* offsets.c - BERT's tokens with the part of the text that each stands for. Every code point is normalised by itself (BERT's
 * normaliser never lets two of them interact, once marks are gone), so that the origin of each result is known. */
#include <stdlib.h>

#include "base/utf8.h"
#include "tokenizer/pipe.h"

static bool room(nm_tok_scratch *s, size_t ids, size_t chars)
{
    if (ids > s->cap_offset) {
        void *p = nm_realloc_array(s->offset, 2 * ids, sizeof *s->offset);
        if (!p)
            return false;
        s->offset = p, s->cap_offset = 2 * ids;
    }
    if (chars > s->cap_origin) {
        void *p = nm_realloc_array(s->origin, 2 * chars, sizeof *s->origin);
        if (!p)
            return false;
        s->origin = p, s->cap_origin = 2 * chars;
    }
    return true;
}

/* Offsets of the ids [first, n_ids) that word q[0..n) (origins from `origin`) became. */
static bool word_offsets(const nm_tok_pipe *p, nm_tok_scratch *s, size_t first, const uint32_t *origin, size_t n)
{
    size_t at = 0;
    if (!room(s, s->n_ids, 0))
        return false;
    for (size_t k = first; k < s->n_ids; k++) {
        size_t len, chars;
        const char *piece = nm_vocab_str(&p->vocab, s->ids[k], &len);
        chars = s->ids[k] == p->unk_id ? n : nm_utf8_count(piece, len) - (k > first ? strlen(p->sub_prefix) : 0);
        size_t end = at + chars < n ? at + chars : n;
        s->offset[k] = end > at ? (nm_tok_offset){ origin[at], origin[end - 1] + 1 } : (nm_tok_offset){ 0, 0 };
        at = end;
    }
    return true;
}

/* s->c[from, to) is text without added tokens; its code points are numbers from.. of the whole. */
static noema_status part(const nm_tok_pipe *p, nm_tok_scratch *s, size_t from, size_t to, noema_error *err)
{
    nm_u32 all = { 0 };
    noema_status st = NOEMA_OK;
    size_t n = 0;
    for (size_t i = from; i < to && !st; i++) {
        s->a.n = 0;
        nm_u32_put(&s->a, s->c.p[i]);
        st = nm_pipe_normalize(p, s, &s->a, err);
        if (!st && !room(s, 0, n + s->a.n + 1))
            st = nm_fail(err, NOEMA_E_MEMORY, "text: out of memory");
        for (size_t k = 0; k < s->a.n && !st; k++)
            s->origin[n++] = (uint32_t)i;
        nm_u32_append(&all, s->a.p, s->a.n);
    }
    for (size_t i = 0, j; i < n && !st && !all.failed; i = j) {
        j = i + 1;
        if (nm_is_white(all.p[i]))
            continue;
        if (!nm_is_bert_punct(all.p[i]))
            while (j < n && !nm_is_white(all.p[j]) && !nm_is_bert_punct(all.p[j]))
                j++;
        size_t first = s->n_ids;
        s->word.len = 0;
        if (!nm_utf8_from_u32(&s->word, all.p + i, j - i))
            st = nm_fail(err, NOEMA_E_MEMORY, "text: out of memory");
        if (!st)
            st = nm_pipe_word(p, s, s->word.data, s->word.len, err);
        if (!st && !word_offsets(p, s, first, s->origin + i, j - i))
            st = nm_fail(err, NOEMA_E_MEMORY, "text: out of memory");
    }
    if (all.failed && !st)
        st = nm_fail(err, NOEMA_E_MEMORY, "text: out of memory");
    nm_u32_free(&all);
    return st;
}

static bool put(nm_tok_scratch *s, int32_t id, size_t start, size_t end)
{
    nm_tok_put(s, id);
    if (s->failed || !room(s, s->n_ids, 0))
        return false;
    s->offset[s->n_ids - 1] = (nm_tok_offset){ (uint32_t)start, (uint32_t)end };
    return true;
}

/* Length in code points of the longest added token at p[0..n), 0: none. */
static size_t added_at(const nm_tok_pipe *p, const uint32_t *q, size_t n, int32_t *id)
{
    char buf[256];
    size_t len = 0, k;
    int32_t index;
    for (size_t i = 0; i < n && len + 4 <= sizeof buf; i++)
        len += (size_t)nm_utf8_encode(q[i], buf + len);
    k = nm_trie_longest(&p->raw, buf, len, &index);
    if (!k)
        return 0;
    *id = p->added[index].id;
    return nm_utf8_count(buf, k);
}

noema_status nm_tok_encode_offsets(const nm_tokenizer *t, nm_tok_scratch *s, const char *text, size_t n, const int32_t **ids,
                                   const nm_tok_offset **offsets, size_t *n_ids, noema_error *err)
{
    const nm_tok_pipe *p = t->pipe;
    if (s->owner != t)
        return nm_fail(err, NOEMA_E_ARGUMENT, "tokenizer %s: the scratch belongs to another tokenizer", t->name);
    if (!p || p->flip || p->model != NM_M_WORDPIECE || p->pre.n != 1 || p->pre.p[0].type != NM_P_BERT || p->norm.n != 1 ||
        p->norm.p[0].type != NM_N_BERT)
        return nm_fail(err, NOEMA_E_UNSUPPORTED, "tokenizer %s: offsets are known for BERT's tokenizer alone", t->name);
    if (n > NM_TOK_TEXT_LIMIT)
        return nm_fail(err, NOEMA_E_LIMIT, "text: expected at most %d bytes, got %zu", NM_TOK_TEXT_LIMIT, n);
    s->n_ids = 0, s->failed = false;
    noema_status st = nm_u32_from_utf8(&s->c, text, n, err);
    bool ok = true;
    size_t at = 0;
    for (int k = 0; k < p->n_before && ok; k++)
        ok = put(s, p->before[k], 0, 0);
    const size_t first = s->n_ids;
    for (size_t i = 0, m; i < s->c.n && !st && ok; i += m ? m : 1) {
        int32_t id;
        m = s->c.p[i] < 0x80 && p->raw.n_nodes && p->raw.root[s->c.p[i]] ? added_at(p, s->c.p + i, s->c.n - i, &id) : 0;
        if (m) {
            st = part(p, s, at, i, err);
            ok = put(s, id, i, i + m);
            at = i + m;
        }
    }
    if (!st && ok)
        st = part(p, s, at, s->c.n, err);
    if (st)
        return st;
    size_t extra = (size_t)(p->n_before + p->n_after), limit = (size_t)t->context_length;
    s->full_length = s->n_ids + (size_t)p->n_after;
    if (limit && s->full_length > limit)
        s->n_ids = first + (limit > extra ? limit - extra : 0);
    for (int k = 0; k < p->n_after && ok; k++)
        ok = put(s, p->after[k], 0, 0);
    if (!ok || s->failed)
        return nm_fail(err, NOEMA_E_MEMORY, "text of %zu bytes: out of memory", n);
    *ids = s->ids, *offsets = s->offset, *n_ids = s->n_ids;
    return NOEMA_OK;
}
