/* labels.c - see labels.h. Source: clip_interrogator.py, LabelTable and load_list of version 0.6.0. */
#include "generate/labels.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/utf8.h"
#include "generate/tasks.h"
#include "weights/weights.h"

/* ---- lists ---- */

/* Length of the maximal ill-formed part that begins at s (Unicode 15, section 3.9, "substitution of maximal subparts"). */
static size_t ill_formed(const unsigned char *s, size_t n)
{
    unsigned c = s[0];
    size_t want = c >= 0xC2 && c <= 0xDF ? 2 : c >= 0xE0 && c <= 0xEF ? 3 : c >= 0xF0 && c <= 0xF4 ? 4 : 1;
    unsigned lo = c == 0xE0 ? 0xA0 : c == 0xF0 ? 0x90 : 0x80, hi = c == 0xED ? 0x9F : c == 0xF4 ? 0x8F : 0xBF;
    size_t len = 1;
    while (len < want && len < n && s[len] >= lo && s[len] <= hi) {
        len++;
        lo = 0x80;
        hi = 0xBF;
    }
    return len;
}

static bool repair(nm_buf *b, const char *s, size_t n)
{
    b->len = 0;
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        size_t len = (size_t)nm_utf8_decode(s + i, n - i, &cp);
        if (cp == UINT32_MAX) {
            len = ill_formed((const unsigned char *)s + i, n - i);
            nm_buf_puts(b, "\xEF\xBF\xBD");
        } else
            nm_buf_append(b, s + i, len);
        i += len;
    }
    return nm_buf_append(b, "", 0);
}

bool nm_labels_add(nm_labels *l, const char *front, const char *text, size_t n, const char *back)
{
    if (l->n == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 256;
        char **p = nm_realloc_array(l->text, cap, sizeof *p);
        if (!p)
            return false;
        l->text = p;
        l->cap = cap;
    }
    l->text[l->n] = nm_sprintf("%s%.*s%s", front, (int)n, text, back);
    return l->text[l->n] && ++l->n;
}

bool nm_labels_add_lines(nm_labels *l, const char *front, const char *text, size_t size, const char *back)
{
    nm_buf b = { 0 };
    bool ok = true;
    for (size_t at = 0; ok && at < size;) {
        size_t n = 0;
        while (at + n < size && text[at + n] != '\n' && text[at + n] != '\r')
            n++;
        ok = repair(&b, text + at, n);
        const char *s = b.data;
        size_t len = b.len;
        nm_strip(&s, &len);
        ok = ok && nm_labels_add(l, front, s, len, back);
        at += n;
        if (at < size)
            at += text[at] == '\r' && at + 1 < size && text[at + 1] == '\n' ? 2 : 1;
    }
    nm_buf_free(&b);
    return ok;
}

void nm_labels_free(nm_labels *l)
{
    for (size_t i = 0; i < l->n; i++)
        free(l->text[i]);
    free(l->text);
    nm_free(l->vectors);
    *l = (nm_labels){ 0 };
}

/* ---- cache ---- */

static void labels_hash(const nm_labels *l, char hex[65])
{
    nm_sha256 s;
    unsigned char digest[32];
    nm_sha256_init(&s);
    for (size_t i = 0; i < l->n; i++) {
        if (i)
            nm_sha256_update(&s, ",", 1);
        nm_sha256_update(&s, l->text[i], strlen(l->text[i]));
    }
    nm_sha256_final(&s, digest);
    nm_hex(digest, 32, hex);
}

static char *cache_path(const nm_labels *l, const char *cache, const char *prefix)
{
    char *file = nm_sprintf("%s_%s.safetensors", prefix, l->name);
    for (char *p = file; p && *p; p++)
        if (*p == '/' || *p == '@')
            *p = '_';
    char *path = file ? nm_path_join(cache, file) : NULL;
    free(file);
    return path;
}

/* A file that cannot be read, or is of other labels or another width, is as good as none. */
static bool read_cache(nm_labels *l, const char *path, const char *hex, int64_t dim)
{
    nm_weights *w = NULL;
    if (!nm_file_exists(path) || nm_weights_open(&w, path, NULL) != NOEMA_OK)
        return false;
    const nm_wview *e = nm_weights_find(w, "embeds"), *h = nm_weights_find(w, "hash");
    bool ok = e && h && e->dtype == NM_F16 && e->ndim == 2 && e->shape[0] == (int64_t)l->n && e->shape[1] == dim && h->dtype == NM_I8 &&
              nm_wview_numel(h) == 64 && nm_wview_contiguous(h) && memcmp(h->data, hex, 64) == 0;
    if (ok)
        nm_wview_copy_raw(e, l->vectors);
    nm_weights_close(w);
    return ok;
}

