/* verb_manual.c - `noema manual`: the man page, made from the option tables as the help is. */
#include <string.h>

#include "cli.h"
#include "noema/version.h"

/* Text in roff: a dot or quote must not start a line, backslashes and dashes are literal. */
static void put_roff(const char *s)
{
    for (bool start = true; *s; start = *s++ == '\n') {
        if (start && (*s == '.' || *s == '\''))
            fputs("\\&", stdout);
        if (*s == '\\')
            fputs("\\e", stdout);
        else if (*s == '-')
            fputs("\\-", stdout);
        else
            putchar(*s);
    }
}

static void put_options(const cli_option *o)
{
    for (; o && o->name; o++) {
        printf(".TP\n.B ");
        if (o->letter)
            printf("\\-%c\\fR,\\fB ", o->letter);
        fputs("\\-\\-", stdout);
        put_roff(o->name);
        if (o->arg) {
            fputs(" \\fI", stdout);
            put_roff(o->arg);
            fputs(o->kind == CLI_LIST ? "\\fR ..." : "\\fR", stdout);
        }
        putchar('\n');
        put_roff(o->help);
        putchar('\n');
    }
}

static void put_verb(const cli_verb *v)
{
    printf(".SS ");
    put_roff(v->name);
    printf("\n");
    put_roff(v->summary);
    printf(".\n.PP\n.B noema ");
    put_roff(v->name);
    printf("\\fR ");
    put_roff(v->usage);
    puts("\n.PP");
    if (v->details)
        put_roff(v->details);
    putchar('\n');
    put_options(v->options);
    printf(".PP\nExample:\n.PP\n.RS\n.nf\n");
    put_roff(v->example);
    puts("\n.fi\n.RE");
}

static const char before[] =
    ".SH NAME\nnoema \\- embeddings of pictures and texts, on the CPU\n.SH SYNOPSIS\n.B noema\n.I VERB\n[options]\n.I INPUT ...\n.SH DESCRIPTION\n"
    "Opens the published checkpoints of CLIP and its kin as their authors released them and prints what their reference code gives.\n"
    "Results go to standard output, progress and messages to standard error; the progress bar appears on a terminal only.\n"
    "On a terminal some verbs print a table, elsewhere (or with \\-\\-json) one JSON object per line; numbers read back as the same f32.\n"
    ".PP\nInputs are files, folders (with \\-r, in the order of their names), \\- (one path per line on standard input) and .npy files,\n"
    "each row of which is a tensor as the model gets it. A failed input is named on standard error; the others are done.\n"
    ".PP\nNo socket opens unless a model is named that has to be fetched (hf-hub:ORG/NAME, a published name) and is not in the cache.\n";

static const char after[] =
    ".SH EXIT STATUS\n.TP\n.B 0\nall well\n.TP\n.B 1\nusage\n.TP\n.B 2\nsome inputs failed (the others are done and the failures listed)\n.TP\n.B 3\n"
    "nothing could be done\n.TP\n.B 130\ninterrupted; what was printed or written stands\n"
    ".SH ENVIRONMENT\n.TP\n.B NOEMA_CPU\nref, avx2, avx512, avx512_bf16 or amx: use no more than this instruction set\n.TP\n.B NOEMA_DATA\n"
    "a folder with bpe_simple_vocab_16e6.txt.gz\n.TP\n.B HF_ENDPOINT, HF_TOKEN, HF_HOME, HF_HUB_CACHE, HF_HUB_OFFLINE\nas for huggingface_hub\n.TP\n"
    ".B NOEMA_OPENAI_ENDPOINT\nhost of OpenAI's files\n"
    ".SH FILES\n.TP\n.I ~/.cache/huggingface/hub\nmodels of the hub, in the layout of huggingface_hub\n.TP\n.I ~/.cache/clip\nOpenAI's files\n";

static int run(cli *c)
{
    printf(".TH NOEMA 1 \"\" \"noema %s\"\n%s.SH VERBS\n", NOEMA_VERSION_STRING, before);
    for (const cli_verb *const *v = cli_verbs; *v; v++)
        put_verb(*v);
    puts(".SH COMMON OPTIONS");
    put_options(cli_common_options);
    fputs(after, stdout);
    return cli_exit(c);
}

const cli_verb cli_verb_manual = {
    "manual", "the man page", "", NULL, "noema manual | man -l -", NULL, CLI_NO_INPUTS, run
};
