/* test_blip.c - BLIP against its references at every depth: tests/golden/blip (README of the golden data: abs 1e-4 for states and ITM
 * logits, 5e-6 for ITC, 2e-4 for decoder logits and beam scores, ids and texts exact). Checkpoints of the authors' layout and
 * expected values are in the repository; vocabularies and Hugging Face folders only in the shared folder. */
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
#include "generate/tasks.h"
#include "models/blip.h"

#define OWN NOEMA_SOURCE_DIR "/tests/golden/blip/"
#define SHARED NOEMA_SHARED_DIR "/golden/blip/"

static noema_context *ctx;
static noema_error err;

static int setup(void **state)
{
    (void)state;
    return noema_context_create(&ctx, NULL, NULL) == NOEMA_OK ? 0 : -1;
}
static int teardown(void **state)
{
    (void)state;
    noema_context_free(ctx);
    return 0;
}

static void ok(noema_status st)
{
    if (st != NOEMA_OK)
        fail_msg("%s: %s", noema_status_name(st), err.message);
}

static const char *own(const char *name)
{
    static char path[4][512];
    static int turn;
    char *p = path[turn++ & 3];
    snprintf(p, 512, "%s%s", OWN, name);
    return p;
}

/* A file of the shared folder, or NULL with a loud note. */
static const char *shared(const char *name)
{
    static char path[4][512];
    static int turn;
    char *p = path[turn++ & 3];
    snprintf(p, 512, "%s%s", SHARED, name);
    if (nm_file_exists(p) || nm_dir_exists(p))
        return p;
    printf("SKIPPED, not there: %s\n", p);
    return NULL;
}

/* ---- expected values ---- */

typedef struct expected { nm_weights *w; json_t *json; } expected;

static void load(expected *e, const char *name)
{
    char file[128];
    snprintf(file, sizeof file, "%s.safetensors", name);
    ok(nm_weights_open(&e->w, own(file), &err));
    snprintf(file, sizeof file, "%s.json", name);
    e->json = nm_json_load(own(file), &err);
    assert_non_null(e->json);
}

static void unload(expected *e)
{
    nm_weights_close(e->w);
    json_decref(e->json);
}

static const nm_wview *view(const expected *e, const char *name)
{
    const nm_wview *v = nm_weights_find(e->w, name);
    if (!v)
        fail_msg("no expected %s", name);
    return v;
}

static float *values(const expected *e, const char *name)
{
    const nm_wview *v = view(e, name);
    float *f = malloc((size_t)nm_wview_numel(v) * sizeof *f + 1);
    nm_wview_copy_f32(v, f);
    return f;
}

static double worst;
static void near(const char *what, const float *got, const float *want, size_t n, double tolerance)
{
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)got[i] - (double)want[i]);
        if (!(d <= tolerance))
            fail_msg("%s[%zu]: got %.9g, expected %.9g, difference %.3g over %.3g", what, i, (double)got[i], (double)want[i], d, tolerance);
        worst = d > worst ? d : worst;
    }
}

/* ---- models ---- */

typedef struct model { noema_model *m; noema_session *s; nm_blip *b; } model;

/* The configuration that the golden's `arch` block stands for, in a file. */
static void write_config(const json_t *arch, const char *path)
{
    const json_t *v = nm_json_get(arch, "vision"), *t = nm_json_get(arch, "text");
    json_t *c = json_pack("{s:{s:O,s:O},s:{s:O,s:O}}", "vision_config", "num_attention_heads", nm_json_get(v, "heads"), "layer_norm_eps",
                          nm_json_get(v, "layer_norm_eps"), "text_config", "num_attention_heads", nm_json_get(t, "heads"), "layer_norm_eps",
                          nm_json_get(t, "layer_norm_eps"));
    assert_int_equal(json_dump_file(c, path, 0), 0);
    json_decref(c);
}

