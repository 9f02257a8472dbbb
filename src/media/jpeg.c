/* jpeg.c - JPEG through libjpeg-turbo with Pillow's settings: accurate integer DCT, "fancy" upsampling, no DCT scaling.
 * Grey stays L, three components become RGB, four CMYK (always taken as Adobe's inverted ones, JpegImagePlugin.py).
 * Bytes after EOI are ignored; a file that ends before its EOI is an error.
 *
 * With a window only the needed blocks go through the inverse DCT: columns by jpeg_crop_scanline, rows above by
 * jpeg_skip_scanlines, rows below are not decoded at all (that the file is complete is seen from its EOI). One block
 * more on each side keeps the fancy upsampling exact; tests compare with the whole decode. */
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include <jpeglib.h>
#include <jerror.h>

#include "media/format.h"

typedef struct jpeg_state {
    struct jpeg_decompress_struct d;
    struct jpeg_error_mgr errors;
    struct jpeg_source_mgr src;
    struct jpeg_progress_mgr progress;
    jmp_buf on_error;
    char message[JMSG_LENGTH_MAX];
    bool allow_truncated, truncated;
    nm_rect need;
    JDIMENSION x0, columns;
} jpeg_state;

static void error_exit(j_common_ptr c)
{
    jpeg_state *s = (jpeg_state *)(void *)((char *)c->err - offsetof(jpeg_state, errors));
    c->err->format_message(c, s->message);
    longjmp(s->on_error, 1);
}

/* Corrupt data inside a scan is a warning: the picture is what libjpeg makes of it, as in Pillow. */
static void emit_message(j_common_ptr c, int level) { (void)c, (void)level; }
static void output_message(j_common_ptr c) { (void)c; }
static void no_op(j_decompress_ptr d) { (void)d; }

/* A progressive file can repeat tiny scans, each of which visits every block: real ones have about ten. */
enum { MAX_SCANS = 500 };
static void count_scans(j_common_ptr c)
{
    j_decompress_ptr d = (j_decompress_ptr)c;
    if (d->input_scan_number > MAX_SCANS)
        ERREXIT(d, JERR_BAD_PROGRESSION);
}

static boolean fill_input(j_decompress_ptr d)
{
    static const JOCTET eoi[2] = { 0xFF, JPEG_EOI };
    jpeg_state *s = (jpeg_state *)(void *)((char *)d->src - offsetof(jpeg_state, src));
    s->truncated = true;
    if (!s->allow_truncated)
        ERREXIT(d, JERR_INPUT_EOF);
    s->src.next_input_byte = eoi;
    s->src.bytes_in_buffer = 2;
    return TRUE;
}

static void skip_input(j_decompress_ptr d, long n)
{
    struct jpeg_source_mgr *src = d->src;
    if (n <= 0)
        return;
    if ((size_t)n > src->bytes_in_buffer) {
        fill_input(d);
        return;
    }
    src->next_input_byte += n;
    src->bytes_in_buffer -= (size_t)n;
}

static bool probe(const unsigned char *p, size_t n)
{
    return n >= 3 && p[0] == 0xFF && p[1] == 0xD8 && p[2] == 0xFF;
}

static int orientation(const struct jpeg_decompress_struct *d)
{
    for (jpeg_saved_marker_ptr m = d->marker_list; m; m = m->next)
        if (m->marker == JPEG_APP0 + 1 && m->data_length > 6 && !memcmp(m->data, "Exif\0", 5))
            return nm_exif_orientation(m->data + 6, m->data_length - 6);
    return 1;
}

/* Huffman-coded scans spend at least one bit per block, so a file can be seen to be too short before anything of the
 * declared size is allocated. (Arithmetic coding has no such bound; the pixel limit alone protects there.) */
static bool plausible(const jpeg_state *s, size_t size)
{
    const struct jpeg_decompress_struct *d = &s->d;
    if (d->arith_code)
        return true;
    uint64_t least = UINT64_MAX;
    for (int i = 0; i < d->num_components; i++) {
        const jpeg_component_info *c = &d->comp_info[i];
        uint64_t blocks = (uint64_t)c->width_in_blocks * c->height_in_blocks;
        if (blocks < least)
            least = blocks;
    }
    return least / 8 <= size;
}

static void crop_columns(jpeg_state *s)
{
    struct jpeg_decompress_struct *d = &s->d;
    JDIMENSION mcu = (JDIMENSION)d->max_h_samp_factor * DCTSIZE, w = d->output_width;
    s->x0 = 0;
    s->columns = w;
    JDIMENSION a = (JDIMENSION)s->need.x0, b = (JDIMENSION)s->need.x1;
    a = a > mcu ? a - mcu : 0;
    b = w - b > mcu ? b + mcu : w;
    a = a / mcu * mcu;
    b = (b + mcu - 1) / mcu * mcu;
    if (b > w)
        b = w;
    if (b - a + mcu > w)
        return;
    s->x0 = a;
    s->columns = b - a;
    jpeg_crop_scanline(d, &s->x0, &s->columns);
}

