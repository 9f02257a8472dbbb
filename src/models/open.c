/* open.c - noema_model: from a name to a loaded model with its identity. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "models/handle.h"
#include "models/registry.h"

void noema_model_options_default(noema_model_options *o)
{
    memset(o, 0, sizeof *o);
    o->struct_size = sizeof *o;
}

/* bf16 products where the CPU has them; f16 is a storage format here. */
static nm_dtype compute_of(const nm_kernels *kn, noema_dtype d)
{
    switch (d) {
    case NOEMA_DTYPE_AUTO: return nm_gemm_has(kn, NM_BF16) ? NM_BF16 : NM_F32;
    case NOEMA_DTYPE_BF16: return NM_BF16;
    case NOEMA_DTYPE_INT8: return NM_I8;
    case NOEMA_DTYPE_F32:
    case NOEMA_DTYPE_F16: break;
    }
    return NM_F32;
}

static noema_dtype public_dtype(nm_dtype d) { return d == NM_BF16 ? NOEMA_DTYPE_BF16 : d == NM_I8 ? NOEMA_DTYPE_INT8 : NOEMA_DTYPE_F32; }

static noema_status check_options(const noema_model_options *o, noema_error *err)
{
    if (!o)
        return NOEMA_OK;
    if (o->struct_size < offsetof(noema_model_options, reserved))
        return nm_fail(err, NOEMA_E_ARGUMENT, "noema_model_options: struct_size is %zu", o->struct_size);
    if (o->dtype < NOEMA_DTYPE_AUTO || o->dtype > NOEMA_DTYPE_INT8)
        return nm_fail(err, NOEMA_E_ARGUMENT, "noema_model_options: dtype is %d", (int)o->dtype);
    if (o->activation < 0 || o->activation > 2)
        return nm_fail(err, NOEMA_E_ARGUMENT, "noema_model_options: activation is %d", o->activation);
    if (o->weights < 0 || o->weights > 2)
        return nm_fail(err, NOEMA_E_ARGUMENT, "noema_model_options: weights is %d", o->weights);
    if (o->image_height < 0 || o->image_height > 8192 || o->image_width < 0 || o->image_width > 8192)
        return nm_fail(err, NOEMA_E_ARGUMENT, "noema_model_options: image size %d x %d", o->image_height, o->image_width);
    return NOEMA_OK;
}

/* --preprocess: a file or a name in place of the model's own. */
static noema_status override_preprocess(nm_model *m, const noema_model_options *o, noema_error *err)
{
    if (!o || !o->preprocess || !m->has_image)
        return NOEMA_OK;
    if (strstr(o->preprocess, ".json"))
        return nm_preprocess_from_file(&m->preprocess, o->preprocess, err);
    return nm_preprocess_named(&m->preprocess, o->preprocess, m->image_height, m->image_width, err);
}

static void describe(noema_model *x)
{
    nm_model *m = x->m;
    noema_model_info *i = &x->info;
    if (m->has_image)
        nm_preprocess_identity(&m->preprocess, x->preprocess);
    *i = (noema_model_info){
        .struct_size = sizeof *i, .name = x->name, .family = m->family->name, .format = x->file ? nm_weights_format(x->file) : "memory",
        .identity = x->identity, .space = x->space, .preprocess = m->has_image ? x->preprocess : NULL, .dtype = public_dtype(x->compute),
        .n_params = nm_params_count(m->family->declare, m), .embed_dim = m->embed_dim, .has_image = m->has_image, .has_text = m->has_text,
        .image_height = m->image_height, .image_width = m->image_width, .context_length = m->context_length, .logit_scale = m->logit_scale,
        .logit_bias = m->logit_bias, .has_logit_bias = m->has_logit_bias, .image_vectors = m->image_vectors > 1 ? m->image_vectors : 1,
    };
    char text[900];
    int n = snprintf(text, sizeof text, "%s|%s|%d", x->identity, x->preprocess, (int)i->dtype);
    nm_sha256_hex(text, (size_t)n, x->space);
}

static noema_model *new_handle(noema_context *ctx, const char *name, const noema_model_options *o)
{
    noema_model *x = calloc(1, sizeof *x);
    if (!x)
        return NULL;
    x->ctx = ctx;
    x->name = nm_strdup(name);
    x->compute = compute_of(ctx->kn, o ? o->dtype : NOEMA_DTYPE_AUTO);
    if (o && o->tokenizer)
        x->tokenizer_path = nm_strdup(o->tokenizer);
    if (!x->name || pthread_mutex_init(&x->lock, NULL) != 0) {
        free(x->name);
        free(x->tokenizer_path);
        free(x);
        return NULL;
    }
    return x;
}

void noema_model_free(noema_model *x)
{
    if (!x)
        return;
    noema_tokenizer_free(x->tokenizer);
    if (x->m)
        x->m->family->free(x->m);
    nm_weights_close(x->file);
    pthread_mutex_destroy(&x->lock);
    free(x->tokenizer_path);
    free(x->name);
    free(x->dir);
    free(x);
}

/* Packed copies of all weights must leave room for what else runs. */
static void choose_weights(noema_model *x, const noema_model_options *o)
{
    size_t packed = (size_t)x->info.n_params * nm_dtype_size(x->compute), room = nm_memory_available();
    x->mapped_weights = o && o->weights ? o->weights == 2 : packed / 4 > room / 5;
    if (x->mapped_weights && !(o && o->weights))
        nm_log(x->ctx, NOEMA_LOG_INFO, "%s: its weights as %s, %.1f GB, do not fit into the %.1f GB that are free: they are read from the file again and again",
               x->name, nm_dtype_name(x->compute), (double)packed / 1e9, (double)room / 1e9);
}

