/* conv.c - convolution with batch normalisation, residual and ReLU in one operator, both directions: see nn.h.
 *
 * Pictures are NHWC, so that a 1x1 convolution is a product of the pixels as they lie. Others copy the pixels under the kernel into
 * rows (im2col), a block that fits the second-level cache at a time; statistics are taken, and where they are known the result is
 * normalised, while the block is there. The way back works on blocks of whole pictures: the gradient before the normalisation is
 * made in scratch and used at once for the weight (sum of outer products) and for the pixels (the convolution by the turned kernel,
 * or, with a stride, rows of products added back to where they came from). Blocks do not depend on the number of threads, and what
 * they add up is added in their order.
 *
 * Where products are of bf16 the pixels are rounded once, before they are copied: im2col of a channel pair is that of one f32. */
#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "nn/ops.h"

#define BLOCK_BYTES (192 << 10)      /* of one block's rows: half of a second-level cache of 512 KiB */
#define MOST_PARTS 8                 /* sums of the weight's gradient that are made side by side */
#define PARTS_BYTES (256 << 20)

typedef struct geometry {
    int64_t n, h, w, c, o, oh, ow;
    int64_t groups, cg, og, k; /* channels of a group, in and out; k = kh kw cg */
    nm_window win;
    bool direct;               /* the pixels are the rows */
    bool half;                 /* x is rounded to bf16 before its rows are copied or summed up; the result's gradient: half_back */
    bool half_back;
} geometry;

static nm_dtype compute_of(const nm_run *r) { return r->compute == NM_I8 ? (nm_gemm_has(r->kn, NM_BF16) ? NM_BF16 : NM_F32) : r->compute; }

static bool measure(const nm_run *r, const nm_tensor *x, const nm_weight *w, const nm_conv *c, geometry *g)
{
    if (x->ndim != 4 || x->dtype != NM_F32 || !nm_is_contiguous(x) || w->shape.ndim != 4)
        return false;
    *g = (geometry){ .n = x->shape[0], .h = x->shape[1], .w = x->shape[2], .c = x->shape[3], .o = w->shape.dim[0], .groups = c->groups ? c->groups : 1,
                     .cg = w->shape.dim[1] };
    nm_window *v = &g->win;
    v->kh = w->shape.dim[2];
    v->kw = w->shape.dim[3];
    for (int i = 0; i < 2; i++) {
        v->stride[i] = c->stride[i] ? c->stride[i] : 1;
        v->dilation[i] = c->dilation[i] ? c->dilation[i] : 1;
        v->pad[i] = c->pad[i];
    }
    g->oh = (g->h + 2 * v->pad[0] - v->dilation[0] * (v->kh - 1) - 1) / v->stride[0] + 1;
    g->ow = (g->w + 2 * v->pad[1] - v->dilation[1] * (v->kw - 1) - 1) / v->stride[1] + 1;
    g->og = g->o / g->groups;
    g->k = v->kh * v->kw * g->cg;
    g->direct = v->kh == 1 && v->kw == 1 && v->stride[0] == 1 && v->stride[1] == 1 && !v->pad[0] && !v->pad[1] && g->groups == 1;
    bool bf16 = compute_of(r) == NM_BF16 && nm_gemm_has(r->kn, NM_BF16);
    g->half = bf16 && g->cg % 2 == 0;
    g->half_back = g->half && g->og % 2 == 0;
    return g->cg * g->groups == g->c && g->og * g->groups == g->o;
}

static int64_t at_least_one(int64_t x) { return x < 1 ? 1 : x; }

/* Rows of pictures, numbered through all pictures, that one block takes: what fits, but at least 16 blocks in all. */
static int64_t block_rows(int64_t rows, int64_t pixels, int64_t floats_per_pixel)
{
    int64_t fit = at_least_one(BLOCK_BYTES / (pixels * floats_per_pixel * 4)), most = (rows + 15) / 16;
    return fit < most ? fit : most;
}

/* im2col of rows [begin, end), numbered through all pictures: x's pictures are h x w, the result's out_h x out_w. Of bf16 in pairs:
 * c and ld count pairs then. */
