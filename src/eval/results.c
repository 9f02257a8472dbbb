/* results.c - see results.h. */
#include "eval/results.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"

#define TEXT_LIMIT ((size_t)256 << 20)

void nm_id_texts_free(nm_id_texts *t)
{
    nm_ids_free(&t->ids);
    nm_strings_free(t->id, t->n);
    nm_strings_free(t->file, t->n);
    nm_strings_free(t->text, t->n_texts);
    free(t->owner);
    *t = (nm_id_texts){ 0 };
}

int64_t nm_id_texts_find(nm_id_texts *t, const char *id) { return nm_ids_find(&t->ids, id); }

static int64_t no_memory(noema_error *err)
{
    nm_fail(err, NOEMA_E_MEMORY, "out of memory: captions");
    return -1;
}

int64_t nm_id_texts_picture(nm_id_texts *t, const char *id, noema_error *err)
{
    int64_t at = t->n && strcmp(t->id[t->n - 1], id) == 0 ? t->n - 1 : nm_ids_find(&t->ids, id); /* captions of a picture come in a row */
    if (at >= 0)
        return at;
    if (t->n == t->cap) {
        int64_t cap = t->cap ? 2 * t->cap : 256;
        char **a = nm_realloc_array(t->id, (size_t)cap, sizeof *a), **b;
        if (a)
            t->id = a;
        if ((b = nm_realloc_array(t->file, (size_t)cap, sizeof *b)))
            t->file = b;
        if (!a || !b)
            return no_memory(err);
        t->cap = cap;
    }
    char *copy = nm_strdup(id);
    if (!copy || nm_ids_add(&t->ids, nm_strdup(id), t->n, err) != NOEMA_OK) {
        free(copy);
        return no_memory(err);
    }
    t->id[t->n] = copy;
    t->file[t->n] = NULL;
    return t->n++;
}

noema_status nm_id_texts_add(nm_id_texts *t, const char *id, const char *text, noema_error *err)
{
    int64_t at = nm_id_texts_picture(t, id, err);
    if (at < 0)
        return NOEMA_E_MEMORY;
    if (t->n_texts == t->cap_texts) {
        int64_t cap = t->cap_texts ? 2 * t->cap_texts : 256, *b;
        char **a = nm_realloc_array(t->text, (size_t)cap, sizeof *a);
        if (a)
            t->text = a;
        if ((b = nm_realloc_array(t->owner, (size_t)cap, sizeof *b)))
            t->owner = b;
        if (!a || !b)
            return no_memory(err), NOEMA_E_MEMORY;
        t->cap_texts = cap;
    }
    if (!(t->text[t->n_texts] = nm_strdup(text)))
        return no_memory(err), NOEMA_E_MEMORY;
    t->owner[t->n_texts++] = at;
    return NOEMA_OK;
}

/* COCO's images: ids with their files, so that pictures without captions are known too. */
static noema_status read_images(nm_id_texts *t, const json_t *images, const char *path, noema_error *err)
{
    json_t *v;
    size_t i;
    json_array_foreach(images, i, v) {
        char *id = nm_id_text(nm_json_get(v, "id"));
        const char *name = nm_json_str(v, "file_name", NULL);
        int64_t at = id ? nm_id_texts_picture(t, id, err) : -1;
        free(id);
        if (at < 0)
            return nm_fail(err, NOEMA_E_FORMAT, "%s: images: entry %zu: expected \"id\"", path, i);
        if (name && !t->file[at] && !(t->file[at] = nm_strdup(name)))
            return no_memory(err), NOEMA_E_MEMORY;
    }
    return NOEMA_OK;
}

static noema_status read_list(nm_id_texts *t, const json_t *list, const char *path, noema_error *err)
{
    json_t *v;
    size_t i;
    noema_status s = NOEMA_OK;
    json_array_foreach(list, i, v) {
        char *id = nm_id_text(nm_json_get(v, "image_id"));
        const char *text = nm_json_str(v, "caption", NULL);
        s = id && text ? nm_id_texts_add(t, id, text, err)
                       : nm_fail(err, NOEMA_E_FORMAT, "%s: entry %zu: expected {\"image_id\", \"caption\"}", path, i);
        free(id);
        if (s != NOEMA_OK)
            return s;
    }
    return s;
}

static noema_status read_map(nm_id_texts *t, const json_t *map, const char *path, noema_error *err)
{
    const char *id;
    json_t *v, *text;
    size_t i;
    noema_status s = NOEMA_OK;
    json_object_foreach((json_t *)(uintptr_t)map, id, v) {
        if (json_is_string(v))
            s = nm_id_texts_add(t, id, json_string_value(v), err);
        else if (!json_is_array(v))
            s = nm_fail(err, NOEMA_E_FORMAT, "%s: '%.80s': expected a caption or a list of captions", path, id);
        json_array_foreach(v, i, text)
            if (s == NOEMA_OK)
                s = json_is_string(text) ? nm_id_texts_add(t, id, json_string_value(text), err)
                                         : nm_fail(err, NOEMA_E_FORMAT, "%s: '%.80s': expected captions as text", path, id);
        if (s != NOEMA_OK)
            return s;
    }
    return s;
}

noema_status nm_id_texts_json(nm_id_texts *t, const json_t *j, const char *path, noema_error *err)
{
    json_t *annotations = nm_json_get(j, "annotations");
    if (json_is_array(annotations)) {
        noema_status s = read_images(t, nm_json_get(j, "images"), path, err);
        return s == NOEMA_OK ? read_list(t, annotations, path, err) : s;
    }
    if (json_is_array(j))
        return read_list(t, j, path, err);
    if (json_is_object(j))
        return read_map(t, j, path, err);
    return nm_fail(err, NOEMA_E_FORMAT, "%s: expected COCO captions, [{\"image_id\", \"caption\"}] or {\"id\": caption}", path);
}

noema_status nm_id_texts_read(nm_id_texts *t, const char *path, noema_error *err)
{
    noema_status s = NOEMA_OK;
    char *text, id[32];
    size_t size;
    int64_t line = 0;
    if (nm_has_suffix(path, ".json")) {
        json_t *j = nm_json_load(path, err);
        s = j ? nm_id_texts_json(t, j, path, err) : err->code;
        json_decref(j);
        return s;
    }
    if ((s = nm_read_file(&text, &size, path, TEXT_LIMIT, err)) != NOEMA_OK)
        return s;
    for (char *p = text, *end; s == NOEMA_OK && p < text + size; p = end + 1) {
        end = memchr(p, '\n', (size_t)(text + size - p));
        end = end ? end : text + size;
        char *last = end > p && end[-1] == '\r' ? end - 1 : end;
        *last = 0;
        snprintf(id, sizeof id, "%lld", (long long)++line);
        s = nm_id_texts_add(t, id, p, err);
    }
    free(text);
    return s;
}
