/* torch_write.c - a file that torch.load reads, weights_only included: a stored zip (torch/serialization.py _save) of data.pkl in
 * protocol 2, one member per tensor with its data 64-byte aligned, byteorder and version. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "weights/out.h"

#define TREE_DEPTH 100
#define ALIGN 64

/* ---- the pickle ---- */

typedef struct pickler { nm_buf b; const nm_wview *view; size_t n; const char *path; noema_error *err; } pickler;

static const char *const storage_names[NM_DTYPES] = {
    [NM_F32] = "FloatStorage", [NM_BF16] = "BFloat16Storage", [NM_F16] = "HalfStorage",  [NM_F64] = "DoubleStorage", [NM_I8] = "CharStorage",
    [NM_U8] = "ByteStorage",   [NM_I16] = "ShortStorage",     [NM_I32] = "IntStorage",   [NM_I64] = "LongStorage",   [NM_BOOL] = "BoolStorage",
};

static void put_le(nm_buf *b, uint64_t v, int n)
{
    for (int i = 0; i < n; i++)
        nm_buf_putc(b, (char)(unsigned char)(v >> 8 * i));
}

static void put_int(nm_buf *b, int64_t v)
{
    if (v >= INT32_MIN && v <= INT32_MAX) {
        nm_buf_putc(b, 'J');
        put_le(b, (uint64_t)v, 4);
    } else {
        nm_buf_append(b, "\x8A\x08", 2);
        put_le(b, (uint64_t)v, 8);
    }
}

static void put_str(nm_buf *b, const char *s, size_t n)
{
    nm_buf_putc(b, 'X');
    put_le(b, n, 4);
    nm_buf_append(b, s, n);
}

static void put_float(nm_buf *b, double d)
{
    uint64_t u;
    memcpy(&u, &d, 8);
    nm_buf_putc(b, 'G');
    for (int i = 7; i >= 0; i--)
        nm_buf_putc(b, (char)(unsigned char)(u >> 8 * i));
}

static void put_dims(nm_buf *b, int ndim, const int64_t *d)
{
    nm_buf_putc(b, '(');
    for (int i = 0; i < ndim; i++)
        put_int(b, d[i]);
    nm_buf_putc(b, 't');
}

static void put_tensor(nm_buf *b, const nm_wview *v, size_t key)
{
    char name[32];
    nm_wview flat = *v;
    int64_t step = 1;
    for (int i = v->ndim - 1; i >= 0; i--) {
        flat.stride[i] = step;
        step *= v->shape[i] ? v->shape[i] : 1;
    }
    nm_buf_puts(b, "ctorch._utils\n_rebuild_tensor_v2\n((");
    put_str(b, "storage", 7);
    nm_buf_printf(b, "ctorch\n%s\n", storage_names[v->dtype]);
    put_str(b, name, (size_t)snprintf(name, sizeof name, "%zu", key));
    put_str(b, "cpu", 3);
    put_int(b, nm_wview_numel(v));
    nm_buf_puts(b, "tQ");
    put_int(b, 0);
    put_dims(b, v->ndim, v->shape);
    put_dims(b, v->ndim, flat.stride);
    nm_buf_puts(b, "\x89" "ccollections\nOrderedDict\n)RtR");
}

static noema_status put_value(pickler *p, const json_t *j, int depth);

static noema_status put_items(pickler *p, const json_t *array, int depth)
{
    noema_status s = NOEMA_OK;
    for (size_t i = 0; i < json_array_size(array) && s == NOEMA_OK; i++)
        s = put_value(p, json_array_get(array, i), depth + 1);
    return s;
}

static noema_status put_dict(pickler *p, const json_t *j, bool int_keys, int depth)
{
    const char *key;
    json_t *value;
    nm_buf_puts(&p->b, "}(");
    json_object_foreach((json_t *)(uintptr_t)j, key, value) {
        if (int_keys)
            put_int(&p->b, strtoll(key, NULL, 10));
        else
            put_str(&p->b, key, strlen(key));
        noema_status s = put_value(p, value, depth + 1);
        if (s != NOEMA_OK)
            return s;
    }
    nm_buf_putc(&p->b, 'u');
    return NOEMA_OK;
}

