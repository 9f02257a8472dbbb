/* tar.h - members of a tar archive in memory: ustar, GNU long names, pax headers, base-256 sizes, with or without end blocks. */
#ifndef NM_TAR_H
#define NM_TAR_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/mem.h"

typedef struct nm_tar {
    const unsigned char *data;
    size_t size, at;
    const char *file;      /* for messages */
    nm_buf name, pax_name; /* of the member */
} nm_tar;

typedef struct nm_tar_member { const char *name; size_t at, size; } nm_tar_member; /* bytes [at, at + size) of data; name until the next call */

/* The next regular member; *more false at the end. A header that is damaged or a member that is cut off is an error. */
noema_status nm_tar_next(nm_tar *t, nm_tar_member *m, bool *more, noema_error *err);
void nm_tar_free(nm_tar *t); /* what it allocated */

/* webdataset's rule: the key is the path up to the first dot after the last slash, the suffix the rest. False: no member of a sample
 * (no dot, hidden, "__metadata__"). *key_bytes: length of the key; the suffix begins at name + *key_bytes + 1. */
bool nm_tar_key(const char *name, size_t *key_bytes);

#endif
