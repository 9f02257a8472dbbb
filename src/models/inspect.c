/* inspect.c - the public face of tokenizers with a configuration, preprocessing and checkpoints (noema/inspect.h). */
#include "noema/inspect.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/mem.h"
#include "media/preprocess.h"
#include "models/handle.h"
#include "models/tok_config.h"

noema_status noema_tokenizer_open_config(noema_tokenizer **t, const char *path, const char *config, noema_error *err)
{
    noema_tokenizer_options o = noema_tokenizer_options_default();
    if (config) {
        json_t *j = nm_json_load(config, err);
        if (!j)
            return err ? err->code : NOEMA_E_FORMAT;
        bool said = nm_tok_options_from_config(&o, j);
        json_decref(j);
        if (!said)
            return nm_fail(err, NOEMA_E_MISSING, "%s: expected text_cfg (open_clip) or text_config (Hugging Face)", config);
    }
    return noema_tokenizer_open(t, path, &o, err);
}

/* ---- pixels ---- */

struct noema_preprocess {
    nm_preprocess rule;
    nm_preprocess_scratch *scratch;
    void *data; /* the last result */
    size_t cap;
    char identity[512];
};

noema_status nm_preprocess_wrap(noema_preprocess **out, const nm_preprocess *rule, noema_error *err)
{
    noema_preprocess *p = calloc(1, sizeof *p);
    if (!p || !(p->scratch = nm_preprocess_scratch_new())) {
        free(p);
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory");
    }
    p->rule = *rule;
    nm_preprocess_identity(rule, p->identity);
    *out = p;
    return NOEMA_OK;
}

noema_status noema_preprocess_open(noema_preprocess **p, const char *what, int height, int width, noema_error *err)
{
    nm_preprocess rule;
    noema_status s;
    *p = NULL;
    if (!nm_file_exists(what))
        s = nm_preprocess_named(&rule, what, height, width, err);
    else if ((s = nm_preprocess_from_file(&rule, what, err)) == NOEMA_OK && height) {
        rule.size_h = height;
        rule.size_w = width;
        if (rule.edge)
            rule.edge = height < width ? height : width;
    }
    if (s == NOEMA_OK && !rule.size_h && rule.fit != NM_FIT_NONE && !rule.edge)
        s = nm_fail(err, NOEMA_E_ARGUMENT, "%s: needs a size", what);
    return s == NOEMA_OK ? nm_preprocess_wrap(p, &rule, err) : s;
}

void noema_preprocess_free(noema_preprocess *p)
{
    if (!p)
        return;
    nm_preprocess_scratch_free(p->scratch);
    nm_free(p->data);
    free(p);
}

const char *noema_preprocess_identity(const noema_preprocess *p) { return p->identity; }

static noema_status reserve(noema_preprocess *p, size_t bytes, noema_error *err)
{
    if (bytes <= p->cap)
        return NOEMA_OK;
    nm_free(p->data);
    p->cap = 0;
    if (!(p->data = nm_alloc(bytes)))
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory: %zu bytes of pixels", bytes);
    p->cap = bytes;
    return NOEMA_OK;
}

static noema_status run_rule(noema_preprocess *p, const nm_image *im, const char *name, int u8, noema_plane *out, noema_error *err)
{
    int h, w;
    size_t bytes;
    noema_status s = nm_preprocess_size(&p->rule, im->width, im->height, &h, &w, err);
    if (s != NOEMA_OK)
        return s;
    if (!nm_mul_size((size_t)h * 3, (size_t)w, &bytes) || !nm_mul_size(bytes, u8 ? 1 : sizeof(float), &bytes))
        return nm_fail(err, NOEMA_E_LIMIT, "%s: %d x %d pixels are too many", name, w, h);
    s = reserve(p, bytes, err);
    if (s == NOEMA_OK)
        s = u8 ? nm_preprocess_run_u8(&p->rule, p->scratch, im, p->data, err) : nm_preprocess_run(&p->rule, p->scratch, im, p->data, err);
    if (s == NOEMA_OK)
        *out = (noema_plane){ p->data, bytes, h, w };
    return s;
}

noema_status noema_preprocess_file(noema_preprocess *p, const char *path, int u8, noema_plane *out, noema_error *err)
{
    const nm_image *im;
    noema_status s = nm_preprocess_load(&p->rule, p->scratch, path, NULL, &im, err);
    return s == NOEMA_OK ? run_rule(p, im, path, u8, out, err) : s;
}

noema_status noema_preprocess_bytes(noema_preprocess *p, const void *bytes, size_t size, const char *name, int u8, noema_plane *out, noema_error *err)
{
    const nm_image *im;
    noema_status s = nm_preprocess_load_bytes(&p->rule, p->scratch, bytes, size, name, NULL, &im, err);
    return s == NOEMA_OK ? run_rule(p, im, name, u8, out, err) : s;
}

void noema_sha256(const void *data, size_t size, char hex[65]) { nm_sha256_hex(data, size, hex); }
