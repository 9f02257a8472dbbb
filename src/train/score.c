/* score.c - see score.h. */
#include "train/score.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/stats.h"

enum { BOOTSTRAP = 1000 };

static bool allocate(nm_score *sc)
{
    size_t n;
    if (!nm_mul_size((size_t)sc->n, (size_t)sc->classes, &n))
        return false;
    sc->probs = nm_malloc_array(n, sizeof *sc->probs);
    sc->answer = nm_malloc_array((size_t)sc->n, sizeof *sc->answer);
    sc->class_rows = calloc((size_t)sc->classes, sizeof *sc->class_rows);
    sc->class_right = calloc((size_t)sc->classes, sizeof *sc->class_right);
    return sc->probs && sc->answer && sc->class_rows && sc->class_right;
}

void nm_score_free(nm_score *sc)
{
    free(sc->probs);
    free(sc->answer);
    free(sc->class_rows);
    free(sc->class_right);
    *sc = (nm_score){ 0 };
}

/* Row i by its logits [classes]; NULL: unreadable. */
static void take_row(nm_score *sc, const nm_labelled *l, int64_t i, const float *logits)
{
    float *p = sc->probs + i * sc->classes;
    if (!logits) {
        sc->answer[i] = -1;
        sc->unreadable++;
        for (int64_t k = 0; k < sc->classes; k++)
            p[k] = NAN;
        return;
    }
    int64_t label = l->label[i];
    double lost;
    sc->answer[i] = nm_head_probabilities(logits, sc->classes, p, label, &lost) == label;
    sc->rows++;
    sc->right += sc->answer[i];
    sc->loss += lost;
    sc->class_rows[label]++;
    sc->class_right[label] += sc->answer[i];
}

noema_status nm_score_rows(nm_score *sc, noema_session *s, const nm_labelled *l, const nm_head *h, nm_failed_fn *failed, void *user, noema_error *err)
{
    bool ok[NM_FEATURE_ROWS];
    *sc = (nm_score){ .n = l->n, .classes = h->classes };
    float *x = nm_malloc_array((size_t)(NM_FEATURE_ROWS * l->dim), sizeof *x);
    noema_status st = x && allocate(sc) ? NOEMA_OK : nm_fail(err, NOEMA_E_MEMORY, "out of memory: %lld rows of %lld classes", (long long)l->n, (long long)h->classes);
    for (int64_t first = 0; st == NOEMA_OK && first < l->n; first += NM_FEATURE_ROWS) {
        int64_t n = l->n - first < NM_FEATURE_ROWS ? l->n - first : NM_FEATURE_ROWS;
        st = nm_labelled_features(l, s, first, n, x, ok, failed, user, err);
        for (int64_t i = 0; i < n * l->dim && st == NOEMA_OK; i++)
            x[i] = isfinite(x[i]) ? x[i] : 0; /* unreadable rows */
        nm_run *r = nm_session_run(s);
        nm_tensor z = { 0 };
        if (st == NOEMA_OK)
            z = nm_linear(r, nm_view(x, NM_F32, NM_SHAPE(n, l->dim)), &h->w, (nm_epilogue){ .f32 = true });
        if (st == NOEMA_OK && !nm_run_ok(r))
            st = nm_fail(err, r->err.code, "%s", r->err.message);
        for (int64_t i = 0; i < n && st == NOEMA_OK; i++)
            take_row(sc, l, first + i, ok[i] ? (const float *)z.data + i * h->classes : NULL);
    }
    if (sc->rows)
        sc->loss /= (double)sc->rows;
    free(x);
    return st;
}

/* ---- what is said ---- */

static json_t *interval_json(const double v[2]) { return isfinite(v[0]) ? json_pack("[f,f]", v[0], v[1]) : json_null(); }

json_t *nm_score_json(const nm_score *sc)
{
    double interval[2], mean = 0;
    int64_t seen = 0;
    nm_wilson(sc->right, sc->rows, interval);
    for (int64_t k = 0; k < sc->classes; k++)
        if (sc->class_rows[k]) {
            mean += (double)sc->class_right[k] / (double)sc->class_rows[k];
            seen++;
        }
    return json_pack("{s:I,s:I,s:f,s:o,s:f,s:f,s:I}", "rows", (json_int_t)sc->rows, "right", (json_int_t)sc->right, "accuracy",
                     sc->rows ? (double)sc->right / (double)sc->rows : 0.0, "interval", interval_json(interval), "mean_per_class_accuracy",
                     seen ? mean / (double)seen : 0.0, "cross_entropy", sc->loss, "unreadable", (json_int_t)sc->unreadable);
}

json_t *nm_score_difference(const nm_score *before, const nm_score *after)
{
    double *d = nm_malloc_array((size_t)after->n + 1, sizeof *d), sum = 0;
    nm_interval ci = { NAN, NAN };
    int64_t n = 0;
    for (int64_t i = 0; d && i < after->n; i++)
        if (before->answer[i] >= 0 && after->answer[i] >= 0) {
            d[n] = after->answer[i] - before->answer[i];
            sum += d[n++];
        }
    if (d)
        (void)nm_bootstrap_ratio(&ci, n, BOOTSTRAP, 0, d, NULL, NULL); /* without memory there is no interval */
    free(d);
    return json_pack("{s:f,s:o}", "accuracy", n ? sum / (double)n : 0.0, "interval", interval_json((double[]){ ci.low, ci.high }));
}

json_t *nm_score_classes(const json_t *names, const nm_score *before, const nm_score *after)
{
    json_t *list = json_array();
    for (int64_t k = 0; k < after->classes; k++) {
        char text[32];
        const char *name = json_string_value(json_array_get(names, (size_t)k));
        double interval[2], rows = (double)after->class_rows[k];
        if (!after->class_rows[k])
            continue;
        nm_wilson(after->class_right[k], after->class_rows[k], interval);
        snprintf(text, sizeof text, "%lld", (long long)k);
        json_t *row = json_pack("{s:s,s:I,s:o,s:f,s:o}", "class", name ? name : text, "rows", (json_int_t)after->class_rows[k],
                                "before", before && before->class_rows[k] ? json_real((double)before->class_right[k] / (double)before->class_rows[k]) : json_null(),
                                "after", (double)after->class_right[k] / rows, "interval", interval_json(interval));
        json_array_append_new(list, row);
    }
    return list;
}

noema_status nm_score_write(const nm_score *sc, const char *path, noema_error *err)
{
    nm_wview v = { .name = "predictions", .dtype = NM_F32, .ndim = 2, .shape = { sc->n, sc->classes }, .stride = { sc->classes, 1 }, .data = sc->probs };
    return nm_npy_write(path, &v, err);
}
