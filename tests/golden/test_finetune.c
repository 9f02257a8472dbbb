/* test_finetune.c - what fine-tuning is made of, against PyTorch's, open_clip's and BEiT's figures (tests/golden/train/groups, partial,
 * finetune, optim/averages), with the tolerances stated there. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/json.h"
#include "models/handle.h"
#include "data/dataset.h"
#include "train/groups.h"
#include "train/head.h"
#include "train/loss.h"
#include "train/trainer.h"
#include "weights/weights.h"

static json_t *load_json(const char *name)
{
    char path[512];
    noema_error err = NOEMA_ERROR_INIT;
    snprintf(path, sizeof path, "%s/tests/golden/train/%s", NOEMA_SOURCE_DIR, name);
    json_t *j = nm_json_load(path, &err);
    assert_non_null(j);
    return j;
}

static void check_scale(const char *name, const char *what, const json_t *want, double got)
{
    if (!json_is_number(want) || fabs(json_number_value(want) - got) <= 1e-12)
        return;
    print_error("%s: %s scale %.9g, want %.9g\n", name, what, got, json_number_value(want));
    fail();
}

/* Two towers of two blocks: image decay 0.75, text decay 0.65 (groups.json, layer_decay_reference). */
static void test_groups(void **state)
{
    (void)state;
    json_t *j = load_json("groups/groups.json"), *p;
    size_t i;
    json_array_foreach(nm_json_get(j, "parameters"), i, p) {
        const char *name = nm_json_str(p, "name", "");
        double decay = nm_tower_of(name) == NM_TOWER_TEXT ? 0.65 : 0.75;
        check_scale(name, "open_clip", json_object_get(p, "open_clip_lr_scale"), nm_layer_scale(name, 2, decay, NM_GROUPS_OPEN_CLIP));
        check_scale(name, "BEiT", json_object_get(p, "beit_lr_scale"), nm_layer_scale(name, 2, 0.75, NM_GROUPS_BEIT));
    }
    assert_int_equal(i, 62);
    json_decref(j);
}

/* The same places under the names of other files. */
static void test_other_names(void **state)
{
    (void)state;
    static const struct { const char *name; nm_tower tower; int block, group; } want[] = {
        { "visual.trunk.patch_embed.proj.weight", NM_TOWER_IMAGE, -1, 0 }, { "visual.trunk.pos_embed", NM_TOWER_IMAGE, -1, 0 },
        { "visual.trunk.blocks.11.attn.qkv.weight", NM_TOWER_IMAGE, 11, 12 }, { "visual.trunk.norm.weight", NM_TOWER_IMAGE, -1, 12 },
        { "visual.trunk.attn_pool.latent", NM_TOWER_IMAGE, -1, 13 }, { "visual.trunk.norm_pre.weight", NM_TOWER_IMAGE, -1, 0 },
        { "text.transformer.resblocks.3.ln_1.bias", NM_TOWER_TEXT, 3, 4 }, { "text.cls_emb", NM_TOWER_TEXT, -1, 0 },
        { "text.ln_final.weight", NM_TOWER_TEXT, -1, 12 }, { "text.text_projection", NM_TOWER_TEXT, -1, 13 },
        { "text_decoder.resblocks.0.ln_1.bias", NM_TOWER_NONE, -1, 13 }, { "logit_bias", NM_TOWER_NONE, -1, 13 },
        { "visual.layer3.0.conv1.weight", NM_TOWER_IMAGE, 2, 3 }, { "visual.bn2.bias", NM_TOWER_IMAGE, -1, 0 },
        { "visual.attnpool.c_proj.weight", NM_TOWER_IMAGE, -1, 13 }, { "head.weight", NM_TOWER_NONE, -1, 13 }, { "visual.transformer.resblocks.x.ln_1.bias", NM_TOWER_IMAGE, -1, 13 },
    };
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        assert_int_equal(nm_tower_of(want[i].name), want[i].tower);
        assert_int_equal(nm_block_of(want[i].name), want[i].block);
        assert_int_equal(nm_layer_group(want[i].name, 12, NM_GROUPS_OPEN_CLIP), want[i].group);
    }
    assert_true(nm_layer_scale("head.weight", 12, 0.5, NM_GROUPS_OPEN_CLIP) == 1);
}

