/* rows_parquet.c - Parquet as a data set: pictures as bytes in a column (Hugging Face's struct<bytes, path>, img2dataset's `jpg`) or as paths,
 * captions as a text column or a list of texts, classes as numbers (ClassLabel names from the metadata key `huggingface`) or names. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "data/format.h"

typedef struct column { int at; nm_parquet_unit *unit; int64_t n_units; } column; /* at < 0: there is none */

typedef struct parquet_rows {
    nm_part part;
    nm_parquet *file;
    column bytes, path, title;
    int64_t *block;
} parquet_rows;

static bool probe(const char *path, bool folder, const unsigned char *head, size_t n)
{
    (void)path;
    return !folder && n >= 4 && (memcmp(head, "PAR1", 4) == 0 || memcmp(head, "PARE", 4) == 0);
}

/* ---- which columns ---- */

static bool of_type(const nm_parquet *f, int c, bool bytes, bool text)
{
    const nm_parquet_column *x = c >= 0 ? nm_parquet_column_at(f, c) : NULL;
    return x && (x->type == NM_PQ_BYTES || x->type == NM_PQ_FIXED) && ((bytes && !x->is_text) || (text && x->is_text));
}

static int find_below(const nm_parquet *f, const char *name, const char *field)
{
    char path[512];
    snprintf(path, sizeof path, "%s.%s", name, field);
    return nm_parquet_find(f, path);
}

/* A picture column of that name: bytes, paths or a struct of both. */
static bool picture_named(parquet_rows *r, const char *name, bool any_text)
{
    int c = nm_parquet_find(r->file, name), bytes = find_below(r->file, name, "bytes"), path = find_below(r->file, name, "path");
    r->bytes.at = of_type(r->file, c, true, false) ? c : of_type(r->file, bytes, true, true) ? bytes : -1;
    r->path.at = of_type(r->file, path, false, true) ? path : any_text && of_type(r->file, c, false, true) ? c : -1;
    return r->bytes.at >= 0 || r->path.at >= 0;
}

/* The first feature of that type in `features` of the metadata; *names: its list of class names, borrowed. */
static const char *feature_of_type(json_t *features, const char *type, const json_t **names)
{
    const char *key;
    json_t *v;
    json_object_foreach(features, key, v)
        if (strcmp(nm_json_str(v, "_type", ""), type) == 0) {
            if (names)
                *names = nm_json_get(v, "names");
            return key;
        }
    return NULL;
}

static json_t *read_features(const nm_parquet *f, json_t **whole)
{
    noema_error ignored = NOEMA_ERROR_INIT; /* a damaged description is no description */
    const char *text = nm_parquet_meta(f, "huggingface");
    *whole = text ? nm_json_parse(text, strlen(text), "huggingface", &ignored) : NULL;
    return nm_json_get(nm_json_get(*whole, "info"), "features");
}

static noema_status no_picture(const parquet_rows *r, noema_error *err)
{
    nm_buf names = { 0 };
    bool link = nm_parquet_find(r->file, "url") >= 0 || nm_parquet_find(r->file, "URL") >= 0;
    for (int i = 0; i < nm_parquet_columns(r->file) && names.len < 400; i++)
        nm_buf_printf(&names, "%s%s", i ? ", " : "", nm_parquet_column_at(r->file, i)->path);
    noema_status s = nm_fail(err, NOEMA_E_FORMAT, "%s: no column of pictures (%s); the columns are %s; --csv-img-key COLUMN names it", r->part.path,
                             link ? "it holds links, which have to be fetched first" : "expected image, jpg, png, webp or filepath", names.data ? names.data : "none");
    nm_buf_free(&names);
    return s;
}

