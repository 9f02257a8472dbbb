/* test_eval.c - the measures of src/eval on cases small enough to work out by hand, and on the shared goldens where they are. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "eval/metrics.h"
#include "noema/eval.h"

#define close_to(got, want, tol) assert_true(fabs((got) - (want)) <= (tol))

static void ranks_and_ties(void **state)
{
    (void)state;
    const double s[] = { 2, 5, 5, 5, 1 };
    int64_t tied;
    assert_int_equal(nm_rank_of(s, 5, 2, NM_TIES_LOWEST, &tied), 1);
    assert_int_equal(tied, 2);
    assert_int_equal(nm_rank_of(s, 5, 2, NM_TIES_HIGHEST, NULL), 1);
    assert_int_equal(nm_rank_of(s, 5, 3, NM_TIES_LOWEST, NULL), 2);
    assert_int_equal(nm_rank_of(s, 5, 3, NM_TIES_HIGHEST, NULL), 0);
    assert_int_equal(nm_rank_of(s, 5, 2, NM_TIES_OPTIMISTIC, NULL), 0);
    assert_int_equal(nm_rank_of(s, 5, 2, NM_TIES_PESSIMISTIC, NULL), 2);
    assert_int_equal(nm_rank_of(s, 5, 4, NM_TIES_LOWEST, &tied), 4);
    assert_int_equal(tied, 0);
    assert_int_equal(nm_argmax(s, 5), 1);
    int64_t best[4];
    nm_largest(s, 5, 4, best);
    const int64_t want[] = { 1, 2, 3, 0 };
    assert_memory_equal(best, want, sizeof want);
}

static void classification(void **state)
{
    (void)state;
    noema_error err = NOEMA_ERROR_INIT;
    /* class 0: 2 of 3, class 1: 1 of 1, class 2: absent, class 3: 0 of 1 */
    const int64_t label[] = { 0, 0, 0, 1, 3 }, predicted[] = { 0, 0, 1, 1, 0 }, rank[] = { 0, 0, 1, 0, 3 };
    double recall[4];
    close_to(nm_topk_accuracy(5, rank, 1), 0.6, 0);
    close_to(nm_topk_accuracy(5, rank, 2), 0.8, 0);
    close_to(nm_mean_per_class_recall(5, 4, label, predicted, recall, &err), (2.0 / 3 + 1 + 0) / 3, 1e-15);
    assert_true(isnan(recall[2]));
    close_to(nm_macro_f1(5, 4, label, predicted, &err), (4.0 / 6 + 2.0 / 3 + 0) / 3, 1e-15);
    /* sorted down: + - + - : precision 1, 2/3 */
    const double s[] = { 0.9, 0.1, 0.5, 0.7 };
    const uint8_t positive[] = { 1, 0, 1, 0 }, none[] = { 0, 0, 0, 0 };
    close_to(nm_average_precision(4, s, positive, &err), (1 + 2.0 / 3) / 2, 1e-15);
    close_to(nm_average_precision(4, s, none, &err), 0, 0);
    close_to(nm_average_precision_11(4, s, positive, &err), (6 * 1 + 5 * 2.0 / 3) / 11, 1e-15);
    close_to(nm_roc_auc(4, s, positive, &err), 0.75, 1e-15);
    assert_true(isnan(nm_roc_auc(4, s, none, &err)));
    const double equal[] = { 1, 1, 1, 1 };
    close_to(nm_roc_auc(4, equal, positive, &err), 0.5, 1e-15);
    const double confidence[] = { 0.95, 0.95, 0.55 };
    const uint8_t right[] = { 1, 0, 1 };
    close_to(nm_calibration_error(3, confidence, right, 15), (0.9 + 0.45) / 3, 1e-12);
}

