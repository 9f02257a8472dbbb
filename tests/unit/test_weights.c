/* test_weights.c - the published containers: the golden checkpoints of every format, the same weights in two containers compared, and
 * shards. Golden files: ../shared/golden/clip or tests/golden/clip; without either the comparisons are skipped, loudly. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "tensor/tensor.h"
#include "weights/weights.h"

static const char *golden(const char *name, char path[1024])
{
    static const char *const roots[] = { NOEMA_SOURCE_DIR "/tests/golden/clip", NOEMA_SHARED_DIR "/golden/clip" };
    for (size_t i = 0; i < 2; i++) {
        snprintf(path, 1024, "%s/%s", roots[i], name);
        if (nm_file_exists(path) || nm_dir_exists(path))
            return path;
    }
    print_message("SKIPPED: %s is in neither %s nor %s\n", name, roots[0], roots[1]);
    return NULL;
}

static nm_weights *open_ok(const char *path)
{
    noema_error err = NOEMA_ERROR_INIT;
    nm_weights *w = NULL;
    if (nm_weights_open(&w, path, &err) != NOEMA_OK)
        fail_msg("%s", err.message);
    assert_int_equal(nm_weights_verify(w, &err), NOEMA_OK);
    return w;
}

static float *values(const nm_wview *v)
{
    float *f = nm_alloc((size_t)nm_wview_numel(v) * 4 + 4);
    assert_non_null(f);
    nm_wview_copy_f32(v, f);
    return f;
}

/* Largest difference of two tensors; their shapes must agree. */
static double distance(const nm_wview *a, const nm_wview *b)
{
    assert_int_equal(a->ndim, b->ndim);
    for (int i = 0; i < a->ndim; i++)
        assert_int_equal(a->shape[i], b->shape[i]);
    float *x = values(a), *y = values(b);
    double worst = 0;
    for (int64_t i = 0; i < nm_wview_numel(a); i++)
        worst = fmax(worst, fabs((double)x[i] - (double)y[i]));
    nm_free(x);
    nm_free(y);
    return worst;
}

/* file, format, files, tensors, f32, f16, bf16, i64 (test_weights_torch.py compares the same files with torch, tensor by tensor) */
static const struct { const char *name, *format; size_t files; int n, f32, f16, bf16, i64; } files[] = {
    { "openai_vit.pt", "torchscript", 1, 65, 27, 35, 0, 3 },
    { "openai_vit_fullvocab.pt", "torchscript", 1, 53, 23, 27, 0, 3 },
    { "openai_rn.pt", "torchscript", 1, 192, 114, 50, 0, 28 },
    { "openai_rn_state_dict.pt", "torch zip", 1, 189, 114, 50, 0, 25 },
    { "openclip_vit_train.pt", "torch zip", 1, 62, 0, 62, 0, 0 },
    { "openclip_xlmr.bin", "torch zip", 1, 72, 0, 72, 0, 0 },
    { "openclip_vit.safetensors", "safetensors", 1, 62, 62, 0, 0, 0 },
    { "siglip_openclip.safetensors", "safetensors", 1, 74, 74, 0, 0, 0 },
    { "hf_clip", "safetensors", 4, 80, 78, 0, 0, 2 },
    { "hf_clip_bf16", "safetensors", 1, 78, 0, 0, 78, 0 },
    { "hf_siglip", "safetensors", 1, 88, 0, 88, 0, 0 },
    { "coca.safetensors", "safetensors", 1, 127, 0, 127, 0, 0 },
};

static void test_golden_counts(void **state)
{
    (void)state;
    char path[1024];
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        if (!golden(files[i].name, path))
            continue;
        nm_weights *w = open_ok(path);
        int count[NM_DTYPES] = { 0 };
        for (size_t k = 0; k < nm_weights_count(w); k++) {
            const nm_wview *v = nm_weights_at(w, k);
            count[v->dtype]++;
            assert_ptr_equal(nm_weights_find(w, v->name), v);
            float *f = values(v);
            for (int64_t j = 0; j < nm_wview_numel(v); j++)
                assert_true(isfinite(f[j]));
            nm_free(f);
        }
        assert_string_equal(nm_weights_format(w), files[i].format);
        assert_int_equal(nm_weights_file_count(w), files[i].files);
        assert_int_equal(nm_weights_count(w), files[i].n);
        assert_int_equal(count[NM_F32], files[i].f32);
        assert_int_equal(count[NM_F16], files[i].f16);
        assert_int_equal(count[NM_BF16], files[i].bf16);
        assert_int_equal(count[NM_I64], files[i].i64);
        nm_weights_close(w);
    }
}

/* Every tensor of b has its twin in a with the same values, to `tolerance`. */
static void compare_files(const char *a, const char *b, double tolerance)
{
    char pa[1024], pb[1024];
    if (!golden(a, pa) || !golden(b, pb))
        return;
    nm_weights *x = open_ok(pa), *y = open_ok(pb);
    for (size_t i = 0; i < nm_weights_count(y); i++) {
        const nm_wview *v = nm_weights_at(y, i), *u = nm_weights_find(x, v->name);
        if (!u)
            fail_msg("%s: %s is not in %s", b, v->name, a);
        if (distance(u, v) > tolerance)
            fail_msg("%s: %s differs by %g", b, v->name, distance(u, v));
    }
    nm_weights_close(x);
    nm_weights_close(y);
}

