/* verb_index.c - `noema index`: brings a collection up to date with files, folders and texts. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "collections.h"

static const cli_option options[] = {
    { "collection", 'c', CLI_STRING, "DIR", "the collection, made when it is not there: a folder, or a name (default: default)" },
    { "recursive", 'r', CLI_FLAG, NULL, "take the files in folders below folders too" },
    { "text", 't', CLI_LIST, "T", "a text as an item" },
    { "text-file", 0, CLI_LIST, "FILE", "a text per line, each an item" },
    { "prune", 0, CLI_FLAG, NULL, "delete items below the given folders whose files are gone" },
    { "retry-failed", 0, CLI_FLAG, NULL, "try files again that failed before and have not changed" },
    { "thumbnails", 0, CLI_INT, "N", "store thumbnails, longest side N pixels" },
    { "store", 0, CLI_STRING, "f32|f16", "element type of a new collection's vectors (default f32)" },
    { NULL, 0, CLI_FLAG, NULL, NULL }
};

enum { CHUNK = 4096 }; /* paths of stdin per call */

typedef struct job {
    cli *c;
    cli_searcher s;
    cli_progress bar;
    bool bar_open;
    noema_index_report sum;
} job;

static int on_progress(void *user, int64_t done, int64_t total, const char *item)
{
    job *j = user;
    (void)item;
    if (!j->bar_open)
        cli_progress_begin(&j->bar, j->c, "files", total);
    j->bar_open = true;
    cli_progress_set(&j->bar, done);
    return cli_interrupted();
}

static void on_failed(void *user, const char *path, const noema_error *why)
{
    cli_failed(((job *)user)->c, path, why);
}

static void add(noema_index_report *sum, const noema_index_report *r)
{
    sum->added += r->added;
    sum->changed += r->changed;
    sum->moved += r->moved;
    sum->unchanged += r->unchanged;
    sum->deleted += r->deleted;
    sum->failed += r->failed;
    sum->copied += r->copied;
    sum->failed_before += r->failed_before;
}

static noema_status index_paths(job *j, size_t n, const char *const *paths, bool prune, noema_error *err)
{
    noema_index_options o;
    noema_index_report r = { .struct_size = sizeof r };
    noema_index_options_default(&o);
    o.recursive = cli_flag(j->c, "recursive");
    o.prune = prune;
    o.retry_failed = cli_flag(j->c, "retry-failed");
    o.thumbnails = (int)cli_int(j->c, "thumbnails", 0);
    o.batch = (int)cli_int(j->c, "batch", 0);
    /* also how an interrupt gets in */
    o.progress = on_progress;
    o.progress_user = j;
    o.failed = on_failed;
    o.failed_user = j;
    noema_status s = noema_collection_index(j->s.col, j->s.session, n, paths, &o, &r, err);
    if (j->bar_open)
        cli_progress_end(&j->bar);
    j->bar_open = false;
    add(&j->sum, &r);
    return s;
}

/* "-": one path per line, in pieces, so that a list of any length needs little memory. */
static noema_status index_stdin(job *j, noema_error *err)
{
    char **path = cli_alloc(CHUNK, sizeof *path), *line = NULL;
    size_t cap = 0, n = 0;
    noema_status s = NOEMA_OK;
    for (ssize_t len = 1; len > 0 && s == NOEMA_OK;) {
        len = getline(&line, &cap, stdin);
        if (len > 0 && line[len - 1] == '\n')
            line[len - 1] = 0;
        if (len > 0 && line[0])
            path[n++] = cli_dup(line);
        if (n == CHUNK || (len <= 0 && n)) {
            s = index_paths(j, n, (const char *const *)path, false, err);
            while (n)
                free(path[--n]);
        }
    }
    free(line);
    free(path);
    return s;
}

static noema_status index_texts(job *j, noema_error *err)
{
    cli_texts t;
    noema_index_report r = { .struct_size = sizeof r };
    if (!cli_texts_read(j->c, &t)) {
        err->code = NOEMA_E_CANCELLED;
        return NOEMA_E_CANCELLED;
    }
    const char **text = cli_alloc(t.n + 1, sizeof *text);
    size_t n = 0;
    for (size_t i = 0; i < t.n; i++) {
        if (strlen(t.text[i]) != t.len[i])
            cli_failed_msg(j->c, t.text[i], "a text with a NUL byte cannot be an item");
        else if (t.len[i])
            text[n++] = t.text[i];
    }
    noema_status s = n ? noema_collection_index_texts(j->s.col, j->s.session, n, text, &r, err) : NOEMA_OK;
    add(&j->sum, &r);
    free((void *)text);
    cli_texts_free(&t);
    return s;
}

