/* tokenizer.c - opening by form, the scratch, cleaning modes, and the public calls. */
#include "tokenizer/tokenizer.h"

#include <stdlib.h>

#include "base/file.h"
#include "base/utf8.h"

noema_tokenizer_options noema_tokenizer_options_default(void)
{
    return (noema_tokenizer_options){ .struct_size = sizeof(noema_tokenizer_options) };
}

void noema_tokenizer_free(noema_tokenizer *t)
{
    if (!t)
        return;
    nm_tok_clip_free(t->clip);
    free(t->name);
    free(t);
}

noema_tokenizer_scratch *noema_tokenizer_scratch_new(const noema_tokenizer *t)
{
    nm_tok_scratch *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->owner = t;
    s->cache = nm_calloc(NM_TOK_CACHE, sizeof *s->cache);
    if (!s->cache) {
        free(s);
        return NULL;
    }
    return s;
}

void noema_tokenizer_scratch_free(noema_tokenizer_scratch *s)
{
    if (!s)
        return;
    nm_u32_free(&s->a), nm_u32_free(&s->b), nm_u32_free(&s->c);
    nm_buf_free(&s->text), nm_buf_free(&s->word), nm_buf_free(&s->out);
    nm_bpe_work_free(&s->work);
    free(s->ids), free(s->sym), free(s->lattice), free(s->span), free(s->span2);
    nm_free(s->cache);
    free(s);
}

bool nm_tok_ids_reserve(nm_tok_scratch *s, size_t extra)
{
    size_t need, cap = s->cap_ids ? s->cap_ids : 256;
    if (!nm_add_size(s->n_ids, extra, &need))
        return false;
    if (need <= s->cap_ids)
        return true;
    while (cap < need)
        cap *= 2;
    int32_t *p = nm_realloc_array(s->ids, cap, sizeof *p);
    if (!p) {
        s->failed = true;
        return false;
    }
    s->ids = p, s->cap_ids = cap;
    return true;
}

int32_t *nm_tok_symbols(nm_tok_scratch *s, size_t n)
{
    if (n > s->cap_sym) {
        size_t cap = n < 256 ? 256 : n + n / 2;
        int32_t *p = nm_realloc_array(s->sym, cap, sizeof *p);
        if (!p) {
            s->failed = true;
            return NULL;
        }
        s->sym = p, s->cap_sym = cap;
    }
    return s->sym;
}

noema_status nm_tok_clean(nm_u32 *a, noema_tokenizer_clean mode, nm_u32 *tmp, noema_error *err)
{
    if (mode == NOEMA_CLEAN_NONE || mode == NOEMA_CLEAN_DEFAULT)
        return NOEMA_OK;
    noema_status st = nm_ftfy_fix(a, err);
    if (st)
        return st;
    nm_html_unescape(a, tmp);
    nm_html_unescape(a, tmp);
    nm_clean_strip(a);
    if (mode == NOEMA_CLEAN_CANONICALIZE) {
        nm_clean_punctuation(a, true);
        nm_lower_full(a, tmp);
        nm_clean_whitespace(a);
    } else {
        nm_clean_whitespace(a);
        if (mode == NOEMA_CLEAN_LOWER)
            nm_lower_full(a, tmp);
    }
    return a->failed || tmp->failed ? nm_fail(err, NOEMA_E_MEMORY, "text: out of memory") : NOEMA_OK;
}

noema_status nm_tok_clean_utf8(nm_tok_scratch *s, noema_tokenizer_clean mode, const char *text, size_t n, noema_error *err)
{
    noema_status st = nm_u32_from_utf8(&s->a, text, n, err);
    if (!st)
        st = nm_tok_clean(&s->a, mode, &s->b, err);
    if (st)
        return st;
    s->text.len = 0;
    if (!nm_utf8_from_u32(&s->text, s->a.p, s->a.n))
        return nm_fail(err, NOEMA_E_MEMORY, "text of %zu bytes: out of memory", n);
    return NOEMA_OK;
}

noema_status nm_tokenizer_open_memory(nm_tokenizer **out, const char *what, const void *data, size_t size,
                                      const nm_tok_options *options, noema_error *err)
{
    nm_tok_options o = options ? *options : noema_tokenizer_options_default();
    nm_tokenizer *t = calloc(1, sizeof *t);
    *out = NULL;
    if (!t)
        return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", what);
    t->id = (noema_tokenizer_ids){ -1, -1, -1, -1, -1, -1, -1, -1 };
    t->error_if_longer = o.error_if_longer, t->sep_to_zero = o.sep_to_zero;
    noema_status st = nm_tok_clip_open(t, what, data, size, &o, err);
    if (st) {
        noema_tokenizer_free(t);
        return st;
    }
    *out = t;
    return NOEMA_OK;
}

