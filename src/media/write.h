/* write.h - pictures out: PNG and JPEG in memory or to a file, thumbnails, contact sheets. */
#ifndef NM_MEDIA_WRITE_H
#define NM_MEDIA_WRITE_H

#include "base/mem.h"
#include "media/image.h"

/* Appends a PNG (any mode: L, LA, RGB, RGBA as they are, the others as RGB or, with transparency, RGBA). */
noema_status nm_png_encode(nm_buf *out, const nm_image *im, noema_error *err);

/* Appends a baseline JPEG, 4:2:0; transparency is put on white. quality 1..100. */
noema_status nm_jpeg_encode(nm_buf *out, const nm_image *im, int quality, noema_error *err);

/* By the suffix of the path: .jpg, .jpeg or .png; written to a temporary name first. */
noema_status nm_image_write(const char *path, const nm_image *im, noema_error *err);

/* RGB on white, inside max_px x max_px with its proportions kept; never enlarged. */
noema_status nm_thumbnail(nm_image *dst, const nm_image *src, int max_px, noema_error *err);

/* n pictures as thumbnails in rows of `columns`: cells of cell_px, `border` pixels of the background between and around. */
noema_status nm_contact_sheet(nm_image *dst, const nm_image *const *images, int n, int columns, int cell_px, int border,
                              const unsigned char background[3], noema_error *err);

#endif
