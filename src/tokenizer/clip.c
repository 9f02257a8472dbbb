/* clip.c - CLIP's own tokenizer: openai/CLIP clip/simple_tokenizer.py and open_clip's descendant of it.
 *
 * The merge list (bpe_simple_vocab_16e6.txt.gz) has a header line and 262,144 merges of which the first rows - 514 count.
 * Ids: 256 bytes, the same with "</w>", one per merge, start, end. A text is cleaned, split by one regular expression
 *     special strings | 's|'t|'re|'ve|'m|'ll|'d | letters+ | one number | others+      (case-insensitive, white space dropped)
 * and every piece becomes bytes, the last with "</w>", which are merged pair by pair, lowest rank first, all occurrences.
 * Easy to get wrong: digits stand alone; combining marks are "others"; 's also matches U+017F after the quote; a special
 * string counts only in its exact spelling. */
#include <stdlib.h>
#include <zlib.h>

#include "base/utf8.h"
#include "tokenizer/tokenizer.h"

enum { N_MERGES = 48894 };

struct nm_tok_clip {
    nm_vocab vocab;
    nm_bpe bpe;
    int32_t byte_id[256], last_id[256]; /* a byte inside a word, at its end */
    const char *special[2];             /* start, end */
    size_t special_len[2];
};

const nm_vocab *nm_tok_clip_vocab(const nm_tok_clip *c)
{
    return &c->vocab;
}

void nm_tok_clip_free(nm_tok_clip *c)
{
    if (!c)
        return;
    nm_vocab_free(&c->vocab);
    nm_bpe_free(&c->bpe);
    free(c);
}

/* Inflates until `lines` line feeds are there: the tail of the list is never used. Plain text passes through. */
static noema_status read_lines(nm_buf *b, const char *what, const unsigned char *data, size_t size, size_t lines,
                               noema_error *err)
{
    if (size < 2 || data[0] != 0x1F || data[1] != 0x8B)
        return nm_buf_append(b, data, size) ? NOEMA_OK : nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", what);
    z_stream z = { .next_in = (Bytef *)(uintptr_t)data, .avail_in = (uInt)size };
    if (inflateInit2(&z, 15 + 16) != Z_OK)
        return nm_fail(err, NOEMA_E_MEMORY, "%s: zlib: out of memory", what);
    size_t seen = 0;
    int r = Z_OK;
    while (r == Z_OK && seen <= lines && b->len < 16u << 20) {
        if (!nm_buf_reserve(b, 65536 + 1)) {
            r = Z_MEM_ERROR;
            break;
        }
        z.next_out = (Bytef *)b->data + b->len, z.avail_out = 65536;
        r = inflate(&z, Z_NO_FLUSH);
        size_t got = 65536 - z.avail_out;
        for (size_t i = 0; i < got; i++)
            seen += b->data[b->len + i] == '\n';
        b->len += got;
        if (r == Z_OK && got == 0 && z.avail_in == 0)
            r = Z_BUF_ERROR;
    }
    inflateEnd(&z);
    if (r != Z_OK && r != Z_STREAM_END)
        return nm_fail(err, r == Z_MEM_ERROR ? NOEMA_E_MEMORY : NOEMA_E_FORMAT,
                       "%s: expected a gzip file, got %s after %zu bytes of text", what,
                       r == Z_BUF_ERROR ? "its end (truncated)" : "damaged data", b->len);
    b->data[b->len] = 0;
    return NOEMA_OK;
}

static bool add_bytes(nm_tok_clip *c)
{
    for (int id = 0; id < 256; id++) {
        char s[8];
        unsigned char byte = nm_byte_order(id);
        int n = nm_utf8_encode(nm_byte_char(byte), s);
        memcpy(s + n, "</w>", 4);
        if (!nm_vocab_set(&c->vocab, (uint32_t)id, s, (size_t)n) ||
            !nm_vocab_set(&c->vocab, (uint32_t)id + 256, s, (size_t)n + 4))
            return false;
        c->byte_id[byte] = id, c->last_id[byte] = id + 256;
    }
    return true;
}

/* One line "left right". Joined strings may repeat; the index then finds the last, as the reference's dictionary does,
 * so the ids of pairs are filled in by a second pass. */
static noema_status add_merge(nm_tok_clip *c, const char *what, const char *line, size_t n, uint32_t rank, noema_error *err)
{
    const char *sp = memchr(line, ' ', n);
    char joined[512];
    if (!sp || sp == line || sp + 1 == line + n || memchr(sp + 1, ' ', (size_t)(line + n - sp - 1)) || n > sizeof joined)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: line %u: expected two symbols and a space between, got \"%.*s\"", what,
                       (unsigned)rank + 2, n > 60 ? 60 : (int)n, line);
    size_t left = (size_t)(sp - line), right = n - left - 1;
    memcpy(joined, line, left);
    memcpy(joined + left, sp + 1, right);
    if (!nm_vocab_set(&c->vocab, 512 + rank, joined, left + right))
        return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", what);
    return NOEMA_OK;
}