static void gather(const nm_run *r, const float *x, int64_t h, int64_t w, int64_t c, int64_t ld, const nm_window *win, int64_t out_h, int64_t out_w,
                   int64_t begin, int64_t end, float *dst)
{
    while (begin < end) {
        int64_t image = begin / out_h, from = begin % out_h, to = end - image * out_h < out_h ? end - image * out_h : out_h;
        r->kn->elementwise.im2col(x + image * h * w * ld, h, w, c, ld, win, from, to, out_w, dst);
        dst += (to - from) * out_w * win->kh * win->kw * c;
        begin += to - from;
    }
}

/* im2col of one group's channels, from its first channel on, of f32 or bf16. */
static void gather_group(const nm_run *r, const void *x, bool half, int64_t group, int64_t h, int64_t w, int64_t cg, int64_t c, const nm_window *win,
                         int64_t out_h, int64_t out_w, int64_t begin, int64_t end, void *dst)
{
    int64_t per = half ? 2 : 1;
    gather(r, (const float *)x + group * cg / per, h, w, cg / per, c / per, win, out_h, out_w, begin, end, dst);
}

static void round_bf16(const nm_run *r, int64_t n, const float *x, nm_bf16 *dst) { r->kn->elementwise.cast(n, x, NM_F32, dst, NM_BF16); }

/* Rows of x that rows [begin, end) of the result are computed from, numbered through all pictures: [*first, *last). */
static void rows_under(const geometry *g, int64_t begin, int64_t end, int64_t *first, int64_t *last)
{
    const nm_window *v = &g->win;
    int64_t from = begin % g->oh * v->stride[0] - v->pad[0], to = (end - 1) % g->oh * v->stride[0] - v->pad[0] + (v->kh - 1) * v->dilation[0] + 1;
    from = from < 0 ? 0 : from > g->h ? g->h : from;
    to = to < 0 ? 0 : to > g->h ? g->h : to;
    *first = begin / g->oh * g->h + from;
    *last = (end - 1) / g->oh * g->h + to;
}

/* At most so many for any `rows` rows of the result. */
static int64_t most_rows_under(const geometry *g, int64_t rows)
{
    const nm_window *v = &g->win;
    int64_t skipped = g->h - g->oh * v->stride[0];
    return rows * v->stride[0] + (v->kh - 1) * v->dilation[0] + ((rows - 1) / g->oh + 1) * (skipped > 0 ? skipped : 0);
}

/* ---- weights as the products want them ---- */

/* FORWARD: [out][ky][kx][in] of one group. TURNED: [in][ky][kx][out], ky and kx from the end. COLUMNS: [ky][kx][in][out]. */
typedef enum layout { FORWARD, TURNED, COLUMNS } layout;

static void lay_out(const geometry *g, const float *w, layout l, float *dst)
{
    int64_t taps = g->win.kh * g->win.kw;
    for (int64_t o = 0; o < g->og; o++)
        for (int64_t c = 0; c < g->cg; c++)
            for (int64_t t = 0; t < taps; t++) {
                int64_t at = l == FORWARD ? (o * taps + t) * g->cg + c : l == TURNED ? (c * taps + taps - 1 - t) * g->og + o : (t * g->cg + c) * g->og + o;
                dst[at] = w[(o * g->cg + c) * taps + t];
            }
}

/* Packs one group's weight anew. */
static bool pack_group(nm_run *r, const geometry *g, const nm_weight *w, int64_t group, layout l, nm_dtype compute, nm_packed *p)
{
    int64_t size = g->og * g->k, n = l == FORWARD ? g->og : l == TURNED ? g->cg : g->k, k = size / at_least_one(n);
    float *all = nm_alloc((size_t)(size * (g->groups + 1)) * sizeof *all), *laid = all ? all + size * g->groups : NULL;
    bool ok = all != NULL;
    if (ok) {
        nm_weight_copy_f32(w, all);
        lay_out(g, all + group * size, l, laid);
        ok = nm_gemm_pack(r->kn, p, compute, laid, NM_F32, k, false, n, k, r->pool);
    }
    nm_free(all);
    if (!ok)
        nm_run_fail(r, NOEMA_E_MEMORY, "out of memory: packing a convolution");
    return ok;
}

