/* meteor.c - METEOR 1.5 for English (Denkowski and Lavie, WMT 2014) with the stages whose data is there: exact words, Snowball stems, synonym
 * sets, paraphrases. Words are lower-cased and marks split off, as its option -norm does.
 *
 * Two simplifications: WordNet's exceptions and relations are not followed (a word has the sets that the file gives it), and the built-in list
 * of function words is short; give METEOR's own by --meteor-words. */
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <zlib.h>

#include "eval/captions.h"
#include "eval/lower.h"

#if NOEMA_HAVE_STEMMER
#include <libstemmer.h>
#endif

enum { MAX_WORDS = 256, MAX_MATCHES = 4096, BEAM = 40, MAX_PHRASE = 8, LINE_LIMIT = 65536 };
static const double alpha = 0.85, beta = 0.2, gamma_ = 0.6, delta = 0.75;
static const double weight_of_stage[] = { 1.0, 0.6, 0.8, 0.6 };

static const char *const function_words[] = {
    "a", "an", "the", "this", "that", "these", "those", "of", "to", "in", "on", "at", "by", "for", "with", "from", "as", "into", "and", "or", "but",
    "not", "is", "are", "was", "were", "be", "been", "has", "have", "had", "will", "would", "can", "it", "its", "he", "she", "his", "her", "they",
    "their", "we", "our", "you", "i", "which", "who", "there", "'s", ".", ",", "-", ":", ";", "'", "\"", "(", ")", "?", "!",
};

/* word or phrase -> numbers: sets of a word, paraphrases of a phrase. */
typedef struct lists { nm_words key; int32_t **item, *n; int32_t cap; } lists;

struct nm_meteor {
    nm_words function, paraphrase;
    lists sets, phrases;
    char name[64];
#if NOEMA_HAVE_STEMMER
    struct sb_stemmer *stemmer;
#endif
};

static void lists_free(lists *l)
{
    for (int32_t i = 0; i < l->key.n && i < l->cap; i++)
        free(l->item[i]);
    free(l->item);
    free(l->n);
    nm_words_free(&l->key);
}

static bool lists_add(lists *l, const char *key, size_t n, int32_t value)
{
    int32_t k = nm_words_add(&l->key, key, n);
    if (k < 0)
        return false;
    if (k >= l->cap) {
        int32_t cap = l->cap ? 2 * l->cap : 1024, **item = nm_realloc_array(l->item, (size_t)cap, sizeof *item), *count;
        if (item)
            l->item = item;
        if (!item || !(count = nm_realloc_array(l->n, (size_t)cap, sizeof *count)))
            return false;
        l->n = count;
        memset(item + l->cap, 0, (size_t)(cap - l->cap) * sizeof *item);
        memset(count + l->cap, 0, (size_t)(cap - l->cap) * sizeof *count);
        l->cap = cap;
    }
    if ((l->n[k] & (l->n[k] - 1)) == 0) {
        int32_t *p = nm_realloc_array(l->item[k], l->n[k] ? 2 * (size_t)l->n[k] : 1, sizeof *p);
        if (!p)
            return false;
        l->item[k] = p;
    }
    l->item[k][l->n[k]++] = value;
    return true;
}

/* ---- files ---- */

typedef struct reader { gzFile f; const char *path; char *line; int64_t number; noema_status status; noema_error *err; } reader;

/* The next line without its end; false: no more, or r->status says why. gzip or plain. */
static bool next_line(reader *r)
{
    int code = Z_OK;
    if (!gzgets(r->f, r->line, LINE_LIMIT)) {
        gzerror(r->f, &code);
        if (code != Z_OK && code != Z_STREAM_END)
            r->status = nm_fail(r->err, NOEMA_E_FORMAT, "%s: damaged or truncated behind line %lld", r->path, (long long)r->number);
        return false;
    }
    r->number++;
    if (strlen(r->line) == LINE_LIMIT - 1 && r->line[LINE_LIMIT - 2] != '\n') {
        r->status = nm_fail(r->err, NOEMA_E_LIMIT, "%s: line %lld: expected at most %d bytes", r->path, (long long)r->number, LINE_LIMIT - 2);
        return false;
    }
    r->line[strcspn(r->line, "\r\n")] = 0;
    return true;
}

