/* test_blip2.c - BLIP-2 against its references at every depth: tests/golden/blip2 (README of the golden data: abs 5e-5 for the image
 * encoder, 1e-4 for Q-Former states and OPT logits, 5e-6 for ITC, 3e-5 for ITM logits, 1.5e-3 for T5 logits, ids exact). Checkpoints and
 * expected values are in the repository; BERT's and T5's vocabularies only in the shared folder, and nothing here needs them. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/json.h"
#include "generate/blip2_tasks.h"
#include "models/blip2.h"
#include "observed.h"

#define OWN NOEMA_SOURCE_DIR "/tests/golden/blip2/"

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

static void load(expected *e, const char *tensors, const char *json) { load_expected(e, OWN, tensors, json); }

/* got equals all of an expected tensor. */
static void equal(const expected *e, const char *name, const float *got, double tolerance)
{
    float *want = values(e, name);
    near(name, got, want, (size_t)nm_wview_numel(view(e, name)), tolerance);
    free(want);
}

/* ---- models ---- */

typedef struct model { noema_model *m; noema_session *s; nm_blip2 *b; } model;

static model open_model(const expected *e, const char *file, const char *lm)
{
    const json_t *arch = nm_json_get(e->json, "arch"), *v = nm_json_get(arch, "vision"), *q = nm_json_get(arch, "qformer");
    json_t *c = json_pack("{s:{s:O,s:O},s:{s:O,s:O}}", "vision_config", "num_attention_heads", nm_json_get(v, "heads"), "layer_norm_eps",
                          nm_json_get(v, "layer_norm_eps"), "qformer_config", "num_attention_heads", nm_json_get(q, "num_attention_heads"), "layer_norm_eps",
                          nm_json_get(q, "layer_norm_eps"));
    char path[512], folder[512], config[] = "test_blip2.config.json";
    model m = { 0 };
    noema_model_options o;
    assert_int_equal(json_dump_file(c, config, 0), 0);
    json_decref(c);
    noema_model_options_default(&o);
    snprintf(path, sizeof path, "%slavis/%s", OWN, file);
    snprintf(folder, sizeof folder, "%slavis/%s", OWN, lm ? lm : "");
    o.dtype = NOEMA_DTYPE_F32;
    o.config = config;
    o.language_model = lm ? folder : NULL;
    ok(noema_model_open(&m.m, ctx, path, &o, &err));
    ok(noema_session_create(&m.s, m.m, &err));
    m.b = (nm_blip2 *)noema_model_internal(m.m);
    assert_string_equal(noema_model_get_info(m.m)->family, "blip2");
    remove(config);
    return m;
}

static void close_model(model *m)
{
    noema_session_free(m->s);
    noema_model_free(m->m);
}

/* The four pictures as the model gets them. */
static float *all_pixels(const model *m)
{
    const nm_model *b = &m->b->base;
    size_t floats = 3 * (size_t)b->image_height * (size_t)b->image_width;
    float *p = malloc(4 * floats * sizeof *p);
    nm_preprocess_scratch *s = nm_preprocess_scratch_new();
    for (size_t i = 0; i < 4; i++) {
        char path[512];
        const nm_image *im;
        snprintf(path, sizeof path, "%simages/image%zu.png", OWN, i);
        ok(nm_preprocess_load(&b->preprocess, s, path, NULL, &im, &err));
        ok(nm_preprocess_run(&b->preprocess, s, im, p + i * floats, &err));
    }
    nm_preprocess_scratch_free(s);
    return p;
}

static nm_tensor pixels_of(const model *m, float *p, int first, int n)
{
    const nm_model *b = &m->b->base;
    return nm_view(p + (size_t)first * 3 * (size_t)b->image_height * (size_t)b->image_width, NM_F32, NM_SHAPE(n, 3, b->image_height, b->image_width));
}

static int picture_number(const json_t *o)
{
    const char *name = nm_json_str(o, "image", "");
    int n = -1;
    assert_int_equal(sscanf(name, "image%d.png", &n), 1);
    return n;
}

/* ---- named intermediates ---- */

/* Every stored tensor [n, length, width] below `stored` against what was seen below `shown`: rows of texts without their padding. With
 * ids (or NULL) sequence i has offsets[i+1] - offsets[i] rows behind `queries` ones. */
