/* folder.h - which files make up a checkpoint: a file, a folder, an index of shards. */
#ifndef NM_WEIGHTS_FOLDER_H
#define NM_WEIGHTS_FOLDER_H

#include <jansson.h>

#include "weights/weights.h"

typedef struct nm_file_list {
    char **path;
    size_t n, cap;
    json_t *index;    /* the last index.json read, or NULL: its weight_map is checked by nm_check_weight_map */
    char *index_path;
} nm_file_list;

noema_status nm_checkpoint_files(nm_file_list *list, const char *path, noema_error *err); /* appends */
/* Every tensor that the index promises is there. */
noema_status nm_check_weight_map(const nm_weights *w, const nm_file_list *list, noema_error *err);
void nm_file_list_free(nm_file_list *list);

bool nm_zarr_folder(const char *path);        /* zarr.c: some folder in it is a zarr array */
uint64_t nm_folder_bytes(const char *path);   /* the sizes of the files directly in it, and in folders below (a few levels) */

#endif