static noema_status open_reader(reader *r, const char *path, noema_error *err)
{
    *r = (reader){ .f = gzopen(path, "rb"), .path = path, .line = malloc(LINE_LIMIT), .err = err };
    if (r->f && r->line)
        return NOEMA_OK;
    return nm_fail(err, r->line ? NOEMA_E_IO : NOEMA_E_MEMORY, "%s: cannot open", path);
}

/* s, or what ended the reading. */
static noema_status close_reader(reader *r, noema_status s)
{
    if (r->f)
        gzclose(r->f);
    free(r->line);
    return s == NOEMA_OK ? r->status : s;
}

static noema_status read_words(nm_meteor *m, const char *path, noema_error *err)
{
    reader r;
    noema_status s = open_reader(&r, path, err);
    while (s == NOEMA_OK && next_line(&r)) {
        size_t n = strcspn(r.line, " \t");
        if (n && nm_words_add(&m->function, r.line, n) < 0)
            s = nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", path);
    }
    return close_reader(&r, s);
}

/* Two lines a word: itself, and the numbers of its sets. */
static noema_status read_sets(nm_meteor *m, const char *path, noema_error *err)
{
    reader r;
    char *word = malloc(LINE_LIMIT);
    noema_status s = open_reader(&r, path, err);
    if (s == NOEMA_OK && !word)
        s = nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", path);
    while (s == NOEMA_OK && next_line(&r)) {
        strcpy(word, r.line);
        if (!next_line(&r))
            s = nm_fail(err, NOEMA_E_FORMAT, "%s: line %lld: expected the sets of '%.60s'", path, (long long)r.number, word);
        for (char *p = r.line, *end; s == NOEMA_OK && *p; p = end + strspn(end, " ")) {
            long v = strtol(p, &end, 10);
            if (end == p)
                s = nm_fail(err, NOEMA_E_FORMAT, "%s: line %lld: expected numbers of sets", path, (long long)r.number);
            else if (!lists_add(&m->sets, word, strlen(word), (int32_t)v))
                s = nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", path);
        }
    }
    free(word);
    return close_reader(&r, s);
}

/* Three lines an entry: a probability, a phrase, what may stand for it. */
static noema_status read_phrases(nm_meteor *m, const char *path, noema_error *err)
{
    reader r;
    char *phrase = malloc(LINE_LIMIT);
    noema_status s = open_reader(&r, path, err);
    if (s == NOEMA_OK && !phrase)
        s = nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", path);
    while (s == NOEMA_OK && next_line(&r)) {
        bool whole = next_line(&r);
        strcpy(phrase, r.line);
        if (!whole || !next_line(&r))
            s = nm_fail(err, NOEMA_E_FORMAT, "%s: line %lld: expected three lines an entry", path, (long long)r.number);
        int32_t other = s == NOEMA_OK ? nm_words_add(&m->paraphrase, r.line, strlen(r.line)) : 0;
        if (s == NOEMA_OK && (other < 0 || !lists_add(&m->phrases, phrase, strlen(phrase), other)))
            s = nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", path);
    }
    free(phrase);
    return close_reader(&r, s);
}

noema_status nm_meteor_open(nm_meteor **out, const char *words, const char *synonyms, const char *paraphrases, noema_error *err)
{
    nm_meteor *m = calloc(1, sizeof *m);
    noema_status s = m ? NOEMA_OK : nm_fail(err, NOEMA_E_MEMORY, "out of memory: METEOR");
    bool stems = false;
    *out = NULL;
#if NOEMA_HAVE_STEMMER
    if (s == NOEMA_OK)
        stems = (m->stemmer = sb_stemmer_new("english", NULL)) != NULL;
#endif
    for (size_t i = 0; s == NOEMA_OK && !words && i < sizeof function_words / sizeof *function_words; i++)
        if (nm_words_add(&m->function, function_words[i], strlen(function_words[i])) < 0)
            s = nm_fail(err, NOEMA_E_MEMORY, "out of memory: METEOR");
    if (s == NOEMA_OK && words)
        s = read_words(m, words, err);
    if (s == NOEMA_OK && synonyms)
        s = read_sets(m, synonyms, err);
    if (s == NOEMA_OK && paraphrases)
        s = read_phrases(m, paraphrases, err);
    if (s != NOEMA_OK) {
        nm_meteor_free(m);
        return s;
    }
    if (words && stems && synonyms && paraphrases)
        strcpy(m->name, "METEOR");
    else
        snprintf(m->name, sizeof m->name, "METEOR_exact%s%s%s", stems ? "_stem" : "", synonyms ? "_synonym" : "", paraphrases ? "_paraphrase" : "");
    *out = m;
    return NOEMA_OK;
}

