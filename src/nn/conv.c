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

typedef struct im2col_job { const nm_run *r; const float *x; float *dst; int64_t h, w, c, kh, kw, stride, pad, oh, ow, k; } im2col_job;

/* Rows of output pixels of a chunk of pictures: piece i is row i % oh of picture i / oh. */
static void im2col_rows(void *arg, int64_t b, int64_t e, int worker)
{
    const im2col_job *j = arg;
    (void)worker;
    for (int64_t i = b; i < e; i++)
        j->r->kn->elementwise.im2col(j->x + i / j->oh * j->h * j->w * j->c, j->h, j->w, j->c, j->kh, j->kw, j->stride, j->pad, i % j->oh, i % j->oh + 1, j->ow,
                                     j->dst + i * j->ow * j->k);
}

#define COLUMNS_BYTES (384 << 10) /* of im2col rows at a time and thread: they stay in the second-level cache until the product reads them */

/* y[n, oh, ow, o] = (or +=) the products of x's windows with b, packed [o, kh * kw * c]. */
static void convolve(nm_run *r, const nm_conv_shape *s, int64_t n, const float *x, const nm_packed *b, float *y, bool add)
{
    int64_t k = s->kh * s->kw * s->c, rows = s->oh * s->ow;
    bool direct = s->kh == 1 && s->kw == 1 && s->stride == 1 && s->pad == 0;
    int64_t chunk = direct ? n : COLUMNS_BYTES * nm_pool_size(r->pool) / (rows * k * (int64_t)sizeof(float));
    chunk = chunk < 1 ? 1 : chunk > n ? n : chunk;
    nm_arena_mark mark = nm_arena_get_mark(r->arena);
    float *cols = direct ? NULL : nm_scratch(r, (size_t)(chunk * rows * k) * sizeof *cols);
    for (int64_t i = 0; i < n && nm_run_ok(r) && b; i += chunk) {
        int64_t m = n - i < chunk ? n - i : chunk;
        im2col_job j = { r, x + i * s->h * s->w * s->c, cols, s->h, s->w, s->c, s->kh, s->kw, s->stride, s->pad, s->oh, s->ow, k };
        if (!direct)
            nm_parallel_for(r->pool, m * s->oh, 4, im2col_rows, &j);
        float *out = y + i * rows * s->o;
        nm_gemm g = { .m = m * rows, .a = direct ? j.x : cols, .a_dtype = NM_F32, .lda = k, .b = b, .c = out, .c_dtype = NM_F32, .ldc = s->o, .alpha = 1,
                      .residual = add ? out : NULL, .ldr = s->o };
        nm_product(r, &g);
    }
    nm_arena_rewind(r->arena, mark);
}

/* ---- its backward ---- */

typedef struct conv_saved { nm_tensor x, y; const nm_weight *w; nm_conv_shape s; int64_t n; } conv_saved;

/* [o, c, kh, kw] -> [c, kh, kw, o] with both window axes reversed: the convolution that takes dy back to dx when the stride is 1. */
static void turned_weight(const nm_conv_shape *s, const float *w, float *dst)
{
    int64_t taps = s->kh * s->kw;
    for (int64_t o = 0; o < s->o; o++)
        for (int64_t c = 0; c < s->c; c++)
            for (int64_t t = 0; t < taps; t++)
                dst[(c * taps + taps - 1 - t) * s->o + o] = w[(o * s->c + c) * taps + t];
}

/* dx += sum over taps of the columns' gradients; one picture. */
static void add_columns(const nm_conv_shape *s, const float *cols, float *dx)
{
    for (int64_t oy = 0; oy < s->oh; oy++)
        for (int64_t ox = 0; ox < s->ow; ox++)
            for (int64_t ky = 0; ky < s->kh; ky++)
                for (int64_t kx = 0; kx < s->kw; kx++, cols += s->c) {
                    int64_t iy = oy * s->stride + ky - s->pad, ix = ox * s->stride + kx - s->pad;
                    if (iy < 0 || iy >= s->h || ix < 0 || ix >= s->w)
                        continue;
                    float *d = dx + (iy * s->w + ix) * s->c;
                    for (int64_t c = 0; c < s->c; c++)
                        d[c] += cols[c];
                }
}