static noema_status find_picture(parquet_rows *r, const nm_dataset_options *o, json_t *features, noema_error *err)
{
    static const char *const bytes[] = { "image", "jpg", "jpeg", "png", "webp", "img", "images", "picture" }, *const paths[] = { "filepath", "image_path", "file_name" };
    const char *feature = feature_of_type(features, "Image", NULL);
    bool found = o->img_key ? picture_named(r, o->img_key, true) : feature && picture_named(r, feature, false);
    for (size_t i = 0; !found && !o->img_key && i < sizeof bytes / sizeof *bytes; i++)
        found = picture_named(r, bytes[i], false);
    for (size_t i = 0; !found && !o->img_key && i < sizeof paths / sizeof *paths; i++)
        found = picture_named(r, paths[i], true);
    return found ? NOEMA_OK : no_picture(r, err);
}

static int find_any(const nm_parquet *f, const char *const *names, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (nm_parquet_find(f, names[i]) >= 0)
            return nm_parquet_find(f, names[i]);
    return -1;
}

static noema_status find_title(parquet_rows *r, const nm_dataset_options *o, noema_error *err)
{
    static const char *const names[] = { "caption", "captions", "title", "text", "txt", "TEXT", "sentences" };
    r->title.at = o->caption_key ? nm_parquet_find(r->file, o->caption_key) : find_any(r->file, names, sizeof names / sizeof *names);
    if (o->caption_key && !of_type(r->file, r->title.at, true, true))
        return nm_fail(err, NOEMA_E_FORMAT, "%s: no column %s of texts", r->part.path, o->caption_key);
    if (!of_type(r->file, r->title.at, true, true))
        r->title.at = -1;
    r->part.has_titles = r->title.at >= 0;
    return NOEMA_OK;
}

/* ---- classes ---- */

static noema_status class_map(parquet_rows *r, const json_t *names, int32_t **map, int64_t *n, noema_error *err)
{
    *n = (int64_t)json_array_size(names);
    char **text = nm_malloc_array((size_t)*n + 1, sizeof *text);
    noema_status s = text ? NOEMA_OK : nm_part_no_memory(&r->part, err);
    for (int64_t i = 0; i < *n && s == NOEMA_OK; i++) {
        text[i] = (char *)(uintptr_t)json_string_value(json_array_get(names, (size_t)i));
        if (!text[i])
            s = nm_fail(err, NOEMA_E_FORMAT, "%s: the names of classes in its metadata are no texts", r->part.path);
    }
    if (s == NOEMA_OK)
        s = nm_class_list(r->part.owner, text, *n, r->part.path, map, err);
    free(text);
    return s;
}

/* Labels of one unit to label[u->first ...]. map NULL: numbers stay, names are numbered. */
static noema_status take_labels(parquet_rows *r, const nm_parquet_unit *u, const nm_parquet_values *v, const int32_t *map, int64_t n_map, noema_error *err)
{
    char where[600];
    for (int64_t i = 0; i < v->n; i++) {
        int32_t *to = &r->part.label[u->first + i];
        int64_t k = -1;
        snprintf(where, sizeof where, "%s: row %lld", r->part.path, (long long)(u->first + i));
        *to = -1;
        if (v->bytes ? !v->bytes[i].p : v->valid && !v->valid[i])
            continue;
        if (v->bytes && (k = nm_class_number(r->part.owner, (const char *)v->bytes[i].p, v->bytes[i].n, where, err)) < 0)
            return err ? err->code : NOEMA_E_FORMAT;
        if (v->ints && (k = v->ints[i]) == -1) /* Hugging Face's mark for a hidden class */
            continue;
        if (v->ints && map && (k < 0 || k >= n_map))
            return nm_fail(err, NOEMA_E_FORMAT, "%s: label %lld, but there are %lld classes", where, (long long)k, (long long)n_map);
        if (v->ints && !map && nm_class_check(r->part.owner, k, where, err) != NOEMA_OK)
            return NOEMA_E_FORMAT;
        *to = v->ints && map ? map[k] : (int32_t)k;
    }
    return NOEMA_OK;
}

