/* options.c - the command line: long options with "=" or a separate value, short letters, repeated options, "--". */
#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

const cli_option cli_common_options[] = {
    { "model", 'm', CLI_STRING, "MODEL", "file, folder, name, ViT-B-32/laion2b_s34b_b79k, ViT-B/32 or hf-hub:org/name[@rev] (the built-in noema-mini)" },
    { "dtype", 0, CLI_STRING, "auto|f32|bf16|f16|int8", "compute type (auto: bf16 where the CPU has bf16 dot products, else f32)" },
    { "batch", 0, CLI_INT, "N", "inputs per forward (default: chosen)" },
    { "device", 0, CLI_STRING, "cpu", "where to compute" },
    { "seed", 0, CLI_INT, "N", "seed of everything random (default 0)" },
    { "offline", 0, CLI_FLAG, NULL, "never open a socket (also HF_HUB_OFFLINE=1)" },
    { "tokenizer", 0, CLI_STRING, "FILE", "tokenizer file or folder, when the checkpoint has none beside it" },
    { "config", 0, CLI_STRING, "FILE", "configuration, when the checkpoint has none beside it" },
    { "vision", 0, CLI_STRING, "FILE", "BLIP-2: the image encoder, when it is neither in the checkpoint nor beside it" },
    { "language-model", 0, CLI_STRING, "DIR", "BLIP-2: folder of the language model and its tokenizer" },
    { "preprocess", 0, CLI_STRING, "FILE", "image preprocessing: a file, or openai, hf4_clip, hf5_clip, hf5_siglip, hf5_blip, blip, flip, none" },
    { "image-size", 0, CLI_STRING, "N|HxW", "run at another image size; the position table is resized as the authors do" },
    { "size", 0, CLI_STRING, "S|HxW", "size of the result of a named --preprocess; with a model, its image size" },
    { "activation", 0, CLI_STRING, "quickgelu|gelu", "for checkpoints that do not say which" },
    { "weights", 0, CLI_STRING, "auto|packed|mapped", "packed: copied for speed; mapped: read from the file in each product (auto: mapped where memory is short)" },
    { "threads", 0, CLI_INT, "N", "threads (default: all processors)" },
    { "json", 0, CLI_FLAG, NULL, "JSON lines, also on a terminal" },
    { "quiet", 'q', CLI_FLAG, NULL, "no progress and no notes on stderr" },
    { "help", 'h', CLI_FLAG, NULL, "this text" },
    { NULL, 0, CLI_FLAG, NULL, NULL }
};

static const cli_option *find(const cli_option *o, const char *name, size_t n, char letter)
{
    for (; o && o->name; o++)
        if (letter ? o->letter == letter : strlen(o->name) == n && !memcmp(o->name, name, n))
            return o;
    return NULL;
}

static const cli_option *find_both(const cli *c, const char *name, size_t n, char letter)
{
    const cli_option *o = find(c->verb->options, name, n, letter);
    return o ? o : find(cli_common_options, name, n, letter);
}

/* "a|b|c" in lower case lists the values; "N|HxW" does not. */
static bool is_choice(const char *arg)
{
    if (!arg)
        return false;
    for (const char *p = arg; *p; p++)
        if (isupper((unsigned char)*p))
            return false;
    return true;
}

static bool in_choice(const char *arg, const char *v)
{
    for (size_t n = strlen(v); *arg;) {
        size_t k = strcspn(arg, "|");
        if (k == n && !memcmp(arg, v, n))
            return true;
        arg += k + (arg[k] != 0);
    }
    return false;
}

static bool check_value(const cli *c, const cli_option *o, const char *v)
{
    char *end;
    errno = 0;
    if (o->kind == CLI_INT) {
        long long n = strtoll(v, &end, 10);
        if (end == v || *end || errno || n < 0)
            return cli_usage(c, "--%s: expected a whole number, got '%s'", o->name, v), false;
    } else if (o->kind == CLI_NUMBER) {
        double d = strtod(v, &end);
        if (end == v || *end || !isfinite(d))
            return cli_usage(c, "--%s: expected a number, got '%s'", o->name, v), false;
    } else if (is_choice(o->arg) && !in_choice(o->arg, v))
        return cli_usage(c, "--%s: expected %s, got '%s'", o->name, o->arg, v), false;
    return true;
}

static bool add(cli *c, const cli_option *o, const char *v)
{
    if (v && !check_value(c, o, v))
        return false;
    c->values[c->n_values++] = (cli_value){ o, v };
    return true;
}