/* A pair whose halves are no symbols can never occur and is left out. */
static bool rank_merge(nm_tok_clip *c, const char *line, size_t n, uint32_t rank)
{
    const char *sp = memchr(line, ' ', n);
    size_t left = (size_t)(sp - line), len;
    int32_t a = nm_vocab_find(&c->vocab, line, left), b = nm_vocab_find(&c->vocab, sp + 1, n - left - 1);
    if (a < 0 || b < 0)
        return true;
    const char *s = nm_vocab_str(&c->vocab, 512 + (int32_t)rank, &len);
    return nm_bpe_add(&c->bpe, a, b, rank, nm_vocab_find(&c->vocab, s, len));
}

/* Lines 1.. of the text as merges; each_line calls back with the line and its rank. Returns the number. */
static noema_status load_merges(nm_tok_clip *c, const char *what, const nm_buf *b, uint32_t limit, uint32_t *n_merges,
                                noema_error *err)
{
    for (int pass = 0; pass < 2; pass++) {
        const char *p = b->data ? memchr(b->data, '\n', b->len) : NULL, *end = b->data + b->len;
        uint32_t rank = 0;
        if (!p)
            return nm_fail(err, NOEMA_E_FORMAT, "%s: expected a header line and merges, got %zu bytes without a line feed", what,
                           b->len);
        for (p++; p < end && rank < limit; rank++) {
            const char *lf = memchr(p, '\n', (size_t)(end - p));
            size_t n = (size_t)((lf ? lf : end) - p);
            if (n && p[n - 1] == '\r')
                n--;
            if (n == 0 && !lf)
                break;
            if (n == 0 && lf + 1 == end)
                break;
            noema_status st = pass ? NOEMA_OK : add_merge(c, what, p, n, rank, err);
            if (st)
                return st;
            if (pass && !rank_merge(c, p, n, rank))
                return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", what);
            p = lf ? lf + 1 : end;
        }
        *n_merges = rank;
        if (!pass && !nm_bpe_init(&c->bpe, rank))
            return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", what);
    }
    return NOEMA_OK;
}

static noema_status load(nm_tokenizer *t, const char *what, const unsigned char *data, size_t size, const nm_tok_options *o,
                         bool open_clip, noema_error *err)
{
    nm_tok_clip *c = t->clip;
    nm_buf text = { 0 };
    uint32_t limit = o->vocab_size > 514 ? (uint32_t)o->vocab_size - 514 : N_MERGES, n_merges = 0;
    noema_status st;
    if (o->vocab_size && (o->vocab_size < 514 || o->vocab_size > NM_VOCAB_LIMIT))
        return nm_fail(err, NOEMA_E_ARGUMENT, "%s: expected a vocabulary of at least 514 rows, got %d", what, o->vocab_size);
    if (o->vocab_size == 514)
        limit = 0;
    if (!nm_vocab_reserve(&c->vocab, 600) || !add_bytes(c))
        return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", what);
    st = read_lines(&text, what, data, size, limit, err);
    if (!st && !nm_vocab_reserve(&c->vocab, limit <= N_MERGES ? limit + 514 : 600))
        st = nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", what);
    if (!st)
        st = load_merges(c, what, &text, limit, &n_merges, err);
    nm_buf_free(&text);
    if (st)
        return st;
    if (o->vocab_size && n_merges < limit)
        return nm_fail(err, NOEMA_E_MISMATCH, "%s: expected %u merges for a vocabulary of %d rows, got %u", what, limit,
                       o->vocab_size, n_merges);
    static const char *const names[2][2] = { { "<|startoftext|>", "<|endoftext|>" }, { "<start_of_text>", "<end_of_text>" } };
    for (int k = 0; k < 2; k++) {
        c->special[k] = names[open_clip][k];
        c->special_len[k] = strlen(c->special[k]);
        if (!nm_vocab_set(&c->vocab, 512 + n_merges + (uint32_t)k, c->special[k], c->special_len[k]))
            return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", what);
    }
    t->id.bos = (int32_t)(512 + n_merges), t->id.eos = t->id.bos + 1, t->id.pad = 0;
    return NOEMA_OK;
}

