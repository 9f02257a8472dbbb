/* utf8.h - UTF-8 decoding that never reads past the end and never accepts what the standard forbids. */
#ifndef NM_UTF8_H
#define NM_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Decodes one code point from s[0..n), n >= 1. Returns its length in bytes (1..4) and sets *cp; an invalid sequence gives
 * length 1 and *cp == UINT32_MAX (overlong forms, surrogates and values above U+10FFFF are invalid). */
int nm_utf8_decode(const char *s, size_t n, uint32_t *cp);

/* Writes cp (a scalar value) to out[0..4), returns the number of bytes. */
int nm_utf8_encode(uint32_t cp, char out[4]);

bool nm_utf8_valid(const char *s, size_t n);
size_t nm_utf8_count(const char *s, size_t n); /* code points; an invalid byte counts as one */

#endif
