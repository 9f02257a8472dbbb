/* vocab.h - the strings of a vocabulary and a hash index over them. Immutable once built. */
#ifndef NM_TOK_VOCAB_H
#define NM_TOK_VOCAB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/mem.h"

enum { NM_VOCAB_LIMIT = 8 << 20 }; /* entries; the largest published vocabularies have about 300,000 */

/* id -> bytes; ids may have gaps (off == UINT32_MAX). When a string has several ids, the index finds the one that was
 * set last, as Python dictionaries do. */
typedef struct nm_vocab {
    nm_buf pool;
    struct nm_vocab_entry { uint32_t off, len; } *e;
    uint32_t n, cap;   /* n: largest id + 1 */
    uint32_t *slot;    /* id + 1, 0: free */
    uint32_t n_slots;  /* power of two */
    uint32_t n_strings;
} nm_vocab;

bool nm_vocab_reserve(nm_vocab *v, uint32_t n);
bool nm_vocab_set(nm_vocab *v, uint32_t id, const char *s, size_t n); /* false: out of memory, or id over the limit */
int32_t nm_vocab_find(const nm_vocab *v, const char *s, size_t n);    /* -1: not there */
void nm_vocab_free(nm_vocab *v);

static inline bool nm_vocab_has(const nm_vocab *v, int64_t id)
{
    return id >= 0 && id < v->n && v->e[id].off != UINT32_MAX;
}
static inline const char *nm_vocab_str(const nm_vocab *v, int32_t id, size_t *n)
{
    *n = v->e[id].len;
    return v->pool.data + v->e[id].off;
}

/* The byte that a piece "<0xXX>" stands for, or -1. */
static inline int nm_byte_piece(const char *s, size_t n)
{
    int v = 0;
    if (n != 6 || memcmp(s, "<0x", 3) != 0 || s[5] != '>')
        return -1;
    for (int k = 3; k < 5; k++) {
        unsigned d = (unsigned)(unsigned char)s[k] - '0', a = ((unsigned)(unsigned char)s[k] | 32) - 'a';
        if (d > 9 && a > 5)
            return -1;
        v = v * 16 + (int)(d <= 9 ? d : a + 10);
    }
    return v;
}

/* Short keys: multiply-fold over 8-byte words, the tail assembled without reading past the end. */
static inline uint64_t nm_tok_hash(const char *s, size_t n)
{
    uint64_t h = 0x9E3779B97F4A7C15u ^ (uint64_t)n, w;
    while (n >= 8) {
        memcpy(&w, s, 8);
        h = (h ^ w) * 0xD6E8FEB86659FD93u;
        h ^= h >> 32;
        s += 8, n -= 8;
    }
    if (n) {
        w = 0;
        for (size_t i = 0; i < n; i++)
            w |= (uint64_t)(unsigned char)s[i] << 8 * i;
        h = (h ^ w) * 0xD6E8FEB86659FD93u;
        h ^= h >> 32;
    }
    return h * 0xD6E8FEB86659FD93u ^ h >> 29;
}

#endif