/* Constant vectors must not look perfect. */
static void constant_vectors(void **state)
{
    (void)state;
    noema_error err = NOEMA_ERROR_INIT;
    double ones[8] = { 1, 0, 1, 0, 1, 0, 1, 0 };
    nm_vectors v = { 4, 2, ones };
    const int64_t owner[] = { 0, 1, 2, 3 }, k[] = { 1 };
    nm_retrieval r;
    nm_rank_figures s;
    assert_int_equal(nm_retrieve(&r, NULL, &v, &v, owner, NM_TIES_LOWEST, &err), NOEMA_OK);
    assert_int_equal(nm_rank_summary(&s, 4, r.text_rank, 1, k, &err), NOEMA_OK);
    close_to(s.recall[0], 0.25, 0);
    close_to(s.median, 2.5, 0);
    close_to(s.mean, 2.5, 0);
    assert_int_equal(r.image_ties, 4);
    assert_int_equal(r.text_ties, 4);
    nm_retrieval_free(&r);
    assert_int_equal(nm_retrieve(&r, NULL, &v, &v, owner, NM_TIES_PESSIMISTIC, &err), NOEMA_OK);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(r.text_rank[i], 3);
        assert_int_equal(r.image_rank[i], 3);
    }
    nm_retrieval_free(&r);
}

/* Several texts an image, an image without, a text without: the same scores as a table gives. */
static void unpaired(void **state)
{
    (void)state;
    noema_error err = NOEMA_ERROR_INIT;
    double images[] = { 1, 0, 0, 1, 0.6, 0.8 }, texts[] = { 0, 1, 0.8, 0.6, 1, 0, 0.6, 0.8 };
    nm_vectors a = { 3, 2, images }, b = { 4, 2, texts };
    const int64_t owner[] = { 0, 0, -1, 1 };
    nm_retrieval r;
    assert_int_equal(nm_retrieve(&r, NULL, &a, &b, owner, NM_TIES_LOWEST, &err), NOEMA_OK);
    assert_int_equal(r.image_rank[0], 1); /* behind text 2 */
    assert_int_equal(r.image_rank[1], 1);
    assert_int_equal(r.image_rank[2], -1);
    assert_int_equal(r.text_rank[0], 2);
    assert_int_equal(r.text_rank[1], 1); /* 0.96 of image 2, 0.8, 0.6 */
    assert_int_equal(r.text_rank[2], -1);
    assert_int_equal(r.text_rank[3], 1);
    close_to(r.image_ap[0], (1.0 / 2 + 2.0 / 4) / 2, 1e-15);
    close_to(r.image_r_precision[0], 0.5, 1e-15);
    assert_true(isnan(r.image_ap[2]));
    nm_retrieval_free(&r);
    const int64_t wrong[] = { 0, 0, 3, 1 };
    assert_int_equal(nm_retrieve(&r, NULL, &a, &b, wrong, NM_TIES_LOWEST, &err), NOEMA_E_MISMATCH);
}

static void neighbours(void **state)
{
    (void)state;
    noema_error err = NOEMA_ERROR_INIT;
    double train[] = { 1, 0, 0.8, 0.6, 0, 1 }, test[] = { 0.96, 0.28 };
    nm_vectors a = { 3, 2, train }, b = { 1, 2, test };
    const int64_t label[] = { 2, 1, 1 };
    int64_t got;
    nm_knn_options o = { .k = 1 };
    assert_int_equal(nm_knn(NULL, &a, label, 3, &b, &o, &got, &err), NOEMA_OK);
    assert_int_equal(got, 2); /* 0.96 against 0.936 */
    o.k = 2; /* one vote each: the lowest class */
    assert_int_equal(nm_knn(NULL, &a, label, 3, &b, &o, &got, &err), NOEMA_OK);
    assert_int_equal(got, 1);
    o.temperature = 0.07; /* the nearer one weighs more */
    assert_int_equal(nm_knn(NULL, &a, label, 3, &b, &o, &got, &err), NOEMA_OK);
    assert_int_equal(got, 2);
    o = (nm_knn_options){ .k = 9, .euclid = true };
    assert_int_equal(nm_knn(NULL, &a, label, 3, &b, &o, &got, &err), NOEMA_OK);
    assert_int_equal(got, 1);
}

