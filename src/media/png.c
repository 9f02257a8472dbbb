/* png.c - PNG through libpng, in the modes that Pillow keeps: grey 1 bit -> "1"; 2, 4, 8 bit -> L (scaled to 255); 16 bit
 * stays I;16; grey + alpha -> LA (16 bit: RGBA); palette stays P, tRNS goes to the palette's alpha; RGB(A) with 16 bit is
 * cut to its high byte. A colour key is remembered, not applied. */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <png.h>

#include "base/mem.h"
#include "media/format.h"

typedef struct png_state {
    png_structp png;
    png_infop info;
    const unsigned char *p;
    size_t left;
    char message[160];
    png_bytep *rows;
    bool complete; /* all rows are there */
} png_state;

static void on_error(png_structp png, png_const_charp text)
{
    png_state *s = png_get_error_ptr(png);
    snprintf(s->message, sizeof s->message, "%s", text);
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp text) { (void)png, (void)text; }

static void read_bytes(png_structp png, png_bytep out, size_t n)
{
    png_state *s = png_get_io_ptr(png);
    if (n > s->left)
        png_error(png, "truncated");
    memcpy(out, s->p, n);
    s->p += n;
    s->left -= n;
}

static bool probe(const unsigned char *p, size_t n)
{
    return n >= 8 && !memcmp(p, "\x89PNG\r\n\x1a\n", 8);
}

static nm_mode mode_of(int type, int depth)
{
    switch (type) {
    case PNG_COLOR_TYPE_PALETTE: return NM_MODE_P;
    case PNG_COLOR_TYPE_GRAY: return depth == 1 ? NM_MODE_1 : depth == 16 ? NM_MODE_I16 : NM_MODE_L;
    case PNG_COLOR_TYPE_GRAY_ALPHA: return depth == 16 ? NM_MODE_RGBA : NM_MODE_LA;
    case PNG_COLOR_TYPE_RGB: return NM_MODE_RGB;
    default: return NM_MODE_RGBA;
    }
}

static void set_transforms(png_structp png, nm_mode mode, int depth)
{
    if (mode == NM_MODE_P)
        png_set_packing(png);
    else if (depth < 8)
        png_set_expand_gray_1_2_4_to_8(png);
    if (mode == NM_MODE_RGBA)
        png_set_gray_to_rgb(png); /* no effect on colours */
    if (depth == 16 && mode != NM_MODE_I16)
        png_set_strip_16(png);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    if (mode == NM_MODE_I16)
        png_set_swap(png);
#endif
}

static void read_palette(png_state *s, nm_image *im)
{
    png_colorp colours = NULL;
    png_bytep alpha = NULL;
    png_color_16p key = NULL;
    int n = 0, n_alpha = 0;
    png_get_PLTE(s->png, s->info, &colours, &n);
    png_uint_32 has = png_get_tRNS(s->png, s->info, &alpha, &n_alpha, &key);
    if (im->mode != NM_MODE_P) {
        if (has && key && (im->mode == NM_MODE_RGB || im->mode == NM_MODE_L || im->mode == NM_MODE_1 || im->mode == NM_MODE_I16)) {
            im->has_trns = true;
            im->key[0] = im->mode == NM_MODE_RGB ? key->red : key->gray;
            im->key[1] = key->green;
            im->key[2] = key->blue;
            if (im->mode == NM_MODE_1)
                im->key[0] = key->gray ? 255 : 0;
        }
        return;
    }
    im->n_palette = n > 256 ? 256 : n;
    for (int i = 0; i < 256; i++) {
        im->palette[i][0] = im->palette[i][1] = im->palette[i][2] = 0; /* past its end: black */
        if (i < im->n_palette)
            im->palette[i][0] = colours[i].red, im->palette[i][1] = colours[i].green, im->palette[i][2] = colours[i].blue;
        im->palette[i][3] = has && i < n_alpha ? alpha[i] : 255;
    }
    im->has_trns = has && n_alpha > 0;
}

