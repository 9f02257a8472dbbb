/* test_train.c - optimisers, schedules, clipping, averages and contrastive losses against PyTorch's and open_clip's figures
 * (tests/golden/train), with the tolerances stated there. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/json.h"
#include "nn/nn.h"
#include "tensor/tape.h"
#include "train/loss.h"
#include "train/optim.h"
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

static nm_weights *load_tensors(const char *name)
{
    char path[512];
    noema_error err = NOEMA_ERROR_INIT;
    nm_weights *w = NULL;
    snprintf(path, sizeof path, "%s/tests/golden/train/%s", NOEMA_SOURCE_DIR, name);
    assert_int_equal(nm_weights_open(&w, path, &err), NOEMA_OK);
    return w;
}

static const nm_wview *need(const nm_weights *w, const char *a, const char *b, const char *c)
{
    char name[256];
    snprintf(name, sizeof name, "%s%s%s", a, b, c);
    const nm_wview *v = nm_weights_find(w, name);
    if (!v)
        print_error("no tensor %s\n", name);
    assert_non_null(v);
    return v;
}

static void near_f64(const char *what, const nm_wview *want, const float *got, double tol)
{
    assert_int_equal(want->dtype, NM_F64);
    for (int64_t i = 0; i < nm_wview_numel(want); i++) {
        double w = ((const double *)want->data)[i];
        if (!(fabs((double)got[i] - w) <= tol)) {
            print_error("%s[%lld]: want %.9g got %.9g, tolerance %g\n", what, (long long)i, w, (double)got[i], tol);
            fail();
        }
    }
}

static nm_opt opt_of(const json_t *c)
{
    const json_t *a = nm_json_get(c, "attrs"), *betas = nm_json_get(a, "betas");
    const char *name = nm_json_str(c, "name", "");
    nm_opt o = { .kind = strncmp(name, "adamw", 5) == 0 ? NM_OPT_ADAMW : strncmp(name, "lion", 4) == 0 ? NM_OPT_LION : NM_OPT_SGD,
                 .eps = nm_json_num(a, "eps", 1e-8), .momentum = nm_json_num(a, "momentum", 0), .nesterov = nm_json_bool(a, "nesterov", false) };
    if (betas) {
        o.beta1 = json_number_value(json_array_get(betas, 0));
        o.beta2 = json_number_value(json_array_get(betas, 1));
    }
    return o;
}

static void test_optimizers(void **state)
{
    (void)state;
    json_t *j = load_json("optim/optimizers.json"), *c;
    nm_weights *f = load_tensors("optim/optimizers.safetensors");
    static const char *const names[] = { "w", "b", "tiny", "zero" };
    size_t i;
    int compared = 0;
    json_array_foreach(nm_json_get(j, "cases"), i, c) {
        nm_opt o = opt_of(c);
        double decay = nm_json_num(nm_json_get(c, "attrs"), "weight_decay", 0);
        for (int k = 0; k < 4; k++) {
            const nm_wview *init = need(f, "init.", names[k], ""), *grads = need(f, "grads.", names[k], "");
            int64_t n = nm_wview_numel(init);
            float w[16], m[16] = { 0 }, v[16] = { 0 };
            nm_wview_copy_f32(init, w);
            for (int step = 0; step < 20; step++) {
                double lr = json_number_value(json_array_get(nm_json_get(j, "lr_per_step"), (size_t)step));
                nm_opt_update(&o, NULL, (size_t)n, w, (const float *)grads->data + step * n, 1, m, v, step + 1, lr, decay);
                char tag[64], name[160];
                snprintf(tag, sizeof tag, "step%d.%s", step + 1, names[k]);
                snprintf(name, sizeof name, "%s.%s", nm_json_str(c, "name", ""), tag);
                const nm_wview *want = nm_weights_find(f, name);
                if (want) {
                    near_f64(name, want, w, nm_json_num(nm_json_get(c, "tolerance"), tag, 0));
                    compared++;
                }
            }
        }
    }
    assert_true(compared >= 6 * 4 * 5);
    nm_weights_close(f);
    json_decref(j);
}

static void test_schedules(void **state)
{
    (void)state;
    json_t *j = load_json("optim/schedules.json"), *c;
    size_t i, k;
    int compared = 0;
    json_array_foreach(nm_json_get(j, "schedules"), i, c) {
        const char *name = nm_json_str(c, "name", "");
        if (strncmp(name, "open_clip", 9) != 0)
            continue;
        nm_schedule s = { .kind = strstr(name, "cooldown") ? NM_LR_CONST_COOLDOWN : strstr(name, "const") ? NM_LR_CONST : NM_LR_COSINE,
                          .base_lr = nm_json_num(c, "base_lr", 0), .warmup = nm_json_int(c, "warmup", 0), .total = nm_json_int(c, "total", 0),
                          .power = nm_json_num(c, "cooldown_power", nm_json_num(c, "power", 1)),
                          .end_lr = nm_json_num(c, "cooldown_end_lr", nm_json_num(c, "end_lr", 0)) };
        s.cooldown = nm_json_int(c, "cooldown_steps", nm_json_int(c, "cooldown", 0));
        json_t *step;
        json_array_foreach(nm_json_get(c, "steps"), k, step) {
            double want = json_number_value(json_array_get(nm_json_get(c, "values"), k)), got = nm_schedule_lr(&s, json_integer_value(step));
            if (!(fabs(got - want) <= 1e-12 * fabs(want))) {
                print_error("%s step %lld: want %.17g got %.17g\n", name, (long long)json_integer_value(step), want, got);
                fail();
            }
            compared++;
        }
    }
    assert_true(compared > 20);
    json_decref(j);
}

static void test_clip(void **state)
{
    (void)state;
    json_t *j = load_json("optim/clip.json"), *c;
    size_t i;
    json_array_foreach(nm_json_get(j, "cases"), i, c) {
        double want = nm_json_num(c, "scale", 0), got = nm_clip_factor(nm_json_num(c, "total_norm", 0), nm_json_num(c, "max_norm", 0));
        assert_true(fabs(got - want) <= 2e-6 * want);
    }
    assert_int_equal(i, 4);
    json_decref(j);
}

static void near_scalar(const char *name, const nm_wview *v, double got, double tol)
{
    double want = nm_wview_first(v);
    if (!(fabs(got - want) <= tol)) {
        print_error("%s: want %.9g got %.9g, tolerance %g\n", name, want, got, tol);
        fail();
    }
}

static double tolerance(const json_t *c, const char *key) { return nm_json_num(nm_json_get(nm_json_get(c, "tolerance"), key), "abs", 0); }

static void test_losses(void **state)
{
    (void)state;
    json_t *j = load_json("ops/losses.json"), *c;
    nm_weights *f = load_tensors("ops/losses.safetensors");
    nm_pool *pool = nm_pool_new(2);
    nm_arena *arena = nm_arena_new(1 << 16);
    size_t i;
    int ran = 0;
    json_array_foreach(nm_json_get(j, "cases"), i, c) {
        const char *op = nm_json_str(c, "op", ""), *name = nm_json_str(c, "name", "");
        bool siglip = strcmp(op, "siglip_loss") == 0;
        if (!siglip && strcmp(op, "clip_loss") != 0)
            continue;
        nm_run r;
        nm_run_init(&r, nm_kernels_get(), pool, arena, NM_F32);
        const nm_wview *img = need(f, name, ".in.img", ""), *txt = need(f, name, ".in.txt", "");
        int64_t n = img->shape[0], dim = img->shape[1];
        r.tape = nm_tape_new();
        nm_tensor x[2] = { nm_new(&r, NM_F32, NM_SHAPE(n, dim)), nm_new(&r, NM_F32, NM_SHAPE(n, dim)) }, y[2];
        nm_wview_copy_f32(img, x[0].data);
        nm_wview_copy_f32(txt, x[1].data);
        for (int k = 0; k < 2; k++) {
            nm_want_grad(&r, &x[k]);
            y[k] = nm_normalize(&r, x[k], 1e-12f);
        }
        const float *a = y[0].data, *b = y[1].data;
        float *da = nm_grad_data(&r, &y[0]), *db = nm_grad_data(&r, &y[1]);
        double s = nm_wview_first(need(f, name, ".in.s", "")), up = nm_wview_first(need(f, name, ".gout.y", ""));
        nm_pair_loss l = siglip ? nm_siglip_loss(&r, n, dim, a, b, s, nm_wview_first(need(f, name, ".in.b", "")), da, db)
                                : nm_clip_loss(&r, n, dim, a, b, s, 0, n, da, db);
        near_scalar(name, need(f, name, ".out.y", ""), l.loss, tolerance(c, "out.y"));
        near_scalar(name, need(f, name, ".grad.s", ""), l.d_scale * up, tolerance(c, "grad.s"));
        if (siglip)
            near_scalar(name, need(f, name, ".grad.b", ""), l.d_bias * up, tolerance(c, "grad.b"));
        for (int64_t k = 0; k < n * dim; k++)
            da[k] *= (float)up, db[k] *= (float)up;
        nm_backward(&r);
        near_f64(name, need(f, name, ".grad.img", ""), nm_grad_read(&x[0]), tolerance(c, "grad.img"));
        near_f64(name, need(f, name, ".grad.txt", ""), nm_grad_read(&x[1]), tolerance(c, "grad.txt"));
        /* the same loss cut into two ranks: their losses average to the whole one */
        if (!siglip) {
            float ra[64] = { 0 }, rb[64] = { 0 };
            nm_pair_loss p = nm_clip_loss(&r, n, dim, a, b, s, 0, 2, ra, rb), q = nm_clip_loss(&r, n, dim, a, b, s, 2, n - 2, ra, rb);
            assert_true(fabs((p.loss * 2 + q.loss * (double)(n - 2)) / (double)n - l.loss) < 1e-6);
        }
        ran++;
        nm_tape_free(r.tape);
    }
    assert_true(ran >= 5);
    nm_weights_close(f);
    nm_arena_free(arena);
    nm_pool_free(pool);
    json_decref(j);
}

