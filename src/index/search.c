/* search.c - exact search: every live row is compared, segment by segment, in one read transaction of the catalogue, so that rows and
 * items belong together whatever a writer does meanwhile. */
#include <stdlib.h>
#include <string.h>

#include "index/store.h"
#include "kernels/kernels.h"
#include "kernels/scan.h"

enum { CHUNK_HITS = 1 << 18, CHUNK_QUERIES = 64 }; /* queries per scan: bounds the scratch memory at large k */

typedef struct best { float score; int segment; int64_t row; } best; /* segment: index in c->segments; -1: unused */

static noema_status no_memory(const noema_collection *c, noema_error *err)
{
    return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", c->path);
}

static noema_status code_of(const noema_error *err)
{
    return err && err->code ? err->code : NOEMA_E_IO;
}

void noema_search_options_default(noema_search_options *o)
{
    *o = (noema_search_options){ .struct_size = sizeof *o, .threshold = -2, .kind = NOEMA_ITEM_ANY };
}

/* Words become an FTS5 query of prefixes that must all occur: beach 20 -> "beach"* "20"*. NULL: out of memory. */
static char *name_query(const char *words)
{
    nm_buf b = { 0 };
    nm_buf_puts(&b, "");
    for (const char *s = words; *s;) {
        size_t n = strcspn(s, " \t\n");
        for (size_t i = 0; i < n; i++) {
            if (i == 0)
                nm_buf_puts(&b, b.len ? " \"" : "\"");
            if (s[i] == '"')
                nm_buf_putc(&b, '"');
            nm_buf_putc(&b, s[i]);
        }
        if (n)
            nm_buf_puts(&b, "\"*");
        s += n + (s[n] != 0);
    }
    return nm_buf_take(&b);
}

static void clear_bit(uint64_t *map, int64_t i)
{
    map[i >> 6] &= ~(UINT64_C(1) << (i & 63));
}

static int segment_index(const noema_collection *c, uint64_t id)
{
    for (int i = 0; i < c->n_segments; i++)
        if (c->segments[i]->h.id == id)
            return i;
    return -1;
}

/* Bitmaps of the rows to leave out, [n_segments][NM_SEG_CAPACITY / 64]: everything that the filter does not let through. */
static noema_status filter_bits(noema_collection *c, const noema_search_options *o, uint64_t *bits, noema_error *err)
{
    enum { WORDS = NM_SEG_CAPACITY / 64 };
    bool some = o->kind != NOEMA_ITEM_ANY || o->path_glob || o->name;
    if (!some)
        for (int i = 0; i < c->n_segments; i++)
            memcpy(bits + (size_t)i * WORDS, c->segments[i]->skip, WORDS * 8);
    else {
        memset(bits, 0xff, (size_t)c->n_segments * WORDS * 8);
        char *name = o->name ? name_query(o->name) : NULL;
        if (o->name && !name)
            return no_memory(c, err);
        sqlite3_stmt *st = nm_catalog_stmt(&c->cat, NM_SQL_ITEM_FILTER, err);
        int r = -1;
        if (st) {
            sqlite3_bind_int(st, 1, (int)o->kind);
            if (o->path_glob)
                sqlite3_bind_text(st, 2, o->path_glob, -1, SQLITE_STATIC);
            if (name && *name)
                sqlite3_bind_text(st, 3, name, -1, SQLITE_STATIC);
            while ((r = nm_catalog_step(&c->cat, st, err)) > 0) {
                int i = segment_index(c, (uint64_t)sqlite3_column_int64(st, 0));
                int64_t row = sqlite3_column_int64(st, 1);
                if (i >= 0 && nm_segment_good(c->segments[i], row))
                    clear_bit(bits + (size_t)i * WORDS, row);
            }
        }
        free(name);
        if (r < 0)
            return code_of(err);
    }
    for (size_t k = 0; k < o->n_exclude; k++) {
        sqlite3_stmt *st = nm_catalog_stmt(&c->cat, NM_SQL_ITEM_BY_ID, err);
        if (!st)
            return code_of(err);
        sqlite3_bind_int64(st, 1, o->exclude[k]);
        int r = nm_catalog_step(&c->cat, st, err), i = r > 0 ? segment_index(c, (uint64_t)sqlite3_column_int64(st, 3)) : -1;
        int64_t row = i >= 0 ? sqlite3_column_int64(st, 4) : 0;
        sqlite3_reset(st);
        if (r < 0)
            return code_of(err);
        if (i >= 0 && row >= 0 && row < c->segments[i]->rows)
            nm_bit_set(bits + (size_t)i * WORDS, row);
    }
    return NOEMA_OK;
}

