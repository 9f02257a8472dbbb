/* write.c - see write.h; libpng and libjpeg-turbo write into a growing buffer. */
#include "media/write.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>
#include <png.h>

#include "base/file.h"
#include "media/resize.h"

typedef struct png_out { nm_buf *out; char message[120]; } png_out;

static void png_fail(png_structp png, png_const_charp text)
{
    png_out *o = png_get_error_ptr(png);
    snprintf(o->message, sizeof o->message, "%s", text);
    png_longjmp(png, 1);
}

static void png_warn(png_structp png, png_const_charp text) { (void)png, (void)text; }

static void png_put(png_structp png, png_bytep p, size_t n)
{
    png_out *o = png_get_io_ptr(png);
    if (!nm_buf_append(o->out, p, n))
        png_error(png, "out of memory");
}

static void png_flush_nothing(png_structp png) { (void)png; }

static bool png_run(png_structp png, png_infop info, const nm_image *im, int type)
{
    if (setjmp(png_jmpbuf(png)))
        return false;
    png_set_IHDR(png, info, (png_uint_32)im->width, (png_uint_32)im->height, 8, type, PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT,
                 PNG_FILTER_TYPE_DEFAULT);
    png_set_user_limits(png, 0x7FFFFFFF, 0x7FFFFFFF);
    png_write_info(png, info);
    for (int y = 0; y < im->height; y++)
        png_write_row(png, im->data + (size_t)y * im->stride);
    png_write_end(png, info);
    return true;
}

noema_status nm_png_encode(nm_buf *out, const nm_image *im, noema_error *err)
{
    static const signed char types[NM_MODES] = { [NM_MODE_L] = PNG_COLOR_TYPE_GRAY + 1, [NM_MODE_LA] = PNG_COLOR_TYPE_GRAY_ALPHA + 1,
                                                 [NM_MODE_RGB] = PNG_COLOR_TYPE_RGB + 1, [NM_MODE_RGBA] = PNG_COLOR_TYPE_RGB_ALPHA + 1 };
    nm_image other = { 0 };
    png_out o = { out, "" };
    if (!types[im->mode] || im->has_trns) {
        noema_status s = nm_image_has_alpha(im) ? nm_image_to_rgba(&other, im, err) : nm_image_to_rgb(&other, im, err);
        if (s != NOEMA_OK)
            return s;
        im = &other;
    }
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &o, png_fail, png_warn);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    bool ok = false;
    if (info) {
        png_set_write_fn(png, &o, png_put, png_flush_nothing);
        ok = png_run(png, info, im, types[im->mode] - 1);
    }
    png_destroy_write_struct(&png, &info);
    nm_image_free(&other);
    return ok ? NOEMA_OK : nm_fail(err, NOEMA_E_MEMORY, "PNG: cannot write: %s", o.message[0] ? o.message : "out of memory");
}

typedef struct jpeg_out {
    struct jpeg_compress_struct c;
    struct jpeg_error_mgr errors;
    struct jpeg_destination_mgr dest;
    jmp_buf on_error;
    nm_buf *out;
    char message[JMSG_LENGTH_MAX];
    unsigned char block[16384];
} jpeg_out;

static void jpeg_fail(j_common_ptr c)
{
    jpeg_out *o = (jpeg_out *)(void *)((char *)c->err - offsetof(jpeg_out, errors));
    c->err->format_message(c, o->message);
    longjmp(o->on_error, 1);
}

static void jpeg_quiet(j_common_ptr c) { (void)c; }

static jpeg_out *out_of(j_compress_ptr c) { return (jpeg_out *)(void *)((char *)c->dest - offsetof(jpeg_out, dest)); }

static void dest_init(j_compress_ptr c)
{
    jpeg_out *o = out_of(c);
    o->dest.next_output_byte = o->block;
    o->dest.free_in_buffer = sizeof o->block;
}

static boolean dest_empty(j_compress_ptr c)
{
    nm_buf_append(out_of(c)->out, out_of(c)->block, sizeof out_of(c)->block);
    dest_init(c);
    return TRUE;
}

static void dest_term(j_compress_ptr c)
{
    nm_buf_append(out_of(c)->out, out_of(c)->block, sizeof out_of(c)->block - out_of(c)->dest.free_in_buffer);
}

static bool jpeg_run(jpeg_out *o, const nm_image *im, int quality)
{
    if (setjmp(o->on_error))
        return false;
    jpeg_create_compress(&o->c);
    o->c.dest = &o->dest;
    o->c.image_width = (JDIMENSION)im->width;
    o->c.image_height = (JDIMENSION)im->height;
    o->c.input_components = nm_mode_bytes(im->mode);
    o->c.in_color_space = im->mode == NM_MODE_L ? JCS_GRAYSCALE : JCS_RGB;
    jpeg_set_defaults(&o->c);
    jpeg_set_quality(&o->c, quality < 1 ? 1 : quality > 100 ? 100 : quality, TRUE);
    o->c.optimize_coding = TRUE;
    jpeg_start_compress(&o->c, TRUE);
    while (o->c.next_scanline < o->c.image_height) {
        JSAMPROW row = im->data + (size_t)o->c.next_scanline * im->stride;
        jpeg_write_scanlines(&o->c, &row, 1);
    }
    jpeg_finish_compress(&o->c);
    return true;
}

