/* augment.c - see augment.h. Colours are adjusted as Pillow does it (ImageEnhance, convert("HSV")), on u8 between resize and normalisation. */
#define _GNU_SOURCE
#include "train/augment.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

void nm_augment_default(nm_augment *a) { *a = (nm_augment){ .scale = { 0.9, 1.0 }, .ratio = { 3.0 / 4, 4.0 / 3 } }; }

/* ---- options ---- */

/* Up to n numbers separated by commas; returns how many, 0: none or too many. */
static int numbers(const char *text, double *out, int n)
{
    for (int k = 0; k < n; k++) {
        char *end;
        out[k] = strtod(text, &end);
        if (end == text || !isfinite(out[k]))
            return 0;
        if (*end == 0)
            return k + 1;
        if (*end != ',')
            return 0;
        text = end + 1;
    }
    return 0;
}

static bool probability(double x) { return x >= 0 && x <= 1; }

static bool set(nm_augment *a, const char *key, const char *value)
{
    double v[4];
    int n = numbers(value, v, 4);
    if (n == 2 && strcmp(key, "scale") == 0 && v[0] > 0 && v[0] <= v[1] && v[1] <= 1)
        memcpy(a->scale, v, sizeof a->scale);
    else if (n == 2 && strcmp(key, "ratio") == 0 && v[0] > 0 && v[0] <= v[1] && v[1] <= 100)
        memcpy(a->ratio, v, sizeof a->ratio);
    else if (n == 4 && strcmp(key, "color_jitter") == 0 && v[0] >= 0 && v[1] >= 0 && v[2] >= 0 && v[3] >= 0 && v[3] <= 0.5)
        memcpy(a->jitter, v, sizeof a->jitter);
    else if (n == 1 && strcmp(key, "color_jitter_prob") == 0 && probability(v[0]))
        a->jitter_prob = v[0];
    else if (n == 1 && strcmp(key, "gray_scale_prob") == 0 && probability(v[0]))
        a->gray_prob = v[0];
    else if (n == 1 && strcmp(key, "hflip") == 0 && probability(v[0]))
        a->hflip = v[0];
    else if (n == 1 && strcmp(key, "pad_crop") == 0 && v[0] >= 0 && v[0] <= 64 && v[0] == floor(v[0]))
        a->pad_crop = (int)v[0];
    else
        return false;
    return true;
}

noema_status nm_augment_parse(nm_augment *a, const char *text, noema_error *err)
{
    char *copy = nm_strdup(text), *rest = NULL;
    noema_status s = copy ? NOEMA_OK : nm_fail(err, NOEMA_E_MEMORY, "out of memory: augmentation");
    for (char *item = copy ? strtok_r(copy, " ;\t", &rest) : NULL; item && s == NOEMA_OK; item = strtok_r(NULL, " ;\t", &rest)) {
        char *eq = strchr(item, '=');
        if (eq)
            *eq = 0;
        if (!eq || !set(a, item, eq + 1))
            s = nm_fail(err, NOEMA_E_ARGUMENT, "augmentation \"%s%s%s\": expected scale=LO,HI (0..1), ratio=LO,HI, color_jitter=B,C,S,H, color_jitter_prob=P, "
                                               "gray_scale_prob=P, hflip=P or pad_crop=PIXELS", item, eq ? "=" : "", eq ? eq + 1 : "");
    }
    if (s == NOEMA_OK && a->jitter_prob > 0 && a->jitter[0] + a->jitter[1] + a->jitter[2] + a->jitter[3] == 0)
        s = nm_fail(err, NOEMA_E_ARGUMENT, "color_jitter_prob needs color_jitter=BRIGHTNESS,CONTRAST,SATURATION,HUE");
    free(copy);
    return s;
}

/* ---- geometry ---- */

