/* task_neighbours.c - classes from training rows: k nearest neighbours, or logistic regression (specs/evaluation.md, section 3). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "eval/task.h"
#include "train/softmax.h"

enum { FIT_ITERATIONS = 10000 };
#define README_C 0.316 /* of CLIP's own example */

typedef struct part { nm_vectors x; int64_t *label; nm_pictures p; } part;

static void part_free(part *a)
{
    nm_vectors_free(&a->x);
    nm_pictures_free(&a->p);
    free(a->label);
}

/* Probes take the rows as they are; neighbours unit vectors unless Euclidean. */
static noema_status from_files(nm_eval *e, bool probe, const char *rows, const char *labels, part *a)
{
    int64_t n = 0;
    int keep = e->o.no_normalize;
    if (!labels)
        return nm_fail(e->err, NOEMA_E_ARGUMENT, "%s: its labels are missing (--labels, --train-labels)", rows);
    e->o.no_normalize = probe || e->o.euclid || keep;
    noema_status s = nm_eval_vectors(e, rows, &a->x);
    e->o.no_normalize = keep;
    if (s == NOEMA_OK)
        s = nm_eval_integers(e, labels, &a->label, &n);
    if (s == NOEMA_OK && n != a->x.n)
        s = nm_fail(e->err, NOEMA_E_MISMATCH, "%s: expected %lld labels, got %lld", labels, (long long)a->x.n, (long long)n);
    return s;
}

static noema_status from_data(nm_eval *e, bool probe, const char *const *data, size_t n, part *a)
{
    noema_status s = nm_pictures_open(e, &a->p, data, n);
    if (s == NOEMA_OK && !a->p.label)
        s = nm_fail(e->err, NOEMA_E_FORMAT, "%s: its pictures have no labels", data[0]);
    if (s == NOEMA_OK)
        s = nm_eval_embed_pictures(e, &a->p, probe ? NOEMA_FEATURES : NOEMA_NORMALIZE, &a->x);
    if (s == NOEMA_OK) {
        a->label = a->p.label;
        a->p.label = NULL;
        nm_eval_drop_bad(&a->p, &a->x, a->label, NULL);
    }
    if (s == NOEMA_OK && a->x.n < 1)
        s = nm_fail(e->err, NOEMA_E_FORMAT, "%s: none of its pictures could be read", data[0]);
    return s;
}

/* Names decide where both have them: the test's numbers become the training's. */
static noema_status match(nm_eval *e, const part *train, part *test, int64_t *classes)
{
    for (int64_t i = 0; test->p.label_name && train->p.label_name && i < test->x.n; i++) {
        int64_t k = 0;
        const char *name = test->label[i] >= 0 ? test->p.label_name[test->label[i]] : "";
        while (k < train->p.classes && strcmp(train->p.label_name[k], name) != 0)
            k++;
        if (k == train->p.classes)
            return nm_fail(e->err, NOEMA_E_MISMATCH, "class '%s' of the test data is none of the training data's", name);
        test->label[i] = k;
    }
    *classes = 0;
    for (int side = 0; side < 2; side++) {
        const part *a = side ? test : train;
        for (int64_t i = 0; i < a->x.n; i++) {
            if (a->label[i] < 0 || a->label[i] >= 1 << 16)
                return nm_fail(e->err, NOEMA_E_MISMATCH, "label %lld: expected class numbers from 0 to 65535", (long long)a->label[i]);
            *classes = a->label[i] >= *classes ? a->label[i] + 1 : *classes;
        }
    }
    return NOEMA_OK;
}

static noema_status report(nm_eval *e, const part *test, int64_t classes, const int64_t *predicted, const char *prefix)
{
    double *hit = nm_malloc_array((size_t)test->x.n + 1, sizeof *hit);
    if (!hit)
        return nm_fail(e->err, NOEMA_E_MEMORY, "out of memory: %lld rows", (long long)test->x.n);
    for (int64_t i = 0; i < test->x.n; i++)
        hit[i] = predicted[i] == test->label[i];
    noema_status s = nm_eval_share(e, nm_eval_name(prefix, 1), test->x.n, hit);
    if (s == NOEMA_OK)
        nm_eval_report_metric(e->r, "mean_per_class_recall", nm_mean_per_class_recall(test->x.n, classes, test->label, predicted, NULL, e->err), NULL);
    nm_eval_report_metric(e->r, "macro_f1", nm_macro_f1(test->x.n, classes, test->label, predicted, e->err), NULL);
    free(hit);
    if (s == NOEMA_OK && e->o.predictions)
        s = nm_eval_save(e, e->o.predictions, NM_I64, predicted, test->x.n, 0);
    return s;
}

