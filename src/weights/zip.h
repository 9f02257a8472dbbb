/* zip.h - reading zip archives in memory through the central directory: stored members in place, deflated ones inflated. */
#ifndef NM_ZIP_H
#define NM_ZIP_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "weights/strmap.h"

typedef struct nm_zip_entry {
    const char *name;          /* not NUL-terminated: points into the archive */
    size_t name_len;
    const unsigned char *data; /* as stored, checked to lie inside the archive */
    uint64_t stored_size, size;
    uint32_t crc;
    uint16_t method; /* 0 stored, 8 deflated */
} nm_zip_entry;

typedef struct nm_zip {
    const char *path;
    nm_zip_entry *entry;
    size_t n;
    nm_strmap names;
    uint64_t inflate_left; /* bytes that may still be inflated: bounds zip bombs, also of overlapping members */
} nm_zip;

/* The archive's bytes must outlive the nm_zip. zip64 is read; encryption, several disks and overlong directories are refused. */
noema_status nm_zip_open(nm_zip **z, const unsigned char *data, size_t size, const char *path, noema_error *err);
void nm_zip_close(nm_zip *z);
const nm_zip_entry *nm_zip_find(const nm_zip *z, const char *name, size_t len);
/* Inflates a deflated member into dst [e->size] and checks size and CRC. */
noema_status nm_zip_inflate(nm_zip *z, const nm_zip_entry *e, void *dst, noema_error *err);
/* CRC-32 of a stored member against the directory; a recorded 0 means that the writer left it out. */
noema_status nm_zip_check_crc(const nm_zip *z, const nm_zip_entry *e, noema_error *err);

#endif
