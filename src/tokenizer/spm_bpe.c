/* spm_bpe.c - SentencePiece's BPE: neighbours whose joined string is a piece are merged, best score first, leftmost first
 * among equals; user-defined symbols are never merged; pieces marked unused are taken apart again at the end. */
#include <stdlib.h>

#include "base/utf8.h"
#include "tokenizer/spm.h"

static const uint32_t NONE = UINT32_MAX;

typedef struct node { uint32_t at, len, prev, next; } node; /* bytes [at, at+len); len 0: gone */
typedef struct cand { float score; uint32_t left, right, len; } cand;

typedef struct agenda {
    const nm_tok_spm *m;
    const char *text;
    node *node;
    bool *frozen;
    cand *heap;
    size_t n_heap;
} agenda;

static bool before(const cand *x, const cand *y)
{
    return x->score > y->score || (x->score == y->score && x->left < y->left);
}

static void push(agenda *a, cand c)
{
    size_t i = a->n_heap++;
    for (; i && before(&c, &a->heap[(i - 1) / 2]); i = (i - 1) / 2)
        a->heap[i] = a->heap[(i - 1) / 2];
    a->heap[i] = c;
}

static cand pop(agenda *a)
{
    cand top = a->heap[0], last = a->heap[--a->n_heap];
    size_t i = 0;
    for (size_t k; (k = 2 * i + 1) < a->n_heap; i = k) {
        if (k + 1 < a->n_heap && before(&a->heap[k + 1], &a->heap[k]))
            k++;
        if (!before(&a->heap[k], &last))
            break;
        a->heap[i] = a->heap[k];
    }
    a->heap[i] = last;
    return top;
}

static void offer(agenda *a, uint32_t left, uint32_t right)
{
    if (left == NONE || right == NONE || a->frozen[left] || a->frozen[right])
        return;
    uint32_t len = a->node[left].len + a->node[right].len;
    if (len > 4096) /* longer than any piece */
        return;
    int32_t id = nm_vocab_find(&a->m->vocab, a->text + a->node[left].at, len);
    if (id >= 0)
        push(a, (cand){ a->m->score[id], left, right, len });
}

static void emit(const nm_tok_spm *m, nm_tok_scratch *s, const char *p, size_t n, bool *after_unk)
{
    int32_t id = nm_spm_find(m, p, n);
    if (id == m->unk_id) {
        nm_spm_put_unknown(m, s, p, n, after_unk);
        return;
    }
    nm_tok_put(s, id);
    *after_unk = false;
}

static size_t split(agenda *a, const char *text, size_t n)
{
    size_t k = 0;
    for (size_t i = 0; i < n; k++) {
        int32_t id;
        uint32_t c;
        size_t len = nm_trie_longest(&a->m->user, text + i, n - i, &id);
        a->frozen[k] = len > 0;
        if (!len)
            len = (size_t)nm_utf8_decode(text + i, n - i, &c);
        a->node[k] = (node){ (uint32_t)i, (uint32_t)len, k ? (uint32_t)k - 1 : NONE, (uint32_t)k + 1 };
        i += len;
    }
    if (k)
        a->node[k - 1].next = NONE;
    return k;
}

/* A piece marked unused is replaced by the two parts that made it: the split with the best worst score (SentencePiece
 * remembers the pair; both agree unless a vocabulary was cut down by hand). */
static void resegment(const nm_tok_spm *m, nm_tok_scratch *s, const char *p, size_t n, bool *after_unk, int depth)
{
    int32_t id = nm_vocab_find(&m->vocab, p, n);
    if (id >= 0 && m->type[id] == NM_SPM_UNUSED && depth < 64) {
        float best = -3.4e38f;
        size_t at = 0;
        for (size_t i = 1; i < n; i++) {
            int32_t l = nm_vocab_find(&m->vocab, p, i), r = nm_vocab_find(&m->vocab, p + i, n - i);
            bool edge = ((unsigned char)p[i] & 0xC0) != 0x80;
            float worst = l >= 0 && r >= 0 ? (m->score[l] < m->score[r] ? m->score[l] : m->score[r]) : -3.4e38f;
            if (edge && l >= 0 && r >= 0 && worst > best)
                best = worst, at = i;
        }
        if (at) {
            resegment(m, s, p, at, after_unk, depth + 1);
            resegment(m, s, p + at, n - at, after_unk, depth + 1);
            return;
        }
    }
    emit(m, s, p, n, after_unk);
}

bool nm_spm_bpe(const nm_tok_spm *m, nm_tok_scratch *s, const char *text, size_t n)
{
    size_t bytes, per = sizeof(node) + 3 * sizeof(cand) + sizeof(bool);
    if (n == 0)
        return true;
    if (n >= NONE / 64 || !nm_mul_size(n, per, &bytes))
        return false;
    if (bytes > s->cap_lattice) {
        void *p = realloc(s->lattice, bytes);
        if (!p)
            return false;
        s->lattice = p, s->cap_lattice = bytes;
    }
    agenda a = { .m = m, .text = text, .node = s->lattice };
    a.heap = (cand *)(void *)(a.node + n);
    a.frozen = (bool *)(void *)(a.heap + 3 * n);
    size_t k = split(&a, text, n);
    for (uint32_t i = 1; i < k; i++)
        offer(&a, i - 1, i);
    while (a.n_heap) {
        cand c = pop(&a);
        node *l = &a.node[c.left], *r = &a.node[c.right];
        if (!l->len || !r->len || l->len + r->len != c.len || l->next != c.right)
            continue;
        l->len = c.len, l->next = r->next, r->len = 0;
        if (l->next != NONE)
            a.node[l->next].prev = c.left;
        offer(&a, l->prev, c.left);
        offer(&a, c.left, l->next);
    }
    bool after_unk = false;
    for (uint32_t i = 0; i != NONE; i = a.node[i].next)
        resegment(m, s, text + a.node[i].at, a.node[i].len, &after_unk, 0);
    return true;
}
