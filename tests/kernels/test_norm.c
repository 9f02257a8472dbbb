/* test_norm.c - every variant of norm.h against the formula in double precision, over tails, strides and magnitudes; a row's
 * bits do not depend on the other rows, and the vector variants agree bit for bit with each other. */
#include "variants.h"

#include "base/half.h"

static const int64_t widths[] = { 1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 100, 127, 192, 255, 512, 768, 1001, 1280 };
#define WIDTHS (int)(sizeof widths / sizeof *widths)

static void fill(float *x, int64_t n, uint64_t seed, float scale, float shift)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = next_float(&seed) * scale + shift;
}

static void stats(const float *x, int64_t n, double *mean, double *var, double *square)
{
    double s = 0, c = 0, q = 0;
    for (int64_t i = 0; i < n; i++)
        s += x[i], q += (double)x[i] * x[i];
    for (int64_t i = 0; i < n; i++)
        c += (x[i] - s / (double)n) * (x[i] - s / (double)n);
    *mean = s / (double)n;
    *var = c / (double)n;
    *square = q;
}

#define ROWS 5

/* scale and shift of the input: usual, tiny (eps decides), huge, a mean far larger than the deviation. The error of the mean
 * is a few ulp of the values, so with a large shift it is shift / deviation times larger in the result. */
static void check_layernorm(const nm_kernels *k, const char *level, int64_t n, float scale, float shift, bool with_weight, bool with_bias)
{
    int64_t ldx = n + 3, ldy = n + 1;
    float *x = block((size_t)(ROWS * ldx) * 4), *w = block((size_t)n * 4), *b = block((size_t)n * 4), *y = block((size_t)(ROWS * ldy) * 4);
    nm_bf16 *h = block((size_t)(ROWS * ldy) * 2);
    fill(x, ROWS * ldx, 7, scale, shift);
    fill(w, n, 8, 1, 0.5f);
    fill(b, n, 9, 1, 0);
    for (int64_t i = 0; i < ROWS * ldy; i++)
        y[i] = 99, h[i] = 99;
    k->norm.layernorm(ROWS, n, x, ldx, with_weight ? w : NULL, with_bias ? b : NULL, 1e-5f, y, NM_F32, ldy);
    k->norm.layernorm(ROWS, n, x, ldx, with_weight ? w : NULL, with_bias ? b : NULL, 1e-5f, h, NM_BF16, ldy);
    for (int64_t r = 0; r < ROWS; r++) {
        double mean, var, square;
        stats(x + r * ldx, n, &mean, &var, &square);
        for (int64_t i = 0; i < n; i++) {
            double want = (x[r * ldx + i] - mean) / sqrt(var + 1e-5) * (with_weight ? w[i] : 1) + (with_bias ? b[i] : 0);
            double tol = 1e-6 * (1 + fabs(want)) + 2e-7 * fabs(mean) / sqrt(var + 1e-5);
            if (!(fabs(y[r * ldy + i] - want) <= tol))
                fail_msg("%s layernorm n=%lld scale=%g shift=%g: %g, expected %g", level, (long long)n, (double)scale, (double)shift,
                         (double)y[r * ldy + i], want);
            assert_int_equal(h[r * ldy + i], nm_f32_to_bf16(y[r * ldy + i]));
        }
        assert_true(y[r * ldy + n] == 99 && h[r * ldy + n] == 99);
    }
    float *alone = block((size_t)n * 4); /* a row by itself, in place */
    memcpy(alone, x + 3 * ldx, (size_t)n * 4);
    k->norm.layernorm(1, n, alone, n, with_weight ? w : NULL, with_bias ? b : NULL, 1e-5f, alone, NM_F32, n);
    assert_memory_equal(alone, y + 3 * ldy, (size_t)n * 4);
    free(alone);
    free(x);
    free(w);
    free(b);
    free(y);
    free(h);
}

static void test_layernorm(void **state)
{
    (void)state;
    static const float scales[][2] = { { 1, 0 }, { 3, 1 }, { 1e-3f, 0 }, { 1e-6f, 0 }, { 1e-20f, 0 }, { 0, 0 }, { 1e8f, 0 }, { 1, 100 } };
    nm_kernels k;
    for (int l = 0; l < LEVELS; l++)
        for (int i = 0; level_table(l, &k) && i < WIDTHS; i++)
            for (size_t s = 0; s < sizeof scales / sizeof *scales; s++)
                for (int mode = 0; mode < 4; mode++)
                    check_layernorm(&k, levels[l], widths[i], scales[s][0], scales[s][1], mode & 1, mode & 2);
}

