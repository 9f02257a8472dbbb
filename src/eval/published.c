/* published.c - the row of a model in a CSV of published figures: CLIP_benchmark's (a row per model and data set) or open_clip's (a column
 * per data set), and how far this run is from it. */
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/csv.h"
#include "base/file.h"
#include "eval/task.h"

#define CSV_LIMIT ((size_t)64 << 20)

typedef struct csv { char **head, **cell; int64_t n_head, n_cell; nm_csv text; } csv;

/* The next line into list; false: no more, or no memory. */
static bool next_line(csv *c, char ***list, int64_t *n)
{
    nm_strings_free(*list, *n);
    *list = NULL;
    *n = 0;
    if (c->text.p >= c->text.end)
        return false;
    for (int end = ','; end == ',';) {
        end = nm_csv_field(&c->text);
        char **q = nm_realloc_array(*list, (size_t)*n + 1, sizeof *q);
        if (q)
            *list = q;
        if (!q || c->text.field.failed || !(q[*n] = nm_strdup(c->text.field.data)))
            return false;
        ++*n;
    }
    return true;
}

static const char *cell(const csv *c, const char *column)
{
    for (int64_t i = 0; i < c->n_head && i < c->n_cell; i++)
        if (strcmp(c->head[i], column) == 0)
            return c->cell[i];
    return NULL;
}

/* Equal but for case, blanks, "-", "_", "/" and ".". */
static bool alike(const char *a, const char *b)
{
    for (;; a++, b++) {
        while (*a && !isalnum((unsigned char)*a))
            a++;
        while (*b && !isalnum((unsigned char)*b))
            b++;
        if (tolower((unsigned char)*a) != tolower((unsigned char)*b))
            return false;
        if (!*a)
            return true;
    }
}

/* The columns of open_clip's tables whose names say other than the data set's. */
static const struct { const char *dataset, *column, *metric; } columns[] = {
    { "imagenet1k", "ImageNet 1k", "acc1" }, { "imagenet", "ImageNet 1k", "acc1" }, { "imagenetv2", "ImageNet v2", "acc1" },
    { "imagenet_sketch", "ImageNet Sketch", "acc1" }, { "caltech101", "Caltech-101", "mean_per_class_recall" },
    { "fgvc_aircraft", "FGVC Aircraft", "mean_per_class_recall" }, { "flowers", "Oxford Flowers-102", "mean_per_class_recall" },
    { "pets", "Oxford-IIIT Pet", "mean_per_class_recall" }, { "dtd", "Describable Textures", "acc1" }, { "cars", "Stanford Cars", "acc1" },
    { "voc2007", "Pascal VOC 2007", "acc1" }, { "pcam", "PatchCamelyon", "acc1" }, { "renderedsst2", "Rendered SST2", "acc1" },
    { "clevr_count_all", "CLEVR Counts", "acc1" }, { "clevr_closest_object_distance", "CLEVR Distance", "acc1" },
    { "kitti_closest_vehicle_distance", "KITTI Vehicle Distance", "acc1" },
    { "flickr30k", "Flickr image retr. R@1", "image_retrieval_recall@1" }, { "flickr30k", "Flickr image retr. R@5", "image_retrieval_recall@5" },
    { "flickr30k", "Flickr image retr. R@10", "image_retrieval_recall@10" }, { "flickr30k", "Flickr text retr. R@1", "text_retrieval_recall@1" },
    { "flickr30k", "Flickr text retr. R@5", "text_retrieval_recall@5" }, { "flickr30k", "Flickr text retr. R@10", "text_retrieval_recall@10" },
    { "flickr30k", "Flickr", "mean_recall@1" },
    { "mscoco_captions", "MSCOCO image retr. R@1", "image_retrieval_recall@1" }, { "mscoco_captions", "MSCOCO image retr. R@5", "image_retrieval_recall@5" },
    { "mscoco_captions", "MSCOCO image retr. R@10", "image_retrieval_recall@10" }, { "mscoco_captions", "MSCOCO text retr. R@1", "text_retrieval_recall@1" },
    { "mscoco_captions", "MSCOCO text retr. R@5", "text_retrieval_recall@5" }, { "mscoco_captions", "MSCOCO text retr. R@10", "text_retrieval_recall@10" },
    { "mscoco_captions", "MSCOCO", "mean_recall@1" },
};

typedef struct comparison { nm_eval *e; json_t *metrics, *difference; } comparison;

