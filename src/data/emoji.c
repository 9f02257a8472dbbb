/* emoji.c - the emoji of an installed font as a small picture collection that every Debian machine has. */
#include "media/cbdt.h"
#include "noema/data.h"

noema_status noema_data_emoji(const char *font, const char *dir, size_t limit, size_t *n_written, noema_error *err)
{
    return nm_emoji_extract(font, dir, limit, nm_emoji_single, NULL, n_written, err);
}
