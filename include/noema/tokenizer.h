/* noema/tokenizer.h - text to token ids, exactly as the models' reference code does it.
 *
 *     noema_error err = NOEMA_ERROR_INIT;
 *     noema_tokenizer *t;
 *     if (noema_tokenizer_open(&t, "bpe_simple_vocab_16e6.txt.gz", NULL, &err) != NOEMA_OK) { puts(err.message); ... }
 *     noema_tokenizer_scratch *s = noema_tokenizer_scratch_new(t);
 *     const int32_t *ids; size_t n;
 *     noema_tokenizer_encode(t, s, "a photo of a cat", 16, &ids, &n, &err);   // 49406 320 1125 539 320 2368 49407
 */
#ifndef NOEMA_TOKENIZER_H
#define NOEMA_TOKENIZER_H

#include <stddef.h>
#include <stdint.h>

#include "noema/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A loaded tokenizer: immutable, may be used by any number of threads at once. */
typedef struct noema_tokenizer noema_tokenizer;

/* Work space and word cache of one thread, for one tokenizer. */
typedef struct noema_tokenizer_scratch noema_tokenizer_scratch;

/* What a path means when its form leaves it open. */
typedef enum noema_tokenizer_kind {
    NOEMA_TOKENIZER_AUTO = 0,    /* by file name and contents, see noema_tokenizer_open */
    NOEMA_TOKENIZER_OPENAI = 1,  /* CLIP merge list, openai/CLIP's rules */
    NOEMA_TOKENIZER_OPEN_CLIP = 2, /* CLIP merge list, open_clip's rules (other special strings, cleaning modes) */
    NOEMA_TOKENIZER_BERT = 3,    /* word list, lower case, [CLS] and [SEP] */
    NOEMA_TOKENIZER_FLIP = 4,    /* word list, FLIP's rules: 32 ids, no special tokens */
    NOEMA_TOKENIZER_SPM = 5,     /* SentencePiece model: raw ids, no special tokens */
    NOEMA_TOKENIZER_T5 = 6,      /* SentencePiece model, </s> at the end */
    NOEMA_TOKENIZER_XLMR = 7,    /* SentencePiece model, ids shifted by one, <s> ... </s>, <mask> last */
    NOEMA_TOKENIZER_SIGLIP = 8   /* SentencePiece model or HF folder, text canonicalised, 64 ids, </s> at the end */
} noema_tokenizer_kind;

typedef enum noema_tokenizer_clean {
    NOEMA_CLEAN_DEFAULT = 0, /* what the kind does by itself */
    NOEMA_CLEAN_NONE = 1,
    NOEMA_CLEAN_LOWER = 2,      /* ftfy, entities, white space, lower case */
    NOEMA_CLEAN_WHITESPACE = 3, /* ftfy, entities, white space */
    NOEMA_CLEAN_CANONICALIZE = 4 /* ftfy, entities, no ASCII punctuation, lower case, white space */
} noema_tokenizer_clean;

/* Whose behaviour, where releases of one reference differ (transformers). */
typedef enum noema_tokenizer_flavor {
    NOEMA_FLAVOR_CURRENT = 0,      /* transformers 5, Rust tokenizers */
    NOEMA_FLAVOR_HF4_FAST = 1,     /* transformers 4, Rust: CLIP also finds its special strings in lowered text */
    NOEMA_FLAVOR_HF4_SLOW = 2,     /* transformers 4, Python: CLIP with ftfy and without html.unescape; SentencePiece's normaliser */
    NOEMA_FLAVOR_HF4_SLOW_NO_FTFY = 3 /* the same where ftfy is not installed: BERT's cleaning */
} noema_tokenizer_flavor;

