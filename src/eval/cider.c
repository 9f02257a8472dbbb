/* cider.c - CIDEr and CIDEr-D (arXiv 1411.5726) over n-grams of 1 to 4 words. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/json.h"
#include "eval/captions.h"

enum { ORDERS = 4 };
#define SIGMA 6.0

typedef struct gram { int32_t word[ORDERS]; /* -1 behind the last */ } gram;

/* Every n-gram gets a number. */
typedef struct grams { gram *key; double *df; int64_t *last; int32_t *table; int32_t n; uint32_t slots; } grams;

static uint32_t slot_of(const grams *g, const gram *k)
{
    uint32_t i = (uint32_t)nm_hash64(k, sizeof *k, 0) & (g->slots - 1);
    while (g->table[i] >= 0 && memcmp(&g->key[g->table[i]], k, sizeof *k) != 0)
        i = (i + 1) & (g->slots - 1);
    return i;
}

static bool grow(grams *g)
{
    uint32_t slots = g->slots ? 2 * g->slots : 4096;
    int32_t *table = nm_malloc_array(slots, sizeof *table);
    gram *key = nm_realloc_array(g->key, slots, sizeof *key);
    if (key)
        g->key = key;
    double *df = nm_realloc_array(g->df, slots, sizeof *df);
    if (df)
        g->df = df;
    int64_t *last = nm_realloc_array(g->last, slots, sizeof *last);
    if (last)
        g->last = last;
    if (!table || !key || !df || !last) {
        free(table);
        return false;
    }
    memset(table, 0xFF, slots * sizeof *table);
    free(g->table);
    g->table = table;
    g->slots = slots;
    for (int32_t i = 0; i < g->n; i++)
        table[slot_of(g, &key[i])] = i;
    return true;
}

static int32_t number(grams *g, const gram *k)
{
    if ((uint32_t)g->n >= g->slots / 2 && (g->n >= 1 << 28 || !grow(g)))
        return -1;
    uint32_t i = slot_of(g, k);
    if (g->table[i] < 0) {
        g->key[g->n] = *k;
        g->df[g->n] = 0;
        g->last[g->n] = -1;
        g->table[i] = g->n++;
    }
    return g->table[i];
}

/* A sentence as counts of n-grams, by number; those of order k are [start[k], start[k + 1]). */
typedef struct vector { int32_t *id, *count; double *weight; int32_t start[ORDERS + 1]; double norm[ORDERS]; int32_t bigrams; } vector;

static void vector_free(vector *v)
{
    free(v->id);
    free(v->weight);
}