static void eigenvalues(void **state)
{
    (void)state;
    /* 2 on the diagonal, -1 beside it: 2 - 2 cos(k pi / (n + 1)) */
    enum { N = 40 };
    double a[N * N] = { 0 }, values[N], work[N];
    for (int i = 0; i < N; i++) {
        a[i * N + i] = 2;
        if (i)
            a[i * N + i - 1] = a[(i - 1) * N + i] = -1;
    }
    assert_true(nm_eigenvalues(a, N, values, work));
    for (int k = 0; k < N; k++)
        close_to(values[k], 2 - 2 * cos((k + 1) * acos(-1) / (N + 1)), 1e-13);
    /* a full matrix: eigenvalues of u u^T are |u|^2 and zeros; of identity, ones */
    double square = 0;
    for (int i = 0; i < N; i++) {
        square += (i + 1) * (i + 1);
        for (int j = 0; j < N; j++)
            a[i * N + j] = (i + 1) * (j + 1);
    }
    assert_true(nm_eigenvalues(a, N, values, work));
    close_to(values[N - 1], square, 1e-9);
    close_to(values[N - 2], 0, 1e-9);
}

static void geometry(void **state)
{
    (void)state;
    noema_error err = NOEMA_ERROR_INIT;
    double axes[] = { 1, 0, 0, 0, 1, 0, 0, 0, 1 }, value, gap, cosine;
    nm_vectors v = { 3, 3, axes };
    const int64_t own[] = { 0, 1, 2 }, turned[] = { 1, 2, 0 };
    nm_spectrum s;
    nm_clip_loss l;
    nm_hubness h;
    close_to(nm_alignment(&v, &v, own, 2), 0, 0);
    close_to(nm_alignment(&v, &v, turned, 2), 2, 1e-15);
    close_to(nm_alignment(&v, &v, turned, 1), sqrt(2), 1e-15);
    assert_int_equal(nm_uniformity(NULL, &v, 2, &value, &err), NOEMA_OK);
    close_to(value, -4, 1e-14); /* all distances are 2 */
    assert_int_equal(nm_modality_gap(&v, &v, &gap, &cosine, &err), NOEMA_OK);
    close_to(gap, 0, 0);
    close_to(cosine, 1, 1e-15);
    close_to(nm_anisotropy(&v), 0, 1e-15);
    assert_int_equal(nm_spectrum_of(&s, &v, false, &err), NOEMA_OK);
    close_to(s.effective_rank, 3, 1e-12);
    close_to(s.participation_ratio, 3, 1e-12);
    close_to(s.stable_rank, 3, 1e-12);
    assert_int_equal(nm_clip_loss_of(&l, NULL, &v, &v, 2, &err), NOEMA_OK);
    close_to(l.loss, log(1 + 2 * exp(-2)), 1e-14);
    assert_int_equal(nm_hubness_of(&h, NULL, &v, &v, 1, &err), NOEMA_OK);
    assert_true(h.max == 1 && h.zero == 0 && h.skewness == 0);
    /* k = 2: each axis itself and the lowest other one: 0 is in three lists, 1 in two, 2 in one */
    assert_int_equal(nm_hubness_of(&h, NULL, &v, &v, 2, &err), NOEMA_OK);
    assert_true(h.max == 3 && h.mean == 2 && fabs(h.skewness) < 1e-15);
}

static void composition(void **state)
{
    (void)state;
    const double s[] = { 2, 1, 0, 3, /* all right */ 2, 1, 1, 3, /* text: 2 > 1, 3 > 1; image too */ 1, 1, 0, 3 /* image: a tie */ };
    nm_winoground w = nm_winoground_scores(3, s);
    close_to(w.text, 1, 0);
    close_to(w.image, 2.0 / 3, 1e-15);
    close_to(w.group, 2.0 / 3, 1e-15);
    const double c[] = { 0.5, 0.4, 0.5, 0.5 };
    close_to(nm_first_wins(2, 2, c), 0.5, 0); /* a tie is wrong */
}

