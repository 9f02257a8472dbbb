/* captions.h - what pycocoevalcap measures: captions against references, as lists of word numbers (specs/evaluation.md, section 5). */
#ifndef NM_EVAL_CAPTIONS_H
#define NM_EVAL_CAPTIONS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/mem.h"

/* ---- words (words.c): every distinct word gets a number from 0 ---- */

typedef struct nm_words { char **word; int32_t n, cap; int32_t *table; uint32_t slots; } nm_words;
int32_t nm_words_add(nm_words *w, const char *s, size_t n); /* -1: no memory */
int32_t nm_words_find(const nm_words *w, const char *s, size_t n); /* -1: not there */
void nm_words_free(nm_words *w);

typedef struct nm_sentence { int32_t *word; int32_t n; } nm_sentence;
/* Words of a text: split at white space; at each single blank (an empty one between two). */
noema_status nm_sentence_split(nm_sentence *s, nm_words *w, const char *text, bool single, noema_error *err);
void nm_sentence_free(nm_sentence *s);

/* Appends the Penn Treebank tokens of `text` as pycocoevalcap keeps them, lower case, with a blank between two (ptb.c). */
bool nm_ptb_tokens(nm_buf *b, const char *text);

/* Candidates and their references: those of item i are ref[first[i]] .. ref[first[i + 1]]. */
typedef struct nm_caption_set {
    int64_t n, n_refs, cap, cap_refs;
    nm_sentence *hyp, *ref, *hyp_single, *ref_single; /* _single: as ROUGE-L splits */
    int64_t *first;
    char **hyp_text, **ref_text; /* tokens with blanks, for METEOR */
    nm_words words;
} nm_caption_set;
/* tokens_ptb: through nm_ptb_tokens first. References of an item follow it. */
noema_status nm_captions_add(nm_caption_set *c, const char *hyp, bool ptb, noema_error *err);
noema_status nm_captions_reference(nm_caption_set *c, const char *ref, bool ptb, noema_error *err);
void nm_captions_free(nm_caption_set *c);

/* ---- BLEU and ROUGE-L (bleu.c) ---- */

typedef struct nm_bleu_counts { int64_t length, reference, guess[4], match[4]; } nm_bleu_counts;
/* Sums of item i; add several for a corpus. */
noema_status nm_bleu_count(nm_bleu_counts *b, const nm_caption_set *c, int64_t i, noema_error *err);
void nm_bleu_score(const nm_bleu_counts *b, double bleu[4]);
double nm_rouge_l(const nm_caption_set *c, int64_t i, noema_error *err); /* NaN: no memory */

/* ---- CIDEr (cider.c) ---- */

typedef struct nm_cider_options {
    bool plain;            /* CIDEr as in the paper; else CIDEr-D: clipped, with a penalty of length */
    const json_t *df;      /* {"images": n, "df": {"a dog": 3}}, or NULL: from the references */
} nm_cider_options;
/* score: [c->n], on the scale of pycocoevalcap (papers print 100 times the mean). */
noema_status nm_cider(const nm_caption_set *c, const nm_cider_options *o, double *score, noema_error *err);

/* ---- METEOR (meteor.c) ---- */

typedef struct nm_meteor nm_meteor;
/* Files of METEOR 1.5, each may be NULL: function words; synonym sets; paraphrases. */
noema_status nm_meteor_open(nm_meteor **m, const char *words, const char *synonyms, const char *paraphrases, noema_error *err);
void nm_meteor_free(nm_meteor *m);
const char *nm_meteor_name(const nm_meteor *m); /* "METEOR", or which stages it has: "METEOR_exact_stem" */
/* hyp_content, ...: sums of one candidate against its best reference; add several for a corpus. */
typedef struct nm_meteor_counts {
    double hyp_content, hyp_function, ref_content, ref_function;      /* words */
    double match_hyp_content, match_hyp_function, match_ref_content, match_ref_function; /* weighted by the stage */
    double matched_hyp, matched_ref, chunks;                          /* words, runs */
    double words_hyp, words_ref;
} nm_meteor_counts;
noema_status nm_meteor_score(nm_meteor *m, const char *hyp, const char *ref, nm_meteor_counts *counts, noema_error *err);
double nm_meteor_value(const nm_meteor_counts *c);
void nm_meteor_sum(nm_meteor_counts *sum, const nm_meteor_counts *c);

#endif