void nm_meteor_free(nm_meteor *m)
{
    if (!m)
        return;
#if NOEMA_HAVE_STEMMER
    if (m->stemmer)
        sb_stemmer_delete(m->stemmer);
#endif
    nm_words_free(&m->function);
    nm_words_free(&m->paraphrase);
    lists_free(&m->sets);
    lists_free(&m->phrases);
    free(m);
}

const char *nm_meteor_name(const nm_meteor *m) { return m->name; }

/* ---- words of a sentence ---- */

typedef struct tokens { char *text, *word[MAX_WORDS], *stem[MAX_WORDS]; bool function[MAX_WORDS]; int n; } tokens;

static void tokens_free(tokens *t)
{
    for (int i = 0; i < t->n; i++)
        free(t->stem[i]);
    free(t->text);
}

/* Lower case; a mark that does not stand inside a word or number is a word of its own. */
static bool normalise(nm_buf *b, const char *text)
{
    size_t n = strlen(text);
    nm_buf_puts(b, "");
    for (size_t i = 0; i < n;) {
        const unsigned char c = (unsigned char)text[i];
        bool mark = c < 128 && ispunct(c);
        bool inside = mark && i > 0 && isalnum((unsigned char)text[i - 1]) && isalnum((unsigned char)text[i + 1]) && strchr("-'.,:/", c);
        if (mark && c == '\'' && i + 1 < n && isalpha((unsigned char)text[i + 1]) && (i == 0 || text[i - 1] == ' '))
            inside = true; /* "'s" of a tokenised text */
        if (mark && !inside)
            nm_buf_putc(b, ' ');
        i += nm_put_lower(b, text + i, n - i);
        if (mark && !inside)
            nm_buf_putc(b, ' ');
    }
    return !b->failed;
}

static char *stem_of(nm_meteor *m, const char *word)
{
#if NOEMA_HAVE_STEMMER
    if (m->stemmer) {
        const sb_symbol *s = sb_stemmer_stem(m->stemmer, (const sb_symbol *)word, (int)strlen(word));
        return s ? nm_strndup((const char *)s, (size_t)sb_stemmer_length(m->stemmer)) : NULL;
    }
#endif
    (void)m;
    return nm_strdup(word);
}

/* Words behind the limit are left out. */
static bool tokenise(nm_meteor *m, tokens *t, const char *text)
{
    nm_buf b = { 0 };
    bool ok = normalise(&b, text);
    *t = (tokens){ .text = ok ? nm_buf_take(&b) : NULL };
    nm_buf_free(&b);
    for (char *p = t->text; ok && p && *p && t->n < MAX_WORDS;) {
        size_t n = strcspn(p, " \t\r\n");
        char *next = p + n + (p[n] != 0);
        p[n] = 0;
        if (n) {
            t->word[t->n] = p;
            t->function[t->n] = nm_words_find(&m->function, p, n) >= 0;
            ok = (t->stem[t->n++] = stem_of(m, p)) != NULL;
        }
        p = next;
    }
    return ok && t->text;
}

/* ---- matches ---- */

typedef struct match { int16_t hyp, ref, n_hyp, n_ref; double weight; } match;

