/* locate.c - from what the user calls a model to files on disk: a path, a published name, a hub repository. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "hub/hub.h"
#include "models/handle.h"
#include "models/registry.h"

void nm_located_free(nm_located *l)
{
    free(l->path);
    free(l->dir);
    free(l->pretrained);
    json_decref(l->config);
    *l = (nm_located){ 0 };
}

/* ---- folders ---- */

static bool has_file(const char *dir, const char *name)
{
    char *p = nm_path_join(dir, name);
    bool ok = p && nm_file_exists(p);
    free(p);
    return ok;
}

/* A JSON file of the folder, or NULL when it is not there. */
static json_t *load_from(const char *dir, const char *name, noema_status *st, noema_error *err)
{
    char *p = nm_path_join(dir, name);
    json_t *j = NULL;
    if (p && nm_file_exists(p) && !(j = nm_json_load(p, err)))
        *st = err ? err->code : NOEMA_E_FORMAT;
    free(p);
    return j;
}

/* LOGS/NAME of `train`: its last checkpoints/epoch_N.pt, NULL: not such a folder. */
static char *last_epoch(const char *dir)
{
    char *folder = nm_path_join(dir, "checkpoints"), *best = NULL;
    DIR *d = folder ? opendir(folder) : NULL;
    long most = -1;
    for (struct dirent *e; d && (e = readdir(d));) {
        char *end;
        if (strncmp(e->d_name, "epoch_", 6) != 0)
            continue;
        long n = strtol(e->d_name + 6, &end, 10);
        if (end == e->d_name + 6 || (strcmp(end, ".pt") != 0 && strcmp(end, ".safetensors") != 0) || n <= most)
            continue;
        most = n;
        free(best);
        best = nm_path_join(folder, e->d_name);
    }
    if (d)
        closedir(d);
    free(folder);
    return best;
}

