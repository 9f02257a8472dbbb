/* names.h - lists of class names (noema/data.h) inside the library. */
#ifndef NM_NAMES_H
#define NM_NAMES_H

#include "noema/data.h"

const char *nm_names_wnid(const noema_names *l, size_t i); /* WordNet number of class i ("n01440764"), or NULL: the file has none */

#endif
