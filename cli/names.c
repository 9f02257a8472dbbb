/* names.c - the classes of --labels and the sentences of --templates. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli.h"
#include "templates_openai.inc"

void cli_names_free(cli_names *l)
{
    free((void *)l->item);
    cli_lines_free(&l->lines);
    free(l->text);
}

static void names_add(cli_names *l, size_t *cap, char *s)
{
    s += strspn(s, " \t");
    for (size_t n = strlen(s); n && (s[n - 1] == ' ' || s[n - 1] == '\t');)
        s[--n] = 0;
    if (!*s)
        return;
    l->item = cli_grow((void *)l->item, cap, l->n + 1, sizeof *l->item);
    l->item[l->n++] = s;
}

static bool names_file(cli_names *l, const char *path, noema_error *err)
{
    size_t cap = 0;
    if (!cli_lines_read(&l->lines, path, err))
        return false;
    cli_lines_trim(&l->lines);
    for (size_t i = 0; i < l->lines.n; i++)
        names_add(l, &cap, l->lines.line[i]);
    return true;
}

static bool is_file(const char *path)
{
    struct stat st;
    return !stat(path, &st) && S_ISREG(st.st_mode);
}

bool cli_names_labels(cli_names *l, const char *arg, noema_error *err)
{
    size_t cap = 0;
    if (is_file(arg))
        return names_file(l, arg, err);
    l->text = cli_dup(arg);
    for (char *s = l->text, *comma; s; s = comma) {
        if ((comma = strchr(s, ',')))
            *comma++ = 0;
        names_add(l, &cap, s);
    }
    return true;
}

bool cli_names_templates(cli_names *l, const char *arg, noema_error *err)
{
    size_t cap = 0;
    if (!strcmp(arg, "none"))
        return true;
    if (strcmp(arg, "openai"))
        return names_file(l, arg, err);
    for (size_t i = 0; i < sizeof templates_openai / sizeof *templates_openai; i++) {
        l->item = cli_grow((void *)l->item, &cap, l->n + 1, sizeof *l->item);
        l->item[l->n++] = templates_openai[i];
    }
    return true;
}
