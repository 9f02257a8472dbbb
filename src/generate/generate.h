/* generate.h - one decoder loop for every model that writes text: greedy, beam search by the rules of three transformers releases,
 * and sampling, over a step callback that owns its key/value cache.
 *
 *     nm_decoder d = { .user = ..., .vocab = 30524, .step = ... };
 *     nm_generate(&d, items, prompts, offsets, &rules, out, err);
 *
 * Every item (picture, question) has a search of its own; one step computes the live rows of all of them. */
#ifndef NM_GENERATE_H
#define NM_GENERATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/rng.h"

/* The model's part. Row i continues row parent[i] of the last call with ids[offsets[i]] .. ids[offsets[i+1]]; in the first call parent is
 * NULL and row i begins item i. Rows of one item are neighbours, items ascend, finished items have no rows. Returns logits
 * [n, vocab] after each row's last id, which the caller may overwrite and which are valid until the next call; NULL with err set. */
typedef float *nm_step_fn(void *user, int64_t n, const int64_t *parent, const int32_t *ids, const int64_t *offsets, noema_error *err);
typedef struct nm_decoder { void *user; int64_t vocab; nm_step_fn *step; } nm_decoder;

/* Whose generate() is followed where releases differ: what a finished text's sum is divided by, and when a search stops. */
enum {
    NM_RELEASE_4_15 = 415, /* length with prompt, without end; stops by the length before this step */
    NM_RELEASE_4_33 = 433, /* the same length; stops by the length after it */
    NM_RELEASE_5 = 500     /* new ids with end; the vectorised search */
};

typedef struct nm_hypothesis {
    int32_t *ids;     /* prompt and new ids, without the end */
    int64_t n;
    double sum;       /* of log-probabilities; NaN: greedy, sampled */
    double score;     /* what is ranked; NaN likewise */
    bool ended;       /* by the end id; false: by max_length */
} nm_hypothesis;

/* Tests see every finished text with whether it was kept and the worst kept score afterwards. */
typedef void nm_finished_fn(void *user, int64_t item, const nm_hypothesis *h, bool stored, double worst);

typedef struct nm_rules {
    int beams;                    /* 1: greedy, unless sample */
    bool sample, early_stopping;
    double temperature, top_p;
    int top_k;                    /* 0: all */
    uint64_t seed;
    const uint64_t *seeds;        /* [items], or NULL: `seed` for all */
    int64_t max_length, min_length; /* of prompt and new ids together */
    int64_t max_new, min_new;       /* < 0: not given; else they win (max) or add to it (min) */
    double repetition_penalty, length_penalty;
    int n_best;
    int release;
    int32_t eos;
    nm_finished_fn *finished;
    void *finished_user;
} nm_rules;

/* Best first. */
typedef struct nm_generation { nm_hypothesis *best; int n; } nm_generation;

/* prompts: item i owns ids offsets[i] .. offsets[i+1], at least one. out: [items], freed by nm_generation_free. */
noema_status nm_generate(const nm_decoder *d, int64_t items, const int32_t *prompts, const int64_t *offsets, const nm_rules *rules, nm_generation *out,
                         noema_error *err);
void nm_generation_free(nm_generation *g, int64_t items);
/* The longest row that nm_generate will ask for, and the most rows at once. */
int64_t nm_generate_max_length(const nm_rules *rules, int64_t items, const int64_t *offsets);
int64_t nm_generate_max_rows(const nm_rules *rules, int64_t items);

/* ---- the pieces, for tests ---- */

/* score < 0 ? score * penalty : score / penalty, once for every id that occurs in ids. */
void nm_penalise(float *scores, int64_t vocab, const int32_t *ids, int64_t n, double penalty);
/* x[i] -= log(sum(exp(x))) */
void nm_log_softmax(float *x, int64_t n);
/* What sampling draws from: ids sorted by logit after top_k and then top_p, with their probabilities. Room for top_k (or vocab) entries. */
int64_t nm_sample_set(const float *logits, int64_t vocab, double temperature, int64_t top_k, double top_p, int32_t *ids, float *probs);

#endif
