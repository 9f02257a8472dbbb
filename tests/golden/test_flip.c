/* test_flip.c - FLIP against the reference's figures (tests/golden/flip): zarr arrays, positions, pictures, embeddings with and without
 * masking, gradients, the decay rule, five steps with fixed masks and unmasked tuning. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/json.h"
#include "models/flip.h"
#include "models/handle.h"
#include "train/mask.h"
#include "train/trainer.h"

#define DIR NOEMA_SOURCE_DIR "/tests/golden/flip/"

static noema_error err;

static void ok(noema_status st)
{
    if (st != NOEMA_OK)
        fail_msg("%s: %s", noema_status_name(st), err.message);
}

static nm_weights *golden(const char *file)
{
    nm_weights *w = NULL;
    char path[512];
    err = (noema_error)NOEMA_ERROR_INIT;
    snprintf(path, sizeof path, DIR "%s", file);
    ok(nm_weights_open(&w, path, &err));
    return w;
}

static const nm_wview *tensor(const nm_weights *w, const char *name)
{
    const nm_wview *v = nm_weights_find(w, name);
    if (!v)
        fail_msg("%s is not in the golden file", name);
    return v;
}

static float *floats(const nm_wview *v)
{
    float *f = malloc((size_t)nm_wview_numel(v) * sizeof *f);
    nm_wview_copy_f32(v, f);
    return f;
}

static void near(const char *what, const float *got, const float *want, size_t n, double tol)
{
    double worst = 0;
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)got[i] - (double)want[i]);
        if (!(d <= worst))
            worst = d;
    }
    if (!(worst <= tol))
        fail_msg("%s: differs by %g, tolerance %g", what, worst, tol);
}

/* got against a golden tensor. */
static void same(const char *what, const float *got, const nm_weights *w, const char *name, double tol)
{
    const nm_wview *v = tensor(w, name);
    float *want = floats(v);
    near(what, got, want, (size_t)nm_wview_numel(v), tol);
    free(want);
}

/* [n, h, w, 3] -> [n, 3, h, w] */
static float *channels_first(const nm_wview *v)
{
    int64_t n = v->ndim == 4 ? v->shape[0] : 1, hw = v->shape[v->ndim - 3] * v->shape[v->ndim - 2];
    float *in = floats(v), *out = malloc((size_t)(n * hw * 3) * sizeof *out);
    for (int64_t i = 0; i < n; i++)
        for (int64_t p = 0; p < hw; p++)
            for (int64_t c = 0; c < 3; c++)
                out[(i * 3 + c) * hw + p] = in[(i * hw + p) * 3 + c];
    free(in);
    return out;
}

typedef struct opened { noema_context *ctx; noema_model *model; noema_session *s; } opened;

static opened open_flip(int threads)
{
    opened x = { 0 };
    noema_context_options co;
    noema_model_options o;
    noema_context_options_default(&co);
    co.n_threads = threads;
    noema_model_options_default(&o);
    o.config = DIR "flip_tiny.config.json";
    o.dtype = NOEMA_DTYPE_F32;
    err = (noema_error)NOEMA_ERROR_INIT;
    ok(noema_context_create(&x.ctx, &co, &err));
    ok(noema_model_open(&x.model, x.ctx, DIR "flip_tiny.zip", &o, &err));
    ok(noema_session_create(&x.s, x.model, &err));
    return x;
}

static void close_flip(opened *x)
{
    noema_session_free(x->s);
    noema_model_free(x->model);
    noema_context_free(x->ctx);
}

/* ---- zarr ---- */

static void test_arrays(void **state)
{
    (void)state;
    nm_weights *got = golden("zarr"), *want = golden("zarr.safetensors");
    assert_int_equal(nm_weights_count(got), nm_weights_count(want));
    for (size_t i = 0; i < nm_weights_count(want); i++) {
        const nm_wview *w = nm_weights_at(want, i), *g = tensor(got, w->name);
        assert_int_equal(g->ndim, w->ndim);
        assert_memory_equal(g->shape, w->shape, (size_t)w->ndim * sizeof *w->shape);
        float *a = floats(g);
        same(w->name, a, want, w->name, 0);
        free(a);
    }
    nm_weights_close(got);
    nm_weights_close(want);
}

