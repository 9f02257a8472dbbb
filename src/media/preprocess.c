/* preprocess.c - running a pipeline: geometry, the window of the source, resize in the right mode, conversion to RGB, pad,
 * normalisation by table. */
#include "media/preprocess.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "media/tfresize.h"

struct nm_preprocess_scratch {
    nm_resize_plan plan;
    nm_image decoded, padded, source; /* source: the picture in the mode that is resized, when it is not the decoded one */
    unsigned char *rows;      /* the resized picture */
    unsigned char *rgb;       /* u8 result under an f32 one */
    unsigned char *tf;        /* taps, rows and the result of TensorFlow's resize */
    size_t rows_cap, rgb_cap, tf_cap;
    float lut[3][256];
    nm_preprocess lut_of;     /* the pipeline that lut is for */
};

/* One axis: the resized length, what of it is copied, and where that goes. */
typedef struct span { int64_t resized, from; int n, at, out; } span;

nm_preprocess_scratch *nm_preprocess_scratch_new(void) { return nm_calloc(1, sizeof(nm_preprocess_scratch)); }

void nm_preprocess_scratch_free(nm_preprocess_scratch *s)
{
    if (!s)
        return;
    nm_resize_plan_free(&s->plan);
    nm_image_free(&s->decoded);
    nm_image_free(&s->source);
    nm_image_free(&s->padded);
    nm_free(s->rows);
    nm_free(s->rgb);
    nm_free(s->tf);
    nm_free(s);
}

/* Python's round of a double: half to even. */
static int64_t round_even(double v) { return (int64_t)nearbyint(v); }

static void crop_axis(span *s, int64_t out, nm_crop_rule rule)
{
    int64_t d = s->resized - out;
    s->out = (int)out;
    if (d >= 0) {
        s->from = rule == NM_CROP_FLOOR ? d / 2 : round_even((double)d / 2.0);
        s->n = (int)out;
        s->at = 0;
    } else {
        s->from = 0;
        s->n = (int)s->resized;
        s->at = (int)(rule == NM_CROP_FLOOR ? (1 - d) / 2 : -d / 2);
    }
}

static void resized_size(const nm_preprocess *p, int w, int h, int64_t *rw, int64_t *rh)
{
    *rw = w, *rh = h;
    switch (p->fit) {
    case NM_FIT_NONE: break;
    case NM_FIT_PAD: /* w and h are those of the square */
    case NM_FIT_CROP_TF:
    case NM_FIT_SQUASH:
        *rw = p->squash_w ? p->squash_w : p->size_w;
        *rh = p->squash_h ? p->squash_h : p->size_h;
        break;
    case NM_FIT_SHORTEST: {
        int64_t edge = p->edge ? p->edge : p->size_h;
        if (p->edge || p->size_h == p->size_w) { /* torchvision: the long side is truncated */
            *rw = w <= h ? edge : edge * w / h;
            *rh = w <= h ? edge * h / w : edge;
            break;
        }
    } /* fall through */
    case NM_FIT_LONGEST: { /* open_clip's ResizeKeepRatio: both sides rounded */
        double a = (double)h / p->size_h, b = (double)w / p->size_w;
        double ratio = (p->fit == NM_FIT_LONGEST) == (a > b) ? a : b;
        *rw = round_even(w / ratio);
        *rh = round_even(h / ratio);
        if (*rw < 1)
            *rw = 1;
        if (*rh < 1)
            *rh = 1;
    }
    }
}

static noema_status geometry(const nm_preprocess *p, int w, int h, span s[2], noema_error *err)
{
    if (p->fit == NM_FIT_PAD)
        w = h = w > h ? w : h;
    resized_size(p, w, h, &s[0].resized, &s[1].resized);
    if (s[0].resized < 1 || s[1].resized < 1 || s[0].resized > 1 << 28 || s[1].resized > 1 << 28)
        return nm_fail(err, NOEMA_E_LIMIT, "preprocessing: cannot resize %d x %d to %lld x %lld", w, h, (long long)s[0].resized,
                       (long long)s[1].resized);
    crop_axis(&s[0], p->size_w ? p->size_w : s[0].resized, p->crop);
    crop_axis(&s[1], p->size_h ? p->size_h : s[1].resized, p->crop);
    return NOEMA_OK;
}

noema_status nm_preprocess_size(const nm_preprocess *p, int width, int height, int *out_h, int *out_w, noema_error *err)
{
    span s[2] = { { 0 } };
    noema_status st = geometry(p, width, height, s, err);
    if (st == NOEMA_OK)
        *out_w = s[0].out, *out_h = s[1].out;
    return st;
}

