/* gradient_impl.h - backwards and updates: a template, included inside a target region after a math_*.h; NAME(x) adds the suffix. */

/* Every loop over n values: whole vectors, then one with `left` lanes. */
#define FOR_VECTORS(i, n, ...)                                                                                                             \
    {                                                                                                                                      \
        int64_t i = 0;                                                                                                                     \
        for (; i + VL <= n; i += VL) { enum { whole = 1 }; const int64_t left = VL; (void)left; __VA_ARGS__ }                                  \
        if (i < n) { enum { whole = 0 }; const int64_t left = n - i; __VA_ARGS__ }                                                        \
    }
#define LOAD(p) (whole ? vf_load(p) : vf_load_n(p, left))
#define STORE(p, x) (whole ? vf_store(p, x) : vf_store_n(p, x, left))

/* ---- activations ---- */

/* d act(x) / dx; `act` is a constant where this is used. */
NM_INLINE vf vf_act_slope(vf x, const nm_act act)
{
    const vf one = vf_set1(1), half = vf_set1(0.5f);
    vf s, t;
    switch (act) {
    case NM_ACT_RELU: return vf_where_positive(x, one);
    case NM_ACT_QUICK_GELU:
        s = vf_times_sigmoid(one, vf_mul(x, vf_set1(-1.702f)));
        return vf_fma(vf_mul(vf_mul(vf_set1(1.702f), x), s), vf_sub(one, s), s);
    case NM_ACT_SILU:
        s = vf_times_sigmoid(one, vf_sub(vf_zero(), x));
        return vf_fma(vf_mul(x, s), vf_sub(one, s), s);
    case NM_ACT_GELU:
        s = vf_mul(half, vf_add(one, vf_erf(vf_mul(x, vf_set1(0.70710678118654752440f)))));
        t = vf_exp(vf_mul(vf_mul(vf_set1(-0.5f), x), x));
        return vf_fma(vf_mul(x, vf_set1(0.39894228040143267794f)), t, s);
    case NM_ACT_GELU_TANH:
        s = vf_mul(x, x);
        t = vf_tanh(vf_mul(vf_mul(x, vf_set1(0.79788456080286535588f)), vf_fma(s, vf_set1(0.044715f), one)));
        return vf_fma(vf_mul(vf_mul(half, x), vf_sub(one, vf_mul(t, t))),
                      vf_mul(vf_set1(0.79788456080286535588f), vf_fma(s, vf_set1(3 * 0.044715f), one)), vf_mul(half, vf_add(one, t)));
    case NM_ACT_TANH:
        t = vf_tanh(x);
        return vf_sub(one, vf_mul(t, t));
    default: return one;
    }
}

NM_INLINE void slopes(int64_t n, const float *x, const nm_act act, const float *dy, float *dx, bool add)
{
    if (add)
        FOR_VECTORS(i, n, STORE(dx + i, vf_fma(LOAD(dy + i), vf_act_slope(LOAD(x + i), act), LOAD(dx + i)));)
    else
        FOR_VECTORS(i, n, STORE(dx + i, vf_mul(LOAD(dy + i), vf_act_slope(LOAD(x + i), act)));)
}

void NAME(nm_act_back)(int64_t n, const float *x, nm_act act, const float *dy, float *dx, bool add)
{
    switch (act) {
#define CASE(a) case a: slopes(n, x, a, dy, dx, add); break;
    CASE(NM_ACT_QUICK_GELU) CASE(NM_ACT_GELU) CASE(NM_ACT_GELU_TANH) CASE(NM_ACT_RELU) CASE(NM_ACT_SILU) CASE(NM_ACT_TANH)
#undef CASE
    default: slopes(n, x, NM_ACT_NONE, dy, dx, add); break;
    }
}

/* ---- LayerNorm ---- */

/* The sums that a row needs, in 4 vectors each: the mean first, the others around it. */
NM_INLINE float row_mean(int64_t n, const float *x)
{
    vf a = vf_zero(), b = a, c = a, d = a;
    int64_t i = 0;
    for (; i + 4 * VL <= n; i += 4 * VL) {
        a = vf_add(a, vf_load(x + i));
        b = vf_add(b, vf_load(x + i + VL));
        c = vf_add(c, vf_load(x + i + 2 * VL));
        d = vf_add(d, vf_load(x + i + 3 * VL));
    }
    for (; i < n; i += VL)
        a = vf_add(a, n - i >= VL ? vf_load(x + i) : vf_load_n(x + i, n - i));
    return vf_sum(vf_add(vf_add(a, b), vf_add(c, d))) / (float)n;
}

