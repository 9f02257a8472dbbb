/* conv.c - convolution with folded batch normalisation, pooling, position tables on another grid: see nn.h. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "nn/ops.h"

/* ---- convolution ---- */

/* NHWC wants the weight as [out, kh, kw, in]; made once per weight and kept where the packed form is kept. */
static bool nhwc_weight(const nm_weight *w, float *dst)
{
    int64_t o = w->shape.dim[0], c = w->shape.dim[1], kh = w->shape.dim[2], kw = w->shape.dim[3];
    float *src = nm_alloc((size_t)(o * c * kh * kw) * sizeof *src);
    if (!src)
        return false;
    nm_weight_copy_f32(w, src);
    for (int64_t i = 0; i < o; i++)
        for (int64_t y = 0; y < kh * kw; y++)
            for (int64_t ch = 0; ch < c; ch++)
                dst[(i * kh * kw + y) * c + ch] = src[(i * c + ch) * kh * kw + y];
    nm_free(src);
    return true;
}

static pthread_mutex_t conv_lock = PTHREAD_MUTEX_INITIALIZER;

static const nm_packed *conv_packed(nm_run *r, const nm_weight *cw, nm_dtype compute)
{
    nm_weight *w = (nm_weight *)(uintptr_t)cw;
    int64_t n = w->shape.dim[0], k = nm_shape_numel(w->shape) / (n ? n : 1);
    if (w->shape.dim[2] == 1 && w->shape.dim[3] == 1)
        return nm_weight_packed(r, w, compute);
    nm_packed *p = atomic_load_explicit(&w->packed[compute], memory_order_acquire);
    if (p || !nm_run_ok(r))
        return p;
    pthread_mutex_lock(&conv_lock);
    p = atomic_load(&w->packed[compute]);
    if (!p) {
        float *t = nm_alloc((size_t)(n * k) * sizeof *t);
        p = calloc(1, sizeof *p);
        if (!t || !p || !nhwc_weight(w, t) || !nm_gemm_pack(r->kn, p, compute, t, NM_F32, k, false, n, k, r->pool)) {
            free(p);
            p = NULL;
            nm_run_fail(r, NOEMA_E_MEMORY, "out of memory: packing a convolution");
        } else
            atomic_store_explicit(&w->packed[compute], p, memory_order_release);
        nm_free(t);
    }
    pthread_mutex_unlock(&conv_lock);
    return p;
}

/* y = x * gamma + bias with gamma = w / sqrt(var + eps), bias = b - mean * gamma. */
static void fold_batchnorm(const nm_batchnorm_w *bn, float eps, int64_t n, float *gamma, float *bias)
{
    for (int64_t i = 0; i < n; i++) {
        gamma[i] = bn->weight.f32[i] / sqrtf(bn->running_var.f32[i] + eps);
        bias[i] = bn->bias.f32[i] - bn->running_mean.f32[i] * gamma[i];
    }
}

typedef struct affine_job { const nm_run *r; float *x; const float *gamma, *bias; int64_t cols; nm_act act; } affine_job;

static void affine_rows(void *arg, int64_t b, int64_t e, int worker)
{
    const affine_job *j = arg;
    (void)worker;
    for (int64_t i = b; i < e; i++) {
        float *x = j->x + i * j->cols;
        for (int64_t c = 0; c < j->cols; c++)
            x[c] = x[c] * j->gamma[c] + j->bias[c];
    }
    j->r->kn->elementwise.act((e - b) * j->cols, j->x + b * j->cols, j->act, j->x + b * j->cols);
}

typedef struct im2col_job { const nm_run *r; const float *x; float *dst; int64_t h, w, c, kh, kw, stride, pad, out_w, k; } im2col_job;

static void im2col_rows(void *arg, int64_t b, int64_t e, int worker)
{
    const im2col_job *j = arg;
    (void)worker;
    j->r->kn->elementwise.im2col(j->x, j->h, j->w, j->c, j->kh, j->kw, j->stride, j->pad, b, e, j->out_w, j->dst + b * j->out_w * j->k);
}

