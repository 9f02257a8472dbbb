/* names.c - lists of class names and templates in files: one per line, or JSON. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "data/names.h"

struct noema_names { char **item, **wnid; size_t n, cap; }; /* wnid[i]: or NULL */

static bool put(noema_names *l, size_t at, const char *s, size_t n)
{
    if (at >= l->cap) {
        size_t cap = at < 64 ? 64 : 2 * at;
        char **item = nm_realloc_array(l->item, cap, sizeof *item);
        if (!item)
            return false;
        l->item = item;
        memset(item + l->cap, 0, (cap - l->cap) * sizeof *item);
        char **wnid = nm_realloc_array(l->wnid, cap, sizeof *wnid);
        if (!wnid)
            return false;
        l->wnid = wnid;
        memset(wnid + l->cap, 0, (cap - l->cap) * sizeof *wnid);
        l->cap = cap;
    }
    free(l->item[at]);
    l->n = at >= l->n ? at + 1 : l->n;
    return (l->item[at] = nm_strndup(s, n)) != NULL;
}

/* "n01440764 tench" in every line: numbers of WordNet before the names. */
static bool has_wnid(const char *s)
{
    return s[0] == 'n' && strspn(s + 1, "0123456789") == 8 && (s[9] == ' ' || s[9] == '\t');
}

static noema_status add_lines(noema_names *l, const char *path, noema_error *err)
{
    char **line;
    int64_t n;
    bool numbered = true, ok = true;
    noema_status s = nm_read_lines(&line, &n, path, NM_LINES_LIMIT, err);
    for (int64_t i = 0; s == NOEMA_OK && i < n; i++)
        numbered = numbered && has_wnid(line[i]);
    for (int64_t i = 0; s == NOEMA_OK && ok && i < n; i++) {
        const char *name = numbered ? line[i] + 9 + strspn(line[i] + 9, " \t") : line[i];
        ok = put(l, l->n, name, strlen(name)) && (!numbered || (l->wnid[i] = nm_strndup(line[i], 9)));
    }
    if (s == NOEMA_OK)
        nm_strings_free(line, n);
    return ok ? s : nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", path);
}

/* ["a", ...]; [{"label": 0, "name"|"synset": "a", "wnid": "n01440764"}, ...]; {"0": "a", ...} */
static noema_status add_json(noema_names *l, const json_t *j, const char *path, noema_error *err)
{
    const char *key;
    json_t *v;
    size_t i;
    if (json_is_object(j)) {
        json_object_foreach((json_t *)(uintptr_t)j, key, v) {
            char *end;
            long k = strtol(key, &end, 10);
            if (*end || k < 0 || k > 1 << 24 || !json_is_string(v))
                return nm_fail(err, NOEMA_E_FORMAT, "%s: expected class numbers with names, got \"%s\"", path, key);
            if (!put(l, (size_t)k, json_string_value(v), json_string_length(v)))
                return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", path);
        }
        return NOEMA_OK;
    }
    json_array_foreach(j, i, v) {
        const char *name = json_is_string(v) ? json_string_value(v) : nm_json_str(v, "name", nm_json_str(v, "synset", NULL));
        int64_t k = nm_json_int(v, "label", (int64_t)i);
        if (!name || k < 0 || k > 1 << 24)
            return nm_fail(err, NOEMA_E_FORMAT, "%s: item %zu: expected a name, or an object with \"label\" and \"name\"", path, i);
        const char *wnid = json_is_object(v) ? nm_json_str(v, "wnid", NULL) : NULL;
        bool ok = put(l, (size_t)k, name, strlen(name));
        if (ok && wnid) {
            free(l->wnid[k]);
            ok = (l->wnid[k] = nm_strdup(wnid)) != NULL;
        }
        if (!ok)
            return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", path);
    }
    return NOEMA_OK;
}

noema_status noema_names_read(noema_names **out, const char *path, noema_error *err)
{
    noema_names *l = calloc(1, sizeof *l);
    json_t *j = NULL;
    *out = NULL;
    noema_status s = l ? NOEMA_OK : nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", path);
    if (s == NOEMA_OK && nm_has_suffix(path, ".json"))
        s = (j = nm_json_load(path, err)) ? add_json(l, j, path, err) : err ? err->code : NOEMA_E_FORMAT;
    else if (s == NOEMA_OK)
        s = add_lines(l, path, err);
    if (s == NOEMA_OK && l->n == 0)
        s = nm_fail(err, NOEMA_E_FORMAT, "%s: no names in it", path);
    for (size_t i = 0; s == NOEMA_OK && i < l->n; i++)
        if (!l->item[i])
            s = nm_fail(err, NOEMA_E_FORMAT, "%s: class %zu has no name", path, i);
    json_decref(j);
    if (s == NOEMA_OK)
        *out = l;
    else
        noema_names_free(l);
    return s;
}

void noema_names_free(noema_names *l)
{
    if (!l)
        return;
    nm_strings_free(l->item, (int64_t)l->n);
    nm_strings_free(l->wnid, (int64_t)l->n);
    free(l);
}

const char *const *noema_names_items(const noema_names *l, size_t *n)
{
    *n = l ? l->n : 0;
    return l ? (const char *const *)l->item : NULL;
}

const char *nm_names_wnid(const noema_names *l, size_t i) { return l->wnid[i]; }