static void test_rmsnorm(void **state)
{
    (void)state;
    nm_kernels k;
    for (int l = 0; l < LEVELS; l++)
        for (int i = 0; level_table(l, &k) && i < WIDTHS; i++) {
            int64_t n = widths[i];
            float *x = block((size_t)(2 * n) * 4), *w = block((size_t)n * 4), *y = block((size_t)(2 * n) * 4);
            nm_bf16 *h = block((size_t)(2 * n) * 2);
            fill(x, 2 * n, 3, 2, 0);
            fill(w, n, 4, 1, 0);
            k.norm.rmsnorm(2, n, x, n, w, 1e-6f, y, NM_F32, n);
            k.norm.rmsnorm(2, n, x, n, w, 1e-6f, h, NM_BF16, n);
            for (int64_t j = 0; j < 2 * n; j++) {
                double mean, var, square;
                stats(x + j / n * n, n, &mean, &var, &square);
                double want = x[j] / sqrt(square / (double)n + 1e-6) * w[j % n];
                assert_true(fabs(y[j] - want) <= 1e-6 * (1 + fabs(want)));
                assert_int_equal(h[j], nm_f32_to_bf16(y[j]));
            }
            free(x);
            free(w);
            free(y);
            free(h);
        }
}

static void test_l2norm(void **state)
{
    (void)state;
    nm_kernels k;
    for (int l = 0; l < LEVELS; l++)
        for (int i = 0; level_table(l, &k) && i < WIDTHS; i++) {
            int64_t n = widths[i], ld = n + 2;
            float *x = block((size_t)(3 * ld) * 4), *y = block((size_t)(3 * ld) * 4);
            fill(x, 3 * ld, 5, 4, 0);
            memset(x + ld, 0, (size_t)n * 4); /* a zero row stays zero */
            memcpy(y, x, (size_t)(3 * ld) * 4);
            k.norm.l2norm(3, n, y, ld, 1e-12f);
            for (int64_t j = 0; j < 3 * ld; j++) {
                double mean, var, square;
                stats(x + j / ld * ld, n, &mean, &var, &square);
                double want = j % ld >= n ? x[j] : j / ld == 1 ? 0 : x[j] / sqrt(square);
                assert_true(fabs(y[j] - want) <= 3e-7 * fabs(want));
            }
            free(x);
            free(y);
        }
}

/* The largest of x[n] and the sum of exp(x - max), in double. */
static void powers(const float *x, int64_t n, double *max, double *sum)
{
    *max = -INFINITY;
    *sum = 0;
    for (int64_t i = 0; i < n; i++)
        *max = fmax(*max, x[i]);
    for (int64_t i = 0; i < n; i++)
        *sum += exp(x[i] - *max);
}

static void check_softmax(const nm_kernels *k, const char *level, int64_t n, float spread)
{
    float *x = block((size_t)(2 * n) * 4), *y = block((size_t)(2 * n) * 4);
    fill(x, 2 * n, 11, spread, spread / 3);
    if (n > 2)
        x[1] = -INFINITY;
    memcpy(y, x, (size_t)(2 * n) * 4);
    k->norm.softmax(2, n, y, n);
    for (int64_t r = 0; r < 2; r++) {
        double max, sum;
        powers(x + r * n, n, &max, &sum);
        for (int64_t i = 0; i < n; i++) {
            double want = exp(x[r * n + i] - max) / sum, got = y[r * n + i];
            double in = fabs(x[r * n + i] - max) < 100 ? fabs(x[r * n + i] - max) : 0; /* x - max is rounded to f32 */
            if (!(fabs(got - want) <= (5e-7 + 6e-8 * in) * want + 3e-45)) /* two subnormal steps */
                fail_msg("%s softmax n=%lld spread=%g: %.9g, expected %.9g", level, (long long)n, (double)spread, got, want);
        }
    }
    free(x);
    free(y);
}

static void test_softmax(void **state)
{
    (void)state;
    static const float spreads[] = { 0, 1e-3f, 1, 10, 40, 100, 1e4f };
    nm_kernels k;
    for (int l = 0; l < LEVELS; l++)
        for (int i = 0; level_table(l, &k) && i < WIDTHS; i++)
            for (int s = 0; s < 7; s++)
                check_softmax(&k, levels[l], widths[i], spreads[s]);
}