nm_tensor nm_conv2d(nm_run *r, nm_tensor x, const nm_weight *w, const nm_batchnorm_w *bn, float eps, int stride, int pad, nm_act act)
{
    if (!x.data || !nm_run_ok(r))
        return (nm_tensor){ 0 };
    if (x.ndim != 4 || x.dtype != NM_F32 || !nm_is_contiguous(&x) || w->shape.ndim != 4 || x.shape[3] != w->shape.dim[1])
        return nm_run_fail(r, NOEMA_E_INTERNAL, "conv2d: expected f32 [n, h, w, c] with the weight's channels");
    int64_t n = x.shape[0], h = x.shape[1], wd = x.shape[2], c = x.shape[3], o = w->shape.dim[0], kh = w->shape.dim[2], kw = w->shape.dim[3];
    int64_t oh = (h + 2 * pad - kh) / stride + 1, ow = (wd + 2 * pad - kw) / stride + 1, k = kh * kw * c;
    if (oh < 1 || ow < 1)
        return nm_run_fail(r, NOEMA_E_ARGUMENT, "conv2d: image [%lld, %lld] is smaller than the kernel", (long long)h, (long long)wd);
    nm_dtype compute = r->compute == NM_I8 ? (nm_gemm_has(r->kn, NM_BF16) ? NM_BF16 : NM_F32) : r->compute;
    const nm_packed *b = conv_packed(r, w, compute);
    nm_tensor y = nm_new(r, NM_F32, NM_SHAPE(n, oh, ow, o));
    nm_arena_mark mark = nm_arena_get_mark(r->arena);
    bool direct = kh == 1 && kw == 1 && stride == 1 && pad == 0;
    float *cols = direct ? NULL : nm_scratch(r, (size_t)(oh * ow * k) * sizeof *cols);
    for (int64_t i = 0; i < (direct ? 1 : n) && nm_run_ok(r) && b; i++) {
        im2col_job ij = { r, (float *)x.data + i * h * wd * c, cols, h, wd, c, kh, kw, stride, pad, ow, k };
        if (!direct)
            nm_parallel_for(r->pool, oh, 4, im2col_rows, &ij);
        nm_gemm g = { .m = direct ? n * oh * ow : oh * ow, .a = direct ? x.data : cols, .a_dtype = NM_F32, .lda = k, .b = b,
                      .c = (float *)y.data + (direct ? 0 : i * oh * ow * o), .c_dtype = NM_F32, .ldc = o, .alpha = 1 };
        nm_product(r, &g);
    }
    float *gamma = nm_scratch(r, (size_t)o * 2 * sizeof *gamma);
    if (!nm_run_ok(r) || !b)
        return (nm_tensor){ 0 };
    if (bn) {
        fold_batchnorm(bn, eps, o, gamma, gamma + o);
        affine_job aj = { r, y.data, gamma, gamma + o, o, act };
        nm_parallel_for(r->pool, n * oh * ow, 64, affine_rows, &aj);
    } else if (act != NM_ACT_NONE)
        r->kn->elementwise.act(n * oh * ow * o, y.data, act, y.data);
    nm_arena_rewind(r->arena, mark);
    return y;
}

nm_tensor nm_avgpool2d(nm_run *r, nm_tensor x, int size)
{
    if (!x.data || !nm_run_ok(r) || size == 1)
        return x;
    if (x.ndim != 4 || x.dtype != NM_F32 || !nm_is_contiguous(&x))
        return nm_run_fail(r, NOEMA_E_INTERNAL, "avgpool: expected f32 [n, h, w, c]");
    int64_t n = x.shape[0], h = x.shape[1], w = x.shape[2], c = x.shape[3];
    nm_tensor y = nm_new(r, NM_F32, NM_SHAPE(n, h / size, w / size, c));
    for (int64_t i = 0; y.data && i < n; i++)
        r->kn->elementwise.avgpool((float *)x.data + i * h * w * c, h, w, c, size, (float *)y.data + i * (h / size) * (w / size) * c);
    return y;
}

