/* classes.h - a table of names, numbered from 0. */
#ifndef NM_CLASSES_H
#define NM_CLASSES_H

#include <stddef.h>
#include <stdint.h>

typedef struct nm_classes {
    char **name;
    int64_t n;
    int64_t *table, size; /* open addressing; size is a power of two above 2n */
} nm_classes;

int64_t nm_classes_find(const nm_classes *c, const char *name, size_t n); /* -1: not there */
int64_t nm_classes_add(nm_classes *c, const char *name, size_t n);        /* its number; -1: out of memory or too many */
void nm_classes_free(nm_classes *c);

#endif
