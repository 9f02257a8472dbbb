/* task_zeroshot.c - classification by class vectors, or of scores that are there already (specs/evaluation.md, section 1). */
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "eval/task.h"

typedef struct zeroshot {
    nm_eval *e;
    int64_t n, classes;
    const int64_t *label;  /* [n] */
    const double *many;    /* [n, classes] of 0 and 1 instead: several classes a picture */
    int64_t *rank, *predicted;
    double *confidence;    /* softmax of the prediction */
    double *column;        /* several classes, or two: scores [classes, n] */
    float *scores;         /* [n, classes] for --predictions, or NULL */
    uint8_t *tied;
    double scale;
} zeroshot;

static void rows(void *arg, int64_t first, int64_t n, const double *scores, int worker)
{
    zeroshot *z = arg;
    (void)worker;
    for (int64_t r = 0; r < n; r++) {
        const double *s = scores + r * z->classes;
        int64_t i = first + r, best = nm_argmax(s, z->classes), ties = 0;
        double sum = 0;
        z->predicted[i] = best;
        if (z->label)
            z->rank[i] = nm_rank_of(s, z->classes, z->label[i], (nm_ties)z->e->o.ties, &ties);
        z->tied[i] = ties > 0;
        for (int64_t k = 0; k < z->classes; k++) {
            sum += exp(z->scale * (s[k] - s[best]));
            if (z->column)
                z->column[k * z->n + i] = s[k];
            if (z->scores)
                z->scores[i * z->classes + k] = (float)s[k];
        }
        z->confidence[i] = 1 / sum;
    }
}

/* ---- figures ---- */

typedef struct resample { const zeroshot *z; int64_t *label, *predicted; } resample;

static double recall_of(void *arg, int64_t n, const int64_t *drawn)
{
    resample *q = arg;
    for (int64_t i = 0; i < n; i++) {
        q->label[i] = q->z->label[drawn[i]];
        q->predicted[i] = q->z->predicted[drawn[i]];
    }
    return nm_mean_per_class_recall(n, q->z->classes, q->label, q->predicted, NULL, NULL);
}

static noema_status report_recall(zeroshot *z)
{
    nm_eval *e = z->e;
    double value = nm_mean_per_class_recall(z->n, z->classes, z->label, z->predicted, NULL, e->err);
    nm_interval ci = { NAN, NAN };
    noema_status s = NOEMA_OK;
    if (e->o.bootstrap > 0) {
        resample q = { .z = z, .label = nm_malloc_array((size_t)z->n + 1, sizeof(int64_t)), .predicted = nm_malloc_array((size_t)z->n + 1, sizeof(int64_t)) };
        s = q.label && q.predicted ? nm_bootstrap(&ci, z->n, e->o.bootstrap, e->o.seed, recall_of, &q, e->err)
                                   : nm_fail(e->err, NOEMA_E_MEMORY, "out of memory: bootstrap");
        free(q.label);
        free(q.predicted);
    }
    nm_eval_report_metric(e->r, "mean_per_class_recall", value, &ci);
    return s;
}

static noema_status report_topk(zeroshot *z, const char *name, int64_t k)
{
    double *hit = nm_malloc_array((size_t)z->n + 1, sizeof *hit);
    if (!hit)
        return nm_fail(z->e->err, NOEMA_E_MEMORY, "out of memory: %lld pictures", (long long)z->n);
    for (int64_t i = 0; i < z->n; i++)
        hit[i] = z->rank[i] < k;
    noema_status s = nm_eval_share(z->e, name, z->n, hit);
    free(hit);
    return s;
}

/* One class a picture. */
static noema_status single(zeroshot *z)
{
    nm_eval *e = z->e;
    uint8_t *right = nm_malloc_array((size_t)z->n + 1, 1);
    int64_t ties = 0;
    if (!right)
        return nm_fail(e->err, NOEMA_E_MEMORY, "out of memory: %lld pictures", (long long)z->n);
    for (int64_t i = 0; i < z->n; i++) {
        right[i] = z->predicted[i] == z->label[i];
        ties += z->tied[i];
    }
    nm_eval_report_count(e->r, "ties", ties);
    noema_status s = report_topk(z, "acc1", 1);
    if (s == NOEMA_OK && z->classes >= 5)
        s = report_topk(z, "acc5", 5);
    for (size_t i = 0; s == NOEMA_OK && i < e->o.n_k; i++)
        if (e->o.k[i] != 1 && e->o.k[i] != 5 && e->o.k[i] < z->classes)
            s = report_topk(z, nm_eval_name("acc", e->o.k[i]), e->o.k[i]);
    if (s == NOEMA_OK)
        s = report_recall(z);
    nm_eval_report_metric(e->r, "macro_f1", nm_macro_f1(z->n, z->classes, z->label, z->predicted, e->err), NULL);
    nm_eval_report_metric(e->r, "calibration_error", nm_calibration_error(z->n, z->confidence, right, 15), NULL);
    if (z->classes == 2) {
        for (int64_t i = 0; i < z->n; i++)
            right[i] = z->label[i] == 1;
        nm_eval_report_metric(e->r, "roc_auc", nm_roc_auc(z->n, z->column + z->n, right, e->err), NULL);
    }
    free(right);
    return s;
}

