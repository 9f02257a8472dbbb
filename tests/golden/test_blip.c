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
#include "generate/blip_tasks.h"
#include "models/blip.h"
#include "observed.h"

#define OWN NOEMA_SOURCE_DIR "/tests/golden/blip/"
#define SHARED NOEMA_SHARED_DIR "/golden/blip/"

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

static void load(expected *e, const char *name) { load_expected(e, OWN, name, name); }

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

/* ---- captions ---- */

static int64_t ids_of(const json_t *list, int32_t *ids)
{
    size_t n = json_array_size(list);
    assert_true(n > 0 && n <= 64);
    for (size_t i = 0; i < n; i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(list, i));
    return (int64_t)n;
}

/* got (with the end id where it ended) equals the stored row, which may go on with filler after its end. */
static void same_ids(const char *what, const nm_hypothesis *got, const json_t *list, int32_t eos, int64_t prompt)
{
    int32_t want[64];
    int64_t n = ids_of(list, want), length = got->n + got->ended;
    assert_true(length <= n);
    for (int64_t i = 0; i < length; i++)
        if ((i < got->n ? got->ids[i] : eos) != want[i])
            fail_msg("%s: id %lld: got %d, expected %d", what, (long long)i, i < got->n ? got->ids[i] : eos, want[i]);
    for (int64_t i = length; i < n; i++)
        assert_true(got->ended && i >= prompt && (want[i] == 0 || want[i] == eos));
}

/* Every finished text in order. */
typedef struct trace { const json_t *list; size_t at; } trace;

static void on_finished(void *user, int64_t item, const nm_hypothesis *h, bool stored, double worst_score)
{
    trace *t = user;
    const json_t *w = json_array_get(t->list, t->at++);
    int32_t want[64];
    (void)item;
    assert_non_null(w);
    assert_int_equal(h->n, ids_of(nm_json_get(w, "ids"), want));
    assert_memory_equal(h->ids, want, (size_t)h->n * sizeof *want);
    assert_int_equal(stored, nm_json_bool(w, "stored", false));
    assert_int_equal(!h->ended, nm_json_bool(w, "from_max_length", false));
    double sum = nm_json_num(w, "sum_logprob", 0), score = nm_json_num(w, "score", 0), worst = nm_json_num(w, "worst_score_after", 0);
    double factor = sum < 0 && score / sum > 1 ? score / sum : 1; /* a length penalty below 0 multiplies the sum, and its error */
    assert_true(fabs(h->sum - sum) < 2e-4 && fabs(h->score - score) < 2e-4 * factor);
    assert_true(fabs(worst_score - worst) < 2e-4 * (sum < 0 && worst / sum > 1 ? worst / sum : 1));
}

static nm_rules rules_of(const json_t *o, int release)
{
    return (nm_rules){ .beams = (int)nm_json_int(o, "num_beams", 1), .max_length = nm_json_int(o, "max_length", 20), .min_length = nm_json_int(o, "min_length", 0),
                       .max_new = nm_json_int(o, "max_new_tokens", -1), .min_new = -1, .repetition_penalty = nm_json_num(o, "repetition_penalty", 1),
                       .length_penalty = nm_json_num(o, "length_penalty", 1), .early_stopping = nm_json_bool(o, "early_stopping", false),
                       .n_best = (int)nm_json_int(o, "num_return_sequences", 1), .release = release, .eos = 102, .temperature = 1, .top_p = 1 };
}

/* The pictures of a model as tensors, in order. */
static float *all_pixels(model *m, int n)
{
    size_t floats = 3 * (size_t)m->b->base.image_height * (size_t)m->b->base.image_width;
    float *p = malloc((size_t)n * floats * sizeof *p);
    nm_preprocess_scratch *s = nm_preprocess_scratch_new();
    for (int i = 0; i < n; i++) {
        char path[512];
        const nm_image *im;
        snprintf(path, sizeof path, "%simages/image%d.png", OWN, i);
        ok(nm_preprocess_load(&m->b->base.preprocess, s, path, NULL, &im, &err));
        ok(nm_preprocess_run(&m->b->base.preprocess, s, im, p + (size_t)i * floats, &err));
    }
    nm_preprocess_scratch_free(s);
    return p;
}

/* Texts of pictures [first, first + n) in one call. */
static void captions_of(model *m, float *pixels, int first, int n, const int32_t *prompt, int64_t length, const nm_rules *rules, nm_generation *out)
{
    size_t floats = 3 * (size_t)m->b->base.image_height * (size_t)m->b->base.image_width;
    nm_run *r = nm_session_run(m->s);
    nm_tensor states = nm_blip_image_states(r, m->b, pixels_of(m, pixels + (size_t)first * floats, n));
    int32_t prompts[64];
    int64_t offsets[9], keys[9];
    for (int i = 0; i <= n; i++) {
        offsets[i] = i * length;
        keys[i] = i * states.shape[1];
    }
    for (int64_t i = 0; i < n * length; i++)
        prompts[i] = prompt[i % length];
    ok(nm_blip_generate(m->s, nm_flatten(states, 2), keys, n, prompts, offsets, rules, out, &err));
}

