/* test_clip.c - CLIP, open_clip, SigLIP, CoCa, XLM-R text towers and sentence embeddings against their reference code, at every depth that
 * the golden files store. Our own figures lie in tests/golden/clip; where the shared folder is present, its further files (public
 * pictures, vocabularies) are used as well. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/json.h"
#include "generate/tasks.h"
#include "models/clip.h"
#include "models/handle.h"
#include "models/registry.h"

#define OWN NOEMA_SOURCE_DIR "/tests/golden/clip/"
#define SHARED NOEMA_SHARED_DIR "/golden/clip/"
#define IMAGES NOEMA_SHARED_DIR "/golden/images/"

static noema_context *ctx;

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

static void ok(noema_status st, const noema_error *err)
{
    if (st != NOEMA_OK)
        fail_msg("%s: %s", noema_status_name(st), err->message);
}

/* The file in the shared folder, else our own copy; NULL: neither. */
static const char *find(const char *name, char path[512])
{
    static const char *const roots[] = { SHARED, OWN };
    for (int i = 0; name && i < 2; i++) {
        snprintf(path, 512, "%s%s", roots[i], name);
        if (nm_file_exists(path) || nm_dir_exists(path))
            return path;
    }
    return NULL;
}

/* ---- comparing ---- */

static double worst, worst_unit; /* of the running case, for the report: any value; unit vectors */

static double largest(const float *v, size_t n)
{
    double m = 1;
    for (size_t i = 0; i < n; i++)
        m = fabs((double)v[i]) > m ? fabs((double)v[i]) : m;
    return m;
}

static void close_to(const char *what, const float *got, const float *want, size_t n, double tolerance)
{
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)got[i] - (double)want[i]);
        if (!(d <= tolerance)) /* also NaN */
            fail_msg("%s[%zu]: got %.9g, expected %.9g, difference %.3g over %.3g", what, i, (double)got[i], (double)want[i], d, tolerance);
        worst = d > worst ? d : worst;
        if (strstr(what, "_embeds"))
            worst_unit = d > worst_unit ? d : worst_unit;
    }
}

typedef struct expected { nm_weights *w; json_t *json; double embeds, logits; } expected;

static bool load_expected(expected *e, const char *name)
{
    char file[300], path[512];
    noema_error err = NOEMA_ERROR_INIT;
    *e = (expected){ 0 };
    snprintf(file, sizeof file, "%s.expected.safetensors", name);
    if (!find(file, path))
        return false;
    ok(nm_weights_open(&e->w, path, &err), &err);
    snprintf(file, sizeof file, "%s.expected.json", name);
    assert_non_null(find(file, path));
    e->json = nm_json_load(path, &err);
    assert_non_null(e->json);
    const json_t *t = nm_json_get(e->json, "tolerance");
    e->embeds = nm_json_num(t, "embeds_max_abs", 1e-5);
    e->logits = nm_json_num(t, "logits_max_abs", 2e-4);
    return true;
}

static void free_expected(expected *e)
{
    nm_weights_close(e->w);
    json_decref(e->json);
}

static float *tensor(const expected *e, const char *name, const nm_wview **view)
{
    const nm_wview *v = nm_weights_find(e->w, name);
    if (view)
        *view = v;
    if (!v)
        return NULL;
    float *f = malloc((size_t)nm_wview_numel(v) * sizeof *f + 1);
    nm_wview_copy_f32(v, f);
    return f;
}

/* ---- named intermediates ---- */

typedef struct seen { char name[96]; int ndim; int64_t shape[6]; float *data; } seen;
typedef struct observed { seen item[64]; int n; } observed;

static void observe(void *user, const char *name, const nm_tensor *t)
{
    observed *o = user;
    if (o->n == 64 || t->dtype != NM_F32 || !nm_is_contiguous(t))
        return;
    seen *s = &o->item[o->n++];
    snprintf(s->name, sizeof s->name, "%s", name);
    s->ndim = t->ndim;
    memcpy(s->shape, t->shape, sizeof s->shape);
    s->data = malloc((size_t)nm_numel(t) * sizeof(float));
    memcpy(s->data, t->data, (size_t)nm_numel(t) * sizeof(float));
}

static void free_observed(observed *o)
{
    for (int i = 0; i < o->n; i++)
        free(o->item[i].data);
    o->n = 0;
}

