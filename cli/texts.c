/* texts.c - the texts of a command line: --text in order, then the lines of each --text-file as they are. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "cli.h"

/* Appends l's lines; the strings stay l's. */
static void append(cli_texts *t, const char *s, size_t n)
{
    t->text = cli_grow(t->text, &t->cap, t->n + 1, sizeof *t->text);
    t->len = cli_grow(t->len, &t->cap_len, t->n + 1, sizeof *t->len);
    t->text[t->n] = s;
    t->len[t->n++] = n;
}

bool cli_texts_read(cli *c, cli_texts *t)
{
    *t = (cli_texts){ 0 };
    t->files = cli_alloc(c->n_values, sizeof *t->files);
    for (size_t i = 0; i < c->n_values; i++) {
        const cli_value *v = &c->values[i];
        if (!strcmp(v->option->name, "text"))
            append(t, v->text, strlen(v->text));
        else if (!strcmp(v->option->name, "text-file")) {
            noema_error err = NOEMA_ERROR_INIT;
            cli_lines *l = &t->files[t->n_files];
            if (!cli_lines_read(l, v->text, &err)) {
                cli_fatal(c, &err);
                return false;
            }
            t->n_files++;
            for (size_t k = 0; k < l->n; k++)
                append(t, l->line[k], l->len[k]);
        }
    }
    return true;
}

void cli_texts_free(cli_texts *t)
{
    for (size_t i = 0; i < t->n_files; i++)
        cli_lines_free(&t->files[i]);
    free(t->files);
    free((void *)t->text);
    free(t->len);
    *t = (cli_texts){ 0 };
}
