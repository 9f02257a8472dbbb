/* verb_embed.c - `noema embed`: vectors of texts and pictures, as JSON lines or an .npy file.
 *
 * With --out F the rows grow in F.part, a valid .npy after every batch, beside F.part.inputs.jsonl: a first line with the space of
 * the vectors, then one line per input with its row (null: it failed). When all is done both are renamed to F and F.inputs.jsonl
 * and F.json names model, preprocessing and type. A job that was killed leaves the two .part files; --resume goes on from them. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli.h"
#include "noema/inspect.h"
#include "noema/version.h"

static const cli_option options[] = {
    { "text", 't', CLI_LIST, "T", "a text" },
    { "text-file", 0, CLI_LIST, "FILE", "one text per line, kept as it is" },
    { "out", 'o', CLI_STRING, "FILE", "write f32 [n, dim] as .npy, texts first, then inputs in order" },
    { "resume", 0, CLI_FLAG, NULL, "go on with an --out that was interrupted (same inputs, same model)" },
    { "no-normalize", 0, CLI_FLAG, NULL, "keep the lengths of the vectors" },
    { "modality", 0, CLI_STRING, "image|video|audio|depth|thermal|imu", "what the inputs are, where the file type leaves it open" },
    { "recursive", 'r', CLI_FLAG, NULL, "take the files in folders" },
    { NULL, 0, CLI_FLAG, NULL, NULL }
};

typedef struct job {
    cli *c;
    const noema_model_info *info;
    const cli_texts *texts;
    bool normalize;
    size_t seen; /* texts handed on so far */
    cli_buf line;
    /* --out */
    const char *path;
    char *part, *journal_path;
    FILE *journal;
    cli_npy_out npy;
    size_t skip;     /* texts and inputs that an earlier job did */
    cli_inputs *in;  /* what is left of the inputs */
} job;

static bool io_fail(const char *path, noema_error *err)
{
    err->code = NOEMA_E_IO;
    snprintf(err->message, sizeof err->message, "%s: cannot write: %s", path, strerror(errno));
    return false;
}

/* {"space":...} - what must agree when a job is resumed. */
static void put_header(cli_buf *b, const job *j)
{
    cli_puts(b, "{\"space\":");
    cli_put_json(b, j->info->space);
    cli_printf(b, ",\"dim\":%d,\"normalized\":%s}\n", j->info->embed_dim, j->normalize ? "true" : "false");
}

/* BLIP-2: a picture has several vectors. */
static bool many(const job *j) { return j->info->image_vectors > 1 && j->c->n_inputs; }

/* {"input":NAME,"row":N}, the row null for a failed input. name NULL: the text t. */
static void put_entry(cli_buf *b, const char *name, const char *text, size_t n, int64_t row)
{
    cli_puts(b, name ? "{\"input\":" : "{\"text\":");
    cli_put_jsonn(b, name ? name : text, name ? strlen(name) : n);
    if (row >= 0)
        cli_printf(b, ",\"row\":%lld}\n", (long long)row);
    else
        cli_puts(b, ",\"row\":null}\n");
}

/* ---- resuming ---- */

/* The entry that the next text or input of this command line would have got, up to its row; takes it from j->in. */
static bool next_expected(job *j, cli_buf *b)
{
    cli_input in;
    b->len = 0;
    if (j->skip < j->texts->n)
        put_entry(b, NULL, j->texts->text[j->skip], j->texts->len[j->skip], 0);
    else if (cli_inputs_next(j->in, &in)) {
        put_entry(b, in.name, NULL, 0, 0);
        cli_input_free(&in);
    } else
        return false;
    b->len -= strlen("0}\n");
    return true;
}

/* Reads the journal of an interrupted job and compares it with what this one is about to do. Sets j->skip; *rows: rows to keep; *bytes:
 * length of the whole lines (a torn last one is dropped). */
