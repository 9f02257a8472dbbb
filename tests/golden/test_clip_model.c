/* test_clip_model.c - what must hold for every CLIP model whatever its numbers: results do not depend on batch, neighbours or
 * threads; lower dtypes stay near f32; a warm forward allocates nothing; architectures have their published sizes; new models
 * survive saving and loading; CoCa writes the reference's captions; sentence embeddings equal the reference's. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/json.h"
#include "models/clip.h"
#include "models/handle.h"
#include "models/registry.h"

#define OWN NOEMA_SOURCE_DIR "/tests/golden/clip/"

/* ---- counting allocations: every malloc of the process goes through here ---- */

static atomic_long allocations;
#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define COUNTS 1
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);
void *__libc_memalign(size_t align, size_t n);
void *malloc(size_t n) { return atomic_fetch_add(&allocations, 1), __libc_malloc(n); }
void *calloc(size_t n, size_t size) { return atomic_fetch_add(&allocations, 1), __libc_calloc(n, size); }
void *realloc(void *p, size_t n) { return atomic_fetch_add(&allocations, 1), __libc_realloc(p, n); }
void *aligned_alloc(size_t align, size_t n) { return atomic_fetch_add(&allocations, 1), __libc_memalign(align, n); }
int posix_memalign(void **p, size_t align, size_t n); /* stdlib.h hides it from strict C */
int posix_memalign(void **p, size_t align, size_t n)
{
    atomic_fetch_add(&allocations, 1);
    *p = __libc_memalign(align, n);
    return *p ? 0 : 12;
}
#else
#define COUNTS 0
#endif

static noema_error err;

static void ok(noema_status st)
{
    if (st != NOEMA_OK)
        fail_msg("%s: %s", noema_status_name(st), err.message);
}

static noema_context *context(int threads)
{
    noema_context *ctx = NULL;
    noema_context_options o;
    noema_context_options_default(&o);
    o.n_threads = threads;
    ok(noema_context_create(&ctx, &o, &err));
    return ctx;
}

typedef struct opened { noema_context *ctx; noema_model *model; noema_session *s; } opened;

static opened open_model(const char *file, const char *config, noema_dtype dtype, int threads)
{
    char path[512], cfg[512];
    noema_model_options o;
    noema_model_options_default(&o);
    err = (noema_error)NOEMA_ERROR_INIT;
    opened x = { .ctx = context(threads) };
    snprintf(path, sizeof path, "%s%s", file[0] == '/' ? "" : OWN, file);
    snprintf(cfg, sizeof cfg, OWN "%s", config ? config : "");
    o.config = config ? cfg : NULL;
    o.dtype = dtype;
    ok(noema_model_open(&x.model, x.ctx, path, &o, &err));
    ok(noema_session_create(&x.s, x.model, &err));
    return x;
}

static void close_model(opened *x)
{
    noema_session_free(x->s);
    noema_model_free(x->model);
    noema_context_free(x->ctx);
}

/* Pictures with structure and noise, from a fixed sequence. */
static float *pictures(const noema_model *m, size_t n)
{
    const noema_model_info *i = noema_model_get_info(m);
    size_t floats = 3 * (size_t)i->image_height * (size_t)i->image_width;
    float *p = malloc(n * floats * sizeof *p);
    nm_rng r;
    nm_rng_init(&r, 7, 1);
    for (size_t k = 0; k < n * floats; k++)
        p[k] = sinf((float)(k % 97) * 0.1f * (float)(k / floats + 1)) + 0.5f * nm_rng_normal(&r);
    return p;
}

/* Texts of different lengths: start, some ids, the largest id as end. */
enum { TEXTS = 5 };
static nm_texts texts(noema_model *m, int32_t ids[TEXTS * 16], int64_t offsets[TEXTS + 1])
{
    const nm_clip *c = (const nm_clip *)noema_model_internal(m);
    bool bert = c->cfg.text_tower == NM_TEXT_BERT;
    int32_t vocab = bert ? c->cfg.bert.vocab_size : c->cfg.text.vocab_size, k = 0;
    offsets[0] = 0;
    for (int i = 0; i < TEXTS; i++) {
        ids[k++] = bert ? 0 : vocab - 2;
        for (int j = 0; j < 3 * i; j++)
            ids[k++] = 5 + (17 * i + 29 * j) % (vocab - 10);
        ids[k++] = bert ? 2 : vocab - 1;
        offsets[i + 1] = k;
    }
    return (nm_texts){ .n = TEXTS, .offsets = offsets, .ids = ids, .pad_id = -1 };
}

