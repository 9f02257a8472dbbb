/* pipe_json.c - the object form of a tokenizer.json (huggingface/tokenizers) to a pipeline. Every type that is not known is
 * refused by name: a step that was skipped in silence would give other ids. */
#include <stdlib.h>

#include "base/utf8.h"
#include "tokenizer/pipe.h"

enum { MAX_STEPS = 64 };

typedef struct loader { nm_tok_pipe *p; const char *what; noema_error *err; } loader;

static void step_free(nm_step *st)
{
    nm_u32_free(&st->pat), nm_u32_free(&st->to);
    nm_regex_free(st->re);
    free(st->text), free(st->text2);
    nm_charsmap_free(&st->map);
}

void nm_steps_free(nm_steps *s)
{
    for (size_t k = 0; k < s->n; k++)
        step_free(&s->p[k]);
    free(s->p);
    *s = (nm_steps){ 0 };
}

void nm_tok_pipe_free(nm_tok_pipe *p)
{
    if (!p)
        return;
    nm_steps_free(&p->norm), nm_steps_free(&p->pre), nm_steps_free(&p->dec);
    nm_vocab_free(&p->vocab), nm_vocab_free(&p->added_vocab);
    nm_bpe_free(&p->bpe);
    free(p->sub_prefix), free(p->end_suffix);
    nm_unigram_free(&p->uni);
    for (size_t k = 0; k < p->n_added; k++)
        free(p->added[k].content);
    free(p->added);
    nm_trie_free(&p->raw), nm_trie_free(&p->normal);
    free(p);
}

/* A new zeroed step at the end of the list; NULL (with an error) when there are too many. */
static nm_step *add_step(loader *l, nm_steps *s, int type)
{
    if (s->n >= MAX_STEPS) {
        nm_fail(l->err, NOEMA_E_LIMIT, "%s: more than %d steps in a row", l->what, MAX_STEPS);
        return NULL;
    }
    nm_step *p = nm_realloc_array(s->p, s->n + 1, sizeof *p);
    if (!p) {
        nm_fail(l->err, NOEMA_E_MEMORY, "%s: out of memory", l->what);
        return NULL;
    }
    s->p = p;
    p[s->n] = (nm_step){ .type = (uint8_t)type };
    return &p[s->n++];
}

static bool refuse(loader *l, const char *part, const char *type)
{
    nm_fail(l->err, NOEMA_E_UNSUPPORTED, "%s: %s \"%s\" is not supported", l->what, part, type);
    return false;
}

static bool bad(loader *l, const char *part, const char *expected)
{
    nm_fail(l->err, NOEMA_E_FORMAT, "%s: %s: expected %s", l->what, part, expected);
    return false;
}

static bool chars(loader *l, const json_t *v, nm_u32 *out)
{
    if (!json_is_string(v))
        return bad(l, "content", "a string");
    return nm_u32_from_utf8(out, json_string_value(v), json_string_length(v), l->err) == NOEMA_OK;
}

static bool one_char(loader *l, const json_t *o, const char *key, uint32_t *c)
{
    json_t *v = nm_json_get(o, key);
    if (!json_is_string(v) || nm_utf8_count(json_string_value(v), json_string_length(v)) != 1)
        return bad(l, key, "a single character");
    nm_utf8_decode(json_string_value(v), json_string_length(v), c);
    return true;
}

/* {"String": s} or {"Regex": s}, or the string alone (old files). */
static bool pattern(loader *l, const json_t *o, nm_step *st)
{
    json_t *v = nm_json_get(o, "pattern"), *re = nm_json_get(v, "Regex"), *str = nm_json_get(v, "String");
    if (json_is_string(re)) {
        st->fast = (uint8_t)nm_fast_pattern(json_string_value(re), json_string_length(re));
        return nm_regex_new(&st->re, json_string_value(re), json_string_length(re), l->what, l->err) == NOEMA_OK;
    }
    return chars(l, json_is_string(v) ? v : str, &st->pat);
}

static const char *type_of(const json_t *o)
{
    return nm_json_str(o, "type", "");
}

