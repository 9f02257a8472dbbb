/* dataset.c - see dataset.h: parts in a row, the classes they share, rows and their captions. */
#define _GNU_SOURCE
#include "data/dataset.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/rng.h"
#include "data/classes.h"
#include "data/expand.h"
#include "data/format.h"

struct nm_dataset {
    char *source;
    nm_part **part;
    size_t n_parts;
    int64_t *first; /* [n_parts + 1] number of each part's first row */
    nm_cache *cache;
    size_t cache_bytes;
    nm_classes classes;
    bool fixed_classes; /* the options named them */
    bool listed;        /* the first names were a list of the data's */
    int64_t numbers;    /* 1 + the largest label that was a number */
    char **template;
    size_t n_templates;
};

noema_status nm_part_no_memory(const nm_part *p, noema_error *err) { return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", p->path); }
nm_cache *nm_dataset_cache(const nm_dataset *d) { return d->cache; }

/* ---- classes ---- */

int64_t nm_class_number(nm_dataset *d, const char *name, size_t n, const char *where, noema_error *err)
{
    int64_t k = nm_classes_find(&d->classes, name, n);
    if (k < 0 && d->fixed_classes)
        nm_fail(err, NOEMA_E_FORMAT, "%s: class \"%.*s\" is none of the %lld given names", where, n < 100 ? (int)n : 100, name, (long long)d->classes.n);
    else if (k < 0 && (k = nm_classes_add(&d->classes, name, n)) < 0)
        nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory, or too many classes", where);
    return k;
}

noema_status nm_class_check(nm_dataset *d, int64_t label, const char *where, noema_error *err)
{
    if (label < 0 || label > INT32_MAX - 1)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: label %lld: expected one of the classes 0 to %d", where, (long long)label, INT32_MAX - 1);
    if (d->fixed_classes && label >= d->classes.n)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: label %lld, but there are %lld class names", where, (long long)label, (long long)d->classes.n);
    if (label >= d->numbers)
        d->numbers = label + 1;
    return NOEMA_OK;
}

int64_t nm_class_of_text(nm_dataset *d, const char *text, size_t n, const char *where, noema_error *err)
{
    int64_t v = 0;
    size_t i = 0;
    for (; i < n && n < 10 && text[i] >= '0' && text[i] <= '9'; i++)
        v = 10 * v + (text[i] - '0');
    if (n == 0 || i < n)
        return nm_class_number(d, text, n, where, err);
    return nm_class_check(d, v, where, err) == NOEMA_OK ? v : -1;
}

noema_status nm_class_list(nm_dataset *d, char *const *names, int64_t n, const char *where, int32_t **map, noema_error *err)
{
    int32_t *to = nm_malloc_array((size_t)n + 1, sizeof *to);
    const bool first = d->classes.n == 0;
    d->listed = d->listed || first;
    noema_status s = to ? NOEMA_OK : nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", where);
    if (s == NOEMA_OK && d->fixed_classes && n > d->classes.n)
        s = nm_fail(err, NOEMA_E_FORMAT, "%s: has %lld classes, but %lld class names were given", where, (long long)n, (long long)d->classes.n);
    for (int64_t k = 0; k < n && s == NOEMA_OK; k++) {
        int64_t number = k;
        if (first)
            number = nm_classes_add(&d->classes, names[k], strlen(names[k]));
        else if (!d->fixed_classes && (k >= d->classes.n || strcmp(names[k], d->classes.name[k]) != 0))
            number = nm_class_number(d, names[k], strlen(names[k]), where, err);
        if (number < 0)
            s = nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", where);
        else
            to[k] = (int32_t)number;
    }
    if (s != NOEMA_OK) {
        free(to);
        to = NULL;
    }
    *map = to;
    return s;
}

const char *nm_dataset_label_name(const nm_dataset *d, int64_t label) { return label >= 0 && label < d->classes.n ? d->classes.name[label] : NULL; }
bool nm_dataset_numbered(const nm_dataset *d) { return d->fixed_classes || d->listed; }
int64_t nm_dataset_classes(const nm_dataset *d) { return d->classes.n > d->numbers ? d->classes.n : d->numbers; }

/* ---- opening ---- */

static const nm_data_format *find_format(const char *path, const nm_dataset_options *o, noema_error *err)
{
    unsigned char head[512];
    ssize_t n = 0;
    bool folder = nm_dir_exists(path);
    nm_buf known = { 0 };
    int fd = folder ? -1 : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && !folder) {
        nm_map m;
        nm_map_file(&m, path, err); /* says why */
        nm_unmap(&m);
        nm_fail(err, NOEMA_E_IO, "%s: cannot open", path);
        return NULL;
    }
    if (fd >= 0) {
        n = read(fd, head, sizeof head);
        close(fd);
    }
    for (const nm_data_format *const *f = nm_data_formats(); *f; f++) {
        if (o->type && strcmp(o->type, "auto") != 0 ? strcmp(o->type, (*f)->name) == 0 : (*f)->probe(path, folder, head, n > 0 ? (size_t)n : 0)) {
            nm_buf_free(&known);
            return *f;
        }
        nm_buf_printf(&known, "%s%s", known.len ? ", " : "", (*f)->what);
    }
    if (o->type && strcmp(o->type, "auto") != 0)
        nm_fail(err, NOEMA_E_ARGUMENT, "data set type %s: expected auto, %s", o->type, known.data);
    else
        nm_fail(err, NOEMA_E_UNSUPPORTED, "%s: not a data set: expected %s", path, known.data);
    nm_buf_free(&known);
    return NULL;
}

