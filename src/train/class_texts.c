/* class_texts.c - see class_texts.h. */
#include "train/class_texts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"

#define FILE_LIMIT ((size_t)1 << 30)

typedef struct list { char **text; size_t n; } list;

struct nm_class_texts {
    const char *source;
    list *of; /* by label number of the data set */
    int64_t classes;
};

void nm_class_texts_free(nm_class_texts *c)
{
    if (!c)
        return;
    for (int64_t k = 0; c->of && k < c->classes; k++) {
        for (size_t i = 0; i < c->of[k].n; i++)
            free(c->of[k].text[i]);
        free(c->of[k].text);
    }
    free(c->of);
    free(c);
}

/* The data set's number of a label in the file; -1: it has no such rows. */
static int64_t number_of(const nm_class_texts *c, const nm_dataset *rows, const json_t *label)
{
    if (json_is_integer(label))
        return json_integer_value(label) < c->classes ? (int64_t)json_integer_value(label) : -1;
    for (int64_t k = 0; k < c->classes; k++) {
        const char *name = nm_dataset_label_name(rows, k);
        if (name && strcmp(name, json_string_value(label)) == 0)
            return k;
    }
    return -1;
}

static noema_status add_line(nm_class_texts *c, const nm_dataset *rows, const json_t *j, const char *what, noema_error *err)
{
    const json_t *label = nm_json_get(j, "label"), *texts = nm_json_get(j, "captions"), *t;
    size_t i;
    if (!label || !(json_is_string(label) || (json_is_integer(label) && json_integer_value(label) >= 0)) || !json_is_array(texts) || !json_array_size(texts))
        return nm_fail(err, NOEMA_E_FORMAT, "%s: %s: expected {\"label\": name or number, \"captions\": [texts]}", c->source, what);
    int64_t k = number_of(c, rows, label);
    if (k < 0)
        return NOEMA_OK;
    list *l = &c->of[k];
    char **p = nm_realloc_array(l->text, l->n + json_array_size(texts), sizeof *p);
    if (!p)
        return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", c->source);
    l->text = p;
    json_array_foreach(texts, i, t) {
        if (!json_is_string(t) || !json_string_value(t)[0])
            return nm_fail(err, NOEMA_E_FORMAT, "%s: %s: caption %zu: expected a text that is not empty", c->source, what, i + 1);
        if (!(l->text[l->n] = nm_strdup(json_string_value(t))))
            return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", c->source);
        l->n++;
    }
    return NOEMA_OK;
}

static noema_status read_lines(nm_class_texts *c, const nm_dataset *rows, noema_error *err)
{
    char *text;
    size_t size;
    int64_t number = 0;
    noema_status s = nm_read_file(&text, &size, c->source, FILE_LIMIT, err);
    if (s != NOEMA_OK)
        return s;
    for (size_t at = 0; at < size && s == NOEMA_OK;) {
        const char *end = memchr(text + at, '\n', size - at);
        size_t n = end ? (size_t)(end - text) - at : size - at;
        char what[48];
        snprintf(what, sizeof what, "line %lld", (long long)++number);
        if (n) {
            json_t *j = nm_json_parse(text + at, n, what, err);
            s = j ? add_line(c, rows, j, what, err) : nm_fail_prefix(err, c->source);
            json_decref(j);
        }
        at += n + 1;
    }
    free(text);
    return s;
}

static noema_status check(const nm_class_texts *c, const nm_dataset *rows, noema_error *err)
{
    for (int64_t i = 0; i < nm_dataset_count(rows); i++) {
        int64_t k = nm_dataset_label(rows, i);
        const char *name = nm_dataset_label_name(rows, k);
        if (k < 0)
            return nm_fail(err, NOEMA_E_FORMAT, "%s: row %lld has no label; captions by class need one", nm_dataset_source(rows), (long long)i + 1);
        if (!c->of[k].n && name)
            return nm_fail(err, NOEMA_E_FORMAT, "%s: no captions for the class \"%s\"", c->source, name);
        if (!c->of[k].n)
            return nm_fail(err, NOEMA_E_FORMAT, "%s: no captions for the class %lld", c->source, (long long)k);
    }
    return NOEMA_OK;
}

noema_status nm_class_texts_open(nm_class_texts **out, const char *path, const nm_dataset *rows, noema_error *err)
{
    nm_class_texts *c = calloc(1, sizeof *c);
    *out = NULL;
    if (!c)
        return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", path);
    c->source = path;
    c->classes = nm_dataset_classes(rows);
    c->of = calloc((size_t)c->classes + 1, sizeof *c->of);
    noema_status s = c->of ? read_lines(c, rows, err) : nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", path);
    if (s == NOEMA_OK)
        s = check(c, rows, err);
    c->source = NULL;
    if (s != NOEMA_OK) {
        nm_class_texts_free(c);
        return s;
    }
    *out = c;
    return NOEMA_OK;
}

const char *nm_class_texts_pick(const nm_class_texts *c, int64_t label, uint64_t draw)
{
    const list *l = &c->of[label];
    return l->text[draw % l->n];
}

const char *const *nm_class_texts_of(const nm_class_texts *c, int64_t label, size_t *n)
{
    *n = c->of[label].n;
    return (const char *const *)c->of[label].text;
}