static bool base64(const char *s, size_t n, nm_buf *out)
{
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    signed char at[256];
    memset(at, -1, sizeof at);
    for (int i = 0; i < 64; i++)
        at[(unsigned char)alphabet[i]] = (signed char)i;
    uint32_t acc = 0;
    int bits = 0;
    if (!nm_buf_reserve(out, n / 4 * 3 + 4))
        return false;
    while (n && s[n - 1] == '=')
        n--;
    for (size_t i = 0; i < n; i++) {
        if (at[(unsigned char)s[i]] < 0)
            return false;
        acc = acc << 6 | (uint32_t)at[(unsigned char)s[i]], bits += 6;
        if (bits >= 8)
            bits -= 8, out->data[out->len++] = (char)(acc >> bits & 0xFF);
    }
    return true;
}

static bool load_charsmap(loader *l, const json_t *o, nm_step *st)
{
    json_t *v = nm_json_get(o, "precompiled_charsmap");
    nm_buf b = { 0 };
    bool ok = !v || (json_is_string(v) && base64(json_string_value(v), json_string_length(v), &b));
    if (!ok)
        bad(l, "precompiled_charsmap", "base64");
    ok = ok && nm_charsmap_load(&st->map, b.data, b.len, l->what, l->err) == NOEMA_OK;
    nm_buf_free(&b);
    return ok;
}

static bool normalizer(loader *l, const json_t *o, int depth)
{
    static const char *const forms[] = { "NFC", "NFD", "NFKC", "NFKD" };
    const char *t = type_of(o);
    nm_steps *s = &l->p->norm;
    nm_step *st;
    if (!o)
        return true;
    if (strcmp(t, "Sequence") == 0) {
        json_t *list = nm_json_get(o, "normalizers"), *v;
        size_t k;
        if (!json_is_array(list) || depth > 8)
            return bad(l, "normalizer", "a list \"normalizers\"");
        json_array_foreach(list, k, v)
            if (!normalizer(l, v, depth + 1))
                return false;
        return true;
    }
    for (int f = 0; f < 4; f++)
        if (strcmp(t, forms[f]) == 0) {
            if (!(st = add_step(l, s, NM_N_FORM)))
                return false;
            st->form = (uint8_t)f;
            return true;
        }
    if (strcmp(t, "Lowercase") == 0)
        return add_step(l, s, NM_N_LOWER) != NULL;
    if (strcmp(t, "StripAccents") == 0)
        return add_step(l, s, NM_N_MARKS) != NULL;
    if (strcmp(t, "Nmt") == 0)
        return add_step(l, s, NM_N_NMT) != NULL;
    if (strcmp(t, "ByteLevel") == 0)
        return add_step(l, s, NM_N_BYTES) != NULL;
    if (strcmp(t, "BertNormalizer") == 0) {
        if (!(st = add_step(l, s, NM_N_BERT)))
            return false;
        st->clean = nm_json_bool(o, "clean_text", true);
        st->chinese = nm_json_bool(o, "handle_chinese_chars", true);
        st->lower = nm_json_bool(o, "lowercase", true);
        st->accents = nm_json_bool(o, "strip_accents", st->lower);
        return true;
    }
    if (strcmp(t, "Replace") == 0)
        return (st = add_step(l, s, NM_N_REPLACE)) && pattern(l, o, st) && chars(l, nm_json_get(o, "content"), &st->to);
    if (strcmp(t, "Prepend") == 0)
        return (st = add_step(l, s, NM_N_PREPEND)) && chars(l, nm_json_get(o, "prepend"), &st->to);
    if (strcmp(t, "Strip") == 0) {
        if (!(st = add_step(l, s, NM_N_STRIP)))
            return false;
        st->left = nm_json_bool(o, "strip_left", true), st->right = nm_json_bool(o, "strip_right", true);
        return true;
    }
    if (strcmp(t, "Precompiled") == 0)
        return (st = add_step(l, s, NM_N_CHARSMAP)) && load_charsmap(l, o, st);
    if (strcmp(t, "noema.Canonicalize") == 0) { /* SiglipTokenizer, see hf_folder.c */
        if (!(st = add_step(l, s, NM_N_CANON)))
            return false;
        st->lower = nm_json_bool(o, "lowercase", true);
        return true;
    }
    return refuse(l, "normalizer", t);
}

static bool behavior(loader *l, const json_t *o, nm_step *st)
{
    static const char *const names[] = { "Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous" };
    const char *b = nm_json_str(o, "behavior", "Isolated");
    for (int k = 0; k < 5; k++)
        if (strcmp(b, names[k]) == 0) {
            st->behavior = (uint8_t)k;
            return true;
        }
    return refuse(l, "split behavior", b);
}

