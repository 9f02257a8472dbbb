/* bmp.c - Windows and OS/2 bitmaps with the results of Pillow's BmpImagePlugin.py: 1, 4, 8 bit stay P (1 or L when the
 * palette is black/white or the grey ramp), 16, 24, 32 bit become RGB, RGBA only when bit fields name an alpha mask. */
#include <string.h>

#include "media/format.h"

enum { RAW = 0, RLE8 = 1, RLE4 = 2, BITFIELDS = 3 };

typedef struct bmp {
    const unsigned char *p;
    size_t n;
    uint32_t header, bits, compression, colours, entry; /* entry: bytes per palette colour */
    int64_t width, height;
    bool top_down;
    uint32_t mask[4];
    size_t palette, pixels;                             /* offsets */
    int order[4];                                       /* 24, 32 bit: byte of R, G, B, A in a pixel; A -1 */
    bool is565;
} bmp;

static bool probe(const unsigned char *p, size_t n) { return n >= 14 && p[0] == 'B' && p[1] == 'M'; }

static noema_status read_masks(bmp *b, const nm_image_in *in)
{
    size_t at = 14 + 40;
    int n = b->header >= 56 ? 4 : 3;
    if (b->n < at + (size_t)n * 4)
        return nm_image_bad(in, "BMP", "truncated in the bit fields");
    for (int i = 0; i < n; i++)
        b->mask[i] = nm_le32(b->p + at + 4 * (size_t)i);
    if (b->header == 40)
        b->palette += 12;
    return NOEMA_OK;
}

static noema_status read_header(bmp *b, const nm_image_in *in)
{
    if (b->n < 18)
        return nm_image_bad(in, "BMP", "truncated: expected at least 18 bytes, got %zu", b->n);
    b->header = nm_le32(b->p + 14);
    uint32_t h = b->header;
    if (h != 12 && h != 40 && h != 52 && h != 56 && h != 64 && h != 108 && h != 124)
        return nm_image_bad(in, "BMP", "unknown header of %u bytes", h);
    if (b->n < 14 + (size_t)h)
        return nm_image_bad(in, "BMP", "truncated in the header");
    const unsigned char *q = b->p + 18;
    b->palette = 14 + (size_t)h;
    if (h == 12) {
        b->width = nm_le16(q), b->height = nm_le16(q + 2), b->bits = nm_le16(q + 6);
        b->entry = 3;
    } else {
        b->top_down = q[7] == 0xFF;
        b->width = nm_le32(q);
        b->height = b->top_down ? ((int64_t)1 << 32) - nm_le32(q + 4) : nm_le32(q + 4);
        b->bits = nm_le16(q + 10), b->compression = nm_le32(q + 12), b->colours = nm_le32(q + 28);
        b->entry = 4;
    }
    if (b->bits != 1 && b->bits != 4 && b->bits != 8 && b->bits != 16 && b->bits != 24 && b->bits != 32)
        return nm_image_bad(in, "BMP", "expected 1, 4, 8, 16, 24 or 32 bits per pixel, got %u", b->bits);
    if (!b->colours && b->bits <= 8)
        b->colours = 1u << b->bits;
    noema_status st = b->compression == BITFIELDS ? read_masks(b, in) : NOEMA_OK;
    b->pixels = nm_le32(b->p + 10);
    if (b->pixels == 14 + (size_t)h && b->bits <= 8) /* a known mistake: the offset forgets the palette */
        b->pixels += (size_t)b->entry * b->colours;
    if (!b->pixels)
        b->pixels = b->palette + (b->bits <= 8 ? (size_t)b->entry * b->colours : 0);
    return st;
}

