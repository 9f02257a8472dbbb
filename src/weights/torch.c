/* torch.c - the two files of torch.save, and TorchScript archives.
 *
 * Zip (torch >= 1.6, torch/serialization.py _load; TorchScript is the same with modules in the pickle): TOP/data.pkl and one member
 * TOP/data/KEY per storage, stored and 64-byte aligned. Code, constants and other members are not read.
 * Legacy (before 1.6, or _use_new_zipfile_serialization=False; _legacy_load): pickles of a magic number, the protocol 1001, facts about
 * the machine, the tree, and the list of storage keys; then per key an int64 count and the elements. */
#include <string.h>

#include "weights/torch_tree.h"

/* ---- zip ---- */

static bool is_pickle(const nm_zip_entry *e)
{
    const char *slash = memchr(e->name, '/', e->name_len);
    return slash && (size_t)(e->name + e->name_len - slash) == 9 && memcmp(slash, "/data.pkl", 9) == 0;
}

static const nm_zip_entry *find_pickle(const nm_zip *z, size_t *count)
{
    const nm_zip_entry *found = NULL;
    *count = 0;
    for (size_t i = 0; z && i < z->n; i++)
        if (is_pickle(&z->entry[i])) {
            found = &z->entry[i];
            ++*count;
        }
    return found;
}

static bool probe_zip(const nm_wfile *f)
{
    size_t n;
    return find_pickle(f->zip, &n) != NULL;
}

/* The member TOP/name, TOP being the folder of data.pkl. */
static const nm_zip_entry *beside(const nm_zip *z, const nm_zip_entry *pickle, const char *dir, const char *name, size_t len, nm_buf *b)
{
    b->len = 0;
    nm_buf_append(b, pickle->name, pickle->name_len - 8);
    nm_buf_puts(b, dir);
    nm_buf_append(b, name, len);
    return b->failed ? NULL : nm_zip_find(z, b->data, b->len);
}

static noema_status find_storages(nm_weights *w, const nm_wfile *f, nm_pickle *p, const nm_zip_entry *pickle, noema_error *err)
{
    nm_buf b = { 0 };
    noema_status s = NOEMA_OK;
    const nm_zip_entry *order = beside(f->zip, pickle, "", "byteorder", 9, &b);
    if (order && (order->method != 0 || order->size != 6 || memcmp(order->data, "little", 6) != 0))
        s = nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: written on a big-endian machine, which is not read here", f->path);
    for (size_t i = 0; i < p->n_storages && s == NOEMA_OK; i++) {
        nm_pstorage *st = &p->storage[i];
        if (st->data)
            continue;
        const nm_zip_entry *e = beside(f->zip, pickle, "data/", st->key, st->key_len, &b);
        int show = st->key_len > 100 ? 100 : (int)st->key_len;
        if (!e)
            s = nm_fail(err, NOEMA_E_FORMAT, "%s: storage '%.*s' is not in the archive", f->path, show, st->key);
        else if (e->size != st->bytes)
            s = nm_fail(err, NOEMA_E_FORMAT, "%s: storage '%.*s': expected %ju bytes, the member has %ju", f->path, show, st->key,
                        (uintmax_t)st->bytes, (uintmax_t)e->size);
        else if (!(st->data = nm_weights_member(w, f, e, err)))
            s = err ? err->code : NOEMA_E_FORMAT;
    }
    nm_buf_free(&b);
    return s;
}

static noema_status open_zip(nm_weights *w, nm_wfile *f, const nm_weights_options *o, noema_error *err)
{
    size_t n_pickles, used;
    nm_buf b = { 0 };
    noema_error local = NOEMA_ERROR_INIT;
    const nm_zip_entry *e = find_pickle(f->zip, &n_pickles);
    if (n_pickles != 1)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: expected one data.pkl, got %zu", f->path, n_pickles);
    f->format_name = beside(f->zip, e, "", "constants.pkl", 13, &b) ? "torchscript" : "torch zip";
    nm_buf_free(&b);
    noema_status s = nm_zip_check_crc(f->zip, e, &local);
    const unsigned char *data = s == NOEMA_OK ? nm_weights_member(w, f, e, &local) : NULL;
    if (!data)
        return nm_fail(err, local.code, "%s", local.message);
    nm_pickle p;
    s = nm_pickle_read(&p, data, e->size, &used, f->path, &local);
    if (s == NOEMA_OK && used != e->size)
        s = nm_fail(&local, NOEMA_E_FORMAT, "%s: %ju bytes after the end of the pickle", f->path, (uintmax_t)(e->size - used));
    if (s == NOEMA_OK)
        s = find_storages(w, f, &p, e, &local);
    if (s == NOEMA_OK)
        s = nm_torch_add_tree(w, f, &p, o, &local);
    nm_pickle_free(&p);
    return s == NOEMA_OK ? s : nm_fail(err, local.code, "%s", local.message);
}

const nm_container nm_container_torch_zip = { "torch zip", probe_zip, open_zip };

/* ---- legacy ---- */