static noema_status read_labels(parquet_rows *r, int at, const json_t *names, noema_error *err)
{
    const nm_parquet_column *c = nm_parquet_column_at(r->file, at);
    nm_parquet_unit *unit = NULL;
    int64_t n = 0, n_map = 0;
    int32_t *map = NULL;
    if (c->max_rep || c->type == NM_PQ_FLOAT || c->type == NM_PQ_DOUBLE || c->type == NM_PQ_INT96)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: column %s: expected class numbers or names", r->part.path, c->path);
    noema_status s = nm_parquet_units(r->file, at, &unit, &n, err);
    if (s == NOEMA_OK && !(r->part.label = nm_malloc_array((size_t)r->part.n + 1, sizeof *r->part.label)))
        s = nm_part_no_memory(&r->part, err);
    if (s == NOEMA_OK && json_is_array(names) && json_array_size(names) > 0 && c->type != NM_PQ_BYTES)
        s = class_map(r, names, &map, &n_map, err);
    for (int64_t i = 0; i < n && s == NOEMA_OK; i++) {
        nm_parquet_values v;
        if ((s = nm_parquet_read(r->file, &unit[i], &v, err)) == NOEMA_OK) {
            s = take_labels(r, &unit[i], &v, map, n_map, err);
            nm_parquet_values_free(&v);
        }
    }
    free(unit);
    free(map);
    return s;
}

static noema_status find_labels(parquet_rows *r, const nm_dataset_options *o, json_t *features, noema_error *err)
{
    static const char *const usual[] = { "label", "labels", "cls", "class", "fine_label" };
    const json_t *names = NULL;
    const char *feature = feature_of_type(features, "ClassLabel", &names);
    if (o->label_key) {
        names = nm_json_get(nm_json_get(features, o->label_key), "names");
        feature = o->label_key;
    }
    int at = feature ? nm_parquet_find(r->file, feature) : find_any(r->file, usual, sizeof usual / sizeof *usual);
    if (at < 0 && o->label_key)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: no column %s", r->part.path, o->label_key);
    return at >= 0 ? read_labels(r, at, names, err) : NOEMA_OK;
}

/* ---- opening ---- */

static noema_status index_column(parquet_rows *r, column *c, noema_error *err)
{
    if (c->at < 0)
        return NOEMA_OK;
    noema_status s = nm_parquet_units(r->file, c->at, &c->unit, &c->n_units, err);
    for (int64_t i = 0; s == NOEMA_OK && i < c->n_units; i++)
        r->part.bytes += c->unit[i].bytes + (size_t)c->unit[i].rows * sizeof(nm_bytes);
    return s;
}

/* Blocks are the units of the pictures: what is decoded for one row. */
static noema_status make_blocks(parquet_rows *r, noema_error *err)
{
    const column *c = r->bytes.at >= 0 ? &r->bytes : &r->path;
    if (!(r->block = nm_malloc_array((size_t)c->n_units + 1, sizeof *r->block)))
        return nm_part_no_memory(&r->part, err);
    for (int64_t i = 0; i < c->n_units; i++)
        r->block[i] = c->unit[i].first;
    r->block[c->n_units] = r->part.n;
    r->part.block = r->block;
    r->part.n_blocks = c->n_units;
    return NOEMA_OK;
}

static noema_status open_parquet(nm_part *p, const nm_dataset_options *o, noema_error *err)
{
    parquet_rows *r = (parquet_rows *)p;
    json_t *whole = NULL;
    r->bytes.at = r->path.at = r->title.at = -1;
    noema_status s = nm_parquet_open(&r->file, p->path, err);
    if (s != NOEMA_OK)
        return s;
    p->n = nm_parquet_rows(r->file);
    json_t *features = read_features(r->file, &whole);
    s = find_picture(r, o, features, err);
    if (s == NOEMA_OK)
        s = find_title(r, o, err);
    if (s == NOEMA_OK)
        s = find_labels(r, o, features, err);
    column *const columns[] = { &r->bytes, &r->path, &r->title };
    for (int i = 0; i < 3 && s == NOEMA_OK; i++)
        s = index_column(r, columns[i], err);
    json_decref(whole);
    return s == NOEMA_OK ? make_blocks(r, err) : s;
}

