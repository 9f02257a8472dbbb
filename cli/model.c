/* model.c - the context, the model and the session that the common options ask for. */
#include <stdlib.h>
#include <string.h>

#include "cli.h"

static void on_log(void *user, noema_log_level level, const char *text)
{
    const cli *c = user;
    if (level == NOEMA_LOG_WARNING)
        cli_warn(c, "%s", text);
    else if (level == NOEMA_LOG_INFO)
        cli_say(c, "%s", text);
}

noema_context *cli_context(cli *c)
{
    noema_context_options o;
    noema_error err = NOEMA_ERROR_INIT;
    if (c->ctx)
        return c->ctx;
    noema_context_options_default(&o);
    o.n_threads = (int)cli_int(c, "threads", 0);
    o.log = on_log;
    o.log_user = c;
    if (noema_context_create(&c->ctx, &o, &err) != NOEMA_OK)
        cli_fatal(c, &err);
    return c->ctx;
}

void cli_context_free(cli *c)
{
    noema_context_free(c->ctx);
    c->ctx = NULL;
}

static noema_dtype dtype_of(const char *name)
{
    static const char *const names[] = { "auto", "f32", "bf16", "f16", "int8" }; /* in the order of noema_dtype */
    for (int i = 0; i < 5; i++)
        if (!strcmp(names[i], name))
            return (noema_dtype)i;
    return NOEMA_DTYPE_AUTO;
}

bool cli_model_options(const cli *c, noema_model_options *o)
{
    const char *which = cli_str(c, "image-size", NULL) ? "image-size" : "size", *size = cli_str(c, which, NULL), *act = cli_str(c, "activation", ""), *weights = cli_str(c, "weights", "");
    noema_model_options_default(o);
    o->dtype = dtype_of(cli_str(c, "dtype", "auto"));
    o->tokenizer = cli_str(c, "tokenizer", NULL);
    o->config = cli_str(c, "config", NULL);
    o->preprocess = cli_str(c, "preprocess", NULL);
    o->vision = cli_str(c, "vision", NULL);
    o->language_model = cli_str(c, "language-model", NULL);
    o->weights = !strcmp(weights, "packed") ? 1 : !strcmp(weights, "mapped") ? 2 : 0;
    o->offline = cli_flag(c, "offline");
    o->activation = !strcmp(act, "quickgelu") ? 1 : !strcmp(act, "gelu") ? 2 : 0;
    if (size && !cli_parse_size(size, &o->image_height, &o->image_width)) {
        cli_usage(c, "--%s: expected N or HxW, got '%s'", which, size);
        return false;
    }
    return true;
}

const char *cli_model_name(const cli *c) { return cli_str(c, "model", c->builtin ? c->builtin : NOEMA_BUILTIN_MODEL); }

int cli_open_model(cli *c, noema_model **m, noema_session **s)
{
    noema_model_options o;
    noema_error err = NOEMA_ERROR_INIT;
    *m = NULL;
    if (s)
        *s = NULL;
    if (!cli_model_options(c, &o))
        return CLI_USAGE;
    if (!cli_context(c))
        return CLI_NOTHING_DONE;
    if (noema_model_open(m, c->ctx, cli_model_name(c), &o, &err) != NOEMA_OK || (s && noema_session_create(s, *m, &err) != NOEMA_OK)) {
        noema_model_free(*m);
        *m = NULL;
        return cli_fatal(c, &err);
    }
    return CLI_OK;
}

int cli_batch(const cli *c, int dflt)
{
    int64_t n = cli_int(c, "batch", dflt);
    return n < 1 ? 1 : n > 65536 ? 65536 : (int)n;
}