static void encode_text(opened *x, const nm_texts *t, float *out)
{
    const nm_model *m = noema_model_internal(x->model);
    nm_run *r = nm_session_run(x->s);
    ok(nm_session_take(x->s, m->family->encode_text(r, m, t), t->n, NOEMA_NORMALIZE, out, &err));
}

/* ---- batch and threads ---- */

static const struct { const char *file, *config; } models[] = {
    { "openai_vit.pt", NULL }, { "openai_rn_state_dict.pt", NULL }, { "openclip_vit.safetensors", "openclip_vit.config.json" },
    { "siglip_openclip.safetensors", "siglip_openclip.config.json" }, { "openclip_xlmr.bin", "openclip_xlmr.config.json" },
    { "coca.safetensors", "coca.config.json" }, { "hf_clip_bf16", NULL }, { "hf_siglip", NULL },
};
enum { N_MODELS = sizeof models / sizeof *models, PICTURES = 5, DIM = 64 };

static void encode_all(opened *x, float *image, float *text)
{
    int32_t ids[TEXTS * 16];
    int64_t offsets[TEXTS + 1];
    float *p = pictures(x->model, PICTURES);
    nm_texts t = texts(x->model, ids, offsets);
    ok(noema_embed_tensors(x->s, PICTURES, p, NOEMA_NORMALIZE, image, &err));
    encode_text(x, &t, text);
    free(p);
}

static void same_bits(const char *what, const char *model, const float *a, const float *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (memcmp(&a[i], &b[i], sizeof *a) != 0)
            fail_msg("%s, %s: value %zu is %.9g in the batch, %.9g otherwise", model, what, i, (double)a[i], (double)b[i]);
}

static void invariance(noema_dtype dtype)
{
    for (int k = 0; k < N_MODELS; k++) {
        opened x = open_model(models[k].file, models[k].config, dtype, 1), y = open_model(models[k].file, models[k].config, dtype, 3);
        size_t dim = (size_t)noema_model_get_info(x.model)->embed_dim;
        assert_true(dim <= DIM);
        float a[2][8 * DIM], b[2][8 * DIM], one[DIM];
        encode_all(&x, a[0], a[1]);
        encode_all(&y, b[0], b[1]);
        same_bits("pictures, 1 and 3 threads", models[k].file, a[0], b[0], PICTURES * dim);
        same_bits("texts, 1 and 3 threads", models[k].file, a[1], b[1], TEXTS * dim);
        float *p = pictures(x.model, PICTURES);
        int32_t ids[TEXTS * 16];
        int64_t offsets[TEXTS + 1];
        nm_texts t = texts(x.model, ids, offsets);
        size_t floats = 3 * (size_t)noema_model_get_info(x.model)->image_height * (size_t)noema_model_get_info(x.model)->image_width;
        for (size_t i = 0; i < PICTURES; i++) {
            ok(noema_embed_tensors(x.s, 1, p + i * floats, NOEMA_NORMALIZE, one, &err));
            same_bits("a picture alone", models[k].file, a[0] + i * dim, one, dim);
            int64_t alone[2] = { 0, offsets[i + 1] - offsets[i] };
            nm_texts t1 = { .n = 1, .offsets = alone, .ids = ids + offsets[i], .pad_id = t.pad_id };
            encode_text(&x, &t1, one);
            same_bits("a text alone", models[k].file, a[1] + i * dim, one, dim);
        }
        free(p);
        close_model(&x);
        close_model(&y);
    }
}
static void test_invariance_f32(void **state) { (void)state; invariance(NOEMA_DTYPE_F32); }
static void test_invariance_bf16(void **state) { (void)state; invariance(NOEMA_DTYPE_BF16); }
static void test_invariance_int8(void **state) { (void)state; invariance(NOEMA_DTYPE_INT8); }

/* ---- lower dtypes ---- */

static double lowest_cosine(const float *a, const float *b, size_t n, size_t dim)
{
    double worst = 1;
    for (size_t i = 0; i < n; i++) {
        double dot = 0;
        for (size_t d = 0; d < dim; d++)
            dot += (double)a[i * dim + d] * (double)b[i * dim + d];
        worst = dot < worst ? dot : worst;
    }
    return worst;
}

