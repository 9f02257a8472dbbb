/* gemm_tile_impl.h - the loop of the product: a register block of up to MR rows by two vectors of columns. A template, included
 * after vec_*.h inside a target region, with
 *   TILE                 name of the function           MR                most rows: 4, 6 or 12
 *   ACC, ACC_ZERO        accumulator vector             PER_UNIT          elements of a 32-bit unit
 *   LOAD_A(p)            a unit of a row, broadcast     LOAD_B(p)         VL units of the panel
 *   MADD(c, a, b)        c + the products of a unit     STORE_ACC(p, c)
 *   LOAD_A_LAST(p, n)    the first n < PER_UNIT elements of a unit that the row does not have whole; not defined where rows
 *                        are converted and so padded.
 * One unit of k after the other: the order of additions is the same for every number of rows. */

#ifndef TILE_PREFETCH
#define TILE_PREFETCH 1024 /* bytes ahead in the panel, which comes from the second-level cache or, with few rows, from memory */
#endif

#define FEW_ROWS 4
#define FEW_ROWS_PREFETCH 4096 /* bytes ahead where the panel comes from memory at the rate of memory */
#define JOIN2(a, b) a##b
#define JOIN(a, b) JOIN2(a, b)
#define ROW(r) (p[(r) / 3] + (r) % 3 * stride)

/* The single tile of a few rows reads its panel once: it need not push what is read more often (a picture's keys and values) out of
 * the caches. */
NM_INLINE void JOIN(TILE, _ask)(const bool once, const char *p)
{
    if (once)
        _mm_prefetch(p + FEW_ROWS_PREFETCH, _MM_HINT_NTA);
    else
        _mm_prefetch(p + TILE_PREFETCH, _MM_HINT_T0);
}

NM_INLINE void JOIN(TILE, _rows)(const int rows, const bool wide, const nm_gemm_tile *t)
{
    const char *b = t->panel, *next = t->next;
    int64_t k = t->k, stride = t->a_stride, next_step = t->next_step;
    const bool once = rows <= FEW_ROWS && next_step == 0;
    ACC c[MR][2];
    const char *p[(MR + 2) / 3]; /* every third row: the others are one or two strides further */
    UNROLL for (int r = 0; r < rows; r++)
        c[r][0] = c[r][1] = ACC_ZERO;
    UNROLL for (int r = 0; r < rows; r += 3)
        p[r / 3] = t->a + r * stride;
#ifdef LOAD_A_LAST
    int64_t units = k / PER_UNIT;
#else
    int64_t units = (k + PER_UNIT - 1) / PER_UNIT;
#endif
    for (int64_t i = 0; i < units; i++, b += 8 * VL) {
        ACC b0 = LOAD_B(b), b1 = wide ? LOAD_B(b + 4 * VL) : ACC_ZERO;
        JOIN(TILE, _ask)(once, b);
        if (VL == 16 && wide)
            JOIN(TILE, _ask)(once, b + 64);
        _mm_prefetch(next, _MM_HINT_T1);
        _mm_prefetch(next + 64, _MM_HINT_T1);
        next += next_step;
        UNROLL for (int r = 0; r < rows; r++) {
            ACC x = LOAD_A(ROW(r) + 4 * i);
            c[r][0] = MADD(c[r][0], x, b0);
            if (wide)
                c[r][1] = MADD(c[r][1], x, b1);
        }
    }
#ifdef LOAD_A_LAST
    if (k % PER_UNIT) {
        ACC b0 = LOAD_B(b), b1 = wide ? LOAD_B(b + 4 * VL) : ACC_ZERO;
        UNROLL for (int r = 0; r < rows; r++) {
            ACC x = LOAD_A_LAST(ROW(r) + 4 * units, k % PER_UNIT);
            c[r][0] = MADD(c[r][0], x, b0);
            if (wide)
                c[r][1] = MADD(c[r][1], x, b1);
        }
    }
#endif
    float *out = t->acc;
    UNROLL for (int r = 0; r < rows; r++) {
        STORE_ACC(out + r * 2 * VL, c[r][0]);
        if (wide)
            STORE_ACC(out + r * 2 * VL + VL, c[r][1]);
    }
}

/* One copy of the loop per number of rows, each with its accumulators in registers; and one of each for a last panel of which one
 * vector of columns is wanted (convolutions of 12 or 48 channels). */
#undef BY_ROWS_CASES
#define BY_ROWS_CASE(f, n) case n: f(n, wide, t); break;
#if MR == 4
#define BY_ROWS_CASES(f)
#elif MR == 6
#define BY_ROWS_CASES(f) BY_ROWS_CASE(f, 5) BY_ROWS_CASE(f, 6)
#else
#define BY_ROWS_CASES(f) \
    BY_ROWS_CASE(f, 5) BY_ROWS_CASE(f, 6) BY_ROWS_CASE(f, 7) BY_ROWS_CASE(f, 8) BY_ROWS_CASE(f, 9) BY_ROWS_CASE(f, 10) BY_ROWS_CASE(f, 11) BY_ROWS_CASE(f, 12)
#endif
#define BY_ROWS(f) \
    switch (t->rows) { \
        BY_ROWS_CASE(f, 1) BY_ROWS_CASE(f, 2) BY_ROWS_CASE(f, 3) BY_ROWS_CASE(f, 4) BY_ROWS_CASES(f) \
    }

NM_INLINE void JOIN(TILE, _by_rows)(const bool wide, const nm_gemm_tile *t)
{
    BY_ROWS(JOIN(TILE, _rows))
}

static void TILE(const nm_gemm_tile *t)
{
    if (t->cols > VL)
        JOIN(TILE, _by_rows)(true, t);
    else
        JOIN(TILE, _by_rows)(false, t);
}