/* ---- the tiny CLIP of golden/train/e2e in a trainer of its own ---- */

enum { BATCH = 16, IDS = 10 };
typedef struct tiny { noema_context *ctx; noema_model *model; nm_dataset *rows; nm_trainer *t; } tiny;

static void path_of(char path[512], const char *name) { snprintf(path, 512, "%s/tests/golden/train/%s", NOEMA_SOURCE_DIR, name); }

static void open_tiny(tiny *x, const nm_train_options *o)
{
    noema_error err = NOEMA_ERROR_INIT;
    noema_model_options mo;
    char path[512], config[512];
    noema_model_options_default(&mo);
    path_of(config, "e2e/model_config.json");
    mo.config = config;
    mo.dtype = NOEMA_DTYPE_F32;
    assert_int_equal(noema_context_create(&x->ctx, NULL, &err), NOEMA_OK);
    path_of(path, "e2e/init.safetensors");
    assert_int_equal(noema_model_open(&x->model, x->ctx, path, &mo, &err), NOEMA_OK);
    path_of(path, "e2e/data.safetensors");
    assert_int_equal(nm_dataset_open(&x->rows, path, NULL, &err), NOEMA_OK);
    assert_int_equal(nm_trainer_new(&x->t, noema_model_internal(x->model), x->ctx->pool, o, &err), NOEMA_OK);
}

static void close_tiny(tiny *x)
{
    nm_trainer_free(x->t);
    nm_dataset_free(x->rows);
    noema_model_free(x->model);
    noema_context_free(x->ctx);
}

/* Step s takes rows [16 (s mod 3), +16). */
static nm_step_result step(tiny *x, int s)
{
    static float images[BATCH * 3 * 24 * 24];
    int32_t ids[BATCH * IDS];
    int64_t offsets[BATCH + 1];
    nm_row row = { 0 };
    noema_error err = NOEMA_ERROR_INIT;
    nm_step_result r;
    for (int i = 0; i < BATCH; i++) {
        assert_int_equal(nm_dataset_read(x->rows, s % 3 * BATCH + i, &row, &err), NOEMA_OK);
        memcpy(images + i * 3 * 24 * 24, row.tensor, 3 * 24 * 24 * sizeof(float));
        assert_int_equal(row.n_ids, IDS);
        for (int k = 0; k < IDS; k++)
            ids[i * IDS + k] = (int32_t)row.ids[k];
        offsets[i] = i * IDS;
    }
    nm_row_release(&row);
    offsets[BATCH] = BATCH * IDS;
    nm_pair_batch b = { .n = BATCH, .images = images, .texts = { .n = BATCH, .offsets = offsets, .ids = ids, .pad_id = -1 } };
    assert_int_equal(nm_trainer_step(x->t, &b, &r, &err), NOEMA_OK);
    return r;
}

static nm_train_param *param(const tiny *x, const char *name)
{
    for (size_t i = 0; i < x->t->n_params; i++)
        if (strcmp(x->t->params[i].name, name) == 0)
            return &x->t->params[i];
    print_error("no parameter %s\n", name);
    fail();
    return NULL;
}

static nm_train_options options(void)
{
    return (nm_train_options){ .opt = { NM_OPT_ADAMW, 0.9, 0.98, 1e-6, 0, false }, .schedule = { .kind = NM_LR_COSINE, .base_lr = 0.004, .warmup = 2, .total = 10 },
                               .weight_decay = 0.2, .clip_norm = 1, .accum = 1, .compute = NM_F32 };
}

static void check_loss(int s, double got, double want, double tolerance)
{
    if (!(fabs(got - want) <= tolerance)) {
        print_error("step %d: loss %.9g, want %.9g\n", s, got, want);
        fail();
    }
}