static model open_model(const char *path, const json_t *arch, const char *tokenizer, int size)
{
    model m = { 0 };
    noema_model_options o;
    noema_model_options_default(&o);
    char config[64] = "test_blip.config.json";
    o.dtype = NOEMA_DTYPE_F32;
    o.tokenizer = tokenizer;
    o.image_height = o.image_width = size;
    if (arch) {
        write_config(arch, config);
        o.config = config;
    }
    ok(noema_model_open(&m.m, ctx, path, &o, &err));
    ok(noema_session_create(&m.s, m.m, &err));
    m.b = (nm_blip *)noema_model_internal(m.m);
    assert_string_equal(noema_model_get_info(m.m)->family, "blip");
    remove(config);
    return m;
}

static void close_model(model *m)
{
    noema_session_free(m->s);
    noema_model_free(m->m);
}

static nm_tensor pixels_of(const model *m, float *p, int64_t n)
{
    return nm_view(p, NM_F32, NM_SHAPE(n, 3, m->b->base.image_height, m->b->base.image_width));
}

/* ---- named intermediates ---- */

typedef struct seen { char name[96]; int64_t n; float *data; } seen;
typedef struct observed { seen item[128]; int n; } observed;

static void observe(void *user, const char *name, const nm_tensor *t)
{
    observed *o = user;
    assert_true(o->n < 128 && t->dtype == NM_F32 && nm_is_contiguous(t));
    seen *s = &o->item[o->n++];
    snprintf(s->name, sizeof s->name, "%s", name);
    s->n = nm_numel(t);
    s->data = malloc((size_t)s->n * sizeof(float) + 1);
    memcpy(s->data, t->data, (size_t)s->n * sizeof(float));
}

static void forget(observed *o)
{
    for (int i = 0; i < o->n; i++)
        free(o->item[i].data);
    o->n = 0;
}

static const seen *find_seen(const observed *o, const char *name)
{
    for (int i = 0; i < o->n; i++)
        if (strcmp(o->item[i].name, name) == 0)
            return &o->item[i];
    fail_msg("%s: not shown to the observer", name);
    return NULL;
}

/* Stored [n, length, width] with padding against observed rows of texts of their own lengths. With offsets NULL: the first n of equal shape.
 * Every stored tensor below `stored` must have been seen below `shown`. */
static int compare_depths(const observed *o, const expected *e, const char *stored, const char *shown, const int64_t *offsets)
{
    int n = 0;
    for (size_t i = 0; i < nm_weights_count(e->w); i++) {
        const nm_wview *v = nm_weights_at(e->w, i);
        if (strncmp(v->name, stored, strlen(stored)) != 0 || v->dtype != NM_F32 || v->ndim != 3 || strstr(v->name, "logits"))
            continue;
        char name[128];
        snprintf(name, sizeof name, "%s%s", shown, v->name + strlen(stored));
        const seen *s = find_seen(o, name);
        float *want = values(e, v->name);
        int64_t length = v->shape[1], width = v->shape[2];
        for (int64_t k = 0; k < v->shape[0]; k++) {
            int64_t from = offsets ? offsets[k] : k * length, rows = offsets ? offsets[k + 1] - from : length;
            rows = rows < length ? rows : length;
            assert_true((from + rows) * width <= s->n);
            near(name, s->data + from * width, want + k * length * width, (size_t)(rows * width), 1e-4);
        }
        free(want);
        n++;
    }
    assert_true(n > 0);
    return n;
}

/* Stored ids [n, length] and mask as ragged texts. */
static nm_texts texts_of(const expected *e, const char *ids, const char *mask)
{
    const nm_wview *v = view(e, ids);
    float *f = values(e, ids), *m = mask ? values(e, mask) : NULL;
    int64_t n = v->shape[0], length = v->shape[1], at = 0, *offsets = malloc((size_t)(n + 1) * sizeof *offsets);
    int32_t *out = malloc((size_t)(n * length) * sizeof *out);
    for (int64_t i = 0; i < n; i++) {
        offsets[i] = at;
        for (int64_t j = 0; j < length; j++)
            if (!m || m[i * length + j] != 0)
                out[at++] = (int32_t)f[i * length + j];
    }
    offsets[n] = at;
    free(f);
    free(m);
    return (nm_texts){ .n = n, .offsets = offsets, .ids = out, .pad_id = 0 };
}

