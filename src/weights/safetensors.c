/* safetensors.c - u64 little-endian header size, JSON header, tensor bytes. Format: huggingface/safetensors, README "Format" and
 * safetensors/src/tensor.rs, whose rules are kept: header at most 100 MB, offsets of tensors cover the data exactly, without holes
 * and without overlap. */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "weights/container.h"

#define HEADER_LIMIT 100000000

static const struct { const char *name; nm_dtype dtype; } dtypes[] = {
    { "F32", NM_F32 }, { "F16", NM_F16 }, { "BF16", NM_BF16 }, { "F64", NM_F64 }, { "I8", NM_I8 },
    { "U8", NM_U8 },   { "I16", NM_I16 }, { "I32", NM_I32 },   { "I64", NM_I64 }, { "BOOL", NM_BOOL },
};

static uint64_t header_size(const unsigned char *p)
{
    uint64_t n = 0;
    for (int i = 7; i >= 0; i--)
        n = n << 8 | p[i];
    return n;
}

static bool probe(const nm_wfile *f)
{
    if (nm_has_suffix(f->path, ".safetensors"))
        return true;
    return f->size >= 10 && header_size(f->data) <= HEADER_LIMIT && f->data[8] == '{';
}

typedef struct entry { nm_wview view; const char *name; uint64_t begin, end; } entry;

static noema_status read_dtype(nm_dtype *t, const char *s, const char *path, const char *name, noema_error *err)
{
    for (size_t i = 0; s && i < sizeof dtypes / sizeof *dtypes; i++)
        if (strcmp(s, dtypes[i].name) == 0) {
            *t = dtypes[i].dtype;
            return NOEMA_OK;
        }
    return nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: '%.200s' has dtype %.40s, which is not read here", path, name, s ? s : "(none)");
}

static noema_status read_shape(nm_wview *v, const json_t *shape, const char *path, const char *name, noema_error *err)
{
    if (!json_is_array(shape) || json_array_size(shape) > NM_WVIEW_DIMS)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: '%.200s': expected a shape of at most %d dimensions", path, name, NM_WVIEW_DIMS);
    v->ndim = (int)json_array_size(shape);
    for (int i = 0; i < v->ndim; i++) {
        const json_t *d = json_array_get(shape, (size_t)i);
        if (!json_is_integer(d) || json_integer_value(d) < 0)
            return nm_fail(err, NOEMA_E_FORMAT, "%s: '%.200s': dimension %d is no count", path, name, i);
        v->shape[i] = json_integer_value(d);
    }
    return NOEMA_OK;
}

static noema_status read_entry(entry *e, const char *name, const json_t *j, uint64_t data_size, const char *path, noema_error *err)
{
    if (!json_is_object(j))
        return nm_fail(err, NOEMA_E_FORMAT, "%s: '%.200s': expected an object in the header", path, name);
    noema_status s = read_dtype(&e->view.dtype, nm_json_str(j, "dtype", NULL), path, name, err);
    if (s == NOEMA_OK)
        s = read_shape(&e->view, json_object_get(j, "shape"), path, name, err);
    if (s != NOEMA_OK)
        return s;
    const json_t *o = json_object_get(j, "data_offsets"), *b = json_array_get(o, 0), *n = json_array_get(o, 1);
    if (json_array_size(o) != 2 || !json_is_integer(b) || !json_is_integer(n) || json_integer_value(b) < 0 ||
        json_integer_value(n) < json_integer_value(b))
        return nm_fail(err, NOEMA_E_FORMAT, "%s: '%.200s': expected data_offsets [begin, end]", path, name);
    e->name = name;
    e->begin = (uint64_t)json_integer_value(b);
    e->end = (uint64_t)json_integer_value(n);
    if (e->end > data_size)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: '%.200s' ends at byte %ju of %ju: the file is truncated", path, name, (uintmax_t)e->end,
                       (uintmax_t)data_size);
    int64_t numel;
    if (!nm_shape_product(e->view.ndim, e->view.shape, &numel))
        return nm_fail(err, NOEMA_E_LIMIT, "%s: '%.200s': the shape is too large", path, name);
    uint64_t want = (uint64_t)numel * nm_dtype_size(e->view.dtype);
    if (e->end - e->begin != want)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: '%.200s': its shape needs %ju bytes, its offsets span %ju", path, name, (uintmax_t)want,
                       (uintmax_t)(e->end - e->begin));
    return NOEMA_OK;
}