/* Moments are left out by default, and are there raw. */
static void test_zip(void **state)
{
    (void)state;
    nm_weights *w = golden("flip_tiny.zip"), *raw = NULL;
    const char *path = DIR "flip_tiny.zip";
    nm_weights_options o = { .raw = true };
    assert_int_equal(nm_weights_count(w), 77);
    assert_null(nm_weights_find(w, "state.param_states.0.mu.img_encoder.cls"));
    ok(nm_weights_open_many(&raw, &path, 1, &o, &err));
    assert_non_null(nm_weights_find(raw, "state.param_states.0.mu.img_encoder.cls"));
    assert_non_null(nm_weights_find(raw, "target.img_encoder.cls"));
    nm_weights_close(w);
    nm_weights_close(raw);
}

/* ---- positions, pictures ---- */

static void test_positions(void **state)
{
    (void)state;
    static const struct { const char *name; int width, grid; } cases[] = { { "d64_g4", 64, 4 }, { "d48_g3", 48, 3 }, { "d80_g7", 80, 7 }, { "d32_g5", 32, 5 } };
    nm_weights *w = golden("posembed.safetensors");
    for (size_t i = 0; i < 4; i++) {
        float *rows = malloc((size_t)((1 + cases[i].grid * cases[i].grid) * cases[i].width) * sizeof *rows);
        assert_true(nm_flip_positions(rows, cases[i].grid, cases[i].width));
        same(cases[i].name, rows, w, cases[i].name, 1e-6);
        free(rows);
    }
    nm_weights_close(w);
}

static void test_pictures(void **state)
{
    (void)state;
    static const struct { const char *file, *name; double tol; } cases[] = {
        { "wide.png", "wide", 1e-5 }, { "tall.png", "tall", 1e-5 }, { "square.png", "square", 1e-5 }, { "down.png", "down", 1e-5 },
        { "jpeg_q92_420.jpg", "jpeg_q92_420.jpg", 0.12 }, { "jpeg_q90_444.jpg", "jpeg_q90_444.jpg", 0.12 }, /* another decoder's DCT */
    };
    static const nm_rect windows[] = { { 5, 3, 49, 43 }, { 0, 0, 50, 30 }, { 20, 10, 41, 27 } };
    nm_weights *w = golden("preprocess.safetensors");
    nm_preprocess p;
    nm_preprocess_scratch *s = nm_preprocess_scratch_new();
    const nm_image *im;
    char path[512], name[64];
    float out[3 * 32 * 32];
    ok(nm_preprocess_named(&p, "flip", 32, 32, &err));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(path, sizeof path, DIR "images/%s", cases[i].file);
        snprintf(name, sizeof name, "%s.normalised", cases[i].name);
        ok(nm_preprocess_load(&p, s, path, NULL, &im, &err));
        ok(nm_preprocess_run(&p, s, im, out, &err));
        float *want = channels_first(tensor(w, name));
        near(cases[i].file, out, want, 3 * 32 * 32, cases[i].tol);
        free(want);
    }
    nm_image whole = { 0 };
    ok(nm_image_open(&whole, DIR "images/wide.png", NULL, &err));
    for (int i = 0; i < 3; i++) {
        snprintf(name, sizeof name, "train_window%d.flipped_normalised", i);
        ok(nm_preprocess_run_window(&p, s, &whole, windows[i], true, out, &err));
        float *want = channels_first(tensor(w, name));
        near(name, out, want, 3 * 32 * 32, 1e-5);
        free(want);
    }
    nm_image_free(&whole);
    nm_preprocess_scratch_free(s);
    nm_weights_close(w);
}

/* ---- embeddings ---- */

typedef struct batch { float *images; int32_t ids[4 * 32]; int64_t offsets[5]; nm_texts texts; } batch;

static batch golden_batch(const nm_weights *w)
{
    batch b = { .images = channels_first(tensor(w, "input.image")) };
    const nm_wview *v = tensor(w, "input.ids");
    for (int i = 0; i < 4 * 32; i++)
        b.ids[i] = ((const int32_t *)v->data)[i];
    for (int i = 0; i <= 4; i++)
        b.offsets[i] = 32 * i;
    return b;
}

