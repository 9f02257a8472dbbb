/* channels_impl.h - channels.h with vectors: a template, included inside a target region after a vec_*.h; NAME(x) adds the suffix. */

/* ---- c += a^T b: a register block of up to 6 rows by two vectors of columns ---- */

#define OUTER_K 128 /* rows whose columns of b are copied together: 16 KiB at 512-bit vectors, half of the first-level cache */

/* `panel` is [k][2 VL]. */
NM_INLINE void outer_rows(const int rows, int64_t k, const float *a, int64_t lda, const float *panel, float *c, int64_t ldc, int64_t cols)
{
    vf acc[6][2];
    UNROLL for (int r = 0; r < rows; r++)
        acc[r][0] = acc[r][1] = vf_zero();
    for (int64_t t = 0; t < k; t++, a += lda, panel += 2 * VL) {
        vf b0 = vf_load(panel), b1 = vf_load(panel + VL);
        UNROLL for (int r = 0; r < rows; r++) {
            vf x = vf_set1(a[r]);
            acc[r][0] = vf_fma(x, b0, acc[r][0]);
            acc[r][1] = vf_fma(x, b1, acc[r][1]);
        }
    }
    int64_t n0 = cols < VL ? cols : VL, n1 = cols - n0;
    UNROLL for (int r = 0; r < rows; r++) {
        float *o = c + r * ldc;
        if (n1 == VL) {
            vf_store(o, vf_add(vf_load(o), acc[r][0]));
            vf_store(o + VL, vf_add(vf_load(o + VL), acc[r][1]));
            continue;
        }
        vf_store_n(o, vf_add(vf_load_n(o, n0), acc[r][0]), n0);
        if (n1)
            vf_store_n(o + VL, vf_add(vf_load_n(o + VL, n1), acc[r][1]), n1);
    }
}

static void outer_tile(int rows, int64_t k, const float *a, int64_t lda, const float *panel, float *c, int64_t ldc, int64_t cols)
{
    switch (rows) {
    case 1: outer_rows(1, k, a, lda, panel, c, ldc, cols); break;
    case 2: outer_rows(2, k, a, lda, panel, c, ldc, cols); break;
    case 3: outer_rows(3, k, a, lda, panel, c, ldc, cols); break;
    case 4: outer_rows(4, k, a, lda, panel, c, ldc, cols); break;
    case 5: outer_rows(5, k, a, lda, panel, c, ldc, cols); break;
    default: outer_rows(6, k, a, lda, panel, c, ldc, cols); break;
    }
}

static void outer_panel(int64_t k, const float *b, int64_t ldb, int64_t cols, float *panel)
{
    int64_t n0 = cols < VL ? cols : VL, n1 = cols - n0;
    for (int64_t t = 0; t < k; t++, b += ldb, panel += 2 * VL) {
        vf_store(panel, n0 == VL ? vf_load(b) : vf_load_n(b, n0));
        vf_store(panel + VL, n1 == VL ? vf_load(b + VL) : n1 ? vf_load_n(b + VL, n1) : vf_zero());
    }
}

void NAME(nm_outer)(int64_t k, int64_t m, int64_t n, const float *a, int64_t lda, const float *b, int64_t ldb, float *c, int64_t ldc)
{
    _Alignas(64) float panel[OUTER_K * 2 * VL];
    int64_t tiles = (m + 5) / 6;
    for (int64_t k0 = 0; k0 < k; k0 += OUTER_K) {
        int64_t kk = k - k0 < OUTER_K ? k - k0 : OUTER_K;
        for (int64_t j = 0; j < n; j += 2 * VL) {
            int64_t cols = n - j < 2 * VL ? n - j : 2 * VL;
            outer_panel(kk, b + k0 * ldb + j, ldb, cols, panel);
            for (int64_t t = 0; t < tiles; t++) { /* rows shared out evenly: 32 are 5 5 6 5 5 6, not 6 6 6 6 6 2 */
                int64_t i = m * t / tiles, end = m * (t + 1) / tiles;
                outer_tile((int)(end - i), kk, a + k0 * lda + i, lda, panel, c + i * ldc + j, ldc, cols);
            }
        }
    }
}

