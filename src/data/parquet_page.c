/* parquet_page.c - the pages of a column chunk: headers, levels, values. Field numbers are those of parquet.thrift.
 *
 *     chunk = [dictionary page] data page*                page = header (Thrift), body
 *     body v1 = compressed( repetition levels, definition levels, values )     levels: u32 length before them
 *     body v2 = repetition levels, definition levels, compressed( values )     lengths are in the header
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "base/mem.h"
#include "data/parquet_impl.h"

#define UNIT_BYTES ((size_t)1 << 20)        /* pages are decoded together until they are that large */
#define MAX_PAGE_VALUES ((int64_t)1 << 24)
#define MAX_UNIT_VALUES ((int64_t)1 << 27)

enum { DATA_PAGE, INDEX_PAGE, DICTIONARY_PAGE, DATA_PAGE_V2 };

typedef struct page {
    int64_t type, raw, packed, crc; /* sizes of the body before and after compression; crc < 0: none */
    int64_t n, rows, encoding, def_encoding, rep_encoding;
    int64_t def_bytes, rep_bytes;   /* v2 */
    bool compressed;                /* v2 */
    const unsigned char *body;
} page;

static void read_data_header(nm_thrift *t, page *h)
{
    int id = 0;
    for (nm_thrift_type f; (f = nm_thrift_field(t, &id)) != NM_TH_STOP;)
        switch (id) {
        case 1: h->n = nm_thrift_int(t, f); break;
        case 2: h->encoding = nm_thrift_int(t, f); break;
        case 3: h->def_encoding = nm_thrift_int(t, f); break;
        case 4: h->rep_encoding = nm_thrift_int(t, f); break;
        default: nm_thrift_skip(t, f);
        }
}

static void read_data_header_v2(nm_thrift *t, page *h)
{
    int id = 0;
    h->compressed = true;
    for (nm_thrift_type f; (f = nm_thrift_field(t, &id)) != NM_TH_STOP;)
        switch (id) {
        case 1: h->n = nm_thrift_int(t, f); break;
        case 3: h->rows = nm_thrift_int(t, f); break;
        case 4: h->encoding = nm_thrift_int(t, f); break;
        case 5: h->def_bytes = nm_thrift_int(t, f); break;
        case 6: h->rep_bytes = nm_thrift_int(t, f); break;
        case 7: h->compressed = nm_thrift_int(t, f) != 0; break;
        default: nm_thrift_skip(t, f);
        }
}

static noema_status bad_page(const nm_parquet *p, int column, size_t at, const char *what, noema_error *err)
{
    return nm_fail(err, NOEMA_E_FORMAT, "%s: column %s: page at byte %zu: %s", p->name, p->column[column].path, at, what);
}

/* The header at `at`; *next is where the page after it begins. */
static noema_status read_page(const nm_parquet *p, int column, size_t at, size_t end, page *h, size_t *next, noema_error *err)
{
    nm_thrift t = { .p = p->data + at, .end = p->data + end };
    int id = 0;
    *h = (page){ .type = -1, .raw = -1, .packed = -1, .crc = -1 };
    for (nm_thrift_type f; (f = nm_thrift_field(&t, &id)) != NM_TH_STOP;) {
        if (id == 1)
            h->type = nm_thrift_int(&t, f);
        else if (id == 2)
            h->raw = nm_thrift_int(&t, f);
        else if (id == 3)
            h->packed = nm_thrift_int(&t, f);
        else if (id == 4)
            h->crc = nm_thrift_int(&t, f) & UINT32_MAX;
        else if ((id == 5 || id == 7) && f == NM_TH_STRUCT)
            read_data_header(&t, h); /* a dictionary's header begins with the same two fields */
        else if (id == 8 && f == NM_TH_STRUCT)
            read_data_header_v2(&t, h);
        else
            nm_thrift_skip(&t, f);
    }
    h->body = t.p;
    if (t.bad || h->raw < 0 || h->packed < 0 || h->type < 0 || h->n < 0 || h->packed > t.end - t.p)
        return bad_page(p, column, at, "its header is damaged or it reaches past the end of its column", err);
    if ((uint64_t)h->raw > p->max_page || h->n > MAX_PAGE_VALUES)
        return nm_fail(err, NOEMA_E_LIMIT, "%s: column %s: page at byte %zu: %lld bytes of %lld values are more than the limit of %zu of %lld", p->name,
                       p->column[column].path, at, (long long)h->raw, (long long)h->n, p->max_page, (long long)MAX_PAGE_VALUES);
    *next = (size_t)(t.p - p->data) + (size_t)h->packed;
    return NOEMA_OK;
}