/* bf16 has 8 bits: the references' own bf16 moves these unit vectors by 4e-3 (cosine 0.9999); noise pictures are harder. */
static void test_dtypes(void **state)
{
    (void)state;
    for (int k = 0; k < N_MODELS; k++) {
        float a[3][2][8 * DIM];
        const noema_dtype dtypes[3] = { NOEMA_DTYPE_F32, NOEMA_DTYPE_BF16, NOEMA_DTYPE_INT8 };
        size_t dim = 0;
        for (int d = 0; d < 3; d++) {
            opened x = open_model(models[k].file, models[k].config, dtypes[d], 2);
            dim = (size_t)noema_model_get_info(x.model)->embed_dim;
            encode_all(&x, a[d][0], a[d][1]);
            close_model(&x);
        }
        bool resnet = strstr(models[k].file, "_rn_") != NULL; /* 0.006 even in the reference's fp16 */
        const double least[3] = { 1, resnet ? 0.99 : 0.998, 0.97 };
        for (int d = 1; d < 3; d++) {
            double image = lowest_cosine(a[0][0], a[d][0], PICTURES, dim), text = lowest_cosine(a[0][1], a[d][1], TEXTS, dim);
            print_message("%-30s %s cosine to f32: pictures %.5f texts %.5f\n", models[k].file, d == 1 ? "bf16" : "int8", image, text);
            if (!(image >= least[d]) || !(text >= least[d]))
                fail_msg("%s: cosine to f32 %.5f, %.5f below %.3f", models[k].file, image, text, least[d]);
        }
    }
}

/* ---- memory ---- */

static void test_no_malloc(void **state)
{
    (void)state;
    for (int k = 0; k < N_MODELS; k++) {
        opened x = open_model(models[k].file, models[k].config, NOEMA_DTYPE_AUTO, 2);
        float a[2][8 * DIM];
        int32_t ids[TEXTS * 16];
        int64_t offsets[TEXTS + 1];
        float *p = pictures(x.model, PICTURES);
        nm_texts t = texts(x.model, ids, offsets);
        long before = 0;
        size_t arena = 0;
        for (int pass = 0; pass < 4; pass++) { /* 0: packs weights; 1: the arena becomes one block; then nothing */
            if (pass == 2) {
                before = atomic_load(&allocations);
                arena = nm_arena_mallocs(x.s->arena);
            }
            ok(noema_embed_tensors(x.s, PICTURES, p, NOEMA_NORMALIZE, a[0], &err));
            encode_text(&x, &t, a[1]);
        }
        long after = atomic_load(&allocations);
        assert_int_equal(nm_arena_mallocs(x.s->arena), arena);
        if (COUNTS && after != before)
            fail_msg("%s: %ld allocations in two warm passes", models[k].file, after - before);
        free(p);
        close_model(&x);
    }
    if (COUNTS)
        assert_true(atomic_load(&allocations) > 100); /* the counter counts */
}

/* ---- architectures ---- */

static const struct { const char *name; long long params; } counts[] = {
#include "clip_counts.inc"
};

static void count_declared(nm_params *p, const nm_param_info *info)
{
    if (!(info->flags & NM_BUFFER))
        *(long long *)p->user += nm_shape_numel(info->shape);
}

/* Declares an architecture without making its weights. */
static long long declared_size(const char *name)
{
    nm_clip *m = calloc(1, sizeof *m);
    json_t *config = nm_published_config(name, NULL, &err);
    assert_non_null(config);
    nm_source s = { .name = name, .dir = ".", .config = config };
    ok(nm_clip_config_openclip(m, &s, &err));
    nm_clip_cfg *c = &m->cfg;
    assert_true(c->resnet ? nm_resnet_alloc(&m->rn, &c->rn) : nm_vit_alloc(&m->vit, &c->vit));
    assert_true(c->text_tower == NM_TEXT_BERT ? nm_bert_alloc(&m->bert, &c->bert) : nm_text_alloc(&m->text, &c->text));
    assert_true(!c->coca || nm_coca_alloc(&m->decoder, &c->decoder));
    long long n = 0;
    nm_params p = { .visit = count_declared, .user = &n };
    nm_family_clip.declare(&p, m);
    nm_family_clip.free(&m->base);
    json_decref(config);
    return n;
}