/* ---- position tables ---- */

static double cubic(double x, double a)
{
    x = fabs(x);
    if (x < 1)
        return ((a + 2) * x - (a + 3)) * x * x + 1;
    if (x < 2)
        return (((x - 5) * x + 8) * x - 4) * a;
    return 0;
}

/* Taps of output i of `out` over `in`: PyTorch's upsample kernels, align_corners=False (CORNERS: True). Returns the number of taps written;
 * index and weight hold in + 8 at the most. Antialiased kernels widen with the scale, skip taps outside and are normalised;
 * the others clamp taps to the edge. */
static int taps(int64_t i, int64_t in, int64_t out, nm_interp how, int64_t *index, double *weight)
{
    double scale = (double)in / (double)out;
    int n = 0;
    if (how == NM_INTERP_BICUBIC_AA) {
        double fs = scale > 1 ? scale : 1, support = 2 * fs, c = scale * ((double)i + 0.5), sum = 0;
        int64_t lo = (int64_t)(c - support + 0.5), hi = (int64_t)(c + support + 0.5);
        lo = lo < 0 ? 0 : lo;
        hi = hi > in ? in : hi;
        for (int64_t j = lo; j < hi; j++) {
            index[n] = j;
            weight[n] = cubic(((double)j - c + 0.5) / fs, -0.5);
            sum += weight[n++];
        }
        for (int k = 0; k < n; k++)
            weight[k] /= sum;
        return n;
    }
    bool corners = how == NM_INTERP_BICUBIC_CORNERS, bicubic = how == NM_INTERP_BICUBIC || corners;
    double src = !corners ? scale * ((double)i + 0.5) - 0.5 : out > 1 ? (double)i * (double)(in - 1) / (double)(out - 1) : 0;
    if (!bicubic && src < 0)
        src = 0;
    double base = floor(src), t = src - base;
    int from = bicubic ? -1 : 0, to = bicubic ? 2 : 1;
    for (int k = from; k <= to; k++) {
        int64_t j = (int64_t)base + k;
        index[n] = j < 0 ? 0 : j >= in ? in - 1 : j;
        weight[n++] = bicubic ? cubic(k - t, -0.75) : k ? t : 1 - t;
    }
    return n;
}

bool nm_resize_positions(const float *rows, int64_t extra, int64_t old_h, int64_t old_w, float *out, int64_t new_h, int64_t new_w, int64_t width,
                         nm_interp how)
{
    memcpy(out, rows, (size_t)(extra * width) * sizeof *out);
    rows += extra * width;
    out += extra * width;
    size_t most = (size_t)(old_h > old_w ? old_h : old_w) + 8;
    int64_t *iy = malloc(2 * most * sizeof *iy);
    double *wy = malloc(2 * most * sizeof *wy), *acc = malloc((size_t)width * sizeof *acc);
    bool ok = iy && wy && acc;
    int64_t *ix = ok ? iy + most : NULL;
    double *wx = ok ? wy + most : NULL;
    for (int64_t y = 0; ok && y < new_h; y++) {
        int ny = taps(y, old_h, new_h, how, iy, wy);
        for (int64_t x = 0; x < new_w; x++) {
            int nx = taps(x, old_w, new_w, how, ix, wx);
            memset(acc, 0, (size_t)width * sizeof *acc);
            for (int a = 0; a < ny; a++)
                for (int b = 0; b < nx; b++) {
                    const float *src = rows + (iy[a] * old_w + ix[b]) * width;
                    double wt = wy[a] * wx[b];
                    for (int64_t c = 0; c < width; c++)
                        acc[c] += wt * (double)src[c];
                }
            for (int64_t c = 0; c < width; c++)
                out[(y * new_w + x) * width + c] = (float)acc[c];
        }
    }
    free(iy);
    free(wy);
    free(acc);
    return ok;
}
