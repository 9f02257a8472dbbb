/* verb_data_capfilt.c - `noema data caption`, `noema data filter`: CapFilt of BLIP over data sets. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "datasets.h"
#include "noema/capfilt.h"
#include "pictures.h"

enum { MOST_NAMED = 20, MOST_BATCH = 4096 };

#define COMMON \
    CLI_DATASET_OPTIONS, \
    { "out", 'o', CLI_STRING, "DIR", "folder of the shards" }, \
    { "shard-rows", 0, CLI_INT, "N", "rows of the input a shard (1000)" }, \
    { "max-skipped", 0, CLI_INT, "N", "end with 3 when more rows cannot be used (a tenth of them, at least 100)" }

static const cli_option caption_options[] = { COMMON, CLI_TEXT_OPTIONS, { NULL, 0, CLI_FLAG, NULL, NULL } };
static const cli_option filter_options[] = {
    COMMON,
    { "threshold", 0, CLI_NUMBER, "T", "keep texts from this probability on (0.5); with --head itc a cosine, to be given" },
    { "head", 0, CLI_STRING, "itm|itc", "the head that looks at both (itm), or cosines of the vectors (itc)" },
    { "itm-token", 0, CLI_STRING, "enc|cls", "with --head itm: what the texts begin with (default: the model's own)" },
    { NULL, 0, CLI_FLAG, NULL, NULL }
};

typedef struct job { cli *c; cli_progress bar; const char *out; } job;

static int on_progress(void *user, int64_t done, int64_t total)
{
    job *j = user;
    (void)total;
    cli_progress_set(&j->bar, done);
    return cli_interrupted();
}

static void on_failed(void *user, const char *what, const noema_error *why)
{
    job *j = user;
    if (j->c->n_failed < MOST_NAMED)
        cli_failed(j->c, what, why);
    else if (j->c->n_failed++ == MOST_NAMED)
        cli_warn(j->c, "further rows that cannot be used are named in %s/skipped.jsonl alone", j->out);
}

/* All inputs as one source. */
static char *source_of(const cli *c)
{
    cli_buf b = { 0 };
    for (size_t i = 0; i < c->n_inputs; i++) {
        cli_puts(&b, i ? "::" : "");
        cli_puts(&b, c->inputs[i]);
    }
    return b.data;
}

static void report(const job *j, const char *source, bool filter, const noema_capfilt_counts *n)
{
    cli_buf b = { 0 };
    cli_puts(&b, "{\"input\":");
    cli_put_json(&b, source);
    cli_puts(&b, ",\"out\":");
    cli_put_json(&b, j->out);
    cli_printf(&b, ",\"rows\":%lld,\"skipped\":%lld,\"web\":%lld,\"synthetic\":%lld", (long long)n->rows, (long long)n->skipped, (long long)n->web,
               (long long)(filter ? n->synthetic : n->synthetic_kept)); /* a caption without a word is not written */
    if (filter)
        cli_printf(&b, ",\"web_kept\":%lld,\"synthetic_kept\":%lld", (long long)n->web_kept, (long long)n->synthetic_kept);
    cli_puts(&b, "}");
    cli_emit(&b);
    cli_buf_free(&b);
}

/* What the authors' code samples with; other families keep their own lengths. */
static bool caption_defaults(const cli *c, const noema_model_info *info, noema_generate_options *g)
{
    if (!cli_generate_options(c, g))
        return false;
    if (!g->beams)
        g->sample = 1;
    if (!(g->top_p > 0)) /* also for a folder, whose own would be 1 */
        g->top_p = 0.9;
    if (strcmp(info->family, "blip") != 0)
        return true;
    if (g->max_length < 0 && g->max_new < 0)
        g->max_length = 20;
    if (g->min_length < 0 && g->min_new < 0)
        g->min_length = 5;
    return true;
}