noema_status nm_jpeg_encode(nm_buf *out, const nm_image *im, int quality, noema_error *err)
{
    nm_image other = { 0 };
    if ((im->mode != NM_MODE_RGB && im->mode != NM_MODE_L) || im->has_trns) {
        noema_status s = nm_image_on_white(&other, im, err);
        if (s != NOEMA_OK)
            return s;
        im = &other;
    }
    jpeg_out *o = calloc(1, sizeof *o);
    if (!o) {
        nm_image_free(&other);
        return nm_fail(err, NOEMA_E_MEMORY, "JPEG: out of memory");
    }
    o->out = out;
    o->c.err = jpeg_std_error(&o->errors);
    o->errors.error_exit = jpeg_fail;
    o->errors.output_message = jpeg_quiet;
    o->dest.init_destination = dest_init;
    o->dest.empty_output_buffer = dest_empty;
    o->dest.term_destination = dest_term;
    bool ok = jpeg_run(o, im, quality) && !out->failed;
    noema_status s = ok ? NOEMA_OK : nm_fail(err, NOEMA_E_LIMIT, "JPEG: cannot write %d x %d pixels: %s", im->width, im->height,
                                             out->failed ? "out of memory" : o->message);
    jpeg_destroy_compress(&o->c);
    free(o);
    nm_image_free(&other);
    return s;
}

noema_status nm_image_write(const char *path, const nm_image *im, noema_error *err)
{
    nm_buf b = { 0 };
    noema_status s;
    if (nm_has_suffix(path, ".png"))
        s = nm_png_encode(&b, im, err);
    else if (nm_has_suffix(path, ".jpg") || nm_has_suffix(path, ".jpeg"))
        s = nm_jpeg_encode(&b, im, 90, err);
    else
        return nm_fail(err, NOEMA_E_ARGUMENT, "%s: expected a name that ends in .png, .jpg or .jpeg", path);
    if (s == NOEMA_OK)
        s = nm_write_file_atomic(path, b.data, b.len, err);
    nm_buf_free(&b);
    return s;
}

noema_status nm_thumbnail(nm_image *dst, const nm_image *src, int max_px, noema_error *err)
{
    nm_image rgb = { 0 };
    if (max_px < 1)
        return nm_fail(err, NOEMA_E_ARGUMENT, "thumbnail: expected a size of at least 1, got %d", max_px);
    int longest = src->width > src->height ? src->width : src->height, w = src->width, h = src->height;
    if (longest <= max_px)
        return nm_image_on_white(dst, src, err);
    w = (int)(((int64_t)w * max_px + longest / 2) / longest);
    h = (int)(((int64_t)h * max_px + longest / 2) / longest);
    noema_status s = nm_image_on_white(&rgb, src, err);
    if (s == NOEMA_OK)
        s = nm_image_resize(dst, &rgb, w < 1 ? 1 : w, h < 1 ? 1 : h, NM_BICUBIC, err);
    nm_image_free(&rgb);
    return s;
}

noema_status nm_contact_sheet(nm_image *dst, const nm_image *const *images, int n, int columns, int cell_px, int border,
                              const unsigned char background[3], noema_error *err)
{
    if (n < 1 || columns < 1 || cell_px < 1 || border < 0 || cell_px > 4096 || border > 4096)
        return nm_fail(err, NOEMA_E_ARGUMENT, "contact sheet: bad layout: %d pictures, %d columns, cells of %d", n, columns, cell_px);
    int64_t rows = (n + (int64_t)columns - 1) / columns, step = cell_px + border;
    int64_t w = (n < columns ? n : columns) * step + border, h = rows * step + border;
    if (w * h > NM_IMAGE_MAX_PIXELS)
        return nm_fail(err, NOEMA_E_LIMIT, "contact sheet: expected at most %u pixels, got %lld x %lld", NM_IMAGE_MAX_PIXELS,
                       (long long)w, (long long)h);
    noema_status s = nm_image_reset(dst, NM_MODE_RGB, (int)w, (int)h, err);
    for (size_t i = 0; s == NOEMA_OK && i < (size_t)w * (size_t)h; i++)
        memcpy(dst->data + 3 * i, background, 3);
    nm_image t = { 0 };
    for (int i = 0; i < n && s == NOEMA_OK; i++) {
        if (!images[i]) /* an empty cell */
            continue;
        s = nm_thumbnail(&t, images[i], cell_px, err);
        if (s != NOEMA_OK)
            break;
        int64_t x = border + i % columns * step + (cell_px - t.width) / 2, y = border + i / columns * step + (cell_px - t.height) / 2;
        for (int r = 0; r < t.height; r++)
            memcpy(dst->data + (size_t)(y + r) * dst->stride + (size_t)x * 3, t.data + (size_t)r * t.stride, t.stride);
    }
    nm_image_free(&t);
    return s;
}
