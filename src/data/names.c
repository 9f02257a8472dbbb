/* names.c - lists of class names and templates in files: one per line, or JSON. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "noema/data.h"

#define FILE_LIMIT ((size_t)64 << 20)

struct noema_names { char **item; size_t n, cap; };

static bool put(noema_names *l, size_t at, const char *s, size_t n)
{
    if (at >= l->cap) {
        size_t cap = at < 64 ? 64 : 2 * at;
        char **item = nm_realloc_array(l->item, cap, sizeof *item);
        if (!item)
            return false;
        memset(item + l->cap, 0, (cap - l->cap) * sizeof *item);
        l->item = item;
        l->cap = cap;
    }
    free(l->item[at]);
    l->n = at >= l->n ? at + 1 : l->n;
    return (l->item[at] = nm_strndup(s, n)) != NULL;
}

static bool add_lines(noema_names *l, const char *text, size_t size)
{
    bool ok = true;
    for (size_t at = 0; ok && at < size;) {
        size_t n = 0, from = at;
        while (at < size && text[at] != '\n')
            at++;
        n = at++ - from;
        while (n && strchr(" \t\r", text[from]))
            from++, n--;
        while (n && strchr(" \t\r", text[from + n - 1]))
            n--;
        ok = !n || put(l, l->n, text + from, n);
    }
    return ok;
}

/* ["a", ...]; [{"label": 0, "name"|"synset": "a"}, ...]; {"0": "a", ...} */
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
        if (!put(l, (size_t)k, name, strlen(name)))
            return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", path);
    }
    return NOEMA_OK;
}

noema_status noema_names_read(noema_names **out, const char *path, noema_error *err)
{
    noema_names *l = calloc(1, sizeof *l);
    char *text = NULL;
    size_t size = 0;
    json_t *j = NULL;
    *out = NULL;
    noema_status s = l ? nm_read_file(&text, &size, path, FILE_LIMIT, err) : nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", path);
    if (s == NOEMA_OK && nm_has_suffix(path, ".json"))
        s = (j = nm_json_parse(text, size, path, err)) ? add_json(l, j, path, err) : err ? err->code : NOEMA_E_FORMAT;
    else if (s == NOEMA_OK && !add_lines(l, text, size))
        s = nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", path);
    if (s == NOEMA_OK && l->n == 0)
        s = nm_fail(err, NOEMA_E_FORMAT, "%s: no names in it", path);
    for (size_t i = 0; s == NOEMA_OK && i < l->n; i++)
        if (!l->item[i])
            s = nm_fail(err, NOEMA_E_FORMAT, "%s: class %zu has no name", path, i);
    json_decref(j);
    free(text);
    if (s == NOEMA_OK)
        *out = l;
    else
        noema_names_free(l);
    return s;
}

void noema_names_free(noema_names *l)
{
    for (size_t i = 0; l && i < l->n; i++)
        free(l->item[i]);
    if (l)
        free(l->item);
    free(l);
}

const char *const *noema_names_items(const noema_names *l, size_t *n)
{
    *n = l ? l->n : 0;
    return l ? (const char *const *)l->item : NULL;
}
