/* rows_tar.c - webdataset shards: a tar of samples, adjacent members KEY.jpg, KEY.txt, KEY.json, KEY.cls, KEY.source. A repeated suffix begins a new
 * sample, as in open_clip; samples without a picture are left out, and so are those without a caption where others have one.
 * A plain tar is mapped and its samples are reached in place; a gzipped one is unpacked into the cache. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "data/format.h"
#include "data/tar.h"

#define MAX_UNPACKED ((size_t)8 << 30)
#define MAX_JSON ((size_t)16 << 20)

typedef struct piece { size_t at; uint32_t n; bool there; } piece;
typedef struct sample { size_t key; piece picture, text, json, cls, source; } sample;

typedef struct shard {
    nm_part part;
    nm_map map;
    bool gzip;
    sample *row;
    int64_t cap;
    nm_buf keys;
    char *img_key, *caption_key, *label_key;
} shard;

static bool is_gzip(const unsigned char *p, size_t n) { return n > 2 && p[0] == 0x1F && p[1] == 0x8B; }

static bool probe(const char *path, bool folder, const unsigned char *head, size_t n)
{
    if (folder)
        return false;
    bool named = nm_has_suffix(path, ".tar") || nm_has_suffix(path, ".tgz") || nm_has_suffix(path, ".tar.gz");
    return (n >= 263 && memcmp(head + 257, "ustar", 5) == 0) || (named && (n == 0 || is_gzip(head, n) || n >= 512));
}

/* ---- the bytes ---- */

typedef struct blob { unsigned char *data; size_t size; } blob;

static void drop_blob(void *value)
{
    blob *b = value;
    free(b->data);
    free(b);
}

static bool more_room(blob *b, size_t *cap)
{
    size_t next = *cap ? *cap + *cap / 2 : (size_t)1 << 20;
    unsigned char *p = next <= MAX_UNPACKED ? realloc(b->data, next) : NULL;
    if (p) {
        b->data = p;
        *cap = next;
    }
    return p != NULL;
}

static noema_status gunzip(const shard *t, blob *b, noema_error *err)
{
    z_stream z = { 0 };
    size_t cap = 0, in = 0;
    int r = Z_OK;
    if (inflateInit2(&z, 15 + 16) != Z_OK)
        return nm_part_no_memory(&t->part, err);
    while (in < t->map.size || z.avail_in) {
        if (z.avail_in == 0) {
            size_t n = t->map.size - in < (size_t)1 << 30 ? t->map.size - in : (size_t)1 << 30;
            z.next_in = (unsigned char *)(uintptr_t)t->map.data + in;
            z.avail_in = (uInt)n;
            in += n;
        }
        if (b->size == cap && !more_room(b, &cap)) {
            inflateEnd(&z);
            return nm_fail(err, NOEMA_E_LIMIT, "%s: unpacks to more than %zu bytes, or than there is memory", t->part.path, cap);
        }
        size_t room = cap - b->size < (size_t)1 << 30 ? cap - b->size : (size_t)1 << 30;
        z.next_out = b->data + b->size;
        z.avail_out = (uInt)room;
        r = inflate(&z, Z_NO_FLUSH);
        b->size += room - z.avail_out;
        if (r == Z_STREAM_END && (z.avail_in || in < t->map.size))
            inflateReset(&z);
        else if (r != Z_OK && r != Z_BUF_ERROR)
            break;
        else if (r == Z_BUF_ERROR && z.avail_in == 0 && in == t->map.size)
            break;
    }
    inflateEnd(&z);
    return r == Z_STREAM_END ? NOEMA_OK : nm_fail(err, NOEMA_E_FORMAT, "%s: the gzip data is damaged or truncated after %zu bytes", t->part.path, b->size);
}

static noema_status load_blob(void *arg, void **value, size_t *bytes, noema_error *err)
{
    const shard *t = arg;
    blob *b = calloc(1, sizeof *b);
    noema_status s = b ? gunzip(t, b, err) : nm_part_no_memory(&t->part, err);
    if (s != NOEMA_OK) {
        if (b)
            drop_blob(b);
        return s;
    }
    *value = b;
    *bytes = b->size;
    return NOEMA_OK;
}

/* The archive's bytes; *held keeps them when they are in the cache. */
static noema_status bytes_of(const shard *t, const unsigned char **data, size_t *size, nm_cached **held, noema_error *err)
{
    *held = NULL;
    *data = t->map.data;
    *size = t->map.size;
    if (!t->gzip)
        return NOEMA_OK;
    noema_status s = nm_cache_get(nm_dataset_cache(t->part.owner), t, 0, load_blob, drop_blob, (void *)(uintptr_t)t, held, err);
    if (s == NOEMA_OK) {
        const blob *b = (*held)->value;
        *data = b->data;
        *size = b->size;
    }
    return s;
}

