/* gif.c - the first frame of a GIF through giflib, on its canvas, in the modes of Pillow's GifImagePlugin.py: P, or L when
 * there is no palette or the palette is the grey ramp. Around a frame smaller than the canvas lies the transparent index
 * (0 without one). */
#include <string.h>

#include <gif_lib.h>

#include "media/format.h"

typedef struct source { const unsigned char *p; size_t left; } source;

static int read_bytes(GifFileType *g, GifByteType *out, int n)
{
    source *s = g->UserData;
    int k = n < 0 ? 0 : (size_t)n < s->left ? n : (int)s->left;
    memcpy(out, s->p, (size_t)k);
    s->p += k;
    s->left -= (size_t)k;
    return k;
}

static bool probe(const unsigned char *p, size_t n)
{
    return n >= 6 && (!memcmp(p, "GIF87a", 6) || !memcmp(p, "GIF89a", 6));
}

static noema_status bad(const nm_image_in *in, const GifFileType *g)
{
    const char *text = GifErrorString(g->Error);
    return nm_image_bad(in, "GIF", "%s", text ? text : "truncated");
}

/* Up to the first image; the transparent index of its graphic control block, or -1. */
static noema_status seek_image(GifFileType *g, const nm_image_in *in, int *transparent)
{
    *transparent = -1;
    for (;;) {
        GifRecordType type;
        if (DGifGetRecordType(g, &type) == GIF_ERROR)
            return bad(in, g);
        if (type == IMAGE_DESC_RECORD_TYPE)
            return DGifGetImageDesc(g) == GIF_ERROR ? bad(in, g) : NOEMA_OK;
        if (type == TERMINATE_RECORD_TYPE)
            return nm_image_bad(in, "GIF", "expected an image, got the end");
        if (type != EXTENSION_RECORD_TYPE)
            continue;
        int code;
        GifByteType *block;
        if (DGifGetExtension(g, &code, &block) == GIF_ERROR)
            return bad(in, g);
        if (code == GRAPHICS_EXT_FUNC_CODE && block && block[0] >= 4)
            *transparent = block[1] & 1 ? block[4] : -1;
        while (block)
            if (DGifGetExtensionNext(g, &block) == GIF_ERROR)
                return bad(in, g);
    }
}

static bool is_ramp(const ColorMapObject *m)
{
    for (int i = 0; i < m->ColorCount; i++)
        if (m->Colors[i].Red != i || m->Colors[i].Green != i || m->Colors[i].Blue != i)
            return false;
    return true;
}

static void set_palette(nm_image *im, const ColorMapObject *m, int transparent)
{
    for (int i = 0; i < 256; i++) {
        im->palette[i][0] = im->palette[i][1] = im->palette[i][2] = 0; /* past its end: black */
        im->palette[i][3] = i == transparent ? 0 : 255;
        if (i < m->ColorCount)
            im->palette[i][0] = m->Colors[i].Red, im->palette[i][1] = m->Colors[i].Green, im->palette[i][2] = m->Colors[i].Blue;
    }
    im->n_palette = m->ColorCount;
}

static noema_status read_frame(nm_image *im, const nm_image_in *in, GifFileType *g, int transparent)
{
    static const int start[] = { 0, 4, 2, 1 }, step[] = { 8, 8, 4, 2 };
    const GifImageDesc *d = &g->Image;
    int64_t w = d->Left + (int64_t)d->Width, h = d->Top + (int64_t)d->Height;
    if (d->Width < 1 || d->Height < 1 || d->Left < 0 || d->Top < 0)
        return nm_image_bad(in, "GIF", "bad frame size %d x %d", d->Width, d->Height);
    if ((uint64_t)d->Width * (uint64_t)d->Height / 4096 > in->size) /* a code of at least 9 bits stands for at most 4096 pixels */
        return nm_image_bad(in, "GIF", "truncated: %zu bytes cannot hold %d x %d pixels", in->size, d->Width, d->Height);
    const ColorMapObject *m = d->ColorMap ? d->ColorMap : g->SColorMap;
    bool grey = !m || is_ramp(m);
    noema_status st = nm_image_begin(im, in, grey ? NM_MODE_L : NM_MODE_P, w > g->SWidth ? w : g->SWidth, h > g->SHeight ? h : g->SHeight);
    if (st != NOEMA_OK)
        return st;
    if (!grey)
        set_palette(im, m, transparent);
    im->has_trns = transparent >= 0;
    im->key[0] = im->key[1] = im->key[2] = (uint16_t)(transparent < 0 ? 0 : transparent);
    memset(im->data, transparent < 0 ? 0 : transparent, im->stride * (size_t)im->height);
    unsigned char *at = im->data + (size_t)d->Top * im->stride + (size_t)d->Left;
    for (int pass = 0; pass < (d->Interlace ? 4 : 1); pass++)
        for (int y = d->Interlace ? start[pass] : 0; y < d->Height; y += d->Interlace ? step[pass] : 1)
            if (DGifGetLine(g, at + (size_t)y * im->stride, d->Width) == GIF_ERROR)
                return bad(in, g);
    return NOEMA_OK;
}

static noema_status decode(nm_image *im, const nm_image_in *in)
{
    source s = { in->data, in->size };
    int code = 0, transparent;
    GifFileType *g = DGifOpen(&s, read_bytes, &code);
    if (!g) {
        const char *text = GifErrorString(code);
        return nm_image_bad(in, "GIF", "%s", text ? text : "truncated");
    }
    noema_status st = seek_image(g, in, &transparent);
    if (st == NOEMA_OK)
        st = read_frame(im, in, g, transparent);
    DGifCloseFile(g, &code);
    return st;
}

const nm_image_format nm_format_gif = { "GIF", probe, decode };