/* Pillow's list of bit field layouts; anything else is refused there too. */
static noema_status set_layout(bmp *b, const nm_image_in *in)
{
    static const struct { uint32_t bits, mask[4]; signed char order[4]; } known[] = {
        { 32, { 0xFF0000, 0xFF00, 0xFF, 0 }, { 2, 1, 0, -1 } },
        { 32, { 0xFF000000, 0xFF0000, 0xFF00, 0 }, { 3, 2, 1, -1 } },
        { 32, { 0xFF000000, 0xFF00, 0xFF, 0 }, { 3, 1, 0, -1 } },
        { 32, { 0xFF000000, 0xFF0000, 0xFF00, 0xFF }, { 3, 2, 1, 0 } },
        { 32, { 0xFF, 0xFF00, 0xFF0000, 0xFF000000 }, { 0, 1, 2, 3 } },
        { 32, { 0xFF0000, 0xFF00, 0xFF, 0xFF000000 }, { 2, 1, 0, 3 } },
        { 32, { 0xFF000000, 0xFF00, 0xFF, 0xFF0000 }, { 3, 1, 0, 2 } },
        { 32, { 0, 0, 0, 0 }, { 2, 1, 0, 3 } },
        { 24, { 0xFF0000, 0xFF00, 0xFF, 0 }, { 2, 1, 0, -1 } },
        { 16, { 0xF800, 0x7E0, 0x1F, 0 }, { 1, 0, 0, -1 } },
        { 16, { 0x7C00, 0x3E0, 0x1F, 0 }, { 0, 0, 0, -1 } },
    };
    for (int i = 0; i < 4; i++)
        b->order[i] = i == 3 ? -1 : 2 - i;
    if (b->compression != BITFIELDS)
        return NOEMA_OK;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (known[i].bits != b->bits || memcmp(known[i].mask, b->mask, b->bits == 32 ? 16 : 12))
            continue;
        for (int k = 0; k < 4; k++)
            b->order[k] = known[i].order[k];
        b->is565 = b->bits == 16 && b->order[0];
        return NOEMA_OK;
    }
    return nm_fail(in->err, NOEMA_E_UNSUPPORTED, "%s: BMP: unknown bit fields %x %x %x %x of %u bits", in->name, b->mask[0],
                   b->mask[1], b->mask[2], b->mask[3], b->bits);
}

static noema_status read_palette(bmp *b, nm_image *im, nm_mode *mode, const nm_image_in *in)
{
    if (b->colours > 65536)
        return nm_image_bad(in, "BMP", "palette of %u colours", b->colours);
    size_t n = b->colours, have = b->palette < b->n ? (b->n - b->palette) / b->entry : 0;
    bool grey = have >= n;
    for (size_t i = 0; i < n && i < have; i++) {
        const unsigned char *c = b->p + b->palette + i * b->entry;
        size_t want = n == 2 ? 255 * i : i;
        grey = grey && c[0] == want && c[1] == want && c[2] == want;
    }
    *mode = !grey ? NM_MODE_P : n <= 2 ? NM_MODE_1 : NM_MODE_L;
    for (size_t i = 0; i < 256; i++) {
        const unsigned char *c = b->p + (i < have ? b->palette + i * b->entry : 0);
        for (size_t k = 0; k < 3; k++)
            im->palette[i][k] = i < n && i < have ? c[2 - k] : 0; /* past its end: black */
        im->palette[i][3] = 255;
    }
    return NOEMA_OK;
}

static void unpack_row(const bmp *b, const nm_image *im, unsigned char *d, const unsigned char *s)
{
    int w = im->width;
    switch (b->bits) {
    case 1:
        for (int x = 0; x < w; x++) {
            int v = s[x / 8] >> (7 - x % 8) & 1;
            d[x] = (unsigned char)(im->mode == NM_MODE_1 ? 255 * v : v);
        }
        break;
    case 4:
        for (int x = 0; x < w; x++)
            d[x] = x % 2 ? s[x / 2] & 15 : s[x / 2] >> 4;
        break;
    case 8: memcpy(d, s, (size_t)w); break;
    case 16:
        for (int x = 0; x < w; x++, d += 3) {
            unsigned v = nm_le16(s + 2 * (size_t)x);
            d[0] = (unsigned char)((b->is565 ? v >> 11 : v >> 10 & 31) * 255 / 31);
            d[1] = (unsigned char)(b->is565 ? (v >> 5 & 63) * 255 / 63 : (v >> 5 & 31) * 255 / 31);
            d[2] = (unsigned char)((v & 31) * 255 / 31);
        }
        break;
    default:
        for (int x = 0, c = nm_mode_bytes(im->mode); x < w; x++, s += b->bits / 8, d += c)
            for (int k = 0; k < c; k++)
                d[k] = s[b->order[k]];
    }
}

/* Runs of pixels into rows counted from the file's first; what the runs leave out is 0. Pillow's rules: a run stops at the
 * end of its row, absolute pixels run on into the next one. False when the data end before the picture does. */