static void test_architectures(void **state)
{
    (void)state;
    const nm_arch *archs;
    size_t n = nm_archs(&archs), known = 0;
    assert_true(n >= 80);
    for (size_t i = 0; i < n; i++) {
        long long got = declared_size(archs[i].name);
        assert_true(got > 1000000);
        for (size_t k = 0; k < sizeof counts / sizeof *counts; k++)
            if (strcmp(counts[k].name, archs[i].name) == 0) {
                known++;
                if (got != counts[k].params)
                    fail_msg("%s: %lld parameters declared, open_clip has %lld", archs[i].name, got, counts[k].params);
            }
    }
    assert_int_equal(known, sizeof counts / sizeof *counts);
}

static void test_names(void **state)
{
    (void)state;
    const nm_published *list, *p;
    size_t n = nm_published_models(&list);
    for (size_t i = 0; i < n; i++) { /* every tag has an architecture, a place, and its activation wins */
        json_t *j = nm_published_config(list[i].arch, &list[i], &err);
        assert_non_null(j);
        assert_int_equal(nm_json_bool(nm_json_get(j, "model_cfg"), "quick_gelu", false), list[i].quick_gelu);
        assert_true(list[i].hub[0] || list[i].openai[0] || list[i].file[0]);
        json_decref(j);
    }
    assert_non_null(p = nm_published_find("ViT-B/32"));
    assert_string_equal(p->tag, "openai");
    assert_true(p->quick_gelu && strncmp(p->openai, "40d36571", 8) == 0);
    assert_non_null(p = nm_published_find("ViT-B-32/laion2b_s34b_b79k"));
    assert_false(p->quick_gelu);
    assert_string_equal(p->hub, "laion/CLIP-ViT-B-32-laion2B-s34B-b79K");
    assert_non_null(p = nm_published_find("RN50"));
    assert_true(strncmp(p->openai, "afeb0e10", 8) == 0);
    assert_non_null(p = nm_published_find("ViT-L-14/laion2b_s32b_b82k"));
    assert_int_equal(p->pre, NM_PRE_HALF);
    assert_non_null(p = nm_published_find("ViT-H-14-378/dfn5b"));
    assert_true(p->quick_gelu && p->pre == NM_PRE_OPENAI_SQUASH);
    assert_null(nm_published_find("ViT-B-32/no_such_tag"));
    assert_null(nm_published_find("ViT-B-32"));
    assert_non_null(p = nm_published_by_file("vit_b_32-quickgelu-laion400m_e32-46683a32.pt"));
    assert_true(p->quick_gelu);
}

/* The activation is not in a bare state dict: refused with both choices named, taken with one of them. */
static void test_activation_unknown(void **state)
{
    (void)state;
    noema_context *ctx = context(1);
    noema_model *m = NULL;
    noema_model_options o;
    noema_model_options_default(&o);
    noema_error e = NOEMA_ERROR_INIT;
    char path[64];
    snprintf(path, sizeof path, "/tmp/noema-bare-%ld.safetensors", (long)getpid());
    nm_map map; /* 64-wide heads, f32, no configuration: a copy of the tiny model under another name */
    err = (noema_error)NOEMA_ERROR_INIT;
    ok(nm_map_file(&map, OWN "openclip_vit.safetensors", &err));
    ok(nm_write_file_atomic(path, map.data, map.size, &err));
    nm_unmap(&map);
    assert_int_equal(noema_model_open(&m, ctx, path, &o, &e), NOEMA_E_ARGUMENT);
    assert_non_null(strstr(e.message, "quickgelu"));
    assert_non_null(strstr(e.message, "gelu (other"));
    unlink(path);
    noema_context_free(ctx);
}

/* Another picture size: tables of transformers are resized, an attention pool of a ModifiedResNet is not. */
static void test_image_size(void **state)
{
    (void)state;
    noema_context *ctx = context(1);
    noema_model *m = NULL;
    noema_model_options o;
    noema_model_options_default(&o);
    noema_error e = NOEMA_ERROR_INIT;
    o.image_height = 96;
    assert_int_equal(noema_model_open(&m, ctx, OWN "openai_rn_state_dict.pt", &o, &e), NOEMA_E_UNSUPPORTED);
    assert_non_null(strstr(e.message, "64"));
    o.image_width = 40;
    err = (noema_error)NOEMA_ERROR_INIT;
    ok(noema_model_open(&m, ctx, OWN "openai_vit.pt", &o, &err));
    const noema_model_info *i = noema_model_get_info(m);
    assert_true(i->image_height == 96 && i->image_width == 40);
    assert_int_equal(((const nm_clip *)noema_model_internal(m))->vit.positional_embedding.shape.dim[0], 1 + 12 * 5);
    noema_model_free(m);
    noema_context_free(ctx);
}

