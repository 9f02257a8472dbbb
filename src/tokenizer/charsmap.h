/* charsmap.h - SentencePiece's precompiled normalisation table: a Darts double-array trie from UTF-8 to replacements. */
#ifndef NM_TOK_CHARSMAP_H
#define NM_TOK_CHARSMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

typedef struct nm_charsmap {
    uint32_t *unit; /* n_units of the trie */
    size_t n_units;
    char *text;     /* replacements, each NUL-terminated; one more NUL at the end */
    size_t n_text;
} nm_charsmap;

/* Copies the blob: u32 size of the trie, the trie, the strings. An empty blob is the identity. */
noema_status nm_charsmap_load(nm_charsmap *m, const void *blob, size_t size, const char *what, noema_error *err);
void nm_charsmap_free(nm_charsmap *m);

/* Replacement of the longest (or shortest) prefix of s[0..n) in the table; returns the prefix's length, 0: none. */
size_t nm_charsmap_find(const nm_charsmap *m, const char *s, size_t n, bool shortest, const char **to);

#endif
