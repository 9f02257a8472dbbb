/* rows_folder.c - folders of pictures: the first folder below DIR that a picture lies in is its class (numbered in the order of their names),
 * pictures in DIR itself have none; NAME.txt beside NAME.jpg is its caption. */
#define _GNU_SOURCE
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/mem.h"
#include "data/format.h"

#define MAX_DEPTH 16
#define MAX_CAPTION ((size_t)1 << 20)

typedef struct picture { size_t at; int32_t label; bool text; } picture; /* at: its path below DIR in names */

typedef struct folder {
    nm_part part;
    nm_buf names;
    picture *row;
    int64_t cap;
} folder;

static bool probe(const char *path, bool is_folder, const unsigned char *head, size_t n)
{
    (void)path;
    (void)head;
    (void)n;
    return is_folder;
}

static bool is_picture(const char *name)
{
    static const char *const suffixes[] = { ".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm" };
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++)
        if (nm_has_suffix(name, suffixes[i]))
            return true;
    return false;
}

static int visible(const struct dirent *e) { return e->d_name[0] != '.'; }
static int by_bytes(const struct dirent **a, const struct dirent **b) { return strcmp((*a)->d_name, (*b)->d_name); } /* whatever the locale */

/* Is STEM.txt of a picture's name among the sorted entries? */
static bool has_caption(struct dirent **list, int n, const char *name)
{
    const char *dot = strrchr(name, '.');
    char want[300];
    snprintf(want, sizeof want, "%.*s.txt", (int)(dot - name), name);
    int lo = 0, hi = n;
    while (lo < hi) {
        int mid = lo + (hi - lo) / 2, c = strcmp(list[mid]->d_name, want);
        if (c == 0)
            return true;
        if (c < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return false;
}

static noema_status add_picture(folder *f, const char *below, const char *name, int32_t label, bool text, noema_error *err)
{
    nm_part *p = &f->part;
    if (p->n == f->cap) {
        int64_t cap = f->cap ? 2 * f->cap : 1024;
        picture *row = nm_realloc_array(f->row, (size_t)cap, sizeof *row);
        if (!row)
            return nm_part_no_memory(p, err);
        f->row = row;
        f->cap = cap;
    }
    f->row[p->n++] = (picture){ f->names.len, label, text };
    p->has_titles |= text;
    bool ok = (!*below || (nm_buf_puts(&f->names, below) && nm_buf_putc(&f->names, '/'))) && nm_buf_append(&f->names, name, strlen(name) + 1);
    return ok ? NOEMA_OK : nm_part_no_memory(p, err);
}

/* below: path from DIR, "" for DIR itself. A class gets its number when its first picture is seen. */
static noema_status scan(folder *f, const char *below, int32_t label, int depth, noema_error *err)
{
    struct dirent **list;
    char *path = *below ? nm_path_join(f->part.path, below) : nm_strdup(f->part.path);
    int n = path ? scandir(path, &list, visible, by_bytes) : -1;
    noema_status s = NOEMA_OK;
    if (n < 0)
        s = nm_fail(err, NOEMA_E_IO, "%s: cannot list the folder", path ? path : f->part.path);
    for (int i = 0; i < n && s == NOEMA_OK; i++) {
        const char *name = list[i]->d_name;
        char *full = nm_path_join(path, name), *inner = *below ? nm_path_join(below, name) : nm_strdup(name);
        struct stat st;
        if (!full || !inner)
            s = nm_part_no_memory(&f->part, err);
        else if (stat(full, &st) != 0)
            ; /* a link to nowhere */
        else if (S_ISDIR(st.st_mode) && depth == MAX_DEPTH)
            s = nm_fail(err, NOEMA_E_LIMIT, "%s: folders are nested deeper than %d", full, MAX_DEPTH);
        else if (S_ISDIR(st.st_mode))
            s = scan(f, inner, label, depth + 1, err);
        else if (S_ISREG(st.st_mode) && is_picture(name)) {
            if (depth > 0 && label < 0) {
                size_t first = strcspn(below, "/");
                int64_t k = nm_class_number(f->part.owner, below, first, full, err);
                s = k < 0 ? err ? err->code : NOEMA_E_FORMAT : NOEMA_OK;
                label = (int32_t)k;
            }
            if (s == NOEMA_OK)
                s = add_picture(f, below, name, label, has_caption(list, n, name), err);
        }
        free(full);
        free(inner);
    }
    for (int i = 0; i < n; i++)
        free(list[i]);
    if (n >= 0)
        free(list);
    free(path);
    return s;
}

static noema_status open_folder(nm_part *p, const nm_dataset_options *o, noema_error *err)
{
    folder *f = (folder *)p;
    (void)o;
    noema_status s = scan(f, "", -1, 0, err);
    if (s == NOEMA_OK && p->n > 0 && !(p->label = nm_malloc_array((size_t)p->n, sizeof *p->label)))
        s = nm_part_no_memory(p, err);
    for (int64_t i = 0; s == NOEMA_OK && i < p->n; i++)
        p->label[i] = f->row[i].label;
    return s;
}

static void close_folder(nm_part *p)
{
    folder *f = (folder *)p;
    nm_buf_free(&f->names);
    free(f->row);
}

static noema_status read_caption(const folder *f, const picture *x, nm_row *row, noema_error *err)
{
    size_t n;
    const char *dot = strrchr(row->path, '.');
    char *path = nm_sprintf("%.*s.txt", (int)(dot - row->path), row->path);
    noema_status s = path ? nm_read_file(&row->own_text, &n, path, MAX_CAPTION, err) : nm_part_no_memory(&f->part, err);
    (void)x;
    free(path);
    if (s != NOEMA_OK)
        return s;
    while (n && strchr(" \t\r\n", row->own_text[n - 1]))
        row->own_text[--n] = 0;
    return nm_row_own_titles(row, row->own_text, 1) ? NOEMA_OK : nm_part_no_memory(&f->part, err);
}

static noema_status read_row(const nm_part *p, int64_t i, nm_row *row, bool picture_wanted, noema_error *err)
{
    const folder *f = (const folder *)p;
    (void)picture_wanted;
    row->path = row->own_path = nm_path_join(p->path, f->names.data + f->row[i].at);
    if (!row->path)
        return nm_part_no_memory(p, err);
    return f->row[i].text ? read_caption(f, &f->row[i], row, err) : NOEMA_OK;
}

const nm_data_format nm_format_folder = { "folder", "a folder of pictures", sizeof(folder), probe, open_folder, close_folder, read_row };