static void caption_runs(const expected *e, model *m, float *pixels, const int32_t *prompt, int64_t length)
{
    const json_t *runs = nm_json_get(e->json, "runs"), *run, *one;
    size_t i, k;
    json_array_foreach(runs, i, run) {
        nm_rules rules = rules_of(nm_json_get(run, "settings"), NM_RELEASE_4_15);
        const json_t *images = nm_json_get(run, "per_image");
        nm_generation all[4];
        rules.n_best = 1;
        captions_of(m, pixels, 0, 4, prompt, length, &rules, all); /* together, then one by one: the same */
        json_array_foreach(images, k, one) {
            nm_generation g;
            trace t = { .list = nm_json_get(one, "all_finished") };
            rules.finished = t.list ? on_finished : NULL;
            rules.finished_user = &t;
            rules.n_best = rules.beams;
            captions_of(m, pixels, (int)k, 1, prompt, length, &rules, &g);
            rules.n_best = 1;
            if (t.list)
                assert_int_equal(t.at, json_array_size(t.list));
            same_ids("caption", &g.best[0], nm_json_get(one, "ids"), 102, length);
            same_ids("in a batch", &all[k].best[0], nm_json_get(one, "ids"), 102, length);
            const json_t *best = nm_json_get(one, "final_hypotheses"), *h;
            size_t b;
            json_array_foreach(best, b, h) {
                assert_true((int)b < g.n);
                assert_true(fabs(g.best[b].score - nm_json_num(h, "score", 0)) < 2e-4);
            }
            nm_generation_free(&g, 1);
        }
        rules.finished = NULL;
        nm_generation_free(all, 4);
    }
}

/* Raw logits, the set that is drawn from and its probabilities along a given path. */
static void nucleus_path(const json_t *path, const nm_blip *m, nm_run *r, nm_tensor states)
{
    const json_t *steps = nm_json_get(path, "steps"), *step, *pair;
    int64_t keys[2] = { 0, states.shape[1] };
    size_t i, k;
    json_array_foreach(steps, i, step) {
        nm_med_cache cache;
        int32_t prefix[64], set[64];
        float probs[64];
        int64_t n = ids_of(nm_json_get(step, "prefix"), prefix), offsets[2] = { 0, n }, last = n - 1, vocab = m->cfg.decoder.vocab_size;
        nm_arena_mark mark = nm_mark(r);
        assert_true(nm_med_cache_init(r, &cache, &m->decoder, &m->cfg.decoder, nm_flatten(states, 2), keys, 1, 1, 64));
        nm_tensor x = nm_med_step(r, &cache, 1, NULL, prefix, offsets);
        nm_tensor logits = nm_med_logits(r, &m->lm, &m->cfg.decoder, nm_gather_rows(r, x, &last, 1));
        float *v = logits.data;
        json_array_foreach(nm_json_get(step, "raw_top"), k, pair)
            assert_true(fabs((double)v[json_integer_value(json_array_get(pair, 0))] - json_number_value(json_array_get(pair, 1))) < 2e-4);
        nm_penalise(v, vocab, prefix, n, nm_json_num(path, "repetition_penalty", 1));
        if (n < nm_json_int(path, "min_length", 0))
            v[102] = -INFINITY;
        int64_t kept = nm_sample_set(v, vocab, 1, nm_json_int(path, "top_k", 50), nm_json_num(path, "top_p", 1), set, probs);
        const json_t *ids = nm_json_get(step, "kept_ids"), *p = nm_json_get(step, "kept_prob");
        assert_int_equal(kept, json_array_size(ids));
        for (int64_t j = 0; j < kept; j++) {
            assert_int_equal(set[j], json_integer_value(json_array_get(ids, (size_t)j)));
            assert_true(fabs((double)probs[j] - json_number_value(json_array_get(p, (size_t)j))) < 1e-4);
        }
        nm_reset(r, mark);
    }
}

