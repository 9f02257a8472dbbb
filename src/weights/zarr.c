/* zarr.c - checkpoints of T5X (JAX, flax): a folder, or a zip of one, that holds
 *
 *     checkpoint                     MessagePack: {version, optimizer {target {nested names}, state {...}}}; a leaf says where its array lies
 *     target.PATH.WITH.DOTS/.zarray  JSON: shape, chunks, dtype, compressor (Zarr version 2)
 *     target.PATH.WITH.DOTS/0.0 ...  one file per chunk; a missing one is all fill value
 *
 * The weights are the leaves under `target`, named without it; `state.*` (moments) is read only raw. A folder of arrays without an
 * index gives them under their own names. Sources: Zarr storage specification 2; t5x/checkpoints.py; flax/serialization.py. */
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "base/half.h"
#include "base/json.h"
#include "weights/container.h"
#include "weights/folder.h"
#include "weights/msgpack.h"

#define META_LIMIT ((size_t)64 << 10)
#define INDEX_LIMIT ((size_t)64 << 20)
#define ARRAY_LIMIT 100000
#define CHUNK_LIMIT 65536 /* of one array; published ones have a few */
/* What all arrays may unpack to: 64 times what is stored, but 256 MiB in any case (as zip members). */
#define INFLATE_FLOOR ((uint64_t)256 << 20)
#define INFLATE_RATIO 64

typedef struct store {
    nm_weights *w;
    nm_wfile *f;
    char *root;     /* the folder; in a zip the names' common start, "" or ending in '/' */
    char **array;   /* the folders that have a .zarray */
    size_t n, cap;
    uint64_t left;  /* bytes that may still be unpacked */
    noema_error *err;
} store;

/* ---- files of the store ---- */

typedef struct blob { const unsigned char *data; size_t size; void *owned; } blob;

static noema_status fail_memory(store *s) { return nm_fail(s->err, NOEMA_E_MEMORY, "%s: out of memory", s->f->path); }

static noema_status member(store *s, const nm_zip_entry *e, size_t limit, blob *b)
{
    *b = (blob){ e->data, (size_t)e->size, NULL };
    if (e->size > limit)
        return nm_fail(s->err, NOEMA_E_LIMIT, "%s: member '%.*s' has %ju bytes, more than %zu", s->f->path, (int)(e->name_len > 200 ? 200 : e->name_len),
                       e->name, (uintmax_t)e->size, limit);
    if (e->method == 0)
        return NOEMA_OK;
    if (e->size > s->f->zip->inflate_left)
        return nm_fail(s->err, NOEMA_E_LIMIT, "%s: inflates to more than weights of this size can need", s->f->path);
    s->f->zip->inflate_left -= e->size;
    if (!(b->owned = malloc(e->size ? e->size : 1)))
        return fail_memory(s);
    b->data = b->owned;
    return nm_zip_inflate(s->f->zip, e, b->owned, s->err);
}

/* ARRAY/FILE, or FILE of the root when `array` is NULL; *there says whether it exists. Free with free(b->owned). */
static noema_status get(store *s, const char *array, const char *file, size_t limit, blob *b, bool *there)
{
    *b = (blob){ 0 };
    char *path = s->f->zip ? nm_sprintf("%s%s%s%s", s->root, array ? array : "", array ? "/" : "", file)
                           : nm_sprintf("%s/%s%s%s", s->root, array ? array : "", array ? "/" : "", file);
    noema_status st = path ? NOEMA_OK : fail_memory(s);
    const nm_zip_entry *e = path && s->f->zip ? nm_zip_find(s->f->zip, path, strlen(path)) : NULL;
    *there = path && (s->f->zip ? e != NULL : nm_file_exists(path));
    if (st == NOEMA_OK && *there && e)
        st = member(s, e, limit, b);
    else if (st == NOEMA_OK && *there) {
        char *text = NULL;
        st = nm_read_file(&text, &b->size, path, limit, s->err);
        b->data = b->owned = text;
    }
    free(path);
    if (st != NOEMA_OK) {
        free(b->owned);
        *b = (blob){ 0 };
    }
    return st;
}

