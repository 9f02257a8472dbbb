/* npy.c - numpy arrays: one per .npy, several in .npz (a zip of them). Format: numpy/lib/format.py. */
#include <stdlib.h>
#include <string.h>

#include "weights/container.h"

#define HEADER_LIMIT 65536

static const struct { const char *descr; nm_dtype dtype; } dtypes[] = {
    { "<f4", NM_F32 }, { "<f2", NM_F16 }, { "<f8", NM_F64 }, { "|i1", NM_I8 },  { "|u1", NM_U8 },  { "<i1", NM_I8 },
    { "<u1", NM_U8 },  { "<i2", NM_I16 }, { "<i4", NM_I32 }, { "<i8", NM_I64 }, { "|b1", NM_BOOL },
};

/* The header is a Python dict literal with three keys: a cursor over it, never past end. */
typedef struct cursor { const char *p, *end; } cursor;

static void skip(cursor *c)
{
    while (c->p < c->end && (*c->p == ' ' || *c->p == '\n' || *c->p == '\t' || *c->p == '\r'))
        c->p++;
}

static bool accept(cursor *c, char ch)
{
    skip(c);
    if (c->p >= c->end || *c->p != ch)
        return false;
    c->p++;
    return true;
}

/* 'text' or "text" without escapes. */
static bool string(cursor *c, char *out, size_t size)
{
    skip(c);
    if (c->p >= c->end || (*c->p != '\'' && *c->p != '"'))
        return false;
    char quote = *c->p++;
    size_t n = 0;
    for (; c->p < c->end && *c->p != quote; c->p++)
        if (*c->p == '\\' || n + 1 >= size)
            return false;
        else
            out[n++] = *c->p;
    out[n] = 0;
    return accept(c, quote);
}

static bool word(cursor *c, const char *w)
{
    size_t n = strlen(w);
    skip(c);
    if ((size_t)(c->end - c->p) < n || memcmp(c->p, w, n) != 0)
        return false;
    c->p += n;
    return true;
}

static bool tuple(cursor *c, nm_wview *v)
{
    if (!accept(c, '('))
        return false;
    v->ndim = 0;
    while (!accept(c, ')')) {
        int64_t d = 0;
        skip(c);
        const char *first = c->p;
        for (; c->p < c->end && *c->p >= '0' && *c->p <= '9'; c->p++)
            if (__builtin_mul_overflow(d, 10, &d) || __builtin_add_overflow(d, *c->p - '0', &d))
                return false;
        if (c->p == first || v->ndim == NM_WVIEW_DIMS)
            return false;
        if (c->p < c->end && *c->p == 'L') /* numpy under Python 2 */
            c->p++;
        v->shape[v->ndim++] = d;
        if (!accept(c, ',')) {
            if (!accept(c, ')'))
                return false;
            break;
        }
    }
    return true;
}

static noema_status read_literal(nm_wview *v, bool *fortran, const char *text, size_t len, const char *what, noema_error *err)
{
    cursor c = { text, text + len };
    char key[32], descr[32] = "";
    bool have_order = false, have_shape = false, ok = accept(&c, '{');
    while (ok && !accept(&c, '}')) {
        ok = string(&c, key, sizeof key) && accept(&c, ':');
        if (ok && strcmp(key, "descr") == 0) {
            skip(&c);
            if (c.p < c.end && *c.p == '[')
                return nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: structured numpy arrays are not read here", what);
            ok = string(&c, descr, sizeof descr);
        } else if (ok && strcmp(key, "fortran_order") == 0) {
            *fortran = word(&c, "True");
            ok = have_order = *fortran || word(&c, "False");
        } else if (ok && strcmp(key, "shape") == 0)
            ok = have_shape = tuple(&c, v);
        else
            ok = false;
        accept(&c, ',');
    }
    if (!ok || !*descr || !have_order || !have_shape)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: expected a numpy header with descr, fortran_order and a shape of at most %d dimensions", what,
                       NM_WVIEW_DIMS);
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++)
        if (strcmp(descr, dtypes[i].descr) == 0) {
            v->dtype = dtypes[i].dtype;
            return NOEMA_OK;
        }
    return nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: numpy dtype '%s' is not read here", what, descr);
}

