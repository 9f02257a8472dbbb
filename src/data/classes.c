/* classes.c - names of classes and their numbers. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "data/classes.h"

#define MAX_CLASSES ((int64_t)1 << 24)

void nm_classes_free(nm_classes *c)
{
    for (int64_t i = 0; i < c->n; i++)
        free(c->name[i]);
    free(c->name);
    free(c->table);
    *c = (nm_classes){ 0 };
}

static int64_t *slot_of(const nm_classes *c, const char *name, size_t n)
{
    for (uint64_t h = nm_hash64(name, n, 0);; h++) {
        int64_t *s = &c->table[h & (uint64_t)(c->size - 1)];
        if (*s < 0 || (strlen(c->name[*s]) == n && memcmp(c->name[*s], name, n) == 0))
            return s;
    }
}

static bool grow(nm_classes *c)
{
    int64_t size = c->size ? 2 * c->size : 64;
    int64_t *table = nm_malloc_array((size_t)size, sizeof *table);
    char **name = nm_realloc_array(c->name, (size_t)size / 2, sizeof *name);
    if (name)
        c->name = name;
    if (!table || !name) {
        free(table);
        return false;
    }
    free(c->table);
    c->table = table;
    c->size = size;
    for (int64_t i = 0; i < size; i++)
        table[i] = -1;
    for (int64_t i = c->n; i-- > 0;) /* of equal names the first one counts */
        *slot_of(c, c->name[i], strlen(c->name[i])) = i;
    return true;
}

int64_t nm_classes_find(const nm_classes *c, const char *name, size_t n)
{
    return c->size ? *slot_of(c, name, n) : -1;
}

int64_t nm_classes_add(nm_classes *c, const char *name, size_t n)
{
    if (c->n == MAX_CLASSES || (2 * c->n >= c->size && !grow(c)) || !(c->name[c->n] = nm_strndup(name, n)))
        return -1;
    int64_t *s = slot_of(c, name, n);
    if (*s < 0)
        *s = c->n;
    return c->n++;
}
