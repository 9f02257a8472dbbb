/* noema/generate.h - text from pictures (captions, answers), and pictures against texts by heads that look at both.
 *
 *     noema_picture p = { .path = "photo.jpg" };
 *     noema_generated g;
 *     if (noema_caption(session, 1, &p, NULL, &g, NULL, &err) == NOEMA_OK) { puts(g.text); noema_generated_free(&g, 1); } */
#ifndef NOEMA_GENERATE_H
#define NOEMA_GENERATE_H

#include <stddef.h>
#include <stdint.h>

#include "noema/model.h"
#include "noema/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One picture: a file, pixels in memory, a tensor as the model gets it (f32 [3, image_height, image_width]), or a file's bytes; one of the four. */
typedef struct noema_picture {
    const char *path;
    const noema_pixels *pixels;
    const float *tensor;
    const void *bytes;
    size_t n_bytes;
    const char *name; /* of bytes, for messages; may be NULL */
} noema_picture;

enum {
    NOEMA_TASK_MATCH = 1,   /* noema_match_pictures: ITC or ITM heads */
    NOEMA_TASK_ITM = 2,     /* has an ITM head */
    NOEMA_TASK_PAIR = 4,    /* NLVR2: noema_match_pictures takes two pictures as one pair */
    NOEMA_TASK_CAPTION = 8, /* noema_caption */
    NOEMA_TASK_ASK = 16     /* noema_ask */
};
NOEMA_API unsigned noema_model_tasks(const noema_model *model);

/* ---- matching ---- */

typedef struct noema_match_options {
    size_t struct_size;
    int head;        /* 0, 1: ITC, cosines and their softmax over the texts divided by the stored temperature; 2: ITM, match logits and probabilities */
    int first_token; /* of ITM texts: 0 the model's own; 1 [ENC]; 2 [CLS] */
    void *reserved[8];
} noema_match_options;

/* scores, probs: [n_pictures, n_texts], rows are pictures; a model of pairs: [1, n_texts], logit and probability of "True". Probabilities that the
 * checkpoint does not define (ITC without a temperature) are NaN. A picture that cannot be read fails alone: errors[i] is filled, its
 * row is NaN (errors NULL: the first one fails the call). */
NOEMA_API noema_status noema_match_pictures(noema_session *s, size_t n_pictures, const noema_picture *pictures, size_t n_texts, const char *const *texts,
                                   const size_t *lengths, const noema_match_options *o, float *scores, float *probs, noema_error *errors,
                                   noema_error *err);

/* Pictures against texts of their own: picture i has the texts first[i] .. first[i + 1] (first[0] is 0). scores, probs: as many as texts, those
 * of the texts; as above otherwise, but ITC has no probabilities (there is no list of texts to share them), so that probs (may be NULL) is NaN.
 * ITC also takes a model of two towers (CLIP): its cosines. A model of pairs takes pictures 2i and 2i + 1 as pair i, whose texts are
 * first[i] .. first[i + 1]. Results do not depend on the other pictures of the call. */
NOEMA_API noema_status noema_match_own(noema_session *s, size_t n_pictures, const noema_picture *pictures, const size_t *first, const char *const *texts,
                                       const noema_match_options *o, float *scores, float *probs, noema_error *errors, noema_error *err);

/* ---- text ---- */

typedef struct noema_generate_options {
    size_t struct_size;
    const char *prompt;        /* captions: the text begins with it; questions: a template, "{}" is the question. NULL: the model's own */
    int beams;                 /* 0: the model's own; 1: greedy */
    int sample;                /* 1: draw from the likeliest ids instead; 0: only where beams is 0 and a folder's generation_config.json says so */
    double temperature;        /* sampling; 0: the model's own, else 1 */
    int top_k;                 /* sampling; 0: the model's own, else 50, as in transformers */
    double top_p;              /* sampling; 0: the model's own (a folder: 1 unless it says otherwise), else 0.9 */
    uint64_t seed;             /* sampling: same seed, same text */
    int max_length, min_length;/* ids of the decoder's row: start, prompt, new ones; < 0: the model's own */
    int max_new, min_new;      /* new ids alone; < 0: not given */
    double repetition_penalty; /* 0: the model's own */
    double length_penalty;     /* NaN: the model's own */
    int early_stopping;        /* < 0: the model's own */
    int n_best;                /* texts per picture, at most `beams`; 0: 1 */
    int beam_rule;             /* whose transformers release counts and stops: 415, 433, 500; 0: the model's own */
    int first_token;           /* of questions: 0 the model's own; 1 [ENC]; 2 [CLS] */
    const char *const *answers;/* noema_ask: rank these instead of generating */
    size_t n_answers;
    int candidates;            /* so many answers with the likeliest first id are scored; 0: 128 */
    const char *language;      /* of captions, for a model whose configuration names languages ("en", "ko"); NULL: the first of them, or with a prompt none */
    const uint64_t *seeds;     /* sampling: [n] a seed for each picture instead of `seed`; NULL: the same one for all */
    void *reserved[7];
} noema_generate_options;

NOEMA_API void noema_generate_options_default(noema_generate_options *o);

typedef struct noema_scored_text { char *text; float score; } noema_scored_text;

/* score: what the beam search (or the ranking) ranks by; NaN: greedy or sampled. best: n texts, best first. */
typedef struct noema_generated {
    char *text;
    float score;
    noema_scored_text *best;
    size_t n_best;
} noema_generated;

NOEMA_API void noema_generated_free(noema_generated *g, size_t n);

/* out: [n]. A picture that cannot be read fails alone: errors[i] is filled and out[i].text is NULL (errors NULL: the first one fails the
 * call). Results do not depend on the other pictures of the call. */
NOEMA_API noema_status noema_caption(noema_session *s, size_t n, const noema_picture *pictures, const noema_generate_options *o, noema_generated *out,
                                     noema_error *errors, noema_error *err);
/* questions: [n], one per picture. */
NOEMA_API noema_status noema_ask(noema_session *s, size_t n, const noema_picture *pictures, const char *const *questions,
                                 const noema_generate_options *o, noema_generated *out, noema_error *errors, noema_error *err);

#ifdef __cplusplus
}
#endif
#endif