noema_status nm_tok_clip_open(nm_tokenizer *t, const char *what, const unsigned char *data, size_t size, const nm_tok_options *o,
                              noema_error *err)
{
    bool open_clip = o->kind == NOEMA_TOKENIZER_OPEN_CLIP;
    t->clip = calloc(1, sizeof *t->clip);
    t->name = nm_strdup(open_clip ? "clip-open_clip" : "clip-openai");
    if (!t->clip || !t->name)
        return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", what);
    t->clip->bpe.all = true;
    t->clean = o->clean ? (int)o->clean : o->flavor == NOEMA_FLAVOR_HF4_SLOW ? NM_CLEAN_FTFY
               : o->flavor == NOEMA_FLAVOR_HF4_SLOW_NO_FTFY ? NM_CLEAN_BASIC : NOEMA_CLEAN_LOWER;
    t->context_length = o->context_length ? o->context_length : 77;
    return load(t, what, data, size, o, open_clip, err);
}

/* 0 other, 1 letter, 2 number, 3 white space. */
static int char_class(uint32_t c)
{
    if (c < 0x80) {
        if ((c | 32) - 'a' < 26u)
            return 1;
        return c - '0' < 10u ? 2 : c == ' ' || (c >= 9 && c <= 13) ? 3 : 0;
    }
    if (nm_is_white(c) || c == 0x345) /* folds to iota: under IGNORECASE no class of the pattern has it */
        return 3;
    uint32_t m = nm_cat(c);
    return m & NM_CAT_L ? 1 : m & NM_CAT_N ? 2 : 0;
}

static inline int class_at(const char *p, size_t n, size_t *len)
{
    if ((unsigned char)*p < 0x80) {
        *len = 1;
        return char_class((unsigned char)*p);
    }
    uint32_t c;
    *len = (size_t)nm_utf8_decode(p, n, &c);
    return char_class(c);
}

static size_t same_case(const char *p, size_t n, const char *lower, size_t len)
{
    size_t i = 0; /* p may spell s as U+017F (two bytes): its case folding is s */
    for (size_t k = 0; k < len; k++) {
        if (i < n && (p[i] == lower[k] || ((p[i] | 32) == lower[k] && lower[k] >= 'a' && lower[k] <= 'z')))
            i++;
        else if (lower[k] == 's' && n - i >= 2 && memcmp(p + i, "\xC5\xBF", 2) == 0)
            i += 2;
        else if (lower[k] == 'k' && n - i >= 3 && memcmp(p + i, "\xE2\x84\xAA", 3) == 0)
            i += 3;
        else
            return 0;
    }
    return i;
}

static size_t contraction(const char *p, size_t n)
{
    static const char *const tail[] = { "'s", "'t", "'re", "'ve", "'m", "'ll", "'d" };
    for (int k = 0; k < 7; k++) {
        size_t m = same_case(p, n, tail[k], strlen(tail[k]));
        if (m)
            return m;
    }
    return 0;
}

/* One piece to ids: the cache, or bytes and merges. */
static void put_word(const nm_tok_clip *c, nm_tok_scratch *s, const char *w, size_t n)
{
    char key[NM_TOK_KEY];
    nm_tok_cached *e = n <= NM_TOK_KEY ? nm_tok_cache_at(s, w, n, key) : NULL;
    if (e && e->n_key == n && memcmp(e->key, key, NM_TOK_KEY) == 0) {
        if (!nm_tok_ids_reserve(s, NM_TOK_KEY_IDS))
            return;
        memcpy(s->ids + s->n_ids, e->id, sizeof e->id); /* eight, of which n_ids count */
        s->n_ids += e->n_ids;
        return;
    }
    int32_t *sym = nm_tok_symbols(s, n);
    if (!sym)
        return;
    for (size_t i = 0; i + 1 < n; i++)
        sym[i] = c->byte_id[(unsigned char)w[i]];
    sym[n - 1] = c->last_id[(unsigned char)w[n - 1]];
    size_t k = nm_bpe_merge(&c->bpe, &s->work, sym, n);
    if (k == SIZE_MAX || !nm_tok_ids_reserve(s, k)) {
        s->failed = true;
        return;
    }
    memcpy(s->ids + s->n_ids, sym, k * sizeof *sym);
    s->n_ids += k;
    if (e && k <= NM_TOK_KEY_IDS) {
        memcpy(e->key, key, NM_TOK_KEY);
        memcpy(e->id, sym, k * sizeof *sym);
        e->n_key = (uint8_t)n, e->n_ids = (uint8_t)k;
    }
}

