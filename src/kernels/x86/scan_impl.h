/* scan_impl.h - inner products of queries and rows: a template, included inside a target region after a vec_*.h, with QB (queries
 * per register block). A block is 4 rows x QB queries, one accumulator each, read along the dimension from rows and queries as
 * they lie: 4 QB multiply-adds per 4 + QB loads, so that a batch of queries runs near the arithmetic peak without packing, and
 * one query near the speed of memory. Every score is the same chain of additions and the same tree, whatever the block is. */
#define ROWS 4
#define TILE_BYTES (128 << 10) /* rows that stay in L2 while all queries pass over them */
#define AHEAD (12 << 10)       /* bytes that one query prefetches ahead */

NM_INLINE vf load_row(const char *row, const nm_dtype t, int64_t i)
{
    return t == NM_F32    ? vf_load((const float *)row + i)
           : t == NM_BF16 ? vf_of_bf16((const uint16_t *)row + i)
           : t == NM_F16  ? vf_of_f16((const uint16_t *)row + i)
                          : vf_of_i8((const int8_t *)row + i);
}

NM_INLINE vf load_row_n(const char *row, const nm_dtype t, int64_t i, int64_t n)
{
    return t == NM_F32    ? vf_load_n((const float *)row + i, n)
           : t == NM_BF16 ? vf_of_bf16_n((const uint16_t *)row + i, n)
           : t == NM_F16  ? vf_of_f16_n((const uint16_t *)row + i, n)
                          : vf_of_i8_n((const int8_t *)row + i, n);
}

/* The lane totals of 4 vectors. */
NM_INLINE __m128 total4(const vf a[ROWS])
{
#if VL == 16
    vf x = _mm512_add_ps(_mm512_unpacklo_ps(a[0], a[1]), _mm512_unpackhi_ps(a[0], a[1]));
    vf y = _mm512_add_ps(_mm512_unpacklo_ps(a[2], a[3]), _mm512_unpackhi_ps(a[2], a[3]));
    __m512d xd = _mm512_castps_pd(x), yd = _mm512_castps_pd(y);
    vf t = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(xd, yd)), _mm512_castpd_ps(_mm512_unpackhi_pd(xd, yd)));
    __m256 h = _mm256_add_ps(_mm512_castps512_ps256(t), _mm512_extractf32x8_ps(t, 1));
#else
    vf x = _mm256_add_ps(_mm256_unpacklo_ps(a[0], a[1]), _mm256_unpackhi_ps(a[0], a[1]));
    vf y = _mm256_add_ps(_mm256_unpacklo_ps(a[2], a[3]), _mm256_unpackhi_ps(a[2], a[3]));
    __m256d xd = _mm256_castps_pd(x), yd = _mm256_castps_pd(y);
    __m256 h = _mm256_add_ps(_mm256_castpd_ps(_mm256_unpacklo_pd(xd, yd)), _mm256_castpd_ps(_mm256_unpackhi_pd(xd, yd)));
#endif
    return _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
}

/* sums[q] = 4 scores of query q; `ahead` bytes further on lies what will be needed next (0: nothing to prefetch). */
NM_INLINE void block(const int nq, const float *queries, int64_t dim, const char *const rows[ROWS], const nm_dtype t, int64_t ahead, __m128 *sums)
{
    vf acc[QB][ROWS];
    for (int q = 0; q < nq; q++)
        for (int r = 0; r < ROWS; r++)
            acc[q][r] = vf_zero();
    int64_t i = 0, size = t == NM_F32 ? 4 : t == NM_I8 ? 1 : 2;
    for (; i + VL <= dim; i += VL) {
        vf x[ROWS];
        for (int r = 0; r < ROWS; r++) {
            x[r] = load_row(rows[r], t, i);
            if (ahead && (i * size) % 64 == 0)
                _mm_prefetch(rows[r] + i * size + ahead, _MM_HINT_T0);
        }
        for (int q = 0; q < nq; q++) {
            vf y = vf_load(queries + q * dim + i);
            for (int r = 0; r < ROWS; r++)
                acc[q][r] = vf_fma(x[r], y, acc[q][r]);
        }
    }
    if (i < dim) {
        vf x[ROWS];
        for (int r = 0; r < ROWS; r++)
            x[r] = load_row_n(rows[r], t, i, dim - i);
        for (int q = 0; q < nq; q++) {
            vf y = vf_load_n(queries + q * dim + i, dim - i);
            for (int r = 0; r < ROWS; r++)
                acc[q][r] = vf_fma(x[r], y, acc[q][r]);
        }
    }
    for (int q = 0; q < nq; q++)
        sums[q] = total4(acc[q]);
}

