/* heif.c - HEIC through libheif and AVIF through libavif, both optional at build. Without them the files are recognised and
 * the message names the package. Their colour conversion is the library's: Pillow's pixels are not promised here. */
#include <string.h>

#include "media/format.h"

#if NOEMA_HAVE_AVIF
#include <avif/avif.h>
#endif
#if NOEMA_HAVE_HEIF
#include <libheif/heif.h>
#endif

static bool has_brand(const unsigned char *p, size_t n, const char *const *brands)
{
    if (n < 12 || memcmp(p + 4, "ftyp", 4))
        return false;
    for (; *brands; brands++)
        if (!memcmp(p + 8, *brands, 4))
            return true;
    return false;
}

static bool probe_avif(const unsigned char *p, size_t n)
{
    static const char *const brands[] = { "avif", "avis", NULL };
    return has_brand(p, n, brands);
}

static bool probe_heif(const unsigned char *p, size_t n)
{
    static const char *const brands[] = { "heic", "heix", "hevc", "hevx", "heim", "heis", "mif1", "msf1", NULL };
    return has_brand(p, n, brands);
}

#if NOEMA_HAVE_AVIF
static noema_status run_avif(nm_image *im, const nm_image_in *in, avifDecoder *d)
{
    d->imageSizeLimit = in->o.max_pixels > UINT32_MAX ? UINT32_MAX : (uint32_t)in->o.max_pixels;
    d->imageDimensionLimit = 65536;
    d->strictFlags = AVIF_STRICT_DISABLED;
    d->maxThreads = 1;
    avifResult r = avifDecoderSetIOMemory(d, in->data, in->size);
    if (r == AVIF_RESULT_OK)
        r = avifDecoderParse(d);
    if (r != AVIF_RESULT_OK)
        return nm_image_bad(in, "AVIF", "%s", avifResultToString(r));
    noema_status st = nm_image_begin(im, in, d->alphaPresent ? NM_MODE_RGBA : NM_MODE_RGB, d->image->width, d->image->height);
    if (st != NOEMA_OK)
        return st;
    r = avifDecoderNextImage(d);
    if (r != AVIF_RESULT_OK)
        return nm_image_bad(in, "AVIF", "%s", avifResultToString(r));
    avifRGBImage rgb;
    avifRGBImageSetDefaults(&rgb, d->image);
    rgb.depth = 8;
    rgb.format = im->mode == NM_MODE_RGBA ? AVIF_RGB_FORMAT_RGBA : AVIF_RGB_FORMAT_RGB;
    rgb.pixels = im->data;
    rgb.rowBytes = (uint32_t)im->stride;
    if (rgb.width != (uint32_t)im->width || rgb.height != (uint32_t)im->height)
        return nm_image_bad(in, "AVIF", "the frame is %u x %u in a picture of %d x %d", rgb.width, rgb.height, im->width, im->height);
    r = avifImageYUVToRGB(d->image, &rgb);
    return r == AVIF_RESULT_OK ? NOEMA_OK : nm_image_bad(in, "AVIF", "%s", avifResultToString(r));
}
#endif

static noema_status decode_avif(nm_image *im, const nm_image_in *in)
{
#if NOEMA_HAVE_AVIF
    avifDecoder *d = avifDecoderCreate();
    if (!d)
        return nm_fail(in->err, NOEMA_E_MEMORY, "%s: AVIF: out of memory", in->name);
    noema_status st = run_avif(im, in, d);
    avifDecoderDestroy(d);
    return st;
#else
    (void)im;
    return nm_fail(in->err, NOEMA_E_UNSUPPORTED, "%s: AVIF: this build has no AVIF decoder: install libavif-dev and build again", in->name);
#endif
}

#if NOEMA_HAVE_HEIF
static noema_status run_heif(nm_image *im, const nm_image_in *in, struct heif_context *c)
{
    struct heif_image_handle *h = NULL;
    struct heif_image *pixels = NULL;
    struct heif_error e = heif_context_read_from_memory_without_copy(c, in->data, in->size, NULL);
    if (e.code == heif_error_Ok)
        e = heif_context_get_primary_image_handle(c, &h);
    if (e.code != heif_error_Ok)
        return nm_image_bad(in, "HEIC", "%s", e.message);
    bool alpha = heif_image_handle_has_alpha_channel(h);
    noema_status st = nm_image_begin(im, in, alpha ? NM_MODE_RGBA : NM_MODE_RGB, heif_image_handle_get_width(h), heif_image_handle_get_height(h));
    if (st == NOEMA_OK) {
        e = heif_decode_image(h, &pixels, heif_colorspace_RGB, alpha ? heif_chroma_interleaved_RGBA : heif_chroma_interleaved_RGB, NULL);
        int stride = 0;
        const uint8_t *p = e.code == heif_error_Ok ? heif_image_get_plane_readonly(pixels, heif_channel_interleaved, &stride) : NULL;
        if (!p || heif_image_get_primary_width(pixels) != im->width || heif_image_get_primary_height(pixels) != im->height)
            st = nm_image_bad(in, "HEIC", "%s", e.code != heif_error_Ok ? e.message : "the picture has another size than its header says");
        for (int y = 0; st == NOEMA_OK && y < im->height; y++)
            memcpy(im->data + (size_t)y * im->stride, p + (size_t)y * (size_t)stride, im->stride);
    }
    if (pixels)
        heif_image_release(pixels);
    heif_image_handle_release(h);
    return st;
}
#endif

static noema_status decode_heif(nm_image *im, const nm_image_in *in)
{
#if NOEMA_HAVE_HEIF
    struct heif_context *c = heif_context_alloc();
    if (!c)
        return nm_fail(in->err, NOEMA_E_MEMORY, "%s: HEIC: out of memory", in->name);
    noema_status st = run_heif(im, in, c);
    heif_context_free(c);
    return st;
#else
    (void)im;
    return nm_fail(in->err, NOEMA_E_UNSUPPORTED, "%s: HEIC: this build has no HEIC decoder: install libheif-dev and build again", in->name);
#endif
}

const nm_image_format nm_format_avif = { "AVIF", probe_avif, decode_avif };
const nm_image_format nm_format_heif = { "HEIC", probe_heif, decode_heif };