static int depths(const observed *o, const expected *e, const char *stored, const char *shown, const nm_texts *texts, int64_t queries)
{
    int n = 0;
    for (size_t i = 0; i < nm_weights_count(e->w); i++) {
        const nm_wview *v = nm_weights_at(e->w, i);
        if (strncmp(v->name, stored, strlen(stored)) != 0 || v->dtype != NM_F32 || v->ndim != 3)
            continue;
        char name[128];
        snprintf(name, sizeof name, "%s%s", shown, v->name + strlen(stored));
        const seen *s = find_seen(o, name);
        float *want = values(e, v->name);
        bool only_queries = strstr(name, "query_after") != NULL;
        int64_t width = v->shape[2], at = 0;
        for (int64_t k = 0; k < v->shape[0]; k++) {
            int64_t rows = !texts ? v->shape[1] : only_queries ? queries : queries + texts->offsets[k + 1] - texts->offsets[k];
            assert_true(rows <= v->shape[1] && (at + rows) * width <= s->n);
            near(name, s->data + at * width, want + k * v->shape[1] * width, (size_t)(rows * width), 1e-4);
            at += rows;
        }
        free(want);
        n++;
    }
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

static nm_run *observed_run(const model *m, observed *o)
{
    nm_run *r = nm_session_run(m->s);
    r->observe = observe;
    r->observe_user = o;
    return r;
}

/* ---- stage 1 ---- */

static void test_stage1(void **state)
{
    (void)state;
    expected e;
    load(&e, "stage1_features", "stage1");
    model m = open_model(&e, "blip2_pretrained.pth", NULL);
    float *pixels = all_pixels(&m), *logits = values(&e, "itm_logits");
    float *two = values(&e, "pixel_values");
    near("pixels", pixels, two, 2 * 3 * 56 * 56, 1e-6);
    free(two);
    nm_texts texts = texts_of(&e, "text.input_ids", "text.attention_mask");
    observed o = { .n = 0 };
    nm_run *r = observed_run(&m, &o);
    const nm_family *f = m.b->base.family;
    nm_tensor image = nm_normalize(r, f->encode_image(r, &m.b->base, pixels_of(&m, pixels, 0, 4)), 1e-12f);
    nm_tensor text = nm_normalize(r, f->encode_text(r, &m.b->base, &texts), 1e-12f);
    assert_true(nm_run_ok(r));
    assert_int_equal(depths(&o, &e, "vision.", "vision.", NULL, 0), 5);
    assert_int_equal(depths(&o, &e, "image.", "image.", NULL, 8), 11);
    assert_int_equal(depths(&o, &e, "text.", "text.", &texts, 0), 9);
    equal(&e, "image_embeds", find_seen(&o, "image_embeds")->data, 1e-4);
    equal(&e, "image_embeds_proj", image.data, 5e-6);
    float *proj = values(&e, "text_embeds_proj"), *itc = values(&e, "itc_per_query");
    for (int t = 0; t < 4; t++) {
        near("text_embeds_proj", (float *)text.data + t * 20, proj + (size_t)t * 11 * 20, 20, 5e-6);
        for (int i = 0; i < 4 * 8; i++) {
            float dot = 0;
            for (int d = 0; d < 20; d++)
                dot += ((float *)image.data)[i * 20 + d] * ((float *)text.data)[t * 20 + d];
            near("itc_per_query", &dot, &itc[((i / 8) * 4 + t) * 8 + i % 8], 1, 5e-6);
        }
    }
    forget(&o);
    nm_tensor states = nm_blip2_image_states(r, m.b, pixels_of(&m, pixels, 0, 4));
    for (int i = 0; i < 4; i++) {
        forget(&o);
        nm_tensor itm = nm_blip2_itm(r, m.b, nm_rows(states, i, i + 1), &texts, 32);
        near("itm_logits", itm.data, logits + (size_t)i * 8, 8, 3e-5);
        if (i == 0)
            assert_int_equal(depths(&o, &e, "multimodal_image0.", "multimodal.", &texts, 8), 11);
    }
    equal(&e, "multimodal_embeds", nm_blip2_multimodal(r, m.b, states, &texts).data, 1e-4);
    assert_true(nm_run_ok(r));
    forget(&o);
    free(proj), free(itc), free(pixels), free(logits);
    free_texts(&texts);
    close_model(&m);
    unload(&e);
}

/* Queries that are blind to the text and text that sees them and its past: as one pass, and behind a cache, give the same logits. */
static void test_caption_masks(void **state)
{
    (void)state;
    expected e;
    load(&e, "stage1_losses", "stage1");
    model m = open_model(&e, "blip2_pretrained.pth", NULL);
    const nm_qformer_cfg *c = &m.b->cfg.qformer;
    float *pixels = all_pixels(&m), *mask = values(&e, "itg.attention_mask"), *ids = values(&e, "itg.input_ids");
    float *want = values(&e, "itg.logits_text_rows");
    observed o = { .n = 0 };
    nm_run *r = observed_run(&m, &o);
    nm_tensor states = nm_blip2_image_states(r, m.b, pixels_of(&m, pixels, 0, 4));
    for (int i = 0; i < 2; i++) {
        int32_t row[32], pos[32];
        int64_t n = 0, offsets[2] = { 0 }, all[2] = { 0, c->queries }, keys[2] = { 0, states.shape[1] };
        for (int j = 0; j < 32; j++)
            if (mask[i * 40 + 8 + j] != 0) {
                row[n] = (int32_t)ids[i * 32 + j];
                pos[n] = (int32_t)n;
                n++;
            }
        offsets[1] = n;
        forget(&o);
        snprintf(r->observe_prefix, sizeof r->observe_prefix, "joint.");
        nm_med_rows text = { .n = 1, .rows = n, .ids = row, .pos = pos, .offsets = offsets };
        nm_med_context image = { .states = nm_flatten(nm_rows(states, i, i + 1), 2), .n = 1, .q_offsets = all, .k_offsets = keys };
        nm_qformer_states x = nm_qformer_forward(r, &m.b->qformer, c, &(nm_qformer_input){ .items = 1, .text = &text, .image = &image, .blind = true });
        assert_true(nm_run_ok(r));
        if (i == 0) {
            nm_texts shape = { .n = 1, .offsets = offsets };
            assert_int_equal(depths(&o, &e, "itg_joint.", "joint.", &shape, 8), 11);
        }
        nm_tensor logits = nm_qformer_logits(r, &m.b->qformer, c, x.text);
        int64_t shown = n < 12 ? n : 12;
        near("one pass", logits.data, want + i * 12 * 402, (size_t)(shown * 402), 1e-4);
        nm_kv_cache cache;
        assert_true(nm_kv_init(r, &cache, c->layers, 2 * (int64_t)c->width, 1, 1, c->queries + 32));
        nm_tensor blind = nm_blip2_queries(r, m.b, nm_rows(states, i, i + 1), &cache);
        near("queries do not see the text", x.query.data, blind.data, (size_t)(c->queries * c->width), 1e-6);
        for (int64_t j = 0; j < shown; j++) {
            int64_t one[2] = { 0, 1 }, parent = 0;
            nm_tensor y = nm_qformer_step(r, &m.b->qformer, c, &cache, 1, j ? &parent : NULL, row + j, one);
            near("behind the cache", nm_qformer_logits(r, &m.b->qformer, c, y).data, want + (i * 12 + j) * 402, 402, 1e-4);
        }
        r->observe_prefix[0] = 0;
    }
    free(pixels), free(mask), free(ids), free(want);
    forget(&o);
    close_model(&m);
    unload(&e);
}

/* ---- searches ---- */

static int64_t ids_of(const json_t *list, int32_t *ids)
{
    size_t n = json_array_size(list);
    assert_true(n > 0 && n <= 64);
    for (size_t i = 0; i < n; i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(list, i));
    return (int64_t)n;
}

/* Every finished text in the order of the reference. */
typedef struct trace { const json_t *list; size_t at; double tolerance; } trace;

static void on_finished(void *user, int64_t item, const nm_hypothesis *h, bool stored, double worst)
{
    trace *t = user;
    const json_t *w = json_array_get(t->list, t->at++);
    int32_t want[64];
    (void)item;
    (void)worst;
    assert_non_null(w);
    assert_int_equal(h->n, ids_of(nm_json_get(w, "ids"), want));
    assert_memory_equal(h->ids, want, (size_t)h->n * sizeof *want);
    assert_int_equal(stored, nm_json_bool(w, "stored", false));
    assert_int_equal(!h->ended, nm_json_bool(w, "from_max_length", false));
    assert_true(fabs(h->sum - nm_json_num(w, "sum_logprob", 0)) < t->tolerance && fabs(h->score - nm_json_num(w, "score", 0)) < t->tolerance);
}

/* The best ones with their scores; `row`: ids before the new ones in the stored rows. */
static void same_best(const nm_generation *g, const json_t *final, int64_t row, double tolerance)
{
    const json_t *h;
    size_t i;
    assert_int_equal(g->n, json_array_size(final));
    json_array_foreach(final, i, h) {
        int32_t want[64];
        int64_t n = ids_of(nm_json_get(h, "ids"), want) - row;
        assert_int_equal(g->best[i].n, n);
        assert_memory_equal(g->best[i].ids, want + row, (size_t)n * sizeof *want);
        assert_true(fabs(g->best[i].score - nm_json_num(h, "score", 0)) < tolerance);
    }
}

static nm_rules rules_of(const json_t *s, const nm_blip2_cfg *c, int32_t eos)
{
    nm_rules r = { .beams = (int)nm_json_int(s, "num_beams", c->rules.beams), .max_length = nm_json_int(s, "max_length", c->rules.max_length),
                   .min_length = nm_json_int(s, "min_length", c->rules.min_length), .max_new = nm_json_int(s, "max_new_tokens", c->rules.max_new ? c->rules.max_new : -1),
                   .min_new = -1, .repetition_penalty = nm_json_num(s, "repetition_penalty", 1), .length_penalty = nm_json_num(s, "length_penalty", 1),
                   .release = NM_RELEASE_4_33, .eos = eos, .temperature = 1, .top_p = 1 };
    if (c->lm == NM_LM_T5 && nm_json_get(s, "max_length")) /* T5's generate() there counts new ids alone */
        r.max_new = nm_json_int(s, "max_length", 0);
    r.n_best = r.beams;
    return r;
}

static void stage1_runs(const expected *e, model *m, float *pixels)
{
    const json_t *runs = nm_json_get(e->json, "captions_generated"), *run;
    int32_t dec = (int32_t)nm_json_int(nm_json_get(nm_json_get(e->json, "arch"), "ids"), "dec", 0);
    size_t i;
    json_array_foreach(runs, i, run) {
        nm_rules rules = rules_of(run, &m->b->cfg, 102);
        trace t = { .list = nm_json_get(run, "all_finished"), .tolerance = 1e-4 };
        nm_generation g;
        rules.finished = t.list ? on_finished : NULL;
        rules.finished_user = &t;
        ok(nm_blip2_qformer_generate(m->s, pixels_of(m, pixels, picture_number(run), 1), &dec, 1, &rules, &g, &err));
        assert_int_equal(t.at, json_array_size(t.list));
        int32_t want[64];
        int64_t n = ids_of(nm_json_get(run, "ids"), want);
        assert_int_equal(g.best[0].n + g.best[0].ended, n);
        assert_memory_equal(g.best[0].ids, want, (size_t)g.best[0].n * sizeof *want);
        if (nm_json_get(run, "final_hypotheses"))
            same_best(&g, nm_json_get(run, "final_hypotheses"), 0, 1e-4);
        nm_generation_free(&g, 1);
    }
}

static void test_stage1_captions(void **state)
{
    (void)state;
    expected e;
    load(&e, "stage1_features", "stage1");
    model m = open_model(&e, "blip2_pretrained.pth", NULL);
    float *pixels = all_pixels(&m);
    stage1_runs(&e, &m, pixels);
    free(pixels);
    close_model(&m);
    unload(&e);
}

static void lm_runs(const expected *e, model *m, float *pixels, int32_t eos, double tolerance)
{
    const json_t *runs = nm_json_get(e->json, "runs"), *run;
    size_t i;
    json_array_foreach(runs, i, run) {
        nm_rules rules = rules_of(nm_json_get(run, "settings"), &m->b->cfg, eos);
        trace t = { .list = nm_json_get(run, "all_finished"), .tolerance = tolerance };
        nm_generation g;
        int32_t prompt[64], want[64];
        int64_t offsets[2] = { 0, ids_of(nm_json_get(run, "prompt_ids"), prompt) };
        nm_texts prompts = { .n = 1, .offsets = offsets, .ids = prompt };
        rules.finished = t.list ? on_finished : NULL;
        rules.finished_user = &t;
        ok(nm_blip2_lm_generate(m->s, pixels_of(m, pixels, picture_number(run), 1), &prompts, &rules, &g, &err));
        assert_int_equal(t.at, json_array_size(t.list));
        ids_of(json_array_get(nm_json_get(run, "ids"), 0), want);
        assert_memory_equal(g.best[0].ids, want + 1, (size_t)g.best[0].n * sizeof *want);
        if (nm_json_get(run, "final_hypotheses"))
            same_best(&g, nm_json_get(run, "final_hypotheses"), 1, tolerance);
        nm_generation_free(&g, 1);
    }
}

/* Prompts of different lengths in one batch: rows without padding give what left-padded ones give. */
static void vqa_batch(const expected *e, model *m, float *pixels, int32_t eos)
{
    const json_t *v = nm_json_get(e->json, "vqa");
    nm_texts prompts = texts_of(e, "vqa_batch.prompt_ids", NULL);
    int64_t offsets[5] = { 0 }, at = 0;
    int32_t *ids = (int32_t *)(uintptr_t)prompts.ids;
    for (int64_t i = 0; i < 4; i++) { /* pads (1) stand in front */
        for (int64_t j = prompts.offsets[i]; j < prompts.offsets[i + 1]; j++)
            if (ids[j] != 1)
                ids[at++] = ids[j];
        offsets[i + 1] = at;
    }
    nm_texts ragged = { .n = 4, .offsets = offsets, .ids = ids };
    nm_rules rules = rules_of(nm_json_get(v, "settings"), &m->b->cfg, eos);
    nm_generation g[4];
    rules.length_penalty = 0;
    rules.n_best = 1;
    ok(nm_blip2_lm_generate(m->s, pixels_of(m, pixels, 0, 4), &ragged, &rules, g, &err));
    for (size_t i = 0; i < 4; i++) {
        int32_t want[64];
        ids_of(json_array_get(nm_json_get(v, "batched_ids"), i), want);
        assert_memory_equal(g[i].best[0].ids, want + 1, (size_t)g[i].best[0].n * sizeof *want);
        assert_int_equal(want[1 + g[i].best[0].n], eos);
    }
    nm_generation_free(g, 4);
    nm_run *r = nm_session_run(m->s);
    const nm_opt_cfg *c = &m->b->cfg.opt;
    nm_blip2_prefix p = nm_blip2_prefix_rows(r, m->b, nm_blip2_queries(r, m->b, nm_blip2_image_states(r, m->b, pixels_of(m, pixels, 0, 4)), NULL), &ragged);
    nm_tensor x = nm_opt_step(r, &m->b->opt, c, NULL, 4, NULL, p.rows, p.offsets);
    int64_t last[4];
    for (int i = 0; i < 4; i++)
        last[i] = p.offsets[i + 1] - 1;
    nm_tensor logits = nm_opt_logits(r, &m->b->opt, c, nm_gather_rows(r, x, last, 4));
    assert_true(nm_run_ok(r));
    equal(e, "vqa_batch.logits_last", logits.data, 1e-4);
    free_texts(&prompts);
}

/* Rows of observed ragged sequences against the first `shown` of each stored one. */
static void ragged_rows(const char *name, const expected *e, const float *got, const int64_t *offsets, double tolerance)
{
    const nm_wview *v = view(e, name);
    float *want = values(e, name);
    for (int64_t i = 0; i < v->shape[0]; i++) {
        int64_t n = offsets[i + 1] - offsets[i] < v->shape[1] ? offsets[i + 1] - offsets[i] : v->shape[1];
        near(name, got + offsets[i] * v->shape[2], want + i * v->shape[1] * v->shape[2], (size_t)(n * v->shape[2]), tolerance);
    }
    free(want);
}

static void opt_alone(const expected *e, model *m)
{
    observed o = { .n = 0 };
    nm_run *r = observed_run(m, &o);
    nm_texts t = texts_of(e, "opt_alone.input_ids", "opt_alone.attention_mask");
    nm_tensor x = nm_opt_step(r, &m->b->opt, &m->b->cfg.opt, NULL, t.n, NULL, nm_blip2_words(r, m->b, t.ids, t.offsets[t.n]), t.offsets);
    ragged_rows("opt_alone.hidden.0", e, find_seen(&o, "hidden.0")->data, t.offsets, 1e-4);
    ragged_rows("opt_alone.hidden.1", e, find_seen(&o, "hidden.1")->data, t.offsets, 1e-4);
    nm_tensor logits = nm_opt_logits(r, &m->b->opt, &m->b->cfg.opt, x);
    assert_true(nm_run_ok(r));
    ragged_rows("opt_alone.logits", e, logits.data, t.offsets, 1e-4);
    r->observe = NULL;
    forget(&o);
    free_texts(&t);
}

static void test_opt(void **state)
{
    (void)state;
    expected e;
    load(&e, "opt", "opt");
    model m = open_model(&e, "blip2_pretrained_opt.pth", "opt");
    float *pixels = all_pixels(&m);
    int32_t newline = (int32_t)nm_json_int(nm_json_get(nm_json_get(e.json, "arch"), "opt"), "newline_id", 0);
    lm_runs(&e, &m, pixels, newline, 1e-4);
    vqa_batch(&e, &m, pixels, newline);
    opt_alone(&e, &m);
    observed o = { .n = 0 };
    nm_run *r = observed_run(&m, &o);
    int64_t offsets[2] = { 0, 1 };
    int32_t start = 2;
    nm_texts prompt = { .n = 1, .offsets = offsets, .ids = &start };
    nm_tensor q = nm_blip2_queries(r, m.b, nm_blip2_image_states(r, m.b, pixels_of(&m, pixels, 0, 4)), NULL);
    equal(&e, "query_output", q.data, 1e-4);
    nm_blip2_prefix p = nm_blip2_prefix_rows(r, m.b, nm_rows(q, 0, m.b->cfg.qformer.queries), &prompt);
    equal(&e, "default_image0.inputs_embeds", p.rows.data, 1e-4);
    r->observe = NULL;
    forget(&o);
    free(pixels);
    close_model(&m);
    unload(&e);
}

/* ---- T5 ---- */

static void test_buckets(void **state)
{
    (void)state;
    expected e;
    load(&e, "t5", "t5");
    float *delta = values(&e, "buckets.delta"), *encoder = values(&e, "buckets.encoder"), *decoder = values(&e, "buckets.decoder");
    for (int i = 0; i < 401; i++) {
        assert_int_equal(nm_t5_bucket((int64_t)delta[i], true, 32, 128), (int)encoder[i]);
        assert_int_equal(nm_t5_bucket((int64_t)delta[i], false, 32, 128), (int)decoder[i]);
    }
    free(delta), free(encoder), free(decoder);
    unload(&e);
}

static void t5_alone(const expected *e, model *m)
{
    observed o = { .n = 0 };
    nm_run *r = observed_run(m, &o);
    const nm_t5_cfg *c = &m->b->cfg.t5;
    nm_texts t = texts_of(e, "t5_alone.input_ids", "t5_alone.attention_mask"), d = texts_of(e, "t5_alone.decoder_input_ids", NULL);
    nm_tensor states = nm_t5_encode(r, &m->b->t5, c, t.n, nm_blip2_words(r, m->b, t.ids, t.offsets[t.n]), t.offsets);
    assert_true(nm_run_ok(r));
    /* stored: every tenth row of the encoder, every fourth of the decoder (see the shapes) */
    const nm_wview *v = view(e, "t5_alone.encoder_last");
    int64_t step = view(e, "t5_alone.input_ids")->shape[1] / v->shape[1], width = c->width;
    for (int64_t i = 0; i < t.n; i++)
        for (int64_t j = 0; j < v->shape[1] && j * step < t.offsets[i + 1] - t.offsets[i]; j++) {
            float *all = values(e, "t5_alone.encoder_last");
            near("encoder_last", (float *)states.data + (t.offsets[i] + j * step) * width, all + (i * v->shape[1] + j) * width, (size_t)width, 1e-4);
            free(all);
        }
    nm_tensor *memory = nm_t5_project(r, &m->b->t5, c, states);
    nm_tensor x = nm_t5_step(r, &m->b->t5, c, NULL, memory, t.offsets, d.n, NULL, nm_blip2_words(r, m->b, d.ids, d.offsets[d.n]), d.offsets);
    nm_tensor logits = nm_t5_logits(r, &m->b->t5, c, x);
    assert_true(nm_run_ok(r));
    v = view(e, "t5_alone.decoder_hidden.1");
    float *hidden = values(e, "t5_alone.decoder_hidden.1"), *lg = values(e, "t5_alone.logits");
    int64_t length = d.offsets[1], every = length / v->shape[1] + (length % v->shape[1] != 0);
    for (int64_t i = 0; i < d.n; i++)
        for (int64_t j = 0; j < v->shape[1] && j * every < length; j++)
            near("decoder_hidden.1", find_seen(&o, "decoder_hidden.1")->data + (i * length + j * every) * width, hidden + (i * v->shape[1] + j) * width,
                 (size_t)width, 1e-4);
    v = view(e, "t5_alone.logits");
    every = length / v->shape[1] + (length % v->shape[1] != 0);
    for (int64_t i = 0; i < d.n; i++)
        for (int64_t j = 0; j < v->shape[1] && j * every < length; j++)
            near("logits", (float *)logits.data + (i * length + j * every) * c->vocab_size, lg + (i * v->shape[1] + j) * c->vocab_size,
                 (size_t)c->vocab_size, 1.5e-3);
    /* behind a cache, id by id */
    nm_kv_cache cache;
    int64_t all[3] = { 0, 1, 2 }, parents[2] = { 0, 1 };
    assert_true(nm_kv_init(r, &cache, c->decoder_layers, 2 * (int64_t)c->inner, 2, 2, length));
    for (int64_t j = 0; j < length; j++) {
        int32_t ids[2] = { d.ids[j], d.ids[d.offsets[1] + j] };
        nm_tensor y = nm_t5_step(r, &m->b->t5, c, &cache, memory, t.offsets, 2, j ? parents : NULL, nm_blip2_words(r, m->b, ids, 2), all);
        nm_tensor one = nm_t5_logits(r, &m->b->t5, c, y);
        assert_true(nm_run_ok(r));
        for (int64_t i = 0; i < 2; i++)
            near("behind the cache", (float *)one.data + i * c->vocab_size, (float *)logits.data + (i * length + j) * c->vocab_size, (size_t)c->vocab_size,
                 5e-4);
    }
    r->observe = NULL;
    free(hidden), free(lg);
    forget(&o);
    free_texts(&t), free_texts(&d);
}

static void test_t5(void **state)
{
    (void)state;
    expected e;
    load(&e, "t5", "t5");
    model m = open_model(&e, "blip2_pretrained_flant5.pth", "flan_t5");
    float *pixels = all_pixels(&m);
    lm_runs(&e, &m, pixels, 1, 1e-4);
    t5_alone(&e, &m);
    free(pixels);
    close_model(&m);
    unload(&e);
}

/* ---- what is easy to get wrong ---- */

/* The extra block is left out, the bias of k is zero, cross-attention stands in even layers. */
static void test_parts(void **state)
{
    (void)state;
    expected e;
    load(&e, "stage1_features", "stage1");
    model m = open_model(&e, "blip2_pretrained.pth", NULL);
    assert_int_equal(m.b->cfg.vit.layers, 3);
    for (int i = 0; i < 3; i++)
        for (int k = 0; k < 32; k++)
            assert_true(m.b->vit.blocks[i].qkv.bias.f32[32 + k] == 0);
    for (int i = 0; i < m.b->cfg.qformer.layers; i++)
        assert_int_equal(m.b->qformer.layer[i].cross, i % 2 == 0);
    assert_int_equal(noema_model_get_info(m.m)->image_vectors, 8);
    float out[20], *p = all_pixels(&m);
    assert_int_equal(noema_embed_tensors(m.s, 1, p, NOEMA_NORMALIZE, out, &err), NOEMA_E_UNSUPPORTED); /* room for one vector only */
    free(p);
    close_model(&m);
    unload(&e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parts),    cmocka_unit_test(test_stage1), cmocka_unit_test(test_caption_masks), cmocka_unit_test(test_stage1_captions),
        cmocka_unit_test(test_opt),      cmocka_unit_test(test_buckets), cmocka_unit_test(test_t5),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
