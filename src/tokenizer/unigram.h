/* unigram.h - the best segmentation of a text into pieces with log probabilities (Viterbi), as SentencePiece computes it in
 * f32 and as Rust tokenizers computes it in f64. */
#ifndef NM_TOK_UNIGRAM_H
#define NM_TOK_UNIGRAM_H

#include "tokenizer/tokenizer.h"
#include "tokenizer/trie.h"

typedef struct nm_unigram {
    nm_trie trie;       /* pieces that may be used */
    double *score;      /* per id */
    uint8_t *user;      /* per id: user-defined, always preferred (SentencePiece only); NULL: none */
    double min_score, max_score;
    int32_t unk_id;
    bool f32;           /* SentencePiece's arithmetic */
} nm_unigram;

/* One piece of the result: bytes [start, end), id (unk_id where nothing fits). */
typedef struct nm_tok_piece { uint32_t start, end; int32_t id; } nm_tok_piece;

/* Segments UTF-8 text[0..n). *pieces points into the scratch's lattice. false: out of memory. */
bool nm_unigram_encode(const nm_unigram *u, nm_tok_scratch *s, const char *text, size_t n, nm_tok_piece **pieces,
                       size_t *n_pieces);
void nm_unigram_free(nm_unigram *u);

#endif