static bool read_journal(job *j, int64_t *rows, long *bytes, noema_error *err)
{
    cli_buf want = { 0 };
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    bool ok = true;
    FILE *f = fopen(j->journal_path, "rb");
    *rows = 0;
    *bytes = 0;
    if (!f)
        return io_fail(j->journal_path, err);
    put_header(&want, j);
    for (size_t k = 0; ok && (n = getline(&line, &cap, f)) > 0 && line[n - 1] == '\n'; k++) {
        ok = k ? next_expected(j, &want) && (size_t)n > want.len && !memcmp(line, want.data, want.len)
               : (size_t)n == want.len && !memcmp(line, want.data, want.len);
        if (!ok) {
            err->code = NOEMA_E_MISMATCH;
            snprintf(err->message, sizeof err->message, "%s: line %zu is of another job; without --resume it starts anew", j->journal_path, k + 1);
            break;
        }
        *bytes += (long)n;
        if (k) {
            j->skip++;
            *rows += strncmp(line + want.len, "null", 4) != 0;
        }
    }
    free(line);
    cli_buf_free(&want);
    fclose(f);
    return ok;
}

/* ---- writing ---- */

static bool start_journal(job *j, long keep, noema_error *err)
{
    j->journal = fopen(j->journal_path, keep ? "r+b" : "wb");
    if (!j->journal || ftruncate(fileno(j->journal), keep) || fseek(j->journal, 0, SEEK_END))
        return io_fail(j->journal_path, err);
    if (keep)
        return true;
    j->line.len = 0;
    put_header(&j->line, j);
    return fwrite(j->line.data, 1, j->line.len, j->journal) == j->line.len && !fflush(j->journal) ? true : io_fail(j->journal_path, err);
}

static bool open_out(job *j, noema_error *err)
{
    struct stat st;
    if (!stat(j->path, &st) && !S_ISREG(st.st_mode)) { /* a device or folder must not be renamed over */
        err->code = NOEMA_E_IO;
        snprintf(err->message, sizeof err->message, "%s: expected a new or a regular file", j->path);
        return false;
    }
    int64_t dims[2] = { j->info->image_vectors, j->info->embed_dim }, rows = 0;
    const int64_t *row = many(j) ? dims : dims + 1;
    int ndim = many(j) ? 2 : 1;
    long bytes = 0;
    j->part = cli_text("%s.part", j->path);
    j->journal_path = cli_text("%s.part.inputs.jsonl", j->path);
    bool resume = cli_flag(j->c, "resume") && !access(j->part, F_OK) && !access(j->journal_path, F_OK);
    if (resume && !read_journal(j, &rows, &bytes, err))
        return false;
    resume = resume && bytes > 0;
    if (resume) {
        cli_say(j->c, "going on after %zu inputs, %lld rows", j->skip, (long long)rows);
        j->c->n_done = (size_t)rows;
        j->c->n_failed = j->skip - (size_t)rows;
    }
    return (resume ? cli_npy_append_open(&j->npy, j->part, "<f4", ndim, row, rows, err)
                   : cli_npy_create(&j->npy, j->part, "<f4", ndim, row, err)) &&
           start_journal(j, bytes, err);
}

/* The row first, then the journal: what the journal names is in the file. */
static bool write_row(job *j, const char *name, const char *text, size_t n, const float *v, noema_error *err)
{
    int64_t row = v ? j->npy.n : -1;
    if (v && !cli_npy_rows(&j->npy, v, 1, err))
        return false;
    j->line.len = 0;
    put_entry(&j->line, name, text, n, row);
    if (fwrite(j->line.data, 1, j->line.len, j->journal) != j->line.len || fflush(j->journal))
        return io_fail(j->journal_path, err);
    return true;
}