static int by_offset(const void *a, const void *b)
{
    const entry *x = a, *y = b;
    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    return x->end < y->end ? -1 : x->end > y->end; /* empty tensors first */
}

/* The header's entries in file order; their ranges must tile [0, data_size). */
static noema_status read_entries(entry *e, size_t *n, json_t *header, uint64_t data_size, const char *path, noema_error *err)
{
    const char *name;
    json_t *j;
    *n = 0;
    json_object_foreach(header, name, j) {
        if (strcmp(name, "__metadata__") == 0)
            continue;
        noema_status s = read_entry(&e[(*n)++], name, j, data_size, path, err);
        if (s != NOEMA_OK)
            return s;
    }
    qsort(e, *n, sizeof *e, by_offset);
    uint64_t at = 0;
    for (size_t i = 0; i < *n; i++) {
        if (e[i].begin != at)
            return nm_fail(err, NOEMA_E_FORMAT, "%s: '%.200s' begins at byte %ju, expected %ju: tensors overlap or leave a hole", path,
                           e[i].name, (uintmax_t)e[i].begin, (uintmax_t)at);
        at = e[i].end;
    }
    if (at != data_size)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: tensors end at byte %ju, the data at %ju", path, (uintmax_t)at, (uintmax_t)data_size);
    return NOEMA_OK;
}

static noema_status add_all(nm_weights *w, const nm_wfile *f, entry *e, size_t n, const unsigned char *data, noema_error *err)
{
    for (size_t i = 0; i < n; i++) {
        nm_wview_set_contiguous(&e[i].view);
        e[i].view.data = nm_weights_aligned(w, data + e[i].begin, e[i].end - e[i].begin, nm_dtype_size(e[i].view.dtype));
        if (!e[i].view.data)
            return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", f->path);
        noema_status s = nm_weights_add(w, f, &e[i].view, e[i].name, strlen(e[i].name), err);
        if (s != NOEMA_OK)
            return s;
    }
    return NOEMA_OK;
}

static noema_status open_safetensors(nm_weights *w, nm_wfile *f, const nm_weights_options *o, noema_error *err)
{
    (void)o;
    uint64_t size = f->size >= 8 ? header_size(f->data) : 0;
    if (f->size < 8 || size > f->size - 8)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: safetensors header of %ju bytes in a file of %zu: truncated or damaged", f->path,
                       (uintmax_t)size, f->size);
    if (size > HEADER_LIMIT)
        return nm_fail(err, NOEMA_E_LIMIT, "%s: safetensors header of %ju bytes, limit %d", f->path, (uintmax_t)size, HEADER_LIMIT);
    json_error_t je;
    json_t *header = json_loadb((const char *)f->data + 8, size, JSON_REJECT_DUPLICATES, &je);
    if (!json_is_object(header)) {
        json_decref(header);
        return nm_fail(err, NOEMA_E_FORMAT, "%s: expected a JSON object as safetensors header: %s", f->path, header ? "not an object" : je.text);
    }
    entry *e = calloc(json_object_size(header) + 1, sizeof *e);
    size_t n = 0;
    noema_status s = e ? NOEMA_OK : nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", f->path);
    if (s == NOEMA_OK)
        s = read_entries(e, &n, header, f->size - 8 - size, f->path, err);
    if (s == NOEMA_OK)
        s = add_all(w, f, e, n, f->data + 8 + size, err);
    json_t *meta = json_object_get(header, "__metadata__");
    if (s == NOEMA_OK && json_is_object(meta) && !w->meta)
        w->meta = json_incref(meta);
    free(e);
    json_decref(header);
    f->format_name = "safetensors";
    return s;
}

const nm_container nm_container_safetensors = { "safetensors", probe, open_safetensors };