noema_status nm_preprocess_place(const nm_preprocess *p, int width, int height, nm_placement *g, noema_error *err)
{
    span s[2] = { { 0 } };
    int in[2] = { width, height };
    noema_status st = geometry(p, width, height, s, err);
    if (p->fit == NM_FIT_PAD)
        in[0] = in[1] = width > height ? width : height;
    for (int d = 0; d < 2; d++) {
        g->span[d] = (nm_resize_span){ in[d], s[d].resized, s[d].from, s[d].from + s[d].n };
        g->at[d] = s[d].at;
        g->out[d] = s[d].out;
    }
    return st;
}

/* The mode that is resized. Grey stays one channel under NM_RGB_FIRST: three equal channels give three equal results. */
static nm_mode working_mode(const nm_preprocess *p, nm_mode mode, bool transparent)
{
    if (p->order == NM_OWN_MODE)
        return mode;
    if (p->order == NM_RGB_ON_WHITE && transparent)
        return NM_MODE_RGB;
    return mode == NM_MODE_L || mode == NM_MODE_1 ? NM_MODE_L : NM_MODE_RGB;
}

static noema_status set_plan(const nm_preprocess *p, nm_resize_plan *plan, const span s[2], nm_mode work, int w, int h,
                             noema_error *err)
{
    nm_filter f = work == NM_MODE_P || work == NM_MODE_1 ? NM_NEAREST : p->filter;
    /* open_clip's cover-a-rectangle resize takes no interpolation argument: always bicubic */
    if (f != NM_NEAREST && p->fit == NM_FIT_SHORTEST && !p->edge && p->size_h != p->size_w)
        f = NM_BICUBIC;
    nm_resize_span x = { w, s[0].resized, s[0].from, s[0].from + s[0].n }, y = { h, s[1].resized, s[1].from, s[1].from + s[1].n };
    return nm_resize_plan_set(plan, NULL, f, work == NM_MODE_I16 ? 0 : nm_mode_bytes(work), x, y, err);
}

/* The picture to resize: im itself, or its window converted into s->source. */
static noema_status prepare(const nm_preprocess *p, nm_preprocess_scratch *s, const nm_image *im, nm_mode work, bool resized,
                            const nm_image **out, noema_error *err)
{
    bool pre = (work == NM_MODE_RGBA || work == NM_MODE_LA) && resized && s->plan.filter != NM_NEAREST;
    bool same = work == im->mode || (work == NM_MODE_L && im->mode == NM_MODE_1);
    *out = im;
    if (same && !pre && !(p->order == NM_RGB_ON_WHITE && nm_image_has_alpha(im)))
        return NOEMA_OK;
    noema_status st = nm_image_reset(&s->source, work, im->width, im->height, err);
    if (st != NOEMA_OK)
        return st;
    nm_rect r = s->plan.need;
    size_t b = (size_t)nm_mode_bytes(work);
    for (int y = r.y0; y < r.y1; y++) {
        unsigned char *d = s->source.data + (size_t)y * s->source.stride + (size_t)r.x0 * b;
        if (pre)
            nm_premultiply(d, im->data + (size_t)y * im->stride + (size_t)r.x0 * b, r.x1 - r.x0, (int)b);
        else if (p->order == NM_RGB_ON_WHITE)
            nm_row_on_white(d, im, y, r.x0, r.x1 - r.x0);
        else
            nm_row_to_rgb(d, im, y, r.x0, r.x1 - r.x0);
    }
    *out = &s->source;
    return NOEMA_OK;
}

static void fill_rgb(unsigned char *d, size_t n, const unsigned char rgb[3])
{
    for (size_t i = 0; i < n; i++)
        memcpy(d + 3 * i, rgb, 3);
}

/* The pad sample, after the conversion to RGB. */
static void fill_colour(const nm_preprocess *p, const nm_image *im, nm_mode work, unsigned char rgb[3])
{
    unsigned char sample[8];
    memset(sample, p->fill, sizeof sample);
    nm_image one = { .mode = work, .width = 1, .height = 1, .stride = 8, .data = sample };
    if (work == NM_MODE_I16) {
        uint16_t v = (uint16_t)p->fill;
        memcpy(sample, &v, 2);
    } else if (work == NM_MODE_P) {
        memcpy(one.palette, im->palette, sizeof one.palette);
    } else if (work == NM_MODE_1) {
        sample[0] = p->fill ? 255 : 0;
    }
    nm_row_to_rgb(rgb, &one, 0, 0, 1);
}

static bool grow(unsigned char **mem, size_t *cap, size_t size)
{
    if (size > *cap) {
        nm_free(*mem);
        *mem = nm_alloc(size);
        *cap = *mem ? size : 0;
    }
    return *mem != NULL;
}