/* The array in data[0..size); its view points into data, which may be unaligned. */
static noema_status read_npy(nm_wview *v, const unsigned char *data, size_t size, const char *what, noema_error *err)
{
    if (size < 10 || memcmp(data, "\x93NUMPY", 6) != 0)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: expected a numpy array", what);
    int major = data[6];
    if (major < 1 || major > 3)
        return nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: numpy format version %d, expected 1 to 3", what, major);
    size_t at = major == 1 ? 10 : 12, len = (size_t)data[8] | (size_t)data[9] << 8;
    if (major > 1 && size >= 12)
        len |= (size_t)data[10] << 16 | (size_t)data[11] << 24;
    if (size < at || len > size - at || len > HEADER_LIMIT)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: numpy header of %zu bytes in %zu: truncated or damaged", what, len, size);
    bool fortran = false;
    noema_status s = read_literal(v, &fortran, (const char *)data + at, len, what, err);
    if (s != NOEMA_OK)
        return s;
    int64_t numel, step = 1;
    if (!nm_shape_product(v->ndim, v->shape, &numel))
        return nm_fail(err, NOEMA_E_LIMIT, "%s: the shape is too large", what);
    size_t bytes = (size_t)numel * nm_dtype_size(v->dtype);
    if (bytes != size - at - len)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: the shape needs %zu bytes, %zu follow: truncated or damaged", what, bytes, size - at - len);
    nm_wview_set_contiguous(v);
    for (int i = 0; fortran && i < v->ndim; i++) {
        v->stride[i] = step;
        step *= v->shape[i] ? v->shape[i] : 1;
    }
    v->data = data + at + len;
    return NOEMA_OK;
}

static noema_status add_npy(nm_weights *w, const nm_wfile *f, const unsigned char *data, size_t size, const char *name, size_t name_len,
                            const char *what, noema_error *err)
{
    nm_wview v = { 0 };
    noema_status s = read_npy(&v, data, size, what, err);
    if (s != NOEMA_OK)
        return s;
    v.data = nm_weights_aligned(w, v.data, (size_t)(data + size - (const unsigned char *)v.data), nm_dtype_size(v.dtype));
    if (!v.data)
        return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", f->path);
    return nm_weights_add(w, f, &v, name, name_len, err);
}

static bool probe_npy(const nm_wfile *f)
{
    return f->size >= 6 && memcmp(f->data, "\x93NUMPY", 6) == 0;
}

/* The only array of a file is named arr_0, as numpy.savez would. */
static noema_status open_npy(nm_weights *w, nm_wfile *f, const nm_weights_options *o, noema_error *err)
{
    (void)o;
    return add_npy(w, f, f->data, f->size, "arr_0", 5, f->path, err);
}

const nm_container nm_container_npy = { "npy", probe_npy, open_npy };

static bool is_npy(const nm_zip_entry *e) { return e->name_len > 4 && memcmp(e->name + e->name_len - 4, ".npy", 4) == 0; }

static bool probe_npz(const nm_wfile *f)
{
    for (size_t i = 0; f->zip && i < f->zip->n; i++)
        if (!is_npy(&f->zip->entry[i]))
            return false;
    return f->zip && (f->zip->n > 0 || nm_has_suffix(f->path, ".npz"));
}

static noema_status open_npz(nm_weights *w, nm_wfile *f, const nm_weights_options *o, noema_error *err)
{
    (void)o;
    noema_error local = NOEMA_ERROR_INIT;
    noema_status s = NOEMA_OK;
    for (size_t i = 0; i < f->zip->n && s == NOEMA_OK; i++) {
        const nm_zip_entry *e = &f->zip->entry[i];
        const unsigned char *data = nm_weights_member(w, f, e, &local);
        char what[600];
        snprintf(what, sizeof what, "%.300s: %.*s", f->path, e->name_len > 200 ? 200 : (int)e->name_len, e->name);
        s = data ? add_npy(w, f, data, e->size, e->name, e->name_len - 4, what, &local) : local.code;
    }
    return s == NOEMA_OK ? s : nm_fail(err, s, "%s", local.message);
}

const nm_container nm_container_npz = { "npz", probe_npz, open_npz };
