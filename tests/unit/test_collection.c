/* test_collection.c - what a collection promises when nothing goes wrong: add, replace, remove, search, filters, compaction. */
#include "collection_util.h"

#include "base/half.h"

static noema_error err;

static noema_collection *open_it(const char *name, unsigned flags)
{
    noema_collection *c;
    OK(noema_collection_open(&c, NULL, in_tmp(name), flags, &err));
    return c;
}

static void test_add_and_reopen(void **state)
{
    (void)state;
    noema_collection *c = open_it("add", NOEMA_COLLECTION_CREATE);
    assert_int_equal(noema_collection_get_info(c)->dim, 0);
    assert_string_equal(noema_collection_get_info(c)->space, "");
    OK(add_range(c, 0, 100, &err));
    OK(add_range(c, 100, 101, &err));
    expect_exactly(c, 101);
    noema_collection_free(c);
    c = open_it("add", NOEMA_COLLECTION_READONLY);
    expect_exactly(c, 101);
    const noema_collection_info *i = noema_collection_get_info(c);
    assert_string_equal(i->space, "space-a");
    assert_string_equal(i->model, "model-a");
    assert_string_equal(i->dtype, "f32");
    assert_string_equal(i->notes, "");
    assert_int_equal(i->dim, DIM);
    FAILS(add_range(c, 0, 1, &err), NOEMA_E_ARGUMENT, "reading only");
    noema_collection_free(c);
    FAILS(noema_collection_open(&c, NULL, in_tmp("none"), 0, &err), NOEMA_E_MISSING, "no collection");
}

/* The reference: scores in double over the stored vectors. */
static void test_search_is_exact(void **state)
{
    (void)state;
    enum { N = 3000, K = 17, NQ = 70 };
    noema_collection *c = open_it("exact", NOEMA_COLLECTION_CREATE);
    OK(add_range(c, 0, N, &err));
    float (*q)[DIM] = malloc(NQ * sizeof *q);
    noema_match *m = malloc(NQ * K * sizeof *m);
    size_t found[NQ];
    for (int i = 0; i < NQ; i++)
        vector(100000 + i, q[i]);
    OK(noema_collection_search(c, NQ, q[0], K, NULL, m, found, &err));
    for (int i = 0; i < NQ; i++) {
        double s[N];
        assert_int_equal(found[i], K);
        for (int r = 0; r < N; r++) {
            float v[DIM];
            vector(r, v);
            s[r] = 0;
            for (int k = 0; k < DIM; k++)
                s[r] += (double)v[k] * q[i][k];
        }
        for (int k = 0; k < K; k++) {
            int rank = 0, r = atoi(m[i * K + k].path + 6);
            assert_true(fabs(m[i * K + k].score - s[r]) < 1e-6);
            for (int o = 0; o < N; o++)
                rank += s[o] > s[r] + 1e-6;
            assert_true(rank <= k);
            assert_true(k == 0 || m[i * K + k].score <= m[i * K + k - 1].score);
        }
    }
    size_t n;
    noema_match *all = malloc((N + 10) * sizeof *all);
    OK(noema_collection_search(c, 1, q[0], N + 10, NULL, all, &n, &err)); /* more than there is */
    assert_int_equal(n, N);
    free(all);
    free(q);
    free(m);
    noema_collection_free(c);
}

static void test_replace_remove_compact(void **state)
{
    (void)state;
    noema_collection *c = open_it("replace", NOEMA_COLLECTION_CREATE), *reader;
    OK(add_range(c, 0, 500, &err));
    OK(add_range(c, 0, 500, &err)); /* the same paths again: ids stay, old rows die */
    expect_exactly(c, 500);
    assert_int_equal(noema_collection_get_info(c)->n_deleted, 500);
    OK(add_range(c, 500, 600, &err));
    int64_t ids[100];
    for (int i = 0; i < 100; i++) {
        char path[32];
        snprintf(path, sizeof path, "/pics/%06d.jpg", 500 + i);
        OK(noema_collection_find(c, path, &ids[i], &err));
    }
    OK(noema_collection_remove(c, 100, ids, &err));
    FAILS(noema_collection_remove(c, 1, ids, &err), NOEMA_E_MISSING, "no item has the id");
    FAILS(noema_collection_find(c, "/pics/000500.jpg", &ids[0], &err), NOEMA_E_MISSING, "/pics/000500.jpg");
    expect_exactly(c, 500);
    float q[DIM];
    noema_match m[3];
    size_t n;
    vector(550, q);
    OK(noema_collection_search(c, 1, q, 3, NULL, m, &n, &err));
    assert_true(m[0].score < 0.999f); /* its own vector is gone */
    OK(noema_collection_check(c, &err));
    reader = open_it("replace", NOEMA_COLLECTION_READONLY);
    int64_t before = noema_collection_get_info(c)->bytes;
    OK(noema_collection_compact(c, &err));
    assert_int_equal(noema_collection_get_info(c)->n_deleted, 0);
    assert_true(noema_collection_get_info(c)->bytes < before);
    OK(noema_collection_check(c, &err));
    expect_exactly(c, 500);
    expect_exactly(reader, 500);
    vector(123, q);
    OK(noema_collection_search(reader, 1, q, 1, NULL, m, &n, &err));
    assert_string_equal(m[0].path, "/pics/000123.jpg");
    OK(add_range(c, 500, 510, &err));
    expect_exactly(reader, 510);
    noema_collection_free(reader);
    noema_collection_free(c);
    c = open_it("replace", 0);
    expect_exactly(c, 510);
    noema_collection_free(c);
}

