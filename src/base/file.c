/* file.c - files: see file.h. */
#define _GNU_SOURCE
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"

static noema_status fail_os(noema_error *err, const char *path, const char *what)
{
    int e = errno;
    return nm_fail(err, e == ENOENT ? NOEMA_E_MISSING : NOEMA_E_IO, "%s: %s: %s", path, what, strerror(e));
}

/* The live mappings, so that a pointer can be told to lie in one: heap memory must never be given back like this. */
static pthread_mutex_t maps_lock = PTHREAD_MUTEX_INITIALIZER;
static nm_map *maps;
static size_t n_maps, cap_maps;

static void note_map(nm_map m)
{
    pthread_mutex_lock(&maps_lock);
    if (n_maps == cap_maps) {
        size_t cap = cap_maps ? 2 * cap_maps : 16;
        nm_map *p = nm_realloc_array(maps, cap, sizeof *p);
        if (p) {
            maps = p;
            cap_maps = cap;
        }
    }
    if (n_maps < cap_maps) /* one that is not noted is merely never released early */
        maps[n_maps++] = m;
    pthread_mutex_unlock(&maps_lock);
}

static void forget_map(const unsigned char *data)
{
    pthread_mutex_lock(&maps_lock);
    for (size_t i = 0; i < n_maps; i++)
        if (maps[i].data == data) {
            maps[i] = maps[--n_maps];
            break;
        }
    if (!n_maps) {
        free(maps);
        maps = NULL;
        cap_maps = 0;
    }
    pthread_mutex_unlock(&maps_lock);
}

void nm_map_release(const void *p, size_t size)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = ((uintptr_t)p + page - 1) / page * page, end = ((uintptr_t)p + size) / page * page;
    if (end <= begin)
        return;
    pthread_mutex_lock(&maps_lock);
    for (size_t i = 0; i < n_maps; i++)
        if ((uintptr_t)maps[i].data <= begin && end <= (uintptr_t)maps[i].data + maps[i].size)
            (void)madvise((void *)begin, end - begin, MADV_DONTNEED); /* a hint: clean pages of a file */
    pthread_mutex_unlock(&maps_lock);
}

noema_status nm_map_file(nm_map *m, const char *path, noema_error *err)
{
    *m = (nm_map){ 0 };
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return fail_os(err, path, "cannot open");
    struct stat st;
    noema_status s = NOEMA_OK;
    if (fstat(fd, &st) != 0)
        s = fail_os(err, path, "cannot stat");
    else if (!S_ISREG(st.st_mode))
        s = nm_fail(err, NOEMA_E_IO, "%s: expected a regular file", path);
    else if (st.st_size > 0) {
        void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED)
            s = fail_os(err, path, "cannot map");
        else
            note_map(*m = (nm_map){ p, (size_t)st.st_size });
    }
    close(fd);
    return s;
}

void nm_unmap(nm_map *m)
{
    if (m->data)
        forget_map(m->data);
    if (m->data)
        munmap((void *)(uintptr_t)m->data, m->size);
    *m = (nm_map){ 0 };
}

noema_status nm_read_file(char **data, size_t *size, const char *path, size_t limit_bytes, noema_error *err)
{
    *data = NULL;
    *size = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return fail_os(err, path, "cannot open");
    struct stat st;
    nm_buf b = { 0 };
    noema_status s = NOEMA_OK;
    if (fstat(fd, &st) != 0)
        s = fail_os(err, path, "cannot stat");
    else if (S_ISDIR(st.st_mode))
        s = nm_fail(err, NOEMA_E_IO, "%s: expected a file, got a folder", path);
    else if (S_ISREG(st.st_mode) && (uintmax_t)st.st_size > limit_bytes)
        s = nm_fail(err, NOEMA_E_LIMIT, "%s: %ju bytes, more than the limit of %zu", path, (uintmax_t)st.st_size,
                    limit_bytes);
    else if (!nm_buf_reserve(&b, S_ISREG(st.st_mode) ? (size_t)st.st_size : 65536))
        s = nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", path);
    while (s == NOEMA_OK) {
        if (!nm_buf_reserve(&b, 65536)) {
            s = nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", path);
            break;
        }
        ssize_t n = read(fd, b.data + b.len, b.cap - b.len - 1);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            s = fail_os(err, path, "cannot read");
        if (n <= 0)
            break;
        b.len += (size_t)n;
        if (b.len > limit_bytes)
            s = nm_fail(err, NOEMA_E_LIMIT, "%s: more than the limit of %zu bytes", path, limit_bytes);
    }
    close(fd);
    if (s != NOEMA_OK) {
        nm_buf_free(&b);
        return s;
    }
    *size = b.len;
    *data = nm_buf_take(&b);
    return *data ? NOEMA_OK : nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", path);
}

