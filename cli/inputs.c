/* inputs.c - what the arguments stand for: files, folders, lists on stdin, rows of .npy files. One at a time, so that a job of
 * a million files holds one folder's names per level and nothing more. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "cli.h"

#define MAX_DEPTH 64

/* The sorted entries of one folder on the way down. */
typedef struct level { char *path; char **name; size_t n, next; } level;

struct cli_inputs {
    cli *c; /* NULL while only counting: failures are then silent */
    const char *const *args;
    size_t n_args, next_arg;
    bool recursive, stdin_open;
    unsigned flags;
    level stack[MAX_DEPTH];
    int depth;
    char *folder; /* the argument whose files are being given, while none was found in it */
    char *npy_path; /* the .npy file whose rows are being given */
    int64_t npy_row, npy_rows;
};

static bool has_extension(const char *name, const char *const *list)
{
    const char *dot = strrchr(name, '.');
    for (; dot && *list; list++)
        if (!strcasecmp(dot + 1, *list))
            return true;
    return false;
}

static bool wanted(const char *name, unsigned flags)
{
    static const char *const pictures[] = { "jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "tif", "tiff", "ppm", "pgm", "pbm", "pnm", "avif", "heic", "heif", NULL };
    static const char *const arrays[] = { "npy", NULL };
    return has_extension(name, pictures) || (flags & CLI_IN_ROWS && has_extension(name, arrays));
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void pop(cli_inputs *in)
{
    level *l = &in->stack[--in->depth];
    for (size_t i = l->next; i < l->n; i++)
        free(l->name[i]);
    free(l->name);
    free(l->path);
}

static void push(cli_inputs *in, const char *path)
{
    DIR *d;
    if (in->depth == MAX_DEPTH) {
        if (in->c)
            cli_failed_msg(in->c, path, "more than %d folders deep", MAX_DEPTH);
        return;
    }
    if (!(d = opendir(path))) {
        if (in->c)
            cli_failed_msg(in->c, path, "%s", strerror(errno));
        return;
    }
    level *l = &in->stack[in->depth++];
    *l = (level){ .path = cli_dup(path) };
    size_t cap = 0;
    for (struct dirent *e; (e = readdir(d));) {
        if (e->d_name[0] == '.')
            continue;
        l->name = cli_grow(l->name, &cap, l->n + 1, sizeof *l->name);
        l->name[l->n++] = cli_dup(e->d_name);
    }
    closedir(d);
    if (l->n)
        qsort(l->name, l->n, sizeof *l->name, by_name);
}

/* The next file below the folders on the stack (malloc'd), or NULL. Links to folders are not followed: they may form rings. */
static char *next_in_folder(cli_inputs *in)
{
    while (in->depth) {
        level *l = &in->stack[in->depth - 1];
        if (l->next == l->n) {
            pop(in);
            continue;
        }
        char *name = l->name[l->next++];
        size_t n = strlen(l->path);
        char *path = cli_text("%s%s%s", l->path, n && l->path[n - 1] == '/' ? "" : "/", name);
        struct stat st;
        bool file = wanted(name, in->flags) && !stat(path, &st) && S_ISREG(st.st_mode);
        if (!file && !lstat(path, &st) && S_ISDIR(st.st_mode))
            push(in, path);
        free(name);
        if (file)
            return path;
        free(path);
    }
    return NULL;
}

/* The next line; a list made on Windows ends its lines with \r\n. */
static char *next_on_stdin(cli_inputs *in)
{
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    struct stat st;
    while ((n = getline(&line, &cap, stdin)) > 0) {
        if (line[n - 1] == '\n')
            line[--n] = 0;
        if (n && line[n - 1] == '\r' && stat(line, &st))
            line[--n] = 0;
        if (n)
            return line;
    }
    free(line);
    in->stdin_open = false;
    return NULL;
}

/* The next path named by an argument, before folders are opened. */
static char *next_argument(cli_inputs *in)
{
    if (in->stdin_open) {
        char *line = next_on_stdin(in);
        if (line)
            return line;
    }
    while (in->next_arg < in->n_args) {
        const char *a = in->args[in->next_arg++];
        if (strcmp(a, "-"))
            return cli_dup(a);
        in->stdin_open = true;
        char *line = next_on_stdin(in);
        if (line)
            return line;
    }
    return NULL;
}

static char *next_path(cli_inputs *in)
{
    for (;;) {
        char *path = next_in_folder(in);
        if (in->folder) {
            if (!path && in->c)
                cli_warn(in->c, "%s: no pictures in this folder", in->folder);
            free(in->folder);
            in->folder = NULL;
        }
        if (path || !(path = next_argument(in)))
            return path;
        struct stat st;
        if (stat(path, &st) || !S_ISDIR(st.st_mode))
            return path;
        if (in->recursive) {
            push(in, path);
            if (in->depth) {
                in->folder = path;
                continue;
            }
        } else if (in->c)
            cli_failed_msg(in->c, path, "is a folder; -r takes the files in it");
        free(path);
    }
}

/* "F.npy#3" names one row, unless a file of that very name exists. */
static bool named_row(char *path, int64_t *row)
{
    char *hash = strrchr(path, '#'), *end;
    struct stat st;
    if (!hash || hash == path || !stat(path, &st) || !hash[1])
        return false;
    long long k = strtoll(hash + 1, &end, 10);
    if (*end || k < 0 || hash - path < 4 || strncasecmp(hash - 4, ".npy", 4))
        return false;
    *hash = 0;
    *row = k;
    return true;
}

static bool give_row(cli_inputs *in, cli_input *out)
{
    *out = (cli_input){ cli_text("%s#%lld", in->npy_path, (long long)in->npy_row), cli_dup(in->npy_path), in->npy_row };
    if (++in->npy_row == in->npy_rows) {
        free(in->npy_path);
        in->npy_path = NULL;
    }
    return true;
}

bool cli_inputs_next(cli_inputs *in, cli_input *out)
{
    while (!cli_interrupted()) {
        if (in->npy_path)
            return give_row(in, out);
        char *path = next_path(in);
        int64_t row = -1;
        static const char *const arrays[] = { "npy", NULL };
        if (!path)
            return false;
        if (in->flags & CLI_IN_ROWS && named_row(path, &row)) {
            *out = (cli_input){ cli_text("%s#%lld", path, (long long)row), path, row };
            return true;
        }
        if (!(in->flags & CLI_IN_ROWS) || !has_extension(path, arrays)) {
            *out = (cli_input){ cli_dup(path), path, -1 };
            return true;
        }
        cli_npy a;
        noema_error err = NOEMA_ERROR_INIT;
        if (cli_npy_open(&a, path, &err)) {
            in->npy_rows = a.ndim > 1 ? a.shape[0] : 0;
            in->npy_row = 0;
            if (in->npy_rows > 0)
                in->npy_path = cli_dup(path);
            else if (in->c)
                cli_failed_msg(in->c, path, "expected tensors [n, C, H, W], got %d dimension%s", a.ndim, a.ndim == 1 ? "" : "s and no row");
            cli_npy_close(&a);
        } else if (in->c)
            cli_failed(in->c, path, &err);
        free(path);
    }
    return false;
}

void cli_input_free(cli_input *i)
{
    free(i->name);
    free(i->path);
    *i = (cli_input){ 0 };
}

cli_inputs *cli_inputs_open(cli *c, const char *const *args, size_t n, bool recursive, unsigned flags)
{
    cli_inputs *in = cli_alloc(1, sizeof *in);
    *in = (cli_inputs){ .c = c, .args = args, .n_args = n, .recursive = recursive, .flags = flags };
    return in;
}

void cli_inputs_close(cli_inputs *in)
{
    if (!in)
        return;
    while (in->depth)
        pop(in);
    free(in->npy_path);
    free(in->folder);
    free(in);
}

int64_t cli_inputs_count(const cli *c, const char *const *args, size_t n, bool recursive, unsigned flags)
{
    int64_t total = 0;
    cli_input i;
    (void)c;
    for (size_t k = 0; k < n; k++)
        if (!strcmp(args[k], "-"))
            return -1;
    cli_inputs *in = cli_inputs_open(NULL, args, n, recursive, flags);
    for (; cli_inputs_next(in, &i); total++)
        cli_input_free(&i);
    cli_inputs_close(in);
    return total;
}

/* ---- lines of a file ---- */

static bool read_all(const char *path, char **data, size_t *size, noema_error *err)
{
    FILE *f = fopen(path, "rb");
    size_t cap = 0, got;
    struct stat st;
    *data = NULL;
    *size = 0;
    if (!f || fstat(fileno(f), &st) || S_ISDIR(st.st_mode)) {
        err->code = NOEMA_E_IO;
        snprintf(err->message, sizeof err->message, "%s: %s", path, f ? "is a folder, expected a text file" : strerror(errno));
        if (f)
            fclose(f);
        return false;
    }
    do {
        *data = cli_grow(*data, &cap, *size + 65536, 1);
        got = fread(*data + *size, 1, 65535, f);
        *size += got;
    } while (got);
    (*data)[*size] = 0;
    fclose(f);
    return true;
}

bool cli_lines_read(cli_lines *l, const char *path, noema_error *err)
{
    size_t size, cap = 0, cap_len = 0;
    *l = (cli_lines){ 0 };
    if (!read_all(path, &l->data, &size, err))
        return false;
    for (size_t at = 0; at < size;) {
        char *s = l->data + at, *nl = memchr(s, '\n', size - at);
        size_t n = nl ? (size_t)(nl - s) : size - at;
        at += n + 1;
        s[n] = 0;
        l->line = cli_grow(l->line, &cap, l->n + 1, sizeof *l->line);
        l->len = cli_grow(l->len, &cap_len, l->n + 1, sizeof *l->len);
        l->line[l->n] = s;
        l->len[l->n++] = n;
    }
    return true;
}

void cli_lines_trim(cli_lines *l)
{
    if (l->n && l->len[0] >= 3 && !memcmp(l->line[0], "\xEF\xBB\xBF", 3)) {
        l->line[0] += 3;
        l->len[0] -= 3;
    }
    for (size_t i = 0; i < l->n; i++)
        if (l->len[i] && l->line[i][l->len[i] - 1] == '\r')
            l->line[i][--l->len[i]] = 0;
}

void cli_lines_free(cli_lines *l)
{
    free(l->data);
    free(l->line);
    free(l->len);
    *l = (cli_lines){ 0 };
}
