/* inspect_activations.c - `noema inspect activations`: every named intermediate of a forward. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "noema/inspect.h"
#include "pictures.h"

static const cli_option options[] = {
    { "text", 't', CLI_LIST, "T", "a text" },
    { "text-file", 0, CLI_LIST, "FILE", "one text per line, kept as it is" },
    { "out", 'o', CLI_STRING, "FILE", "write the tensors, f32, as safetensors" },
    { "recursive", 'r', CLI_FLAG, NULL, "take the files in folders" },
    { NULL, 0, CLI_FLAG, NULL, NULL }
};

/* One tensor so far; the parts of several batches are stacked along dimension 0. */
typedef struct tensor { char *name; int ndim; int64_t shape[6]; float *data; size_t n, cap; } tensor;
typedef struct record { tensor *t; size_t n, cap; const char *only; /* names that begin with it; NULL: all */ } record;

static bool stacks(const tensor *t, int ndim, const int64_t *shape)
{
    return ndim == t->ndim && ndim > 0 && !memcmp(t->shape + 1, shape + 1, (size_t)(ndim - 1) * sizeof *shape);
}

/* The tensor `name`, or "name#2", ... when the shape of a later batch does not go on the first. */
static tensor *place(record *r, const char *name, int ndim, const int64_t *shape)
{
    char *full = cli_dup(name);
    for (int again = 2;; again++) {
        size_t i = 0;
        while (i < r->n && strcmp(r->t[i].name, full))
            i++;
        if (i == r->n) {
            r->t = cli_grow(r->t, &r->cap, r->n + 1, sizeof *r->t);
            r->t[r->n] = (tensor){ .name = full, .ndim = ndim };
            memcpy(r->t[r->n].shape, shape, (size_t)ndim * sizeof *shape);
            if (ndim)
                r->t[r->n].shape[0] = 0;
            return &r->t[r->n++];
        }
        if (stacks(&r->t[i], ndim, shape)) {
            free(full);
            return &r->t[i];
        }
        free(full);
        full = cli_text("%s#%d", name, again);
    }
}

static void on_tensor(void *user, const char *name, int ndim, const int64_t *shape, const float *data)
{
    const record *r = user;
    size_t n = 1;
    if (ndim > 6 || (r->only && strncmp(name, r->only, strlen(r->only))))
        return;
    for (int d = 0; d < ndim; d++)
        n *= (size_t)shape[d];
    tensor *t = place(user, name, ndim, shape);
    t->data = cli_grow(t->data, &t->cap, t->n + n, sizeof *t->data);
    memcpy(t->data + t->n, data, n * sizeof *data);
    t->n += n;
    if (ndim)
        t->shape[0] += shape[0];
}

static bool ignore(void *user, const char *name, const float *v, noema_error *err)
{
    (void)user, (void)name, (void)v, (void)err;
    return true;
}

static void print_tensor(cli *c, const tensor *t)
{
    cli_buf b = { 0 };
    double sum = 0;
    float least = INFINITY, most = -INFINITY;
    for (size_t i = 0; i < t->n; i++) {
        sum += t->data[i];
        least = t->data[i] < least ? t->data[i] : least;
        most = t->data[i] > most ? t->data[i] : most;
    }
    if (cli_tables(c)) {
        cli_printf(&b, "%-40s [", t->name);
        for (int d = 0; d < t->ndim; d++)
            cli_printf(&b, d ? ", %lld" : "%lld", (long long)t->shape[d]);
        cli_printf(&b, "]  min %.4g  mean %.4g  max %.4g", (double)least, sum / (double)t->n, (double)most);
    } else {
        cli_puts(&b, "{\"name\":");
        cli_put_json(&b, t->name);
        cli_puts(&b, ",\"shape\":[");
        for (int d = 0; d < t->ndim; d++)
            cli_printf(&b, d ? ",%lld" : "%lld", (long long)t->shape[d]);
        cli_puts(&b, "],\"min\":");
        cli_put_f32(&b, least);
        cli_puts(&b, ",\"mean\":");
        cli_put_f32(&b, (float)(sum / (double)t->n));
        cli_puts(&b, ",\"max\":");
        cli_put_f32(&b, most);
        cli_puts(&b, "}");
    }
    cli_emit(&b);
    cli_buf_free(&b);
}