static bool is_blank(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

noema_status nm_read_lines(char ***line, int64_t *n, const char *path, size_t limit_bytes, noema_error *err)
{
    char *text;
    size_t size, cap = 0;
    noema_status s = nm_read_file(&text, &size, path, limit_bytes, err);
    *line = NULL;
    *n = 0;
    for (const char *p = text, *end; s == NOEMA_OK && p < text + size; p = end + 1) {
        const char *next = memchr(p, '\n', (size_t)(text + size - p)), *last = end = next ? next : text + size;
        while (p < last && is_blank(*p))
            p++;
        while (p < last && is_blank(last[-1]))
            last--;
        if (p == last)
            continue;
        char **more = (size_t)*n < cap ? *line : nm_realloc_array(*line, cap = cap ? 2 * cap : 64, sizeof *more);
        if (more)
            *line = more;
        if (!more || !(more[*n] = nm_strndup(p, (size_t)(last - p))))
            s = nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", path);
        else
            ++*n;
    }
    free(text);
    if (s != NOEMA_OK) {
        nm_strings_free(*line, *n);
        *line = NULL;
        *n = 0;
    }
    return s;
}

noema_status nm_write_file_atomic(const char *path, const void *data, size_t size, noema_error *err)
{
    char *tmp = nm_sprintf("%s.tmp.%ld", path, (long)getpid());
    if (!tmp)
        return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", path);
    noema_status s = NOEMA_OK;
    int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) {
        s = fail_os(err, path, "cannot create");
        free(tmp);
        return s;
    }
    for (size_t done = 0; done < size && s == NOEMA_OK;) {
        ssize_t n = write(fd, (const char *)data + done, size - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            s = fail_os(err, path, "cannot write");
        else
            done += (size_t)n;
    }
    if (s == NOEMA_OK && fsync(fd) != 0)
        s = fail_os(err, path, "cannot sync");
    if (close(fd) != 0 && s == NOEMA_OK)
        s = fail_os(err, path, "cannot close");
    if (s == NOEMA_OK && rename(tmp, path) != 0)
        s = fail_os(err, path, "cannot rename into place");
    if (s != NOEMA_OK)
        unlink(tmp);
    free(tmp);
    return s;
}

bool nm_file_exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

bool nm_dir_exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

noema_status nm_mkdirs(const char *path, noema_error *err)
{
    char *p = nm_strdup(path);
    if (!p)
        return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", path);
    noema_status s = NOEMA_OK;
    for (char *q = p + 1; s == NOEMA_OK; q++) {
        if (*q && *q != '/')
            continue;
        char c = *q;
        *q = 0;
        if (mkdir(p, 0777) != 0 && errno != EEXIST)
            s = fail_os(err, p, "cannot create folder");
        *q = c;
        if (!c)
            break;
    }
    if (s == NOEMA_OK && !nm_dir_exists(p))
        s = nm_fail(err, NOEMA_E_IO, "%s: expected a folder, something else is there", path);
    free(p);
    return s;
}

char *nm_path_join(const char *dir, const char *name)
{
    if (name[0] == '/' || !dir[0])
        return nm_strdup(name);
    size_t n = strlen(dir);
    return nm_sprintf("%s%s%s", dir, dir[n - 1] == '/' ? "" : "/", name);
}

char *nm_path_dir(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash)
        return nm_strdup(".");
    return nm_strndup(path, slash == path ? 1 : (size_t)(slash - path));
}

const char *nm_path_base(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

bool nm_has_suffix(const char *s, const char *suffix)
{
    size_t n = strlen(s), m = strlen(suffix);
    return n >= m && strcasecmp(s + n - m, suffix) == 0;
}
