/* test_blip_train.c - BLIP's training losses against salesforce/BLIP in PyTorch: values, gradient norms of every tensor, sampling weights,
 * queues, three AdamW steps (README of the golden data: losses abs 2e-5, gradient norms rel 2e-3 above 1e-5 of the largest). */
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
#include "train/blip_loss.h"
#include "train/optim.h"

#define OWN NOEMA_SOURCE_DIR "/tests/golden/blip/"
#define SHARED NOEMA_SHARED_DIR "/golden/blip/"

typedef struct fixture {
    noema_context *ctx;
    noema_model *model;
    noema_session *s;
    nm_blip *m;
    nm_blip_train *t;
    nm_weights *file;  /* the checkpoint, for momentum encoders and queues */
    nm_weights *want;  /* NAME.safetensors */
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

static float *values(const nm_weights *w, const char *name)
{
    const nm_wview *v = nm_weights_find(w, name);
    if (!v)
        fail_msg("no expected %s", name);
    float *f = malloc((size_t)nm_wview_numel(v) * sizeof *f + 1);
    nm_wview_copy_f32(v, f);
    return f;
}

/* The tensors of picture files, in the order given. */
static float *load_pixels(fixture *f, int n, const char *const *names)
{
    size_t floats = 3 * (size_t)f->m->base.image_height * (size_t)f->m->base.image_width;
    float *p = malloc((size_t)n * floats * sizeof *p);
    nm_preprocess_scratch *s = nm_preprocess_scratch_new();
    for (int i = 0; i < n; i++) {
        char path[512];
        const nm_image *im;
        snprintf(path, sizeof path, "%simages/%s", OWN, names[i]);
        ok(nm_preprocess_load(&f->m->base.preprocess, s, path, NULL, &im, &err));
        ok(nm_preprocess_run(&f->m->base.preprocess, s, im, p + (size_t)i * floats, &err));
    }
    nm_preprocess_scratch_free(s);
    return p;
}

/* checkpoint and vocabulary; false (after a note) when the shared vocabulary is not there. */
static bool open_fixture(fixture *f, const char *name, const char *folder, const char *checkpoint, const char *vocab, int64_t queue)
{
    char path[512], config[] = "test_blip_train.config.json";
    const char *tokenizer = NULL;
    *f = (fixture){ 0 };
    if (vocab) {
        snprintf(path, sizeof path, "%s%s", SHARED, vocab);
        if (!nm_file_exists(path)) {
            printf("SKIPPED, not there: %s\n", path);
            return false;
        }
        tokenizer = path;
    }
    noema_model_options o;
    noema_model_options_default(&o);
    o.dtype = NOEMA_DTYPE_F32;
    o.tokenizer = tokenizer;
    o.config = config;
    char json[512], file[512];
    snprintf(json, sizeof json, "%s%s.json", folder, name);
    f->json = nm_json_load(json, &err);
    assert_non_null(f->json);
    const json_t *arch = nm_json_get(f->json, "arch"), *v = nm_json_get(arch, "vision"), *t = nm_json_get(arch, "text");
    json_t *c = json_pack("{s:{s:O,s:O},s:{s:O,s:O}}", "vision_config", "num_attention_heads", nm_json_get(v, "heads"), "layer_norm_eps",
                          nm_json_get(v, "layer_norm_eps"), "text_config", "num_attention_heads", nm_json_get(t, "heads"), "layer_norm_eps",
                          nm_json_get(t, "layer_norm_eps"));
    assert_int_equal(json_dump_file(c, config, 0), 0);
    json_decref(c);
    ok(noema_context_create(&f->ctx, NULL, &err));
    snprintf(file, sizeof file, "%s%s", folder, checkpoint);
    ok(noema_model_open(&f->model, f->ctx, file, &o, &err));
    ok(noema_session_create(&f->s, f->model, &err));
    remove(config);
    f->m = (nm_blip *)noema_model_internal(f->model);
    ok(nm_weights_open(&f->file, file, &err));
    ok(nm_blip_train_new(&f->t, f->m, f->file, queue, 1, &err));
    f->arena = nm_arena_new(1 << 20);
    nm_run_init(&f->run, nm_kernels_get(), f->ctx->pool, f->arena, NM_F32);
    f->run.tape = nm_tape_new();
    f->run.training = true;
    return true;
}

static void close_fixture(fixture *f)
{
    nm_tape_free(f->run.tape);
    nm_arena_free(f->arena);
    nm_blip_train_free(f->t);
    nm_weights_close(f->file);
    nm_weights_close(f->want);
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
    nm_rng_init(&f->run.rng, 1, 1);
    nm_tied_zero(&f->t->tied);
}

static void check_run(fixture *f)
{
    if (!nm_run_ok(&f->run))
        fail_msg("%s", f->run.err.message);
}

static void near(const char *what, double got, double want, double tolerance)
{
    if (!(fabs(got - want) <= tolerance))
        fail_msg("%s: got %.9g, expected %.9g", what, got, want);
}

/* ---- gradient norms by the official names; fused tensors are compared part by part ---- */

typedef struct part_search { const char *name; nm_weight *w; int part, parts; } part_search;

static void find_part(nm_params *p, const nm_param_info *info)
{
    part_search *s = p->user;
    for (int i = 0; i < info->n_parts; i++)
        if (!s->w && strcmp(info->part_name[i], s->name) == 0)
            s->w = info->w, s->part = i, s->parts = info->n_parts;
}

static double part_norm(fixture *f, const char *name)
{
    part_search s = { .name = name };
    nm_params p = { .visit = find_part, .user = &s, .scheme = NM_BLIP_OFFICIAL };
    f->m->base.family->declare(&p, f->m);
    if (!s.w)
        fail_msg("%s: no such parameter", name);
    assert_non_null(s.w->grad);
    size_t n = (size_t)nm_shape_numel(s.w->shape) / (size_t)s.parts;
    return s.w->grad->data ? sqrt(nm_squared_norm(NULL, s.w->grad->data + (size_t)s.part * n, n)) : 0;
}

static void check_norms(fixture *f, const json_t *norms)
{
    const char *name;
    const json_t *v;
    double largest = 0;
    int checked = 0;
    json_object_foreach((json_t *)(uintptr_t)norms, name, v)
        largest = json_number_value(v) > largest ? json_number_value(v) : largest;
    json_object_foreach((json_t *)(uintptr_t)norms, name, v) {
        double want = json_number_value(v);
        if (want < 1e-5 * largest)
            continue;
        near(name, part_norm(f, name), want, 2e-3 * want);
        checked++;
    }
    assert_true(checked > 10);
}

static void check_matrix(const char *what, const double *got, const json_t *want, int n, double tolerance)
{
    for (int i = 0; i < n * n; i++)
        near(what, got[i], json_number_value(json_array_get(json_array_get(want, (size_t)(i / n)), (size_t)(i % n))), tolerance);
}

static void int_list(const json_t *list, int64_t *out)
{
    for (size_t i = 0; i < json_array_size(list); i++)
        out[i] = json_integer_value(json_array_get(list, i));
}

/* Stored [embed_dim, queue] against our rows. */
static void check_queue(fixture *f, const char *name, const float *rows)
{
    float *want = values(f->want, name);
    int64_t dim = f->m->cfg.embed_dim, size = f->t->queue_size;
    for (int64_t i = 0; i < size; i++)
        for (int64_t c = 0; c < dim; c++)
            near(name, (double)rows[i * dim + c], (double)want[c * size + i], 2e-5);
    free(want);
}

/* Stored ids [n, length] without padding, cut to `limit` as the tokenizer cuts. */
static nm_texts stored_texts(const nm_weights *w, const char *ids, const char *mask, int64_t *offsets, int32_t *out)
{
    const nm_wview *v = nm_weights_find(w, ids);
    float *id = values(w, ids), *m = values(w, mask);
    int64_t at = 0;
    for (int64_t i = 0; i < v->shape[0]; i++) {
        offsets[i] = at;
        for (int64_t j = 0; j < v->shape[1]; j++)
            if (m[i * v->shape[1] + j] != 0)
                out[at++] = (int32_t)id[i * v->shape[1] + j];
    }
    offsets[v->shape[0]] = at;
    free(id);
    free(m);
    return (nm_texts){ .n = v->shape[0], .offsets = offsets, .ids = out, .pad_id = 0 };
}

static void test_pretraining(void **state)
{
    (void)state;
    fixture f;
    nm_weights *features;
    int64_t offsets[8], negative_image[4], negative_text[4];
    int32_t ids[256];
    assert_true(open_fixture(&f, "pretrain_losses", OWN, "model_pretrain.pth", NULL, 12));
    ok(nm_weights_open(&f.want, OWN "pretrain_losses.safetensors", &err));
    ok(nm_weights_open(&features, OWN "pretrain_features.safetensors", &err));
    f.pixels = values(features, "pixel_values");
    int_list(nm_json_get(f.json, "negative_image_for_text"), negative_image);
    int_list(nm_json_get(f.json, "negative_text_for_image"), negative_text);
    nm_blip_batch b = { .n = 4, .pixels = f.pixels, .texts = stored_texts(features, "text.input_ids", "text.attention_mask", offsets, ids), .max_ids = 30,
                        .negative_image = negative_image, .negative_text = negative_text, .dec = 401, .enc = 402 };
    nm_opt opt = { .kind = NM_OPT_ADAMW, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8 };
    float **m = calloc(f.t->tied.n, sizeof *m), **v = calloc(f.t->tied.n, sizeof *v);
    for (size_t i = 0; i < f.t->tied.n; i++) {
        m[i] = nm_calloc(f.t->tied.params[i].n, sizeof(float));
        v[i] = nm_calloc(f.t->tied.params[i].n, sizeof(float));
    }
    size_t step;
    const json_t *want;
    json_array_foreach(nm_json_get(f.json, "steps"), step, want) {
        char name[64];
        double w_i2t[16], w_t2i[16];
        nm_blip_losses out = { .weights_i2t = w_i2t, .weights_t2i = w_t2i };
        b.alpha = nm_json_num(want, "alpha", 0);
        assert_int_equal(f.t->ptr, nm_json_int(want, "queue_ptr_before", -1));
        begin(&f);
        nm_blip_pretrain_loss(&f.run, f.t, &b, true, &out);
        check_run(&f);
        near("loss_ita", out.itc, nm_json_num(want, "loss_ita", 0), 2e-5);
        near("loss_itm", out.itm, nm_json_num(want, "loss_itm", 0), 2e-5);
        near("loss_lm", out.lm, nm_json_num(want, "loss_lm", 0), 2e-5);
        near("temp", (double)f.m->temp.f32[0], nm_json_num(want, "temp", 0), 1e-6);
        assert_int_equal(f.t->ptr, nm_json_int(want, "queue_ptr_after", -1));
        check_norms(&f, nm_json_get(want, "grad_norm"));
        snprintf(name, sizeof name, "step%zu.image_queue", step);
        check_queue(&f, name, f.t->image_queue);
        snprintf(name, sizeof name, "step%zu.text_queue", step);
        check_queue(&f, name, f.t->text_queue);
        if (step == 0) {
            float *wi = values(f.want, "step0.weights_i2t"), *wt = values(f.want, "step0.weights_t2i");
            for (int i = 0; i < 16; i++) {
                near("weights_i2t", w_i2t[i], (double)wi[i], 1e-5);
                near("weights_t2i", w_t2i[i], (double)wt[i], 1e-5);
            }
            free(wi), free(wt);
        }
        for (size_t i = 0; i < f.t->tied.n; i++)
            nm_opt_update(&opt, NULL, f.t->tied.params[i].n, f.t->tied.params[i].w->f32, f.t->tied.params[i].grad.data, 1, m[i], v[i], (int64_t)step + 1, 1e-4, 0.05);
        nm_tied_changed(&f.t->tied);
    }
    assert_int_equal(step, 3);
    /* drawn negatives never are the pair itself */
    b.negative_image = b.negative_text = NULL;
    nm_blip_losses out = { 0 };
    begin(&f);
    assert_true(isfinite(nm_blip_pretrain_loss(&f.run, f.t, &b, true, &out)));
    for (size_t i = 0; i < f.t->tied.n; i++)
        nm_free(m[i]), nm_free(v[i]);
    free(m), free(v);
    nm_weights_close(features);
    close_fixture(&f);
}

static void tokenize(fixture *f, const json_t *list, nm_texts *t)
{
    const char *words[16];
    size_t n = json_array_size(list);
    for (size_t i = 0; i < n; i++)
        words[i] = json_string_value(json_array_get(list, i));
    ok(nm_session_tokenize(f->s, n, words, NULL, t, &err));
}

static void test_retrieval(void **state)
{
    (void)state;
    fixture f;
    nm_texts texts;
    static const char *const images[] = { "image0.png", "image1.png", "image2.png", "image3.png" };
    if (!open_fixture(&f, "retrieval", OWN, "model_retrieval.pth", "tiny_vocab.txt", 12))
        return;
    f.pixels = load_pixels(&f, 4, images);
    tokenize(&f, nm_json_get(f.json, "train_captions"), &texts);
    const json_t *want = json_array_get(nm_json_get(f.json, "train"), 0);
    int64_t idx[4], negative_image[4], negative_text[4], queue[12];
    int_list(nm_json_get(want, "idx"), idx);
    int_list(nm_json_get(want, "idx_queue_before"), f.t->idx_queue);
    int_list(nm_json_get(want, "negative_image_for_text"), negative_image);
    int_list(nm_json_get(want, "negative_text_for_image"), negative_text);
    f.t->ptr = nm_json_int(want, "ptr_before", 0);
    double w_i2t[16], w_t2i[16];
    nm_blip_losses out = { .weights_i2t = w_i2t, .weights_t2i = w_t2i };
    nm_blip_batch b = { .n = 4, .pixels = f.pixels, .texts = texts, .max_ids = 35, .alpha = nm_json_num(f.json, "train_alpha", 0), .idx = idx,
                        .negative_image = negative_image, .negative_text = negative_text, .dec = 401, .enc = 402 };
    begin(&f);
    nm_blip_pretrain_loss(&f.run, f.t, &b, false, &out);
    check_run(&f);
    near("loss_ita", out.itc, nm_json_num(want, "loss_ita", 0), 2e-5);
    near("loss_itm", out.itm, nm_json_num(want, "loss_itm", 0), 2e-5);
    check_matrix("weights_i2t", w_i2t, nm_json_get(want, "weights_i2t"), 4, 1e-5);
    check_matrix("weights_t2i", w_t2i, nm_json_get(want, "weights_t2i"), 4, 1e-5);
    int_list(nm_json_get(want, "idx_queue_after"), queue);
    assert_memory_equal(queue, f.t->idx_queue, sizeof queue);
    assert_int_equal(f.t->ptr, nm_json_int(want, "ptr_after", -1));
    check_norms(&f, nm_json_get(want, "grad_norm"));
    close_fixture(&f);
}

static void test_vqa(void **state)
{
    (void)state;
    fixture f;
    nm_texts questions, answers;
    static const char *const images[] = { "image0.png", "image1.png", "image2.png", "image3.png" };
    if (!open_fixture(&f, "vqa", OWN, "model_vqa.pth", "tiny_vocab.txt", 0))
        return;
    f.pixels = load_pixels(&f, 4, images);
    const json_t *want = nm_json_get(f.json, "train");
    int64_t n[4], *offsets;
    int32_t *ids;
    double weights[16];
    tokenize(&f, nm_json_get(f.json, "questions"), &questions);
    size_t total = (size_t)questions.offsets[questions.n]; /* the next call takes the session's room */
    offsets = malloc((size_t)(questions.n + 1) * sizeof *offsets);
    ids = malloc(total * sizeof *ids);
    memcpy(offsets, questions.offsets, (size_t)(questions.n + 1) * sizeof *offsets);
    memcpy(ids, questions.ids, total * sizeof *ids);
    questions.offsets = offsets;
    questions.ids = ids;
    tokenize(&f, nm_json_get(want, "answers"), &answers);
    int_list(nm_json_get(want, "n"), n);
    for (size_t i = 0; i < json_array_size(nm_json_get(want, "weights")); i++)
        weights[i] = json_number_value(json_array_get(nm_json_get(want, "weights"), i));
    nm_blip_batch b = { .n = 4, .pixels = f.pixels, .texts = questions, .answers = answers, .answers_of = n, .answer_weight = weights, .dec = 401, .enc = 402 };
    begin(&f);
    double loss = nm_blip_vqa_loss(&f.run, f.t, &b);
    check_run(&f);
    near("loss", loss, nm_json_num(want, "loss", 0), 2e-5);
    check_norms(&f, nm_json_get(want, "grad_norm"));
    free(offsets);
    free(ids);
    close_fixture(&f);
}

static void test_nlvr(void **state)
{
    (void)state;
    fixture f;
    nm_texts texts;
    const char *images[4];
    json_t *words = json_array();
    if (!open_fixture(&f, "nlvr", OWN, "model_nlvr.pth", "tiny_vocab.txt", 0)) {
        json_decref(words);
        return;
    }
    size_t i;
    const json_t *pair, *want = nm_json_get(f.json, "train");
    json_array_foreach(nm_json_get(f.json, "pairs"), i, pair) {
        images[2 * i] = nm_json_str(pair, "image0", "");
        images[2 * i + 1] = nm_json_str(pair, "image1", "");
        json_array_append_new(words, json_string(nm_json_str(pair, "text", "")));
    }
    f.pixels = load_pixels(&f, 4, images);
    tokenize(&f, words, &texts);
    int64_t labels[2];
    int_list(nm_json_get(want, "targets"), labels);
    nm_blip_batch b = { .n = 2, .pixels = f.pixels, .texts = texts, .labels = labels, .dec = 401, .enc = 402 };
    begin(&f);
    double loss = nm_blip_nlvr_loss(&f.run, f.t, &b);
    check_run(&f);
    near("loss", loss, nm_json_num(want, "loss", 0), 2e-5);
    check_norms(&f, nm_json_get(want, "grad_norm"));
    json_decref(words);
    close_fixture(&f);
}

/* The published vocabulary, and with it the published ids, are only in the shared folder. */
static void test_caption(void **state)
{
    (void)state;
    fixture f;
    nm_texts texts;
    static const char *const images[] = { "image0.png", "image1.png" };
    char probe[512];
    snprintf(probe, sizeof probe, "%smodel_caption.pth", SHARED);
    if (!nm_file_exists(probe)) {
        printf("SKIPPED, not there: %s\n", probe);
        return;
    }
    if (!open_fixture(&f, "caption_realvocab", SHARED, "model_caption.pth", "vocab.txt", 0))
        return;
    f.pixels = load_pixels(&f, 2, images);
    const json_t *want = nm_json_get(f.json, "teacher");
    tokenize(&f, nm_json_get(want, "texts"), &texts);
    nm_blip_batch b = { .n = 2, .pixels = f.pixels, .texts = texts, .max_ids = 40, .prompt_ids = 4, .dec = 30522, .enc = 30523 };
    begin(&f);
    double loss = nm_blip_caption_loss(&f.run, f.t, &b);
    check_run(&f);
    near("loss", loss, nm_json_num(want, "loss", 0), 2e-5);
    /* sixty steps on two captions: the loss falls to what label smoothing leaves */
    nm_opt opt = { .kind = NM_OPT_ADAMW, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8 };
    float **m = calloc(f.t->tied.n, sizeof *m), **v = calloc(f.t->tied.n, sizeof *v);
    for (size_t i = 0; i < f.t->tied.n; i++) {
        m[i] = nm_calloc(f.t->tied.params[i].n, sizeof(float));
        v[i] = nm_calloc(f.t->tied.params[i].n, sizeof(float));
    }
    double last = loss;
    for (int step = 1; step <= 60; step++) {
        begin(&f);
        last = nm_blip_caption_loss(&f.run, f.t, &b);
        check_run(&f);
        for (size_t i = 0; i < f.t->tied.n; i++)
            if (f.t->tied.params[i].grad.data)
                nm_opt_update(&opt, NULL, f.t->tied.params[i].n, f.t->tied.params[i].w->f32, f.t->tied.params[i].grad.data, 1, m[i], v[i], step, 1e-2, 0);
        nm_tied_changed(&f.t->tied);
    }
    assert_true(last < 0.7 * loss);
    for (size_t i = 0; i < f.t->tied.n; i++)
        nm_free(m[i]), nm_free(v[i]);
    free(m), free(v);
    close_fixture(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_pretraining), cmocka_unit_test(test_retrieval), cmocka_unit_test(test_vqa), cmocka_unit_test(test_nlvr),
                                        cmocka_unit_test(test_caption) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
