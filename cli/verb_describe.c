/* verb_describe.c - `noema describe`: the prompt that CLIP finds nearest to a picture (CLIP Interrogator). */
#define _GNU_SOURCE
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "noema/describe.h"

static const cli_option options[] = {
    { "mode", 0, CLI_STRING, "best|fast|classic|negative", "(best)" },
    { "caption", 0, CLI_STRING, "TEXT", "start from this text" },
    { "caption-model", 0, CLI_STRING, "MODEL", "start from the caption of this model (greedy, 32 new ids, no prompt)" },
    { "lists", 0, CLI_STRING, "DIR", "artists.txt, flavors.txt, mediums.txt, movements.txt, negative.txt (noema's own short lists)" },
    { "language", 0, CLI_STRING, "en|ko", "language of noema's own lists and of the words around names (en)" },
    { "max-flavors", 0, CLI_INT, "N", "phrases at the most (32; classic 3)" },
    { "min-flavors", 0, CLI_INT, "N", "steps that may make it worse (8)" },
    { "chunk-size", 0, CLI_INT, "N", "(2048)" },
    { "flavor-intermediate-count", 0, CLI_INT, "N", "phrases that best and negative choose from (2048)" },
    { "compat", 0, CLI_FLAG, NULL, "upstream's lossy ranking and its sign in negative mode" },
    { "analyze", 0, CLI_FLAG, NULL, "add the best 5 of each list" },
    { "cache", 0, CLI_STRING, "DIR", "read and write upstream's MODEL_TABLE.safetensors" },
    { "csv", 0, CLI_STRING, "FILE", "also write image,prompt as CSV; pictures that FILE has already are left out" },
    { "recursive", 'r', CLI_FLAG, NULL, "descend into folders" },
    { NULL, 0, CLI_FLAG, NULL, NULL }
};

typedef struct job {
    cli *c;
    noema_model *model, *caption_model;
    noema_session *s, *caption_session;
    noema_describer *d;
    noema_describe_mode mode;
    cli_csv csv;
    cli_progress bar;
    bool bar_open;
} job;

static int on_tables(void *user, size_t done, size_t total)
{
    job *j = user;
    if (!j->bar_open)
        cli_progress_begin(&j->bar, j->c, "labels", (int64_t)total);
    j->bar_open = true;
    cli_progress_set(&j->bar, (int64_t)done);
    return cli_interrupted();
}

static int open_caption_model(job *j)
{
    const char *name = cli_str(j->c, "caption-model", NULL), *caption = cli_str(j->c, "caption", NULL);
    noema_model_options o;
    noema_error err = NOEMA_ERROR_INIT;
    if (!name || (caption && caption[0]) || j->mode == NOEMA_DESCRIBE_NEGATIVE)
        return CLI_OK;
    if (!cli_model_options(j->c, &o))
        return CLI_USAGE;
    o.tokenizer = o.config = o.preprocess = NULL; /* those are CLIP's */
    o.image_height = o.image_width = o.activation = 0;
    if (noema_model_open(&j->caption_model, cli_context(j->c), name, &o, &err) != NOEMA_OK ||
        noema_session_create(&j->caption_session, j->caption_model, &err) != NOEMA_OK)
        return cli_fatal(j->c, &err);
    if (!(noema_model_tasks(j->caption_model) & NOEMA_TASK_CAPTION))
        return cli_usage(j->c, "--caption-model %s: this model does not caption", name);
    return CLI_OK;
}

static int open_all(job *j)
{
    noema_describer_options o;
    noema_error err = NOEMA_ERROR_INIT;
    int code = cli_open_model(j->c, &j->model, &j->s);
    if (code == CLI_OK)
        code = open_caption_model(j);
    if (code != CLI_OK)
        return code;
    noema_describer_options_default(&o);
    o.lists = cli_str(j->c, "lists", NULL);
    o.cache = cli_str(j->c, "cache", NULL);
    o.language = cli_str(j->c, "language", "en");
    o.model_name = cli_model_name(j->c);
    o.chunk_size = cli_small_int(j->c, "chunk-size", o.chunk_size);
    o.flavor_intermediate_count = cli_small_int(j->c, "flavor-intermediate-count", o.flavor_intermediate_count);
    o.compat = cli_flag(j->c, "compat");
    o.progress = on_tables;
    o.progress_user = j;
    noema_status s = noema_describer_create(&j->d, j->s, &o, &err);
    if (j->bar_open)
        cli_progress_end(&j->bar);
    return s == NOEMA_OK ? CLI_OK : s == NOEMA_E_ARGUMENT ? cli_usage(j->c, "%s", err.message) : cli_fatal(j->c, &err);
}