static noema_status put_object(pickler *p, const json_t *j, int depth)
{
    const json_t *x;
    if (json_object_size(j) == 1 && (x = json_object_get(j, "$tensor"))) {
        json_int_t i = json_is_integer(x) ? json_integer_value(x) : -1;
        if (i < 0 || (uint64_t)i >= p->n)
            return nm_fail(p->err, NOEMA_E_ARGUMENT, "%s: $tensor %lld of %zu", p->path, (long long)i, p->n);
        put_tensor(&p->b, &p->view[i], (size_t)i);
        return NOEMA_OK;
    }
    if (json_object_size(j) == 1 && (x = json_object_get(j, "$tuple"))) {
        nm_buf_putc(&p->b, '(');
        noema_status s = put_items(p, x, depth);
        nm_buf_putc(&p->b, 't');
        return s;
    }
    if (json_object_size(j) == 1 && (x = json_object_get(j, "$int_keys")))
        return put_dict(p, x, true, depth);
    return put_dict(p, j, false, depth);
}

static noema_status put_value(pickler *p, const json_t *j, int depth)
{
    noema_status s = NOEMA_OK;
    if (depth > TREE_DEPTH)
        return nm_fail(p->err, NOEMA_E_LIMIT, "%s: tree more than %d deep", p->path, TREE_DEPTH);
    switch (json_typeof(j)) {
    case JSON_OBJECT: return put_object(p, j, depth);
    case JSON_ARRAY:
        nm_buf_puts(&p->b, "](");
        s = put_items(p, j, depth);
        nm_buf_putc(&p->b, 'e');
        break;
    case JSON_STRING: put_str(&p->b, json_string_value(j), json_string_length(j)); break;
    case JSON_INTEGER: put_int(&p->b, json_integer_value(j)); break;
    case JSON_REAL: put_float(&p->b, json_real_value(j)); break;
    case JSON_TRUE: nm_buf_putc(&p->b, (char)(unsigned char)0x88); break;
    case JSON_FALSE: nm_buf_putc(&p->b, (char)(unsigned char)0x89); break;
    case JSON_NULL: nm_buf_putc(&p->b, 'N'); break;
    }
    return s;
}

/* ---- the archive ---- */

typedef struct member { uint64_t at, size; uint32_t crc; } member;
typedef struct archive { nm_out out; nm_buf directory; size_t n; noema_error *err; } archive;

/* Local header of a member whose size is known and whose CRC is patched in later. The extra field is a zip64 record for large members
 *, then padding named "FB", as torch's own, up to an aligned start of data. */
static noema_status begin(archive *a, const char *name, uint64_t size, member *m)
{
    nm_buf h = { 0 };
    bool big = size >= UINT32_MAX;
    size_t name_len = strlen(name), fixed = 30 + name_len + (big ? 20 : 0) + 4;
    *m = (member){ .at = a->out.at, .size = size };
    size_t pad = (ALIGN - (size_t)((m->at + fixed) % ALIGN)) % ALIGN;
    nm_buf_append(&h, "PK\3\4", 4);
    put_le(&h, big ? 45 : 20, 2);
    put_le(&h, 0, 2);
    put_le(&h, 0, 2);                       /* stored */
    put_le(&h, 0, 2);
    put_le(&h, 33, 2);                      /* 1 January 1980: files do not depend on the clock */
    put_le(&h, 0, 4);                       /* CRC */
    put_le(&h, big ? UINT32_MAX : size, 4);
    put_le(&h, big ? UINT32_MAX : size, 4);
    put_le(&h, name_len, 2);
    put_le(&h, (big ? 20 : 0) + 4 + pad, 2);
    nm_buf_append(&h, name, name_len);
    if (big) {
        put_le(&h, 1, 2);
        put_le(&h, 16, 2);
        put_le(&h, size, 8);
        put_le(&h, size, 8);
    }
    nm_buf_puts(&h, "FB");
    put_le(&h, pad, 2);
    for (size_t i = 0; i < pad; i++)
        nm_buf_putc(&h, 'Z');
    noema_status s = h.failed ? nm_fail(a->err, NOEMA_E_MEMORY, "%s: out of memory", a->out.path) : nm_out_write(&a->out, h.data, h.len, a->err);
    nm_buf_free(&h);
    a->out.crc = 0;
    a->out.want_crc = true;
    return s;
}