/* Any stride: the gradient of the columns, added back picture by picture. */
static void strided_input_gradient(nm_run *r, const conv_saved *v, const float *w, const float *dy, float *dx)
{
    const nm_conv_shape *s = &v->s;
    int64_t k = s->kh * s->kw * s->c, rows = s->oh * s->ow, taps = s->kh * s->kw;
    float *nhwc = nm_scratch(r, (size_t)(s->o * k) * sizeof *nhwc), *cols = nm_scratch(r, (size_t)(rows * k) * sizeof *cols);
    nm_packed p = { 0 };
    if (!nhwc || !cols)
        return;
    for (int64_t o = 0; o < s->o; o++)
        for (int64_t t = 0; t < taps; t++)
            for (int64_t c = 0; c < s->c; c++)
                nhwc[(o * taps + t) * s->c + c] = w[(o * s->c + c) * taps + t];
    if (!nm_gemm_pack(r->kn, &p, NM_F32, nhwc, NM_F32, k, true, k, s->o, r->pool)) {
        nm_run_fail(r, NOEMA_E_MEMORY, "out of memory: gradient of a convolution");
        return;
    }
    for (int64_t i = 0; i < v->n && nm_run_ok(r); i++) {
        nm_gemm g = { .m = rows, .a = dy + i * rows * s->o, .a_dtype = NM_F32, .lda = s->o, .b = &p, .c = cols, .c_dtype = NM_F32, .ldc = k, .alpha = 1 };
        nm_product(r, &g);
        add_columns(s, cols, dx + i * s->h * s->w * s->c);
    }
    nm_gemm_pack_free(&p);
}

static void input_gradient(nm_run *r, const conv_saved *v, const float *dy)
{
    const nm_conv_shape *s = &v->s;
    float *dx = nm_grad_data(r, &v->x), *w = nm_scratch(r, 2 * (size_t)nm_shape_numel(v->w->shape) * sizeof *w);
    if (!dx || !w)
        return;
    nm_weight_copy_f32(v->w, w);
    if (s->stride != 1 || s->kh != s->kw || s->pad > s->kh - 1) {
        strided_input_gradient(r, v, w, dy, dx);
        return;
    }
    float *turned = w + nm_shape_numel(v->w->shape);
    nm_packed p = { 0 };
    turned_weight(s, w, turned);
    if (!nm_gemm_pack(r->kn, &p, NM_F32, turned, NM_F32, s->kh * s->kw * s->o, false, s->c, s->kh * s->kw * s->o, r->pool)) {
        nm_run_fail(r, NOEMA_E_MEMORY, "out of memory: gradient of a convolution");
        return;
    }
    nm_conv_shape back = { s->oh, s->ow, s->o, s->kh, s->kw, 1, s->kh - 1 - s->pad, s->h, s->w, s->c };
    convolve(r, &back, v->n, dy, &p, dx, true);
    nm_gemm_pack_free(&p);
}

typedef struct weight_job { const nm_run *r; const nm_conv_shape *s; int64_t n; const float *x, *dy; float *dw; } weight_job;

#define OUTPUTS 6 /* a piece of work: as many outputs as the vector kernels keep in registers */

static void weight_part(void *arg, int64_t b, int64_t e, int worker)
{
    const weight_job *j = arg;
    int64_t end = e * OUTPUTS < j->s->o ? e * OUTPUTS : j->s->o;
    (void)worker;
    j->r->kn->convnet.weight_grad(j->s, j->n, j->x, j->dy, b * OUTPUTS, end, j->dw);
}

#define PICTURES_BYTES (192 << 10) /* of x and dy at a time: read once per block of outputs and channels */

static void weight_gradient(nm_run *r, const conv_saved *v, const float *dy)
{
    nm_conv_shape s = v->s;
    int64_t n = v->n, taps = s.kh * s.kw, count = nm_shape_numel(v->w->shape), at = 0;
    float *dw = nm_scratch(r, (size_t)count * sizeof *dw), *g = nm_weight_grad(r, v->w);
    if (!dw || !g)
        return;
    memset(dw, 0, (size_t)count * sizeof *dw);
    if (taps == 1 && s.stride == 1 && s.pad == 0) { /* pixels are independent: rows of 64 */
        int64_t pixels = n * s.h * s.w;
        s.h = s.oh = 1;
        s.w = s.ow = pixels < 64 ? pixels : 64;
        n = pixels / s.w;
        at = n * s.w; /* what the rows of 64 leave */
        if (at < pixels) {
            nm_conv_shape rest = s;
            rest.w = rest.ow = pixels - at;
            weight_job j = { r, &rest, 1, (const float *)v->x.data + at * s.c, dy + at * s.o, dw };
            nm_parallel_for(r->pool, (s.o + OUTPUTS - 1) / OUTPUTS, 1, weight_part, &j);
        }
    }
    int64_t x_size = s.h * s.w * s.c, y_size = s.oh * s.ow * s.o, chunk = PICTURES_BYTES / ((x_size + y_size) * (int64_t)sizeof(float));
    chunk = chunk < 1 ? 1 : chunk;
    for (int64_t i = 0; i < n; i += chunk) {
        weight_job j = { r, &s, n - i < chunk ? n - i : chunk, (const float *)v->x.data + i * x_size, dy + i * y_size, dw };
        nm_parallel_for(r->pool, (s.o + OUTPUTS - 1) / OUTPUTS, 1, weight_part, &j);
    }
    for (int64_t o = 0; o < s.o; o++)
        for (int64_t t = 0; t < taps; t++)
            for (int64_t c = 0; c < s.c; c++)
                g[(o * s.c + c) * taps + t] += dw[(o * taps + t) * s.c + c];
}