/* The drawn part of torchvision's RandomResizedCrop.get_params. */
bool nm_augment_crop(const nm_augment *a, nm_rng *r, int width, int height, nm_rect *crop)
{
    double area = (double)width * height, lo = log(a->ratio[0]), hi = log(a->ratio[1]);
    for (int i = 0; i < 10; i++) {
        double target = area * (a->scale[0] + (a->scale[1] - a->scale[0]) * (double)nm_rng_uniform(r));
        double ratio = exp(lo + (hi - lo) * (double)nm_rng_uniform(r));
        int w = (int)lround(sqrt(target * ratio)), h = (int)lround(sqrt(target / ratio));
        if (w > 0 && w <= width && h > 0 && h <= height) {
            int y = (int)nm_rng_below(r, (uint64_t)(height - h) + 1), x = (int)nm_rng_below(r, (uint64_t)(width - w) + 1);
            *crop = (nm_rect){ x, y, x + w, y + h };
            return true;
        }
    }
    return false;
}

static nm_rect random_crop(const nm_augment *a, nm_rng *r, int width, int height)
{
    nm_rect crop;
    if (nm_augment_crop(a, r, width, height, &crop))
        return crop;
    double in = (double)width / height;
    int w = width, h = height;
    if (in < a->ratio[0])
        h = (int)lround(w / a->ratio[0]);
    else if (in > a->ratio[1])
        w = (int)lround(h * a->ratio[1]);
    h = h < 1 ? 1 : h > height ? height : h;
    w = w < 1 ? 1 : w > width ? width : w;
    int x = (width - w) / 2, y = (height - h) / 2;
    return (nm_rect){ x, y, x + w, y + h };
}

static noema_status crop_image(nm_image *dst, const nm_image *src, nm_rect c, noema_error *err)
{
    noema_status s = nm_image_reset(dst, src->mode, c.x1 - c.x0, c.y1 - c.y0, err);
    size_t px = (size_t)nm_mode_bytes(src->mode);
    if (s != NOEMA_OK)
        return s;
    memcpy(dst->palette, src->palette, sizeof dst->palette);
    memcpy(dst->key, src->key, sizeof dst->key);
    dst->n_palette = src->n_palette;
    dst->has_trns = src->has_trns;
    for (int y = c.y0; y < c.y1; y++)
        memcpy(dst->data + (size_t)(y - c.y0) * dst->stride, src->data + (size_t)y * src->stride + (size_t)c.x0 * px, (size_t)(c.x1 - c.x0) * px);
    return NOEMA_OK;
}

/* in [h, w, 3] -> out of the same size, moved by (dx, dy) pixels; black comes in. */
static void shift(unsigned char *out, const unsigned char *in, int w, int h, int dx, int dy)
{
    memset(out, 0, (size_t)w * (size_t)h * 3);
    int x0 = dx > 0 ? dx : 0, x1 = dx < 0 ? w + dx : w;
    for (int y = dy > 0 ? dy : 0; y < (dy < 0 ? h + dy : h) && x1 > x0; y++)
        memcpy(out + ((size_t)y * (size_t)w + (size_t)x0) * 3, in + ((size_t)(y - dy) * (size_t)w + (size_t)(x0 - dx)) * 3, (size_t)(x1 - x0) * 3);
}

static void mirror(unsigned char *rgb, int w, int h)
{
    for (int y = 0; y < h; y++) {
        unsigned char *row = rgb + (size_t)y * (size_t)w * 3, t;
        for (int a = 0, b = w - 1; a < b; a++, b--)
            for (int k = 0; k < 3; k++)
                t = row[3 * a + k], row[3 * a + k] = row[3 * b + k], row[3 * b + k] = t;
    }
}

/* ---- colours ---- */

static unsigned char luma(const unsigned char *p) { return (unsigned char)((p[0] * 19595u + p[1] * 38470u + p[2] * 7471u + 0x8000u) >> 16); }

/* Pillow's Image.blend(from, to, factor), in f32 and cut to whole numbers. */
static unsigned char blend(int from, int to, float factor)
{
    float v = (float)from + factor * (float)(to - from);
    return v <= 0 ? 0 : v >= 255 ? 255 : (unsigned char)v;
}

