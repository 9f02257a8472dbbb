/* resize.c - weights of Pillow's filters (libImaging/Resample.c, precompute_coeffs), nearest maps (Geometry.c,
 * ImagingScaleAffine), and the two passes over the window that a crop leaves.
 *
 * Which pass comes first changes the result, because the picture between them is rounded. Up to release 12 Pillow always
 * began with the horizontal one; release 13, our reference, begins with the vertical one where that shrinks the picture
 * by more than twice as many rows as the horizontal one takes columns away (found by experiment: 2785 random sizes, five
 * filters, three modes, no exception). */
#include "media/resize.h"

#include <math.h>
#include <string.h>

#include "base/cpu.h"
#include "base/mem.h"

static const char *const filter_names[] = { "nearest", "lanczos", "bilinear", "bicubic", "box", "hamming" };

const char *nm_filter_name(nm_filter f) { return filter_names[f]; }

bool nm_filter_from_name(const char *name, nm_filter *f)
{
    for (int i = 0; i < 6; i++)
        if (!strcmp(name, filter_names[i])) {
            *f = (nm_filter)i;
            return true;
        }
    return false;
}

static const double pi = 3.14159265358979323846;

static double sinc(double x)
{
    if (x == 0.0)
        return 1.0;
    x *= pi;
    return sin(x) / x;
}

static const double filter_support[] = { 0.0, 3.0, 1.0, 2.0, 0.5, 1.0 };

static inline double filter_value(nm_filter f, double x)
{
    switch (f) {
    case NM_BICUBIC: /* Keys, a = -0.5 */
        x = fabs(x);
        if (x < 1.0)
            return ((-0.5 + 2.0) * x - (-0.5 + 3.0)) * x * x + 1;
        return x < 2.0 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0.0;
    case NM_BILINEAR:
        x = fabs(x);
        return x < 1.0 ? 1.0 - x : 0.0;
    case NM_LANCZOS: return -3.0 <= x && x < 3.0 ? sinc(x) * sinc(x / 3) : 0.0;
    case NM_BOX: return x > -0.5 && x <= 0.5 ? 1.0 : 0.0;
    case NM_HAMMING:
        x = fabs(x);
        if (x == 0.0)
            return 1.0;
        if (x >= 1.0)
            return 0.0;
        x *= pi;
        return sin(x) / x * (0.54 + 0.46 * cos(x));
    default: return 0.0;
    }
}

static void *grow(void **mem, size_t *cap, size_t size)
{
    if (size > *cap) {
        nm_free(*mem);
        *mem = nm_alloc(size);
        *cap = *mem ? size : 0;
    }
    return *mem;
}

static size_t align64(size_t n) { return (n + 63) & ~(size_t)63; }

/* Bounds of output o: Pillow rounds both ends by adding 0.5 and truncating. */
static inline void bounds(const nm_resize_span *s, double scale, double support, int64_t o, int *lo, int *n, double *centre)
{
    *centre = ((double)o + 0.5) * scale;
    double a = *centre - support + 0.5, b = *centre + support + 0.5;
    *lo = a < 0 ? 0 : (int)a;
    int hi = b > s->in ? s->in : (int)b;
    *n = hi - *lo;
}