static bool is_data(const page *h) { return h->type == DATA_PAGE || h->type == DATA_PAGE_V2; }

/* ---- units ---- */

typedef struct unit_list { nm_parquet_unit *u; int64_t n, cap; } unit_list;

static nm_parquet_unit *add_unit(unit_list *l)
{
    if (l->n == l->cap) {
        int64_t cap = l->cap ? 2 * l->cap : 64;
        nm_parquet_unit *u = nm_realloc_array(l->u, (size_t)cap, sizeof *u);
        if (!u)
            return NULL;
        l->u = u;
        l->cap = cap;
    }
    return &l->u[l->n++];
}

static noema_status group_units(const nm_parquet *p, int group, int column, int64_t first, unit_list *l, noema_error *err)
{
    const nm_parquet_chunk *c = &p->group[group].chunk[column];
    const bool list = p->column[column].max_rep > 0;
    int64_t values = 0;
    nm_parquet_unit *u = NULL;
    if (c->elsewhere)
        return nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: column %s lies in another file", p->name, p->column[column].path);
    for (size_t at = c->at, next; at < c->end && values < c->n_values; at = next) {
        page h;
        noema_status s = read_page(p, column, at, c->end, &h, &next, err);
        if (s != NOEMA_OK)
            return s;
        if (!is_data(&h))
            continue;
        if (!u || (!list && u->bytes >= UNIT_BYTES)) {
            if (!(u = add_unit(l)))
                return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", p->name);
            *u = (nm_parquet_unit){ .group = group, .column = column, .at = at, .first = first + (list ? 0 : values), .rows = list ? p->group[group].rows : 0 };
        }
        u->bytes += (size_t)h.raw;
        u->end = next;
        values += h.n;
        if (!list)
            u->rows += h.n;
    }
    if (values != c->n_values || (!list && values != p->group[group].rows) || (list && values < p->group[group].rows))
        return nm_fail(err, NOEMA_E_FORMAT, "%s: column %s: row group %d has %lld rows, its pages %lld values of %lld", p->name, p->column[column].path, group,
                       (long long)p->group[group].rows, (long long)values, (long long)c->n_values);
    return NOEMA_OK;
}

noema_status nm_parquet_units(const nm_parquet *p, int column, nm_parquet_unit **units, int64_t *n, noema_error *err)
{
    unit_list l = { 0 };
    int64_t first = 0;
    noema_status s = NOEMA_OK;
    if (p->column[column].max_rep > 1 || p->column[column].type == NM_PQ_INT96)
        s = nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: column %s: %s are not read", p->name, p->column[column].path,
                    p->column[column].max_rep > 1 ? "lists within lists" : "INT96 times");
    for (int g = 0; g < p->n_groups && s == NOEMA_OK; g++) {
        s = group_units(p, g, column, first, &l, err);
        first += p->group[g].rows;
    }
    if (s != NOEMA_OK) {
        free(l.u);
        l = (unit_list){ 0 };
    }
    *units = l.u;
    *n = l.n;
    return s;
}

/* ---- values ---- */

void nm_parquet_values_free(nm_parquet_values *v)
{
    for (int i = 0; i < v->n_blocks; i++)
        free(v->blocks[i]);
    free(v->blocks);
    free(v->row);
    free(v->bytes);
    free(v->ints);
    free(v->reals);
    free(v->valid);
    *v = (nm_parquet_values){ 0 };
}

static bool is_bytes(const nm_parquet_column *c) { return c->type == NM_PQ_BYTES || c->type == NM_PQ_FIXED; }
static bool is_real(const nm_parquet_column *c) { return c->type == NM_PQ_FLOAT || c->type == NM_PQ_DOUBLE; }

static bool grow(void **array, int64_t cap, size_t size)
{
    void *p = nm_realloc_array(*array, (size_t)cap, size);
    if (p)
        *array = p;
    return p != NULL;
}

