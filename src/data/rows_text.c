/* rows_text.c - tables of paths in text files: JSON lines with "filepath" and "title" or "label"; CSV and TSV with a header line (RFC 4180:
 * quoted fields may hold separators, quotes and line ends). Paths are relative to the file. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/csv.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "data/format.h"

#define FILE_LIMIT ((size_t)4 << 30)

typedef struct table {
    nm_part part;
    const nm_dataset_options *o; /* while opening */
    nm_buf text;                 /* paths and captions of all rows, each with a NUL */
    size_t *at;                  /* [n, 2]: where a row's path begins, and its captions */
    int32_t *n_titles;           /* [n] */
    int64_t cap, cap_keep;
} table;

typedef struct row_text { const char *path, **title; int32_t n_titles; int64_t label; } row_text;

static noema_status add_row(table *t, const row_text *x, noema_error *err)
{
    nm_part *p = &t->part;
    if (p->n == t->cap) {
        int64_t cap = t->cap ? 2 * t->cap : 1024;
        size_t *at = nm_realloc_array(t->at, 2 * (size_t)cap, sizeof *at);
        t->at = at ? at : t->at;
        int32_t *label = nm_realloc_array(p->label, (size_t)cap, sizeof *label), *n = nm_realloc_array(t->n_titles, (size_t)cap, sizeof *n);
        p->label = label ? label : p->label;
        t->n_titles = n ? n : t->n_titles;
        if (!at || !label || !n)
            return nm_part_no_memory(p, err);
        t->cap = cap;
    }
    t->at[2 * p->n] = t->text.len;
    nm_buf_append(&t->text, x->path, strlen(x->path) + 1);
    t->at[2 * p->n + 1] = t->text.len;
    for (int32_t i = 0; i < x->n_titles; i++)
        nm_buf_append(&t->text, x->title[i], strlen(x->title[i]) + 1);
    if (t->text.failed)
        return nm_part_no_memory(p, err);
    t->n_titles[p->n] = x->n_titles;
    p->has_titles |= x->n_titles > 0;
    p->label[p->n++] = (int32_t)x->label;
    return NOEMA_OK;
}

/* Bytes of the mark that some editors put before UTF-8. */
static size_t byte_order_mark(const char *text, size_t size) { return size >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0; }

/* ---- JSON lines ---- */

static const char *const json_paths[] = { "filepath", "image", "image_path", "file_name", "path", NULL };
static const char *const json_titles[] = { "title", "caption", "captions", "text", NULL };

/* The member of that key, else the first of the usual ones. */
static json_t *member(const json_t *j, const char *key, const char *const *usual)
{
    if (key)
        return nm_json_get(j, key);
    for (; *usual; usual++)
        if (nm_json_get(j, *usual))
            return nm_json_get(j, *usual);
    return NULL;
}

enum { MAX_TITLES = 1024 };

static int32_t json_captions(const json_t *v, const char **title)
{
    int32_t n = 0;
    if (json_is_string(v))
        title[n++] = json_string_value(v);
    for (size_t i = 0; json_is_array(v) && i < json_array_size(v) && n < MAX_TITLES; i++)
        if (json_is_string(json_array_get(v, i)))
            title[n++] = json_string_value(json_array_get(v, i));
    return n;
}

static noema_status json_label(table *t, const json_t *v, const char *where, int64_t *label, noema_error *err)
{
    *label = -1;
    if (!v || (!json_is_integer(v) && !json_is_string(v)))
        return NOEMA_OK;
    if (json_is_string(v)) {
        *label = nm_class_number(t->part.owner, json_string_value(v), strlen(json_string_value(v)), where, err);
        return *label >= 0 ? NOEMA_OK : NOEMA_E_FORMAT;
    }
    if (json_integer_value(v) < 0) /* no class */
        return NOEMA_OK;
    *label = (int64_t)json_integer_value(v);
    return nm_class_check(t->part.owner, *label, where, err);
}

