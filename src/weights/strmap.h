/* strmap.h - from byte strings to 32-bit values: open addressing, keys borrowed. */
#ifndef NM_STRMAP_H
#define NM_STRMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NM_STRMAP_NONE UINT32_MAX

typedef struct nm_strmap_slot { const char *key; uint32_t len, value; uint64_t hash; } nm_strmap_slot;
typedef struct nm_strmap { nm_strmap_slot *slot; size_t n, n_slots; } nm_strmap;

uint32_t nm_strmap_get(const nm_strmap *m, const char *key, size_t len); /* NM_STRMAP_NONE: not there */
/* 1: added, 0: the key is there already (unchanged), -1: out of memory. */
int nm_strmap_add(nm_strmap *m, const char *key, size_t len, uint32_t value);
void nm_strmap_free(nm_strmap *m);

#endif
