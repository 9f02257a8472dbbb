/* test_attention.c - every variant of attention against the plain C one, and the promises of attention.h: rows depend on their
 * own sequence only, bit for bit, whatever the batch and the threads; masked rows are zero. */
#include "variants.h"

#include "base/half.h"

#define BIAS_ROWS 400 /* query rows per sequence and head that the bias of a scene has */

typedef struct scene {
    nm_dtype dtype;
    int heads, head_dim;
    int64_t n_seq, lens_q[8], lens_k[8];
    bool causal, key_bias, bias;
    float spread; /* of q and k */
} scene;

typedef struct data {
    nm_attn a;
    int64_t q_offsets[9], k_offsets[9];
    void *q, *kv, *out;
    float *key_bias, *bias;
    size_t out_bytes;
} data;

static void set(void *p, nm_dtype t, int64_t i, float x)
{
    if (t == NM_F32)
        ((float *)p)[i] = x;
    else
        ((nm_bf16 *)p)[i] = nm_f32_to_bf16(x);
}

static float get(const void *p, nm_dtype t, int64_t i) { return t == NM_F32 ? ((const float *)p)[i] : nm_bf16_to_f32(((const nm_bf16 *)p)[i]); }

static void make_biases(data *d, const scene *s, int64_t keys, int64_t longest, uint64_t *rng)
{
    if (s->key_bias) {
        d->key_bias = block((size_t)keys * sizeof(float));
        for (int64_t i = 0; i < keys; i++)
            d->key_bias[i] = next_u32(rng) % 3 == 0 ? -INFINITY : 0;
    }
    if (s->bias) {
        int64_t n = s->heads * BIAS_ROWS * longest; /* the same for all sequences */
        d->bias = block((size_t)n * sizeof(float));
        for (int64_t i = 0; i < n; i++)
            d->bias[i] = next_u32(rng) % 5 == 0 ? -INFINITY : 2 * next_float(rng);
    }
}

/* q rows lie in one array, k and v side by side in another, as in fused projections; NaN between the rows. */
static void make(data *d, const scene *s)
{
    uint64_t rng = 42 + (uint64_t)s->head_dim;
    int64_t width = (int64_t)s->heads * s->head_dim, longest = 0;
    memset(d, 0, sizeof *d);
    for (int64_t i = 0; i < s->n_seq; i++) {
        d->q_offsets[i + 1] = d->q_offsets[i] + s->lens_q[i];
        d->k_offsets[i + 1] = d->k_offsets[i] + s->lens_k[i];
        longest = s->lens_k[i] > longest ? s->lens_k[i] : longest;
    }
    int64_t nq = d->q_offsets[s->n_seq], nk = d->k_offsets[s->n_seq], q_stride = width + 3, k_stride = 2 * width + 1;
    size_t size = nm_dtype_size(s->dtype);
    d->q = block((size_t)(nq * q_stride) * size);
    d->kv = block((size_t)(nk * k_stride) * size);
    d->out_bytes = (size_t)(nq * (width + 2)) * size;
    d->out = block(d->out_bytes);
    memset(d->out, 0xAB, d->out_bytes);
    for (int64_t i = 0; i < nq * q_stride; i++)
        set(d->q, s->dtype, i, i % q_stride >= width ? NAN : next_float(&rng) * s->spread);
    for (int64_t i = 0; i < nk * k_stride; i++)
        set(d->kv, s->dtype, i, i % k_stride >= 2 * width ? NAN : next_float(&rng) * (i % k_stride < width ? s->spread : 1));
    make_biases(d, s, nk, longest, &rng);
    d->a = (nm_attn){ .dtype = s->dtype, .heads = s->heads, .head_dim = s->head_dim, .scale = 1 / sqrtf((float)s->head_dim), .n_seq = s->n_seq,
                      .q_offsets = d->q_offsets, .k_offsets = d->k_offsets, .q = d->q, .k = d->kv, .v = (char *)d->kv + (size_t)width * size,
                      .q_stride = q_stride, .k_stride = k_stride, .v_stride = k_stride, .out = d->out, .out_stride = width + 2,
                      .causal = s->causal, .key_bias = d->key_bias, .bias = d->bias, .bias_head = BIAS_ROWS * longest, .bias_row = longest };
}

