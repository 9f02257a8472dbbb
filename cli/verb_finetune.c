/* verb_finetune.c - `noema finetune`: a classifier on the image tower. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "train.h"

static const cli_option options[] = {
    { "val-data", 0, CLI_STRING, "FILE", "rows measured after epochs, that the report and --predictions are about (the training rows)" },
    { "val-frequency", 0, CLI_INT, "N", "epochs per measuring (1; 0: at the end alone, for the report)" },
    { "head", 0, CLI_STRING, "FILE", "start of the head: head.weight, head.bias (.safetensors; zeros)" },
    { "head-from-text", 0, CLI_FLAG, NULL, "start of the head: the class names' vectors, so that it answers as zero-shot classification" },
    { "labels", 'l', CLI_STRING, "\"a,b\"|FILE", "names of the classes by number (those of the data)" },
    { "templates", 0, CLI_STRING, "none|openai|FILE", "sentences around the names for --head-from-text" },
    { "label-smoothing", 0, CLI_NUMBER, "E", "of the targets (0)" },
    { "unlocked-layers", 0, CLI_INT, "N", "train the last N blocks of the tower and the head (all); 0 is --lock-image" },
    { "shots", 0, CLI_INT, "K", "train on K rows of each class, drawn by --seed (all)" },
    { "seeds", 0, CLI_INT, "N", "N runs with seeds from --seed on, in NAME/seed_S; their mean and deviation are printed (1)" },
    { "wise-ft", 0, CLI_NUMBER, "ALPHA", "also (1 - ALPHA) start + ALPHA result, in LOGS/NAME/wise_ft (off)" },
    { "before", 0, CLI_STRING, "head|probe|none", "compare with the start's head or a linear probe on its features (head if given, else probe)" },
    { "predictions", 0, CLI_STRING, "FILE", "write class probabilities of --val-data, else of the training rows (.npy)" },
#include "train_options.inc"
    { NULL, 0, CLI_FLAG, NULL, NULL }
};

static void put_number(cli_buf *b, const char *key, double v)
{
    cli_printf(b, ",\"%s\":", key);
    if (isnan(v))
        cli_puts(b, "null");
    else
        cli_printf(b, "%.17g", v);
}

static void print(const cli *c, const char *folder, const noema_finetune_result *r)
{
    noema_error err = NOEMA_ERROR_INIT;
    cli_buf b = { 0 };
    char *path = cli_text("%s/report.txt", folder);
    cli_lines lines = { 0 };
    if (cli_tables(c) && cli_lines_read(&lines, path, &err)) {
        for (size_t i = 0; i < lines.n; i++)
            cli_printf(&b, "%s%s", i ? "\n" : "", lines.line[i]);
    } else {
        cli_puts(&b, "{\"run\":");
        cli_put_json(&b, folder);
        put_number(&b, "before_accuracy", r->before);
        put_number(&b, "accuracy", r->after);
        cli_printf(&b, ",\"interval\":[%.17g,%.17g]", r->interval[0], r->interval[1]);
        if (!isnan(r->wise_ft))
            put_number(&b, "wise_ft_accuracy", r->wise_ft);
        cli_printf(&b, ",\"trained_parameters\":%lld,\"classes\":%lld,\"rows\":%lld}", (long long)r->trained_parameters, (long long)r->classes, (long long)r->rows);
    }
    cli_emit(&b);
    cli_buf_free(&b);
    cli_lines_free(&lines);
    free(path);
}

/* Options whose defaults are not those of train. */
static bool read_options(cli *c, noema_finetune_options *o, cli_train_view *v)
{
    noema_finetune_options d;
    noema_finetune_options_default(&d);
    *o = d;
    if (!cli_train_read(c, &o->train, v, NULL))
        return false;
    o->train.val_data = cli_str(c, "val-data", NULL);
    o->train.val_frequency = cli_int(c, "val-frequency", d.train.val_frequency);
    o->train.epochs = cli_int(c, "epochs", d.train.epochs);
    o->train.warmup = cli_int(c, "warmup", d.train.warmup);
    o->train.lr = cli_num(c, "lr", d.train.lr);
    o->train.wd = cli_num(c, "wd", d.train.wd);
    o->train.beta2 = cli_num(c, "beta2", d.train.beta2);
    o->train.eps = cli_num(c, "eps", d.train.eps);
    o->head = cli_str(c, "head", NULL);
    o->head_from_text = cli_flag(c, "head-from-text");
    o->label_smoothing = cli_num(c, "label-smoothing", 0);
    o->unlocked_layers = cli_int(c, "unlocked-layers", -1);
    o->shots = cli_int(c, "shots", 0);
    o->wise_ft = cli_num(c, "wise-ft", -1);
    o->before = cli_str(c, "before", NULL);
    o->predictions = cli_str(c, "predictions", NULL);
    return true;
}

/* One run; 0 or the exit code. */
static int one_run(cli *c, noema_finetune_options *o, cli_train_view *v, noema_finetune_result *r)
{
    noema_error err = NOEMA_ERROR_INIT;
    v->first = -1;
    return cli_train_end(c, noema_finetune(c->ctx, o, r, &err), v, &err);
}