/* Room for `more` values and rows after those that are there. */
static bool reserve(nm_parquet_values *v, const nm_parquet_column *c, int64_t more)
{
    bool ok = true;
    if (v->n + more > v->cap) {
        int64_t cap = v->n + more + v->cap / 2;
        ok = is_bytes(c) ? grow((void **)&v->bytes, cap, sizeof *v->bytes)
           : is_real(c) ? grow((void **)&v->reals, cap, sizeof *v->reals) : grow((void **)&v->ints, cap, sizeof *v->ints);
        if (ok && !is_bytes(c) && c->max_def > 0 && c->max_rep == 0)
            ok = grow((void **)&v->valid, cap, 1);
        v->cap = ok ? cap : v->cap;
    }
    if (ok && c->max_rep && v->n_rows + more + 1 > v->cap_rows) {
        int64_t cap = v->n_rows + more + 1 + v->cap_rows / 2;
        ok = grow((void **)&v->row, cap, sizeof *v->row);
        v->cap_rows = ok ? cap : v->cap_rows;
    }
    return ok;
}

/* v owns the block from now on, or it is freed. */
static bool keep_block(nm_parquet_values *v, void *block, size_t size)
{
    void **b = nm_realloc_array(v->blocks, (size_t)v->n_blocks + 1, sizeof *b);
    if (!b) {
        free(block);
        return false;
    }
    v->blocks = b;
    v->blocks[v->n_blocks++] = block;
    v->memory += size;
    return true;
}

static uint64_t little_endian(const unsigned char *p, int width)
{
    uint64_t v = 0;
    for (int i = 0; i < width; i++)
        v |= (uint64_t)p[i] << 8 * i;
    return v;
}

static void put_number(const nm_parquet_column *c, nm_parquet_values *v, int64_t i, uint64_t bits)
{
    uint32_t low = (uint32_t)bits;
    float f;
    switch (c->type) {
    case NM_PQ_FLOAT:
        memcpy(&f, &low, 4);
        v->reals[i] = (double)f;
        break;
    case NM_PQ_DOUBLE: memcpy(&v->reals[i], &bits, 8); break;
    case NM_PQ_INT32: v->ints[i] = c->is_unsigned ? (int64_t)low : (int64_t)(int32_t)low; break;
    default: v->ints[i] = (int64_t)bits;
    }
}

static int number_width(const nm_parquet_column *c) { return c->type == NM_PQ_INT32 || c->type == NM_PQ_FLOAT ? 4 : 8; }

/* PLAIN: n values to place v->n and after. */
static bool plain(const nm_parquet_column *c, const unsigned char *p, const unsigned char *end, nm_parquet_values *v, int64_t n)
{
    if (c->type == NM_PQ_BYTES)
        return nm_pq_plain_bytes(p, end, v->bytes + v->n, n);
    if (c->type == NM_PQ_BOOLEAN) {
        if ((n + 7) / 8 > end - p)
            return false;
        for (int64_t i = 0; i < n; i++)
            v->ints[v->n + i] = p[i >> 3] >> (i & 7) & 1;
        return true;
    }
    int width = c->type == NM_PQ_FIXED ? c->width : number_width(c);
    if (n > (end - p) / width)
        return false;
    for (int64_t i = 0; i < n; i++) {
        if (c->type == NM_PQ_FIXED)
            v->bytes[v->n + i] = (nm_bytes){ p + i * width, (uint32_t)width };
        else
            put_number(c, v, v->n + i, little_endian(p + i * width, width));
    }
    return true;
}

/* BYTE_STREAM_SPLIT: byte k of value i at [k, i]. */
static bool split(const nm_parquet_column *c, const unsigned char *p, const unsigned char *end, nm_parquet_values *v, int64_t n)
{
    int width = c->type == NM_PQ_FIXED ? c->width : number_width(c);
    if (c->type == NM_PQ_BYTES || c->type == NM_PQ_BOOLEAN || n > (end - p) / width)
        return false;
    unsigned char *whole = malloc((size_t)(n * width) + 1);
    if (!whole || !keep_block(v, whole, (size_t)(n * width)))
        return false;
    for (int64_t i = 0; i < n; i++)
        for (int k = 0; k < width; k++)
            whole[i * width + k] = p[k * n + i];
    return plain(c, whole, whole + n * width, v, n);
}

static bool by_dictionary(const nm_parquet_column *c, const unsigned char *p, const unsigned char *end, nm_parquet_values *v, int64_t n,
                          const nm_parquet_values *dictionary)
{
    if (n == 0)
        return true;
    uint32_t *index = p < end && p[0] <= 32 ? nm_malloc_array((size_t)n, sizeof *index) : NULL;
    bool ok = index && nm_pq_hybrid(p + 1, end, p[0], index, n);
    for (int64_t i = 0; ok && i < n; i++) {
        ok = index[i] < dictionary->n;
        if (!ok)
            break;
        if (is_bytes(c))
            v->bytes[v->n + i] = dictionary->bytes[index[i]];
        else if (is_real(c))
            v->reals[v->n + i] = dictionary->reals[index[i]];
        else
            v->ints[v->n + i] = dictionary->ints[index[i]];
    }
    free(index);
    return ok;
}