static void drop(data *d)
{
    free(d->q);
    free(d->kv);
    free(d->out);
    free(d->key_bias);
    free(d->bias);
}

static void run(const nm_kernels *kn, data *d, nm_pool *pool)
{
    void *scratch = aligned_alloc(64, nm_attention_scratch(kn, &d->a, nm_pool_size(pool)) + 64);
    assert_non_null(scratch);
    nm_attention_run(kn, &d->a, pool, scratch);
    free(scratch);
}

/* The same from keys and values packed once; the arrays that they came from are then filled with NaN. */
static void run_packed(const nm_kernels *kn, data *d, nm_pool *pool)
{
    size_t bytes = nm_attention_packed_bytes(kn, &d->a), row = (size_t)d->a.k_stride * nm_dtype_size(d->a.dtype);
    void *packed = bytes ? aligned_alloc(64, bytes + 64) : NULL;
    if (bytes) {
        assert_non_null(packed);
        assert_int_equal(bytes % 64, 0);
        memset((char *)packed + bytes, 0x5A, 64);
        nm_attention_pack(kn, &d->a, pool, packed);
        for (int i = 0; i < 64; i++)
            assert_int_equal(((char *)packed)[bytes + (size_t)i], 0x5A);
        memset(d->kv, 0xFF, (size_t)d->a.k_offsets[d->a.n_seq] * row);
        d->a.packed = packed;
        d->a.k = d->a.v = NULL;
    }
    run(kn, d, pool);
    run(kn, d, pool); /* the packed form is only read */
    free(packed);
}

static void compare_data(const scene *s, const data *want, const data *got, const char *level)
{
    /* f32: sums of up to 2100 products in another order; bf16: output and P are rounded to 8 bits */
    float tol = s->dtype == NM_F32 ? 4e-6f + 1e-6f * s->spread * s->spread : 1.2e-2f;
    int64_t width = (int64_t)s->heads * s->head_dim, stride = width + 2;
    size_t size = nm_dtype_size(s->dtype);
    for (int64_t i = 0; i < want->q_offsets[s->n_seq] * stride; i++) {
        if (i % stride >= width) { /* between the rows: untouched */
            assert_memory_equal((char *)got->out + (size_t)i * size, (char *)want->out + (size_t)i * size, size);
            continue;
        }
        float w = get(want->out, s->dtype, i), g = get(got->out, s->dtype, i);
        if (!(fabsf(w - g) <= tol))
            fail_msg("%s %s d=%d causal=%d key_bias=%d bias=%d: element %lld is %g, plain C %g", level, nm_dtype_name(s->dtype), s->head_dim,
                     s->causal, s->key_bias, s->bias, (long long)i, (double)g, (double)w);
    }
}

static void compare(const scene *s)
{
    nm_kernels ref, kn;
    assert_true(level_table(0, &ref));
    data want;
    make(&want, s);
    run(&ref, &want, NULL);
    for (int l = 1; l < LEVELS; l++) {
        if (!level_table(l, &kn))
            continue;
        data got;
        make(&got, s);
        run(&kn, &got, NULL);
        compare_data(s, &want, &got, levels[l]);
        drop(&got);
    }
    drop(&want);
}

static void test_grid(void **state)
{
    (void)state;
    static const int dims[] = { 1, 3, 8, 15, 16, 17, 31, 32, 33, 40, 48, 63, 64, 65, 72, 80, 88, 96, 104, 127, 128, 160, 255, 256 };
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++)
        for (int mode = 0; mode < 8; mode++)
            for (int t = 0; t < 2; t++) {
                scene s = { t ? NM_BF16 : NM_F32, 2, dims[i], 4, { 5, 1, 13, 0 }, { 5, 1, 13, 0 }, mode & 1, mode & 2, mode & 4, 1.5f };
                compare(&s);
            }
}