static void read_rows(jpeg_state *s, nm_image *im)
{
    struct jpeg_decompress_struct *d = &s->d;
    bool windowed = s->need.x0 > 0 || s->need.y0 > 0 || s->need.x1 < im->width || s->need.y1 < im->height;
    s->x0 = 0;
    if (windowed) {
        JDIMENSION mcu = (JDIMENSION)d->max_v_samp_factor * DCTSIZE;
        crop_columns(s);
        if ((JDIMENSION)s->need.y0 > 3 * mcu)
            jpeg_skip_scanlines(d, ((JDIMENSION)s->need.y0 - 2 * mcu) / mcu * mcu);
    }
    unsigned char *data = im->data + (size_t)s->x0 * (size_t)nm_mode_bytes(im->mode);
    while (d->output_scanline < (JDIMENSION)s->need.y1) {
        JSAMPROW rows[16];
        JDIMENSION n = (JDIMENSION)s->need.y1 - d->output_scanline;
        for (JDIMENSION i = 0; i < 16; i++)
            rows[i] = data + (size_t)(d->output_scanline + (i < n ? i : n - 1)) * im->stride;
        jpeg_read_scanlines(d, rows, n < 16 ? n : 16);
    }
    if (d->output_scanline == d->output_height) {
        jpeg_finish_decompress(d);
        return;
    }
    if (d->unread_marker == JPEG_EOI || jpeg_input_complete(d))
        return;
    const unsigned char *p = s->src.next_input_byte, *end = p + s->src.bytes_in_buffer;
    while (p < end && (p = memchr(p, 0xFF, (size_t)(end - p))) && p + 1 < end) {
        if (p[1] == JPEG_EOI)
            return;
        p++;
    }
    if (!s->allow_truncated) {
        s->truncated = true;
        ERREXIT(d, JERR_INPUT_EOF);
    }
}

static void invert(nm_image *im)
{
    for (size_t i = 0, n = im->stride * (size_t)im->height; i < n; i++)
        im->data[i] ^= 0xFF;
}

static noema_status run(jpeg_state *s, nm_image *im, const nm_image_in *in)
{
    struct jpeg_decompress_struct *d = &s->d;
    jpeg_save_markers(d, JPEG_APP0 + 1, 0xFFFF);
    jpeg_read_header(d, TRUE);
    if (d->num_components != 1 && d->num_components != 3 && d->num_components != 4)
        return nm_image_bad(in, "JPEG", "expected 1, 3 or 4 components, got %d", d->num_components);
    noema_status st = nm_image_check_size(in, d->image_width, d->image_height);
    if (st != NOEMA_OK)
        return st;
    nm_mode mode = d->num_components == 1 ? NM_MODE_L : d->num_components == 3 ? NM_MODE_RGB : NM_MODE_CMYK;
    d->out_color_space = mode == NM_MODE_L ? JCS_GRAYSCALE : mode == NM_MODE_RGB ? JCS_RGB : JCS_CMYK;
    jpeg_calc_output_dimensions(d);
    if (!plausible(s, in->size))
        return nm_image_bad(in, "JPEG", "truncated: %zu bytes cannot hold %u x %u pixels", in->size, d->image_width,
                            d->image_height);
    st = nm_image_begin(im, in, mode, d->image_width, d->image_height);
    if (st != NOEMA_OK)
        return st;
    im->orientation = orientation(d); /* finishing the decompression frees the markers */
    s->need = (nm_rect){ 0, 0, im->width, im->height };
    if (in->o.window && mode != NM_MODE_CMYK)
        in->o.window(in->o.window_arg, mode, im->width, im->height, &s->need);
    jpeg_start_decompress(d);
    read_rows(s, im);
    if (mode == NM_MODE_CMYK)
        invert(im);
    return NOEMA_OK;
}

/* setjmp lives in a function without locals of its own, so that nothing can be clobbered. */
static noema_status guarded(jpeg_state *s, nm_image *im, const nm_image_in *in)
{
    if (setjmp(s->on_error))
        return s->truncated ? nm_image_bad(in, "JPEG", "truncated: expected an end marker, got the end after %zu bytes", in->size)
                            : nm_image_bad(in, "JPEG", "%s", s->message);
    jpeg_create_decompress(&s->d);
    s->d.src = &s->src;
    s->progress.progress_monitor = count_scans;
    s->d.progress = &s->progress;
    return run(s, im, in);
}

static noema_status decode(nm_image *im, const nm_image_in *in)
{
    jpeg_state s = { .allow_truncated = in->o.allow_truncated };
    s.d.err = jpeg_std_error(&s.errors);
    s.errors.error_exit = error_exit;
    s.errors.emit_message = emit_message;
    s.errors.output_message = output_message;
    s.src.init_source = no_op;
    s.src.fill_input_buffer = fill_input;
    s.src.skip_input_data = skip_input;
    s.src.resync_to_restart = jpeg_resync_to_restart;
    s.src.term_source = no_op;
    s.src.next_input_byte = in->data;
    s.src.bytes_in_buffer = in->size;
    noema_status st = guarded(&s, im, in);
    jpeg_destroy_decompress(&s.d);
    return st;
}

const nm_image_format nm_format_jpeg = { "JPEG", probe, decode };
