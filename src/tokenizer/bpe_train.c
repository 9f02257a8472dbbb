/* bpe_train.c - learns a CLIP merge list: byte-pair encoding (arXiv 1508.07909) over the pieces that CLIP's splitter makes.
 *
 * Words are counted once and kept as symbols: ids 0..255 a byte, 256..511 the same at a word's end, 512 + k the k-th merge. Each round
 * joins the most frequent pair (ties: the smaller ids) everywhere, left to right. The pairs lie in a heap whose entries may be
 * out of date: one that no longer has its pair's count is put back with the right one. Nothing depends on addresses or hash order. */
#include <stdlib.h>
#include <zlib.h>

#include "base/file.h"
#include "base/utf8.h"
#include "tokenizer/tokenizer.h"

enum { MIN_COUNT = 2 };
#define TEXT_LIMIT ((size_t)1 << 30)

typedef struct word { int64_t count; uint32_t at, n; } word;                        /* symbols sym[at .. at + n) */
typedef struct pair { uint64_t key; int64_t count; uint32_t *word, n, cap; } pair;  /* words that have, or had, the pair */
typedef struct entry { int64_t count; uint64_t key; } entry;

typedef struct trainer {
    nm_vocab index; /* word -> number */
    word *words;
    uint32_t n_words, cap_words;
    int32_t *sym;
    size_t n_sym;
    pair *pairs; /* open addressing; count 0 and no words: free */
    size_t n_slots, n_pairs;
    entry *heap;
    size_t n_heap, cap_heap;
    nm_buf names; /* the symbols' strings, one after another */
    uint32_t *name_at;
    uint32_t n_symbols;
    bool failed; /* out of memory */
} trainer;

static uint64_t key_of(int32_t a, int32_t b) { return (uint64_t)(uint32_t)a << 32 | (uint32_t)b; }

/* ---- words ---- */

static void count_word(void *user, const char *w, size_t n)
{
    trainer *t = user;
    int32_t i = nm_vocab_find(&t->index, w, n);
    if (i >= 0) {
        t->words[i].count++;
        return;
    }
    if (t->n_words == t->cap_words) {
        uint32_t cap = t->cap_words ? 2 * t->cap_words : 4096;
        word *p = nm_realloc_array(t->words, cap, sizeof *p);
        if (!p) {
            t->failed = true;
            return;
        }
        t->words = p;
        t->cap_words = cap;
    }
    if (!nm_vocab_set(&t->index, t->n_words, w, n)) {
        t->failed = true;
        return;
    }
    t->words[t->n_words++] = (word){ .count = 1, .n = (uint32_t)n };
}

static void spell_words(trainer *t)
{
    int32_t byte_id[256];
    size_t total = 0;
    for (int id = 0; id < 256; id++)
        byte_id[nm_byte_order(id)] = id;
    for (uint32_t i = 0; i < t->n_words; i++)
        total += t->words[i].n;
    t->sym = nm_malloc_array(total + 1, sizeof *t->sym);
    for (uint32_t i = 0; t->sym && i < t->n_words; i++) {
        size_t n;
        const char *s = nm_vocab_str(&t->index, (int32_t)i, &n);
        t->words[i].at = (uint32_t)t->n_sym;
        for (size_t k = 0; k < n; k++)
            t->sym[t->n_sym++] = byte_id[(unsigned char)s[k]] + (k + 1 == n ? 256 : 0);
    }
    t->failed = t->failed || !t->sym;
}

/* ---- pairs ---- */

static pair *slot_of(pair *table, size_t n_slots, uint64_t key)
{
    size_t i = (size_t)(key * 0x9E3779B97F4A7C15u >> 17) & (n_slots - 1);
    while (table[i].cap && table[i].key != key)
        i = (i + 1) & (n_slots - 1);
    return &table[i];
}

static bool grow_pairs(trainer *t)
{
    size_t n = t->n_slots ? 2 * t->n_slots : 1 << 14;
    pair *p = calloc(n, sizeof *p);
    if (!p)
        return false;
    for (size_t i = 0; i < t->n_slots; i++)
        if (t->pairs[i].cap)
            *slot_of(p, n, t->pairs[i].key) = t->pairs[i];
    free(t->pairs);
    t->pairs = p;
    t->n_slots = n;
    return true;
}

static bool before(const entry *a, const entry *b) { return a->count > b->count || (a->count == b->count && a->key < b->key); }

static void push(trainer *t, entry e)
{
    if (t->n_heap == t->cap_heap) {
        size_t cap = t->cap_heap ? 2 * t->cap_heap : 1 << 14;
        entry *p = nm_realloc_array(t->heap, cap, sizeof *p);
        if (!p) {
            t->failed = true;
            return;
        }
        t->heap = p;
        t->cap_heap = cap;
    }
    size_t i = t->n_heap++;
    for (; i > 0 && before(&e, &t->heap[(i - 1) / 2]); i = (i - 1) / 2)
        t->heap[i] = t->heap[(i - 1) / 2];
    t->heap[i] = e;
}