/* Stored depths are crops: pictures 0 and 1, texts 1 and 3 (all six where six are stored), the first positions. */
static int compare_depth(const seen *s, const nm_wview *v, const float *want, const expected *e)
{
    bool text = s->name[0] == 't';
    int64_t item[8], want_item = 1, got_item = 1, row = 1;
    for (int d = 1; d < v->ndim; d++)
        want_item *= v->shape[d];
    for (int d = 1; d < s->ndim; d++)
        got_item *= s->shape[d];
    for (int d = 2; d < s->ndim; d++)
        row *= s->shape[d];
    assert_int_equal(s->ndim, v->ndim);
    assert_true(v->shape[0] <= 8 && want_item <= got_item && (v->ndim < 3 || want_item % row == 0));
    int64_t items = !text && v->shape[0] > s->shape[0] ? s->shape[0] : v->shape[0];
    for (int64_t i = 0; i < items; i++) {
        item[i] = text && strcmp(v->name, "token_embs") != 0 && v->shape[0] == 2 && s->shape[0] > 2 ? 1 + 2 * i : i;
        assert_true(item[i] < s->shape[0]);
        close_to(s->name, s->data + item[i] * got_item, want + i * want_item, (size_t)want_item,
                 2 * e->embeds * largest(want + i * want_item, (size_t)want_item));
    }
    return 1;
}

/* Every stored tensor whose name starts with the tower's prefix must have been seen. */
static int compare_depths(const observed *o, const expected *e, const char *prefix)
{
    int n = 0;
    for (size_t i = 0; i < nm_weights_count(e->w); i++) {
        const nm_wview *v = nm_weights_at(e->w, i);
        const char *coca = prefix[0] == 't' ? "token_embs" : "image_embs"; /* stored without the tower's name */
        if ((strncmp(v->name, prefix, strlen(prefix)) != 0 && strcmp(v->name, coca) != 0) || strstr(v->name, "positional_embedding"))
            continue;
        int at = -1;
        for (int k = 0; k < o->n; k++)
            if (strcmp(o->item[k].name, v->name) == 0)
                at = k;
        if (at < 0)
            fail_msg("%s: not shown to the observer", v->name);
        float *want = tensor(e, v->name, NULL);
        n += compare_depth(&o->item[at], v, want, e);
        free(want);
    }
    return n;
}

/* ---- one case ---- */

typedef struct golden_case {
    const char *name, *model, *config, *tokenizer;
    int image_height, image_width, activation;
    bool six_images;     /* the pipeline of the model is that of the expected values for all pictures */
    bool own_config;     /* the configuration stands in expected.json: another size or context than the file's */
} golden_case;

/* Those cases give the model_cfg and, where they differ, the size and the mode of resizing. */
static void write_config(const expected *e, const char *path)
{
    const json_t *pre = nm_json_get(e->json, "preprocess");
    json_t *p = pre ? json_pack("{s:O,s:O,s:O}", "size", nm_json_get(pre, "size_hw"), "resize_mode", nm_json_get(pre, "resize_mode"), "interpolation",
                                nm_json_get(pre, "interpolation"))
                    : json_object();
    json_t *j = json_pack("{s:O,s:o}", "model_cfg", nm_json_get(e->json, "config"), "preprocess_cfg", p);
    assert_non_null(j);
    assert_int_equal(json_dump_file(j, path, 0), 0);
    json_decref(j);
}

static void check_positions(noema_model *model, const expected *e)
{
    const nm_clip *m = (const nm_clip *)noema_model_internal(model);
    const nm_wview *v;
    float *want = tensor(e, "visual.positional_embedding", &v);
    if (want)
        close_to("visual.positional_embedding", m->vit.positional_embedding.f32, want, (size_t)nm_wview_numel(v), 1e-6);
    free(want);
    want = tensor(e, "text.positional_embedding", &v);
    if (want)
        close_to("text.positional_embedding", m->text.positional_embedding.f32, want, (size_t)nm_wview_numel(v), 1e-6);
    free(want);
}