static void test_lengths(void **state)
{
    (void)state;
    static const int64_t lens[] = { 1, 2, 7, 11, 12, 13, 15, 16, 17, 23, 24, 25, 31, 32, 33, 48, 50, 77, 197, 257 };
    for (size_t i = 0; i < sizeof lens / sizeof *lens; i++)
        for (int mode = 0; mode < 4; mode++) {
            scene s = { mode & 1 ? NM_BF16 : NM_F32, 1, 64, 3, { 3, lens[i], 4 }, { lens[i], lens[i], 70 }, mode & 2, false, false, 2 };
            compare(&s);
        }
}

/* Queries without keys, keys without queries, a causal sequence with more queries than keys (its first rows see nothing). */
static void test_odd_sequences(void **state)
{
    (void)state;
    for (int t = 0; t < 2; t++)
        for (int causal = 0; causal < 2; causal++) {
            scene s = { t ? NM_BF16 : NM_F32, 2, 64, 5, { 3, 0, 30, 2, 0 }, { 0, 7, 4, 40, 0 }, causal, true, true, 1 };
            compare(&s);
        }
}

/* More keys than one chunk: running maximum and sum. */
static void test_long(void **state)
{
    (void)state;
    for (int mode = 0; mode < 8; mode++) {
        scene s = { mode & 1 ? NM_BF16 : NM_F32, 1, 32, 2, { 17, 5 }, { 1025, 2100 }, mode & 2, mode & 4, false, 2 };
        compare(&s);
    }
}

/* Scores far apart: the softmax is one key, nothing overflows, the result is a mean of values. */
static void test_huge_scores(void **state)
{
    (void)state;
    scene s = { NM_F32, 1, 64, 1, { 20 }, { 50 }, false, false, false, 30 };
    compare(&s);
    nm_kernels kn;
    for (int l = 0; l < LEVELS; l++)
        for (float spread = 1; spread < 1e18f; spread *= 1e3f) {
            if (!level_table(l, &kn))
                continue;
            data d;
            s.spread = spread;
            make(&d, &s);
            run(&kn, &d, NULL);
            for (int64_t i = 0; i < 20 * 66; i++)
                if (i % 66 < 64)
                    assert_true(fabsf(((float *)d.out)[i]) <= 1.0001f);
            drop(&d);
        }
}

/* Sequence 0 sees no key: zeros. In sequence 1 the first chunk of keys is masked, the second is not. */
static void test_all_masked(void **state)
{
    (void)state;
    nm_kernels kn;
    for (int l = 0; l < LEVELS; l++)
        for (int t = 0; t < 2; t++) {
            if (!level_table(l, &kn))
                continue;
            scene s = { t ? NM_BF16 : NM_F32, 2, 64, 2, { 9, 3 }, { 20, 1100 }, false, true, false, 1 };
            data d;
            make(&d, &s);
            for (int i = 0; i < 1120; i++)
                d.key_bias[i] = i < 1060 ? -INFINITY : 0;
            run(&kn, &d, NULL);
            float other = 0;
            for (int64_t i = 0; i < 12 * 130; i++)
                if (i % 130 < 128 && i / 130 < 9)
                    assert_true(get(d.out, s.dtype, i) == 0);
                else if (i % 130 < 128)
                    other += fabsf(get(d.out, s.dtype, i));
            assert_true(other > 0 && other < 1000);
            drop(&d);
        }
}

/* A NaN in a query or key reaches exactly its row or sequence, and is not swallowed by a maximum. */
static void test_nan(void **state)
{
    (void)state;
    nm_kernels kn;
    for (int l = 0; l < LEVELS; l++)
        for (int t = 0; t < 2; t++) {
            if (!level_table(l, &kn))
                continue;
            scene s = { t ? NM_BF16 : NM_F32, 1, 64, 2, { 20, 14 }, { 20, 14 }, false, false, false, 1 };
            data d;
            make(&d, &s);
            set(d.q, s.dtype, 5 * 67 + 3, NAN);
            set(d.kv, s.dtype, 21 * 129 + 7, NAN);
            run(&kn, &d, NULL);
            for (int64_t r = 0; r < 34; r++)
                for (int64_t i = 0; i < 64; i++)
                    assert_int_equal(isnan(get(d.out, s.dtype, r * 66 + i)) != 0, r == 5 || r >= 20);
            drop(&d);
        }
}

