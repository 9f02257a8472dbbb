/* verb_bench.c - `noema bench`: pictures and texts per second of a model on this machine, beside the most that its multiply-adds
 * allow. Pictures are tensors in memory: decoding is not in the figures. */
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "noema/inspect.h"

static const cli_option options[] = {
    { "dtypes", 0, CLI_STRING, "LIST", "compute types, separated by commas (default: f32,bf16,int8, or the one of --dtype)" },
    { "seconds", 0, CLI_NUMBER, "S", "how long each case runs (default 2)" },
    { NULL, 0, CLI_FLAG, NULL, NULL }
};

/* About a dozen ids in CLIP's vocabulary, as captions have. */
static const char caption[] = "a photo of a small dog that runs over the grass";

typedef struct result { double images, texts, image_ops, text_ops, peak; int n_tokens; } result;

typedef struct work { noema_session *s; size_t n; const float *tensors; const char **texts; float *out; } work;

static bool images_once(work *w, noema_error *err) { return noema_embed_tensors(w->s, w->n, w->tensors, NOEMA_NORMALIZE | NOEMA_ALL_VECTORS, w->out, err) == NOEMA_OK; }
static bool texts_once(work *w, noema_error *err) { return noema_embed_texts(w->s, w->n, w->texts, NULL, NOEMA_NORMALIZE, w->out, err) == NOEMA_OK; }

/* The best rate of many calls after one to warm up; negative: a call failed. */
static double rate(work *w, bool (*once)(work *, noema_error *), double seconds, noema_error *err)
{
    double best = 0, end;
    if (!once(w, err))
        return -1;
    end = cli_now() + seconds;
    do {
        double t = cli_now();
        if (!once(w, err))
            return -1;
        t = (double)w->n / (cli_now() - t);
        best = t > best ? t : best;
    } while (cli_now() < end && !cli_interrupted());
    return best;
}

static int tokens_of(noema_model *m)
{
    noema_error err = NOEMA_ERROR_INIT;
    const int32_t *ids;
    size_t n = 0;
    const noema_tokenizer *t = noema_model_tokenizer(m, &err);
    noema_tokenizer_scratch *s = t ? noema_tokenizer_scratch_new(t) : NULL;
    if (s && noema_tokenizer_encode(t, s, caption, strlen(caption), &ids, &n, &err) != NOEMA_OK)
        n = 0;
    noema_tokenizer_scratch_free(s);
    return (int)n;
}

static bool measure(cli *c, noema_model *m, noema_session *s, result *r, noema_error *err)
{
    const noema_model_info *i = noema_model_get_info(m);
    double seconds = cli_num(c, "seconds", 2);
    size_t n = (size_t)cli_batch(c, 32), pixels = 3 * (size_t)i->image_height * (size_t)i->image_width;
    work w = { .s = s, .n = n };
    *r = (result){ .n_tokens = i->has_text ? tokens_of(m) : 0 };
    float *x = cli_alloc(n * (i->has_image ? pixels : 1), sizeof *x);
    w.tensors = x;
    w.texts = cli_alloc(n, sizeof *w.texts);
    w.out = cli_alloc(n * cli_image_floats(i), sizeof *w.out);
    for (size_t k = 0; k < n; k++)
        w.texts[k] = caption;
    for (size_t k = 0; i->has_image && k < n * pixels; k++)
        x[k] = (float)(k * 2654435761u >> 8 & 0xFFFF) / 32768.0f - 1.0f;
    noema_model_operations(m, r->n_tokens, &r->image_ops, &r->text_ops);
    if (i->has_image)
        r->images = rate(&w, images_once, seconds, err);
    if (r->n_tokens && r->images >= 0)
        r->texts = rate(&w, texts_once, seconds, err);
    r->peak = noema_context_peak(c->ctx, i->dtype);
    free(x);
    free((void *)w.texts);
    free(w.out);
    return r->images >= 0 && r->texts >= 0;
}

static void put_side(cli_buf *b, bool table, const char *what, double per_second, double ops, double peak)
{
    double flops = per_second * ops;
    if (table) {
        cli_printf(b, "  %s %8.1f/s", what, per_second);
        if (ops > 0)
            cli_printf(b, " %7.1f GFLOP/s %3.0f %%", flops * 1e-9, peak > 0 ? 100 * flops / peak : 0);
    } else {
        cli_printf(b, ",\"%s_per_s\":%.4g", what, per_second);
        if (ops > 0)
            cli_printf(b, ",\"%s_gflops\":%.4g,\"%s_share_of_peak\":%.3f", what, flops * 1e-9, what, peak > 0 ? flops / peak : 0);
    }
}