static noema_status set_axis(nm_resize_plan *p, int d, noema_error *err)
{
    const nm_resize_span *s = &p->span[d];
    nm_resize_axis *a = &p->axis[d];
    double scale = (double)s->in / (double)s->out, fscale = scale < 1.0 ? 1.0 : scale;
    double support = filter_support[p->filter] * fscale, ss = 1.0 / fscale, centre;
    size_t n_out = (size_t)(s->crop1 - s->crop0), n_weights, bytes;
    int most = 1, lo, n;
    for (int64_t o = s->crop0; o < s->crop1; o++) {
        bounds(s, scale, support, o, &lo, &n, &centre);
        if (n > most)
            most = n;
    }
    a->n_out = (int)n_out;
    a->taps = (most + 3) / 4 * 4;
    size_t ints = align64(n_out * 4);
    if (!nm_mul_size(n_out, (size_t)a->taps, &n_weights) || !nm_mul_size(n_weights, 12, &bytes) ||
        !nm_add_size(bytes, 3 * ints + 128 + (size_t)a->taps * 8, &bytes) || !grow(&p->mem[d], &p->mem_cap[d], bytes))
        return nm_fail(err, NOEMA_E_MEMORY, "resize: no memory for %zu x %d weights", n_out, a->taps);
    char *m = p->mem[d];
    int32_t *start = (void *)m, *first = (void *)(m + ints), *count = (void *)(m + 2 * ints);
    int32_t *weight = (void *)(m + 3 * ints);
    p->wide[d] = (void *)(m + 3 * ints + align64(n_weights * 4));
    memset(weight, 0, n_weights * 4);
    double *k = p->wide[d];
    for (size_t i = 0; i < n_out; i++) {
        double sum = 0.0;
        bounds(s, scale, support, s->crop0 + (int64_t)i, &lo, &n, &centre);
        for (int j = 0; j < n; j++)
            sum += k[j] = filter_value(p->filter, (j + lo - centre + 0.5) * ss);
        first[i] = lo;
        count[i] = n;
        /* the kernels read `taps` samples from start: keep them inside the row where it is long enough */
        start[i] = lo + a->taps <= s->in ? lo : s->in > a->taps ? s->in - a->taps : 0;
        int32_t *w = weight + i * (size_t)a->taps + (first[i] - start[i]);
        for (int j = 0; j < n; j++) {
            if (sum != 0.0)
                k[j] /= sum;
            w[j] = (int32_t)(k[j] * (1 << NM_RESIZE_BITS) + (k[j] < 0 ? -0.5 : 0.5));
        }
        if (!p->channels) /* kept only for 16 bit */
            k += a->taps;
    }
    a->start = start, a->first = first, a->count = count, a->weight = weight;
    return NOEMA_OK;
}

/* The accumulated double decides ties, so the sum starts at output 0. */
static noema_status set_map(nm_resize_plan *p, int d, noema_error *err)
{
    const nm_resize_span *s = &p->span[d];
    size_t n_out = (size_t)(s->crop1 - s->crop0);
    p->map[d] = grow(&p->mem[d], &p->mem_cap[d], n_out * sizeof(int));
    if (!p->map[d])
        return nm_fail(err, NOEMA_E_MEMORY, "resize: no memory for %zu outputs", n_out);
    double step = (double)s->in / (double)s->out, at = step * 0.5;
    for (int64_t o = 0; o < s->crop1; o++, at += step)
        if (o >= s->crop0)
            p->map[d][o - s->crop0] = at < s->in ? (int)at : s->in - 1;
    return NOEMA_OK;
}

static void set_need(nm_resize_plan *p)
{
    int lo[2], hi[2];
    for (int d = 0; d < 2; d++) {
        const nm_resize_span *s = &p->span[d];
        size_t n = (size_t)(s->crop1 - s->crop0);
        if (!p->pass[d]) {
            lo[d] = (int)s->crop0, hi[d] = (int)s->crop1;
        } else if (p->filter == NM_NEAREST) {
            lo[d] = p->map[d][0], hi[d] = p->map[d][n - 1] + 1;
        } else {
            lo[d] = p->axis[d].first[0], hi[d] = p->axis[d].first[n - 1] + p->axis[d].count[n - 1];
        }
    }
    p->need = (nm_rect){ lo[0], lo[1], hi[0], hi[1] };
}

static bool same_span(const nm_resize_span *a, const nm_resize_span *b)
{
    return a->in == b->in && a->out == b->out && a->crop0 == b->crop0 && a->crop1 == b->crop1;
}