static bool write_all(const record *r, const char *path, noema_error *err)
{
    noema_f32_tensor *t = cli_alloc(r->n, sizeof *t);
    for (size_t i = 0; i < r->n; i++) {
        t[i] = (noema_f32_tensor){ .name = r->t[i].name, .ndim = r->t[i].ndim, .data = r->t[i].data };
        memcpy(t[i].shape, r->t[i].shape, sizeof t[i].shape);
    }
    bool ok = noema_safetensors_write(path, r->n, t, err) == NOEMA_OK;
    free(t);
    return ok;
}

typedef struct joint { noema_session *s; const cli_texts *texts; } joint;

/* The pass of a matching head that looks at pictures and texts together. */
static bool on_pictures(void *user, size_t n, const noema_picture *pictures, const char *const *names, noema_error *err)
{
    const joint *j = user;
    noema_match_options o = { .struct_size = sizeof o, .head = 2 };
    float *scores = cli_alloc(2 * n * j->texts->n, sizeof *scores);
    noema_error *errors = cli_alloc(n, sizeof *errors);
    (void)names;
    bool ok = noema_match_pictures(j->s, n, pictures, j->texts->n, j->texts->text, j->texts->len, &o, scores, scores + n * j->texts->n, errors, err) == NOEMA_OK;
    free(errors);
    free(scores);
    return ok;
}

static int watch(cli *c, const noema_model *m, noema_session *s, const noema_model_info *info, const cli_texts *texts)
{
    record r = { 0 };
    noema_error err = NOEMA_ERROR_INIT;
    const char *out = cli_str(c, "out", NULL);
    noema_session_observe(s, on_tensor, &r);
    bool ok = (!texts->n || cli_embed_texts(c, s, info, 0, texts, 0, ignore, NULL, &err)) &&
              (!c->n_inputs || cli_embed_images(c, s, info, 0, c->inputs, c->n_inputs, ignore, NULL, &err));
    if (ok && texts->n && c->n_done > texts->n && noema_model_tasks(m) & NOEMA_TASK_ITM) {
        joint j = { s, texts };
        r.only = "multimodal.";
        ok = cli_each_picture(c, info, c->inputs, c->n_inputs, 16, on_pictures, &j, &err);
    }
    noema_session_observe(s, NULL, NULL);
    for (size_t i = 0; ok && i < r.n; i++)
        print_tensor(c, &r.t[i]);
    if (ok && out && r.n)
        ok = write_all(&r, out, &err);
    for (size_t i = 0; i < r.n; i++) {
        free(r.t[i].name);
        free(r.t[i].data);
    }
    free(r.t);
    return ok ? cli_exit(c) : cli_fatal(c, &err);
}

static int run(cli *c)
{
    noema_model *m = NULL;
    noema_session *s = NULL;
    cli_texts texts;
    int code;
    if (!cli_texts_read(c, &texts))
        code = CLI_NOTHING_DONE;
    else if (!texts.n && !c->n_inputs)
        code = cli_usage(c, "expected --text or pictures");
    else if ((code = cli_open_model(c, &m, &s)) == CLI_OK)
        code = watch(c, m, s, noema_model_get_info(m), &texts);
    noema_session_free(s);
    noema_model_free(m);
    cli_texts_free(&texts);
    return code;
}

const cli_verb cli_verb_inspect_activations = {
    "inspect activations", "every named intermediate of a forward", "-m MODEL [--text T]... [--text-file F] [IMAGE...] [--out F.safetensors]",
    "Prints {\"name\",\"shape\",\"min\",\"mean\",\"max\"} per tensor, named as in the checkpoint; inputs are stacked along the first dimension.\n"
    "Texts and pictures of a model with an ITM head (BLIP, BLIP-2) also show the pass that looks at both: multimodal.*",
    "noema inspect activations --text \"a photo of a cat\"", options, CLI_WITH_MODEL, run
};
