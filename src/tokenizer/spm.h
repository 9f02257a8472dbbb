/* spm.h - SentencePiece models: the file and raw encoding and decoding. */
#ifndef NM_TOK_SPM_H
#define NM_TOK_SPM_H

#include "tokenizer/charsmap.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/trie.h"
#include "tokenizer/unigram.h"

enum { NM_SPM_UNIGRAM = 1, NM_SPM_BPE = 2, NM_SPM_WORD = 3, NM_SPM_CHAR = 4 };
enum { NM_SPM_NORMAL = 1, NM_SPM_UNKNOWN = 2, NM_SPM_CONTROL = 3, NM_SPM_USER = 4, NM_SPM_UNUSED = 5, NM_SPM_BYTE = 6 };

struct nm_tok_spm {
    int model_type;
    nm_vocab vocab; /* piece strings; the index finds text pieces (normal, user-defined, unused) only */
    nm_vocab reserved; /* unknown, control and byte pieces, ids as in the model */
    float *score;
    uint8_t *type;
    int32_t n_pieces;
    bool byte_fallback, dummy_prefix, remove_extra, escape, suffix; /* suffix: white space after a word */
    nm_charsmap map;
    const char *charsmap_blob; /* only while the file is in memory: for the conversion to a pipe */
    size_t charsmap_size;
    nm_unigram uni;
    nm_trie user; /* user-defined symbols: taken as they are */
    int32_t byte_id[256]; /* -1: none */
    int32_t unk_id, bos_id, eos_id, pad_id;
    /* convention on top of the raw ids */
    int32_t shift;            /* added to ids other than unk_id */
    int32_t unk_to;
    int32_t first, last;      /* special ids around, -1: none */
    int32_t vocab_size;
};

noema_status nm_spm_load(nm_tok_spm *m, const char *what, const unsigned char *data, size_t size, noema_error *err);
void nm_spm_free(nm_tok_spm *m);
const char *nm_spm_piece(const nm_tok_spm *m, int32_t id, size_t *n);
int32_t nm_spm_find(const nm_tok_spm *m, const char *s, size_t n); /* PieceToId; unk_id when it is none */

/* Appends the raw ids of UTF-8 text to s->ids. */
noema_status nm_spm_encode_raw(const nm_tok_spm *m, nm_tok_scratch *s, const char *text, size_t n, noema_error *err);
noema_status nm_tok_spm_open(nm_tokenizer *t, const char *what, const unsigned char *data, size_t size, const nm_tok_options *o,
                             noema_error *err);
noema_status nm_tok_spm_encode(const nm_tokenizer *t, nm_tok_scratch *s, const char *text, size_t n, noema_error *err);
noema_status nm_tok_spm_decode(const nm_tokenizer *t, nm_tok_scratch *s, const int32_t *ids, size_t n, bool skip,
                               noema_error *err);
int32_t nm_tok_spm_id(const nm_tok_spm *m, const char *s, size_t n);

/* spm_bpe.c: merges by score over the normalised text; appends ids (unknown characters as unk_id, or bytes). */
bool nm_spm_bpe(const nm_tok_spm *m, nm_tok_scratch *s, const char *text, size_t n);
void nm_spm_put_unknown(const nm_tok_spm *m, nm_tok_scratch *s, const char *text, size_t n, bool *after_unk);

#endif
