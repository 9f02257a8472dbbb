/* probe.c - `noema_probe`: features of the frozen image tower, then multinomial logistic regression on them. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"
#include "noema/train.h"
#include "train/features.h"
#include "train/head.h"
#include "train/softmax.h"

enum { SWEEP_ITERATIONS = 1000, FIT_ITERATIONS = 10000, STEPS = 96, COARSE = 16 };

typedef struct part {
    nm_labelled of;
    int64_t n;
    float *x;         /* [n, dim] */
    int64_t *pick;    /* rows with features */
    int64_t n_pick;
} part;

typedef struct probe {
    const noema_probe_options *o;
    noema_session *session;
    part train, val;
    double first_C;
    int64_t *rows, n_rows; /* of the training file: what is fitted */
    int64_t classes, dim;
    double *head;     /* [dim + 1, classes] */
    noema_error *err;
} probe;

void noema_probe_options_default(noema_probe_options *o) { *o = (noema_probe_options){ .struct_size = sizeof *o }; }

static void say(const probe *p, const char *text)
{
    if (p->o->message)
        p->o->message(p->o->message_user, text);
}

static void free_part(part *a)
{
    nm_labelled_free(&a->of);
    free(a->x);
    free(a->pick);
}

/* ---- rows ---- */

static noema_status open_part(probe *p, part *a, const char *path)
{
    nm_dataset_options rows = { .img_key = p->o->img_key, .label_key = p->o->label_key };
    noema_status s = nm_labelled_open(&a->of, path, &rows, a == &p->train ? NULL : &p->train.of, p->session->model, p->err);
    if (s != NOEMA_OK)
        return s;
    a->n = a->of.n;
    p->classes = p->train.of.classes;
    if ((size_t)a->n > SIZE_MAX / sizeof(float) / (size_t)p->dim || !(a->x = nm_malloc_array((size_t)(a->n * p->dim), sizeof *a->x)) ||
        !(a->pick = nm_malloc_array((size_t)a->n, sizeof *a->pick)))
        return nm_fail(p->err, NOEMA_E_MEMORY, "%s: out of memory: %lld rows of %lld features", path, (long long)a->n, (long long)p->dim);
    return NOEMA_OK;
}

static noema_status features(probe *p, part *a, const char *path)
{
    bool ok[NM_FEATURE_ROWS];
    noema_status s = open_part(p, a, path);
    for (int64_t i = 0; s == NOEMA_OK && i < a->n; i += NM_FEATURE_ROWS) {
        int64_t n = a->n - i < NM_FEATURE_ROWS ? a->n - i : NM_FEATURE_ROWS;
        s = nm_labelled_features(&a->of, p->session, i, n, a->x + i * p->dim, ok, p->o->failed, p->o->failed_user, p->err);
        for (int64_t k = 0; s == NOEMA_OK && k < n; k++)
            if (ok[k])
                a->pick[a->n_pick++] = i + k;
    }
    if (s == NOEMA_OK && a->n_pick == 0)
        s = nm_fail(p->err, NOEMA_E_FORMAT, "%s: none of the %lld rows could be read", path, (long long)a->n);
    return s;
}

/* ---- the choice of C ---- */

static nm_softmax_data data_of(const probe *p, const part *a, const int64_t *pick, int64_t n)
{
    return (nm_softmax_data){ .x = a->x, .label = a->of.label, .pick = pick, .rows = n, .dim = p->dim, .classes = p->classes, .pool = p->session->model->ctx->pool };
}

