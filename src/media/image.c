/* image.c - finding the decoder, limits before allocation, memory of images, EXIF orientation. */
#include "media/image.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "media/format.h"

static const nm_image_format *const formats[] = {
    &nm_format_jpeg, &nm_format_png, &nm_format_webp, &nm_format_gif, &nm_format_bmp, &nm_format_tiff,
    &nm_format_avif, &nm_format_heif, &nm_format_pnm,
};

int nm_mode_bytes(nm_mode mode)
{
    static const signed char bytes[NM_MODES] = { 0, 1, 1, 2, 1, 2, 3, 4, 4 };
    return bytes[mode];
}

const char *nm_mode_name(nm_mode mode)
{
    static const char *const name[NM_MODES] = { "none", "1", "L", "LA", "P", "I;16", "RGB", "RGBA", "CMYK" };
    return name[mode];
}

void nm_image_free(nm_image *im)
{
    if (!im)
        return;
    nm_free(im->data);
    memset(im, 0, sizeof *im);
}

noema_status nm_image_reset(nm_image *im, nm_mode mode, int width, int height, noema_error *err)
{
    size_t stride, size, total;
    if (width <= 0 || height <= 0 || !nm_mul_size((size_t)width, (size_t)nm_mode_bytes(mode), &stride) ||
        !nm_mul_size(stride, (size_t)height, &size) || !nm_add_size(size, NM_IMAGE_PAD, &total))
        return nm_fail(err, NOEMA_E_ARGUMENT, "image: bad size %d x %d", width, height);
    if (total > im->cap) {
        nm_free(im->data);
        im->cap = 0;
        im->data = nm_alloc(total);
        if (!im->data) {
            im->mode = NM_MODE_NONE;
            return nm_fail(err, NOEMA_E_MEMORY, "image: no memory for %d x %d pixels (%zu bytes)", width, height, total);
        }
        im->cap = total;
    }
    memset(im->data + size, 0, NM_IMAGE_PAD);
    im->mode = mode;
    im->width = width;
    im->height = height;
    im->stride = stride;
    im->n_palette = 0;
    im->has_trns = false;
    im->orientation = 1;
    return NOEMA_OK;
}

noema_status nm_image_bad(const nm_image_in *in, const char *format, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return nm_fail(in->err, NOEMA_E_FORMAT, "%s: %s: %s", in->name, format, text);
}

noema_status nm_image_check_size(const nm_image_in *in, int64_t width, int64_t height)
{
    if (width <= 0 || height <= 0)
        return nm_fail(in->err, NOEMA_E_FORMAT, "%s: expected a width and height of at least 1, got %lld x %lld", in->name,
                       (long long)width, (long long)height);
    if (width > INT32_MAX / 8 || height > INT32_MAX / 8 || (uint64_t)width * (uint64_t)height > in->o.max_pixels)
        return nm_fail(in->err, NOEMA_E_LIMIT, "%s: expected at most %llu pixels, got %lld x %lld", in->name,
                       (unsigned long long)in->o.max_pixels, (long long)width, (long long)height);
    return NOEMA_OK;
}

noema_status nm_image_begin(nm_image *im, const nm_image_in *in, nm_mode mode, int64_t width, int64_t height)
{
    noema_status s = nm_image_check_size(in, width, height);
    if (s == NOEMA_OK)
        s = nm_image_reset(im, mode, (int)width, (int)height, in->err);
    return s;
}

static const nm_image_format *find_format(const unsigned char *p, size_t n)
{
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (formats[i]->probe(p, n))
            return formats[i];
    return NULL;
}

const char *nm_image_sniff(const void *bytes, size_t n)
{
    const nm_image_format *f = find_format(bytes, n);
    return f ? f->name : NULL;
}

noema_status nm_image_decode(nm_image *im, const void *bytes, size_t n, const char *name, const nm_image_options *o,
                             noema_error *err)
{
    nm_image_in in = { bytes, n, name ? name : "(memory)", { 0 }, err };
    if (o)
        in.o = *o;
    if (!in.o.max_pixels)
        in.o.max_pixels = NM_IMAGE_MAX_PIXELS;
    if (in.o.apply_orientation)
        in.o.window = NULL; /* the window is in turned coordinates: decode everything */
    im->mode = NM_MODE_NONE;
    const nm_image_format *f = n ? find_format(bytes, n) : NULL;
    if (!f) {
        char start[4 * 8 + 1] = "";
        for (size_t i = 0; i < n && i < 8; i++)
            snprintf(start + 3 * i, 4, "%02x ", ((const unsigned char *)bytes)[i]);
        return nm_fail(err, NOEMA_E_FORMAT, "%s: not an image: expected JPEG, PNG, WebP, GIF, BMP, TIFF, PNM, AVIF or HEIC, "
                       "got %s%s", in.name, n ? "bytes " : "an empty file", start);
    }
    noema_status s = f->decode(im, &in);
    im->format = f->name;
    if (s == NOEMA_OK && in.o.apply_orientation && im->orientation != 1)
        s = nm_image_transpose(im, im->orientation, err);
    if (s != NOEMA_OK)
        im->mode = NM_MODE_NONE;
    return s;
}

noema_status nm_image_open(nm_image *im, const char *path, const nm_image_options *o, noema_error *err)
{
    nm_map m;
    im->mode = NM_MODE_NONE;
    noema_status s = nm_map_file(&m, path, err);
    if (s != NOEMA_OK)
        return s;
    s = nm_image_decode(im, m.data, m.size, path, o, err);
    nm_unmap(&m);
    return s;
}

/* TIFF header, then IFD0: count, 12-byte entries (tag, type, n, value). Tag 0x0112 is a SHORT. */
int nm_exif_orientation(const unsigned char *p, size_t n)
{
    if (n < 8 || !((p[0] == 'I' && p[1] == 'I') || (p[0] == 'M' && p[1] == 'M')))
        return 1;
    bool be = p[0] == 'M';
    uint32_t at = be ? nm_be32(p + 4) : nm_le32(p + 4);
    if (at > n || n - at < 2)
        return 1;
    uint32_t count = be ? nm_be16(p + at) : nm_le16(p + at);
    for (uint32_t i = 0; i < count; i++) {
        size_t e = (size_t)at + 2 + (size_t)i * 12;
        if (e > n || n - e < 12)
            return 1;
        if ((be ? nm_be16(p + e) : nm_le16(p + e)) != 0x0112)
            continue;
        uint32_t v = be ? nm_be16(p + e + 8) : nm_le16(p + e + 8);
        return v >= 1 && v <= 8 ? (int)v : 1;
    }
    return 1;
}
