/* inspect_weights.c - `noema inspect weights`: what is in a checkpoint, without opening it as a model. */
#include <string.h>

#include "cli.h"
#include "noema/inspect.h"

static const cli_option options[] = {
    { "verify", 0, CLI_FLAG, NULL, "also check the checksums that the container stores (reads the whole file)" },
    { "sha256", 0, CLI_FLAG, NULL, "a last line with the digest of all weights, the same in every container" },
    { NULL, 0, CLI_FLAG, NULL, NULL }
};

static void put_shape(cli_buf *b, const noema_tensor_info *t)
{
    cli_puts(b, "[");
    for (int d = 0; d < t->ndim; d++)
        cli_printf(b, d ? ",%lld" : "%lld", (long long)t->shape[d]);
    cli_puts(b, "]");
}

static int64_t list(cli *c, const noema_checkpoint *ck)
{
    cli_buf b = { 0 };
    int64_t total = 0;
    for (size_t i = 0; i < noema_checkpoint_count(ck) && !cli_interrupted(); i++) {
        noema_tensor_info t;
        noema_checkpoint_tensor(ck, i, &t);
        total += t.n_elements;
        if (cli_tables(c)) {
            cli_printf(&b, "%-64s %-5s ", t.name, t.dtype);
            put_shape(&b, &t);
        } else {
            cli_puts(&b, "{\"name\":");
            cli_put_json(&b, t.name);
            cli_printf(&b, ",\"dtype\":\"%s\",\"shape\":", t.dtype);
            put_shape(&b, &t);
            cli_puts(&b, "}");
        }
        cli_emit(&b);
    }
    cli_buf_free(&b);
    return total;
}

static int run(cli *c)
{
    noema_checkpoint *ck;
    noema_error err = NOEMA_ERROR_INIT;
    noema_model_options o;
    const char *path = cli_str(c, "model", c->n_inputs ? c->inputs[0] : NOEMA_BUILTIN_MODEL);
    char hex[65];
    if (c->n_inputs > 1)
        return cli_usage(c, "expected one checkpoint: -m FILE");
    if (!cli_model_options(c, &o))
        return CLI_USAGE;
    if (noema_checkpoint_of_model(&ck, path, &o, cli_flag(c, "verify"), &err) != NOEMA_OK)
        return cli_fatal(c, &err);
    int64_t total = list(c, ck);
    cli_say(c, "%s: %s, %zu tensors, %lld numbers", path, noema_checkpoint_format(ck), noema_checkpoint_count(ck), (long long)total);
    int code = CLI_OK;
    if (cli_flag(c, "sha256")) {
        if (noema_checkpoint_sha256(ck, hex, &err) == NOEMA_OK)
            printf("{\"sha256\":\"%s\"}\n", hex);
        else
            code = cli_fatal(c, &err);
    }
    noema_checkpoint_free(ck);
    return code ? code : cli_exit(c);
}

const cli_verb cli_verb_inspect_weights = {
    "inspect weights", "the tensors of a checkpoint", "-m MODEL [--verify] [--sha256]",
    "Prints {\"name\",\"dtype\",\"shape\"} per tensor. Nothing in the file is executed, nothing but its tables is read.",
    "noema inspect weights", options, CLI_WITH_MODEL, run
};