static void free_texts(nm_texts *t)
{
    free((void *)(uintptr_t)t->offsets);
    free((void *)(uintptr_t)t->ids);
}

/* ---- pictures and texts ---- */

static void test_pretrain_features(void **state)
{
    (void)state;
    expected e;
    load(&e, "pretrain_features");
    model m = open_model(own("model_pretrain.pth"), nm_json_get(e.json, "arch"), NULL, 0);
    float *pixels = values(&e, "pixel_values"), *want;
    nm_texts texts = texts_of(&e, "text.input_ids", "text.attention_mask");
    observed o = { .n = 0 };
    nm_run *r = nm_session_run(m.s);
    r->observe = observe;
    r->observe_user = &o;

    nm_tensor states = nm_blip_image_states(r, m.b, pixels_of(&m, pixels, 4));
    assert_int_equal(compare_depths(&o, &e, "vision.", "vision.", NULL), 4);
    nm_tensor image = nm_blip_image_features(r, m.b, states), text = nm_normalize(r, m.b->base.family->encode_text(r, &m.b->base, &texts), 1e-12f);
    assert_int_equal(compare_depths(&o, &e, "text.", "text.", texts.offsets), 5);
    near("image_feat", image.data, want = values(&e, "image_feat"), 4 * 24, 5e-6), free(want);
    near("text_feat", text.data, want = values(&e, "text_feat"), 4 * 24, 5e-6), free(want);

    int32_t enc = (int32_t)nm_json_int(nm_json_get(nm_json_get(e.json, "arch"), "ids"), "enc", 0);
    float *with_enc = values(&e, "itm_logits_enc"), *with_cls = values(&e, "itm_logits_cls");
    for (int i = 0; i < 4; i++) {
        forget(&o);
        nm_tensor logits = nm_blip_itm(r, m.b, nm_rows(states, i, i + 1), &texts, enc);
        near("itm_logits_enc", logits.data, with_enc + i * 8, 8, 1e-4);
        if (i == 0)
            assert_int_equal(compare_depths(&o, &e, "multimodal_image0.", "multimodal.", texts.offsets), 7);
        logits = nm_blip_itm(r, m.b, nm_rows(states, i, i + 1), &texts, -1);
        near("itm_logits_cls", logits.data, with_cls + i * 8, 8, 1e-4);
    }
    assert_true(nm_run_ok(r));
    free(with_enc), free(with_cls), free(pixels);
    forget(&o);
    free_texts(&texts);
    close_model(&m);
    unload(&e);
}

/* Through the public calls: pictures from files, texts through the tokenizer. */
static void test_pretrain_public(void **state)
{
    (void)state;
    const char *vocab = shared("tiny_vocab.txt");
    if (!vocab)
        return;
    expected e;
    load(&e, "pretrain_features");
    model m = open_model(own("model_pretrain.pth"), nm_json_get(e.json, "arch"), vocab, 0);
    const json_t *captions = nm_json_get(e.json, "captions");
    const char *text[4], *names[4] = { "images/image0.png", "images/image1.png", "images/image2.png", "images/image3.png" };
    char paths[4][512];
    noema_picture p[5] = { { 0 } };
    for (int i = 0; i < 4; i++) {
        text[i] = json_string_value(json_array_get(captions, (size_t)i));
        snprintf(paths[i], sizeof paths[i], "%s", own(names[i]));
        p[i].path = paths[i];
    }
    p[4].path = "no-such-picture.png";
    float scores[5][4], probs[5][4], *want;
    noema_error errors[5];
    noema_match_options mo = { .struct_size = sizeof mo, .head = 1 };
    ok(noema_match_pictures(m.s, 5, p, 4, text, NULL, &mo, scores[0], probs[0], errors, &err));
    near("cosine", scores[0], want = values(&e, "itc_cosine"), 16, 5e-6), free(want);
    near("softmax", probs[0], want = values(&e, "itc_softmax_over_texts"), 16, 5e-5), free(want);
    assert_true(errors[4].code != NOEMA_OK && isnan(scores[4][0]) && errors[0].code == NOEMA_OK);
    mo.head = 2;
    float *logits = values(&e, "itm_logits_enc");
    ok(noema_match_pictures(m.s, 5, p, 4, text, NULL, &mo, scores[0], probs[0], errors, &err));
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < 4; k++)
            near("itm", &scores[i][k], &logits[2 * (4 * i + k) + 1], 1, 1e-4);
    near("itm_prob", probs[0], want = values(&e, "itm_prob_enc"), 16, 1e-5), free(want);
    mo.first_token = 2;
    ok(noema_match_pictures(m.s, 4, p, 4, text, NULL, &mo, scores[0], probs[0], NULL, &err));
    near("itm_prob_cls", probs[0], want = values(&e, "itm_prob_cls"), 16, 1e-5), free(want);
    free(logits);
    close_model(&m);
    unload(&e);
}