static void test_same_bits(void **state)
{
    (void)state;
    nm_kernels kn;
    nm_pool *pool = nm_pool_new(4);
    for (int l = 0; l < LEVELS; l++)
        for (int t = 0; t < 4; t++) {
            if (!level_table(l, &kn))
                continue;
            scene s = { t & 1 ? NM_BF16 : NM_F32, 2, 64, 3, { 201, 300, 50 }, { 201, 300, 50 }, t & 2, true, false, 2 };
            data one, many, alone;
            make(&one, &s);
            make(&many, &s);
            make(&alone, &s);
            run(&kn, &one, NULL);
            run(&kn, &many, pool);
            assert_memory_equal(one.out, many.out, one.out_bytes);
            for (int64_t i = 0; i < 3; i++) { /* each sequence by itself */
                alone.a.n_seq = 1;
                alone.a.q_offsets = alone.q_offsets + i;
                alone.a.k_offsets = alone.k_offsets + i;
                run(&kn, &alone, i == 1 ? pool : NULL);
            }
            assert_memory_equal(one.out, alone.out, one.out_bytes);
            drop(&one);
            drop(&many);
            drop(&alone);
        }
    nm_pool_free(pool);
}

/* Packed keys and values give the same bits, in every shape that takes another path. */
static void test_packed(void **state)
{
    (void)state;
    static const int dims[] = { 1, 15, 32, 33, 64, 80, 256 };
    nm_kernels kn;
    nm_pool *pool = nm_pool_new(3);
    int packing = 0;
    for (int l = 0; l < LEVELS; l++)
        for (size_t i = 0; i < sizeof dims / sizeof *dims; i++)
            for (int mode = 0; mode < 8; mode++) {
                if (!level_table(l, &kn))
                    continue;
                scene s = { mode & 1 ? NM_BF16 : NM_F32, 3, dims[i], 5, { 3, 0, 30, 2, 13 }, { 577, 7, 0, 1100, 33 }, mode & 2, mode & 4, false, 2 };
                data plain, packed;
                make(&plain, &s);
                make(&packed, &s);
                packing += nm_attention_packed_bytes(&kn, &plain.a) > 0;
                run(&kn, &plain, NULL);
                run_packed(&kn, &packed, mode & 4 ? pool : NULL);
                assert_memory_equal(plain.out, packed.out, plain.out_bytes);
                drop(&plain);
                drop(&packed);
            }
    nm_pool_free(pool);
    assert_true(packing > 0 || !level_table(1, &kn)); /* vector variants have a packed form */
}

/* A causal text without its last tokens gives the same bits for those that stay. */
static void test_causal_prefix(void **state)
{
    (void)state;
    nm_kernels kn;
    for (int l = 0; l < LEVELS; l++)
        for (int t = 0; t < 2; t++)
            for (int64_t len = 1; len < 77; len += 5) {
                if (!level_table(l, &kn))
                    continue;
                scene s = { t ? NM_BF16 : NM_F32, 2, 64, 1, { 77 }, { 77 }, true, false, false, 2 };
                data full, part;
                make(&full, &s);
                make(&part, &s);
                run(&kn, &full, NULL);
                part.q_offsets[1] = part.k_offsets[1] = len;
                run(&kn, &part, NULL);
                assert_memory_equal(full.out, part.out, (size_t)(len * 130 - 2) * nm_dtype_size(s.dtype));
                drop(&full);
                drop(&part);
            }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_grid),        cmocka_unit_test(test_lengths),    cmocka_unit_test(test_odd_sequences),
        cmocka_unit_test(test_long),        cmocka_unit_test(test_huge_scores), cmocka_unit_test(test_all_masked),
        cmocka_unit_test(test_nan),         cmocka_unit_test(test_same_bits),  cmocka_unit_test(test_causal_prefix),
        cmocka_unit_test(test_packed),
    };
    return cmocka_run_group_tests(tests, say_skipped_levels, NULL);
}