/* Resized samples [n_y, n_x] in s->rows to RGB, placed inside the padded result. */
static void place(const nm_preprocess *p, nm_preprocess_scratch *s, const nm_image *im, nm_mode work, bool unpremultiply,
                  const span sp[2], unsigned char *out)
{
    nm_image view = { .mode = work, .width = sp[0].n, .height = sp[1].n, .data = s->rows };
    view.stride = (size_t)sp[0].n * (size_t)nm_mode_bytes(work);
    if (work == NM_MODE_P)
        memcpy(view.palette, im->palette, sizeof view.palette);
    unsigned char rgb[3];
    fill_colour(p, im, work, rgb);
    size_t row = (size_t)sp[0].out * 3;
    for (int y = 0; y < sp[1].out; y++, out += row) {
        if (y < sp[1].at || y >= sp[1].at + sp[1].n) {
            fill_rgb(out, (size_t)sp[0].out, rgb);
            continue;
        }
        fill_rgb(out, (size_t)sp[0].at, rgb);
        fill_rgb(out + 3 * (size_t)(sp[0].at + sp[0].n), (size_t)(sp[0].out - sp[0].at - sp[0].n), rgb);
        if (unpremultiply)
            nm_unpremultiply(view.data + (size_t)(y - sp[1].at) * view.stride, sp[0].n, nm_mode_bytes(work));
        nm_row_to_rgb(out + 3 * (size_t)sp[0].at, &view, y - sp[1].at, 0, sp[0].n);
    }
}

/* The picture in the middle of a black square, as RGB; then a squash. */
static noema_status run_padded(const nm_preprocess *p, nm_preprocess_scratch *s, const nm_image *im, unsigned char *out, noema_error *err)
{
    int side = im->width > im->height ? im->width : im->height, x = (side - im->width) / 2, y = (side - im->height) / 2;
    nm_preprocess squash = *p;
    squash.fit = NM_FIT_SQUASH;
    if ((uint64_t)side * (uint64_t)side > NM_IMAGE_MAX_PIXELS)
        return nm_fail(err, NOEMA_E_LIMIT, "preprocessing: a square of %d x %d pixels is too large to pad to", side, side);
    noema_status st = nm_image_reset(&s->padded, NM_MODE_RGB, side, side, err);
    if (st != NOEMA_OK)
        return st;
    memset(s->padded.data, 0, s->padded.stride * (size_t)side);
    for (int r = 0; r < im->height; r++) {
        unsigned char *d = s->padded.data + (size_t)(y + r) * s->padded.stride + 3 * (size_t)x;
        if (p->order == NM_RGB_ON_WHITE)
            nm_row_on_white(d, im, r, 0, im->width);
        else
            nm_row_to_rgb(d, im, r, 0, im->width);
    }
    return nm_preprocess_run_u8(&squash, s, &s->padded, out, err);
}

/* ---- TensorFlow's resize ---- */

/* The reference's evaluation crop: the largest square, its offset rounded half up. */
static nm_rect centre_square(int w, int h)
{
    int side = w < h ? w : h, x = (w - side + 1) / 2, y = (h - side + 1) / 2;
    return (nm_rect){ x, y, x + side, y + side };
}

/* The window as f32 [size_h, size_w, 3] on the 0..255 scale, in the scratch. */
static noema_status tf_window(const nm_preprocess *p, nm_preprocess_scratch *s, const nm_image *im, nm_rect c, nm_tf_cubic kind, const float **rgb,
                              noema_error *err)
{
    int w = c.x1 - c.x0, h = c.y1 - c.y0, ow = p->size_w, oh = p->size_h;
    size_t taps = ((size_t)ow + (size_t)oh) * sizeof(nm_tf_tap), row = 3 * (size_t)w * sizeof(float), n = 3 * (size_t)ow * (size_t)oh;
    noema_status st = nm_image_reset(&s->source, NM_MODE_RGB, w, h, err);
    if (st != NOEMA_OK)
        return st;
    if (!grow(&s->tf, &s->tf_cap, taps + row + n * sizeof(float)))
        return nm_fail(err, NOEMA_E_MEMORY, "preprocessing: no memory for %d x %d pixels", ow, oh);
    for (int y = 0; y < h; y++)
        nm_row_to_rgb(s->source.data + (size_t)y * s->source.stride, im, c.y0 + y, c.x0, w);
    nm_tf_tap *x = (void *)s->tf, *y = x + ow;
    float *out = (float *)(void *)(y + oh);
    nm_tf_taps(kind, w, ow, x);
    nm_tf_taps(kind, h, oh, y);
    nm_tf_resize(s->source.data, s->source.stride, w, out, ow, oh, x, y, out + n);
    *rgb = out;
    return NOEMA_OK;
}

