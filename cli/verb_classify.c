/* verb_classify.c - `noema classify`: zero-shot classes of pictures. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli.h"
#include "noema/train.h"

static const cli_option options[] = {
    { "labels", 'l', CLI_STRING, "\"a,b\"|FILE", "the classes: separated by commas, or a file with one per line" },
    { "templates", 0, CLI_STRING, "none|openai|flip|FILE", "none: the label alone; openai: its 80 for ImageNet; flip: the 7 of FLIP; a file: one per line, {} is the label" },
    { "head", 0, CLI_STRING, "FILE", "a classifier that finetune or probe made, instead of class vectors (that beside the model)" },
    { "top", 0, CLI_INT, "K", "print the K likeliest labels (default: all)" },
    { "recursive", 'r', CLI_FLAG, NULL, "take the files in folders" },
    { NULL, 0, CLI_FLAG, NULL, NULL }
};

typedef struct scored { float prob; size_t label; } scored;

static int by_prob(const void *a, const void *b)
{
    const scored *x = a, *y = b;
    return x->prob != y->prob ? (x->prob < y->prob ? 1 : -1) : (x->label > y->label) - (x->label < y->label);
}

typedef struct job { const cli_names *labels; const noema_head *head; const float *classes; size_t dim, vectors, top; float *probs; scored *order; cli_buf line; } job;

/* A picture with several vectors: each class takes the one that is nearest to it. */
static void classify_best(const job *j, const float *v, size_t n)
{
    float most = -INFINITY, sum = 0;
    for (size_t k = 0; k < n; k++) {
        double best = -INFINITY;
        for (size_t i = 0; i < j->vectors; i++) {
            double dot = 0;
            for (size_t d = 0; d < j->dim; d++)
                dot += (double)v[i * j->dim + d] * (double)j->classes[k * j->dim + d];
            best = dot > best ? dot : best;
        }
        j->probs[k] = 100.0f * (float)best;
        most = j->probs[k] > most ? j->probs[k] : most;
    }
    for (size_t k = 0; k < n; k++)
        sum += j->probs[k] = expf(j->probs[k] - most);
    for (size_t k = 0; k < n; k++)
        j->probs[k] /= sum;
}

static bool on_vector(void *user, const char *name, const float *v, noema_error *err)
{
    job *j = user;
    size_t n = j->labels->n;
    if (!v)
        return true;
    if (j->head)
        noema_head_apply(j->head, 1, v, j->probs);
    else if (j->vectors > 1)
        classify_best(j, v, n);
    else if (noema_classify(1, v, n, j->classes, j->dim, 100.0f, j->probs, err) != NOEMA_OK)
        return false;
    for (size_t i = 0; i < n; i++)
        j->order[i] = (scored){ j->probs[i], i };
    qsort(j->order, n, sizeof *j->order, by_prob);
    cli_puts(&j->line, "{\"input\":");
    cli_put_json(&j->line, name);
    cli_puts(&j->line, ",\"labels\":[");
    for (size_t i = 0; i < j->top; i++) {
        cli_puts(&j->line, i ? ",{\"label\":" : "{\"label\":");
        cli_put_json(&j->line, j->labels->item[j->order[i].label]);
        cli_puts(&j->line, ",\"prob\":");
        cli_put_f32(&j->line, j->order[i].prob);
        cli_puts(&j->line, "}");
    }
    cli_puts(&j->line, "]}");
    cli_emit(&j->line);
    return true;
}

static int classify_with_head(cli *c, noema_model *m, noema_session *s, const char *path, cli_names *labels)
{
    noema_error err = NOEMA_ERROR_INIT;
    noema_head *head = NULL;
    noema_model_info info = *noema_model_get_info(m);
    int64_t dim = 0, n = noema_head_open(&head, path, &err) == NOEMA_OK ? noema_head_classes(head, &dim) : 0;
    size_t cap = 0, top = (size_t)cli_int(c, "top", n);
    int code = CLI_NOTHING_DONE;
    info.embed_dim = noema_model_feature_dim(m); /* what a row of NOEMA_FEATURES holds */
    info.image_vectors = 1;
    for (int64_t k = 0; k < n && !cli_str(c, "labels", NULL); k++) {
        labels->item = cli_grow((void *)labels->item, &cap, labels->n + 1, sizeof *labels->item);
        labels->item[labels->n++] = noema_head_class(head, k);
    }
    job j = { .labels = labels, .head = head, .top = top && top < (size_t)n ? top : (size_t)n, .probs = cli_alloc((size_t)n + 1, sizeof(float)),
              .order = cli_alloc((size_t)n + 1, sizeof(scored)) };
    if (!n)
        code = cli_fatal(c, &err);
    else if (dim != info.embed_dim || labels->n != (size_t)n)
        cli_warn(c, "%s: a head of %lld classes on %lld features; the model has %d features, --labels %zu names", path, (long long)n, (long long)dim,
                 info.embed_dim, labels->n);
    else
        code = cli_embed_images(c, s, &info, NOEMA_FEATURES, c->inputs, c->n_inputs, on_vector, &j, &err) ? cli_exit(c) : cli_fatal(c, &err);
    cli_buf_free(&j.line);
    free(j.probs);
    free(j.order);
    noema_head_free(head);
    return code;
}

