/* cbdt.h - the PNG pictures inside a bitmap emoji font (OpenType tables CBLC, CBDT), with the characters they stand for. */
#ifndef NM_MEDIA_CBDT_H
#define NM_MEDIA_CBDT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* Longest sequence of code points of one picture (families, flags of subdivisions). */
#define NM_EMOJI_MAX_CP 12

typedef struct nm_emoji {
    uint32_t cp[NM_EMOJI_MAX_CP]; /* one code point, or a sequence without U+FE0F */
    int n_cp;
    const unsigned char *png;     /* inside the font's bytes */
    size_t png_size;
} nm_emoji;

/* All pictures of the font, from cmap (format 12 or 4) and GSUB's ligatures, sorted: single code points first, then
 * sequences. *out is malloc'd; pictures point into `font`, which is hostile and must outlive them.
 *
 * Fonts repeat the joined sequences mirrored, for right-to-left text, and do not say which of the two is the proper one:
 * both are listed with the same picture. A list of names (CLDR) knows only the proper one. */
noema_status nm_emoji_list(nm_emoji **out, size_t *n, const void *font, size_t size, const char *name, noema_error *err);

/* "emoji_u1f468_200d_1f4bb.png" (noto-emoji's naming); at least 4 + 9 * NM_EMOJI_MAX_CP + 8 bytes. Returns its length. */
int nm_emoji_file_name(const nm_emoji *e, char name[160]);

/* Which pictures to write; nm_emoji_single, the default, takes single code points only. */
typedef bool nm_emoji_keep(void *arg, const nm_emoji *e);
bool nm_emoji_single(void *arg, const nm_emoji *e);

/* Writes the kept ones to out_dir (made if needed), at most `limit` (0: all). n_written may be NULL. */
noema_status nm_emoji_extract(const char *font_path, const char *out_dir, size_t limit, nm_emoji_keep *keep, void *arg,
                              size_t *n_written, noema_error *err);

#endif
