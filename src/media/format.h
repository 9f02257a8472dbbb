/* format.h - what a decoder gets and gives; one const descriptor per file, listed in image.c. */
#ifndef NM_MEDIA_FORMAT_H
#define NM_MEDIA_FORMAT_H

#include "media/image.h"

typedef struct nm_image_in {
    const unsigned char *data; /* the whole file; hostile */
    size_t size;
    const char *name;          /* for messages */
    nm_image_options o;        /* max_pixels is set */
    noema_error *err;
} nm_image_in;

typedef struct nm_image_format {
    const char *name;
    bool (*probe)(const unsigned char *p, size_t n);
    /* Fills im through nm_image_begin; on failure says what is wrong with nm_image_bad. */
    noema_status (*decode)(nm_image *im, const nm_image_in *in);
} nm_image_format;

extern const nm_image_format nm_format_jpeg, nm_format_png, nm_format_webp, nm_format_gif, nm_format_bmp, nm_format_tiff,
    nm_format_pnm, nm_format_avif, nm_format_heif;

/* Checks the size against the limits and makes im's buffer. Sizes come as the file declares them. */
noema_status nm_image_begin(nm_image *im, const nm_image_in *in, nm_mode mode, int64_t width, int64_t height);

/* The size limit alone, for decoders that must allocate before they know the mode. */
noema_status nm_image_check_size(const nm_image_in *in, int64_t width, int64_t height);

/* "NAME: FORMAT: message", NOEMA_E_FORMAT. */
noema_status nm_image_bad(const nm_image_in *in, const char *format, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* The orientation of an EXIF block that starts with its TIFF header ("II*\0" or "MM\0*"); 1 when there is none. */
int nm_exif_orientation(const unsigned char *p, size_t n);

static inline uint32_t nm_be32(const unsigned char *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}
static inline uint32_t nm_be16(const unsigned char *p) { return (uint32_t)p[0] << 8 | p[1]; }
static inline uint32_t nm_le32(const unsigned char *p)
{
    return (uint32_t)p[3] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[1] << 8 | p[0];
}
static inline uint32_t nm_le16(const unsigned char *p) { return (uint32_t)p[1] << 8 | p[0]; }

#endif
