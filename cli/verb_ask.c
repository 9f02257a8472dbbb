/* verb_ask.c - `noema ask`: questions about pictures, answered in free words or from a list. */
#include <stdlib.h>
#include <string.h>

#include "pictures.h"

static const cli_option options[] = {
    { "question", 0, CLI_STRING, "Q", "the question" },
    { "answers", 0, CLI_STRING, "FILE", "rank these answers, one per line (blank lines are none), instead of writing one" },
    { "candidates", 0, CLI_INT, "K", "with --answers: score the K with the likeliest first id (128)" },
    { "itm-token", 0, CLI_STRING, "enc|cls", "what the question begins with (default: the model's own)" },
    CLI_GENERATE_OPTIONS,
    { NULL, 0, CLI_FLAG, NULL, NULL }
};

typedef struct job { cli *c; noema_session *s; noema_generate_options o; const char *question; bool n_best; cli_buf line; } job;

static void print_one(job *j, const char *name, const noema_generated *g)
{
    cli_puts(&j->line, "{\"input\":");
    cli_put_json(&j->line, name);
    cli_puts(&j->line, ",\"question\":");
    cli_put_json(&j->line, j->question);
    cli_puts(&j->line, ",\"answer\":");
    cli_put_json(&j->line, g->text);
    cli_puts(&j->line, ",\"score\":");
    cli_put_f32(&j->line, g->score);
    if (j->o.n_answers)
        cli_put_scored(&j->line, "answers", "answer", g->best, g->n_best);
    else if (j->n_best)
        cli_put_scored(&j->line, "n_best", "answer", g->best, g->n_best);
    cli_puts(&j->line, "}");
    cli_emit(&j->line);
}

static bool on_pictures(void *user, size_t n, const noema_picture *pictures, const char *const *names, noema_error *err)
{
    job *j = user;
    noema_generated *g = cli_alloc(n, sizeof *g);
    noema_error *errors = cli_alloc(n, sizeof *errors);
    const char **questions = cli_alloc(n, sizeof *questions);
    for (size_t i = 0; i < n; i++)
        questions[i] = j->question;
    bool ok = noema_ask(j->s, n, pictures, questions, &j->o, g, errors, err) == NOEMA_OK;
    for (size_t i = 0; ok && i < n; i++)
        if (g[i].text) {
            print_one(j, names[i], &g[i]);
            j->c->n_done++;
        } else
            cli_failed(j->c, names[i], &errors[i]);
    noema_generated_free(g, n);
    free((void *)questions);
    free(g);
    free(errors);
    return ok;
}

/* One answer per line; blank lines are none. */
static bool read_answers(cli_lines *l, const char *path, noema_generate_options *o, noema_error *err)
{
    if (!cli_lines_read(l, path, err))
        return false;
    cli_lines_trim(l);
    const char **list = cli_alloc(l->n + 1, sizeof *list);
    for (size_t i = 0; i < l->n; i++)
        if (l->line[i][strspn(l->line[i], " \t")])
            list[o->n_answers++] = l->line[i];
    o->answers = list;
    if (o->n_answers)
        return true;
    err->code = NOEMA_E_FORMAT;
    snprintf(err->message, sizeof err->message, "%s: expected one answer per line, got none", path);
    return false;
}

static int ask(job *j)
{
    cli *c = j->c;
    noema_model *m = NULL;
    noema_error err = NOEMA_ERROR_INIT;
    int code = cli_open_model(c, &m, &j->s);
    if (code == CLI_OK && (code = cli_need_task(c, m, NOEMA_TASK_ASK, "this model answers no questions")) == CLI_OK) {
        bool ok = cli_each_picture(c, noema_model_get_info(m), c->inputs, c->n_inputs, (size_t)cli_batch(c, 16), on_pictures, j, &err);
        code = ok ? cli_exit(c) : cli_fatal(c, &err);
    }
    noema_session_free(j->s);
    noema_model_free(m);
    return code;
}

static int run(cli *c)
{
    job j = { .c = c, .question = cli_str(c, "question", NULL), .n_best = cli_str(c, "n-best", NULL) != NULL };
    const char *answers = cli_str(c, "answers", NULL), *token = cli_str(c, "itm-token", "");
    cli_lines lines = { 0 };
    noema_error err = NOEMA_ERROR_INIT;
    int code;
    if (!c->n_inputs || !j.question)
        code = cli_usage(c, "expected --question and pictures");
    else if (!cli_generate_options(c, &j.o))
        code = CLI_USAGE;
    else if (cli_str(c, "candidates", NULL) && cli_small_int(c, "candidates", 0) < 1)
        code = cli_usage(c, "--candidates: expected at least 1");
    else if (answers && !read_answers(&lines, answers, &j.o, &err))
        code = cli_fatal(c, &err);
    else {
        j.o.candidates = cli_small_int(c, "candidates", 0);
        j.o.first_token = !strcmp(token, "enc") ? 1 : !strcmp(token, "cls") ? 2 : 0;
        code = ask(&j);
    }
    cli_buf_free(&j.line);
    free((void *)(uintptr_t)j.o.answers);
    cli_lines_free(&lines);
    return code;
}

const cli_verb cli_verb_ask = {
    "ask", "answers to a question about pictures", "-m MODEL --question Q [--answers FILE] IMAGE...",
    "Prints {\"input\",\"question\",\"answer\",\"score\"} per picture; with --answers also \"answers\":[{\"answer\",\"score\"}...], best first,\n"
    "scored as the model's authors do (BLIP-2: log-probability of the whole answer). What no option says is as in their code, for a folder\n"
    "as in its generation_config.json. The model of the example is fetched from the hub at its first use.",
    "noema ask -m hf-hub:Salesforce/blip-vqa-base --question \"what is shown?\" photo.jpg", options, CLI_WITH_MODEL, run
};
