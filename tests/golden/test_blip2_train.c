/* test_blip2_train.c - BLIP-2's training losses against LAVIS in PyTorch: values, gradient norms of every tensor, some gradients, sampling
 * weights (README of the golden data: losses abs 1e-5, gradient norms rel 3e-3 above 1e-5 of the largest). */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/json.h"
#include "models/handle.h"
#include "train/blip2_loss.h"

#define OWN NOEMA_SOURCE_DIR "/tests/golden/blip2/"
#define SHARED NOEMA_SHARED_DIR "/golden/blip2/"

typedef struct fixture {
    noema_context *ctx;
    noema_model *model;
    noema_session *s;
    nm_blip2 *m;
    nm_blip2_train *t;
    json_t *json;
    float *pixels;
    nm_run run;
    nm_arena *arena;
} fixture;

static noema_error err;

static void ok(noema_status st)
{
    if (st != NOEMA_OK)
        fail_msg("%s: %s", noema_status_name(st), err.message);
}

static float *load_pixels(const nm_blip2 *m)
{
    size_t floats = 3 * (size_t)m->base.image_height * (size_t)m->base.image_width;
    float *p = malloc(4 * floats * sizeof *p);
    nm_preprocess_scratch *s = nm_preprocess_scratch_new();
    for (size_t i = 0; i < 4; i++) {
        char path[512];
        const nm_image *im;
        snprintf(path, sizeof path, "%simages/image%zu.png", OWN, i);
        ok(nm_preprocess_load(&m->base.preprocess, s, path, NULL, &im, &err));
        ok(nm_preprocess_run(&m->base.preprocess, s, im, p + i * floats, &err));
    }
    nm_preprocess_scratch_free(s);
    return p;
}

static void open_fixture(fixture *f, const char *json, const char *file, const char *lm)
{
    char path[512], config[] = "test_blip2_train.config.json";
    *f = (fixture){ 0 };
    snprintf(path, sizeof path, "%s%s.json", OWN, json);
    f->json = nm_json_load(path, &err);
    assert_non_null(f->json);
    const json_t *arch = nm_json_get(f->json, "arch"), *v = nm_json_get(arch, "vision"), *q = nm_json_get(arch, "qformer");
    json_t *c = json_pack("{s:{s:O},s:{s:O}}", "vision_config", "num_attention_heads", nm_json_get(v, "heads"), "qformer_config", "num_attention_heads",
                          nm_json_get(q, "num_attention_heads"));
    assert_int_equal(json_dump_file(c, config, 0), 0);
    json_decref(c);
    noema_model_options o;
    noema_model_options_default(&o);
    o.dtype = NOEMA_DTYPE_F32;
    o.config = config;
    o.language_model = lm;
    snprintf(path, sizeof path, "%slavis/%s", OWN, file);
    ok(noema_context_create(&f->ctx, NULL, &err));
    ok(noema_model_open(&f->model, f->ctx, path, &o, &err));
    ok(noema_session_create(&f->s, f->model, &err));
    remove(config);
    f->m = (nm_blip2 *)noema_model_internal(f->model);
    f->pixels = load_pixels(f->m);
    ok(nm_blip2_train_new(&f->t, f->m, &err));
    f->arena = nm_arena_new(1 << 20);
    nm_run_init(&f->run, nm_kernels_get(), f->ctx->pool, f->arena, NM_F32);
    f->run.tape = nm_tape_new();
    f->run.training = true;
}

static void close_fixture(fixture *f)
{
    nm_tape_free(f->run.tape);
    nm_arena_free(f->arena);
    nm_blip2_train_free(f->t);
    json_decref(f->json);
    free(f->pixels);
    noema_session_free(f->s);
    noema_model_free(f->model);
    noema_context_free(f->ctx);
}

static void begin(fixture *f)
{
    nm_tape_clear(f->run.tape);
    nm_arena_reset(f->arena);
    nm_tied_zero(&f->t->tied);
}

static void check_run(const fixture *f)
{
    if (!nm_run_ok(&f->run))
        fail_msg("%s", f->run.err.message);
}

static void near(const char *what, double got, double want, double tolerance)
{
    if (!(fabs(got - want) <= tolerance))
        fail_msg("%s: got %.9g, expected %.9g", what, got, want);
}

/* The gradient of the tensor of that official name and its length; NULL: no such parameter. */
static const float *gradient(const nm_blip2_train *t, const char *name, size_t *n)
{
    for (size_t i = 0; i < t->tied.n; i++)
        for (int k = 0; k < t->tied.params[i].n_parts; k++)
            if (strcmp(t->tied.params[i].part[k], name) == 0) {
                *n = t->tied.params[i].n / (size_t)t->tied.params[i].n_parts;
                return t->tied.params[i].grad.data ? t->tied.params[i].grad.data + (size_t)k * *n : NULL;
            }
    return NULL;
}