static bool put_special(const nm_tokenizer *t, nm_tok_scratch *s, const char *p, size_t n, size_t *used)
{
    for (int k = 0; k < 2; k++) {
        size_t len = t->clip->special_len[k];
        size_t m = same_case(p, n, t->clip->special[k], len);
        if (!m)
            continue;
        if (m == len && memcmp(p, t->clip->special[k], len) == 0)
            nm_tok_put(s, t->id.bos + k);
        else
            put_word(t->clip, s, p, m); /* matched by the pattern, but another string */
        *used = m;
        return true;
    }
    return false;
}

/* End of the piece that starts at i with a character of class k and length len. */
static size_t piece_end(const char *p, size_t i, size_t n, int k, size_t len)
{
    size_t j = i + len, m;
    if (k == 0 && p[i] == '\'' && (m = contraction(p + i, n - i)) > 0)
        return i + m;
    if (k != 2)
        while (j < n && class_at(p + j, n - j, &len) == k)
            j += len;
    return j;
}

/* The splitter over the cleaned text. */
static void put_text(const nm_tokenizer *t, nm_tok_scratch *s, const char *p, size_t n)
{
    size_t i = 0, len, m;
    while (i < n) {
        int k = class_at(p + i, n - i, &len);
        if (k == 3) {
            i += len;
            continue;
        }
        if (k == 0 && p[i] == '<' && put_special(t, s, p + i, n - i, &m)) {
            i += m;
            continue;
        }
        size_t j = piece_end(p, i, n, k, len);
        put_word(t->clip, s, p + i, j - i);
        i = j;
    }
}

void nm_tok_clip_pieces(const char *p, size_t n, void (*each)(void *user, const char *w, size_t n), void *user)
{
    for (size_t i = 0, j, len; i < n; i = j) {
        int k = class_at(p + i, n - i, &len);
        j = k == 3 ? i + len : piece_end(p, i, n, k, len);
        if (k != 3)
            each(user, p + i, j - i);
    }
}

/* ASCII that ftfy and html.unescape leave alone goes straight to the splitter, lowered on the way. */
static bool copy_plain(nm_tok_scratch *s, int mode, const char *text, size_t n)
{
    s->text.len = 0;
    if ((mode != NOEMA_CLEAN_LOWER && mode != NOEMA_CLEAN_WHITESPACE && mode != NM_CLEAN_FTFY) || !nm_buf_reserve(&s->text, n + 1))
        return false;
    char *o = s->text.data;
    const bool lower = mode != NOEMA_CLEAN_WHITESPACE;
    unsigned bad = 0;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i];
        bad |= (c >= 0x7F) | (c == '&') | ((c < 0x20) & (c != '\t') & (c != '\n') & (c != '\r') & (c != '\f'));
        o[i] = (char)(lower && c >= 'A' && c <= 'Z' ? c + 32 : c);
    }
    s->text.len = n;
    return !bad;
}

noema_status nm_tok_clip_encode(const nm_tokenizer *t, nm_tok_scratch *s, const char *text, size_t n, noema_error *err)
{
    if (!copy_plain(s, t->clean, text, n)) {
        noema_status st = nm_tok_clean_utf8(s, t->clean, text, n, err);
        if (st)
            return st;
    }
    nm_tok_put(s, t->id.bos);
    put_text(t, s, s->text.data, s->text.len);
    nm_tok_put(s, t->id.eos);
    s->full_length = s->n_ids;
    if (t->context_length && s->n_ids > (size_t)t->context_length) {
        s->n_ids = (size_t)t->context_length;
        s->ids[s->n_ids - 1] = t->id.eos;
    }
    return NOEMA_OK;
}

/* The token strings joined, their characters as bytes, "</w>" as a space; bytes that are no UTF-8 become U+FFFD. */
bool nm_tok_clip_decode(const nm_tokenizer *t, nm_tok_scratch *s, const int32_t *ids, size_t n, bool skip, noema_error *err)
{
    const nm_vocab *v = &t->clip->vocab;
    s->text.len = 0;
    for (size_t k = 0; k < n; k++) {
        size_t len;
        if (!nm_vocab_has(v, ids[k])) {
            nm_fail(err, NOEMA_E_ARGUMENT, "id %d: expected 0..%d", (int)ids[k], (int)v->n - 1);
            return false;
        }
        if (skip && (ids[k] == t->id.bos || ids[k] == t->id.eos))
            continue;
        const char *p = nm_vocab_str(v, ids[k], &len);
        for (size_t i = 0; i < len;) {
            uint32_t c;
            if (len - i >= 4 && memcmp(p + i, "</w>", 4) == 0) {
                nm_buf_putc(&s->text, ' ');
                i += 4;
                continue;
            }
            i += (size_t)nm_utf8_decode(p + i, len - i, &c);
            int b = nm_char_byte(c);
            if (b >= 0)
                nm_buf_putc(&s->text, (char)b);
        }
    }
    return true;
}
