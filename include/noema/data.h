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

/* Names of classes, or templates of captions, from a file in UTF-8: one per line (outer white space and empty lines dropped), or .json:
 * ["a", ...], [{"label": 0, "name": "a"}, ...] ("synset" counts as name), {"0": "a", ...}. */
typedef struct noema_names noema_names;
NOEMA_API noema_status noema_names_read(noema_names **names, const char *path, noema_error *err);
NOEMA_API void noema_names_free(noema_names *names); /* NULL is fine */
NOEMA_API const char *const *noema_names_items(const noema_names *names, size_t *n); /* as long as the list */

#ifdef __cplusplus
}
#endif
#endif
