/* unigram.c - one pass over the text; position i holds the best way to end there. Every character must be covered by
 * some piece of its own; where none exists it is unknown, ten below the worst score. */
#include "tokenizer/unigram.h"

#include <stdlib.h>

typedef struct best { double score; uint32_t start; int32_t id; } best; /* start UINT32_MAX: not reached */

static bool room(nm_tok_scratch *s, size_t bytes)
{
    if (bytes > s->cap_lattice) {
        void *p = realloc(s->lattice, bytes);
        if (!p)
            return false;
        s->lattice = p, s->cap_lattice = bytes;
    }
    return true;
}

static size_t char_len(unsigned char c)
{
    return c < 0x80 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
}

/* f32: SentencePiece keeps the running score as a float and compares the sum before rounding it. */
static inline void offer(best *b, double score, uint32_t start, int32_t id, bool f32)
{
    if (b->start == UINT32_MAX || score > b->score)
        *b = (best){ f32 ? (double)(float)score : score, start, id };
}

static double piece_score(const nm_unigram *u, int32_t id, size_t len)
{
    if (u->user && u->user[id])
        return (double)((float)len * (float)u->max_score) - 0.1;
    return u->score[id];
}

bool nm_unigram_encode(const nm_unigram *u, nm_tok_scratch *s, const char *text, size_t n, nm_tok_piece **pieces,
                       size_t *n_pieces)
{
    const double unk_score = u->f32 ? (double)((float)u->min_score - 10.0f) : u->min_score - 10.0;
    size_t bytes = (n + 1) * (sizeof(best) + sizeof(nm_tok_piece));
    *n_pieces = 0;
    if (n >= UINT32_MAX / 64 || !room(s, bytes))
        return false;
    best *b = s->lattice;
    for (size_t i = 0; i <= n; i++)
        b[i].start = UINT32_MAX;
    b[0].score = 0;
    for (size_t i = 0; i < n;) {
        size_t mb = char_len((unsigned char)text[i]);
        bool single = false;
        double here = b[i].score;
        if (mb > n - i)
            mb = n - i;
        uint32_t node = 0;
        for (size_t k = i; k < n; k++) {
            node = nm_trie_step(&u->trie, node, (unsigned char)text[k]);
            if (!node)
                break;
            int32_t id = u->trie.node[node].id;
            if (id < 0)
                continue;
            double score = piece_score(u, id, k + 1 - i);
            double sum = u->f32 && !(u->user && u->user[id]) ? (double)((float)score + (float)here) : score + here;
            offer(&b[k + 1], sum, (uint32_t)i, id, u->f32);
            single |= k + 1 - i == mb;
        }
        if (!single)
            offer(&b[i + mb], u->f32 ? (double)((float)unk_score + (float)here) : unk_score + here, (uint32_t)i, u->unk_id,
                  u->f32);
        i += mb;
    }
    nm_tok_piece *out = (nm_tok_piece *)(void *)(b + n + 1);
    size_t k = n + 1;
    for (size_t end = n; end > 0; end = b[end].start)
        out[--k] = (nm_tok_piece){ b[end].start, (uint32_t)end, b[end].id };
    *pieces = out + k, *n_pieces = n + 1 - k;
    return true;
}

void nm_unigram_free(nm_unigram *u)
{
    nm_trie_free(&u->trie);
    free(u->score), free(u->user);
    *u = (nm_unigram){ 0 };
}