noema_status nm_resize_plan_set(nm_resize_plan *p, const nm_resize_kernels *kernels, nm_filter filter, int channels,
                                nm_resize_span x, nm_resize_span y, noema_error *err)
{
    const nm_resize_span span[2] = { x, y };
    if (!kernels)
        kernels = nm_resize_select(nm_cpu_features());
    bool same = p->kernels == kernels && p->filter == filter && p->channels == channels;
    if (same && same_span(&p->span[0], &x) && same_span(&p->span[1], &y))
        return NOEMA_OK;
    p->kernels = NULL; /* unusable until all is set */
    p->filter = filter;
    p->channels = channels;
    noema_status st = NOEMA_OK;
    for (int d = 0; d < 2 && st == NOEMA_OK; d++) {
        const nm_resize_span *s = &span[d];
        if (s->in < 1 || s->out < 1 || s->out > 1 << 28 || s->crop0 < 0 || s->crop1 <= s->crop0 || s->crop1 > s->out ||
            s->crop1 - s->crop0 > 1 << 24)
            return nm_fail(err, NOEMA_E_LIMIT, "resize: cannot make %lld of %d samples", (long long)s->out, s->in);
        if (same && same_span(&p->span[d], s))
            continue;
        p->span[d] = *s;
        p->pass[d] = s->in != s->out;
        if (p->pass[d])
            st = filter == NM_NEAREST ? set_map(p, d, err) : set_axis(p, d, err);
        if (st == NOEMA_OK && d == 0 && p->pass[d] && filter != NM_NEAREST && channels) {
            size_t bytes = kernels->packed_bytes(p->axis[0].n_out, p->axis[0].taps, channels);
            if (!grow(&p->packed, &p->packed_cap, bytes + 64))
                st = nm_fail(err, NOEMA_E_MEMORY, "resize: no memory for %zu bytes of weights", bytes);
            else
                kernels->pack(p->packed, &p->axis[0], channels);
            p->axis[0].packed = p->packed;
        }
        if (st != NOEMA_OK)
            p->span[d].in = 0;
    }
    if (st != NOEMA_OK)
        return st;
    p->vertical_first = p->pass[0] && p->pass[1] && y.out < y.in && y.in - y.out > 2 * (x.in - x.out);
    set_need(p);
    p->kernels = kernels;
    return NOEMA_OK;
}

void nm_resize_plan_free(nm_resize_plan *p)
{
    nm_free(p->mem[0]);
    nm_free(p->mem[1]);
    nm_free(p->packed);
    nm_free(p->tmp);
    memset(p, 0, sizeof *p);
}

static void run_nearest(const nm_resize_plan *p, unsigned char *dst, size_t dst_stride, const unsigned char *src, size_t stride)
{
    size_t b = p->channels ? (size_t)p->channels : 2;
    const nm_resize_span *sx = &p->span[0], *sy = &p->span[1];
    int n_x = (int)(sx->crop1 - sx->crop0), n_y = (int)(sy->crop1 - sy->crop0);
    for (int y = 0; y < n_y; y++, dst += dst_stride) {
        const unsigned char *row = src + (size_t)(p->pass[1] ? p->map[1][y] : (int)sy->crop0 + y) * stride;
        if (!p->pass[0]) {
            memcpy(dst, row + (size_t)sx->crop0 * b, (size_t)n_x * b);
            continue;
        }
        for (int x = 0; x < n_x; x++)
            memcpy(dst + (size_t)x * b, row + (size_t)p->map[0][x] * b, b);
    }
}

/* ROUND_UP and CLIP16 of Resample.c. */
static uint16_t round16(double v)
{
    int i = (int)(v >= 0.0 ? v + 0.5 : v - 0.5);
    return (uint16_t)(i < 0 ? 0 : i > 65535 ? 65535 : i);
}