/* ---- the index ---- */

static bool equal(const char *suffix, const char *want)
{
    for (; *suffix && *want; suffix++, want++)
        if ((*suffix >= 'A' && *suffix <= 'Z' ? *suffix + 32 : *suffix) != *want)
            return false;
    return *suffix == *want;
}

/* Which piece of a sample a suffix is, or NULL; pictures: the first of the list in the sample's order of preference. */
static piece *piece_of(const shard *t, sample *x, const char *suffix, int *rank)
{
    static const char *const pictures[] = { "jpg", "png", "jpeg", "webp" };
    *rank = 0;
    if (t->img_key ? equal(suffix, t->img_key) : false)
        return &x->picture;
    for (int i = 0; !t->img_key && i < 4; i++)
        if (equal(suffix, pictures[i])) {
            *rank = i;
            return &x->picture;
        }
    if (equal(suffix, t->caption_key ? t->caption_key : "txt"))
        return &x->text;
    if (equal(suffix, t->label_key ? t->label_key : "cls"))
        return &x->cls;
    return equal(suffix, "json") ? &x->json : equal(suffix, "source") ? &x->source : NULL;
}

static sample *add_sample(shard *t, const char *key, size_t n)
{
    if (t->part.n == t->cap) {
        int64_t cap = t->cap ? 2 * t->cap : 256;
        sample *x = nm_realloc_array(t->row, (size_t)cap, sizeof *x);
        if (!x)
            return NULL;
        t->row = x;
        t->cap = cap;
    }
    sample *x = &t->row[t->part.n++];
    *x = (sample){ .key = t->keys.len };
    return nm_buf_append(&t->keys, key, n) && nm_buf_append(&t->keys, "", 1) ? x : NULL;
}

/* Suffixes of the sample that is being read, to see one come back. */
typedef struct seen { char suffix[64][24]; int n, rank; } seen;

static bool again(seen *s, const char *suffix)
{
    for (int i = 0; i < s->n; i++)
        if (strncmp(s->suffix[i], suffix, sizeof s->suffix[i] - 1) == 0)
            return true;
    if (s->n < 64)
        snprintf(s->suffix[s->n++], sizeof s->suffix[0], "%s", suffix);
    return false;
}

static noema_status add_member(shard *t, const nm_tar_member *m, sample **last, seen *s, noema_error *err)
{
    size_t n;
    int rank;
    if (!nm_tar_key(m->name, &n))
        return NOEMA_OK;
    const char *suffix = m->name + n + 1, *key = *last ? t->keys.data + (*last)->key : NULL;
    if (!key || strncmp(key, m->name, n) != 0 || key[n] || again(s, suffix)) {
        if (!(*last = add_sample(t, m->name, n)))
            return nm_part_no_memory(&t->part, err);
        s->n = 0;
        again(s, suffix);
    }
    piece *p = piece_of(t, *last, suffix, &rank);
    if (!p || m->size > UINT32_MAX || (p->there && (p != &(*last)->picture || rank > s->rank)))
        return NOEMA_OK;
    *p = (piece){ m->at, (uint32_t)m->size, true };
    s->rank = p == &(*last)->picture ? rank : s->rank;
    return NOEMA_OK;
}

/* Leaves out samples that are no rows; keeps the order. */
static void keep_rows(shard *t)
{
    int64_t n = 0;
    bool captions = false;
    for (int64_t i = 0; i < t->part.n; i++)
        captions |= t->row[i].picture.there && t->row[i].text.there;
    for (int64_t i = 0; i < t->part.n; i++) {
        const sample *x = &t->row[i];
        if (x->picture.there && (!captions || x->text.there || x->json.there || x->cls.there))
            t->row[n++] = *x;
    }
    t->part.n = n;
    t->part.has_titles = captions;
}

static noema_status read_classes(shard *t, const unsigned char *data, noema_error *err)
{
    nm_part *p = &t->part;
    bool any = false;
    for (int64_t i = 0; i < p->n; i++)
        any |= t->row[i].cls.there;
    if (!any)
        return NOEMA_OK;
    if (!(p->label = nm_malloc_array((size_t)p->n, sizeof *p->label)))
        return nm_part_no_memory(p, err);
    for (int64_t i = 0; i < p->n; i++) {
        char where[600];
        const char *text = (const char *)data + t->row[i].cls.at;
        size_t n = t->row[i].cls.n;
        p->label[i] = -1;
        while (n && strchr(" \t\r\n", text[n - 1]))
            n--;
        if (!t->row[i].cls.there || n == 0 || n > 1000)
            continue;
        snprintf(where, sizeof where, "%s: %s", p->path, t->keys.data + t->row[i].key);
        int64_t k = nm_class_of_text(p->owner, text, n, where, err);
        if (k < 0)
            return err ? err->code : NOEMA_E_FORMAT;
        p->label[i] = (int32_t)k;
    }
    return NOEMA_OK;
}