static noema_model *open_case(const golden_case *c, const expected *e, noema_dtype dtype)
{
    char path[512], config[512], tok[512];
    noema_model_options o;
    noema_error err = NOEMA_ERROR_INIT;
    noema_model_options_default(&o);
    o.dtype = dtype;
    if (!find(c->model, path))
        return NULL;
    if (c->config)
        assert_non_null(o.config = find(c->config, config));
    if (c->own_config) {
        snprintf(config, sizeof config, "/tmp/noema-test-clip-%ld.json", (long)getpid());
        write_config(e, config);
        o.config = config;
    }
    if (c->tokenizer)
        o.tokenizer = find(c->tokenizer, tok);
    o.image_height = c->image_height;
    o.image_width = c->image_width;
    o.activation = c->activation;
    noema_model *m = NULL;
    ok(noema_model_open(&m, ctx, path, &o, &err), &err);
    assert_non_null(m);
    if (c->own_config)
        unlink(config);
    return m;
}

/* Rows of input_ids as ragged texts, padding included: the model finds the end itself. */
static nm_texts id_rows(const expected *e, int32_t **ids, int64_t **offsets)
{
    const nm_wview *v;
    float *f = tensor(e, "input_ids", &v);
    assert_non_null(f);
    int64_t n = v->shape[0], len = v->shape[1];
    *ids = malloc((size_t)(n * len) * sizeof **ids);
    *offsets = malloc((size_t)(n + 1) * sizeof **offsets);
    for (int64_t i = 0; i < n * len; i++)
        (*ids)[i] = (int32_t)f[i];
    for (int64_t i = 0; i <= n; i++)
        (*offsets)[i] = i * len;
    free(f);
    return (nm_texts){ .n = n, .offsets = *offsets, .ids = *ids, .pad_id = -1 };
}

static void check_texts(noema_session *s, const expected *e, float *embeds)
{
    nm_model *m = noema_model_internal(s->model);
    noema_error err = NOEMA_ERROR_INIT;
    int32_t *ids;
    int64_t *offsets;
    nm_texts t = id_rows(e, &ids, &offsets);
    size_t n = (size_t)t.n, dim = (size_t)m->embed_dim;
    float *features = malloc(n * dim * sizeof *features), *want = tensor(e, "text_features", NULL), *want_embeds = tensor(e, "text_embeds", NULL);
    nm_run *r = nm_session_run(s);
    ok(nm_session_take(s, m->family->encode_text(r, m, &t), t.n, 0, features, &err), &err);
    close_to("text_features", features, want, n * dim, 2 * e->embeds * largest(want, n * dim));
    r = nm_session_run(s);
    ok(nm_session_take(s, m->family->encode_text(r, m, &t), t.n, NOEMA_NORMALIZE, embeds, &err), &err);
    close_to("text_embeds", embeds, want_embeds, n * dim, e->embeds);
    observed o = { .n = 0 };
    r = nm_session_run(s);
    r->observe = observe, r->observe_user = &o;
    float *again = malloc(n * dim * sizeof *again);
    ok(nm_session_take(s, m->family->encode_text(r, m, &t), t.n, 0, again, &err), &err);
    r->observe = NULL;
    close_to("text_features with observer", again, want, n * dim, 2 * e->embeds * largest(want, n * dim));
    compare_depths(&o, e, "text.");
    free_observed(&o);
    free(again), free(features), free(want), free(want_embeds), free(ids), free(offsets);
}

static bool check_pixels(noema_session *s, const expected *e)
{
    const nm_wview *v;
    float *pixels = tensor(e, "pixel_values", &v);
    if (!pixels)
        return false;
    nm_model *m = noema_model_internal(s->model);
    noema_error err = NOEMA_ERROR_INIT;
    size_t n = (size_t)v->shape[0], dim = (size_t)m->embed_dim;
    assert_int_equal(v->shape[2], m->image_height);
    assert_int_equal(v->shape[3], m->image_width);
    float *got = malloc(n * dim * sizeof *got), *want = tensor(e, "image_features", NULL), *want_embeds = tensor(e, "image_embeds", NULL);
    ok(noema_embed_tensors(s, n, pixels, 0, got, &err), &err);
    close_to("image_features", got, want, n * dim, 2 * e->embeds * largest(want, n * dim));
    ok(noema_embed_tensors(s, n, pixels, NOEMA_NORMALIZE, got, &err), &err);
    close_to("image_embeds", got, want_embeds, n * dim, e->embeds);
    observed o = { .n = 0 };
    nm_run *r = nm_session_run(s);
    r->observe = observe, r->observe_user = &o;
    nm_tensor x = nm_view(pixels, NM_F32, NM_SHAPE((int64_t)n, 3, m->image_height, m->image_width));
    ok(nm_session_take(s, m->family->encode_image(r, m, x), (int64_t)n, 0, got, &err), &err);
    r->observe = NULL;
    compare_depths(&o, e, "visual."); /* of as many pictures as there are pixels */
    free_observed(&o);
    free(pixels), free(got), free(want), free(want_embeds);
    return true;
}

