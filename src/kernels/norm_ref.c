/* norm_ref.c - row normalisations in plain C: see norm.h. Sums run in 64 interleaved lanes that are added as a tree at the
 * end: the vector variants add in the same order, and the rounding error grows with cols / 64 instead of cols. */
#include <math.h>

#include "base/half.h"
#include "kernels/norm.h"
#include "kernels/norm_variants.h"

#define LANES 64

static float lane_total(const float lane[LANES])
{
    float t[LANES];
    for (int i = 0; i < LANES; i++)
        t[i] = lane[i];
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++)
            t[i] += t[i + half];
    return t[0];
}

static float sum(int64_t n, const float *x)
{
    float lane[LANES] = { 0 };
    for (int64_t i = 0; i < n; i++)
        lane[i % LANES] += x[i];
    return lane_total(lane);
}

/* sum of (x - c)^2 */
static float sum_of_squares(int64_t n, const float *x, float c)
{
    float lane[LANES] = { 0 };
    for (int64_t i = 0; i < n; i++) {
        float d = x[i] - c;
        lane[i % LANES] += d * d;
    }
    return lane_total(lane);
}

static void store(void *y, nm_dtype t, int64_t i, float v)
{
    if (t == NM_F32)
        ((float *)y)[i] = v;
    else
        ((nm_bf16 *)y)[i] = nm_f32_to_bf16(v);
}

void nm_layernorm_ref(int64_t rows, int64_t cols, const float *x, int64_t ldx, const float *weight, const float *bias, float eps, void *y,
                      nm_dtype y_dtype, int64_t ldy)
{
    for (int64_t r = 0; r < rows; r++, x += ldx) {
        float mean = sum(cols, x) / (float)cols;
        float rstd = 1 / sqrtf(sum_of_squares(cols, x, mean) / (float)cols + eps);
        for (int64_t i = 0; i < cols; i++) {
            float v = (x[i] - mean) * rstd;
            if (weight)
                v *= weight[i];
            if (bias)
                v += bias[i];
            store(y, y_dtype, r * ldy + i, v);
        }
    }
}

void nm_rmsnorm_ref(int64_t rows, int64_t cols, const float *x, int64_t ldx, const float *weight, float eps, void *y, nm_dtype y_dtype,
                    int64_t ldy)
{
    for (int64_t r = 0; r < rows; r++, x += ldx) {
        float rstd = 1 / sqrtf(sum_of_squares(cols, x, 0) / (float)cols + eps);
        for (int64_t i = 0; i < cols; i++)
            store(y, y_dtype, r * ldy + i, weight ? x[i] * rstd * weight[i] : x[i] * rstd);
    }
}

void nm_l2norm_ref(int64_t rows, int64_t cols, float *x, int64_t ldx, float eps)
{
    for (int64_t r = 0; r < rows; r++, x += ldx) {
        float norm = sqrtf(sum_of_squares(cols, x, 0));
        norm = norm < eps ? eps : norm;
        for (int64_t i = 0; i < cols; i++)
            x[i] /= norm;
    }
}

void nm_softmax_ref(int64_t rows, int64_t cols, float *x, int64_t ldx)
{
    for (int64_t r = 0; r < rows; r++, x += ldx) {
        float max = -INFINITY;
        for (int64_t i = 0; i < cols; i++)
            max = x[i] > max ? x[i] : max;
        for (int64_t i = 0; i < cols; i++)
            x[i] = expf(x[i] - max);
        float inv = 1 / sum(cols, x);
        for (int64_t i = 0; i < cols; i++)
            x[i] *= inv;
    }
}

void nm_log_softmax_ref(int64_t rows, int64_t cols, float *x, int64_t ldx)
{
    for (int64_t r = 0; r < rows; r++, x += ldx) {
        float max = -INFINITY, e[NM_LOG_SOFTMAX_RUN];
        double total = 0;
        for (int64_t i = 0; i < cols; i++)
            max = x[i] > max ? x[i] : max;
        for (int64_t i = 0, n; i < cols; i += n) {
            n = cols - i < NM_LOG_SOFTMAX_RUN ? cols - i : NM_LOG_SOFTMAX_RUN;
            for (int64_t j = 0; j < n; j++)
                e[j] = expf(x[i + j] - max);
            total += (double)sum(n, e);
        }
        float shift = max + (float)log(total);
        for (int64_t i = 0; i < cols; i++)
            x[i] -= shift;
    }
}