/* "keep": the last row's patches, as many in every row. */
static noema_status add_keep(table *t, const json_t *list, const char *where, noema_error *err)
{
    nm_part *p = &t->part;
    int64_t n = (int64_t)json_array_size(list);
    if (!list && !p->keep)
        return NOEMA_OK;
    if (!json_is_array(list) || n < 1 || n > 1 << 20 || (p->n > 1 && n != p->n_keep))
        return nm_fail(err, NOEMA_E_FORMAT, "%s: \"keep\": expected a list of patches, as many in every row", where);
    if (p->n > t->cap_keep) {
        int64_t cap = 2 * p->n + 62;
        int32_t *k = nm_realloc_array(p->keep, (size_t)(cap * n), sizeof *k);
        if (!k)
            return nm_part_no_memory(p, err);
        p->keep = k;
        t->cap_keep = cap;
    }
    p->n_keep = n;
    for (int64_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(list, (size_t)i);
        json_int_t k = json_is_integer(v) ? json_integer_value(v) : -1;
        p->keep[(p->n - 1) * n + i] = k < 0 || k > 1 << 24 ? -1 : (int32_t)k; /* refused against the model's grid */
    }
    return NOEMA_OK;
}

static noema_status jsonl_line(table *t, const char *line, size_t n, int64_t number, noema_error *err)
{
    const char *title[MAX_TITLES];
    char where[600];
    row_text x = { .title = title };
    snprintf(where, sizeof where, "%s: line %lld", t->part.path, (long long)number);
    json_t *j = nm_json_parse(line, n, where, err);
    if (!j)
        return err ? err->code : NOEMA_E_FORMAT;
    json_t *path = member(j, t->o->img_key, json_paths);
    x.path = json_is_string(path) ? json_string_value(path) : NULL;
    x.n_titles = json_captions(member(j, t->o->caption_key, json_titles), title);
    noema_status s = json_label(t, nm_json_get(j, t->o->label_key ? t->o->label_key : "label"), where, &x.label, err);
    if (s != NOEMA_OK)
        ;
    else if (!x.path || !*x.path)
        s = nm_fail(err, NOEMA_E_FORMAT, "%s: expected an object with \"%s\"", where, t->o->img_key ? t->o->img_key : "filepath");
    else if (!x.n_titles && x.label < 0)
        s = nm_fail(err, NOEMA_E_FORMAT, "%s: expected \"%s\" or \"label\" beside the path", where, t->o->caption_key ? t->o->caption_key : "title");
    else
        s = add_row(t, &x, err);
    if (s == NOEMA_OK)
        s = add_keep(t, nm_json_get(j, "keep"), where, err);
    json_decref(j);
    return s;
}

static noema_status read_jsonl(table *t, const char *text, size_t size, noema_error *err)
{
    int64_t number = 0;
    noema_status s = NOEMA_OK;
    for (size_t at = byte_order_mark(text, size); at < size && s == NOEMA_OK;) {
        const char *end = memchr(text + at, '\n', size - at);
        size_t n = end ? (size_t)(end - text) - at : size - at, trimmed = n;
        number++;
        while (trimmed && (text[at + trimmed - 1] == '\r' || text[at + trimmed - 1] == ' '))
            trimmed--;
        if (trimmed)
            s = jsonl_line(t, text + at, trimmed, number, err);
        at += n + 1;
    }
    return s;
}

/* ---- CSV, TSV ---- */

enum { PATH, TITLE, LABEL, COLUMNS };

static noema_status csv_header(table *t, nm_csv *c, int at[COLUMNS], noema_error *err)
{
    const nm_dataset_options *o = t->o;
    const char *keys[COLUMNS] = { o->img_key ? o->img_key : "filepath", o->caption_key ? o->caption_key : "title", o->label_key ? o->label_key : "label" };
    at[PATH] = at[TITLE] = at[LABEL] = -1;
    for (int k = 0, end = c->sep; end == c->sep; k++) {
        end = nm_csv_field(c);
        for (int i = 0; i < COLUMNS; i++)
            if (at[i] < 0 && c->field.data && strcmp(c->field.data, keys[i]) == 0)
                at[i] = k;
    }
    if (at[PATH] < 0 || (at[TITLE] < 0 && at[LABEL] < 0))
        return nm_fail(err, NOEMA_E_FORMAT, "%s: expected a header line with the columns %s and %s (or %s)", t->part.path, keys[PATH], keys[TITLE], keys[LABEL]);
    return NOEMA_OK;
}

