/* names.c - the classes of --labels and the sentences of --templates. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli.h"
#include "templates_openai.inc"

/* FLIP's zero-shot templates (facebookresearch/flip vocab/class_names.py), also known as the best 7 of OpenAI's. */
static const char *const templates_flip[] = {
    "itap of a {}.", "a bad photo of the {}.", "a origami {}.", "a photo of the large {}.", "a {} in a video game.", "art of the {}.",
    "a photo of the small {}.",
};

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
    bool openai = strcmp(arg, "openai") == 0;
    if (!openai && strcmp(arg, "flip") != 0)
        return names_file(l, arg, err);
    const char *const *list = openai ? templates_openai : templates_flip;
    for (size_t i = 0, n = openai ? sizeof templates_openai / sizeof *list : sizeof templates_flip / sizeof *list; i < n; i++) {
        l->item = cli_grow((void *)l->item, &cap, l->n + 1, sizeof *l->item);
        l->item[l->n++] = list[i];
    }
    return true;
}
