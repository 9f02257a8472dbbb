/* noema/eval.h - measure models and results: classification, retrieval, probes, geometry, composition, captions, answers.
 *
 *     noema_eval_options o;
 *     noema_report *r;
 *     noema_eval_options_default(&o);
 *     o.images = "I.npy", o.texts = "T.npy";
 *     if (noema_eval(NOEMA_EVAL_RETRIEVAL, NULL, &o, &r, &err) == NOEMA_OK) { puts(noema_report_json(r)); noema_report_free(r); }
 *
 * Formulas and sources: docs/eval.md. Sums are in double; equal scores are ranked by the lowest index unless `ties` says otherwise. */
#ifndef NOEMA_EVAL_H
#define NOEMA_EVAL_H

#include <stddef.h>
#include <stdint.h>

#include "noema/model.h"
#include "noema/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum noema_eval_task {
    NOEMA_EVAL_ZEROSHOT,    /* labelled pictures by class names; or images + texts (class vectors) + labels; or scores + labels */
    NOEMA_EVAL_RETRIEVAL,   /* pictures with captions; or images + texts (+ pairs) */
    NOEMA_EVAL_PROBE,       /* logistic regression on features of labelled pictures; or train_images, train_labels, images, labels */
    NOEMA_EVAL_KNN,         /* k nearest neighbours on the same inputs */
    NOEMA_EVAL_GEOMETRY,    /* pictures (with captions); or images and / or texts */
    NOEMA_EVAL_COMPOSITION, /* SugarCrepe, Winoground or ARO files; or scores */
    NOEMA_EVAL_CAPTIONS,    /* results against references: BLEU, ROUGE-L, CIDEr, METEOR; with a session and image_dir also CLIPScore */
    NOEMA_EVAL_CAPTION,     /* writes captions for the pictures of references, then as above */
    NOEMA_EVAL_VQA,         /* results against annotations; with a session the answers are generated */
    NOEMA_EVAL_NLVR,        /* results against statements with labels; with a session they are computed */
    NOEMA_EVAL_CLIPSCORE    /* results (and references) against pictures */
} noema_eval_task;

typedef enum noema_eval_ties { NOEMA_TIES_LOWEST, NOEMA_TIES_HIGHEST, NOEMA_TIES_OPTIMISTIC, NOEMA_TIES_PESSIMISTIC } noema_eval_ties;

/* Vectors and labels are files: .npy, or .safetensors with one tensor (or FILE:name). f32 or f16 vectors [n, dim]; whole numbers [n].
 * Vectors whose lengths are 1 within 1e-4 are taken as they are, others are divided by their length unless no_normalize. */
typedef struct noema_eval_options {
    size_t struct_size;
    /* pictures: image folders (a folder per class), .parquet, .tar, .jsonl, .csv, .tsv, .safetensors, COCO captions or task files (.json) */
    const char *const *data;
    size_t n_data;
    const char *const *train_data;       /* probe, knn */
    size_t n_train_data;
    const char *image_dir;               /* of the names in .json files; NULL: the file's folder */
    const char *img_key, *caption_key, *label_key; /* columns; NULL: what the reader takes by default */
    /* vectors instead of pictures */
    const char *images, *texts, *labels, *train_images, *train_labels, *scores;
    const char *pairs;                   /* [n_texts]: number of each text's image; NULL: the same number of texts each, in order */
    /* class names and templates */
    const char *classes;                 /* names, one per line; NULL: from prompts, else the data's own */
    const char *templates;               /* one per line ("{}" or "{c}" is the name); NULL: from prompts, else template_list */
    const char *const *template_list;    /* templates instead of a file; none: the name alone */
    size_t n_templates;
    const char *const *prompts;          /* .json in CLIP_benchmark's layout: {"cifar10": [names or templates]} */
    size_t n_prompts;
    const char *prompts_dir;             /* holds LANGUAGE_classnames.json, LANGUAGE_zeroshot_classification_templates.json */
    const char *dataset, *language;      /* the key in those files, and the report's; language NULL: "en" */
    /* results */
    const char *const *references;       /* COCO captions, {"id": [captions]}, or text files, one per reference */
    size_t n_references;
    const char *results;                 /* [{"image_id", "caption"}], {"id": caption}, or a text file */
    const char *annotations, *questions; /* VQA's files; one file with questions, answers and predictions: annotations alone */
    const char *tokens;                  /* "ptb" or "space" */
    const char *document_frequency;      /* of CIDEr: JSON {"images": n, "df": {"n gram": count}}; NULL: from the references */
    const char *meteor_words, *meteor_synonyms, *meteor_paraphrases; /* METEOR 1.5's data files, or NULL */
    const char *per_item;                /* write the scores of each picture (.csv) */
    /* how */
    const int64_t *k;                    /* recall at, k nearest; NULL: 1, 5, 10 (knn: 20) */
    size_t n_k;
    int64_t rerank_texts, rerank_images; /* retrieval with an ITM head: so many of each picture's texts, of each text's pictures are scored
                                            again (match logit + cosine, the others last); 0: none */
    noema_eval_ties ties;
    int no_normalize, euclid;
    double temperature;                  /* knn: 0: plain majority; default 0.07 */
    double logit_scale;                  /* contrastive loss, calibration; 0: the model's, else 100 (of ready scores 1) */
    double C;                            /* probe; 0: swept */
    int64_t bootstrap;                   /* resamples for intervals; 0: Wilson's intervals for shares only */
    uint64_t seed;
    int64_t limit;                       /* the first so many pictures; 0: all */
    int max_new;                         /* captions, answers: new ids at most; < 0: the model's own */
    int beams;                           /* 0: the model's own */
    const char *prompt;                  /* captions, answers; CLIPScore ("A photo depicts "); NULL: their own */
    const char *cache;                   /* folder of embeddings that are reused when model and data are the same; NULL: none */
    const char *predictions;             /* .npy of class scores, ranks or predictions; result file of captions, answers, judgements (FILE.part on the way) */
    const char *published;               /* CSV of published figures to compare with */
    const char *published_name;          /* "MODEL PRETRAINED" of its row; NULL: by the model's name */
    /* messages; any may be NULL */
    void (*progress)(void *user, const char *unit, int64_t done, int64_t total);
    void (*failed)(void *user, const char *what, const noema_error *why); /* a picture that cannot be used: the others go on */
    int (*stop)(void *user);             /* non-zero: finish what is begun, keep the cache, return NOEMA_E_CANCELLED */
    void *user;
    void *reserved[16];
} noema_eval_options;

NOEMA_API void noema_eval_options_default(noema_eval_options *o);

typedef struct noema_report noema_report;

/* session: needed where a model computes something, else NULL. */
NOEMA_API noema_status noema_eval(noema_eval_task task, noema_session *session, const noema_eval_options *o, noema_report **report, noema_error *err);

/* low, high: a 95 % interval, NaN where there is none. */
typedef struct noema_metric { const char *name; double value, low, high; } noema_metric;
NOEMA_API size_t noema_report_metrics(const noema_report *r, const noema_metric **metrics); /* in order; valid as long as the report */
NOEMA_API const char *noema_report_text(const noema_report *r, const char *key); /* "dataset", "model", "pretrained", "task", ...; NULL: none */
/* {"task", "dataset", "model", "pretrained", "language", ..., "metrics": {...}, "ci95": {name: [low, high]}}; free() it. NULL: no memory. */
NOEMA_API char *noema_report_json(const noema_report *r);
NOEMA_API void noema_report_free(noema_report *r); /* NULL is fine */

#ifdef __cplusplus
}
#endif
#endif
