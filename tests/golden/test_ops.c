/* test_ops.c - operators and their gradients against PyTorch's figures (tests/golden/train/ops): forward, gradients of every input
 * and parameter, with the tolerance that each case states. A case whose operator noema does not have yet is listed. */
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
#include "nn/nn.h"
#include "tensor/tape.h"
#include "weights/weights.h"

typedef struct golden_case {
    nm_run *r;
    const json_t *json;
    const char *name;
    const nm_weights *file;
    nm_weight *w[4];    /* parameters in use: fields of lin, norm, table, pos */
    nm_grad g[4];
    nm_linear_w lin;
    nm_norm_w norm;
    nm_weight table, pos;
    const char *w_name[4];
    int n_w;
    nm_tensor x;        /* the differentiable input, when it is a tensor */
    const char *x_name;
} golden_case;

static const nm_wview *find(const golden_case *c, const char *part, const char *name)
{
    char full[256];
    snprintf(full, sizeof full, "%s.%s.%s", c->name, part, name);
    return nm_weights_find(c->file, full);
}

static nm_tensor load_tensor(golden_case *c, const char *name)
{
    const nm_wview *v = find(c, "in", name);
    assert_non_null(v);
    nm_shape s = { .ndim = v->ndim };
    memcpy(s.dim, v->shape, sizeof s.dim);
    nm_tensor t = nm_new(c->r, NM_F32, s);
    nm_wview_copy_f32(v, t.data);
    return t;
}

static nm_tensor input(golden_case *c, const char *name)
{
    c->x = load_tensor(c, name);
    c->x_name = name;
    nm_want_grad(c->r, &c->x);
    return c->x;
}

/* A trainable weight; false when the case has none. */
static bool param(golden_case *c, nm_weight *w, const char *name)
{
    const nm_wview *v = find(c, "in", name);
    if (!v)
        return false;
    nm_shape s = { .ndim = v->ndim };
    memcpy(s.dim, v->shape, sizeof s.dim);
    float *data = nm_alloc((size_t)nm_wview_numel(v) * sizeof *data);
    nm_wview_copy_f32(v, data);
    nm_weight_set(w, data, s);
    w->grad = &c->g[c->n_w];
    c->w[c->n_w] = w;
    c->w_name[c->n_w++] = name;
    return true;
}

static void compare(golden_case *c, const char *part, const char *name, const float *got)
{
    char key[64];
    snprintf(key, sizeof key, "%s.%s", part, name);
    const json_t *tol = nm_json_get(nm_json_get(c->json, "tolerance"), key);
    const nm_wview *v = find(c, part, name);
    assert_non_null(v);
    assert_non_null(tol);
    assert_int_equal(v->dtype, NM_F64);
    double abs_tol = nm_json_num(tol, "abs", 0), rel = nm_json_num(tol, "rel", 0);
    for (int64_t i = 0; i < nm_wview_numel(v); i++) {
        double want = ((const double *)v->data)[i], g = got ? (double)got[i] : 0;
        if (!(fabs(g - want) <= abs_tol + rel * fabs(want))) {
            print_error("%s %s[%lld]: want %.9g got %.9g (tolerance %g)\n", c->name, key, (long long)i, want, g, abs_tol);
            fail();
        }
    }
}

/* Each operator: from the case's inputs to y; false when noema has no such form. */
static bool op_linear(golden_case *c, nm_tensor *y)
{
    nm_tensor x = input(c, "x");
    param(c, &c->lin.weight, "w");
    param(c, &c->lin.bias, "b");
    *y = nm_linear(c->r, x, &c->lin, (nm_epilogue){ 0 });
    return true;
}

static bool op_activation(golden_case *c, nm_tensor *y, nm_act act)
{
    *y = nm_activation(c->r, input(c, "x"), act);
    return true;
}

static bool op_layernorm(golden_case *c, nm_tensor *y)
{
    nm_tensor x = input(c, "x");
    param(c, &c->norm.weight, "w");
    param(c, &c->norm.bias, "b");
    *y = nm_layernorm_f32(c->r, x, &c->norm, (float)nm_json_num(nm_json_get(c->json, "attrs"), "eps", 1e-5));
    return true;
}

static bool op_embedding(golden_case *c, nm_tensor *y)
{
    if (nm_json_get(nm_json_get(c->json, "attrs"), "padding_idx"))
        return false;
    param(c, &c->table, "table");
    bool pos = param(c, &c->pos, "pos");
    const nm_wview *ids = find(c, "in", "ids");
    int32_t id[64], at[64];
    int64_t n = nm_wview_numel(ids), len = ids->shape[1];
    for (int64_t i = 0; i < n; i++) {
        id[i] = (int32_t)((const int64_t *)ids->data)[i];
        at[i] = (int32_t)(i % len);
    }
    *y = nm_embedding(c->r, id, n, &c->table, pos ? at : NULL, pos ? &c->pos : NULL);
    return true;
}

static bool op_conv(golden_case *c, nm_tensor *y)
{
    if (strcmp(c->name, "patch_conv_nobias") != 0)
        return false; /* the other cases are general convolutions, and want the gradient of the pixels too */
    nm_tensor x = load_tensor(c, "x");
    param(c, &c->lin.weight, "w");
    *y = nm_patch_embed(c->r, x, &c->lin);
    return true;
}

static bool op_normalize(golden_case *c, nm_tensor *y)
{
    if (nm_json_get(nm_json_get(c->json, "attrs"), "dim"))
        return false;
    *y = nm_normalize(c->r, input(c, "x"), 1e-12f);
    return true;
}

