/* webp.c - WebP through libwebp: RGB without alpha, RGBA with it; of an animation the first frame on its canvas, as
 * Pillow's WebPAnimDecoder gives it (the canvas starts transparent black and is not blended with a background). */
#include <string.h>

#include <webp/decode.h>
#include <webp/demux.h>

#include "media/format.h"

static bool probe(const unsigned char *p, size_t n)
{
    return n >= 12 && !memcmp(p, "RIFF", 4) && !memcmp(p + 8, "WEBP", 4);
}

static const char *status_text(VP8StatusCode s)
{
    static const char *const text[] = { "ok", "out of memory", "invalid parameter", "corrupt bitstream", "unsupported feature",
                                        "suspended", "aborted", "truncated" };
    return (unsigned)s < sizeof text / sizeof *text ? text[s] : "unknown error";
}

/* Decodes one bitstream into im at (x, y). */
static noema_status decode_into(nm_image *im, const nm_image_in *in, const uint8_t *data, size_t size, int x, int y, int w, int h)
{
    WebPDecoderConfig c;
    if (!WebPInitDecoderConfig(&c))
        return nm_fail(in->err, NOEMA_E_UNSUPPORTED, "%s: WebP: the library's version does not match", in->name);
    int b = nm_mode_bytes(im->mode);
    c.output.colorspace = b == 3 ? MODE_RGB : MODE_RGBA;
    c.output.is_external_memory = 1;
    c.output.u.RGBA.rgba = im->data + (size_t)y * im->stride + (size_t)x * (size_t)b;
    c.output.u.RGBA.stride = (int)im->stride;
    c.output.u.RGBA.size = im->stride * (size_t)(h - 1) + (size_t)w * (size_t)b;
    VP8StatusCode s = WebPDecode(data, size, &c);
    WebPFreeDecBuffer(&c.output);
    return s == VP8_STATUS_OK ? NOEMA_OK : nm_image_bad(in, "WebP", "%s", status_text(s));
}

static noema_status first_frame(nm_image *im, const nm_image_in *in, WebPDemuxer *d, nm_mode mode)
{
    int64_t w = WebPDemuxGetI(d, WEBP_FF_CANVAS_WIDTH), h = WebPDemuxGetI(d, WEBP_FF_CANVAS_HEIGHT);
    noema_status st = nm_image_begin(im, in, mode, w, h);
    WebPIterator it;
    if (st != NOEMA_OK)
        return st;
    memset(im->data, 0, im->stride * (size_t)im->height);
    memset(&it, 0, sizeof it);
    if (!WebPDemuxGetFrame(d, 1, &it))
        return nm_image_bad(in, "WebP", "expected a frame, got none");
    WebPBitstreamFeatures f;
    if (it.x_offset < 0 || it.y_offset < 0 || it.width < 1 || it.height < 1 || it.x_offset + (int64_t)it.width > w ||
        it.y_offset + (int64_t)it.height > h || WebPGetFeatures(it.fragment.bytes, it.fragment.size, &f) != VP8_STATUS_OK ||
        f.width != it.width || f.height != it.height)
        st = nm_image_bad(in, "WebP", "frame of %d x %d at %d, %d does not fit %lld x %lld", it.width, it.height, it.x_offset,
                          it.y_offset, (long long)w, (long long)h);
    else
        st = decode_into(im, in, it.fragment.bytes, it.fragment.size, it.x_offset, it.y_offset, it.width, it.height);
    WebPDemuxReleaseIterator(&it);
    return st;
}

static int orientation(WebPDemuxer *d)
{
    WebPChunkIterator it;
    int o = 1;
    memset(&it, 0, sizeof it);
    if (WebPDemuxGetChunk(d, "EXIF", 1, &it)) {
        size_t skip = it.chunk.size > 6 && !memcmp(it.chunk.bytes, "Exif\0", 5) ? 6 : 0;
        o = nm_exif_orientation(it.chunk.bytes + skip, it.chunk.size - skip);
        WebPDemuxReleaseChunkIterator(&it);
    }
    return o;
}

static noema_status decode(nm_image *im, const nm_image_in *in)
{
    WebPBitstreamFeatures f;
    VP8StatusCode s = WebPGetFeatures(in->data, in->size, &f);
    if (s != VP8_STATUS_OK)
        return nm_image_bad(in, "WebP", "%s", status_text(s));
    noema_status st = nm_image_check_size(in, f.width, f.height);
    if (st != NOEMA_OK)
        return st;
    WebPData data = { in->data, in->size };
    WebPDemuxer *d = WebPDemux(&data);
    if (!d)
        return nm_image_bad(in, "WebP", "truncated or corrupt container");
    nm_mode mode = f.has_alpha ? NM_MODE_RGBA : NM_MODE_RGB;
    if (f.has_animation) {
        st = first_frame(im, in, d, mode);
    } else {
        st = nm_image_begin(im, in, mode, f.width, f.height);
        if (st == NOEMA_OK)
            st = decode_into(im, in, in->data, in->size, 0, 0, f.width, f.height);
    }
    if (st == NOEMA_OK)
        im->orientation = orientation(d);
    WebPDemuxDelete(d);
    return st;
}

const nm_image_format nm_format_webp = { "WebP", probe, decode };
