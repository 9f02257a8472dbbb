/* session.c - noema_session: one caller's working memory, and the embedding calls of the public interface. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "models/handle.h"

#define TOKENS_PER_BATCH 4096 /* rows of one forward: enough for full tiles on many cores, little enough to stay in the caches' reach */

noema_status noema_session_create(noema_session **out, noema_model *model, noema_error *err)
{
    if (!out || !model)
        return nm_fail(err, NOEMA_E_ARGUMENT, "noema_session_create: a model and a place for the result are needed");
    noema_session *s = calloc(1, sizeof *s);
    if (s && (s->arena = nm_arena_new(1 << 20))) {
        s->model = model;
        nm_run_init(&s->run, model->ctx->kn, model->ctx->pool, s->arena, model->compute);
        s->run.mapped_weights = model->mapped_weights;
        *out = s;
        return NOEMA_OK;
    }
    free(s);
    return nm_fail(err, NOEMA_E_MEMORY, "out of memory: session");
}

void noema_session_free(noema_session *s)
{
    if (!s)
        return;
    nm_arena_free(s->arena);
    noema_tokenizer_scratch_free(s->tok);
    nm_intake_free(s->intake);
    free(s->ids);
    free(s->offsets);
    free(s);
}

nm_run *nm_session_run(noema_session *s)
{
    nm_err_clear(&s->run.err);
    nm_arena_reset(s->arena);
    return &s->run;
}

/* Numbers in a row of a result, and rows of one picture. */
static int row_dim(const nm_model *m, unsigned flags)
{
    return flags & NOEMA_FEATURES && m->family->feature_dim ? m->family->feature_dim(m) : m->embed_dim;
}
static int64_t vectors(const nm_model *m, unsigned flags) { return flags & NOEMA_ALL_VECTORS && m->image_vectors > 1 ? m->image_vectors : 1; }

noema_status nm_session_take(noema_session *s, nm_tensor x, int64_t n, unsigned flags, float *out, noema_error *err)
{
    nm_run *r = &s->run;
    int64_t dim = row_dim(s->model->m, flags);
    if (nm_run_ok(r) && (x.ndim < 2 || x.dtype != NM_F32 || nm_numel(&x) != n * dim || !nm_is_contiguous(&x)))
        nm_run_fail(r, NOEMA_E_INTERNAL, "a result of another shape than [%lld, %lld]", (long long)n, (long long)dim);
    if (nm_run_ok(r) && flags & NOEMA_NORMALIZE)
        x = nm_normalize(r, x, 1e-12f);
    if (!nm_run_ok(r))
        return nm_fail(err, r->err.code, "%s: %s", s->model->name, r->err.message);
    memcpy(out, x.data, (size_t)(n * dim) * sizeof *out);
    return NOEMA_OK;
}

/* ---- texts ---- */

static bool reserve_ids(noema_session *s, size_t n)
{
    if (n <= s->cap_ids)
        return true;
    size_t cap = n > 2 * s->cap_ids ? n : 2 * s->cap_ids;
    int32_t *p = nm_realloc_array(s->ids, cap, sizeof *p);
    if (!p)
        return false;
    s->ids = p;
    s->cap_ids = cap;
    return true;
}

static bool reserve_offsets(noema_session *s, size_t n)
{
    if (n <= s->cap_offsets)
        return true;
    int64_t *p = nm_realloc_array(s->offsets, n, sizeof *p);
    if (!p)
        return false;
    s->offsets = p;
    s->cap_offsets = n;
    return true;
}

/* Tokenises texts[0..n) until `limit` ids are reached; *done texts (at least one). */
static noema_status tokenize_some(noema_session *s, size_t n, const char *const *texts, const size_t *lengths, size_t limit, size_t *done, nm_texts *out,
                                  noema_error *err)
{
    const nm_tokenizer *t = nm_model_tokenizer(s->model, err);
    if (!t)
        return err ? err->code : NOEMA_E_MISSING;
    if (!s->tok && !(s->tok = noema_tokenizer_scratch_new(t)))
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory: tokenizer");
    if (!reserve_offsets(s, n + 1))
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory: %zu texts", n);
    size_t total = 0, i = 0;
    s->offsets[0] = 0;
    for (; i < n && (i == 0 || total < limit); i++) {
        const int32_t *ids;
        size_t count;
        if (!texts[i])
            return nm_fail(err, NOEMA_E_ARGUMENT, "text %zu is NULL", i);
        noema_status st = noema_tokenizer_encode(t, s->tok, texts[i], lengths ? lengths[i] : strlen(texts[i]), &ids, &count, err);
        if (st != NOEMA_OK)
            return st;
        if (!reserve_ids(s, total + count + 1))
            return nm_fail(err, NOEMA_E_MEMORY, "out of memory: token ids");
        memcpy(s->ids + total, ids, count * sizeof *ids);
        total += count;
        s->offsets[i + 1] = (int64_t)total;
    }
    *done = i;
    noema_tokenizer_ids special = noema_tokenizer_special_ids(t);
    /* SigLIP fills with its end token, whatever a bare T5 vocabulary calls padding */
    int32_t pad = s->model->m->tok.kind == NOEMA_TOKENIZER_SIGLIP && special.eos >= 0 ? special.eos : special.pad;
    *out = (nm_texts){ .n = (int64_t)i, .offsets = s->offsets, .ids = s->ids, .pad_id = pad };
    return NOEMA_OK;
}