static noema_status run(png_state *s, nm_image *im, const nm_image_in *in)
{
    png_set_read_fn(s->png, s, read_bytes);
    png_set_user_limits(s->png, 0x7FFFFFFF, 0x7FFFFFFF);
    png_set_keep_unknown_chunks(s->png, PNG_HANDLE_CHUNK_NEVER, NULL, 0);
    static const png_byte unused[] = "iCCP\0iTXt\0tEXt\0zTXt\0sPLT\0hIST\0tIME\0pCAL\0sCAL\0cHRM\0gAMA\0sRGB";
    png_set_keep_unknown_chunks(s->png, PNG_HANDLE_CHUNK_NEVER, unused, 12);
    png_read_info(s->png, s->info);
    int64_t w = png_get_image_width(s->png, s->info), h = png_get_image_height(s->png, s->info);
    int depth = png_get_bit_depth(s->png, s->info), type = png_get_color_type(s->png, s->info);
    noema_status st = nm_image_check_size(in, w, h);
    if (st != NOEMA_OK)
        return st;
    /* deflate expands at most 1032 times: a file too short for its size is seen before the size is allocated */
    if ((uint64_t)png_get_rowbytes(s->png, s->info) * (uint64_t)h / 1032 > in->size)
        return nm_image_bad(in, "PNG", "truncated: %zu bytes cannot hold %lld x %lld pixels", in->size, (long long)w, (long long)h);
    nm_mode mode = mode_of(type, depth);
    st = nm_image_begin(im, in, mode, w, h);
    if (st != NOEMA_OK)
        return st;
    set_transforms(s->png, mode, depth);
    png_set_interlace_handling(s->png);
    png_read_update_info(s->png, s->info);
    if (png_get_rowbytes(s->png, s->info) != im->stride)
        return nm_image_bad(in, "PNG", "expected rows of %zu bytes, got %zu", im->stride, png_get_rowbytes(s->png, s->info));
    s->rows = nm_malloc_array((size_t)h, sizeof *s->rows);
    if (!s->rows)
        return nm_fail(in->err, NOEMA_E_MEMORY, "%s: PNG: no memory for %lld rows", in->name, (long long)h);
    for (int64_t y = 0; y < h; y++)
        s->rows[y] = im->data + (size_t)y * im->stride;
    png_read_image(s->png, s->rows);
    read_palette(s, im);
    s->complete = true;
    png_read_end(s->png, s->info);
    png_bytep exif = NULL;
    png_uint_32 n_exif = 0;
    if (png_get_eXIf_1(s->png, s->info, &n_exif, &exif))
        im->orientation = nm_exif_orientation(exif, n_exif);
    return NOEMA_OK;
}

/* setjmp lives in a function without locals of its own, so that nothing can be clobbered. An error after the last row
 * (a missing IEND, a damaged text chunk) does not spoil the picture; Pillow ignores it too. */
static noema_status guarded(png_state *s, nm_image *im, const nm_image_in *in)
{
    if (setjmp(png_jmpbuf(s->png)))
        return s->complete ? NOEMA_OK : nm_image_bad(in, "PNG", "%s", s->message);
    return run(s, im, in);
}

static noema_status decode(nm_image *im, const nm_image_in *in)
{
    png_state s = { .p = in->data, .left = in->size };
    s.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &s, on_error, on_warning);
    s.info = s.png ? png_create_info_struct(s.png) : NULL;
    if (!s.info) {
        png_destroy_read_struct(&s.png, NULL, NULL);
        return nm_fail(in->err, NOEMA_E_MEMORY, "%s: PNG: out of memory", in->name);
    }
    noema_status st = guarded(&s, im, in);
    png_destroy_read_struct(&s.png, &s.info, NULL);
    free(s.rows);
    return st;
}

const nm_image_format nm_format_png = { "PNG", probe, decode };