/* ---- new models ---- */

#define VIT "\"layers\":2,\"patch_size\":8,\"width\":"
static const char tiny[] = "{\"embed_dim\":24,\"custom_text\":%s,\"vision_cfg\":{\"image_size\":32,%s},"
                           "\"text_cfg\":{\"context_length\":16,\"vocab_size\":600,\"heads\":2,\"layers\":2,\"width\":%s}%s}";
static const struct { const char *custom, *vision, *text, *more; } variants[] = {
    { "false", VIT "64", "32", "" },
    { "true", VIT "64,\"no_ln_pre\":true,\"pool_type\":\"avg\",\"final_ln_after_pool\":true", "32,\"no_causal_mask\":true,\"pool_type\":\"last\"", "" }, /* CLIPA */
    { "true", VIT "64,\"ls_init_value\":0.1,\"pool_type\":\"avg\",\"mlp_ratio\":3.3,\"head_width\":32", "32,\"ls_init_value\":0.2,\"mlp_ratio\":2.7", "" },
    { "true", VIT "64", "32,\"proj_bias\":true,\"pool_type\":\"eos\",\"eos_id\":7,\"norm_kwargs\":{\"eps\":1e-6}", ",\"init_logit_bias\":-10,\"quick_gelu\":true" },
    { "true", VIT "64,\"attentional_pool\":true,\"attn_pooler_queries\":5,\"attn_pooler_heads\":4", "24,\"embed_cls\":true",
      ",\"multimodal_cfg\":{\"width\":24,\"heads\":4,\"layers\":2}" }, /* CoCa with width != embed_dim: separate q, k, v */
    { "true", "\"width\":4,\"layers\":[1,1,2,1],\"attentional_pool\":true,\"attn_pooler_queries\":3,\"attn_pooler_heads\":4,\"attn_pooler_stage\":3",
      "24,\"embed_cls\":true", ",\"multimodal_cfg\":{\"width\":24,\"heads\":4,\"layers\":1}" }, /* CoCa on three stages of a ModifiedResNet */
    { "true", VIT "24,\"head_width\":8,\"attentional_pool\":\"cascade\",\"attn_pooler_queries\":5,\"attn_pooler_heads\":4", "32,\"pool_type\":\"first\"", "" },
};

static void test_create_save_load(void **state)
{
    (void)state;
    noema_context *ctx = context(2);
    for (size_t v = 0; v < sizeof variants / sizeof *variants; v++) {
        char text[1024], path[96], cfg[96];
        err = (noema_error)NOEMA_ERROR_INIT;
        int n = snprintf(text, sizeof text, tiny, variants[v].custom, variants[v].vision, variants[v].text, variants[v].more);
        json_t *config = nm_json_parse(text, (size_t)n, "tiny", &err);
        assert_non_null(config);
        nm_model *made = NULL, *again = NULL;
        ok(nm_family_clip.create(&made, "tiny", config, 5, &err));
        ok(nm_family_clip.create(&again, "tiny", config, 5, &err));
        const nm_clip *a = (nm_clip *)made, *b = (nm_clip *)again;
        same_bits("the same seed", "tiny", a->text.blocks[1].fc.weight.part[0].data, b->text.blocks[1].fc.weight.part[0].data, 32 * 32);
        again->family->free(again);
        snprintf(path, sizeof path, "/tmp/noema-new-%ld.safetensors", (long)getpid());
        snprintf(cfg, sizeof cfg, "/tmp/noema-new-%ld.json", (long)getpid());
        ok(nm_params_save(made->family->declare, made, made->family->save_scheme, path, NM_F32, &err));
        json_t *j = made->family->config(made);
        assert_int_equal(json_dump_file(j, cfg, 0), 0);
        json_decref(j);
        opened x = { .ctx = context(2) };
        ok(nm_model_adopt(&x.model, x.ctx, made, "tiny", &(noema_model_options){ .struct_size = sizeof(noema_model_options), .dtype = NOEMA_DTYPE_F32 }, &err));
        ok(noema_session_create(&x.s, x.model, &err));
        opened y = { .ctx = context(1) };
        noema_model_options o;
        noema_model_options_default(&o);
        o.config = cfg;
        o.dtype = NOEMA_DTYPE_F32;
        ok(noema_model_open(&y.model, y.ctx, path, &o, &err));
        ok(noema_session_create(&y.s, y.model, &err));
        assert_int_equal(noema_model_get_info(x.model)->n_params, noema_model_get_info(y.model)->n_params);
        assert_string_equal(noema_model_get_info(x.model)->family, noema_model_get_info(y.model)->family);
        float p[2][2][8 * DIM];
        encode_all(&x, p[0][0], p[0][1]);
        encode_all(&y, p[1][0], p[1][1]);
        same_bits("pictures after saving", "tiny", p[0][0], p[1][0], PICTURES * 24);
        same_bits("texts after saving", "tiny", p[0][1], p[1][1], TEXTS * 24);
        assert_true(isfinite(p[0][0][0]) && lowest_cosine(p[0][0], p[0][0] + 24, 1, 24) < 0.9999);
        close_model(&x);
        close_model(&y);
        json_decref(config);
        unlink(path);
        unlink(cfg);
    }
    noema_context_free(ctx);
}

