/* test_channels.c - every variant of channels.h against plain C, over tails of rows and channels. The tolerance is that of sums in
 * another order: 1e-5 of the sum of magnitudes. */
#include "base/half.h"
#include "variants.h"

static float *drawn(int64_t n, uint64_t seed)
{
    float *x = block((size_t)n * sizeof *x);
    for (int64_t i = 0; i < n; i++)
        x[i] = next_float(&seed);
    return x;
}

static void near_all(const char *level, const char *what, const float *got, const float *want, int64_t n, double tolerance)
{
    for (int64_t i = 0; i < n; i++)
        if (!(fabs((double)got[i] - (double)want[i]) <= tolerance))
            fail_msg("%s %s[%lld]: %g, expected %g", level, what, (long long)i, (double)got[i], (double)want[i]);
}

static void check_outer(const nm_kernels *k, const nm_kernels *ref, const char *level, int64_t depth, int64_t m, int64_t n)
{
    int64_t lda = m + 3, ldb = n + 1, ldc = n + 2;
    float *a = drawn((depth - 1) * lda + m, 1), *b = drawn((depth - 1) * ldb + n, 2), *got = drawn((m - 1) * ldc + n, 3), *want = drawn((m - 1) * ldc + n, 3);
    k->channels.outer(depth, m, n, a, lda, b, ldb, got, ldc);
    ref->channels.outer(depth, m, n, a, lda, b, ldb, want, ldc);
    near_all(level, "outer", got, want, (m - 1) * ldc + n, 1e-6 * (double)depth); /* what lies between the rows is as it was */
    free(a), free(b), free(got), free(want);
}

static uint16_t *drawn_bf16(int64_t n, uint64_t seed)
{
    uint16_t *x = block((size_t)n * sizeof *x);
    for (int64_t i = 0; i < n; i++)
        x[i] = nm_f32_to_bf16(next_float(&seed));
    return x;
}

static void check_outer_bf16(const nm_kernels *k, const nm_kernels *ref, const char *level, int64_t depth, int64_t m, int64_t n)
{
    int64_t lda = m + 3, ldb = n + 1, ldc = n + 2;
    uint16_t *a = drawn_bf16((depth - 1) * lda + m, 1), *b = drawn_bf16((depth - 1) * ldb + n, 2);
    float *got = drawn((m - 1) * ldc + n, 3), *want = drawn((m - 1) * ldc + n, 3);
    k->channels.outer_bf16(depth, m, n, a, lda, b, ldb, got, ldc);
    ref->channels.outer_bf16(depth, m, n, a, lda, b, ldb, want, ldc);
    near_all(level, "outer_bf16", got, want, (m - 1) * ldc + n, 1e-6 * (double)depth);
    free(a), free(b), free(got), free(want);
}

/* relu, y given, residual: none, added to, fresh. */
static void check_back(const nm_kernels *k, const nm_kernels *ref, const char *level, int64_t rows, int64_t c, bool relu, bool with_y, int residual)
{
    int64_t n = rows * c;
    float *dy = drawn(n, 1), *x = drawn(n, 2), *y = drawn(n, 3), *v = drawn(6 * c, 4), *dx[2], *res[2], *sums[2];
    const nm_kernels *table[] = { k, ref };
    for (int i = 0; i < 2; i++) {
        dx[i] = drawn(n, 5), res[i] = drawn(n, 6), sums[i] = drawn(2 * c, 7);
        nm_channel_back j = { .cols = c, .relu = relu, .dy = dy, .x = x, .y = with_y ? y : NULL, .scale = v, .shift = v + c, .mean = v + 2 * c,
                              .a = v + 3 * c, .b = v + 4 * c, .k = v + 5 * c, .dx = dx[i], .residual = residual ? res[i] : NULL, .residual_fresh = residual == 2 };
        table[i]->channels.back_sums(rows, &j, sums[i], sums[i] + c);
        table[i]->channels.back_rows(rows, &j);
    }
    near_all(level, "back_sums", sums[0], sums[1], 2 * c, 1e-6 * (double)(rows + 1));
    near_all(level, "back_rows", dx[0], dx[1], n, 2e-6);
    near_all(level, "residual", res[0], res[1], n, 0);
    for (int i = 0; i < 2; i++)
        free(dx[i]), free(res[i]), free(sums[i]);
    free(dy), free(x), free(y), free(v);
}

static void check_forward(const nm_kernels *k, const nm_kernels *ref, const char *level, int64_t rows, int64_t c, bool relu, bool more)
{
    float *x = drawn(rows * c, 1), *res = drawn(rows * c, 2), *v = drawn(2 * c, 3), *y = drawn(rows * c, 4), *z = drawn(rows * c, 4);
    float *got = drawn(2 * c, 5), *want = drawn(2 * c, 5);
    k->channels.moments(rows, c, x, v, got, got + c);
    ref->channels.moments(rows, c, x, v, want, want + c);
    near_all(level, "moments", got, want, 2 * c, 4e-6 * (double)(rows + 1));
    k->channels.affine(rows, c, x, v, v + c, more ? res : NULL, relu, y);
    ref->channels.affine(rows, c, x, v, v + c, more ? res : NULL, relu, z);
    near_all(level, "affine", y, z, rows * c, 1e-6);
    free(x), free(res), free(v), free(y), free(z), free(got), free(want);
}

static void test_variants(void **state)
{
    nm_kernels k, ref;
    (void)state;
    level_table(0, &ref);
    for (int l = 1; l < LEVELS; l++) {
        if (!level_table(l, &k))
            continue;
        for (int64_t m = 1; m <= 33; m += m < 14 ? 1 : 19)
            for (int64_t n = 1; n <= 70; n += n < 34 ? 1 : 18)
                check_outer(&k, &ref, levels[l], 1 + (m * n) % 140, m, n), check_outer_bf16(&k, &ref, levels[l], 1 + (m * n) % 140, m, n);
        check_outer(&k, &ref, levels[l], 300, 32, 48);
        check_outer_bf16(&k, &ref, levels[l], 301, 131, 48);
        for (int64_t c = 1; c <= 40; c += c < 20 ? 1 : 10)
            for (int64_t rows = 1; rows < 8; rows += 2)
                for (int i = 0; i < 12; i++) {
                    check_back(&k, &ref, levels[l], rows, c, i & 1, i & 2, i / 4);
                    check_forward(&k, &ref, levels[l], rows, c, i & 1, i & 2);
                }
    }
}

/* What is not a number stays visible behind a ReLU. */
static void test_nan(void **state)
{
    nm_kernels k;
    (void)state;
    for (int l = 0; l < LEVELS; l++)
        for (int64_t c = 1; level_table(l, &k) && c < 20; c += 6) {
            float *x = drawn(c, 1), *v = drawn(c, 2), *y = drawn(c, 3);
            x[c - 1] = NAN;
            k.channels.affine(1, c, x, v, v, NULL, true, y);
            assert_true(isnan(y[c - 1]));
            free(x), free(v), free(y);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_variants), cmocka_unit_test(test_nan) };
    return cmocka_run_group_tests(tests, say_skipped_levels, NULL);
}
