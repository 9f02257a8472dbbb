/* test_convnet.c - every variant of convnet.h against plain C, over tails of outputs and channels, borders, strides and both activations.
 * The tolerance is that of sums in another order: 1e-5 of the sum of magnitudes. */
#include "variants.h"

static void fill(float *x, int64_t n, uint64_t seed)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = next_float(&seed);
}

static void near_all(const char *level, const char *what, const float *got, const float *want, int64_t n, double tolerance)
{
    for (int64_t i = 0; i < n; i++)
        if (!(fabs((double)got[i] - (double)want[i]) <= tolerance))
            fail_msg("%s %s[%lld]: %g, expected %g", level, what, (long long)i, (double)got[i], (double)want[i]);
}

static void check_weight_grad(const nm_kernels *k, const nm_kernels *ref, const char *level, nm_conv_shape s, int64_t n)
{
    s.oh = (s.h + 2 * s.pad - s.kh) / s.stride + 1;
    s.ow = (s.w + 2 * s.pad - s.kw) / s.stride + 1;
    int64_t nx = n * s.h * s.w * s.c, ny = n * s.oh * s.ow * s.o, nw = s.o * s.kh * s.kw * s.c;
    float *x = block((size_t)nx * 4), *dy = block((size_t)ny * 4), *got = block((size_t)nw * 4), *want = block((size_t)nw * 4);
    fill(x, nx, 1);
    fill(dy, ny, 2);
    fill(got, nw, 3); /* it adds */
    memcpy(want, got, (size_t)nw * 4);
    int64_t middle = s.o / 2;
    k->convnet.weight_grad(&s, n, x, dy, 0, middle, got);
    k->convnet.weight_grad(&s, n, x, dy, middle, s.o, got);
    ref->convnet.weight_grad(&s, n, x, dy, 0, s.o, want);
    near_all(level, "weight_grad", got, want, nw, 1e-5 * (double)(n * s.oh * s.ow));
    free(x), free(dy), free(got), free(want);
}

static void check_batchnorm(const nm_kernels *k, const nm_kernels *ref, const char *level, int64_t rows, int64_t c, nm_act act)
{
    int64_t n = rows * c;
    float *x = block((size_t)n * 4), *y = block((size_t)n * 4), *z = block((size_t)n * 4), *dy = block((size_t)n * 4), *v = block((size_t)(6 * c) * 4);
    float *got = block((size_t)(2 * c) * 4), *want = block((size_t)(2 * c) * 4), *dx = block((size_t)n * 4), *dz = block((size_t)n * 4);
    fill(x, n, 4);
    fill(dy, n, 5);
    fill(v, 6 * c, 6);
    fill(got, 2 * c, 7);
    memcpy(want, got, (size_t)(2 * c) * 4);
    k->convnet.bn_sums(rows, c, x, v, got, got + c);
    ref->convnet.bn_sums(rows, c, x, v, want, want + c);
    near_all(level, "bn_sums", got, want, 2 * c, 1e-5 * (double)(rows + 1));
    k->convnet.bn_apply(rows, c, x, v, v + c, act, y);
    ref->convnet.bn_apply(rows, c, x, v, v + c, act, z);
    near_all(level, "bn_apply", y, z, n, 1e-6);
    k->convnet.bn_back_sums(rows, c, x, z, dy, v, v + c, act, got, got + c);
    ref->convnet.bn_back_sums(rows, c, x, z, dy, v, v + c, act, want, want + c);
    near_all(level, "bn_back_sums", got, want, 2 * c, 1e-5 * (double)(rows + 1));
    fill(dx, n, 8);
    memcpy(dz, dx, (size_t)n * 4);
    k->convnet.bn_back_apply(rows, c, x, z, dy, v, v + c, v + 2 * c, act, dx);
    ref->convnet.bn_back_apply(rows, c, x, z, dy, v, v + c, v + 2 * c, act, dz);
    near_all(level, "bn_back_apply", dx, dz, n, 2e-6);
    free(x), free(y), free(z), free(dy), free(v), free(got), free(want), free(dx), free(dz);
}

static void test_all(void **state)
{
    (void)state;
    static const int64_t channels[] = { 1, 3, 7, 8, 16, 17, 24, 33, 48 }, outputs[] = { 1, 2, 5, 6, 7, 12, 16, 19 };
    nm_kernels table, plain;
    assert_true(level_table(0, &plain));
    for (int l = 1; l < LEVELS; l++) {
        if (!level_table(l, &table))
            continue;
        const nm_kernels *k = &table, *ref = &plain;
        const char *level = levels[l];
        for (size_t i = 0; i < sizeof channels / sizeof *channels; i++) {
            for (size_t o = 0; o < sizeof outputs / sizeof *outputs; o++) {
                check_weight_grad(k, ref, level, (nm_conv_shape){ .h = 6, .w = 5, .c = channels[i], .kh = 3, .kw = 3, .stride = 1, .pad = 1, .o = outputs[o] }, 2);
                check_weight_grad(k, ref, level, (nm_conv_shape){ .h = 7, .w = 9, .c = channels[i], .kh = 3, .kw = 2, .stride = 2, .pad = 1, .o = outputs[o] }, 1);
                check_weight_grad(k, ref, level, (nm_conv_shape){ .h = 1, .w = 11, .c = channels[i], .kh = 1, .kw = 1, .stride = 1, .pad = 0, .o = outputs[o] }, 3);
            }
            for (int act = 0; act < 2; act++)
                check_batchnorm(k, ref, level, 29, channels[i], act ? NM_ACT_RELU : NM_ACT_NONE);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_all) };
    return cmocka_run_group_tests(tests, say_skipped_levels, NULL);
}
