/* weights.c - opening: files, folders, shards; the table of names; what formats share (container.h). */
#include "weights/weights.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/utf8.h"
#include "weights/container.h"
#include "weights/folder.h"

#define NAME_LIMIT 4096
#define TENSOR_LIMIT 4000000 /* per table; a hostile pickle can name one storage many times */

/* Asked in this order; the first whose probe accepts a file reads it. */
static const nm_container *const containers[] = {
    &nm_container_torch_zip, &nm_container_zarr, &nm_container_npz, &nm_container_safetensors, &nm_container_npy, &nm_container_torch_legacy,
};

/* ---- what formats use ---- */

noema_status nm_weights_add(nm_weights *w, const nm_wfile *f, const nm_wview *v, const char *name, size_t len, noema_error *err)
{
    int64_t numel;
    if (len > NAME_LIMIT || memchr(name, 0, len) || !nm_utf8_valid(name, len))
        return nm_fail(err, NOEMA_E_FORMAT, "%s: a tensor's name is overlong or no text", f->path);
    if (v->ndim < 0 || v->ndim > NM_WVIEW_DIMS || !nm_shape_product(v->ndim, v->shape, &numel))
        return nm_fail(err, NOEMA_E_LIMIT, "%s: '%.*s': the shape is too large", f->path, (int)len, name);
    if (w->n >= TENSOR_LIMIT)
        return nm_fail(err, NOEMA_E_LIMIT, "%s: more than %d tensors", f->path, TENSOR_LIMIT);
    if (w->n == w->cap) {
        size_t cap = w->cap ? w->cap * 2 : 256;
        nm_wview *view = nm_realloc_array(w->view, cap, sizeof *view);
        if (!view)
            return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", f->path);
        w->view = view;
        w->cap = cap;
    }
    char *copy = nm_arena_alloc(w->arena, len + 1);
    if (!copy)
        return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", f->path);
    memcpy(copy, name, len);
    copy[len] = 0;
    int added = nm_strmap_add(&w->names, copy, len, (uint32_t)w->n);
    if (added <= 0)
        return added ? nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", f->path)
                     : nm_fail(err, NOEMA_E_FORMAT, "%s: tensor '%.300s' is there twice", f->path, copy);
    w->view[w->n] = *v;
    w->view[w->n++].name = copy;
    return NOEMA_OK;
}

void *nm_weights_block(nm_weights *w, size_t bytes)
{
    if (w->n_blocks == w->cap_blocks) {
        size_t cap = w->cap_blocks ? w->cap_blocks * 2 : 16;
        void **block = nm_realloc_array(w->block, cap, sizeof *block);
        if (!block)
            return NULL;
        w->block = block;
        w->cap_blocks = cap;
    }
    void *p = nm_alloc(bytes ? bytes : 1);
    if (p)
        w->block[w->n_blocks++] = p;
    return p;
}

const void *nm_weights_aligned(nm_weights *w, const void *data, size_t size, size_t align)
{
    if ((uintptr_t)data % align == 0)
        return data;
    void *copy = nm_weights_block(w, size);
    if (copy && size)
        memcpy(copy, data, size);
    return copy;
}

const unsigned char *nm_weights_member(nm_weights *w, const nm_wfile *f, const nm_zip_entry *e, noema_error *err)
{
    if (e->method == 0)
        return e->data;
    if (e->size > f->zip->inflate_left) {
        nm_fail(err, NOEMA_E_LIMIT, "%s: member '%.*s' would inflate to %ju bytes, more than weights of this file's size can need", f->path,
                (int)(e->name_len > 200 ? 200 : e->name_len), e->name, (uintmax_t)e->size);
        return NULL;
    }
    f->zip->inflate_left -= e->size;
    void *p = nm_weights_block(w, e->size);
    if (!p)
        nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", f->path);
    return p && nm_zip_inflate(f->zip, e, p, err) == NOEMA_OK ? p : NULL;
}

/* ---- one file ---- */