static void columns16(const nm_resize_plan *p, unsigned char *dst, size_t dst_stride, const unsigned char *src, size_t stride, int rows)
{
    const nm_resize_axis *a = &p->axis[0];
    for (int y = 0; y < rows; y++, dst += dst_stride, src += stride)
        for (int x = 0; x < a->n_out; x++) {
            const double *k = p->wide[0] + (size_t)x * (size_t)a->taps;
            double sum = 0.0;
            for (int i = 0; i < a->count[x]; i++) {
                uint16_t v;
                memcpy(&v, src + 2 * (size_t)(a->first[x] + i), 2);
                sum += v * k[i];
            }
            uint16_t v = round16(sum);
            memcpy(dst + 2 * (size_t)x, &v, 2);
        }
}

static void row16(unsigned char *dst, const unsigned char *src, size_t stride, const double *k, int count, size_t n)
{
    for (size_t x = 0; x < n; x++) {
        double sum = 0.0;
        for (int i = 0; i < count; i++) {
            uint16_t v;
            memcpy(&v, src + (size_t)i * stride + 2 * x, 2);
            sum += v * k[i];
        }
        uint16_t v = round16(sum);
        memcpy(dst + 2 * x, &v, 2);
    }
}

/* Rows [0, rows) of src, all columns of the source -> wanted columns. */
static void pass_x(const nm_resize_plan *p, unsigned char *dst, size_t dst_stride, const unsigned char *src, size_t stride, int rows)
{
    if (p->channels)
        p->kernels->horizontal(dst, dst_stride, src, stride, rows, &p->axis[0], p->channels);
    else
        columns16(p, dst, dst_stride, src, stride, rows);
}

/* Source rows from `row0` on, `samples` columns -> wanted rows. */
static void pass_y(const nm_resize_plan *p, unsigned char *dst, size_t dst_stride, const unsigned char *src, size_t stride, int row0,
                   size_t samples)
{
    const nm_resize_axis *a = &p->axis[1];
    for (int y = 0; y < a->n_out; y++, dst += dst_stride) {
        const unsigned char *s = src + (size_t)(a->first[y] - row0) * stride;
        if (p->channels)
            p->kernels->vertical(dst, s, stride, a->weight + (size_t)y * (size_t)a->taps + (a->first[y] - a->start[y]), a->count[y],
                                 samples * (size_t)p->channels);
        else
            row16(dst, s, stride, p->wide[1] + (size_t)y * (size_t)a->taps, a->count[y], samples);
    }
}

noema_status nm_resize_run(nm_resize_plan *p, unsigned char *dst, size_t dst_stride, const unsigned char *src,
                           size_t src_stride, noema_error *err)
{
    if (p->filter == NM_NEAREST) {
        run_nearest(p, dst, dst_stride, src, src_stride);
        return NOEMA_OK;
    }
    size_t b = p->channels ? (size_t)p->channels : 2, n_x = (size_t)(p->span[0].crop1 - p->span[0].crop0);
    size_t n_y = (size_t)(p->span[1].crop1 - p->span[1].crop0), rows = (size_t)(p->need.y1 - p->need.y0), bytes = 0;
    const unsigned char *top = src + (size_t)p->need.y0 * src_stride, *corner = top + (size_t)p->need.x0 * b;
    /* what lies between the passes; with the vertical one first it keeps the source's columns, so that starts stay valid */
    size_t tmp_stride = (p->vertical_first ? (size_t)p->span[0].in : n_x) * b;
    if (p->pass[0] && p->pass[1] && (!nm_mul_size(tmp_stride, p->vertical_first ? n_y : rows, &bytes) ||
                                     !grow(&p->tmp, &p->tmp_cap, bytes + NM_IMAGE_PAD)))
        return nm_fail(err, NOEMA_E_MEMORY, "resize: no memory for %zu rows of %zu bytes", rows, tmp_stride);
    if (!p->pass[0] && !p->pass[1]) {
        for (size_t y = 0; y < n_y; y++)
            memcpy(dst + y * dst_stride, corner + y * src_stride, n_x * b);
    } else if (!p->pass[1]) {
        pass_x(p, dst, dst_stride, top, src_stride, (int)rows);
    } else if (!p->pass[0]) {
        pass_y(p, dst, dst_stride, corner, src_stride, p->need.y0, n_x);
    } else if (p->vertical_first) {
        pass_y(p, (unsigned char *)p->tmp + (size_t)p->need.x0 * b, tmp_stride, corner, src_stride, p->need.y0,
               (size_t)(p->need.x1 - p->need.x0));
        pass_x(p, dst, dst_stride, p->tmp, tmp_stride, (int)n_y);
    } else {
        pass_x(p, p->tmp, tmp_stride, top, src_stride, (int)rows);
        pass_y(p, dst, dst_stride, p->tmp, tmp_stride, p->need.y0, n_x);
    }
    return NOEMA_OK;
}