static nm_texts texts_of(const batch *b) { return (nm_texts){ .n = 4, .offsets = b->offsets, .ids = b->ids, .pad_id = -1 }; }

static void encode(opened *x, const batch *b, const nm_keep *keep, float *image, float *text)
{
    const nm_model *m = noema_model_internal(x->model);
    nm_texts t = texts_of(b);
    nm_run *r = nm_session_run(x->s);
    ok(nm_session_take(x->s, m->family->encode_text(r, m, &t), 4, NOEMA_NORMALIZE, text, &err));
    r = nm_session_run(x->s);
    r->keep = keep;
    ok(nm_session_take(x->s, m->family->encode_image(r, m, nm_view(b->images, NM_F32, NM_SHAPE(4, 3, 32, 32))), 4, NOEMA_NORMALIZE, image, &err));
    r->keep = NULL;
}

static void test_embeddings(void **state)
{
    (void)state;
    nm_weights *w = golden("forward.safetensors"), *masked = golden("masked.safetensors");
    batch b = golden_batch(w);
    float image[4 * 40], text[4 * 40];
    int32_t all[4 * 16];
    for (int threads = 1; threads <= 3; threads += 2) {
        opened x = open_flip(threads);
        encode(&x, &b, NULL, image, text);
        same("images", image, w, "z_img", 5e-6);
        same("texts", text, w, "z_txt", 5e-6);
        for (int i = 0; i < 4 * 16; i++) /* every patch, in another order: the same up to rounding */
            all[i] = (i % 16 * 7 + i / 16) % 16;
        encode(&x, &b, &(nm_keep){ all, 16 }, image, text);
        same("all patches shuffled", image, w, "z_img", 5e-6);
        for (int k = 0; k < 2; k++) {
            const char *keep = k ? "mask75.keep" : "mask50.keep", *z = k ? "mask75.z_img" : "mask50.z_img";
            encode(&x, &b, &(nm_keep){ tensor(masked, keep)->data, k ? 4 : 8 }, image, text);
            same(z, image, masked, z, 5e-6);
        }
        close_flip(&x);
    }
    free(b.images);
    nm_weights_close(w);
    nm_weights_close(masked);
}

/* Patches outside the grid are an error, not a crash. */
static void test_bad_keep(void **state)
{
    (void)state;
    opened x = open_flip(1);
    const nm_model *m = noema_model_internal(x.model);
    static float pixels[3 * 32 * 32];
    for (int32_t bad = -1; bad <= 16; bad += 17) {
        nm_run *r = nm_session_run(x.s);
        nm_keep keep = { &bad, 1 };
        r->keep = &keep;
        assert_null(m->family->encode_image(r, m, nm_view(pixels, NM_F32, NM_SHAPE(1, 3, 32, 32))).data);
        assert_int_equal(r->err.code, NOEMA_E_ARGUMENT);
        r->keep = NULL;
    }
    close_flip(&x);
}

/* ---- training ---- */

/* keep [steps, 4, kept]: the first `kept` of a stable ascending sort of the noise [.., 4, 16]. */
static int32_t *sorted_keep(const float *noise, int64_t rows, int kept)
{
    int32_t *keep = malloc((size_t)(rows * kept) * sizeof *keep);
    for (int64_t i = 0; i < rows; i++, noise += 16)
        for (int32_t a = 0; a < 16; a++) {
            int rank = 0;
            for (int b = 0; b < 16; b++)
                rank += noise[b] < noise[a] || (noise[b] == noise[a] && b < a);
            if (rank < kept)
                keep[i * kept + rank] = a;
        }
    return keep;
}

static nm_trainer *new_trainer(opened *x, double lr, int64_t warmup, int64_t total)
{
    nm_train_options o = { .opt = { NM_OPT_ADAMW, 0.9, 0.95, 1e-8, 0, false }, .weight_decay = 0.2, .flip_groups = true, .accum = 1, .compute = NM_F32 };
    o.schedule = (nm_schedule){ .kind = NM_LR_COSINE, .base_lr = lr, .warmup = warmup, .total = total, .warmup_from_zero = true };
    nm_trainer *t = NULL;
    ok(nm_trainer_new(&t, noema_model_internal(x->model), x->ctx->pool, &o, &err));
    return t;
}

