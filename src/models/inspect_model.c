/* inspect_model.c - the public face of an opened model's insides (noema/inspect.h): report, observer, saving, published names. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "hub/hub.h"
#include "kernels/peak.h"
#include "models/clip.h"
#include "models/handle.h"
#include "models/registry.h"
#include "noema/hub.h"
#include "noema/inspect.h"

const noema_tokenizer *noema_model_tokenizer(noema_model *m, noema_error *err) { return nm_model_tokenizer(m, err); }

noema_status noema_checkpoint_of_model(noema_checkpoint **c, const char *name, const noema_model_options *o, int verify, noema_error *err)
{
    nm_located l;
    *c = NULL;
    noema_status s = nm_locate(&l, name, o, err);
    if (s != NOEMA_OK)
        return s;
    s = noema_checkpoint_open(c, l.path, verify, err);
    nm_located_free(&l);
    return s;
}

void noema_model_load_summary(const noema_model *m, noema_load_summary *s)
{
    const nm_load_report *r = &m->m->report;
    *s = (noema_load_summary){ r->n_params, r->n_missing, r->n_unused, r->text.data ? r->text.data : "" };
}

/* ---- published names ---- */

size_t noema_published_count(void)
{
    const nm_published *list;
    return nm_published_models(&list);
}

void noema_published_at(size_t i, noema_published *p)
{
    static const char *const files[] = { "open_clip_model.safetensors|open_clip_pytorch_model.bin|model.safetensors|pytorch_model.bin" };
    const nm_published *list;
    nm_hub_options offline = { .offline = true };
    noema_error e = NOEMA_ERROR_INIT;
    char *path = NULL;
    *p = (noema_published){ .source = "openai" };
    if (i >= nm_published_models(&list))
        return;
    snprintf(p->name, sizeof p->name, "%s/%s", list[i].arch, list[i].tag);
    if (list[i].openai[0])
        nm_hub_openai(&path, list[i].openai, &offline, &e);
    else {
        p->source = list[i].hub;
        if (list[i].hub[0])
            nm_hub_resolve(&path, list[i].hub, 1, files, &offline, &e);
    }
    if (path)
        snprintf(p->path, sizeof p->path, "%s", path);
    free(path);
}

noema_status noema_model_pull(const char *name, const noema_pull_options *o, char *out, size_t cap, noema_error *err)
{
    const nm_published *p = nm_published_find(name);
    if (!p || !p->openai[0])
        return noema_hub_pull(p ? p->hub : name, o, out, cap, err);
    nm_hub_options h = { .refresh = true };
    char *path;
    if (o)
        h = (nm_hub_options){ .offline = o->offline != 0, .refresh = true, .progress = o->progress, .progress_user = o->progress_user };
    noema_status s = nm_hub_openai(&path, p->openai, &h, err);
    if (s == NOEMA_OK && snprintf(out, cap, "%s", path) >= (int)cap)
        s = nm_fail(err, NOEMA_E_ARGUMENT, "the file's name has %zu bytes, room for %zu", strlen(path), cap);
    free(path);
    return s;
}

/* ---- new models and saving ---- */

noema_status noema_model_new(noema_model **m, noema_context *ctx, const char *arch, const char *config, uint64_t seed,
                             const noema_model_options *o, noema_error *err)
{
    json_t *j = NULL;
    nm_model *made = NULL;
    *m = NULL;
    if (config && !(j = nm_json_load(config, err)))
        return err ? err->code : NOEMA_E_FORMAT;
    noema_status s = nm_family_clip.create(&made, arch, j, seed, err);
    json_decref(j);
    if (s != NOEMA_OK)
        return s;
    s = nm_model_adopt(m, ctx, made, arch ? arch : config, o, err);
    if (s != NOEMA_OK)
        made->family->free(made);
    return s;
}

