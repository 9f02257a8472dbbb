/* file.h - reading, mapping and atomically writing files. Every path is UTF-8 bytes, passed through untouched. */
#ifndef NM_FILE_H
#define NM_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* A read-only private mapping. An empty file maps to data == NULL, size == 0. Unmap with nm_unmap. */
typedef struct nm_map { const unsigned char *data; size_t size; } nm_map;

noema_status nm_map_file(nm_map *m, const char *path, noema_error *err);
void nm_unmap(nm_map *m);
/* Gives the pages of [p, p + size) back when they belong to a mapping: they are read from the file again when they are touched. */
void nm_map_release(const void *p, size_t size);

/* The whole file in a malloc'd buffer with a NUL after it; refuses files over `limit_bytes`. */
noema_status nm_read_file(char **data, size_t *size, const char *path, size_t limit_bytes, noema_error *err);

/* Its lines without blanks around them, empty ones left out; free with nm_strings_free. */
#define NM_LINES_LIMIT ((size_t)64 << 20)
noema_status nm_read_lines(char ***line, int64_t *n, const char *path, size_t limit_bytes, noema_error *err);

/* Writes to PATH.tmp.PID, fsyncs, renames over PATH: a reader sees the old file or the new one, never a part. */
noema_status nm_write_file_atomic(const char *path, const void *data, size_t size, noema_error *err);

bool nm_file_exists(const char *path);  /* a regular file */
bool nm_dir_exists(const char *path);
noema_status nm_mkdirs(const char *path, noema_error *err); /* mkdir -p */
char *nm_path_join(const char *dir, const char *name);      /* malloc'd; an absolute name wins */
char *nm_path_dir(const char *path);                        /* malloc'd; "." when there is no slash */
const char *nm_path_base(const char *path);                 /* points into path */
bool nm_has_suffix(const char *s, const char *suffix);      /* ASCII case-insensitive */

#endif