/* Over a row: squares of x - mean, g, and g (x - mean), where g = dy * weight. */
NM_INLINE void row_moments(int64_t n, const float *x, const float *dy, const float *weight, float mean, float *sq, float *sg, float *sgx)
{
    vf m = vf_set1(mean), a[2] = { vf_zero(), vf_zero() }, b[2] = { a[0], a[0] }, c[2] = { a[0], a[0] };
    int64_t i = 0;
    for (; i + 2 * VL <= n; i += 2 * VL) {
        NM_UNROLL
        for (int k = 0; k < 2; k++) {
            vf h = vf_sub(vf_load(x + i + k * VL), m), g = vf_load(dy + i + k * VL);
            g = weight ? vf_mul(g, vf_load(weight + i + k * VL)) : g;
            a[k] = vf_fma(h, h, a[k]);
            b[k] = vf_add(b[k], g);
            c[k] = vf_fma(g, h, c[k]);
        }
    }
    for (; i < n; i += VL) {
        int64_t left = n - i < VL ? n - i : VL;
        vf h = vf_sub(vf_fill(vf_load_n(x + i, left), left, mean), m), g = vf_load_n(dy + i, left);
        g = weight ? vf_mul(g, vf_load_n(weight + i, left)) : g;
        a[0] = vf_fma(h, h, a[0]);
        b[0] = vf_add(b[0], g);
        c[0] = vf_fma(g, h, c[0]);
    }
    *sq = vf_sum(vf_add(a[0], a[1]));
    *sg = vf_sum(vf_add(b[0], b[1]));
    *sgx = vf_sum(vf_add(c[0], c[1]));
}

void NAME(nm_layernorm_back)(int64_t rows, int64_t cols, const float *x, int64_t ldx, const float *weight, float eps, const float *dy, float *dx, bool add,
                             float *dweight, float *dbias)
{
    for (int64_t r = 0; r < rows; r++, x += ldx, dy += cols, dx = dx ? dx + ldx : NULL) {
        float mean = row_mean(cols, x), sq, sg, sgx, n = (float)cols;
        row_moments(cols, x, dy, weight, mean, &sq, &sg, &sgx);
        float rstd = 1 / sqrtf(sq / n + eps);
        vf m = vf_set1(mean), s = vf_set1(rstd), mg = vf_set1(sg / n), mgh = vf_set1(sgx / n * rstd);
        FOR_VECTORS(i, cols, {
            vf h = vf_mul(vf_sub(LOAD(x + i), m), s), d = LOAD(dy + i), g = weight ? vf_mul(d, LOAD(weight + i)) : d;
            if (dweight)
                STORE(dweight + i, vf_fma(d, h, LOAD(dweight + i)));
            if (dbias)
                STORE(dbias + i, vf_add(d, LOAD(dbias + i)));
            if (dx) {
                vf t = vf_mul(vf_sub(vf_sub(g, mg), vf_mul(h, mgh)), s);
                STORE(dx + i, add ? vf_add(LOAD(dx + i), t) : t);
            }
        })
    }
}

/* ---- softmax ---- */

void NAME(nm_softmax_back)(int64_t rows, int64_t cols, const float *p, float *dp, int64_t ld, float scale)
{
    for (int64_t r = 0; r < rows; r++, p += ld, dp += ld) {
        vf acc = vf_zero(), k = vf_set1(scale);
        FOR_VECTORS(i, cols, acc = vf_fma(LOAD(p + i), LOAD(dp + i), acc);)
        vf sum = vf_set1(vf_sum(acc));
        FOR_VECTORS(i, cols, STORE(dp + i, vf_mul(vf_mul(LOAD(p + i), k), vf_sub(LOAD(dp + i), sum)));)
    }
}

/* ---- small products ---- */

#define SP_ROWS 6