/* A folder that holds data files stands for them, sorted by name; one that holds several splits is refused. */
static noema_status list_data_files(nm_paths *found, const char *folder, noema_error *err)
{
    char *pattern = nm_sprintf("%s/*.{parquet,tar,tgz}", folder);
    noema_status s = NOEMA_OK;
    bool train = false, test = false;
    nm_paths all = { 0 };
    if (!pattern)
        return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", folder);
    for (int i = 0; i < 3 && s == NOEMA_OK; i++) {
        static const char *const suffix[] = { "parquet", "tar", "tgz" };
        noema_error none = NOEMA_ERROR_INIT; /* no such files */
        snprintf(pattern, strlen(pattern) + 1, "%s/*.%s", folder, suffix[i]);
        if (nm_paths_expand(&all, pattern, &none) != NOEMA_OK && none.code != NOEMA_E_MISSING)
            s = nm_fail(err, none.code, "%s", none.message);
    }
    for (size_t i = 0; i < all.n; i++) {
        bool of_train = strncmp(nm_path_base(all.path[i]), "train", 5) == 0;
        train |= of_train;
        test |= !of_train;
    }
    if (s == NOEMA_OK && train && test)
        s = nm_fail(err, NOEMA_E_ARGUMENT, "%s holds several splits (%s, %s): name the files, as in '%s/train*'", folder, nm_path_base(all.path[0]),
                    nm_path_base(all.path[all.n - 1]), folder);
    free(pattern);
    *found = all;
    return s;
}

static noema_status open_part(nm_dataset *d, const char *path, const nm_dataset_options *o, noema_error *err)
{
    const nm_data_format *f = find_format(path, o, err);
    if (!f)
        return err ? err->code : NOEMA_E_FORMAT;
    nm_part *p = calloc(1, f->size);
    if (!p)
        return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", path);
    *p = (nm_part){ .format = f, .owner = d, .path = nm_strdup(path), .dir = nm_path_dir(path) };
    d->part[d->n_parts++] = p;
    if (!p->path || !p->dir)
        return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", path);
    noema_status s = f->open(p, o, err);
    d->first[d->n_parts] = d->first[d->n_parts - 1] + p->n;
    return s;
}

static noema_status take_options(nm_dataset *d, const nm_dataset_options *o, noema_error *err)
{
    for (size_t i = 0; i < o->n_class_names; i++)
        if (nm_classes_add(&d->classes, o->class_names[i], strlen(o->class_names[i])) < 0)
            return nm_fail(err, NOEMA_E_MEMORY, "out of memory: class names");
    d->fixed_classes = o->n_class_names > 0;
    d->cache_bytes = o->cache_bytes ? o->cache_bytes : NM_DATASET_CACHE;
    d->cache = nm_cache_new(d->cache_bytes);
    d->template = nm_malloc_array(o->n_templates + 1, sizeof *d->template);
    if (!d->cache || !d->template)
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory: data set");
    for (; d->n_templates < o->n_templates; d->n_templates++)
        if (!(d->template[d->n_templates] = nm_strdup(o->templates[d->n_templates])))
            return nm_fail(err, NOEMA_E_MEMORY, "out of memory: templates");
    return NOEMA_OK;
}

/* What only the whole can say: rows there, labels within the names. */
static noema_status check(const nm_dataset *d, noema_error *err)
{
    if (d->first[d->n_parts] == 0)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: the data set is empty", d->source);
    if (d->classes.n > 0 && d->numbers > d->classes.n)
        return nm_fail(err, NOEMA_E_FORMAT, "%s: label %lld, but there are %lld class names", d->source, (long long)d->numbers - 1, (long long)d->classes.n);
    return NOEMA_OK;
}