static const nm_train_param *param(const nm_trainer *t, const char *name)
{
    for (size_t i = 0; i < t->n_params; i++)
        if (strcmp(t->params[i].name, name) == 0)
            return &t->params[i];
    fail_msg("%s is no parameter", name);
    return NULL;
}

/* A parameter's values or gradient, brought to the file's layout, against a golden tensor. */
static void same_param(const nm_train_param *p, const float *data, const nm_weights *w, const char *name, double rel)
{
    const nm_wview *want = tensor(w, name);
    nm_tensor t = nm_view((void *)(uintptr_t)data, NM_F32, p->w->shape);
    nm_wview v = { .dtype = NM_F32, .ndim = t.ndim, .data = data };
    for (int d = 0; d < t.ndim; d++) {
        v.shape[d] = t.shape[nm_layout_dim(p->layout, d)];
        v.stride[d] = t.stride[nm_layout_dim(p->layout, d)];
        assert_int_equal(v.shape[d], want->shape[d]);
    }
    float *got = floats(&v), *f = floats(want);
    double most = 0;
    for (size_t i = 0; i < p->n; i++)
        most = fabs((double)f[i]) > most ? fabs((double)f[i]) : most;
    near(name, got, f, p->n, rel * most);
    free(got);
    free(f);
}

static json_t *train_json(void)
{
    json_t *j = nm_json_load(DIR "train.json", &err);
    assert_non_null(j);
    return j;
}

/* Every parameter is decayed or not as in the reference; the fixed positions are no parameter. */
static void check_groups(const nm_trainer *t, const json_t *j)
{
    const char *name;
    json_t *decays;
    size_t n = 0;
    json_object_foreach(nm_json_get(j, "weight_decay_applied"), name, decays) {
        const nm_train_param *p = param(t, name);
        n++;
        if (strcmp(name, "img_encoder.posembed_encoder.pos_embedding") != 0 && p->decayed != json_is_true(decays))
            fail_msg("%s: decayed is %d", name, p->decayed);
    }
    assert_true(n >= 76);
}

static void compare_all(const nm_trainer *t, const nm_weights *w, const char *prefix, bool gradient, double rel)
{
    size_t n = 0, len = strlen(prefix);
    for (size_t i = 0; i < nm_weights_count(w); i++) {
        const char *name = nm_weights_at(w, i)->name;
        if (strncmp(name, prefix, len) != 0 || strstr(name, "token_rows"))
            continue;
        const nm_train_param *p = param(t, name + len);
        same_param(p, gradient ? p->grad.data : p->w->f32, w, name, rel);
        n++;
    }
    assert_true(n > 0);
}

static void check_token_rows(const nm_trainer *t, const nm_weights *w)
{
    const nm_wview *index = tensor(w, "grad0.token_rows_index");
    const float *g = param(t, "txt_encoder.token_embedding.embedding")->grad.data;
    float *rows = malloc(27 * 48 * sizeof *rows);
    for (int i = 0; i < 27; i++)
        memcpy(rows + i * 48, g + (int64_t)((const int32_t *)index->data)[i] * 48, 48 * sizeof *rows);
    same("token rows", rows, w, "grad0.token_rows", 1e-5);
    free(rows);
}

static void step_near(nm_trainer *t, const nm_pair_batch *b, const json_t *want, double tol)
{
    nm_step_result r;
    int64_t step = t->step;
    ok(nm_trainer_step(t, b, &r, &err));
    if (!(fabs(r.loss - nm_json_num(want, "loss", NAN)) <= tol))
        fail_msg("step %lld: loss %.9g, expected %.9g", (long long)step, r.loss, nm_json_num(want, "loss", NAN));
    if (nm_json_get(want, "lr") && !(fabs(r.lr - nm_json_num(want, "lr", NAN)) <= 1e-8))
        fail_msg("step %lld: lr %.9g", (long long)step, r.lr);
}

