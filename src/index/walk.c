/* walk.c - see walk.h. */
#define _GNU_SOURCE
#include "index/walk.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/mem.h"

enum { MAX_DEPTH = 128 };

typedef struct level { char *path; char **name; size_t n, next, cap; } level;

struct nm_walk {
    bool recursive;
    nm_walk_failed_fn *failed;
    void *arg;
    level stack[MAX_DEPTH];
    int depth;
    char *current;
};

bool nm_is_picture_name(const char *name)
{
    static const char *const ext[] = { ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm",
                                       ".pbm", ".pnm", ".avif", ".heic", ".heif" };
    for (size_t i = 0; i < sizeof ext / sizeof *ext; i++)
        if (nm_has_suffix(name, ext[i]))
            return true;
    return false;
}

static void complain(nm_walk *w, const char *path, const char *what)
{
    noema_error e = NOEMA_ERROR_INIT;
    nm_fail(&e, NOEMA_E_IO, "%s: %s", path, what);
    if (w->failed)
        w->failed(w->arg, path, &e);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool add_name(level *l, const char *name)
{
    if (l->n == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 64;
        char **p = nm_realloc_array(l->name, cap, sizeof *p);
        if (!p)
            return false;
        l->name = p;
        l->cap = cap;
    }
    l->name[l->n] = nm_strdup(name);
    return l->name[l->n] && ++l->n;
}

static void pop(nm_walk *w)
{
    level *l = &w->stack[--w->depth];
    for (size_t i = l->next; i < l->n; i++)
        free(l->name[i]);
    free(l->name);
    free(l->path);
}

/* Takes over `path`. */
static void push(nm_walk *w, char *path)
{
    DIR *d = w->depth < MAX_DEPTH ? opendir(path) : NULL;
    if (!d) {
        complain(w, path, w->depth < MAX_DEPTH ? strerror(errno) : "folders are nested too deeply");
        free(path);
        return;
    }
    level *l = &w->stack[w->depth++];
    *l = (level){ .path = path };
    for (struct dirent *e; (e = readdir(d));) {
        bool maybe_folder = e->d_type == DT_DIR || e->d_type == DT_UNKNOWN;
        if (e->d_name[0] == '.' || !(nm_is_picture_name(e->d_name) || (w->recursive && maybe_folder)))
            continue;
        if (!add_name(l, e->d_name)) {
            complain(w, path, "out of memory");
            break;
        }
    }
    closedir(d);
    if (l->n)
        qsort(l->name, l->n, sizeof *l->name, by_name);
}

nm_walk *nm_walk_open(const char *root, bool recursive, nm_walk_failed_fn *failed, void *arg)
{
    nm_walk *w = calloc(1, sizeof *w);
    char *path = nm_strdup(root);
    if (!w || !path) {
        free(w);
        free(path);
        return NULL;
    }
    w->recursive = recursive;
    w->failed = failed;
    w->arg = arg;
    push(w, path);
    return w;
}

const char *nm_walk_next(nm_walk *w)
{
    free(w->current);
    w->current = NULL;
    while (w->depth) {
        level *l = &w->stack[w->depth - 1];
        if (l->next == l->n) {
            pop(w);
            continue;
        }
        char *name = l->name[l->next++], *path = nm_path_join(l->path, name);
        struct stat st;
        bool picture = nm_is_picture_name(name);
        free(name);
        if (!path)
            return NULL;
        if (lstat(path, &st) == 0 && S_ISDIR(st.st_mode) && w->recursive)
            push(w, path);
        else if (picture && stat(path, &st) == 0 && S_ISREG(st.st_mode))
            return w->current = path;
        else
            free(path);
    }
    return NULL;
}

void nm_walk_close(nm_walk *w)
{
    if (!w)
        return;
    while (w->depth)
        pop(w);
    free(w->current);
    free(w);
}