static int with_model(job *j, bool filter, const char *source, noema_dataset *d, noema_capfilt_options *o)
{
    cli *c = j->c;
    noema_model *m = NULL;
    noema_session *s = NULL;
    noema_generate_options g;
    noema_capfilt_counts n = { 0 };
    noema_error err = NOEMA_ERROR_INIT;
    int code = cli_open_model(c, &m, &s);
    if (code == CLI_OK && !filter && (code = cli_need_task(c, m, NOEMA_TASK_CAPTION, "this model writes no captions")) == CLI_OK) {
        if (!caption_defaults(c, noema_model_get_info(m), &g))
            code = CLI_USAGE;
        o->generate = &g;
    }
    if (code == CLI_OK) {
        cli_progress_begin(&j->bar, c, "rows", noema_dataset_count(d));
        noema_status st = filter ? noema_data_filter(s, d, j->out, o, &n, &err) : noema_data_caption(s, d, j->out, o, &n, &err);
        cli_progress_end(&j->bar);
        if (st == NOEMA_OK) {
            report(j, source, filter, &n);
            c->n_done = (size_t)(n.rows - n.skipped);
            code = cli_exit(c);
        } else {
            code = st == NOEMA_E_ARGUMENT ? cli_usage(c, "%s", err.message) : cli_fatal(c, &err);
            code = st == NOEMA_E_CANCELLED ? CLI_INTERRUPTED : code;
        }
    }
    noema_session_free(s);
    noema_model_free(m);
    return code;
}

static int run(cli *c, bool filter)
{
    job j = { .c = c, .out = cli_str(c, "out", NULL) };
    const char *token = cli_str(c, "itm-token", "");
    noema_dataset *d = NULL;
    noema_names *names = NULL;
    noema_error err = NOEMA_ERROR_INIT;
    noema_capfilt_options o;
    noema_generate_options checked;
    if (!c->n_inputs || !j.out)
        return cli_usage(c, "expected data sets and --out DIR");
    if (!filter && !cli_generate_options(c, &checked))
        return CLI_USAGE;
    noema_capfilt_options_default(&o);
    o.shard_rows = cli_int(c, "shard-rows", o.shard_rows);
    o.batch = (size_t)cli_batch(c, (int)o.batch) < MOST_BATCH ? (size_t)cli_batch(c, (int)o.batch) : MOST_BATCH;
    o.max_skipped = cli_int(c, "max-skipped", -1);
    o.match.head = !strcmp(cli_str(c, "head", "itm"), "itc") ? 1 : 2;
    o.match.first_token = !strcmp(token, "enc") ? 1 : !strcmp(token, "cls") ? 2 : 0;
    o.threshold = cli_num(c, "threshold", o.threshold);
    o.progress = on_progress;
    o.failed = on_failed;
    o.user = &j;
    if (filter && o.match.head == 1 && !cli_str(c, "threshold", NULL))
        return cli_usage(c, "--head itc: expected --threshold too, a cosine that suits the model");
    char *source = source_of(c);
    int code = cli_open_dataset(c, source, &d, &names, &err) ? with_model(&j, filter, source, d, &o)
               : err.code == NOEMA_E_ARGUMENT               ? cli_usage(c, "%s", err.message)
                                                            : cli_fatal(c, &err);
    noema_dataset_free(d);
    noema_names_free(names);
    free(source);
    return code;
}

static int run_caption(cli *c) { return run(c, false); }
static int run_filter(cli *c) { return run(c, true); }

#define FILES \
    "DIR/00000.tar, ... with a sample for each text: KEY.jpg, KEY.txt, KEY.source (web or synthetic), KEY.cls; DIR/00000.jsonl with a line for\n" \
    "each row of the input; DIR/skipped.jsonl. A killed call goes on where it was with the same call.\n"

const cli_verb cli_verb_data_caption = {
    "data caption", "write a caption for each picture of data sets (CapFilt)", "[options] -m MODEL --out DIR DATA...",
    FILES "Without --beams or --greedy captions are sampled as BLIP's authors do (--top-p 0.9; BLIP: --min-length 5 --max-length 20); row i, counted\n"
    "from 0, has the seed --seed + i. The texts of the data stay beside them.",
    "noema data caption -m hf-hub:Salesforce/blip-image-captioning-base --out captioned 'web-{0000..0009}.tar'", caption_options, CLI_WITH_MODEL, run_caption
};
const cli_verb cli_verb_data_filter = {
    "data filter", "keep the texts of data sets that match their picture (CapFilt)", "[options] -m MODEL --out DIR DATA...",
    FILES "--head itm needs BLIP or BLIP-2; --head itc takes any model of pictures and texts.",
    "noema data filter --head itc --threshold 0.2 --out kept pairs.jsonl", filter_options, CLI_WITH_MODEL, run_filter
};
