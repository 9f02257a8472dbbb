/* verb_models.c - `noema models list|info|convert|new`. */
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "noema/inspect.h"

/* ---- list ---- */

static const cli_option list_options[] = {
    { "cached", 0, CLI_FLAG, NULL, "only those whose files are here" },
    { NULL, 0, CLI_FLAG, NULL, NULL }
};

static void member(cli_buf *b, const char *before, const char *key, const char *value)
{
    cli_printf(b, "%s\"%s\":", before, key);
    if (value)
        cli_put_json(b, value);
    else
        cli_puts(b, "null");
}

static int run_list(cli *c)
{
    cli_buf b = { 0 };
    for (size_t i = 0; i < noema_published_count() && !cli_interrupted(); i++) {
        noema_published p;
        noema_published_at(i, &p);
        if (cli_flag(c, "cached") && !p.path[0])
            continue;
        if (cli_tables(c))
            cli_printf(&b, "%-48s %-52s %s", p.name, p.source, p.path);
        else {
            member(&b, "{", "name", p.name);
            member(&b, ",", "source", p.source);
            member(&b, ",", "path", p.path[0] ? p.path : NULL);
            cli_puts(&b, "}");
        }
        cli_emit(&b);
    }
    cli_buf_free(&b);
    return cli_exit(c);
}

const cli_verb cli_verb_models_list = {
    "models list", "published models by name, and where their files are", "[--cached]",
    "Prints {\"name\",\"source\",\"path\"}: what -m takes, the hub's repository (or openai), the files in the cache or null.",
    "noema models list --cached", list_options, CLI_NO_INPUTS, run_list
};

/* ---- info ---- */

static const char *dtype_name(noema_dtype d)
{
    static const char *const names[] = { "auto", "f32", "bf16", "f16", "int8" };
    return names[d];
}

static void info_table(const noema_model_info *i, const noema_load_summary *s)
{
    cli_buf b = { 0 };
    cli_printf(&b, "name            %s\nfamily          %s (%s)\nparameters      %lld in %zu tensors (%zu optional ones absent, %zu in the file unused)\n"
                   "embedding       %d numbers\ncompute type    %s\n", i->name, i->family, i->format, (long long)i->n_params, s->n_tensors, s->n_missing,
               s->n_unused, i->embed_dim, dtype_name(i->dtype));
    if (i->image_vectors > 1)
        cli_printf(&b, "per picture     %d vectors\n", i->image_vectors);
    if (i->has_image)
        cli_printf(&b, "image           %d x %d (height x width)\npreprocessing   %s\n", i->image_height, i->image_width, i->preprocess);
    if (i->has_text)
        cli_printf(&b, "text            %d tokens\n", i->context_length);
    cli_printf(&b, "logit scale     %.9g\n", i->logit_scale);
    if (i->has_logit_bias)
        cli_printf(&b, "logit bias      %.9g\n", i->logit_bias);
    cli_printf(&b, "weights         %s\nspace           %s", i->identity, i->space);
    if (s->text[0])
        cli_printf(&b, "\n%s", s->text);
    cli_emit(&b);
    cli_buf_free(&b);
}

/* The lines of the report as a JSON list. */
static void put_lines(cli_buf *b, const char *text)
{
    cli_puts(b, "[");
    for (const char *p = text, *sep = ""; *p; sep = ",") {
        size_t n = strcspn(p, "\n");
        cli_puts(b, sep);
        cli_put_jsonn(b, p, n);
        p += n + (p[n] != 0);
    }
    cli_puts(b, "]");
}

static void info_json(const noema_model_info *i, const noema_load_summary *s)
{
    cli_buf b = { 0 };
    member(&b, "{", "name", i->name);
    member(&b, ",", "family", i->family);
    member(&b, ",", "format", i->format);
    cli_printf(&b, ",\"parameters\":%lld,\"tensors\":%zu,\"missing\":%zu,\"unused\":%zu,\"dim\":%d", (long long)i->n_params, s->n_tensors, s->n_missing,
               s->n_unused, i->embed_dim);
    if (i->image_vectors > 1)
        cli_printf(&b, ",\"image_vectors\":%d", i->image_vectors);
    member(&b, ",", "dtype", dtype_name(i->dtype));
    cli_printf(&b, ",\"image\":%s,\"text\":%s", i->has_image ? "true" : "false", i->has_text ? "true" : "false");
    cli_printf(&b, ",\"image_size\":[%d,%d],\"context_length\":%d,\"logit_scale\":%.17g", i->image_height, i->image_width, i->context_length, i->logit_scale);
    if (i->has_logit_bias)
        cli_printf(&b, ",\"logit_bias\":%.17g", i->logit_bias);
    else
        cli_puts(&b, ",\"logit_bias\":null");
    member(&b, ",", "preprocess", i->preprocess);
    member(&b, ",", "weights_sha256", i->identity);
    member(&b, ",", "space", i->space);
    cli_puts(&b, ",\"report\":");
    put_lines(&b, s->text);
    cli_puts(&b, "}");
    cli_emit(&b);
    cli_buf_free(&b);
}

