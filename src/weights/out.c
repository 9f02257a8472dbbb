/* out.c - see out.h. */
#define _GNU_SOURCE
#include "weights/out.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "base/mem.h"

#define CHUNK_BYTES ((size_t)1 << 20)

static noema_status fail_os(nm_out *o, const char *what, noema_error *err)
{
    return nm_fail(err, NOEMA_E_IO, "%s: cannot %s: %s", o->path, what, strerror(errno));
}

noema_status nm_out_open(nm_out *o, const char *path, noema_error *err)
{
    *o = (nm_out){ .path = nm_strdup(path), .tmp = nm_sprintf("%s.tmp.%ld", path, (long)getpid()) };
    noema_status s = o->path && o->tmp ? NOEMA_OK : nm_fail(err, NOEMA_E_MEMORY, "out of memory");
    if (s == NOEMA_OK && !(o->f = fopen(o->tmp, "wbe")))
        s = fail_os(o, "create", err);
    if (s != NOEMA_OK) {
        free(o->path);
        free(o->tmp);
        *o = (nm_out){ 0 };
    }
    return s;
}

noema_status nm_out_write(nm_out *o, const void *data, size_t size, noema_error *err)
{
    if (size && fwrite(data, 1, size, o->f) != size)
        return fail_os(o, "write", err);
    const unsigned char *p = data;
    for (size_t left = o->want_crc ? size : 0; left;) {
        uInt n = left > (1u << 30) ? 1u << 30 : (uInt)left;
        o->crc = (uint32_t)crc32(o->crc, p, n);
        p += n;
        left -= n;
    }
    o->at += size;
    return NOEMA_OK;
}

/* Gathers along dimension 0, as many rows at a time as fit a chunk; a row that alone is larger goes by its own rows. */
static noema_status gather(nm_out *o, const nm_wview *v, char *buf, noema_error *err)
{
    size_t size = nm_dtype_size(v->dtype);
    int64_t numel = nm_wview_numel(v);
    nm_wview part = *v;
    if (nm_wview_contiguous(v))
        return nm_out_write(o, v->data, (size_t)numel * size, err);
    if ((size_t)numel * size <= CHUNK_BYTES) {
        nm_wview_copy_raw(v, buf);
        return nm_out_write(o, buf, (size_t)numel * size, err);
    }
    int64_t rows = v->shape[0], step = (int64_t)(CHUNK_BYTES / ((size_t)(numel / rows) * size));
    noema_status s = NOEMA_OK;
    for (int64_t r = 0; r < rows && s == NOEMA_OK; r += step ? step : 1) {
        part.data = (const char *)v->data + (size_t)(r * v->stride[0]) * size;
        part.shape[0] = rows - r < step ? rows - r : step;
        if (step == 0) { /* one row is a view of a dimension less */
            part.ndim = v->ndim - 1;
            memcpy(part.shape, v->shape + 1, (size_t)part.ndim * sizeof *part.shape);
            memcpy(part.stride, v->stride + 1, (size_t)part.ndim * sizeof *part.stride);
        }
        s = gather(o, &part, buf, err);
    }
    return s;
}

noema_status nm_out_view(nm_out *o, const nm_wview *v, noema_error *err)
{
    if (nm_wview_numel(v) == 0)
        return NOEMA_OK;
    char *buf = nm_wview_contiguous(v) ? NULL : malloc(CHUNK_BYTES);
    if (!buf && !nm_wview_contiguous(v))
        return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", o->path);
    noema_status s = gather(o, v, buf, err);
    free(buf);
    return s;
}

noema_status nm_out_patch(nm_out *o, uint64_t at, const void *data, size_t size, noema_error *err)
{
    if (fseeko(o->f, (off_t)at, SEEK_SET) != 0 || fwrite(data, 1, size, o->f) != size || fseeko(o->f, (off_t)o->at, SEEK_SET) != 0)
        return fail_os(o, "write", err);
    return NOEMA_OK;
}

noema_status nm_out_close(nm_out *o, noema_status s, noema_error *err)
{
    if (!o->f)
        return s;
    if (s == NOEMA_OK && (fflush(o->f) != 0 || fsync(fileno(o->f)) != 0))
        s = fail_os(o, "write", err);
    if (fclose(o->f) != 0 && s == NOEMA_OK)
        s = fail_os(o, "close", err);
    if (s == NOEMA_OK && rename(o->tmp, o->path) != 0)
        s = fail_os(o, "rename into place", err);
    if (s != NOEMA_OK)
        unlink(o->tmp);
    free(o->path);
    free(o->tmp);
    *o = (nm_out){ 0 };
    return s;
}