static pthread_mutex_t conv_lock = PTHREAD_MUTEX_INITIALIZER;

/* The forward's weight, made once per value and kept where packed weights are kept (one group). */
static const nm_packed *kept_packed(nm_run *r, const geometry *g, const nm_weight *cw)
{
    nm_weight *w = (nm_weight *)(uintptr_t)cw;
    nm_dtype compute = compute_of(r);
    if (g->win.kh == 1 && g->win.kw == 1)
        return nm_weight_packed(r, w, compute);
    nm_packed *p = atomic_load_explicit(&w->packed[compute], memory_order_acquire);
    if (p || !nm_run_ok(r))
        return p;
    pthread_mutex_lock(&conv_lock);
    p = atomic_load(&w->packed[compute]);
    if (!p) {
        p = calloc(1, sizeof *p);
        if (!p)
            nm_run_fail(r, NOEMA_E_MEMORY, "out of memory: packing a convolution");
        else if (!pack_group(r, g, w, 0, FORWARD, compute, p)) {
            free(p);
            p = NULL;
        } else
            atomic_store_explicit(&w->packed[compute], p, memory_order_release);
    }
    pthread_mutex_unlock(&conv_lock);
    return p;
}

/* ---- forward ---- */

typedef struct forward_job {
    const nm_run *r;
    const geometry *g;
    const nm_conv *c;
    const float *x;
    const nm_packed *b;
    int64_t group, rows;      /* of a block */
    float *raw, *y;           /* y may be raw */
    const nm_bn_norm *norm;   /* known statistics, or NULL */
    nm_bn_block *stats;       /* per block, or NULL */
    char *scratch;
    size_t per_worker, gemm_bytes, x_bytes; /* x_bytes: of the rounded pixels */
} forward_job;

static void forward_block(const forward_job *j, int64_t i, char *scratch)
{
    const geometry *g = j->g;
    int64_t begin = i * j->rows, all = g->n * g->oh, end = begin + j->rows < all ? begin + j->rows : all, pixels = (end - begin) * g->ow;
    float *cols = (float *)(void *)(scratch + j->gemm_bytes + j->x_bytes);
    const void *x = j->x;
    if (!g->direct && g->half) {
        int64_t first, last, row = g->w * g->c;
        nm_bf16 *rounded = (nm_bf16 *)(void *)(scratch + j->gemm_bytes);
        rows_under(g, begin, end, &first, &last);
        round_bf16(j->r, (last - first) * row, j->x + first * row, rounded);
        x = (const void *)((uintptr_t)rounded - (size_t)(first * row) * sizeof *rounded); /* where the first picture would lie */
    }
    if (!g->direct)
        gather_group(j->r, x, g->half, j->group, g->h, g->w, g->cg, g->c, &g->win, g->oh, g->ow, begin, end, cols);
    float *raw = j->raw + begin * g->ow * g->o;
    nm_gemm p = { .m = pixels, .a = g->direct ? j->x + begin * g->ow * g->c : cols, .a_dtype = !g->direct && g->half ? NM_BF16 : NM_F32, .lda = g->k, .b = j->b, .c = raw + j->group * g->og,
                  .c_dtype = NM_F32, .ldc = g->o, .alpha = 1, .act = j->c->relu && !j->c->bn ? NM_ACT_RELU : NM_ACT_NONE,
                  .bias = j->c->bias && nm_has(j->c->bias) ? j->c->bias->f32 + j->group * g->og : NULL };
    nm_gemm_run(j->r->kn, &p, NULL, scratch);
    if (j->group < g->groups - 1)
        return;
    const float *residual = j->c->residual ? (const float *)j->c->residual->data + begin * g->ow * g->o : NULL;
    if (j->stats)
        nm_bn_moments(j->r, pixels, g->o, raw, cols, &j->stats[i]);
    else if (j->norm)
        j->r->kn->channels.affine(pixels, g->o, raw, j->norm->scale, j->norm->shift, residual, j->c->relu, j->y + begin * g->ow * g->o);
}