typedef struct noema_tokenizer_options {
    size_t struct_size; /* sizeof this struct */
    noema_tokenizer_kind kind;
    noema_tokenizer_clean clean;
    int context_length;    /* ids per text at most, special ids included; 0: the tokenizer's own (0 there: no limit) */
    int vocab_size;        /* CLIP merge lists: rows of the model's token table, which says how many merges count; 0: all */
    int error_if_longer;   /* a text that does not fit is an error (openai/CLIP without `truncate`) instead of being cut */
    int sep_to_zero;       /* open_clip's strip_sep_token: [SEP] becomes id 0 */
    noema_tokenizer_flavor flavor;
    const char *const *extra_tokens; /* n_extra_tokens special tokens that get the next free ids (BLIP: "[DEC]", "[ENC]") */
    size_t n_extra_tokens;
    int reserved[8];       /* zero */
} noema_tokenizer_options;

NOEMA_API noema_tokenizer_options noema_tokenizer_options_default(void);

/* Opens a CLIP merge list (.txt.gz, .txt), a BERT word list (*vocab.txt), a tokenizer.json, a SentencePiece model (.model)
 * or a folder in Hugging Face layout, which does what its tokenizer_config.json declares. options may be NULL. */
NOEMA_API noema_status noema_tokenizer_open(noema_tokenizer **out, const char *path, const noema_tokenizer_options *options,
                                            noema_error *err);
NOEMA_API void noema_tokenizer_free(noema_tokenizer *t);

NOEMA_API noema_tokenizer_scratch *noema_tokenizer_scratch_new(const noema_tokenizer *t); /* NULL: out of memory */
NOEMA_API void noema_tokenizer_scratch_free(noema_tokenizer_scratch *s);

/* Ids of text[0..n) (UTF-8, may contain NUL): special ids included, cut to the context length, no padding. *ids points
 * into the scratch and is valid until its next use. Invalid UTF-8 is NOEMA_E_FORMAT with the offset of the byte. */
NOEMA_API noema_status noema_tokenizer_encode(const noema_tokenizer *t, noema_tokenizer_scratch *s, const char *text, size_t n,
                                              const int32_t **ids, size_t *n_ids, noema_error *err);

/* How many ids the last text of this scratch would have had without the cut. */
NOEMA_API size_t noema_tokenizer_full_length(const noema_tokenizer_scratch *s);

/* The text of some ids; *text points into the scratch, NUL-terminated. skip_special leaves special tokens out. */
NOEMA_API noema_status noema_tokenizer_decode(const noema_tokenizer *t, noema_tokenizer_scratch *s, const int32_t *ids,
                                              size_t n_ids, int skip_special, const char **text, size_t *n, noema_error *err);

NOEMA_API int noema_tokenizer_vocab_size(const noema_tokenizer *t);     /* largest id + 1 */
NOEMA_API int noema_tokenizer_context_length(const noema_tokenizer *t); /* 0: no limit */
NOEMA_API const char *noema_tokenizer_name(const noema_tokenizer *t);   /* "clip-openai", "bert", ... */

/* The id of a token string (as the vocabulary spells it), or -1. */
NOEMA_API int32_t noema_tokenizer_token_id(const noema_tokenizer *t, const char *token, size_t n);

/* Ids with a role; -1 where the tokenizer has none. */
typedef struct noema_tokenizer_ids { int32_t bos, eos, pad, unk, cls, sep, mask, reserved; } noema_tokenizer_ids;
NOEMA_API noema_tokenizer_ids noema_tokenizer_special_ids(const noema_tokenizer *t);

/* Learns a merge list in CLIP's form (what NOEMA_TOKENIZER_OPEN_CLIP reads; gzip where OUT ends in .gz) from the lines of a UTF-8 file: byte-pair
 * encoding, arXiv 1508.07909. vocab_size counts all rows of the token table: 512 bytes, vocab_size - 514 merges, start, end. *rows (may be
 * NULL): the rows reached, fewer when no pair comes twice any more. The same text gives the same file on every machine. */
NOEMA_API noema_status noema_tokenizer_train_bpe(const char *text, int32_t vocab_size, const char *out, int32_t *rows, noema_error *err);

#ifdef __cplusplus
}
#endif
#endif