static bool on_vector(void *user, const char *name, const float *v, noema_error *err)
{
    job *j = user;
    const char *text = NULL;
    size_t n = 0;
    if (!name) {
        size_t i = j->seen++;
        text = j->texts->text[i];
        n = j->texts->len[i];
    }
    if (j->path)
        return write_row(j, name, text, n, v, err);
    if (!v)
        return true;
    cli_puts(&j->line, "{\"input\":");
    cli_put_jsonn(&j->line, name ? name : text, name ? strlen(name) : n);
    cli_printf(&j->line, ",\"modality\":\"%s\",\"dim\":%d,\"embedding\":", name ? "image" : "text", j->info->embed_dim);
    size_t dim = (size_t)j->info->embed_dim, n_vectors = name && many(j) ? (size_t)j->info->image_vectors : 0;
    cli_puts(&j->line, n_vectors ? "[" : "");
    for (size_t i = 0; i == 0 || i < n_vectors; i++) {
        cli_puts(&j->line, i ? "," : "");
        cli_put_f32s(&j->line, v + i * dim, dim);
    }
    cli_puts(&j->line, n_vectors ? "]}" : "}");
    cli_emit(&j->line);
    return true;
}

static void put_member(cli_buf *b, const char *key, const char *value)
{
    cli_printf(b, "  \"%s\": ", key);
    if (value)
        cli_put_json(b, value);
    else
        cli_puts(b, "null");
    cli_puts(b, ",\n");
}

/* F.json: what the vectors are; vectors of different spaces must not be mixed. */
static bool write_identity(const job *j, int64_t rows, noema_error *err)
{
    static const char *const dtypes[] = { "auto", "f32", "bf16", "f16", "int8" };
    const noema_model_info *i = j->info;
    char *path = cli_text("%s.json", j->path), *tmp = cli_text("%s.json.tmp", j->path), hash[65];
    cli_buf b = { 0 };
    noema_sha256(i->preprocess ? i->preprocess : "", i->preprocess ? strlen(i->preprocess) : 0, hash);
    cli_puts(&b, "{\n");
    put_member(&b, "model", i->name);
    put_member(&b, "family", i->family);
    put_member(&b, "weights_sha256", i->identity);
    put_member(&b, "preprocess", i->preprocess);
    put_member(&b, "preprocess_sha256", i->preprocess ? hash : NULL);
    put_member(&b, "space", i->space);
    put_member(&b, "dtype", dtypes[i->dtype]);
    put_member(&b, "noema", NOEMA_VERSION_STRING);
    cli_printf(&b, "  \"normalized\": %s,\n  \"dim\": %d,\n  \"count\": %lld\n}\n", j->normalize ? "true" : "false", i->embed_dim, (long long)rows);
    FILE *f = fopen(tmp, "wb");
    bool ok = f && fwrite(b.data, 1, b.len, f) == b.len && !fflush(f) && !fsync(fileno(f));
    if (f && fclose(f))
        ok = false;
    if (!ok || rename(tmp, path))
        ok = io_fail(path, err);
    cli_buf_free(&b);
    free(path);
    free(tmp);
    return ok;
}

/* The parts become the results; nothing is left when no input gave a row. */
static bool finish_out(job *j, bool whole, noema_error *err)
{
    int64_t rows = j->npy.n;
    char *journal = cli_text("%s.inputs.jsonl", j->path);
    bool ok = cli_npy_finish(&j->npy, err);
    if (j->journal && fclose(j->journal) && ok)
        ok = io_fail(j->journal_path, err);
    j->journal = NULL;
    if (ok && whole && !rows) {
        unlink(j->part);
        unlink(j->journal_path);
    } else if (ok && whole) {
        ok = write_identity(j, rows, err);
        if (ok && (rename(j->journal_path, journal) || rename(j->part, j->path)))
            ok = io_fail(j->path, err);
    } else if (ok)
        cli_warn(j->c, "%s holds %lld rows; --resume goes on there", j->part, (long long)rows);
    free(journal);
    return ok;
}

/* ---- the verb ---- */

static bool embed_all(job *j, noema_session *s, noema_error *err)
{
    unsigned flags = j->normalize ? NOEMA_NORMALIZE : 0;
    size_t done = j->skip < j->texts->n ? j->skip : j->texts->n;
    cli *c = j->c;
    bool bar = c->err_tty && !c->quiet;
    int64_t left = bar ? cli_inputs_count(c, c->inputs, c->n_inputs, cli_flag(c, "recursive"), CLI_IN_ROWS) : -1;
    left = left < 0 ? left : left - (int64_t)(j->skip - done);
    j->seen = done;
    return (!j->texts->n || cli_embed_texts(j->c, s, j->info, flags, j->texts, done, on_vector, j, err)) &&
           (!j->c->n_inputs || cli_interrupted() || cli_embed_rest(j->c, s, j->info, flags, j->in, left, on_vector, j, err));
}