static void forward_blocks(void *arg, int64_t b, int64_t e, int worker)
{
    const forward_job *j = arg;
    for (; b < e; b++)
        forward_block(j, b, j->scratch + (size_t)worker * j->per_worker);
}

static size_t round_64(size_t n) { return (n + 63) & ~(size_t)63; }

/* Runs all groups; `norm` and `stats` as in the job. Returns the number of blocks. */
static int64_t run_forward(nm_run *r, const geometry *g, const nm_weight *w, forward_job *j)
{
    int64_t blocks = (g->n * g->oh + j->rows - 1) / j->rows, floats = (g->direct ? 0 : j->rows * g->ow * g->k) + 3 * g->o;
    bool half = !g->direct && g->half;
    for (int64_t group = 0; group < g->groups && nm_run_ok(r); group++) {
        nm_packed own = { 0 };
        bool kept = g->groups == 1;
        j->b = kept ? kept_packed(r, g, w) : &own;
        if (!kept)
            pack_group(r, g, w, group, FORWARD, compute_of(r), &own);
        nm_arena_mark mark = nm_arena_get_mark(r->arena);
        if (nm_run_ok(r)) {
            nm_gemm p = { .m = j->rows * g->ow, .a_dtype = half ? NM_BF16 : NM_F32, .lda = g->k, .b = j->b, .c_dtype = NM_F32, .ldc = g->o };
            j->gemm_bytes = round_64(nm_gemm_scratch(r->kn, &p, 1));
            j->x_bytes = half ? round_64((size_t)(most_rows_under(g, j->rows) * g->w * g->c) * sizeof(nm_bf16)) : 0;
            j->per_worker = round_64(j->gemm_bytes + j->x_bytes + (size_t)floats * sizeof(float));
            r->flops += 2.0 * (double)(g->n * g->oh * g->ow) * (double)g->og * (double)g->k;
            j->scratch = nm_scratch(r, j->per_worker * (size_t)nm_pool_size(r->pool));
            j->group = group;
            if (j->scratch)
                nm_parallel_for(r->pool, blocks, 1, forward_blocks, j);
        }
        nm_arena_rewind(r->arena, mark);
        if (!kept)
            nm_gemm_pack_free(&own);
    }
    return blocks;
}

static nm_bn_block *new_stats(nm_run *r, int64_t blocks, int64_t cols)
{
    nm_bn_block *b = nm_scratch(r, (size_t)blocks * sizeof *b);
    double *d = nm_scratch(r, (size_t)(2 * blocks * cols) * sizeof *d);
    for (int64_t i = 0; b && d && i < blocks; i++)
        b[i] = (nm_bn_block){ d + 2 * i * cols, d + (2 * i + 1) * cols, 0 };
    return d ? b : NULL;
}

/* ---- backward ---- */

typedef struct conv_saved {
    nm_tensor x, raw, y, residual; /* raw: before normalisation; y where there is none */
    const nm_weight *w;
    nm_conv c;
    geometry g;
    nm_bn_norm norm;
} conv_saved;

typedef struct back_job {
    nm_run *r;
    const conv_saved *s;
    const nm_channel_back *rows; /* how the gradient before normalisation comes from dy; NULL: it is dy */
    const float *dy;
    float *dx, *dw, *dbias;      /* dw: [parts][out][ky][kx][in]; dbias: [parts][out]; NULL where not wanted */
    bool fresh;                  /* dx holds nothing yet */
    bool strided;
    const nm_packed *b;          /* per group */
    int64_t images, blocks, parts;
    int64_t rows_w, rows_x;      /* of a block of im2col: for the weight, for the pixels */
    char *scratch;
    size_t per_worker, gemm_bytes, d_bytes, half_bytes; /* half_bytes: of pixels, then of gradients, in bf16 */
} back_job;

