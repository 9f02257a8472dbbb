/* test_elementwise.c - conversions equal base/half.h bit for bit (NaN and subnormals too), copies equal their definition. */
#include "variants.h"

#include "base/half.h"

static void test_cast_from_half(void **state)
{
    (void)state;
    nm_kernels k;
    uint16_t *h = block(65536 * 2), *g = block(65536 * 2);
    float *f = block(65536 * 4);
    for (int i = 0; i < 65536; i++)
        h[i] = (uint16_t)i;
    for (int l = 0; l < LEVELS; l++) {
        if (!level_table(l, &k))
            continue;
        for (int t = 0; t < 2; t++) {
            k.elementwise.cast(65536, h, t ? NM_F16 : NM_BF16, f, NM_F32);
            for (int i = 0; i < 65536; i++) {
                float want = t ? nm_f16_to_f32((nm_f16)i) : nm_bf16_to_f32((nm_bf16)i);
                assert_memory_equal(&f[i], &want, 4);
            }
            k.elementwise.cast(65536, h, t ? NM_F16 : NM_BF16, g, t ? NM_BF16 : NM_F16);
            for (int i = 0; i < 65536; i++)
                assert_int_equal(g[i], t ? nm_f32_to_bf16(nm_f16_to_f32((nm_f16)i)) : nm_f32_to_f16(nm_bf16_to_f32((nm_bf16)i)));
        }
    }
    free(h);
    free(g);
    free(f);
}

/* Every exponent and sign with the significands around each rounding boundary, and random bits. */
static void test_cast_to_half(void **state)
{
    (void)state;
    enum { N = 512 * 64 + 100003 };
    float *f = block(N * 4);
    uint16_t *h = block(N * 2);
    static const uint32_t low[64] = { 0, 1, 2, 0xFFF, 0x1000, 0x1001, 0x1FFF, 0x2000, 0x2FFF, 0x3000, 0x3001, 0x7FFF, 0x8000, 0x8001, 0xFFFF, 0x10000,
                                      0x17FFF, 0x18000, 0x18001, 0x400000, 0x400001, 0x7FE000, 0x7FF000, 0x7FFFFF, 0x7F7FFF, 0x7F8000, 0x3FFFFF };
    uint64_t rng = 1;
    for (uint32_t i = 0; i < N; i++) {
        uint32_t u = i < 512 * 64 ? (i / 64) << 23 | (i % 64 < 27 ? low[i % 64] : next_u32(&rng) >> 9) : next_u32(&rng);
        memcpy(&f[i], &u, 4);
    }
    nm_kernels k;
    for (int l = 0; l < LEVELS; l++) {
        if (!level_table(l, &k))
            continue;
        k.elementwise.cast(N, f, NM_F32, h, NM_BF16);
        for (int i = 0; i < N; i++)
            assert_int_equal(h[i], nm_f32_to_bf16(f[i]));
        k.elementwise.cast(N, f, NM_F32, h, NM_F16);
        for (int i = 0; i < N; i++)
            assert_int_equal(h[i], nm_f32_to_f16(f[i]));
    }
    free(f);
    free(h);
}

/* Lengths around the vector widths, exact-size blocks; the sums against plain loops. */
static void test_tails(void **state)
{
    (void)state;
    nm_kernels k;
    for (int l = 0; l < LEVELS; l++)
        for (int64_t n = 0; level_table(l, &k) && n < 70; n++) {
            float *a = block((size_t)n * 4), *b = block((size_t)n * 4), *y = block((size_t)n * 4);
            uint16_t *h = block((size_t)n * 2), *g = block((size_t)n * 2);
            uint64_t rng = 5;
            for (int64_t i = 0; i < n; i++)
                a[i] = next_float(&rng), b[i] = next_float(&rng);
            k.elementwise.add(n, a, b, y);
            for (int64_t i = 0; i < n; i++)
                assert_true(y[i] == a[i] + b[i]);
            k.elementwise.mul(n, a, b, y);
            for (int64_t i = 0; i < n; i++)
                assert_true(y[i] == a[i] * b[i]);
            for (int t = 0; t < 2; t++) {
                nm_dtype half = t ? NM_F16 : NM_BF16;
                k.elementwise.cast(n, a, NM_F32, h, half);
                k.elementwise.cast(n, h, half, y, NM_F32);
                k.elementwise.cast(n, h, half, g, half);
                assert_memory_equal(h, g, (size_t)n * 2);
                for (int64_t i = 0; i < n; i++)
                    assert_true(y[i] == (t ? nm_f16_to_f32(nm_f32_to_f16(a[i])) : nm_bf16_to_f32(nm_f32_to_bf16(a[i]))));
            }
            free(a);
            free(b);
            free(y);
            free(h);
            free(g);
        }
}