static bool put_analysis(job *j, const noema_picture *p, cli_buf *line, noema_error *err)
{
    noema_table_top top[NOEMA_DESCRIBE_TABLES];
    if (noema_describe_analyze(j->d, p, top, err) != NOEMA_OK)
        return false;
    cli_puts(line, ",\"analysis\":{");
    for (int i = 0; i < NOEMA_DESCRIBE_TABLES; i++) {
        cli_printf(line, "%s\"%s\":[", i ? "," : "", top[i].table);
        for (size_t k = 0; k < top[i].n; k++) {
            cli_puts(line, k ? ",{\"label\":" : "{\"label\":");
            cli_put_json(line, top[i].label[k]);
            cli_puts(line, ",\"score\":");
            cli_put_f32(line, top[i].score[k]);
            cli_puts(line, "}");
        }
        cli_puts(line, "]");
    }
    cli_puts(line, "}");
    return true;
}

/* The caption to start from, malloc'd; NULL with err when there is none. */
static char *caption_of(job *j, const noema_picture *p, noema_error *err)
{
    const char *given = cli_str(j->c, "caption", NULL);
    if ((given && given[0]) || j->mode == NOEMA_DESCRIBE_NEGATIVE || !j->caption_session)
        return cli_dup(given ? given : "");
    const noema_model_info *clip = noema_model_get_info(j->model), *own = noema_model_get_info(j->caption_model);
    if (p->tensor && (clip->image_height != own->image_height || clip->image_width != own->image_width)) {
        err->code = NOEMA_E_MISMATCH;
        snprintf(err->message, sizeof err->message, "a tensor [3,%d,%d] is for %s, the caption model takes [3,%d,%d]: give the picture, or --caption",
                 clip->image_height, clip->image_width, clip->name, own->image_height, own->image_width);
        return NULL;
    }
    noema_generate_options o;
    noema_generated g;
    noema_generate_options_default(&o);
    o.prompt = "";
    o.beams = 1;
    o.max_new = 32;
    o.min_length = 0; /* BLIP's own code asks for 10, transformers, which upstream uses, for none */
    if (noema_caption(j->caption_session, 1, p, &o, &g, NULL, err) != NOEMA_OK)
        return NULL;
    char *text = cli_dup(g.text);
    noema_generated_free(&g, 1);
    return text;
}

/* A row of an .npy file as the model gets it. */
static bool open_row(job *j, const cli_input *in, cli_npy *a, noema_picture *p, noema_error *err)
{
    const noema_model_info *info = noema_model_get_info(j->model);
    if (!cli_npy_open(a, in->path, err))
        return false;
    if (a->ndim != 4 || a->shape[1] != 3 || a->shape[2] != info->image_height || a->shape[3] != info->image_width || in->row >= a->shape[0]) {
        err->code = NOEMA_E_MISMATCH;
        snprintf(err->message, sizeof err->message, "expected f32 [n,3,%d,%d]", info->image_height, info->image_width);
        cli_npy_close(a);
        return false;
    }
    *p = (noema_picture){ .tensor = a->data + (size_t)in->row * a->row };
    return true;
}