/* The gradient of the convolution's result for pictures [begin, end), whose first pixel is row `at`. */
static const float *result_gradient(const back_job *j, int64_t at, int64_t rows, float *d)
{
    const nm_channel_back *t = j->rows;
    int64_t cols = j->s->g.o, off = at * cols;
    if (!t)
        return j->dy + off;
    nm_channel_back p = *t;
    p.dy += off;
    p.x += off;
    p.y = t->y ? t->y + off : NULL;
    p.residual = t->residual ? t->residual + off : NULL;
    p.dx = d;
    j->r->kn->channels.back_rows(rows, &p);
    return d;
}

/* A block's two sides, f32 or bf16. */
typedef struct back_block { int64_t image, images; const void *x, *d; } back_block;

static void weight_block(const back_job *j, const back_block *b, float *dw, void *cols)
{
    const geometry *g = &j->s->g;
    const nm_channel_kernels *kn = &j->r->kn->channels;
    for (int64_t group = 0; group < g->groups; group++)
        for (int64_t at = 0; at < b->images * g->oh; at += j->rows_w) {
            int64_t end = at + j->rows_w < b->images * g->oh ? at + j->rows_w : b->images * g->oh, first = at * g->ow * g->c, count = (end - at) * g->ow;
            int64_t from = at * g->ow * g->o + group * g->og;
            float *to = dw + group * g->og * g->k;
            if (!g->direct)
                gather_group(j->r, b->x, g->half_back, group, g->h, g->w, g->cg, g->c, &g->win, g->oh, g->ow, at, end, cols);
            if (g->half_back)
                kn->outer_bf16(count, g->og, g->k, (const nm_bf16 *)b->d + from, g->o, g->direct ? (const nm_bf16 *)b->x + first : cols, g->k, to, g->k);
            else
                kn->outer(count, g->og, g->k, (const float *)b->d + from, g->o, g->direct ? (const float *)b->x + first : cols, g->k, to, g->k);
        }
}

/* Adds rows of products [rows][ky][kx][c] back to the pixels they were gathered from. */
static void scatter(const nm_run *r, const geometry *g, const float *cols, int64_t begin, int64_t end, float *dx)
{
    const nm_window *v = &g->win;
    for (int64_t row = begin; row < end; row++)
        for (int64_t ox = 0; ox < g->ow; ox++)
            for (int64_t t = 0; t < v->kh * v->kw; t++, cols += g->cg) {
                int64_t iy = row % g->oh * v->stride[0] - v->pad[0] + t / v->kw * v->dilation[0];
                int64_t ix = ox * v->stride[1] - v->pad[1] + t % v->kw * v->dilation[1];
                float *p = dx + ((row / g->oh * g->h + iy) * g->w + ix) * g->c;
                if (iy >= 0 && iy < g->h && ix >= 0 && ix < g->w)
                    r->kn->elementwise.add(g->cg, p, cols, p);
            }
}

static void pixel_block(const back_job *j, const back_block *b, float *cols, void *scratch)
{
    const geometry *g = &j->s->g;
    nm_window turned = { g->win.kh, g->win.kw, { 1, 1 }, { 0 }, { g->win.dilation[0], g->win.dilation[1] } };
    for (int i = 0; i < 2; i++)
        turned.pad[i] = g->win.dilation[i] * ((i ? g->win.kw : g->win.kh) - 1) - g->win.pad[i];
    float *dx = j->dx + b->image * g->h * g->w * g->c;
    size_t size = g->half_back ? sizeof(nm_bf16) : sizeof(float);
    int64_t images = b->images, h = j->strided ? g->oh : g->h, w = j->strided ? g->ow : g->w, taps = g->win.kh * g->win.kw * g->og;
    for (int64_t group = 0; group < g->groups; group++)
        for (int64_t at = 0; at < images * h; at += j->rows_x) {
            int64_t end = at + j->rows_x < images * h ? at + j->rows_x : images * h;
            const char *from = (const char *)b->d + (size_t)(at * w * g->o + group * g->og) * size; /* where rows are read as they lie */
            nm_gemm p = { .m = (end - at) * w, .a_dtype = g->half_back ? NM_BF16 : NM_F32, .b = &j->b[group], .c_dtype = NM_F32, .alpha = 1 };
            if (j->strided) {
                p.a = from;
                p.lda = g->o;
                p.c = cols;
                p.ldc = g->k;
                nm_gemm_run(j->r->kn, &p, NULL, scratch);
                scatter(j->r, g, cols, at, end, dx + group * g->cg);
                continue;
            }
            if (!g->direct)
                gather_group(j->r, b->d, g->half_back, group, g->oh, g->ow, g->og, g->o, &turned, g->h, g->w, at, end, cols);
            p.a = g->direct ? (const void *)from : cols;
            p.lda = taps;
            p.c = dx + at * w * g->c + group * g->cg;
            p.ldc = p.ldr = g->c;
            p.residual = j->fresh ? NULL : p.c;
            nm_gemm_run(j->r->kn, &p, NULL, scratch);
        }
}