static noema_status add_array(store *s, const char *name, size_t len)
{
    if (s->n >= ARRAY_LIMIT)
        return nm_fail(s->err, NOEMA_E_LIMIT, "%s: more than %d arrays", s->f->path, ARRAY_LIMIT);
    if (s->n == s->cap) {
        size_t cap = s->cap ? 2 * s->cap : 256;
        char **p = nm_realloc_array(s->array, cap, sizeof *p);
        if (!p)
            return fail_memory(s);
        s->array = p;
        s->cap = cap;
    }
    if (!(s->array[s->n] = nm_strndup(name, len)))
        return fail_memory(s);
    s->n++;
    return NOEMA_OK;
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static const char zarray[] = "/.zarray";
#define ZARRAY_LEN (sizeof zarray - 1)

static bool is_zarray(const nm_zip_entry *e)
{
    return e->name_len > ZARRAY_LEN && memcmp(e->name + e->name_len - ZARRAY_LEN, zarray, ZARRAY_LEN) == 0;
}

static noema_status list_zip(store *s)
{
    const nm_zip *z = s->f->zip;
    noema_status st = NOEMA_OK;
    for (size_t i = 0; i < z->n && st == NOEMA_OK; i++) {
        const nm_zip_entry *e = &z->entry[i];
        if (!is_zarray(e))
            continue;
        size_t len = e->name_len - ZARRAY_LEN, start = len;
        while (start > 0 && e->name[start - 1] != '/')
            start--;
        if (!s->root && !(s->root = nm_strndup(e->name, start)))
            return fail_memory(s);
        if (strlen(s->root) != start || memcmp(s->root, e->name, start) != 0)
            return nm_fail(s->err, NOEMA_E_UNSUPPORTED, "%s: arrays in several folders of the zip ('%.200s', '%.*s')", s->f->path, s->root,
                           (int)(start > 200 ? 200 : start), e->name);
        st = add_array(s, e->name + start, len - start);
    }
    s->left = z->inflate_left;
    return st;
}

/* Sums the sizes of the array's files for the limit. */
static noema_status list_folder(store *s)
{
    uint64_t stored = 0;
    DIR *d = opendir(s->root);
    noema_status st = d ? NOEMA_OK : nm_fail(s->err, NOEMA_E_IO, "%s: cannot list the folder", s->root);
    for (struct dirent *e; st == NOEMA_OK && (e = readdir(d));) {
        char *meta = e->d_name[0] == '.' ? NULL : nm_sprintf("%s/%s%s", s->root, e->d_name, zarray);
        if (meta && nm_file_exists(meta)) {
            st = add_array(s, e->d_name, strlen(e->d_name));
            meta[strlen(meta) - ZARRAY_LEN] = 0;
            stored += nm_folder_bytes(meta);
        }
        free(meta);
    }
    if (d)
        closedir(d);
    s->left = stored > INFLATE_FLOOR / INFLATE_RATIO ? stored * INFLATE_RATIO : INFLATE_FLOOR;
    return st;
}

/* ---- one array ---- */

typedef struct meta {
    nm_wview v;                    /* shape, strides, dtype */
    int64_t chunk[NM_WVIEW_DIMS];
    int64_t grid[NM_WVIEW_DIMS];   /* chunks per dimension */
    size_t chunk_bytes, bytes;
    bool gzip;
    char separator;
    double fill;
} meta;

static noema_status bad_meta(store *s, const char *array, const char *why)
{
    return nm_fail(s->err, NOEMA_E_FORMAT, "%s: array %.200s: .zarray: %s", s->f->path, array, why);
}

static bool read_dtype(const char *name, nm_dtype *t)
{
    static const struct { const char *name; nm_dtype dtype; } known[] = {
        { "<f4", NM_F32 }, { "<f2", NM_F16 }, { "bfloat16", NM_BF16 }, { "<f8", NM_F64 }, { "<i4", NM_I32 }, { "<i8", NM_I64 },
        { "<i2", NM_I16 }, { "|i1", NM_I8 }, { "|u1", NM_U8 }, { "|b1", NM_BOOL },
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(known[i].name, name) == 0) {
            *t = known[i].dtype;
            return true;
        }
    return false;
}

static double read_fill(const json_t *j)
{
    const char *s = json_is_string(j) ? json_string_value(j) : "";
    if (json_is_number(j))
        return json_number_value(j);
    return strcmp(s, "NaN") == 0 ? (double)NAN : strcmp(s, "Infinity") == 0 ? (double)INFINITY : strcmp(s, "-Infinity") == 0 ? -(double)INFINITY : json_is_true(j);
}

/* What changes the bytes of a chunk: compressor, filters, order. */
static noema_status read_coding(store *s, const char *array, const json_t *j, meta *m)
{
    const json_t *filters = nm_json_get(j, "filters"), *compressor = nm_json_get(j, "compressor");
    const char *id = nm_json_str(compressor, "id", ""), *order = nm_json_str(j, "order", "C"), *sep = nm_json_str(j, "dimension_separator", ".");
    if (filters && (!json_is_array(filters) || json_array_size(filters) > 0))
        return nm_fail(s->err, NOEMA_E_UNSUPPORTED, "%s: array %.200s: filter '%.60s' is not read here", s->f->path, array,
                       nm_json_str(json_array_get(filters, 0), "id", "?"));
    if (compressor && strcmp(id, "gzip") != 0)
        return nm_fail(s->err, NOEMA_E_UNSUPPORTED, "%s: array %.200s: compressor '%.60s' is not read here; expected gzip or none", s->f->path, array, id);
    if (strcmp(order, "C") != 0)
        return nm_fail(s->err, NOEMA_E_UNSUPPORTED, "%s: array %.200s: order '%.20s' is not read here; expected C", s->f->path, array, order);
    if (strcmp(sep, ".") != 0 && strcmp(sep, "/") != 0)
        return bad_meta(s, array, "dimension_separator is neither '.' nor '/'");
    m->gzip = compressor != NULL;
    m->separator = sep[0];
    m->fill = read_fill(json_object_get(j, "fill_value"));
    return NOEMA_OK;
}

static noema_status read_meta(store *s, const char *array, const json_t *j, meta *m)
{
    const json_t *shape = nm_json_get(j, "shape"), *chunks = nm_json_get(j, "chunks");
    const char *dtype = nm_json_str(j, "dtype", "");
    int64_t numel, in_chunk, count;
    if (nm_json_int(j, "zarr_format", 0) != 2)
        return bad_meta(s, array, "expected \"zarr_format\": 2");
    if (!read_dtype(dtype, &m->v.dtype))
        return nm_fail(s->err, NOEMA_E_UNSUPPORTED, "%s: array %.200s: dtype '%.40s' is not read here", s->f->path, array, dtype);
    if (!json_is_array(shape) || json_array_size(shape) > NM_WVIEW_DIMS || json_array_size(chunks) != json_array_size(shape))
        return bad_meta(s, array, "expected shape and chunks of up to 6 dimensions");
    m->v.ndim = (int)json_array_size(shape);
    for (int i = 0; i < m->v.ndim; i++) {
        m->v.shape[i] = json_integer_value(json_array_get(shape, (size_t)i));
        m->chunk[i] = json_integer_value(json_array_get(chunks, (size_t)i));
        if (!json_is_integer(json_array_get(shape, (size_t)i)) || m->v.shape[i] < 0 || m->v.shape[i] > NM_WVIEW_MAX_NUMEL || m->chunk[i] < 1)
            return bad_meta(s, array, "a size of shape or chunks is no sensible number");
        m->grid[i] = m->v.shape[i] / m->chunk[i] + (m->v.shape[i] % m->chunk[i] != 0);
    }
    size_t size = nm_dtype_size(m->v.dtype);
    if (!nm_shape_product(m->v.ndim, m->v.shape, &numel) || !nm_shape_product(m->v.ndim, m->chunk, &in_chunk) ||
        !nm_shape_product(m->v.ndim, m->grid, &count) || count > CHUNK_LIMIT || (uint64_t)numel * size > s->left || (uint64_t)in_chunk * size > s->left)
        return nm_fail(s->err, NOEMA_E_LIMIT, "%s: array %.200s: larger than its files can be, or more than %d chunks", s->f->path, array, CHUNK_LIMIT);
    m->bytes = (size_t)numel * size;
    m->chunk_bytes = (size_t)in_chunk * size;
    s->left -= m->bytes;
    nm_wview_set_contiguous(&m->v);
    return read_coding(s, array, j, m);
}

static void fill(const meta *m, char *out)
{
    size_t size = nm_dtype_size(m->v.dtype);
    char one[8] = { 0 };
    memset(out, 0, m->bytes);
    if (m->fill == 0)
        return;
    switch (m->v.dtype) {
    case NM_F32: memcpy(one, &(float){ (float)m->fill }, 4); break;
    case NM_F64: memcpy(one, &m->fill, 8); break;
    case NM_F16: memcpy(one, &(uint16_t){ nm_f32_to_f16((float)m->fill) }, 2); break;
    case NM_BF16: memcpy(one, &(uint16_t){ nm_f32_to_bf16((float)m->fill) }, 2); break;
    default: { /* integers, little-endian */
        int64_t v = fabs(m->fill) < 9e18 ? (int64_t)m->fill : 0;
        memcpy(one, &v, size);
    }
    }
    for (size_t i = 0; i < m->bytes; i += size)
        memcpy(out + i, one, size);
}

/* A chunk file into dst [chunk_bytes]. */
static noema_status decode(store *s, const char *array, const char *key, const meta *m, const blob *b, char *dst)
{
    if (!m->gzip) {
        if (b->size != m->chunk_bytes)
            return nm_fail(s->err, NOEMA_E_FORMAT, "%s: array %.200s: chunk %s: expected %zu bytes, got %zu", s->f->path, array, key, m->chunk_bytes, b->size);
        memcpy(dst, b->data, b->size);
        return NOEMA_OK;
    }
    z_stream z = { 0 };
    if (b->size > UINT32_MAX || m->chunk_bytes > UINT32_MAX || inflateInit2(&z, 16 + MAX_WBITS) != Z_OK)
        return nm_fail(s->err, NOEMA_E_LIMIT, "%s: array %.200s: chunk %s is too large", s->f->path, array, key);
    unsigned char none;
    z.next_in = (Bytef *)(uintptr_t)b->data;
    z.avail_in = (uInt)b->size;
    z.next_out = m->chunk_bytes ? (Bytef *)dst : &none;
    z.avail_out = (uInt)m->chunk_bytes;
    int r = inflate(&z, Z_FINISH);
    bool ok = r == Z_STREAM_END && z.avail_out == 0;
    inflateEnd(&z);
    return ok ? NOEMA_OK : nm_fail(s->err, NOEMA_E_FORMAT, "%s: array %.200s: chunk %s does not unpack to its %zu bytes: truncated or damaged", s->f->path,
                                   array, key, m->chunk_bytes);
}

/* The part of a chunk that lies inside the array, row by row. */
static void place(const meta *m, const int64_t *at, const char *chunk, char *out)
{
    int n = m->v.ndim, last = n - 1;
    size_t size = nm_dtype_size(m->v.dtype);
    int64_t from[NM_WVIEW_DIMS], count[NM_WVIEW_DIMS], i[NM_WVIEW_DIMS] = { 0 };
    for (int d = 0; d < n; d++) {
        from[d] = at[d] * m->chunk[d];
        count[d] = m->v.shape[d] - from[d] < m->chunk[d] ? m->v.shape[d] - from[d] : m->chunk[d];
    }
    for (;;) {
        int64_t src = 0, dst = 0;
        for (int d = 0; d < n; d++) {
            src = src * m->chunk[d] + i[d];
            dst = dst * m->v.shape[d] + from[d] + i[d];
        }
        memcpy(out + (size_t)dst * size, chunk + (size_t)src * size, (size_t)count[last] * size);
        int d = last - 1;
        while (d >= 0 && ++i[d] == count[d])
            i[d--] = 0;
        if (d < 0)
            return;
    }
}

static noema_status read_chunk(store *s, const char *array, const meta *m, const int64_t *at, char *tmp, char *out)
{
    char key[NM_WVIEW_DIMS * 21 + 2] = "0";
    size_t n = 0;
    for (int d = 0; d < m->v.ndim; d++)
        n += (size_t)snprintf(key + n, sizeof key - n, "%s%lld", d ? (m->separator == '/' ? "/" : ".") : "", (long long)at[d]);
    blob b;
    bool there;
    noema_status st = get(s, array, key, m->chunk_bytes + m->chunk_bytes / 8 + META_LIMIT, &b, &there);
    if (st == NOEMA_OK && there) {
        bool whole = m->chunk_bytes == m->bytes && memcmp(m->chunk, m->v.shape, sizeof *m->chunk * (size_t)m->v.ndim) == 0;
        st = decode(s, array, key, m, &b, whole ? out : tmp);
        if (st == NOEMA_OK && !whole && m->v.ndim > 0)
            place(m, at, tmp, out);
    }
    free(b.owned);
    return st;
}

static noema_status read_chunks(store *s, const char *array, const meta *m, char *out)
{
    int64_t at[NM_WVIEW_DIMS] = { 0 };
    char *tmp = malloc(m->chunk_bytes ? m->chunk_bytes : 1);
    noema_status st = tmp ? NOEMA_OK : fail_memory(s);
    while (st == NOEMA_OK && m->bytes) {
        st = read_chunk(s, array, m, at, tmp, out);
        int d = m->v.ndim - 1;
        while (d >= 0 && ++at[d] == m->grid[d])
            at[d--] = 0;
        if (d < 0)
            break;
    }
    free(tmp);
    return st;
}

static noema_status read_array(store *s, const char *array, const char *name)
{
    blob b;
    bool there;
    meta m = { 0 };
    noema_status st = get(s, array, ".zarray", META_LIMIT, &b, &there);
    if (st == NOEMA_OK && !there)
        st = nm_fail(s->err, NOEMA_E_MISSING, "%s: array %.200s is not there: the checkpoint is incomplete", s->f->path, array);
    json_t *j = st == NOEMA_OK ? nm_json_parse((const char *)b.data, b.size, ".zarray", s->err) : NULL;
    if (st == NOEMA_OK && !j)
        st = nm_fail(s->err, NOEMA_E_FORMAT, "%s: array %.200s", s->f->path, array);
    if (st == NOEMA_OK)
        st = read_meta(s, array, j, &m);
    json_decref(j);
    free(b.owned);
    char *out = st == NOEMA_OK ? nm_weights_block(s->w, m.bytes) : NULL;
    if (st != NOEMA_OK || !out)
        return st != NOEMA_OK ? st : fail_memory(s);
    fill(&m, out);
    m.v.data = out;
    st = read_chunks(s, array, &m, out);
    return st == NOEMA_OK ? nm_weights_add(s->w, s->f, &m.v, name, strlen(name), s->err) : st;
}

/* ---- the index ---- */

/* An array that lies in the index itself, flax's extension 1: MessagePack of (shape, dtype, bytes). */
static noema_status inline_array(store *s, const json_t *ext, const blob *index, const char *name)
{
    size_t at = (size_t)json_integer_value(json_array_get(ext, 1)), n = (size_t)json_integer_value(json_array_get(ext, 2));
    json_t *j = json_integer_value(json_array_get(ext, 0)) == 1 ? nm_msgpack_parse(index->data + at, n, name, s->err) : NULL;
    const json_t *shape = json_array_get(j, 0), *bin = nm_json_get(json_array_get(j, 2), "$bin");
    const char *type = json_string_value(json_array_get(j, 1));
    static const struct { const char *name; nm_dtype dtype; } known[] = {
        { "float32", NM_F32 }, { "float16", NM_F16 }, { "bfloat16", NM_BF16 }, { "float64", NM_F64 }, { "int32", NM_I32 }, { "int64", NM_I64 },
    };
    nm_wview v = { .dtype = NM_DTYPES, .ndim = json_is_array(shape) ? (int)json_array_size(shape) : NM_WVIEW_DIMS + 1 };
    for (size_t i = 0; type && i < sizeof known / sizeof *known; i++)
        if (strcmp(type, known[i].name) == 0)
            v.dtype = known[i].dtype;
    int64_t numel = -1;
    for (int d = 0; v.ndim <= NM_WVIEW_DIMS && d < v.ndim; d++)
        v.shape[d] = json_integer_value(json_array_get(shape, (size_t)d));
    noema_status st = NOEMA_OK;
    size_t bytes = bin ? (size_t)json_integer_value(json_array_get(bin, 1)) : 0, from = bin ? (size_t)json_integer_value(json_array_get(bin, 0)) : 0;
    if (!bin || v.dtype == NM_DTYPES || v.ndim > NM_WVIEW_DIMS || !nm_shape_product(v.ndim, v.shape, &numel) ||
        (uint64_t)numel * nm_dtype_size(v.dtype) != bytes)
        st = nm_fail(s->err, NOEMA_E_FORMAT, "%s: index: %.200s: expected an array (shape, dtype, bytes)", s->f->path, name);
    void *out = st == NOEMA_OK ? nm_weights_block(s->w, bytes) : NULL;
    if (out) {
        memcpy(out, index->data + at + from, bytes);
        v.data = out;
        nm_wview_set_contiguous(&v);
        st = nm_weights_add(s->w, s->f, &v, name, strlen(name), s->err);
    } else if (st == NOEMA_OK)
        st = fail_memory(s);
    json_decref(j);
    return st;
}

/* A TensorStore specification: where the leaf's array lies. Older releases have `path` beside kvstore. */
static noema_status spec_array(store *s, const json_t *spec, const char *name)
{
    const char *driver = nm_json_str(spec, "driver", ""), *path = nm_json_str(nm_json_get(spec, "kvstore"), "path", nm_json_str(spec, "path", ""));
    size_t n = strlen(path);
    if (strcmp(driver, "zarr") != 0)
        return nm_fail(s->err, NOEMA_E_UNSUPPORTED, "%s: index: %.200s: driver '%.60s' is not read here; expected zarr", s->f->path, name, driver);
    while (n && path[n - 1] == '/')
        n--;
    char *array = nm_strndup(path, n);
    noema_status st = array ? NOEMA_OK : fail_memory(s);
    if (st == NOEMA_OK && (!n || strchr(array, '/') || strcmp(array, ".") == 0 || strcmp(array, "..") == 0))
        st = nm_fail(s->err, NOEMA_E_FORMAT, "%s: index: %.200s: '%.200s' is no folder of the checkpoint; refused", s->f->path, name, path);
    if (st == NOEMA_OK)
        st = read_array(s, array, name);
    free(array);
    return st;
}

static noema_status walk(store *s, const json_t *node, const blob *index, const char *name)
{
    const char *key;
    json_t *child;
    noema_status st = NOEMA_OK;
    if (json_is_string(nm_json_get(node, "driver")))
        return spec_array(s, node, name);
    if (nm_json_get(node, "$ext"))
        return inline_array(s, nm_json_get(node, "$ext"), index, name);
    if (!json_is_object(node) || nm_json_get(node, "__msgpack_chunked_array__"))
        return nm_fail(s->err, NOEMA_E_UNSUPPORTED, "%s: index: %.200s: expected a place of an array, or an array in one piece", s->f->path, name);
    json_object_foreach((json_t *)(uintptr_t)node, key, child) {
        char *full = nm_sprintf("%s%s%s", name, name[0] ? "." : "", key);
        st = full ? walk(s, child, index, full) : fail_memory(s);
        free(full);
        if (st != NOEMA_OK)
            break;
    }
    return st;
}

static noema_status read_indexed(store *s, const blob *index)
{
    json_t *j = nm_msgpack_parse(index->data, index->size, s->f->path, s->err);
    const json_t *target = nm_json_get(nm_json_get(j, "optimizer"), "target");
    noema_status st = j ? NOEMA_OK : NOEMA_E_FORMAT;
    if (j && !json_is_object(target))
        st = nm_fail(s->err, NOEMA_E_FORMAT, "%s: index: expected {\"optimizer\": {\"target\": ...}} (T5X)", s->f->path);
    if (st == NOEMA_OK)
        st = walk(s, target, index, "");
    if (st == NOEMA_OK)
        s->w->meta = json_pack("{s:I}", "version", (json_int_t)nm_json_int(j, "version", 0));
    json_decref(j);
    return st;
}

/* Arrays by their folders' names, those that start with `prefix`, named without it. */
static noema_status read_listed(store *s, const char *prefix)
{
    noema_status st = NOEMA_OK;
    size_t n = strlen(prefix);
    for (size_t i = 0; i < s->n && st == NOEMA_OK; i++)
        if (strncmp(s->array[i], prefix, n) == 0)
            st = read_array(s, s->array[i], s->array[i] + n);
    return st;
}

static noema_status read_store(store *s, const nm_weights_options *o)
{
    noema_status st = s->f->zip ? list_zip(s) : list_folder(s);
    if (st != NOEMA_OK)
        return st;
    qsort(s->array, s->n, sizeof *s->array, by_name);
    blob index = { 0 };
    bool indexed = false, target = false;
    for (size_t i = 0; i < s->n; i++)
        target = target || strncmp(s->array[i], "target.", 7) == 0;
    if (!o->raw && !o->subtree && (st = get(s, NULL, "checkpoint", INDEX_LIMIT, &index, &indexed)) != NOEMA_OK)
        return st;
    if (indexed)
        st = read_indexed(s, &index);
    else {
        char *prefix = o->subtree ? nm_sprintf("%s.", o->subtree) : NULL;
        st = o->subtree && !prefix ? fail_memory(s) : read_listed(s, o->raw ? "" : prefix ? prefix : target ? "target." : "");
        free(prefix);
    }
    free(index.owned);
    if (st == NOEMA_OK && s->w->n == 0)
        st = nm_fail(s->err, NOEMA_E_FORMAT, "%s: no arrays", s->f->path);
    return st;
}

static noema_status open_zarr(nm_weights *w, nm_wfile *f, const nm_weights_options *o, noema_error *err)
{
    store s = { .w = w, .f = f, .err = err };
    noema_status st = NOEMA_OK;
    if (!f->zip && !(s.root = nm_strdup(f->path)))
        st = fail_memory(&s);
    if (st == NOEMA_OK)
        st = read_store(&s, o);
    for (size_t i = 0; i < s.n; i++)
        free(s.array[i]);
    free(s.array);
    free(s.root);
    return st;
}

bool nm_zarr_folder(const char *path)
{
    DIR *d = opendir(path);
    bool found = false;
    for (struct dirent *e; d && !found && (e = readdir(d));) {
        char *file = e->d_name[0] == '.' ? NULL : nm_sprintf("%s/%s%s", path, e->d_name, zarray);
        found = file && nm_file_exists(file);
        free(file);
    }
    if (d)
        closedir(d);
    return found;
}

static bool probe_zarr(const nm_wfile *f)
{
    for (size_t i = 0; f->zip && i < f->zip->n; i++)
        if (is_zarray(&f->zip->entry[i]))
            return true;
    return !f->zip && !f->data && nm_dir_exists(f->path);
}

const nm_container nm_container_zarr = { "zarr", probe_zarr, open_zarr };