static bool unpack_rle(const bmp *b, unsigned char *d, size_t w, size_t h)
{
    const unsigned char *p = b->p + b->pixels, *end = b->p + b->n;
    size_t at = 0, total = w * h, x = 0;
    bool rle4 = b->compression == RLE4;
    while (at < total && end - p >= 2) {
        size_t n = p[0], v = p[1];
        p += 2;
        if (n) {
            n = x + n > w ? (x < w ? w - x : 0) : n;
            n = n < total - at ? n : total - at;
            for (size_t i = 0; i < n; i++)
                d[at++] = (unsigned char)(!rle4 ? v : i % 2 ? v & 15 : v >> 4);
            x += n;
        } else if (v == 0) {
            at = (at + w - 1) / w * w;
            x = 0;
        } else if (v == 1) {
            return true;
        } else if (v == 2) {
            if (end - p < 2)
                return false;
            size_t skip = p[0] + p[1] * w;
            at += skip < total - at ? skip : total - at;
            x = at % w;
            p += 2;
        } else {
            size_t count = v < total - at ? v : total - at, bytes = rle4 ? (count + 1) / 2 : count;
            bool cut = (size_t)(end - p) < bytes;
            if (cut)
                count = (size_t)(end - p) * (rle4 ? 2 : 1) < count ? (size_t)(end - p) * (rle4 ? 2 : 1) : count;
            for (size_t i = 0; i < count; i++)
                d[at++] = (unsigned char)(!rle4 ? p[i] : i % 2 ? p[i / 2] & 15 : p[i / 2] >> 4);
            if (cut)
                return false;
            p += bytes;
            x += v;
            if ((p - b->p) % 2 && p < end)
                p++;
        }
    }
    return at == total;
}

static void flip(nm_image *im)
{
    for (int a = 0, z = im->height - 1; a < z; a++, z--)
        for (size_t i = 0; i < im->stride; i++) {
            unsigned char *p = im->data + (size_t)a * im->stride + i, *q = im->data + (size_t)z * im->stride + i, t = *p;
            *p = *q;
            *q = t;
        }
}

static noema_status decode(nm_image *im, const nm_image_in *in)
{
    bmp b = { .p = in->data, .n = in->size };
    noema_status st = read_header(&b, in);
    if (st == NOEMA_OK)
        st = nm_image_check_size(in, b.width, b.height);
    if (st == NOEMA_OK)
        st = set_layout(&b, in);
    if (st != NOEMA_OK)
        return st;
    bool rle = b.compression == RLE8 || b.compression == RLE4;
    if (b.compression > BITFIELDS || (rle && b.bits != (b.compression == RLE8 ? 8 : 4)))
        return nm_fail(in->err, NOEMA_E_UNSUPPORTED, "%s: BMP: compression %u with %u bits", in->name, b.compression, b.bits);
    size_t row = ((size_t)b.width * b.bits + 31) / 32 * 4, need = rle ? 0 : row * (size_t)b.height;
    if (b.pixels > b.n || b.n - b.pixels < need)
        return nm_image_bad(in, "BMP", "truncated: expected %zu bytes of pixels, got %zu", need, b.pixels > b.n ? 0 : b.n - b.pixels);
    /* an escape of four bytes skips at most 255 rows */
    if (rle && (uint64_t)b.height > (uint64_t)(b.n - b.pixels) * 64 + 255)
        return nm_image_bad(in, "BMP", "truncated: %zu bytes of runs for %lld rows", b.n - b.pixels, (long long)b.height);
    nm_mode mode = b.order[3] >= 0 ? NM_MODE_RGBA : NM_MODE_RGB;
    if (b.bits <= 8)
        st = read_palette(&b, im, &mode, in);
    if (st == NOEMA_OK)
        st = nm_image_begin(im, in, mode, b.width, b.height);
    if (st != NOEMA_OK)
        return st;
    im->n_palette = mode == NM_MODE_P ? (int)(b.colours < 256 ? b.colours : 256) : 0;
    if (rle) {
        memset(im->data, 0, im->stride * (size_t)im->height);
        if (!unpack_rle(&b, im->data, (size_t)im->width, (size_t)im->height))
            return nm_image_bad(in, "BMP", "truncated: the runs end before the picture does");
    } else {
        for (int y = 0; y < im->height; y++)
            unpack_row(&b, im, im->data + (size_t)y * im->stride, b.p + b.pixels + (size_t)y * row);
    }
    if (!b.top_down)
        flip(im);
    return NOEMA_OK;
}

const nm_image_format nm_format_bmp = { "BMP", probe, decode };