static noema_status neighbours(nm_eval *e, const part *train, const part *test, int64_t classes, int64_t *predicted)
{
    nm_knn_options o = { .k = e->o.n_k ? e->o.k[0] : 20, .euclid = e->o.euclid, .temperature = e->o.temperature };
    nm_eval_report_count(e->r, "k", o.k);
    nm_eval_report_text(e->r, "distance", o.euclid ? "euclid" : "cosine");
    nm_eval_report_set(e->r, "temperature", json_real(o.temperature));
    noema_status s = nm_knn(e->pool, &train->x, train->label, classes, &test->x, &o, predicted, e->err);
    return s == NOEMA_OK ? report(e, test, classes, predicted, "knn_acc") : s;
}

static float *floats(const nm_vectors *v)
{
    float *x = nm_malloc_array((size_t)(v->n * v->dim) + 1, sizeof *x);
    for (int64_t i = 0; x && i < v->n * v->dim; i++)
        x[i] = (float)v->x[i];
    return x;
}

/* The training loss and the predictions at the minimum. */
static noema_status apply(nm_eval *e, const nm_softmax_data *d, const float *x, const part *test, const double *head, double C, int64_t *predicted)
{
    int64_t right = 0;
    double loss = 0, square = 0, *p = nm_malloc_array((size_t)d->classes, sizeof *p);
    noema_status s = p ? nm_softmax_score(d, head, &right, &loss, e->err) : nm_fail(e->err, NOEMA_E_MEMORY, "out of memory: %lld classes", (long long)d->classes);
    for (int64_t i = 0; i < d->dim * d->classes; i++)
        square += head[i] * head[i];
    for (int64_t i = 0; s == NOEMA_OK && i < test->x.n; i++) {
        nm_softmax_row(x + i * d->dim, d->dim, d->classes, head, p);
        predicted[i] = nm_argmax(p, d->classes);
    }
    free(p);
    nm_eval_report_metric(e->r, "lp_train_acc1", (double)right / (double)d->rows, NULL);
    nm_eval_report_metric(e->r, "lp_train_mean_cross_entropy", loss / (double)d->rows, NULL);
    nm_eval_report_metric(e->r, "lp_objective", C * loss + 0.5 * square, NULL);
    nm_eval_report_metric(e->r, "lp_weight_norm", sqrt(square), NULL);
    return s;
}

static noema_status regression(nm_eval *e, const part *train, const part *test, int64_t classes, int64_t *predicted)
{
    double C = e->o.C > 0 ? e->o.C : README_C, *head = nm_malloc_array((size_t)(train->x.dim + 1), (size_t)classes * sizeof *head);
    float *x = floats(&train->x), *y = floats(&test->x);
    nm_softmax_data d = { .x = x, .label = train->label, .rows = train->x.n, .dim = train->x.dim, .classes = classes, .pool = e->pool };
    nm_lbfgs_result fit = { 0 };
    noema_status s = x && y && head ? nm_softmax_fit(&d, C, FIT_ITERATIONS, head, &fit, e->err)
                                    : nm_fail(e->err, NOEMA_E_MEMORY, "out of memory: a head of %lld x %lld", (long long)classes, (long long)train->x.dim);
    nm_eval_report_set(e->r, "C", json_real(C));
    nm_eval_report_count(e->r, "iterations", fit.iterations);
    nm_eval_report_set(e->r, "converged", json_boolean(fit.converged));
    if (s == NOEMA_OK)
        s = apply(e, &d, y, test, head, C, predicted);
    free(head);
    free(x);
    free(y);
    return s == NOEMA_OK ? report(e, test, classes, predicted, "lp_acc") : s;
}

noema_status nm_eval_neighbours(nm_eval *e, bool probe)
{
    part train = { 0 }, test = { 0 };
    int64_t classes = 0, *predicted = NULL;
    noema_status s;
    if (e->o.images && e->o.train_images) {
        s = from_files(e, probe, e->o.train_images, e->o.train_labels, &train);
        if (s == NOEMA_OK)
            s = from_files(e, probe, e->o.images, e->o.labels, &test);
    } else if (e->o.n_data && e->o.n_train_data) {
        s = from_data(e, probe, e->o.train_data, e->o.n_train_data, &train);
        if (s == NOEMA_OK)
            s = from_data(e, probe, e->o.data, e->o.n_data, &test);
    } else
        s = nm_fail(e->err, NOEMA_E_ARGUMENT, "expected training and test pictures (--train-data, --data) or vectors (--train-images, --images and their labels)");
    if (s == NOEMA_OK)
        s = match(e, &train, &test, &classes);
    if (s == NOEMA_OK && !(predicted = nm_malloc_array((size_t)test.x.n + 1, sizeof *predicted)))
        s = nm_fail(e->err, NOEMA_E_MEMORY, "out of memory: %lld rows", (long long)test.x.n);
    if (s == NOEMA_OK) {
        nm_eval_report_count(e->r, "n_train", train.x.n);
        nm_eval_report_count(e->r, "n", test.x.n);
        nm_eval_report_count(e->r, "classes", classes);
        s = probe ? regression(e, &train, &test, classes, predicted) : neighbours(e, &train, &test, classes, predicted);
    }
    free(predicted);
    part_free(&train);
    part_free(&test);
    return s;
}