static bool share_set(const nm_meteor *m, const char *a, const char *b)
{
    int32_t x = nm_words_find(&m->sets.key, a, strlen(a)), y = nm_words_find(&m->sets.key, b, strlen(b));
    for (int32_t i = 0; x >= 0 && y >= 0 && i < m->sets.n[x]; i++)
        for (int32_t k = 0; k < m->sets.n[y]; k++)
            if (m->sets.item[x][i] == m->sets.item[y][k])
                return true;
    return false;
}

/* Number of words when the phrase stands in t at `at`, else 0. */
static int phrase_at(const tokens *t, int at, const char *phrase)
{
    int n = 0;
    for (const char *p = phrase; *p; n++) {
        size_t len = strcspn(p, " ");
        if (at + n >= t->n || strlen(t->word[at + n]) != len || memcmp(t->word[at + n], p, len) != 0)
            return 0;
        p += len + strspn(p + len, " ");
    }
    return n;
}

static int find_matches(const nm_meteor *m, const tokens *h, const tokens *r, match *out)
{
    int n = 0;
    for (int i = 0; i < h->n; i++)
        for (int j = 0; j < r->n && n < MAX_MATCHES; j++) {
            int stage = strcmp(h->word[i], r->word[j]) == 0 ? 0 : strcmp(h->stem[i], r->stem[j]) == 0 ? 1 : share_set(m, h->word[i], r->word[j]) ? 2 : -1;
            if (stage >= 0)
                out[n++] = (match){ (int16_t)i, (int16_t)j, 1, 1, weight_of_stage[stage] };
        }
    if (!m->phrases.key.n)
        return n;
    char phrase[1024];
    for (int j = 0; j < r->n; j++)
        for (int k = 1, length = 0; k <= MAX_PHRASE && j + k <= r->n; k++) {
            int more = snprintf(phrase + length, sizeof phrase - (size_t)length, "%s%s", k > 1 ? " " : "", r->word[j + k - 1]);
            if (more < 0 || (length += more) >= (int)sizeof phrase)
                break;
            int32_t key = nm_words_find(&m->phrases.key, phrase, (size_t)length);
            for (int32_t c = 0; key >= 0 && c < m->phrases.n[key]; c++)
                for (int i = 0; i < h->n && n < MAX_MATCHES; i++) {
                    int words = phrase_at(h, i, m->paraphrase.word[m->phrases.item[key][c]]);
                    if (words)
                        out[n++] = (match){ (int16_t)i, (int16_t)j, (int16_t)words, (int16_t)k, weight_of_stage[3] };
                }
        }
    return n;
}

/* ---- alignment: most words covered, then fewest chunks, then least distance ---- */

typedef struct state { int covered, chunks, distance, next, end_hyp, end_ref, n; uint64_t used[MAX_WORDS / 64]; int16_t chosen[MAX_WORDS]; } state;

static int better(const void *a, const void *b)
{
    const state *x = a, *y = b;
    if (x->covered != y->covered)
        return y->covered - x->covered;
    return x->chunks != y->chunks ? x->chunks - y->chunks : x->distance - y->distance;
}

/* s with match k added; false: its words are taken. */
static bool take(const state *s, const match *m, int k, state *out)
{
    for (int w = m->ref; w < m->ref + m->n_ref; w++)
        if (s->used[w / 64] >> w % 64 & 1)
            return false;
    *out = *s;
    for (int w = m->ref; w < m->ref + m->n_ref; w++)
        out->used[w / 64] |= (uint64_t)1 << w % 64;
    out->covered += m->n_hyp + m->n_ref;
    out->chunks += s->n == 0 || m->hyp != s->end_hyp || m->ref != s->end_ref;
    out->distance += abs(m->hyp - m->ref);
    out->end_hyp = out->next = m->hyp + m->n_hyp;
    out->end_ref = m->ref + m->n_ref;
    out->chosen[out->n++] = (int16_t)k;
    return true;
}