static void test_training(void **state)
{
    (void)state;
    json_t *j = train_json();
    nm_weights *w = golden("forward.safetensors"), *g = golden("train.safetensors");
    batch b = golden_batch(w);
    float *noise = floats(tensor(g, "noise"));
    int32_t *keep = sorted_keep(noise, 6 * 4, 8);
    opened x = open_flip(2);
    nm_trainer *t = new_trainer(&x, 0.002, 2, 8);
    nm_pair_batch pairs = { .n = 4, .images = b.images, .texts = texts_of(&b) };
    check_groups(t, j);
    for (int step = 0; step < 5; step++) {
        pairs.keep = (nm_keep){ keep + step * 4 * 8, 8 };
        step_near(t, &pairs, json_array_get(nm_json_get(j, "trajectory"), (size_t)step), 1e-4);
        if (step == 0) {
            compare_all(t, g, "grad0.", true, 1e-4);
            check_token_rows(t, g);
        }
    }
    compare_all(t, g, "after5.", false, 2e-4);
    nm_trainer_free(t);
    /* unmasked tuning: fresh moments */
    t = new_trainer(&x, 4e-5, 2, 6);
    pairs.keep = (nm_keep){ 0 };
    for (int step = 0; step < 4; step++) {
        step_near(t, &pairs, json_array_get(nm_json_get(nm_json_get(j, "unmasked_tuning"), "trajectory"), (size_t)step), 1e-4);
        if (step == 0)
            compare_all(t, g, "tune.grad0.", true, 2e-3);
    }
    compare_all(t, g, "tune.after4.", false, 2e-4);
    nm_trainer_free(t);
    close_flip(&x);
    free(noise);
    free(keep);
    free(b.images);
    nm_weights_close(w);
    nm_weights_close(g);
    json_decref(j);
}

/* exp(clip(s, 0, ln 100)) inside the graph: no gradient outside. */
static void test_logit_scale(void **state)
{
    (void)state;
    json_t *j = nm_json_load(DIR "forward.json", &err), *c;
    const char *key;
    nm_weights *w = golden("forward.safetensors");
    batch b = golden_batch(w);
    opened x = open_flip(1);
    nm_pair_batch pairs = { .n = 4, .images = b.images, .texts = texts_of(&b) };
    json_object_foreach(nm_json_get(j, "logit_scale_cases"), key, c) {
        nm_trainer *t = new_trainer(&x, 0, 0, 8);
        nm_step_result r;
        const nm_train_param *p = param(t, "logit_scale");
        p->w->f32[0] = strtof(key, NULL);
        ok(nm_trainer_step(t, &pairs, &r, &err));
        if (!(fabs(r.loss - nm_json_num(c, "loss", NAN)) <= 1e-5) || !(fabs((double)p->grad.data[0] - nm_json_num(c, "d_logit_scale", NAN)) <= 1e-5))
            fail_msg("logit scale %s: loss %.9g, gradient %.9g", key, r.loss, (double)p->grad.data[0]);
        assert_true(p->w->f32[0] == strtof(key, NULL)); /* not clamped afterwards */
        nm_trainer_free(t);
    }
    close_flip(&x);
    free(b.images);
    nm_weights_close(w);
    json_decref(j);
}

static void test_schedules(void **state)
{
    (void)state;
    json_t *j = train_json(), *c, *value;
    const char *name, *step;
    json_object_foreach(nm_json_get(j, "schedules"), name, c) {
        nm_schedule s = { .kind = NM_LR_COSINE, .base_lr = nm_json_num(c, "base", 0) * nm_json_num(c, "batch", 0) / 256,
                          .warmup = nm_json_int(c, "warmup_steps", 0), .total = nm_json_int(c, "total_steps", 0), .warmup_from_zero = true };
        json_object_foreach(nm_json_get(c, "values"), step, value)
            if (!(fabs(nm_schedule_lr(&s, atoll(step)) - json_number_value(value)) <= 1e-6 * s.base_lr))
                fail_msg("%s: step %s: %.9g, expected %.9g", name, step, nm_schedule_lr(&s, atoll(step)), json_number_value(value));
    }
    json_decref(j);
}

