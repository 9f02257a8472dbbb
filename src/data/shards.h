/* shards.h - writing folders of webdataset shards (ustar, mode 0444, members of a sample sorted by suffix, as webdataset writes them). */
#ifndef NM_SHARDS_H
#define NM_SHARDS_H

#include <stdint.h>
#include <stdio.h>

#include "base/err.h"
#include "base/mem.h"
#include "noema/data.h"

/* A shard has its name when it is complete. */
typedef struct nm_shard { FILE *f; char *path, *temporary; noema_error *err; } nm_shard;
noema_status nm_shard_create(nm_shard *w, const char *path, noema_error *err);
noema_status nm_shard_member(nm_shard *w, const char *key, const char *suffix, const void *data, size_t n);
/* Ends, syncs and names the file; s is not NOEMA_OK: drops it and returns s. */
noema_status nm_shard_close(nm_shard *w, noema_status s);

/* DIR/00012.tar and its like; malloc'd. */
char *nm_shard_path(const char *dir, int64_t shard, const char *suffix);
/* The picture's bytes as they are stored, JPEG, PNG or WebP, and their suffix; *own is to be freed. */
noema_status nm_shard_picture(const noema_dataset_row *row, const void **bytes, size_t *n, const char **suffix, char **own, noema_error *err);

/* DIR/NAME says what the shards of a folder were made of; a folder that says something else is refused. `text` is taken over. */
noema_status nm_shards_claim(const char *dir, const char *name, nm_buf *text, noema_error *err);
/* {..., "parts": [...] as JSON: which files a data set consists of. */
void nm_shards_put_parts(nm_buf *b, const noema_dataset *d);
/* DIR/NAME, atomically. */
noema_status nm_shards_write(const char *dir, const char *name, const nm_buf *b, noema_error *err);
/* DIR/classnames.txt, when there are any. */
noema_status nm_shards_class_names(const noema_dataset *d, const char *dir, noema_error *err);

#endif