static void print_result(cli *c, const noema_model_info *i, const char *dtype, const result *r)
{
    cli_buf b = { 0 };
    bool table = cli_tables(c);
    if (table)
        cli_printf(&b, "%-5s", dtype);
    else {
        cli_puts(&b, "{\"model\":");
        cli_put_json(&b, i->name);
        cli_printf(&b, ",\"dtype\":\"%s\",\"cpu\":\"%s\",\"threads\":%d,\"batch\":%d,\"tokens\":%d,\"peak_gflops\":%.4g", dtype, noema_context_cpu(c->ctx),
                   noema_context_threads(c->ctx), cli_batch(c, 32), r->n_tokens, r->peak * 1e-9);
    }
    if (i->has_image)
        put_side(&b, table, "images", r->images, r->image_ops, r->peak);
    if (r->n_tokens)
        put_side(&b, table, "texts", r->texts, r->text_ops, r->peak);
    cli_puts(&b, table ? "" : "}");
    if (table)
        cli_printf(&b, "  of %.0f", r->peak * 1e-9);
    cli_emit(&b);
    cli_buf_free(&b);
}

/* One compute type: the named model, or ViT-B-32 with drawn weights, since speed does not depend on them. */
static int one(cli *c, const char *name, const char *dtype)
{
    static const char *const names[] = { "auto", "f32", "bf16", "f16", "int8" };
    noema_model_options o;
    noema_model *m = NULL;
    noema_session *s = NULL;
    noema_error err = NOEMA_ERROR_INIT;
    result r;
    int d = 0;
    while (d < 5 && strcmp(names[d], dtype))
        d++;
    if (d == 5)
        return cli_usage(c, "--dtypes: expected some of f32, bf16, f16, int8, got '%s'", dtype);
    if (!cli_model_options(c, &o))
        return CLI_USAGE;
    o.dtype = (noema_dtype)d;
    noema_status st = name ? noema_model_open(&m, c->ctx, name, &o, &err) : noema_model_new(&m, c->ctx, "ViT-B-32", NULL, 1, &o, &err);
    bool ok = st == NOEMA_OK && noema_session_create(&s, m, &err) == NOEMA_OK && measure(c, m, s, &r, &err);
    if (ok) {
        print_result(c, noema_model_get_info(m), names[noema_model_get_info(m)->dtype], &r);
        c->n_done++;
    } else
        cli_failed(c, dtype, &err);
    noema_session_free(s);
    noema_model_free(m);
    return CLI_OK;
}

static int run(cli *c)
{
    const char *name = cli_str(c, "model", NULL);
    char *list = cli_dup(cli_str(c, "dtypes", cli_str(c, "dtype", "f32,bf16,int8")));
    int code = CLI_OK;
    if (!cli_context(c)) {
        free(list);
        return CLI_NOTHING_DONE;
    }
    cli_say(c, "%s, %s, %d thread%s, batches of %d; best of many calls", name ? name : "ViT-B-32 with drawn weights", noema_context_cpu(c->ctx),
            noema_context_threads(c->ctx), noema_context_threads(c->ctx) > 1 ? "s" : "", cli_batch(c, 32));
    for (char *d = strtok(list, ","); d && code == CLI_OK && !cli_interrupted(); d = strtok(NULL, ","))
        code = one(c, name, d);
    free(list);
    return code ? code : cli_exit(c);
}

const cli_verb cli_verb_bench = {
    "bench", "how fast a model runs on this machine", "[-m MODEL] [--dtypes f32,bf16,int8] [--batch N] [--threads N] [--seconds S]",
    "Pictures (tensors in memory) and texts per second, the rate of their products and its share of what multiply-adds from registers\n"
    "reach on all threads. Without a model: ViT-B-32 with drawn weights; its texts need --tokenizer bpe_simple_vocab_16e6.txt.gz.",
    "noema bench --seconds 1", options, CLI_WITH_MODEL | CLI_NO_INPUTS, run
};
