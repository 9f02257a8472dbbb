/* inspect_pixels.c - `noema inspect pixels`: the tensors that a model gets for pictures, as digests or as an .npy file. */
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "noema/inspect.h"

static const cli_option options[] = {
    { "u8", 0, CLI_FLAG, NULL, "the pixels before normalisation, [H,W,3]" },
    { "out", 'o', CLI_STRING, "FILE", "write the tensors as .npy [n,...]; all must have one shape" },
    { "recursive", 'r', CLI_FLAG, NULL, "take the files in folders" },
    { NULL, 0, CLI_FLAG, NULL, NULL }
};

/* The shape of one result, as a row of the .npy. */
static void shape_of(const noema_plane *px, bool u8, int64_t dims[3])
{
    dims[0] = u8 ? px->height : 3;
    dims[1] = u8 ? px->width : px->height;
    dims[2] = u8 ? 3 : px->width;
}

static bool write_row(cli_npy_out *out, const char *path, const noema_plane *px, bool u8, noema_error *err)
{
    int64_t dims[3];
    shape_of(px, u8, dims);
    if (!out->f && !cli_npy_create(out, path, u8 ? "|u1" : "<f4", 3, dims, err))
        return false;
    if (memcmp(dims, out->dims, sizeof dims)) {
        err->code = NOEMA_E_MISMATCH;
        snprintf(err->message, sizeof err->message, "expected the shape of the first, [%lld,%lld,%lld], got [%lld,%lld,%lld]", (long long)out->dims[0],
                 (long long)out->dims[1], (long long)out->dims[2], (long long)dims[0], (long long)dims[1], (long long)dims[2]);
        return false;
    }
    return cli_npy_rows(out, px->data, 1, err);
}

static void put_line(cli_buf *b, const char *name, const noema_plane *px, bool u8)
{
    char hex[65];
    int64_t d[3];
    shape_of(px, u8, d);
    noema_sha256(px->data, px->size, hex);
    cli_puts(b, "{\"input\":");
    cli_put_json(b, name);
    cli_printf(b, ",\"shape\":[%lld,%lld,%lld],\"sha256\":\"%s\"}", (long long)d[0], (long long)d[1], (long long)d[2], hex);
    cli_emit(b);
}

/* All inputs; false: the .npy could not be written. */
static bool each(cli *c, noema_preprocess *p, bool u8, const char *path, cli_npy_out *out, noema_error *err)
{
    cli_buf line = { 0 };
    cli_progress bar;
    cli_input in;
    bool ok = true, r = cli_flag(c, "recursive");
    cli_progress_begin(&bar, c, "images", c->err_tty ? cli_inputs_count(c, c->inputs, c->n_inputs, r, 0) : -1);
    cli_inputs *all = cli_inputs_open(c, c->inputs, c->n_inputs, r, 0);
    while (ok && cli_inputs_next(all, &in)) {
        noema_error e = NOEMA_ERROR_INIT;
        noema_plane px;
        if (noema_preprocess_file(p, in.path, u8, &px, &e) != NOEMA_OK || (path && !write_row(out, path, &px, u8, &e))) {
            cli_failed(c, in.name, &e);
            if (e.code == NOEMA_E_IO && path && strstr(e.message, path)) /* the output, not this input */
                ok = false, *err = e;
        } else {
            put_line(&line, in.name, &px, u8);
            c->n_done++;
        }
        cli_progress_set(&bar, (int64_t)(c->n_done + c->n_failed));
        cli_input_free(&in);
    }
    cli_progress_end(&bar);
    cli_inputs_close(all);
    cli_buf_free(&line);
    return ok;
}

/* What -m does, with its own --preprocess and --image-size or --size. */
static noema_status of_model(cli *c, noema_preprocess **p, int *code)
{
    noema_model *m;
    noema_error err = NOEMA_ERROR_INIT;
    if ((*code = cli_open_model(c, &m, NULL)) != CLI_OK)
        return NOEMA_E_MISSING;
    noema_status s = noema_preprocess_of_model(p, m, &err);
    if (s != NOEMA_OK)
        *code = cli_fatal(c, &err);
    noema_model_free(m);
    return s;
}

/* --preprocess P with --size, or what -m does. */
static noema_status open_rule(cli *c, noema_preprocess **p, int *code)
{
    noema_error err = NOEMA_ERROR_INIT;
    const char *what = cli_str(c, "preprocess", NULL), *size = cli_str(c, "size", NULL);
    int h = 0, w = 0;
    if (size && !cli_parse_size(size, &h, &w)) {
        *code = cli_usage(c, "--size: expected S or HxW, got '%s'", size);
        return NOEMA_E_ARGUMENT;
    }
    if (!what || cli_str(c, "model", NULL))
        return of_model(c, p, code);
    noema_status s = noema_preprocess_open(p, what, h, w, &err);
    if (s == NOEMA_E_ARGUMENT)
        *code = cli_usage(c, "--preprocess: %s%s", err.message, size ? "" : "; --size S gives one");
    else if (s != NOEMA_OK)
        *code = cli_fatal(c, &err);
    return s;
}

static int run(cli *c)
{
    noema_preprocess *p = NULL;
    cli_npy_out out = { 0 };
    noema_error err = NOEMA_ERROR_INIT;
    int code = CLI_USAGE;
    if (!c->n_inputs)
        return cli_usage(c, "expected pictures");
    if (open_rule(c, &p, &code) != NOEMA_OK)
        return code;
    bool ok = each(c, p, cli_flag(c, "u8"), cli_str(c, "out", NULL), &out, &err);
    if (!cli_npy_finish(&out, &err) || !ok)
        code = cli_fatal(c, &err);
    else
        code = cli_exit(c);
    noema_preprocess_free(p);
    return code;
}

const cli_verb cli_verb_inspect_pixels = {
    "inspect pixels", "the tensors that a model gets for pictures", "-m MODEL|--preprocess P [--size S|HxW] [--u8] [--out F.npy] IMAGE...",
    "Prints {\"input\",\"shape\",\"sha256\"} per picture: of f32 [3,H,W], or with --u8 of the bytes [H,W,3] before normalisation.",
    "noema inspect pixels photo.jpg", options, CLI_WITH_MODEL, run
};