/* Puts the data files of folders in the place of the folders. */
static noema_status enter_folders(nm_paths *p, noema_error *err)
{
    nm_paths out = { 0 };
    noema_status s = NOEMA_OK;
    for (size_t i = 0; i < p->n && s == NOEMA_OK; i++) {
        nm_paths in = { 0 };
        if (nm_dir_exists(p->path[i]))
            s = list_data_files(&in, p->path[i], err);
        for (size_t k = 0; k < in.n && s == NOEMA_OK; k++)
            s = nm_paths_add(&out, in.path[k], err);
        if (in.n == 0 && s == NOEMA_OK)
            s = nm_paths_add(&out, p->path[i], err);
        nm_paths_free(&in);
    }
    nm_paths_free(p);
    *p = out;
    return s;
}

noema_status nm_dataset_open(nm_dataset **out, const char *source, const nm_dataset_options *options, noema_error *err)
{
    const nm_dataset_options none = { 0 }, *o = options ? options : &none;
    nm_dataset *d = calloc(1, sizeof *d);
    nm_paths paths = { 0 };
    *out = NULL;
    if (!d || !(d->source = nm_strdup(source))) {
        nm_dataset_free(d);
        return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", source);
    }
    noema_status s = nm_paths_expand(&paths, source, err);
    if (s == NOEMA_OK)
        s = enter_folders(&paths, err);
    if (s == NOEMA_OK)
        s = take_options(d, o, err);
    if (s == NOEMA_OK && (!(d->part = nm_malloc_array(paths.n, sizeof *d->part)) || !(d->first = calloc(paths.n + 1, sizeof *d->first))))
        s = nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", source);
    for (size_t i = 0; i < paths.n && s == NOEMA_OK; i++)
        s = open_part(d, paths.path[i], o, err);
    if (s == NOEMA_OK)
        s = check(d, err);
    nm_paths_free(&paths);
    if (s == NOEMA_OK)
        *out = d;
    else
        nm_dataset_free(d);
    return s;
}

void nm_dataset_free(nm_dataset *d)
{
    if (!d)
        return;
    nm_cache_free(d->cache); /* before the files that its values point into */
    for (size_t i = 0; i < d->n_parts; i++) {
        nm_part *p = d->part[i];
        p->format->close(p);
        free(p->label);
        free(p->keep);
        free(p->path);
        free(p->dir);
        free(p);
    }
    for (size_t i = 0; i < d->n_templates; i++)
        free(d->template[i]);
    nm_classes_free(&d->classes);
    free(d->template);
    free(d->part);
    free(d->first);
    free(d->source);
    free(d);
}

int64_t nm_dataset_count(const nm_dataset *d) { return d->first[d->n_parts]; }
const char *nm_dataset_source(const nm_dataset *d) { return d->source; }
size_t nm_dataset_parts(const nm_dataset *d) { return d->n_parts; }

const char *nm_dataset_part(const nm_dataset *d, size_t i, const char **format, int64_t *rows)
{
    *format = d->part[i]->format->name;
    *rows = d->part[i]->n;
    return d->part[i]->path;
}

/* ---- rows ---- */

/* The part of row i; *i becomes the row's number in it. */
static const nm_part *part_of(const nm_dataset *d, int64_t *i)
{
    size_t lo = 0, hi = d->n_parts;
    while (hi - lo > 1) { /* first[lo] <= i < first[hi] */
        size_t mid = lo + (hi - lo) / 2;
        if (d->first[mid] <= *i)
            lo = mid;
        else
            hi = mid;
    }
    *i -= d->first[lo];
    return d->part[lo];
}

int64_t nm_dataset_label(const nm_dataset *d, int64_t i)
{
    const nm_part *p = part_of(d, &i);
    return p->label ? p->label[i] : -1;
}

void nm_row_hold(nm_row *row, nm_cached *held) { row->held[row->n_held++] = held; }

void nm_row_release(nm_row *row)
{
    while (row->n_held > 0)
        nm_cache_release(row->owner->cache, row->held[--row->n_held]);
    free(row->own_path);
    free(row->own_titles);
    free(row->own_text);
    *row = (nm_row){ .label = -1 };
}

bool nm_row_own_titles(nm_row *row, const char *text, int64_t n)
{
    nm_bytes *to = n == 1 ? &row->own_title : n > 1 ? row->own_titles = nm_malloc_array((size_t)n, sizeof *to) : NULL;
    if (n > 0 && !to)
        return false;
    row->title = to;
    row->n_titles = n;
    for (int64_t i = 0; i < n; i++) {
        to[i] = (nm_bytes){ (const unsigned char *)text, (uint32_t)strlen(text) };
        text += to[i].n + 1;
    }
    return true;
}