static void test_retrieval(void **state)
{
    (void)state;
    const char *vocab = shared("tiny_vocab.txt");
    if (!vocab)
        return;
    expected e;
    load(&e, "retrieval");
    model m = open_model(own("model_retrieval.pth"), nm_json_get(e.json, "arch"), vocab, 0);
    const json_t *list = nm_json_get(e.json, "texts");
    const char *text[7];
    char paths[4][512];
    noema_picture p[4] = { { 0 } };
    for (int i = 0; i < 7; i++)
        text[i] = json_string_value(json_array_get(list, (size_t)i));
    for (int i = 0; i < 4; i++) {
        snprintf(paths[i], sizeof paths[i], "%simages/image%d.png", OWN, i);
        p[i].path = paths[i];
    }
    float cosine[4][7], itm[4][7], probs[4][7], *want;
    noema_match_options mo = { .struct_size = sizeof mo, .head = 1 };
    ok(noema_match_pictures(m.s, 4, p, 7, text, NULL, &mo, cosine[0], probs[0], NULL, &err));
    near("cosine", cosine[0], want = values(&e, "cosine"), 28, 5e-6), free(want);
    mo.head = 2;
    ok(noema_match_pictures(m.s, 4, p, 7, text, NULL, &mo, itm[0], probs[0], NULL, &err));
    float *i2t = values(&e, "score_i2t");
    for (int i = 0; i < 28; i++) { /* -100 outside the top k */
        float sum = itm[i / 7][i % 7] + cosine[i / 7][i % 7];
        if (i2t[i] > -99)
            near("score_i2t", &sum, &i2t[i], 1, 1e-4);
    }
    free(i2t);
    close_model(&m);
    unload(&e);
}

static void test_positions(void **state)
{
    (void)state;
    expected e;
    load(&e, "caption_resized");
    model m = open_model(own("model_pretrain.pth"), nm_json_get(e.json, "arch"), NULL, 80);
    float *want = values(&e, "pos_embed_interpolated");
    near("pos_embed", m.b->vit.positional_embedding.f32, want, 26 * 36, 2e-6);
    free(want);
    observed o = { .n = 0 };
    nm_run *r = nm_session_run(m.s);
    r->observe = observe;
    r->observe_user = &o;
    float *pixels = values(&e, "pixel_values");
    nm_blip_image_states(r, m.b, pixels_of(&m, pixels, 1));
    static const char *const names[] = { "vision.embeddings", "vision.block.0", "vision.block.1", "vision.final_norm" };
    for (int i = 0; i < 4; i++) { /* two pictures are stored, the tensor of the first */
        want = values(&e, names[i]);
        near(names[i], find_seen(&o, names[i])->data, want, 26 * 36, 1e-4);
        free(want);
    }
    free(pixels);
    forget(&o);
    close_model(&m);
    unload(&e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pretrain_features),
        cmocka_unit_test(test_pretrain_public),
        cmocka_unit_test(test_retrieval),
        cmocka_unit_test(test_positions),
    };
    int failed = cmocka_run_group_tests(tests, setup, teardown);
    printf("largest difference %.3g\n", worst);
    return failed;
}
