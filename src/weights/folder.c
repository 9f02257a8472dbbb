/* folder.c - see folder.h. Layouts: Hugging Face (transformers) and open_clip repositories; a folder that holds exactly one
 * checkpoint under another name is taken too. */
#include "weights/folder.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"

#define SHARD_LIMIT 4096

/* safetensors before pickles; Hugging Face before open_clip, whose files hold the same weights under other names. */
static const char *const names[] = {
    "model.safetensors",      "model.safetensors.index.json",  "open_clip_model.safetensors",   "open_clip_model.safetensors.index.json",
    "pytorch_model.bin",      "pytorch_model.bin.index.json",  "open_clip_pytorch_model.bin",   "open_clip_pytorch_model.bin.index.json",
    "adapter_model.safetensors",
};

static noema_status append(nm_file_list *l, char *path, noema_error *err)
{
    if (path && l->n == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 16;
        char **p = nm_realloc_array(l->path, cap, sizeof *p);
        if (!p) {
            free(path);
            path = NULL;
        } else {
            l->path = p;
            l->cap = cap;
        }
    }
    if (!path)
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory");
    l->path[l->n++] = path;
    return NOEMA_OK;
}

/* A shard is a plain file name: an index must not reach out of its folder. */
static bool plain_name(const char *s)
{
    return s && *s && !strchr(s, '/') && !strchr(s, '\\') && strcmp(s, ".") != 0 && strcmp(s, "..") != 0 && strlen(s) < 256;
}

static noema_status add_shard(nm_file_list *l, size_t first, const char *dir, const char *index, const char *shard, noema_error *err)
{
    if (!plain_name(shard))
        return nm_fail(err, NOEMA_E_FORMAT, "%s: shard name '%.100s' is no plain file name; refused", index, shard ? shard : "(not a string)");
    for (size_t i = first; i < l->n; i++)
        if (strcmp(nm_path_base(l->path[i]), shard) == 0)
            return NOEMA_OK;
    if (l->n - first >= SHARD_LIMIT)
        return nm_fail(err, NOEMA_E_LIMIT, "%s: more than %d shards", index, SHARD_LIMIT);
    char *path = nm_path_join(dir, shard);
    if (path && !nm_file_exists(path)) {
        noema_status s = nm_fail(err, NOEMA_E_MISSING, "%s: shard %s is not there", index, path);
        free(path);
        return s;
    }
    return append(l, path, err);
}

static noema_status read_index(nm_file_list *l, const char *path, noema_error *err)
{
    json_t *j = nm_json_load(path, err);
    if (!j)
        return err ? err->code : NOEMA_E_FORMAT;
    const json_t *map = json_object_get(j, "weight_map");
    char *dir = nm_path_dir(path);
    noema_status s = dir ? NOEMA_OK : nm_fail(err, NOEMA_E_MEMORY, "out of memory");
    if (!json_is_object(map) || json_object_size(map) == 0)
        s = nm_fail(err, NOEMA_E_FORMAT, "%s: expected an object \"weight_map\" from tensor to shard", path);
    const char *tensor, *last = "";
    json_t *shard;
    size_t first = l->n;
    if (s == NOEMA_OK)
        json_object_foreach((json_t *)(uintptr_t)map, tensor, shard) {
            const char *name = json_string_value(shard);
            if (name && strcmp(name, last) == 0) /* most neighbours share their shard */
                continue;
            if ((s = add_shard(l, first, dir, path, name, err)) != NOEMA_OK)
                break;
            last = name;
        }
    free(dir);
    json_decref(l->index);
    free(l->index_path);
    l->index = j;
    l->index_path = nm_strdup(path);
    return s;
}

static bool is_checkpoint_name(const char *s)
{
    return nm_has_suffix(s, ".safetensors") || nm_has_suffix(s, ".pt") || nm_has_suffix(s, ".pth") || nm_has_suffix(s, ".bin") ||
           nm_has_suffix(s, ".ckpt") || nm_has_suffix(s, ".npz");
}

/* The only checkpoint of a folder without any of the usual names. */
static noema_status only_file(nm_file_list *l, const char *dir, noema_error *err)
{
    DIR *d = opendir(dir);
    if (!d)
        return nm_fail(err, NOEMA_E_IO, "%s: cannot list the folder", dir);
    char *found = NULL;
    size_t n = 0;
    for (struct dirent *e; (e = readdir(d));)
        if (is_checkpoint_name(e->d_name)) {
            n++;
            free(found);
            found = nm_path_join(dir, e->d_name);
        }
    closedir(d);
    if (n == 1)
        return append(l, found, err);
    free(found);
    return n ? nm_fail(err, NOEMA_E_MISSING, "%s: %zu checkpoints and none is named model.safetensors or the like: name the file", dir, n)
             : nm_fail(err, NOEMA_E_MISSING,
                       "%s: no checkpoint; expected model.safetensors, pytorch_model.bin, open_clip_model.safetensors, "
                       "open_clip_pytorch_model.bin or an index.json of one of them",
                       dir);
}

noema_status nm_checkpoint_files(nm_file_list *l, const char *path, noema_error *err)
{
    if (!nm_dir_exists(path)) {
        if (nm_has_suffix(path, ".index.json"))
            return read_index(l, path, err);
        return append(l, nm_strdup(path), err);
    }
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *file = nm_path_join(path, names[i]);
        if (!file)
            return nm_fail(err, NOEMA_E_MEMORY, "out of memory");
        if (nm_file_exists(file)) {
            if (!nm_has_suffix(file, ".json"))
                return append(l, file, err);
            noema_status s = read_index(l, file, err);
            free(file);
            return s;
        }
        free(file);
    }
    return nm_zarr_folder(path) ? append(l, nm_strdup(path), err) : only_file(l, path, err);
}

static uint64_t folder_bytes(const char *path, int levels)
{
    uint64_t sum = 0;
    DIR *d = opendir(path);
    for (struct dirent *e; d && (e = readdir(d));) {
        struct stat st;
        char *file = strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 ? NULL : nm_path_join(path, e->d_name);
        if (file && stat(file, &st) == 0)
            sum += S_ISREG(st.st_mode) ? (uint64_t)st.st_size : S_ISDIR(st.st_mode) && levels > 0 ? folder_bytes(file, levels - 1) : 0;
        free(file);
    }
    if (d)
        closedir(d);
    return sum;
}

uint64_t nm_folder_bytes(const char *path) { return folder_bytes(path, NM_WVIEW_DIMS); }

noema_status nm_check_weight_map(const nm_weights *w, const nm_file_list *l, noema_error *err)
{
    const char *tensor;
    json_t *shard;
    json_object_foreach(json_object_get(l->index, "weight_map"), tensor, shard)
        if (!nm_weights_find(w, tensor))
            return nm_fail(err, NOEMA_E_MISSING, "%s: tensor '%.300s' is not in its shard %s", l->index_path, tensor,
                           json_string_value(shard));
    return NOEMA_OK;
}

void nm_file_list_free(nm_file_list *l)
{
    for (size_t i = 0; i < l->n; i++)
        free(l->path[i]);
    free(l->path);
    free(l->index_path);
    json_decref(l->index);
    *l = (nm_file_list){ 0 };
}
