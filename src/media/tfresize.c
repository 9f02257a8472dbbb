/* tfresize.c - see tfresize.h. Source: tensorflow/core/kernels/image/resize_bicubic_op.cc (GetWeightsAndIndices, ComputeYInterpolation). */
#include "media/tfresize.h"

#include <float.h>
#include <math.h>

#define TABLE 1024 /* steps of a fraction */

/* Keys' kernel at x in [0, 1] and at 1 + x, as the table's doubles rounded to f32. */
static float near_weight(double a, int i)
{
    double x = (double)(float)i / TABLE;
    return (float)(((a + 2) * x - (a + 3)) * x * x + 1);
}

static float far_weight(double a, int i)
{
    double x = (double)(float)i / TABLE + 1;
    return (float)(((a * x - 5 * a) * x + 8 * a) * x - 4 * a);
}

static void drop_outside(nm_tf_tap *t, int first, int in)
{
    float sum = 0;
    for (int k = 0; k < 4; k++) {
        if (first + k < 0 || first + k >= in)
            t->weight[k] = 0;
        sum += t->weight[k];
    }
    for (int k = 0; fabsf(sum) >= 1000 * FLT_MIN && k < 4; k++)
        t->weight[k] *= 1 / sum;
}

void nm_tf_taps(nm_tf_cubic kind, int in, int out, nm_tf_tap *taps)
{
    float scale = (float)in / (float)out;
    double a = kind == NM_TF1_LEGACY ? -0.75 : -0.5;
    for (int i = 0; i < out; i++) {
        float at = kind == NM_TF1_LEGACY ? (float)i * scale : ((float)i + 0.5f) * scale - 0.5f;
        float whole = floorf(at);
        int first = (int)whole - 1, offset = (int)lrintf((at - whole) * TABLE);
        taps[i] = (nm_tf_tap){ .weight = { far_weight(a, offset), near_weight(a, offset), near_weight(a, TABLE - offset), far_weight(a, TABLE - offset) } };
        for (int k = 0; k < 4; k++)
            taps[i].index[k] = first + k < 0 ? 0 : first + k >= in ? in - 1 : first + k;
        if (kind == NM_TF2_HALF_PIXEL)
            drop_outside(&taps[i], first, in);
    }
}

void nm_tf_resize(const unsigned char *src, size_t stride, int in_w, float *dst, int out_w, int out_h, const nm_tf_tap *x, const nm_tf_tap *y,
                  float *row)
{
    for (int i = 0; i < out_h; i++, dst += 3 * (size_t)out_w) {
        const unsigned char *r[4];
        const float *w = y[i].weight;
        for (int k = 0; k < 4; k++)
            r[k] = src + (size_t)y[i].index[k] * stride;
        for (int c = 0; c < 3 * in_w; c++)
            row[c] = (float)r[0][c] * w[0] + (float)r[1][c] * w[1] + (float)r[2][c] * w[2] + (float)r[3][c] * w[3];
        for (int j = 0; j < out_w; j++) {
            const nm_tf_tap *t = &x[j];
            for (int c = 0; c < 3; c++)
                dst[3 * j + c] = row[3 * t->index[0] + c] * t->weight[0] + row[3 * t->index[1] + c] * t->weight[1] +
                                 row[3 * t->index[2] + c] * t->weight[2] + row[3 * t->index[3] + c] * t->weight[3];
        }
    }
}