/* Runs with one seed each; prints the mean of their accuracies. With --resume latest a run that is complete is only measured. */
static int many_runs(cli *c, noema_finetune_options *o, cli_train_view *v, int64_t n)
{
    noema_finetune_result r = { 0 };
    const char *name = o->train.name;
    uint64_t seed = o->train.seed;
    double *accuracy = cli_alloc((size_t)n, sizeof *accuracy), mean = 0, square = 0;
    int code = CLI_OK;
    for (int64_t i = 0; i < n && code == CLI_OK; i++) {
        char *folder = cli_text("%s/seed_%llu", name, (unsigned long long)(seed + (uint64_t)i));
        o->train.name = folder;
        o->train.seed = seed + (uint64_t)i;
        code = one_run(c, o, v, &r);
        accuracy[i] = r.after;
        mean += r.after / (double)n;
        free(folder);
    }
    for (int64_t i = 0; i < n; i++)
        square += (accuracy[i] - mean) * (accuracy[i] - mean);
    o->train.name = name;
    if (code == CLI_OK && noema_train_rank() == 0) {
        cli_buf b = { 0 };
        char *folder = cli_text("%s/%s", o->train.logs, name);
        cli_puts(&b, "{\"run\":");
        cli_put_json(&b, folder);
        cli_printf(&b, ",\"seeds\":%lld", (long long)n);
        put_number(&b, "accuracy", mean);
        put_number(&b, "accuracy_std", sqrt(square / (double)(n - 1)));
        for (int64_t i = 0; i < n; i++)
            cli_printf(&b, i ? ",%.17g" : ",\"accuracies\":[%.17g", accuracy[i]);
        cli_printf(&b, "],\"trained_parameters\":%lld,\"classes\":%lld,\"rows\":%lld}", (long long)r.trained_parameters, (long long)r.classes, (long long)r.rows);
        cli_emit(&b);
        cli_buf_free(&b);
        free(folder);
    }
    free(accuracy);
    return code;
}

static int finetune(cli *c, const cli_names *labels, const cli_names *templates)
{
    noema_finetune_options o;
    noema_finetune_result r;
    cli_train_view v;
    int64_t seeds = cli_int(c, "seeds", 1);
    if (!read_options(c, &o, &v))
        return CLI_USAGE;
    o.labels = labels->item;
    o.n_labels = labels->n;
    o.templates = templates->item;
    o.n_templates = templates->n;
    if (cli_str(c, "wise-ft", NULL) && !(o.wise_ft >= 0 && o.wise_ft <= 1))
        return cli_usage(c, "--wise-ft %s: expected 0 to 1", cli_str(c, "wise-ft", NULL));
    if ((cli_str(c, "shots", NULL) && o.shots < 1) || seeds < 1 || seeds > 1000)
        return cli_usage(c, "--shots, --seeds: expected at least 1 (at most 1000 seeds)");
    if (seeds > 1 && o.train.resume && strcmp(o.train.resume, "latest"))
        return cli_usage(c, "--resume %s: several seeds go on from their own `latest` only", o.train.resume);
    if (!o.train.train_data)
        return cli_usage(c, "expected --train-data FILE");
    if (!o.train.model)
        o.train.model = NOEMA_BUILTIN_MODEL;
    if (!cli_context(c))
        return CLI_NOTHING_DONE;
    if (seeds > 1)
        return many_runs(c, &o, &v, seeds);
    int code = one_run(c, &o, &v, &r);
    if (code != CLI_OK || noema_train_rank() > 0)
        return code;
    char *folder = cli_text("%s/%s", o.train.logs, o.train.name);
    print(c, folder, &r);
    free(folder);
    return CLI_OK;
}

static int run(cli *c)
{
    cli_names labels = { 0 }, templates = { 0 };
    noema_error err = NOEMA_ERROR_INIT;
    const char *arg = cli_str(c, "labels", NULL);
    int code;
    if ((arg && !cli_names_labels(&labels, arg, &err)) || !cli_names_templates(&templates, cli_str(c, "templates", "none"), &err))
        code = cli_fatal(c, &err);
    else if (arg && !labels.n)
        code = cli_usage(c, "--labels: there is no label in '%s'", arg);
    else
        code = finetune(c, &labels, &templates);
    cli_names_free(&labels);
    cli_names_free(&templates);
    return code;
}

const cli_verb cli_verb_finetune = {
    "finetune", "train a classifier: image tower and linear head", "-m MODEL --train-data FILE [--val-data FILE] [options]",
    "Trains the image tower, its output before the projection, not normalised, and a linear head on `label`. The run's folder LOGS/NAME is\n"
    "that of `noema train`, with head.safetensors beside the model and report.json, report.txt: accuracy before and after with 95 %\n"
    "intervals. --lora-rank trains adapters, --unlocked-layers the last blocks, --lock-image the head alone. Epochs 10, lr 3e-5, wd 0.1,\n"
    "beta2 0.999, eps 1e-8 and a warm-up over a tenth of the steps are the defaults here. Fine-tuning both towers on pairs, as in\n"
    "pre-training (FLYP), is `noema train -m MODEL`.",
    "noema finetune -m ViT-B-32/openai --train-data train.jsonl --val-data val.jsonl --head-from-text --wise-ft 0.5", options,
    CLI_WITH_MODEL | CLI_NO_INPUTS, run
};