/* Shuffles the rows; every fifth of a class (of 2 to 4 shots: the last) goes to the end. Returns how many stay in front, 0: out of memory. */
static int64_t hold_out(const probe *p, int64_t *order)
{
    const part *a = &p->train;
    int64_t *seen = calloc((size_t)p->classes, sizeof *seen), *out = nm_malloc_array((size_t)p->n_rows, sizeof *out), kept = 0, held = 0;
    int64_t every = p->o->shots > 1 && p->o->shots < 5 ? p->o->shots : 5;
    nm_rng r;
    nm_rng_init(&r, p->o->seed, 0x9b0be);
    memcpy(order, p->rows, (size_t)p->n_rows * sizeof *order);
    for (int64_t i = p->n_rows - 1; i > 0; i--) {
        int64_t k = (int64_t)nm_rng_below(&r, (uint64_t)i + 1), t = order[i];
        order[i] = order[k];
        order[k] = t;
    }
    for (int64_t i = 0; seen && out && i < p->n_rows; i++) {
        if (seen[a->of.label[order[i]]]++ % every == every - 1)
            out[held++] = order[i];
        else
            order[kept++] = order[i];
    }
    if (kept)
        memcpy(order + kept, out, (size_t)held * sizeof *out);
    free(seen);
    free(out);
    return kept;
}

typedef struct sweep { nm_softmax_data fit, held; bool done[STEPS + 1]; int best; int64_t right; double loss; } sweep;

/* lambda = 10^(-6 + step / 8) */
static double sweep_C(int step) { return pow(10, 6 - step / 8.0); }

static noema_status try_step(probe *p, sweep *w, int step)
{
    nm_lbfgs_result fit;
    int64_t right;
    double loss;
    char text[160];
    if (step < 0 || step > STEPS || w->done[step])
        return NOEMA_OK;
    w->done[step] = true;
    noema_status s = nm_softmax_fit(&w->fit, sweep_C(step), SWEEP_ITERATIONS, p->head, &fit, p->err);
    if (s == NOEMA_OK)
        s = nm_softmax_score(&w->held, p->head, &right, &loss, p->err);
    if (s != NOEMA_OK)
        return s;
    snprintf(text, sizeof text, "C %.4g: %lld of %lld held-out rows right, cross-entropy %.4f, %d iterations", sweep_C(step), (long long)right,
             (long long)w->held.rows, loss / (double)w->held.rows, fit.iterations);
    say(p, text);
    if (w->best < 0 || right > w->right || (right == w->right && loss < w->loss)) {
        w->best = step;
        w->right = right;
        w->loss = loss;
    }
    return NOEMA_OK;
}

/* Seven powers of 100, then half the distance round the best until it is an eighth of a decade (arXiv 2103.00020, A.3). */
static noema_status choose_C(probe *p, noema_probe_result *result)
{
    int64_t *order = nm_malloc_array((size_t)p->n_rows, sizeof *order), kept = order ? hold_out(p, order) : 0;
    sweep w = { .best = -1 };
    noema_status s = kept ? NOEMA_OK : nm_fail(p->err, NOEMA_E_MEMORY, "out of memory: the part held out");
    if (s == NOEMA_OK && kept == p->n_rows)
        s = nm_fail(p->err, NOEMA_E_ARGUMENT, "%s: no class has the five rows of which one can be held out to choose C; give --C", p->o->train_data);
    w.fit = data_of(p, &p->train, order, kept);
    w.held = data_of(p, &p->train, order ? order + kept : NULL, p->n_rows - kept);
    for (int i = 0; i <= STEPS && s == NOEMA_OK; i += COARSE)
        s = try_step(p, &w, i);
    for (int span = COARSE / 2; span >= 1 && s == NOEMA_OK; span /= 2) {
        int centre = w.best;
        s = try_step(p, &w, centre - span);
        if (s == NOEMA_OK)
            s = try_step(p, &w, centre + span);
    }
    free(order);
    if (s == NOEMA_OK) {
        result->C = sweep_C(w.best);
        result->val_accuracy = (double)w.right / (double)w.held.rows;
    }
    return s;
}

/* ---- results ---- */

static noema_status accuracy(probe *p, const part *a, const int64_t *rows, int64_t n, double *share)
{
    nm_softmax_data d = data_of(p, a, rows, n);
    int64_t right;
    double loss;
    noema_status s = nm_softmax_score(&d, p->head, &right, &loss, p->err);
    if (s == NOEMA_OK)
        *share = (double)right / (double)n;
    return s;
}

