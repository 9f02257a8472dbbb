/* dataset.c - see dataset.h. */
#include "train/dataset.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "weights/weights.h"

#define FILE_LIMIT ((size_t)4 << 30)

typedef struct row { char *path, *title; int64_t label; } row;

struct nm_dataset {
    char *source, *dir;
    row *rows;
    int64_t n, cap;
    int64_t classes;
    char **labels; /* strings seen as labels, in order */
    int64_t n_labels;
    nm_weights *tensors;
    const nm_wview *image, *text, *label;
};

static noema_status no_memory(const nm_dataset *r, noema_error *err) { return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", r->source); }

static noema_status add_row(nm_dataset *r, const char *path, const char *title, int64_t label, noema_error *err)
{
    if (r->n == r->cap) {
        int64_t cap = r->cap ? 2 * r->cap : 1024;
        row *p = nm_realloc_array(r->rows, (size_t)cap, sizeof *p);
        if (!p)
            return no_memory(r, err);
        r->rows = p;
        r->cap = cap;
    }
    row *x = &r->rows[r->n];
    *x = (row){ nm_path_join(r->dir, path), title ? nm_strdup(title) : NULL, label };
    if (!x->path || (title && !x->title)) {
        free(x->path);
        return no_memory(r, err);
    }
    r->n++;
    if (label >= r->classes)
        r->classes = label + 1;
    return NOEMA_OK;
}

static int64_t label_number(nm_dataset *r, const char *name)
{
    for (int64_t i = 0; i < r->n_labels; i++)
        if (strcmp(r->labels[i], name) == 0)
            return i;
    char **p = nm_realloc_array(r->labels, (size_t)r->n_labels + 1, sizeof *p);
    if (!p)
        return -1;
    r->labels = p;
    r->labels[r->n_labels] = nm_strdup(name);
    return r->labels[r->n_labels] ? r->n_labels++ : -1;
}

/* A label in text form: a number stays what it is. */
static int64_t label_of_text(nm_dataset *r, const char *s)
{
    char *end;
    long long v = strtoll(s, &end, 10);
    return *s && !*end && v >= 0 ? (int64_t)v : label_number(r, s);
}

/* ---- JSON lines ---- */

static noema_status jsonl_line(nm_dataset *r, const char *line, size_t n, int64_t number, noema_error *err)
{
    char what[64];
    snprintf(what, sizeof what, "line %lld", (long long)number);
    json_t *j = nm_json_parse(line, n, what, err);
    if (!j)
        return nm_fail_prefix(err, r->source);
    const char *path = nm_json_str(j, "filepath", nm_json_str(j, "image", NULL)), *title = nm_json_str(j, "title", nm_json_str(j, "caption", NULL));
    json_t *label = nm_json_get(j, "label");
    int64_t number_label = label && json_is_integer(label) ? (int64_t)json_integer_value(label) : label && json_is_string(label) ? label_number(r, json_string_value(label)) : -1;
    noema_status s;
    if (nm_json_get(j, "keep"))
        s = nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: line %lld: \"keep\" (patches to keep) is not supported yet", r->source, (long long)number);
    else if (!path)
        s = nm_fail(err, NOEMA_E_FORMAT, "%s: line %lld: expected an object with \"filepath\"", r->source, (long long)number);
    else if (!title && number_label < 0)
        s = nm_fail(err, NOEMA_E_FORMAT, "%s: line %lld: expected \"title\" or \"label\" beside \"filepath\"", r->source, (long long)number);
    else
        s = add_row(r, path, title, number_label, err);
    json_decref(j);
    return s;
}

static noema_status read_jsonl(nm_dataset *r, const char *text, size_t size, noema_error *err)
{
    int64_t number = 0;
    noema_status s = NOEMA_OK;
    for (size_t at = 0; at < size && s == NOEMA_OK;) {
        const char *end = memchr(text + at, '\n', size - at);
        size_t n = end ? (size_t)(end - text) - at : size - at, trimmed = n;
        number++;
        while (trimmed && (text[at + trimmed - 1] == '\r' || text[at + trimmed - 1] == ' '))
            trimmed--;
        if (trimmed)
            s = jsonl_line(r, text + at, trimmed, number, err);
        at += n + 1;
    }
    return s;
}

/* ---- CSV, TSV (RFC 4180: quoted fields may hold separators, quotes and line ends) ---- */

typedef struct csv { const char *p, *end; char sep; int64_t line; nm_buf field; } csv;

