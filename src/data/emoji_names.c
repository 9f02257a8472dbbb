/* emoji_names.c - names and keywords of emoji from CLDR's annotation files (unicode.org/reports/tr35/tr35-general.html#Annotations):
 *
 *     <annotation cp="X" type="tts">name</annotation>      <annotation cp="X">keyword | keyword</annotation>
 *
 * The files are read as text, one element after another; nothing of XML beyond these elements and the usual entities matters here. */
#define _GNU_SOURCE
#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "noema/data.h"

#define FILE_LIMIT ((size_t)64 << 20)
enum { MAX_LANGUAGES = 16 };

typedef struct note { uint32_t cp; bool name; const char *text; size_t len; } note; /* text points into the file */
typedef struct notes { char *file; note *list; size_t n, cap; } notes;

static bool add_note(notes *a, note x)
{
    if (a->n == a->cap) {
        size_t cap = a->cap ? 2 * a->cap : 4096;
        note *p = nm_realloc_array(a->list, cap, sizeof *p);
        if (!p)
            return false;
        a->list = p;
        a->cap = cap;
    }
    a->list[a->n++] = x;
    return true;
}

/* The annotations of single code points (U+FE0F after one does not count). */
static noema_status read_notes(notes *a, const char *path, noema_error *err)
{
    size_t size;
    noema_status s = nm_read_file(&a->file, &size, path, FILE_LIMIT, err);
    if (s != NOEMA_OK)
        return s;
    for (const char *p = a->file, *end; (p = strstr(p, "<annotation cp=\"")); p = end) {
        const char *cp = p + 16, *quote = strchr(cp, '"'), *open = quote ? strchr(quote, '>') : NULL;
        end = open ? strchr(open, '<') : NULL;
        if (!end)
            return nm_fail(err, NOEMA_E_FORMAT, "%s: an <annotation> does not end", path);
        uint32_t c, more;
        int used = nm_utf8_decode(cp, (size_t)(quote - cp), &c);
        size_t left = (size_t)(quote - cp) - (size_t)used;
        bool single = left == 0 || (nm_utf8_decode(cp + used, left, &more) == (int)left && more == 0xFE0F);
        bool name = open - quote > 1 && memchr(quote, 't', (size_t)(open - quote)) != NULL; /* type="tts" is the only attribute here */
        if (single && !add_note(a, (note){ c, name, open + 1, (size_t)(end - open - 1) }))
            return nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", path);
    }
    return a->n ? NOEMA_OK : nm_fail(err, NOEMA_E_FORMAT, "%s: expected CLDR annotations, found none", path);
}

static const note *find(const notes *a, uint32_t cp, bool name)
{
    for (size_t i = 0; i < a->n; i++)
        if (a->list[i].cp == cp && a->list[i].name == name)
            return &a->list[i];
    return NULL;
}

/* Entities become characters, tabs and line ends spaces, " | " between keywords "|". */
static void put(nm_buf *out, const note *x)
{
    static const struct { const char *name; char c; } entity[] = { { "&amp;", '&' }, { "&lt;", '<' }, { "&gt;", '>' }, { "&quot;", '"' }, { "&apos;", '\'' } };
    nm_buf_putc(out, '\t');
    for (size_t i = 0; x && i < x->len; i++) {
        const char *p = x->text + i;
        size_t left = x->len - i, k = 0;
        while (k < 5 && (left < strlen(entity[k].name) || memcmp(p, entity[k].name, strlen(entity[k].name)) != 0))
            k++;
        if (k < 5) {
            nm_buf_putc(out, entity[k].c);
            i += strlen(entity[k].name) - 1;
        } else if (left >= 3 && memcmp(p, " | ", 3) == 0) {
            nm_buf_putc(out, '|');
            i += 2;
        } else
            nm_buf_putc(out, (unsigned char)*p < ' ' ? ' ' : *p);
    }
}

static int is_picture(const struct dirent *e)
{
    char *end;
    if (strncmp(e->d_name, "emoji_u", 7) != 0)
        return 0;
    return strtoul(e->d_name + 7, &end, 16) && strcmp(end, ".png") == 0;
}

/* alphasort would follow the locale. */
static int by_bytes(const struct dirent **a, const struct dirent **b) { return strcmp((*a)->d_name, (*b)->d_name); }

noema_status noema_data_emoji_names(const char *dir, const char *const *files, size_t n_files, const char *out, size_t *n_rows, noema_error *err)
{
    notes a[MAX_LANGUAGES] = { { 0 } };
    nm_buf text = { 0 };
    struct dirent **entry = NULL;
    noema_status s = n_files && n_files <= MAX_LANGUAGES ? NOEMA_OK : nm_fail(err, NOEMA_E_ARGUMENT, "expected 1 to %d annotation files", MAX_LANGUAGES);
    for (size_t k = 0; k < n_files && s == NOEMA_OK; k++)
        s = read_notes(&a[k], files[k], err);
    int n = s == NOEMA_OK ? scandir(dir, &entry, is_picture, by_bytes) : 0;
    if (n < 0)
        s = nm_fail(err, NOEMA_E_IO, "%s: cannot read the folder", dir);
    size_t rows = 0;
    for (int i = 0; i < n; i++) {
        uint32_t cp = (uint32_t)strtoul(entry[i]->d_name + 7, NULL, 16);
        if (find(&a[0], cp, true)) {
            nm_buf_printf(&text, "%s\temoji:%04x", entry[i]->d_name, (unsigned)cp);
            for (int name = 1; name >= 0; name--)
                for (size_t k = 0; k < n_files; k++)
                    put(&text, find(&a[k], cp, name != 0));
            nm_buf_putc(&text, '\n');
            rows++;
        }
        free(entry[i]);
    }
    free(entry);
    if (s == NOEMA_OK && text.failed)
        s = nm_fail(err, NOEMA_E_MEMORY, "%s: out of memory", out);
    if (s == NOEMA_OK)
        s = nm_write_file_atomic(out, text.data ? text.data : "", text.len, err);
    if (n_rows)
        *n_rows = rows;
    for (size_t k = 0; k < n_files && k < MAX_LANGUAGES; k++) {
        free(a[k].list);
        free(a[k].file);
    }
    nm_buf_free(&text);
    return s;
}
