/* image.h - decoding of still images to the pixels that Pillow gives, and the modes they are in.
 *
 * The type of a file is decided by its content, never by its name. A decoded image keeps the mode of the file (palette,
 * 16 bit, CMYK, alpha), because several preprocessing pipelines resize in that mode before they convert to RGB. */
#ifndef NM_IMAGE_H
#define NM_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* Pillow's modes, with the same meaning. Samples are interleaved, 8 bit unless said otherwise. */
typedef enum nm_mode {
    NM_MODE_NONE,
    NM_MODE_1,    /* one byte per pixel, 0 or 255 */
    NM_MODE_L,    /* grey */
    NM_MODE_LA,   /* grey, straight alpha */
    NM_MODE_P,    /* index into palette */
    NM_MODE_I16,  /* grey, uint16 in host order */
    NM_MODE_RGB,
    NM_MODE_RGBA, /* straight alpha */
    NM_MODE_CMYK, /* 255 = full ink (Adobe's inverted files are turned back while decoding, as in Pillow) */
    NM_MODES
} nm_mode;

/* Every buffer that holds pixels can be read this many bytes past its end: the vector kernels load whole registers. */
#define NM_IMAGE_PAD 64

/* Pillow's limit: error above it (twice Image.MAX_IMAGE_PIXELS). */
#define NM_IMAGE_MAX_PIXELS 178956970u

typedef struct nm_image {
    nm_mode mode;
    int width, height;
    size_t stride;       /* bytes from row to row: width * bytes per pixel */
    unsigned char *data; /* [height, stride], NM_IMAGE_PAD readable bytes after it; owned */
    size_t cap;          /* bytes allocated: a later decode into the same image reuses them */
    unsigned char palette[256][4]; /* RGBA, for NM_MODE_P */
    int n_palette;
    bool has_trns;       /* P: the palette's alpha counts; 1, L, I16, RGB: pixels equal to key are transparent */
    uint16_t key[3];     /* key[0] alone for grey */
    int orientation;     /* EXIF orientation 1..8; 1 when absent or already applied */
    const char *format;  /* "JPEG", ...; static storage */
} nm_image;

/* Rows and columns of the decoded image that the caller will read: [x0, x1) x [y0, y1). */
typedef struct nm_rect { int x0, y0, x1, y1; } nm_rect;
typedef void nm_window_fn(void *arg, nm_mode mode, int width, int height, nm_rect *need);

typedef struct nm_image_options {
    uint64_t max_pixels;    /* 0 = NM_IMAGE_MAX_PIXELS */
    bool apply_orientation; /* turn the picture as its EXIF orientation says (Pillow's exif_transpose) */
    bool allow_truncated;   /* JPEG, PNG: missing data is grey or black instead of an error */
    nm_window_fn *window;   /* NULL, or called once the header is known: pixels outside *need may stay undefined */
    void *window_arg;
} nm_image_options;

/* `im` is zeros or an image of an earlier call, whose memory is reused. `o` may be NULL. On failure im->mode is
 * NM_MODE_NONE and the message names the file. A decoder that this build lacks gives NOEMA_E_UNSUPPORTED and names the
 * package. Thread safe for distinct images. */
noema_status nm_image_open(nm_image *im, const char *path, const nm_image_options *o, noema_error *err);
noema_status nm_image_decode(nm_image *im, const void *bytes, size_t n, const char *name, const nm_image_options *o,
                             noema_error *err);
void nm_image_free(nm_image *im);

/* The name of the format the bytes start like ("JPEG", "PNG", ...), or NULL. Reads at most the first 32 bytes. */
const char *nm_image_sniff(const void *bytes, size_t n);

/* Makes im an image of that mode and size, reusing its memory; contents undefined. For callers that build pictures. */
noema_status nm_image_reset(nm_image *im, nm_mode mode, int width, int height, noema_error *err);

int nm_mode_bytes(nm_mode mode);        /* bytes per pixel */
const char *nm_mode_name(nm_mode mode); /* Pillow's: "1", "L", "LA", "P", "I;16", "RGB", "RGBA", "CMYK" */

/* Conversions, as Image.convert of Pillow. dst may be the image itself only for nm_image_transpose. */
noema_status nm_image_to_rgb(nm_image *dst, const nm_image *src, noema_error *err);      /* alpha and key dropped */
noema_status nm_image_to_rgba(nm_image *dst, const nm_image *src, noema_error *err);     /* key, tRNS -> alpha */
noema_status nm_image_on_white(nm_image *dst, const nm_image *src, noema_error *err);    /* RGB, transparency over white */
bool nm_image_has_alpha(const nm_image *im);                                             /* an alpha band or tRNS */
noema_status nm_image_transpose(nm_image *im, int orientation, noema_error *err);        /* EXIF 1..8 -> upright */

/* Row versions, without allocation: n pixels of im's row y from column x0. */
void nm_row_to_rgb(unsigned char *dst, const nm_image *im, int y, int x0, int n);
void nm_row_to_rgba(unsigned char *dst, const nm_image *im, int y, int x0, int n);
void nm_row_on_white(unsigned char *dst, const nm_image *im, int y, int x0, int n);

#endif