/* Drawn tensors, so that image towers are tested without the public pictures too (scripts/gen_clip_pixels.py). */
static void check_own_pixels(const golden_case *c, noema_session *s, const expected *e)
{
    char name[32];
    nm_weights *w;
    noema_error err = NOEMA_ERROR_INIT;
    const nm_model *m = noema_model_internal(s->model);
    snprintf(name, sizeof name, "pixels.%d", m->image_height);
    ok(nm_weights_open(&w, OWN "own_pixels.safetensors", &err), &err);
    expected own = { .w = w, .embeds = e->embeds };
    const nm_wview *v;
    float *want = tensor(&own, c->name, &v);
    if (want) {
        size_t n = (size_t)v->shape[0], dim = (size_t)m->embed_dim;
        float *pixels = tensor(&own, name, NULL), *got = malloc(n * dim * sizeof *got);
        assert_non_null(pixels);
        assert_int_equal(v->shape[1], m->embed_dim);
        ok(noema_embed_tensors(s, n, pixels, NOEMA_NORMALIZE, got, &err), &err);
        close_to("image_embeds of drawn pixels", got, want, n * dim, e->embeds);
        free(pixels), free(got);
    }
    free(want);
    nm_weights_close(w);
}

static void check_logits(const noema_model *model, const expected *e, const float *image, const float *text)
{
    const noema_model_info *info = noema_model_get_info(model);
    const nm_wview *v;
    float *want = tensor(e, "logits_per_image", &v), *probs = tensor(e, "probs", NULL), *sig = tensor(e, "sigmoid_probs", NULL);
    size_t n = (size_t)v->shape[0], k = (size_t)v->shape[1], dim = (size_t)info->embed_dim;
    float *got = malloc(n * k * sizeof *got);
    for (size_t i = 0; i < n * k; i++) {
        double dot = 0;
        for (size_t d = 0; d < dim; d++)
            dot += (double)image[i / k * dim + d] * (double)text[i % k * dim + d];
        got[i] = (float)(info->logit_scale * dot + (info->has_logit_bias ? info->logit_bias : 0));
    }
    close_to("logits_per_image", got, want, n * k, e->logits);
    if (probs) {
        noema_error err = NOEMA_ERROR_INIT;
        ok(noema_classify(n, image, k, text, dim, (float)info->logit_scale, got, &err), &err);
        close_to("probs", got, probs, n * k, e->logits);
    }
    for (size_t i = 0; sig && i < n * k; i++)
        got[i] = 1 / (1 + expf(-got[i]));
    if (sig)
        close_to("sigmoid_probs", got, sig, n * k, e->logits);
    free(want), free(probs), free(sig), free(got);
}

static size_t strings(const json_t *array, const char *list[64])
{
    size_t n = json_array_size(array);
    for (size_t i = 0; i < n && i < 64; i++)
        list[i] = json_string_value(json_array_get(array, i));
    return n;
}