NM_INLINE void blocks(const int nq, const float *queries, int64_t dim, const char *const rows[ROWS], const nm_dtype t, int64_t ahead, __m128 *sums)
{
    if (ahead)
        block(nq, queries, dim, rows, t, ahead, sums);
    else
        block(nq, queries, dim, rows, t, 0, sums);
}

/* One tile of rows with nq <= QB queries. */
NM_INLINE void tile(const int nq, const float *queries, int64_t n_rows, int64_t dim, const char *first, const nm_dtype t, int64_t stride_bytes,
                    const float *row_scale, int64_t ahead, float *scores, int64_t ld)
{
    for (int64_t r = 0; r < n_rows; r += ROWS) {
        const char *rows[ROWS];
        __m128 sums[QB], scale = _mm_set1_ps(1);
        int64_t n = n_rows - r < ROWS ? n_rows - r : ROWS;
        for (int64_t j = 0; j < ROWS; j++)
            rows[j] = first + (r + (j < n ? j : 0)) * stride_bytes; /* past the end: row r again, its result is dropped */
        blocks(nq, queries, dim, rows, t, ahead, sums);
        if (t == NM_I8 && row_scale) {
            float s[ROWS];
            for (int64_t j = 0; j < ROWS; j++)
                s[j] = row_scale[r + (j < n ? j : 0)];
            scale = _mm_loadu_ps(s);
        }
        for (int q = 0; q < nq; q++) {
            if (t == NM_I8)
                sums[q] = _mm_mul_ps(sums[q], scale);
            if (n == ROWS)
                _mm_storeu_ps(scores + q * ld + r, sums[q]);
            else {
                float s[ROWS];
                _mm_storeu_ps(s, sums[q]);
                for (int64_t j = 0; j < n; j++)
                    scores[q * ld + r + j] = s[j];
            }
        }
    }
}

typedef void tile_fn(const float *queries, int64_t n_rows, int64_t dim, const char *first, int64_t stride_bytes, const float *row_scale,
                     int64_t ahead, float *scores, int64_t ld);
#define TILE(nq, t) \
    static void tile_##nq##_##t(const float *queries, int64_t n_rows, int64_t dim, const char *first, int64_t stride_bytes, \
                                const float *row_scale, int64_t ahead, float *scores, int64_t ld) \
    { tile(nq, queries, n_rows, dim, first, t, stride_bytes, row_scale, ahead, scores, ld); }
#define TILES(t) TILE(1, t) TILE(2, t) TILE(3, t) TILE_MORE(t)
#if QB == 6
#define TILE_MORE(t) TILE(4, t) TILE(5, t) TILE(6, t)
#define TILE_ROW(t) { tile_1_##t, tile_2_##t, tile_3_##t, tile_4_##t, tile_5_##t, tile_6_##t }
#else
#define TILE_MORE(t)
#define TILE_ROW(t) { tile_1_##t, tile_2_##t, tile_3_##t }
#endif
TILES(NM_F32) TILES(NM_BF16) TILES(NM_F16) TILES(NM_I8)

static tile_fn *const tiles[4][QB] = { TILE_ROW(NM_F32), TILE_ROW(NM_BF16), TILE_ROW(NM_F16), TILE_ROW(NM_I8) };

void NAME(nm_dots)(int64_t nq, const float *queries, int64_t n_rows, int64_t dim, const void *rows, nm_dtype dtype, int64_t stride,
                   const float *row_scale, float *scores, int64_t ld)
{
    tile_fn *const *fn = tiles[dtype == NM_F32 ? 0 : dtype == NM_BF16 ? 1 : dtype == NM_F16 ? 2 : 3];
    int64_t stride_bytes = stride * (int64_t)nm_dtype_size(dtype), step = TILE_BYTES / (stride_bytes > 0 ? stride_bytes : 1) & -ROWS;
    step = step < ROWS ? ROWS : step;
    for (int64_t r = 0; r < n_rows; r += step) {
        int64_t n = n_rows - r < step ? n_rows - r : step;
        for (int64_t q = 0; q < nq; q += QB) /* the first queries bring the tile into the cache */
            fn[(nq - q < QB ? nq - q : QB) - 1](queries + q * dim, n, dim, (const char *)rows + r * stride_bytes, stride_bytes,
                                                row_scale ? row_scale + r : NULL, q == 0 ? AHEAD : 0, scores + q * ld + r, ld);
    }
}
