/* npy.c - NumPy's array file (format versions 1 and 2): f32 tensors read by mapping, rows written so that the file is a valid
 * .npy after every batch. The header has room for the largest row count, so growing never moves the data. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli.h"

#define HEADER 128 /* magic, version, length and dictionary, padded with spaces */

static bool fail(noema_error *err, noema_status code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static bool fail(noema_error *err, noema_status code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    err->code = code;
    vsnprintf(err->message, sizeof err->message, fmt, ap);
    va_end(ap);
    return false;
}

/* The text after 'key': in the header's dictionary, or NULL. */
static const char *entry(const char *dict, const char *key)
{
    const char *p = strstr(dict, key);
    if (!p)
        return NULL;
    p += strlen(key);
    p += strspn(p, " ");
    if (*p != ':')
        return NULL;
    return p + 1 + strspn(p + 1, " ");
}

/* "(3, 4, )" -> shape; the product of all dimensions must not overflow and match the bytes there are. */
static bool parse_shape(cli_npy *a, const char *p)
{
    char *end;
    if (!p || *p++ != '(')
        return false;
    a->ndim = 0;
    for (;;) {
        p += strspn(p, " ,");
        if (*p == ')')
            return true;
        long long n = strtoll(p, &end, 10);
        if (end == p || n < 0 || a->ndim == 8)
            return false;
        a->shape[a->ndim++] = n;
        p = end;
    }
}

static bool parse_header(cli_npy *a, const char *path, noema_error *err)
{
    const unsigned char *m = a->map;
    if (a->map_size < 12 || memcmp(m, "\x93NUMPY", 6) || m[6] < 1 || m[6] > 3)
        return fail(err, NOEMA_E_FORMAT, "%s: expected a NumPy array file", path);
    size_t at = m[6] == 1 ? 10 : 12, len = m[8] | (size_t)m[9] << 8;
    if (m[6] > 1)
        len |= (size_t)m[10] << 16 | (size_t)m[11] << 24;
    if (len > a->map_size - at || len > 65536)
        return fail(err, NOEMA_E_FORMAT, "%s: header of %zu bytes in a file of %zu", path, len, a->map_size);
    char *dict = cli_alloc(len + 1, 1);
    memcpy(dict, m + at, len);
    const char *descr = entry(dict, "'descr'"), *order = entry(dict, "'fortran_order'");
    bool f32 = descr && !strncmp(descr, "'<f4'", 5), c_order = order && !strncmp(order, "False", 5);
    bool shape = parse_shape(a, entry(dict, "'shape'"));
    free(dict);
    if (!f32 || !c_order || !shape)
        return fail(err, NOEMA_E_UNSUPPORTED, "%s: expected little-endian f32 in C order ('<f4'), got another kind of array", path);
    size_t n = 1;
    a->row = 1;
    for (int i = 0; i < a->ndim; i++) {
        if (__builtin_mul_overflow(n, (size_t)a->shape[i], &n) || (i && __builtin_mul_overflow(a->row, (size_t)a->shape[i], &a->row)))
            return fail(err, NOEMA_E_LIMIT, "%s: the shape is too large", path);
    }
    if (n > (a->map_size - at - len) / 4)
        return fail(err, NOEMA_E_FORMAT, "%s: truncated: expected %zu values, got %zu", path, n, (a->map_size - at - len) / 4);
    if ((at + len) % 4)
        return fail(err, NOEMA_E_UNSUPPORTED, "%s: the data is not aligned", path);
    a->data = (const float *)(const void *)(m + at + len);
    return true;
}

bool cli_npy_open(cli_npy *a, const char *path, noema_error *err)
{
    struct stat st;
    *a = (cli_npy){ 0 };
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st)) {
        fail(err, NOEMA_E_IO, "%s: %s", path, strerror(errno));
        if (fd >= 0)
            close(fd);
        return false;
    }
    if (!S_ISREG(st.st_mode) || st.st_size < 12) {
        close(fd);
        return fail(err, NOEMA_E_FORMAT, "%s: expected a NumPy array file, got %lld bytes", path, (long long)st.st_size);
    }
    a->map_size = (size_t)st.st_size;
    a->map = mmap(NULL, a->map_size, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    if (a->map == MAP_FAILED) {
        a->map = NULL;
        return fail(err, NOEMA_E_IO, "%s: %s", path, strerror(errno));
    }
    if (!parse_header(a, path, err)) {
        cli_npy_close(a);
        return false;
    }
    return true;
}