static void conv_backward(nm_run *r, void *saved)
{
    conv_saved *v = saved;
    const float *dy = nm_grad_read(&v->y);
    if (nm_trains(r, v->w))
        weight_gradient(r, v, dy);
    if (v->x.grad)
        input_gradient(r, v, dy);
}

/* ---- the operator ---- */

static nm_tensor bare_conv(nm_run *r, nm_tensor x, const nm_weight *w, int stride, int pad)
{
    int64_t n = x.shape[0], h = x.shape[1], wd = x.shape[2], c = x.shape[3], o = w->shape.dim[0], kh = w->shape.dim[2], kw = w->shape.dim[3];
    nm_conv_shape s = { h, wd, c, kh, kw, stride, pad, (h + 2 * pad - kh) / stride + 1, (wd + 2 * pad - kw) / stride + 1, o };
    if (h + 2 * pad < kh || wd + 2 * pad < kw)
        return nm_run_fail(r, NOEMA_E_ARGUMENT, "conv2d: image [%lld, %lld] is smaller than the kernel", (long long)h, (long long)wd);
    nm_dtype compute = r->compute == NM_I8 ? (nm_gemm_has(r->kn, NM_BF16) ? NM_BF16 : NM_F32) : r->compute;
    const nm_packed *b = conv_packed(r, w, compute);
    nm_tensor y = nm_new(r, NM_F32, NM_SHAPE(n, s.oh, s.ow, o));
    if (!b || !y.data)
        return (nm_tensor){ 0 };
    convolve(r, &s, n, x.data, b, y.data, false);
    if (nm_wants(r, &x) || nm_trains(r, w))
        NM_RECORD(r, y, conv_backward, conv_saved, x, y, w, s, n);
    return nm_run_ok(r) ? y : (nm_tensor){ 0 };
}

nm_tensor nm_conv2d(nm_run *r, nm_tensor x, const nm_weight *w, const nm_batchnorm_w *bn, float eps, int stride, int pad, nm_act act)
{
    if (!x.data || !nm_run_ok(r))
        return (nm_tensor){ 0 };
    if (x.ndim != 4 || x.dtype != NM_F32 || !nm_is_contiguous(&x) || w->shape.ndim != 4 || x.shape[3] != w->shape.dim[1])
        return nm_run_fail(r, NOEMA_E_INTERNAL, "conv2d: expected f32 [n, h, w, c] with the weight's channels");
    nm_tensor y = bare_conv(r, x, w, stride, pad);
    if (bn)
        return nm_batchnorm(r, y, bn, eps, act);
    return act == NM_ACT_NONE ? y : nm_activation(r, y, act);
}

typedef struct pool_saved { nm_tensor x, y; int size; } pool_saved;

static void avgpool_backward(nm_run *r, void *saved)
{
    pool_saved *v = saved;
    int64_t n = v->x.shape[0], h = v->x.shape[1], w = v->x.shape[2], c = v->x.shape[3], s = v->size;
    const float *dy = nm_grad_read(&v->y);
    float *dx = nm_grad_data(r, &v->x), part = 1 / (float)(s * s);
    for (int64_t i = 0; dx && i < n; i++, dx += h * w * c)
        for (int64_t oy = 0; oy < h / s; oy++)
            for (int64_t ox = 0; ox < w / s; ox++, dy += c)
                for (int64_t t = 0; t < s * s; t++) {
                    float *d = dx + ((oy * s + t / s) * w + ox * s + t % s) * c;
                    for (int64_t j = 0; j < c; j++)
                        d[j] += part * dy[j];
                }
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
    if (nm_wants(r, &x))
        NM_RECORD(r, y, avgpool_backward, pool_saved, x, y, size);
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