/* Metaspace as pre-tokeniser and decoder; files before 0.14 say add_prefix_space. */
static bool metaspace(loader *l, const json_t *o, nm_step *st)
{
    const char *scheme = nm_json_str(o, "prepend_scheme", nm_json_bool(o, "add_prefix_space", true) ? "always" : "never");
    st->scheme = strcmp(scheme, "always") == 0 ? 2 : strcmp(scheme, "first") == 0 ? 1 : 0;
    st->split = nm_json_bool(o, "split", true);
    if (!st->scheme && strcmp(scheme, "never") != 0)
        return refuse(l, "prepend_scheme", scheme);
    return one_char(l, o, "replacement", &st->ch);
}

static bool pre_tokenizer(loader *l, const json_t *o, int depth)
{
    static const struct { const char *name; int type; } plain[] = { { "Whitespace", NM_P_WORDS },
                                                                    { "WhitespaceSplit", NM_P_WHITE },
                                                                    { "BertPreTokenizer", NM_P_BERT } };
    const char *t = type_of(o);
    nm_steps *s = &l->p->pre;
    nm_step *st;
    if (!o)
        return true;
    if (strcmp(t, "Sequence") == 0) {
        json_t *list = nm_json_get(o, "pretokenizers"), *v;
        size_t k;
        if (!json_is_array(list) || depth > 8)
            return bad(l, "pre_tokenizer", "a list \"pretokenizers\"");
        json_array_foreach(list, k, v)
            if (!pre_tokenizer(l, v, depth + 1))
                return false;
        return true;
    }
    for (int k = 0; k < 3; k++)
        if (strcmp(t, plain[k].name) == 0)
            return add_step(l, s, plain[k].type) != NULL;
    if (strcmp(t, "ByteLevel") == 0) {
        if (!(st = add_step(l, s, NM_P_BYTES)))
            return false;
        st->prefix_space = nm_json_bool(o, "add_prefix_space", true);
        st->use_regex = nm_json_bool(o, "use_regex", true);
        return true;
    }
    if (strcmp(t, "Metaspace") == 0)
        return (st = add_step(l, s, NM_P_META)) && metaspace(l, o, st);
    if (strcmp(t, "Split") == 0) {
        if (!(st = add_step(l, s, NM_P_SPLIT)) || !pattern(l, o, st) || !behavior(l, o, st))
            return false;
        st->invert = nm_json_bool(o, "invert", false);
        return true;
    }
    if (strcmp(t, "Digits") == 0) {
        if (!(st = add_step(l, s, NM_P_DIGITS)))
            return false;
        st->individual = nm_json_bool(o, "individual_digits", false);
        return true;
    }
    if (strcmp(t, "Punctuation") == 0)
        return (st = add_step(l, s, NM_P_PUNCT)) && behavior(l, o, st);
    if (strcmp(t, "CharDelimiterSplit") == 0)
        return (st = add_step(l, s, NM_P_CHAR)) && one_char(l, o, "delimiter", &st->ch);
    return refuse(l, "pre_tokenizer", t);
}

static bool text_of(loader *l, const json_t *o, const char *key, const char *dflt, char **out)
{
    *out = nm_strdup(nm_json_str(o, key, dflt));
    if (!*out)
        nm_fail(l->err, NOEMA_E_MEMORY, "%s: out of memory", l->what);
    return *out != NULL;
}

