/* help.c - the help texts and the shell completions, both made from the option tables. */
#include <string.h>

#include "cli.h"
#include "noema/version.h"

static void print_options(FILE *f, const cli_option *o)
{
    for (; o && o->name; o++) {
        char left[80], letter[8] = "    ";
        if (o->letter)
            snprintf(letter, sizeof letter, "-%c, ", o->letter);
        snprintf(left, sizeof left, "%s--%s%s%s%s", letter, o->name, o->arg ? " " : "", o->arg ? o->arg : "", o->kind == CLI_LIST ? " ..." : "");
        fprintf(f, strlen(left) <= 30 ? "  %-30s  %s\n" : "  %s\n%34s%s\n", left, strlen(left) <= 30 ? o->help : "", o->help);
    }
}

/* Options about the model come first in the common table, up to --activation. */
static bool about_model(const cli_option *o) { return o < cli_common_options + 11; }

void cli_help_verb(FILE *f, const cli_verb *v)
{
    fprintf(f, "noema %s - %s\n\nusage: noema %s %s\n", v->name, v->summary, v->name, v->usage);
    if (v->details)
        fprintf(f, "\n%s\n", v->details);
    if (v->options) {
        fprintf(f, "\noptions:\n");
        print_options(f, v->options);
    }
    fprintf(f, "\ncommon options:\n");
    for (const cli_option *o = cli_common_options; o->name; o++)
        if (v->flags & CLI_WITH_MODEL || !about_model(o))
            print_options(f, (const cli_option[]){ *o, { NULL, 0, CLI_FLAG, NULL, NULL } });
    fprintf(f, "\nexample:\n  %s\n", v->example);
}

static void list_verbs(FILE *f, const char *group)
{
    size_t n = group ? strlen(group) : 0;
    for (const cli_verb *const *v = cli_verbs; *v; v++)
        if (!group || (!strncmp((*v)->name, group, n) && (*v)->name[n] == ' '))
            fprintf(f, "  %-20s %s\n", (*v)->name, (*v)->summary);
}

void cli_help_group(FILE *f, const char *group)
{
    fprintf(f, "usage: noema %s WHAT [options] ...\n\n", group);
    list_verbs(f, group);
    fprintf(f, "\n`noema %s WHAT --help` tells the options of one.\n", group);
}

void cli_help_all(FILE *f)
{
    fprintf(f, "noema %s - embeddings of pictures and texts, on the CPU\n\nusage: noema VERB [options] INPUT...\n\nverbs:\n", NOEMA_VERSION_STRING);
    list_verbs(f, NULL);
    fprintf(f, "\nResults go to stdout, progress and messages to stderr. Exit codes: 0 all well, 1 usage, 2 some inputs failed,\n"
               "3 nothing could be done, 130 interrupted (what was printed stands).\n\n"
               "`noema VERB --help` tells the options of a verb and one example; `noema --version` the release.\n");
}