/* ---- statistics: two vectors of channels down the rows, four accumulators each ---- */

void NAME(nm_moments)(int64_t rows, int64_t cols, const float *x, const float *shift, float *sum, float *square)
{
    for (int64_t c = 0; c < cols; c += VL) {
        int64_t n = cols - c < VL ? cols - c : VL, i = 0;
        vf k = vf_load_n(shift + c, n), s0 = vf_zero(), s1 = s0, q0 = s0, q1 = s0;
        const float *p = x + c;
        if (n == VL)
            for (; i + 2 <= rows; i += 2, p += 2 * cols) {
                vf d0 = vf_sub(vf_load(p), k), d1 = vf_sub(vf_load(p + cols), k);
                s0 = vf_add(s0, d0);
                s1 = vf_add(s1, d1);
                q0 = vf_fma(d0, d0, q0);
                q1 = vf_fma(d1, d1, q1);
            }
        for (; i < rows; i++, p += cols) {
            vf d = vf_sub(vf_load_n(p, n), k);
            s0 = vf_add(s0, d);
            q0 = vf_fma(d, d, q0);
        }
        vf_store_n(sum + c, vf_add(s0, s1), n);
        vf_store_n(square + c, vf_add(q0, q1), n);
    }
}

NM_INLINE void affine_row(int64_t cols, const float *x, const float *scale, const float *shift, const float *residual, const bool more, const bool relu,
                          float *y)
{
    int64_t c = 0;
    for (; c + VL <= cols; c += VL) {
        vf v = vf_fma(vf_load(x + c), vf_load(scale + c), vf_load(shift + c));
        if (more)
            v = vf_add(v, vf_load(residual + c));
        vf_store(y + c, relu ? vf_max(vf_zero(), v) : v);
    }
    if (c < cols) {
        int64_t n = cols - c;
        vf v = vf_fma(vf_load_n(x + c, n), vf_load_n(scale + c, n), vf_load_n(shift + c, n));
        if (more)
            v = vf_add(v, vf_load_n(residual + c, n));
        vf_store_n(y + c, relu ? vf_max(vf_zero(), v) : v, n);
    }
}

void NAME(nm_affine)(int64_t rows, int64_t cols, const float *x, const float *scale, const float *shift, const float *residual, bool relu, float *y)
{
    for (int64_t i = 0; i < rows; i++, x += cols, y += cols) {
        if (residual) {
            affine_row(cols, x, scale, shift, residual, true, relu, y);
            residual += cols;
        } else if (relu)
            affine_row(cols, x, scale, shift, NULL, false, true, y);
        else
            affine_row(cols, x, scale, shift, NULL, false, false, y);
    }
}

/* ---- the way back ---- */

enum { SIGN_NONE, SIGN_Y, SIGN_X };

NM_INLINE int sign_source(const nm_channel_back *j) { return !j->relu ? SIGN_NONE : j->y ? SIGN_Y : SIGN_X; }

NM_INLINE vf back_dz(const int sign, const nm_channel_back *j, int64_t i, int64_t n, vf x, vf scale, vf shift)
{
    vf dy = n == VL ? vf_load(j->dy + i) : vf_load_n(j->dy + i, n);
    if (sign == SIGN_Y)
        return vf_where_positive(n == VL ? vf_load(j->y + i) : vf_load_n(j->y + i, n), dy);
    return sign == SIGN_X ? vf_where_positive(vf_fma(x, scale, shift), dy) : dy;
}