static bool decoder(loader *l, const json_t *o, int depth)
{
    const char *t = type_of(o);
    nm_steps *s = &l->p->dec;
    nm_step *st;
    if (!o)
        return true;
    if (strcmp(t, "Sequence") == 0) {
        json_t *list = nm_json_get(o, "decoders"), *v;
        size_t k;
        if (!json_is_array(list) || depth > 8)
            return bad(l, "decoder", "a list \"decoders\"");
        json_array_foreach(list, k, v)
            if (!decoder(l, v, depth + 1))
                return false;
        return true;
    }
    if (strcmp(t, "ByteLevel") == 0)
        return add_step(l, s, NM_D_BYTES) != NULL;
    if (strcmp(t, "ByteFallback") == 0)
        return add_step(l, s, NM_D_BYTE_FALLBACK) != NULL;
    if (strcmp(t, "Fuse") == 0)
        return add_step(l, s, NM_D_FUSE) != NULL;
    if (strcmp(t, "WordPiece") == 0) {
        if (!(st = add_step(l, s, NM_D_WORDPIECE)))
            return false;
        st->cleanup = nm_json_bool(o, "cleanup", true);
        return text_of(l, o, "prefix", "##", &st->text);
    }
    if (strcmp(t, "BPEDecoder") == 0)
        return (st = add_step(l, s, NM_D_BPE)) && text_of(l, o, "suffix", "</w>", &st->text);
    if (strcmp(t, "Metaspace") == 0)
        return (st = add_step(l, s, NM_D_META)) && metaspace(l, o, st);
    if (strcmp(t, "Replace") == 0) {
        json_t *str = nm_json_get(nm_json_get(o, "pattern"), "String");
        if (!json_is_string(str))
            return refuse(l, "decoder", "Replace with a regular expression");
        if (!(st = add_step(l, s, NM_D_REPLACE)))
            return false;
        st->text = nm_strdup(json_string_value(str));
        return st->text ? text_of(l, o, "content", "", &st->text2) : bad(l, "decoder", "memory");
    }
    if (strcmp(t, "Strip") == 0) {
        if (!(st = add_step(l, s, NM_D_STRIP)))
            return false;
        st->start = (uint32_t)nm_json_int(o, "start", 0), st->stop = (uint32_t)nm_json_int(o, "stop", 0);
        return one_char(l, o, "content", &st->ch);
    }
    return refuse(l, "decoder", t);
}

static bool around(loader *l, int32_t *list, int *n, bool front, int64_t id)
{
    if (*n >= 16 || id < 0 || id > NM_VOCAB_LIMIT) {
        nm_fail(l->err, NOEMA_E_LIMIT, "%s: post_processor: more special tokens than supported, or id %lld", l->what, (long long)id);
        return false;
    }
    if (front) {
        memmove(list + 1, list, (size_t)*n * sizeof *list);
        list[0] = (int32_t)id;
        ++*n;
    } else {
        list[(*n)++] = (int32_t)id;
    }
    return true;
}

/* The "single" template: special tokens before and after $A. Sequences of processors wrap from inside to outside. */
static bool template(loader *l, const json_t *o)
{
    json_t *single = nm_json_get(o, "single"), *tokens = nm_json_get(o, "special_tokens"), *v, *idv;
    int32_t before[16];
    int n_before = 0;
    size_t k, q;
    bool seen = false;
    if (!json_is_array(single))
        return bad(l, "post_processor", "a list \"single\"");
    json_array_foreach(single, k, v) {
        json_t *sp = nm_json_get(v, "SpecialToken");
        if (nm_json_get(v, "Sequence")) {
            if (seen || strcmp(nm_json_str(nm_json_get(v, "Sequence"), "id", ""), "A") != 0)
                return bad(l, "post_processor", "one sequence A in \"single\"");
            seen = true;
            continue;
        }
        json_t *ids = nm_json_get(nm_json_get(tokens, nm_json_str(sp, "id", "")), "ids");
        if (!json_is_array(ids))
            return bad(l, "post_processor", "ids for each special token");
        json_array_foreach(ids, q, idv) {
            int64_t id = json_is_integer(idv) ? json_integer_value(idv) : -1;
            if (!(seen ? around(l, l->p->after, &l->p->n_after, false, id) : around(l, before, &n_before, false, id)))
                return false;
        }
    }
    while (n_before)
        if (!around(l, l->p->before, &l->p->n_before, true, before[--n_before]))
            return false;
    return seen || bad(l, "post_processor", "the sequence A in \"single\"");
}

static bool post_processor(loader *l, const json_t *o, int depth)
{
    const char *t = type_of(o);
    if (!o || strcmp(t, "ByteLevel") == 0) /* offsets only */
        return true;
    if (strcmp(t, "Sequence") == 0) {
        json_t *list = nm_json_get(o, "processors"), *v;
        size_t k;
        if (!json_is_array(list) || depth > 8)
            return bad(l, "post_processor", "a list \"processors\"");
        json_array_foreach(list, k, v)
            if (!post_processor(l, v, depth + 1))
                return false;
        return true;
    }
    if (strcmp(t, "TemplateProcessing") == 0)
        return template(l, o);
    if (strcmp(t, "BertProcessing") == 0 || strcmp(t, "RobertaProcessing") == 0) {
        json_t *sep = json_array_get(nm_json_get(o, "sep"), 1), *cls = json_array_get(nm_json_get(o, "cls"), 1);
        if (!json_is_integer(sep) || !json_is_integer(cls))
            return bad(l, "post_processor", "\"sep\" and \"cls\" as [token, id]");
        return around(l, l->p->before, &l->p->n_before, true, json_integer_value(cls)) &&
               around(l, l->p->after, &l->p->n_after, false, json_integer_value(sep));
    }
    return refuse(l, "post_processor", t);
}