/* The next field into c->field; returns what ended it: the separator, '\n' or 0 (end of file). */
static int csv_field(csv *c)
{
    c->field.len = 0;
    nm_buf_append(&c->field, "", 0);
    bool quoted = c->p < c->end && *c->p == '"';
    if (quoted)
        c->p++;
    while (c->p < c->end) {
        char ch = *c->p++;
        if (ch == '\n')
            c->line++;
        if (quoted) {
            if (ch != '"')
                nm_buf_putc(&c->field, ch);
            else if (c->p < c->end && *c->p == '"')
                nm_buf_putc(&c->field, *c->p++);
            else
                quoted = false;
        } else if (ch == c->sep)
            return ch;
        else if (ch == '\n') {
            if (c->field.len && c->field.data[c->field.len - 1] == '\r')
                c->field.data[--c->field.len] = 0;
            return ch;
        } else
            nm_buf_putc(&c->field, ch);
    }
    return 0;
}

static noema_status csv_header(nm_dataset *r, csv *c, const char *img_key, const char *caption_key, int at[3], noema_error *err)
{
    const char *keys[3] = { img_key, caption_key, "label" };
    at[0] = at[1] = at[2] = -1;
    int end;
    for (int k = 0;; k++) {
        end = csv_field(c);
        for (int i = 0; i < 3; i++)
            if (at[i] < 0 && c->field.data && strcmp(c->field.data, keys[i]) == 0)
                at[i] = k;
        if (end != c->sep)
            break;
    }
    if (at[0] < 0 || (at[1] < 0 && at[2] < 0))
        return nm_fail(err, NOEMA_E_FORMAT, "%s: expected a header line with the columns %s and %s (or label)", r->source, img_key, caption_key);
    return NOEMA_OK;
}

static noema_status csv_row(nm_dataset *r, csv *c, const int at[3], noema_error *err)
{
    char *cell[3] = { 0 };
    int64_t line = c->line;
    bool any = false;
    for (int k = 0;; k++) {
        int end = csv_field(c);
        any = any || c->field.len;
        for (int i = 0; i < 3; i++)
            if (at[i] == k && !cell[i])
                cell[i] = nm_strdup(c->field.data ? c->field.data : "");
        if (end != c->sep)
            break;
    }
    noema_status s = NOEMA_OK;
    if (any && (!cell[0] || !cell[0][0] || !(cell[1] || cell[2])))
        s = nm_fail(err, NOEMA_E_FORMAT, "%s: line %lld: expected a path and a title", r->source, (long long)line);
    else if (any)
        s = add_row(r, cell[0], cell[1], cell[2] && cell[2][0] ? label_of_text(r, cell[2]) : -1, err);
    for (int i = 0; i < 3; i++)
        free(cell[i]);
    return s;
}

static noema_status read_csv(nm_dataset *r, const char *text, size_t size, char sep, const char *img_key, const char *caption_key, noema_error *err)
{
    csv c = { .p = text, .end = text + size, .sep = sep, .line = 1 };
    int at[3];
    if (size >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0)
        c.p += 3;
    if (sep == ',' && memchr(text, '\t', strcspn(text, "\n")))
        c.sep = '\t'; /* open_clip's default separator, whatever the file is called */
    noema_status s = csv_header(r, &c, img_key, caption_key, at, err);
    while (s == NOEMA_OK && c.p < c.end)
        s = csv_row(r, &c, at, err);
    nm_buf_free(&c.field);
    return s;
}

/* ---- tensors ---- */

static noema_status read_tensors(nm_dataset *r, noema_error *err)
{
    noema_status s = nm_weights_open(&r->tensors, r->source, err);
    if (s != NOEMA_OK)
        return s;
    r->image = nm_weights_find(r->tensors, "image");
    r->text = nm_weights_find(r->tensors, "text");
    r->label = nm_weights_find(r->tensors, "label");
    if (!r->image || r->image->ndim != 4 || r->image->dtype != NM_F32 || !nm_wview_contiguous(r->image))
        return nm_fail(err, NOEMA_E_FORMAT, "%s: expected a tensor `image`, f32 [n, 3, height, width]", r->source);
    if (nm_weights_find(r->tensors, "keep"))
        return nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: `keep` (patches to keep) is not supported yet", r->source);
    r->n = r->image->shape[0];
    if (!r->text && !r->label)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: expected a tensor `text` [n, length] or `label` [n]", r->source);
    const nm_wview *both[2] = { r->text, r->label };
    for (int i = 0; i < 2; i++)
        if (both[i] && (both[i]->ndim != (i == 0 ? 2 : 1) || both[i]->shape[0] != r->n || both[i]->dtype != NM_I64 || !nm_wview_contiguous(both[i])))
            return nm_fail(err, NOEMA_E_FORMAT, "%s: `%s`: expected i64 %s for %lld images", r->source, both[i]->name, i == 0 ? "[n, length]" : "[n]",
                           (long long)r->n);
    for (int64_t i = 0; r->text && i < nm_wview_numel(r->text); i++)
        if (((const int64_t *)r->text->data)[i] < 0 || ((const int64_t *)r->text->data)[i] > INT32_MAX)
            return nm_fail(err, NOEMA_E_FORMAT, "%s: `text` holds %lld, which is no token id", r->source, (long long)((const int64_t *)r->text->data)[i]);
    for (int64_t i = 0; r->label && i < r->n; i++)
        if (nm_dataset_label(r, i) >= r->classes)
            r->classes = nm_dataset_label(r, i) + 1;
    return NOEMA_OK;
}