/* The average over five updates, plain and with the rising decay; the weights move by ema.deltaT before the T-th. */
static void test_averages(void **state)
{
    (void)state;
    json_t *j = load_json("optim/averages.json"), *ema = nm_json_get(j, "ema");
    nm_weights *f = load_tensors("optim/averages.safetensors");
    static const char *const kinds[] = { "plain", "warmup" };
    for (int k = 0; k < 2; k++) {
        float w[64], avg[64], delta[64];
        const nm_wview *init = need(f, "ema.init", ".weight", ""), *want = need(f, "ema.", kinds[k], ".weight");
        int64_t n = nm_wview_numel(init);
        assert_true(n > 0 && n <= 64);
        nm_wview_copy_f32(init, w);
        memcpy(avg, w, sizeof avg);
        for (int step = 1; step <= 5; step++) {
            char name[16];
            snprintf(name, sizeof name, "%d", step);
            nm_wview_copy_f32(need(f, "ema.delta", name, ".weight"), delta);
            for (int64_t i = 0; i < n; i++)
                w[i] += delta[i];
            double decay = k ? nm_ema_warm_decay(0.99, step) : 0.9;
            if (k)
                assert_true(fabs(decay - json_number_value(json_array_get(nm_json_get(ema, "warmup_decays_for_steps_1_to_5"), (size_t)step - 1))) < 1e-12);
            nm_ema_update(NULL, (size_t)n, avg, w, decay);
        }
        near_f64(kinds[k], want, avg, 2e-6);
    }
    nm_weights_close(f);
    json_decref(j);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_optimizers), cmocka_unit_test(test_schedules), cmocka_unit_test(test_clip),
                                        cmocka_unit_test(test_losses), cmocka_unit_test(test_averages) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
