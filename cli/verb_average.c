/* verb_average.c - `noema models average|interpolate`: means of the weights of models of one architecture. */
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "noema/inspect.h"

static const cli_option average_options[] = {
    { "out", 'o', CLI_STRING, "DIR", "folder for weights, configuration and tokenizer" },
    { "format", 0, CLI_STRING, "openclip|hf", "whose names and files: open_clip's (default) or transformers'" },
    { NULL, 0, CLI_FLAG, NULL, NULL }
};

static const cli_option interpolate_options[] = {
    { "alpha", 0, CLI_NUMBER, "X", "(1 - X) A + X B (0.5)" },
    { "out", 'o', CLI_STRING, "DIR", "folder for weights, configuration and tokenizer" },
    { "format", 0, CLI_STRING, "openclip|hf", "whose names and files: open_clip's (default) or transformers'" },
    { NULL, 0, CLI_FLAG, NULL, NULL }
};

static int average(cli *c, const double *weights)
{
    static const struct { const char *name; noema_dtype d; } types[] = { { "auto", NOEMA_DTYPE_F32 }, { "f32", NOEMA_DTYPE_F32 },
                                                                         { "bf16", NOEMA_DTYPE_BF16 }, { "f16", NOEMA_DTYPE_F16 } };
    noema_error err = NOEMA_ERROR_INIT;
    noema_model_options mo;
    const char *out = cli_str(c, "out", NULL), *dtype = cli_str(c, "dtype", "auto");
    noema_dtype stored = NOEMA_DTYPE_INT8;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (!strcmp(types[i].name, dtype))
            stored = types[i].d;
    if (!out)
        return cli_usage(c, "expected --out DIR");
    if (stored == NOEMA_DTYPE_INT8)
        return cli_usage(c, "--dtype %s: weights are written as f32, bf16 or f16", dtype);
    if (!cli_model_options(c, &mo))
        return CLI_USAGE;
    if (!cli_context(c))
        return CLI_NOTHING_DONE;
    noema_layout layout = strcmp(cli_str(c, "format", "openclip"), "hf") ? NOEMA_LAYOUT_OPEN_CLIP : NOEMA_LAYOUT_TRANSFORMERS;
    if (noema_models_average(c->ctx, c->n_inputs, c->inputs, weights, &mo, out, layout, stored, &err) != NOEMA_OK)
        return cli_fatal(c, &err);
    cli_buf b = { 0 };
    cli_puts(&b, "{\"models\":[");
    for (size_t i = 0; i < c->n_inputs; i++) {
        cli_puts(&b, i ? ",{\"model\":" : "{\"model\":");
        cli_put_json(&b, c->inputs[i]);
        cli_printf(&b, ",\"weight\":%.17g}", weights ? weights[i] : 1.0 / (double)c->n_inputs);
    }
    cli_puts(&b, "],\"path\":");
    cli_put_json(&b, out);
    cli_puts(&b, "}");
    cli_emit(&b);
    cli_buf_free(&b);
    return CLI_OK;
}

static int run_average(cli *c)
{
    return c->n_inputs < 2 ? cli_usage(c, "expected two models or more") : average(c, NULL);
}

static int run_interpolate(cli *c)
{
    double alpha = cli_num(c, "alpha", 0.5), weights[2] = { 1 - alpha, alpha };
    return c->n_inputs != 2 ? cli_usage(c, "expected two models, got %zu", c->n_inputs) : average(c, weights);
}

const cli_verb cli_verb_models_average = {
    "models average", "the mean of the weights of several models (model soup)", "MODEL MODEL... --out DIR [--format openclip|hf]",
    "The models must have one architecture: every parameter of the result is the mean of theirs, in f32 (arXiv 2203.05482). A classifier's\n"
    "head.safetensors beside every model is averaged as well.",
    "noema models average logs/seed0 logs/seed1 logs/seed2 --out ./soup", average_options, 0, run_average
};

const cli_verb cli_verb_models_interpolate = {
    "models interpolate", "weights between those of two models (WiSE-FT)", "A B --alpha X --out DIR [--format openclip|hf]",
    "Every parameter of the result is (1 - X) A + X B; with the model before fine-tuning as A and the one after as B this is WiSE-FT\n"
    "(arXiv 2109.01903). A classifier's head.safetensors beside both models is interpolated as well.",
    "noema models interpolate ViT-B-32/openai logs/run --alpha 0.5 --out ./robust", interpolate_options, 0, run_interpolate
};