static void test_patchify(void **state)
{
    (void)state;
    static const int64_t cases[][5] = { { 3, 32, 32, 16, 16 }, { 3, 28, 42, 14, 14 }, { 1, 17, 35, 5, 7 }, { 3, 64, 64, 32, 32 }, { 2, 3, 3, 4, 4 }, { 3, 5, 5, 1, 1 } };
    nm_kernels k;
    for (int l = 0; l < LEVELS; l++)
        for (size_t c = 0; level_table(l, &k) && c < sizeof cases / sizeof *cases; c++) {
            int64_t ch = cases[c][0], h = cases[c][1], w = cases[c][2], ph = cases[c][3], pw = cases[c][4], gh = h / ph, gw = w / pw;
            int64_t n = gh * gw * ch * ph * pw;
            float *x = block((size_t)(ch * h * w) * 4), *y = block((size_t)n * 4);
            uint16_t *z = block((size_t)n * 2);
            uint64_t rng = 3;
            for (int64_t i = 0; i < ch * h * w; i++)
                x[i] = next_float(&rng);
            k.elementwise.patchify(x, ch, h, w, ph, pw, y, NM_F32);
            k.elementwise.patchify(x, ch, h, w, ph, pw, z, NM_BF16);
            int64_t o = 0;
            for (int64_t p = 0; p < gh * gw; p++)
                for (int64_t i = 0; i < ch * ph * pw; i++, o++) {
                    int64_t cc = i / (ph * pw), yy = p / gw * ph + i / pw % ph, xx = p % gw * pw + i % pw;
                    assert_true(y[o] == x[(cc * h + yy) * w + xx]);
                    assert_int_equal(z[o], nm_f32_to_bf16(y[o]));
                }
            free(x);
            free(y);
            free(z);
        }
}

static void test_im2col(void **state)
{
    (void)state;
    static const int64_t cases[][7] = { { 7, 9, 3, 3, 3, 2, 1 }, { 8, 8, 5, 1, 1, 1, 0 }, { 5, 6, 17, 3, 3, 1, 1 }, { 4, 4, 1, 5, 5, 1, 2 }, { 2, 2, 2, 7, 7, 2, 3 } };
    nm_kernels k;
    for (int l = 0; l < LEVELS; l++)
        for (size_t i = 0; level_table(l, &k) && i < sizeof cases / sizeof *cases; i++) {
            int64_t h = cases[i][0], w = cases[i][1], c = cases[i][2], kh = cases[i][3], kw = cases[i][4], s = cases[i][5], p = cases[i][6];
            int64_t oh = (h + 2 * p - kh) / s + 1, ow = (w + 2 * p - kw) / s + 1, y0 = oh > 1 ? 1 : 0;
            float *x = block((size_t)(h * w * c) * 4), *y = block((size_t)((oh - y0) * ow * kh * kw * c) * 4), *o = y;
            for (int64_t j = 0; j < h * w * c; j++)
                x[j] = (float)(j + 1);
            k.elementwise.im2col(x, h, w, c, c, &(nm_window){ kh, kw, { s, s }, { p, p }, { 1, 1 } }, y0, oh, ow, y);
            for (int64_t oy = y0; oy < oh; oy++)
                for (int64_t ox = 0; ox < ow; ox++)
                    for (int64_t t = 0; t < kh * kw * c; t++) {
                        int64_t iy = oy * s - p + t / (kw * c), ix = ox * s - p + t / c % kw;
                        bool in = iy >= 0 && iy < h && ix >= 0 && ix < w;
                        assert_true(*o++ == (in ? x[(iy * w + ix) * c + t % c] : 0));
                    }
            free(x);
            free(y);
        }
}

