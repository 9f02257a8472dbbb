/* channels_ref.c - channels.h in plain C. */
#include "kernels/channels.h"

#include "base/half.h"

void nm_outer_ref(int64_t k, int64_t m, int64_t n, const float *a, int64_t lda, const float *b, int64_t ldb, float *c, int64_t ldc)
{
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            float sum = 0;
            for (int64_t t = 0; t < k; t++)
                sum += a[t * lda + i] * b[t * ldb + j];
            c[i * ldc + j] += sum;
        }
}

void nm_outer_bf16_ref(int64_t k, int64_t m, int64_t n, const uint16_t *a, int64_t lda, const uint16_t *b, int64_t ldb, float *c, int64_t ldc)
{
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            float sum = 0;
            for (int64_t t = 0; t < k; t++)
                sum += nm_bf16_to_f32(a[t * lda + i]) * nm_bf16_to_f32(b[t * ldb + j]);
            c[i * ldc + j] += sum;
        }
}

void nm_moments_ref(int64_t rows, int64_t cols, const float *x, const float *shift, float *sum, float *square)
{
    for (int64_t c = 0; c < cols; c++) {
        sum[c] = square[c] = 0;
        for (int64_t i = 0; i < rows; i++) {
            float d = x[i * cols + c] - shift[c];
            sum[c] += d;
            square[c] += d * d;
        }
    }
}

void nm_affine_ref(int64_t rows, int64_t cols, const float *x, const float *scale, const float *shift, const float *residual, bool relu, float *y)
{
    for (int64_t i = 0; i < rows * cols; i++) {
        float v = x[i] * scale[i % cols] + shift[i % cols] + (residual ? residual[i] : 0);
        y[i] = relu && v < 0 ? 0 : v;
    }
}

/* dy behind the ReLU. */
static float dz(const nm_channel_back *j, int64_t i, int64_t c)
{
    bool off = j->relu && !((j->y ? j->y[i] : j->x[i] * j->scale[c] + j->shift[c]) > 0);
    return off ? 0 : j->dy[i];
}

void nm_back_sums_ref(int64_t rows, const nm_channel_back *j, float *sum, float *product)
{
    for (int64_t c = 0; c < j->cols; c++) {
        sum[c] = product[c] = 0;
        for (int64_t i = c; i < rows * j->cols; i += j->cols) {
            float d = dz(j, i, c);
            sum[c] += d;
            product[c] += d * (j->x[i] - j->mean[c]);
        }
    }
}

void nm_back_rows_ref(int64_t rows, const nm_channel_back *j)
{
    for (int64_t i = 0; i < rows * j->cols; i++) {
        int64_t c = i % j->cols;
        float d = dz(j, i, c);
        if (j->residual)
            j->residual[i] = j->residual_fresh ? d : j->residual[i] + d;
        j->dx[i] = (d - j->a[c] - (j->x[i] - j->mean[c]) * j->b[c]) * j->k[c];
    }
}