static void test_captions(void **state)
{
    (void)state;
    expected e;
    load(&e, "caption_resized");
    model m = open_model(own("model_pretrain.pth"), nm_json_get(e.json, "arch"), NULL, 80);
    float *pixels = all_pixels(&m, 4), *want = values(&e, "pixel_values");
    near("pixels", pixels, want, 3 * 80 * 80, 1e-6);
    free(want);
    int32_t prompt[64];
    int64_t length = ids_of(nm_json_get(e.json, "start_ids"), prompt);
    caption_runs(&e, &m, pixels, prompt, length);

    const json_t *variant, *nucleus;
    size_t i;
    json_array_foreach(nm_json_get(e.json, "beam_variants"), i, variant) {
        nm_rules rules = rules_of(variant, NM_RELEASE_4_15);
        trace t = { .list = nm_json_get(variant, "all_finished") };
        nm_generation g;
        rules.finished = on_finished;
        rules.finished_user = &t;
        captions_of(&m, pixels, (int)nm_json_int(variant, "image", 0), 1, prompt, length, &rules, &g);
        assert_int_equal(t.at, json_array_size(t.list));
        const json_t *sequences = nm_json_get(variant, "sequences"), *scores = nm_json_get(variant, "scores");
        assert_int_equal(g.n, json_array_size(sequences));
        for (int k = 0; k < g.n; k++) {
            same_ids("variant", &g.best[k], json_array_get(sequences, (size_t)k), 102, length);
            assert_true(fabs(g.best[k].score - json_number_value(json_array_get(scores, (size_t)k))) < 2e-4);
        }
        nm_generation_free(&g, 1);
    }
    nm_run *r = nm_session_run(m.s);
    nm_tensor states = nm_blip_image_states(r, m.b, pixels_of(&m, pixels, 4));
    json_array_foreach(nm_json_get(e.json, "nucleus"), i, nucleus) {
        int64_t at = nm_json_int(nucleus, "image", 0);
        nucleus_path(nucleus, m.b, r, nm_rows(states, at, at + 1));
    }
    free(pixels);
    close_model(&m);
    unload(&e);
}

/* The decoder over a whole text at once and id by id: the same states and logits. */
static void test_teacher_forced(void **state)
{
    (void)state;
    expected e;
    load(&e, "caption_resized");
    model m = open_model(own("model_pretrain.pth"), nm_json_get(e.json, "arch"), NULL, 80);
    float *pixels = values(&e, "pixel_values"), *want = values(&e, "teacher_forced_image0.logits");
    nm_texts text = texts_of(&e, "teacher_forced_image0.input_ids", NULL);
    observed o = { .n = 0 };
    nm_run *r = nm_session_run(m.s);
    nm_tensor states = nm_blip_image_states(r, m.b, pixels_of(&m, pixels, 1));
    int64_t keys[2] = { 0, states.shape[1] }, one[2] = { 0, 1 }, zero = 0, n = text.offsets[1], vocab = m.b->cfg.decoder.vocab_size;
    nm_med_cache cache;
    assert_true(nm_med_cache_init(r, &cache, &m.b->decoder, &m.b->cfg.decoder, nm_flatten(states, 2), keys, 1, 1, 32));
    r->observe = observe;
    r->observe_user = &o;
    nm_tensor x = nm_med_step(r, &cache, 1, NULL, text.ids, text.offsets);
    r->observe = NULL;
    assert_int_equal(compare_depths(&o, &e, "teacher_forced_image0.", "", NULL), 7);
    near("logits", nm_med_logits(r, &m.b->lm, &m.b->cfg.decoder, x).data, want, (size_t)(n * vocab), 2e-4);
    for (int64_t i = 0; i < n; i++) {
        nm_tensor y = nm_med_step(r, &cache, 1, i ? &zero : NULL, text.ids + i, one);
        near("step", nm_med_logits(r, &m.b->lm, &m.b->cfg.decoder, y).data, want + i * vocab, (size_t)vocab, 2e-4);
    }
    assert_true(nm_run_ok(r));
    free(pixels), free(want);
    forget(&o);
    free_texts(&text);
    close_model(&m);
    unload(&e);
}

static void check_texts(model *m, const noema_generate_options *o, const json_t *images, const char *key)
{
    const json_t *one;
    size_t i;
    json_array_foreach(images, i, one) {
        char path[512];
        noema_picture p = { .path = path };
        noema_generated g;
        snprintf(path, sizeof path, "%simages/image%d.png", OWN, (int)i);
        ok(noema_caption(m->s, 1, &p, o, &g, NULL, &err));
        assert_string_equal(g.text, nm_json_str(one, key, ""));
        noema_generated_free(&g, 1);
    }
}