static noema_status refuse_unknown(const nm_wfile *f, noema_error *err)
{
    static const struct { const char *magic; size_t at; const char *what; } known[] = {
        { "version https://git-lfs", 0, "a git-lfs pointer, not the file itself: fetch it with git lfs pull" },
        { "GGUF", 0, "a GGUF file, which is not read here" },
        { "\x89HDF", 0, "an HDF5 file, which is not read here" },
        { "ustar", 257, "a tar archive (the oldest torch format): load and save it again with a newer torch" },
        { "<!DOCTYPE", 0, "an HTML page: the download failed" },
        { "<html", 0, "an HTML page: the download failed" },
        { "PK\3\4", 0, "a zip archive without torch's data.pkl or zarr arrays, and not of .npy arrays alone" },
        { "\x80", 0, "a pickle without torch's header" },
        { "\x1f\x8b", 0, "gzip-compressed: unpack it first" },
    };
    if (!f->size)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: expected a checkpoint, the file is empty", f->path);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        size_t n = strlen(known[i].magic);
        if (f->size >= known[i].at + n && memcmp(f->data + known[i].at, known[i].magic, n) == 0)
            return nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: %s", f->path, known[i].what);
    }
    return nm_fail(err, NOEMA_E_FORMAT, "%s: expected safetensors, torch, npz or npy; it is none of them, or truncated", f->path);
}

/* f->path, data and size are set. */
static noema_status read_file(nm_weights *w, nm_wfile *f, const nm_weights_options *o, noema_error *err)
{
    noema_status s;
    if (f->size >= 4 && memcmp(f->data, "PK\3\4", 4) == 0 && (s = nm_zip_open(&f->zip, f->data, f->size, f->path, err)) != NOEMA_OK)
        return s;
    for (size_t i = 0; i < sizeof containers / sizeof *containers && !f->format; i++)
        if (containers[i]->probe(f))
            f->format = containers[i];
    if (!f->format)
        return refuse_unknown(f, err);
    f->format_name = f->format->name;
    s = f->format->open(w, f, o, err);
    for (size_t i = 0; s == NOEMA_OK && o->verify && f->zip && i < f->zip->n; i++)
        s = nm_zip_check_crc(f->zip, &f->zip->entry[i], err);
    return s;
}

static noema_status new_table(nm_weights **out, size_t n_files, noema_error *err)
{
    nm_weights *w = calloc(1, sizeof *w);
    if (w) {
        w->arena = nm_arena_new(1 << 16);
        w->file = calloc(n_files ? n_files : 1, sizeof *w->file);
    }
    if (!w || !w->arena || !w->file) {
        nm_weights_close(w);
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory");
    }
    *out = w;
    return NOEMA_OK;
}

static noema_status finish(nm_weights **out, nm_weights *w, noema_status s, noema_error *err)
{
    if (s == NOEMA_OK && !w->meta && !(w->meta = json_object()))
        s = nm_fail(err, NOEMA_E_MEMORY, "out of memory");
    if (s != NOEMA_OK) {
        nm_weights_close(w);
        return s;
    }
    *out = w;
    return NOEMA_OK;
}

static noema_status open_files(nm_weights **out, const char *const *paths, size_t n, const nm_weights_options *o, noema_error *err)
{
    nm_weights *w = NULL;
    noema_status s = new_table(&w, n, err);
    for (size_t i = 0; s == NOEMA_OK && i < n; i++) {
        nm_wfile *f = &w->file[w->n_files];
        if (!(f->path = nm_strdup(paths[i])))
            s = nm_fail(err, NOEMA_E_MEMORY, "out of memory");
        else if (!nm_dir_exists(paths[i]) && (s = nm_map_file(&f->map, paths[i], err)) != NOEMA_OK) /* a folder: zarr's store */
            free(f->path);
        if (s != NOEMA_OK)
            break;
        w->n_files++;
        f->data = f->map.data;
        f->size = f->map.size;
        s = read_file(w, f, o, err);
    }
    if (!w)
        return s;
    return finish(out, w, s, err);
}

