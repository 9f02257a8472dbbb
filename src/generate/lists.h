/* lists.h - noema's own short phrase lists (English and Korean), used when no folder of lists is given; one phrase per line. */
#ifndef NM_LISTS_H
#define NM_LISTS_H

enum { NM_LIST_LABELS = 6 };

/* What a language says around a name: pairs of front and back, ended by a NULL front. */
typedef struct nm_list_form { const char *front, *back; } nm_list_form;

typedef struct nm_lists {
    const char *language;               /* "en", "ko" */
    const nm_list_form *artists, *sites; /* labels of an artist's name; of a picture site's name */
    const char *text[NM_LIST_LABELS];   /* artists, flavors, mediums, movements, (trendings: made of the sites), negative */
} nm_lists;

/* NULL: there is none of this language. */
const nm_lists *nm_lists_find(const char *language);

#endif