static void test_avgpool(void **state)
{
    (void)state;
    nm_kernels k, ref;
    level_table(0, &ref);
    for (int l = 0; l < LEVELS; l++)
        for (int64_t c = 1; level_table(l, &k) && c < 40; c += 6) {
            int64_t h = 7, w = 9, s = 2;
            float *x = block((size_t)(h * w * c) * 4), *y = block((size_t)(h / s * (w / s) * c) * 4), *z = block((size_t)(h / s * (w / s) * c) * 4);
            uint64_t rng = 2;
            for (int64_t i = 0; i < h * w * c; i++)
                x[i] = next_float(&rng);
            k.elementwise.avgpool(x, h, w, c, s, y);
            ref.elementwise.avgpool(x, h, w, c, s, z);
            assert_memory_equal(y, z, (size_t)(h / s * (w / s) * c) * 4);
            float want = (x[0] + x[c] + x[w * c] + x[w * c + c]) / 4;
            assert_true(fabsf(y[0] - want) < 1e-6f);
            free(x);
            free(y);
            free(z);
        }
}

/* Activations against their formulas in double precision. */
static void test_act(void **state)
{
    (void)state;
    nm_kernels k;
    enum { N = 4003 };
    float *x = block(N * 4), *y = block(N * 4);
    for (int i = 0; i < N; i++)
        x[i] = (float)(i - N / 2) * 0.01f;
    x[0] = -1e30f;
    x[1] = 1e30f;
    for (int l = 0; l < LEVELS; l++) {
        if (!level_table(l, &k))
            continue;
        for (int act = 0; act < NM_ACTS; act++) {
            k.elementwise.act(N, x, (nm_act)act, y);
            for (int i = 0; i < N; i++) {
                double v = x[i], e = act == NM_ACT_NONE         ? v
                                   : act == NM_ACT_QUICK_GELU   ? v / (1 + exp(-1.702 * v))
                                   : act == NM_ACT_GELU         ? 0.5 * v * erfc(-v / sqrt(2))
                                   : act == NM_ACT_GELU_TANH    ? 0.5 * v * (1 + tanh(0.7978845608028654 * (v + 0.044715 * v * v * v)))
                                   : act == NM_ACT_RELU         ? fmax(v, 0)
                                   : act == NM_ACT_SILU         ? v / (1 + exp(-v))
                                                                : tanh(v);
                if (!(fabs(y[i] - e) <= 1e-6 * fabs(e) + 1e-6))
                    fail_msg("%s activation %d of %g: %g, expected %g", levels[l], act, v, (double)y[i], e);
            }
        }
    }
    free(x);
    free(y);
}

/* A product with the 1 x 1 matrix 1 is its epilogue: the same bits as the loop over the activation. */
static void test_act_equals_epilogue(void **state)
{
    (void)state;
    enum { N = 1001 };
    float x[N], y[N], z[N], one = 1;
    for (int i = 0; i < N; i++)
        x[i] = (float)(i - N / 2) * 0.013f;
    nm_kernels k;
    for (int l = 0; l < LEVELS; l++)
        for (int act = 0; level_table(l, &k) && act < NM_ACTS; act++) {
            if (!(k.features & NM_CPU_AVX512)) /* products of the lower levels take libm's functions */
                continue;
            nm_packed w = { 0 };
            assert_true(nm_gemm_pack(&k, &w, NM_F32, &one, NM_F32, 1, false, 1, 1, NULL));
            nm_gemm g = { .m = N, .a = x, .a_dtype = NM_F32, .lda = 1, .b = &w, .c = z, .c_dtype = NM_F32, .ldc = 1, .alpha = 1, .act = (nm_act)act };
            void *scratch = aligned_alloc(64, (nm_gemm_scratch(&k, &g, 1) + 64) & ~(size_t)63);
            nm_gemm_run(&k, &g, NULL, scratch);
            k.elementwise.act(N, x, (nm_act)act, y);
            for (int i = 0; i < N; i++)
                if (memcmp(&y[i], &z[i], 4) != 0 && y[i] != z[i]) /* -0 and 0 may differ: alpha acc + 0 */
                    fail_msg("%s activation %d of %.9g: %.9g, in the product %.9g", levels[l], act, (double)x[i], (double)y[i], (double)z[i]);
            free(scratch);
            nm_gemm_pack_free(&w);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cast_from_half), cmocka_unit_test(test_cast_to_half), cmocka_unit_test(test_tails),   cmocka_unit_test(test_patchify),
        cmocka_unit_test(test_im2col),         cmocka_unit_test(test_avgpool),      cmocka_unit_test(test_act),
        cmocka_unit_test(test_act_equals_epilogue),
    };
    return cmocka_run_group_tests(tests, say_skipped_levels, NULL);
}