void nm_premultiply(unsigned char *dst, const unsigned char *src, int n, int channels)
{
    int last = channels - 1;
    for (int i = 0; i < n; i++, dst += channels, src += channels) {
        unsigned a = src[last];
        for (int c = 0; c < last; c++) {
            unsigned t = src[c] * a + 128;
            dst[c] = (unsigned char)(((t >> 8) + t) >> 8);
        }
        dst[last] = (unsigned char)a;
    }
}

void nm_unpremultiply(unsigned char *p, int n, int channels)
{
    int last = channels - 1;
    for (int i = 0; i < n; i++, p += channels) {
        unsigned a = p[last];
        if (a == 0 || a == 255)
            continue;
        for (int c = 0; c < last; c++) {
            unsigned v = 255u * p[c] / a;
            p[c] = (unsigned char)(v > 255 ? 255 : v);
        }
    }
}

noema_status nm_image_resize(nm_image *dst, const nm_image *src, int width, int height, nm_filter filter, noema_error *err)
{
    nm_resize_plan plan = { 0 };
    nm_image pre = { 0 };
    nm_mode mode = src->mode;
    bool alpha = (mode == NM_MODE_RGBA || mode == NM_MODE_LA) && filter != NM_NEAREST &&
                 (width != src->width || height != src->height);
    if (mode == NM_MODE_P || mode == NM_MODE_1)
        filter = NM_NEAREST;
    int channels = mode == NM_MODE_I16 ? 0 : nm_mode_bytes(mode);
    nm_resize_span x = { src->width, width, 0, width }, y = { src->height, height, 0, height };
    noema_status s = nm_resize_plan_set(&plan, NULL, filter, channels, x, y, err);
    if (s == NOEMA_OK)
        s = nm_image_reset(dst, mode, width, height, err);
    if (s == NOEMA_OK && alpha) {
        s = nm_image_reset(&pre, mode, src->width, src->height, err);
        for (int r = 0; s == NOEMA_OK && r < src->height; r++)
            nm_premultiply(pre.data + (size_t)r * pre.stride, src->data + (size_t)r * src->stride, src->width, channels);
    }
    if (s == NOEMA_OK)
        s = nm_resize_run(&plan, dst->data, dst->stride, alpha ? pre.data : src->data, src->stride, err);
    if (s == NOEMA_OK && alpha)
        for (int r = 0; r < height; r++)
            nm_unpremultiply(dst->data + (size_t)r * dst->stride, width, channels);
    if (s == NOEMA_OK) {
        memcpy(dst->palette, src->palette, sizeof dst->palette);
        memcpy(dst->key, src->key, sizeof dst->key);
        dst->n_palette = src->n_palette;
        dst->has_trns = src->has_trns;
        dst->orientation = src->orientation;
        dst->format = src->format;
    }
    nm_image_free(&pre);
    nm_resize_plan_free(&plan);
    return s;
}