/* beam: room for BEAM and BEAM * (1 + MAX_WORDS) states; the best one ends in beam[0]. */
static void align(const match *m, int n, int n_hyp, state *beam, state *next)
{
    int width = 1, at = 0;
    memset(beam, 0, sizeof *beam);
    for (int h = 0; h < n_hyp; h++) {
        int found = 0, end;
        for (end = at; end < n && m[end].hyp == h;)
            end++;
        for (int b = 0; b < width; b++) {
            next[found] = beam[b];
            next[found].next = beam[b].next > h ? beam[b].next : h + 1;
            found++;
            for (int k = at; beam[b].next <= h && k < end && k < at + MAX_WORDS; k++)
                found += take(&beam[b], &m[k], k, &next[found]);
        }
        at = end;
        qsort(next, (size_t)found, sizeof *next, better);
        width = found < BEAM ? found : BEAM;
        memcpy(beam, next, (size_t)width * sizeof *beam);
    }
}

static int by_hyp(const void *a, const void *b)
{
    const match *x = a, *y = b;
    if (x->hyp != y->hyp)
        return x->hyp - y->hyp;
    return x->weight != y->weight ? (x->weight < y->weight ? 1 : -1) : x->ref - y->ref;
}

static void count_words(const tokens *t, double *content, double *function)
{
    for (int i = 0; i < t->n; i++)
        *(t->function[i] ? function : content) += 1;
}

noema_status nm_meteor_score(nm_meteor *m, const char *hyp, const char *ref, nm_meteor_counts *c, noema_error *err)
{
    tokens h = { 0 }, r = { 0 };
    match *found = nm_malloc_array(MAX_MATCHES, sizeof *found);
    state *beam = nm_malloc_array(BEAM + BEAM * (1 + MAX_WORDS), sizeof *beam);
    bool ok = found && beam && tokenise(m, &h, hyp) && tokenise(m, &r, ref);
    *c = (nm_meteor_counts){ 0 };
    if (ok) {
        int n = find_matches(m, &h, &r, found);
        qsort(found, (size_t)n, sizeof *found, by_hyp);
        align(found, n, h.n, beam, beam + BEAM);
        count_words(&h, &c->hyp_content, &c->hyp_function);
        count_words(&r, &c->ref_content, &c->ref_function);
        c->words_hyp = h.n;
        c->words_ref = r.n;
        c->chunks = beam->chunks;
        for (int k = 0; k < beam->n; k++) {
            const match *x = &found[beam->chosen[k]];
            for (int i = x->hyp; i < x->hyp + x->n_hyp; i++)
                *(h.function[i] ? &c->match_hyp_function : &c->match_hyp_content) += x->weight;
            for (int i = x->ref; i < x->ref + x->n_ref; i++)
                *(r.function[i] ? &c->match_ref_function : &c->match_ref_content) += x->weight;
            c->matched_hyp += x->n_hyp;
            c->matched_ref += x->n_ref;
        }
    }
    tokens_free(&h);
    tokens_free(&r);
    free(found);
    free(beam);
    return ok ? NOEMA_OK : nm_fail(err, NOEMA_E_MEMORY, "out of memory: METEOR");
}

double nm_meteor_value(const nm_meteor_counts *c)
{
    double hyp = delta * c->hyp_content + (1 - delta) * c->hyp_function, ref = delta * c->ref_content + (1 - delta) * c->ref_function;
    double precision = hyp > 0 ? (delta * c->match_hyp_content + (1 - delta) * c->match_hyp_function) / hyp : 0;
    double recall = ref > 0 ? (delta * c->match_ref_content + (1 - delta) * c->match_ref_function) / ref : 0;
    if (!(precision > 0) || !(recall > 0))
        return 0;
    double f = precision * recall / (alpha * precision + (1 - alpha) * recall);
    bool whole = c->chunks == 1 && c->matched_hyp == c->words_hyp && c->matched_ref == c->words_ref;
    double penalty = whole ? 0 : gamma_ * pow(c->chunks / ((c->matched_hyp + c->matched_ref) / 2), beta);
    return (1 - penalty) * f;
}

void nm_meteor_sum(nm_meteor_counts *sum, const nm_meteor_counts *c)
{
    double *a = (double *)sum;
    const double *b = (const double *)c;
    for (size_t i = 0; i < sizeof *sum / sizeof *a; i++)
        a[i] += b[i];
}