/* In an open_clip folder its own files come before those of transformers (open_clip factory.py). */
static char *openclip_weights(const char *dir)
{
    static const char *const names[] = { "open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (has_file(dir, names[i]))
            return nm_path_join(dir, names[i]);
    return NULL;
}

static noema_status locate_folder(nm_located *l, const char *dir, noema_error *err)
{
    noema_status st = NOEMA_OK;
    l->dir = nm_strdup(dir);
    l->path = last_epoch(dir);
    if (!l->path && has_file(dir, "open_clip_config.json"))
        l->path = openclip_weights(dir);
    bool openclip = l->path != NULL;
    if (!l->path)
        l->path = nm_strdup(dir);
    if (openclip || !has_file(dir, "config.json"))
        l->config = load_from(dir, "open_clip_config.json", &st, err);
    if (!l->config && st == NOEMA_OK)
        l->config = load_from(dir, "config.json", &st, err);
    return st;
}

/* ---- files ---- */

/* Names under which a folder holds its one model: then the folder's configuration belongs to the file. */
static bool standard_name(const char *base)
{
    return strncmp(base, "model", 5) == 0 || strncmp(base, "pytorch_model", 13) == 0 || strncmp(base, "open_clip", 9) == 0;
}

static noema_status locate_file(nm_located *l, const char *path, noema_error *err)
{
    noema_status st = NOEMA_OK;
    const char *base = nm_path_base(path), *dot = strrchr(base, '.');
    l->path = nm_strdup(path);
    l->dir = nm_path_dir(path);
    char *beside = nm_sprintf("%.*s.config.json", (int)(dot ? dot - base : (long)strlen(base)), base);
    if (!l->path || !l->dir || !beside) {
        free(beside);
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory");
    }
    l->config = load_from(l->dir, beside, &st, err);
    free(beside);
    bool openclip = strncmp(base, "open_clip", 9) == 0 || !has_file(l->dir, "config.json");
    if (!l->config && st == NOEMA_OK && standard_name(base))
        l->config = load_from(l->dir, openclip ? "open_clip_config.json" : "config.json", &st, err);
    const nm_published *known = l->config ? NULL : nm_published_by_file(base);
    if (known && st == NOEMA_OK) {
        l->pretrained = nm_strdup(known->tag);
        if (!known->openai[0] && !(l->config = nm_published_config(known->arch, known, err)))
            st = err ? err->code : NOEMA_E_MEMORY;
    }
    return st;
}

/* ---- names that may need the hub ---- */

static const char *const hub_files[] = {
    "open_clip_model.safetensors|open_clip_pytorch_model.bin|model.safetensors|model.safetensors.index.json|pytorch_model.bin|pytorch_model.bin.index.json",
    "open_clip_config.json?", "config.json?", "preprocessor_config.json?", "tokenizer.json?", "tokenizer_config.json?", "special_tokens_map.json?",
    "vocab.json?", "merges.txt?", "vocab.txt?", "spiece.model|sentencepiece.bpe.model|tokenizer.model?", "modules.json?", "1_Pooling/config.json?",
    "sentence_bert_config.json?", "generation_config.json?",
};

/* The shards that an index names. */
static noema_status pull_shards(const char *dir, const char *index, const char *repo, const nm_hub_options *o, noema_error *err)
{
    noema_status st = NOEMA_OK;
    json_t *j = load_from(dir, index, &st, err), *value;
    const char *key, **files = NULL;
    size_t n = 0;
    json_t *map = nm_json_get(j, "weight_map");
    files = nm_malloc_array(json_object_size(map) + 1, sizeof *files);
    json_object_foreach(map, key, value) {
        const char *f = json_string_value(value);
        bool seen = !f;
        for (size_t i = 0; files && !seen && i < n; i++)
            seen = strcmp(files[i], f) == 0;
        if (files && !seen && n < 4096)
            files[n++] = f;
    }
    char *again = NULL;
    if (st == NOEMA_OK && files && n)
        st = nm_hub_resolve(&again, repo, n, files, o, err);
    free(again);
    free(files);
    json_decref(j);
    return st;
}

static noema_status locate_hub(nm_located *l, const char *repo, const noema_model_options *o, noema_error *err)
{
    nm_hub_options ho = { .offline = o && o->offline };
    char *dir = NULL;
    noema_status st = nm_hub_resolve(&dir, repo, sizeof hub_files / sizeof *hub_files, hub_files, &ho, err);
    static const char *const indexes[] = { "model.safetensors.index.json", "pytorch_model.bin.index.json" };
    for (int i = 0; st == NOEMA_OK && i < 2; i++)
        if (has_file(dir, indexes[i]) && !has_file(dir, i ? "pytorch_model.bin" : "model.safetensors"))
            st = pull_shards(dir, indexes[i], repo, &ho, err);
    if (st == NOEMA_OK)
        st = locate_folder(l, dir, err);
    free(dir);
    return st;
}

static noema_status locate_published(nm_located *l, const nm_published *p, const noema_model_options *o, noema_error *err)
{
    nm_hub_options ho = { .offline = o && o->offline };
    noema_status st;
    if (p->openai[0]) {
        st = nm_hub_openai(&l->path, p->openai, &ho, err);
        if (st == NOEMA_OK)
            l->dir = nm_path_dir(l->path);
    } else {
        st = locate_hub(l, p->hub, o, err);
        json_decref(l->config); /* the tag's own facts, as open_clip takes them for a built-in name */
        l->config = st == NOEMA_OK ? nm_published_config(p->arch, p, err) : NULL;
        if (st == NOEMA_OK && !l->config)
            st = err ? err->code : NOEMA_E_MEMORY;
    }
    l->pretrained = nm_strdup(p->tag);
    return st;
}

static noema_status locate_builtin(nm_located *l, const char *name, noema_error *err)
{
    char *folder = nm_builtin_folder(name);
    const char *data = getenv("NOEMA_DATA_DIR");
    noema_status st = folder ? locate_folder(l, folder, err)
                             : nm_fail(err, NOEMA_E_MISSING, "the built-in model %s is not %s%s; -m MODEL gives another", name,
                                       data && data[0] ? "in NOEMA_DATA_DIR, " : "installed: NOEMA_DATA_DIR can name the folder that holds it", data && data[0] ? data : "");
    free(folder);
    return st;
}

static noema_status unknown_name(const char *name, noema_error *err)
{
    if (nm_arch_json(name)) {
        const nm_published *list;
        nm_buf tags = { 0 };
        size_t n = nm_published_models(&list);
        for (size_t i = 0; i < n; i++)
            if (strcmp(list[i].arch, name) == 0)
                nm_buf_printf(&tags, "%s%s/%s", tags.len ? ", " : "", name, list[i].tag);
        noema_status st = nm_fail(err, NOEMA_E_MISSING, "%s is an architecture; its published weights: %.700s (new weights: noema models new --arch %s)",
                                  name, tags.len ? tags.data : "none", name);
        nm_buf_free(&tags);
        return st;
    }
    return nm_fail(err, NOEMA_E_MISSING, "%s: no such file or folder, and no published model of that name (ViT-B/32, ViT-B-32/laion2b_s34b_b79k, "
                   "hf-hub:org/name)", name);
}

noema_status nm_locate(nm_located *l, const char *name, const noema_model_options *o, noema_error *err)
{
    *l = (nm_located){ 0 };
    noema_status st;
    const nm_published *p;
    if (nm_file_exists(name))
        st = locate_file(l, name, err);
    else if (nm_dir_exists(name))
        st = locate_folder(l, name, err);
    else if (nm_is_builtin(name))
        st = locate_builtin(l, name, err);
    else if (strncmp(name, "hf-hub:", 7) == 0)
        st = locate_hub(l, name + 7, o, err);
    else if ((p = nm_published_find(name)))
        st = locate_published(l, p, o, err);
    else
        st = unknown_name(name, err);
    if (st == NOEMA_OK && o && o->config) {
        json_decref(l->config);
        l->config = nm_json_load(o->config, err);
        if (!l->config)
            st = err ? err->code : NOEMA_E_FORMAT;
    }
    if (st != NOEMA_OK)
        nm_located_free(l);
    return st;
}

/* ---- tokenizers ---- */

static const char merge_list[] = "bpe_simple_vocab_16e6.txt.gz";

/* Places where CLIP's own list is kept: beside the file, in OpenAI's cache, installed with noema. */
static char *find_merge_list(const char *dir)
{
    const char *home = getenv("HOME"), *cache = getenv("XDG_CACHE_HOME"), *data = getenv("NOEMA_DATA");
    char *place[4] = { nm_strdup(dir), data ? nm_strdup(data) : NULL, cache ? nm_sprintf("%s/clip", cache) : NULL,
                       home ? nm_sprintf("%s/.cache/clip", home) : NULL };
    char *found = NULL;
    for (int i = 0; i < 4; i++) {
        if (!found && place[i] && has_file(place[i], merge_list))
            found = nm_path_join(place[i], merge_list);
        free(place[i]);
    }
    return found;
}

char *nm_locate_tokenizer(const char *dir, const nm_tok_options *tok)
{
    static const char *const whole[] = { "tokenizer.json", "tokenizer_config.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model",
                                         "tokenizer.model", "merges.txt" };
    bool merges = tok->kind == NOEMA_TOKENIZER_OPENAI || tok->kind == NOEMA_TOKENIZER_OPEN_CLIP;
    char *found = merges ? find_merge_list(dir) : NULL;
    for (size_t i = 0; !found && i < sizeof whole / sizeof *whole; i++)
        if (has_file(dir, whole[i]))
            found = nm_strdup(dir);
    return found;
}
