/* trie.c - see trie.h. */
#include "tokenizer/trie.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

static int compare(const void *a, const void *b)
{
    const nm_trie_key *x = a, *y = b;
    uint32_t n = x->n < y->n ? x->n : y->n;
    int c = memcmp(x->s, y->s, n);
    if (c)
        return c;
    if (x->n != y->n)
        return x->n < y->n ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

/* A node to be expanded: the keys [lo, hi) share its first `depth` bytes. */
typedef struct todo { uint32_t node; uint32_t lo, hi, depth; } todo;

bool nm_trie_build(nm_trie *t, nm_trie_key *keys, size_t n)
{
    size_t bytes = 1, cap = 1024, head = 0, tail = 0;
    *t = (nm_trie){ 0 };
    for (size_t i = 0; i < n; i++)
        bytes += keys[i].n;
    if (bytes > UINT32_MAX / 2 || n > UINT32_MAX / 2)
        return false;
    if (n)
        qsort(keys, n, sizeof *keys, compare);
    /* an upper bound of the nodes: bytes beyond the prefix shared with the neighbour */
    size_t nodes = 1;
    for (size_t i = 0; i < n; i++) {
        uint32_t k = 0, m = i ? (keys[i].n < keys[i - 1].n ? keys[i].n : keys[i - 1].n) : 0;
        while (k < m && keys[i].s[k] == keys[i - 1].s[k])
            k++;
        nodes += keys[i].n - k;
    }
    t->node = nm_malloc_array(nodes, sizeof *t->node);
    todo *q = nm_malloc_array(cap, sizeof *q);
    if (!t->node || !q) {
        free(q);
        nm_trie_free(t);
        return false;
    }
    t->node[0] = (struct nm_trie_node){ 0, -1, 0, 0 };
    t->n_nodes = 1;
    q[tail++] = (todo){ 0, 0, (uint32_t)n, 0 };
    while (head < tail) {
        todo w = q[head++];
        uint32_t i = w.lo;
        while (i < w.hi && keys[i].n == w.depth) {
            if (w.depth)
                t->node[w.node].id = keys[i].id;
            i++;
        }
        t->node[w.node].child = t->n_nodes;
        while (i < w.hi) {
            unsigned char b = (unsigned char)keys[i].s[w.depth];
            uint32_t j = i;
            while (j < w.hi && (unsigned char)keys[j].s[w.depth] == b)
                j++;
            if (tail == cap) {
                todo *r = nm_realloc_array(q, cap *= 2, sizeof *q);
                if (!r) {
                    free(q);
                    nm_trie_free(t);
                    return false;
                }
                q = r;
            }
            uint32_t at = t->n_nodes++;
            t->node[at] = (struct nm_trie_node){ 0, -1, 0, b };
            t->node[w.node].n++;
            if (w.node == 0)
                t->root[b] = at;
            q[tail++] = (todo){ at, i, j, w.depth + 1 };
            i = j;
        }
    }
    free(q);
    return true;
}

void nm_trie_free(nm_trie *t)
{
    free(t->node);
    *t = (nm_trie){ 0 };
}

size_t nm_trie_longest(const nm_trie *t, const char *s, size_t n, int32_t *id)
{
    size_t best = 0;
    uint32_t node = 0;
    if (!t->n_nodes)
        return 0;
    for (size_t i = 0; i < n; i++) {
        node = nm_trie_step(t, node, (unsigned char)s[i]);
        if (!node)
            break;
        if (t->node[node].id >= 0)
            best = i + 1, *id = t->node[node].id;
    }
    return best;
}