/* With the authors' vocabulary: true ids, and texts with the prompt cut off. */
static void test_real_vocabulary(void **state)
{
    (void)state;
    const char *vocab = shared("vocab.txt"), *file = shared("model_caption.pth"), *json = shared("caption_realvocab.json"), *wanted = shared("caption_realvocab.safetensors");
    if (!vocab || !file || !json || !wanted)
        return;
    expected e = { .json = nm_json_load(json, &err) };
    assert_non_null(e.json);
    ok(nm_weights_open(&e.w, wanted, &err));
    model m = open_model(file, nm_json_get(e.json, "arch"), vocab, 0);
    float *pixels = all_pixels(&m, 4), *want;
    int32_t prompt[64];
    int64_t length = ids_of(nm_json_get(e.json, "start_ids"), prompt);
    caption_runs(&e, &m, pixels, prompt, length);
    const json_t *run, *nucleus;
    size_t i;
    json_array_foreach(nm_json_get(e.json, "runs"), i, run) {
        nm_rules rules = rules_of(nm_json_get(run, "settings"), 415);
        noema_generate_options o;
        noema_generate_options_default(&o);
        o.beams = rules.beams;
        o.max_length = (int)rules.max_length;
        o.min_length = (int)rules.min_length;
        o.repetition_penalty = rules.repetition_penalty;
        check_texts(&m, &o, nm_json_get(run, "per_image"), "caption");
    }
    nm_run *r = nm_session_run(m.s);
    nm_tensor states = nm_blip_image_states(r, m.b, pixels_of(&m, pixels, 4));
    near("image_embeds", states.data, want = values(&e, "image_embeds"), 2 * 5 * 20, 1e-4), free(want);
    json_array_foreach(nm_json_get(e.json, "nucleus"), i, nucleus) {
        int64_t at = nm_json_int(nucleus, "image", 0);
        nucleus_path(nucleus, m.b, r, nm_rows(states, at, at + 1));
    }
    /* teacher forcing, two texts of different lengths */
    nm_texts text = texts_of(&e, "teacher.input_ids", "teacher.attention_mask");
    nm_med_rows l;
    assert_true(nm_med_layout(r, &l, &text, -1, 0));
    int64_t keys[3] = { 0, 5, 10 }, stored = view(&e, "teacher.input_ids")->shape[1], vocab_size = m.b->cfg.decoder.vocab_size;
    nm_med_context context = { .states = nm_flatten(nm_rows(states, 0, 2), 2), .n = 2, .q_offsets = l.offsets, .k_offsets = keys };
    nm_tensor logits = nm_med_logits(r, &m.b->lm, &m.b->cfg.decoder, nm_med_forward(r, &m.b->decoder, &m.b->cfg.decoder, &l, true, &context));
    float *ids = values(&e, "teacher.top64_ids"), *top = values(&e, "teacher.top64_logits"), *lse = values(&e, "teacher.logsumexp");
    assert_non_null(logits.data);
    for (int64_t t = 0; t < 2; t++)
        for (int64_t j = 0; j < l.offsets[t + 1] - l.offsets[t]; j++) {
            const float *v = (const float *)logits.data + (l.offsets[t] + j) * vocab_size;
            double sum = 0;
            for (int64_t k = 0; k < vocab_size; k++)
                sum += exp((double)v[k]);
            assert_true(fabs(log(sum) - (double)lse[t * stored + j]) < 2e-4);
            for (int k = 0; k < 64; k++)
                near("teacher", &v[(int)ids[(t * stored + j) * 64 + k]], &top[(t * stored + j) * 64 + k], 1, 2e-4);
        }
    free(ids), free(top), free(lse), free(pixels);
    free_texts(&text);
    close_model(&m);
    unload(&e);
}

/* Sampling: the same seed gives the same text, alone and among others; other seeds give others. */
static void test_sampling(void **state)
{
    (void)state;
    expected e;
    load(&e, "caption_resized");
    model m = open_model(own("model_pretrain.pth"), nm_json_get(e.json, "arch"), NULL, 80);
    float *pixels = all_pixels(&m, 4);
    int32_t prompt[64];
    int64_t length = ids_of(nm_json_get(e.json, "start_ids"), prompt);
    nm_rules rules = { .beams = 1, .sample = true, .temperature = 1, .top_k = 50, .top_p = 0.9, .seed = 7, .max_length = 20, .min_length = 5, .max_new = -1,
                       .min_new = -1, .repetition_penalty = 1.1, .length_penalty = 1, .n_best = 3, .release = 415, .eos = 102 };
    nm_generation all[4], one;
    int different = 0;
    captions_of(&m, pixels, 0, 4, prompt, length, &rules, all);
    for (int i = 0; i < 4; i++) {
        captions_of(&m, pixels, i, 1, prompt, length, &rules, &one);
        assert_int_equal(one.n, 3);
        for (int k = 0; k < 3; k++) {
            assert_int_equal(one.best[k].n, all[i].best[k].n);
            assert_memory_equal(one.best[k].ids, all[i].best[k].ids, (size_t)one.best[k].n * sizeof(int32_t));
            assert_true(one.best[k].n + one.best[k].ended >= 5 && one.best[k].n <= 20);
        }
        different += one.best[0].n != one.best[1].n || memcmp(one.best[0].ids, one.best[1].ids, (size_t)one.best[0].n * sizeof(int32_t)) != 0;
        nm_generation_free(&one, 1);
    }
    assert_true(different > 0);
    nm_generation_free(all, 4);
    free(pixels);
    close_model(&m);
    unload(&e);
}

