/* pipe.h - the Hugging Face pipeline: what a tokenizer.json declares, as flat lists of steps (huggingface/tokenizers,
 * Apache-2.0, is the reference for what each step does). */
#ifndef NM_TOK_PIPE_H
#define NM_TOK_PIPE_H

#include "base/json.h"
#include "tokenizer/charsmap.h"
#include "tokenizer/regex.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/trie.h"
#include "tokenizer/unigram.h"

enum { /* normalisers */
    NM_N_FORM, NM_N_LOWER, NM_N_MARKS, NM_N_BERT, NM_N_REPLACE, NM_N_PREPEND, NM_N_STRIP, NM_N_CHARSMAP, NM_N_NMT,
    NM_N_BYTES, NM_N_CANON,
    /* pre-tokenisers */
    NM_P_BYTES, NM_P_WORDS, NM_P_WHITE, NM_P_BERT, NM_P_META, NM_P_SPLIT, NM_P_DIGITS, NM_P_PUNCT, NM_P_CHAR,
    /* decoders */
    NM_D_BYTES, NM_D_WORDPIECE, NM_D_META, NM_D_BPE, NM_D_BYTE_FALLBACK, NM_D_FUSE, NM_D_STRIP, NM_D_REPLACE,
};
enum { NM_REMOVED, NM_ISOLATED, NM_MERGED_PREV, NM_MERGED_NEXT, NM_CONTIGUOUS };
enum { NM_FAST_NONE, NM_FAST_CLIP, NM_FAST_GPT2 }; /* patterns with a splitter of their own */

typedef struct nm_step {
    uint8_t type, form, behavior, fast;
    bool left, right;               /* Strip */
    bool clean, chinese, accents, lower; /* BertNormalizer */
    bool prefix_space, use_regex;   /* ByteLevel */
    bool individual, invert, split, cleanup;
    bool python;                    /* BertNormalizer, Precompiled: as transformers' Python tokenizers do it */
    uint8_t scheme;                 /* Metaspace: 0 never, 1 first, 2 always */
    uint32_t ch;                    /* Metaspace's replacement, CharDelimiterSplit, decoders' Strip */
    uint32_t start, stop;           /* decoders' Strip */
    nm_u32 pat, to;                 /* Replace: a string pattern (or `re`), the content; Prepend: `to` */
    nm_regex *re;
    char *text;                     /* decoders: prefix, suffix, pattern (UTF-8) */
    char *text2;                    /* decoders: content */
    nm_charsmap map;
} nm_step;

typedef struct nm_steps { nm_step *p; size_t n; } nm_steps;

typedef struct nm_added {
    char *content;
    size_t n;
    int32_t id;
    bool special, normalized, lstrip, rstrip, single_word;
} nm_added;

enum { NM_M_BPE, NM_M_WORDPIECE, NM_M_UNIGRAM, NM_M_WORDLEVEL };

struct nm_tok_pipe {
    nm_steps norm, pre, dec;
    bool flip;              /* FLIP's own splitter in place of norm and pre */
    int model;
    nm_vocab vocab;
    /* BPE */
    nm_bpe bpe;
    char *sub_prefix, *end_suffix; /* "" when absent */
    bool byte_fallback, fuse_unk, ignore_merges;
    int32_t byte_piece[256];       /* "<0xXX>", -1 */
    int32_t unk_id;                /* -1: none */
    /* WordPiece */
    uint32_t max_word;             /* code points */
    bool max_in_bytes;
    nm_unigram uni;
    /* added tokens */
    nm_added *added;
    size_t n_added;
    nm_trie raw, normal;           /* ids are indices into `added` */
    nm_vocab added_vocab;          /* content -> id */
    int32_t max_id;
    /* template */
    int32_t before[16], after[16];
    int n_before, n_after;
    bool cut_left;
    bool clean_text;               /* transformers' clean_up_tokenization_spaces on the whole text */
    bool clip_decode;              /* transformers' CLIPTokenizer: "</w>" becomes a space after decoding */
};

struct nm_tok_span { uint32_t start, end; bool match, first; };

/* pipe_json.c: the object form of a tokenizer.json. */
noema_status nm_tok_pipe_load(nm_tokenizer *t, const char *what, const json_t *root, noema_error *err);
void nm_tok_pipe_free(nm_tok_pipe *p);
void nm_steps_free(nm_steps *s);
bool nm_pipe_build_added(nm_tokenizer *t); /* the tries, after the list is complete */
noema_status nm_pipe_add_token(nm_tok_pipe *p, const char *what, const char *content, size_t n, int32_t id, unsigned flags,
                               noema_error *err);
enum { NM_T_SPECIAL = 1, NM_T_NORMALIZED = 2, NM_T_LSTRIP = 4, NM_T_RSTRIP = 8, NM_T_SINGLE_WORD = 16 };
int32_t nm_pipe_id(const nm_tok_pipe *p, const char *s, size_t n); /* added tokens first; -1 */
const char *nm_pipe_token(const nm_tok_pipe *p, int32_t id, size_t *n); /* NULL: no such id */

/* pipe_norm.c */
noema_status nm_pipe_normalize(const nm_tok_pipe *p, nm_tok_scratch *s, nm_u32 *a, noema_error *err);
/* pipe_pre.c: s->a and s->span; the words. */
noema_status nm_pipe_split(const nm_tok_pipe *p, nm_tok_scratch *s, bool first, noema_error *err);
int nm_fast_pattern(const char *pattern, size_t n);
/* pipe_model.c: one word (UTF-8) to ids. */
noema_status nm_pipe_word(const nm_tok_pipe *p, nm_tok_scratch *s, const char *w, size_t n, noema_error *err);
/* pipe.c */
noema_status nm_tok_pipe_encode(const nm_tokenizer *t, nm_tok_scratch *s, const char *text, size_t n, noema_error *err);
/* pipe_decode.c */
noema_status nm_tok_pipe_decode(const nm_tokenizer *t, nm_tok_scratch *s, const int32_t *ids, size_t n, bool skip,
                                noema_error *err);
/* bert.c: a word list as BERT's or FLIP's tokenizer */
noema_status nm_tok_bert_open(nm_tokenizer *t, const char *what, const char *data, size_t size, const nm_tok_options *o,
                              noema_error *err);
json_t *nm_tok_bert_vocab(const char *what, const char *data, size_t size, noema_error *err); /* {token: line} */
/* hf_folder.c */
noema_status nm_tok_folder_open(nm_tokenizer *t, const char *dir, const nm_tok_options *o, noema_error *err);

/* Classes of characters that several steps share. */
bool nm_is_bert_punct(uint32_t c);
bool nm_is_cjk(uint32_t c); /* BERT's eight ranges */
bool nm_is_word_char(uint32_t c); /* Rust regex \w */

#endif