/* ---- public ---- */

static const nm_weights_options default_options = { 0 };

noema_status nm_weights_open_many(nm_weights **out, const char *const *paths, size_t n, const nm_weights_options *o, noema_error *err)
{
    *out = NULL;
    if (!n)
        return nm_fail(err, NOEMA_E_ARGUMENT, "no checkpoint file given");
    nm_file_list list = { 0 };
    noema_status s = NOEMA_OK;
    for (size_t i = 0; i < n && s == NOEMA_OK; i++)
        s = nm_checkpoint_files(&list, paths[i], err);
    if (s == NOEMA_OK)
        s = open_files(out, (const char *const *)list.path, list.n, o ? o : &default_options, err);
    if (s == NOEMA_OK)
        s = nm_check_weight_map(*out, &list, err);
    if (s != NOEMA_OK) {
        nm_weights_close(*out);
        *out = NULL;
    }
    nm_file_list_free(&list);
    return s;
}

noema_status nm_weights_open(nm_weights **w, const char *path, noema_error *err)
{
    return nm_weights_open_many(w, &path, 1, NULL, err);
}

noema_status nm_weights_open_memory(nm_weights **out, const void *data, size_t size, const char *name, const nm_weights_options *o,
                                    noema_error *err)
{
    nm_weights *w = NULL;
    *out = NULL;
    noema_status s = new_table(&w, 1, err);
    if (s != NOEMA_OK)
        return s;
    nm_wfile *f = &w->file[0];
    if (!(f->path = nm_strdup(name)))
        s = nm_fail(err, NOEMA_E_MEMORY, "out of memory");
    else {
        w->n_files = 1;
        f->data = data;
        f->size = size;
        s = read_file(w, f, o ? o : &default_options, err);
    }
    return finish(out, w, s, err);
}

void nm_weights_close(nm_weights *w)
{
    if (!w)
        return;
    for (size_t i = 0; i < w->n_files; i++) {
        nm_zip_close(w->file[i].zip);
        nm_unmap(&w->file[i].map);
        free(w->file[i].path);
    }
    for (size_t i = 0; i < w->n_blocks; i++)
        nm_free(w->block[i]);
    free(w->block);
    free(w->file);
    free(w->view);
    nm_strmap_free(&w->names);
    json_decref(w->meta);
    nm_arena_free(w->arena);
    free(w);
}

size_t nm_weights_count(const nm_weights *w) { return w->n; }
const nm_wview *nm_weights_at(const nm_weights *w, size_t i) { return i < w->n ? &w->view[i] : NULL; }

const nm_wview *nm_weights_find(const nm_weights *w, const char *name)
{
    uint32_t i = nm_strmap_get(&w->names, name, strlen(name));
    return i == NM_STRMAP_NONE ? NULL : &w->view[i];
}

bool nm_weights_scalar(const nm_weights *w, const char *name, double *out)
{
    const nm_wview *v = nm_weights_find(w, name);
    if (!v || nm_wview_numel(v) != 1)
        return false;
    *out = nm_wview_first(v);
    return true;
}

const char *nm_weights_format(const nm_weights *w) { return w->file[0].format_name; }
size_t nm_weights_file_count(const nm_weights *w) { return w->n_files; }
const char *nm_weights_path(const nm_weights *w, size_t i) { return i < w->n_files ? w->file[i].path : NULL; }
const json_t *nm_weights_meta(const nm_weights *w) { return w->meta; }

noema_status nm_weights_verify(const nm_weights *w, noema_error *err)
{
    for (size_t i = 0; i < w->n_files; i++)
        for (size_t k = 0; w->file[i].zip && k < w->file[i].zip->n; k++) {
            noema_status s = nm_zip_check_crc(w->file[i].zip, &w->file[i].zip->entry[k], err);
            if (s != NOEMA_OK)
                return s;
        }
    return NOEMA_OK;
}
