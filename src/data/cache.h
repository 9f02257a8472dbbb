/* cache.h - decoded parts of data files, kept while they are held and afterwards up to a limit of bytes (least recently used go first). */
#ifndef NM_CACHE_H
#define NM_CACHE_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

typedef struct nm_cache nm_cache;
typedef struct nm_cached { void *value; } nm_cached; /* the head of an entry */

nm_cache *nm_cache_new(size_t limit_bytes);
void nm_cache_free(nm_cache *c); /* nothing may be held */

typedef noema_status nm_cache_load_fn(void *arg, void **value, size_t *bytes, noema_error *err);
typedef void nm_cache_drop_fn(void *value);

/* The value of (owner, key): loaded by the first thread that asks while others of the same key wait. A failed load is not kept. */
noema_status nm_cache_get(nm_cache *c, const void *owner, uint64_t key, nm_cache_load_fn *load, nm_cache_drop_fn *drop, void *arg, nm_cached **held,
                          noema_error *err);
void nm_cache_release(nm_cache *c, nm_cached *held); /* NULL is fine */

#endif
