/* verb_data.c - `noema data info`, `data verify`, `data convert`: data sets looked at, checked and rewritten. */
#include <string.h>

#include "datasets.h"

static const cli_option info_options[] = { CLI_DATASET_OPTIONS, { "rows", 0, CLI_INT, "N", "show the first N rows (3)" }, { NULL, 0, CLI_FLAG, NULL, NULL } };
static const cli_option verify_options[] = { CLI_DATASET_OPTIONS, { NULL, 0, CLI_FLAG, NULL, NULL } };
static const cli_option convert_options[] = {
    CLI_DATASET_OPTIONS,
    { "out", 'o', CLI_STRING, "DIR", "folder of the shards" },
    { "shard-rows", 0, CLI_INT, "N", "samples a shard (10000)" },
    { NULL, 0, CLI_FLAG, NULL, NULL }
};

/* ---- info ---- */

static void put_parts(cli_buf *b, const noema_dataset *d)
{
    cli_puts(b, ",\"parts\":[");
    for (size_t i = 0; i < noema_dataset_parts(d); i++) {
        const char *format;
        int64_t rows;
        const char *path = noema_dataset_part(d, i, &format, &rows);
        cli_puts(b, i ? ",{\"path\":" : "{\"path\":");
        cli_put_json(b, path);
        cli_printf(b, ",\"format\":\"%s\",\"rows\":%lld}", format, (long long)rows);
    }
    cli_puts(b, "]");
}

static void put_classes(cli_buf *b, const noema_dataset *d)
{
    int64_t n = noema_dataset_classes(d);
    cli_printf(b, ",\"classes\":%lld,\"class_names\":[", (long long)n);
    for (int64_t k = 0; k < n && noema_dataset_class(d, k); k++) {
        cli_puts(b, k ? "," : "");
        cli_put_json(b, noema_dataset_class(d, k));
    }
    cli_puts(b, "]");
}

static void put_row(cli *c, cli_buf *b, noema_dataset *d, int64_t i)
{
    noema_dataset_row row;
    noema_error err = NOEMA_ERROR_INIT;
    int w, h;
    const char *format;
    bool ok = noema_dataset_read(d, i, &row, &err) == NOEMA_OK && noema_dataset_decode(d, &w, &h, &format, &err) == NOEMA_OK;
    cli_puts(b, i ? ",{\"row\":" : "{\"row\":");
    cli_printf(b, "%lld,\"name\":", (long long)i);
    cli_put_json(b, row.name);
    if (ok)
        cli_printf(b, ",\"picture\":\"%s\",\"width\":%d,\"height\":%d", format, w, h);
    else
        cli_failed(c, row.name, &err);
    if (row.label >= 0)
        cli_printf(b, ",\"label\":%lld", (long long)row.label);
    if (noema_dataset_class(d, row.label)) {
        cli_puts(b, ",\"class\":");
        cli_put_json(b, noema_dataset_class(d, row.label));
    }
    cli_puts(b, ",\"captions\":[");
    for (size_t k = 0; k < row.n_captions; k++) {
        size_t n;
        const char *text = noema_dataset_caption(d, k, &n);
        cli_puts(b, k ? "," : "");
        cli_put_jsonn(b, text, n);
    }
    cli_puts(b, "]}");
}

static int info(cli *c)
{
    if (c->n_inputs == 0)
        return cli_usage(c, "expected a data set");
    for (size_t i = 0; i < c->n_inputs && !cli_interrupted(); i++) {
        noema_dataset *d = NULL;
        noema_names *names = NULL;
        noema_error err = NOEMA_ERROR_INIT;
        cli_buf b = { 0 };
        if (cli_open_dataset(c, c->inputs[i], &d, &names, &err)) {
            cli_puts(&b, "{\"input\":");
            cli_put_json(&b, c->inputs[i]);
            cli_printf(&b, ",\"rows\":%lld", (long long)noema_dataset_count(d));
            put_parts(&b, d);
            put_classes(&b, d);
            cli_puts(&b, ",\"first\":[");
            for (int64_t k = 0; k < cli_int(c, "rows", 3) && k < noema_dataset_count(d); k++)
                put_row(c, &b, d, k);
            cli_puts(&b, "]}");
            cli_emit(&b);
            c->n_done++;
        } else
            cli_failed(c, c->inputs[i], &err);
        cli_buf_free(&b);
        noema_dataset_free(d);
        noema_names_free(names);
    }
    return cli_exit(c);
}

const cli_verb cli_verb_data_info = {
    "data info", "formats, rows, classes and first rows of data sets", "[options] DATA...",
    "DATA: Parquet, webdataset .tar or .tgz, a folder of pictures (class = folder), JSON lines, CSV, TSV, .safetensors; A::B, {0000..0009} and *\n"
    "stand for several. One JSON object per DATA.",
    "noema data info 'train-*.parquet'", info_options, 0, info
};

/* ---- verify ---- */

