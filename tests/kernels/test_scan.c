/* test_scan.c - inner products against double precision, top-k against a full sort, and the promises of scan.h: the same bits
 * whatever the number of queries, the block and the threads; ties by row; skipped rows and NaN never hit. */
#include "variants.h"

#include "base/half.h"

static const nm_dtype dtypes[] = { NM_F32, NM_BF16, NM_F16, NM_I8 };

static void set(void *p, nm_dtype t, int64_t i, float x)
{
    switch (t) {
    case NM_F32: ((float *)p)[i] = x; break;
    case NM_BF16: ((uint16_t *)p)[i] = nm_f32_to_bf16(x); break;
    case NM_F16: ((uint16_t *)p)[i] = nm_f32_to_f16(x); break;
    default: ((int8_t *)p)[i] = (int8_t)(x * 127); break;
    }
}

static double get(const void *p, nm_dtype t, int64_t i)
{
    switch (t) {
    case NM_F32: return ((const float *)p)[i];
    case NM_BF16: return nm_bf16_to_f32(((const uint16_t *)p)[i]);
    case NM_F16: return nm_f16_to_f32(((const uint16_t *)p)[i]);
    default: return ((const int8_t *)p)[i];
    }
}

static void check_dots(const nm_kernels *k, const char *level, nm_dtype t, int64_t nq, int64_t n, int64_t dim)
{
    int64_t stride = dim + 1, ld = n + 2;
    size_t rows_n = (size_t)(n ? (n - 1) * stride + dim : 0);
    float *q = block((size_t)(nq * dim) * 4), *s = block((size_t)(nq * ld) * 4), *scale = block((size_t)n * 4), *one = block((size_t)n * 4);
    void *rows = block(rows_n * nm_dtype_size(t));
    uint64_t rng = 77;
    for (int64_t i = 0; i < nq * dim; i++)
        q[i] = next_float(&rng);
    for (size_t i = 0; i < rows_n; i++)
        set(rows, t, (int64_t)i, next_float(&rng));
    for (int64_t i = 0; i < n; i++)
        scale[i] = 0.01f + 0.01f * next_float(&rng);
    for (int64_t i = 0; i < nq * ld; i++)
        s[i] = 55;
    k->scan.dots(nq, q, n, dim, rows, t, stride, scale, s, ld);
    for (int64_t i = 0; i < nq; i++) {
        k->scan.dots(1, q + i * dim, n, dim, rows, t, stride, scale, one, n);
        assert_memory_equal(one, s + i * ld, (size_t)n * 4);
        for (int64_t r = 0; r < n; r++) {
            double want = 0, size = 0, f = t == NM_I8 ? scale[r] : 1;
            for (int64_t d = 0; d < dim; d++)
                want += q[i * dim + d] * get(rows, t, r * stride + d) * f, size += fabs(q[i * dim + d] * get(rows, t, r * stride + d) * f);
            if (!(fabs(s[i * ld + r] - want) <= 1e-6 * size + 1e-30))
                fail_msg("%s %s nq=%lld dim=%lld: %g, expected %g", level, nm_dtype_name(t), (long long)nq, (long long)dim, (double)s[i * ld + r], want);
        }
        assert_true(s[i * ld + n] == 55);
    }
    free(q);
    free(s);
    free(scale);
    free(one);
    free(rows);
}

static void test_dots(void **state)
{
    (void)state;
    static const int64_t dims[] = { 1, 7, 8, 15, 16, 17, 31, 32, 33, 100, 512, 513 };
    nm_kernels k;
    for (int l = 0; l < LEVELS; l++)
        for (int t = 0; level_table(l, &k) && t < 4; t++)
            for (size_t d = 0; d < sizeof dims / sizeof *dims; d++)
                for (int64_t nq = 1; nq < 15; nq += nq < 8 ? 1 : 6)
                    for (int64_t n = 0; n < 10; n += n < 5 ? 1 : 4)
                        check_dots(&k, levels[l], dtypes[t], nq, n, dims[d]);
}

typedef struct scene { int64_t nq, n, dim, k; nm_dtype t; float *q; void *rows; uint64_t *skip; } scene;

/* Values of a coarse grid, so that equal scores are common; row 5 holds a NaN; every seventh row is skipped. */
static void make(scene *s, uint64_t seed)
{
    s->q = block((size_t)(s->nq * s->dim) * 4);
    s->rows = block((size_t)(s->n * s->dim) * nm_dtype_size(s->t));
    s->skip = block((size_t)(s->n / 64 + 1) * 8);
    for (int64_t i = 0; i < s->nq * s->dim; i++)
        s->q[i] = (float)(next_u32(&seed) % 5) - 2;
    for (int64_t i = 0; i < s->n * s->dim; i++)
        set(s->rows, s->t, i, ((float)(next_u32(&seed) % 5) - 2) / (s->t == NM_I8 ? 127 : 1));
    if (s->n > 5 && s->t != NM_I8)
        set(s->rows, s->t, 5 * s->dim, NAN);
    memset(s->skip, 0, (size_t)(s->n / 64 + 1) * 8);
    for (int64_t i = 0; i < s->n; i += 7)
        s->skip[i / 64] |= (uint64_t)1 << i % 64;
}

