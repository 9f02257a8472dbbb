/* verb_caption.c - `noema caption`: what a picture shows, in words. */
#include <stdlib.h>

#include "pictures.h"

static const cli_option options[] = {
    CLI_GENERATE_OPTIONS,
    { "language", 0, CLI_STRING, "L", "of the captions, where the model's configuration names several (its first)" },
    { NULL, 0, CLI_FLAG, NULL, NULL }
};

typedef struct job { cli *c; noema_session *s; noema_generate_options o; bool n_best; cli_buf line; } job;

static void print_one(job *j, const char *name, const noema_generated *g)
{
    cli_puts(&j->line, "{\"input\":");
    cli_put_json(&j->line, name);
    cli_puts(&j->line, ",\"caption\":");
    cli_put_json(&j->line, g->text);
    cli_puts(&j->line, ",\"score\":");
    cli_put_f32(&j->line, g->score);
    if (j->n_best)
        cli_put_scored(&j->line, "n_best", "caption", g->best, g->n_best);
    cli_puts(&j->line, "}");
    cli_emit(&j->line);
}

static bool on_pictures(void *user, size_t n, const noema_picture *pictures, const char *const *names, noema_error *err)
{
    job *j = user;
    noema_generated *g = cli_alloc(n, sizeof *g);
    noema_error *errors = cli_alloc(n, sizeof *errors);
    bool ok = noema_caption(j->s, n, pictures, &j->o, g, errors, err) == NOEMA_OK;
    for (size_t i = 0; ok && i < n; i++)
        if (g[i].text) {
            print_one(j, names[i], &g[i]);
            j->c->n_done++;
        } else
            cli_failed(j->c, names[i], &errors[i]);
    noema_generated_free(g, n);
    free(g);
    free(errors);
    return ok;
}

static int run(cli *c)
{
    noema_model *m = NULL;
    job j = { .c = c, .n_best = cli_str(c, "n-best", NULL) != NULL };
    noema_error err = NOEMA_ERROR_INIT;
    int code;
    c->builtin = noema_builtin_there(NOEMA_BUILTIN_CAPTIONER) ? NOEMA_BUILTIN_CAPTIONER : NULL;
    if (!c->n_inputs)
        code = cli_usage(c, "expected pictures");
    else if (!cli_generate_options(c, &j.o))
        code = CLI_USAGE;
    else if ((code = cli_open_model(c, &m, &j.s)) == CLI_OK &&
             (code = cli_need_task(c, m, NOEMA_TASK_CAPTION, "this model writes no captions")) == CLI_OK) {
        bool ok = cli_each_picture(c, noema_model_get_info(m), c->inputs, c->n_inputs, (size_t)cli_batch(c, 16), on_pictures, &j, &err);
        code = ok ? cli_exit(c) : cli_fatal(c, &err);
    }
    cli_buf_free(&j.line);
    noema_session_free(j.s);
    noema_model_free(m);
    return code;
}

const cli_verb cli_verb_caption = {
    "caption", "pictures described in words", "-m MODEL [--prompt P] [--beams N|--greedy|--sample] [--max-length N] [--n-best N] IMAGE...",
    "Prints {\"input\",\"caption\",\"score\"} per picture. What no option says is as in the model authors' code, for a folder as in its\n"
    "generation_config.json. score is what the beam search ranks by, else null. The model of the example is fetched from\n"
    "the hub at its first use.",
    "noema caption -m hf-hub:Salesforce/blip-image-captioning-base photo.jpg", options, CLI_WITH_MODEL, run
};