static bool set_piece(loader *l, const char *s, size_t n, int64_t id)
{
    nm_tok_pipe *p = l->p;
    if (id < 0 || id >= NM_VOCAB_LIMIT || nm_vocab_has(&p->vocab, id)) {
        nm_fail(l->err, NOEMA_E_FORMAT, "%s: vocabulary: \"%.*s\" has the id %lld, which is %s", l->what, n > 60 ? 60 : (int)n, s,
                (long long)id, id < 0 || id >= NM_VOCAB_LIMIT ? "out of range" : "given twice");
        return false;
    }
    if (!nm_vocab_set(&p->vocab, (uint32_t)id, s, n)) {
        nm_fail(l->err, NOEMA_E_MEMORY, "%s: out of memory", l->what);
        return false;
    }
    return true;
}

static bool vocab_object(loader *l, const json_t *vocab)
{
    const char *key;
    size_t n_key;
    json_t *v;
    if (!json_is_object(vocab))
        return bad(l, "model", "an object \"vocab\"");
    if (!nm_vocab_reserve(&l->p->vocab, (uint32_t)json_object_size(vocab) + 1))
        return bad(l, "model", "a smaller vocabulary");
    json_object_keylen_foreach((json_t *)(uintptr_t)vocab, key, n_key, v)
        if (!set_piece(l, key, n_key, json_is_integer(v) ? json_integer_value(v) : -1))
            return false;
    return true;
}

static bool one_merge(loader *l, const json_t *v, uint32_t rank, nm_buf *joined)
{
    nm_tok_pipe *p = l->p;
    const char *a, *b;
    size_t na, nb, skip = strlen(p->sub_prefix);
    if (json_is_string(v)) {
        a = json_string_value(v);
        const char *sp = strchr(a, ' ');
        if (!sp || strchr(sp + 1, ' '))
            return bad(l, "merges", "\"left right\"");
        na = (size_t)(sp - a), b = sp + 1, nb = json_string_length(v) - na - 1;
    } else {
        json_t *x = json_array_get(v, 0), *y = json_array_get(v, 1);
        if (json_array_size(v) != 2 || !json_is_string(x) || !json_is_string(y))
            return bad(l, "merges", "[\"left\",\"right\"]");
        a = json_string_value(x), na = json_string_length(x), b = json_string_value(y), nb = json_string_length(y);
    }
    joined->len = 0;
    nm_buf_append(joined, a, na);
    if (nb < skip || !nm_buf_append(joined, b + skip, nb - skip))
        return bad(l, "merges", "the right part to begin with the subword prefix");
    int32_t x = nm_vocab_find(&p->vocab, a, na), y = nm_vocab_find(&p->vocab, b, nb),
            z = nm_vocab_find(&p->vocab, joined->data, joined->len);
    if (x < 0 || y < 0 || z < 0) {
        nm_fail(l->err, NOEMA_E_FORMAT, "%s: merge %u: \"%.*s\" is not in the vocabulary", l->what, rank,
                (int)(joined->len > 60 ? 60 : joined->len), joined->data);
        return false;
    }
    return nm_bpe_add(&p->bpe, x, y, rank, z) || bad(l, "merges", "less of them");
}

static void find_bytes(nm_tok_pipe *p)
{
    for (int b = 0; b < 256; b++) {
        char s[8];
        s[0] = '<', s[1] = '0', s[2] = 'x';
        s[3] = "0123456789ABCDEF"[b >> 4], s[4] = "0123456789ABCDEF"[b & 15], s[5] = '>';
        p->byte_piece[b] = nm_vocab_find(&p->vocab, s, 6);
    }
}