static void compare(comparison *c, const char *metric, const char *text)
{
    const noema_metric *m;
    size_t n = noema_report_metrics(c->e->r, &m);
    char *end;
    double v = text ? strtod(text, &end) : NAN;
    if (!text || !*text || *end || !isfinite(v) || json_object_get(c->metrics, metric))
        return;
    for (size_t i = 0; i < n; i++)
        if (strcmp(m[i].name, metric) == 0 && isfinite(m[i].value)) {
            json_object_set_new(c->metrics, metric, json_real(v));
            json_object_set_new(c->difference, metric, json_real(m[i].value - v));
        }
}

static const char *last_part(const char *dataset)
{
    const char *slash = strrchr(dataset, '/');
    return slash ? slash + 1 : dataset;
}

/* A row of CLIP_benchmark: every metric that both have. */
static void long_row(comparison *c, const csv *t)
{
    for (int64_t i = 0; i < t->n_head && i < t->n_cell; i++)
        compare(c, t->head[i], t->cell[i]);
}

/* A row of open_clip: the columns of the data set. */
static void wide_row(comparison *c, const csv *t, const char *dataset)
{
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++)
        if (alike(columns[i].dataset, dataset))
            compare(c, columns[i].metric, cell(t, columns[i].column));
    for (int64_t i = 0; i < t->n_head && i < t->n_cell; i++)
        if (alike(t->head[i], dataset))
            compare(c, "acc1", t->cell[i]);
}

/* The row's "MODEL PRETRAINED". */
static char *row_name(const csv *t)
{
    const char *model = cell(t, "model"), *pretrained = cell(t, "pretrained");
    if (!model)
        model = cell(t, "name");
    return model ? nm_sprintf("%s %s", model, pretrained ? pretrained : "") : NULL;
}

static noema_status search(nm_eval *e, csv *t, const char *name, const char *dataset)
{
    comparison c = { e, json_object(), json_object() };
    char *row = NULL;
    bool found = false;
    while (c.metrics && c.difference && !found && next_line(t, &t->cell, &t->n_cell)) {
        const char *set = cell(t, "dataset");
        free(row);
        if (!(row = row_name(t)) || !alike(row, name) || (set && !alike(last_part(set), last_part(dataset)) && !alike(set, dataset)))
            continue;
        if (set)
            long_row(&c, t);
        else
            wide_row(&c, t, last_part(dataset));
        found = json_object_size(c.metrics) > 0;
    }
    if (found)
        nm_eval_report_set(e->r, "published", json_pack("{s:s,s:O,s:O}", "row", row, "metrics", c.metrics, "difference", c.difference));
    else
        nm_eval_report_set(e->r, "published", json_null());
    free(row);
    json_decref(c.metrics);
    json_decref(c.difference);
    return NOEMA_OK;
}

noema_status nm_eval_published(nm_eval *e)
{
    char *text = NULL, *name = NULL;
    size_t size = 0;
    csv t = { 0 };
    const char *model = noema_report_text(e->r, "model"), *pretrained = noema_report_text(e->r, "pretrained");
    noema_status s = nm_read_file(&text, &size, e->o.published, CSV_LIMIT, e->err);
    if (s == NOEMA_OK && !e->o.published_name && !model)
        s = nm_fail(e->err, NOEMA_E_ARGUMENT, "%s: say which row to compare with (--published-name \"MODEL PRETRAINED\")", e->o.published);
    if (s == NOEMA_OK && !e->o.dataset)
        s = nm_fail(e->err, NOEMA_E_ARGUMENT, "%s: say which data set this is (--dataset)", e->o.published);
    if (s == NOEMA_OK && !(name = e->o.published_name ? nm_strdup(e->o.published_name) : nm_sprintf("%s %s", model, pretrained ? pretrained : "")))
        s = nm_fail(e->err, NOEMA_E_MEMORY, "out of memory");
    if (s == NOEMA_OK) {
        t.text = (nm_csv){ .p = text, .end = text + size, .sep = ',', .line = 1 };
        if (!next_line(&t, &t.head, &t.n_head) || t.n_head < 3)
            s = nm_fail(e->err, NOEMA_E_FORMAT, "%s: expected a table with a header line", e->o.published);
    }
    if (s == NOEMA_OK)
        s = search(e, &t, name, e->o.dataset);
    nm_strings_free(t.head, t.n_head);
    nm_strings_free(t.cell, t.n_cell);
    nm_buf_free(&t.text.field);
    free(name);
    free(text);
    return s;
}