/* Several classes a picture: mean over all classes, those without positives count 0. */
static noema_status multiple(zeroshot *z)
{
    nm_eval *e = z->e;
    uint8_t *positive = nm_malloc_array((size_t)z->n + 1, 1);
    double sum = 0, sum_11 = 0;
    json_t *each = json_array();
    if (!positive || !each) {
        free(positive);
        json_decref(each);
        return nm_fail(e->err, NOEMA_E_MEMORY, "out of memory: %lld pictures", (long long)z->n);
    }
    for (int64_t k = 0; k < z->classes; k++) {
        for (int64_t i = 0; i < z->n; i++)
            positive[i] = z->many[i * z->classes + k] > 0;
        double ap = nm_average_precision(z->n, z->column + k * z->n, positive, e->err);
        sum += ap;
        sum_11 += nm_average_precision_11(z->n, z->column + k * z->n, positive, e->err);
        json_array_append_new(each, json_real(ap));
    }
    free(positive);
    nm_eval_report_metric(e->r, "mean_average_precision", sum / (double)z->classes, NULL);
    nm_eval_report_metric(e->r, "mean_average_precision_11", sum_11 / (double)z->classes, NULL);
    nm_eval_report_set(e->r, "average_precision", each);
    return isnan(sum) ? e->err->code : NOEMA_OK;
}

static bool reserve(zeroshot *z)
{
    size_t n = (size_t)z->n + 1, all;
    if (!nm_mul_size(n, (size_t)z->classes, &all))
        return false;
    z->rank = nm_malloc_array(n, sizeof *z->rank);
    z->predicted = nm_malloc_array(n, sizeof *z->predicted);
    z->confidence = nm_malloc_array(n, sizeof *z->confidence);
    z->tied = calloc(n, 1);
    if (z->many || z->classes == 2)
        z->column = nm_malloc_array(all, sizeof *z->column);
    if (z->e->o.predictions)
        z->scores = nm_malloc_array(all, sizeof *z->scores);
    return z->rank && z->predicted && z->confidence && z->tied && (z->column || !(z->many || z->classes == 2)) && (z->scores || !z->e->o.predictions);
}

/* Scores from vectors (images and classes) or given ones; keep[i]: the picture's number for the predictions. */
static noema_status measure(zeroshot *z, const nm_vectors *images, const nm_vectors *classes, const double *given)
{
    nm_eval *e = z->e;
    noema_status s = NOEMA_OK;
    for (int64_t i = 0; z->label && i < z->n && s == NOEMA_OK; i++)
        if (z->label[i] < 0 || z->label[i] >= z->classes)
            s = nm_fail(e->err, NOEMA_E_MISMATCH, "picture %lld has label %lld, there are %lld classes", (long long)i, (long long)z->label[i], (long long)z->classes);
    if (s == NOEMA_OK && !reserve(z))
        s = nm_fail(e->err, NOEMA_E_MEMORY, "out of memory: %lld pictures, %lld classes", (long long)z->n, (long long)z->classes);
    if (s == NOEMA_OK && given)
        for (int64_t i = 0; i < z->n; i++)
            rows(z, i, 1, given + i * z->classes, 0);
    else if (s == NOEMA_OK)
        s = nm_scores(e->pool, images, classes, rows, z, e->err);
    if (s == NOEMA_OK) {
        nm_eval_report_count(e->r, "n", z->n);
        nm_eval_report_count(e->r, "classes", z->classes);
        nm_eval_report_set(e->r, "chance", json_real(1 / (double)z->classes));
        s = z->many ? multiple(z) : single(z);
    }
    if (s == NOEMA_OK && z->scores)
        s = nm_eval_save(e, e->o.predictions, NM_F32, z->scores, z->n, z->classes);
    free(z->rank);
    free(z->predicted);
    free(z->confidence);
    free(z->column);
    free(z->scores);
    free(z->tied);
    return s;
}

