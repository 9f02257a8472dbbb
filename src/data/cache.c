/* cache.c - see cache.h. A hash table of entries; those that nobody holds stand in a list, the oldest first. */
#include "data/cache.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/hash.h"

#define BUCKETS 4096

typedef struct entry {
    nm_cached head; /* first: nm_cached * is entry * */
    const void *owner;
    uint64_t key;
    nm_cache_drop_fn *drop;
    size_t bytes;
    int holders;
    bool loading;
    struct entry *chain, *older, *newer;
} entry;

struct nm_cache {
    pthread_mutex_t lock;
    pthread_cond_t loaded;
    size_t limit, bytes;
    entry *bucket[BUCKETS];
    entry *oldest, *newest; /* not held */
};

nm_cache *nm_cache_new(size_t limit_bytes)
{
    nm_cache *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->limit = limit_bytes;
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->loaded, NULL);
    return c;
}

static entry **bucket_of(nm_cache *c, const void *owner, uint64_t key)
{
    const uint64_t both[2] = { (uint64_t)(uintptr_t)owner, key };
    return &c->bucket[nm_hash64(both, sizeof both, 0) % BUCKETS];
}

static void unlist(nm_cache *c, entry *e)
{
    *(e->older ? &e->older->newer : &c->oldest) = e->newer;
    *(e->newer ? &e->newer->older : &c->newest) = e->older;
    e->older = e->newer = NULL;
}

static void enlist(nm_cache *c, entry *e)
{
    e->older = c->newest;
    *(c->newest ? &c->newest->newer : &c->oldest) = e;
    c->newest = e;
}

/* Out of the table; the entry itself is gone too. */
static void discard(nm_cache *c, entry *e)
{
    entry **at = bucket_of(c, e->owner, e->key);
    while (*at != e)
        at = &(*at)->chain;
    *at = e->chain;
    c->bytes -= e->bytes;
    if (e->head.value)
        e->drop(e->head.value);
    free(e);
}

static void shrink(nm_cache *c)
{
    while (c->bytes > c->limit && c->oldest) {
        entry *e = c->oldest;
        unlist(c, e);
        discard(c, e);
    }
}

void nm_cache_free(nm_cache *c)
{
    if (!c)
        return;
    c->limit = 0;
    shrink(c);
    while (c->oldest) { /* entries of no bytes */
        entry *e = c->oldest;
        unlist(c, e);
        discard(c, e);
    }
    pthread_mutex_destroy(&c->lock);
    pthread_cond_destroy(&c->loaded);
    free(c);
}

static entry *find(nm_cache *c, const void *owner, uint64_t key)
{
    entry *e = *bucket_of(c, owner, key);
    while (e && (e->owner != owner || e->key != key))
        e = e->chain;
    return e;
}

noema_status nm_cache_get(nm_cache *c, const void *owner, uint64_t key, nm_cache_load_fn *load, nm_cache_drop_fn *drop, void *arg, nm_cached **held,
                          noema_error *err)
{
    *held = NULL;
    pthread_mutex_lock(&c->lock);
    entry *e = find(c, owner, key);
    while (e && e->loading) {
        pthread_cond_wait(&c->loaded, &c->lock);
        e = find(c, owner, key);
    }
    if (e) {
        if (e->holders++ == 0)
            unlist(c, e);
        pthread_mutex_unlock(&c->lock);
        *held = &e->head;
        return NOEMA_OK;
    }
    e = calloc(1, sizeof *e);
    if (!e) {
        pthread_mutex_unlock(&c->lock);
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory: data cache");
    }
    entry **at = bucket_of(c, owner, key);
    *e = (entry){ .owner = owner, .key = key, .drop = drop, .holders = 1, .loading = true, .chain = *at };
    *at = e;
    pthread_mutex_unlock(&c->lock);
    noema_status s = load(arg, &e->head.value, &e->bytes, err);
    pthread_mutex_lock(&c->lock);
    e->loading = false;
    if (s == NOEMA_OK) {
        c->bytes += e->bytes;
        *held = &e->head;
        shrink(c);
    } else {
        e->head.value = NULL;
        e->bytes = 0;
        discard(c, e);
    }
    pthread_cond_broadcast(&c->loaded);
    pthread_mutex_unlock(&c->lock);
    return s;
}

void nm_cache_release(nm_cache *c, nm_cached *held)
{
    entry *e = (entry *)held;
    if (!e)
        return;
    pthread_mutex_lock(&c->lock);
    if (--e->holders == 0)
        enlist(c, e);
    shrink(c);
    pthread_mutex_unlock(&c->lock);
}
