/* vocab.c - see vocab.h: open addressing with linear probing, load at most one half. */
#include "tokenizer/vocab.h"

#include <stdlib.h>

static bool rehash(nm_vocab *v, uint32_t n_slots)
{
    uint32_t *slot = calloc(n_slots, sizeof *slot);
    if (!slot)
        return false;
    for (uint32_t k = 0; k < v->n_slots; k++) {
        if (!v->slot[k])
            continue;
        const struct nm_vocab_entry *e = &v->e[v->slot[k] - 1];
        uint32_t i = (uint32_t)nm_tok_hash(v->pool.data + e->off, e->len) & (n_slots - 1);
        while (slot[i])
            i = (i + 1) & (n_slots - 1);
        slot[i] = v->slot[k];
    }
    free(v->slot);
    v->slot = slot, v->n_slots = n_slots;
    return true;
}

bool nm_vocab_reserve(nm_vocab *v, uint32_t n)
{
    if (n > NM_VOCAB_LIMIT)
        return false;
    if (n > v->cap) {
        uint32_t cap = v->cap * 2 > n ? v->cap * 2 : n;
        void *e = nm_realloc_array(v->e, cap, sizeof *v->e);
        if (!e)
            return false;
        v->e = e, v->cap = cap;
    }
    uint32_t want = 64;
    while (want < 2 * n)
        want *= 2;
    return want <= v->n_slots || rehash(v, want);
}

static uint32_t find_slot(const nm_vocab *v, const char *s, size_t n)
{
    uint32_t i = (uint32_t)nm_tok_hash(s, n) & (v->n_slots - 1);
    for (; v->slot[i]; i = (i + 1) & (v->n_slots - 1)) {
        const struct nm_vocab_entry *e = &v->e[v->slot[i] - 1];
        if (e->len == n && memcmp(v->pool.data + e->off, s, n) == 0)
            break;
    }
    return i;
}

bool nm_vocab_set(nm_vocab *v, uint32_t id, const char *s, size_t n)
{
    uint32_t top = id + 1 > v->n_strings + 1 ? id + 1 : v->n_strings + 1;
    if (id >= NM_VOCAB_LIMIT || n > UINT32_MAX / 2 || v->pool.len > UINT32_MAX / 2 || !nm_vocab_reserve(v, top))
        return false;
    while (v->n <= id)
        v->e[v->n++] = (struct nm_vocab_entry){ UINT32_MAX, 0 };
    uint32_t off = (uint32_t)v->pool.len;
    if (!nm_buf_append(&v->pool, s, n))
        return false;
    /* an id that is set again: its old string must not be found through it any more */
    if (v->e[id].off != UINT32_MAX) {
        struct nm_vocab_entry old = v->e[id];
        uint32_t k = find_slot(v, v->pool.data + old.off, old.len);
        if (v->slot[k] == id + 1 && !(old.len == n && memcmp(v->pool.data + old.off, v->pool.data + off, n) == 0))
            return false; /* no format does this */
    }
    v->e[id] = (struct nm_vocab_entry){ off, (uint32_t)n };
    uint32_t k = find_slot(v, v->pool.data + off, n);
    v->n_strings += !v->slot[k];
    v->slot[k] = id + 1;
    return true;
}

int32_t nm_vocab_find(const nm_vocab *v, const char *s, size_t n)
{
    return v->n_slots ? (int32_t)v->slot[find_slot(v, s, n)] - 1 : -1;
}

void nm_vocab_free(nm_vocab *v)
{
    nm_buf_free(&v->pool);
    free(v->e);
    free(v->slot);
    *v = (nm_vocab){ 0 };
}
