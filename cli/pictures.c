/* pictures.c - see pictures.h. */
#include "pictures.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* .npy files stay mapped until all is done: pictures point into them. */
typedef struct mapped { char *path; cli_npy npy; } mapped;

typedef struct gathering {
    cli *c;
    const noema_model_info *info;
    mapped *files;
    size_t n_files, cap_files;
    noema_picture *pictures;
    char **names, **paths;
    size_t n, cap_pictures, cap_names, cap_paths;
} gathering;

static const cli_npy *map_file(gathering *g, const char *path, noema_error *err)
{
    for (size_t i = 0; i < g->n_files; i++)
        if (!strcmp(g->files[i].path, path))
            return &g->files[i].npy;
    cli_npy npy = { 0 };
    if (!cli_npy_open(&npy, path, err))
        return NULL;
    g->files = cli_grow(g->files, &g->cap_files, g->n_files + 1, sizeof *g->files);
    g->files[g->n_files] = (mapped){ cli_dup(path), npy };
    return &g->files[g->n_files++].npy;
}

static const float *tensor_of(gathering *g, const cli_input *in, noema_error *err)
{
    const cli_npy *a = map_file(g, in->path, err);
    int h = g->info->image_height, w = g->info->image_width;
    if (!a)
        return NULL;
    if (a->ndim == 4 && a->shape[1] == 3 && a->shape[2] == h && a->shape[3] == w && in->row < a->shape[0])
        return a->data + (size_t)in->row * a->row;
    err->code = NOEMA_E_MISMATCH;
    snprintf(err->message, sizeof err->message, "expected row %lld of f32 [n,3,%d,%d], got %d dimensions [%lld,%lld,%lld,%lld]", (long long)in->row, h, w,
             a->ndim, (long long)a->shape[0], (long long)a->shape[1], (long long)a->shape[2], (long long)a->shape[3]);
    return NULL;
}

static void add(gathering *g, cli_input *in)
{
    noema_error e = NOEMA_ERROR_INIT;
    noema_picture p = { 0 };
    if (in->row >= 0 && !(p.tensor = tensor_of(g, in, &e))) {
        cli_failed(g->c, in->name, &e);
        cli_input_free(in);
        return;
    }
    g->pictures = cli_grow(g->pictures, &g->cap_pictures, g->n + 1, sizeof *g->pictures);
    g->names = cli_grow(g->names, &g->cap_names, g->n + 1, sizeof *g->names);
    g->paths = cli_grow(g->paths, &g->cap_paths, g->n + 1, sizeof *g->paths);
    g->names[g->n] = in->name;
    g->paths[g->n] = in->path;
    if (in->row < 0)
        p.path = in->path;
    g->pictures[g->n++] = p;
}

static void forget(gathering *g)
{
    for (size_t i = 0; i < g->n; i++)
        cli_input_free(&(cli_input){ .name = g->names[i], .path = g->paths[i] });
    g->n = 0;
}

static bool flush(gathering *g, cli_pictures_fn *fn, void *user, noema_error *err)
{
    bool ok = !g->n || fn(user, g->n, g->pictures, (const char *const *)g->names, err);
    cli_flush(); /* what a killed job had finished is there, and a pipe's reader need not wait */
    forget(g);
    return ok;
}

bool cli_each_picture(cli *c, const noema_model_info *info, const char *const *args, size_t n, size_t batch, cli_pictures_fn *fn, void *user,
                      noema_error *err)
{
    gathering g = { .c = c, .info = info };
    bool ok = true, recursive = cli_flag(c, "recursive");
    cli_progress bar;
    cli_input in;
    int64_t seen = 0;
    cli_progress_begin(&bar, c, "images", c->err_tty && !c->quiet ? cli_inputs_count(c, args, n, recursive, CLI_IN_ROWS) : -1);
    cli_inputs *all = cli_inputs_open(c, args, n, recursive, CLI_IN_ROWS);
    while (ok && cli_inputs_next(all, &in)) {
        add(&g, &in);
        seen++;
        if (g.n == batch) {
            ok = flush(&g, fn, user, err);
            cli_progress_set(&bar, seen);
        }
    }
    if (ok && !cli_interrupted())
        ok = flush(&g, fn, user, err);
    forget(&g);
    cli_progress_end(&bar);
    cli_inputs_close(all);
    for (size_t i = 0; i < g.n_files; i++) {
        cli_npy_close(&g.files[i].npy);
        free(g.files[i].path);
    }
    free(g.files);
    free(g.pictures);
    free(g.names);
    free(g.paths);
    return ok;
}

