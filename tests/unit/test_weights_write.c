/* test_weights_write.c - what the writers write, the readers read back: order, alignment, strides, counts; and a failed write leaves the
 * old file. That torch and numpy read the same files is shown by tests/cli/test_weights_torch.py. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"
#include "weights/weights.h"

static char dir[] = "/tmp/noema-weights-XXXXXX";
static char path[64];

static const char *in_dir(const char *name)
{
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

static nm_weights *open_ok(const char *p)
{
    noema_error err = NOEMA_ERROR_INIT;
    nm_weights *w = NULL;
    if (nm_weights_open(&w, p, &err) != NOEMA_OK)
        fail_msg("%s", err.message);
    return w;
}

static const float numbers[24] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23 };
static const uint8_t bytes[3] = { 7, 8, 9 };
static const int64_t longs[2] = { -5, INT64_C(1) << 40 };
static const uint16_t halves[3] = { 0x3C00, 0xC000, 0x7BFF }; /* 1, -2, 65504 */

/* A matrix, its transpose, a slice with a step, a scalar, an empty tensor, and other element sizes. */
static const nm_wview views[] = {
    { "matrix", NM_F32, 2, { 4, 6 }, { 6, 1 }, numbers },
    { "transposed", NM_F32, 2, { 6, 4 }, { 1, 6 }, numbers },
    { "sliced", NM_F32, 3, { 2, 2, 3 }, { 12, 6, 2 }, numbers },
    { "expanded", NM_F32, 2, { 3, 2 }, { 0, 1 }, numbers + 5 },
    { "scalar", NM_F32, 0, { 0 }, { 0 }, numbers + 3 },
    { "empty", NM_F32, 2, { 0, 3 }, { 3, 1 }, numbers },
    { "bytes", NM_U8, 1, { 3 }, { 1 }, bytes },
    { "longs", NM_I64, 1, { 2 }, { 1 }, longs },
    { "a.half", NM_F16, 2, { 1, 3 }, { 3, 1 }, halves },
    { "b.bf16", NM_BF16, 1, { 3 }, { 1 }, halves },
};
#define N_VIEWS (sizeof views / sizeof *views)

static void check_views(const nm_weights *w, const char *prefix)
{
    for (size_t i = 0; i < N_VIEWS; i++) {
        char name[64];
        snprintf(name, sizeof name, "%s%s", prefix, views[i].name);
        const nm_wview *v = nm_weights_find(w, name);
        if (!v)
            fail_msg("%s is missing", name);
        assert_int_equal(v->dtype, views[i].dtype);
        assert_int_equal(v->ndim, views[i].ndim);
        for (int k = 0; k < v->ndim; k++)
            assert_int_equal(v->shape[k], views[i].shape[k]);
        assert_true(nm_wview_contiguous(v));
        assert_int_equal((uintptr_t)v->data % nm_dtype_size(v->dtype), 0);
        char a[256], b[256];
        nm_wview_copy_raw(&views[i], a);
        nm_wview_copy_raw(v, b);
        assert_memory_equal(a, b, (size_t)nm_wview_numel(v) * nm_dtype_size(v->dtype));
    }
}

static void test_strided_copy(void **state)
{
    (void)state;
    float f[24];
    nm_wview_copy_f32(&views[1], f);
    for (int r = 0; r < 6; r++)
        for (int c = 0; c < 4; c++)
            assert_true(f[r * 4 + c] == (float)(c * 6 + r));
    nm_wview_copy_f32(&views[2], f);
    const float want[12] = { 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22 };
    assert_memory_equal(f, want, sizeof want);
    nm_wview_copy_f32(&views[3], f);
    assert_true(f[0] == 5 && f[1] == 6 && f[4] == 5 && f[5] == 6);
    nm_wview_copy_f32(&views[8], f);
    assert_true(f[0] == 1 && f[1] == -2 && f[2] == 65504);
    nm_wview_copy_f32(&views[7], f);
    assert_true(f[0] == -5 && f[1] == 0x1p40f);
    f[0] = 77;
    nm_wview_copy_f32(&views[5], f);
    assert_true(f[0] == 77);
}

