/* test_gradient.c - every variant of gradient.h against plain C, over tails and strides. Tolerances are those of f32 sums in another order
 * and of the vector forms of exp and erf. */
#include "variants.h"

enum { N = 4200 };

typedef struct set { float a[N], b[N], c[N], d[N], e[N]; } set;

static void fill(set *s, uint64_t seed)
{
    for (int i = 0; i < N; i++) {
        s->a[i] = next_float(&seed) * 3;
        s->b[i] = next_float(&seed);
        s->c[i] = next_float(&seed);
        s->d[i] = fabsf(next_float(&seed)); /* second moments are not negative */
        s->e[i] = next_float(&seed);
    }
}

static void near_set(const char *level, const char *what, int64_t n, const set *got, const set *want, double tolerance)
{
    const float *g = got->a, *w = want->a;
    for (int64_t i = 0; i < (int64_t)(sizeof *got / sizeof *g); i++)
        if (!(fabs((double)g[i] - (double)w[i]) <= tolerance * (1 + fabs((double)w[i]))))
            fail_msg("%s %s n %lld: value %lld is %g, expected %g", level, what, (long long)n, (long long)i, (double)g[i], (double)w[i]);
}

#define COMPARE(what, tolerance, ...)                                                                                                      \
    do {                                                                                                                                   \
        fill(got, 7);                                                                                                                      \
        fill(want, 7);                                                                                                                     \
        { const nm_gradient_kernels *kn = &k->gradient; set *s = got; __VA_ARGS__; }                                                       \
        { const nm_gradient_kernels *kn = &ref->gradient; set *s = want; __VA_ARGS__; }                                                    \
        near_set(level, what, n, got, want, tolerance);                                                                                    \
    } while (0)

static void check(const nm_kernels *k, const nm_kernels *ref, const char *level, int64_t n, set *got, set *want)
{
    const nm_update u = { .scale = 0.5f, .b1 = 0.9f, .b2 = 0.98f, .c1 = 0.1f, .c2 = 0.02f, .step = 0.01f, .root = 1.5f, .eps = 1e-6f, .keep = 0.99f,
                          .decay = 0.1f, .nesterov = n % 2 == 0 };
    for (nm_act act = NM_ACT_NONE; act < NM_ACTS; act++) {
        COMPARE("act_back", 1e-6, kn->act_back(n, s->a, act, s->b, s->c, true));
        COMPARE("act_back in place", 1e-6, kn->act_back(n, s->a, act, s->b, s->b, false));
    }
    COMPARE("layernorm_back", 1e-5, kn->layernorm_back(3, n, s->a, n + 5, s->b, 1e-5f, s->c, s->d, n % 2 == 0, s->e, s->e + n));
    COMPARE("layernorm_back bare", 1e-5, kn->layernorm_back(3, n, s->a, n, NULL, 1e-5f, s->c, s->d, true, NULL, NULL));
    COMPARE("layernorm_back sums", 1e-5, kn->layernorm_back(3, n, s->a, n, s->b, 1e-5f, s->c, NULL, true, s->e, NULL));
    COMPARE("softmax_back", 1e-5, kn->softmax_back(3, n, s->d, s->c, n + 3, 0.25f));
    COMPARE("small_product", 1e-5, kn->small_product(n % 23 + 1, n % 37 + 1, n % 11 + 1, s->a, n % 11 + 1, 1, s->b, n % 37 + 1, s->c, n % 37 + 3, true));
    COMPARE("small_product turned", 1e-5, kn->small_product(n % 23 + 1, n % 37 + 1, n % 11 + 1, s->a, 1, n % 23 + 1, s->b, n % 37 + 2, s->c, n % 37 + 1, false));
    COMPARE("column_sums", 1e-5, kn->column_sums(3, n, s->a, n + 1, s->e));
    COMPARE("transpose", 0, kn->transpose(n % 41 + 1, n % 29 + 1, s->a, n % 29 + 4, s->b, n % 41 + 2));
    COMPARE("squares", 1e-5, s->e[0] = (float)kn->squares(n, s->a));
    COMPARE("lerp", 1e-6, kn->lerp(n, s->a, s->b, 0.3f));
    COMPARE("adamw", 1e-6, kn->adamw(n, &u, s->a, s->b, s->c, s->d));
    COMPARE("sgd", 1e-6, kn->sgd(n, &u, s->a, s->b, s->c, NULL));
    COMPARE("lion", 1e-6, kn->lion(n, &u, s->a, s->b, s->c, NULL));
}

static void test_all(void **state)
{
    (void)state;
    static const int64_t sizes[] = { 1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 50, 63, 64, 65, 100, 127, 128, 130, 768, 1000, 1025, 1300 };
    nm_kernels table, plain;
    set *got = block(sizeof *got), *want = block(sizeof *want);
    assert_true(level_table(0, &plain));
    for (int l = 1; l < LEVELS; l++)
        for (size_t i = 0; level_table(l, &table) && i < sizeof sizes / sizeof *sizes; i++)
            check(&table, &plain, levels[l], sizes[i], got, want);
    free(got), free(want);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_all) };
    return cmocka_run_group_tests(tests, say_skipped_levels, NULL);
}