void cli_npy_close(cli_npy *a)
{
    if (a->map)
        munmap(a->map, a->map_size);
    *a = (cli_npy){ 0 };
}

/* ---- writing ---- */

static bool io_fail(const cli_npy_out *o, noema_error *err) { return fail(err, NOEMA_E_IO, "%s: cannot write: %s", o->path, strerror(errno)); }

/* Rewrites the header in place: version 1.0, 118 bytes of dictionary. */
static bool put_header(cli_npy_out *o, noema_error *err)
{
    char h[HEADER + 1], dims[96] = "";
    size_t at = 0;
    for (int i = 0; i < o->ndim; i++)
        at += (size_t)snprintf(dims + at, sizeof dims - at, "%lld,", (long long)o->dims[i]);
    memset(h, ' ', HEADER);
    memcpy(h, "\x93NUMPY\x01\x00\x76\x00", 10);
    int n = snprintf(h + 10, HEADER - 10, "{'descr': '%s', 'fortran_order': False, 'shape': (%lld,%s), }", o->type, (long long)o->n, dims);
    if (n < 0 || n >= HEADER - 11)
        return fail(err, NOEMA_E_LIMIT, "%s: the shape is too large", o->path);
    h[10 + n] = ' ';
    h[HEADER - 1] = '\n';
    if (fseeko(o->f, 0, SEEK_SET) || fwrite(h, 1, HEADER, o->f) != HEADER || fseeko(o->f, 0, SEEK_END) || fflush(o->f))
        return io_fail(o, err);
    return true;
}

static void set_up(cli_npy_out *o, const char *path, const char *type, int ndim, const int64_t *dims)
{
    *o = (cli_npy_out){ .path = cli_dup(path), .ndim = ndim };
    snprintf(o->type, sizeof o->type, "%s", type);
    o->row_bytes = type[2] == '4' ? 4 : 1;
    for (int i = 0; i < ndim; i++) {
        o->dims[i] = dims[i];
        o->row_bytes *= (size_t)dims[i];
    }
}

bool cli_npy_create(cli_npy_out *o, const char *path, const char *type, int ndim, const int64_t *dims, noema_error *err)
{
    set_up(o, path, type, ndim, dims);
    o->f = fopen(path, "wb");
    return o->f ? put_header(o, err) : io_fail(o, err);
}

bool cli_npy_append_open(cli_npy_out *o, const char *path, const char *type, int ndim, const int64_t *dims, int64_t keep_rows, noema_error *err)
{
    struct stat st;
    off_t need;
    set_up(o, path, type, ndim, dims);
    need = (off_t)(HEADER + o->row_bytes * (size_t)keep_rows);
    if (!(o->f = fopen(path, "r+b")) || fstat(fileno(o->f), &st))
        return io_fail(o, err);
    if (st.st_size < need)
        return fail(err, NOEMA_E_FORMAT, "%s: expected %lld rows of an interrupted job (%lld bytes), got %lld bytes", path, (long long)keep_rows,
                    (long long)need, (long long)st.st_size);
    if (ftruncate(fileno(o->f), need))
        return io_fail(o, err);
    o->n = keep_rows;
    return put_header(o, err);
}

bool cli_npy_rows(cli_npy_out *o, const void *rows, size_t n, noema_error *err)
{
    if (!n)
        return true;
    if (fwrite(rows, o->row_bytes, n, o->f) != n || fflush(o->f))
        return io_fail(o, err);
    o->n += (int64_t)n;
    return put_header(o, err);
}

bool cli_npy_finish(cli_npy_out *o, noema_error *err)
{
    bool ok = true;
    if (o->f) {
        ok = !fflush(o->f) && !fsync(fileno(o->f));
        if (fclose(o->f))
            ok = false;
        if (!ok)
            io_fail(o, err);
    }
    free(o->path);
    *o = (cli_npy_out){ 0 };
    return ok;
}