/* One part of the blocks, in order: its sums are its own. */
static void back_parts(void *arg, int64_t begin, int64_t end, int worker)
{
    const back_job *j = arg;
    const geometry *g = &j->s->g;
    char *scratch = j->scratch + (size_t)worker * j->per_worker;
    float *d_room = (float *)(void *)(scratch + j->gemm_bytes), *cols = (float *)(void *)(scratch + j->gemm_bytes + j->d_bytes + j->half_bytes);
    nm_bf16 *half = (nm_bf16 *)(void *)(scratch + j->gemm_bytes + j->d_bytes), *half_d = half + j->images * g->h * g->w * g->c;
    for (int64_t part = begin; part < end; part++)
        for (int64_t b = j->blocks * part / j->parts; b < j->blocks * (part + 1) / j->parts; b++) {
            int64_t image = b * j->images, images = image + j->images < g->n ? j->images : g->n - image, rows = images * g->oh * g->ow;
            const float *d = result_gradient(j, image * g->oh * g->ow, rows, d_room);
            const float *x = (const float *)j->s->x.data + image * g->h * g->w * g->c;
            if (g->half_back)
                round_bf16(j->r, rows * g->o, d, half_d);
            if (g->half_back && j->dw)
                round_bf16(j->r, images * g->h * g->w * g->c, x, half);
            back_block block = { image, images, g->half_back ? (const void *)half : x, g->half_back ? (const void *)half_d : d };
            if (j->dw)
                weight_block(j, &block, j->dw + part * g->o * g->k, cols);
            for (int64_t i = 0; j->dbias && i < rows; i++)
                j->r->kn->elementwise.add(g->o, j->dbias + part * g->o, d + i * g->o, j->dbias + part * g->o);
            if (j->dx)
                pixel_block(j, &block, cols, scratch);
        }
}

static void add_parts(const geometry *g, const float *parts, int64_t n, float *dw)
{
    int64_t taps = g->win.kh * g->win.kw, size = g->o * g->k;
    for (int64_t i = 0; i < size; i++) {
        float sum = 0;
        for (int64_t p = 0; p < n; p++)
            sum += parts[p * size + i];
        dw[(i / g->k * g->cg + i % g->cg) * taps + i / g->cg % taps] += sum;
    }
}

static float *zeros(nm_run *r, int64_t n)
{
    float *p = nm_scratch(r, (size_t)n * sizeof *p);
    if (p)
        memset(p, 0, (size_t)n * sizeof *p);
    return p;
}

static void size_blocks(back_job *j)
{
    const geometry *g = &j->s->g;
    int64_t taps = g->win.kh * g->win.kw, most = (g->n + 15) / 16;
    j->images = at_least_one(BLOCK_BYTES / (g->oh * g->ow * (g->o + g->c) * 4));
    j->images = j->images < most ? j->images : most;
    j->blocks = (g->n + j->images - 1) / j->images;
    int64_t fit = at_least_one(PARTS_BYTES / (g->o * g->k * 4));
    j->parts = j->blocks < MOST_PARTS ? j->blocks : MOST_PARTS;
    j->parts = fit < j->parts ? fit : j->parts;
    j->rows_w = g->direct ? j->images * g->oh : at_least_one(BLOCK_BYTES / (g->ow * g->k * 4));
    j->rows_x = g->direct ? j->images * g->h : at_least_one(BLOCK_BYTES / (j->strided ? g->ow * g->k * 4 : g->w * taps * g->og * 4));
}