static int classify(cli *c, noema_session *s, const noema_model_info *info, const cli_names *labels, const cli_names *templates)
{
    noema_error err = NOEMA_ERROR_INIT;
    size_t n = labels->n, dim = (size_t)info->embed_dim, top = (size_t)cli_int(c, "top", (int64_t)n);
    float *classes = cli_alloc(n * dim, sizeof *classes);
    job j = { .labels = labels, .classes = classes, .dim = dim, .vectors = (size_t)info->image_vectors, .top = top && top < n ? top : n };
    int code;
    j.probs = cli_alloc(n, sizeof *j.probs);
    j.order = cli_alloc(n, sizeof *j.order);
    if (noema_class_vectors(s, n, labels->item, templates->n, templates->item, classes, &err) != NOEMA_OK ||
        !cli_embed_images(c, s, info, NOEMA_NORMALIZE, c->inputs, c->n_inputs, on_vector, &j, &err))
        code = cli_fatal(c, &err);
    else
        code = cli_exit(c);
    cli_buf_free(&j.line);
    free(classes);
    free(j.probs);
    free(j.order);
    return code;
}

static bool is_file(const char *path)
{
    struct stat st;
    return !stat(path, &st) && S_ISREG(st.st_mode);
}

/* --head, or the head.safetensors in the model's folder where no labels are given; malloc'd or NULL. */
static char *find_head(const cli *c)
{
    const char *head = cli_str(c, "head", NULL), *model = cli_str(c, "model", NULL);
    char *path = head ? cli_dup(head) : model && !cli_str(c, "labels", NULL) ? cli_text("%s/head.safetensors", model) : NULL;
    if (path && !head && !is_file(path)) {
        free(path);
        return NULL;
    }
    return path;
}

static int run(cli *c)
{
    cli_names labels = { 0 }, templates = { 0 };
    noema_model *m = NULL;
    noema_session *s = NULL;
    noema_error err = NOEMA_ERROR_INIT;
    const char *arg = cli_str(c, "labels", NULL);
    char *head = find_head(c);
    int code;
    if (!arg && !head)
        return cli_usage(c, "expected --labels \"a,b\" or a file");
    if (!c->n_inputs)
        code = cli_usage(c, "expected pictures");
    else if ((arg && !cli_names_labels(&labels, arg, &err)) || !cli_names_templates(&templates, cli_str(c, "templates", "none"), &err))
        code = cli_fatal(c, &err);
    else if (arg && !labels.n)
        code = cli_usage(c, "--labels: there is no label in '%s'", arg);
    else if ((code = cli_open_model(c, &m, &s)) == CLI_OK) {
        const noema_model_info *info = noema_model_get_info(m);
        if (head)
            code = classify_with_head(c, m, s, head, &labels);
        else if (info->has_image && info->has_text)
            code = classify(c, s, info, &labels, &templates);
        else {
            cli_warn(c, "%s: expected a model of pictures and texts, this one has no %s tower", info->name, info->has_image ? "text" : "image");
            code = CLI_NOTHING_DONE;
        }
    }
    noema_session_free(s);
    noema_model_free(m);
    cli_names_free(&labels);
    cli_names_free(&templates);
    free(head);
    return code;
}

const cli_verb cli_verb_classify = {
    "classify", "classes of pictures, zero-shot or by a trained head", "-m MODEL --labels \"a,b\"|FILE [--templates none|openai|flip|FILE] [--head FILE] [--top K] IMAGE...",
    "Prints {\"input\",\"labels\":[{\"label\",\"prob\"}...]}, likeliest first. prob is the softmax of 100 * cosine with the class vectors:\n"
    "template embeddings normalised, averaged, normalised again. IMAGE: files, folders with -r, - for a list on stdin, .npy tensors.\n"
    "With --head, or without --labels where the model's folder has a head.safetensors, prob is the softmax of that classifier.",
    "noema classify --labels \"a cat,a dog\" photo.jpg", options, CLI_WITH_MODEL, run
};