/* PROTO n, [FRAME,] LONG1 of 10 bytes: 0x1950a86a20f9469cfc6c. */
static const unsigned char magic[] = { 0x8A, 0x0A, 0x6C, 0xFC, 0x9C, 0x46, 0xF9, 0x20, 0x6A, 0xA8, 0x50, 0x19 };

static bool probe_legacy(const nm_wfile *f)
{
    if (f->size < 2 + sizeof magic || f->data[0] != 0x80)
        return false;
    size_t at = f->data[2] == 0x95 ? 11 : 2;
    return f->size >= at + sizeof magic && memcmp(f->data + at, magic, sizeof magic) == 0;
}

/* One of the small pickles around the tree; `want` is the kind of its value. Its values live until nm_pickle_free. */
static noema_status small_pickle(nm_pickle *p, const nm_wfile *f, size_t *at, nm_pkind want, noema_error *err)
{
    size_t used = 0;
    noema_status s = nm_pickle_read(p, f->data + *at, f->size - *at, &used, f->path, err);
    *at += used;
    if (s == NOEMA_OK && p->root->kind != want)
        s = nm_fail(err, NOEMA_E_FORMAT, "%s: damaged torch file: an unexpected value before byte %zu", f->path, *at);
    return s;
}

static noema_status read_header(const nm_wfile *f, size_t *at, noema_error *err)
{
    nm_pickle p;
    noema_status s = small_pickle(&p, f, at, NM_P_OTHER, err);
    nm_pickle_free(&p);
    if (s != NOEMA_OK)
        return s;
    s = small_pickle(&p, f, at, NM_P_INT, err);
    if (s == NOEMA_OK && p.root->u.i != 1001)
        s = nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: torch file protocol %lld, expected 1001", f->path, (long long)p.root->u.i);
    nm_pickle_free(&p);
    if (s != NOEMA_OK)
        return s;
    s = small_pickle(&p, f, at, NM_P_DICT, err);
    for (uint32_t i = 0; s == NOEMA_OK && i + 1 < p.root->n; i += 2) {
        const nm_pvalue *k = p.root->u.item[i], *v = p.root->u.item[i + 1];
        if (k->kind == NM_P_STR && k->n == 13 && memcmp(k->u.s, "little_endian", 13) == 0 && (v->kind != NM_P_BOOL || !v->u.i))
            s = nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: written on a big-endian machine, which is not read here", f->path);
    }
    nm_pickle_free(&p);
    return s;
}

/* Count and elements of one storage at *at. */
static noema_status read_storage(const nm_wfile *f, size_t *at, nm_pickle *p, const nm_pvalue *key, noema_error *err)
{
    uint32_t i = key->kind == NM_P_STR ? nm_strmap_get(&p->keys, key->u.s, key->n) : NM_STRMAP_NONE;
    if (i == NM_STRMAP_NONE || p->storage[i].data)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: damaged list of storages", f->path);
    nm_pstorage *s = &p->storage[i];
    if (f->size - *at < 8 || s->bytes > f->size - *at - 8)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: a storage of %ju bytes at byte %zu ends outside the file, which is truncated", f->path,
                       (uintmax_t)s->bytes, *at);
    uint64_t count = 0;
    for (int k = 7; k >= 0; k--)
        count = count << 8 | f->data[*at + (size_t)k];
    if (count > f->size || count * nm_dtype_size(s->dtype) != s->bytes)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: a storage at byte %zu: expected %ju bytes, it says %ju elements", f->path, *at,
                       (uintmax_t)s->bytes, (uintmax_t)count);
    s->data = f->data + *at + 8;
    *at += 8 + (size_t)s->bytes;
    return NOEMA_OK;
}

static noema_status read_storages(const nm_wfile *f, size_t *at, nm_pickle *p, noema_error *err)
{
    nm_pickle keys;
    noema_status s = small_pickle(&keys, f, at, NM_P_LIST, err);
    for (uint32_t i = 0; s == NOEMA_OK && i < keys.root->n; i++)
        s = read_storage(f, at, p, keys.root->u.item[i], err);
    nm_pickle_free(&keys);
    for (size_t i = 0; s == NOEMA_OK && i < p->n_storages; i++)
        if (!p->storage[i].data)
            s = nm_fail(err, NOEMA_E_FORMAT, "%s: a storage is not in the file", f->path);
    return s;
}

static noema_status open_legacy(nm_weights *w, nm_wfile *f, const nm_weights_options *o, noema_error *err)
{
    size_t at = 0, used = 0;
    noema_status s = read_header(f, &at, err);
    if (s != NOEMA_OK)
        return s;
    nm_pickle p;
    s = nm_pickle_read(&p, f->data + at, f->size - at, &used, f->path, err);
    at += used;
    if (s == NOEMA_OK)
        s = read_storages(f, &at, &p, err);
    if (s == NOEMA_OK)
        s = nm_torch_add_tree(w, f, &p, o, err);
    nm_pickle_free(&p);
    return s;
}

const nm_container nm_container_torch_legacy = { "torch legacy", probe_legacy, open_legacy };
