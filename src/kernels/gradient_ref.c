/* gradient_ref.c - backwards and updates in plain C: see gradient.h. */
#include <math.h>

#include "kernels/gradient_variants.h"

/* d act(x) / dx. */
static float act_slope(nm_act act, float x)
{
    const float k = 0.79788456080286535588f, inv_sqrt_2pi = 0.39894228040143267794f;
    float s, t;
    switch (act) {
    case NM_ACT_RELU: return x > 0 ? 1 : 0;
    case NM_ACT_QUICK_GELU:
        s = 1 / (1 + expf(-1.702f * x));
        return s + 1.702f * x * s * (1 - s);
    case NM_ACT_SILU:
        s = 1 / (1 + expf(-x));
        return s + x * s * (1 - s);
    case NM_ACT_GELU: return 0.5f * (1 + erff(x * 0.70710678118654752440f)) + x * inv_sqrt_2pi * expf(-0.5f * x * x);
    case NM_ACT_GELU_TANH:
        t = tanhf(k * (x + 0.044715f * x * x * x));
        return 0.5f * (1 + t) + 0.5f * x * (1 - t * t) * k * (1 + 3 * 0.044715f * x * x);
    case NM_ACT_TANH:
        t = tanhf(x);
        return 1 - t * t;
    default: return 1;
    }
}

void nm_act_back_ref(int64_t n, const float *x, nm_act act, const float *dy, float *dx, bool add)
{
    for (int64_t i = 0; i < n; i++)
        dx[i] = (add ? dx[i] : 0) + dy[i] * act_slope(act, x[i]);
}

void nm_layernorm_back_ref(int64_t rows, int64_t cols, const float *x, int64_t ldx, const float *weight, float eps, const float *dy, float *dx, bool add,
                           float *dweight, float *dbias)
{
    for (int64_t r = 0; r < rows; r++, x += ldx, dy += cols) {
        double sum = 0, sq = 0, mg = 0, mgh = 0, n = (double)cols;
        for (int64_t c = 0; c < cols; c++)
            sum += (double)x[c];
        double mean = sum / n;
        for (int64_t c = 0; c < cols; c++)
            sq += ((double)x[c] - mean) * ((double)x[c] - mean);
        double rstd = 1 / sqrt(sq / n + (double)eps);
        for (int64_t c = 0; c < cols; c++) {
            double g = (double)dy[c] * (weight ? (double)weight[c] : 1), h = ((double)x[c] - mean) * rstd;
            mg += g / n;
            mgh += g * h / n;
            if (dweight)
                dweight[c] += (float)((double)dy[c] * h);
            if (dbias)
                dbias[c] += dy[c];
        }
        for (int64_t c = 0; dx && c < cols; c++) {
            double g = (double)dy[c] * (weight ? (double)weight[c] : 1), h = ((double)x[c] - mean) * rstd;
            dx[r * ldx + c] = (add ? dx[r * ldx + c] : 0) + (float)((g - mg - h * mgh) * rstd);
        }
    }
}

void nm_softmax_back_ref(int64_t rows, int64_t cols, const float *p, float *dp, int64_t ld, float scale)
{
    for (int64_t r = 0; r < rows; r++, p += ld, dp += ld) {
        double sum = 0;
        for (int64_t c = 0; c < cols; c++)
            sum += (double)p[c] * (double)dp[c];
        for (int64_t c = 0; c < cols; c++)
            dp[c] = p[c] * (dp[c] - (float)sum) * scale;
    }
}

void nm_small_product_ref(int64_t m, int64_t n, int64_t k, const float *a, int64_t a_row, int64_t a_step, const float *b, int64_t ldb, float *c, int64_t ldc,
                          bool add)
{
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            float s = add ? c[i * ldc + j] : 0;
            for (int64_t t = 0; t < k; t++)
                s += a[i * a_row + t * a_step] * b[t * ldb + j];
            c[i * ldc + j] = s;
        }
}

void nm_column_sums_ref(int64_t rows, int64_t cols, const float *x, int64_t ld, float *out)
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++)
            out[c] += x[r * ld + c];
}

void nm_transpose_ref(int64_t rows, int64_t cols, const float *src, int64_t ld, float *dst, int64_t ldd)
{
    for (int64_t c = 0; c < cols; c++)
        for (int64_t r = 0; r < rows; r++)
            dst[c * ldd + r] = src[r * ld + c];
}

double nm_squares_ref(int64_t n, const float *x)
{
    double s = 0;
    for (int64_t i = 0; i < n; i++)
        s += (double)x[i] * (double)x[i];
    return s;
}

void nm_lerp_ref(int64_t n, float *avg, const float *w, float k)
{
    for (int64_t i = 0; i < n; i++)
        avg[i] += k * (w[i] - avg[i]);
}

void nm_adamw_ref(int64_t n, const nm_update *u, float *w, const float *grad, float *m, float *v)
{
    for (int64_t i = 0; i < n; i++) {
        float g = grad[i] * u->scale;
        m[i] = u->b1 * m[i] + u->c1 * g;
        v[i] = u->b2 * v[i] + u->c2 * g * g;
        w[i] = w[i] * u->keep - u->step * (m[i] / (sqrtf(v[i]) * u->root + u->eps));
    }
}

void nm_sgd_ref(int64_t n, const nm_update *u, float *w, const float *grad, float *m, float *v)
{
    (void)v;
    for (int64_t i = 0; i < n; i++) {
        float g = grad[i] * u->scale + u->decay * w[i];
        if (u->b1 != 0) {
            m[i] = u->first ? g : u->b1 * m[i] + g;
            g = u->nesterov ? g + u->b1 * m[i] : m[i];
        }
        w[i] -= u->step * g;
    }
}

void nm_lion_ref(int64_t n, const nm_update *u, float *w, const float *grad, float *m, float *v)
{
    (void)v;
    for (int64_t i = 0; i < n; i++) {
        float g = grad[i] * u->scale, s = u->b1 * m[i] + u->c1 * g;
        w[i] = w[i] * u->keep - u->step * (float)((s > 0) - (s < 0));
        m[i] = u->b2 * m[i] + u->c2 * g;
    }
}