static noema_status read_index(shard *t, const unsigned char *data, size_t size, noema_error *err)
{
    nm_tar tar = { .data = data, .size = size, .file = t->part.path };
    nm_tar_member m;
    sample *last = NULL;
    seen s = { .n = 0 };
    bool more = true;
    noema_status st = NOEMA_OK;
    while (st == NOEMA_OK && more) {
        st = nm_tar_next(&tar, &m, &more, err);
        if (st == NOEMA_OK && more)
            st = add_member(t, &m, &last, &s, err);
    }
    nm_tar_free(&tar);
    if (st == NOEMA_OK)
        keep_rows(t);
    return st == NOEMA_OK ? read_classes(t, data, err) : st;
}

static char *lower(const char *s)
{
    char *copy = s ? nm_strdup(s) : NULL;
    for (char *p = copy; p && *p; p++)
        if (*p >= 'A' && *p <= 'Z')
            *p += 32;
    return copy;
}

static noema_status open_tar(nm_part *p, const nm_dataset_options *o, noema_error *err)
{
    shard *t = (shard *)p;
    const unsigned char *data;
    size_t size;
    nm_cached *held;
    t->img_key = lower(o->img_key);
    t->caption_key = lower(o->caption_key);
    t->label_key = lower(o->label_key);
    noema_status s = nm_map_file(&t->map, p->path, err);
    if (s != NOEMA_OK)
        return s;
    t->gzip = is_gzip(t->map.data, t->map.size);
    p->in_order = true;
    if (t->map.size > 6 && (memcmp(t->map.data, "BZh", 3) == 0 || memcmp(t->map.data, "\xFD" "7zXZ", 5) == 0 || memcmp(t->map.data, "\x28\xB5\x2F\xFD", 4) == 0))
        return nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: of compressed archives only gzip is read", p->path);
    s = bytes_of(t, &data, &size, &held, err);
    if (s == NOEMA_OK)
        s = read_index(t, data, size, err);
    p->bytes = t->gzip && s == NOEMA_OK ? size : 0;
    nm_cache_release(nm_dataset_cache(p->owner), held);
    return s;
}

static void close_tar(nm_part *p)
{
    shard *t = (shard *)p;
    nm_unmap(&t->map);
    nm_buf_free(&t->keys);
    free(t->row);
    free(t->img_key);
    free(t->caption_key);
    free(t->label_key);
}

/* ---- rows ---- */

static noema_status json_title(const shard *t, const sample *x, const unsigned char *data, nm_row *row, noema_error *err)
{
    if (x->json.n > MAX_JSON)
        return nm_fail(err, NOEMA_E_LIMIT, "%s: a JSON member of %u bytes", row->name, x->json.n);
    json_t *j = nm_json_parse((const char *)data + x->json.at, x->json.n, row->name, err);
    const char *text = j ? nm_json_str(j, t->caption_key ? t->caption_key : "caption", nm_json_str(j, "text", NULL)) : NULL;
    noema_status s = j ? NOEMA_OK : err ? err->code : NOEMA_E_FORMAT;
    if (text) {
        row->own_text = nm_strdup(text);
        s = row->own_text && nm_row_own_titles(row, row->own_text, 1) ? NOEMA_OK : nm_part_no_memory(&t->part, err);
    }
    json_decref(j);
    return s;
}

static noema_status read_row(const nm_part *p, int64_t i, nm_row *row, bool picture, noema_error *err)
{
    const shard *t = (const shard *)p;
    const sample *x = &t->row[i];
    const unsigned char *data;
    size_t size;
    nm_cached *held;
    (void)picture;
    snprintf(row->name, sizeof row->name, "%s: %s", p->path, t->keys.data + x->key);
    noema_status s = bytes_of(t, &data, &size, &held, err);
    if (s != NOEMA_OK)
        return s;
    if (held)
        nm_row_hold(row, held);
    row->bytes = data + x->picture.at;
    row->n_bytes = x->picture.n;
    row->synthetic = x->source.there && x->source.n >= 9 && memcmp(data + x->source.at, "synthetic", 9) == 0;
    if (x->text.there) {
        row->own_title = (nm_bytes){ data + x->text.at, x->text.n };
        row->title = &row->own_title;
        row->n_titles = 1;
        return NOEMA_OK;
    }
    return x->json.there ? json_title(t, x, data, row, err) : NOEMA_OK;
}

const nm_data_format nm_format_tar = { "webdataset", "webdataset shards (.tar, .tgz)", sizeof(shard), probe, open_tar, close_tar, read_row };