static int verify(cli *c)
{
    if (c->n_inputs == 0)
        return cli_usage(c, "expected a data set");
    for (size_t i = 0; i < c->n_inputs && !cli_interrupted(); i++) {
        noema_dataset *d = NULL;
        noema_names *names = NULL;
        noema_error err = NOEMA_ERROR_INIT;
        int64_t bad = 0, captions = 0, labels = 0, k = 0;
        cli_progress p;
        if (!cli_open_dataset(c, c->inputs[i], &d, &names, &err)) {
            cli_failed(c, c->inputs[i], &err);
            noema_names_free(names);
            continue;
        }
        cli_progress_begin(&p, c, "rows", noema_dataset_count(d));
        for (; k < noema_dataset_count(d) && !cli_interrupted(); k++) {
            noema_dataset_row row;
            noema_error why = NOEMA_ERROR_INIT;
            int w, h;
            const char *format;
            bool ok = noema_dataset_read(d, k, &row, &why) == NOEMA_OK && noema_dataset_decode(d, &w, &h, &format, &why) == NOEMA_OK;
            captions += row.n_captions > 0;
            labels += row.label >= 0;
            if (!ok) {
                bad++;
                cli_failed(c, row.name, &why);
            }
            cli_progress_set(&p, k + 1);
        }
        cli_progress_end(&p);
        cli_buf b = { 0 };
        cli_puts(&b, "{\"input\":");
        cli_put_json(&b, c->inputs[i]);
        cli_printf(&b, ",\"rows\":%lld,\"unreadable\":%lld,\"with_caption\":%lld,\"with_label\":%lld}", (long long)k, (long long)bad, (long long)captions,
                   (long long)labels);
        cli_emit(&b);
        cli_buf_free(&b);
        c->n_done++;
        noema_dataset_free(d);
        noema_names_free(names);
    }
    return cli_exit(c);
}

const cli_verb cli_verb_data_verify = {
    "data verify", "decode every picture of data sets and name those that fail", "[options] DATA...",
    "Exit 0: all pictures can be read; 2: some cannot (they are named); 3: a data set cannot be opened.", "noema data verify 'train-*.parquet'",
    verify_options, 0, verify
};

/* ---- convert ---- */

typedef struct view { cli *c; cli_progress p; int64_t failed; } view;

static int on_progress(void *user, int64_t done, int64_t total)
{
    view *v = user;
    (void)total;
    cli_progress_set(&v->p, done);
    return cli_interrupted();
}

static void on_failed(void *user, const char *what, const noema_error *why)
{
    view *v = user;
    v->failed++;
    cli_failed(v->c, what, why);
}

static int convert(cli *c)
{
    const char *out = cli_str(c, "out", NULL);
    noema_dataset *d = NULL;
    noema_names *names = NULL;
    noema_error err = NOEMA_ERROR_INIT;
    noema_convert_options o;
    if (c->n_inputs != 1 || !out)
        return cli_usage(c, "expected one data set and --out DIR");
    noema_convert_options_default(&o);
    view v = { .c = c };
    o.shard_rows = cli_int(c, "shard-rows", o.shard_rows);
    o.progress = on_progress;
    o.failed = on_failed;
    o.user = &v;
    noema_status s = cli_open_dataset(c, c->inputs[0], &d, &names, &err) ? NOEMA_OK : err.code;
    if (s == NOEMA_OK) {
        cli_progress_begin(&v.p, c, "rows", noema_dataset_count(d));
        s = noema_dataset_convert(d, out, &o, &err);
        cli_progress_end(&v.p);
    }
    int code = s == NOEMA_OK ? CLI_OK : s == NOEMA_E_ARGUMENT ? cli_usage(c, "%s", err.message) : cli_fatal(c, &err);
    if (s == NOEMA_E_CANCELLED)
        code = CLI_INTERRUPTED;
    if (s == NOEMA_OK) {
        cli_buf b = { 0 };
        cli_puts(&b, "{\"input\":");
        cli_put_json(&b, c->inputs[0]);
        cli_puts(&b, ",\"out\":");
        cli_put_json(&b, out);
        cli_printf(&b, ",\"rows\":%lld,\"left_out\":%lld}", (long long)noema_dataset_count(d), (long long)v.failed);
        cli_emit(&b);
        cli_buf_free(&b);
        c->n_done++;
        code = cli_exit(c);
    }
    noema_dataset_free(d);
    noema_names_free(names);
    return code;
}

const cli_verb cli_verb_data_convert = {
    "data convert", "rewrite a data set as webdataset shards", "[options] --out DIR DATA",
    "DIR/00000.tar, ... with KEY.jpg, KEY.txt, KEY.cls; DIR/sizes.json; DIR/classnames.txt. A killed conversion goes on with the same call: finished\n"
    "shards are kept. Pictures keep their bytes; rows without a JPEG, PNG or WebP picture are named and left out.",
    "noema data convert --out shards pairs.jsonl", convert_options, 0, convert
};
