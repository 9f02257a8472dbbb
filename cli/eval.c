/* eval.c - `noema eval`: from options to noema_eval, and its reports to JSON lines or one table with a column per model. */
#include "eval.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "templates_openai.inc"

enum { MAX_MODELS = 16 };

typedef struct job {
    cli *c;
    noema_eval_options o;
    const char **data, **train_data, **references, **prompts;
    int64_t *k;
    cli_progress bar;
    const char *unit;
    noema_report *report[MAX_MODELS];
    const char *model[MAX_MODELS];
    size_t n;
} job;

static void on_progress(void *user, const char *unit, int64_t done, int64_t total)
{
    job *j = user;
    if (j->unit != unit) {
        cli_progress_end(&j->bar);
        cli_progress_begin(&j->bar, j->c, unit, total);
        j->unit = unit;
    }
    cli_progress_set(&j->bar, done);
    if (done >= total) {
        cli_progress_end(&j->bar);
        j->unit = NULL;
    }
}

static void on_failed(void *user, const char *what, const noema_error *why)
{
    job *j = user;
    cli_failed(j->c, what, why);
}

static int on_stop(void *user)
{
    (void)user;
    return cli_interrupted();
}

/* "1,5,10"; false: not a list of numbers from 1 on. */
static bool read_k(job *j, const char *text)
{
    size_t cap = 0;
    for (const char *p = text; *p;) {
        char *end;
        long long v = strtoll(p, &end, 10);
        if (end == p || v < 1 || j->o.n_k == 8 || (*end && *end != ','))
            return false;
        j->k = cli_grow(j->k, &cap, j->o.n_k + 1, sizeof *j->k);
        j->k[j->o.n_k++] = v;
        p = *end ? end + 1 : end;
    }
    j->o.k = j->k;
    return j->o.n_k > 0;
}

/* "128" or "256,128". */
static bool read_rerank(job *j, const char *text)
{
    char *end;
    j->o.rerank_texts = j->o.rerank_images = strtoll(text, &end, 10);
    if (*end == ',')
        j->o.rerank_images = strtoll(end + 1, &end, 10);
    return !*end && j->o.rerank_texts > 0 && j->o.rerank_images > 0;
}

static void read_templates(job *j, const char *arg)
{
    if (!arg || !strcmp(arg, "none"))
        return;
    if (strcmp(arg, "openai")) {
        j->o.templates = arg;
        return;
    }
    j->o.template_list = templates_openai;
    j->o.n_templates = sizeof templates_openai / sizeof *templates_openai;
}

/* --data and what stands without an option. */
static void read_data(job *j)
{
    cli *c = j->c;
    size_t n;
    const char **listed = cli_list(c, "data", &n);
    j->data = cli_alloc(n + c->n_inputs + 1, sizeof *j->data);
    for (size_t i = 0; i < n; i++)
        j->data[i] = listed[i];
    for (size_t i = 0; i < c->n_inputs; i++)
        j->data[n + i] = c->inputs[i];
    free((void *)listed);
    j->o.data = j->data;
    j->o.n_data = n + c->n_inputs;
}

static bool read_options(job *j)
{
    static const char *const rules[] = { "lowest", "highest", "optimistic", "pessimistic" };
    static const struct { const char *name; size_t at; } strings[] = {
        { "image-dir", offsetof(noema_eval_options, image_dir) }, { "csv-img-key", offsetof(noema_eval_options, img_key) },
        { "csv-caption-key", offsetof(noema_eval_options, caption_key) }, { "csv-label-key", offsetof(noema_eval_options, label_key) }, { "images", offsetof(noema_eval_options, images) },
        { "texts", offsetof(noema_eval_options, texts) }, { "labels", offsetof(noema_eval_options, labels) },
        { "train-images", offsetof(noema_eval_options, train_images) }, { "train-labels", offsetof(noema_eval_options, train_labels) },
        { "scores", offsetof(noema_eval_options, scores) }, { "pairs", offsetof(noema_eval_options, pairs) },
        { "classes", offsetof(noema_eval_options, classes) }, { "prompts-dir", offsetof(noema_eval_options, prompts_dir) },
        { "dataset", offsetof(noema_eval_options, dataset) }, { "language", offsetof(noema_eval_options, language) },
        { "results", offsetof(noema_eval_options, results) }, { "annotations", offsetof(noema_eval_options, annotations) },
        { "questions", offsetof(noema_eval_options, questions) }, { "tokens", offsetof(noema_eval_options, tokens) },
        { "document-frequency", offsetof(noema_eval_options, document_frequency) }, { "meteor-words", offsetof(noema_eval_options, meteor_words) },
        { "meteor-synonyms", offsetof(noema_eval_options, meteor_synonyms) }, { "meteor-paraphrases", offsetof(noema_eval_options, meteor_paraphrases) },
        { "per-item", offsetof(noema_eval_options, per_item) }, { "prompt", offsetof(noema_eval_options, prompt) },
        { "cache", offsetof(noema_eval_options, cache) }, { "predictions", offsetof(noema_eval_options, predictions) },
        { "published", offsetof(noema_eval_options, published) }, { "published-name", offsetof(noema_eval_options, published_name) },
    };
    cli *c = j->c;
    noema_eval_options *o = &j->o;
    noema_eval_options_default(o);
    for (size_t i = 0; i < sizeof strings / sizeof *strings; i++)
        *(const char **)((char *)o + strings[i].at) = cli_str(c, strings[i].name, NULL);
    read_data(j);
    o->train_data = j->train_data = cli_list(c, "train-data", &o->n_train_data);
    o->references = j->references = cli_list(c, "references", &o->n_references);
    o->prompts = j->prompts = cli_list(c, "prompts", &o->n_prompts);
    read_templates(j, cli_str(c, "templates", NULL));
    if (cli_str(c, "k", NULL) && !read_k(j, cli_str(c, "k", NULL))) {
        cli_usage(c, "--k %s: expected at most 8 numbers from 1 on, separated by commas", cli_str(c, "k", NULL));
        return false;
    }
    if (cli_str(c, "rerank", NULL) && !read_rerank(j, cli_str(c, "rerank", NULL))) {
        cli_usage(c, "--rerank %s: expected one or two numbers from 1 on", cli_str(c, "rerank", NULL));
        return false;
    }
    while (strcmp(rules[o->ties], cli_str(c, "ties", "lowest")))
        o->ties++;
    o->no_normalize = cli_flag(c, "no-normalize");
    o->euclid = cli_flag(c, "euclid");
    o->temperature = cli_num(c, "temperature", o->temperature);
    o->logit_scale = cli_num(c, "logit-scale", 0);
    o->C = cli_num(c, "C", 0);
    o->bootstrap = cli_int(c, "bootstrap", 0);
    o->seed = (uint64_t)cli_int(c, "seed", 0);
    o->limit = cli_int(c, "limit", 0);
    o->beams = (int)cli_int(c, "beams", 0);
    o->max_new = (int)cli_int(c, "max-new", -1);
    o->progress = on_progress;
    o->failed = on_failed;
    o->stop = on_stop;
    o->user = j;
    return true;
}