static int embed(cli *c, noema_session *s, const noema_model_info *info, const cli_texts *texts)
{
    job j = { .c = c, .info = info, .texts = texts, .normalize = !cli_flag(c, "no-normalize"), .path = cli_str(c, "out", NULL) };
    noema_error err = NOEMA_ERROR_INIT, last = NOEMA_ERROR_INIT;
    j.in = cli_inputs_open(c, c->inputs, c->n_inputs, cli_flag(c, "recursive"), CLI_IN_ROWS);
    bool ok = (!j.path || open_out(&j, &err)) && embed_all(&j, s, &err);
    if (j.path && j.npy.f && !finish_out(&j, ok && !cli_interrupted(), &last) && ok) {
        ok = false;
        err = last;
    }
    cli_npy_finish(&j.npy, &last); /* where it could not be opened */
    if (j.journal)
        fclose(j.journal);
    cli_inputs_close(j.in);
    cli_buf_free(&j.line);
    free(j.part);
    free(j.journal_path);
    return ok ? cli_exit(c) : cli_fatal(c, &err);
}

/* A verb's message when the model lacks a tower that the inputs need. */
static bool lacks(const cli *c, const noema_model_info *i, const cli_texts *texts)
{
    if (c->n_inputs && !i->has_image)
        cli_warn(c, "%s: has no image tower, only texts can be embedded", i->name);
    else if (texts->n && !i->has_text)
        cli_warn(c, "%s: has no text tower, only pictures can be embedded", i->name);
    else
        return false;
    return true;
}

static int run(cli *c)
{
    noema_model *m = NULL;
    noema_session *s = NULL;
    cli_texts texts;
    const char *modality = cli_str(c, "modality", "image");
    int code;
    if (!cli_texts_read(c, &texts))
        code = CLI_NOTHING_DONE;
    else if (!c->n_inputs && !texts.n)
        code = cli_usage(c, "expected --text, --text-file or pictures");
    else if (cli_flag(c, "resume") && !cli_str(c, "out", NULL))
        code = cli_usage(c, "--resume goes with --out");
    else if (c->n_inputs && strcmp(modality, "image")) {
        cli_warn(c, "--modality %s: expected a model with such a tower (ImageBind); this release embeds texts and images", modality);
        code = CLI_NOTHING_DONE;
    } else if ((code = cli_open_model(c, &m, &s)) == CLI_OK) {
        const noema_model_info *info = noema_model_get_info(m);
        if (info->image_vectors > 1 && c->n_inputs && texts.n && cli_str(c, "out", NULL))
            code = cli_usage(c, "%s has %d vectors per picture and one per text: write texts and pictures in separate calls", info->name,
                             info->image_vectors);
        else
            code = lacks(c, info, &texts) ? CLI_NOTHING_DONE : embed(c, s, info, &texts);
    }
    noema_session_free(s);
    noema_model_free(m);
    cli_texts_free(&texts);
    return code;
}

const cli_verb cli_verb_embed = {
    "embed", "vectors of texts and pictures", "-m MODEL [--text T]... [--text-file F] [INPUT...] [--out F.npy] [--no-normalize]",
    "Prints {\"input\",\"modality\",\"dim\",\"embedding\":[...]} per input, texts first. With --out: f32 [n, dim] as .npy in the same order;\n"
    "F.npy.json says which model, preprocessing and type made them, F.npy.inputs.jsonl which row is whose (failed inputs have none).\n"
    "A BLIP-2 picture has a vector per query: a list of vectors, [n, queries, dim] in --out (texts and pictures in separate calls).\n"
    "INPUT: pictures, folders with -r, - for one path per line on stdin, .npy tensors [n,3,H,W] as the model gets them.",
    "noema embed --text \"a photo of a cat\"", options, CLI_WITH_MODEL, run
};