/* Both lists are sorted, best first; segments come in order, so that on equal scores what is already there stays ahead. */
static void merge(best *have, const nm_hit *more, int segment, int64_t k, best *tmp)
{
    int64_t a = 0, b = 0;
    for (int64_t i = 0; i < k; i++) {
        bool left = have[a].segment >= 0, right = more[b].row >= 0;
        if (left && (!right || have[a].score >= more[b].score))
            tmp[i] = have[a++];
        else if (right) {
            tmp[i] = (best){ more[b].score, segment, more[b].row };
            b++;
        } else
            tmp[i] = (best){ 0, -1, 0 };
    }
    memcpy(have, tmp, (size_t)k * sizeof *have);
}

/* ---- several vectors an item (BLIP-2) ---- */

enum { BLOCK_ROWS = 32 };

/* A query's vectors against those of each row. A picture and a text: the best cosine (a text's vectors are all the same one, so that
 * one of the two means is of equal numbers). Two pictures: the mean over one's vectors of the best among the other's, the larger of both ways;
 * 1 for the same picture. */
typedef struct parts_job { const noema_collection *c; const nm_segment *g; const float *query; int64_t rows, n_query; const uint64_t *skip; float *score, *dots; } parts_job;

static float parts_score(const parts_job *j, const float *dots, int64_t ld)
{
    int64_t n = j->c->vectors;
    double by_query = 0, by_row = 0;
    for (int64_t q = 0; q < j->n_query; q++) {
        float best = dots[q * ld];
        for (int64_t r = 1; r < n; r++)
            best = dots[q * ld + r] > best ? dots[q * ld + r] : best;
        by_query += (double)best / (double)j->n_query;
    }
    for (int64_t r = 0; r < n; r++) {
        float best = dots[r];
        for (int64_t q = 1; q < j->n_query; q++)
            best = dots[q * ld + r] > best ? dots[q * ld + r] : best;
        by_row += (double)best / (double)n;
    }
    return (float)((double)n * (by_query > by_row ? by_query : by_row)); /* both sides are scaled by 1 / sqrt(n) */
}

static void parts_block(void *arg, int64_t begin, int64_t end, int worker)
{
    const parts_job *j = arg;
    int64_t n = j->c->vectors, each = j->c->dim / n, ld = BLOCK_ROWS * n;
    float *dots = j->dots + (size_t)worker * (size_t)(n * ld);
    const unsigned char *rows = j->g->data + (size_t)begin * nm_segment_row_bytes(j->g);
    nm_kernels_get()->scan.dots(j->n_query, j->query, (end - begin) * n, each, rows, j->c->dtype, each, NULL, dots, ld);
    for (int64_t i = begin; i < end; i++)
        j->score[i] = parts_score(j, dots + (i - begin) * n, ld);
}

/* The k best of score[rows], best first, equal ones by row; unused places have row -1. */
static void parts_best(const parts_job *j, int64_t k, nm_hit *hits)
{
    int64_t n = 0;
    for (int64_t i = 0; i < j->rows; i++) {
        if (nm_bit(j->skip, i) || (n == k && !(j->score[i] > hits[n - 1].score)))
            continue;
        int64_t at = n < k ? n++ : n - 1;
        for (; at > 0 && hits[at - 1].score < j->score[i]; at--)
            hits[at] = hits[at - 1];
        hits[at] = (nm_hit){ j->score[i], i };
    }
    for (; n < k; n++)
        hits[n] = (nm_hit){ 0, -1 };
}

