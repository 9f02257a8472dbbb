/* tokenizer.c - opening by form, the scratch, cleaning modes, and the public calls. */
#include "tokenizer/tokenizer.h"

#include <stdlib.h>

#include "base/file.h"
#include "base/utf8.h"
#include "tokenizer/pipe.h"
#include "tokenizer/spm.h"

noema_tokenizer_options noema_tokenizer_options_default(void)
{
    return (noema_tokenizer_options){ .struct_size = sizeof(noema_tokenizer_options) };
}

void noema_tokenizer_free(noema_tokenizer *t)
{
    if (!t)
        return;
    nm_tok_clip_free(t->clip);
    nm_tok_pipe_free(t->pipe);
    nm_spm_free(t->spm);
    free(t->spm);
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
    nm_buf_free(&s->text), nm_buf_free(&s->word), nm_buf_free(&s->out), nm_buf_free(&s->cleaned);
    nm_bpe_work_free(&s->work);
    free(s->ids), free(s->sym), free(s->lattice), free(s->span), free(s->span2), free(s->offset), free(s->origin);
    nm_free(s->cache);
    free(s);
}

bool nm_tok_ids_reserve(nm_tok_scratch *s, size_t extra)
{
    size_t need, cap = s->cap_ids ? s->cap_ids : 256;
    if (!nm_add_size(s->n_ids, extra, &need))
        return false;
    if (need <= s->cap_ids && s->ids)
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

/* transformers' BasicTokenizer(strip_accents=False, do_split_on_punc=False): controls dropped, CJK characters set apart. */
static void clean_basic(nm_u32 *a, nm_u32 *tmp)
{
    tmp->n = 0;
    for (size_t i = 0; i < a->n; i++) {
        uint32_t c = a->p[i];
        bool keep = c == '\t' || c == '\n' || c == '\r';
        if (c == 0 || c == 0xFFFD || (!keep && nm_cat(c) & NM_CAT_C))
            continue;
        if (nm_is_cjk(c)) {
            nm_u32_put(tmp, ' '), nm_u32_put(tmp, c), nm_u32_put(tmp, ' ');
            continue;
        }
        nm_u32_put(tmp, c);
    }
    nm_u32_swap(a, tmp);
    nm_text_norm(a, NM_NFC, tmp);
    nm_clean_whitespace(a);
    nm_lower_full(a, tmp);
}

noema_status nm_tok_clean(nm_u32 *a, int mode, nm_u32 *tmp, noema_error *err)
{
    noema_status st;
    switch (mode) {
    case NOEMA_CLEAN_NONE:
    case NOEMA_CLEAN_DEFAULT: return NOEMA_OK;
    case NM_CLEAN_BASIC: clean_basic(a, tmp); break;
    case NM_CLEAN_LOWER_ONLY: nm_lower_per_char(a, tmp); break;
    case NM_CLEAN_SIGLIP:
    case NM_CLEAN_SIGLIP_CASED:
        if (mode == NM_CLEAN_SIGLIP)
            nm_lower_full(a, tmp);
        nm_clean_punctuation(a, false);
        nm_clean_whitespace(a);
        break;
    default:
        st = nm_ftfy_fix(a, err);
        if (st)
            return st;
        if (mode != NM_CLEAN_FTFY) {
            nm_html_unescape(a, tmp);
            nm_html_unescape(a, tmp);
            nm_clean_strip(a);
        }
        if (mode == NOEMA_CLEAN_CANONICALIZE) {
            nm_clean_punctuation(a, true);
            nm_lower_full(a, tmp);
        }
        nm_clean_whitespace(a);
        if (mode == NOEMA_CLEAN_LOWER || mode == NM_CLEAN_FTFY)
            nm_lower_full(a, tmp);
    }
    return a->failed || tmp->failed ? nm_fail(err, NOEMA_E_MEMORY, "text: out of memory") : NOEMA_OK;
}

noema_status nm_tok_clean_utf8(nm_tok_scratch *s, int mode, const char *text, size_t n, noema_error *err)
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

enum form { F_CLIP, F_VOCAB, F_JSON, F_SPM };

/* What the bytes are, where neither the kind nor the name says it. */
static enum form form_of(const char *what, const unsigned char *p, size_t n, noema_tokenizer_kind kind)
{
    size_t i = 0;
    switch (kind) {
    case NOEMA_TOKENIZER_OPENAI:
    case NOEMA_TOKENIZER_OPEN_CLIP: return F_CLIP;
    case NOEMA_TOKENIZER_BERT:
    case NOEMA_TOKENIZER_FLIP: return F_VOCAB;
    case NOEMA_TOKENIZER_SPM: return F_SPM;
    default: break;
    }
    while (i < n && (p[i] == ' ' || p[i] == '\n' || p[i] == '\r' || p[i] == '\t'))
        i++;
    if (i < n && p[i] == '{')
        return F_JSON;
    if (kind != NOEMA_TOKENIZER_AUTO || nm_has_suffix(what, ".model") || nm_has_suffix(what, ".spm"))
        return F_SPM;
    if ((n > 2 && p[0] == 0x1F && p[1] == 0x8B) || nm_has_suffix(what, ".gz"))
        return F_CLIP;
    if (nm_has_suffix(what, "vocab.txt") || strncmp(nm_path_base(what), "vocab", 5) == 0)
        return F_VOCAB;
    if (n > 2 && p[0] == 0x0A && memchr(p, 0, n < 64 ? n : 64))
        return F_SPM;
    return memchr(p, ' ', n < 256 ? n : 256) || n == 0 ? F_CLIP : F_VOCAB; /* merges have a space in each line */
}

/* Special tokens behind the last id. */
static noema_status add_extra(nm_tokenizer *t, const char *what, const nm_tok_options *o, noema_error *err)
{
    if (!o->n_extra_tokens)
        return NOEMA_OK;
    if (!t->pipe)
        return nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: tokenizer %s takes no extra tokens", what, t->name);
    for (size_t k = 0; k < o->n_extra_tokens; k++) {
        const char *s = o->extra_tokens[k];
        int32_t id = nm_pipe_id(t->pipe, s, strlen(s));
        noema_status st = nm_pipe_add_token(t->pipe, what, s, strlen(s), id >= 0 ? id : ++t->pipe->max_id, NM_T_SPECIAL, err);
        if (st)
            return st;
    }
    return nm_pipe_build_added(t) ? NOEMA_OK : nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", what);
}

static noema_status open_json(nm_tokenizer *t, const char *what, const void *data, size_t size, const nm_tok_options *o,
                              noema_error *err)
{
    json_t *root = nm_json_parse(data, size, what, err);
    if (!root)
        return err && err->code ? err->code : NOEMA_E_FORMAT;
    t->name = nm_strdup("tokenizer.json");
    noema_status st = t->name ? nm_tok_pipe_load(t, what, root, err) : nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", what);
    json_decref(root);
    if (!st && o->kind == NOEMA_TOKENIZER_SIGLIP && !t->clean)
        t->clean = NOEMA_CLEAN_CANONICALIZE;
    return st;
}

/* Options that hold for every form. */
static noema_status finish(nm_tokenizer *t, const char *what, const nm_tok_options *o, noema_error *err)
{
    if (o->clean)
        t->clean = (int)o->clean;
    if (o->context_length)
        t->context_length = o->context_length;
    t->error_if_longer = o->error_if_longer, t->sep_to_zero = o->sep_to_zero;
    for (size_t k = 0; t->pipe && o->flavor >= NOEMA_FLAVOR_HF4_SLOW && k < t->pipe->norm.n; k++)
        t->pipe->norm.p[k].python = true;
    return add_extra(t, what, o, err);
}

static noema_status check_options(const nm_tok_options *o, noema_error *err)
{
    if (o->kind < NOEMA_TOKENIZER_AUTO || o->kind > NOEMA_TOKENIZER_SIGLIP || o->clean < NOEMA_CLEAN_DEFAULT ||
        o->clean > NOEMA_CLEAN_CANONICALIZE || o->context_length < 0 || o->context_length > 1 << 24 ||
        o->flavor < NOEMA_FLAVOR_CURRENT || o->flavor > NOEMA_FLAVOR_HF4_SLOW_NO_FTFY)
        return nm_fail(err, NOEMA_E_ARGUMENT, "tokenizer options: kind %d, cleaning %d, context length %d, flavor %d: out of range",
                       (int)o->kind, (int)o->clean, o->context_length, (int)o->flavor);
    return NOEMA_OK;
}

static noema_status new_tokenizer(nm_tokenizer **t, const nm_tok_options *options, nm_tok_options *o, noema_error *err)
{
    *o = options ? *options : noema_tokenizer_options_default();
    noema_status st = check_options(o, err);
    *t = st ? NULL : calloc(1, sizeof **t);
    if (!*t)
        return st ? st : nm_fail(err, NOEMA_E_MEMORY, "tokenizer: out of memory");
    (*t)->id = (noema_tokenizer_ids){ -1, -1, -1, -1, -1, -1, -1, -1 };
    return NOEMA_OK;
}

noema_status nm_tokenizer_open_memory(nm_tokenizer **out, const char *what, const void *data, size_t size,
                                      const nm_tok_options *options, noema_error *err)
{
    nm_tok_options o;
    nm_tokenizer *t;
    *out = NULL;
    noema_status st = new_tokenizer(&t, options, &o, err);
    if (st)
        return st;
    switch (form_of(what, data, size, o.kind)) {
    case F_CLIP: st = nm_tok_clip_open(t, what, data, size, &o, err); break;
    case F_VOCAB: st = nm_tok_bert_open(t, what, data, size, &o, err); break;
    case F_JSON: st = open_json(t, what, data, size, &o, err); break;
    default: st = nm_tok_spm_open(t, what, data, size, &o, err); break;
    }
    if (!st)
        st = finish(t, what, &o, err);
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
    nm_tok_options o;
    nm_tokenizer *t;
    nm_map m;
    noema_status st;
    *out = NULL;
    if (nm_dir_exists(path)) {
        st = new_tokenizer(&t, options, &o, err);
        if (!st)
            st = nm_tok_folder_open(t, path, &o, err);
        if (!st)
            st = finish(t, path, &o, err);
        if (!st)
            *out = t;
        else
            noema_tokenizer_free(t);
        return st;
    }
    st = nm_map_file(&m, path, err);
    if (st)
        return st;
    if (m.size > NM_TOK_FILE_LIMIT)
        st = nm_fail(err, NOEMA_E_LIMIT, "%s: expected a tokenizer of at most %d bytes, got %zu", path, NM_TOK_FILE_LIMIT, m.size);
    else
        st = nm_tokenizer_open_memory(out, path, m.data ? (const void *)m.data : "", m.size, options, err);
    nm_unmap(&m);
    return st;
}

static noema_status encode(const nm_tokenizer *t, nm_tok_scratch *s, const char *text, size_t n, noema_error *err)
{
    if (t->clip)
        return nm_tok_clip_encode(t, s, text, n, err);
    if (t->clean > NOEMA_CLEAN_NONE) {
        noema_status st = nm_tok_clean_utf8(s, t->clean, text, n, err);
        if (st)
            return st;
        nm_buf b = s->cleaned;
        s->cleaned = s->text, s->text = b;
        text = s->cleaned.data, n = s->cleaned.len;
    } else if (!nm_utf8_valid(text, n)) {
        return nm_tok_bad_utf8(text, n, err);
    }
    return t->pipe ? nm_tok_pipe_encode(t, s, text, n, err) : nm_tok_spm_encode(t, s, text, n, err);
}

noema_status noema_tokenizer_encode(const noema_tokenizer *t, noema_tokenizer_scratch *s, const char *text, size_t n,
                                    const int32_t **ids, size_t *n_ids, noema_error *err)
{
    if (s->owner != t)
        return nm_fail(err, NOEMA_E_ARGUMENT, "tokenizer %s: the scratch belongs to another tokenizer", t->name);
    if (n > NM_TOK_TEXT_LIMIT)
        return nm_fail(err, NOEMA_E_LIMIT, "text: expected at most %d bytes, got %zu", NM_TOK_TEXT_LIMIT, n);
    s->n_ids = s->full_length = 0;
    s->failed = s->a.failed = s->b.failed = false;
    s->text.failed = s->word.failed = s->out.failed = s->cleaned.failed = false;
    noema_status st = encode(t, s, n ? text : "", n, err);
    if (st)
        return st;
    if (s->failed)
        return nm_fail(err, NOEMA_E_MEMORY, "text of %zu bytes: out of memory", n);
    if (t->error_if_longer && t->context_length && s->full_length > (size_t)t->context_length)
        return nm_fail(err, NOEMA_E_LIMIT, "text: expected at most %d tokens, got %zu", t->context_length, s->full_length);
    for (size_t k = 0; t->sep_to_zero && k < s->n_ids; k++)
        s->ids[k] = s->ids[k] == t->id.sep ? 0 : s->ids[k];
    if (!s->ids && !nm_tok_ids_reserve(s, 1))
        return nm_fail(err, NOEMA_E_MEMORY, "text of %zu bytes: out of memory", n);
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
    noema_status st = NOEMA_OK;
    s->out.len = 0;
    s->text.failed = s->out.failed = false;
    if (t->clip)
        st = nm_tok_clip_decode(t, s, ids, n_ids, skip_special != 0, err) ? NOEMA_OK : NOEMA_E_ARGUMENT;
    else if (t->pipe)
        st = nm_tok_pipe_decode(t, s, ids, n_ids, skip_special != 0, err);
    else
        st = nm_tok_spm_decode(t, s, ids, n_ids, skip_special != 0, err);
    if (st)
        return st;
    if (!nm_buf_reserve(&s->out, 1) || !repair_utf8(&s->out, s->text.data, s->text.len))
        return nm_fail(err, NOEMA_E_MEMORY, "decoding %zu ids: out of memory", n_ids);
    s->out.data[s->out.len] = 0;
    *text = s->out.data, *n = s->out.len;
    return NOEMA_OK;
}

int noema_tokenizer_vocab_size(const noema_tokenizer *t)
{
    return t->clip ? (int)nm_tok_clip_vocab(t->clip)->n : t->pipe ? t->pipe->max_id + 1 : t->spm->vocab_size;
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
    if (t->clip)
        return nm_vocab_find(nm_tok_clip_vocab(t->clip), token, n);
    return t->pipe ? nm_pipe_id(t->pipe, token, n) : nm_tok_spm_id(t->spm, token, n);
}

noema_tokenizer_ids noema_tokenizer_special_ids(const noema_tokenizer *t)
{
    return t->id;
}
