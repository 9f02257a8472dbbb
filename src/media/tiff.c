/* tiff.c - the first page of a TIFF through libtiff, in the modes of Pillow's TiffImagePlugin.py. The orientation tag is
 * applied, as there. YCbCr and other colour spaces go through libtiff's own conversion to RGB. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <tiffio.h>

#include "base/mem.h"
#include "media/format.h"

typedef struct tif {
    const nm_image_in *in;
    uint64_t pos;
    char message[200];
    TIFF *t;
    uint32_t w, h;
    uint16_t bits, spp, photometric, planar, format, extra, compression, orientation;
    nm_mode mode;
    int channels;       /* samples per pixel that are kept */
    bool associated;    /* the alpha is premultiplied */
} tif;

static bool probe(const unsigned char *p, size_t n)
{
    return n >= 4 && (!memcmp(p, "II*\0", 4) || !memcmp(p, "MM\0*", 4) || !memcmp(p, "II+\0", 4) || !memcmp(p, "MM\0+", 4));
}

static tmsize_t do_read(thandle_t h, void *out, tmsize_t n)
{
    tif *f = (tif *)h;
    uint64_t left = f->pos < f->in->size ? f->in->size - f->pos : 0, k = n < 0 ? 0 : (uint64_t)n < left ? (uint64_t)n : left;
    if (k)
        memcpy(out, f->in->data + f->pos, k);
    f->pos += k;
    return (tmsize_t)k;
}

static tmsize_t do_write(thandle_t h, void *p, tmsize_t n) { (void)h, (void)p, (void)n; return 0; }

static toff_t do_seek(thandle_t h, toff_t at, int whence)
{
    tif *f = (tif *)h;
    f->pos = whence == SEEK_SET ? at : whence == SEEK_CUR ? f->pos + at : f->in->size + at;
    return f->pos;
}

static int do_close(thandle_t h) { (void)h; return 0; }
static toff_t do_size(thandle_t h) { return ((tif *)h)->in->size; }

static int on_error(TIFF *t, void *user, const char *module, const char *fmt, va_list ap)
{
    tif *f = user;
    (void)t, (void)module;
    if (!f->message[0])
        vsnprintf(f->message, sizeof f->message, fmt, ap);
    return 1;
}

static int on_warning(TIFF *t, void *user, const char *module, const char *fmt, va_list ap)
{
    (void)t, (void)user, (void)module, (void)fmt, (void)ap;
    return 1;
}

static noema_status bad(const tif *f) { return nm_image_bad(f->in, "TIFF", "%s", f->message[0] ? f->message : "corrupt"); }

static void read_tags(tif *f)
{
    uint16_t n_extra = 0, *extra = NULL;
    f->bits = f->spp = f->planar = f->format = f->compression = f->orientation = 1;
    TIFFGetField(f->t, TIFFTAG_IMAGEWIDTH, &f->w);
    TIFFGetField(f->t, TIFFTAG_IMAGELENGTH, &f->h);
    TIFFGetFieldDefaulted(f->t, TIFFTAG_BITSPERSAMPLE, &f->bits);
    TIFFGetFieldDefaulted(f->t, TIFFTAG_SAMPLESPERPIXEL, &f->spp);
    TIFFGetFieldDefaulted(f->t, TIFFTAG_PLANARCONFIG, &f->planar);
    TIFFGetFieldDefaulted(f->t, TIFFTAG_SAMPLEFORMAT, &f->format);
    TIFFGetFieldDefaulted(f->t, TIFFTAG_COMPRESSION, &f->compression);
    TIFFGetFieldDefaulted(f->t, TIFFTAG_ORIENTATION, &f->orientation);
    if (!TIFFGetField(f->t, TIFFTAG_PHOTOMETRIC, &f->photometric))
        f->photometric = PHOTOMETRIC_MINISWHITE; /* Pillow's default */
    f->extra = 0xFFFF;
    if (TIFFGetFieldDefaulted(f->t, TIFFTAG_EXTRASAMPLES, &n_extra, &extra) && n_extra)
        f->extra = extra[0];
    if (f->photometric == PHOTOMETRIC_YCBCR && f->compression == COMPRESSION_JPEG && f->planar == PLANARCONFIG_CONTIG) {
        TIFFSetField(f->t, TIFFTAG_JPEGCOLORMODE, JPEGCOLORMODE_RGB);
        f->photometric = PHOTOMETRIC_RGB;
    }
}

