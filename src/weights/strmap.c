/* strmap.c - see strmap.h. Linear probing, at most half full. */
#include "weights/strmap.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"

static nm_strmap_slot *probe(nm_strmap_slot *slot, size_t n_slots, const char *key, size_t len, uint64_t hash)
{
    size_t i = hash & (n_slots - 1);
    while (slot[i].key && (slot[i].hash != hash || slot[i].len != len || memcmp(slot[i].key, key, len) != 0))
        i = (i + 1) & (n_slots - 1);
    return &slot[i];
}

uint32_t nm_strmap_get(const nm_strmap *m, const char *key, size_t len)
{
    if (!m->n_slots)
        return NM_STRMAP_NONE;
    const nm_strmap_slot *s = probe(m->slot, m->n_slots, key, len, nm_hash64(key, len, 0));
    return s->key ? s->value : NM_STRMAP_NONE;
}

static bool grow(nm_strmap *m)
{
    size_t n = m->n_slots ? m->n_slots * 2 : 64;
    nm_strmap_slot *slot = calloc(n, sizeof *slot);
    if (!slot)
        return false;
    for (size_t i = 0; i < m->n_slots; i++)
        if (m->slot[i].key)
            *probe(slot, n, m->slot[i].key, m->slot[i].len, m->slot[i].hash) = m->slot[i];
    free(m->slot);
    m->slot = slot;
    m->n_slots = n;
    return true;
}

int nm_strmap_add(nm_strmap *m, const char *key, size_t len, uint32_t value)
{
    if (len > UINT32_MAX || ((m->n + 1) * 2 > m->n_slots && !grow(m)))
        return -1;
    uint64_t hash = nm_hash64(key, len, 0);
    nm_strmap_slot *s = probe(m->slot, m->n_slots, key, len, hash);
    if (s->key)
        return 0;
    *s = (nm_strmap_slot){ key, (uint32_t)len, value, hash };
    m->n++;
    return 1;
}

void nm_strmap_free(nm_strmap *m)
{
    free(m->slot);
    *m = (nm_strmap){ 0 };
}