/* ---- CoCa's captions ---- */

static float *golden(const char *file, const char *name, const nm_wview **v, nm_weights **w)
{
    char path[512];
    snprintf(path, sizeof path, OWN "%s", file);
    ok(nm_weights_open(w, path, &err));
    *v = nm_weights_find(*w, name);
    assert_non_null(*v);
    float *f = malloc((size_t)nm_wview_numel(*v) * sizeof *f);
    nm_wview_copy_f32(*v, f);
    return f;
}

static void test_captions(void **state)
{
    (void)state;
    opened x = open_model("coca.safetensors", "coca.config.json", NOEMA_DTYPE_F32, 2);
    const nm_clip *m = (const nm_clip *)noema_model_internal(x.model);
    nm_weights *w[3];
    const nm_wview *iv, *tv, *lv;
    float *image = golden("coca.expected.safetensors", "image_embs", &iv, &w[0]), *ids = golden("coca.expected.safetensors", "input_ids", &tv, &w[1]);
    float *want = golden("coca.expected.safetensors", "caption_logits", &lv, &w[2]);
    int64_t tokens = iv->shape[1], width = iv->shape[2], len = tv->shape[1], vocab = lv->shape[2];
    int32_t rows[3 * 32];
    int64_t offsets[4] = { 0, len, 2 * len, 3 * len };
    for (int64_t i = 0; i < 3 * len; i++)
        rows[i] = (int32_t)ids[i];
    nm_texts t = { .n = 3, .offsets = offsets, .ids = rows, .pad_id = -1 };
    nm_run *r = nm_session_run(x.s);
    nm_tensor l = nm_clip_caption_logits(r, m, nm_view(image, NM_F32, NM_SHAPE(3, tokens, width)), &t, NM_COCA_ALL);
    assert_true(nm_run_ok(r) && l.shape[1] == vocab);
    for (int64_t i = 0; i < 3; i++)
        for (int64_t k = 0; k < lv->shape[1] * vocab; k++)
            if (!(fabs((double)(((float *)l.data)[i * len * vocab + k] - want[i * lv->shape[1] * vocab + k])) <= 2e-4))
                fail_msg("caption logits of text %lld at %lld", (long long)i, (long long)k);
    /* greedy: every step computes the whole text again, as the reference does */
    json_t *j = nm_json_load(OWN "coca.expected.json", &err), *greedy = nm_json_get(j, "greedy_token_ids");
    assert_int_equal(json_array_size(greedy), 6);
    for (size_t i = 0; i < 6; i++) {
        int32_t made[32] = { 574 };
        int n = 1;
        size_t steps = json_array_size(json_array_get(greedy, i));
        for (; n < (int)steps && (n == 1 || made[n - 1] != 575); n++) {
            int64_t o[2] = { 0, n };
            nm_texts one = { .n = 1, .offsets = o, .ids = made, .pad_id = -1 };
            r = nm_session_run(x.s);
            l = nm_clip_caption_logits(r, m, nm_view(image + i * (size_t)(tokens * width), NM_F32, NM_SHAPE(1, tokens, width)), &one, NM_COCA_LAST);
            assert_true(nm_run_ok(r));
            for (int64_t k = 0; k < vocab; k++)
                if (((float *)l.data)[k] > ((float *)l.data)[made[n]])
                    made[n] = (int32_t)k;
        }
        assert_int_equal(n, steps);
        for (int k = 0; k < n; k++)
            assert_int_equal(made[k], json_integer_value(json_array_get(json_array_get(greedy, i), (size_t)k)));
    }
    json_decref(j);
    free(image), free(ids), free(want);
    for (int i = 0; i < 3; i++)
        nm_weights_close(w[i]);
    close_model(&x);
}

