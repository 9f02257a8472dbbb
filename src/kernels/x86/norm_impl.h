/* norm_impl.h - row normalisations: a template, included inside a target region after a math_*.h; NAME(x) adds the suffix.
 *
 * Sums run in 64 lanes that are added as a tree, the order of norm_ref.c (with fused multiply-adds), so that all vector widths
 * give the same bits. */
#define LANES 64
#define NV (LANES / VL) /* vectors that make up the lanes */

NM_INLINE float lane_total(vf acc[NV])
{
    for (int half = NV / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++)
            acc[i] = vf_add(acc[i], acc[i + half]);
    return vf_sum(acc[0]);
}

/* The last cols % LANES values: vector v holds lanes v*VL.. */
#define FOR_TAIL(v, i, n, left) for (int64_t v = 0, left; i + v * VL < n && (left = n - i - v * VL < VL ? n - i - v * VL : VL, 1); v++)

NM_INLINE float row_sum(int64_t n, const float *x)
{
    vf acc[NV];
    for (int v = 0; v < NV; v++)
        acc[v] = vf_zero();
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int v = 0; v < NV; v++)
            acc[v] = vf_add(acc[v], vf_load(x + i + v * VL));
    FOR_TAIL(v, i, n, left)
        acc[v] = vf_add(acc[v], vf_load_n(x + i + v * VL, left));
    return lane_total(acc);
}

/* sum of (x - c)^2 */
NM_INLINE float row_squares(int64_t n, const float *x, float c)
{
    vf acc[NV], cv = vf_set1(c);
    for (int v = 0; v < NV; v++)
        acc[v] = vf_zero();
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int v = 0; v < NV; v++) {
            vf d = vf_sub(vf_load(x + i + v * VL), cv);
            acc[v] = vf_fma(d, d, acc[v]);
        }
    FOR_TAIL(v, i, n, left) {
        vf d = vf_sub(vf_fill(vf_load_n(x + i + v * VL, left), left, c), cv); /* lanes past the end add 0 */
        acc[v] = vf_fma(d, d, acc[v]);
    }
    return lane_total(acc);
}

/* y = (x - mean) * rstd * weight + bias; a missing weight or bias costs nothing: the flags are constants where this is inlined. */
NM_INLINE void normalise(int64_t n, const float *x, float mean, float rstd, const float *weight, const float *bias, void *y, bool bf16)
{
    vf m = vf_set1(mean), s = vf_set1(rstd);
    int64_t i = 0;
    for (; i + VL <= n; i += VL) {
        vf t = vf_mul(vf_sub(vf_load(x + i), m), s);
        if (weight)
            t = bias ? vf_fma(t, vf_load(weight + i), vf_load(bias + i)) : vf_mul(t, vf_load(weight + i));
        else if (bias)
            t = vf_add(t, vf_load(bias + i));
        if (bf16)
            vf_store_bf16((uint16_t *)y + i, t);
        else
            vf_store((float *)y + i, t);
    }
    if (i == n)
        return;
    vf t = vf_mul(vf_sub(vf_load_n(x + i, n - i), m), s);
    if (weight)
        t = bias ? vf_fma(t, vf_load_n(weight + i, n - i), vf_load_n(bias + i, n - i)) : vf_mul(t, vf_load_n(weight + i, n - i));
    else if (bias)
        t = vf_add(t, vf_load_n(bias + i, n - i));
    if (bf16)
        vf_store_bf16_n((uint16_t *)y + i, t, n - i);
    else
        vf_store_n((float *)y + i, t, n - i);
}

void NAME(nm_layernorm)(int64_t rows, int64_t cols, const float *x, int64_t ldx, const float *weight, const float *bias, float eps, void *y,
                        nm_dtype y_dtype, int64_t ldy)
{
    for (int64_t r = 0; r < rows; r++, x += ldx) {
        float mean = row_sum(cols, x) / (float)cols;
        float rstd = 1 / sqrtf(row_squares(cols, x, mean) / (float)cols + eps);
        if (y_dtype == NM_BF16)
            normalise(cols, x, mean, rstd, weight, bias, (uint16_t *)y + r * ldy, true);
        else
            normalise(cols, x, mean, rstd, weight, bias, (float *)y + r * ldy, false);
    }
}