/* Scratch of a worker: of the products, the result's gradient, rows of im2col. */
static void size_scratch(back_job *j)
{
    const geometry *g = &j->s->g;
    int64_t taps = g->win.kh * g->win.kw;
    int64_t w_floats = g->direct || !j->dw ? 0 : j->rows_w * g->ow * g->k;
    int64_t x_floats = g->direct || !j->dx ? 0 : j->strided ? j->rows_x * g->ow * g->k : j->rows_x * g->w * taps * g->og;
    j->d_bytes = j->rows ? round_64((size_t)(j->images * g->oh * g->ow * g->o) * sizeof(float)) : 0;
    j->half_bytes = g->half_back ? round_64((size_t)(j->images * (g->h * g->w * g->c + g->oh * g->ow * g->o)) * sizeof(nm_bf16)) : 0;
    j->gemm_bytes = 0;
    if (j->dx) {
        nm_gemm p = { .m = j->rows_x * (j->strided ? g->ow : g->w), .a_dtype = g->half_back ? NM_BF16 : NM_F32, .lda = j->strided || g->direct ? g->o : taps * g->og, .b = j->b,
                      .c_dtype = NM_F32, .ldc = g->c };
        j->gemm_bytes = round_64(nm_gemm_scratch(j->r->kn, &p, 1));
    }
    j->per_worker = round_64(j->gemm_bytes + j->d_bytes + j->half_bytes + (size_t)(w_floats > x_floats ? w_floats : x_floats) * sizeof(float));
    j->scratch = nm_scratch(j->r, j->per_worker * (size_t)nm_pool_size(j->r->pool) + 64);
}

static void run_backward(nm_run *r, conv_saved *s, back_job *j)
{
    const geometry *g = &s->g;
    nm_packed *packed = calloc((size_t)g->groups, sizeof *packed);
    if (!packed)
        nm_run_fail(r, NOEMA_E_MEMORY, "out of memory: gradient of a convolution");
    for (int64_t i = 0; packed && j->dx && i < g->groups && nm_run_ok(r); i++)
        pack_group(r, g, s->w, i, j->strided ? COLUMNS : TURNED, compute_of(r), &packed[i]);
    j->b = packed;
    size_blocks(j);
    float *dw = nm_trains(r, s->w) ? nm_weight_grad(r, s->w) : NULL, *dbias = nm_trains(r, s->c.bias) ? nm_weight_grad(r, s->c.bias) : NULL;
    if (dw)
        j->dw = zeros(r, j->parts * g->o * g->k);
    if (dbias)
        j->dbias = zeros(r, j->parts * g->o);
    if (nm_run_ok(r))
        size_scratch(j);
    if (nm_run_ok(r)) {
        r->flops += 2.0 * (double)(g->n * g->oh * g->ow) * (double)g->o * (double)g->k * ((dw != NULL) + (j->dx != NULL));
        nm_parallel_for(r->pool, j->parts, 1, back_parts, j);
        if (dw)
            add_parts(g, j->dw, j->parts, dw);
        for (int64_t i = 0; dbias && i < j->parts * g->o; i++)
            dbias[i % g->o] += j->dbias[i];
    }
    for (int64_t i = 0; packed && i < g->groups; i++)
        nm_gemm_pack_free(&packed[i]);
    free(packed);
}