static noema_status copy_file(const char *from_dir, const char *name, const char *to_dir, const char *new_name, noema_error *err)
{
    char *from = nm_path_join(from_dir, name), *to = nm_path_join(to_dir, new_name);
    nm_map map;
    noema_status s = from && to ? NOEMA_OK : nm_fail(err, NOEMA_E_MEMORY, "out of memory");
    if (s == NOEMA_OK && nm_file_exists(from) && (s = nm_map_file(&map, from, err)) == NOEMA_OK) {
        s = nm_write_file_atomic(to, map.data, map.size, err);
        nm_unmap(&map);
    }
    free(from);
    free(to);
    return s;
}

/* The name under which a folder holds a tokenizer of that kind. */
static const char *tokenizer_name(const noema_model *m)
{
    static const char *const names[] = { "tokenizer.json", "vocab.txt", "sentencepiece.bpe.model" };
    bool merges = m->m->tok.kind == NOEMA_TOKENIZER_OPENAI || m->m->tok.kind == NOEMA_TOKENIZER_OPEN_CLIP;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (nm_has_suffix(m->tokenizer_path, names[i]))
            return names[i];
    return merges ? "bpe_simple_vocab_16e6.txt.gz" : nm_has_suffix(m->tokenizer_path, ".model") ? "spiece.model" : nm_path_base(m->tokenizer_path);
}

/* The tokenizer's file, or the files of its folder that a tokenizer can be made of. */
noema_status nm_model_copy_tokenizer(const noema_model *m, const char *folder, noema_error *err)
{
    static const char *const names[] = { "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt", "vocab.txt",
                                         "spiece.model", "sentencepiece.bpe.model", "tokenizer.model" };
    noema_status s = NOEMA_OK;
    if (!m->tokenizer_path)
        return NOEMA_OK;
    if (!nm_dir_exists(m->tokenizer_path))
        return copy_file(".", m->tokenizer_path, folder, tokenizer_name(m), err);
    for (size_t i = 0; s == NOEMA_OK && i < sizeof names / sizeof *names; i++)
        s = copy_file(m->tokenizer_path, names[i], folder, names[i], err);
    return s;
}

/* Takes j over. */
static noema_status write_json(json_t *j, const char *folder, const char *name, noema_error *err)
{
    char *path = nm_path_join(folder, name), *text = j ? json_dumps(j, JSON_INDENT(4) | JSON_REAL_PRECISION(9)) : NULL;
    noema_status s = path && text ? nm_write_file_atomic(path, text, strlen(text), err) : nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", folder);
    free(path);
    free(text);
    json_decref(j);
    return s;
}

static bool is_clip(const nm_model *m) { return m->family == &nm_family_clip || m->family == &nm_family_siglip || m->family == &nm_family_coca; }

/* The configuration that the model came with, when that was transformers', else one made of the model. */
static noema_status save_transformers_config(const noema_model *m, const char *folder, noema_error *err)
{
    static const char *const files[] = { "config.json", "preprocessor_config.json", "modules.json", "sentence_bert_config.json" };
    noema_status s = NOEMA_OK;
    if (m->m->family == &nm_family_siglip) /* its pooling head keeps q, k and v apart from how transformers stores them */
        return nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: SigLIP is not written in transformers' layout; open_clip's works", m->name);
    if (!is_clip(m->m) || ((const nm_clip *)m->m)->cfg.scheme == NM_HF) {
        for (size_t i = 0; s == NOEMA_OK && m->dir && i < sizeof files / sizeof *files; i++)
            s = copy_file(m->dir, files[i], folder, files[i], err);
        return s;
    }
    json_t *j = nm_clip_config_transformers((const nm_clip *)m->m);
    if (!j)
        return nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: transformers' CLIPModel has no such architecture; the layout of open_clip does", m->name);
    s = write_json(j, folder, "config.json", err);
    return s == NOEMA_OK ? write_json(nm_clip_preprocessor_transformers((const nm_clip *)m->m), folder, "preprocessor_config.json", err) : s;
}