static void test_same_weights_two_containers(void **state)
{
    (void)state;
    compare_files("openai_rn.pt", "openai_rn_state_dict.pt", 0);
    compare_files("openclip_vit.safetensors", "openclip_vit_train.pt", 0);
}

static void test_training_checkpoint(void **state)
{
    (void)state;
    char path[1024];
    if (!golden("openclip_vit_train.pt", path))
        return;
    nm_weights *w = open_ok(path);
    const json_t *meta = nm_weights_meta(w);
    assert_int_equal(json_integer_value(json_object_get(meta, "epoch")), 7);
    assert_string_equal(json_string_value(json_object_get(meta, "name")), "ViT-tiny-run");
    assert_non_null(nm_weights_find(w, "visual.conv1.weight"));
    nm_weights_close(w);

    const char *p = path;
    nm_weights_options raw = { .raw = true };
    noema_error err = NOEMA_ERROR_INIT;
    assert_int_equal(nm_weights_open_many(&w, &p, 1, &raw, &err), NOEMA_OK);
    assert_non_null(nm_weights_find(w, "state_dict.module.visual.conv1.weight"));
    assert_null(nm_weights_find(w, "visual.conv1.weight"));
    nm_weights_close(w);

    nm_weights_options sub = { .subtree = "state_dict" };
    assert_int_equal(nm_weights_open_many(&w, &p, 1, &sub, &err), NOEMA_OK);
    assert_non_null(nm_weights_find(w, "visual.conv1.weight"));
    nm_weights_close(w);

    nm_weights_options none = { .subtree = "state_dict_ema" };
    assert_int_equal(nm_weights_open_many(&w, &p, 1, &none, &err), NOEMA_E_MISSING);
    assert_non_null(strstr(err.message, "state_dict_ema"));
}

/* The short token storage of openai_vit_fullvocab.pt: rows start one element apart. */
static void test_overlapping_strides(void **state)
{
    (void)state;
    char path[1024];
    if (!golden("openai_vit_fullvocab.pt", path))
        return;
    nm_weights *w = open_ok(path);
    const nm_wview *v = nm_weights_find(w, "token_embedding.weight");
    assert_non_null(v);
    assert_int_equal(v->shape[0], 49408);
    assert_int_equal(v->stride[0], 1);
    assert_int_equal(v->stride[1], 1);
    assert_false(nm_wview_contiguous(v));
    float *f = values(v);
    int64_t width = v->shape[1];
    for (int64_t r = 1; r < v->shape[0]; r += 997)
        for (int64_t c = 1; c < width; c++)
            assert_true(f[r * width + c - 1] == f[(r - 1) * width + c]);
    nm_free(f);
    double scale;
    assert_true(nm_weights_scalar(w, "logit_scale", &scale));
    assert_true(fabs(scale - log(100.0)) < 1e-5);
    assert_false(nm_weights_scalar(w, "token_embedding.weight", &scale));
    assert_false(nm_weights_scalar(w, "nothing", &scale));
    nm_weights_close(w);
}

/* For tests/cli/test_weights_torch.py: one line per tensor, name TAB dtype TAB shape TAB SHA-256 of its contiguous bytes. */
static int dump(const char *path, bool raw)
{
    noema_error err = NOEMA_ERROR_INIT;
    nm_weights *w;
    nm_weights_options o = { .raw = raw, .verify = true };
    if (nm_weights_open_many(&w, &path, 1, &o, &err) != NOEMA_OK) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    for (size_t i = 0; i < nm_weights_count(w); i++) {
        const nm_wview *v = nm_weights_at(w, i);
        size_t size = (size_t)nm_wview_numel(v) * nm_dtype_size(v->dtype);
        char *data = malloc(size + 1), hex[65], shape[128];
        nm_wview_copy_raw(v, data);
        nm_sha256_hex(data, size, hex);
        printf("%s\t%s\t%s\t%s\n", v->name, nm_dtype_name(v->dtype), nm_shape_text(v->ndim, v->shape, shape), hex);
        free(data);
    }
    char *meta = json_dumps(nm_weights_meta(w), JSON_COMPACT | JSON_SORT_KEYS);
    printf("meta\t%s\nformat\t%s\n", meta, nm_weights_format(w));
    free(meta);
    nm_weights_close(w);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 3 && (strcmp(argv[1], "--dump") == 0 || strcmp(argv[1], "--dump-raw") == 0))
        return dump(argv[2], strcmp(argv[1], "--dump-raw") == 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_counts),
        cmocka_unit_test(test_same_weights_two_containers),
        cmocka_unit_test(test_training_checkpoint),
        cmocka_unit_test(test_overlapping_strides),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