static noema_status scan_parts(noema_collection *c, int64_t nq, const float *queries, int64_t k, const uint64_t *bits, best *found, noema_error *err)
{
    nm_pool *pool = nm_store_pool(c);
    size_t n = (size_t)c->vectors, each = (size_t)c->dim / n, dots;
    bool fits = nm_mul_size((size_t)nm_pool_size(pool) * BLOCK_ROWS, n * n, &dots);
    parts_job j = { .c = c, .score = nm_malloc_array(NM_SEG_CAPACITY, sizeof *j.score), .dots = fits ? nm_malloc_array(dots, sizeof *j.dots) : NULL };
    nm_hit *hits = nm_malloc_array((size_t)k, sizeof *hits);
    best *tmp = nm_malloc_array((size_t)k, sizeof *tmp);
    noema_status s = j.score && j.dots && hits && tmp ? NOEMA_OK : no_memory(c, err);
    for (int64_t i = 0; i < nq * k && s == NOEMA_OK; i++)
        found[i] = (best){ 0, -1, 0 };
    for (int64_t q = 0; q < nq && s == NOEMA_OK; q++) {
        j.query = queries + (size_t)q * (size_t)c->dim;
        j.n_query = 1;
        for (size_t p = 1; p < n && j.n_query == 1; p++)
            j.n_query = memcmp(j.query, j.query + p * each, each * sizeof *j.query) == 0 ? 1 : (int64_t)n;
        for (int i = 0; i < c->n_segments; i++) {
            j.g = c->segments[i];
            j.rows = j.g->rows < j.g->usable ? j.g->rows : j.g->usable;
            j.skip = bits ? bits + (size_t)i * (NM_SEG_CAPACITY / 64) : j.g->skip;
            if (!j.g->data || j.rows <= 0)
                continue;
            nm_parallel_for(pool, j.rows, BLOCK_ROWS, parts_block, &j);
            parts_best(&j, k, hits);
            merge(found + q * k, hits, i, k, tmp);
        }
    }
    free(j.score);
    free(j.dots);
    free(hits);
    free(tmp);
    return s;
}

/* The k best of all segments for nq queries: found [nq, k]. */
static noema_status scan(noema_collection *c, int64_t nq, const float *queries, int64_t k, const uint64_t *bits, best *found, noema_error *err)
{
    nm_pool *pool = nm_store_pool(c);
    void *scratch = nm_alloc(nm_scan_scratch(nq, k, nm_pool_size(pool)));
    nm_hit *hits = nm_malloc_array((size_t)(nq * k), sizeof *hits);
    best *tmp = nm_malloc_array((size_t)k, sizeof *tmp);
    noema_status s = scratch && hits && tmp ? NOEMA_OK : no_memory(c, err);
    for (int64_t i = 0; i < nq * k && s == NOEMA_OK; i++)
        found[i] = (best){ 0, -1, 0 };
    for (int i = 0; i < c->n_segments && s == NOEMA_OK; i++) {
        const nm_segment *g = c->segments[i];
        int64_t rows = g->rows < g->usable ? g->rows : g->usable;
        if (!g->data || rows <= 0)
            continue;
        nm_scan_topk(nm_kernels_get(), nq, queries, rows, c->dim, g->data, c->dtype, c->dim, NULL,
                     bits ? bits + (size_t)i * (NM_SEG_CAPACITY / 64) : g->skip, k, hits, pool, scratch);
        for (int64_t q = 0; q < nq; q++)
            merge(found + q * k, hits + q * k, i, k, tmp);
    }
    nm_free(scratch);
    free(hits);
    free(tmp);
    return s;
}