static void test_filters(void **state)
{
    (void)state;
    noema_collection *c = open_it("filters", NOEMA_COLLECTION_CREATE);
    const char *path[6] = { "/a/Beach_2019.jpg", "/a/beach-dog.png", "/b/city 2019.jpg", "/b/Ca\xc3\xb1on.jpg", "/b/\"odd\" *.jpg", "/b/\xff\xfe.jpg" };
    const char *word[2] = { "a dog on a beach", "a city" };
    float v[8][DIM];
    for (int i = 0; i < 8; i++)
        vector(i, v[i]);
    OK(noema_collection_add(c, "s", "m", NOEMA_ITEM_IMAGE, 6, path, DIM, v[0], &err));
    OK(noema_collection_add(c, "s", "m", NOEMA_ITEM_TEXT, 2, word, DIM, v[6], &err));
    struct { noema_item_kind kind; const char *glob, *name; size_t n; } t[] = {
        { NOEMA_ITEM_ANY, NULL, NULL, 8 },        { NOEMA_ITEM_IMAGE, NULL, NULL, 6 },         { NOEMA_ITEM_TEXT, NULL, NULL, 2 },
        { NOEMA_ITEM_ANY, "/a/*", NULL, 2 },      { NOEMA_ITEM_ANY, "*.jpg", NULL, 5 },        { NOEMA_ITEM_ANY, NULL, "beach", 3 },
        { NOEMA_ITEM_ANY, NULL, "bea 20", 1 },    { NOEMA_ITEM_IMAGE, "/b/*", "2019", 1 },     { NOEMA_ITEM_ANY, NULL, "canon", 1 },
        { NOEMA_ITEM_ANY, NULL, "\"odd", 1 },     { NOEMA_ITEM_ANY, NULL, "nothing", 0 },      { NOEMA_ITEM_ANY, NULL, "AND OR ( *", 0 },
        { NOEMA_ITEM_ANY, NULL, "", 8 },
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        noema_search_options o;
        noema_match m[10];
        size_t n;
        noema_search_options_default(&o);
        o.kind = t[i].kind;
        o.path_glob = t[i].glob;
        o.name = t[i].name;
        OK(noema_collection_search(c, 1, v[2], 10, &o, m, &n, &err));
        if (n != t[i].n)
            print_error("case %zu: glob %s, name %s\n", i, t[i].glob, t[i].name);
        assert_int_equal(n, t[i].n);
    }
    noema_search_options o;
    noema_match m[10];
    size_t n;
    noema_search_options_default(&o);
    o.threshold = 0.9f;
    OK(noema_collection_search(c, 1, v[2], 10, &o, m, &n, &err));
    assert_int_equal(n, 1);
    assert_string_equal(m[0].path, "/b/city 2019.jpg");
    o.threshold = -2;
    o.exclude = &m[0].id;
    o.n_exclude = 1;
    int64_t id = m[0].id;
    o.exclude = &id;
    OK(noema_collection_search(c, 1, v[2], 10, &o, m, &n, &err));
    assert_int_equal(n, 7);
    for (size_t i = 0; i < n; i++)
        assert_true(m[i].id != id);
    noema_collection_free(c);
}

static void test_f16(void **state)
{
    (void)state;
    noema_collection *c = open_it("f16", NOEMA_COLLECTION_CREATE | NOEMA_COLLECTION_F16);
    OK(add_range(c, 0, 300, &err));
    noema_collection_free(c);
    c = open_it("f16", NOEMA_COLLECTION_READONLY);
    assert_string_equal(noema_collection_get_info(c)->dtype, "f16");
    float v[DIM], got[DIM];
    noema_match m[2];
    size_t n;
    for (int i = 0; i < 300; i += 13) {
        vector(i, v);
        OK(noema_collection_search(c, 1, v, 2, NULL, m, &n, &err));
        assert_int_equal(atoi(m[0].path + 6), i);
        assert_true(fabsf(m[0].score - 1) < 1e-3f);
        OK(noema_collection_vector(c, m[0].id, got, &err));
        for (int k = 0; k < DIM; k++)
            assert_true(got[k] == nm_f16_to_f32(nm_f32_to_f16(v[k])));
    }
    noema_collection_free(c);
}