/* NM_MODE_NONE: not one of the layouts that are read sample by sample. */
static nm_mode find_mode(tif *f)
{
    bool alpha = f->extra != EXTRASAMPLE_UNSPECIFIED;
    unsigned b = f->bits;
    if (f->format != SAMPLEFORMAT_UINT && f->format != SAMPLEFORMAT_VOID)
        return NM_MODE_NONE;
    f->associated = f->extra == EXTRASAMPLE_ASSOCALPHA;
    switch (f->photometric) {
    case PHOTOMETRIC_MINISWHITE:
    case PHOTOMETRIC_MINISBLACK:
        if (f->spp == 1)
            return b == 1 ? NM_MODE_1 : b == 2 || b == 4 || b == 8 ? NM_MODE_L : b == 16 ? NM_MODE_I16 : NM_MODE_NONE;
        return f->spp == 2 && b == 8 ? (alpha ? NM_MODE_LA : NM_MODE_L) : NM_MODE_NONE;
    case PHOTOMETRIC_PALETTE: return (f->spp == 1 && (b == 1 || b == 2 || b == 4 || b == 8)) || (f->spp == 2 && b == 8) ? NM_MODE_P : NM_MODE_NONE;
    case PHOTOMETRIC_RGB:
        if ((b != 8 && b != 16) || f->spp < 3)
            return NM_MODE_NONE;
        return f->spp > 3 && alpha ? NM_MODE_RGBA : NM_MODE_RGB;
    case PHOTOMETRIC_SEPARATED: return (b == 8 || b == 16) && f->spp >= 4 ? NM_MODE_CMYK : NM_MODE_NONE;
    default: return NM_MODE_NONE;
    }
}

/* n pixels of a strip or tile row into im; plane < 0: interleaved samples, else samples of that channel alone. */
static void put_row(const tif *f, nm_image *im, uint32_t y, uint32_t x0, uint32_t n, const unsigned char *s, int plane)
{
    int channels = nm_mode_bytes(im->mode) , spp = plane < 0 ? f->spp : 1, first = plane < 0 ? 0 : plane, last = plane < 0 ? f->channels : plane + 1;
    unsigned max = (1u << f->bits) - 1;
    bool invert = f->photometric == PHOTOMETRIC_MINISWHITE;
    unsigned char *d = im->data + (size_t)y * im->stride + (size_t)x0 * (size_t)channels;
    if (f->bits < 8) {
        for (uint32_t x = 0; x < n; x++) {
            uint32_t bit = x * f->bits;
            unsigned v = s[bit / 8] >> (8 - f->bits - bit % 8) & max;
            d[x] = (unsigned char)(im->mode == NM_MODE_P ? v : (invert ? max - v : v) * (255 / max));
        }
        return;
    }
    for (uint32_t x = 0; x < n; x++)
        for (int c = first; c < last; c++) {
            size_t at = (size_t)x * (size_t)spp + (size_t)(plane < 0 ? c : 0);
            uint16_t v16 = 0;
            if (f->bits == 16)
                memcpy(&v16, s + 2 * at, 2);
            if (im->mode == NM_MODE_I16)
                memcpy(d + 2 * (size_t)x, &v16, 2);
            else if (f->bits == 16)
                d[(size_t)x * (size_t)channels + (size_t)c] = (unsigned char)(v16 >> 8);
            else
                d[(size_t)x * (size_t)channels + (size_t)c] = invert && c == 0 ? (unsigned char)~s[at] : s[at];
        }
}

