/* main.c - the noema command: finds the verb, parses its options, runs it. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "noema/version.h"

/* One line per verb, in the order of the help. */
#define VERBS(V) \
    V(embed) \
    V(classify) \
    V(match) \
    V(caption) \
    V(ask) \
    V(index) \
    V(search) \
    V(similar) \
    V(collections_list) \
    V(collections_info) \
    V(collections_check) \
    V(collections_compact) \
    V(collections_export) \
    V(inspect_tokens) \
    V(inspect_pixels) \
    V(inspect_weights) \
    V(inspect_activations) \
    V(inspect_frames) \
    V(inspect_spectrogram) \
    V(models_list) \
    V(models_info) \
    V(models_pull) \
    V(models_convert) \
    V(models_new) \
    V(models_average) \
    V(models_interpolate) \
    V(describe) \
    V(train) \
    V(finetune) \
    V(probe) \
    V(eval_zeroshot) \
    V(eval_retrieval) \
    V(eval_probe) \
    V(eval_knn) \
    V(eval_geometry) \
    V(eval_composition) \
    V(eval_captions) \
    V(eval_caption) \
    V(eval_clipscore) \
    V(eval_vqa) \
    V(eval_nlvr) \
    V(data_info) \
    V(data_verify) \
    V(data_convert) \
    V(data_caption) \
    V(data_filter) \
    V(data_emoji) \
    V(data_vocab) \
    V(verify) \
    V(bench) \
    V(completions) \
    V(manual)

#define DECLARE(name) extern const cli_verb cli_verb_##name;
#define LIST(name) &cli_verb_##name,
VERBS(DECLARE)
const cli_verb *const cli_verbs[] = { VERBS(LIST) NULL };

/* The verb of one or two words at the front of argv; *used counts them. */
static const cli_verb *find_verb(int argc, char **argv, int *used)
{
    for (const cli_verb *const *v = cli_verbs; *v; v++) {
        const char *name = (*v)->name, *space = strchr(name, ' ');
        if (!space && !strcmp(name, argv[0]))
            return *used = 1, *v;
        if (space && argc > 1 && strlen(argv[0]) == (size_t)(space - name) && !strncmp(name, argv[0], (size_t)(space - name)) &&
            !strcmp(space + 1, argv[1]))
            return *used = 2, *v;
    }
    return NULL;
}

static bool is_group(const char *word)
{
    size_t n = strlen(word);
    for (const cli_verb *const *v = cli_verbs; *v; v++)
        if (!strncmp((*v)->name, word, n) && (*v)->name[n] == ' ')
            return true;
    return false;
}

static bool is_help(const char *a) { return !strcmp(a, "--help") || !strcmp(a, "-h") || !strcmp(a, "help"); }

/* No verb was found: help, version or a usage error. */
static int without_verb(int argc, char **argv)
{
    if (argc >= 1 && is_help(argv[0])) {
        cli_help_all(stdout);
        cli_flush();
        return CLI_OK;
    }
    if (argc >= 1 && (!strcmp(argv[0], "--version") || !strcmp(argv[0], "-V"))) {
        printf("noema %s\n", NOEMA_VERSION_STRING);
        cli_flush();
        return CLI_OK;
    }
    if (argc >= 1 && is_group(argv[0])) {
        bool asked = argc > 1 && is_help(argv[1]);
        if (argc > 1 && !asked)
            fprintf(stderr, "noema: there is no '%s %s'\n", argv[0], argv[1]);
        cli_help_group(asked ? stdout : stderr, argv[0]);
        return asked ? CLI_OK : CLI_USAGE;
    }
    if (argc >= 1)
        fprintf(stderr, "noema: there is no verb '%s'; `noema --help` lists them\n", argv[0]);
    else
        cli_help_all(stderr);
    return CLI_USAGE;
}

int main(int argc, char **argv)
{
    int used = 0, code;
    const cli_verb *verb = argc > 1 ? find_verb(argc - 1, argv + 1, &used) : NULL;
    cli c = { .verb = verb, .out_tty = isatty(STDOUT_FILENO), .err_tty = isatty(STDERR_FILENO) };
    cli_catch_signals();
    if (!verb)
        return without_verb(argc - 1, argv + 1);
    if (!cli_parse(&c, argc - 1 - used, argv + 1 + used))
        code = CLI_USAGE;
    else if (cli_flag(&c, "help")) {
        cli_help_verb(stdout, verb);
        code = CLI_OK;
    } else
        code = verb->run(&c);
    cli_flush();
    cli_context_free(&c);
    cli_free(&c);
    return code;
}