/* From files and strings to probabilities, through the public interface alone. */
static void check_end_to_end(const golden_case *c, noema_session *s, const expected *e, bool have_tok)
{
    const char *names[64], *texts[64], *labels[64], *templates[64];
    char path[64][512];
    const char *paths[64];
    noema_error err = NOEMA_ERROR_INIT;
    size_t dim = (size_t)noema_model_get_info(s->model)->embed_dim;
    size_t n = strings(nm_json_get(e->json, "images"), names), k = strings(nm_json_get(e->json, "texts"), texts);
    size_t l = strings(nm_json_get(e->json, "classes"), labels), t = strings(nm_json_get(e->json, "templates"), templates);
    for (size_t i = 0; i < n; i++) {
        snprintf(path[i], sizeof path[i], "%s%s", IMAGES, names[i]);
        paths[i] = path[i];
    }
    float *image = malloc(n * dim * sizeof *image), *text = malloc(k * dim * sizeof *text), *want = tensor(e, "text_embeds", NULL);
    if (have_tok) {
        ok(noema_embed_texts(s, k, texts, NULL, NOEMA_NORMALIZE, text, &err), &err);
        close_to("text_embeds of strings", text, want, k * dim, e->embeds);
    } else
        memcpy(text, want, k * dim * sizeof *text);
    free(want);
    if (!c->six_images) {
        free(image), free(text);
        return;
    }
    ok(noema_embed_image_files(s, n, paths, NOEMA_NORMALIZE, image, NULL, &err), &err);
    want = tensor(e, "image_embeds", NULL);
    close_to("image_embeds of files", image, want, n * dim, e->embeds);
    free(want);
    check_logits(s->model, e, image, text);
    float *zw = tensor(e, "zeroshot_weights", NULL), *zp = tensor(e, "zeroshot_probs", NULL);
    if (have_tok && zw && zp) {
        float *cls = malloc(l * dim * sizeof *cls), *probs = malloc(n * l * sizeof *probs), *wt = malloc(l * dim * sizeof *wt);
        ok(noema_class_vectors(s, l, labels, t, templates, cls, &err), &err);
        for (size_t i = 0; i < l * dim; i++)
            wt[i] = zw[i % dim * l + i / dim]; /* stored [E, K] */
        close_to("zeroshot_weights", cls, wt, l * dim, e->embeds);
        ok(noema_classify(n, image, l, cls, dim, 100, probs, &err), &err);
        close_to("zeroshot_probs", probs, zp, n * l, 5e-4); /* 100 * 1e-5 of a cosine */
        free(cls), free(probs), free(wt);
    }
    free(zw), free(zp), free(image), free(text);
}

/* CoCa: greedy ids of the reference against the caption of the picture files. */
static void check_captions(noema_session *s, const expected *e)
{
    const json_t *greedy = nm_json_get(e->json, "greedy_token_ids");
    noema_error err = NOEMA_ERROR_INIT;
    const nm_tokenizer *t = nm_model_tokenizer(s->model, &err);
    noema_generate_options o;
    noema_generate_options_default(&o);
    o.beams = 1;
    o.max_new = 12;
    for (size_t i = 0; i < json_array_size(greedy); i++) {
        char path[512], *want = NULL;
        int32_t ids[32];
        size_t n = json_array_size(json_array_get(greedy, i));
        for (size_t k = 0; k < n && k < 32; k++)
            ids[k] = (int32_t)json_integer_value(json_array_get(json_array_get(greedy, i), k));
        snprintf(path, sizeof path, "%s%s", IMAGES, json_string_value(json_array_get(nm_json_get(e->json, "images"), i)));
        noema_picture p = { .path = path };
        noema_generated g = { 0 };
        ok(noema_caption(s, 1, &p, &o, &g, NULL, &err), &err);
        assert_non_null(t);
        ok(nm_session_decode(s, ids, (int64_t)n, &want, &err), &err);
        nm_trim_text(want, 0);
        assert_string_equal(g.text, want);
        free(want);
        noema_generated_free(&g, 1);
    }
}

static void run_case(const golden_case *c)
{
    expected e;
    if (!load_expected(&e, c->name)) {
        print_message("SKIPPED %s: no expected values (shared folder absent)\n", c->name);
        skip();
    }
    noema_model *model = open_case(c, &e, NOEMA_DTYPE_F32);
    if (!model) {
        free_expected(&e);
        print_message("SKIPPED %s: %s is not here (shared folder absent)\n", c->name, c->model);
        skip();
    }
    noema_error err = NOEMA_ERROR_INIT;
    noema_session *s = NULL;
    ok(noema_session_create(&s, model, &err), &err);
    worst = worst_unit = 0;
    const noema_model_info *info = noema_model_get_info(model);
    check_positions(model, &e);
    float *text = malloc(64 * (size_t)info->embed_dim * sizeof *text);
    check_texts(s, &e, text);
    check_own_pixels(c, s, &e);
    if (!check_pixels(s, &e))
        print_message("%s: no pixel_values here: image tower by files only\n", c->name);
    noema_error tok = NOEMA_ERROR_INIT;
    bool have_tok = s->model->tokenizer_path && nm_model_tokenizer(s->model, &tok);
    ok(tok.code, &tok);
    if (nm_dir_exists(IMAGES)) {
        check_end_to_end(c, s, &e, have_tok);
        if (have_tok && noema_model_tasks(model) & NOEMA_TASK_CAPTION)
            check_captions(s, &e);
    } else
        print_message("SKIPPED %s: strings and picture files (shared folder absent)\n", c->name);
    print_message("%-26s worst difference %.2g, of unit vectors %.2g\n", c->name, worst, worst_unit);
    free(text);
    noema_session_free(s);
    noema_model_free(model);
    free_expected(&e);
}

