/* verb_models_pull.c - `noema models pull`: fetches published models into the hub's cache. */
#include <string.h>

#include "cli.h"
#include "noema/hub.h"

static const cli_option options[] = {
    { "all", 0, CLI_FLAG, NULL, "every file of the repository, not only what noema opens" },
    { NULL, 0, CLI_FLAG, NULL, NULL }
};

typedef struct bar { cli *c; cli_progress p; char file[96]; bool open; } bar;

/* A bar per file, in MiB. */
static int on_progress(void *user, const char *file, int64_t done, int64_t total)
{
    bar *b = user;
    const char *base = strrchr(file, '/') ? strrchr(file, '/') + 1 : file;
    if (!b->open || strncmp(b->file, base, sizeof b->file - 1)) {
        if (b->open)
            cli_progress_end(&b->p);
        snprintf(b->file, sizeof b->file, "%s", base);
        cli_progress_begin(&b->p, b->c, "MiB", total > 0 ? (total >> 20) + 1 : -1);
        b->open = true;
    }
    cli_progress_set(&b->p, done >> 20);
    return cli_interrupted();
}

static int run(cli *c)
{
    noema_pull_options o;
    cli_buf line = { 0 };
    bar b = { .c = c };
    if (!c->n_inputs)
        return cli_usage(c, "expected a model, such as hf-hub:org/name");
    noema_pull_options_default(&o);
    o.all = cli_flag(c, "all");
    o.offline = cli_flag(c, "offline");
    o.progress = on_progress;
    o.progress_user = &b;
    for (size_t i = 0; i < c->n_inputs && !cli_interrupted(); i++) {
        char dir[4096];
        noema_error err = NOEMA_ERROR_INIT;
        noema_status s = noema_model_pull(c->inputs[i], &o, dir, sizeof dir, &err);
        if (b.open)
            cli_progress_end(&b.p);
        b.open = false;
        if (s != NOEMA_OK) {
            cli_failed(c, c->inputs[i], &err);
            continue;
        }
        cli_puts(&line, "{\"model\":");
        cli_put_json(&line, c->inputs[i]);
        cli_puts(&line, ",\"path\":");
        cli_put_json(&line, dir);
        cli_puts(&line, "}");
        cli_emit(&line);
        c->n_done++;
    }
    cli_buf_free(&line);
    return cli_exit(c);
}

const cli_verb cli_verb_models_pull = {
    "models pull", "fetch published models into the hub's cache", "[--all] hf-hub:ORG/NAME[@REVISION]|NAME...",
    "Speaks the Hugging Face hub's protocol: HF_ENDPOINT, HF_TOKEN, HF_HOME, HF_HUB_CACHE and HF_HUB_OFFLINE are honoured, broken\n"
    "downloads go on where they stopped, sizes and SHA-256 digests are checked. Prints {\"model\",\"path\"} per model.\n"
    "NAME is one of `noema models list`; OpenAI's files are checked against the SHA-256 in their address.",
    "noema models pull hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K", options, 0, run
};
