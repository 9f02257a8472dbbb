/* scan_impl.h - inner products of queries and rows: a template, included inside a target region after a vec_*.h, with QB (queries
 * per register block). A block is 4 rows x QB queries, one accumulator each, read along the dimension from rows and queries as
 * they lie: 4 QB multiply-adds per 4 + QB loads, so that a batch of queries runs near the arithmetic peak without packing, and
 * one query near the speed of memory. Every score is the same chain of additions and the same tree, whatever the block is. */
#define ROWS 4
#define TILE_BYTES (128 << 10) /* rows that stay in L2 while all queries pass over them */
#define AHEAD (8 << 10)       /* bytes that a single pass prefetches ahead, */
#define AHEAD_STREAM (4 << 10) /* and when it reads one row after the other */

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

/* sums[q] = 4 scores of query q. One pass over the rows (`once`) asks for what lies AHEAD; of several passes each asks for two
 * rows of the next tile (next[0] == next[1]: one; a row of this tile: none), so that memory is read evenly all the time. */
NM_INLINE void block(const int nq, const float *queries, int64_t dim, const char *const rows[ROWS], const nm_dtype t, const bool once,
                     const char *const next[2], __m128 *sums)
{
    vf acc[QB][ROWS];
    NM_UNROLL
    for (int q = 0; q < nq; q++)
        NM_UNROLL
        for (int r = 0; r < ROWS; r++)
            acc[q][r] = vf_zero();
    int64_t i = 0, size = t == NM_F32 ? 4 : t == NM_I8 ? 1 : 2;
    for (; i + VL <= dim; i += VL) {
        vf x[ROWS];
        NM_UNROLL
        for (int r = 0; r < ROWS; r++) {
            x[r] = load_row(rows[r], t, i);
            if (once && (VL * size == 64 || i * size % 64 == 0))
                _mm_prefetch(rows[r] + i * size + AHEAD, _MM_HINT_T1);
        }
        if (!once) {
            _mm_prefetch(next[0] + i * size, _MM_HINT_T1);
            _mm_prefetch(next[1] + i * size, _MM_HINT_T1);
        }
        NM_UNROLL
        for (int q = 0; q < nq; q++) {
            vf y = vf_load(queries + q * dim + i);
            NM_UNROLL
            for (int r = 0; r < ROWS; r++)
                acc[q][r] = vf_fma(x[r], y, acc[q][r]);
        }
    }
    if (i < dim) {
        vf x[ROWS];
        NM_UNROLL
        for (int r = 0; r < ROWS; r++)
            x[r] = load_row_n(rows[r], t, i, dim - i);
        NM_UNROLL
        for (int q = 0; q < nq; q++) {
            vf y = vf_load_n(queries + q * dim + i, dim - i);
            NM_UNROLL
            for (int r = 0; r < ROWS; r++)
                acc[q][r] = vf_fma(x[r], y, acc[q][r]);
        }
    }
    NM_UNROLL
    for (int q = 0; q < nq; q++)
        sums[q] = total4(acc[q]);
}

/* The same sums for few queries, one row after the other: one stream of memory is read faster than four, and memory is all
 * that counts here. The shorter rows of the other types lie closer together, and need the four chains (f16 26 against 22 GB/s). */
NM_INLINE void stream(const int nq, const float *queries, int64_t dim, const char *const rows[ROWS], const nm_dtype t, __m128 *sums)
{
    vf acc[QB][ROWS];
    int64_t size = t == NM_F32 ? 4 : t == NM_I8 ? 1 : 2;
    NM_UNROLL
    for (int r = 0; r < ROWS; r++) {
        vf a[QB];
        NM_UNROLL
        for (int q = 0; q < nq; q++)
            a[q] = vf_zero();
        int64_t i = 0;
        for (; i + VL <= dim; i += VL) {
            vf x = load_row(rows[r], t, i);
            if (VL * size == 64 || i * size % 64 == 0)
                _mm_prefetch(rows[r] + i * size + AHEAD_STREAM, _MM_HINT_T1);
            NM_UNROLL
            for (int q = 0; q < nq; q++)
                a[q] = vf_fma(x, vf_load(queries + q * dim + i), a[q]);
        }
        if (i < dim) {
            vf x = load_row_n(rows[r], t, i, dim - i);
            NM_UNROLL
            for (int q = 0; q < nq; q++)
                a[q] = vf_fma(x, vf_load_n(queries + q * dim + i, dim - i), a[q]);
        }
        NM_UNROLL
        for (int q = 0; q < nq; q++)
            acc[q][r] = a[q];
    }
    NM_UNROLL
    for (int q = 0; q < nq; q++)
        sums[q] = total4(acc[q]);
}

/* The rows of the next tile, `ahead` bytes on, that pass `pass` of `passes` asks for: all four over all passes. */
typedef struct prefetch { int64_t ahead, pass, passes; } prefetch;

NM_INLINE void rows_to_fetch(const char *const rows[ROWS], prefetch p, const char *next[2])
{
    int found = 0;
    next[0] = next[1] = rows[0];
    for (int r = 0; r < ROWS; r++)
        if (r * p.passes / ROWS == p.pass && found < 2)
            next[found++] = rows[r] + p.ahead;
}

/* One tile of rows with nq <= QB queries. */
NM_INLINE void tile(const int nq, const float *queries, int64_t n_rows, int64_t dim, const char *first, const nm_dtype t, int64_t stride_bytes,
                    const float *row_scale, prefetch p, float *scores, int64_t ld)
{
    for (int64_t r = 0; r < n_rows; r += ROWS) {
        const char *rows[ROWS], *next[2];
        __m128 sums[QB], scale = _mm_set1_ps(1);
        int64_t n = n_rows - r < ROWS ? n_rows - r : ROWS;
        for (int64_t j = 0; j < ROWS; j++)
            rows[j] = first + (r + (j < n ? j : 0)) * stride_bytes; /* past the end: row r again, its result is dropped */
        rows_to_fetch(rows, p, next);
        if (p.passes == 1 && nq <= 3 && t == NM_F32)
            stream(nq, queries, dim, rows, t, sums);
        else if (p.passes == 1)
            block(nq, queries, dim, rows, t, true, next, sums);
        else
            block(nq, queries, dim, rows, t, false, next, sums);
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
                     prefetch p, float *scores, int64_t ld);
#define TILE(nq, t) \
    static void tile_##nq##_##t(const float *queries, int64_t n_rows, int64_t dim, const char *first, int64_t stride_bytes, \
                                const float *row_scale, prefetch p, float *scores, int64_t ld) \
    { tile(nq, queries, n_rows, dim, first, t, stride_bytes, row_scale, p, scores, ld); }
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
    int64_t passes = (nq + QB - 1) / QB; /* a batch fetches the next tile meanwhile, evenly over its passes */
    for (int64_t r = 0; r < n_rows; r += step) {
        int64_t n = n_rows - r < step ? n_rows - r : step;
        for (int64_t q = 0; q < nq; q += QB) {
            prefetch p = { step * stride_bytes, q / QB, passes };
            fn[(nq - q < QB ? nq - q : QB) - 1](queries + q * dim, n, dim, (const char *)rows + r * stride_bytes, stride_bytes,
                                                row_scale ? row_scale + r : NULL, p, scores + q * ld + r, ld);
        }
    }
}
