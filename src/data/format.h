/* format.h - what a format of data files gives to dataset.c. Adding one: a file ending in a const descriptor, one line in formats.c. */
#ifndef NM_DATA_FORMAT_H
#define NM_DATA_FORMAT_H

#include "data/dataset.h"

struct nm_data_format;

/* One file or folder; a format's own struct begins with it. */
typedef struct nm_part {
    const struct nm_data_format *format;
    nm_dataset *owner;
    char *path, *dir;          /* dir: what relative paths in it are relative to */
    int64_t n;
    int32_t *label;            /* [n] or NULL: no labels */
    int32_t *keep;             /* [n, n_keep] patches to keep, or NULL */
    int64_t n_keep;
    bool has_titles;
    size_t bytes;              /* what reading everything would put into the cache; 0: rows are reached one by one */
    const int64_t *block;      /* [n_blocks + 1] first rows of what is read together; NULL: the part is one block */
    int64_t n_blocks;
    bool in_order;             /* to be shuffled by blocks whatever its size (tar) */
} nm_part;

typedef struct nm_data_format {
    const char *name; /* of --dataset-type */
    const char *what; /* "Parquet (.parquet)" */
    size_t size;      /* of its struct */
    /* head: the first bytes of a file, n of them (0 for a folder). */
    bool (*probe)(const char *path, bool folder, const unsigned char *head, size_t n);
    noema_status (*open)(nm_part *part, const nm_dataset_options *o, noema_error *err); /* close is called after a failure as well */
    void (*close)(nm_part *part);
    /* picture false: captions alone are wanted. */
    noema_status (*read)(const nm_part *part, int64_t i, nm_row *row, bool picture, noema_error *err);
} nm_data_format;

extern const nm_data_format nm_format_csv, nm_format_jsonl, nm_format_tensors, nm_format_parquet, nm_format_tar, nm_format_folder;
const nm_data_format *const *nm_data_formats(void); /* NULL-terminated */

/* ---- for the formats ---- */

/* Number of a class name: of the list that the options or an earlier part gave, else a new one. -1 with err: not in the options' list, or no
 * memory. `where` names the row. */
int64_t nm_class_number(nm_dataset *d, const char *name, size_t n, const char *where, noema_error *err);
/* The data's own list of names: *map[k] is the number of its class k (malloc'd). */
noema_status nm_class_list(nm_dataset *d, char *const *names, int64_t n, const char *where, int32_t **map, noema_error *err);
/* Checks a class number that the data gives as a number. */
noema_status nm_class_check(nm_dataset *d, int64_t label, const char *where, noema_error *err);
/* "12": a number stays what it is; else the number of a name. */
int64_t nm_class_of_text(nm_dataset *d, const char *text, size_t n, const char *where, noema_error *err);

nm_cache *nm_dataset_cache(const nm_dataset *d);
/* The row holds the cached value from now on. */
void nm_row_hold(nm_row *row, nm_cached *held);
/* Captions that stand one after the other, each with a NUL; they must live as long as the part or what the row holds. */
bool nm_row_own_titles(nm_row *row, const char *text, int64_t n);
noema_status nm_part_no_memory(const nm_part *p, noema_error *err);

#endif
