/* lower.h - lower case, a code point at a time. */
#ifndef NM_EVAL_LOWER_H
#define NM_EVAL_LOWER_H

#include <utf8proc.h>

#include "base/mem.h"
#include "base/utf8.h"

/* Appends what s[0..n) begins with, an invalid byte as it is; returns how many bytes that were. */
static inline size_t nm_put_lower(nm_buf *b, const char *s, size_t n)
{
    uint32_t cp;
    char out[4];
    size_t len = (size_t)nm_utf8_decode(s, n, &cp);
    if (cp == UINT32_MAX)
        nm_buf_append(b, s, len);
    else
        nm_buf_append(b, out, (size_t)nm_utf8_encode((uint32_t)utf8proc_tolower((utf8proc_int32_t)cp), out));
    return len;
}

#endif