/* Hits as the caller sees them. */
static noema_status name_hits(noema_collection *c, const best *found, int64_t k, float threshold, noema_match *out, size_t *n, noema_error *err)
{
    *n = 0;
    for (int64_t i = 0; i < k && found[i].segment >= 0 && found[i].score >= threshold; i++) {
        sqlite3_stmt *st = nm_catalog_stmt(&c->cat, NM_SQL_ITEM_BY_ROW, err);
        if (!st)
            return code_of(err);
        sqlite3_bind_int64(st, 1, (int64_t)c->segments[found[i].segment]->h.id);
        sqlite3_bind_int64(st, 2, found[i].row);
        nm_item item;
        int r = nm_catalog_step(&c->cat, st, err);
        if (r < 0 || (r > 0 && nm_store_row(c, st, &item, err) != NOEMA_OK)) {
            sqlite3_reset(st);
            return code_of(err);
        }
        if (r == 0)
            return nm_fail(err, NOEMA_E_FORMAT, "%s: row %lld of segment %llu has no item", c->cat.path, (long long)found[i].row,
                           (unsigned long long)c->segments[found[i].segment]->h.id);
        size_t bytes = strlen(item.path) + 1;
        char *path = nm_arena_alloc(c->results, bytes);
        if (path)
            memcpy(path, item.path, bytes);
        sqlite3_reset(st);
        if (!path)
            return no_memory(c, err);
        out[(*n)++] = (noema_match){ .id = item.id, .score = found[i].score, .path = path, .width = item.width, .height = item.height,
                                     .kind = (noema_item_kind)item.kind };
    }
    return NOEMA_OK;
}

static noema_status search(noema_collection *c, size_t nq, const float *queries, size_t k, const noema_search_options *o, noema_match *matches,
                           size_t *n_found, noema_error *err)
{
    noema_status s = nm_store_refresh(c, err);
    if (s != NOEMA_OK)
        return s;
    int64_t kk = (int64_t)k < c->n_items ? (int64_t)k : c->n_items;
    memset(n_found, 0, nq * sizeof *n_found);
    if (kk <= 0)
        return NOEMA_OK;
    uint64_t *bits = NULL;
    if (o->kind != NOEMA_ITEM_ANY || o->path_glob || o->name || o->n_exclude) {
        bits = nm_malloc_array((size_t)c->n_segments + 1, NM_SEG_CAPACITY / 8);
        s = bits ? filter_bits(c, o, bits, err) : no_memory(c, err);
    }
    int64_t chunk = CHUNK_HITS / kk < 1 ? 1 : CHUNK_HITS / kk > CHUNK_QUERIES ? CHUNK_QUERIES : CHUNK_HITS / kk;
    best *found = nm_malloc_array((size_t)(chunk * kk), sizeof *found);
    if (!found && s == NOEMA_OK)
        s = no_memory(c, err);
    for (size_t q = 0; q < nq && s == NOEMA_OK; q += (size_t)chunk) {
        int64_t n = nq - q < (size_t)chunk ? (int64_t)(nq - q) : chunk;
        s = (c->vectors > 1 ? scan_parts : scan)(c, n, queries + q * (size_t)c->dim, kk, bits, found, err);
        for (int64_t i = 0; i < n && s == NOEMA_OK; i++)
            s = name_hits(c, found + i * kk, kk, o->threshold, matches + (q + (size_t)i) * k, &n_found[q + (size_t)i], err);
    }
    free(found);
    free(bits);
    return s;
}

noema_status noema_collection_search(noema_collection *c, size_t n_queries, const float *queries, size_t k, const noema_search_options *o,
                                     noema_match *matches, size_t *n_found, noema_error *err)
{
    noema_search_options dflt;
    noema_search_options_default(&dflt);
    nm_arena_reset(c->results);
    bool mine = sqlite3_get_autocommit(c->cat.db);
    noema_status s = mine ? nm_catalog_exec(&c->cat, "BEGIN", err) : NOEMA_OK;
    if (s != NOEMA_OK)
        return s;
    s = search(c, n_queries, queries, k, o ? o : &dflt, matches, n_found, err);
    if (mine)
        sqlite3_exec(c->cat.db, "COMMIT", NULL, NULL, NULL);
    return s;
}