static noema_status csv_row(table *t, nm_csv *c, const int at[COLUMNS], noema_error *err)
{
    char *cell[COLUMNS] = { 0 }, where[600];
    bool any = false;
    snprintf(where, sizeof where, "%s: line %lld", t->part.path, (long long)c->line);
    for (int k = 0, end = c->sep; end == c->sep; k++) {
        end = nm_csv_field(c);
        any = any || c->field.len;
        for (int i = 0; i < COLUMNS; i++)
            if (at[i] == k && !cell[i])
                cell[i] = nm_strdup(c->field.data ? c->field.data : "");
    }
    const char *title = cell[TITLE];
    row_text x = { .path = cell[PATH], .title = &title, .n_titles = title != NULL, .label = -1 };
    noema_status s = NOEMA_OK;
    if (any && (!cell[PATH] || !*cell[PATH] || !(cell[TITLE] || cell[LABEL])))
        s = nm_fail(err, NOEMA_E_FORMAT, "%s: expected a path and a title", where);
    else if (any && cell[LABEL] && *cell[LABEL] && (x.label = nm_class_of_text(t->part.owner, cell[LABEL], strlen(cell[LABEL]), where, err)) < 0)
        s = err ? err->code : NOEMA_E_FORMAT;
    else if (any)
        s = add_row(t, &x, err);
    for (int i = 0; i < COLUMNS; i++)
        free(cell[i]);
    return s;
}

static noema_status read_csv(table *t, const char *text, size_t size, noema_error *err)
{
    nm_csv c = { .p = text, .end = text + size, .sep = nm_has_suffix(t->part.path, ".tsv") ? '\t' : ',', .line = 1 };
    int at[COLUMNS];
    c.p += byte_order_mark(text, size);
    if (c.sep == ',' && memchr(text, '\t', strcspn(text, "\n")))
        c.sep = '\t'; /* open_clip's default separator, whatever the file is called */
    noema_status s = csv_header(t, &c, at, err);
    while (s == NOEMA_OK && c.p < c.end)
        s = csv_row(t, &c, at, err);
    if (c.field.failed) /* what was read is not what the file says */
        s = nm_part_no_memory(&t->part, err);
    nm_buf_free(&c.field);
    return s;
}

/* ---- the formats ---- */

static noema_status open_table(nm_part *p, const nm_dataset_options *o, noema_status (*parse)(table *, const char *, size_t, noema_error *), noema_error *err)
{
    table *t = (table *)p;
    char *text;
    size_t size;
    t->o = o;
    noema_status s = nm_read_file(&text, &size, p->path, FILE_LIMIT, err);
    if (s == NOEMA_OK)
        s = parse(t, text, size, err);
    free(text);
    t->o = NULL;
    return s;
}

static noema_status open_jsonl(nm_part *p, const nm_dataset_options *o, noema_error *err) { return open_table(p, o, read_jsonl, err); }
static noema_status open_csv(nm_part *p, const nm_dataset_options *o, noema_error *err) { return open_table(p, o, read_csv, err); }

static noema_status read_row(const nm_part *p, int64_t i, nm_row *row, bool picture, noema_error *err)
{
    const table *t = (const table *)p;
    (void)picture;
    row->path = row->own_path = nm_path_join(p->dir, t->text.data + t->at[2 * i]);
    if (!row->path)
        return nm_part_no_memory(p, err);
    return nm_row_own_titles(row, t->text.data + t->at[2 * i + 1], t->n_titles[i]) ? NOEMA_OK : nm_part_no_memory(p, err);
}

static void close_table(nm_part *p)
{
    table *t = (table *)p;
    nm_buf_free(&t->text);
    free(t->at);
    free(t->n_titles);
}

static bool probe_csv(const char *path, bool folder, const unsigned char *head, size_t n)
{
    (void)head;
    (void)n;
    return !folder && (nm_has_suffix(path, ".csv") || nm_has_suffix(path, ".tsv"));
}

static bool probe_jsonl(const char *path, bool folder, const unsigned char *head, size_t n)
{
    (void)head;
    (void)n;
    return !folder && (nm_has_suffix(path, ".jsonl") || nm_has_suffix(path, ".json"));
}

const nm_data_format nm_format_csv = { "csv", "a table (.csv, .tsv)", sizeof(table), probe_csv, open_csv, close_table, read_row };
const nm_data_format nm_format_jsonl = { "jsonl", "JSON lines (.jsonl)", sizeof(table), probe_jsonl, open_jsonl, close_table, read_row };
