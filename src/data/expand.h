/* expand.h - the notation of several paths in one text. */
#ifndef NM_EXPAND_H
#define NM_EXPAND_H

#include <stddef.h>

#include "base/err.h"

typedef struct nm_paths { char **path; size_t n, cap; } nm_paths;

/* "a.tar::b.tar": several sources; {0000..0009} (padding kept) and {x,y}: several each; "*", "?" and "[" match names in folders, sorted.
 * A path that exists as it is written stays what it is. At most 2^17 paths. */
noema_status nm_paths_expand(nm_paths *p, const char *source, noema_error *err);
noema_status nm_paths_add(nm_paths *p, const char *path, noema_error *err);
void nm_paths_free(nm_paths *p);

#endif