static bool find_unk(loader *l, const json_t *o, const char *dflt, bool needed)
{
    const char *unk = nm_json_str(o, "unk_token", dflt);
    l->p->unk_id = unk ? nm_vocab_find(&l->p->vocab, unk, strlen(unk)) : -1;
    if (needed && l->p->unk_id < 0) {
        nm_fail(l->err, NOEMA_E_FORMAT, "%s: the unknown token \"%s\" is not in the vocabulary", l->what, unk ? unk : "");
        return false;
    }
    return true;
}

static bool model_bpe(loader *l, const json_t *o)
{
    nm_tok_pipe *p = l->p;
    json_t *merges = nm_json_get(o, "merges"), *v;
    nm_buf joined = { 0 };
    size_t k;
    bool ok = vocab_object(l, nm_json_get(o, "vocab")) && find_unk(l, o, NULL, false);
    p->byte_fallback = nm_json_bool(o, "byte_fallback", false);
    p->fuse_unk = nm_json_bool(o, "fuse_unk", false);
    p->ignore_merges = nm_json_bool(o, "ignore_merges", false);
    find_bytes(p);
    if (ok && nm_json_num(o, "dropout", 0) > 0)
        return refuse(l, "model", "BPE with dropout");
    if (ok && (!json_is_array(merges) || !nm_bpe_init(&p->bpe, (uint32_t)json_array_size(merges))))
        ok = bad(l, "model", "a list \"merges\"");
    json_array_foreach(merges, k, v)
        if (!ok || !(ok = one_merge(l, v, (uint32_t)k, &joined)))
            break;
    nm_buf_free(&joined);
    return ok;
}

static bool model_unigram(loader *l, const json_t *o)
{
    nm_tok_pipe *p = l->p;
    nm_unigram *u = &p->uni;
    json_t *vocab = nm_json_get(o, "vocab"), *v;
    size_t k, n = json_array_size(vocab);
    if (!json_is_array(vocab) || n == 0 || n > NM_VOCAB_LIMIT)
        return bad(l, "model", "a list \"vocab\" of [piece, score]");
    nm_trie_key *keys = nm_malloc_array(n, sizeof *keys);
    u->score = nm_malloc_array(n, sizeof *u->score);
    bool ok = keys && u->score && nm_vocab_reserve(&p->vocab, (uint32_t)n);
    u->min_score = 1e300;
    json_array_foreach(vocab, k, v) {
        json_t *s = json_array_get(v, 0), *x = json_array_get(v, 1);
        if (!ok)
            break;
        if (!json_is_string(s) || !json_is_number(x)) {
            ok = bad(l, "vocab", "[piece, score]");
            break;
        }
        u->score[k] = json_number_value(x);
        u->min_score = u->score[k] < u->min_score ? u->score[k] : u->min_score;
        ok = set_piece(l, json_string_value(s), json_string_length(s), (int64_t)k);
    }
    for (k = 0; ok && k < n; k++) {
        size_t len;
        const char *s = nm_vocab_str(&p->vocab, (int32_t)k, &len);
        keys[k] = (nm_trie_key){ s, (uint32_t)len, (int32_t)k };
    }
    ok = ok && nm_trie_build(&u->trie, keys, n);
    free(keys);
    if (!ok && (!l->err || l->err->code == NOEMA_OK))
        nm_fail(l->err, NOEMA_E_MEMORY, "%s: out of memory", l->what);
    p->unk_id = u->unk_id = (int32_t)nm_json_int(o, "unk_id", -1);
    p->byte_fallback = nm_json_bool(o, "byte_fallback", false);
    find_bytes(p);
    if (ok && (p->unk_id < 0 || (size_t)p->unk_id >= n))
        return bad(l, "model", "an \"unk_id\" in the vocabulary");
    return ok;
}

