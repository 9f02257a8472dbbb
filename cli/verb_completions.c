/* verb_completions.c - `noema completions`: completion scripts made from the option tables, so that they never lag behind. */
#include <ctype.h>
#include <string.h>

#include "cli.h"

static const cli_option none = { NULL, 0, CLI_FLAG, NULL, NULL };

/* What an option's value completes to: 'f' files, 'c' the choices in `arg`, 'x' nothing, 0 takes no value. */
static char value_kind(const cli_option *o)
{
    if (!o->arg)
        return 0;
    if (strstr(o->arg, "FILE") || strstr(o->arg, "DIR") || strstr(o->arg, "MODEL"))
        return 'f';
    for (const char *p = o->arg; *p; p++)
        if (isupper((unsigned char)*p) || *p == '"')
            return 'x';
    return 'c';
}

/* Walks a verb's own options, then the common ones. */
static const cli_option *nth(const cli_verb *v, size_t i)
{
    for (const cli_option *o = v->options; o && o->name; o++)
        if (!i--)
            return o;
    const cli_option *o = cli_common_options;
    while (o->name && i--)
        o++;
    return o->name ? o : &none;
}

/* "a|b|c" as "a b c"; quotes of the help are dropped. */
static void put_words(const char *arg)
{
    for (; *arg; arg++)
        if (*arg != '"')
            putchar(*arg == '|' ? ' ' : *arg);
}

/* Inside single quotes of a shell. */
static void put_quoted(const char *s)
{
    for (; *s; s++)
        if (*s == '\'')
            fputs("'\\''", stdout);
        else
            putchar(*s);
}

/* ---- bash ---- */

static void bash_verbs(void)
{
    const char *last = "";
    size_t n_last = 0;
    for (const cli_verb *const *v = cli_verbs; *v; v++) {
        size_t n = strcspn((*v)->name, " ");
        if (n != n_last || strncmp(last, (*v)->name, n))
            printf("%s%.*s", *last ? " " : "", (int)n, (*v)->name);
        last = (*v)->name;
        n_last = n;
    }
}

static void bash_seconds(void)
{
    for (const cli_verb *const *v = cli_verbs; *v; v++) {
        size_t n = strcspn((*v)->name, " ");
        if (!(*v)->name[n] || (v != cli_verbs && !strncmp(v[-1]->name, (*v)->name, n + 1)))
            continue;
        printf("    %.*s) words=\"", (int)n, (*v)->name);
        for (const cli_verb *const *w = v; *w && !strncmp((*w)->name, (*v)->name, n + 1); w++)
            printf("%s%s", w == v ? "" : " ", (*w)->name + n + 1);
        puts("\" ;;");
    }
}

/* The choices of one option; verb NULL: of a common one. */
static void bash_value(const char *verb, const cli_option *o)
{
    if (value_kind(o) != 'c')
        return;
    if (verb)
        printf("    '%s --%s') ", verb, o->name);
    else
        printf("    *' --%s') ", o->name);
    printf("COMPREPLY=($(compgen -W \"");
    put_words(o->arg);
    puts("\" -- \"$cur\")); return ;;");
}

static void bash_values(void)
{
    for (const cli_verb *const *v = cli_verbs; *v; v++) {
        for (const cli_option *o = (*v)->options; o && o->name; o++)
            bash_value((*v)->name, o);
    }
    for (const cli_option *o = cli_common_options; o->name; o++)
        bash_value(NULL, o);
}

static void bash(void)
{
    puts("# bash completion of noema; made by `noema completions bash`\n_noema()\n{\n    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}\n"
         "    local first=${COMP_WORDS[1]} second=${COMP_WORDS[2]} verb words=");
    printf("    if [ \"$COMP_CWORD\" -eq 1 ]; then\n        COMPREPLY=($(compgen -W \"");
    bash_verbs();
    puts(" --help --version\" -- \"$cur\"))\n        return\n    fi\n    case $first in");
    bash_seconds();
    puts("    esac\n    if [ -n \"$words\" ] && [ \"$COMP_CWORD\" -eq 2 ]; then\n        COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n        return\n    fi\n"
         "    verb=$first; [ -n \"$words\" ] && verb=\"$first $second\"\n    case \"$verb $prev\" in");
    bash_values();
    puts("    esac\n"
         "    if [[ $cur == -* ]]; then\n        case $verb in");
    for (const cli_verb *const *v = cli_verbs; *v; v++) {
        const cli_option *o;
        printf("        '%s') COMPREPLY=($(compgen -W \"", (*v)->name);
        for (size_t i = 0; (o = nth(*v, i))->name; i++)
            printf("%s--%s", i ? " " : "", o->name);
        puts("\" -- \"$cur\")) ;;");
    }
    puts("        esac\n        return\n    fi\n    COMPREPLY=($(compgen -f -- \"$cur\"))\n}\ncomplete -o filenames -o bashdefault -F _noema noema");
}

/* ---- zsh ---- */