/* ---- questions ---- */

static void picture_path(char path[512], int i) { snprintf(path, 512, "%simages/image%d.png", OWN, i); }

static void test_vqa(void **state)
{
    (void)state;
    const char *vocab = shared("tiny_vocab.txt");
    expected e;
    load(&e, "vqa");
    model m = open_model(own("model_vqa.pth"), nm_json_get(e.json, "arch"), vocab, 0);
    float *pixels = all_pixels(&m, 4), *want;
    nm_texts q = texts_of(&e, "question_ids", "question_mask");
    nm_run *r = nm_session_run(m.s);
    nm_med_rows l;
    nm_tensor images = nm_blip_image_states(r, m.b, pixels_of(&m, pixels, 4)), states = nm_blip_questions(r, m.b, images, &q, -1, &l);
    near("image_embeds", images.data, want = values(&e, "image_embeds"), 4 * 10 * 24, 1e-4), free(want);
    want = values(&e, "question_states");
    for (int i = 0; i < 4; i++)
        near("question_states", (const float *)states.data + l.offsets[i] * 32, want + i * 14 * 32, (size_t)(l.offsets[i + 1] - l.offsets[i]) * 32, 1e-4);
    free(want);

    const json_t *generate = nm_json_get(e.json, "generate"), *one;
    nm_rules rules = rules_of(nm_json_get(generate, "settings"), NM_RELEASE_4_15);
    nm_generation g[4];
    int32_t start[4] = { 401, 401, 401, 401 };
    int64_t offsets[5] = { 0, 1, 2, 3, 4 };
    size_t i;
    rules.n_best = 3;
    ok(nm_blip_generate(m.s, states, l.offsets, 4, start, offsets, &rules, g, &err));
    json_array_foreach(nm_json_get(generate, "single"), i, one) { /* four questions together: each as if alone */
        const json_t *finals = nm_json_get(one, "final_hypotheses"), *h;
        size_t k;
        same_ids("answer", &g[i].best[0], nm_json_get(one, "ids"), 102, 1);
        assert_true(fabs(g[i].best[0].score - nm_json_num(one, "score", 0)) < 2e-4);
        json_array_foreach(finals, k, h) {
            same_ids("hypothesis", &(nm_hypothesis){ .ids = g[i].best[k].ids, .n = g[i].best[k].n }, nm_json_get(h, "ids"), 102, 1);
            assert_true(fabs(g[i].best[k].score - nm_json_num(h, "score", 0)) < 2e-4);
        }
    }
    nm_generation_free(g, 4);

    if (vocab) {
        const json_t *questions = nm_json_get(e.json, "questions"), *rank = nm_json_get(e.json, "rank"), *list = nm_json_get(rank, "answer_list"), *run;
        const char *answers[32], *question[4];
        char path[4][512];
        noema_picture p[4] = { { 0 } };
        noema_generated out[4];
        noema_generate_options o;
        noema_generate_options_default(&o);
        for (int k = 0; k < 4; k++) {
            picture_path(path[k], k);
            p[k].path = path[k];
            question[k] = json_string_value(json_array_get(questions, (size_t)k));
        }
        ok(noema_ask(m.s, 4, p, question, &o, out, NULL, &err));
        json_array_foreach(nm_json_get(generate, "single"), i, one)
            assert_string_equal(out[i].text, nm_json_str(one, "answer", ""));
        noema_generated_free(out, 4);
        o.answers = answers;
        for (size_t k = 0; k < json_array_size(list); k++)
            answers[o.n_answers++] = json_string_value(json_array_get(list, k));
        json_array_foreach(nm_json_get(rank, "runs"), i, run) {
            o.candidates = (int)nm_json_int(run, "k", 0);
            ok(noema_ask(m.s, 4, p, question, &o, out, NULL, &err));
            for (size_t k = 0; k < 4; k++) {
                const json_t *top = json_array_get(nm_json_get(run, "topk_index"), k), *sums = json_array_get(nm_json_get(run, "log_prob_sum"), k);
                assert_string_equal(out[k].text, json_string_value(json_array_get(nm_json_get(run, "best"), k)));
                assert_int_equal(out[k].n_best, json_array_size(top));
                for (size_t a = 0; a < json_array_size(top); a++) {
                    const char *name = answers[json_integer_value(json_array_get(top, a))];
                    bool found = false;
                    for (size_t b = 0; b < out[k].n_best; b++)
                        if (strcmp(out[k].best[b].text, name) == 0) {
                            found = true;
                            assert_true(fabs((double)out[k].best[b].score - json_number_value(json_array_get(sums, a))) < 5e-4);
                        }
                    assert_true(found);
                }
                for (size_t b = 1; b < out[k].n_best; b++)
                    assert_true(out[k].best[b - 1].score >= out[k].best[b].score);
            }
            noema_generated_free(out, 4);
        }
    }
    free(pixels);
    free_texts(&q);
    close_model(&m);
    unload(&e);
}

