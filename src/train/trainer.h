/* trainer.h - one optimizer step: forward with a tape, the task's loss, backward, clipping, update.
 *
 * Order of a step (open_clip): learning rate, zero gradients, forward, backward, clip by global norm, optimizer, clamp of logit_scale to
 * [0, ln 100], average of weights. With accum > 1 the batch is cut into micro-batches: pass 1 without a tape collects all features, the
 * loss is taken over the whole batch, pass 2 runs each micro-batch again with a tape and feeds its share of the feature gradients
 * (GradCache, arXiv 2101.06983); every gradient equals that of the large batch and logit_scale's is counted once. */
#ifndef NM_TRAINER_H
#define NM_TRAINER_H

#include "models/model.h"
#include "tensor/tape.h"
#include "train/head.h"
#include "train/lora.h"
#include "train/optim.h"
#include "train/ranks.h"
#include "train/task.h"

typedef struct nm_train_param {
    char *name;        /* in the family's saved names */
    char *part[NM_MAX_PARTS]; /* names of the tensors that files hold in its place, equal shares of dimension 0 (q, k and v apart); n_parts 1: name */
    int n_parts;
    nm_weight *w;
    nm_grad grad;
    size_t n;
    bool decayed, frozen;
    bool buffer, counter; /* running statistics of a batch norm, and how often they moved (int64 in files): saved and averaged, never optimised */
    nm_layout layout;  /* of the file: [in, out] for visual.proj, text_projection */
    double lr_scale;
    float *m, *v, *ema; /* optimiser state and average, [n]; NULL where not in use */
} nm_train_param;

typedef struct nm_train_options {
    nm_opt opt;
    nm_schedule schedule;
    double weight_decay, clip_norm, ema_decay; /* 0: off */
    bool siglip, unicl, ema_warmup;
    bool lock_image, lock_text;
    bool freeze_bn_stats;   /* batch norms of what lock_image locks use their running statistics and leave them; else they go with each batch */
    int unlocked_groups;    /* of a locked image tower: its last groups (groups.h) are trained after all */
    int text_unlocked;      /* the same of a locked text tower */
    bool freeze_layer_norm; /* and of its LayerNorms, where it is one of transformers; open_clip trains those unless told */
    double image_layer_decay, text_layer_decay; /* learning rate times decay^(depth from the end); 0: off */
    nm_lora_options lora;   /* rank 0: off; else adapters (and a head) are all that is trained */
    const nm_task *task;    /* NULL: nm_task_pairs */
    double contrastive_weight, caption_weight; /* of nm_task_coca and nm_task_captions */
    nm_head *head;          /* of nm_task_labels, trained with the model */
    double label_smoothing;
    bool decay_head_bias;   /* a linear probe: torch's optimizers decay all they are given */
    double patch_dropout;   /* share of the patches left out of every training picture, at random; 0: none */
    double text_mask_ratio; /* share of the positions left out of every training text; 0: none */
    bool text_mask_random;  /* any of them; else padding first */
    bool flip_groups;       /* weight decay as in FLIP: all but biases, norms and positions, so also class token and logit_scale */
    nm_ranks ranks;         /* size 0 or 1: one process. Each has its own rows of every batch; gradients are averaged */
    int64_t accum;
    bool checkpointing;     /* blocks keep their input only and run again in the backward */
    nm_dtype compute; /* NM_F32 or NM_BF16 (weights stay f32) */
    uint64_t seed;
} nm_train_options;

struct nm_trainer_;
typedef struct nm_trainer {
    nm_model *model;
    nm_train_options o;
    nm_train_param *params; /* order: as PyTorch's named_parameters of open_clip's CLIP */
    size_t n_params, cap_params;
    nm_lora *lora;          /* NULL: none */
    struct nm_gradsum *sum; /* NULL: one process */
    bool image_trains, text_trains;
    nm_train_param *logit_scale, *logit_bias;
    nm_pool *pool;
    nm_arena *arena;
    nm_run run;
    int64_t step;           /* steps done: place in the run and in its schedule */
    int64_t updates;        /* those that the optimizer's state has seen: fewer where a scaler skipped some of a file's */
    nm_keep keep;           /* of the batch in work, rows as its pictures; n 0: all patches */
    nm_keep words;          /* the same of the positions of its texts */
    double label_weight;    /* of a token of its captions */
    char failed_at[192];    /* after NaN or Inf: the first layer or parameter that has it */
} nm_trainer;

/* images f32 [n, 3, h, w] as the model gets them. */
typedef struct nm_pair_batch {
    int64_t n;
    int64_t first;         /* place of its first row in the batch of all ranks */
    const float *images;
    nm_texts texts;
    const int64_t *labels; /* [n], with nm_task_labels */
    const int64_t *group;  /* [n]: equal numbers mean the same class or text (unicl), or NULL */
    nm_keep keep;          /* patches to keep [n, keep.n] in place of random ones; keep.n 0: none given */
} nm_pair_batch;

typedef struct nm_step_result {
    double loss, lr, grad_norm, logit_scale, flops /* run in the step */;
    double row_loss; /* the part of the loss that is the task's row loss */
} nm_step_result;

/* Turns every parameter of the model into trainable f32 (the model must not be shared from now on). */
noema_status nm_trainer_new(nm_trainer **t, nm_model *model, nm_pool *pool, const nm_train_options *o, noema_error *err);
void nm_trainer_free(nm_trainer *t);
/* NOEMA_E_FORMAT with failed_at filled when the loss or a gradient is not finite: nothing was updated. */
noema_status nm_trainer_step(nm_trainer *t, const nm_pair_batch *b, nm_step_result *result, noema_error *err);
/* NOEMA_E_FORMAT with failed_at filled when the last update left a weight that is not finite: no file should hold it. */
noema_status nm_trainer_check(nm_trainer *t, noema_error *err);
/* Loss without an update (validation). */
noema_status nm_trainer_loss(nm_trainer *t, const nm_pair_batch *b, double *loss, noema_error *err);
/* The averages become the weights, and the weights the averages (twice: as before, bit for bit). Without averages nothing happens. */
void nm_trainer_swap_averages(nm_trainer *t);
double nm_trainer_log_scale(const nm_trainer *t); /* logit_scale as the loss uses it, a logarithm; 0 where the model has none */

/* checkpoint.c: open_clip's epoch_N.pt. `samples_seen` < 0: left out. */
noema_status nm_trainer_save(const nm_trainer *t, const char *path, const char *name, int64_t epoch, int64_t samples_seen, noema_error *err);
/* Restores weights, optimiser state, averages and step from a file of ours or open_clip's (both layouts). *epoch: completed epochs; *step:
 * global_step, or -1 where the file has none. Everything is checked before anything is changed. */
noema_status nm_trainer_load(nm_trainer *t, const char *path, int64_t *epoch, int64_t *step, noema_error *err);

/* What such a file says of its place in the run; *step -1 where it says nothing. */
noema_status nm_trainer_peek(const char *path, int64_t *epoch, int64_t *step, noema_error *err);

#endif