static void intervals(void **state)
{
    (void)state;
    noema_error err = NOEMA_ERROR_INIT;
    nm_interval w = nm_share_interval(0.5, 100), b, again;
    close_to(w.low, 0.403831530365, 1e-10);
    close_to(w.high, 0.596168469635, 1e-10);
    w = nm_share_interval(1, 10);
    close_to(w.high, 1, 1e-12);
    double hit[400], same[400];
    for (int i = 0; i < 400; i++) {
        hit[i] = i % 2;
        same[i] = 0.25;
    }
    assert_int_equal(nm_bootstrap_ratio(&b, 400, 500, 7, hit, NULL, &err), NOEMA_OK);
    assert_int_equal(nm_bootstrap_ratio(&again, 400, 500, 7, hit, NULL, &err), NOEMA_OK);
    assert_memory_equal(&b, &again, sizeof b);
    assert_true(b.low > 0.42 && b.low < 0.48 && b.high > 0.52 && b.high < 0.58); /* 0.5 -+ 1.96 * 0.025 */
    assert_int_equal(nm_bootstrap_ratio(&b, 400, 50, 7, same, NULL, &err), NOEMA_OK);
    assert_true(b.low == 0.25 && b.high == 0.25);
    assert_int_equal(nm_bootstrap_ratio(&b, 0, 50, 7, same, NULL, &err), NOEMA_OK);
    assert_true(isnan(b.low));
}

/* The same scores with 1 and 3 threads, and as one dot product each. */
static void scores_do_not_move(void *arg, int64_t first, int64_t rows, const double *s, int worker)
{
    double *out = arg;
    (void)worker;
    memcpy(out + first * 23, s, (size_t)(rows * 23) * sizeof *s);
}

static void threads(void **state)
{
    (void)state;
    noema_error err = NOEMA_ERROR_INIT;
    double a[37 * 11], b[23 * 11], one[37 * 23], three[37 * 23];
    for (int i = 0; i < 37 * 11; i++)
        a[i] = sin(i);
    for (int i = 0; i < 23 * 11; i++)
        b[i] = cos(i);
    nm_vectors x = { 37, 11, a }, y = { 23, 11, b }, z = { 23, 10, b };
    nm_pool *pool = nm_pool_new(3);
    assert_int_equal(nm_scores(NULL, &x, &y, scores_do_not_move, one, &err), NOEMA_OK);
    assert_int_equal(nm_scores(pool, &x, &y, scores_do_not_move, three, &err), NOEMA_OK);
    nm_pool_free(pool);
    assert_memory_equal(one, three, sizeof one);
    for (int i = 0; i < 37; i++)
        for (int j = 0; j < 23; j++)
            assert_true(one[i * 23 + j] == nm_dot64(a + i * 11, b + j * 11, 11));
    assert_int_equal(nm_scores(NULL, &x, &z, scores_do_not_move, one, &err), NOEMA_E_MISMATCH);
}

/* noema_eval on the golden vectors: every figure that expected.json has. */
static double metric(const noema_report *r, const char *name)
{
    const noema_metric *m;
    size_t n = noema_report_metrics(r, &m);
    for (size_t i = 0; i < n; i++)
        if (strcmp(m[i].name, name) == 0)
            return m[i].value;
    fail_msg("no metric %s", name);
    return 0;
}

