/* noema/data.h - making and looking at data sets. */
#ifndef NOEMA_DATA_H
#define NOEMA_DATA_H

#include <stddef.h>

#include "noema/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Where Debian's fonts-noto-color-emoji puts the font. */
#define NOEMA_EMOJI_FONT "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"

/* Writes the pictures of a bitmap emoji font (OpenType tables CBLC, CBDT) that stand for single characters to DIR as
 * emoji_uXXXX.png, at most `limit` (0: all). n_written may be NULL. */
NOEMA_API noema_status noema_data_emoji(const char *font, const char *dir, size_t limit, size_t *n_written, noema_error *err);

#ifdef __cplusplus
}
#endif
#endif