/* Every f16 value, through the vectorised and the strided path. */
static void test_all_halves(void **state)
{
    (void)state;
    uint16_t *h = malloc(2 * 2 * 65536);
    float *a = malloc(4 * 65536), *b = malloc(4 * 65536);
    for (uint32_t i = 0; i < 65536; i++)
        h[2 * i] = h[2 * i + 1] = (uint16_t)i;
    nm_wview strided = { "h", NM_F16, 1, { 65536 }, { 2 }, h };
    nm_wview_copy_f32(&strided, a);
    for (uint32_t i = 0; i < 65536; i++)
        h[i] = (uint16_t)i;
    nm_wview dense = { "h", NM_F16, 1, { 65536 }, { 1 }, h };
    nm_wview_copy_f32(&dense, b);
    assert_memory_equal(a, b, 4 * 65536);
    free(h);
    free(a);
    free(b);
}

static void test_safetensors(void **state)
{
    (void)state;
    noema_error err = NOEMA_ERROR_INIT;
    json_t *meta = json_pack("{s:s, s:s}", "format", "pt", "quote", "a \"b\"");
    assert_int_equal(nm_safetensors_write(in_dir("x.safetensors"), views, N_VIEWS, meta, &err), NOEMA_OK);
    nm_weights *w = open_ok(path);
    check_views(w, "");
    assert_int_equal(nm_weights_count(w), N_VIEWS);
    assert_string_equal(nm_weights_at(w, 0)->name, "longs"); /* largest elements first */
    assert_string_equal(nm_weights_at(w, N_VIEWS - 1)->name, "bytes");
    assert_string_equal(json_string_value(json_object_get(nm_weights_meta(w), "quote")), "a \"b\"");
    nm_weights_close(w);
    nm_wview twice[2] = { views[0], views[0] };
    assert_int_equal(nm_safetensors_write(path, twice, 2, NULL, &err), NOEMA_E_ARGUMENT);
    w = open_ok(path); /* the old file is still there */
    assert_int_equal(nm_weights_count(w), N_VIEWS);
    nm_weights_close(w);
    json_decref(meta);
    unlink(path);
}

/* A large transposed tensor goes out in several pieces. */
static void test_large_strided(void **state)
{
    (void)state;
    noema_error err = NOEMA_ERROR_INIT;
    int64_t rows = 700, cols = 1100;
    float *f = malloc((size_t)(rows * cols) * 4), *g = malloc((size_t)(rows * cols) * 4);
    for (int64_t i = 0; i < rows * cols; i++)
        f[i] = (float)i;
    nm_wview t = { "t", NM_F32, 2, { cols, rows }, { 1, cols }, f }, wide = { "wide", NM_F32, 3, { 1, cols, rows }, { 7, 1, cols }, f };
    nm_wview both[2] = { t, wide };
    assert_int_equal(nm_safetensors_write(in_dir("t.safetensors"), both, 2, NULL, &err), NOEMA_OK);
    nm_weights *w = open_ok(path);
    for (size_t i = 0; i < 2; i++) {
        nm_wview_copy_f32(nm_weights_at(w, i), g);
        for (int64_t c = 0; c < cols; c++)
            for (int64_t r = 0; r < rows; r++)
                assert_true(g[c * rows + r] == f[r * cols + c]);
    }
    nm_weights_close(w);
    unlink(path);
    free(f);
    free(g);
}

