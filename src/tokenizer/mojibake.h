/* mojibake.h - the half of ftfy that repairs text decoded in the wrong encoding (used by ftfy.c). */
#ifndef NM_TOK_MOJIBAKE_H
#define NM_TOK_MOJIBAKE_H

#include "tokenizer/text.h"

/* ftfy.fix_encoding: repairs until nothing changes. Returns false when `rounds` (counted down) ran out. */
bool nm_fix_encoding(nm_u32 *a, long *rounds);

void nm_fix_c1(nm_u32 *a); /* U+0080..U+009F as windows-1252 bytes */

#endif