/* (v - 255 mean) / (255 std) on [h, w, 3] -> [3, h, w]. */
static void tf_normalise(const nm_preprocess *p, const float *rgb, bool mirror, float *out)
{
    size_t w = (size_t)p->size_w, h = (size_t)p->size_h;
    for (int c = 0; c < 3; c++) {
        float mean = (float)((double)p->mean[c] * 255), std = (float)((double)p->std[c] * 255);
        for (size_t y = 0; y < h; y++)
            for (size_t x = 0; x < w; x++)
                *out++ = (rgb[3 * (y * w + (mirror ? w - 1 - x : x)) + (size_t)c] - mean) / std;
    }
}

noema_status nm_preprocess_run_window(const nm_preprocess *p, nm_preprocess_scratch *s, const nm_image *im, nm_rect window, bool mirror, float *out,
                                      noema_error *err)
{
    const float *rgb;
    noema_status st = tf_window(p, s, im, window, NM_TF2_HALF_PIXEL, &rgb, err);
    if (st == NOEMA_OK)
        tf_normalise(p, rgb, mirror, out);
    return st;
}

static noema_status tf_u8(const nm_preprocess *p, nm_preprocess_scratch *s, const nm_image *im, unsigned char *out, noema_error *err)
{
    const float *rgb;
    noema_status st = tf_window(p, s, im, centre_square(im->width, im->height), NM_TF1_LEGACY, &rgb, err);
    for (size_t i = 0, n = 3 * (size_t)p->size_w * (size_t)p->size_h; st == NOEMA_OK && i < n; i++)
        out[i] = (unsigned char)(rgb[i] < 0 ? 0 : rgb[i] > 255 ? 255 : lrintf(rgb[i]));
    return st;
}

noema_status nm_preprocess_run_u8(const nm_preprocess *p, nm_preprocess_scratch *s, const nm_image *im, unsigned char *out,
                                  noema_error *err)
{
    span sp[2] = { { 0 } };
    const nm_image *src;
    if (p->fit == NM_FIT_CROP_TF)
        return tf_u8(p, s, im, out, err);
    if (p->fit == NM_FIT_PAD)
        return run_padded(p, s, im, out, err);
    noema_status st = geometry(p, im->width, im->height, sp, err);
    if (st != NOEMA_OK)
        return st;
    nm_mode work = working_mode(p, im->mode, nm_image_has_alpha(im));
    st = set_plan(p, &s->plan, sp, work, im->width, im->height, err);
    if (st != NOEMA_OK)
        return st;
    bool resized = s->plan.pass[0] || s->plan.pass[1];
    st = prepare(p, s, im, work, resized, &src, err);
    if (st != NOEMA_OK)
        return st;
    bool padded = sp[0].n != sp[0].out || sp[1].n != sp[1].out;
    if (work == NM_MODE_RGB && !padded)
        return nm_resize_run(&s->plan, out, (size_t)sp[0].out * 3, src->data, src->stride, err);
    size_t stride = (size_t)sp[0].n * (size_t)nm_mode_bytes(work), size;
    if (!nm_mul_size(stride, (size_t)sp[1].n, &size) || !grow(&s->rows, &s->rows_cap, size + NM_IMAGE_PAD))
        return nm_fail(err, NOEMA_E_MEMORY, "preprocessing: no memory for %d x %d pixels", sp[0].n, sp[1].n);
    st = nm_resize_run(&s->plan, s->rows, stride, src->data, src->stride, err);
    if (st == NOEMA_OK)
        place(p, s, im, work, src == &s->source && resized && (work == NM_MODE_RGBA || work == NM_MODE_LA), sp, out);
    return st;
}

void nm_preprocess_lut(const nm_preprocess *p, float lut[3][256])
{
    for (int c = 0; c < 3; c++)
        for (int v = 0; v < 256; v++) {
            float x = p->scale == NM_SCALE_TORCH ? (float)v / 255.0f : (float)(v * p->rescale);
            if (p->normalise && p->scale == NM_SCALE_HF_FUSED) {
                float to255 = (float)(1.0 / p->rescale);
                x = ((float)v - p->mean[c] * to255) / (p->std[c] * to255);
            } else if (p->normalise) {
                x = (x - p->mean[c]) / p->std[c];
            }
            lut[c][v] = x;
        }
}