static void test_npy(void **state)
{
    (void)state;
    noema_error err = NOEMA_ERROR_INIT;
    nm_npy_writer *n;
    int64_t dim = 6;
    assert_int_equal(nm_npy_open(&n, in_dir("x.npy"), NM_F32, 1, &dim, &err), NOEMA_OK);
    assert_false(nm_file_exists(path)); /* nobody sees half a file */
    assert_int_equal(nm_npy_append(n, numbers, 3, &err), NOEMA_OK);
    assert_int_equal(nm_npy_append(n, numbers, 0, &err), NOEMA_OK);
    assert_int_equal(nm_npy_append(n, numbers + 18, 1, &err), NOEMA_OK);
    assert_int_equal(nm_npy_close(n, &err), NOEMA_OK);
    nm_weights *w = open_ok(path);
    assert_string_equal(nm_weights_format(w), "npy");
    const nm_wview *v = nm_weights_find(w, "arr_0");
    assert_non_null(v);
    assert_int_equal(v->ndim, 2);
    assert_int_equal(v->shape[0], 4);
    assert_int_equal(v->shape[1], 6);
    assert_memory_equal(v->data, numbers, sizeof numbers);
    nm_weights_close(w);
    unlink(path);

    assert_int_equal(nm_npy_open(&n, in_dir("gone.npy"), NM_I64, 0, NULL, &err), NOEMA_OK);
    nm_npy_discard(n);
    assert_false(nm_file_exists(path));
    assert_int_equal(nm_npy_write(path, &views[9], &err), NOEMA_E_UNSUPPORTED);
    for (size_t i = 0; i + 1 < N_VIEWS; i++) {
        assert_int_equal(nm_npy_write(in_dir("one.npy"), &views[i], &(noema_error)NOEMA_ERROR_INIT), NOEMA_OK);
        w = open_ok(path);
        char a[256], b[256];
        size_t size = (size_t)nm_wview_numel(&views[i]) * nm_dtype_size(views[i].dtype);
        nm_wview_copy_raw(&views[i], a);
        nm_wview_copy_raw(nm_weights_at(w, 0), b);
        assert_memory_equal(a, b, size);
        assert_int_equal(nm_weights_at(w, 0)->ndim, views[i].ndim);
        nm_weights_close(w);
        unlink(path);
    }
}

static void test_torch(void **state)
{
    (void)state;
    noema_error err = NOEMA_ERROR_INIT;
    json_t *state_dict = json_object();
    for (size_t i = 0; i < N_VIEWS; i++)
        json_object_set_new(state_dict, views[i].name, json_pack("{s:i}", "$tensor", (int)i));
    json_t *tree = json_pack("{s:i, s:s, s:o, s:{s:{s:{s:{s:{s:i}}}}, s:[{s:f, s:{s:[f, f]}, s:b, s:n}]}, s:I}", "epoch", 3, "name", "run ü",
                             "state_dict", state_dict, "optimizer", "state", "$int_keys", "0", "exp_avg", "$tensor", 0, "param_groups", "lr", 0.001,
                             "betas", "$tuple", 0.9, 0.98, "amsgrad", 0, "foreach", "big", (json_int_t)1 << 50);
    assert_non_null(tree);
    if (nm_torch_write(in_dir("x.pt"), tree, views, N_VIEWS, &err) != NOEMA_OK)
        fail_msg("%s", err.message);
    json_decref(tree);
    nm_weights *w = open_ok(path);
    assert_string_equal(nm_weights_format(w), "torch zip");
    assert_int_equal(nm_weights_count(w), N_VIEWS);
    check_views(w, "");
    assert_int_equal(nm_weights_verify(w, &err), NOEMA_OK);
    const json_t *meta = nm_weights_meta(w);
    assert_int_equal(json_integer_value(json_object_get(meta, "epoch")), 3);
    assert_string_equal(json_string_value(json_object_get(meta, "name")), "run ü");
    assert_true(json_integer_value(json_object_get(meta, "big")) == (json_int_t)1 << 50);
    const json_t *group = json_array_get(json_object_get(json_object_get(meta, "optimizer"), "param_groups"), 0);
    assert_true(json_real_value(json_array_get(json_object_get(group, "betas"), 1)) == 0.98);
    nm_weights_close(w);

    const char *p = path;
    nm_weights_options raw = { .raw = true, .verify = true };
    assert_int_equal(nm_weights_open_many(&w, &p, 1, &raw, &err), NOEMA_OK);
    check_views(w, "state_dict.");
    assert_non_null(nm_weights_find(w, "optimizer.state.0.exp_avg"));
    nm_weights_close(w);
    json_t *bad = json_pack("{s:{s:i}}", "x", "$tensor", 99);
    assert_int_equal(nm_torch_write(path, bad, views, N_VIEWS, &err), NOEMA_E_ARGUMENT);
    json_decref(bad);
    unlink(path);
}

