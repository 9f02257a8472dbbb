/* vectors.c - streams of inputs into vectors, a batch at a time, so that memory does not grow with their number. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

/* A batch of one kind: files, or rows of one .npy. */
typedef struct batch {
    cli *c;
    noema_session *s;
    const noema_model_info *info;
    unsigned flags;
    cli_input *in;
    size_t n, size, most; /* inputs so far, of this call, of any call */
    bool fixed;           /* --batch: size stays */
    bool rows; /* of `npy`, the file npy_path */
    float *out;
    const char **paths;
    noema_error *errors;
    cli_npy npy;
    char *npy_path;
    cli_vector_fn *fn;
    void *user;
    noema_error *err;
} batch;

size_t cli_image_floats(const noema_model_info *info) { return (size_t)info->embed_dim * (size_t)info->image_vectors; }

/* Hands each result on, in order; NULL for one that failed. false: the receiver had enough. */
static bool hand_on(batch *b)
{
    size_t dim = cli_image_floats(b->info);
    bool ok = true;
    for (size_t i = 0; i < b->n; i++) {
        bool failed = b->errors[i].code != NOEMA_OK;
        if (failed && ok)
            cli_failed(b->c, b->in[i].name, &b->errors[i]);
        if (ok)
            ok = b->fn(b->user, b->in[i].name, failed ? NULL : b->out + i * dim, b->err);
        if (ok && !failed)
            b->c->n_done++;
        cli_input_free(&b->in[i]);
    }
    cli_flush(); /* what a killed job had finished is there, and a pipe's reader need not wait */
    b->n = 0;
    return ok;
}

/* The .npy of a row, kept open from row to row; its tensors must be what the model gets. */
static noema_status open_rows(batch *b, const cli_input *in, noema_error *e)
{
    if (!b->npy_path || strcmp(b->npy_path, in->path)) {
        cli_npy_close(&b->npy);
        free(b->npy_path);
        b->npy_path = NULL;
        if (!cli_npy_open(&b->npy, in->path, e))
            return e->code;
        b->npy_path = cli_dup(in->path);
    }
    const cli_npy *a = &b->npy;
    int h = b->info->image_height, w = b->info->image_width;
    if (a->ndim != 4 || a->shape[1] != 3 || a->shape[2] != h || a->shape[3] != w || in->row >= a->shape[0]) {
        e->code = NOEMA_E_MISMATCH;
        snprintf(e->message, sizeof e->message, "expected row %lld of f32 [n,3,%d,%d], got %d dimensions [%lld,%lld,%lld,%lld]", (long long)in->row, h, w,
                 a->ndim, (long long)a->shape[0], (long long)a->shape[1], (long long)a->shape[2], (long long)a->shape[3]);
        return e->code;
    }
    return NOEMA_OK;
}

/* Rows of the batch are neighbours in the file: one call embeds them from the mapping. */
static noema_status embed_rows(batch *b, noema_error *e)
{
    return noema_embed_tensors(b->s, b->n, b->npy.data + (size_t)b->in[0].row * b->npy.row, b->flags, b->out, e);
}

/* Long calls let decoding and computing overlap; short ones keep interrupts and resumable jobs quick: about two seconds each. */
static void choose_size(batch *b, double seconds)
{
    double next = (double)b->n * 2 / (seconds > 1e-3 ? seconds : 1e-3);
    if (!b->fixed)
        b->size = next < 16 ? 16 : next > (double)b->most ? b->most : (size_t)next;
}

static bool flush(batch *b)
{
    noema_error e = NOEMA_ERROR_INIT;
    noema_status s;
    double start = cli_now();
    if (!b->n)
        return true;
    memset(b->errors, 0, b->n * sizeof *b->errors);
    if (b->rows)
        s = embed_rows(b, &e);
    else {
        for (size_t i = 0; i < b->n; i++)
            b->paths[i] = b->in[i].path;
        s = noema_embed_image_files(b->s, b->n, b->paths, b->flags, b->out, b->errors, &e);
    }
    for (size_t i = 0; s != NOEMA_OK && i < b->n; i++)
        b->errors[i] = e;
    choose_size(b, cli_now() - start);
    return hand_on(b);
}

