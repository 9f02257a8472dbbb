/* noema/capfilt.h - CapFilt of BLIP (arXiv 2201.12086, section 3.3) over data sets: captions written by a model beside those of the web, and a
 * filter that keeps the texts that match their picture.
 *
 * Both write webdataset shards to a folder: DIR/00000.tar, ... with a sample for each text, KEY.jpg (png, webp; the bytes as they were),
 * KEY.txt, KEY.source ("web", "synthetic"), KEY.cls where the row has a class; DIR/00000.jsonl with a line for each row of the input,
 * {"row","input","texts":[{"source","text","score","kept"}]} or {"row","input","error"}; DIR/sizes.json, DIR/skipped.jsonl (the rows that could
 * not be used), DIR/classnames.txt. The lines are written batch by batch and a shard when its lines are complete, so that the same call after
 * an interrupt or a kill goes on where it was; its files are those of a call that ran through, whatever the batch. */
#ifndef NOEMA_CAPFILT_H
#define NOEMA_CAPFILT_H

#include <stddef.h>
#include <stdint.h>

#include "noema/data.h"
#include "noema/generate.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct noema_capfilt_options {
    size_t struct_size;
    int64_t shard_rows;          /* rows of the input a shard (1000) */
    size_t batch;                /* pictures a step (16) */
    int64_t max_skipped;         /* so many rows may be unusable; < 0: a tenth of them, at least 100 */
    const noema_generate_options *generate; /* captions; NULL: the model's own. Row i is sampled with seed + i; n_best texts a picture */
    noema_match_options match;   /* filter: head 2 ITM (default), 1 ITC */
    double threshold;            /* filter: ITM probability, or cosine, from which on a text is kept (0.5) */
    int (*progress)(void *user, int64_t done, int64_t total); /* after each step; non-zero stops (NOEMA_E_CANCELLED) */
    void (*failed)(void *user, const char *what, const noema_error *why); /* a row that could not be used, also of an earlier call */
    void *user;
    void *reserved[8];
} noema_capfilt_options;
NOEMA_API void noema_capfilt_options_default(noema_capfilt_options *o);

/* rows of the input, those skipped; texts seen and kept by source. */
typedef struct noema_capfilt_counts { int64_t rows, skipped, web, synthetic, web_kept, synthetic_kept; } noema_capfilt_counts;

/* A caption by the model for every picture, beside the texts that the row has, which are all kept. Needs NOEMA_TASK_CAPTION. */
NOEMA_API noema_status noema_data_caption(noema_session *s, noema_dataset *d, const char *dir, const noema_capfilt_options *o, noema_capfilt_counts *counts,
                                          noema_error *err);
/* The texts that match their picture. Needs NOEMA_TASK_ITM; for ITC a model of pictures and texts. */
NOEMA_API noema_status noema_data_filter(noema_session *s, noema_dataset *d, const char *dir, const noema_capfilt_options *o, noema_capfilt_counts *counts,
                                         noema_error *err);

#ifdef __cplusplus
}
#endif
#endif
