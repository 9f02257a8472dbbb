/* out.h - a file being written beside its final name: buffered, patched if need be, then synced and renamed into place. */
#ifndef NM_WEIGHTS_OUT_H
#define NM_WEIGHTS_OUT_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "weights/weights.h"

typedef struct nm_out {
    FILE *f;
    char *path, *tmp;
    uint64_t at;      /* bytes written so far */
    uint32_t crc;     /* CRC-32 since nm_out_crc_start */
    bool want_crc;
} nm_out;

noema_status nm_out_open(nm_out *o, const char *path, noema_error *err);
noema_status nm_out_write(nm_out *o, const void *data, size_t size, noema_error *err);
/* The elements of a view in row-major order; a contiguous one without a copy. */
noema_status nm_out_view(nm_out *o, const nm_wview *v, noema_error *err);
/* Overwrites bytes written before; the position stays. */
noema_status nm_out_patch(nm_out *o, uint64_t at, const void *data, size_t size, noema_error *err);
/* Ends the file: given NOEMA_OK syncs and renames, otherwise removes it. Returns the first failure. */
noema_status nm_out_close(nm_out *o, noema_status s, noema_error *err);

#endif