static int run_info(cli *c)
{
    noema_model *m;
    noema_load_summary s;
    int code = cli_open_model(c, &m, NULL);
    if (code != CLI_OK)
        return code;
    noema_model_load_summary(m, &s);
    (cli_tables(c) ? info_table : info_json)(noema_model_get_info(m), &s);
    noema_model_free(m);
    return cli_exit(c);
}

const cli_verb cli_verb_models_info = {
    "models info", "what a model is and how its checkpoint filled it", "-m MODEL", "A JSON object, or a table on a terminal.", "noema models info",
    NULL, CLI_WITH_MODEL | CLI_NO_INPUTS, run_info
};

/* ---- convert, new ---- */

static const cli_option convert_options[] = {
    { "out", 'o', CLI_STRING, "DIR", "folder for weights, configuration and tokenizer" },
    { "format", 0, CLI_STRING, "openclip|hf", "whose names and files: open_clip's (default) or transformers'" },
    { NULL, 0, CLI_FLAG, NULL, NULL }
};

static int save(cli *c, noema_model *m, const char *out)
{
    noema_error err = NOEMA_ERROR_INIT;
    static const struct { const char *name; noema_dtype d; } types[] = { { "auto", NOEMA_DTYPE_F32 }, { "f32", NOEMA_DTYPE_F32 }, { "bf16", NOEMA_DTYPE_BF16 },
                                                                         { "f16", NOEMA_DTYPE_F16 }, { "int8", NOEMA_DTYPE_INT8 } };
    noema_dtype d = NOEMA_DTYPE_F32;
    cli_buf b = { 0 };
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (!strcmp(types[i].name, cli_str(c, "dtype", "auto")))
            d = types[i].d;
    noema_layout layout = strcmp(cli_str(c, "format", "openclip"), "hf") ? NOEMA_LAYOUT_OPEN_CLIP : NOEMA_LAYOUT_TRANSFORMERS;
    if (noema_model_save(m, out, layout, d, &err) != NOEMA_OK)
        return cli_fatal(c, &err);
    member(&b, "{", "model", noema_model_get_info(m)->name);
    member(&b, ",", "path", out);
    cli_puts(&b, "}");
    cli_emit(&b);
    cli_buf_free(&b);
    return cli_exit(c);
}

static int run_convert(cli *c)
{
    noema_model *m;
    const char *out = cli_str(c, "out", NULL);
    if (!out)
        return cli_usage(c, "expected --out DIR");
    int code = cli_open_model(c, &m, NULL);
    if (code == CLI_OK)
        code = save(c, m, out);
    noema_model_free(m);
    return code;
}

const cli_verb cli_verb_models_convert = {
    "models convert", "a checkpoint as safetensors with its official names", "-m MODEL --out DIR [--format openclip|hf] [--dtype f32|bf16|f16]",
    "Writes open_clip_model.safetensors, open_clip_config.json and the tokenizer's files (hf and sentence encoders: model.safetensors,\n"
    "config.json), so that open_clip or transformers, and noema, open the folder. --dtype is the type of the stored matrices.\n"
    "Tokenizer files are copied as they are: CLIP's merge list serves open_clip and noema, transformers needs its own tokenizer.json.",
    "noema models convert --out ./my-model", convert_options, CLI_WITH_MODEL | CLI_NO_INPUTS, run_convert
};

static const cli_option new_options[] = {
    { "arch", 0, CLI_STRING, "NAME", "an architecture of open_clip, such as ViT-B-32" },
    { "out", 'o', CLI_STRING, "DIR", "folder for weights, configuration and tokenizer" },
    { "format", 0, CLI_STRING, "openclip|hf", "whose names and files: open_clip's (default) or transformers'" },
    { NULL, 0, CLI_FLAG, NULL, NULL }
};

static int run_new(cli *c)
{
    noema_model *m;
    noema_error err = NOEMA_ERROR_INIT;
    const char *out = cli_str(c, "out", NULL), *arch = cli_str(c, "arch", NULL), *config = cli_str(c, "config", NULL);
    if (!out || !arch == !config)
        return cli_usage(c, "expected --out DIR and one of --arch NAME and --config FILE");
    if (!cli_context(c))
        return CLI_NOTHING_DONE;
    if (noema_model_new(&m, c->ctx, arch, config, (uint64_t)cli_int(c, "seed", 0), NULL, &err) != NOEMA_OK)
        return cli_fatal(c, &err);
    int code = save(c, m, out);
    noema_model_free(m);
    return code;
}

const cli_verb cli_verb_models_new = {
    "models new", "a model with new weights, to train", "--arch NAME|--config FILE --out DIR [--seed N]",
    "The weights are drawn as open_clip draws them; the same seed gives the same weights on every machine.",
    "noema models new --arch ViT-B-32 --out ./fresh", new_options, CLI_NO_INPUTS, run_new
};