static noema_status read_samples(tif *f, nm_image *im)
{
    bool tiled = TIFFIsTiled(f->t), separate = f->planar == PLANARCONFIG_SEPARATE && f->spp > 1;
    uint32_t tw = f->w, th = f->h;
    TIFFGetFieldDefaulted(f->t, TIFFTAG_ROWSPERSTRIP, &th);
    if (tiled && (!TIFFGetField(f->t, TIFFTAG_TILEWIDTH, &tw) || !TIFFGetField(f->t, TIFFTAG_TILELENGTH, &th)))
        return bad(f);
    tmsize_t size = tiled ? TIFFTileSize(f->t) : TIFFStripSize(f->t), row = tiled ? TIFFTileRowSize(f->t) : TIFFScanlineSize(f->t);
    if (th > f->h && !tiled)
        th = f->h;
    if (!tw || !th || size <= 0 || row <= 0 || (uint64_t)row * th > (uint64_t)size + (uint64_t)row || size > (tmsize_t)1 << 31 ||
        (uint64_t)row * 8 < (uint64_t)tw * f->bits * (separate ? 1 : f->spp))
        return bad(f);
    unsigned char *buf = nm_calloc((size_t)size + 16, 1);
    if (!buf)
        return nm_fail(f->in->err, NOEMA_E_MEMORY, "%s: TIFF: no memory for %lld bytes", f->in->name, (long long)size);
    noema_status st = NOEMA_OK;
    for (int plane = 0; plane < (separate ? f->channels : 1) && st == NOEMA_OK; plane++)
        for (uint32_t y = 0; y < f->h && st == NOEMA_OK; y += th)
            for (uint32_t x = 0; x < f->w && st == NOEMA_OK; x += tw) {
                uint32_t rows = f->h - y < th ? f->h - y : th, n = f->w - x < tw ? f->w - x : tw;
                tmsize_t want = tiled ? size : (tmsize_t)rows * row, got;
                if (tiled)
                    got = TIFFReadEncodedTile(f->t, TIFFComputeTile(f->t, x, y, 0, (uint16_t)plane), buf, size);
                else
                    got = TIFFReadEncodedStrip(f->t, TIFFComputeStrip(f->t, y, (uint16_t)plane), buf, want);
                if (got < want || want > size)
                    st = bad(f);
                for (uint32_t r = 0; r < rows && st == NOEMA_OK; r++)
                    put_row(f, im, y + r, x, n, buf + (size_t)r * (size_t)row, separate ? plane : -1);
            }
    nm_free(buf);
    return st;
}

/* Whatever libtiff itself can turn into RGBA. */
static noema_status read_rgba(tif *f, nm_image *im)
{
    char text[1024] = "";
    if (f->format != SAMPLEFORMAT_UINT || !TIFFRGBAImageOK(f->t, text))
        return nm_fail(f->in->err, NOEMA_E_UNSUPPORTED, "%s: TIFF: photometric %u, %u samples of %u bits, format %u: not supported",
                       f->in->name, f->photometric, f->spp, f->bits, f->format);
    noema_status st = nm_image_begin(im, f->in, NM_MODE_RGB, f->w, f->h);
    if (st != NOEMA_OK)
        return st;
    uint32_t *raster = nm_alloc((size_t)f->w * f->h * 4);
    if (!raster)
        return nm_fail(f->in->err, NOEMA_E_MEMORY, "%s: TIFF: no memory for %u x %u pixels", f->in->name, f->w, f->h);
    uint16_t o = f->orientation;
    if (TIFFReadRGBAImageOriented(f->t, f->w, f->h, raster, o >= 1 && o <= 8 ? o : 1, 1)) {
        for (size_t i = 0, n = (size_t)f->w * f->h; i < n; i++) {
            im->data[3 * i] = (unsigned char)TIFFGetR(raster[i]);
            im->data[3 * i + 1] = (unsigned char)TIFFGetG(raster[i]);
            im->data[3 * i + 2] = (unsigned char)TIFFGetB(raster[i]);
        }
    } else {
        st = bad(f);
    }
    nm_free(raster);
    return st;
}