static void same_norms(const fixture *f, const json_t *norms)
{
    const char *name;
    json_t *value;
    double most = 0;
    int compared = 0;
    json_object_foreach((json_t *)(uintptr_t)norms, name, value)
        most = json_number_value(value) > most ? json_number_value(value) : most;
    json_object_foreach((json_t *)(uintptr_t)norms, name, value) {
        double want = json_number_value(value), sum = 0;
        size_t n = 0;
        const float *g = gradient(f->t, name, &n);
        if (!g)
            fail_msg("%s: no gradient", name);
        for (size_t i = 0; i < n; i++)
            sum += (double)g[i] * (double)g[i];
        if (want < 1e-5 * most)
            continue;
        if (!(fabs(sqrt(sum) - want) <= 3e-3 * want))
            fail_msg("%s: gradient norm %.7g, expected %.7g", name, sqrt(sum), want);
        compared++;
    }
    assert_true(compared > 20);
}

/* Stored ids [n, length] and mask as ragged texts. */
static nm_texts texts_of(const nm_weights *w)
{
    const nm_wview *v = nm_weights_find(w, "text.input_ids"), *mv = nm_weights_find(w, "text.attention_mask");
    assert_true(v && mv);
    int64_t n = v->shape[0], length = v->shape[1], at = 0, *offsets = malloc((size_t)(n + 1) * sizeof *offsets);
    float *ids = malloc((size_t)(n * length) * sizeof *ids), *mask = malloc((size_t)(n * length) * sizeof *mask);
    int32_t *out = malloc((size_t)(n * length) * sizeof *out);
    nm_wview_copy_f32(v, ids);
    nm_wview_copy_f32(mv, mask);
    for (int64_t i = 0; i < n; i++) {
        offsets[i] = at;
        for (int64_t j = 0; j < length; j++)
            if (mask[i * length + j] != 0)
                out[at++] = (int32_t)ids[i * length + j];
    }
    offsets[n] = at;
    free(ids), free(mask);
    return (nm_texts){ .n = n, .offsets = offsets, .ids = out };
}

static void same_weights(const char *what, const double *got, const json_t *rows)
{
    for (size_t i = 0; i < 4; i++)
        for (size_t j = 0; j < 4; j++)
            near(what, got[i * 4 + j], json_number_value(json_array_get(json_array_get(rows, i), j)), 1e-5);
}

static int64_t *numbers(const json_t *list, int64_t *out)
{
    for (size_t i = 0; i < json_array_size(list); i++)
        out[i] = json_integer_value(json_array_get(list, i));
    return json_array_size(list) ? out : NULL;
}

static void one_stage1(fixture *f, const json_t *want, const nm_texts *texts, int32_t dec)
{
    int64_t image_id[4], negative_image[4], negative_text[4];
    double i2t[16], t2i[16];
    nm_blip2_batch b = { .n = 4, .pixels = f->pixels, .texts = *texts, .max_ids = 32, .dec = dec, .image_id = numbers(nm_json_get(want, "image_id"), image_id),
                         .negative_image = numbers(nm_json_get(want, "negative_image_for_text"), negative_image),
                         .negative_text = numbers(nm_json_get(want, "negative_text_for_image"), negative_text) };
    nm_blip2_losses out = { .weights_i2t = i2t, .weights_t2i = t2i };
    begin(f);
    nm_blip2_stage1_loss(&f->run, f->t, &b, &out);
    check_run(f);
    near("itc", out.itc, nm_json_num(want, "loss_itc", 0), 1e-5);
    near("itm", out.itm, nm_json_num(want, "loss_itm", 0), 1e-5);
    near("lm", out.lm, nm_json_num(want, "loss_lm", 0), 1e-5);
    near("total", out.total, nm_json_num(want, "loss", 0), 2e-5);
    same_weights("weights_i2t", i2t, nm_json_get(want, "weights_i2t"));
    same_weights("weights_t2i", t2i, nm_json_get(want, "weights_t2i"));
    same_norms(f, nm_json_get(want, "grad_norm"));
}