/* ---- two pictures ---- */

static void test_nlvr(void **state)
{
    (void)state;
    const char *vocab = shared("tiny_vocab.txt");
    if (!vocab)
        return;
    expected e;
    load(&e, "nlvr");
    model m = open_model(own("model_nlvr.pth"), nm_json_get(e.json, "arch"), vocab, 0);
    assert_true(m.b->cfg.nlvr && m.b->cfg.encoder.merge_from == 6);
    const json_t *pair;
    float *logits = values(&e, "logits"), *swapped = values(&e, "logits_images_swapped"), *pixels = all_pixels(&m, 4);
    size_t i;
    json_array_foreach(nm_json_get(e.json, "pairs"), i, pair) {
        const char *text = nm_json_str(pair, "text", "");
        char path[2][512];
        noema_picture p[2] = { { 0 } }, turned[2];
        noema_match_options mo = { .struct_size = sizeof mo };
        float score, prob;
        for (int k = 0; k < 2; k++) {
            snprintf(path[k], sizeof path[k], "%simages/%s", OWN, nm_json_str(pair, k ? "image1" : "image0", ""));
            p[k].path = turned[1 - k].path = path[k];
            turned[1 - k].pixels = NULL, turned[1 - k].tensor = NULL;
        }
        ok(noema_match_pictures(m.s, 2, p, 1, &text, NULL, &mo, &score, &prob, NULL, &err));
        near("logit", &score, &logits[2 * i + 1], 1, 1e-4);
        float expect = 1 / (1 + expf(logits[2 * i] - logits[2 * i + 1]));
        near("probability", &prob, &expect, 1, 2e-5);
        ok(noema_match_pictures(m.s, 2, turned, 1, &text, NULL, &mo, &score, &prob, NULL, &err));
        near("logit, swapped", &score, &swapped[2 * i + 1], 1, 1e-4);
    }
    /* every layer, for the first pair: pictures 0 and 2 */
    observed o = { .n = 0 };
    nm_texts text;
    const char *words[2];
    json_array_foreach(nm_json_get(e.json, "pairs"), i, pair)
        words[i] = nm_json_str(pair, "text", "");
    ok(nm_session_tokenize(m.s, 1, words, NULL, &text, &err));
    nm_run *r = nm_session_run(m.s);
    size_t floats = 3 * 32 * 32;
    memmove(pixels + floats, pixels + 2 * floats, floats * sizeof *pixels);
    nm_tensor states = nm_blip_image_states(r, m.b, pixels_of(&m, pixels, 2));
    r->observe = observe;
    r->observe_user = &o;
    nm_tensor out = nm_blip_nlvr(r, m.b, states, &text, 402);
    r->observe = NULL;
    near("logits", out.data, logits, 2, 1e-4);
    int seen_layers = 0;
    for (size_t k = 0; k < nm_weights_count(e.w); k++) {
        const nm_wview *v = nm_weights_at(e.w, k);
        char name[128];
        if (strncmp(v->name, "text.", 5) != 0)
            continue;
        snprintf(name, sizeof name, "multimodal.%s", v->name + 5);
        float *want = values(&e, v->name);
        near(name, find_seen(&o, name)->data, want, (size_t)(text.offsets[1] * 16), 1e-4); /* the first pair's rows, without padding */
        free(want);
        seen_layers++;
    }
    assert_int_equal(seen_layers, 25);
    free(logits), free(swapped), free(pixels);
    forget(&o);
    close_model(&m);
    unload(&e);
}

/* ---- folders in Hugging Face layout ---- */

static bool load_shared(expected *e, const char *name)
{
    const char *folder = shared(name);
    if (!folder)
        return false;
    load(e, name);
    return true;
}

/* vision.embeddings, vision.layer.i (block.i here), vision.last_hidden_state; all pictures. */
static void hf_vision(model *m, const expected *e, float *pixels)
{
    static const char *const names[][2] = { { "vision.embeddings", "vision.embeddings" }, { "vision.layer.0", "vision.block.0" },
                                            { "vision.layer.1", "vision.block.1" }, { "vision.last_hidden_state", "vision.final_norm" } };
    observed o = { .n = 0 };
    nm_run *r = nm_session_run(m->s);
    r->observe = observe;
    r->observe_user = &o;
    nm_tensor states = nm_blip_image_states(r, m->b, pixels_of(m, pixels, 4));
    r->observe = NULL;
    for (int i = 0; i < 4; i++) {
        float *want = values(e, names[i][0]);
        near(names[i][0], find_seen(&o, names[i][1])->data, want, (size_t)nm_wview_numel(view(e, names[i][0])), 1e-4);
        free(want);
    }
    assert_non_null(states.data);
    forget(&o);
}