noema_status noema_tokenizer_open(noema_tokenizer **out, const char *path, const noema_tokenizer_options *options,
                                  noema_error *err)
{
    nm_map m;
    *out = NULL;
    noema_status st = nm_map_file(&m, path, err);
    if (st)
        return st;
    st = nm_tokenizer_open_memory(out, path, m.data, m.size, options, err);
    nm_unmap(&m);
    return st;
}

noema_status noema_tokenizer_encode(const noema_tokenizer *t, noema_tokenizer_scratch *s, const char *text, size_t n,
                                    const int32_t **ids, size_t *n_ids, noema_error *err)
{
    if (s->owner != t)
        return nm_fail(err, NOEMA_E_ARGUMENT, "tokenizer %s: the scratch belongs to another tokenizer", t->name);
    if (n > NM_TOK_TEXT_LIMIT)
        return nm_fail(err, NOEMA_E_LIMIT, "text: expected at most %d bytes, got %zu", NM_TOK_TEXT_LIMIT, n);
    s->n_ids = s->full_length = 0;
    s->failed = false;
    noema_status st = nm_tok_clip_encode(t, s, text, n, err);
    if (st)
        return st;
    if (s->failed)
        return nm_fail(err, NOEMA_E_MEMORY, "text of %zu bytes: out of memory", n);
    if (t->error_if_longer && t->context_length && s->full_length > (size_t)t->context_length)
        return nm_fail(err, NOEMA_E_LIMIT, "text: expected at most %d tokens, got %zu", t->context_length, s->full_length);
    *ids = s->ids, *n_ids = s->n_ids;
    return NOEMA_OK;
}

size_t noema_tokenizer_full_length(const noema_tokenizer_scratch *s)
{
    return s->full_length;
}

/* Copies in to out; every maximal ill-formed part becomes one U+FFFD (Python's and Rust's rule). */
static bool repair_utf8(nm_buf *out, const char *p, size_t n)
{
    for (size_t i = 0; i < n;) {
        uint32_t c;
        int k = nm_utf8_decode(p + i, n - i, &c);
        if (c != UINT32_MAX) {
            nm_buf_append(out, p + i, (size_t)k);
            i += (size_t)k;
            continue;
        }
        unsigned char b = (unsigned char)p[i++];
        size_t more = b >= 0xC2 && b <= 0xDF ? 1 : b >= 0xE0 && b <= 0xEF ? 2 : b >= 0xF0 && b <= 0xF4 ? 3 : 0;
        unsigned char lo = b == 0xE0 ? 0xA0 : b == 0xF0 ? 0x90 : 0x80, hi = b == 0xED ? 0x9F : b == 0xF4 ? 0x8F : 0xBF;
        for (; more && i < n && (unsigned char)p[i] >= lo && (unsigned char)p[i] <= hi; more--, lo = 0x80, hi = 0xBF)
            i++;
        nm_buf_append(out, "\xEF\xBF\xBD", 3);
    }
    return !out->failed;
}

noema_status noema_tokenizer_decode(const noema_tokenizer *t, noema_tokenizer_scratch *s, const int32_t *ids, size_t n_ids,
                                    int skip_special, const char **text, size_t *n, noema_error *err)
{
    if (s->owner != t)
        return nm_fail(err, NOEMA_E_ARGUMENT, "tokenizer %s: the scratch belongs to another tokenizer", t->name);
    s->out.len = 0;
    if (!nm_tok_clip_decode(t, s, ids, n_ids, skip_special != 0, err))
        return NOEMA_E_ARGUMENT;
    if (!nm_buf_reserve(&s->out, 1) || !repair_utf8(&s->out, s->text.data, s->text.len))
        return nm_fail(err, NOEMA_E_MEMORY, "decoding %zu ids: out of memory", n_ids);
    s->out.data[s->out.len] = 0;
    *text = s->out.data, *n = s->out.len;
    return NOEMA_OK;
}

static const nm_vocab *vocab_of(const noema_tokenizer *t)
{
    return nm_tok_clip_vocab(t->clip);
}

int noema_tokenizer_vocab_size(const noema_tokenizer *t)
{
    return (int)vocab_of(t)->n;
}

int noema_tokenizer_context_length(const noema_tokenizer *t)
{
    return t->context_length;
}

const char *noema_tokenizer_name(const noema_tokenizer *t)
{
    return t->name;
}

int32_t noema_tokenizer_token_id(const noema_tokenizer *t, const char *token, size_t n)
{
    return nm_vocab_find(vocab_of(t), token, n);
}

noema_tokenizer_ids noema_tokenizer_special_ids(const noema_tokenizer *t)
{
    return t->id;
}