static noema_status write_cache(const nm_labels *l, const char *path, const char *hex, int64_t dim, noema_error *err)
{
    nm_wview v[2] = { { .name = "embeds", .dtype = NM_F16, .ndim = 2, .shape = { (int64_t)l->n, dim }, .stride = { dim, 1 }, .data = l->vectors },
                      { .name = "hash", .dtype = NM_I8, .ndim = 1, .shape = { 64 }, .stride = { 1 }, .data = hex } };
    return nm_safetensors_write(path, v, 2, NULL, err);
}

#define EMBED_STEP 256 /* labels between two calls of progress */

static noema_status embed_all(nm_labels *l, noema_session *s, size_t dim, size_t *done, size_t total, int (*progress)(void *, size_t, size_t), void *user,
                              noema_error *err)
{
    float *f = nm_alloc(EMBED_STEP * dim * sizeof *f);
    noema_status st = f ? NOEMA_OK : nm_fail(err, NOEMA_E_MEMORY, "out of memory: label vectors");
    for (size_t at = 0; st == NOEMA_OK && at < l->n; at += EMBED_STEP) {
        size_t n = l->n - at < EMBED_STEP ? l->n - at : EMBED_STEP;
        st = noema_embed_texts(s, n, (const char *const *)l->text + at, NULL, NOEMA_NORMALIZE, f, err);
        for (size_t i = 0; st == NOEMA_OK && i < n * dim; i++)
            l->vectors[at * dim + i] = nm_f32_to_f16(f[i]);
        *done += n;
        if (st == NOEMA_OK && progress && progress(user, *done, total) != 0)
            st = nm_fail(err, NOEMA_E_CANCELLED, "stopped while embedding %s", l->name);
    }
    nm_free(f);
    return st;
}

noema_status nm_labels_embed(nm_labels *l, noema_session *s, const char *cache, const char *prefix, size_t *done, size_t total,
                             int (*progress)(void *, size_t, size_t), void *user, noema_error *err)
{
    size_t dim = (size_t)s->model->info.embed_dim;
    char hex[65], *path = NULL;
    labels_hash(l, hex);
    l->vectors = nm_calloc(l->n * dim + 1, sizeof *l->vectors);
    if (!l->vectors || (cache && !(path = cache_path(l, cache, prefix))))
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory: label vectors");
    noema_status st = NOEMA_OK;
    if (path && read_cache(l, path, hex, (int64_t)dim))
        *done += l->n;
    else {
        st = embed_all(l, s, dim, done, total, progress, user, err);
        if (st == NOEMA_OK && path && (st = nm_mkdirs(cache, err)) == NOEMA_OK)
            st = write_cache(l, path, hex, (int64_t)dim, err);
    }
    free(path);
    return st;
}

/* ---- ranking ---- */

static int by_score(const void *a, const void *b)
{
    const nm_ranked *x = a, *y = b;
    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    return x->row < y->row ? -1 : x->row > y->row;
}

static size_t best_of(const float *scores, size_t from, size_t n, size_t keep, bool reverse, nm_ranked *tmp, nm_ranked *out)
{
    for (size_t i = 0; i < n; i++)
        tmp[i] = (nm_ranked){ from + i, reverse ? -scores[from + i] : scores[from + i] };
    qsort(tmp, n, sizeof *tmp, by_score);
    keep = keep < n ? keep : n;
    for (size_t i = 0; i < keep; i++)
        out[i] = (nm_ranked){ tmp[i].row, scores[tmp[i].row] };
    return keep;
}

size_t nm_rank(const float *scores, size_t n, size_t top, bool reverse, nm_rank_rule rule, nm_ranked *out)
{
    nm_ranked *tmp = nm_malloc_array(2 * n + 1, sizeof *tmp), *kept = tmp ? tmp + n : NULL;
    size_t found = SIZE_MAX;
    if (!tmp)
        return found;
    if (!rule.compat || n <= rule.chunk_size)
        found = best_of(scores, 0, n, top, reverse, tmp, out);
    else {
        size_t chunks = (n + rule.chunk_size - 1) / rule.chunk_size, keep = rule.chunk_size / chunks, have = 0;
        for (size_t at = 0; keep && at < n; at += rule.chunk_size)
            have += best_of(scores, at, n - at < rule.chunk_size ? n - at : rule.chunk_size, keep, reverse, tmp, kept + have);
        if (keep) {
            /* upstream's second stage: equal scores go to the earlier survivor */
            for (size_t i = 0; i < have; i++)
                tmp[i] = (nm_ranked){ i, kept[i].score };
            qsort(tmp, have, sizeof *tmp, by_score);
            found = top < have ? top : have;
            for (size_t i = 0; i < found; i++)
                out[i] = kept[tmp[i].row];
        }
    }
    free(tmp);
    return found;
}