static void test_hf_caption(void **state)
{
    (void)state;
    expected e;
    if (!load_shared(&e, "hf_caption"))
        return;
    model m = open_model(shared("hf_caption"), NULL, NULL, 0);
    float *pixels = all_pixels(&m, 4), *want = values(&e, "pixel_values");
    near("pixels", pixels, want, 3 * 48 * 48, 1e-6);
    free(want);
    hf_vision(&m, &e, pixels);
    const json_t *run, *one;
    size_t i, k;
    json_array_foreach(nm_json_get(e.json, "runs"), i, run) {
        const char *prompt = nm_json_str(run, "prompt", NULL);
        int32_t start[64];
        int64_t length = ids_of(nm_json_get(e.json, prompt ? "start_ids_with_prompt" : "start_ids_without_prompt"), start);
        nm_rules rules = rules_of(nm_json_get(run, "settings"), NM_RELEASE_5);
        noema_generate_options o;
        noema_generate_options_default(&o);
        o.prompt = prompt;
        o.beams = rules.beams;
        o.max_length = (int)rules.max_length;
        o.min_length = (int)rules.min_length;
        o.length_penalty = rules.length_penalty;
        o.repetition_penalty = rules.repetition_penalty;
        o.early_stopping = rules.early_stopping;
        o.max_new = (int)rules.max_new;
        json_array_foreach(nm_json_get(run, "per_image"), k, one) {
            const json_t *sequences = nm_json_get(one, "sequences"), *scores = nm_json_get(one, "scores"), *texts = nm_json_get(one, "texts");
            nm_generation g;
            captions_of(&m, pixels, (int)k, 1, start, length, &rules, &g);
            for (size_t b = 0; b < json_array_size(sequences); b++) {
                same_ids(nm_json_str(run, "name", ""), &g.best[b], json_array_get(sequences, b), 102, length);
                if (scores && json_array_size(scores))
                    assert_true(fabs(g.best[b].score - json_number_value(json_array_get(scores, b))) < 2e-4);
            }
            nm_generation_free(&g, 1);
            char path[512];
            picture_path(path, (int)k);
            noema_picture p = { .path = path };
            noema_generated out;
            ok(noema_caption(m.s, 1, &p, &o, &out, NULL, &err));
            const char *whole = json_string_value(json_array_get(texts, 0)), *rest = prompt ? whole + strlen(prompt) : whole;
            assert_string_equal(out.text, rest + strspn(rest, " ")); /* ours comes without the prompt */
            noema_generated_free(&out, 1);
        }
    }
    /* the decoder's depths and logits */
    nm_texts text = texts_of(&e, "teacher_image0.input_ids", NULL);
    nm_run *r = nm_session_run(m.s);
    nm_tensor states = nm_blip_image_states(r, m.b, pixels_of(&m, pixels, 1));
    int64_t keys[2] = { 0, states.shape[1] }, n = text.offsets[1];
    nm_med_cache cache;
    observed o = { .n = 0 };
    assert_true(nm_med_cache_init(r, &cache, &m.b->decoder, &m.b->cfg.decoder, nm_flatten(states, 2), keys, 1, 1, 32));
    r->observe = observe;
    r->observe_user = &o;
    nm_tensor x = nm_med_step(r, &cache, 1, NULL, text.ids, text.offsets);
    r->observe = NULL;
    static const char *const depth[][2] = { { "teacher_image0.hidden.0", "embeddings" }, { "teacher_image0.hidden.1", "layer.0" }, { "teacher_image0.hidden.2", "layer.1" } };
    for (int d = 0; d < 3; d++)
        near(depth[d][0], find_seen(&o, depth[d][1])->data, want = values(&e, depth[d][0]), (size_t)(n * 32), 1e-4), free(want);
    near("logits", nm_med_logits(r, &m.b->lm, &m.b->cfg.decoder, x).data, want = values(&e, "teacher_image0.logits"), (size_t)(n * 403), 2e-4), free(want);
    forget(&o);
    free(pixels);
    free_texts(&text);
    close_model(&m);
    unload(&e);
}