/* ROWS x 2 vectors of c in registers. */
NM_INLINE void small_tile(const int rows, int64_t k, const float *a, int64_t a_row, int64_t a_step, const float *b, int64_t ldb, float *c, int64_t ldc,
                          int64_t cols, bool add)
{
    vf acc[SP_ROWS][2];
    const bool full = cols == 2 * VL;
    const int64_t n0 = cols < VL ? cols : VL, n1 = cols - n0;
    NM_UNROLL
    for (int i = 0; i < rows; i++) {
        acc[i][0] = add ? vf_load_n(c + i * ldc, n0) : vf_zero();
        acc[i][1] = add && n1 > 0 ? vf_load_n(c + i * ldc + VL, n1) : vf_zero();
    }
    for (int64_t t = 0; t < k; t++, a += a_step, b += ldb) {
        vf x = full ? vf_load(b) : vf_load_n(b, n0), y = full ? vf_load(b + VL) : n1 > 0 ? vf_load_n(b + VL, n1) : vf_zero();
        NM_UNROLL
        for (int i = 0; i < rows; i++) {
            vf f = vf_set1(a[i * a_row]);
            acc[i][0] = vf_fma(f, x, acc[i][0]);
            acc[i][1] = vf_fma(f, y, acc[i][1]);
        }
    }
    NM_UNROLL
    for (int i = 0; i < rows; i++) {
        vf_store_n(c + i * ldc, acc[i][0], n0);
        if (n1 > 0)
            vf_store_n(c + i * ldc + VL, acc[i][1], n1);
    }
}

void NAME(nm_small_product)(int64_t m, int64_t n, int64_t k, const float *a, int64_t a_row, int64_t a_step, const float *b, int64_t ldb, float *c,
                            int64_t ldc, bool add)
{
    for (int64_t j = 0; j < n; j += 2 * VL) {
        int64_t cols = n - j < 2 * VL ? n - j : 2 * VL, i = 0;
        for (; i + SP_ROWS <= m; i += SP_ROWS) {
            if (cols == 2 * VL)
                small_tile(SP_ROWS, k, a + i * a_row, a_row, a_step, b + j, ldb, c + i * ldc + j, ldc, 2 * VL, add);
            else
                small_tile(SP_ROWS, k, a + i * a_row, a_row, a_step, b + j, ldb, c + i * ldc + j, ldc, cols, add);
        }
        for (; i + 2 <= m; i += 2)
            small_tile(2, k, a + i * a_row, a_row, a_step, b + j, ldb, c + i * ldc + j, ldc, cols, add);
        if (i < m)
            small_tile(1, k, a + i * a_row, a_row, a_step, b + j, ldb, c + i * ldc + j, ldc, cols, add);
    }
}

/* ---- sums and copies ---- */

void NAME(nm_column_sums)(int64_t rows, int64_t cols, const float *x, int64_t ld, float *out)
{
    int64_t c = 0;
    for (; c + 4 * VL <= cols; c += 4 * VL) {
        vf a[4];
        NM_UNROLL
        for (int k = 0; k < 4; k++)
            a[k] = vf_load(out + c + k * VL);
        for (int64_t r = 0; r < rows; r++) {
            NM_UNROLL
            for (int k = 0; k < 4; k++)
                a[k] = vf_add(a[k], vf_load(x + r * ld + c + k * VL));
        }
        NM_UNROLL
        for (int k = 0; k < 4; k++)
            vf_store(out + c + k * VL, a[k]);
    }
    for (; c < cols; c += VL) {
        int64_t left = cols - c < VL ? cols - c : VL;
        vf a = vf_load_n(out + c, left);
        for (int64_t r = 0; r < rows; r++)
            a = vf_add(a, vf_load_n(x + r * ld + c, left));
        vf_store_n(out + c, a, left);
    }
}

void NAME(nm_transpose)(int64_t rows, int64_t cols, const float *src, int64_t ld, float *dst, int64_t ldd)
{
    int64_t r = 0;
    for (; r + VL <= rows; r += VL) {
        int64_t c = 0;
        for (; c + VL <= cols; c += VL) {
            vi x[VL];
            NM_UNROLL
            for (int i = 0; i < VL; i++)
                x[i] = vi_load(src + (r + i) * ld + c);
            vi_transpose(x);
            NM_UNROLL
            for (int i = 0; i < VL; i++)
                vi_store(dst + (c + i) * ldd + r, x[i]);
        }
        for (; c < cols; c++)
            for (int64_t i = r; i < r + VL; i++)
                dst[c * ldd + i] = src[i * ld + c];
    }
    for (; r < rows; r++)
        for (int64_t c = 0; c < cols; c++)
            dst[c * ldd + r] = src[r * ld + c];
}