void nm_adjust_brightness(unsigned char *rgb, size_t n, double factor)
{
    for (size_t i = 0; i < 3 * n; i++)
        rgb[i] = blend(0, rgb[i], (float)factor);
}

void nm_adjust_contrast(unsigned char *rgb, size_t n, double factor)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += luma(rgb + 3 * i);
    int mean = n ? (int)((double)sum / (double)n + 0.5) : 0;
    for (size_t i = 0; i < 3 * n; i++)
        rgb[i] = blend(mean, rgb[i], (float)factor);
}

void nm_adjust_saturation(unsigned char *rgb, size_t n, double factor)
{
    for (size_t i = 0; i < n; i++) {
        int grey = luma(rgb + 3 * i);
        for (int k = 0; k < 3; k++)
            rgb[3 * i + (size_t)k] = blend(grey, rgb[3 * i + (size_t)k], (float)factor);
    }
}

void nm_to_gray(unsigned char *rgb, size_t n)
{
    for (size_t i = 0; i < n; i++)
        rgb[3 * i] = rgb[3 * i + 1] = rgb[3 * i + 2] = luma(rgb + 3 * i);
}

static unsigned char clip8(int v) { return v < 0 ? 0 : v > 255 ? 255 : (unsigned char)v; }

static void to_hsv(const unsigned char *p, unsigned char hsv[3])
{
    int r = p[0], g = p[1], b = p[2], most = r > g ? (r > b ? r : b) : (g > b ? g : b), least = r < g ? (r < b ? r : b) : (g < b ? g : b);
    hsv[0] = hsv[1] = 0;
    hsv[2] = (unsigned char)most;
    if (most == least)
        return;
    float range = (float)(most - least), s = range / (float)most, h;
    float rc = (float)(most - r) / range, gc = (float)(most - g) / range, bc = (float)(most - b) / range;
    if (r == most)
        h = bc - gc;
    else if (g == most)
        h = (float)(2.0 + (double)rc - (double)bc);
    else
        h = (float)(4.0 + (double)gc - (double)rc);
    h = (float)fmod((double)h / 6.0 + 1.0, 1.0);
    hsv[0] = clip8((int)((double)h * 255.0));
    hsv[1] = clip8((int)((double)s * 255.0));
}

static void to_rgb(const unsigned char hsv[3], unsigned char *p)
{
    int v = hsv[2];
    if (hsv[1] == 0) {
        p[0] = p[1] = p[2] = (unsigned char)v;
        return;
    }
    double sixth = (double)(float)hsv[0] * 6.0 / 255.0;
    int i = (int)floor(sixth);
    float f = (float)(sixth - (double)(float)i), fs = (float)((double)(float)hsv[1] / 255.0);
    unsigned char a = clip8((int)round((double)v * (1.0 - (double)fs))), b = clip8((int)round((double)v * (1.0 - (double)fs * (double)f)));
    unsigned char c = clip8((int)round((double)v * (1.0 - (double)fs * (1.0 - (double)f)))), w = (unsigned char)v;
    const unsigned char out[6][3] = { { w, c, a }, { b, w, a }, { a, w, c }, { a, b, w }, { c, a, w }, { w, a, b } };
    memcpy(p, out[i % 6], 3);
}

void nm_adjust_hue(unsigned char *rgb, size_t n, double turn)
{
    unsigned char add = (unsigned char)(int)(turn * 255);
    for (size_t i = 0; i < n; i++) {
        unsigned char hsv[3];
        to_hsv(rgb + 3 * i, hsv);
        hsv[0] = (unsigned char)(hsv[0] + add);
        to_rgb(hsv, rgb + 3 * i);
    }
}

static double between(nm_rng *r, double lo, double hi) { return lo + (hi - lo) * (double)nm_rng_uniform(r); }

