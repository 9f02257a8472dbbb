/* files.c - noema_collection_index: which files are new, changed, moved, gone or known to fail. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/file.h"
#include "base/hash.h"
#include "index/intake.h"
#include "index/walk.h"

static noema_status code_of(const noema_error *err)
{
    return err && err->code ? err->code : NOEMA_E_IO;
}

void noema_index_options_default(noema_index_options *o)
{
    *o = (noema_index_options){ .struct_size = sizeof *o };
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

noema_status nm_index_progress(nm_index_job *j, int64_t n, const char *path)
{
    j->done += n;
    if (j->o.progress && j->o.progress(j->o.progress_user, j->done, j->total, path))
        return nm_fail(j->err, NOEMA_E_CANCELLED, "%s: stopped after %lld items; what is committed stays", j->c->path, (long long)j->done);
    return NOEMA_OK;
}

noema_status nm_index_commit(nm_index_job *j, bool due_only)
{
    double now = seconds();
    if (due_only && ++j->since_commit < NM_COMMIT_ITEMS && now - j->last_commit < NM_COMMIT_SECONDS)
        return NOEMA_OK;
    noema_status s = nm_store_commit(j->c, j->err);
    j->since_commit = 0;
    j->last_commit = seconds();
    if (s == NOEMA_OK)
        j->committed = j->now;
    return s;
}

noema_status nm_index_lookup(nm_index_job *j, const char *path, nm_item *item, bool *found)
{
    sqlite3_stmt *st = nm_catalog_stmt(&j->c->cat, NM_SQL_ITEM_BY_PATH, j->err);
    if (!st)
        return code_of(j->err);
    sqlite3_bind_int(st, 1, NOEMA_ITEM_IMAGE);
    sqlite3_bind_text(st, 2, path, -1, SQLITE_STATIC);
    int r = nm_catalog_step(&j->c->cat, st, j->err);
    noema_status s = r < 0 ? code_of(j->err) : r > 0 ? nm_store_row(j->c, st, item, j->err) : NOEMA_OK;
    sqlite3_reset(st);
    *found = r > 0 && s == NOEMA_OK;
    item->path = NULL;
    return s;
}

static void tell(nm_index_job *j, const char *path, const noema_error *why)
{
    j->now.failed++;
    if (j->o.failed)
        j->o.failed(j->o.failed_user, path, why);
}

/* A file whose content is bad is remembered with its size and time, and what it was before is no longer found under its name. A
 * file that could not be read (permissions, a broken disk) may come back: nothing is remembered and nothing removed. */
noema_status nm_index_failed(nm_index_job *j, const nm_file *f, const noema_error *why)
{
    tell(j, f->path, why);
    if (why->code == NOEMA_E_IO || why->code == NOEMA_E_MISSING || why->code == NOEMA_E_MEMORY)
        return NOEMA_OK;
    nm_item old;
    bool have;
    noema_status s = nm_index_lookup(j, f->path, &old, &have);
    if (s == NOEMA_OK)
        s = nm_store_begin(j->c, j->err);
    if (s == NOEMA_OK && have && (s = nm_store_delete(j->c, &old, j->err)) == NOEMA_OK)
        j->now.deleted++;
    sqlite3_stmt *st = s == NOEMA_OK ? nm_catalog_stmt(&j->c->cat, NM_SQL_FAILED_PUT, j->err) : NULL;
    if (!st)
        return code_of(j->err);
    sqlite3_bind_text(st, 1, f->path, -1, SQLITE_STATIC);
    sqlite3_bind_int64(st, 2, f->size);
    sqlite3_bind_int64(st, 3, f->mtime_ns);
    sqlite3_bind_int(st, 4, (int)why->code);
    sqlite3_bind_text(st, 5, why->message, -1, SQLITE_STATIC);
    return nm_catalog_run(&j->c->cat, st, j->err);
}

/* Did this very file fail before? Then it is told again, but not tried. */
static noema_status failed_before(nm_index_job *j, const nm_file *f, bool *known)
{
    *known = false;
    if (j->o.retry_failed)
        return NOEMA_OK;
    sqlite3_stmt *st = nm_catalog_stmt(&j->c->cat, NM_SQL_FAILED_GET, j->err);
    if (!st)
        return code_of(j->err);
    sqlite3_bind_text(st, 1, f->path, -1, SQLITE_STATIC);
    int r = nm_catalog_step(&j->c->cat, st, j->err);
    if (r > 0 && sqlite3_column_int64(st, 0) == f->size && sqlite3_column_int64(st, 1) == f->mtime_ns) {
        noema_error why = NOEMA_ERROR_INIT;
        const char *message = (const char *)sqlite3_column_text(st, 3);
        nm_fail(&why, (noema_status)sqlite3_column_int(st, 2), "%s (as before: the file has not changed)", message ? message : "failed");
        *known = true;
        j->now.failed_before++;
        tell(j, f->path, &why);
    }
    sqlite3_reset(st);
    return r < 0 ? code_of(j->err) : NOEMA_OK;
}

