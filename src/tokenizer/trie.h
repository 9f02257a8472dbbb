/* trie.h - byte trie for longest and all-prefix matching: vocabulary pieces, user-defined symbols, added tokens. Built once
 * from sorted strings into a breadth-first array of nodes whose children are contiguous and sorted. */
#ifndef NM_TOK_TRIE_H
#define NM_TOK_TRIE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct nm_trie {
    struct nm_trie_node { uint32_t child; int32_t id; uint16_t n; uint8_t byte; } *node; /* id -1: no string ends here */
    uint32_t n_nodes;
    uint32_t root[256]; /* node of each first byte, 0: none */
} nm_trie;

typedef struct nm_trie_key { const char *s; uint32_t n; int32_t id; } nm_trie_key;

/* Sorts keys in place; of equal strings the last in the array wins; empty strings are ignored. */
bool nm_trie_build(nm_trie *t, nm_trie_key *keys, size_t n);
void nm_trie_free(nm_trie *t);

/* The node reached from `node` (0: the root) by byte b; 0: none. */
static inline uint32_t nm_trie_step(const nm_trie *t, uint32_t node, unsigned char b)
{
    if (node == 0)
        return t->root[b];
    const struct nm_trie_node *x = &t->node[node], *c = t->node + x->child;
    uint32_t lo = 0, hi = x->n;
    if (hi <= 6) {
        for (; lo < hi; lo++)
            if (c[lo].byte == b)
                return x->child + lo;
        return 0;
    }
    while (lo < hi) {
        uint32_t mid = (lo + hi) / 2;
        if (c[mid].byte < b)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < x->n && c[lo].byte == b ? x->child + lo : 0;
}

/* Length of the longest string that is a prefix of s[0..n), 0: none. */
size_t nm_trie_longest(const nm_trie *t, const char *s, size_t n, int32_t *id);

#endif
