/* verb_probe.c - `noema probe`: a linear head on the frozen image tower. */
#include <math.h>
#include <string.h>

#include "cli.h"
#include "noema/train.h"

static const cli_option options[] = {
    { "train-data", 0, CLI_STRING, "FILE", "rows: .jsonl, .csv, .tsv (filepath, label) or .safetensors (image, label)" },
    { "val-data", 0, CLI_STRING, "FILE", "rows to measure the accuracy on" },
    { "C", 0, CLI_NUMBER, "C", "weight of the data against 1/2|W|^2 (swept on a part held out)" },
    { "out", 'o', CLI_STRING, "FILE", "write the head: head.weight, head.bias (.safetensors)" },
    { "predictions", 0, CLI_STRING, "FILE", "write class probabilities of --val-data, else of the training rows (.npy)" },
    { "shots", 0, CLI_INT, "K", "fit K training rows of each class, drawn by --seed (all)" },
    { "seeds", 0, CLI_INT, "N", "draw the shots N times; accuracies are means (1)" },
    { "csv-img-key", 0, CLI_STRING, "COLUMN", "(filepath)" },
    { "csv-label-key", 0, CLI_STRING, "COLUMN", "(label)" },
    { NULL, 0, CLI_FLAG, NULL, NULL }
};

static void on_message(void *user, const char *text) { cli_say(user, "%s", text); }
static void on_failed(void *user, const char *what, const noema_error *why) { cli_failed(user, what, why); }

static void put_number(cli_buf *b, const char *key, double v)
{
    cli_puts(b, key);
    if (isnan(v))
        cli_puts(b, "null");
    else
        cli_printf(b, "%.17g", v);
}

/* Opens -m MODEL in f32 unless --dtype says otherwise: a fit sees the small differences. */
static int open_model(cli *c, noema_model **m, noema_session **s, noema_error *err)
{
    noema_model_options mo;
    noema_context *ctx;
    const char *name = cli_model_name(c);
    if (!cli_model_options(c, &mo))
        return CLI_USAGE;
    if (!cli_str(c, "dtype", NULL))
        mo.dtype = NOEMA_DTYPE_F32;
    if (!(ctx = cli_context(c)))
        return CLI_NOTHING_DONE;
    if (noema_model_open(m, ctx, name, &mo, err) != NOEMA_OK || noema_session_create(s, *m, err) != NOEMA_OK)
        return cli_fatal(c, err);
    return 0;
}

static void print(const noema_probe_result *r, int64_t shots)
{
    cli_buf line = { 0 };
    put_number(&line, "{\"C\":", r->C);
    put_number(&line, ",\"train_accuracy\":", r->train_accuracy);
    put_number(&line, ",\"val_accuracy\":", r->val_accuracy);
    if (shots) {
        cli_printf(&line, ",\"shots\":%lld,\"seeds\":%lld", (long long)shots, (long long)r->seeds);
        put_number(&line, ",\"val_accuracy_std\":", r->val_std);
        for (int64_t i = 0; i < r->seeds; i++)
            put_number(&line, i ? "," : ",\"val_accuracies\":[", r->val_accuracies[i]);
        cli_puts(&line, "]");
    }
    cli_puts(&line, "}");
    cli_emit(&line);
    cli_buf_free(&line);
}

static int run(cli *c)
{
    noema_probe_options o;
    noema_probe_result r;
    noema_error err = NOEMA_ERROR_INIT;
    noema_model *m = NULL;
    noema_session *s = NULL;
    noema_probe_options_default(&o);
    o.train_data = cli_str(c, "train-data", NULL);
    o.val_data = cli_str(c, "val-data", NULL);
    o.img_key = cli_str(c, "csv-img-key", NULL);
    o.label_key = cli_str(c, "csv-label-key", NULL);
    o.out = cli_str(c, "out", NULL);
    o.predictions = cli_str(c, "predictions", NULL);
    o.C = cli_num(c, "C", 0);
    o.seed = (uint64_t)cli_int(c, "seed", 0);
    o.shots = cli_int(c, "shots", 0);
    o.seeds = cli_int(c, "seeds", 0);
    o.message = on_message;
    o.failed = on_failed;
    o.message_user = o.failed_user = c;
    if (!o.train_data)
        return cli_usage(c, "expected --train-data FILE");
    if (cli_str(c, "C", NULL) && !(o.C > 0))
        return cli_usage(c, "--C %s: expected a number above 0", cli_str(c, "C", NULL));
    if (o.seeds > NOEMA_PROBE_SEEDS || (o.seeds && !o.shots) || (cli_str(c, "shots", NULL) && !o.shots))
        return cli_usage(c, "expected --shots K of at least 1, and at most %d --seeds of them", NOEMA_PROBE_SEEDS);
    int code = open_model(c, &m, &s, &err);
    if (!code && noema_probe(s, &o, &r, &err) != NOEMA_OK)
        code = cli_fatal(c, &err);
    else if (!code) {
        if (!r.converged)
            cli_warn(c, "the fit stopped after %lld iterations before its gradient vanished", (long long)r.iterations);
        print(&r, o.shots);
        c->n_done++;
        code = cli_exit(c);
    }
    noema_session_free(s);
    noema_model_free(m);
    return code;
}

const cli_verb cli_verb_probe = {
    "probe", "fit a linear head to the fixed features of the image tower", "[options] --train-data FILE",
    "Features are the tower's output before the projection, not normalised (a ModifiedResNet's are its embeddings). The head is the minimum\n"
    "of C * sum of cross-entropies + 1/2 |W|^2, bias free. Without --C, C is chosen among 1e-6 .. 1e6 on a fifth of the training rows;\n"
    "without --val-data, val_accuracy is that of this fifth (null with --C). Few-shot: --shots K takes K rows of each class, --seeds N draws\n"
    "them N times and adds the standard deviation; without --val-data the rows that were not drawn are the measure.",
    "noema probe -m ViT-B-32/openai --train-data train.jsonl --val-data val.jsonl --C 0.316 --out head.safetensors", options,
    CLI_WITH_MODEL | CLI_NO_INPUTS, run
};