static void test_stage1(void **state)
{
    (void)state;
    fixture f;
    nm_weights *features, *grads;
    open_fixture(&f, "stage1", "blip2_pretrained.pth", NULL);
    ok(nm_weights_open(&features, OWN "stage1_features.safetensors", &err));
    ok(nm_weights_open(&grads, OWN "stage1_losses.safetensors", &err));
    nm_texts texts = texts_of(features);
    const json_t *losses = nm_json_get(f.json, "losses");
    int32_t dec = (int32_t)nm_json_int(nm_json_get(nm_json_get(f.json, "arch"), "ids"), "dec", 0);
    one_stage1(&f, nm_json_get(losses, "plain"), &texts, dec);
    one_stage1(&f, nm_json_get(losses, "with_image_id"), &texts, dec);
    static const char *const names[] = { "ln_vision.weight", "query_tokens", "temp", "vision_proj.weight" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char stored[96];
        size_t n = 0;
        snprintf(stored, sizeof stored, "grad_image_id_run.%s", names[i]);
        const nm_wview *v = nm_weights_find(grads, stored);
        const float *g = gradient(f.t, names[i], &n);
        float *want = malloc((size_t)nm_wview_numel(v) * sizeof *want);
        double most = 0;
        nm_wview_copy_f32(v, want);
        assert_int_equal(n, nm_wview_numel(v));
        for (size_t k = 0; k < n; k++)
            most = fabs((double)want[k]) > most ? fabs((double)want[k]) : most;
        for (size_t k = 0; k < n; k++)
            near(stored, (double)g[k], (double)want[k], 2e-3 * most);
        free(want);
    }
    /* drawn negatives are never one's own */
    double i2t[16];
    nm_blip2_losses out = { .weights_i2t = i2t };
    nm_blip2_batch b = { .n = 4, .pixels = f.pixels, .texts = texts, .max_ids = 32, .dec = dec };
    begin(&f);
    assert_true(isfinite(nm_blip2_stage1_loss(&f.run, f.t, &b, &out)));
    for (int i = 0; i < 4; i++)
        assert_true(i2t[5 * i] == 0);
    free((void *)(uintptr_t)texts.offsets);
    free((void *)(uintptr_t)texts.ids);
    nm_weights_close(features);
    nm_weights_close(grads);
    close_fixture(&f);
}

/* Ids of the golden's texts, kept apart from the session's. */
static nm_texts tokenized(fixture *f, const json_t *list, const char *end, size_t limit)
{
    int64_t *offsets = calloc(5, sizeof *offsets);
    int32_t *ids = malloc(4 * 256 * sizeof *ids);
    for (size_t i = 0; i < 4; i++) {
        char text[512];
        const char *p = text;
        nm_texts t;
        snprintf(text, sizeof text, "%s%s", json_string_value(json_array_get(list, i)), end);
        ok(nm_session_tokenize(f->s, 1, &p, NULL, &t, &err));
        size_t n = (size_t)t.offsets[1] < limit ? (size_t)t.offsets[1] : limit;
        memcpy(ids + offsets[i], t.ids, n * sizeof *ids);
        offsets[i + 1] = offsets[i] + (int64_t)n;
    }
    return (nm_texts){ .n = 4, .offsets = offsets, .ids = ids };
}

static void free_texts(nm_texts *t)
{
    free((void *)(uintptr_t)t->offsets);
    free((void *)(uintptr_t)t->ids);
}

static void test_opt(void **state)
{
    (void)state;
    fixture f;
    open_fixture(&f, "opt", "blip2_pretrained_opt.pth", OWN "lavis/opt");
    const json_t *runs = nm_json_get(f.json, "train"), *run;
    size_t i;
    json_array_foreach(runs, i, run) {
        const char *prompt = nm_json_str(run, "prompt", "");
        nm_texts p = { 0 };
        ok(nm_session_tokenize(f.s, 1, &prompt, NULL, &p, &err));
        int64_t prompt_ids = prompt[0] ? p.offsets[1] : 0;
        nm_texts texts = tokenized(&f, nm_json_get(run, "text_input"), "\n", 32);
        nm_blip2_batch b = { .n = 4, .pixels = f.pixels, .texts = texts, .prompt_ids = prompt_ids };
        begin(&f);
        double loss = nm_blip2_stage2_loss(&f.run, f.t, &b);
        check_run(&f);
        near("loss", loss, nm_json_num(run, "loss", 0), 1e-5);
        same_norms(&f, nm_json_get(run, "grad_norm"));
        free_texts(&texts);
    }
    close_fixture(&f);
}

static void test_t5(void **state)
{
    (void)state;
    fixture f;
    if (!nm_file_exists(SHARED "lavis/flan_t5/spiece.model")) {
        printf("SKIPPED, not there: %s\n", SHARED "lavis/flan_t5/spiece.model");
        return;
    }
    open_fixture(&f, "t5", "blip2_pretrained_flant5.pth", SHARED "lavis/flan_t5");
    const json_t *runs = nm_json_get(f.json, "train"), *run;
    size_t i;
    json_array_foreach(runs, i, run) {
        nm_texts texts = tokenized(&f, nm_json_get(run, "text_input"), "", 32), targets = tokenized(&f, nm_json_get(run, "text_output"), "", 32);
        nm_blip2_batch b = { .n = 4, .pixels = f.pixels, .texts = texts, .targets = targets };
        begin(&f);
        double loss = nm_blip2_stage2_loss(&f.run, f.t, &b);
        check_run(&f);
        near("loss", loss, nm_json_num(run, "loss", 0), 1e-5);
        same_norms(&f, nm_json_get(run, "grad_norm"));
        free_texts(&texts), free_texts(&targets);
    }
    close_fixture(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_stage1), cmocka_unit_test(test_opt), cmocka_unit_test(test_t5) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