static noema_status write_head(probe *p)
{
    int64_t k = p->classes, d = p->dim;
    float *w = nm_malloc_array((size_t)(k * (d + 1)), sizeof *w);
    json_t *names = nm_labelled_names(&p->train.of);
    for (int64_t c = 0; w && c < k; c++) {
        for (int64_t i = 0; i < d; i++)
            w[c * d + i] = (float)p->head[i * k + c];
        w[k * d + c] = (float)p->head[d * k + c];
    }
    noema_status s = w ? nm_head_write(p->o->out, k, d, w, w + k * d, names, p->err) : nm_fail(p->err, NOEMA_E_MEMORY, "%s: out of memory", p->o->out);
    json_decref(names);
    free(w);
    return s;
}

static noema_status write_predictions(probe *p, const part *a)
{
    int64_t k = p->classes;
    float *out = (size_t)a->n <= SIZE_MAX / sizeof(float) / (size_t)k ? nm_malloc_array((size_t)(a->n * k), sizeof *out) : NULL;
    double *row = nm_malloc_array((size_t)k, sizeof *row);
    noema_status s = out && row ? NOEMA_OK : nm_fail(p->err, NOEMA_E_MEMORY, "%s: out of memory", p->o->predictions);
    for (int64_t i = 0; s == NOEMA_OK && i < a->n * k; i++)
        out[i] = NAN;
    for (int64_t i = 0; s == NOEMA_OK && i < a->n_pick; i++) {
        nm_softmax_row(a->x + a->pick[i] * p->dim, p->dim, k, p->head, row);
        for (int64_t c = 0; c < k; c++)
            out[a->pick[i] * k + c] = (float)row[c];
    }
    nm_wview v = { .name = "predictions", .dtype = NM_F32, .ndim = 2, .shape = { a->n, k }, .stride = { k, 1 }, .data = out };
    if (s == NOEMA_OK)
        s = nm_npy_write(p->o->predictions, &v, p->err);
    free(out);
    free(row);
    return s;
}

static noema_status fit(probe *p, noema_probe_result *result)
{
    nm_softmax_data d = data_of(p, &p->train, p->rows, p->n_rows);
    nm_lbfgs_result r = { 0 };
    noema_status s = p->o->C > 0 ? NOEMA_OK : choose_C(p, result);
    if (s == NOEMA_OK)
        s = nm_softmax_fit(&d, result->C, FIT_ITERATIONS, p->head, &r, p->err);
    result->objective = r.value;
    result->iterations = r.iterations;
    result->converged = r.converged;
    result->rows = p->n_rows;
    return s;
}

/* Fits p->rows and measures; without val_data, shots are measured on the training rows that were not drawn. */
static noema_status one_fit(probe *p, noema_probe_result *result)
{
    noema_status s = fit(p, result);
    if (s == NOEMA_OK)
        s = accuracy(p, &p->train, p->rows, p->n_rows, &result->train_accuracy);
    if (s == NOEMA_OK && p->o->val_data)
        return accuracy(p, &p->val, p->val.pick, p->val.n_pick, &result->val_accuracy);
    if (s != NOEMA_OK || !p->o->shots || p->n_rows == p->train.n_pick)
        return s;
    int64_t *rest = nm_malloc_array((size_t)p->train.n_pick, sizeof *rest), n = 0, at = 0;
    for (int64_t i = 0; rest && i < p->train.n_pick; i++) { /* both lists ascend */
        if (at < p->n_rows && p->rows[at] == p->train.pick[i])
            at++;
        else
            rest[n++] = p->train.pick[i];
    }
    s = rest ? accuracy(p, &p->train, rest, n, &result->val_accuracy) : nm_fail(p->err, NOEMA_E_MEMORY, "out of memory: rows");
    free(rest);
    return s;
}

static noema_status write_results(probe *p)
{
    noema_status s = p->o->out ? write_head(p) : NOEMA_OK;
    return s == NOEMA_OK && p->o->predictions ? write_predictions(p, p->o->val_data ? &p->val : &p->train) : s;
}