static bool add(batch *b, cli_input *in)
{
    noema_error e = NOEMA_ERROR_INIT;
    bool rows = in->row >= 0;
    bool joins = !b->n || (rows == b->rows && (!rows || (b->npy_path && !strcmp(b->npy_path, in->path) && in->row == b->in[b->n - 1].row + 1)));
    if ((b->n >= b->size || !joins) && !flush(b))
        return cli_input_free(in), false;
    if (rows && open_rows(b, in, &e) != NOEMA_OK) {
        cli_failed(b->c, in->name, &e);
        bool ok = b->fn(b->user, in->name, NULL, b->err);
        cli_input_free(in);
        return ok;
    }
    b->rows = rows;
    b->in[b->n++] = *in;
    return true;
}

bool cli_embed_rest(cli *c, noema_session *s, const noema_model_info *info, unsigned flags, cli_inputs *all, int64_t total, cli_vector_fn *fn, void *user,
                    noema_error *err)
{
    batch b = { .c = c, .s = s, .info = info, .flags = flags | NOEMA_ALL_VECTORS, .fixed = cli_str(c, "batch", NULL) != NULL, .fn = fn, .user = user, .err = err };
    bool ok = true;
    cli_progress bar;
    cli_input in;
    b.most = (size_t)cli_batch(c, 512);
    b.size = b.fixed ? b.most : 16;
    b.in = cli_alloc(b.most, sizeof *b.in);
    b.paths = cli_alloc(b.most, sizeof *b.paths);
    b.errors = cli_alloc(b.most, sizeof *b.errors);
    b.out = cli_alloc(b.most * cli_image_floats(info), sizeof *b.out);
    cli_progress_begin(&bar, c, "images", total);
    for (int64_t seen = 0; ok && cli_inputs_next(all, &in); cli_progress_set(&bar, ++seen))
        ok = add(&b, &in);
    if (ok && !cli_interrupted())
        ok = flush(&b);
    for (size_t i = 0; i < b.n; i++)
        cli_input_free(&b.in[i]);
    cli_progress_end(&bar);
    cli_npy_close(&b.npy);
    free(b.npy_path);
    free(b.in);
    free(b.paths);
    free(b.errors);
    free(b.out);
    return ok;
}

bool cli_embed_images(cli *c, noema_session *s, const noema_model_info *info, unsigned flags, const char *const *args, size_t n, cli_vector_fn *fn,
                      void *user, noema_error *err)
{
    bool recursive = cli_flag(c, "recursive");
    int64_t total = c->err_tty && !c->quiet ? cli_inputs_count(c, args, n, recursive, CLI_IN_ROWS) : -1;
    cli_inputs *all = cli_inputs_open(c, args, n, recursive, CLI_IN_ROWS);
    bool ok = cli_embed_rest(c, s, info, flags, all, total, fn, user, err);
    cli_inputs_close(all);
    return ok;
}

bool cli_embed_texts(cli *c, noema_session *s, const noema_model_info *info, unsigned flags, const cli_texts *t, size_t skip, cli_vector_fn *fn, void *user,
                     noema_error *err)
{
    size_t size = (size_t)cli_batch(c, 256), dim = (size_t)info->embed_dim;
    float *out = cli_alloc(size * dim, sizeof *out);
    bool ok = true;
    cli_progress bar;
    cli_progress_begin(&bar, c, "texts", (int64_t)t->n);
    for (size_t i = skip; ok && i < t->n && !cli_interrupted(); i += size) {
        size_t n = t->n - i < size ? t->n - i : size;
        noema_error e = NOEMA_ERROR_INIT;
        bool whole = noema_embed_texts(s, n, t->text + i, t->len + i, flags, out, &e) == NOEMA_OK;
        for (size_t k = 0; ok && k < n; k++) { /* a bad text among good ones: each alone */
            memset(&e, 0, sizeof e);
            bool one = whole || noema_embed_texts(s, 1, t->text + i + k, t->len + i + k, flags, out + k * dim, &e) == NOEMA_OK;
            if (one)
                c->n_done++;
            else
                cli_failed(c, t->text[i + k], &e);
            ok = fn(user, NULL, one ? out + k * dim : NULL, err);
        }
        cli_progress_set(&bar, (int64_t)(i + n));
    }
    cli_progress_end(&bar);
    free(out);
    return ok;
}
