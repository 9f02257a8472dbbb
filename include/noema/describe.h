/* noema/describe.h - CLIP Interrogator: the prompt that a CLIP model finds nearest to a picture, from a caption and lists of phrases
 * (pharmapsychotic/clip-interrogator 0.6.0). */
#ifndef NOEMA_DESCRIBE_H
#define NOEMA_DESCRIBE_H

#include <stddef.h>

#include "noema/generate.h"
#include "noema/model.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct noema_describer noema_describer;

typedef enum noema_describe_mode { NOEMA_DESCRIBE_BEST, NOEMA_DESCRIBE_FAST, NOEMA_DESCRIBE_CLASSIC, NOEMA_DESCRIBE_NEGATIVE } noema_describe_mode;

typedef struct noema_describer_options {
    size_t struct_size;
    const char *lists;        /* folder with artists.txt, flavors.txt, mediums.txt, movements.txt, negative.txt; NULL: noema's own short lists */
    const char *cache;        /* folder of upstream's MODEL_TABLE.safetensors, read and written; NULL: none */
    const char *model_name;   /* MODEL in those names ('/' and '@' become '_'); NULL: the model's name */
    int chunk_size;           /* 2048 */
    int flavor_intermediate_count; /* 2048 */
    int compat;               /* 1: upstream's lossy two-stage ranking and its sign in negative mode */
    const char *language;     /* "en" (NULL) or "ko": of noema's own lists, and of what is said around the names of artists and sites */
    /* progress of building the tables: labels done and all; non-zero stops */
    int (*progress)(void *user, size_t done, size_t total);
    void *progress_user;
    void *reserved[7];
} noema_describer_options;

NOEMA_API void noema_describer_options_default(noema_describer_options *o);

/* Loads the lists and embeds them (or reads the cache). The session stays in use by the describer: one thread at a time. */
NOEMA_API noema_status noema_describer_create(noema_describer **d, noema_session *s, const noema_describer_options *o, noema_error *err);
NOEMA_API void noema_describer_free(noema_describer *d);

/* The prompt (malloc'd, the caller frees) and its cosine with the picture. caption: not NULL, unless the mode is negative; an empty one, which a
 * caption model may have written, starts the chain of best mode with the best phrase, as upstream does.
 * min_flavors, max_flavors < 0: upstream's defaults (8, and 32; classic 3). Pictures are turned to RGB before the resize. */
NOEMA_API noema_status noema_describe(noema_describer *d, const noema_picture *picture, const char *caption, noema_describe_mode mode, int min_flavors,
                                      int max_flavors, char **prompt, float *score, noema_error *err);

/* The five best labels of a table for a picture, by the cosine with the unrounded text vectors. */
enum { NOEMA_DESCRIBE_TABLES = 5 };
typedef struct noema_table_top { const char *table; size_t n; const char *label[5]; float score[5]; } noema_table_top;
NOEMA_API noema_status noema_describe_analyze(noema_describer *d, const noema_picture *picture, noema_table_top top[NOEMA_DESCRIBE_TABLES], noema_error *err);

#ifdef __cplusplus
}
#endif
#endif