static noema_status read_row(const nm_dataset *d, int64_t i, nm_row *row, bool picture, noema_error *err)
{
    int64_t k = i;
    const nm_part *p = part_of(d, &k);
    nm_row_release(row);
    row->owner = (nm_dataset *)(uintptr_t)d;
    row->label = p->label ? p->label[k] : -1;
    row->keep = p->keep ? p->keep + k * p->n_keep : NULL;
    row->n_keep = p->keep ? p->n_keep : 0;
    snprintf(row->name, sizeof row->name, "%s: row %lld", p->path, (long long)k);
    noema_status s = p->format->read(p, k, row, picture, err);
    if (s == NOEMA_OK && row->path)
        snprintf(row->name, sizeof row->name, "%s", row->path);
    return s;
}

noema_status nm_dataset_read(const nm_dataset *d, int64_t i, nm_row *row, noema_error *err) { return read_row(d, i, row, true, err); }
noema_status nm_dataset_read_text(const nm_dataset *d, int64_t i, nm_row *row, noema_error *err) { return read_row(d, i, row, false, err); }

int64_t nm_row_titles(const nm_row *row)
{
    if (row->n_titles > 0)
        return row->n_titles;
    return row->owner && nm_dataset_label_name(row->owner, row->label) ? (int64_t)row->owner->n_templates : 0;
}

bool nm_row_title(const nm_row *row, uint64_t pick, nm_bytes *text, char *buf, size_t size)
{
    if (nm_row_titles(row) == 0)
        return false;
    if (row->n_titles > 0) {
        *text = row->title[pick % (uint64_t)row->n_titles];
        return true;
    }
    const char *t = row->owner->template[pick % row->owner->n_templates], *name = nm_dataset_label_name(row->owner, row->label), *at = strstr(t, "{}");
    int n = at ? snprintf(buf, size, "%.*s%s%s", (int)(at - t), t, name, at + 2) : snprintf(buf, size, "%s", t);
    *text = (nm_bytes){ (unsigned char *)buf, (uint32_t)(n < (int)size ? n : (int)size - 1) };
    return true;
}

/* ---- order ---- */

bool nm_dataset_scattered(const nm_dataset *d)
{
    size_t total = 0;
    for (size_t i = 0; i < d->n_parts; i++) {
        total += d->part[i]->bytes;
        if (d->part[i]->in_order)
            return false;
    }
    return total <= d->cache_bytes;
}

static void shuffle(nm_rng *r, int64_t *x, int64_t n, int64_t window)
{
    for (int64_t i = 0; i + 1 < n; i++) {
        int64_t left = n - i, k = i + (int64_t)nm_rng_below(r, (uint64_t)(left < window ? left : window)), t = x[i];
        x[i] = x[k];
        x[k] = t;
    }
}

/* All blocks as pairs (first row, rows). */
static int64_t list_blocks(const nm_dataset *d, int64_t *first, int64_t *rows)
{
    int64_t n = 0;
    for (size_t i = 0; i < d->n_parts; i++) {
        const nm_part *p = d->part[i];
        int64_t blocks = p->block ? p->n_blocks : 1;
        for (int64_t k = 0; k < blocks; k++, n++)
            if (first) {
                first[n] = d->first[i] + (p->block ? p->block[k] : 0);
                rows[n] = p->block ? p->block[k + 1] - p->block[k] : p->n;
            }
    }
    return n;
}

static bool order_by_blocks(const nm_dataset *d, nm_rng *r, int64_t *order)
{
    int64_t n = list_blocks(d, NULL, NULL), at = 0;
    int64_t *first = nm_malloc_array((size_t)n, sizeof *first), *rows = nm_malloc_array((size_t)n, sizeof *rows), *which = nm_malloc_array((size_t)n, sizeof *which);
    bool ok = first && rows && which;
    if (ok) {
        list_blocks(d, first, rows);
        for (int64_t i = 0; i < n; i++)
            which[i] = i;
        shuffle(r, which, n, n);
        for (int64_t i = 0; i < n; i++)
            for (int64_t k = 0; k < rows[which[i]]; k++)
                order[at++] = first[which[i]] + k;
        shuffle(r, order, at, NM_SHUFFLE_ROWS);
    }
    free(first);
    free(rows);
    free(which);
    return ok;
}

void nm_dataset_order(const nm_dataset *d, uint64_t seed, uint64_t pass, int64_t *order)
{
    int64_t n = nm_dataset_count(d);
    nm_rng r;
    nm_rng_init(&r, seed, ((uint64_t)1 << 40) + pass);
    if (!nm_dataset_scattered(d) && order_by_blocks(d, &r, order))
        return;
    for (int64_t i = 0; i < n; i++)
        order[i] = i;
    for (int64_t i = n - 1; i > 0; i--) {
        int64_t k = (int64_t)nm_rng_below(&r, (uint64_t)i + 1), t = order[i];
        order[i] = order[k];
        order[k] = t;
    }
}
