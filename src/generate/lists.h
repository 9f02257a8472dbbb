/* lists.h - noema's own short phrase lists (English), used when no folder of lists is given; one phrase per line. */
#ifndef NM_LISTS_H
#define NM_LISTS_H

/* artists, flavors, mediums, movements, (trendings: made, not listed), negative. */
extern const char *const nm_builtin_lists[6];

#endif