static bool model(loader *l, const json_t *o)
{
    nm_tok_pipe *p = l->p;
    const char *t = type_of(o);
    if (!*t && json_is_object(o)) /* old files leave the type out */
        t = nm_json_get(o, "merges") ? "BPE" : json_is_array(nm_json_get(o, "vocab")) ? "Unigram" : "WordPiece";
    const bool bpe = strcmp(t, "BPE") == 0, wp = strcmp(t, "WordPiece") == 0;
    if (!text_of(l, o, "continuing_subword_prefix", wp ? "##" : "", &p->sub_prefix) ||
        !text_of(l, o, "end_of_word_suffix", "", &p->end_suffix))
        return false;
    p->model = bpe ? NM_M_BPE : wp ? NM_M_WORDPIECE : strcmp(t, "Unigram") == 0 ? NM_M_UNIGRAM : NM_M_WORDLEVEL;
    if (bpe)
        return model_bpe(l, o);
    if (wp) {
        int64_t max = nm_json_int(o, "max_input_chars_per_word", 100);
        p->max_word = max < 1 ? 1 : max > 10000 ? 10000 : (uint32_t)max;
        return vocab_object(l, nm_json_get(o, "vocab")) && find_unk(l, o, "[UNK]", true);
    }
    if (p->model == NM_M_UNIGRAM)
        return model_unigram(l, o);
    if (strcmp(t, "WordLevel") == 0)
        return vocab_object(l, nm_json_get(o, "vocab")) && find_unk(l, o, "<unk>", true);
    return refuse(l, "model", t);
}

int32_t nm_pipe_id(const nm_tok_pipe *p, const char *s, size_t n)
{
    int32_t id = nm_vocab_find(&p->added_vocab, s, n);
    return id >= 0 ? id : nm_vocab_find(&p->vocab, s, n);
}

const char *nm_pipe_token(const nm_tok_pipe *p, int32_t id, size_t *n)
{
    for (size_t k = p->n_added; k-- > 0;)
        if (p->added[k].id == id) {
            *n = p->added[k].n;
            return p->added[k].content;
        }
    return nm_vocab_has(&p->vocab, id) ? nm_vocab_str(&p->vocab, id, n) : NULL;
}

noema_status nm_pipe_add_token(nm_tok_pipe *p, const char *what, const char *content, size_t n, int32_t id, unsigned flags,
                               noema_error *err)
{
    if (n == 0 || n > 4096 || id < 0 || id >= NM_VOCAB_LIMIT || p->n_added >= 100000)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: added token: expected a string and an id, got %zu bytes and %d", what, n, (int)id);
    nm_added *a = NULL;
    for (size_t k = 0; k < p->n_added && !a && nm_vocab_find(&p->added_vocab, content, n) >= 0; k++)
        if (p->added[k].n == n && memcmp(p->added[k].content, content, n) == 0)
            a = &p->added[k]; /* given again: the later one counts */
    if (!a) {
        nm_added *q = nm_realloc_array(p->added, p->n_added + 1, sizeof *q);
        char *s = nm_strndup(content, n);
        if (q)
            p->added = q;
        if (!q || !s || (nm_vocab_has(&p->added_vocab, id) ? false : !nm_vocab_set(&p->added_vocab, (uint32_t)id, content, n))) {
            free(s);
            return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", what);
        }
        a = &q[p->n_added++];
        *a = (nm_added){ .content = s, .n = n };
    }
    a->id = id;
    a->special = flags & NM_T_SPECIAL, a->normalized = flags & NM_T_NORMALIZED, a->lstrip = flags & NM_T_LSTRIP;
    a->rstrip = flags & NM_T_RSTRIP, a->single_word = flags & NM_T_SINGLE_WORD;
    return NOEMA_OK;
}

/* Normalised added tokens are looked for in their normalised spelling. */
bool nm_pipe_build_added(nm_tokenizer *t)
{
    nm_tok_pipe *p = t->pipe;
    nm_tok_scratch s = { .owner = t };
    nm_trie_key *raw = nm_malloc_array(p->n_added + 1, sizeof *raw), *nor = nm_malloc_array(p->n_added + 1, sizeof *nor);
    size_t n_raw = 0, n_nor = 0, *at = nm_malloc_array(p->n_added + 1, sizeof *at);
    nm_buf text = { 0 };
    bool ok = raw && nor && at;
    nm_trie_free(&p->raw), nm_trie_free(&p->normal);
    for (size_t k = 0; ok && k < p->n_added; k++) {
        const nm_added *a = &p->added[k];
        if (!a->normalized) {
            raw[n_raw++] = (nm_trie_key){ a->content, (uint32_t)a->n, (int32_t)k };
            continue;
        }
        ok = nm_u32_from_utf8(&s.a, a->content, a->n, NULL) == NOEMA_OK && nm_pipe_normalize(p, &s, &s.a, NULL) == NOEMA_OK;
        size_t from = text.len;
        ok = ok && nm_utf8_from_u32(&text, s.a.p, s.a.n);
        at[n_nor] = from;
        nor[n_nor++] = (nm_trie_key){ NULL, (uint32_t)(text.len - from), (int32_t)k };
    }
    for (size_t k = 0; ok && k < n_nor; k++)
        nor[k].s = text.data + at[k];
    ok = ok && (n_raw == 0 || nm_trie_build(&p->raw, raw, n_raw)) && (n_nor == 0 || nm_trie_build(&p->normal, nor, n_nor));
    free(raw), free(nor), free(at);
    nm_buf_free(&text);
    nm_u32_free(&s.a), nm_u32_free(&s.b);
    return ok;
}

