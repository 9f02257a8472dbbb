/* npy_write.c - .npy files, row by row. Format: numpy/lib/format.py version 1.0. The header has room for any count (numpy's own growth
 * padding is 20 digits), so that closing rewrites it in place. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "weights/out.h"

#define HEADER_BYTES 192 /* a multiple of 64, as numpy aligns data; 6 dimensions of 19 digits fit */

struct nm_npy_writer {
    nm_out out;
    nm_dtype dtype;
    int row_ndim;
    int64_t row_shape[NM_WVIEW_DIMS], rows;
    size_t row_bytes;
};

static const char *const descr[NM_DTYPES] = {
    [NM_F32] = "<f4", [NM_F16] = "<f2", [NM_F64] = "<f8", [NM_I8] = "|i1",   [NM_U8] = "|u1",
    [NM_I16] = "<i2", [NM_I32] = "<i4", [NM_I64] = "<i8", [NM_BOOL] = "|b1",
};

/* `shape` as Python writes a tuple: "()", "(3,)", "(3, 4)". */
static void make_header(char h[HEADER_BYTES], nm_dtype t, int ndim, const int64_t *shape)
{
    char text[160];
    size_t n = 0;
    for (int i = 0; i < ndim; i++)
        n += (size_t)snprintf(text + n, sizeof text - n, "%s%lld", i ? ", " : "", (long long)shape[i]);
    text[n] = 0;
    memset(h, ' ', HEADER_BYTES);
    memcpy(h, "\x93NUMPY\1", 7);
    h[7] = 0;
    h[8] = (char)(unsigned char)(HEADER_BYTES - 10);
    h[9] = 0;
    char dict[HEADER_BYTES];
    int len = snprintf(dict, sizeof dict, "{'descr': '%s', 'fortran_order': False, 'shape': (%s%s), }", descr[t], text, ndim == 1 ? "," : "");
    memcpy(h + 10, dict, (size_t)len);
    h[HEADER_BYTES - 1] = '\n';
}

static noema_status check_dtype(nm_dtype t, const char *path, noema_error *err)
{
    if ((unsigned)t < NM_DTYPES && descr[t])
        return NOEMA_OK;
    return nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: numpy has no bf16; write f32 or f16", path);
}

noema_status nm_npy_open(nm_npy_writer **out, const char *path, nm_dtype dtype, int row_ndim, const int64_t *row_shape, noema_error *err)
{
    *out = NULL;
    noema_status s = check_dtype(dtype, path, err);
    if (s != NOEMA_OK)
        return s;
    if (row_ndim < 0 || row_ndim >= NM_WVIEW_DIMS)
        return nm_fail(err, NOEMA_E_ARGUMENT, "%s: rows of %d dimensions, at most %d", path, row_ndim, NM_WVIEW_DIMS - 1);
    nm_npy_writer *w = calloc(1, sizeof *w);
    if (!w)
        return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", path);
    w->dtype = dtype;
    w->row_ndim = row_ndim;
    w->row_bytes = nm_dtype_size(dtype);
    for (int i = 0; i < row_ndim && s == NOEMA_OK; i++) {
        w->row_shape[i] = row_shape[i];
        if (row_shape[i] < 0 || !nm_mul_size(w->row_bytes, (size_t)row_shape[i], &w->row_bytes))
            s = nm_fail(err, NOEMA_E_ARGUMENT, "%s: row shape too large", path);
    }
    char header[HEADER_BYTES] = { 0 };
    if (s == NOEMA_OK)
        s = nm_out_open(&w->out, path, err);
    if (s == NOEMA_OK)
        s = nm_out_write(&w->out, header, sizeof header, err);
    if (s != NOEMA_OK) {
        nm_npy_discard(w);
        return s;
    }
    *out = w;
    return NOEMA_OK;
}

noema_status nm_npy_append(nm_npy_writer *w, const void *rows, int64_t n_rows, noema_error *err)
{
    size_t bytes;
    if (n_rows < 0 || !nm_mul_size((size_t)n_rows, w->row_bytes, &bytes) || n_rows > INT64_MAX - w->rows)
        return nm_fail(err, NOEMA_E_ARGUMENT, "%s: too many rows", w->out.path);
    noema_status s = nm_out_write(&w->out, rows, bytes, err);
    if (s == NOEMA_OK)
        w->rows += n_rows;
    return s;
}

noema_status nm_npy_close(nm_npy_writer *w, noema_error *err)
{
    int64_t shape[NM_WVIEW_DIMS] = { w->rows };
    char header[HEADER_BYTES];
    memcpy(shape + 1, w->row_shape, (size_t)w->row_ndim * sizeof *shape);
    make_header(header, w->dtype, w->row_ndim + 1, shape);
    noema_status s = nm_out_patch(&w->out, 0, header, sizeof header, err);
    s = nm_out_close(&w->out, s, err);
    free(w);
    return s;
}

void nm_npy_discard(nm_npy_writer *w)
{
    if (!w)
        return;
    (void)nm_out_close(&w->out, NOEMA_E_CANCELLED, NULL);
    free(w);
}

noema_status nm_npy_write(const char *path, const nm_wview *v, noema_error *err)
{
    char header[HEADER_BYTES];
    nm_out o = { 0 };
    noema_status s = check_dtype(v->dtype, path, err);
    if (s != NOEMA_OK || (s = nm_out_open(&o, path, err)) != NOEMA_OK)
        return s;
    make_header(header, v->dtype, v->ndim, v->shape);
    s = nm_out_write(&o, header, sizeof header, err);
    if (s == NOEMA_OK)
        s = nm_out_view(&o, v, err);
    return nm_out_close(&o, s, err);
}