/* One file: nothing to do, or into the wave. */
static noema_status consider(nm_index_job *j, const char *path)
{
    struct stat st;
    nm_file f = { .path = NULL };
    bool there = stat(path, &st) == 0;
    if (!there || !S_ISREG(st.st_mode)) {
        noema_error why = NOEMA_ERROR_INIT;
        nm_fail(&why, NOEMA_E_IO, "%s: %s", path, there ? "expected a picture file" : strerror(errno));
        tell(j, path, &why);
        return nm_index_progress(j, 1, path);
    }
    f.size = st.st_size;
    f.mtime_ns = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
    f.path = (char *)(uintptr_t)path;
    nm_item item;
    bool have, skip;
    noema_status s = nm_index_lookup(j, path, &item, &have);
    if (s != NOEMA_OK)
        return s;
    if (have && item.size == f.size && item.mtime_ns == f.mtime_ns && nm_store_readable(j->c, item.segment, item.row)) {
        j->now.unchanged++;
        return nm_index_progress(j, 1, path);
    }
    s = failed_before(j, &f, &skip);
    if (s != NOEMA_OK || skip)
        return s != NOEMA_OK ? s : nm_index_progress(j, 1, path);
    f.path = nm_strdup(path);
    if (!f.path)
        return nm_fail(j->err, NOEMA_E_MEMORY, "%s: out of memory", path);
    j->file[j->n_files++] = f;
    return j->n_files == NM_WAVE ? nm_index_wave(j) : NOEMA_OK;
}

static void folder_failed(void *arg, const char *path, const noema_error *why)
{
    tell(arg, path, why);
}

static noema_status consider_root(nm_index_job *j, const char *root)
{
    struct stat st;
    if (stat(root, &st) != 0 || !S_ISDIR(st.st_mode)) {
        nm_item item;
        bool have = false;
        noema_status s = j->o.prune && stat(root, &st) != 0 && errno == ENOENT ? nm_index_lookup(j, root, &item, &have) : NOEMA_OK;
        if (s != NOEMA_OK || !have)
            return s != NOEMA_OK ? s : consider(j, root);
        s = nm_store_delete(j->c, &item, j->err);
        j->now.deleted++;
        return s;
    }
    nm_walk *w = nm_walk_open(root, j->o.recursive, folder_failed, j);
    if (!w)
        return nm_fail(j->err, NOEMA_E_MEMORY, "%s: out of memory", root);
    noema_status s = NOEMA_OK;
    for (const char *path; s == NOEMA_OK && (path = nm_walk_next(w));)
        s = consider(j, path);
    nm_walk_close(w);
    return s;
}

static int64_t count_files(const char *root, bool recursive)
{
    struct stat st;
    if (stat(root, &st) != 0 || !S_ISDIR(st.st_mode))
        return 1;
    int64_t n = 0;
    nm_walk *w = nm_walk_open(root, recursive, NULL, NULL);
    while (w && nm_walk_next(w))
        n++;
    nm_walk_close(w);
    return n;
}

static bool is_gone(const char *path)
{
    struct stat st;
    return stat(path, &st) != 0 && (errno == ENOENT || errno == ENOTDIR);
}

/* The next item (or remembered failure) below root whose path follows `after`; *path is malloc'd, NULL at the end. */
static noema_status next_below(nm_index_job *j, nm_sql which, const char *root, const char *after, nm_item *item, char **path)
{
    *path = NULL;
    sqlite3_stmt *st = nm_catalog_stmt(&j->c->cat, which, j->err);
    if (!st)
        return code_of(j->err);
    sqlite3_bind_text(st, 1, strcmp(root, "/") ? root : "", -1, SQLITE_STATIC);
    sqlite3_bind_text(st, 2, after, -1, SQLITE_STATIC);
    int r = nm_catalog_step(&j->c->cat, st, j->err);
    noema_status s = r < 0 ? code_of(j->err) : NOEMA_OK;
    if (r > 0 && which == NM_SQL_ITEM_BELOW)
        s = nm_store_row(j->c, st, item, j->err);
    if (r > 0 && s == NOEMA_OK) {
        const char *t = (const char *)sqlite3_column_text(st, which == NM_SQL_ITEM_BELOW ? 2 : 0);
        if (!t || !(*path = nm_strdup(t)))
            s = nm_fail(j->err, NOEMA_E_MEMORY, "%s: out of memory", j->c->path);
    }
    sqlite3_reset(st);
    return s;
}

/* Deletes what the catalogue has below root and the disk has not. A root that is missing itself may be a disk that is not
 * mounted: nothing below it is touched. */