static noema_status read_palette(const tif *f, nm_image *im)
{
    uint16_t *r, *g, *b;
    if (!TIFFGetField(f->t, TIFFTAG_COLORMAP, &r, &g, &b))
        return nm_image_bad(f->in, "TIFF", "expected a colour map");
    im->n_palette = 1 << f->bits;
    memset(im->palette, 0, sizeof im->palette);
    for (int i = 0; i < im->n_palette; i++) {
        im->palette[i][0] = (unsigned char)(r[i] >> 8);
        im->palette[i][1] = (unsigned char)(g[i] >> 8);
        im->palette[i][2] = (unsigned char)(b[i] >> 8);
    }
    for (int i = 0; i < 256; i++)
        im->palette[i][3] = 255;
    return NOEMA_OK;
}

static noema_status read_page(tif *f, nm_image *im)
{
    read_tags(f);
    noema_status st = nm_image_check_size(f->in, f->w, f->h);
    if (st != NOEMA_OK)
        return st;
    /* LZW grows at most 2730 times, deflate 1032; fax codes have no such bound */
    uint64_t bytes = (uint64_t)f->w * f->h * f->bits * f->spp / 8;
    bool fax = f->compression >= COMPRESSION_CCITTRLE && f->compression <= COMPRESSION_CCITTFAX4;
    if (!fax && bytes / 3000 > f->in->size)
        return nm_image_bad(f->in, "TIFF", "truncated: %zu bytes cannot hold %u x %u pixels", f->in->size, f->w, f->h);
    f->mode = find_mode(f);
    if (f->mode == NM_MODE_NONE)
        return read_rgba(f, im);
    st = nm_image_begin(im, f->in, f->mode, f->w, f->h);
    if (st != NOEMA_OK)
        return st;
    f->channels = f->mode == NM_MODE_I16 ? 1 : nm_mode_bytes(f->mode);
    if (f->mode == NM_MODE_P)
        st = read_palette(f, im);
    if (st == NOEMA_OK)
        st = read_samples(f, im);
    if (st == NOEMA_OK && f->associated && (f->mode == NM_MODE_RGBA || f->mode == NM_MODE_LA)) {
        size_t c = (size_t)f->channels, n = (size_t)f->w * f->h;
        for (unsigned char *p = im->data; n--; p += c)
            for (size_t k = 0; k + 1 < c; k++) {
                unsigned a = p[c - 1], v = a ? 255u * p[k] / a : 0;
                p[k] = (unsigned char)(v > 255 ? 255 : v);
            }
    }
    return st == NOEMA_OK ? nm_image_transpose(im, f->orientation, f->in->err) : st;
}

static noema_status decode(nm_image *im, const nm_image_in *in)
{
    tif f = { .in = in };
    TIFFOpenOptions *o = TIFFOpenOptionsAlloc();
    if (!o)
        return nm_fail(in->err, NOEMA_E_MEMORY, "%s: TIFF: out of memory", in->name);
    TIFFOpenOptionsSetMaxSingleMemAlloc(o, (tmsize_t)1 << 30);
    TIFFOpenOptionsSetErrorHandlerExtR(o, on_error, &f);
    TIFFOpenOptionsSetWarningHandlerExtR(o, on_warning, &f);
    f.t = TIFFClientOpenExt(in->name, "rm", (thandle_t)&f, do_read, do_write, do_seek, do_close, do_size, NULL, NULL, o);
    TIFFOpenOptionsFree(o);
    if (!f.t)
        return bad(&f);
    noema_status st = read_page(&f, im);
    TIFFClose(f.t);
    return st;
}

const nm_image_format nm_format_tiff = { "TIFF", probe, decode };