static void test_log_softmax(void **state)
{
    (void)state;
    static const float spreads[] = { 0, 1, 10, 40, 1e4f };
    static const int64_t lengths[] = { 1, 2, 3, 15, 17, 33, 64, 65, 1000, 1023, 1024, 1025, 2050, 30524 };
    nm_kernels k;
    for (int l = 0; l < LEVELS; l++)
        for (size_t i = 0; level_table(l, &k) && i < sizeof lengths / sizeof *lengths; i++)
            for (size_t s = 0; s < sizeof spreads / sizeof *spreads; s++) {
                int64_t n = lengths[i], ld = n + 3;
                float *x = block((size_t)(2 * ld) * 4), *y = block((size_t)(2 * ld) * 4);
                fill(x, 2 * ld, 12, spreads[s], spreads[s] / 3);
                if (n > 2)
                    x[1] = -INFINITY;
                memcpy(y, x, (size_t)(2 * ld) * 4);
                k.norm.log_softmax(2, n, y, ld);
                for (int64_t r = 0; r < 2; r++) {
                    double max, sum;
                    powers(x + r * ld, n, &max, &sum);
                    for (int64_t j = 0; j < n; j++) { /* shift and result are rounded to f32 */
                        double want = x[r * ld + j] - max - log(sum), got = y[r * ld + j];
                        if (want != got && !(fabs(got - want) <= 4e-7 + 1.2e-7 * (fabs(max) + log(sum) + fabs(want))))
                            fail_msg("%s log_softmax n=%lld spread=%g: %.9g, expected %.9g", levels[l], (long long)n, (double)spreads[s], got, want);
                    }
                    assert_memory_equal(y + r * ld + n, x + r * ld + n, 3 * 4);
                }
                free(x);
                free(y);
            }
}

static void test_nan_and_infinity(void **state)
{
    (void)state;
    nm_kernels k;
    for (int l = 0; l < LEVELS; l++) {
        if (!level_table(l, &k))
            continue;
        for (int at = 0; at < 70; at += 23) {
            float x[3 * 70];
            fill(x, 210, 1, 1, 0);
            x[70 + at] = NAN;
            k.norm.softmax(3, 70, x, 70);
            for (int i = 0; i < 210; i++)
                assert_int_equal(isnan(x[i]) != 0, i / 70 == 1);
            fill(x, 210, 1, 1, 0);
            x[70 + at] = NAN;
            k.norm.log_softmax(3, 70, x, 70);
            for (int i = 0; i < 210; i++)
                assert_int_equal(isnan(x[i]) != 0, i / 70 == 1);
            fill(x, 210, 1, 1, 0);
            x[70 + at] = NAN;
            k.norm.layernorm(3, 70, x, 70, NULL, NULL, 1e-5f, x, NM_F32, 70);
            for (int i = 0; i < 210; i++)
                assert_int_equal(isnan(x[i]) != 0, i / 70 == 1);
        }
    }
}

static void test_widths_agree(void **state)
{
    (void)state;
    nm_kernels a, b;
    if (!level_table(1, &a) || !level_table(2, &b))
        return;
    for (int i = 0; i < WIDTHS; i++) {
        int64_t n = widths[i];
        float *x = block((size_t)n * 4), *y = block((size_t)n * 4), *z = block((size_t)n * 4);
        fill(x, n, 21, 2, 0.3f);
        a.norm.layernorm(1, n, x, n, x, NULL, 1e-5f, y, NM_F32, n);
        b.norm.layernorm(1, n, x, n, x, NULL, 1e-5f, z, NM_F32, n);
        assert_memory_equal(y, z, (size_t)n * 4);
        a.norm.softmax(1, n, y, n);
        b.norm.softmax(1, n, z, n);
        assert_memory_equal(y, z, (size_t)n * 4);
        a.norm.log_softmax(1, n, y, n);
        b.norm.log_softmax(1, n, z, n);
        assert_memory_equal(y, z, (size_t)n * 4);
        free(x);
        free(y);
        free(z);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layernorm), cmocka_unit_test(test_rmsnorm),          cmocka_unit_test(test_l2norm),
        cmocka_unit_test(test_softmax),   cmocka_unit_test(test_log_softmax), cmocka_unit_test(test_nan_and_infinity), cmocka_unit_test(test_widths_agree),
    };
    return cmocka_run_group_tests(tests, say_skipped_levels, NULL);
}