void NAME(nm_rmsnorm)(int64_t rows, int64_t cols, const float *x, int64_t ldx, const float *weight, float eps, void *y, nm_dtype y_dtype,
                      int64_t ldy)
{
    for (int64_t r = 0; r < rows; r++, x += ldx) {
        float rstd = 1 / sqrtf(row_squares(cols, x, 0) / (float)cols + eps);
        if (y_dtype == NM_BF16)
            normalise(cols, x, 0, rstd, weight, NULL, (uint16_t *)y + r * ldy, true);
        else
            normalise(cols, x, 0, rstd, weight, NULL, (float *)y + r * ldy, false);
    }
}

void NAME(nm_l2norm)(int64_t rows, int64_t cols, float *x, int64_t ldx, float eps)
{
    for (int64_t r = 0; r < rows; r++, x += ldx) {
        float norm = sqrtf(row_squares(cols, x, 0));
        vf d = vf_set1(norm < eps ? eps : norm);
        int64_t i = 0;
        for (; i + VL <= cols; i += VL)
            vf_store(x + i, vf_div(vf_load(x + i), d));
        if (i < cols)
            vf_store_n(x + i, vf_div(vf_load_n(x + i, cols - i), d), cols - i);
    }
}

NM_INLINE float row_top(int64_t n, const float *x)
{
    vf m[4] = { vf_set1(-INFINITY), vf_set1(-INFINITY), vf_set1(-INFINITY), vf_set1(-INFINITY) };
    int64_t i = 0;
    for (; i + 4 * VL <= n; i += 4 * VL)
        for (int v = 0; v < 4; v++)
            m[v] = vf_max(m[v], vf_load(x + i + v * VL));
    for (; i < n; i += VL)
        m[0] = vf_max(m[0], n - i < VL ? vf_fill(vf_load_n(x + i, n - i), n - i, -INFINITY) : vf_load(x + i));
    return vf_hmax(vf_max(vf_max(m[0], m[1]), vf_max(m[2], m[3])));
}

void NAME(nm_softmax)(int64_t rows, int64_t cols, float *x, int64_t ldx)
{
    for (int64_t r = 0; r < rows; r++, x += ldx) {
        vf m = vf_set1(row_top(cols, x));
        int64_t i;
        for (i = 0; i + VL <= cols; i += VL)
            vf_store(x + i, vf_exp(vf_sub(vf_load(x + i), m)));
        if (i < cols)
            vf_store_n(x + i, vf_exp(vf_sub(vf_load_n(x + i, cols - i), m)), cols - i);
        vf inv = vf_set1(1 / row_sum(cols, x));
        for (i = 0; i + VL <= cols; i += VL)
            vf_store(x + i, vf_mul(vf_load(x + i), inv));
        if (i < cols)
            vf_store_n(x + i, vf_mul(vf_load_n(x + i, cols - i), inv), cols - i);
    }
}

/* sum of exp(x - top) */
NM_INLINE float row_powers(int64_t n, const float *x, float top)
{
    vf acc[NV], m = vf_set1(top);
    for (int v = 0; v < NV; v++)
        acc[v] = vf_zero();
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int v = 0; v < NV; v++)
            acc[v] = vf_add(acc[v], vf_exp(vf_sub(vf_load(x + i + v * VL), m)));
    FOR_TAIL(v, i, n, left)
        acc[v] = vf_add(acc[v], vf_exp(vf_sub(vf_fill(vf_load_n(x + i + v * VL, left), left, -INFINITY), m)));
    return lane_total(acc);
}

void NAME(nm_log_softmax)(int64_t rows, int64_t cols, float *x, int64_t ldx)
{
    for (int64_t r = 0; r < rows; r++, x += ldx) {
        float top = row_top(cols, x);
        double total = 0;
        for (int64_t i = 0; i < cols; i += NM_LOG_SOFTMAX_RUN)
            total += (double)row_powers(cols - i < NM_LOG_SOFTMAX_RUN ? cols - i : NM_LOG_SOFTMAX_RUN, x + i, top);
        vf shift = vf_set1(top + (float)log(total));
        int64_t i = 0;
        for (; i + VL <= cols; i += VL)
            vf_store(x + i, vf_sub(vf_load(x + i), shift));
        if (i < cols)
            vf_store_n(x + i, vf_sub(vf_load_n(x + i, cols - i), shift), cols - i);
    }
}