static bool rle_booleans(const unsigned char *p, const unsigned char *end, nm_parquet_values *v, int64_t n)
{
    uint32_t *bit = end - p >= 4 ? nm_malloc_array((size_t)n + 1, sizeof *bit) : NULL;
    bool ok = bit && nm_pq_hybrid(p + 4, end, 1, bit, n);
    for (int64_t i = 0; ok && i < n; i++)
        v->ints[v->n + i] = bit[i];
    free(bit);
    return ok;
}

static bool delta(const nm_parquet *f, const nm_parquet_column *c, int encoding, const unsigned char *p, const unsigned char *end, nm_parquet_values *v, int64_t n)
{
    const unsigned char *rest;
    unsigned char *block = NULL;
    size_t size = 0;
    if (encoding == NM_PQ_DELTA_BINARY) {
        if (c->type != NM_PQ_INT32 && c->type != NM_PQ_INT64)
            return false;
        bool ok = nm_pq_delta(p, end, v->ints + v->n, n, &rest);
        for (int64_t i = 0; ok && i < n; i++)
            put_number(c, v, v->n + i, (uint64_t)v->ints[v->n + i]);
        return ok;
    }
    if (!is_bytes(c))
        return false;
    if (encoding == NM_PQ_DELTA_LENGTH)
        return nm_pq_delta_lengths(p, end, v->bytes + v->n, n, &rest);
    bool ok = nm_pq_delta_bytes(p, end, v->bytes + v->n, n, f->max_page, &block, &size);
    return block ? keep_block(v, block, size) && ok : ok;
}

static bool decode(const nm_parquet *f, const nm_parquet_column *c, int encoding, const unsigned char *p, const unsigned char *end, nm_parquet_values *v,
                   int64_t n, const nm_parquet_values *dictionary)
{
    switch (encoding) {
    case NM_PQ_PLAIN: return plain(c, p, end, v, n);
    case NM_PQ_PLAIN_DICTIONARY:
    case NM_PQ_RLE_DICTIONARY: return by_dictionary(c, p, end, v, n, dictionary);
    case NM_PQ_RLE: return c->type == NM_PQ_BOOLEAN && rle_booleans(p, end, v, n);
    case NM_PQ_DELTA_BINARY:
    case NM_PQ_DELTA_LENGTH:
    case NM_PQ_DELTA_BYTES: return delta(f, c, encoding, p, end, v, n);
    case NM_PQ_SPLIT: return split(c, p, end, v, n);
    default: return false;
    }
}

/* ---- a page ---- */

typedef struct levels { uint32_t *def, *rep; } levels;

static int bit_width(int max)
{
    int w = 0;
    while (max >> w)
        w++;
    return w;
}

/* Levels of one kind from *p on. size >= 0: that many bytes; else a u32 length is before them (RLE), or they are packed. */
static bool read_levels(const unsigned char **p, const unsigned char *end, int max, int64_t encoding, int64_t size, uint32_t *out, int64_t n)
{
    int width = bit_width(max);
    bool ok;
    if (size < 0 && encoding == NM_PQ_BIT_PACKED) {
        size = (n * width + 7) / 8;
        ok = size <= end - *p && nm_pq_packed_levels(*p, *p + size, width, out, n);
    } else {
        if (size < 0) {
            if (end - *p < 4)
                return false;
            size = (int64_t)little_endian(*p, 4);
            *p += 4;
        }
        ok = size <= end - *p && nm_pq_hybrid(*p, *p + size, width, out, n);
    }
    for (int64_t i = 0; ok && i < n; i++)
        ok = out[i] <= (uint32_t)max;
    if (ok)
        *p += size;
    return ok;
}

/* Moves the values at v->n, which stand without gaps, to the rows that have one. */
static void spread(const nm_parquet_column *c, nm_parquet_values *v, const uint32_t *def, int64_t n, int64_t present)
{
    for (int64_t i = n; i-- > 0;) {
        bool has = def[i] == (uint32_t)c->max_def;
        int64_t to = v->n + i, from = has ? v->n + --present : 0;
        if (is_bytes(c))
            v->bytes[to] = has ? v->bytes[from] : (nm_bytes){ 0 };
        else {
            v->valid[to] = has;
            if (is_real(c))
                v->reals[to] = has ? v->reals[from] : 0;
            else
                v->ints[to] = has ? v->ints[from] : 0;
        }
    }
}

