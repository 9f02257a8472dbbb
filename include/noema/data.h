/* noema/data.h - making and looking at data sets. */
#ifndef NOEMA_DATA_H
#define NOEMA_DATA_H

#include <stddef.h>
#include <stdint.h>

#include "noema/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Where Debian's fonts-noto-color-emoji puts the font. */
#define NOEMA_EMOJI_FONT "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"

/* Writes the pictures of a bitmap emoji font (OpenType tables CBLC, CBDT) that stand for single characters to DIR as
 * emoji_uXXXX.png, at most `limit` (0: all). n_written may be NULL. */
NOEMA_API noema_status noema_data_emoji(const char *font, const char *dir, size_t limit, size_t *n_written, noema_error *err);

/* Names of classes, or templates of captions, from a file in UTF-8: one per line (outer white space and empty lines dropped), or .json:
 * ["a", ...], [{"label": 0, "name": "a"}, ...] ("synset" counts as name), {"0": "a", ...}. */
typedef struct noema_names noema_names;
NOEMA_API noema_status noema_names_read(noema_names **names, const char *path, noema_error *err);
NOEMA_API void noema_names_free(noema_names *names); /* NULL is fine */
NOEMA_API const char *const *noema_names_items(const noema_names *names, size_t *n); /* as long as the list */

/* ---- data sets (docs/data.md): Parquet, webdataset tar, folders, JSON lines, CSV, tensors ---- */

typedef struct noema_dataset noema_dataset;
typedef struct noema_dataset_options {
    size_t struct_size;
    const char *type;            /* "parquet", "webdataset", "folder", "jsonl", "csv", "tensors"; NULL: by content and name */
    const char *img_key, *caption_key, *label_key; /* columns, or suffixes in a tar; NULL: the usual names */
    const char *const *class_names; /* of label 0, 1, ...; NULL: what the data says */
    size_t n_class_names;
    void *reserved[8];
} noema_dataset_options;

/* source: a file or folder, several joined by "::", with {0000..0009}, {a,b} and * standing for several. o may be NULL. One thread at a time. */
NOEMA_API noema_status noema_dataset_open(noema_dataset **d, const char *source, const noema_dataset_options *o, noema_error *err);
NOEMA_API void noema_dataset_free(noema_dataset *d); /* NULL is fine */
NOEMA_API int64_t noema_dataset_count(const noema_dataset *d);
NOEMA_API int64_t noema_dataset_classes(const noema_dataset *d);                         /* 0: rows have none */
NOEMA_API const char *noema_dataset_class(const noema_dataset *d, int64_t label);        /* NULL: classes are numbers */
NOEMA_API size_t noema_dataset_parts(const noema_dataset *d);
NOEMA_API const char *noema_dataset_part(const noema_dataset *d, size_t i, const char **format, int64_t *rows); /* its path */

/* Valid until the next read. path or bytes: the picture as it is stored. */
typedef struct noema_dataset_row {
    const char *name;            /* what messages call it; also after a failed read */
    const char *path;
    const unsigned char *bytes;
    size_t n_bytes;
    int64_t label;               /* -1: none */
    size_t n_captions;           /* noema_dataset_caption */
    int is_tensor;
    int synthetic;               /* the caption was written by a model: the sample's member `source` says so (webdataset) */
} noema_dataset_row;
NOEMA_API noema_status noema_dataset_read(noema_dataset *d, int64_t i, noema_dataset_row *row, noema_error *err);
NOEMA_API const char *noema_dataset_caption(const noema_dataset *d, size_t k, size_t *bytes); /* of the row read last; not NUL-terminated */
/* Decodes the picture of the row read last. */
NOEMA_API noema_status noema_dataset_decode(noema_dataset *d, int *width, int *height, const char **format, noema_error *err);

/* Rows as webdataset shards: DIR/00000.tar, ... of shard_rows samples (KEY.jpg, KEY.txt, KEY.cls, KEY.source of a
 * synthetic caption), DIR/sizes.json, DIR/classnames.txt. A shard is
 * complete under its name; what is there already is kept, so that a killed conversion goes on where it was. Rows whose picture is missing or
 * no JPEG, PNG or WebP are told to `failed` and left out. progress: non-zero stops after the shard. */
typedef struct noema_convert_options {
    size_t struct_size;
    int64_t shard_rows;          /* 10000 */
    int (*progress)(void *user, int64_t done, int64_t total);
    void (*failed)(void *user, const char *what, const noema_error *why);
    void *user;
    void *reserved[8];
} noema_convert_options;
NOEMA_API void noema_convert_options_default(noema_convert_options *o);
NOEMA_API noema_status noema_dataset_convert(noema_dataset *d, const char *dir, const noema_convert_options *o, noema_error *err);

/* Where Debian's unicode-cldr-core puts the annotations, LANGUAGE.xml. */
#define NOEMA_EMOJI_ANNOTATIONS "/usr/share/unicode/cldr/common/annotations"

/* For the emoji_uXXXX.png of DIR that the first of the CLDR annotation files names, a line in OUT, tabs between: picture, "emoji:XXXX", the
 * name in each file's language, the keywords in each ("|" between them). n_rows may be NULL. */
NOEMA_API noema_status noema_data_emoji_names(const char *dir, const char *const *files, size_t n_files, const char *out, size_t *n_rows, noema_error *err);

#ifdef __cplusplus
}
#endif
#endif
