/* pull.c - noema_hub_pull: which files of a repository a model needs, and in which order of preference. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "hub/hub.h"
#include "noema/hub.h"

/* Configuration and tokenizers: small, all taken that are there. */
static const char *const companions[] = {
    "config.json", "open_clip_config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "vocab.json", "merges.txt", "vocab.txt", "spiece.model", "sentencepiece.bpe.model", "modules.json", "config_sentence_transformers.json",
    "sentence_bert_config.json", "1_Pooling/config.json", "bpe_simple_vocab_16e6.txt.gz", "README.md"
};
/* Weights: the first that is there, one per kind of file; a sharded model is its index and the parts beside it. */
static const char *const weights[] = { "open_clip_model.safetensors", "model.safetensors", "model.safetensors.index.json",
                                       "open_clip_pytorch_model.bin", "pytorch_model.bin", "pytorch_model.bin.index.json" };

void noema_pull_options_default(noema_pull_options *o) { *o = (noema_pull_options){ .struct_size = sizeof *o }; }

static bool listed(char *const *files, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (!strcmp(files[i], name))
            return true;
    return false;
}

/* "model-00002-of-00004.safetensors" belongs to "model.safetensors.index.json". */
static bool is_shard_of(const char *file, const char *index)
{
    const char *dot = strchr(index, '.'), *end = strstr(index, ".index.json");
    size_t stem = (size_t)(dot - index), n = strlen(file), ext = end ? (size_t)(end - dot) : 0;
    return end && n > stem + ext && !strncmp(file, index, stem) && file[stem] == '-' && strstr(file, "-of-") && !strncmp(file + n - ext, dot, ext);
}

/* The names to fetch, in `want` (room for n). 0: no weights that noema knows. */
static size_t choose(char *const *files, size_t n, const char **want)
{
    size_t k = 0;
    const char *model = NULL;
    for (size_t i = 0; i < sizeof companions / sizeof *companions; i++)
        if (listed(files, n, companions[i]))
            want[k++] = companions[i];
    for (size_t i = 0; i < sizeof weights / sizeof *weights && !model; i++)
        if (listed(files, n, weights[i]))
            model = want[k++] = weights[i];
    for (size_t i = 0; i < n && model; i++)
        if (is_shard_of(files[i], model))
            want[k++] = files[i];
    if (model)
        return k;
    for (size_t i = 0; i < n; i++) /* a repository of one checkpoint under its own name */
        if (nm_has_suffix(files[i], ".safetensors") || nm_has_suffix(files[i], ".pt") || nm_has_suffix(files[i], ".pth"))
            model = want[k++] = files[i];
    return model ? k : 0;
}

noema_status noema_hub_pull(const char *name, const noema_pull_options *o, char *out, size_t cap, noema_error *err)
{
    noema_pull_options none;
    char **files = NULL, *dir = NULL;
    size_t n = 0, k;
    if (!o)
        noema_pull_options_default(&none), o = &none;
    nm_hub_options h = { .offline = o->offline != 0, .refresh = true, .progress = o->progress, .progress_user = o->progress_user };
    const char *repo = strncmp(name, "hf-hub:", 7) ? name : name + 7;
    noema_status s = nm_hub_list(&files, &n, repo, &h, err);
    if (s != NOEMA_OK)
        return s;
    const char **want = nm_malloc_array(n + 1, sizeof *want);
    if (!want)
        s = nm_fail(err, NOEMA_E_MEMORY, "out of memory");
    else if (o->all)
        for (k = 0; k < n; k++)
            want[k] = files[k];
    else if (!(k = choose(files, n, want)))
        s = nm_fail(err, NOEMA_E_MISSING, "hf-hub:%s: has no weights that noema reads (safetensors, open_clip or PyTorch)", repo);
    if (s == NOEMA_OK)
        s = nm_hub_resolve(&dir, repo, k, want, &h, err);
    if (s == NOEMA_OK && snprintf(out, cap, "%s", dir) >= (int)cap)
        s = nm_fail(err, NOEMA_E_ARGUMENT, "the folder's name has %zu bytes, room for %zu", strlen(dir), cap);
    free(dir);
    free(want);
    nm_hub_list_free(files, n);
    return s;
}