static void close_parquet(nm_part *p)
{
    parquet_rows *r = (parquet_rows *)p;
    free(r->bytes.unit);
    free(r->path.unit);
    free(r->title.unit);
    free(r->block);
    nm_parquet_close(r->file);
}

/* ---- rows ---- */

typedef struct load_job { const nm_parquet *file; const nm_parquet_unit *unit; } load_job;

static noema_status load_unit(void *arg, void **value, size_t *bytes, noema_error *err)
{
    load_job *j = arg;
    nm_parquet_values *v = malloc(sizeof *v);
    noema_status s = v ? nm_parquet_read(j->file, j->unit, v, err) : nm_fail(err, NOEMA_E_MEMORY, "out of memory: Parquet pages");
    if (s != NOEMA_OK) {
        free(v);
        return s;
    }
    *value = v;
    *bytes = v->memory;
    return NOEMA_OK;
}

static void drop_unit(void *value)
{
    nm_parquet_values_free(value);
    free(value);
}

/* The values of the unit with row i, held by the row; *k is the row's place in it. */
static noema_status values_of(const parquet_rows *r, const column *c, int64_t i, nm_row *row, const nm_parquet_values **v, int64_t *k, noema_error *err)
{
    int64_t lo = 0, hi = c->n_units;
    while (hi - lo > 1) {
        int64_t mid = lo + (hi - lo) / 2;
        if (c->unit[mid].first <= i)
            lo = mid;
        else
            hi = mid;
    }
    load_job j = { r->file, &c->unit[lo] };
    nm_cached *held;
    noema_status s = nm_cache_get(nm_dataset_cache(r->part.owner), c, (uint64_t)lo, load_unit, drop_unit, &j, &held, err);
    if (s != NOEMA_OK)
        return s;
    nm_row_hold(row, held);
    *v = held->value;
    *k = i - c->unit[lo].first;
    return NOEMA_OK;
}

static noema_status read_picture(const parquet_rows *r, int64_t i, nm_row *row, noema_error *err)
{
    const nm_parquet_values *v;
    int64_t k;
    noema_status s = NOEMA_OK;
    if (r->bytes.at >= 0 && (s = values_of(r, &r->bytes, i, row, &v, &k, err)) == NOEMA_OK && v->bytes[k].p && v->bytes[k].n) {
        row->bytes = v->bytes[k].p;
        row->n_bytes = v->bytes[k].n;
        return s;
    }
    if (s == NOEMA_OK && r->path.at >= 0 && (s = values_of(r, &r->path, i, row, &v, &k, err)) == NOEMA_OK && v->bytes[k].p && v->bytes[k].n) {
        char *name = nm_strndup((const char *)v->bytes[k].p, v->bytes[k].n);
        row->path = row->own_path = name ? nm_path_join(r->part.dir, name) : NULL;
        free(name);
        return row->path ? NOEMA_OK : nm_part_no_memory(&r->part, err);
    }
    return s == NOEMA_OK ? nm_fail(err, NOEMA_E_MISSING, "%s: no picture", row->name) : s;
}

static noema_status read_row(const nm_part *p, int64_t i, nm_row *row, bool picture, noema_error *err)
{
    const parquet_rows *r = (const parquet_rows *)p;
    const nm_parquet_values *v;
    int64_t k;
    if (r->title.at >= 0) {
        noema_status s = values_of(r, &r->title, i, row, &v, &k, err);
        if (s != NOEMA_OK)
            return s;
        row->title = v->row ? v->bytes + v->row[k] : v->bytes + k;
        row->n_titles = v->row ? v->row[k + 1] - v->row[k] : v->bytes[k].p != NULL;
    }
    return picture ? read_picture(r, i, row, err) : NOEMA_OK;
}

const nm_data_format nm_format_parquet = { "parquet", "Parquet (.parquet)", sizeof(parquet_rows), probe, open_parquet, close_parquet, read_row };
