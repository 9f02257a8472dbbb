/* bpe.c - byte-pair merging. Words of up to SHORT symbols (nearly all) rescan an array of ranks; longer ones use a heap over
 * a linked list, so that a megabyte without a space still takes O(n log n). */
#include "tokenizer/bpe.h"

#include <stdlib.h>

enum { SHORT = 40 };
static const uint32_t NONE = UINT32_MAX;

/* Printable Latin-1 bytes stand for themselves, the other 68 for U+0100.. in byte order. */
uint32_t nm_byte_char(unsigned char b)
{
    if ((b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b != 0xAD))
        return b;
    if (b <= 0x20)
        return 0x100u + b;
    return b == 0xAD ? 0x143 : 0x121u + (b - 0x7Fu);
}

int nm_char_byte(uint32_t c)
{
    if ((c >= 0x21 && c <= 0x7E) || (c >= 0xA1 && c <= 0xFF && c != 0xAD))
        return (int)c;
    if (c >= 0x100 && c <= 0x120)
        return (int)(c - 0x100);
    if (c >= 0x121 && c <= 0x142)
        return (int)(c - 0x121 + 0x7F);
    return c == 0x143 ? 0xAD : -1;
}

unsigned char nm_byte_order(int id)
{
    if (id < 94)
        return (unsigned char)(0x21 + id);
    if (id < 106)
        return (unsigned char)(0xA1 + id - 94);
    if (id < 188)
        return (unsigned char)(0xAE + id - 106);
    return (unsigned char)nm_char_byte(0x100u + (uint32_t)id - 188);
}

bool nm_bpe_init(nm_bpe *b, uint32_t n_merges)
{
    uint32_t n = 64;
    if (n_merges > NM_VOCAB_LIMIT)
        return false;
    while (n < 2 * n_merges)
        n *= 2;
    b->pair = nm_malloc_array(n, sizeof *b->pair);
    if (!b->pair)
        return false;
    memset(b->pair, 0xFF, n * sizeof *b->pair);
    b->n_slots = n, b->n_pairs = 0;
    return true;
}

static inline uint32_t pair_slot(const nm_bpe *b, uint64_t key)
{
    uint64_t h = key * 0x9E3779B97F4A7C15u;
    return (uint32_t)(h ^ h >> 32) & (b->n_slots - 1);
}

bool nm_bpe_add(nm_bpe *b, int32_t left, int32_t right, uint32_t rank, int32_t id)
{
    uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    uint32_t i = pair_slot(b, key);
    while (b->pair[i].key != UINT64_MAX && b->pair[i].key != key)
        i = (i + 1) & (b->n_slots - 1);
    if (b->pair[i].key != key && ++b->n_pairs > b->n_slots / 4 * 3)
        return false;
    b->pair[i] = (struct nm_bpe_pair){ key, rank, id };
    return true;
}

void nm_bpe_free(nm_bpe *b)
{
    free(b->pair);
    *b = (nm_bpe){ 0 };
}

void nm_bpe_work_free(nm_bpe_work *w)
{
    free(w->node), free(w->heap), free(w->batch);
    *w = (nm_bpe_work){ 0 };
}

static inline uint32_t look_up(const nm_bpe *b, int32_t left, int32_t right, int32_t *id)
{
    uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    uint32_t i = pair_slot(b, key);
    for (; b->pair[i].key != UINT64_MAX; i = (i + 1) & (b->n_slots - 1))
        if (b->pair[i].key == key) {
            *id = b->pair[i].id;
            return b->pair[i].rank;
        }
    return NONE;
}

static size_t merge_short(const nm_bpe *b, int32_t *sym, size_t n)
{
    uint32_t rank[SHORT];
    int32_t to[SHORT];
    for (size_t i = 0; i + 1 < n; i++)
        rank[i] = look_up(b, sym[i], sym[i + 1], &to[i]);
    while (n > 1) {
        uint32_t best = NONE;
        size_t at = 0;
        for (size_t i = 0; i + 1 < n; i++)
            if (rank[i] < best)
                best = rank[i], at = i;
        if (best == NONE)
            break;
        size_t k = at, i = at;
        uint64_t dirty = 0; /* pairs with a new member */
        while (i < n) {     /* compact; with `all` every further occurrence too, never overlapping */
            bool hit = i + 1 < n && rank[i] == best && (i == at || b->all);
            sym[k] = hit ? to[i] : sym[i];
            if (hit)
                dirty |= 1ULL << k | (k ? 1ULL << (k - 1) : 0);
            else if (i + 1 < n)
                rank[k] = rank[i], to[k] = to[i];
            k++, i += hit ? 2 : 1;
        }
        n = k;
        for (i = at ? at - 1 : 0; i + 1 < n; i++)
            if (dirty >> i & 1)
                rank[i] = look_up(b, sym[i], sym[i + 1], &to[i]);
    }
    return n;
}