static void test_hf_itm(void **state)
{
    (void)state;
    expected e;
    if (!load_shared(&e, "hf_itm"))
        return;
    model m = open_model(shared("hf_itm"), NULL, NULL, 0);
    float *pixels = all_pixels(&m, 4), *want, scores[16], probs[16], itm[32];
    hf_vision(&m, &e, pixels);
    noema_picture p[4] = { { 0 } };
    const char *text[4];
    for (int i = 0; i < 4; i++) {
        p[i].tensor = pixels + i * 3 * 48 * 48;
        text[i] = json_string_value(json_array_get(nm_json_get(e.json, "captions"), (size_t)i));
    }
    noema_match_options mo = { .struct_size = sizeof mo, .head = 1 };
    ok(noema_match_pictures(m.s, 4, p, 4, text, NULL, &mo, scores, probs, NULL, &err));
    near("itc", scores, want = values(&e, "itc"), 16, 5e-6), free(want);
    assert_true(isnan(probs[0])); /* the folder has no temperature */
    mo.head = 2;
    ok(noema_match_pictures(m.s, 4, p, 4, text, NULL, &mo, scores, probs, NULL, &err));
    near("itm_prob", probs, want = values(&e, "itm_prob"), 16, 1e-5), free(want);
    want = values(&e, "itm_logits");
    for (int i = 0; i < 16; i++)
        itm[i] = want[2 * i + 1];
    near("itm_logits", scores, itm, 16, 1e-4), free(want);
    mo.first_token = 1;
    ok(noema_match_pictures(m.s, 1, p, 4, text, NULL, &mo, scores, probs, NULL, &err));
    want = values(&e, "itm_logits_with_enc_image0");
    for (int i = 0; i < 4; i++)
        itm[i] = want[2 * i + 1];
    near("itm_logits_with_enc", scores, itm, 4, 1e-4), free(want);
    float feat[4 * 20];
    ok(noema_embed_tensors(m.s, 4, pixels, NOEMA_NORMALIZE, feat, &err));
    near("image_feat", feat, want = values(&e, "image_feat"), 80, 5e-6), free(want);
    ok(noema_embed_texts(m.s, 4, text, NULL, NOEMA_NORMALIZE, feat, &err));
    near("text_feat", feat, want = values(&e, "text_feat"), 80, 5e-6), free(want);
    free(pixels);
    close_model(&m);
    unload(&e);
}

static void test_hf_vqa(void **state)
{
    (void)state;
    expected e;
    if (!load_shared(&e, "hf_vqa"))
        return;
    model m = open_model(shared("hf_vqa"), NULL, NULL, 0);
    float *pixels = all_pixels(&m, 4), *want = values(&e, "question_states");
    nm_texts q = texts_of(&e, "question_ids", "question_mask");
    nm_run *r = nm_session_run(m.s);
    nm_med_rows l;
    nm_tensor states = nm_blip_questions(r, m.b, nm_blip_image_states(r, m.b, pixels_of(&m, pixels, 4)), &q, -1, &l);
    for (int i = 0; i < 4; i++)
        near("question_states", (const float *)states.data + l.offsets[i] * 28, want + i * 14 * 28, (size_t)(l.offsets[i + 1] - l.offsets[i]) * 28, 1e-4);
    free(want);
    const json_t *run;
    size_t i;
    json_array_foreach(nm_json_get(e.json, "runs"), i, run) {
        nm_rules rules = rules_of(nm_json_get(run, "settings"), NM_RELEASE_5);
        noema_generate_options o;
        noema_generate_options_default(&o);
        o.beams = rules.beams;
        o.max_length = (int)rules.max_length;
        o.min_length = (int)rules.min_length;
        o.n_best = rules.n_best;
        char path[512];
        snprintf(path, sizeof path, "%simages/%s", OWN, nm_json_str(run, "image", ""));
        noema_picture p = { .path = path };
        noema_generated out;
        const char *question = nm_json_str(run, "question", "");
        const json_t *answers = nm_json_get(run, "answers"), *scores = nm_json_get(run, "scores");
        ok(noema_ask(m.s, 1, &p, &question, &o, &out, NULL, &err));
        assert_int_equal(out.n_best, json_array_size(answers));
        for (size_t k = 0; k < out.n_best; k++) {
            assert_string_equal(out.best[k].text, json_string_value(json_array_get(answers, k)));
            if (scores)
                assert_true(fabs((double)out.best[k].score - json_number_value(json_array_get(scores, k))) < 2e-4);
        }
        noema_generated_free(&out, 1);
    }
    free(pixels);
    free_texts(&q);
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
        cmocka_unit_test(test_captions),
        cmocka_unit_test(test_teacher_forced),
        cmocka_unit_test(test_real_vocabulary),
        cmocka_unit_test(test_sampling),
        cmocka_unit_test(test_vqa),
        cmocka_unit_test(test_nlvr),
        cmocka_unit_test(test_hf_caption),
        cmocka_unit_test(test_hf_itm),
        cmocka_unit_test(test_hf_vqa),
    };
    int failed = cmocka_run_group_tests(tests, setup, teardown);
    printf("largest difference %.3g\n", worst);
    return failed;
}
