/* The label-aware contrastive loss: against finite differences, against InfoNCE where every row is a group of its own, and by hand. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "train/loss.h"

enum { N = 7, DIM = 5 };

static nm_run run;
static const int64_t groups[N] = { 3, -1, 3, 8, 3, 8, -2 };

static void draw(float *x, uint64_t stream)
{
    nm_rng g;
    nm_rng_init(&g, 7, stream);
    for (int i = 0; i < N; i++) {
        double norm = 0;
        for (int c = 0; c < DIM; c++) {
            x[i * DIM + c] = nm_rng_normal(&g);
            norm += (double)x[i * DIM + c] * (double)x[i * DIM + c];
        }
        for (int c = 0; c < DIM; c++)
            x[i * DIM + c] /= (float)sqrt(norm);
    }
}

/* The loss in double from its definition: mean over rows of -1/|P| sum over P of log softmax, both directions, halved. */
static double reference(const float *a, const float *b, double s, const int64_t *group)
{
    double loss = 0;
    for (int d = 0; d < 2; d++)
        for (int i = 0; i < N; i++) {
            const float *x = d ? b : a, *y = d ? a : b;
            double z[N], sum = 0, own = 0;
            int count = 0;
            for (int j = 0; j < N; j++) {
                z[j] = 0;
                for (int c = 0; c < DIM; c++)
                    z[j] += (double)x[i * DIM + c] * (double)y[j * DIM + c];
                z[j] *= exp(s);
                sum += exp(z[j]);
            }
            for (int j = 0; j < N; j++)
                if (group[j] == group[i]) {
                    own += z[j] - log(sum);
                    count++;
                }
            loss -= own / count / (2 * N);
        }
    return loss;
}

static void test_value_and_gradients(void **state)
{
    (void)state;
    float a[N * DIM], b[N * DIM], da[N * DIM] = { 0 }, db[N * DIM] = { 0 };
    const double s = 1.3, h = 1e-3;
    draw(a, 1);
    draw(b, 2);
    nm_pair_loss l = nm_unicl_loss(&run, N, DIM, a, b, s, groups, da, db);
    assert_true(nm_run_ok(&run));
    assert_true(fabs(l.loss - reference(a, b, s, groups)) < 1e-6);
    assert_true(fabs(l.d_scale - (reference(a, b, s + h, groups) - reference(a, b, s - h, groups)) / (2 * h)) < 1e-5);
    for (int k = 0; k < 2 * N * DIM; k++) {
        float *x = k < N * DIM ? &a[k] : &b[k - N * DIM], keep = *x, got = k < N * DIM ? da[k] : db[k - N * DIM];
        *x = keep + (float)h;
        double up = reference(a, b, s, groups);
        *x = keep - (float)h;
        double down = reference(a, b, s, groups);
        *x = keep;
        if (!(fabs((double)got - (up - down) / (2 * h)) < 2e-5)) {
            print_error("element %d: got %g, differences say %g\n", k, (double)got, (up - down) / (2 * h));
            fail();
        }
    }
}

static void test_single_groups_are_infonce(void **state)
{
    (void)state;
    float a[N * DIM], b[N * DIM], g[4][N * DIM];
    int64_t own[N];
    memset(g, 0, sizeof g);
    for (int i = 0; i < N; i++)
        own[i] = 10 * i;
    draw(a, 3);
    draw(b, 4);
    nm_pair_loss u = nm_unicl_loss(&run, N, DIM, a, b, 2.0, own, g[0], g[1]), c = nm_clip_loss(&run, N, DIM, a, b, 2.0, 0, N, g[2], g[3]);
    assert_true(fabs(u.loss - c.loss) < 1e-6 && fabs(u.d_scale - c.d_scale) < 1e-6);
    for (int k = 0; k < N * DIM; k++)
        assert_true(fabsf(g[0][k] - g[2][k]) < 1e-6f && fabsf(g[1][k] - g[3][k]) < 1e-6f);
}

/* One group: the target is flat, so equal features are the optimum with loss ln n and no gradient on the scale. */
static void test_one_group(void **state)
{
    (void)state;
    float a[N * DIM] = { 0 }, da[N * DIM] = { 0 }, db[N * DIM] = { 0 };
    int64_t same[N] = { 0 };
    for (int i = 0; i < N; i++)
        a[i * DIM] = 1;
    nm_pair_loss l = nm_unicl_loss(&run, N, DIM, a, a, 3.0, same, da, db);
    assert_true(fabs(l.loss - log(N)) < 1e-9 && fabs(l.d_scale) < 1e-9);
    for (int k = 0; k < N * DIM; k++)
        assert_true(fabsf(da[k]) < 1e-6f && fabsf(db[k]) < 1e-6f);
}

int main(void)
{
    nm_pool *pool = nm_pool_new(2);
    nm_arena *arena = nm_arena_new(1 << 16);
    nm_run_init(&run, nm_kernels_get(), pool, arena, NM_F32);
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_value_and_gradients), cmocka_unit_test(test_single_groups_are_infonce),
                                        cmocka_unit_test(test_one_group) };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    nm_arena_free(arena);
    nm_pool_free(pool);
    return failed;
}
