/* csv.c - a CSV file of results (RFC 4180) that a later call goes on with: see cli.h. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

/* One field from text[at..end) into out (may be NULL); returns where its separator is, or SIZE_MAX when the quotes stay open. */
static size_t field(const char *text, size_t at, size_t end, cli_buf *out)
{
    bool quoted = at < end && text[at] == '"';
    for (at += quoted; at < end; at++) {
        if (quoted && text[at] == '"') {
            if (at + 1 >= end || text[at + 1] != '"')
                return at + 1;
            at++;
        } else if (!quoted && (text[at] == ',' || text[at] == '\n' || text[at] == '\r'))
            return at;
        if (out)
            cli_putn(out, text + at, 1);
    }
    return quoted ? SIZE_MAX : end;
}

static int by_text(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* Takes the first field of every complete record; returns where the last complete one ends. */
static size_t read_records(cli_csv *csv, const char *text, size_t size)
{
    size_t keep = 0, cap = 0;
    for (size_t at = 0; at < size;) {
        cli_buf first = { 0 };
        size_t end = field(text, at, size, &first);
        while (end < size && text[end] == ',')
            end = field(text, end + 1, size, NULL);
        if (end < size && text[end] == '\r')
            end++;
        if (end >= size || text[end] != '\n') {
            cli_buf_free(&first);
            break;
        }
        if (at) { /* not the header */
            cli_putn(&first, "", 1);
            csv->done = cli_grow(csv->done, &cap, csv->n_done + 1, sizeof *csv->done);
            csv->done[csv->n_done++] = first.data;
        } else
            cli_buf_free(&first);
        keep = at = end + 1;
    }
    return keep;
}

bool cli_csv_open(cli_csv *csv, cli *c, const char *path, const char *header)
{
    *csv = (cli_csv){ .path = path };
    size_t head = strlen(header), keep = 0, size = 0;
    char *text = NULL;
    FILE *f = fopen(path, "re");
    if (f) {
        size_t cap = 0, got = 0;
        do {
            text = cli_grow(text, &cap, size + (1 << 16), 1);
            got = fread(text + size, 1, 1 << 16, f);
            size += got;
        } while (got);
        fclose(f);
        if (size && (size <= head || memcmp(text, header, head) != 0 || (text[head] != '\n' && text[head] != '\r'))) {
            cli_warn(c, "%s: expected a CSV file that begins with \"%s\", or none", path, header);
            free(text);
            return false;
        }
        keep = read_records(csv, text, size);
        free(text);
        qsort(csv->done, csv->n_done, sizeof *csv->done, by_text);
    }
    csv->f = fopen(path, keep ? "r+e" : "we");
    if (!csv->f || (keep && (ftruncate(fileno(csv->f), (off_t)keep) != 0 || fseek(csv->f, 0, SEEK_END) != 0)) || (!keep && fprintf(csv->f, "%s\n", header) < 0)) {
        cli_warn(c, "%s: cannot write", path);
        return false;
    }
    return true;
}

bool cli_csv_has(const cli_csv *csv, const char *first)
{
    return csv->n_done && bsearch(&first, csv->done, csv->n_done, sizeof *csv->done, by_text);
}

static void put_field(FILE *f, const char *s)
{
    if (!strpbrk(s, ",\"\r\n")) {
        fputs(s, f);
        return;
    }
    fputc('"', f);
    for (; *s; s++) {
        if (*s == '"')
            fputc('"', f);
        fputc(*s, f);
    }
    fputc('"', f);
}

void cli_csv_row(cli_csv *csv, const char *const *fields, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (i)
            fputc(',', csv->f);
        put_field(csv->f, fields[i]);
    }
    fputc('\n', csv->f);
    fflush(csv->f);
}

bool cli_csv_close(cli_csv *csv)
{
    bool ok = true;
    if (csv->f) {
        ok = !ferror(csv->f);
        ok = fclose(csv->f) == 0 && ok;
    }
    for (size_t i = 0; i < csv->n_done; i++)
        free(csv->done[i]);
    free(csv->done);
    *csv = (cli_csv){ .path = csv->path };
    return ok;
}
