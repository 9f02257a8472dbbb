/* journal.c - see journal.h. */
#define _GNU_SOURCE
#include "base/journal.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"

#define MAX_BYTES ((size_t)4 << 30)

static noema_status no_memory(const nm_journal *j, noema_error *err) { return nm_fail(err, NOEMA_E_MEMORY, "out of memory: %s", j->path ? j->path : "results"); }

noema_status nm_journal_open(nm_journal *j, const char *path, const char *head, int64_t first, int64_t last, noema_error *err)
{
    char *text = NULL;
    size_t n = 0, head_bytes = head ? strlen(head) + 1 : 0;
    *j = (nm_journal){ .lines = json_array(), .path = path ? nm_strdup(path) : NULL, .head = head };
    if (!j->lines || (path && !j->path))
        return no_memory(j, err);
    noema_status s = path && nm_file_exists(path) ? nm_read_file(&text, &n, path, MAX_BYTES, err) : NOEMA_OK;
    if (s == NOEMA_OK && n >= head_bytes && head && (memcmp(text, head, head_bytes - 1) != 0 || text[head_bytes - 1] != '\n'))
        s = nm_fail(err, NOEMA_E_ARGUMENT, "%s holds results of other inputs or options: remove it, or choose another file", path);
    const size_t on_disk = n;
    j->size = s == NOEMA_OK && head && n >= head_bytes ? head_bytes : 0;
    if (head && n < head_bytes) /* killed before its first line was whole */
        n = 0;
    for (int64_t row = first; s == NOEMA_OK && row < last && j->size < n; row++) {
        const char *end = memchr(text + j->size, '\n', n - j->size);
        noema_error torn = NOEMA_ERROR_INIT;
        json_t *line = end ? nm_json_parse(text + j->size, (size_t)(end - text) - j->size, path, &torn) : NULL;
        if (!line || nm_json_int(line, "row", -1) != row) {
            json_decref(line);
            break;
        }
        if (json_array_append_new(j->lines, line) != 0)
            s = no_memory(j, err);
        j->size = (size_t)(end - text) + 1;
    }
    free(text);
    if (s == NOEMA_OK && on_disk > j->size && truncate(path, (off_t)j->size) != 0)
        s = nm_fail(err, NOEMA_E_IO, "%s: cannot write: %m", path);
    return s;
}

static noema_status open_file(nm_journal *j, noema_error *err)
{
    if (!(j->f = fopen(j->path, "ae")))
        return nm_fail(err, NOEMA_E_IO, "%s: cannot write: %m", j->path);
    if (j->head && j->size == 0 && fprintf(j->f, "%s\n", j->head) < 0)
        return nm_fail(err, NOEMA_E_IO, "%s: cannot write: %m", j->path);
    return NOEMA_OK;
}

noema_status nm_journal_add(nm_journal *j, const nm_buf *lines, noema_error *err)
{
    noema_status s = lines->failed ? no_memory(j, err) : NOEMA_OK;
    for (size_t at = 0, n; s == NOEMA_OK && at < lines->len; at += n) {
        n = strcspn(lines->data + at, "\n") + 1;
        json_t *line = nm_json_parse(lines->data + at, n - 1, "results", err);
        if (!line)
            s = err ? err->code : NOEMA_E_FORMAT;
        else if (json_array_append_new(j->lines, line) != 0)
            s = no_memory(j, err);
    }
    if (s == NOEMA_OK && j->path && !j->f)
        s = open_file(j, err);
    if (s == NOEMA_OK && j->f && lines->len && (fwrite(lines->data, 1, lines->len, j->f) != lines->len || fflush(j->f) != 0))
        s = nm_fail(err, NOEMA_E_IO, "%s: cannot write: %m", j->path);
    return s;
}

noema_status nm_journal_close(nm_journal *j, noema_status s, noema_error *err)
{
    bool ok = !j->f || s != NOEMA_OK || fsync(fileno(j->f)) == 0;
    if (j->f && (fclose(j->f) != 0 || !ok) && s == NOEMA_OK)
        s = nm_fail(err, NOEMA_E_IO, "%s: cannot write", j->path);
    j->f = NULL;
    return s;
}

void nm_journal_free(nm_journal *j)
{
    if (j->f)
        fclose(j->f);
    json_decref(j->lines);
    free(j->path);
    *j = (nm_journal){ 0 };
}