/* Row boundaries of a list: a level 0 begins a row; what is null below it has no value. */
static bool list_rows(const nm_parquet_column *c, nm_parquet_values *v, const levels *l, int64_t n)
{
    int64_t value = v->n;
    for (int64_t i = 0; i < n; i++) {
        if (l->rep[i] == 0)
            v->row[v->n_rows++] = value;
        else if (v->n_rows == 0)
            return false;
        value += !l->def || l->def[i] == (uint32_t)c->max_def;
    }
    v->row[v->n_rows] = value;
    return true;
}

/* Levels and values at p; values are compressed on their own in v2 (`packed`). */
static noema_status take_values(const nm_parquet *f, int column, const page *h, levels *l, const unsigned char *p, const unsigned char *end, size_t at,
                                nm_parquet_values *v, const nm_parquet_values *dictionary, noema_error *err)
{
    const nm_parquet_column *c = &f->column[column];
    int64_t present = h->n;
    for (int64_t i = 0; l->def && i < h->n; i++)
        present -= l->def[i] != (uint32_t)c->max_def;
    if (!reserve(v, c, h->n))
        return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", f->name);
    if (!decode(f, c, (int)h->encoding, p, end, v, present, dictionary)) {
        char what[96];
        snprintf(what, sizeof what, "its %lld values of encoding %d are damaged or not read", (long long)present, (int)h->encoding);
        return bad_page(f, column, at, what, err);
    }
    if (c->max_rep) {
        if (!list_rows(c, v, l, h->n))
            return bad_page(f, column, at, "its first row has no beginning", err);
        v->n += present;
        return NOEMA_OK;
    }
    if (l->def)
        spread(c, v, l->def, h->n, present);
    v->n += h->n;
    v->n_rows = v->n;
    return NOEMA_OK;
}

static noema_status alloc_levels(const nm_parquet *f, const nm_parquet_column *c, int64_t n, levels *l, noema_error *err)
{
    if (c->max_rep)
        l->rep = nm_malloc_array((size_t)n + 1, sizeof *l->rep);
    if (c->max_def)
        l->def = nm_malloc_array((size_t)n + 1, sizeof *l->def);
    return (c->max_rep && !l->rep) || (c->max_def && !l->def) ? nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", f->name) : NOEMA_OK;
}

/* The decompressed bytes [skip, raw) of a page's body: in a block that v keeps, or in the file itself. */
static noema_status unpack(const nm_parquet *f, int column, const page *h, int codec, int64_t skip, size_t at, nm_parquet_values *v, const unsigned char **out,
                           noema_error *err)
{
    size_t raw = (size_t)(h->raw - skip), packed = (size_t)(h->packed - skip);
    char what[256];
    snprintf(what, sizeof what, "%s: column %s: page at byte %zu", f->name, f->column[column].path, at);
    if (codec == 0) {
        *out = h->body + skip;
        return raw == packed ? NOEMA_OK : nm_fail(err, NOEMA_E_FORMAT, "%s: %zu bytes instead of %zu", what, packed, raw);
    }
    unsigned char *block = malloc(raw + 1);
    if (!block || !keep_block(v, block, raw))
        return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory: %zu bytes", what, raw);
    *out = block;
    return nm_pq_decompress(codec, h->body + skip, packed, block, raw, what, err);
}

static noema_status read_data_page(const nm_parquet *f, int column, const page *h, int codec, size_t at, nm_parquet_values *v,
                                   const nm_parquet_values *dictionary, noema_error *err)
{
    const nm_parquet_column *c = &f->column[column];
    levels l = { 0 };
    const unsigned char *p = h->body, *end;
    const bool v2 = h->type == DATA_PAGE_V2;
    int64_t skip = v2 ? h->rep_bytes + h->def_bytes : 0;
    if (v2 && (h->rep_bytes < 0 || h->def_bytes < 0 || skip > h->packed || skip > h->raw))
        return bad_page(f, column, at, "its levels are longer than itself", err);
    noema_status s = alloc_levels(f, c, h->n, &l, err);
    if (s == NOEMA_OK && !v2)
        s = unpack(f, column, h, codec, 0, at, v, &p, err);
    end = p + (v2 ? skip : h->raw);
    if (s == NOEMA_OK && ((l.rep && !read_levels(&p, end, c->max_rep, h->rep_encoding, v2 ? h->rep_bytes : -1, l.rep, h->n)) ||
                          (l.def && !read_levels(&p, end, c->max_def, h->def_encoding, v2 ? h->def_bytes : -1, l.def, h->n))))
        s = bad_page(f, column, at, "its levels are damaged", err);
    if (s == NOEMA_OK && v2) {
        s = unpack(f, column, h, h->compressed ? codec : 0, skip, at, v, &p, err);
        end = p + (h->raw - skip);
    }
    if (s == NOEMA_OK)
        s = take_values(f, column, h, &l, p, end, at, v, dictionary, err);
    free(l.def);
    free(l.rep);
    return s;
}

