/* verb_collections.c - `noema collections list|info|check|compact|export`. */
#define _GNU_SOURCE
#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#include "collections.h"

static const cli_option no_options[] = { { NULL, 0, CLI_FLAG, NULL, NULL } };
static const cli_option export_options[] = {
    { "out", 'o', CLI_STRING, "FILE", "the vectors as .npy, f32 [n, dim]" },
    { NULL, 0, CLI_FLAG, NULL, NULL }
};

static void put_info(cli *c, noema_collection *col)
{
    const noema_collection_info *i = noema_collection_get_info(col);
    cli_buf b = { 0 };
    if (cli_tables(c))
        cli_printf(&b, "%s\n  %lld items, %d dimensions, %s; %lld deleted and %lld damaged rows, %lld failed files\n  %lld segments, %.1f MB\n  model %s\n",
                   i->path, (long long)i->n_items, i->dim, i->dtype, (long long)i->n_deleted, (long long)i->n_dropped, (long long)i->n_failed,
                   (long long)i->n_segments, (double)i->bytes / 1e6, i->model[0] ? i->model : "none yet");
    else {
        cli_puts(&b, "{\"collection\":");
        cli_put_json(&b, i->path);
        cli_printf(&b, ",\"items\":%lld,\"dim\":%d,\"dtype\":\"%s\",\"deleted\":%lld,\"dropped\":%lld,\"failed\":%lld,\"segments\":%lld,\"bytes\":%lld",
                   (long long)i->n_items, i->dim, i->dtype, (long long)i->n_deleted, (long long)i->n_dropped, (long long)i->n_failed,
                   (long long)i->n_segments, (long long)i->bytes);
        cli_puts(&b, ",\"model\":");
        cli_put_json(&b, i->model);
        cli_puts(&b, ",\"space\":");
        cli_put_json(&b, i->space);
        cli_puts(&b, "}");
    }
    cli_emit(&b);
    cli_buf_free(&b);
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* The collections that have names. */
static int run_list(cli *c)
{
    char *root = cli_collection_root(), **name = NULL;
    size_t n = 0, cap = 0;
    DIR *d = opendir(root);
    for (struct dirent *e; d && (e = readdir(d));)
        if (e->d_name[0] != '.') {
            name = cli_grow(name, &cap, n + 1, sizeof *name);
            name[n++] = cli_dup(e->d_name);
        }
    if (d)
        closedir(d);
    if (n)
        qsort(name, n, sizeof *name, by_name);
    for (size_t i = 0; i < n; i++) {
        noema_collection *col;
        noema_error err = NOEMA_ERROR_INIT;
        char *path = cli_text("%s/%s", root, name[i]);
        if (noema_collection_open(&col, NULL, path, NOEMA_COLLECTION_READONLY | NOEMA_COLLECTION_TRUST, &err) == NOEMA_OK) {
            put_info(c, col);
            c->n_done++;
            noema_collection_free(col);
        } else
            cli_failed(c, path, &err);
        free(path);
        free(name[i]);
    }
    if (!n)
        cli_say(c, "no collections in %s", root);
    free(name);
    free(root);
    return cli_exit(c);
}

typedef noema_status work_fn(cli *c, noema_collection *col, noema_error *err);

/* Each collection named on the command line. */
static int each(cli *c, unsigned flags, work_fn *work)
{
    if (!c->n_inputs)
        return cli_usage(c, "expected collections: folders or names");
    for (size_t i = 0; i < c->n_inputs; i++) {
        int code = 0;
        noema_error err = NOEMA_ERROR_INIT;
        noema_collection *col = cli_collection_open(c, c->inputs[i], flags, &code);
        if (!col)
            c->n_failed++;
        else if (work(c, col, &err) != NOEMA_OK)
            cli_failed(c, c->inputs[i], &err);
        else
            c->n_done++;
        noema_collection_free(col);
    }
    return cli_exit(c);
}

static noema_status info(cli *c, noema_collection *col, noema_error *err)
{
    (void)err;
    put_info(c, col);
    return NOEMA_OK;
}

static noema_status check(cli *c, noema_collection *col, noema_error *err)
{
    noema_status s = noema_collection_check(col, err);
    if (s == NOEMA_OK)
        put_info(c, col);
    return s;
}

static noema_status compact(cli *c, noema_collection *col, noema_error *err)
{
    noema_status s = noema_collection_compact(col, err);
    if (s == NOEMA_OK)
        put_info(c, col);
    return s;
}

/* FILE.npy, and beside it FILE.npy.inputs.jsonl: {"input"|"text","id","row"} per row. */
static noema_status write_rows(cli *c, noema_collection *col, cli_npy_out *npy, FILE *names, noema_error *err)
{
    const noema_collection_info *i = noema_collection_get_info(col);
    float *v = cli_alloc((size_t)i->dim, sizeof *v);
    noema_item item = { 0 };
    noema_status s = NOEMA_OK;
    cli_buf b = { 0 };
    while (s == NOEMA_OK && !cli_interrupted() && noema_collection_next(col, item.id, &item, NULL) == NOEMA_OK) {
        noema_error bad = NOEMA_ERROR_INIT;
        b.len = 0;
        cli_puts(&b, item.kind == NOEMA_ITEM_TEXT ? "{\"text\":" : "{\"input\":");
        cli_put_json(&b, item.path);
        cli_printf(&b, ",\"id\":%lld,\"row\":%lld}\n", (long long)item.id, (long long)npy->n);
        if (noema_collection_vector(col, item.id, v, &bad) != NOEMA_OK) {
            cli_failed(c, item.path ? item.path : "item", &bad);
            continue;
        }
        if (!cli_npy_rows(npy, v, 1, err))
            s = err->code;
        else if (fwrite(b.data, 1, b.len, names) != b.len) {
            s = err->code = NOEMA_E_IO;
            snprintf(err->message, sizeof err->message, "%s: cannot write the list of inputs", npy->path);
        }
    }
    cli_buf_free(&b);
    free(v);
    return s;
}

static noema_status export_one(cli *c, noema_collection *col, noema_error *err)
{
    const char *out = cli_str(c, "out", NULL);
    const noema_collection_info *i = noema_collection_get_info(col);
    int64_t dims[1] = { i->dim };
    cli_npy_out npy = { 0 };
    char *list = cli_text("%s.inputs.jsonl", out);
    FILE *names = NULL;
    noema_status s = NOEMA_OK;
    if (!i->dim) {
        s = err->code = NOEMA_E_MISSING;
        snprintf(err->message, sizeof err->message, "%s is empty", i->path);
    } else if (!(names = fopen(list, "wb"))) {
        s = err->code = NOEMA_E_IO;
        snprintf(err->message, sizeof err->message, "%s: cannot create", list);
    } else if (!cli_npy_create(&npy, out, "<f4", 1, dims, err))
        s = err->code;
    if (s == NOEMA_OK) {
        s = write_rows(c, col, &npy, names, err);
        if (!cli_npy_finish(&npy, err) && s == NOEMA_OK)
            s = err->code;
    }
    if (names && fclose(names) && s == NOEMA_OK) {
        s = err->code = NOEMA_E_IO;
        snprintf(err->message, sizeof err->message, "%s: cannot write", list);
    }
    free(list);
    if (s == NOEMA_OK)
        put_info(c, col);
    return s;
}

static int run_info(cli *c) { return each(c, NOEMA_COLLECTION_READONLY, info); }
static int run_check(cli *c) { return each(c, NOEMA_COLLECTION_READONLY | NOEMA_COLLECTION_TRUST, check); }
static int run_compact(cli *c) { return each(c, 0, compact); }

static int run_export(cli *c)
{
    if (!cli_str(c, "out", NULL) || c->n_inputs != 1)
        return cli_usage(c, "expected one collection and --out FILE.npy");
    return each(c, NOEMA_COLLECTION_READONLY, export_one);
}

#define PRINTS "Prints {\"collection\",\"items\",\"dim\",\"dtype\",\"deleted\",\"dropped\",\"failed\",\"segments\",\"bytes\",\"model\",\"space\"}."

const cli_verb cli_verb_collections_list = {
    "collections list", "the collections that have names", "[options]",
    "Names are folders below $XDG_DATA_HOME/noema/collections (~/.local/share/noema/collections).\n" PRINTS, "noema collections list",
    no_options, CLI_NO_INPUTS, run_list
};
const cli_verb cli_verb_collections_info = {
    "collections info", "what a collection holds", "[options] DIR...", PRINTS, "noema collections info photos", no_options, 0, run_info
};
const cli_verb cli_verb_collections_check = {
    "collections check", "read all of a collection and compare checksums", "[options] DIR...",
    "Checks the catalogue, every block of vectors, and that items and rows belong together; a fault ends with exit code 2 or 3.\n" PRINTS,
    "noema collections check photos", no_options, 0, run_check
};
const cli_verb cli_verb_collections_compact = {
    "collections compact", "drop the rows of deleted items", "[options] DIR...",
    "Rows of deleted and damaged items go, segments are merged; readers may go on meanwhile.\n" PRINTS, "noema collections compact photos",
    no_options, 0, run_compact
};
const cli_verb cli_verb_collections_export = {
    "collections export", "the vectors of a collection as .npy", "[options] --out FILE.npy DIR",
    "FILE.npy.inputs.jsonl names the rows: {\"input\" or \"text\",\"id\",\"row\"}.\n" PRINTS, "noema collections export photos --out photos.npy",
    export_options, 0, run_export
};
