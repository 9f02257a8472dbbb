/* noema/train.h - train a two-tower model contrastively (a run is a folder that survives kill -9), or fit a linear probe. */
#ifndef NOEMA_TRAIN_H
#define NOEMA_TRAIN_H

#include "noema/context.h"
#include "noema/model.h"

#ifdef __cplusplus
extern "C" {
#endif

/* After each optimizer step. loss: of the whole batch before the update; grad_norm before clipping; logit_scale: the stored logarithm
 * after the update. */
typedef struct noema_train_step {
    int64_t step, total_steps; /* from 0 */
    int64_t epoch, epochs;     /* from 0 */
    double lr, loss, grad_norm, logit_scale;
    double samples_per_second, data_wait; /* share of the time spent waiting for data, 0..1 */
    double flops_per_second, peak;        /* of the products, convolutions and attention that the step ran; the processor's most (0: not known) */
} noema_train_step;

/* Non-zero stops the run after this step (a checkpoint is written first). */
typedef int noema_train_fn(void *user, const noema_train_step *step);

/* What a run measures on val_data. Ranks count from 1; recall at 1, 5 and 10. */
typedef struct noema_train_ranks { double recall[3], median, mean; } noema_train_ranks;
typedef struct noema_train_validation {
    int64_t epoch;                  /* epochs done */
    int64_t rows, skipped;          /* measured, and left out because they cannot be read */
    const noema_error *first_skipped; /* why the first of those was, or NULL; valid during the call */
    int averaged;                   /* the averaged weights (ema_decay) were measured */
    double loss;                    /* mean over the rows: contrastive in batches of batch_size (pairs), cross-entropy over the classes */
    int64_t classes;                /* 0: the rows are pairs, and the ranks below hold; else top1 and top5 */
    int head;                       /* classes by a trained head (noema_finetune), not by their texts */
    noema_train_ranks image_to_text, text_to_image;
    double top1, top5;              /* shares */
} noema_train_validation;
typedef void noema_train_validated_fn(void *user, const noema_train_validation *v);

/* Names and meanings are open_clip's where it has the option. Zeros and NULLs mean the default stated behind each. */
typedef struct noema_train_options {
    size_t struct_size;
    const char *model;          /* start from these weights, or NULL: draw them for `config` */
    const char *config;         /* open_clip configuration (JSON file) or an architecture's name ("ViT-B-32") */
    const char *init;           /* with config: a model whose weights replace the drawn ones of the same name and shape, or NULL */
    const char *tokenizer;
    const char *preprocess;
    const char *train_data;     /* docs/data.md: Parquet, .jsonl, .csv, .tsv, .safetensors; several joined by "::", {00..09} and * stand for several */
    const char *val_data;       /* rows that are measured after epochs, and in noema_finetune's report; or NULL */
    int64_t val_frequency;      /* 1: after every n-th epoch, and the last; 0: never */
    int64_t val_num_samples;    /* 0: all; the first n rows of val_data */
    const char *logs;           /* "logs" */
    const char *name;           /* "run" */
    const char *resume;         /* file, "latest" or NULL */
    const char *img_key, *caption_key, *label_key; /* columns; NULL: the usual names of each format ("filepath", "title", "label") */
    const char *dataset_type;   /* a format's name; NULL: by content and name */
    const char *const *class_names; /* of label 0, 1, ...; NULL: what the data says */
    size_t n_class_names;
    const char *const *templates; /* captions of rows that have a class but no caption: "{}" is the name, one is drawn per row and epoch */
    size_t n_templates;
    const char *aug_cfg;        /* "scale=0.5,1 hflip=0.5": docs/data.md; NULL: open_clip's */
    int64_t train_num_samples;  /* rows an epoch; 0: all */
    int64_t max_skipped;        /* unreadable rows before a run ends, all named in LOGS/NAME/skipped.jsonl; < 0: a tenth of all, at least 100 */
    int64_t workers;            /* decoding threads; 0: as many as processors */
    int64_t batch_size;         /* 64; per micro-batch */
    int64_t accum_freq;         /* 1: micro-batches per step, with the gradients of the large batch */
    int64_t epochs;             /* 32 */
    int64_t warmup;             /* 10000 steps; < 0: a tenth of all steps, at most 500 */
    int64_t save_frequency;     /* 1: epochs per checkpoint */
    int64_t save_steps;         /* 0: off; a checkpoint after every n steps too, of which the newest is kept until the epoch's */
    int64_t keep;               /* 0: all; the newest n epoch files alone */
    int save_most_recent;       /* epoch_latest.pt after every epoch */
    int grad_checkpointing;     /* blocks of transformers keep their input only and run again in the backward: the same bits, less memory */
    double lr;                  /* 5e-4 */
    const char *opt;            /* "adamw" | "sgd" | "lion" */
    double beta1, beta2, eps;   /* < 0: 0.9, 0.98, 1e-6 for transformers; 0.9, 0.999, 1e-8 else */
    double momentum;            /* 0.9 with sgd */
    double wd;                  /* 0.2 */
    double grad_clip_norm;      /* 0: off */
    double ema_decay;           /* 0: off */
    int ema_warmup;             /* the decay starts at 0 and rises to ema_decay: 1 - step^(-2/3) */
    double force_patch_dropout; /* share of the patches left out of every training picture at random; < 0: the model's own (vision_cfg.patch_dropout) */
    double text_mask_ratio;     /* share of the positions left out of every training text (FLIP, section 4.1); 0: none */
    const char *text_mask;      /* "prioritized": padding first, then words at random | "random": any but the first */
    const char *recipe;         /* set by noema_train_recipe, or NULL */
    const char *lr_scheduler;   /* "cosine" | "const" | "const-cooldown" */
    int64_t epochs_cooldown;    /* const-cooldown: the last n epochs fall to lr_cooldown_end by (1 - t)^lr_cooldown_power */
    double lr_cooldown_end, lr_cooldown_power; /* 0, 1 */
    const char *precision;      /* "fp32" | "amp_bf16" */
    uint64_t seed;
    int lock_image, lock_text, siglip, no_shuffle, no_augment;
    int64_t lock_image_unlocked_groups; /* of a locked image tower the last n groups are trained: projection, last block with ln_post, ... */
    int lock_image_freeze_bn_stats; /* batch norms of locked layers use their running statistics and leave them; 0: those of each batch move them, as in
                                     open_clip (pairs; a classifier's frozen layers and LoRA always leave them) */
    int64_t lock_text_unlocked_layers; /* the same of a locked text tower */
    int lock_text_freeze_layer_norm; /* of a locked text tower of transformers (XLM-R, BERT): its LayerNorms too; 0: they are trained, as in open_clip */
    double image_layer_decay, text_layer_decay; /* learning rates fall by this factor per group from the end; 0: off */
    int64_t lora_rank;          /* 0: off; else W + alpha / rank * B A on the targets is trained and nothing else of the model */
    double lora_alpha;          /* 0: the rank */
    const char *lora_targets;   /* of q, k, v, out, fc, proj, separated by commas; NULL: "q,v" */
    const char *lora;           /* a safetensors file of adapters to start from, or NULL: A drawn, B zero */
    int unicl;                  /* label-aware loss (arXiv 2204.03610): rows of one label, or of one text, are no false negatives of each other */
    double coca_caption_loss_weight, coca_contrastive_loss_weight; /* of a model with a caption decoder (CoCa): 2, 1; a contrastive weight of 0
                                   trains captions alone */
    const char *captions;       /* .jsonl, {"label", "captions": [...]}: each row gets one text of its label's at random in every epoch; or NULL */
    noema_train_fn *progress;
    void *progress_user;
    noema_train_validated_fn *validated; /* after each validation */
    void *validated_user;
    /* called for each row that cannot be used; the others go on */
    void (*failed)(void *user, const char *what, const noema_error *why);
    void *failed_user;
    void *reserved[16];
} noema_train_options;

NOEMA_API void noema_train_options_default(noema_train_options *o);

/* Sets what a published recipe says, to be overridden afterwards. "flip" (arXiv 2212.00794, facebookresearch/flip): AdamW with betas 0.9, 0.95,
 * eps 1e-8, decay 0.2 of all but biases, norms and positions; lr 4e-6 * batch / 256 (lr < 0); warm-up from 0 over 40 * (1281167 / batch)
 * steps (warmup < 0); half of the patches left out; crops of half the area or more, mirrored half the time. */
NOEMA_API noema_status noema_train_recipe(noema_train_options *o, const char *recipe, noema_error *err);

/* Runs to the end of the last epoch. Writes LOGS/NAME: config.json, log.jsonl, curves.svg, checkpoints/epoch_N.pt (open_clip's layout),
 * the model as open_clip_model.safetensors (with LoRA: merged) and lora.safetensors, the adapters alone.
 * NOEMA_E_FORMAT with the step and layer in the message when the loss or a gradient is not finite: what was written before stays. */
/* Started by `mpirun -n R` (where the build has MPI): batch_size is that of all R processes, each takes its R-th part of every batch; features
 * are gathered, gradients averaged, and rank 0 writes the run. The trajectory is that of one process. */
NOEMA_API int noema_train_rank(void); /* of this process; 0 alone */
NOEMA_API noema_status noema_train(noema_context *ctx, const noema_train_options *o, noema_error *err);

/* ---- fine-tuning a classifier ---- */

/* The image tower, its output before the projection (NOEMA_FEATURES), and a linear head on `label` of the rows, trained by cross-entropy. A
 * run as above, with head.safetensors (head.weight, head.bias, names of the classes) beside the model, and at its end report.json and
 * report.txt: accuracy before and after on val_data, else on the training rows, with 95 % intervals, for each class. */
typedef struct noema_finetune_options {
    size_t struct_size;
    noema_train_options train;   /* model is needed. LoRA trains adapters of the image tower and the head */
    const char *head;            /* start of the head: a safetensors file, or NULL */
    int head_from_text;          /* start of the head: class vectors of the labels' names in `templates`, so that it answers as zero-shot
                                    classification does; else, without `head`: zeros */
    const char *const *labels;   /* names of the classes by number, or NULL: those of the data */
    size_t n_labels;
    const char *const *templates; /* "{}" is the label; n_templates 0: the label alone */
    size_t n_templates;
    double label_smoothing;
    int64_t unlocked_layers;     /* < 0: all; n: the last n blocks and what follows them; 0: the head alone, as train.lock_image */
    int64_t shots;               /* 0: all rows; else so many of each class, drawn by train.seed */
    double wise_ft;              /* < 0: off; else also (1 - x) start + x result, head included, in LOGS/NAME/wise_ft */
    const char *before;          /* what is measured before: "head" the start of the head, "probe" a linear probe (C = 0.316) on the features of
                                    the start, "none"; NULL: "head" where there is one, else "probe" */
    const char *predictions;     /* .npy, class probabilities f32 [n, classes] of val_data, else of the training rows; or NULL */
    void *reserved[16];
} noema_finetune_options;

typedef struct noema_finetune_result {
    int64_t rows, classes;       /* rows that were trained on */
    int64_t trained_parameters;
    double before, after, wise_ft; /* accuracies; NaN where not measured */
    double interval[2];          /* of after, 95 % (Wilson) */
} noema_finetune_result;

/* Of train: 10 epochs, lr 3e-5, wd 0.1, beta2 0.999, eps 1e-8, warm-up over a tenth of the steps, at most 500 (arXiv 2109.01903). */
NOEMA_API void noema_finetune_options_default(noema_finetune_options *o);
NOEMA_API noema_status noema_finetune(noema_context *ctx, const noema_finetune_options *o, noema_finetune_result *result, noema_error *err);

/* A classifier's head as finetune and probe write it. Immutable once open. */
typedef struct noema_head noema_head;
NOEMA_API noema_status noema_head_open(noema_head **h, const char *path, noema_error *err);
NOEMA_API void noema_head_free(noema_head *h); /* NULL is fine */
NOEMA_API int64_t noema_head_classes(const noema_head *h, int64_t *dim); /* dim: of the features, may be NULL */
NOEMA_API const char *noema_head_class(const noema_head *h, int64_t k);  /* its name; its number where the file has no names */
/* features [n, dim] (NOEMA_FEATURES, not normalised) -> class probabilities [n, classes]. */
NOEMA_API void noema_head_apply(const noema_head *h, int64_t n, const float *features, float *probs);

/* A linear head on fixed features of the image tower (NOEMA_FEATURES), fitted to `label`: the minimum of
 * C * sum of cross-entropies + 1/2 |W|^2 over W [classes, dim] and b [classes]; b is not penalised, features are not standardised.
 * Two classes have two rows. Unreadable pictures are left out. */
typedef struct noema_probe_options {
    size_t struct_size;
    const char *train_data;   /* as in training; every row needs a label */
    const char *val_data;     /* or NULL; labels that are names are matched by name */
    const char *img_key;      /* column of CSV and TSV: "filepath" */
    const char *label_key;    /* the same of the class: "label" */
    const char *out;          /* .safetensors with head.weight [classes, dim] and head.bias [classes], or NULL */
    const char *predictions;  /* .npy, probabilities f32 [n, classes] of val_data, else of the training rows; NaN for unreadable ones; or NULL */
    double C;                 /* 0: swept over 1e-6 .. 1e6 on a fifth of the training rows of each class (arXiv 2103.00020, A.3), then
                                 fitted to all of them */
    uint64_t seed;            /* of the choice of that fifth, and of the shots */
    int64_t shots;            /* 0: all training rows; else so many of each class, drawn by seed, seed + 1, ... */
    int64_t seeds;            /* how many draws of shots (1); accuracies are then means over them */
    void (*message)(void *user, const char *text); /* progress, or NULL */
    void *message_user;
    void (*failed)(void *user, const char *what, const noema_error *why); /* each row that cannot be used */
    void *failed_user;
    void *reserved[15];
} noema_probe_options;

enum { NOEMA_PROBE_SEEDS = 64 };
typedef struct noema_probe_result {
    double C, train_accuracy;
    double val_accuracy;      /* of val_data; without it, of the training rows that no shot drew, or of the part held out at the best C;
                                 NaN where there is none of these */
    double val_std;           /* sample standard deviation over the seeds; NaN for one */
    double val_accuracies[NOEMA_PROBE_SEEDS]; /* of each seed, with shots */
    int64_t seeds;
    double objective;         /* at the minimum */
    int64_t rows, classes, dim, iterations;
    int converged;            /* 0: stopped at 10000 iterations or at the limit of rounding */
} noema_probe_result;

NOEMA_API void noema_probe_options_default(noema_probe_options *o);
NOEMA_API noema_status noema_probe(noema_session *s, const noema_probe_options *o, noema_probe_result *result, noema_error *err);

#ifdef __cplusplus
}
#endif
#endif