static void report_unused(const noema_model *x)
{
    const nm_load_report *r = &x->m->report;
    if (r->n_unused)
        nm_log(x->ctx, NOEMA_LOG_DEBUG, "%s: %zu tensors of the file are not used", x->name, r->n_unused);
}

/* Of the checkpoint and of the files that parts of the model lie in. */
static noema_status identify(noema_model *x, noema_error *err)
{
    char all[3 * 65] = "";
    size_t n = 0;
    noema_status st = nm_weights_sha256(x->file, NM_IDENTITY_QUICK, x->identity, err);
    memcpy(all, x->identity, 64);
    for (size_t i = 0; st == NOEMA_OK && i < sizeof x->m->part_file / sizeof *x->m->part_file; i++)
        if (x->m->part_file[i]) {
            n++;
            st = nm_weights_sha256(x->m->part_file[i], NM_IDENTITY_QUICK, all + 64 * n, err);
        }
    if (st == NOEMA_OK && n)
        nm_sha256_hex(all, 64 * (n + 1), x->identity);
    return st;
}

static noema_status open_located(noema_model *x, const nm_located *l, const noema_model_options *o, noema_error *err)
{
    noema_status st = nm_weights_open(&x->file, l->path, err);
    if (st != NOEMA_OK)
        return st;
    nm_source s = { .name = x->name, .path = l->path, .dir = l->dir, .file = x->file, .config = l->config, .options = o, .pretrained = l->pretrained };
    const nm_family *f = nm_family_for(&s);
    if (!f)
        return nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: no model family knows these tensors (first: %s)", x->name,
                       nm_weights_count(x->file) ? nm_weights_at(x->file, 0)->name : "none");
    st = f->open(&x->m, &s, err);
    if (st == NOEMA_OK)
        st = override_preprocess(x->m, o, err);
    if (st == NOEMA_OK)
        st = identify(x, err);
    if (st != NOEMA_OK)
        return st;
    x->dir = nm_strdup(l->dir);
    if (x->m->tok_path && (!x->tokenizer_path || (x->m->tok_of_part && nm_has_suffix(x->tokenizer_path, "vocab.txt")))) {
        free(x->tokenizer_path);
        x->tokenizer_path = nm_strdup(x->m->tok_path);
    }
    if (!x->tokenizer_path && x->m->has_text && !x->m->tok_of_part) /* a word list beside the checkpoint is not a language model's */
        x->tokenizer_path = nm_locate_tokenizer(l->dir, &x->m->tok);
    return x->dir ? NOEMA_OK : nm_fail(err, NOEMA_E_MEMORY, "out of memory");
}

noema_status noema_model_open(noema_model **out, noema_context *ctx, const char *name, const noema_model_options *o, noema_error *err)
{
    noema_error local = NOEMA_ERROR_INIT;
    if (!err)
        err = &local;
    if (!out || !ctx || !name || !name[0])
        return nm_fail(err, NOEMA_E_ARGUMENT, "noema_model_open: a context, a name and a place for the result are needed");
    noema_status st = check_options(o, err);
    nm_located l = { 0 };
    if (st == NOEMA_OK)
        st = nm_locate(&l, name, o, err);
    noema_model *x = st == NOEMA_OK ? new_handle(ctx, name, o) : NULL;
    if (st == NOEMA_OK && !x)
        st = nm_fail(err, NOEMA_E_MEMORY, "out of memory: %s", name);
    if (st == NOEMA_OK)
        st = open_located(x, &l, o, err);
    nm_located_free(&l);
    if (st != NOEMA_OK) {
        noema_model_free(x);
        return st;
    }
    describe(x);
    choose_weights(x, o);
    report_unused(x);
    *out = x;
    return NOEMA_OK;
}

noema_status nm_model_adopt(noema_model **out, noema_context *ctx, nm_model *m, const char *name, const noema_model_options *o, noema_error *err)
{
    noema_model *x = new_handle(ctx, name, o);
    if (!x)
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory: %s", name);
    x->m = m;
    nm_sha256_hex(name, strlen(name), x->identity);
    describe(x);
    *out = x;
    return NOEMA_OK;
}

const noema_model_info *noema_model_get_info(const noema_model *x) { return &x->info; }
int noema_model_feature_dim(const noema_model *x) { return x->m->has_image && x->m->family->feature_dim ? x->m->family->feature_dim(x->m) : 0; }
nm_model *noema_model_internal(noema_model *x) { return x->m; }

const nm_tokenizer *nm_model_tokenizer(noema_model *x, noema_error *err)
{
    pthread_mutex_lock(&x->lock);
    if (!x->tokenizer && x->tokenizer_error.code == NOEMA_OK) {
        if (!x->tokenizer_path)
            nm_fail(&x->tokenizer_error, NOEMA_E_MISSING, "%s: no tokenizer %s: give one with --tokenizer (%s)", x->name,
                    x->m->tok_of_part ? "in the folder of the language model" : "beside the checkpoint",
                    x->m->tok.kind == NOEMA_TOKENIZER_OPENAI || x->m->tok.kind == NOEMA_TOKENIZER_OPEN_CLIP ? "bpe_simple_vocab_16e6.txt.gz"
                                                                                                           : "a folder or tokenizer.json");
        else
            noema_tokenizer_open(&x->tokenizer, x->tokenizer_path, &x->m->tok, &x->tokenizer_error);
    }
    pthread_mutex_unlock(&x->lock);
    if (!x->tokenizer)
        nm_fail(err, x->tokenizer_error.code, "%s", x->tokenizer_error.message);
    return x->tokenizer;
}