static noema_status read_text_file(nm_dataset *r, const char *img_key, const char *caption_key, noema_error *err)
{
    char *text;
    size_t size;
    noema_status s = nm_read_file(&text, &size, r->source, FILE_LIMIT, err);
    if (s != NOEMA_OK)
        return s;
    if (nm_has_suffix(r->source, ".csv") || nm_has_suffix(r->source, ".tsv"))
        s = read_csv(r, text, size, nm_has_suffix(r->source, ".tsv") ? '\t' : ',', img_key ? img_key : "filepath", caption_key ? caption_key : "title", err);
    else
        s = read_jsonl(r, text, size, err);
    free(text);
    return s;
}

noema_status nm_dataset_open(nm_dataset **out, const char *path, const char *img_key, const char *caption_key, noema_error *err)
{
    nm_dataset *r = calloc(1, sizeof *r);
    *out = NULL;
    if (!r || !(r->source = nm_strdup(path)) || !(r->dir = nm_path_dir(path))) {
        nm_dataset_free(r);
        return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", path);
    }
    noema_status s;
    if (nm_has_suffix(path, ".safetensors"))
        s = read_tensors(r, err);
    else if (nm_has_suffix(path, ".jsonl") || nm_has_suffix(path, ".json") || nm_has_suffix(path, ".csv") || nm_has_suffix(path, ".tsv"))
        s = read_text_file(r, img_key, caption_key, err);
    else
        s = nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: expected .jsonl, .csv, .tsv or .safetensors as training data", path);
    if (s == NOEMA_OK && r->n == 0)
        s = nm_fail(err, NOEMA_E_FORMAT, "%s: the data set is empty", path);
    if (s != NOEMA_OK) {
        nm_dataset_free(r);
        return s;
    }
    *out = r;
    return NOEMA_OK;
}

void nm_dataset_free(nm_dataset *r)
{
    if (!r)
        return;
    for (int64_t i = 0; r->rows && i < r->n; i++) {
        free(r->rows[i].path);
        free(r->rows[i].title);
    }
    for (int64_t i = 0; i < r->n_labels; i++)
        free(r->labels[i]);
    free(r->labels);
    free(r->rows);
    nm_weights_close(r->tensors);
    free(r->source);
    free(r->dir);
    free(r);
}

int64_t nm_dataset_count(const nm_dataset *r) { return r->n; }
const char *nm_dataset_source(const nm_dataset *r) { return r->source; }
const char *nm_dataset_path(const nm_dataset *r, int64_t i) { return r->rows ? r->rows[i].path : NULL; }
const char *nm_dataset_title(const nm_dataset *r, int64_t i) { return r->rows ? r->rows[i].title : NULL; }
int64_t nm_dataset_classes(const nm_dataset *r) { return r->classes; }

const char *nm_dataset_label_name(const nm_dataset *r, int64_t label) { return label >= 0 && label < r->n_labels ? r->labels[label] : NULL; }

int64_t nm_dataset_label(const nm_dataset *r, int64_t i)
{
    if (r->rows)
        return r->rows[i].label;
    return r->label ? ((const int64_t *)r->label->data)[i] : -1;
}

const float *nm_dataset_image(const nm_dataset *r, int64_t i, int64_t shape[3])
{
    if (!r->image)
        return NULL;
    memcpy(shape, r->image->shape + 1, 3 * sizeof *shape);
    return (const float *)r->image->data + i * shape[0] * shape[1] * shape[2];
}

int64_t nm_dataset_ids(const nm_dataset *r, int64_t i, int32_t *ids, int64_t cap)
{
    if (!r->text)
        return 0;
    int64_t n = r->text->shape[1];
    for (int64_t k = 0; k < n && k < cap; k++)
        ids[k] = (int32_t)((const int64_t *)r->text->data)[i * n + k];
    return n;
}