static inline bool before(struct nm_bpe_cand x, struct nm_bpe_cand y)
{
    return x.rank < y.rank || (x.rank == y.rank && x.pos < y.pos);
}

static void heap_push(nm_bpe_work *w, struct nm_bpe_cand c)
{
    size_t i = w->n_heap++;
    for (; i && before(c, w->heap[(i - 1) / 2]); i = (i - 1) / 2)
        w->heap[i] = w->heap[(i - 1) / 2];
    w->heap[i] = c;
}

static struct nm_bpe_cand heap_pop(nm_bpe_work *w)
{
    struct nm_bpe_cand top = w->heap[0], last = w->heap[--w->n_heap];
    size_t i = 0, n = w->n_heap;
    for (size_t k; (k = 2 * i + 1) < n; i = k) {
        if (k + 1 < n && before(w->heap[k + 1], w->heap[k]))
            k++;
        if (!before(w->heap[k], last))
            break;
        w->heap[i] = w->heap[k];
    }
    w->heap[i] = last;
    return top;
}

static void push_pair(const nm_bpe *b, nm_bpe_work *w, uint32_t i)
{
    int32_t id;
    if (i == NONE || w->node[i].next == NONE)
        return;
    uint32_t rank = look_up(b, w->node[i].id, w->node[w->node[i].next].id, &id);
    if (rank != NONE)
        heap_push(w, (struct nm_bpe_cand){ rank, i, id });
}

static bool still_there(const nm_bpe *b, const nm_bpe_work *w, struct nm_bpe_cand c)
{
    int32_t id;
    const struct nm_bpe_node *x = &w->node[c.pos];
    return x->id >= 0 && x->next != NONE && look_up(b, x->id, w->node[x->next].id, &id) == c.rank;
}

static void join(nm_bpe_work *w, struct nm_bpe_cand c)
{
    struct nm_bpe_node *x = &w->node[c.pos];
    uint32_t gone = x->next;
    x->id = c.id;
    x->next = w->node[gone].next;
    w->node[gone].id = -1;
    if (x->next != NONE)
        w->node[x->next].prev = c.pos;
}

/* Each join removes a node and pushes at most two pairs: the heap never holds more than 3n. */
static bool grow(nm_bpe_work *w, size_t n)
{
    if (n > w->node_cap) {
        void *p = nm_realloc_array(w->node, n, sizeof *w->node);
        if (!p)
            return false;
        w->node = p, w->node_cap = n;
    }
    if (n > w->batch_cap) {
        void *p = nm_realloc_array(w->batch, n, sizeof *w->batch);
        if (!p)
            return false;
        w->batch = p, w->batch_cap = n;
    }
    if (3 * n > w->heap_cap) {
        void *p = nm_realloc_array(w->heap, 3 * n, sizeof *w->heap);
        if (!p)
            return false;
        w->heap = p, w->heap_cap = 3 * n;
    }
    return true;
}

static size_t merge_long(const nm_bpe *b, nm_bpe_work *w, int32_t *sym, size_t n)
{
    if (n >= NONE / 4 || !grow(w, n))
        return SIZE_MAX;
    for (uint32_t i = 0; i < n; i++)
        w->node[i] = (struct nm_bpe_node){ sym[i], i ? i - 1 : NONE, i + 1 < n ? i + 1 : NONE };
    w->n_heap = 0;
    for (uint32_t i = 0; i + 1 < n; i++)
        push_pair(b, w, i);
    while (w->n_heap) {
        size_t n_batch = 0;
        struct nm_bpe_cand c = heap_pop(w);
        w->batch[n_batch++] = c;
        while (b->all && w->n_heap && w->heap[0].rank == c.rank && n_batch < n)
            w->batch[n_batch++] = heap_pop(w);
        size_t done = 0;
        for (size_t k = 0; k < n_batch; k++)
            if (still_there(b, w, w->batch[k])) {
                join(w, w->batch[k]);
                w->batch[done++] = w->batch[k];
            }
        for (size_t k = 0; k < done; k++) {
            push_pair(b, w, w->node[w->batch[k].pos].prev);
            push_pair(b, w, w->batch[k].pos);
        }
    }
    size_t k = 0;
    for (uint32_t i = 0; i != NONE; i = w->node[i].next)
        sym[k++] = w->node[i].id;
    return k;
}

size_t nm_bpe_merge(const nm_bpe *b, nm_bpe_work *w, int32_t *sym, size_t n)
{
    if (n < 2)
        return n;
    return n <= SHORT ? merge_short(b, sym, n) : merge_long(b, w, sym, n);
}
