/* clean.c - the white-space and punctuation steps of the cleaning modes (openai/CLIP clip/simple_tokenizer.py, open_clip
 * src/open_clip/tokenizer.py, big_vision's canonicalize_text). */
#include "tokenizer/clean.h"

#include <string.h>

void nm_clean_strip(nm_u32 *a)
{
    size_t i = 0, j = a->n;
    while (i < j && nm_is_pyspace(a->p[i]))
        i++;
    while (j > i && nm_is_pyspace(a->p[j - 1]))
        j--;
    if (i)
        memmove(a->p, a->p + i, (j - i) * sizeof *a->p);
    a->n = j - i;
}

void nm_clean_whitespace(nm_u32 *a)
{
    size_t k = 0;
    bool gap = false;
    for (size_t i = 0; i < a->n; i++) {
        if (nm_is_pyspace(a->p[i])) {
            gap = k > 0;
            continue;
        }
        if (gap)
            a->p[k++] = ' ';
        gap = false;
        a->p[k++] = a->p[i];
    }
    a->n = k;
}

void nm_clean_punctuation(nm_u32 *a, bool underscore_to_space)
{
    size_t k = 0;
    for (size_t i = 0; i < a->n; i++) {
        uint32_t c = a->p[i];
        if (c == '_' && underscore_to_space)
            a->p[k++] = ' ';
        else if (!((c >= 0x21 && c <= 0x2F) || (c >= 0x3A && c <= 0x40) || (c >= 0x5B && c <= 0x60) ||
                   (c >= 0x7B && c <= 0x7E)))
            a->p[k++] = c;
    }
    a->n = k;
}