static void conv_backward(nm_run *r, void *saved)
{
    conv_saved *s = saved;
    const geometry *g = &s->g;
    int64_t rows = g->n * g->oh * g->ow;
    back_job j = { .r = r, .s = s, .dy = nm_grad_read(&s->y), .strided = g->win.stride[0] != 1 || g->win.stride[1] != 1 };
    nm_channel_back t = { .cols = g->o, .relu = s->c.relu, .dy = j.dy, .x = s->raw.data, .y = s->c.relu && (s->residual.data || !s->c.bn) ? s->y.data : NULL };
    bool add = true;
    if (s->residual.grad)
        t.residual = nm_grad_out(r, &s->residual, &add);
    t.residual_fresh = !add;
    add = true;
    if (s->c.bn)
        nm_bn_prepare_back(r, s->c.bn, &s->norm, rows, &t);
    else if (s->c.relu) { /* dz alone: (dz - 0 - (x - 0) 0) 1 */
        float *c = zeros(r, 2 * g->o);
        for (int64_t i = 0; c && i < g->o; i++)
            c[g->o + i] = 1;
        t.mean = t.a = t.b = c;
        t.k = c ? c + g->o : NULL;
    }
    j.rows = s->c.bn || s->c.relu ? &t : NULL;
    if (j.strided || g->groups > 1)
        j.dx = nm_grad_data(r, &s->x);
    else
        j.dx = nm_grad_out(r, &s->x, &add);
    j.fresh = !add;
    if (nm_run_ok(r))
        run_backward(r, s, &j);
}

/* ---- the operator ---- */

static bool wants_record(const nm_run *r, const nm_tensor *x, const nm_weight *w, const nm_conv *c)
{
    return nm_wants(r, x) || nm_trains(r, w) || nm_trains(r, c->bias) || nm_bn_trains(r, c->bn) || (c->residual && nm_wants(r, c->residual));
}

nm_tensor nm_conv2d(nm_run *r, nm_tensor x, const nm_weight *w, nm_conv c)
{
    geometry g;
    if (!x.data || (c.residual && !c.residual->data) || !nm_run_ok(r))
        return (nm_tensor){ 0 };
    if (!measure(r, &x, w, &c, &g) || (c.residual && !c.bn))
        return nm_run_fail(r, NOEMA_E_INTERNAL, "conv2d: expected f32 [n, h, w, c] with the weight's channels");
    if (g.oh < 1 || g.ow < 1)
        return nm_run_fail(r, NOEMA_E_ARGUMENT, "conv2d: image [%lld, %lld] is smaller than the kernel", (long long)g.h, (long long)g.w);
    bool record = wants_record(r, &x, w, &c), batch = c.bn && nm_bn_follows(r, c.bn);
    nm_tensor y = nm_new(r, NM_F32, NM_SHAPE(g.n, g.oh, g.ow, g.o)), raw = record && c.bn ? nm_new(r, NM_F32, NM_SHAPE(g.n, g.oh, g.ow, g.o)) : y;
    if (y.data && c.residual && (!nm_same_shape(&y, c.residual) || !nm_is_contiguous(c.residual)))
        return nm_run_fail(r, NOEMA_E_INTERNAL, "conv2d: residual of another shape");
    nm_bn_norm norm = c.bn && !batch ? nm_bn_running(r, c.bn, c.eps, g.o) : (nm_bn_norm){ 0 };
    forward_job j = { .r = r, .g = &g, .c = &c, .x = x.data, .raw = raw.data, .y = y.data, .norm = c.bn && !batch ? &norm : NULL,
                      .rows = block_rows(g.n * g.oh, g.ow, (g.direct ? g.c : g.k) + g.o) };
    if (batch)
        j.stats = new_stats(r, (g.n * g.oh + j.rows - 1) / j.rows, g.o);
    int64_t blocks = nm_run_ok(r) ? run_forward(r, &g, w, &j) : 0;
    if (batch && nm_run_ok(r)) {
        norm = nm_bn_batch(r, c.bn, c.eps, g.o, j.stats, blocks);
        if (nm_run_ok(r))
            nm_bn_apply(r, &norm, raw, c.residual, c.relu, y);
    }
    if (!nm_run_ok(r))
        return (nm_tensor){ 0 };
    if (record)
        NM_RECORD(r, y, conv_backward, conv_saved, x, raw, y, c.residual ? *c.residual : (nm_tensor){ 0 }, w, c, g, norm);
    return y;
}