/* ---- labels of data sets against a list of names ---- */

static bool is_number(const char *s)
{
    size_t n = strspn(s, "0123456789");
    return n && n < 10 && !s[n];
}

static int64_t find(char *const *names, int64_t n, const char *name)
{
    for (int64_t i = 0; i < n; i++)
        if (names[i] && strcmp(names[i], name) == 0)
            return i;
    return -1;
}

static int by_name(const void *a, const void *b) { return strcmp(**(char *const *const *)a, **(char *const *const *)b); }

/* Which name each of the data's classes has: that of its WordNet number; the same word; a number that is its name; else the data's own numbers,
 * or, where it has none, the order of its names (of folders). */
static noema_status match_names(nm_eval *e, const nm_pictures *p, const nm_prompts *names, int64_t *number)
{
    bool wnids = names->wnid != NULL, same = true, numbers = true, ordered = !p->numbered;
    for (int64_t k = 0; k < p->classes; k++) {
        wnids = wnids && find(names->wnid, names->n_names, p->label_name[k]) >= 0;
        same = same && find(names->name, names->n_names, p->label_name[k]) >= 0;
        numbers = numbers && is_number(p->label_name[k]) && atoll(p->label_name[k]) < names->n_names;
    }
    if (!wnids && !same && !numbers && p->classes != names->n_names)
        return nm_fail(e->err, NOEMA_E_MISMATCH, "%lld class names for %lld classes; '%s' is none of the names", (long long)names->n_names, (long long)p->classes,
                       p->label_name[0]);
    for (int64_t k = 0; k < p->classes; k++)
        number[k] = wnids ? find(names->wnid, names->n_names, p->label_name[k]) : same ? find(names->name, names->n_names, p->label_name[k])
                  : numbers ? atoll(p->label_name[k]) : k;
    nm_eval_report_set(e->r, "class_order", json_string(wnids ? "wnids" : same ? "names" : numbers || !ordered ? "numbers" : "sorted names"));
    if (wnids || same || numbers || !ordered)
        return NOEMA_OK;
    char ***order = nm_malloc_array((size_t)p->classes, sizeof *order);
    if (!order)
        return nm_fail(e->err, NOEMA_E_MEMORY, "out of memory: %lld classes", (long long)p->classes);
    for (int64_t k = 0; k < p->classes; k++)
        order[k] = &p->label_name[k];
    qsort(order, (size_t)p->classes, sizeof *order, by_name);
    for (int64_t k = 0; k < p->classes; k++)
        number[order[k] - p->label_name] = k;
    free(order);
    return NOEMA_OK;
}

/* The data's own names, "_" as a space. */
static noema_status own_names(nm_eval *e, const nm_pictures *p, nm_prompts *names)
{
    if (!p->label_name)
        return nm_fail(e->err, NOEMA_E_ARGUMENT, "the labels are numbers: give the names of the %lld classes (--classes, or --prompts and --dataset)",
                       (long long)p->classes);
    names->name = calloc((size_t)p->classes, sizeof *names->name);
    for (int64_t k = 0; names->name && k < p->classes; k++) {
        if (!(names->name[k] = nm_strdup(p->label_name[k])))
            return nm_fail(e->err, NOEMA_E_MEMORY, "out of memory: class names");
        names->n_names++;
        for (char *c = names->name[k]; *c; c++)
            *c = *c == '_' ? ' ' : *c;
    }
    return names->name ? NOEMA_OK : nm_fail(e->err, NOEMA_E_MEMORY, "out of memory: class names");
}

static noema_status map_labels(nm_eval *e, nm_pictures *p, nm_prompts *names)
{
    if (!p->label)
        return nm_fail(e->err, NOEMA_E_FORMAT, "%s: its pictures have no labels", e->o.n_data ? e->o.data[0] : "data");
    if (!names->n_names)
        return own_names(e, p, names);
    if (!p->label_name)
        return NOEMA_OK;
    int64_t *number = nm_malloc_array((size_t)p->classes + 1, sizeof *number);
    noema_status s = number ? match_names(e, p, names, number) : nm_fail(e->err, NOEMA_E_MEMORY, "out of memory: classes");
    for (int64_t i = 0; s == NOEMA_OK && i < p->n; i++)
        p->label[i] = p->label[i] < 0 ? -1 : number[p->label[i]];
    free(number);
    return s;
}

/* ---- where the vectors come from ---- */

