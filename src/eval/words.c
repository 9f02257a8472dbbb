/* words.c - see captions.h. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "eval/captions.h"

static uint32_t slot_of(const nm_words *w, const char *s, size_t n)
{
    uint32_t i = (uint32_t)nm_hash64(s, n, 0) & (w->slots - 1);
    while (w->table[i] >= 0 && (strlen(w->word[w->table[i]]) != n || memcmp(w->word[w->table[i]], s, n) != 0))
        i = (i + 1) & (w->slots - 1);
    return i;
}

static bool grow(nm_words *w)
{
    uint32_t slots = w->slots ? 2 * w->slots : 1024;
    int32_t *table = nm_malloc_array(slots, sizeof *table), *old = w->table;
    char **word = nm_realloc_array(w->word, slots, sizeof *word);
    if (word)
        w->word = word;
    if (!table || !word) {
        free(table);
        return false;
    }
    memset(table, 0xFF, slots * sizeof *table);
    w->table = table;
    w->slots = slots;
    for (int32_t i = 0; i < w->n; i++)
        table[slot_of(w, w->word[i], strlen(w->word[i]))] = i;
    free(old);
    return true;
}

int32_t nm_words_find(const nm_words *w, const char *s, size_t n) { return w->slots ? w->table[slot_of(w, s, n)] : -1; }

int32_t nm_words_add(nm_words *w, const char *s, size_t n)
{
    if ((uint32_t)w->n >= w->slots / 2 && (w->n >= 1 << 28 || !grow(w)))
        return -1;
    uint32_t i = slot_of(w, s, n);
    if (w->table[i] >= 0)
        return w->table[i];
    if (!(w->word[w->n] = nm_strndup(s, n)))
        return -1;
    return w->table[i] = w->n++;
}

void nm_words_free(nm_words *w)
{
    for (int32_t i = 0; i < w->n; i++)
        free(w->word[i]);
    free(w->word);
    free(w->table);
    *w = (nm_words){ 0 };
}

void nm_sentence_free(nm_sentence *s)
{
    free(s->word);
    *s = (nm_sentence){ 0 };
}

static bool push(nm_sentence *s, int32_t *cap, nm_words *w, const char *p, size_t n)
{
    if (s->n == *cap) {
        int32_t more = *cap ? 2 * *cap : 16, *q = nm_realloc_array(s->word, (size_t)more, sizeof *q);
        if (!q)
            return false;
        s->word = q;
        *cap = more;
    }
    s->word[s->n] = nm_words_add(w, p, n);
    return s->word[s->n++] >= 0;
}

noema_status nm_sentence_split(nm_sentence *s, nm_words *w, const char *text, bool single, noema_error *err)
{
    int32_t cap = 0;
    bool ok = true;
    *s = (nm_sentence){ 0 };
    for (const char *p = text; ok;) {
        size_t n = single ? strcspn(p, " ") : strcspn(p, " \t\n\r\f\v");
        if (n || single)
            ok = push(s, &cap, w, p, n);
        if (!p[n])
            break;
        p += n + 1;
    }
    if (ok)
        return NOEMA_OK;
    nm_sentence_free(s);
    return nm_fail(err, NOEMA_E_MEMORY, "out of memory: words");
}

void nm_captions_free(nm_caption_set *c)
{
    for (int64_t i = 0; i < c->n; i++) {
        nm_sentence_free(&c->hyp[i]);
        nm_sentence_free(&c->hyp_single[i]);
        free(c->hyp_text[i]);
    }
    for (int64_t i = 0; i < c->n_refs; i++) {
        nm_sentence_free(&c->ref[i]);
        nm_sentence_free(&c->ref_single[i]);
        free(c->ref_text[i]);
    }
    free(c->hyp);
    free(c->ref);
    free(c->hyp_single);
    free(c->ref_single);
    free(c->hyp_text);
    free(c->ref_text);
    free(c->first);
    nm_words_free(&c->words);
    *c = (nm_caption_set){ 0 };
}

/* Room for one more sentence on one side. */
static bool reserve(nm_sentence **a, nm_sentence **b, char ***text, int64_t n, int64_t *cap)
{
    if (n < *cap)
        return true;
    int64_t more = *cap ? 2 * *cap : 256;
    void *p = nm_realloc_array(*a, (size_t)more, sizeof **a), *q, *r;
    if (p)
        *a = p;
    if ((q = nm_realloc_array(*b, (size_t)more, sizeof **b)))
        *b = q;
    if ((r = nm_realloc_array(*text, (size_t)more, sizeof **text)))
        *text = r;
    *cap = p && q && r ? more : *cap;
    return p && q && r;
}

static noema_status sentence(nm_caption_set *c, const char *text, bool ptb, nm_sentence *a, nm_sentence *single, char **kept, noema_error *err)
{
    nm_buf b = { 0 };
    if (ptb ? !nm_buf_puts(&b, "") || !nm_ptb_tokens(&b, text) : !nm_buf_puts(&b, text)) {
        nm_buf_free(&b);
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory: tokens");
    }
    *kept = nm_buf_take(&b);
    *single = (nm_sentence){ 0 };
    noema_status s = *kept ? nm_sentence_split(a, &c->words, *kept, false, err) : nm_fail(err, NOEMA_E_MEMORY, "out of memory: tokens");
    if (s == NOEMA_OK && (s = nm_sentence_split(single, &c->words, *kept, true, err)) != NOEMA_OK)
        nm_sentence_free(a);
    if (s != NOEMA_OK)
        free(*kept);
    return s;
}

noema_status nm_captions_add(nm_caption_set *c, const char *hyp, bool ptb, noema_error *err)
{
    int64_t *first = c->n % 256 == 0 ? nm_realloc_array(c->first, (size_t)c->n + 258, sizeof *first) : c->first;
    if (first)
        c->first = first;
    if (!first || !reserve(&c->hyp, &c->hyp_single, &c->hyp_text, c->n, &c->cap))
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory: captions");
    noema_status s = sentence(c, hyp, ptb, &c->hyp[c->n], &c->hyp_single[c->n], &c->hyp_text[c->n], err);
    if (s == NOEMA_OK) {
        c->first[c->n++] = c->n_refs;
        c->first[c->n] = c->n_refs;
    }
    return s;
}

noema_status nm_captions_reference(nm_caption_set *c, const char *ref, bool ptb, noema_error *err)
{
    if (!reserve(&c->ref, &c->ref_single, &c->ref_text, c->n_refs, &c->cap_refs))
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory: references");
    noema_status s = sentence(c, ref, ptb, &c->ref[c->n_refs], &c->ref_single[c->n_refs], &c->ref_text[c->n_refs], err);
    if (s == NOEMA_OK)
        c->first[c->n] = ++c->n_refs;
    return s;
}
