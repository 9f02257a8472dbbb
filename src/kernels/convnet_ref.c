/* convnet_ref.c - plain C of convnet.h: specification, fallback and oracle. */
#include "kernels/convnet_variants.h"

void nm_conv_weight_grad_ref(const nm_conv_shape *s, int64_t n, const float *x, const float *dy, int64_t o_begin, int64_t o_end, float *dw)
{
    for (int64_t i = 0; i < n; i++, x += s->h * s->w * s->c, dy += s->oh * s->ow * s->o)
        for (int64_t o = o_begin; o < o_end; o++)
            for (int64_t ky = 0; ky < s->kh; ky++)
                for (int64_t kx = 0; kx < s->kw; kx++) {
                    float *d = dw + ((o * s->kh + ky) * s->kw + kx) * s->c;
                    for (int64_t oy = 0; oy < s->oh; oy++)
                        for (int64_t ox = 0; ox < s->ow; ox++) {
                            int64_t iy = oy * s->stride + ky - s->pad, ix = ox * s->stride + kx - s->pad;
                            if (iy < 0 || iy >= s->h || ix < 0 || ix >= s->w)
                                continue;
                            float g = dy[(oy * s->ow + ox) * s->o + o];
                            for (int64_t c = 0; c < s->c; c++)
                                d[c] += g * x[(iy * s->w + ix) * s->c + c];
                        }
                }
}

void nm_bn_sums_ref(int64_t rows, int64_t c, const float *x, const float *shift, float *sum, float *square)
{
    for (int64_t i = 0; i < rows; i++, x += c)
        for (int64_t j = 0; j < c; j++) {
            float d = x[j] - shift[j];
            sum[j] += d;
            square[j] += d * d;
        }
}

void nm_bn_apply_ref(int64_t rows, int64_t c, const float *x, const float *scale, const float *bias, nm_act act, float *y)
{
    for (int64_t i = 0; i < rows; i++, x += c, y += c)
        for (int64_t j = 0; j < c; j++) {
            float v = x[j] * scale[j] + bias[j];
            y[j] = act == NM_ACT_RELU && v < 0 ? 0 : v;
        }
}

void nm_bn_back_sums_ref(int64_t rows, int64_t c, const float *x, const float *y, const float *dy, const float *mean, const float *rstd, nm_act act,
                         float *d_bias, float *d_scale)
{
    for (int64_t i = 0; i < rows; i++, x += c, y += c, dy += c)
        for (int64_t j = 0; j < c; j++) {
            float g = act == NM_ACT_RELU && !(y[j] > 0) ? 0 : dy[j];
            d_bias[j] += g;
            d_scale[j] += g * ((x[j] - mean[j]) * rstd[j]);
        }
}

void nm_bn_back_apply_ref(int64_t rows, int64_t c, const float *x, const float *y, const float *dy, const float *a, const float *b, const float *d, nm_act act,
                          float *dx)
{
    for (int64_t i = 0; i < rows; i++, x += c, y += c, dy += c, dx += c)
        for (int64_t j = 0; j < c; j++) {
            float g = act == NM_ACT_RELU && !(y[j] > 0) ? 0 : dy[j];
            dx[j] += a[j] * g + b[j] * x[j] + d[j];
        }
}