static noema_status from_data(nm_eval *e)
{
    nm_pictures p = { 0 };
    nm_prompts names = { 0 };
    nm_vectors images = { 0 }, classes = { 0 };
    zeroshot z = { .e = e };
    noema_status s = nm_eval_need_model(e, true, !e->o.texts);
    if (s == NOEMA_OK)
        s = nm_pictures_open(e, &p, e->o.data, e->o.n_data);
    if (s == NOEMA_OK)
        s = nm_prompts_read(&names, &e->o, e->err);
    if (s == NOEMA_OK && !(e->o.texts && !names.n_names && !p.label_name))
        s = map_labels(e, &p, &names);
    if (s == NOEMA_OK)
        s = e->o.texts ? nm_eval_vectors(e, e->o.texts, &classes) : nm_eval_class_vectors(e, &names, &classes);
    if (s == NOEMA_OK)
        s = nm_eval_embed_pictures(e, &p, NOEMA_NORMALIZE, &images);
    if (s == NOEMA_OK) {
        double own = noema_model_get_info(e->session->model)->logit_scale;
        z.scale = e->o.logit_scale > 0 ? e->o.logit_scale : own > 1 ? own : 100;
        z.n = nm_eval_drop_bad(&p, &images, p.label, NULL);
        z.classes = classes.n;
        z.label = p.label;
        if (!e->o.texts)
            nm_eval_report_count(e->r, "templates", names.n_texts ? names.n_texts : 1);
        s = z.n ? measure(&z, &images, &classes, NULL) : nm_fail(e->err, NOEMA_E_FORMAT, "none of the %lld pictures could be read", (long long)p.n);
    }
    nm_vectors_free(&images);
    nm_vectors_free(&classes);
    nm_prompts_free(&names);
    nm_pictures_free(&p);
    return s;
}

/* labels [n], or [n, classes] of 0 and 1. */
static noema_status read_labels(zeroshot *z, int64_t **label, double **many)
{
    nm_eval *e = z->e;
    double *x;
    int ndim = 0;
    int64_t shape[3];
    noema_status s = nm_eval_array(e, e->o.labels, &x, &ndim, shape);
    if (s != NOEMA_OK)
        return s;
    if (shape[0] != z->n || ndim > 2 || (ndim == 2 && shape[1] != z->classes))
        s = nm_fail(e->err, NOEMA_E_MISMATCH, "%s: expected labels [%lld] or [%lld, %lld], got [%lld, %lld]", e->o.labels, (long long)z->n, (long long)z->n,
                    (long long)z->classes, (long long)shape[0], (long long)shape[1]);
    if (s == NOEMA_OK && ndim == 2) {
        z->many = *many = x;
        return s;
    }
    free(x);
    if (s == NOEMA_OK)
        s = nm_eval_integers(e, e->o.labels, label, &z->n);
    z->label = *label;
    return s;
}

static noema_status from_files(nm_eval *e)
{
    nm_vectors images = { 0 }, classes = { 0 };
    nm_prompts names = { 0 };
    int64_t *label = NULL, shape[3] = { 0 };
    double *many = NULL, *given = NULL;
    zeroshot z = { .e = e, .scale = e->o.logit_scale > 0 ? e->o.logit_scale : e->o.scores ? 1 : 100 };
    noema_status s = e->o.labels ? NOEMA_OK : nm_fail(e->err, NOEMA_E_ARGUMENT, "expected the labels of the vectors or scores (--labels)");
    if (s == NOEMA_OK && e->o.scores) {
        s = nm_eval_scores(e, "[n, classes]", &given, shape);
        z.n = shape[0];
        z.classes = shape[1];
    } else if (s == NOEMA_OK) {
        s = nm_eval_vectors(e, e->o.images, &images);
        if (s == NOEMA_OK && !e->o.texts)
            s = nm_prompts_read(&names, &e->o, e->err);
        if (s == NOEMA_OK)
            s = e->o.texts ? nm_eval_vectors(e, e->o.texts, &classes) : nm_eval_class_vectors(e, &names, &classes);
        z.n = images.n;
        z.classes = classes.n;
    }
    if (s == NOEMA_OK)
        s = read_labels(&z, &label, &many);
    if (s == NOEMA_OK)
        s = measure(&z, &images, &classes, given);
    free(label);
    free(many);
    free(given);
    nm_prompts_free(&names);
    nm_vectors_free(&images);
    nm_vectors_free(&classes);
    return s;
}

noema_status nm_eval_zeroshot(nm_eval *e)
{
    if (e->o.scores || e->o.images)
        return from_files(e);
    if (e->o.n_data)
        return from_data(e);
    return nm_fail(e->err, NOEMA_E_ARGUMENT, "expected pictures with labels (--data), vectors (--images) or scores (--scores)");
}