static void golden_embeddings(void **state)
{
    (void)state;
    static const char *const names[][2] = {
        { "alignment_alpha2", "alignment_alpha2" }, { "alignment_alpha1", "alignment_alpha1" }, { "uniformity_t2_image", "uniformity_t2_image" },
        { "uniformity_t2_text", "uniformity_t2_text" }, { "modality_gap_l2", "modality_gap_l2" },
        { "modality_gap_centroid_cosine", "modality_gap_centroid_cosine" },
    };
    noema_error err = NOEMA_ERROR_INIT;
    json_t *want = nm_json_load(NOEMA_SHARED_DIR "/golden/eval/embeddings/expected.json", &err), *part;
    noema_eval_options o;
    noema_report *r;
    const char *key;
    json_t *v;
    char name[128];
    if (!want) {
        print_message("SKIPPED, not there: golden/eval/embeddings\n");
        skip();
    }
    noema_eval_options_default(&o);
    o.images = NOEMA_SHARED_DIR "/golden/eval/embeddings/image.npy";
    o.texts = NOEMA_SHARED_DIR "/golden/eval/embeddings/text.npy";
    assert_int_equal(noema_eval(NOEMA_EVAL_RETRIEVAL, NULL, &o, &r, &err), NOEMA_OK);
    json_object_foreach(json_object_get(want, "retrieval"), key, v) { /* text_R@1, image_median_rank, text_mAP ... */
        const char *rest = strchr(key, '_') + 1;
        snprintf(name, sizeof name, "%.*s_retrieval_%s", (int)(rest - key - 1), key,
                 strcmp(rest, "mAP") == 0 ? "map" : strcmp(rest, "R_precision") == 0 ? "r_precision" : strncmp(rest, "R@", 2) == 0 ? "recall@" : rest);
        if (strncmp(rest, "R@", 2) == 0)
            strcat(name, rest + 2);
        close_to(metric(r, name), json_number_value(v), 1e-12);
    }
    noema_report_free(r);
    assert_int_equal(noema_eval(NOEMA_EVAL_GEOMETRY, NULL, &o, &r, &err), NOEMA_OK);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        close_to(metric(r, names[i][0]), nm_json_num(want, names[i][1], NAN), 1e-12);
    for (int c = 0; c < 2; c++) {
        part = json_object_get(want, c ? "image_centred" : "image_uncentred");
        close_to(metric(r, c ? "effective_rank_image_centred" : "effective_rank_image_uncentred"),
                 nm_json_num(part, "effective_rank_exp_entropy_singular_values", NAN), 1e-9);
        close_to(metric(r, c ? "participation_ratio_image_centred" : "participation_ratio_image_uncentred"),
                 nm_json_num(part, "participation_ratio_eigenvalues", NAN), 1e-9);
        close_to(metric(r, c ? "stable_rank_image_centred" : "stable_rank_image_uncentred"), nm_json_num(part, "stable_rank", NAN), 1e-9);
    }
    for (int way = 0; way < 2; way++) {
        snprintf(name, sizeof name, "hubness_k10_%s", way ? "image_to_text" : "text_to_image");
        json_object_foreach(json_object_get(want, name), key, v) {
            char full[160];
            snprintf(full, sizeof full, "%s_%s", name, key);
            close_to(metric(r, full), json_number_value(v), 1e-12);
        }
    }
    noema_report_free(r);
    for (int i = 0; i < 2; i++) {
        o.logit_scale = i ? 14.2857 : 100;
        part = json_object_get(want, i ? "clip_loss_scale_14.2857" : "clip_loss_scale_100.0000");
        assert_int_equal(noema_eval(NOEMA_EVAL_GEOMETRY, NULL, &o, &r, &err), NOEMA_OK);
        close_to(metric(r, "clip_loss"), nm_json_num(part, "loss", NAN), i ? 2e-5 : 1e-12); /* the other scale is printed rounded */
        close_to(metric(r, "clip_loss_image_to_text"), nm_json_num(part, "image_to_text", NAN), i ? 2e-5 : 1e-12);
        noema_report_free(r);
    }
    json_decref(want);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_and_ties), cmocka_unit_test(classification), cmocka_unit_test(constant_vectors), cmocka_unit_test(unpaired),
        cmocka_unit_test(neighbours),     cmocka_unit_test(eigenvalues),    cmocka_unit_test(geometry),         cmocka_unit_test(composition),
        cmocka_unit_test(intervals),      cmocka_unit_test(threads),        cmocka_unit_test(golden_embeddings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
