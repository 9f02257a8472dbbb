/* task.h - what the tasks of noema_eval share: options, inputs from files, pictures and texts as vectors. */
#ifndef NM_EVAL_TASK_H
#define NM_EVAL_TASK_H

#include "eval/report.h"
#include "models/handle.h"

struct nm_dataset;

typedef struct nm_eval {
    noema_eval_options o;   /* all fields valid, whatever the caller's struct_size */
    noema_session *session; /* or NULL */
    noema_report *r;
    nm_pool *pool;          /* or NULL */
    int64_t n_failed;       /* pictures that could not be used */
    noema_error *err;
} nm_eval;

noema_status nm_eval_zeroshot(nm_eval *e);
noema_status nm_eval_retrieval(nm_eval *e);
noema_status nm_eval_neighbours(nm_eval *e, bool probe);
noema_status nm_eval_geometry(nm_eval *e);
noema_status nm_eval_composition(nm_eval *e);
noema_status nm_eval_captions(nm_eval *e, bool generate);
noema_status nm_eval_clipscore(nm_eval *e);
noema_status nm_eval_vqa(nm_eval *e);
noema_status nm_eval_nlvr(nm_eval *e);

/* Model, dataset and settings of this run into the report. */
void nm_eval_describe(nm_eval *e);
noema_status nm_eval_need_model(nm_eval *e, bool image, bool text); /* a session whose model has these towers */
void nm_eval_failed(nm_eval *e, const char *what, const noema_error *why);
void nm_eval_progress(nm_eval *e, const char *unit, int64_t done, int64_t total);
bool nm_eval_stopped(nm_eval *e);
/* A share with its bootstrap interval when asked for, else Wilson's. */
noema_status nm_eval_share(nm_eval *e, const char *name, int64_t n, const double *hit);
/* "recall@5" and so on; static storage until the fourth next call on this thread. */
const char *nm_eval_name(const char *prefix, int64_t k);

/* ---- files of vectors and labels (inputs.c): "FILE" with one array, or "FILE:name" ---- */

/* [n, dim], brought to length 1 as the options say; what: for messages. */
noema_status nm_eval_vectors(nm_eval *e, const char *file, nm_vectors *v);
/* [n, ...] without any scaling; shape[3], ndim 1..3, missing dimensions 1. free() the data. */
noema_status nm_eval_array(nm_eval *e, const char *file, double **data, int *ndim, int64_t shape[3]);
/* Ready scores (--scores) with two dimensions, named by `form` in the message: "[images, texts]". */
noema_status nm_eval_scores(nm_eval *e, const char *form, double **data, int64_t shape[3]);
noema_status nm_eval_integers(nm_eval *e, const char *file, int64_t **data, int64_t *n);
noema_status nm_eval_save(nm_eval *e, const char *path, nm_dtype dtype, const void *data, int64_t rows, int64_t columns); /* .npy */

/* ---- class names and templates (prompts.c) ---- */

typedef struct nm_prompts {
    char **name, **text;      /* text: templates with "{}" */
    char **wnid;              /* [n_names], of WordNet, entries may be NULL; or NULL */
    int64_t n_names, n_texts;
} nm_prompts;
noema_status nm_prompts_read(nm_prompts *p, const noema_eval_options *o, noema_error *err);
void nm_prompts_free(nm_prompts *p);

/* ---- pictures (pictures.c, pictures_open.c) ---- */

typedef struct nm_picture_ref { int set; int64_t row; char *path; /* NULL: row of a data set */ } nm_picture_ref;
typedef struct nm_pictures {
    int64_t n, cap;
    nm_picture_ref *item;
    int64_t *label;            /* [n], -1: none; NULL without labels */
    char **label_name;         /* [classes], NULL: labels are numbers */
    bool numbered;             /* the names lie in the order of the data's own numbers */
    int64_t classes;
    struct nm_dataset **set;
    int n_sets;
    /* captions, each with its picture */
    char **caption;
    int64_t *owner, n_captions, cap_captions;
    bool *bad;                 /* [n]: could not be embedded */
} nm_pictures;

/* Data sets (see noema_eval_options.data) or COCO captions. */
noema_status nm_pictures_open(nm_eval *e, nm_pictures *p, const char *const *data, size_t n);
/* COCO's captions file (coco.c): adds its pictures, and its captions with their owners. */
noema_status nm_coco_captions(nm_eval *e, nm_pictures *p, const char *path);
noema_status nm_pictures_add(nm_pictures *p, char *path /* taken */, noema_error *err); /* a file; its number is n - 1 */
noema_status nm_pictures_add_row(nm_pictures *p, int set, int64_t row, noema_error *err);
noema_status nm_pictures_caption(nm_pictures *p, const char *text, int64_t owner, noema_error *err);
const char *nm_pictures_name(const nm_pictures *p, int64_t i, char buf[512]); /* for messages */
void nm_pictures_free(nm_pictures *p);

/* flags: NOEMA_NORMALIZE, NOEMA_FEATURES. Fills p->bad and reports those. x: [p->n, dim]; rows of bad ones are 0. */
noema_status nm_eval_embed_pictures(nm_eval *e, nm_pictures *p, unsigned flags, nm_vectors *x);
noema_status nm_eval_embed_texts(nm_eval *e, int64_t n, char *const *texts, nm_vectors *x);
noema_status nm_eval_class_vectors(nm_eval *e, const nm_prompts *p, nm_vectors *x);
/* Takes the bad pictures' rows out of x and label (NULL: none); returns how many are left. keep[i]: the old number of row i, or NULL. */
int64_t nm_eval_drop_bad(const nm_pictures *p, nm_vectors *x, int64_t *label, int64_t *keep);

/* ---- re-ranking by an ITM head (rerank.c) ---- */

/* Images [n] as files and texts [m] with their owners, cosines by the vectors; the ranks in t become those of match logit + cosine for the first
 * o.rerank_texts, o.rerank_images of each query; all others stand behind, in order. */
noema_status nm_eval_rerank(nm_eval *e, nm_retrieval *t, const nm_vectors *images, const nm_vectors *texts, const char *const *files,
                            const char *const *text, const int64_t *owner);

/* ---- figures that others published (published.c) ---- */

/* Adds "published": {"row", "metrics": {name: value}, "difference": {...}} where the model's row is in the file. */
noema_status nm_eval_published(nm_eval *e);

#endif