/* --name, --name=value, --name value. Moves *i over a value taken from the next argument. */
static bool parse_long(cli *c, int argc, char **argv, int *i)
{
    const char *name = argv[*i] + 2, *eq = strchr(name, '=');
    size_t n = eq ? (size_t)(eq - name) : strlen(name);
    const cli_option *o = find_both(c, name, n, 0);
    if (!o)
        return cli_usage(c, "unknown option --%.*s", (int)n, name), false;
    if (o->kind == CLI_FLAG)
        return eq ? (cli_usage(c, "--%s takes no value", o->name), false) : add(c, o, NULL);
    if (!eq && *i + 1 >= argc)
        return cli_usage(c, "--%s needs a value (%s)", o->name, o->arg), false;
    return add(c, o, eq ? eq + 1 : argv[++*i]);
}

/* -q, -qr, -m MODEL, -mMODEL */
static bool parse_short(cli *c, int argc, char **argv, int *i)
{
    for (const char *p = argv[*i] + 1; *p; p++) {
        const cli_option *o = find_both(c, NULL, 0, *p);
        if (!o)
            return cli_usage(c, "unknown option -%c", *p), false;
        if (o->kind == CLI_FLAG) {
            if (!add(c, o, NULL))
                return false;
            continue;
        }
        if (!p[1] && *i + 1 >= argc)
            return cli_usage(c, "-%c needs a value (%s)", *p, o->arg), false;
        return add(c, o, p[1] ? p + 1 : argv[++*i]);
    }
    return true;
}

bool cli_parse(cli *c, int argc, char **argv)
{
    size_t most = 1;
    for (int i = 0; i < argc; i++)
        most += 1 + (argv[i][0] == '-' ? strlen(argv[i]) : 0);
    c->values = cli_alloc(most, sizeof *c->values);
    c->inputs = cli_alloc((size_t)argc + 1, sizeof *c->inputs);
    for (int i = 0; i < argc; i++) {
        const char *a = argv[i];
        if (!strcmp(a, "--")) {
            while (++i < argc)
                c->inputs[c->n_inputs++] = argv[i];
        } else if (a[0] != '-' || !a[1])
            c->inputs[c->n_inputs++] = a;
        else if (!(a[1] == '-' ? parse_long(c, argc, argv, &i) : parse_short(c, argc, argv, &i)))
            return false;
    }
    c->json = cli_flag(c, "json");
    c->quiet = cli_flag(c, "quiet");
    if (!cli_flag(c, "help") && c->verb->flags & CLI_NO_INPUTS && c->n_inputs)
        return cli_usage(c, "'%s': this verb takes no inputs", c->inputs[0]), false;
    return true;
}

void cli_free(cli *c)
{
    free(c->values);
    free(c->inputs);
}

/* The last one given counts. */
static const cli_value *value(const cli *c, const char *name)
{
    for (size_t i = c->n_values; i-- > 0;)
        if (!strcmp(c->values[i].option->name, name))
            return &c->values[i];
    return NULL;
}

bool cli_flag(const cli *c, const char *name) { return value(c, name) != NULL; }

const char *cli_str(const cli *c, const char *name, const char *dflt)
{
    const cli_value *v = value(c, name);
    return v ? v->text : dflt;
}

int64_t cli_int(const cli *c, const char *name, int64_t dflt)
{
    const cli_value *v = value(c, name);
    return v ? (int64_t)strtoll(v->text, NULL, 10) : dflt;
}

int cli_small_int(const cli *c, const char *name, int dflt)
{
    int64_t v = cli_int(c, name, dflt);
    return v > 1 << 20 ? 1 << 20 : (int)v;
}

double cli_num(const cli *c, const char *name, double dflt)
{
    const cli_value *v = value(c, name);
    return v ? strtod(v->text, NULL) : dflt;
}

const char **cli_list(const cli *c, const char *name, size_t *n)
{
    const char **list = NULL;
    *n = 0;
    for (size_t i = 0; i < c->n_values; i++)
        if (!strcmp(c->values[i].option->name, name)) {
            if (!list)
                list = cli_alloc(c->n_values, sizeof *list);
            list[(*n)++] = c->values[i].text;
        }
    return list;
}

bool cli_parse_size(const char *text, int *height, int *width)
{
    char *end;
    long h = strtol(text, &end, 10), w = h;
    if (end != text && *end == 'x') {
        const char *second = end + 1;
        w = strtol(second, &end, 10);
        if (end == second)
            return false;
    }
    if (end == text || *end || h < 1 || w < 1 || h > 16384 || w > 16384)
        return false;
    *height = (int)h;
    *width = (int)w;
    return true;
}