noema_status nm_session_tokenize(noema_session *s, size_t n, const char *const *texts, const size_t *lengths, nm_texts *out, noema_error *err)
{
    size_t done;
    return tokenize_some(s, n, texts, lengths, SIZE_MAX, &done, out, err);
}

noema_status noema_embed_texts(noema_session *s, size_t n, const char *const *texts, const size_t *lengths, unsigned flags, float *out,
                               noema_error *err)
{
    noema_error local = NOEMA_ERROR_INIT;
    if (!err)
        err = &local;
    if (!s || (n && (!texts || !out)))
        return nm_fail(err, NOEMA_E_ARGUMENT, "noema_embed_texts: a session, texts and room for the result are needed");
    const nm_model *m = s->model->m;
    if (!m->has_text)
        return nm_fail(err, NOEMA_E_UNSUPPORTED, "%s has no text tower", s->model->name);
    for (size_t i = 0, done; i < n; i += done) {
        nm_texts t;
        noema_status st = tokenize_some(s, n - i, texts + i, lengths ? lengths + i : NULL, TOKENS_PER_BATCH, &done, &t, err);
        if (st != NOEMA_OK)
            return st;
        nm_run *r = nm_session_run(s);
        st = nm_session_take(s, m->family->encode_text(r, m, &t), t.n, flags & NOEMA_NORMALIZE, out + i * (size_t)m->embed_dim, err);
        if (st != NOEMA_OK)
            return st;
    }
    return NOEMA_OK;
}

/* ---- pictures ---- */

static noema_status need_image(const noema_session *s, unsigned flags, noema_error *err)
{
    if (!s->model->m->has_image)
        return nm_fail(err, NOEMA_E_UNSUPPORTED, "%s has no image tower", s->model->name);
    if (flags & NOEMA_FEATURES && !s->model->m->family->encode_features)
        return nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: features before the projection are not offered for the family %s", s->model->name,
                       s->model->m->family->name);
    if (s->model->m->image_vectors > 1 && !(flags & NOEMA_ALL_VECTORS))
        return nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: a picture has %d vectors here; only embed and match take them", s->model->name,
                       s->model->m->image_vectors);
    return NOEMA_OK;
}

/* Pictures per forward: as many rows as a batch of texts. */
static size_t image_batch(const nm_model *m)
{
    size_t tokens = m->image_tokens > 0 ? (size_t)m->image_tokens : (size_t)m->image_height * (size_t)m->image_width / 256 + 1;
    size_t b = TOKENS_PER_BATCH / tokens;
    return b < 2 ? 2 : b > 64 ? 64 : b;
}

static noema_status embed_batch(noema_session *s, size_t n, const float *tensors, unsigned flags, float *out, noema_error *err)
{
    const nm_model *m = s->model->m;
    nm_run *r = nm_session_run(s);
    nm_tensor x = nm_view((void *)(uintptr_t)tensors, NM_F32, NM_SHAPE((int64_t)n, 3, m->image_height, m->image_width));
    x = flags & NOEMA_FEATURES ? m->family->encode_features(r, m, x) : m->family->encode_image(r, m, x);
    return nm_session_take(s, x, (int64_t)n * vectors(m, flags), flags, out, err);
}

noema_status noema_embed_tensors(noema_session *s, size_t n, const float *tensors, unsigned flags, float *out, noema_error *err)
{
    if (!s || (n && (!tensors || !out)))
        return nm_fail(err, NOEMA_E_ARGUMENT, "noema_embed_tensors: a session, tensors and room for the result are needed");
    noema_status st = need_image(s, flags, err);
    const nm_model *m = s->model->m;
    size_t each = st == NOEMA_OK ? image_batch(m) : 1, floats = 3 * (size_t)m->image_height * (size_t)m->image_width;
    for (size_t i = 0; i < n && st == NOEMA_OK; i += each)
        st = embed_batch(s, n - i < each ? n - i : each, tensors + i * floats, flags, out + i * (size_t)(row_dim(m, flags) * vectors(m, flags)), err);
    return st;
}

