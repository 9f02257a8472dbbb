/* pnm.c - portable bitmaps, greymaps and pixmaps, plain (P1-P3) and binary (P4-P6), scaled to 255 as PpmImagePlugin.py does.
 * A greymap with more than 255 levels becomes I;16, scaled to 65535 (Pillow: the same values in mode I). */
#include <string.h>

#include "media/format.h"

typedef struct pnm { const unsigned char *p, *end; int kind, channels; uint32_t w, h, max; } pnm;

static bool is_space(unsigned c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

static bool probe(const unsigned char *p, size_t n)
{
    return n >= 3 && p[0] == 'P' && p[1] >= '1' && p[1] <= '6' && is_space(p[2]);
}

/* White space and comments, then digits; false at the end or at anything else. */
static bool number(pnm *f, uint32_t *v)
{
    uint64_t n = 0;
    int digits = 0;
    while (f->p < f->end && (is_space(*f->p) || *f->p == '#')) {
        if (*f->p == '#')
            while (f->p < f->end && *f->p != '\n' && *f->p != '\r')
                f->p++;
        else
            f->p++;
    }
    for (; f->p < f->end && *f->p >= '0' && *f->p <= '9' && digits < 10; f->p++, digits++)
        n = n * 10 + (unsigned)(*f->p - '0');
    *v = (uint32_t)n;
    return digits && n <= UINT32_MAX && (f->p == f->end || is_space(*f->p) || *f->p == '#');
}

/* Python's round of v / max * top in doubles. */
static unsigned scaled(uint32_t v, uint32_t max, uint32_t top)
{
    if (max == top)
        return v > top ? top : v;
    double x = (double)v / (double)max * (double)top;
    unsigned r = (unsigned)x;
    double d = x - r;
    r += d > 0.5 || (d == 0.5 && r % 2);
    return r > top ? top : r;
}

static noema_status plain(pnm *f, nm_image *im, const nm_image_in *in)
{
    size_t n = (size_t)f->w * f->h * (size_t)f->channels;
    for (size_t i = 0; i < n; i++) {
        uint32_t v = 0;
        if (f->kind == 1) { /* digits need no space between them */
            pnm one = *f;
            while (one.p < one.end && (is_space(*one.p) || *one.p == '#')) {
                if (*one.p == '#')
                    while (one.p < one.end && *one.p != '\n' && *one.p != '\r')
                        one.p++;
                else
                    one.p++;
            }
            if (one.p == one.end || (*one.p != '0' && *one.p != '1'))
                return nm_image_bad(in, "PNM", "expected %zu digits 0 or 1, got %zu", n, i);
            v = *one.p == '0' ? 255 : 0;
            f->p = one.p + 1;
        } else if (!number(f, &v) || v > f->max) {
            return nm_image_bad(in, "PNM", "expected %zu numbers up to %u, got %zu", n, f->max, i);
        }
        if (f->kind == 1)
            im->data[i] = (unsigned char)v;
        else if (im->mode == NM_MODE_I16) {
            uint16_t s = (uint16_t)scaled(v, f->max, 65535);
            memcpy(im->data + 2 * i, &s, 2);
        } else
            im->data[i] = (unsigned char)scaled(v, f->max, 255);
    }
    return NOEMA_OK;
}

static void binary(pnm *f, nm_image *im)
{
    size_t n = (size_t)f->w * f->h * (size_t)f->channels, row = ((size_t)f->w + 7) / 8;
    if (f->kind == 4) {
        for (size_t y = 0; y < f->h; y++)
            for (size_t x = 0; x < f->w; x++)
                im->data[y * f->w + x] = f->p[y * row + x / 8] >> (7 - x % 8) & 1 ? 0 : 255;
        return;
    }
    if (f->max == 255) {
        memcpy(im->data, f->p, n);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        uint32_t v = f->max < 256 ? f->p[i] : nm_be16(f->p + 2 * i);
        uint16_t s = (uint16_t)scaled(v, f->max, im->mode == NM_MODE_I16 ? 65535 : 255);
        if (im->mode == NM_MODE_I16)
            memcpy(im->data + 2 * i, &s, 2);
        else
            im->data[i] = (unsigned char)s;
    }
}

static noema_status decode(nm_image *im, const nm_image_in *in)
{
    pnm f = { in->data + 2, in->data + in->size, in->data[1] - '0', 1, 0, 0, 1 };
    bool bitmap = f.kind == 1 || f.kind == 4;
    if (!number(&f, &f.w) || !number(&f, &f.h) || (!bitmap && (!number(&f, &f.max) || !f.max || f.max > 65535)))
        return nm_image_bad(in, "PNM", "expected width, height and a maximum of 1 to 65535");
    f.channels = f.kind % 3 ? 1 : 3;
    noema_status st = nm_image_check_size(in, f.w, f.h);
    if (st != NOEMA_OK)
        return st;
    if (f.kind > 3) {
        if (f.p < f.end)
            f.p++; /* one white space before the samples */
        size_t need = f.kind == 4 ? ((size_t)f.w + 7) / 8 * f.h : (size_t)f.w * f.h * (size_t)f.channels * (f.max < 256 ? 1 : 2);
        if ((size_t)(f.end - f.p) < need)
            return nm_image_bad(in, "PNM", "truncated: expected %zu bytes of pixels, got %zu", need, (size_t)(f.end - f.p));
    } else if ((size_t)(f.end - f.p) < (size_t)f.w * f.h * (size_t)f.channels) {
        return nm_image_bad(in, "PNM", "truncated: %zu bytes cannot hold %u x %u pixels", (size_t)(f.end - f.p), f.w, f.h);
    }
    nm_mode mode = bitmap ? NM_MODE_1 : f.channels == 3 ? NM_MODE_RGB : f.max > 255 ? NM_MODE_I16 : NM_MODE_L;
    st = nm_image_begin(im, in, mode, f.w, f.h);
    if (st == NOEMA_OK && f.kind <= 3)
        return plain(&f, im, in);
    if (st == NOEMA_OK)
        binary(&f, im);
    return st;
}

const nm_image_format nm_format_pnm = { "PNM", probe, decode };
