/* loader.h - batches prepared by threads of their own while the trainer computes: decode, augment, preprocess, tokenise.
 * Which rows a batch holds and how each is augmented depends on the seed, the epoch and the place in the epoch alone. */
#ifndef NM_LOADER_H
#define NM_LOADER_H

#include "models/handle.h"
#include "data/dataset.h"
#include "train/augment.h"
#include "train/class_texts.h"
#include "train/trainer.h"

typedef struct nm_loader nm_loader;

typedef struct nm_loader_options {
    int64_t batch;        /* rows per step, of all ranks */
    int rank, ranks;      /* this loader fills rows [rank b / ranks, (rank + 1) b / ranks) of every batch; ranks 0: all */
    uint64_t seed;
    bool shuffle, augment;
    nm_augment augmentation;
    int64_t samples;      /* rows an epoch; 0: all. Passes over the data go on across epochs, so that each row comes once a pass */
    int64_t max_skipped;  /* rows that may be unreadable before the run ends; < 0: a tenth of all, at least 100 */
    const char *ledger;   /* file that names them (ledger.h), or NULL; must outlive the loader */
    bool flip_crops;      /* augmentation as in FLIP: crops of half the area or more, mirrored half the time */
    bool labels;          /* batches hold labels instead of texts */
    const int64_t *pick;  /* the rows to use [n_pick], or NULL: all; must outlive the loader */
    int64_t n_pick;
    bool groups;          /* fill nm_pair_batch.group */
    const nm_class_texts *captions; /* texts by class instead of the rows' own, or NULL */
    int workers;          /* decoding threads; 0: as many as processors */
    void (*failed)(void *user, const char *what, const noema_error *why);
    void *failed_user;
} nm_loader_options;

noema_status nm_loader_new(nm_loader **l, noema_model *model, const nm_dataset *rows, const nm_loader_options *o, noema_error *err);
void nm_loader_free(nm_loader *l);
int64_t nm_loader_steps(const nm_loader *l); /* per epoch; the incomplete last batch is dropped */
/* The batch of a step (epoch * steps + step in epoch), valid until the next call; steps should be asked for in order. Waits for
 * the threads where they are behind; *waited_s counts that. */
noema_status nm_loader_get(nm_loader *l, int64_t step, nm_pair_batch *b, double *waited_s, noema_error *err);
int64_t nm_loader_failures(const nm_loader *l);

#endif