static void test_spaces_do_not_mix(void **state)
{
    (void)state;
    noema_collection *c = open_it("space", NOEMA_COLLECTION_CREATE);
    const char *path = "/x";
    float v[DIM + 1] = { 1 }, bad[DIM] = { 0 };
    OK(add_range(c, 0, 3, &err));
    FAILS(noema_collection_add(c, "space-b", "model-b", NOEMA_ITEM_IMAGE, 1, &path, DIM, v, &err), NOEMA_E_MISMATCH, "model-a");
    assert_non_null(strstr(err.message, "model-b"));
    FAILS(noema_collection_add(c, "space-a", "model-a", NOEMA_ITEM_IMAGE, 1, &path, DIM + 1, v, &err), NOEMA_E_MISMATCH, "25");
    FAILS(noema_collection_add(c, "space-a", "model-a", NOEMA_ITEM_IMAGE, 1, &path, DIM, bad, &err), NOEMA_E_ARGUMENT, "finite");
    bad[3] = NAN;
    FAILS(noema_collection_add(c, "space-a", "model-a", NOEMA_ITEM_IMAGE, 1, &path, DIM, bad, &err), NOEMA_E_ARGUMENT, "finite");
    v[0] = 5; /* brought to length 1 */
    OK(noema_collection_add(c, "space-a", "model-a", NOEMA_ITEM_IMAGE, 1, &path, DIM, v, &err));
    int64_t id;
    OK(noema_collection_find(c, "/x", &id, &err));
    OK(noema_collection_vector(c, id, v, &err));
    assert_true(v[0] == 1);
    assert_int_equal(noema_collection_get_info(c)->n_items, 4);
    noema_collection_free(c);
}

/* More rows than a segment holds; equal vectors come in the order of adding, across segments too. */
static void test_many_segments(void **state)
{
    (void)state;
    enum { N = 70000, STEP = 10000, D = 3 };
    noema_collection *c = open_it("many", NOEMA_COLLECTION_CREATE);
    float *v = malloc(STEP * D * sizeof *v);
    char (*name)[16] = malloc(STEP * sizeof *name);
    const char **path = malloc(STEP * sizeof *path);
    for (int at = 0; at < N; at += STEP) {
        for (int i = 0; i < STEP; i++) {
            int k = at + i;
            v[i * D] = k % 10000 == 7;
            v[i * D + 1] = k % 10000 != 7;
            v[i * D + 2] = 0;
            snprintf(name[i], sizeof name[i], "%d", k);
            path[i] = name[i];
        }
        OK(noema_collection_add(c, "s", "m", NOEMA_ITEM_TEXT, STEP, path, D, v, &err));
    }
    assert_int_equal(noema_collection_get_info(c)->n_segments, 2);
    for (int round = 0; round < 2; round++) {
        noema_match m[9];
        size_t n;
        const float q[D] = { 1, 0, 0 };
        OK(noema_collection_search(c, 1, q, 9, NULL, m, &n, &err));
        assert_int_equal(n, 9);
        for (int i = 0; i < 7; i++)
            assert_int_equal(atoi(m[i].path), 10000 * i + 7);
        assert_true(m[7].score == 0);
        noema_collection_free(c);
        c = open_it("many", NOEMA_COLLECTION_READONLY);
    }
    noema_collection_free(c);
    free(v);
    free(name);
    free(path);
}

static void test_notes(void **state)
{
    (void)state;
    noema_collection *c = open_it("notes", NOEMA_COLLECTION_CREATE);
    const char *v = "x";
    OK(noema_collection_get_note(c, "tokenizer", &v, &err));
    assert_null(v);
    OK(noema_collection_set_note(c, "tokenizer", "/some/file", &err));
    OK(noema_collection_set_note(c, "space", "not the space", &err));
    OK(noema_collection_get_note(c, "tokenizer", &v, &err));
    assert_string_equal(v, "/some/file");
    assert_string_equal(noema_collection_get_info(c)->space, "");
    noema_collection_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_add_and_reopen), cmocka_unit_test(test_search_is_exact),   cmocka_unit_test(test_replace_remove_compact),
        cmocka_unit_test(test_filters),        cmocka_unit_test(test_f16),               cmocka_unit_test(test_spaces_do_not_mix),
        cmocka_unit_test(test_many_segments),  cmocka_unit_test(test_notes),
    };
    return cmocka_run_group_tests(tests, make_tmp, drop_tmp);
}