static void drop(scene *s)
{
    free(s->q);
    free(s->rows);
    free(s->skip);
}

static nm_hit *topk(const nm_kernels *kn, const scene *s, bool skip, nm_pool *pool)
{
    nm_hit *hits = block((size_t)(s->nq * s->k) * sizeof *hits);
    void *scratch = aligned_alloc(64, nm_scan_scratch(s->nq, s->k, nm_pool_size(pool)));
    nm_scan_topk(kn, s->nq, s->q, s->n, s->dim, s->rows, s->t, s->dim, NULL, skip ? s->skip : NULL, s->k, hits, pool, scratch);
    free(scratch);
    return hits;
}

static int by_rank(const void *a, const void *b)
{
    const nm_hit *x = a, *y = b;
    return x->score != y->score ? (x->score < y->score ? 1 : -1) : x->row < y->row ? -1 : x->row > y->row;
}

static void check_topk(const nm_kernels *kn, const scene *s, bool skip, nm_pool *pool)
{
    nm_hit *hits = topk(kn, s, skip, pool), *all = block((size_t)s->n * sizeof *all);
    for (int64_t q = 0; q < s->nq; q++) {
        int64_t count = 0;
        for (int64_t r = 0; r < s->n; r++) {
            double sum = 0; /* small integers: exact in every order */
            for (int64_t d = 0; d < s->dim; d++)
                sum += s->q[q * s->dim + d] * get(s->rows, s->t, r * s->dim + d);
            if (sum == sum && !(skip && (s->skip[r / 64] >> r % 64 & 1)))
                all[count++] = (nm_hit){ (float)sum, r };
        }
        qsort(all, (size_t)count, sizeof *all, by_rank);
        for (int64_t i = 0; i < s->k; i++) {
            nm_hit h = hits[q * s->k + i];
            assert_int_equal(h.row, i < count ? all[i].row : -1);
            if (i < count)
                assert_true(h.score == all[i].score);
        }
    }
    free(hits);
    free(all);
}

static void test_topk(void **state)
{
    (void)state;
    static const int64_t ks[] = { 1, 2, 10, 100 }, ns[] = { 0, 1, 3, 6, 70, 4095, 9001 };
    nm_pool *pool = nm_pool_new(3);
    nm_kernels kn;
    for (int l = 0; l < LEVELS; l++)
        for (int t = 0; level_table(l, &kn) && t < 4; t++)
            for (int i = 0; i < 4; i++)
                for (int j = 0; j < 7; j++) {
                    scene s = { ns[j] > 1000 ? 2 : 7, ns[j], 10, ks[i], dtypes[t], NULL, NULL, NULL };
                    make(&s, (uint64_t)(i * 7 + j));
                    check_topk(&kn, &s, j % 2, i % 2 ? pool : NULL);
                    drop(&s);
                }
    nm_pool_free(pool);
}

static void assert_hits_equal(const nm_hit *a, const nm_hit *b, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        assert_int_equal(a[i].row, b[i].row);
        assert_memory_equal(&a[i].score, &b[i].score, sizeof a->score);
    }
}

static void test_same_hits(void **state)
{
    (void)state;
    nm_pool *pool = nm_pool_new(4);
    nm_kernels kn;
    for (int l = 0; l < LEVELS; l++) {
        if (!level_table(l, &kn))
            continue;
        scene s = { 40, 20000, 24, 17, NM_F32, NULL, NULL, NULL };
        make(&s, 3);
        uint64_t rng = 9;
        for (int64_t i = 0; i < s.n * s.dim; i++)
            ((float *)s.rows)[i] = next_float(&rng);
        nm_hit *a = topk(&kn, &s, true, NULL), *b = topk(&kn, &s, true, pool);
        assert_hits_equal(a, b, s.nq * s.k);
        scene one = s;
        one.nq = 1;
        one.q = s.q + 33 * s.dim;
        nm_hit *c = topk(&kn, &one, true, pool);
        assert_hits_equal(c, a + 33 * s.k, s.k);
        free(a);
        free(b);
        free(c);
        drop(&s);
    }
    nm_pool_free(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_dots), cmocka_unit_test(test_topk), cmocka_unit_test(test_same_hits) };
    return cmocka_run_group_tests(tests, say_skipped_levels, NULL);
}