double NAME(nm_squares)(int64_t n, const float *x)
{
    double total = 0;
    for (int64_t b = 0; b < n; b += 1024) {
        int64_t e = n - b < 1024 ? n : b + 1024, i = b;
        vf a[4] = { vf_zero(), vf_zero(), vf_zero(), vf_zero() };
        for (; i + 4 * VL <= e; i += 4 * VL) {
            NM_UNROLL
            for (int k = 0; k < 4; k++)
                a[k] = vf_fma(vf_load(x + i + k * VL), vf_load(x + i + k * VL), a[k]);
        }
        for (; i < e; i += VL) {
            vf t = vf_load_n(x + i, e - i < VL ? e - i : VL);
            a[0] = vf_fma(t, t, a[0]);
        }
        total += (double)vf_sum(vf_add(vf_add(a[0], a[1]), vf_add(a[2], a[3])));
    }
    return total;
}

void NAME(nm_lerp)(int64_t n, float *avg, const float *w, float k)
{
    vf f = vf_set1(k);
    FOR_VECTORS(i, n, {
        vf a = LOAD(avg + i);
        STORE(avg + i, vf_fma(f, vf_sub(LOAD(w + i), a), a));
    })
}

/* ---- updates ---- */

void NAME(nm_adamw)(int64_t n, const nm_update *u, float *w, const float *grad, float *m, float *v)
{
    vf scale = vf_set1(u->scale), b1 = vf_set1(u->b1), b2 = vf_set1(u->b2), c1 = vf_set1(u->c1), c2 = vf_set1(u->c2), step = vf_set1(u->step);
    vf root = vf_set1(u->root), eps = vf_set1(u->eps), keep = vf_set1(u->keep);
    FOR_VECTORS(i, n, {
        vf g = vf_mul(LOAD(grad + i), scale), mi = vf_fma(b1, LOAD(m + i), vf_mul(c1, g)), vi_ = vf_fma(b2, LOAD(v + i), vf_mul(vf_mul(c2, g), g));
        STORE(m + i, mi);
        STORE(v + i, vi_);
        vf by = vf_div(mi, vf_fma(vf_sqrt(vi_), root, eps));
        STORE(w + i, vf_sub(vf_mul(LOAD(w + i), keep), vf_mul(step, by)));
    })
}

void NAME(nm_sgd)(int64_t n, const nm_update *u, float *w, const float *grad, float *m, float *v)
{
    vf scale = vf_set1(u->scale), b1 = vf_set1(u->b1), decay = vf_set1(u->decay), step = vf_set1(u->step);
    (void)v;
    FOR_VECTORS(i, n, {
        vf wi = LOAD(w + i), g = vf_fma(decay, wi, vf_mul(LOAD(grad + i), scale));
        if (u->b1 != 0) {
            vf mi = u->first ? g : vf_fma(b1, LOAD(m + i), g);
            STORE(m + i, mi);
            g = u->nesterov ? vf_fma(b1, mi, g) : mi;
        }
        STORE(w + i, vf_sub(wi, vf_mul(step, g)));
    })
}

void NAME(nm_lion)(int64_t n, const nm_update *u, float *w, const float *grad, float *m, float *v)
{
    vf scale = vf_set1(u->scale), b1 = vf_set1(u->b1), b2 = vf_set1(u->b2), c1 = vf_set1(u->c1), c2 = vf_set1(u->c2), step = vf_set1(u->step);
    vf keep = vf_set1(u->keep);
    (void)v;
    FOR_VECTORS(i, n, {
        vf g = vf_mul(LOAD(grad + i), scale), mi = LOAD(m + i), s = vf_fma(b1, mi, vf_mul(c1, g));
        vf by = vf_sub(vf_where_positive(s, step), vf_where_positive(vf_sub(vf_zero(), s), step));
        STORE(w + i, vf_sub(vf_mul(LOAD(w + i), keep), by));
        STORE(m + i, vf_fma(b2, mi, vf_mul(c2, g)));
    })
}
