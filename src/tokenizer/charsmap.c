/* charsmap.c - the double array of Darts-clone (Susumu Yata): unit = label | value, offset and leaf bits; each index is
 * checked, because the table comes from a file. */
#include "tokenizer/charsmap.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

noema_status nm_charsmap_load(nm_charsmap *m, const void *blob, size_t size, const char *what, noema_error *err)
{
    const unsigned char *p = blob;
    *m = (nm_charsmap){ 0 };
    if (size == 0)
        return NOEMA_OK;
    uint32_t trie = size >= 4 ? p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24 : 0;
    if (size < 4 || trie > size - 4 || trie % 4 || trie < 4)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: normalisation table of %zu bytes: expected a trie inside it, got one of %u bytes",
                       what, size, trie);
    m->n_units = trie / 4, m->n_text = size - 4 - trie;
    m->unit = nm_malloc_array(m->n_units, sizeof *m->unit);
    m->text = malloc(m->n_text + 1);
    if (!m->unit || !m->text) {
        nm_charsmap_free(m);
        return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", what);
    }
    for (size_t i = 0; i < m->n_units; i++) {
        const unsigned char *u = p + 4 + 4 * i;
        m->unit[i] = u[0] | (uint32_t)u[1] << 8 | (uint32_t)u[2] << 16 | (uint32_t)u[3] << 24;
    }
    memcpy(m->text, p + 4 + trie, m->n_text);
    m->text[m->n_text] = 0;
    return NOEMA_OK;
}

void nm_charsmap_free(nm_charsmap *m)
{
    free(m->unit), free(m->text);
    *m = (nm_charsmap){ 0 };
}

static inline uint32_t offset_of(uint32_t u)
{
    return (u >> 10) << ((u & (1u << 9)) >> 6);
}

size_t nm_charsmap_find(const nm_charsmap *m, const char *s, size_t n, bool shortest, const char **to)
{
    size_t best = 0;
    if (!m->n_units)
        return 0;
    uint32_t pos = offset_of(m->unit[0]);
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        pos ^= c;
        if (c == 0 || pos >= m->n_units || (m->unit[pos] & 0x800000FFu) != c)
            break;
        uint32_t u = m->unit[pos];
        pos ^= offset_of(u);
        if (u >> 8 & 1 && pos < m->n_units) {
            uint32_t at = m->unit[pos] & 0x7FFFFFFFu;
            if (at > m->n_text)
                break;
            *to = m->text + at;
            best = i + 1;
            if (shortest)
                break;
        }
        if (pos >= m->n_units)
            break;
    }
    return best;
}
