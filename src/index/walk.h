/* walk.h - the picture files of folders, one at a time in the order of their names: memory for one folder's names per level. */
#ifndef NM_WALK_H
#define NM_WALK_H

#include <stdbool.h>

#include "base/err.h"

typedef struct nm_walk nm_walk;
typedef void nm_walk_failed_fn(void *arg, const char *path, const noema_error *why); /* a folder that cannot be read */

/* Pictures below `root` (an absolute path), by extension; links to folders are not followed, they may form rings; hidden names are
 * left out. NULL: out of memory. */
nm_walk *nm_walk_open(const char *root, bool recursive, nm_walk_failed_fn *failed, void *arg);
const char *nm_walk_next(nm_walk *w); /* valid until the next call; NULL at the end */
void nm_walk_close(nm_walk *w);

bool nm_is_picture_name(const char *name);

#endif