/* ---- the options of caption and ask ---- */

static int release(const char *rule) { return !strcmp(rule, "4.15") ? 415 : !strcmp(rule, "4.33") ? 433 : !strcmp(rule, "5") ? 500 : 0; }

bool cli_generate_options(const cli *c, noema_generate_options *o)
{
    noema_generate_options_default(o);
    o->prompt = cli_str(c, "prompt", NULL);
    o->language = cli_str(c, "language", NULL);
    o->sample = cli_flag(c, "sample");
    o->beams = cli_flag(c, "greedy") ? 1 : cli_small_int(c, "beams", 0);
    o->top_p = cli_num(c, "top-p", 0);
    o->top_k = cli_small_int(c, "top-k", 0);
    o->temperature = cli_num(c, "temperature", 0);
    if (cli_str(c, "top-p", NULL) && o->top_p == 0)
        o->top_p = DBL_MIN; /* the likeliest id alone; 0 leaves it to the model */
    if (cli_str(c, "top-k", NULL) && !o->top_k)
        o->top_k = 1 << 20; /* all, as in transformers */
    o->seed = (uint64_t)cli_int(c, "seed", 0);
    o->max_length = cli_small_int(c, "max-length", -1);
    o->min_length = cli_small_int(c, "min-length", -1);
    o->max_new = cli_small_int(c, "max-new", -1);
    o->min_new = cli_small_int(c, "min-new", -1);
    o->repetition_penalty = cli_num(c, "repetition-penalty", 0);
    o->length_penalty = cli_num(c, "length-penalty", (double)NAN);
    o->early_stopping = cli_flag(c, "early-stopping") ? 1 : -1;
    o->n_best = cli_small_int(c, "n-best", 0);
    o->beam_rule = release(cli_str(c, "beam-rule", ""));
    if ((cli_flag(c, "greedy") + cli_flag(c, "sample") + (cli_str(c, "beams", NULL) != NULL)) > 1)
        return cli_usage(c, "--beams, --greedy and --sample exclude each other"), false;
    if (cli_str(c, "beams", NULL) && o->beams < 1)
        return cli_usage(c, "--beams: expected at least 1"), false;
    if (!o->sample && o->n_best > 1 && o->beams > 0 && o->n_best > o->beams)
        return cli_usage(c, "--n-best %d: expected at most the number of beams, %d", o->n_best, o->beams), false;
    if ((cli_str(c, "repetition-penalty", NULL) && !(o->repetition_penalty > 0)) || (cli_str(c, "temperature", NULL) && !(o->temperature > 0)))
        return cli_usage(c, "--repetition-penalty and --temperature are positive numbers"), false;
    if (o->top_p < 0 || o->top_p > 1)
        return cli_usage(c, "--top-p %g: expected a probability", o->top_p), false;
    if (cli_str(c, "n-best", NULL) && o->n_best < 1)
        return cli_usage(c, "--n-best: expected at least 1"), false;
    return true;
}

void cli_put_scored(cli_buf *b, const char *key, const char *what, const noema_scored_text *t, size_t n)
{
    cli_printf(b, ",\"%s\":[", key);
    for (size_t i = 0; i < n; i++) {
        cli_printf(b, "%s{\"%s\":", i ? "," : "", what);
        cli_put_json(b, t[i].text);
        cli_puts(b, ",\"score\":");
        cli_put_f32(b, t[i].score);
        cli_puts(b, "}");
    }
    cli_puts(b, "]");
}

int cli_need_task(const cli *c, const noema_model *m, unsigned task, const char *what)
{
    if (noema_model_tasks(m) & task)
        return CLI_OK;
    cli_warn(c, "%s: %s", noema_model_get_info(m)->name, what);
    return CLI_NOTHING_DONE;
}