/* Locked image tower: ten steps, and no bit of the tower moves, weight decay included. */
static void test_lit(void **state)
{
    (void)state;
    json_t *j = load_json("partial/partial.json"), *lit = nm_json_get(j, "lit"), *rows = nm_json_get(lit, "loss_and_grad_norm");
    double tolerance = nm_json_num(nm_json_get(lit, "tolerance"), "loss", 0);
    nm_train_options o = options();
    tiny x;
    o.lock_image = true;
    open_tiny(&x, &o);
    float before = param(&x, "visual.conv1.weight")->w->f32[7];
    assert_int_equal(json_array_size(rows), 10);
    for (int s = 0; s < 10; s++) {
        nm_step_result r = step(&x, s);
        double norm = json_number_value(json_array_get(json_array_get(rows, (size_t)s), 1));
        check_loss(s, r.loss, json_number_value(json_array_get(json_array_get(rows, (size_t)s), 0)), tolerance);
        assert_true(fabs(r.grad_norm - norm) <= 1e-3 * norm);
    }
    assert_true(param(&x, "visual.conv1.weight")->w->f32[7] == before);
    const char *name;
    json_t *sums;
    json_object_foreach(nm_json_get(lit, "final_checksums_sum_l2"), name, sums) {
        const nm_train_param *p = param(&x, name);
        double square = 0, want = json_number_value(json_array_get(sums, 1));
        for (size_t i = 0; i < p->n; i++)
            square += (double)p->w->f32[i] * (double)p->w->f32[i];
        if (fabs(sqrt(square) - want) > 1e-3 * want && !strstr(name, "in_proj_bias")) /* the key bias is moved by noise */
            print_error("%s: length %.9g, want %.9g\n", name, sqrt(square), want), fail();
    }
    close_tiny(&x);
    json_decref(j);
}

static void test_unlocked_groups(void **state)
{
    (void)state;
    json_t *j = load_json("partial/partial.json"), *names = nm_json_get(nm_json_get(j, "lit"), "unlocked_groups_2"), *name;
    nm_train_options o = options();
    size_t i, trained = 0;
    tiny x;
    o.lock_image = true;
    o.unlocked_groups = 2;
    open_tiny(&x, &o);
    json_array_foreach(names, i, name)
        assert_false(param(&x, json_string_value(name))->frozen);
    for (size_t k = 0; k < x.t->n_params; k++)
        trained += !x.t->params[k].frozen;
    assert_int_equal(trained, json_array_size(names));
    close_tiny(&x);
    json_decref(j);
}

static void near_tensor(const nm_weights *f, const char *prefix, const char *name, const float *got, double relative)
{
    char full[256];
    double most = 0;
    snprintf(full, sizeof full, "%s.%s", prefix, name);
    const nm_wview *v = nm_weights_find(f, full);
    assert_non_null(v);
    const float *want = v->data;
    for (int64_t i = 0; i < nm_wview_numel(v); i++)
        most = fmax(most, fabs((double)want[i]));
    for (int64_t i = 0; i < nm_wview_numel(v); i++)
        if (!(fabs((double)got[i] - (double)want[i]) <= relative * most)) {
            print_error("%s[%lld]: %.9g, want %.9g\n", full, (long long)i, (double)got[i], (double)want[i]);
            fail();
        }
}