/* ---- patch features ---- */

static void test_dense(void **state)
{
    (void)state;
    opened x = open_model("openai_vit.pt", NULL, NOEMA_DTYPE_F32, 2), rn = open_model("openai_rn_state_dict.pt", NULL, NOEMA_DTYPE_F32, 2);
    const nm_clip *m = (const nm_clip *)noema_model_internal(x.model);
    float *p = pictures(x.model, 2);
    nm_tensor in = nm_view(p, NM_F32, NM_SHAPE(2, 3, 32, 32));
    nm_run *r = nm_session_run(x.s);
    nm_tensor plain = nm_clip_dense(r, m, in, NM_DENSE_PLAIN), mask = nm_clip_dense(r, m, in, NM_DENSE_MASKCLIP),
              bare = nm_clip_dense(r, m, in, NM_DENSE_MASKCLIP | NM_DENSE_NO_RESIDUAL | NM_DENSE_NO_MLP);
    assert_true(nm_run_ok(r));
    assert_int_equal(plain.shape[1], 16);
    assert_int_equal(plain.shape[2], 48);
    assert_true(memcmp(plain.data, mask.data, 16 * 48 * 4) != 0 && memcmp(bare.data, mask.data, 16 * 48 * 4) != 0);
    free(p);
    p = pictures(rn.model, 1);
    r = nm_session_run(rn.s);
    nm_tensor d = nm_clip_dense(r, (const nm_clip *)noema_model_internal(rn.model), nm_view(p, NM_F32, NM_SHAPE(1, 3, 64, 64)), 0);
    assert_true(nm_run_ok(r) && d.shape[1] == 4 && d.shape[2] == 32);
    free(p);
    close_model(&x);
    close_model(&rn);
}

/* ---- files: bounded queue, bad ones fail alone ---- */

/* A small PPM with its number in the pixels. */
static void write_picture(const char *path, int k)
{
    unsigned char data[15 + 40 * 36 * 3];
    int n = snprintf((char *)data, 16, "P6\n40 36\n255\n");
    for (int i = 0; i < 40 * 36 * 3; i++)
        data[n + i] = (unsigned char)((i * (k + 3) / 7) ^ (i >> 5));
    ok(nm_write_file_atomic(path, data, (size_t)n + 40 * 36 * 3, &err));
}

static void test_files(void **state)
{
    (void)state;
    enum { FILES = 150, BAD = 71, MISSING = 149 };
    static char path[FILES][64];
    static const char *list[FILES];
    static noema_error errors[FILES];
    static float all[FILES * 48];
    opened x = open_model("openai_vit.pt", NULL, NOEMA_DTYPE_F32, 3), y = open_model("openai_vit.pt", NULL, NOEMA_DTYPE_F32, 1);
    for (int i = 0; i < FILES; i++) {
        snprintf(path[i], sizeof path[i], "/tmp/noema-picture-%ld-%d.ppm", (long)getpid(), i);
        list[i] = path[i];
        if (i != MISSING)
            write_picture(path[i], i);
    }
    ok(nm_write_file_atomic(path[BAD], "P6\n40 36\n255\nshort", 18, &err));
    ok(noema_embed_image_files(x.s, FILES, list, NOEMA_NORMALIZE, all, errors, &err));
    for (int i = 0; i < FILES; i++) {
        float one[48];
        if (i == BAD || i == MISSING) {
            assert_true(errors[i].code != NOEMA_OK && isnan(all[i * 48]) && isnan(all[i * 48 + 47]));
            assert_non_null(strstr(errors[i].message, path[i]));
            continue;
        }
        assert_int_equal(errors[i].code, NOEMA_OK);
        ok(noema_embed_image_files(y.s, 1, &list[i], NOEMA_NORMALIZE, one, NULL, &err));
        same_bits("a file of many and alone", path[i], all + i * 48, one, 48);
    }
    noema_error e = NOEMA_ERROR_INIT; /* without places for errors the first bad file ends the call */
    assert_true(noema_embed_image_files(x.s, FILES, list, 0, all, NULL, &e) != NOEMA_OK);
    assert_non_null(strstr(e.message, "noema-picture"));
    unsigned char rgb[40 * 36 * 4];
    for (int i = 0; i < 40 * 36 * 3; i++)
        rgb[i / 120 * 160 + i % 120] = (unsigned char)((i * 8 / 7) ^ (i >> 5)); /* picture 5, rows 160 bytes apart */
    noema_pixels px = { .data = rgb, .width = 40, .height = 36, .channels = 3, .stride = 160 };
    float a[48], b[48];
    ok(noema_embed_pixels(y.s, 1, &px, NOEMA_NORMALIZE, a, &err));
    ok(noema_embed_image_files(y.s, 1, &list[5], NOEMA_NORMALIZE, b, NULL, &err));
    same_bits("pixels and file", path[5], a, b, 48);
    px.stride = 100;
    e = (noema_error)NOEMA_ERROR_INIT;
    assert_int_equal(noema_embed_pixels(y.s, 1, &px, 0, a, &e), NOEMA_E_ARGUMENT);
    for (int i = 0; i < FILES; i++)
        unlink(path[i]);
    close_model(&x);
    close_model(&y);
}