/* The same content has the same identity in every container and stride order; a changed value or name has another. */
static void test_identity(void **state)
{
    (void)state;
    noema_error err = NOEMA_ERROR_INIT;
    char a[65], b[65], full[65];
    nm_wview v[3] = { views[0], views[1], views[6] };
    json_t *tree = json_pack("{s:{s:i}, s:{s:i}, s:{s:i}}", "transposed", "$tensor", 1, "matrix", "$tensor", 0, "bytes", "$tensor", 2);
    assert_int_equal(nm_torch_write(in_dir("i.pt"), tree, v, 3, &err), NOEMA_OK);
    json_decref(tree);
    nm_weights *w = open_ok(path);
    assert_int_equal(nm_weights_sha256(w, NM_IDENTITY_QUICK, a, &err), NOEMA_OK);
    assert_int_equal(nm_weights_sha256(w, NM_IDENTITY_FULL, full, &err), NOEMA_OK);
    nm_weights_close(w);
    unlink(path);
    assert_string_equal(a, full); /* small tensors are hashed whole */
    assert_int_equal(nm_safetensors_write(in_dir("i.safetensors"), v, 3, NULL, &err), NOEMA_OK);
    w = open_ok(path);
    nm_weights_sha256(w, NM_IDENTITY_QUICK, b, &err);
    nm_weights_close(w);
    assert_string_equal(a, b);
    v[2].name = "bytes2";
    assert_int_equal(nm_safetensors_write(path, v, 3, NULL, &err), NOEMA_OK);
    w = open_ok(path);
    nm_weights_sha256(w, NM_IDENTITY_QUICK, b, &err);
    nm_weights_close(w);
    assert_string_not_equal(a, b);
    unlink(path);
}

/* For tests/cli/test_weights_torch.py: the files of all three writers in a folder. */
static int write_samples(const char *folder)
{
    noema_error err = NOEMA_ERROR_INIT;
    char p[1024];
    json_t *state_dict = json_object(), *tree;
    for (size_t i = 0; i < N_VIEWS; i++)
        json_object_set_new(state_dict, views[i].name, json_pack("{s:i}", "$tensor", (int)i));
    tree = json_pack("{s:i, s:o, s:{s:{s:{s:{s:i}}}, s:[], s:{s:[f, f]}, s:{}, s:I, s:n, s:b}}", "epoch", 3, "state_dict", state_dict, "optimizer",
                     "state", "$int_keys", "12", "$tensor", 0, "empty", "betas", "$tuple", 0.9, 0.98, "none", "big", -((json_int_t)1 << 50), "null",
                     "yes", 1);
    snprintf(p, sizeof p, "%s/ours.pt", folder);
    noema_status s = tree ? nm_torch_write(p, tree, views, N_VIEWS, &err) : NOEMA_E_INTERNAL;
    snprintf(p, sizeof p, "%s/ours.safetensors", folder);
    s = s ? s : nm_safetensors_write(p, views, N_VIEWS, NULL, &err);
    for (size_t i = 0; i < N_VIEWS && !s; i++) {
        snprintf(p, sizeof p, "%s/%s.npy", folder, views[i].name);
        s = views[i].dtype == NM_BF16 ? NOEMA_OK : nm_npy_write(p, &views[i], &err);
    }
    json_decref(tree);
    if (s)
        fprintf(stderr, "%s\n", err.message);
    return s ? 1 : 0;
}

static int make_dir(void **state)
{
    (void)state;
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    (void)state;
    return rmdir(dir); /* fails when a test left a file behind */
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--write") == 0)
        return write_samples(argv[2]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_strided_copy), cmocka_unit_test(test_all_halves), cmocka_unit_test(test_safetensors),
        cmocka_unit_test(test_large_strided), cmocka_unit_test(test_npy),       cmocka_unit_test(test_torch),
        cmocka_unit_test(test_identity),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