/* Adapters of q and v in both towers: gradients of the first step, ten losses, final adapters; the merged weights are W0 + 2 B A. */
static void test_lora(void **state)
{
    (void)state;
    json_t *j = load_json("partial/partial.json"), *lora = nm_json_get(j, "lora"), *losses = nm_json_get(lora, "losses_10_steps");
    nm_train_options o = options();
    noema_error err = NOEMA_ERROR_INIT;
    nm_weights *f = NULL;
    char path[512];
    tiny x;
    o.schedule = (nm_schedule){ .kind = NM_LR_CONST, .base_lr = 0.005, .total = 10 };
    o.weight_decay = o.clip_norm = 0;
    o.lora = (nm_lora_options){ .rank = 4, .alpha = 8, .image = true, .text = true };
    open_tiny(&x, &o);
    assert_int_equal(nm_lora_count(x.t->lora), 16);
    path_of(path, "partial/lora.safetensors");
    assert_int_equal(nm_weights_open(&f, path, &err), NOEMA_OK);
    for (size_t i = 0; i < 16; i++) {
        char name[256];
        snprintf(name, sizeof name, "init.%s", nm_lora_name(x.t->lora, i));
        assert_non_null(nm_weights_find(f, name));
        nm_wview_copy_f32(nm_weights_find(f, name), nm_lora_weight(x.t->lora, i)->f32);
    }
    nm_lora_merge(x.t->lora, NULL);
    float key = param(&x, "visual.transformer.resblocks.0.attn.in_proj_weight")->w->f32[40 * 32];
    for (int s = 0; s < 10; s++) {
        check_loss(s, step(&x, s).loss, json_number_value(json_array_get(losses, (size_t)s)), nm_json_num(nm_json_get(lora, "tolerance"), "loss", 0));
        for (size_t i = 0; s == 0 && i < 16; i++)
            near_tensor(f, "grad", nm_lora_name(x.t->lora, i), nm_lora_weight(x.t->lora, i)->grad->data, 1e-5);
    }
    for (size_t i = 0; i < 16; i++)
        near_tensor(f, "final", nm_lora_name(x.t->lora, i), nm_lora_weight(x.t->lora, i)->f32, 1e-3);
    assert_true(param(&x, "visual.transformer.resblocks.0.attn.in_proj_weight")->w->f32[40 * 32] == key); /* rows of k stay */
    assert_true(param(&x, "logit_scale")->frozen && param(&x, "visual.conv1.weight")->frozen);
    nm_weights_close(f);
    close_tiny(&x);
    json_decref(j);
}

/* Against the definition, and its gradient against finite differences. */
static void test_label_loss(void **state)
{
    (void)state;
    enum { N = 3, K = 4 };
    float z[N * K] = { 1, -2, 0.5f, 3, 0, 0, 0, 0, 80, -80, 2, 1 }, d[N * K] = { 0 }, p[K];
    const int64_t label[N] = { 2, 0, 1 };
    double e = 0.1, loss = nm_cross_entropy_sum(z, label, N, K, e, NULL, 1.0 / N, d), want = 0;
    for (int i = 0; i < N; i++) {
        double sum = 0;
        for (int k = 0; k < K; k++)
            sum += exp((double)z[i * K + k] - 80);
        for (int k = 0; k < K; k++)
            want -= (e / K + (k == label[i] ? 1 - e : 0)) * ((double)z[i * K + k] - 80 - log(sum)) / N;
    }
    assert_true(fabs(loss - want) < 1e-9);
    for (int i = 0; i < N * K; i++) {
        float other[N * K] = { 0 }, keep = z[i], high = keep + 1e-2f, low = keep - 1e-2f;
        z[i] = high;
        double up = nm_cross_entropy_sum(z, label, N, K, e, NULL, 1.0 / N, other);
        z[i] = low;
        double down = nm_cross_entropy_sum(z, label, N, K, e, NULL, 1.0 / N, other);
        z[i] = keep;
        assert_true(fabs((up - down) / ((double)high - (double)low) - (double)d[i]) < 1e-5);
    }
    assert_int_equal(nm_head_probabilities(z + K, K, p, 3, &loss), 0); /* all equal: the first */
    assert_true(fabs(loss - log(4)) < 1e-9 && p[2] == 0.25f);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_groups), cmocka_unit_test(test_other_names), cmocka_unit_test(test_label_loss),
                                        cmocka_unit_test(test_lit), cmocka_unit_test(test_unlocked_groups), cmocka_unit_test(test_lora) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