noema_status noema_model_save(noema_model *m, const char *folder, noema_layout layout, noema_dtype dtype, noema_error *err)
{
    const nm_family *f = m->m->family;
    bool openclip = f->config && layout == NOEMA_LAYOUT_OPEN_CLIP;
    nm_dtype stored = dtype == NOEMA_DTYPE_BF16 ? NM_BF16 : dtype == NOEMA_DTYPE_F16 ? NM_F16 : NM_F32;
    noema_status s = dtype == NOEMA_DTYPE_INT8 ? nm_fail(err, NOEMA_E_UNSUPPORTED, "checkpoints are written as f32, bf16 or f16") : nm_mkdirs(folder, err);
    char *weights = nm_path_join(folder, openclip ? "open_clip_model.safetensors" : "model.safetensors");
    if (s == NOEMA_OK && !weights)
        s = nm_fail(err, NOEMA_E_MEMORY, "out of memory");
    if (s == NOEMA_OK)
        s = openclip ? write_json(f->config(m->m), folder, "open_clip_config.json", err) : save_transformers_config(m, folder, err);
    if (s == NOEMA_OK)
        s = nm_params_save(f->declare, m->m, openclip || !is_clip(m->m) ? f->save_scheme : NM_HF, weights, stored, err);
    if (s == NOEMA_OK)
        s = nm_model_copy_tokenizer(m, folder, err);
    free(weights);
    return s;
}

/* ---- activations ---- */

/* Contiguous f32 of any tensor of a forward. */
static void observe(void *user, const char *name, const nm_tensor *t)
{
    const noema_session *s = user;
    float *copy = NULL;
    const float *data = t->data;
    if (t->dtype != NM_F32 || !nm_is_contiguous(t)) {
        nm_wview v = { .name = name, .dtype = t->dtype, .ndim = t->ndim, .data = t->data };
        memcpy(v.shape, t->shape, sizeof v.shape);
        memcpy(v.stride, t->stride, sizeof v.stride);
        if (!(copy = nm_malloc_array((size_t)nm_numel(t) + 1, sizeof *copy)))
            return;
        nm_wview_copy_f32(&v, copy);
        data = copy;
    }
    s->observe(s->observe_user, name, t->ndim, t->shape, data);
    free(copy);
}

void noema_session_observe(noema_session *s, noema_observe_fn *fn, void *user)
{
    s->observe = fn;
    s->observe_user = user;
    s->run.observe = fn ? observe : NULL;
    s->run.observe_user = s;
}

noema_status noema_preprocess_of_model(noema_preprocess **p, noema_model *m, noema_error *err)
{
    *p = NULL;
    if (!m->m->has_image)
        return nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: has no image tower", m->name);
    return nm_preprocess_wrap(p, &m->m->preprocess, err);
}

/* ---- speed ---- */

double noema_context_peak(noema_context *ctx, noema_dtype dtype)
{
    return nm_peak_per_second(ctx->pool, dtype == NOEMA_DTYPE_BF16 ? NM_BF16 : dtype == NOEMA_DTYPE_INT8 ? NM_I8 : NM_F32);
}

/* q, k, v, out; the two of the MLP; scores and their sum. */
static double blocks(double layers, double tokens, double width, double mlp)
{
    return layers * (tokens * (8 * width * width + 4 * width * mlp) + 4 * tokens * tokens * width);
}

void noema_model_operations(const noema_model *m, int n_tokens, double *image, double *text)
{
    const nm_family *f = m->m->family;
    *image = *text = 0;
    if (f != &nm_family_clip && f != &nm_family_siglip && f != &nm_family_coca)
        return;
    const nm_clip_cfg *c = &((const nm_clip *)m->m)->cfg;
    const nm_vit_cfg *v = &c->vit;
    const nm_text_cfg *t = &c->text;
    if (c->has_image && !c->resnet) {
        double grid = (double)(v->image_height / v->patch_height) * (v->image_width / v->patch_width);
        *image = 2 * grid * 3 * v->patch_height * v->patch_width * v->width + blocks(v->layers, grid + v->class_token, v->width, v->mlp) +
                 (v->proj ? 2.0 * v->width * v->embed_dim : 0);
    }
    if (c->has_text && c->text_tower == NM_TEXT_CLIP)
        *text = blocks(t->layers, n_tokens, t->width, t->mlp) + 2.0 * t->width * t->embed_dim;
}