noema_status nm_preprocess_run(const nm_preprocess *p, nm_preprocess_scratch *s, const nm_image *im, float *out,
                               noema_error *err)
{
    int h, w;
    size_t n;
    noema_status st = nm_preprocess_size(p, im->width, im->height, &h, &w, err);
    if (st != NOEMA_OK)
        return st;
    if (p->fit == NM_FIT_CROP_TF) {
        const float *rgb;
        st = tf_window(p, s, im, centre_square(im->width, im->height), NM_TF1_LEGACY, &rgb, err);
        if (st == NOEMA_OK)
            tf_normalise(p, rgb, false, out);
        return st;
    }
    if (!nm_mul_size((size_t)h, (size_t)w, &n) || n > SIZE_MAX / 16 || !grow(&s->rgb, &s->rgb_cap, n * 3 + NM_IMAGE_PAD))
        return nm_fail(err, NOEMA_E_MEMORY, "preprocessing: no memory for %d x %d pixels", w, h);
    st = nm_preprocess_run_u8(p, s, im, s->rgb, err);
    if (st != NOEMA_OK)
        return st;
    if (memcmp(&s->lut_of, p, sizeof *p) != 0) {
        nm_preprocess_lut(p, s->lut);
        s->lut_of = *p;
    }
    const unsigned char *v = s->rgb;
    float *r = out, *g = out + n, *b = out + 2 * n;
    for (size_t i = 0; i < n; i++, v += 3) {
        r[i] = s->lut[0][v[0]];
        g[i] = s->lut[1][v[1]];
        b[i] = s->lut[2][v[2]];
    }
    return NOEMA_OK;
}

typedef struct window_arg { const nm_preprocess *p; nm_resize_plan *plan; } window_arg;

/* The decoder asks what is needed once it knows mode and size. A decoder that calls this gives no transparency. */
static void window(void *arg, nm_mode mode, int width, int height, nm_rect *need)
{
    window_arg *a = arg;
    noema_error ignored = NOEMA_ERROR_INIT;
    span sp[2] = { { 0 } };
    if (a->p->fit == NM_FIT_CROP_TF)
        *need = centre_square(width, height);
    else if (a->p->fit != NM_FIT_PAD && geometry(a->p, width, height, sp, &ignored) == NOEMA_OK &&
        set_plan(a->p, a->plan, sp, working_mode(a->p, mode, false), width, height, &ignored) == NOEMA_OK)
        *need = a->plan->need;
}

noema_status nm_preprocess_load(const nm_preprocess *p, nm_preprocess_scratch *s, const char *path, const nm_image_options *o,
                                const nm_image **im, noema_error *err)
{
    window_arg a = { p, &s->plan };
    nm_image_options opt = o ? *o : (nm_image_options){ 0 };
    opt.window = window;
    opt.window_arg = &a;
    *im = &s->decoded;
    return nm_image_open(&s->decoded, path, &opt, err);
}

noema_status nm_preprocess_load_bytes(const nm_preprocess *p, nm_preprocess_scratch *s, const void *bytes, size_t n,
                                      const char *name, const nm_image_options *o, const nm_image **im, noema_error *err)
{
    window_arg a = { p, &s->plan };
    nm_image_options opt = o ? *o : (nm_image_options){ 0 };
    opt.window = window;
    opt.window_arg = &a;
    *im = &s->decoded;
    return nm_image_decode(&s->decoded, bytes, n, name, &opt, err);
}

int nm_preprocess_identity(const nm_preprocess *p, char text[512])
{
    static const char *const fit[] = { "none", "shortest", "longest", "squash", "crop-tf1", "pad" };
    static const char *const order[] = { "own-mode", "rgb-first", "rgb-on-white" };
    static const char *const crop[] = { "half-even", "floor" };
    static const char *const scale[] = { "torch", "hf", "hf-fused" };
    int n = snprintf(text, 512, "resize=%s:%dx%d:%d:%s;order=%s;crop=%s;fill=%d;scale=%s", fit[p->fit], p->size_h, p->size_w,
                     p->edge, nm_filter_name(p->filter), order[p->order], crop[p->crop], p->fill, scale[p->scale]);
    if (p->squash_h)
        n += snprintf(text + n, 512 - (size_t)n, ";squash=%dx%d", p->squash_h, p->squash_w);
    if (p->scale != NM_SCALE_TORCH)
        n += snprintf(text + n, 512 - (size_t)n, ":%.17g", p->rescale);
    if (p->normalise)
        n += snprintf(text + n, 512 - (size_t)n, ";mean=%.9g,%.9g,%.9g;std=%.9g,%.9g,%.9g", p->mean[0], p->mean[1], p->mean[2],
                      p->std[0], p->std[1], p->std[2]);
    return n;
}
