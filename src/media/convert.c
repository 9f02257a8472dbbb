/* convert.c - from the modes of files to RGB and RGBA, with the integer arithmetic of Pillow (libImaging/Convert.c,
 * AlphaComposite.c, Geometry for the EXIF turns). */
#include <string.h>

#include "base/mem.h"
#include "media/image.h"

static inline unsigned muldiv255(unsigned a, unsigned b)
{
    unsigned t = a * b + 128;
    return ((t >> 8) + t) >> 8;
}

static void cmyk_to_rgb(unsigned char *d, const unsigned char *s, int n)
{
    for (int i = 0; i < n; i++, d += 3, s += 4) {
        int nk = 255 - s[3];
        for (int c = 0; c < 3; c++) {
            int v = nk - (int)muldiv255(s[c], (unsigned)nk);
            d[c] = (unsigned char)(v < 0 ? 0 : v);
        }
    }
}

void nm_row_to_rgb(unsigned char *d, const nm_image *im, int y, int x0, int n)
{
    const unsigned char *s = im->data + (size_t)y * im->stride + (size_t)x0 * (size_t)nm_mode_bytes(im->mode);
    switch (im->mode) {
    case NM_MODE_RGB: memcpy(d, s, (size_t)n * 3); break;
    case NM_MODE_1:
    case NM_MODE_L:
        for (int i = 0; i < n; i++, d += 3)
            d[0] = d[1] = d[2] = s[i];
        break;
    case NM_MODE_LA:
        for (int i = 0; i < n; i++, d += 3)
            d[0] = d[1] = d[2] = s[2 * i];
        break;
    case NM_MODE_I16: /* clipped, not shifted: ordinary 16-bit pictures come out almost white, as in Pillow */
        for (int i = 0; i < n; i++, d += 3) {
            uint16_t v;
            memcpy(&v, s + 2 * i, 2);
            d[0] = d[1] = d[2] = (unsigned char)(v > 255 ? 255 : v);
        }
        break;
    case NM_MODE_P:
        for (int i = 0; i < n; i++, d += 3)
            memcpy(d, im->palette[s[i]], 3);
        break;
    case NM_MODE_RGBA:
        for (int i = 0; i < n; i++, d += 3, s += 4)
            d[0] = s[0], d[1] = s[1], d[2] = s[2];
        break;
    case NM_MODE_CMYK: cmyk_to_rgb(d, s, n); break;
    default: break;
    }
}

bool nm_image_has_alpha(const nm_image *im)
{
    return im->mode == NM_MODE_LA || im->mode == NM_MODE_RGBA || im->has_trns;
}

void nm_row_to_rgba(unsigned char *d, const nm_image *im, int y, int x0, int n)
{
    const unsigned char *s = im->data + (size_t)y * im->stride + (size_t)x0 * (size_t)nm_mode_bytes(im->mode);
    if (im->mode == NM_MODE_RGBA) {
        memcpy(d, s, (size_t)n * 4);
        return;
    }
    if (im->mode == NM_MODE_P) {
        for (int i = 0; i < n; i++, d += 4) {
            memcpy(d, im->palette[s[i]], 4);
            if (!im->has_trns)
                d[3] = 255;
        }
        return;
    }
    for (int i = 0; i < n; i++, d += 4) {
        nm_row_to_rgb(d, im, y, x0 + i, 1);
        d[3] = im->mode == NM_MODE_LA ? s[2 * i + 1] : 255;
        if (!im->has_trns)
            continue;
        /* Pillow compares the low byte of each key sample with the 8-bit sample, also where the file had 16 bits */
        unsigned char k0 = (unsigned char)im->key[0], k1 = (unsigned char)im->key[1], k2 = (unsigned char)im->key[2];
        bool grey = im->mode != NM_MODE_RGB;
        if (d[0] == k0 && (grey || (d[1] == k1 && d[2] == k2)))
            d[3] = 0;
    }
}

/* AlphaComposite.c over an opaque white pixel: 7 extra bits of precision. */
void nm_row_on_white(unsigned char *d, const nm_image *im, int y, int x0, int n)
{
    if (!nm_image_has_alpha(im)) {
        nm_row_to_rgb(d, im, y, x0, n);
        return;
    }
    for (int i = 0; i < n; i++, d += 3) {
        unsigned char s[4];
        nm_row_to_rgba(s, im, y, x0 + i, 1);
        unsigned coef1 = s[3] * 128u, coef2 = 255u * 128u - coef1;
        for (int c = 0; c < 3; c++) {
            unsigned t = s[c] * coef1 + 255u * coef2 + (0x80u << 7);
            d[c] = s[3] ? (unsigned char)((((t >> 8) + t) >> 8) >> 7) : 255;
        }
    }
}

typedef void row_fn(unsigned char *d, const nm_image *im, int y, int x0, int n);

static noema_status convert(nm_image *dst, const nm_image *src, nm_mode mode, row_fn *row, noema_error *err)
{
    noema_status s = nm_image_reset(dst, mode, src->width, src->height, err);
    if (s != NOEMA_OK)
        return s;
    for (int y = 0; y < src->height; y++)
        row(dst->data + (size_t)y * dst->stride, src, y, 0, src->width);
    dst->orientation = src->orientation;
    dst->format = src->format;
    return NOEMA_OK;
}

noema_status nm_image_to_rgb(nm_image *dst, const nm_image *src, noema_error *err)
{
    return convert(dst, src, NM_MODE_RGB, nm_row_to_rgb, err);
}

noema_status nm_image_to_rgba(nm_image *dst, const nm_image *src, noema_error *err)
{
    return convert(dst, src, NM_MODE_RGBA, nm_row_to_rgba, err);
}

noema_status nm_image_on_white(nm_image *dst, const nm_image *src, noema_error *err)
{
    return convert(dst, src, NM_MODE_RGB, nm_row_on_white, err);
}

/* Orientation o: 1 as is, 2 mirrored, 3 half turn, 4 flipped, 5 transposed, 6 needs a quarter turn clockwise, 7 transversed,
 * 8 needs one counter-clockwise. */
noema_status nm_image_transpose(nm_image *im, int o, noema_error *err)
{
    if (o < 2 || o > 8)
        return NOEMA_OK;
    nm_image t = { 0 };
    int w = im->width, h = im->height, b = nm_mode_bytes(im->mode);
    bool swap = o >= 5;
    noema_status s = nm_image_reset(&t, im->mode, swap ? h : w, swap ? w : h, err);
    if (s != NOEMA_OK)
        return s;
    for (int y = 0; y < t.height; y++)
        for (int x = 0; x < t.width; x++) {
            int sx = swap ? y : x, sy = swap ? x : y;
            if (o == 2 || o == 3 || o == 7 || o == 8)
                sx = w - 1 - sx;
            if (o == 3 || o == 4 || o == 6 || o == 7)
                sy = h - 1 - sy;
            memcpy(t.data + (size_t)y * t.stride + (size_t)x * (size_t)b, im->data + (size_t)sy * im->stride + (size_t)sx * (size_t)b,
                   (size_t)b);
        }
    nm_free(im->data);
    im->data = t.data;
    im->cap = t.cap;
    im->width = t.width;
    im->height = t.height;
    im->stride = t.stride;
    im->orientation = 1;
    return NOEMA_OK;
}
