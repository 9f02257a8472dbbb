/* bpe.h - byte-pair merging over ids: a table of ranked pairs and the loop that applies it. */
#ifndef NM_TOK_BPE_H
#define NM_TOK_BPE_H

#include "base/err.h"
#include "tokenizer/vocab.h"

/* The printable code point that GPT-2 and CLIP write for each byte ("bytes_to_unicode"), its inverse (-1: none), and the
 * byte behind CLIP's id 0..255. */
uint32_t nm_byte_char(unsigned char b);
int nm_char_byte(uint32_t c);
unsigned char nm_byte_order(int id);

typedef struct nm_bpe {
    struct nm_bpe_pair { uint64_t key; uint32_t rank; int32_t id; } *pair; /* key ~0: free */
    uint32_t n_slots, n_pairs;
    bool all; /* the reference merges every occurrence of the best pair before it looks again (OpenAI, GPT-2 in Python);
               * otherwise one occurrence at a time, leftmost first (Rust tokenizers, SentencePiece) */
} nm_bpe;

bool nm_bpe_init(nm_bpe *b, uint32_t n_merges);
bool nm_bpe_add(nm_bpe *b, int32_t left, int32_t right, uint32_t rank, int32_t id); /* a later rank replaces an earlier */
void nm_bpe_free(nm_bpe *b);

/* Work space of the merge loop; grows, is reused, one per thread. */
typedef struct nm_bpe_work {
    struct nm_bpe_node { int32_t id; uint32_t prev, next; } *node;
    struct nm_bpe_cand { uint32_t rank, pos; int32_t id; } *heap, *batch;
    size_t n_heap, heap_cap, batch_cap, node_cap;
} nm_bpe_work;
void nm_bpe_work_free(nm_bpe_work *w);

/* Merges sym[0..n) in place; returns the new count, or SIZE_MAX when memory ran out. O(n log n). */
size_t nm_bpe_merge(const nm_bpe *b, nm_bpe_work *w, int32_t *sym, size_t n);

#endif