/* Exact count, no patch twice, every patch equally often, other patches in every picture and step. */
static void test_random_masks(void **state)
{
    (void)state;
    enum { L = 49, PICTURES = 400 };
    static int32_t keep[PICTURES * L], again[PICTURES * L], work[L];
    static int count[L];
    assert_int_equal(nm_mask_kept(196, 0.5), 98);
    assert_int_equal(nm_mask_kept(196, 0.75), 49);
    assert_int_equal(nm_mask_kept(256, 0.75), 64);
    assert_int_equal(nm_mask_kept(4, 0.99), 1);
    int64_t kept = nm_mask_kept(L, 0.75);
    nm_mask_draw(keep, 0, PICTURES, L, kept, 5, 3, work);
    nm_mask_draw(again, PICTURES / 2, PICTURES / 2, L, kept, 5, 3, work); /* ranks and micro-batches draw the same */
    assert_memory_equal(again, keep + PICTURES / 2 * kept, (size_t)(PICTURES / 2 * kept) * sizeof *keep);
    nm_mask_draw(again, 0, PICTURES, L, kept, 5, 4, work);
    assert_memory_not_equal(again, keep, sizeof *keep * (size_t)kept);
    assert_memory_not_equal(keep + kept, keep, sizeof *keep * (size_t)kept);
    for (int i = 0; i < PICTURES; i++) {
        int seen[L] = { 0 };
        for (int k = 0; k < kept; k++) {
            int32_t p = keep[i * kept + k];
            assert_true(p >= 0 && p < L && !seen[p]);
            seen[p] = 1;
            count[p]++;
        }
    }
    for (int p = 0; p < L; p++) /* mean 98, deviation 8.6 */
        assert_true(count[p] > 98 - 45 && count[p] < 98 + 45);
}

/* The first position always, rising, padding out first where told, else all the others equally often. */
static void test_text_masks(void **state)
{
    (void)state;
    enum { L = 32, TEXTS = 600, KEPT = 12 };
    static int32_t keep[TEXTS * KEPT], again[TEXTS * KEPT], work[L];
    static int64_t offsets[TEXTS + 1];
    for (int i = 0; i < TEXTS; i++)
        offsets[i + 1] = offsets[i] + i % (L + 1); /* 0 .. 32 tokens */
    for (int prioritized = 0; prioritized < 2; prioritized++) {
        int count[L] = { 0 };
        nm_mask_draw_text(keep, 0, TEXTS, offsets, NULL, L, KEPT, prioritized, 5, 3, work);
        nm_mask_draw_text(again, TEXTS / 2, TEXTS / 2, offsets + TEXTS / 2, NULL, L, KEPT, prioritized, 5, 3, work);
        assert_memory_equal(again, keep + TEXTS / 2 * KEPT, TEXTS / 2 * KEPT * sizeof *keep);
        nm_mask_draw_text(again, 0, TEXTS, offsets, NULL, L, KEPT, prioritized, 5, 4, work);
        assert_memory_not_equal(again, keep, sizeof keep);
        for (int i = 0; i < TEXTS; i++) {
            int64_t tokens = offsets[i + 1] - offsets[i], inside = 0;
            assert_int_equal(keep[i * KEPT], 0);
            for (int k = 0; k < KEPT; k++) {
                int32_t p = keep[i * KEPT + k];
                assert_true(p < L && (k == 0 || p > keep[i * KEPT + k - 1]));
                count[p]++;
                inside += p < tokens || p == 0;
            }
            if (prioritized)
                assert_int_equal(inside, tokens < 1 ? 1 : tokens < KEPT ? tokens : KEPT);
        }
        static const int32_t ids[8] = { 7, 8, 9, 10, 0, 0, 0, 0 }; /* four tokens and stored padding */
        nm_mask_draw_text(again, 0, 1, (const int64_t[]){ 0, 8 }, ids, 8, 5, true, 1, 1, work);
        assert_true(again[3] == 3 && again[4] > 3);
        for (int p = 1; !prioritized && p < L; p++) /* mean 600 * 11 / 31 = 213, deviation 11.7 */
            assert_true(count[p] > 213 - 60 && count[p] < 213 + 60);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_arrays), cmocka_unit_test(test_zip), cmocka_unit_test(test_positions), cmocka_unit_test(test_pictures),
        cmocka_unit_test(test_embeddings), cmocka_unit_test(test_bad_keep), cmocka_unit_test(test_training), cmocka_unit_test(test_logit_scale),
        cmocka_unit_test(test_schedules), cmocka_unit_test(test_random_masks), cmocka_unit_test(test_text_masks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