/* One model's report; model NULL: none is needed. Returns 0 or the exit code after a message. */
static int one(job *j, noema_eval_task task, const char *name)
{
    cli *c = j->c;
    noema_error err = NOEMA_ERROR_INIT;
    noema_model_options mo;
    noema_model *m = NULL;
    noema_session *s = NULL;
    noema_context *ctx;
    int code = 0;
    if (name) {
        if (!cli_model_options(c, &mo))
            return CLI_USAGE;
        if (!(ctx = cli_context(c)))
            return CLI_NOTHING_DONE;
        if (noema_model_open(&m, ctx, name, &mo, &err) != NOEMA_OK || noema_session_create(&s, m, &err) != NOEMA_OK)
            code = cli_fatal(c, &err);
    }
    if (!code && noema_eval(task, s, &j->o, &j->report[j->n], &err) != NOEMA_OK)
        code = cli_fatal(c, &err);
    cli_progress_end(&j->bar);
    j->unit = NULL;
    if (!code) {
        j->model[j->n++] = name;
        c->n_done++;
    }
    noema_session_free(s);
    noema_model_free(m);
    return code;
}

/* ---- output ---- */

static void print_json(const job *j)
{
    cli_buf line = { 0 };
    for (size_t i = 0; i < j->n; i++) {
        char *text = noema_report_json(j->report[i]);
        cli_puts(&line, text ? text : "null");
        cli_emit(&line);
        free(text);
    }
    cli_buf_free(&line);
}

static void put_cell(cli_buf *b, const noema_metric *m)
{
    char text[64];
    if (isnan(m->value))
        snprintf(text, sizeof text, "-");
    else if (!isnan(m->low))
        snprintf(text, sizeof text, "%.4f [%.4f, %.4f]", m->value, m->low, m->high);
    else
        snprintf(text, sizeof text, "%.6g", m->value);
    cli_printf(b, "  %-26s", text);
}

static void print_table(const job *j)
{
    const noema_metric *m, *other;
    size_t n = noema_report_metrics(j->report[0], &m);
    cli_buf line = { 0 };
    const char *dataset = noema_report_text(j->report[0], "dataset");
    cli_printf(&line, "%-40s", dataset ? dataset : "");
    for (size_t i = 0; i < j->n; i++)
        cli_printf(&line, "  %-26s", j->model[i] ? j->model[i] : "");
    cli_emit(&line);
    for (size_t k = 0; k < n; k++) {
        cli_printf(&line, "%-40s", m[k].name);
        for (size_t i = 0; i < j->n; i++) {
            size_t others = noema_report_metrics(j->report[i], &other), at = 0;
            while (at < others && strcmp(other[at].name, m[k].name))
                at++;
            if (at < others)
                put_cell(&line, &other[at]);
        }
        cli_emit(&line);
    }
    cli_buf_free(&line);
}

int cli_eval(cli *c, noema_eval_task task, bool need_model)
{
    job j = { .c = c };
    size_t n_models;
    const char *models[MAX_MODELS];
    int code = 0;
    n_models = 0;
    for (size_t i = 0; i < c->n_values; i++) /* every -m counts here */
        if (!strcmp(c->values[i].option->name, "model") && n_models < MAX_MODELS)
            models[n_models++] = c->values[i].text;
    bool files = cli_str(c, "images", NULL) || cli_str(c, "texts", NULL) || cli_str(c, "scores", NULL) || cli_str(c, "results", NULL);
    if (!n_models && (need_model || (c->n_inputs && !files)))
        models[n_models++] = NOEMA_BUILTIN_MODEL;
    if (!read_options(&j))
        code = CLI_USAGE;
    if (!code && !n_models)
        code = one(&j, task, NULL);
    for (size_t i = 0; !code && i < n_models; i++)
        code = one(&j, task, models[i]);
    if (!code || (j.n && code != CLI_USAGE)) {
        if (cli_tables(c))
            print_table(&j);
        else
            print_json(&j);
        code = code ? CLI_SOME_FAILED : cli_exit(c);
    }
    for (size_t i = 0; i < j.n; i++)
        noema_report_free(j.report[i]);
    free((void *)j.data);
    free((void *)j.train_data);
    free((void *)j.references);
    free((void *)j.prompts);
    free(j.k);
    return code;
}