#define VIT_CFG "openclip_vit.config.json"
static const golden_case cases[] = {
    { .name = "openai_vit", .model = "openai_vit.pt", .tokenizer = "bpe_tiny.txt.gz", .six_images = true },
    { .name = "openai_vit_fullvocab", .model = "openai_vit_fullvocab.pt", .tokenizer = "../tokenizers/bpe_simple_vocab_16e6.txt.gz", .six_images = true },
    { .name = "openai_rn", .model = "openai_rn.pt", .tokenizer = "bpe_tiny.txt.gz", .six_images = true },
    { .name = "openai_rn", .model = "openai_rn_state_dict.pt", .tokenizer = "bpe_tiny.txt.gz", .six_images = true },
    { .name = "openclip_vit", .model = "openclip_vit.safetensors", .config = VIT_CFG, .tokenizer = "bpe_tiny.txt.gz", .six_images = true },
    { .name = "openclip_vit", .model = "openclip_vit_train.pt", .config = VIT_CFG, .tokenizer = "bpe_tiny.txt.gz", .six_images = true },
    { .name = "openclip_vit_gelu", .model = "openclip_vit.safetensors", .config = VIT_CFG, .tokenizer = "bpe_tiny.txt.gz", .six_images = true, .activation = 2 },
    { .name = "openclip_vit_pos_24x24", .model = "openclip_vit.safetensors", .own_config = true, .tokenizer = "bpe_tiny.txt.gz", .six_images = true },
    { .name = "openclip_vit_pos_32x56", .model = "openclip_vit.safetensors", .own_config = true, .tokenizer = "bpe_tiny.txt.gz", .six_images = true },
    { .name = "openclip_vit_pos_48x48", .model = "openclip_vit.safetensors", .own_config = true, .tokenizer = "bpe_tiny.txt.gz", .six_images = true },
    { .name = "openclip_vit_textctx50", .model = "openclip_vit.safetensors", .own_config = true, .tokenizer = "bpe_tiny.txt.gz", .six_images = true },
    { .name = "hf_clip", .model = "hf_clip", .six_images = true },
    { .name = "hf_clip_bf16", .model = "hf_clip_bf16", .tokenizer = "hf_clip", .six_images = true },
    { .name = "hf_clip_interpolated_56", .model = "hf_clip", .six_images = true, .image_height = 56, .image_width = 56 },
    { .name = "siglip_openclip", .model = "siglip_openclip.safetensors", .config = "siglip_openclip.config.json",
      .tokenizer = "../tokenizers/t5.tokenizer.json", .six_images = true },
    { .name = "hf_siglip", .model = "hf_siglip", .tokenizer = "../tokenizers/t5.tokenizer.json" }, /* pictures: transformers 4 */
    { .name = "openclip_xlmr", .model = "openclip_xlmr.bin", .config = "openclip_xlmr.config.json", .tokenizer = "../tokenizers/xlmr.tokenizer.json",
      .six_images = true },
    { .name = "coca", .model = "coca.safetensors", .config = "coca.config.json", .tokenizer = "bpe_tiny.txt.gz", .six_images = true },
};

static void test_case(void **state) { run_case(*state); }

int main(void)
{
    enum { N = sizeof cases / sizeof *cases };
    struct CMUnitTest tests[N];
    for (int i = 0; i < N; i++)
        tests[i] = (struct CMUnitTest){ .name = cases[i].model, .test_func = test_case, .initial_state = (void *)(uintptr_t)&cases[i] };
    return cmocka_run_group_tests(tests, setup, teardown);
}