static bool one(job *j, const cli_input *in, cli_buf *line, noema_error *err)
{
    noema_picture p = { .path = in->path };
    cli_npy a;
    bool rows = in->row >= 0;
    char *prompt = NULL;
    float score;
    if (rows && !open_row(j, in, &a, &p, err))
        return false;
    char *caption = caption_of(j, &p, err);
    bool ok = caption && noema_describe(j->d, &p, caption, j->mode, cli_small_int(j->c, "min-flavors", -1), cli_small_int(j->c, "max-flavors", -1), &prompt,
                                        &score, err) == NOEMA_OK;
    if (ok) {
        cli_puts(line, "{\"input\":");
        cli_put_json(line, in->name);
        cli_puts(line, ",\"prompt\":");
        cli_put_json(line, prompt);
        cli_puts(line, ",\"score\":");
        cli_put_f32(line, score);
        ok = !cli_flag(j->c, "analyze") || put_analysis(j, &p, line, err);
        cli_puts(line, "}");
    }
    if (ok && j->csv.f)
        cli_csv_row(&j->csv, (const char *const[]){ in->name, prompt }, 2);
    if (rows)
        cli_npy_close(&a);
    free(caption);
    free(prompt);
    return ok;
}

static void all_inputs(job *j)
{
    cli *c = j->c;
    cli_buf line = { 0 };
    cli_input in;
    cli_progress bar;
    int64_t seen = 0, skipped = 0;
    bool recursive = cli_flag(c, "recursive");
    cli_inputs *list = cli_inputs_open(c, c->inputs, c->n_inputs, recursive, CLI_IN_ROWS);
    cli_progress_begin(&bar, c, "images", c->err_tty && !c->quiet ? cli_inputs_count(c, c->inputs, c->n_inputs, recursive, CLI_IN_ROWS) : -1);
    while (cli_inputs_next(list, &in)) {
        noema_error err = NOEMA_ERROR_INIT;
        line.len = 0;
        if (j->csv.f && cli_csv_has(&j->csv, in.name)) {
            cli_input_free(&in);
            cli_progress_set(&bar, ++seen);
            skipped++;
            continue;
        }
        if (one(j, &in, &line, &err)) {
            cli_emit(&line);
            cli_flush(); /* a picture takes long: it is not kept back */
            c->n_done++;
        } else {
            line.len = 0;
            cli_failed(c, in.name, &err);
        }
        cli_input_free(&in);
        cli_progress_set(&bar, ++seen);
    }
    cli_progress_end(&bar);
    cli_inputs_close(list);
    cli_buf_free(&line);
    if (skipped)
        cli_say(c, "%lld pictures are in %s already", (long long)skipped, j->csv.path);
}

static int run(cli *c)
{
    static const char *const modes[] = { "best", "fast", "classic", "negative" };
    job j = { .c = c };
    const char *mode = cli_str(c, "mode", "best"), *csv = cli_str(c, "csv", NULL), *caption = cli_str(c, "caption", NULL);
    while (strcmp(modes[j.mode], mode))
        j.mode++;
    if (!c->n_inputs)
        return cli_usage(c, "expected pictures");
    if (j.mode != NOEMA_DESCRIBE_NEGATIVE && !(caption && caption[0]) && !cli_str(c, "caption-model", NULL))
        return cli_usage(c, "--mode %s needs a caption to start from: --caption TEXT or --caption-model MODEL", mode);
    int code = open_all(&j);
    if (code == CLI_OK && csv && !cli_csv_open(&j.csv, c, csv, "image,prompt"))
        code = CLI_NOTHING_DONE;
    if (code == CLI_OK) {
        all_inputs(&j);
        code = cli_exit(c);
    }
    if (!cli_csv_close(&j.csv)) {
        cli_warn(c, "%s: cannot write", csv);
        code = CLI_NOTHING_DONE;
    }
    noema_describer_free(j.d);
    noema_session_free(j.caption_session);
    noema_model_free(j.caption_model);
    noema_session_free(j.s);
    noema_model_free(j.model);
    return code;
}

const cli_verb cli_verb_describe = {
    "describe", "the prompt that CLIP finds nearest to a picture", "[options] -m CLIP --caption TEXT|--caption-model BLIP IMAGE...",
    "CLIP Interrogator: a caption and phrases from lists, chosen so that the cosine of prompt and picture rises. Prints\n"
    "{\"input\",\"prompt\",\"score\"}. negative needs no caption: it collects what the picture is not.",
    "noema describe --mode fast --caption \"a cat on a chair\" cat.jpg", options, CLI_WITH_MODEL, run
};