static bool dispatch(golden_case *c, const char *op, nm_tensor *y)
{
    static const struct { const char *name; nm_act act; } acts[] = {
        { "gelu_exact", NM_ACT_GELU }, { "gelu_tanh", NM_ACT_GELU_TANH }, { "quick_gelu", NM_ACT_QUICK_GELU },
        { "silu", NM_ACT_SILU },       { "relu", NM_ACT_RELU },           { "tanh", NM_ACT_TANH },
    };
    for (size_t i = 0; i < sizeof acts / sizeof *acts; i++)
        if (strcmp(op, acts[i].name) == 0)
            return op_activation(c, y, acts[i].act);
    if (strcmp(op, "linear") == 0)
        return op_linear(c, y);
    if (strcmp(op, "layer_norm") == 0)
        return op_layernorm(c, y);
    if (strcmp(op, "embedding") == 0)
        return op_embedding(c, y);
    if (strcmp(op, "conv2d") == 0)
        return op_conv(c, y);
    if (strcmp(op, "l2_normalize") == 0)
        return op_normalize(c, y);
    return false;
}

static bool run_case(const json_t *json, const nm_weights *file)
{
    nm_pool *pool = nm_pool_new(2);
    nm_arena *arena = nm_arena_new(1 << 20);
    nm_run r;
    nm_run_init(&r, nm_kernels_get(), pool, arena, NM_F32);
    r.tape = nm_tape_new();
    golden_case c = { .r = &r, .json = json, .name = nm_json_str(json, "name", ""), .file = file };
    nm_tensor y = { 0 };
    bool done = dispatch(&c, nm_json_str(json, "op", ""), &y);
    if (done) {
        assert_string_equal(r.err.message, "");
        assert_non_null(y.data);
        compare(&c, "out", "y", y.data);
        const nm_wview *up = find(&c, "gout", "y");
        float *dy = nm_grad_data(&r, &y);
        assert_non_null(dy);
        nm_wview_copy_f32(up, dy);
        nm_backward(&r);
        assert_string_equal(r.err.message, "");
        if (c.x.data)
            compare(&c, "grad", c.x_name, nm_grad_read(&c.x));
        for (int i = 0; i < c.n_w; i++)
            compare(&c, "grad", c.w_name[i], c.g[i].data);
    }
    for (int i = 0; i < c.n_w; i++) {
        nm_free(c.g[i].data);
        nm_weight_free(c.w[i]);
    }
    nm_tape_free(r.tape);
    nm_arena_free(arena);
    nm_pool_free(pool);
    return done;
}

static void test_family(void **state)
{
    const char *family = *state;
    char path[512];
    noema_error err = NOEMA_ERROR_INIT;
    snprintf(path, sizeof path, "%s/tests/golden/train/ops/%s.json", NOEMA_SOURCE_DIR, family);
    json_t *j = nm_json_load(path, &err);
    assert_non_null(j);
    snprintf(path, sizeof path, "%s/tests/golden/train/ops/%s.safetensors", NOEMA_SOURCE_DIR, family);
    nm_weights *w;
    assert_int_equal(nm_weights_open(&w, path, &err), NOEMA_OK);
    size_t i;
    json_t *c;
    int ran = 0;
    json_array_foreach(nm_json_get(j, "cases"), i, c) {
        if (run_case(c, w))
            ran++;
        else
            print_message("not an operator yet: %s\n", nm_json_str(c, "name", ""));
    }
    assert_true(ran > 0);
    nm_weights_close(w);
    json_decref(j);
}

static void test_resize_positions(void **state)
{
    (void)state;
    char path[512];
    noema_error err = NOEMA_ERROR_INIT;
    nm_weights *w;
    snprintf(path, sizeof path, "%s/tests/golden/train/ops/resize.safetensors", NOEMA_SOURCE_DIR);
    assert_int_equal(nm_weights_open(&w, path, &err), NOEMA_OK);
    static const struct { const char *name; int h, w; nm_interp how; } cases[] = {
        { "pos_embed_up_bicubic", 7, 5, NM_INTERP_BICUBIC },
        { "pos_embed_up_bicubic_antialias", 7, 5, NM_INTERP_BICUBIC_AA },
        { "pos_embed_down_bicubic", 3, 2, NM_INTERP_BICUBIC },
        { "pos_embed_down_bicubic_antialias", 3, 2, NM_INTERP_BICUBIC_AA },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        golden_case c = { .name = cases[i].name, .file = w };
        const nm_wview *in = find(&c, "in", "pos"), *out = find(&c, "out", "y");
        float pos[17 * 3], got[36 * 3];
        nm_wview_copy_f32(in, pos);
        assert_true(nm_resize_positions(pos, 1, 4, 4, got, cases[i].h, cases[i].w, 3, cases[i].how));
        for (int64_t k = 0; k < nm_wview_numel(out); k++)
            assert_true(fabs((double)got[k] - ((const double *)out->data)[k]) < 1e-6);
    }
    nm_weights_close(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        { "linear", test_family, NULL, NULL, "linear" },         { "activations", test_family, NULL, NULL, "activations" },
        { "layernorm", test_family, NULL, NULL, "layernorm" },   { "embedding", test_family, NULL, NULL, "embedding" },
        { "conv", test_family, NULL, NULL, "conv" },             { "normalize", test_family, NULL, NULL, "normalize" },
        cmocka_unit_test(test_resize_positions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
