/* expand.c - see expand.h. */
#include "data/expand.h"

#include <ctype.h>
#include <glob.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"

#define MAX_PATHS ((size_t)1 << 17)
#define MAX_DEPTH 16

noema_status nm_paths_add(nm_paths *p, const char *path, noema_error *err)
{
    if (p->n == MAX_PATHS)
        return nm_fail(err, NOEMA_E_LIMIT, "%s: more than %zu files", path, MAX_PATHS);
    if (p->n == p->cap) {
        size_t cap = p->cap ? 2 * p->cap : 16;
        char **grown = nm_realloc_array(p->path, cap, sizeof *grown);
        if (!grown)
            return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", path);
        p->path = grown;
        p->cap = cap;
    }
    return (p->path[p->n] = nm_strdup(path)) ? p->n++, NOEMA_OK : nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", path);
}

static bool there(const char *path) { return nm_file_exists(path) || nm_dir_exists(path); }

static noema_status match(nm_paths *p, const char *path, noema_error *err)
{
    glob_t g;
    noema_status s = NOEMA_OK;
    if (!strpbrk(path, "*?[") || there(path))
        return nm_paths_add(p, path, err);
    int r = glob(path, GLOB_ERR, NULL, &g);
    if (r != 0)
        return nm_fail(err, r == GLOB_NOMATCH ? NOEMA_E_MISSING : NOEMA_E_IO, "%s: no file matches", path);
    for (size_t i = 0; i < g.gl_pathc && s == NOEMA_OK; i++)
        s = nm_paths_add(p, g.gl_pathv[i], err);
    globfree(&g);
    return s;
}

static noema_status expand(nm_paths *p, const char *text, int depth, noema_error *err);

static noema_status put_together(nm_paths *p, const char *text, size_t before, const char *middle, size_t n, const char *after, int depth, noema_error *err)
{
    char *one = nm_sprintf("%.*s%.*s%s", (int)before, text, (int)n, middle, after);
    noema_status s = one ? expand(p, one, depth + 1, err) : nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", text);
    free(one);
    return s;
}

/* "{0008..0011}": as wide as the first number is written when that begins with 0. */
static noema_status expand_range(nm_paths *p, const char *text, size_t before, const char *in, size_t n, const char *after, int depth, noema_error *err)
{
    char number[32], *end;
    long long from = strtoll(in, &end, 10), to = strtoll(end + 2, NULL, 10);
    int width = *in == '0' ? (int)(end - in) : 0;
    noema_status s = NOEMA_OK;
    if (n > 40 || from < 0 || to < from || width > 20 || to - from >= (long long)MAX_PATHS)
        return nm_fail(err, NOEMA_E_ARGUMENT, "%s: {%.*s}: expected {first..last}", text, (int)n, in);
    for (long long i = from; i <= to && s == NOEMA_OK; i++) {
        int k = snprintf(number, sizeof number, "%0*lld", width, i);
        s = put_together(p, text, before, number, (size_t)k, after, depth, err);
    }
    return s;
}

static bool is_range(const char *in, size_t n)
{
    size_t digits = strspn(in, "0123456789");
    return digits && digits + 2 < n && in[digits] == '.' && in[digits + 1] == '.' && strspn(in + digits + 2, "0123456789") == n - digits - 2;
}

static noema_status expand_list(nm_paths *p, const char *text, size_t before, const char *in, size_t n, const char *after, int depth, noema_error *err)
{
    noema_status s = NOEMA_OK;
    for (const char *at = in; s == NOEMA_OK && at <= in + n;) {
        const char *comma = memchr(at, ',', (size_t)(in + n - at));
        size_t k = comma ? (size_t)(comma - at) : (size_t)(in + n - at);
        s = put_together(p, text, before, at, k, after, depth, err);
        at += k + 1;
    }
    return s;
}

static noema_status expand(nm_paths *p, const char *text, int depth, noema_error *err)
{
    const char *open = strchr(text, '{'), *close = open ? strchr(open, '}') : NULL;
    if (depth > MAX_DEPTH)
        return nm_fail(err, NOEMA_E_LIMIT, "%s: more than %d braces", text, MAX_DEPTH);
    if (!close || there(text))
        return match(p, text, err);
    size_t n = (size_t)(close - open) - 1;
    if (is_range(open + 1, n))
        return expand_range(p, text, (size_t)(open - text), open + 1, n, close + 1, depth, err);
    if (memchr(open + 1, ',', n))
        return expand_list(p, text, (size_t)(open - text), open + 1, n, close + 1, depth, err);
    return match(p, text, err);
}

noema_status nm_paths_expand(nm_paths *p, const char *source, noema_error *err)
{
    noema_status s = NOEMA_OK;
    for (const char *at = source; s == NOEMA_OK;) {
        const char *next = strstr(at, "::");
        char *one = next ? nm_strndup(at, (size_t)(next - at)) : nm_strdup(at);
        if (!one)
            return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", source);
        s = *one ? expand(p, one, 0, err) : nm_fail(err, NOEMA_E_ARGUMENT, "%s: an empty path", source);
        free(one);
        if (!next)
            break;
        at = next + 2;
    }
    return s;
}

void nm_paths_free(nm_paths *p)
{
    for (size_t i = 0; i < p->n; i++)
        free(p->path[i]);
    free(p->path);
    *p = (nm_paths){ 0 };
}