static bool added_tokens(loader *l, const json_t *list)
{
    json_t *v;
    size_t k;
    json_array_foreach(list, k, v) {
        json_t *c = nm_json_get(v, "content");
        int64_t id = nm_json_int(v, "id", -1);
        bool special = nm_json_bool(v, "special", false);
        unsigned f = (special ? NM_T_SPECIAL : 0u) | (nm_json_bool(v, "normalized", !special) ? NM_T_NORMALIZED : 0u) |
                     (nm_json_bool(v, "lstrip", false) ? NM_T_LSTRIP : 0u) | (nm_json_bool(v, "rstrip", false) ? NM_T_RSTRIP : 0u) |
                     (nm_json_bool(v, "single_word", false) ? NM_T_SINGLE_WORD : 0u);
        if (!json_is_string(c))
            return bad(l, "added_tokens", "a string \"content\"");
        if (nm_pipe_add_token(l->p, l->what, json_string_value(c), json_string_length(c),
                              id < 0 || id >= NM_VOCAB_LIMIT ? -1 : (int32_t)id, f, l->err))
            return false;
    }
    return true;
}

static int32_t role(const nm_tok_pipe *p, const char *a, const char *b)
{
    int32_t id = nm_pipe_id(p, a, strlen(a));
    return id >= 0 || !b ? id : nm_pipe_id(p, b, strlen(b));
}

noema_status nm_tok_pipe_load(nm_tokenizer *t, const char *what, const json_t *root, noema_error *err)
{
    noema_error own = NOEMA_ERROR_INIT;
    loader l = { NULL, what, err ? err : &own };
    json_t *cut = nm_json_get(root, "truncation");
    nm_tok_pipe *p = l.p = t->pipe = calloc(1, sizeof *p);
    if (!p)
        return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", what);
    p->unk_id = -1;
    memset(p->byte_piece, 0xFF, sizeof p->byte_piece);
    if (!json_is_object(root) || !nm_json_get(root, "model"))
        return nm_fail(err, NOEMA_E_FORMAT, "%s: expected a tokenizer.json with a \"model\"", what);
    bool ok = normalizer(&l, nm_json_get(root, "normalizer"), 0) && pre_tokenizer(&l, nm_json_get(root, "pre_tokenizer"), 0) &&
              model(&l, nm_json_get(root, "model")) && decoder(&l, nm_json_get(root, "decoder"), 0) &&
              added_tokens(&l, nm_json_get(root, "added_tokens")) &&
              post_processor(&l, nm_json_get(root, "post_processor"), 0);
    if (!ok)
        return l.err->code ? l.err->code : NOEMA_E_FORMAT;
    if (!nm_pipe_build_added(t))
        return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", what);
    p->clip_decode = nm_json_bool(root, "noema.clip_decode", false);
    p->max_id = (int32_t)p->vocab.n - 1;
    for (size_t k = 0; k < p->n_added; k++)
        p->max_id = p->added[k].id > p->max_id ? p->added[k].id : p->max_id;
    if (cut && !t->context_length) {
        int64_t n = nm_json_int(cut, "max_length", 0);
        t->context_length = n > 0 && n < INT32_MAX ? (int)n : 0;
        p->cut_left = strcmp(nm_json_str(cut, "direction", "Right"), "Left") == 0;
    }
    t->id.cls = role(p, "[CLS]", NULL), t->id.sep = role(p, "[SEP]", NULL), t->id.mask = role(p, "[MASK]", "<mask>");
    t->id.bos = role(p, "<|startoftext|>", "<s>"), t->id.eos = role(p, "</s>", "<|endoftext|>");
    t->id.pad = role(p, "<pad>", "[PAD]"), t->id.unk = p->unk_id;
    return NOEMA_OK;
}
