/* texts.c - texts as items of a collection. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "index/intake.h"

enum { CHUNK = 256 };

static noema_status code_of(const noema_error *err)
{
    return err && err->code ? err->code : NOEMA_E_IO;
}

static noema_status is_there(noema_collection *c, const char *text, bool *there, noema_error *err)
{
    sqlite3_stmt *st = nm_catalog_stmt(&c->cat, NM_SQL_ITEM_BY_PATH, err);
    if (!st)
        return code_of(err);
    sqlite3_bind_int(st, 1, NOEMA_ITEM_TEXT);
    sqlite3_bind_text(st, 2, text, -1, SQLITE_STATIC);
    int r = nm_catalog_step(&c->cat, st, err);
    *there = r > 0 && nm_store_readable(c, (uint64_t)sqlite3_column_int64(st, 3), sqlite3_column_int64(st, 4));
    sqlite3_reset(st);
    return r < 0 ? code_of(err) : NOEMA_OK;
}

/* Embeds and commits [n <= CHUNK] texts that are new. */
static noema_status put_texts(noema_collection *c, noema_session *s, size_t n, const char **text, float *v, noema_error *err)
{
    noema_status r = noema_embed_texts(s, n, text, NULL, NOEMA_NORMALIZE, v, err);
    if (r == NOEMA_OK)
        nm_store_rows(c, n, v, true);
    for (size_t i = 0; i < n && r == NOEMA_OK; i++) {
        unsigned char hash[32];
        nm_sha256 h;
        nm_sha256_init(&h);
        nm_sha256_update(&h, text[i], strlen(text[i]));
        nm_sha256_final(&h, hash);
        nm_entry e = { .kind = NOEMA_ITEM_TEXT, .path = text[i], .size = (int64_t)strlen(text[i]), .hash = hash };
        r = nm_store_put(c, &e, v + i * (size_t)c->dim, NULL, err);
    }
    if (r == NOEMA_OK)
        return nm_store_commit(c, err);
    nm_store_rollback(c);
    return r;
}

/* The texts of [*at, n) that are new, up to CHUNK of them; the same text twice counts once. */
static noema_status gather(noema_collection *c, size_t n, const char *const *texts, size_t *at, const char **out, size_t *n_out,
                           noema_index_report *rep, noema_error *err)
{
    noema_status s = NOEMA_OK;
    *n_out = 0;
    for (; *at < n && *n_out < CHUNK && s == NOEMA_OK; ++*at) {
        bool there = false;
        s = is_there(c, texts[*at], &there, err);
        for (size_t k = 0; k < *n_out && !there; k++)
            there = strcmp(out[k], texts[*at]) == 0;
        if (there)
            rep->unchanged++;
        else
            out[(*n_out)++] = texts[*at];
    }
    return s;
}

noema_status noema_collection_index_texts(noema_collection *c, noema_session *s, size_t n, const char *const *texts, noema_index_report *report,
                                          noema_error *err)
{
    noema_index_report rep = { .struct_size = sizeof rep };
    noema_status r = nm_index_use_model(c, s, err);
    float *v = r == NOEMA_OK ? nm_malloc_array((size_t)CHUNK * (size_t)c->dim, sizeof *v) : NULL;
    const char *text[CHUNK];
    if (r == NOEMA_OK && !v)
        r = nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", c->path);
    for (size_t at = 0; at < n && r == NOEMA_OK;) {
        size_t k;
        r = gather(c, n, texts, &at, text, &k, &rep, err);
        if (r == NOEMA_OK && k)
            r = put_texts(c, s, k, text, v, err);
        rep.added += r == NOEMA_OK ? (int64_t)k : 0;
    }
    free(v);
    if (report)
        *report = rep;
    return r;
}