NM_INLINE void back_sums(const int sign, int64_t rows, const nm_channel_back *j, float *sum, float *product)
{
    for (int64_t c = 0; c < j->cols; c += VL) {
        int64_t n = j->cols - c < VL ? j->cols - c : VL, at = c;
        vf mean = vf_load_n(j->mean + c, n), s0 = vf_zero(), s1 = s0, p0 = s0, p1 = s0;
        vf scale = sign == SIGN_X ? vf_load_n(j->scale + c, n) : s0, shift = sign == SIGN_X ? vf_load_n(j->shift + c, n) : s0;
        int64_t i = 0;
        if (n == VL)
            for (; i + 2 <= rows; i += 2, at += 2 * j->cols) {
                vf x0 = vf_load(j->x + at), x1 = vf_load(j->x + at + j->cols);
                vf d0 = back_dz(sign, j, at, VL, x0, scale, shift), d1 = back_dz(sign, j, at + j->cols, VL, x1, scale, shift);
                s0 = vf_add(s0, d0);
                s1 = vf_add(s1, d1);
                p0 = vf_fma(d0, vf_sub(x0, mean), p0);
                p1 = vf_fma(d1, vf_sub(x1, mean), p1);
            }
        for (; i < rows; i++, at += j->cols) {
            vf x = vf_load_n(j->x + at, n), d = back_dz(sign, j, at, n, x, scale, shift);
            s0 = vf_add(s0, d);
            p0 = vf_fma(d, vf_sub(x, mean), p0);
        }
        vf_store_n(sum + c, vf_add(s0, s1), n);
        vf_store_n(product + c, vf_add(p0, p1), n);
    }
}

void NAME(nm_back_sums)(int64_t rows, const nm_channel_back *j, float *sum, float *product)
{
    switch (sign_source(j)) {
    case SIGN_NONE: back_sums(SIGN_NONE, rows, j, sum, product); break;
    case SIGN_Y: back_sums(SIGN_Y, rows, j, sum, product); break;
    default: back_sums(SIGN_X, rows, j, sum, product); break;
    }
}

/* VL channels, or n of them at the end of a row. */
NM_INLINE void back_vector(const int sign, const bool whole, const nm_channel_back *j, int64_t at, int64_t c, int64_t n)
{
#define LOAD(p) (whole ? vf_load(p) : vf_load_n(p, n))
#define STORE(p, x) (whole ? vf_store(p, x) : vf_store_n(p, x, n))
    vf x = LOAD(j->x + at), none = vf_zero();
    vf d = back_dz(sign, j, at, whole ? VL : n, x, sign == SIGN_X ? LOAD(j->scale + c) : none, sign == SIGN_X ? LOAD(j->shift + c) : none);
    if (j->residual)
        STORE(j->residual + at, j->residual_fresh ? d : vf_add(LOAD(j->residual + at), d));
    d = vf_sub(vf_sub(d, LOAD(j->a + c)), vf_mul(vf_sub(x, LOAD(j->mean + c)), LOAD(j->b + c)));
    STORE(j->dx + at, vf_mul(d, LOAD(j->k + c)));
#undef LOAD
#undef STORE
}

NM_INLINE void back_rows(const int sign, int64_t rows, const nm_channel_back *in)
{
    nm_channel_back copy = *in; /* its fields stay in registers: stores cannot change them */
    const nm_channel_back *j = &copy;
    for (int64_t i = 0; i < rows; i++) {
        int64_t c = 0;
        for (; c + VL <= j->cols; c += VL)
            back_vector(sign, true, j, i * j->cols + c, c, VL);
        if (c < j->cols)
            back_vector(sign, false, j, i * j->cols + c, c, j->cols - c);
    }
}

void NAME(nm_back_rows)(int64_t rows, const nm_channel_back *j)
{
    switch (sign_source(j)) {
    case SIGN_NONE: back_rows(SIGN_NONE, rows, j); break;
    case SIGN_Y: back_rows(SIGN_Y, rows, j); break;
    default: back_rows(SIGN_X, rows, j); break;
    }
}
