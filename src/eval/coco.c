/* coco.c - COCO's captions files: {"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "eval/coco.h"

void nm_ids_free(nm_ids *s)
{
    for (size_t i = 0; i < s->slots; i++)
        free(s->entry[i].id);
    free(s->entry);
    *s = (nm_ids){ 0 };
}

/* Where the id is, or the free place for it. */
static size_t slot_of(const nm_ids *s, const char *id)
{
    size_t i = (size_t)nm_hash64(id, strlen(id), 0) & (s->slots - 1);
    while (s->entry[i].id && strcmp(s->entry[i].id, id) != 0)
        i = (i + 1) & (s->slots - 1);
    return i;
}

static bool grow(nm_ids *s)
{
    nm_ids more = { .n = s->n, .slots = s->slots ? 2 * s->slots : 1024 };
    if (!(more.entry = calloc(more.slots, sizeof *more.entry)))
        return false;
    for (size_t i = 0; i < s->slots; i++)
        if (s->entry[i].id)
            more.entry[slot_of(&more, s->entry[i].id)] = s->entry[i];
    free(s->entry);
    *s = more;
    return true;
}

noema_status nm_ids_add(nm_ids *s, char *id, int64_t at, noema_error *err)
{
    if (!id || ((size_t)s->n >= s->slots / 2 && !grow(s))) {
        free(id);
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory: ids");
    }
    size_t i = slot_of(s, id);
    if (s->entry[i].id) {
        free(id);
        return NOEMA_OK;
    }
    s->entry[i] = (nm_id_entry){ id, at };
    s->n++;
    return NOEMA_OK;
}

int64_t nm_ids_find(const nm_ids *s, const char *id)
{
    size_t i = s->slots ? slot_of(s, id) : 0;
    return s->slots && s->entry[i].id ? s->entry[i].at : -1;
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