/* torchvision's ColorJitter: four factors, applied in a drawn order. */
static void jitter(const nm_augment *a, nm_rng *r, unsigned char *rgb, size_t n)
{
    int order[4] = { 0, 1, 2, 3 };
    double factor[4];
    for (int i = 3; i > 0; i--) {
        int k = (int)nm_rng_below(r, (uint64_t)i + 1), t = order[i];
        order[i] = order[k];
        order[k] = t;
    }
    for (int k = 0; k < 3; k++)
        factor[k] = between(r, a->jitter[k] < 1 ? 1 - a->jitter[k] : 0, 1 + a->jitter[k]);
    factor[3] = between(r, -a->jitter[3], a->jitter[3]);
    void (*const adjust[4])(unsigned char *, size_t, double) = { nm_adjust_brightness, nm_adjust_contrast, nm_adjust_saturation, nm_adjust_hue };
    for (int i = 0; i < 4; i++)
        if (a->jitter[order[i]] > 0)
            adjust[order[i]](rgb, n, factor[order[i]]);
}

/* ---- all of it ---- */

static noema_status reserve(nm_augment_scratch *s, size_t bytes, noema_error *err)
{
    if (bytes > s->cap) {
        free(s->pixels);
        s->pixels = malloc(bytes);
        s->cap = s->pixels ? bytes : 0;
    }
    return s->pixels ? NOEMA_OK : nm_fail(err, NOEMA_E_MEMORY, "out of memory: augmentation");
}

static void normalise(const nm_preprocess *rule, const unsigned char *rgb, size_t n, float *out)
{
    float lut[3][256];
    nm_preprocess_lut(rule, lut);
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < 3; k++)
            out[k * n + i] = lut[k][rgb[3 * i + k]];
}

noema_status nm_augment_run(const nm_augment *a, const nm_preprocess *rule, nm_preprocess_scratch *p, nm_augment_scratch *s, const nm_image *picture,
                            nm_rng *r, float *out, noema_error *err)
{
    nm_preprocess squash = *rule;
    const nm_image *from = picture;
    noema_status st = NOEMA_OK;
    squash.fit = NM_FIT_SQUASH;
    squash.squash_h = squash.squash_w = 0;
    squash.filter = NM_BICUBIC; /* open_clip, whatever the evaluation's filter is */
    if (!a->pad_crop) {
        st = crop_image(&s->crop, picture, random_crop(a, r, picture->width, picture->height), err);
        from = &s->crop;
    }
    if (st != NOEMA_OK)
        return st;
    if (!a->pad_crop && !(a->hflip > 0) && !(a->jitter_prob > 0) && !(a->gray_prob > 0))
        return nm_preprocess_run(&squash, p, from, out, err);
    int h = squash.size_h, w = squash.size_w;
    size_t n = (size_t)h * (size_t)w;
    if ((st = reserve(s, 6 * n, err)) != NOEMA_OK)
        return st;
    unsigned char *rgb = s->pixels;
    if ((st = nm_preprocess_run_u8(&squash, p, from, rgb, err)) != NOEMA_OK)
        return st;
    if (a->pad_crop) {
        int dx = (int)nm_rng_below(r, 2 * (uint64_t)a->pad_crop + 1) - a->pad_crop, dy = (int)nm_rng_below(r, 2 * (uint64_t)a->pad_crop + 1) - a->pad_crop;
        shift(s->pixels + 3 * n, rgb, w, h, dx, dy);
        rgb += 3 * n;
    }
    if (a->hflip > 0 && (double)nm_rng_uniform(r) < a->hflip)
        mirror(rgb, w, h);
    if (a->jitter_prob > 0 && (double)nm_rng_uniform(r) < a->jitter_prob)
        jitter(a, r, rgb, n);
    if (a->gray_prob > 0 && (double)nm_rng_uniform(r) < a->gray_prob)
        nm_to_gray(rgb, n);
    normalise(&squash, rgb, n, out);
    return NOEMA_OK;
}

void nm_augment_scratch_free(nm_augment_scratch *s)
{
    nm_image_free(&s->crop);
    free(s->pixels);
    *s = (nm_augment_scratch){ 0 };
}