static noema_status check_crc(const nm_parquet *f, int column, const page *h, size_t at, noema_error *err)
{
    if (h->crc >= 0 && crc32(0, h->body, (uInt)h->packed) != (uLong)h->crc)
        return bad_page(f, column, at, "its checksum differs: the file is damaged", err);
    return NOEMA_OK;
}

/* The dictionary of a chunk, if it has one, as values of its own; their blocks then belong to v, whose bytes point into them. */
static noema_status read_dictionary(const nm_parquet *f, const nm_parquet_chunk *chunk, int column, nm_parquet_values *d, noema_error *err)
{
    nm_parquet_column plain_column = f->column[column];
    const unsigned char *p;
    page h;
    size_t next;
    plain_column.max_def = plain_column.max_rep = 0;
    noema_status s = chunk->at < chunk->end ? read_page(f, column, chunk->at, chunk->end, &h, &next, err) : NOEMA_OK;
    if (s != NOEMA_OK || chunk->at >= chunk->end || h.type != DICTIONARY_PAGE)
        return s;
    s = check_crc(f, column, &h, chunk->at, err);
    if (s == NOEMA_OK)
        s = unpack(f, column, &h, chunk->codec, 0, chunk->at, d, &p, err);
    if (s != NOEMA_OK)
        return s;
    if (!reserve(d, &plain_column, h.n))
        return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", f->name);
    if (!plain(&plain_column, p, p + h.raw, d, h.n))
        return bad_page(f, column, chunk->at, "its dictionary is damaged", err);
    d->n = h.n;
    return NOEMA_OK;
}

noema_status nm_parquet_read(const nm_parquet *f, const nm_parquet_unit *u, nm_parquet_values *v, noema_error *err)
{
    const nm_parquet_chunk *chunk = &f->group[u->group].chunk[u->column];
    const nm_parquet_column *c = &f->column[u->column];
    nm_parquet_values d = { 0 };
    *v = (nm_parquet_values){ 0 };
    noema_status s = read_dictionary(f, chunk, u->column, &d, err);
    for (size_t at = u->at, next; s == NOEMA_OK && at < u->end; at = next) {
        page h;
        s = read_page(f, u->column, at, u->end, &h, &next, err);
        if (s == NOEMA_OK && is_data(&h)) {
            if (v->n + h.n > MAX_UNIT_VALUES)
                s = nm_fail(err, NOEMA_E_LIMIT, "%s: column %s: more than %lld values in a row group", f->name, c->path, (long long)MAX_UNIT_VALUES);
            if (s == NOEMA_OK)
                s = check_crc(f, u->column, &h, at, err);
            if (s == NOEMA_OK)
                s = read_data_page(f, u->column, &h, chunk->codec, at, v, &d, err);
        }
    }
    if (s == NOEMA_OK && v->n_rows != u->rows)
        s = nm_fail(err, NOEMA_E_FORMAT, "%s: column %s: row group %d has %lld rows here, expected %lld", f->name, c->path, u->group, (long long)v->n_rows,
                    (long long)u->rows);
    for (int i = 0; i < d.n_blocks; i++) { /* the dictionary's bytes live on with the values */
        if (s == NOEMA_OK && !keep_block(v, d.blocks[i], 0))
            s = nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", f->name);
        else if (s != NOEMA_OK)
            free(d.blocks[i]);
    }
    d.n_blocks = 0;
    v->memory += d.memory + (size_t)v->cap * (is_bytes(c) ? sizeof *v->bytes : 9) + (size_t)v->cap_rows * sizeof *v->row;
    nm_parquet_values_free(&d);
    if (s != NOEMA_OK)
        nm_parquet_values_free(v);
    return s;
}
