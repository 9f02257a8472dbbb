/* tokenizer.h - the inside of tokenizers. One object holds a chain of stages; which of them are set depends on the kind:
 *
 *     text --clean--> text --added tokens--> pieces of text --normaliser--> --pre-tokeniser--> words --model--> ids --template-->
 *
 * OpenAI's and open_clip's tokenizers are `clip` (clip.c): cleaning, one fixed splitter, byte-pair merging. Everything in
 * Hugging Face form is a `pipe` (pipe.h), interpreted from tokenizer.json or built by a folder's class. SentencePiece
 * models are `spm` (spm.h). */
#ifndef NM_TOK_TOKENIZER_H
#define NM_TOK_TOKENIZER_H

#include "noema/tokenizer.h"
#include "tokenizer/bpe.h"
#include "tokenizer/clean.h"
#include "tokenizer/text.h"
#include "tokenizer/vocab.h"

typedef noema_tokenizer nm_tokenizer;
typedef noema_tokenizer_scratch nm_tok_scratch;
typedef noema_tokenizer_options nm_tok_options;
typedef struct nm_tok_clip nm_tok_clip;
typedef struct nm_tok_pipe nm_tok_pipe;
typedef struct nm_tok_spm nm_tok_spm;

/* Cleaning modes that no option names: transformers 4's slow CLIP, with and without ftfy; transformers' SiglipTokenizer with
 * and without lower case. */
enum { NM_CLEAN_FTFY = 100, NM_CLEAN_BASIC, NM_CLEAN_SIGLIP, NM_CLEAN_SIGLIP_CASED, NM_CLEAN_LOWER_ONLY };

enum { NM_TOK_FILE_LIMIT = 256 << 20, NM_TOK_TEXT_LIMIT = 64 << 20 };

struct noema_tokenizer {
    char *name;
    int clean;                   /* noema_tokenizer_clean or NM_CLEAN_*; before everything else */
    int context_length;          /* 0: none */
    bool error_if_longer, sep_to_zero;
    noema_tokenizer_ids id;
    bool pad_left;
    nm_tok_clip *clip;
    nm_tok_pipe *pipe;
    nm_tok_spm *spm;
};

/* Cache of short words: direct mapped, key and ids inside one line. */
enum { NM_TOK_CACHE = 8192, NM_TOK_KEY = 24, NM_TOK_KEY_IDS = 8 };
typedef struct nm_tok_cached {
    char key[NM_TOK_KEY]; /* zero padded */
    int32_t id[NM_TOK_KEY_IDS];
    uint8_t n_key, n_ids; /* n_key 0: free */
    uint8_t pad[6];
} nm_tok_cached;
_Static_assert(sizeof(nm_tok_cached) == 64, "one cache line");

struct noema_tokenizer_scratch {
    const nm_tokenizer *owner;
    nm_u32 a, b, c;    /* code points at work */
    nm_buf text, word, out; /* UTF-8 at work; decoded text */
    nm_buf cleaned;         /* the input after cleaning */
    int32_t *ids;
    size_t n_ids, cap_ids;
    size_t full_length;
    bool failed;       /* out of memory while appending ids */
    int32_t *sym;
    size_t cap_sym;
    nm_bpe_work work;
    void *lattice;     /* Unigram: best scores per position */
    size_t cap_lattice;
    struct nm_tok_span *span; /* pre-tokeniser */
    size_t n_span, cap_span;
    struct nm_tok_span *span2;
    size_t n_span2, cap_span2;
    nm_tok_cached *cache;
    struct nm_tok_offset *offset; /* nm_tok_encode_offsets */
    size_t cap_offset;
    uint32_t *origin;
    size_t cap_origin;
};

/* Where a token comes from: code points [start, end) of the text; special tokens of the template have [0, 0). */
typedef struct nm_tok_offset { uint32_t start, end; } nm_tok_offset;

/* encode for BERT's tokenizer (GLIP's phrases), with an offset per id, in the scratch. NOEMA_E_UNSUPPORTED for others. */
noema_status nm_tok_encode_offsets(const nm_tokenizer *t, nm_tok_scratch *s, const char *text, size_t n, const int32_t **ids,
                                   const nm_tok_offset **offsets, size_t *n_ids, noema_error *err);

bool nm_tok_ids_reserve(nm_tok_scratch *s, size_t extra);
static inline void nm_tok_put(nm_tok_scratch *s, int32_t id)
{
    if (s->n_ids < s->cap_ids || nm_tok_ids_reserve(s, 1))
        s->ids[s->n_ids++] = id;
}
int32_t *nm_tok_symbols(nm_tok_scratch *s, size_t n); /* room for n symbols; NULL: out of memory */
static inline nm_tok_cached *nm_tok_cache_at(nm_tok_scratch *s, const char *w, size_t n, char key[NM_TOK_KEY])
{
    memset(key, 0, NM_TOK_KEY);
    memcpy(key, w, n);
    return &s->cache[nm_tok_hash(key, NM_TOK_KEY) & (NM_TOK_CACHE - 1)];
}
noema_status nm_tok_clean(nm_u32 *a, int mode, nm_u32 *tmp, noema_error *err);

/* The text cleaned by `mode`, in s->text. */
noema_status nm_tok_clean_utf8(nm_tok_scratch *s, int mode, const char *text, size_t n, noema_error *err);

/* From memory; `what` names the source in messages. The kind says which form (AUTO: by the first bytes). */
noema_status nm_tokenizer_open_memory(nm_tokenizer **out, const char *what, const void *data, size_t size,
                                      const nm_tok_options *o, noema_error *err);

/* clip.c */
noema_status nm_tok_clip_open(nm_tokenizer *t, const char *what, const unsigned char *data, size_t size, const nm_tok_options *o,
                              noema_error *err);
noema_status nm_tok_clip_encode(const nm_tokenizer *t, nm_tok_scratch *s, const char *text, size_t n, noema_error *err);
bool nm_tok_clip_decode(const nm_tokenizer *t, nm_tok_scratch *s, const int32_t *ids, size_t n, bool skip, noema_error *err);
const nm_vocab *nm_tok_clip_vocab(const nm_tok_clip *c);
void nm_tok_clip_free(nm_tok_clip *c);
/* The splitter alone, over a cleaned text; special strings are split like any other. */
void nm_tok_clip_pieces(const char *text, size_t n, void (*each)(void *user, const char *w, size_t n), void *user);

#endif