static entry pop(trainer *t)
{
    entry top = t->heap[0], last = t->heap[--t->n_heap];
    size_t i = 0;
    for (size_t k; (k = 2 * i + 1) < t->n_heap; i = k) {
        if (k + 1 < t->n_heap && before(&t->heap[k + 1], &t->heap[k]))
            k++;
        if (!before(&t->heap[k], &last))
            break;
        t->heap[i] = t->heap[k];
    }
    t->heap[i] = last;
    return top;
}

/* Adds `count` (negative: takes away) to a pair that word w has. */
static void count_pair(trainer *t, uint64_t key, int64_t count, uint32_t w)
{
    if (2 * t->n_pairs >= t->n_slots && !grow_pairs(t)) {
        t->failed = true;
        return;
    }
    pair *p = slot_of(t->pairs, t->n_slots, key);
    if (!p->cap) {
        p->key = key;
        t->n_pairs++;
    }
    if (count > 0 && (p->n == 0 || p->word[p->n - 1] != w)) {
        if (p->n == p->cap) {
            uint32_t cap = p->cap ? 2 * p->cap : 2, *q = nm_realloc_array(p->word, cap, sizeof *q);
            if (!q) {
                t->failed = true;
                return;
            }
            p->word = q;
            p->cap = cap;
        }
        p->word[p->n++] = w;
    }
    p->count += count;
    if (count > 0 && p->count >= MIN_COUNT)
        push(t, (entry){ p->count, key });
}

static void count_pairs(trainer *t, uint32_t w, int64_t sign)
{
    const int32_t *s = t->sym + t->words[w].at;
    for (uint32_t i = 0; i + 1 < t->words[w].n && !t->failed; i++)
        count_pair(t, key_of(s[i], s[i + 1]), sign * t->words[w].count, w);
}

static void merge_in(trainer *t, uint32_t w, int32_t a, int32_t b, int32_t id)
{
    int32_t *s = t->sym + t->words[w].at;
    uint32_t n = t->words[w].n, k = 0, hits = 0;
    for (uint32_t i = 0; i + 1 < n; i++)
        hits += s[i] == a && s[i + 1] == b;
    if (!hits)
        return;
    count_pairs(t, w, -1);
    for (uint32_t i = 0; i < n; k++) {
        bool hit = i + 1 < n && s[i] == a && s[i + 1] == b;
        s[k] = hit ? id : s[i];
        i += hit ? 2 : 1;
    }
    t->words[w].n = k;
    count_pairs(t, w, 1);
}

/* The pair that counts most, or false when none comes twice. */
static bool best_pair(trainer *t, uint64_t *key)
{
    while (t->n_heap && !t->failed) {
        entry e = pop(t);
        const pair *p = slot_of(t->pairs, t->n_slots, e.key);
        if (p->count == e.count) {
            *key = e.key;
            return true;
        }
        if (p->count >= MIN_COUNT && p->count < e.count)
            push(t, (entry){ p->count, e.key });
    }
    return false;
}

/* ---- names and output ---- */

static bool add_name(trainer *t, const char *a, size_t na, const char *b, size_t nb)
{
    t->name_at[t->n_symbols++] = (uint32_t)t->names.len;
    t->name_at[t->n_symbols] = (uint32_t)(t->names.len + na + nb);
    return nm_buf_append(&t->names, a, na) && nm_buf_append(&t->names, b, nb);
}

static bool name_bytes(trainer *t, uint32_t room)
{
    t->name_at = nm_malloc_array((size_t)room + 1, sizeof *t->name_at);
    for (int id = 0; t->name_at && id < 512; id++) {
        char s[8];
        int n = nm_utf8_encode(nm_byte_char(nm_byte_order(id & 255)), s);
        if (!add_name(t, s, (size_t)n, "</w>", id < 256 ? 0 : 4))
            return false;
    }
    return t->name_at != NULL;
}

/* "left right" as a line; the joined string becomes a symbol. */
static bool write_merge(trainer *t, nm_buf *out, uint64_t key)
{
    uint32_t a = (uint32_t)(key >> 32), b = (uint32_t)key, na = t->name_at[a + 1] - t->name_at[a], nb = t->name_at[b + 1] - t->name_at[b];
    if (!nm_buf_reserve(&t->names, (size_t)na + nb))
        return false;
    const char *sa = t->names.data + t->name_at[a], *sb = t->names.data + t->name_at[b];
    return nm_buf_append(out, sa, na) && nm_buf_putc(out, ' ') && nm_buf_append(out, sb, nb) && nm_buf_putc(out, '\n') && add_name(t, sa, na, sb, nb);
}

