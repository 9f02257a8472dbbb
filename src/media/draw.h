/* draw.h - rectangles and short labels on RGB pictures (boxes of `detect --draw`, captions of contact sheets). */
#ifndef NM_MEDIA_DRAW_H
#define NM_MEDIA_DRAW_H

#include "media/image.h"

/* All of them clip at the picture's edges and need NM_MODE_RGB (others are left alone). */
void nm_draw_fill(nm_image *im, int x0, int y0, int x1, int y1, const unsigned char rgb[3]); /* [x0, x1) x [y0, y1) */
void nm_draw_rect(nm_image *im, int x0, int y0, int x1, int y1, int thickness, const unsigned char rgb[3]); /* inward */

/* ASCII in a 5 x 7 dot font, `scale` pixels per dot, top left at (x, y). Other characters are drawn as an empty box. */
void nm_draw_text(nm_image *im, int x, int y, int scale, const char *utf8, const unsigned char rgb[3]);
int nm_text_width(const char *utf8, int scale); /* pixels */
int nm_text_height(int scale);

/* A label as `detect` draws it: text in black or white on a bar of the colour, above the point or below it at the top. */
void nm_draw_label(nm_image *im, int x, int y, int scale, const char *utf8, const unsigned char rgb[3]);

/* The i-th of a cycle of well separated colours. */
void nm_draw_colour(int i, unsigned char rgb[3]);

#endif