typedef struct picture_job {
    noema_session *s;
    const noema_pixels *pixels;
    const char *const *paths;
    nm_intake_load_fn *fill; /* in place of both */
    void *arg;
    unsigned flags;
    float *out;
} picture_job;

/* The caller's rows into an image with readable bytes behind it. */
static noema_status copy_pixels(nm_image *im, const noema_pixels *p, size_t i, noema_error *err)
{
    if (!p->data || p->width < 1 || p->height < 1 || (p->channels != 3 && p->channels != 4) || p->stride < (size_t)p->width * (size_t)p->channels)
        return nm_fail(err, NOEMA_E_ARGUMENT, "picture %zu: %d x %d, %d channels, stride %zu", i, p->width, p->height, p->channels, p->stride);
    noema_status st = nm_image_reset(im, p->channels == 4 ? NM_MODE_RGBA : NM_MODE_RGB, p->width, p->height, err);
    for (int y = 0; st == NOEMA_OK && y < p->height; y++)
        memcpy(im->data + (size_t)y * im->stride, p->data + (size_t)y * p->stride, (size_t)p->width * (size_t)p->channels);
    return st;
}

static noema_status load_picture(void *arg, size_t i, nm_preprocess_scratch *scratch, nm_image *own, float *out, noema_error *err)
{
    picture_job *j = arg;
    const nm_model *m = j->s->model->m;
    const nm_image *im = own;
    if (j->fill)
        return j->fill(j->arg, i, scratch, own, out, err);
    noema_status st = j->paths ? nm_preprocess_load(&m->preprocess, scratch, j->paths[i], NULL, &im, err) : copy_pixels(own, &j->pixels[i], i, err);
    int h = 0, w = 0;
    if (st == NOEMA_OK)
        st = nm_preprocess_size(&m->preprocess, im->width, im->height, &h, &w, err);
    if (st == NOEMA_OK && (h != m->image_height || w != m->image_width))
        st = nm_fail(err, NOEMA_E_MISMATCH, "%s: preprocessing gives %dx%d, the model takes %dx%d", j->paths ? j->paths[i] : "picture", h, w,
                     m->image_height, m->image_width);
    return st == NOEMA_OK ? nm_preprocess_run(&m->preprocess, scratch, im, out, err) : st;
}

static noema_status compute_pictures(void *arg, size_t first, size_t n, float *tensors, const bool *ok, noema_error *err)
{
    picture_job *j = arg;
    size_t dim = (size_t)(row_dim(j->s->model->m, j->flags) * vectors(j->s->model->m, j->flags));
    float *out = j->out + first * dim;
    noema_status st = embed_batch(j->s, n, tensors, j->flags, out, err);
    for (size_t i = 0; i < n; i++)
        for (size_t d = 0; !ok[i] && d < dim; d++)
            out[i * dim + d] = NAN;
    return st;
}

static noema_status embed_pictures(picture_job *j, size_t n, noema_error *errors, noema_error *err)
{
    noema_status st = need_image(j->s, j->flags, err);
    if (st != NOEMA_OK)
        return st;
    noema_session *s = j->s;
    const nm_model *m = s->model->m;
    if (!s->intake && !(s->intake = nm_intake_new(nm_pool_size(s->model->ctx->pool))))
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory: decoders");
    for (size_t i = 0; errors && i < n; i++)
        nm_err_clear(&errors[i]);
    return nm_intake_run(s->intake, n, image_batch(m), 3 * (size_t)m->image_height * (size_t)m->image_width, load_picture, compute_pictures, j, errors,
                         err);
}

noema_status nm_embed_loaded(noema_session *s, size_t n, nm_intake_load_fn *load, void *arg, unsigned flags, float *out, noema_error *errors,
                             noema_error *err)
{
    picture_job j = { .s = s, .fill = load, .arg = arg, .flags = flags, .out = out };
    return embed_pictures(&j, n, errors, err);
}

noema_status noema_embed_pixels(noema_session *s, size_t n, const noema_pixels *pictures, unsigned flags, float *out, noema_error *err)
{
    if (!s || (n && (!pictures || !out)))
        return nm_fail(err, NOEMA_E_ARGUMENT, "noema_embed_pixels: a session, pictures and room for the result are needed");
    picture_job j = { .s = s, .pixels = pictures, .flags = flags, .out = out };
    return embed_pictures(&j, n, NULL, err);
}

noema_status noema_embed_image_files(noema_session *s, size_t n, const char *const *paths, unsigned flags, float *out, noema_error *errors,
                                     noema_error *err)
{
    if (!s || (n && (!paths || !out)))
        return nm_fail(err, NOEMA_E_ARGUMENT, "noema_embed_image_files: a session, paths and room for the result are needed");
    picture_job j = { .s = s, .paths = paths, .flags = flags, .out = out };
    return embed_pictures(&j, n, errors, err);
}