static int up(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

static bool make(vector *v, const nm_sentence *s, grams *g)
{
    size_t most = (size_t)s->n * ORDERS + 1;
    int32_t n = 0;
    *v = (vector){ .id = nm_malloc_array(most, 2 * sizeof *v->id), .weight = nm_malloc_array(most, sizeof *v->weight) };
    if (!v->id || !v->weight)
        return false;
    v->count = v->id + most;
    v->bigrams = s->n > 1 ? s->n - 1 : 0;
    for (int order = 1; order <= ORDERS; order++) {
        int32_t first = v->start[order - 1] = n, end = first;
        for (int32_t i = 0; i + order <= s->n; i++) {
            gram k = { { -1, -1, -1, -1 } };
            memcpy(k.word, s->word + i, (size_t)order * sizeof *k.word);
            if ((v->id[end++] = number(g, &k)) < 0)
                return false;
        }
        qsort(v->id + first, (size_t)(end - first), sizeof *v->id, up);
        for (int32_t i = first; i < end; i++)
            if (i > first && v->id[i] == v->id[n - 1])
                v->count[n - 1]++;
            else {
                v->id[n] = v->id[i];
                v->count[n++] = 1;
            }
        v->start[order] = n;
    }
    return true;
}

static void weigh(vector *v, const grams *g, double log_images)
{
    for (int k = 0; k < ORDERS; k++) {
        double square = 0;
        for (int32_t i = v->start[k]; i < v->start[k + 1]; i++) {
            v->weight[i] = v->count[i] * (log_images - log(fmax(1, g->df[v->id[i]])));
            square += v->weight[i] * v->weight[i];
        }
        v->norm[k] = sqrt(square);
    }
}

/* Mean over the orders of the similarity of two sentences. */
static double similarity(const vector *h, const vector *r, bool plain)
{
    double sum = 0, delta = h->bigrams - r->bigrams;
    for (int k = 0; k < ORDERS; k++) {
        double s = 0;
        for (int32_t i = h->start[k], j = r->start[k]; i < h->start[k + 1] && j < r->start[k + 1];)
            if (h->id[i] == r->id[j]) {
                s += (plain ? h->weight[i] : fmin(h->weight[i], r->weight[j])) * r->weight[j];
                i++, j++;
            } else if (h->id[i] < r->id[j])
                i++;
            else
                j++;
        if (h->norm[k] != 0 && r->norm[k] != 0)
            s /= h->norm[k] * r->norm[k];
        sum += plain ? s : s * exp(-delta * delta / (2 * SIGMA * SIGMA));
    }
    return sum / ORDERS;
}

/* In how many items' references each n-gram stands. */
static void count_df(grams *g, const nm_caption_set *c, const vector *ref)
{
    for (int64_t i = 0; i < c->n; i++)
        for (int64_t r = c->first[i]; r < c->first[i + 1]; r++)
            for (int32_t k = 0; k < ref[r].start[ORDERS]; k++)
                if (g->last[ref[r].id[k]] != i) {
                    g->last[ref[r].id[k]] = i;
                    g->df[ref[r].id[k]]++;
                }
}

/* Frequencies that were counted elsewhere: n-grams as words with blanks between. */
static noema_status read_df(grams *g, const nm_caption_set *c, const json_t *file, double *images, noema_error *err)
{
    const char *key;
    json_t *v, *df = nm_json_get(file, "df");
    *images = nm_json_num(file, "images", 0);
    if (!json_is_object(df) || !(*images >= 1))
        return nm_fail(err, NOEMA_E_FORMAT, "document frequencies: expected {\"images\": n, \"df\": {\"n gram\": count}}");
    json_object_foreach(df, key, v) {
        gram k = { { -1, -1, -1, -1 } };
        int order = 0;
        bool known = true;
        for (const char *p = key; known && *p && order <= ORDERS; order++) {
            size_t n = strcspn(p, " ");
            int32_t word = order < ORDERS ? nm_words_find(&c->words, p, n) : -1;
            if ((known = word >= 0))
                k.word[order] = word;
            p += n + (p[n] == ' ');
        }
        if (!json_is_number(v))
            return nm_fail(err, NOEMA_E_FORMAT, "document frequencies: '%.60s': expected a number", key);
        int32_t id = known && order >= 1 && order <= ORDERS && g->slots ? g->table[slot_of(g, &k)] : -1;
        if (id >= 0)
            g->df[id] = json_number_value(v);
    }
    return NOEMA_OK;
}

noema_status nm_cider(const nm_caption_set *c, const nm_cider_options *o, double *score, noema_error *err)
{
    grams g = { 0 };
    vector *ref = calloc((size_t)c->n_refs + 1, sizeof *ref), *hyp = calloc((size_t)c->n + 1, sizeof *hyp);
    double images = (double)c->n;
    bool ok = ref && hyp;
    for (int64_t r = 0; ok && r < c->n_refs; r++)
        ok = make(&ref[r], &c->ref[r], &g);
    for (int64_t i = 0; ok && i < c->n; i++)
        ok = make(&hyp[i], &c->hyp[i], &g);
    noema_status s = ok ? NOEMA_OK : nm_fail(err, NOEMA_E_MEMORY, "out of memory: n-grams of %lld captions", (long long)c->n);
    if (s == NOEMA_OK && o->df)
        s = read_df(&g, c, o->df, &images, err);
    else if (s == NOEMA_OK)
        count_df(&g, c, ref);
    for (int64_t r = 0; s == NOEMA_OK && r < c->n_refs; r++)
        weigh(&ref[r], &g, log(images));
    for (int64_t i = 0; s == NOEMA_OK && i < c->n; i++) {
        double sum = 0;
        weigh(&hyp[i], &g, log(images));
        for (int64_t r = c->first[i]; r < c->first[i + 1]; r++)
            sum += similarity(&hyp[i], &ref[r], o->plain);
        score[i] = c->first[i + 1] > c->first[i] ? 10 * sum / (double)(c->first[i + 1] - c->first[i]) : 0;
    }
    for (int64_t r = 0; ref && r < c->n_refs; r++)
        vector_free(&ref[r]);
    for (int64_t i = 0; hyp && i < c->n; i++)
        vector_free(&hyp[i]);
    free(ref);
    free(hyp);
    free(g.key);
    free(g.df);
    free(g.last);
    free(g.table);
    return s;
}