/* Inside '...[...]' of _arguments: brackets, colons and quotes are escaped. */
static void put_zsh(const char *s)
{
    for (; *s; s++) {
        if (*s == '\'')
            fputs("'\\''", stdout);
        else {
            if (strchr("[]:\\", *s))
                putchar('\\');
            putchar(*s);
        }
    }
}

static void zsh_option(const cli_option *o)
{
    printf("            '%s--%s%s[", o->kind == CLI_LIST ? "*" : "", o->name, o->arg ? "=" : "");
    put_zsh(o->help);
    printf("]");
    if (value_kind(o) == 'c') {
        printf(":value:(");
        put_words(o->arg);
        printf(")");
    } else if (o->arg)
        printf(value_kind(o) == 'f' ? ":file:_files" : ":value: ");
    puts("' \\");
}

static void zsh(void)
{
    puts("#compdef noema\n# zsh completion of noema; made by `noema completions zsh`\n_noema() {\n    local -a verbs\n    verbs=(");
    for (const cli_verb *const *v = cli_verbs; *v; v++) {
        printf("        '");
        put_zsh((*v)->name);
        printf(":");
        put_quoted((*v)->summary);
        puts("'");
    }
    puts("    )\n    if (( CURRENT == 2 )); then\n        _describe -t verbs 'noema verb' verbs\n        return\n    fi\n"
         "    local verb=$words[2]\n    case $verb in");
    for (const cli_verb *const *v = cli_verbs; *v; v++) {
        size_t n = strcspn((*v)->name, " ");
        if (!(*v)->name[n] || (v != cli_verbs && !strncmp(v[-1]->name, (*v)->name, n + 1)))
            continue;
        printf("    %.*s)\n        if (( CURRENT == 3 )); then\n            compadd", (int)n, (*v)->name);
        for (const cli_verb *const *w = v; *w && !strncmp((*w)->name, (*v)->name, n + 1); w++)
            printf(" %s", (*w)->name + n + 1);
        puts("\n            return\n        fi\n        verb=\"$verb $words[3]\"\n        shift words; (( CURRENT-- ))\n        ;;");
    }
    puts("    esac\n    shift words; (( CURRENT-- ))\n    case $verb in");
    for (const cli_verb *const *v = cli_verbs; *v; v++) {
        const cli_option *o;
        printf("    '%s')\n        _arguments -s \\\n", (*v)->name);
        for (size_t i = 0; (o = nth(*v, i))->name; i++)
            zsh_option(o);
        puts("            '*:input:_files'\n        ;;");
    }
    puts("    esac\n}\n_noema \"$@\"");
}

/* ---- fish ---- */

static void fish_option(const char *condition, const cli_option *o)
{
    printf("complete -c noema %s -l %s", condition, o->name);
    if (o->letter)
        printf(" -s %c", o->letter);
    if (o->arg)
        printf(value_kind(o) == 'f' ? " -rF" : " -x");
    if (value_kind(o) == 'c') {
        printf(" -a '");
        put_words(o->arg);
        printf("'");
    }
    printf(" -d '");
    put_quoted(o->help);
    puts("'");
}

static void fish(void)
{
    char condition[256];
    puts("# fish completion of noema; made by `noema completions fish`");
    for (const cli_verb *const *v = cli_verbs; *v; v++) {
        size_t n = strcspn((*v)->name, " ");
        bool group = (*v)->name[n], again = v != cli_verbs && !strncmp(v[-1]->name, (*v)->name, n + 1);
        if (!group || !again) {
            printf("complete -c noema -n __fish_use_subcommand -f -a %.*s -d '", (int)n, (*v)->name);
            put_quoted(group ? "" : (*v)->summary);
            puts("'");
        }
        if (group) {
            printf("complete -c noema -n '__fish_seen_subcommand_from %.*s; and test (count (commandline -opc)) -eq 2' -f -a %s -d '", (int)n, (*v)->name,
                   (*v)->name + n + 1);
            put_quoted((*v)->summary);
            puts("'");
            snprintf(condition, sizeof condition, "-n '__fish_seen_subcommand_from %.*s; and __fish_seen_subcommand_from %s'", (int)n, (*v)->name,
                     (*v)->name + n + 1);
        } else
            snprintf(condition, sizeof condition, "-n '__fish_seen_subcommand_from %s'", (*v)->name);
        for (const cli_option *o = (*v)->options; o && o->name; o++)
            fish_option(condition, o);
    }
    for (const cli_option *o = cli_common_options; o->name; o++)
        fish_option("", o);
}

static int run(cli *c)
{
    const char *shell = c->n_inputs == 1 ? c->inputs[0] : "";
    if (!strcmp(shell, "bash"))
        bash();
    else if (!strcmp(shell, "zsh"))
        zsh();
    else if (!strcmp(shell, "fish"))
        fish();
    else
        return cli_usage(c, "expected bash, zsh or fish");
    return cli_exit(c);
}

const cli_verb cli_verb_completions = {
    "completions", "a completion script for a shell", "bash|zsh|fish", NULL, "noema completions bash > ~/.local/share/bash-completion/completions/noema",
    NULL, 0, run
};