/* Without name and time in the header, so that equal lists are equal files. */
static noema_status write_gzip(const char *path, const nm_buf *text, noema_error *err)
{
    z_stream z = { 0 };
    if (deflateInit2(&z, 9, Z_DEFLATED, 15 + 16, 9, Z_DEFAULT_STRATEGY) != Z_OK)
        return nm_fail(err, NOEMA_E_MEMORY, "%s: zlib: out of memory", path);
    size_t cap = deflateBound(&z, text->len) + 32;
    unsigned char *data = malloc(cap);
    z.next_in = (Bytef *)text->data;
    z.avail_in = (uInt)text->len;
    z.next_out = data;
    z.avail_out = (uInt)cap;
    int r = data ? deflate(&z, Z_FINISH) : Z_MEM_ERROR;
    noema_status s = r == Z_STREAM_END ? nm_write_file_atomic(path, data, cap - z.avail_out, err) : nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", path);
    deflateEnd(&z);
    free(data);
    return s;
}

/* ---- the whole ---- */

/* Lines are cleaned as encoding cleans a text: ftfy, white space, lower case. */
static noema_status read_words(trainer *t, const char *path, noema_error *err)
{
    nm_tokenizer *plain = NULL;
    noema_tokenizer_options o = noema_tokenizer_options_default();
    o.kind = NOEMA_TOKENIZER_OPEN_CLIP;
    o.vocab_size = 514;
    char *text = NULL;
    size_t size = 0;
    noema_status s = nm_read_file(&text, &size, path, TEXT_LIMIT, err);
    if (s == NOEMA_OK)
        s = nm_tokenizer_open_memory(&plain, path, "#version: 0.2\n", 14, &o, err);
    nm_tok_scratch *scratch = s == NOEMA_OK ? noema_tokenizer_scratch_new(plain) : NULL;
    if (s == NOEMA_OK && !scratch)
        s = nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", path);
    for (size_t at = 0; s == NOEMA_OK && at < size;) {
        const char *end = memchr(text + at, '\n', size - at);
        size_t n = end ? (size_t)(end - text) - at : size - at;
        s = nm_tok_clean_utf8(scratch, NOEMA_CLEAN_LOWER, text + at, n, err);
        if (s == NOEMA_OK)
            nm_tok_clip_pieces(scratch->text.data, scratch->text.len, count_word, t);
        at += n + 1;
    }
    noema_tokenizer_scratch_free(scratch);
    noema_tokenizer_free(plain);
    free(text);
    return s;
}

static uint32_t learn(trainer *t, nm_buf *out, uint32_t merges)
{
    uint32_t done = 0;
    for (uint32_t w = 0; w < t->n_words && !t->failed; w++)
        count_pairs(t, w, 1);
    for (uint64_t key; done < merges && best_pair(t, &key); done++) {
        int32_t a = (int32_t)(key >> 32), b = (int32_t)(uint32_t)key, id = (int32_t)(512 + done);
        if (!write_merge(t, out, key)) {
            t->failed = true;
            break;
        }
        /* the list may move and grow while words are rewritten, but not gain this pair */
        pair p = *slot_of(t->pairs, t->n_slots, key);
        for (uint32_t i = 0; i < p.n && !t->failed; i++)
            merge_in(t, p.word[i], a, b, id);
    }
    return done;
}

static void release(trainer *t)
{
    for (size_t i = 0; i < t->n_slots; i++)
        free(t->pairs[i].word);
    free(t->pairs);
    free(t->heap);
    free(t->words);
    free(t->sym);
    free(t->name_at);
    nm_buf_free(&t->names);
    nm_vocab_free(&t->index);
}

noema_status noema_tokenizer_train_bpe(const char *text, int32_t vocab_size, const char *out, int32_t *rows, noema_error *err)
{
    if (vocab_size < 514 || vocab_size > NM_VOCAB_LIMIT)
        return nm_fail(err, NOEMA_E_ARGUMENT, "vocabulary: expected 514 (256 bytes twice, start, end) to %d rows, got %d", NM_VOCAB_LIMIT, (int)vocab_size);
    trainer t = { 0 };
    nm_buf lines = { 0 };
    noema_status s = nm_vocab_reserve(&t.index, 4096) ? read_words(&t, text, err) : nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", text);
    if (s == NOEMA_OK && !t.failed && t.n_words == 0)
        s = nm_fail(err, NOEMA_E_FORMAT, "%s: expected lines of text, got no word", text);
    if (s == NOEMA_OK) {
        spell_words(&t);
        nm_buf_puts(&lines, "#version: 0.2\n");
        uint32_t merges = (uint32_t)vocab_size - 514, done = name_bytes(&t, (uint32_t)vocab_size) && !t.failed ? learn(&t, &lines, merges) : 0;
        if (rows)
            *rows = (int32_t)done + 514;
        if (t.failed || lines.failed || t.names.failed || !t.name_at)
            s = nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", text);
    }
    if (s == NOEMA_OK)
        s = nm_has_suffix(out, ".gz") ? write_gzip(out, &lines, err) : nm_write_file_atomic(out, lines.data, lines.len, err);
    nm_buf_free(&lines);
    release(&t);
    return s;
}
