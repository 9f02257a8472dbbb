/* coco.c - COCO's captions files: {"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "eval/coco.h"

static int by_id(const void *a, const void *b)
{
    const nm_id_entry *x = a, *y = b;
    int c = strcmp(x->id, y->id);
    return c ? c : (x->at > y->at) - (x->at < y->at);
}

void nm_ids_free(nm_ids *s)
{
    for (int64_t i = 0; i < s->n; i++)
        free(s->entry[i].id);
    free(s->entry);
    *s = (nm_ids){ 0 };
}

noema_status nm_ids_add(nm_ids *s, char *id, int64_t at, noema_error *err)
{
    if (id && s->n == s->cap) {
        int64_t cap = s->cap ? 2 * s->cap : 1024;
        nm_id_entry *p = nm_realloc_array(s->entry, (size_t)cap, sizeof *p);
        if (p) {
            s->entry = p;
            s->cap = cap;
        }
    }
    if (!id || s->n == s->cap) {
        free(id);
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory: ids");
    }
    s->entry[s->n++] = (nm_id_entry){ id, at };
    s->sorted = false;
    return NOEMA_OK;
}

int64_t nm_ids_find(nm_ids *s, const char *id)
{
    if (!s->sorted)
        qsort(s->entry, (size_t)s->n, sizeof *s->entry, by_id);
    s->sorted = true;
    int64_t low = 0, high = s->n;
    while (low < high) {
        int64_t mid = (low + high) / 2;
        if (strcmp(s->entry[mid].id, id) < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return low < s->n && strcmp(s->entry[low].id, id) == 0 ? s->entry[low].at : -1;
}

char *nm_id_text(const json_t *v)
{
    if (v && json_is_integer(v))
        return nm_sprintf("%lld", (long long)json_integer_value(v));
    return v && json_is_string(v) ? nm_strdup(json_string_value(v)) : NULL;
}

char *nm_eval_image_path(const nm_eval *e, const char *json_path, const char *name)
{
    char *dir = e->o.image_dir ? nm_strdup(e->o.image_dir) : nm_path_dir(json_path), *path = dir ? nm_path_join(dir, name) : NULL;
    free(dir);
    return path;
}

static noema_status add_image(nm_eval *e, nm_pictures *p, nm_ids *ids, const json_t *image, const char *path)
{
    const char *name = nm_json_str(image, "file_name", NULL);
    char *id = nm_id_text(nm_json_get(image, "id"));
    if (!name || !id) {
        free(id);
        return nm_fail(e->err, NOEMA_E_FORMAT, "%s: images: expected \"id\" and \"file_name\"", path);
    }
    noema_status s = nm_ids_add(ids, id, p->n, e->err);
    return s == NOEMA_OK ? nm_pictures_add(p, nm_eval_image_path(e, path, name), e->err) : s;
}

noema_status nm_coco_captions(nm_eval *e, nm_pictures *p, const char *path)
{
    json_t *j = nm_json_load(path, e->err), *v;
    nm_ids ids = { 0 };
    size_t i;
    if (!j)
        return e->err->code;
    json_t *images = nm_json_get(j, "images"), *captions = nm_json_get(j, "annotations");
    noema_status s = json_is_array(images) && json_is_array(captions)
                         ? NOEMA_OK
                         : nm_fail(e->err, NOEMA_E_FORMAT, "%s: expected COCO captions: an object with \"images\" and \"annotations\"", path);
    json_array_foreach(images, i, v)
        if (s == NOEMA_OK && (!e->o.limit || p->n < e->o.limit))
            s = add_image(e, p, &ids, v, path);
    json_array_foreach(captions, i, v) {
        char *id = s == NOEMA_OK ? nm_id_text(nm_json_get(v, "image_id")) : NULL;
        const char *text = nm_json_str(v, "caption", NULL);
        if (s == NOEMA_OK && (!id || !text))
            s = nm_fail(e->err, NOEMA_E_FORMAT, "%s: annotations: expected \"image_id\" and \"caption\"", path);
        int64_t owner = s == NOEMA_OK ? nm_ids_find(&ids, id) : -1;
        if (s == NOEMA_OK && owner < 0 && !e->o.limit)
            s = nm_fail(e->err, NOEMA_E_MISMATCH, "%s: annotations: image_id %s is not among \"images\"", path, id);
        if (s == NOEMA_OK && owner >= 0)
            s = nm_pictures_caption(p, text, owner, e->err);
        free(id);
    }
    nm_ids_free(&ids);
    json_decref(j);
    return s;
}