static noema_status end(archive *a, const char *name, member *m)
{
    nm_buf *d = &a->directory;
    size_t name_len = strlen(name);
    bool big = m->size >= UINT32_MAX, far = m->at >= UINT32_MAX;
    unsigned char crc[4];
    m->crc = a->out.crc;
    a->out.want_crc = false;
    for (int i = 0; i < 4; i++)
        crc[i] = (unsigned char)(m->crc >> 8 * i);
    nm_buf_append(d, "PK\1\2", 4);
    put_le(d, 45, 2);
    put_le(d, big || far ? 45 : 20, 2);
    put_le(d, 0, 2);
    put_le(d, 0, 2);
    put_le(d, 0, 2);
    put_le(d, 33, 2);
    put_le(d, m->crc, 4);
    put_le(d, big ? UINT32_MAX : m->size, 4);
    put_le(d, big ? UINT32_MAX : m->size, 4);
    put_le(d, name_len, 2);
    put_le(d, big || far ? 4 + (big ? 16 : 0) + (far ? 8 : 0) : 0, 2);
    put_le(d, 0, 2);
    put_le(d, 0, 2);
    put_le(d, 0, 2);
    put_le(d, 0, 4);
    put_le(d, far ? UINT32_MAX : m->at, 4);
    nm_buf_append(d, name, name_len);
    if (big || far) {
        put_le(d, 1, 2);
        put_le(d, (big ? 16 : 0) + (far ? 8 : 0), 2);
    }
    if (big) {
        put_le(d, m->size, 8);
        put_le(d, m->size, 8);
    }
    if (far)
        put_le(d, m->at, 8);
    a->n++;
    return nm_out_patch(&a->out, m->at + 14, crc, 4, a->err);
}

static noema_status add_bytes(archive *a, const char *name, const void *data, size_t size)
{
    member m;
    noema_status s = begin(a, name, size, &m);
    if (s == NOEMA_OK)
        s = nm_out_write(&a->out, data, size, a->err);
    return s == NOEMA_OK ? end(a, name, &m) : s;
}

static noema_status add_view(archive *a, const nm_wview *v, size_t key)
{
    member m;
    char name[64];
    snprintf(name, sizeof name, "archive/data/%zu", key);
    noema_status s = begin(a, name, (uint64_t)nm_wview_numel(v) * nm_dtype_size(v->dtype), &m);
    if (s == NOEMA_OK)
        s = nm_out_view(&a->out, v, a->err);
    return s == NOEMA_OK ? end(a, name, &m) : s;
}

/* Directory and end records; the zip64 ones are always there, which readers of either kind accept. */
static noema_status finish(archive *a)
{
    nm_buf *d = &a->directory;
    uint64_t at = a->out.at, size = d->len;
    bool big = at >= UINT32_MAX || size >= UINT32_MAX, many = a->n >= 0xFFFF;
    nm_buf_append(d, "PK\6\6", 4);
    put_le(d, 44, 8);
    put_le(d, 45, 2);
    put_le(d, 45, 2);
    put_le(d, 0, 8);
    put_le(d, a->n, 8);
    put_le(d, a->n, 8);
    put_le(d, size, 8);
    put_le(d, at, 8);
    nm_buf_append(d, "PK\6\7", 4);
    put_le(d, 0, 4);
    put_le(d, at + size, 8);
    put_le(d, 1, 4);
    nm_buf_append(d, "PK\5\6", 4);
    put_le(d, 0, 4);
    put_le(d, many ? 0xFFFF : a->n, 2);
    put_le(d, many ? 0xFFFF : a->n, 2);
    put_le(d, big ? UINT32_MAX : size, 4);
    put_le(d, big ? UINT32_MAX : at, 4);
    put_le(d, 0, 2);
    return d->failed ? nm_fail(a->err, NOEMA_E_MEMORY, "%s: out of memory", a->out.path) : nm_out_write(&a->out, d->data, d->len, a->err);
}

noema_status nm_torch_write(const char *path, const json_t *tree, const nm_wview *views, size_t n, noema_error *err)
{
    pickler p = { .view = views, .n = n, .path = path, .err = err };
    archive a = { .err = err };
    nm_buf_append(&p.b, "\x80\2", 2);
    noema_status s = put_value(&p, tree, 0);
    nm_buf_putc(&p.b, '.');
    if (s == NOEMA_OK && p.b.failed)
        s = nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", path);
    if (s == NOEMA_OK)
        s = nm_out_open(&a.out, path, err);
    if (s == NOEMA_OK)
        s = add_bytes(&a, "archive/data.pkl", p.b.data, p.b.len);
    if (s == NOEMA_OK)
        s = add_bytes(&a, "archive/byteorder", "little", 6);
    for (size_t i = 0; i < n && s == NOEMA_OK; i++)
        s = add_view(&a, &views[i], i);
    if (s == NOEMA_OK)
        s = add_bytes(&a, "archive/version", "3\n", 2);
    if (s == NOEMA_OK)
        s = finish(&a);
    s = nm_out_close(&a.out, s, err);
    nm_buf_free(&p.b);
    nm_buf_free(&a.directory);
    return s;
}