static noema_status prune(nm_index_job *j, const char *root, nm_sql which)
{
    if (!nm_dir_exists(root))
        return NOEMA_OK;
    nm_item item;
    char *after = nm_strdup(""), *path = NULL;
    noema_status s = after ? NOEMA_OK : nm_fail(j->err, NOEMA_E_MEMORY, "%s: out of memory", root);
    while (s == NOEMA_OK && (s = next_below(j, which, root, after, &item, &path)) == NOEMA_OK && path) {
        if (is_gone(path) && which == NM_SQL_ITEM_BELOW) {
            s = nm_store_delete(j->c, &item, j->err);
            j->now.deleted++;
        } else if (is_gone(path)) {
            s = nm_store_begin(j->c, j->err);
            sqlite3_stmt *st = s == NOEMA_OK ? nm_catalog_stmt(&j->c->cat, NM_SQL_FAILED_DELETE, j->err) : NULL;
            if (st)
                sqlite3_bind_text(st, 1, path, -1, SQLITE_STATIC);
            s = st ? nm_catalog_run(&j->c->cat, st, j->err) : code_of(j->err);
        }
        if (s == NOEMA_OK)
            s = nm_index_commit(j, true);
        free(after);
        after = path;
    }
    free(after);
    return s;
}

/* The model's name as a later run, started elsewhere, can use it. */
static char *lasting_name(const char *name)
{
    return nm_file_exists(name) || nm_dir_exists(name) ? nm_absolute_path(name) : nm_strdup(name);
}

noema_status nm_index_use_model(noema_collection *c, noema_session *s, noema_error *err)
{
    const noema_model_info *i = noema_model_get_info(s->model);
    char *name = lasting_name(i->name);
    noema_status r = name ? nm_store_space(c, i->space, name, i->embed_dim * i->image_vectors, i->image_vectors, err) : nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", c->path);
    free(name);
    return r;
}

/* Pictures per forward, as the session itself would cut them. */
static size_t batch_of(const nm_model *m, int wanted)
{
    size_t tokens = (size_t)m->image_height * (size_t)m->image_width / 1024 + 1, b = 3200 / tokens;
    b = b < 2 ? 2 : b > 64 ? 64 : b;
    return wanted > 0 ? (size_t)(wanted < 1024 ? wanted : 1024) : b;
}

static noema_status index_roots(nm_index_job *j, size_t n, char **root)
{
    noema_status s = NOEMA_OK;
    j->total = -1;
    if (j->o.progress) {
        j->total = 0;
        for (size_t i = 0; i < n; i++)
            j->total += count_files(root[i], j->o.recursive);
    }
    for (size_t i = 0; i < n && s == NOEMA_OK; i++)
        s = consider_root(j, root[i]);
    if (s == NOEMA_OK)
        s = nm_index_wave(j);
    for (size_t i = 0; i < n && s == NOEMA_OK && j->o.prune; i++) {
        s = prune(j, root[i], NM_SQL_ITEM_BELOW);
        if (s == NOEMA_OK)
            s = prune(j, root[i], NM_SQL_FAILED_BELOW);
    }
    if (s == NOEMA_OK || s == NOEMA_E_CANCELLED) { /* what is whole is kept */
        noema_status last = nm_index_commit(j, false);
        s = s != NOEMA_OK ? s : last;
    }
    if (s != NOEMA_OK)
        nm_store_rollback(j->c);
    return s;
}

noema_status noema_collection_index(noema_collection *c, noema_session *s, size_t n_paths, const char *const *paths, const noema_index_options *o,
                                    noema_index_report *report, noema_error *err)
{
    noema_error local = NOEMA_ERROR_INIT;
    nm_index_job j = { .c = c, .s = s, .err = err ? err : &local, .last_commit = seconds() };
    noema_index_options_default(&j.o);
    if (o)
        j.o = *o;
    const nm_model *m = s->model->m;
    if (!m->has_image)
        return nm_fail(j.err, NOEMA_E_UNSUPPORTED, "%s has no image tower", s->model->name);
    noema_status r = nm_index_use_model(c, s, j.err);
    if (r != NOEMA_OK)
        return r;
    j.batch = batch_of(m, j.o.batch);
    j.file = calloc(NM_WAVE, sizeof *j.file);
    j.todo = calloc(NM_WAVE, sizeof *j.todo);
    j.errors = calloc(NM_WAVE, sizeof *j.errors);
    j.vectors = nm_malloc_array(j.batch * (size_t)c->dim, sizeof *j.vectors);
    char **root = calloc(n_paths + 1, sizeof *root);
    bool ok = j.file && j.todo && j.errors && j.vectors && root;
    for (size_t i = 0; i < n_paths && ok; i++)
        ok = (root[i] = nm_absolute_path(paths[i])) != NULL;
    r = ok ? index_roots(&j, n_paths, root) : nm_fail(j.err, NOEMA_E_MEMORY, "%s: out of memory", c->path);
    for (size_t i = 0; root && i < n_paths; i++)
        free(root[i]);
    for (size_t i = 0; i < j.n_files; i++)
        free(j.file[i].path);
    free(root);
    free(j.file);
    free(j.todo);
    free(j.errors);
    free(j.vectors);
    if (report) {
        *report = r == NOEMA_OK ? j.now : j.committed;
        report->failed = j.now.failed;
        report->struct_size = sizeof *report;
    }
    return r;
}
