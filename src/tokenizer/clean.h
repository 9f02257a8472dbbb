/* clean.h - what reference tokenizers do to a text before they split it: html.unescape, ftfy.fix_text and the cleaning
 * modes of openai/CLIP and open_clip. Everything works in place on code points; `tmp` arrays are the caller's scratch. */
#ifndef NM_TOK_CLEAN_H
#define NM_TOK_CLEAN_H

#include "tokenizer/text.h"

/* Python's html.unescape: all references of the HTML standard, with or without ';', once. */
void nm_html_unescape(nm_u32 *a, nm_u32 *tmp);

/* ftfy's stricter variant: only names that end with ';', all-caps forms of lower-case names, and numbers. */
void nm_ftfy_unescape(nm_u32 *a, nm_u32 *tmp);

/* ftfy 6.3.1 fix_text with its defaults. NOEMA_E_LIMIT when a text needs more rounds of repair than its length allows
 * (thousands of nested entities), NOEMA_E_MEMORY. */
noema_status nm_ftfy_fix(nm_u32 *a, noema_error *err);
bool nm_ftfy_is_bad(const uint32_t *p, size_t n); /* looks like mojibake (ftfy.badness.is_bad) */

/* windows-1252 of the bytes 80..9F (unassigned ones: themselves); what numeric references in that range mean. */
extern const uint16_t nm_cp1252[32];

/* Steps of the cleaning modes. */
void nm_clean_strip(nm_u32 *a);           /* str.strip() */
void nm_clean_whitespace(nm_u32 *a);      /* " ".join(text.split()) */
void nm_clean_punctuation(nm_u32 *a, bool underscore_to_space); /* deletes string.punctuation */

#endif