/* Texts longer than the context are an error of the caller, not a crash; ids outside the vocabulary as well. */
static void test_bad_ids(void **state)
{
    (void)state;
    opened x = open_model("openai_vit.pt", NULL, NOEMA_DTYPE_F32, 1);
    const nm_model *m = noema_model_internal(x.model);
    int32_t ids[80] = { 574 };
    int64_t offsets[2] = { 0, 80 };
    nm_texts t = { .n = 1, .offsets = offsets, .ids = ids, .pad_id = -1 };
    nm_run *r = nm_session_run(x.s);
    assert_null(m->family->encode_text(r, m, &t).data);
    assert_int_equal(r->err.code, NOEMA_E_ARGUMENT);
    for (int k = 0; k < 2; k++) {
        offsets[1] = 3;
        ids[1] = k ? -1 : 576;
        r = nm_session_run(x.s);
        nm_tensor y = m->family->encode_text(r, m, &t);
        assert_true(k == 1 || (!y.data && r->err.code == NOEMA_E_MISMATCH)); /* -1 lies behind the pooled position 0 */
    }
    close_model(&x);
}

/* ---- sentence embeddings: all-MiniLM-L6-v2, if its files are there ---- */

static void test_minilm(void **state)
{
    (void)state;
    const char *dir = getenv("NOEMA_MINILM"), *expected = NOEMA_SHARED_DIR "/golden/clip/minilm_l6.expected";
    char file[512];
    snprintf(file, sizeof file, "%s.json", expected);
    if (!dir || !nm_file_exists(file)) {
        print_message("SKIPPED: set NOEMA_MINILM to a folder with all-MiniLM-L6-v2 (needs the shared folder's expected values too)\n");
        skip();
    }
    json_t *j = nm_json_load(file, &err), *list = nm_json_get(j, "texts");
    opened x = open_model(dir, NULL, NOEMA_DTYPE_F32, 2);
    const char *strings[64];
    size_t n = json_array_size(list);
    for (size_t i = 0; i < n; i++)
        strings[i] = json_string_value(json_array_get(list, i));
    nm_weights *w;
    snprintf(file, sizeof file, "%s.safetensors", expected);
    ok(nm_weights_open(&w, file, &err));
    const nm_wview *v = nm_weights_find(w, "embeddings");
    float *want = malloc(n * 384 * sizeof *want), *got = malloc(n * 384 * sizeof *got);
    nm_wview_copy_f32(v, want);
    ok(noema_embed_texts(x.s, n, strings, NULL, 0, got, &err));
    double worst = 0;
    for (size_t i = 0; i < n * 384; i++)
        worst = fabs((double)got[i] - (double)want[i]) > worst ? fabs((double)got[i] - (double)want[i]) : worst;
    print_message("all-MiniLM-L6-v2: worst difference %.2g\n", worst);
    assert_true(worst <= nm_json_num(nm_json_get(j, "tolerance"), "max_abs", 2e-6));
    free(want), free(got);
    nm_weights_close(w);
    json_decref(j);
    close_model(&x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_invariance_f32), cmocka_unit_test(test_invariance_bf16), cmocka_unit_test(test_invariance_int8),
        cmocka_unit_test(test_dtypes), cmocka_unit_test(test_no_malloc), cmocka_unit_test(test_architectures), cmocka_unit_test(test_names),
        cmocka_unit_test(test_activation_unknown), cmocka_unit_test(test_image_size), cmocka_unit_test(test_create_save_load), cmocka_unit_test(test_captions),
        cmocka_unit_test(test_dense), cmocka_unit_test(test_files), cmocka_unit_test(test_bad_ids), cmocka_unit_test(test_minilm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