/* Every seed draws its own shots; accuracies are their means. The head and predictions are those of the first. */
static noema_status few_shots(probe *p, noema_probe_result *result)
{
    int64_t *drawn = nm_malloc_array((size_t)p->train.n_pick, sizeof *drawn);
    double train = 0, val = 0, square = 0, n = (double)result->seeds;
    noema_status s = drawn ? NOEMA_OK : nm_fail(p->err, NOEMA_E_MEMORY, "out of memory: rows");
    for (int64_t i = 0; i < result->seeds && s == NOEMA_OK; i++) {
        noema_probe_result one = *result;
        p->rows = drawn;
        s = nm_labelled_shots(&p->train.of, p->train.pick, p->train.n_pick, p->o->shots, p->o->seed + (uint64_t)i, drawn, &p->n_rows, p->err);
        if (s == NOEMA_OK)
            s = one_fit(p, &one);
        if (s == NOEMA_OK && i == 0)
            s = write_results(p);
        train += one.train_accuracy / n;
        val += one.val_accuracy / n;
        one.val_accuracies[i] = one.val_accuracy;
        *result = one;
        result->C = p->o->C;
        if (i == 0)
            p->first_C = one.C;
    }
    for (int64_t i = 0; i < result->seeds; i++)
        square += (result->val_accuracies[i] - val) * (result->val_accuracies[i] - val);
    result->C = p->first_C;
    result->train_accuracy = train;
    result->val_accuracy = val;
    result->val_std = result->seeds > 1 ? sqrt(square / (n - 1)) : NAN;
    free(drawn);
    return s;
}

static noema_status run(probe *p, noema_probe_result *result)
{
    noema_status s = features(p, &p->train, p->o->train_data);
    if (s == NOEMA_OK && p->o->val_data)
        s = features(p, &p->val, p->o->val_data);
    if (s == NOEMA_OK && !(p->head = nm_malloc_array((size_t)(p->dim + 1), (size_t)p->classes * sizeof *p->head)))
        s = nm_fail(p->err, NOEMA_E_MEMORY, "out of memory: a head of %lld x %lld", (long long)p->classes, (long long)p->dim);
    result->classes = p->classes;
    p->rows = p->train.pick;
    p->n_rows = p->train.n_pick;
    if (s == NOEMA_OK && p->o->shots)
        return few_shots(p, result);
    if (s == NOEMA_OK)
        s = one_fit(p, result);
    return s == NOEMA_OK ? write_results(p) : s;
}

noema_status noema_probe(noema_session *session, const noema_probe_options *o, noema_probe_result *result, noema_error *err)
{
    noema_error local = NOEMA_ERROR_INIT;
    probe p = { .o = o, .session = session, .err = err ? err : &local };
    if (!session || !o || !result || !o->train_data)
        return nm_fail(p.err, NOEMA_E_ARGUMENT, "noema_probe: a session, training data and room for the result are needed");
    if (!(o->C >= 0) || isinf(o->C))
        return nm_fail(p.err, NOEMA_E_ARGUMENT, "C %g: expected a number above 0, or 0 for a sweep", o->C);
    if (o->shots < 0 || o->seeds < 0 || o->seeds > NOEMA_PROBE_SEEDS || (o->seeds > 1 && !o->shots))
        return nm_fail(p.err, NOEMA_E_ARGUMENT, "shots %lld, seeds %lld: expected shots of at least 1 and 1 to %d seeds", (long long)o->shots,
                       (long long)o->seeds, NOEMA_PROBE_SEEDS);
    p.dim = noema_model_feature_dim(session->model);
    *result = (noema_probe_result){ .C = o->C, .val_accuracy = NAN, .val_std = NAN, .dim = p.dim,
                                     .seeds = o->seeds ? o->seeds : 1 };
    noema_status s = run(&p, result);
    free_part(&p.train);
    free_part(&p.val);
    free(p.head);
    return s;
}