static void report(job *j)
{
    const noema_index_report *r = &j->sum;
    const noema_collection_info *i = noema_collection_get_info(j->s.col);
    cli_buf b = { 0 };
    if (cli_tables(j->c))
        cli_printf(&b, "%s: %lld items; %lld added, %lld changed, %lld moved, %lld unchanged, %lld deleted, %lld failed", i->path,
                   (long long)i->n_items, (long long)r->added, (long long)r->changed, (long long)r->moved, (long long)r->unchanged,
                   (long long)r->deleted, (long long)r->failed);
    else {
        cli_puts(&b, "{\"collection\":");
        cli_put_json(&b, i->path);
        cli_printf(&b, ",\"items\":%lld,\"added\":%lld,\"changed\":%lld,\"moved\":%lld,\"copied\":%lld,\"unchanged\":%lld,\"deleted\":%lld,"
                       "\"failed\":%lld,\"failed_before\":%lld}", (long long)i->n_items, (long long)r->added, (long long)r->changed,
                   (long long)r->moved, (long long)r->copied, (long long)r->unchanged, (long long)r->deleted, (long long)r->failed,
                   (long long)r->failed_before);
    }
    cli_emit(&b);
    cli_buf_free(&b);
    if (r->failed_before)
        cli_say(j->c, "%lld files failed before and have not changed: --retry-failed tries them again", (long long)r->failed_before);
    j->c->n_done = (size_t)(r->added + r->changed + r->moved + r->unchanged + r->deleted);
}

static noema_status work(job *j, noema_error *err)
{
    cli *c = j->c;
    const char **path = cli_alloc(c->n_inputs + 1, sizeof *path);
    size_t n = 0;
    bool with_stdin = false;
    for (size_t i = 0; i < c->n_inputs; i++)
        if (strcmp(c->inputs[i], "-"))
            path[n++] = c->inputs[i];
        else
            with_stdin = true;
    noema_status s = cli_note_model(c, j->s.col, j->s.model, err);
    if (s == NOEMA_OK)
        s = index_texts(j, err);
    if (s == NOEMA_OK && n)
        s = index_paths(j, n, path, cli_flag(c, "prune"), err);
    if (s == NOEMA_OK && with_stdin)
        s = index_stdin(j, err);
    free((void *)path);
    return s;
}

static int run(cli *c)
{
    int code = 0;
    noema_error err = NOEMA_ERROR_INIT;
    if (!c->n_inputs && !cli_str(c, "text", NULL) && !cli_str(c, "text-file", NULL))
        return cli_usage(c, "expected files, folders, --text or --text-file");
    if (cli_int(c, "thumbnails", 0) > 4096)
        return cli_usage(c, "--thumbnails: expected at most 4096 pixels");
    signal(SIGXFSZ, SIG_IGN); /* a file size limit is a full disk: an error, not the end */
    unsigned flags = NOEMA_COLLECTION_CREATE | (!strcmp(cli_str(c, "store", "f32"), "f16") ? NOEMA_COLLECTION_F16 : 0);
    job j = { .c = c, .s.c = c };
    j.s.col = cli_collection_open(c, cli_str(c, "collection", NULL), flags, &code);
    if (j.s.col)
        code = cli_searcher_model(&j.s);
    if (j.s.col && !code) {
        noema_status s = work(&j, &err);
        report(&j);
        if (s == NOEMA_OK || (s == NOEMA_E_CANCELLED && cli_interrupted()))
            code = cli_exit(c);
        else
            code = err.message[0] ? cli_fatal(c, &err) : CLI_NOTHING_DONE;
        if (code == CLI_NOTHING_DONE && j.sum.added + j.sum.changed + j.sum.moved > 0)
            code = CLI_SOME_FAILED; /* what was committed before stays */
    }
    cli_searcher_free(&j.s);
    return code;
}

const cli_verb cli_verb_index = {
    "index", "make a collection of pictures and texts, or bring it up to date", "[options] FILE|FOLDER|-...",
    "Files that have not changed (size and time) are skipped, moved ones (same content) keep their vectors, files that failed are not\n"
    "tried again until they change. Commits every 256 items or 5 seconds: a job that was killed goes on where it was. A collection has\n"
    "the vectors of one model; it is remembered, so that later runs need no -m. \"-\" reads paths from stdin, one per line.\n"
    "Prints {\"collection\",\"items\",\"added\",\"changed\",\"moved\",\"copied\",\"unchanged\",\"deleted\",\"failed\",\"failed_before\"}.",
    "noema index --collection photos -r --prune ~/Pictures", options, CLI_WITH_MODEL, run
};
