/* test_collection_hostile.c - damaged and foreign files: flipped bits, cut files, other databases, schemas with traps. What can be
 * used is served, what cannot is said. */
#include "collection_util.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <sys/stat.h>

#include "index/segment.h"

static noema_error err;

static const char *make(const char *name, int64_t n)
{
    const char *path = in_tmp(name);
    noema_collection *c;
    OK(noema_collection_open(&c, NULL, path, NOEMA_COLLECTION_CREATE, &err));
    OK(add_range(c, 0, n, &err));
    noema_collection_free(c);
    return path;
}

static char *file_of(const char *path, const char *name)
{
    static char out[512];
    snprintf(out, sizeof out, "%s/%s", path, name);
    return out;
}

static void flip(const char *file, off_t at)
{
    int fd = open(file, O_RDWR);
    unsigned char b;
    assert_true(fd >= 0 && pread(fd, &b, 1, at) == 1);
    b ^= 4;
    assert_int_equal(pwrite(fd, &b, 1, at), 1);
    close(fd);
}

static void sql(const char *path, const char *text)
{
    sqlite3 *db;
    char *msg = NULL;
    assert_int_equal(sqlite3_open(file_of(path, "catalog.sqlite"), &db), SQLITE_OK);
    sqlite3_exec(db, text, NULL, NULL, &msg);
    if (msg)
        print_error("%s: %s\n", text, msg);
    assert_null(msg);
    sqlite3_close(db);
}

/* How many of n items answer with their own vector. */
static int served(noema_collection *c, int n)
{
    int good = 0;
    for (int i = 0; i < n; i++) {
        float q[DIM];
        noema_match m[1];
        size_t found;
        vector(i, q);
        OK(noema_collection_search(c, 1, q, 1, NULL, m, &found, &err));
        good += found == 1 && atoi(m[0].path + 6) == i && m[0].score > 0.99999f;
    }
    return good;
}

static void test_flipped_bit(void **state)
{
    (void)state;
    const char *path = make("flip", 300);
    flip(file_of(path, "vectors-000001.seg"), NM_SEG_DATA_AT + 100 * DIM * 4 + 5);
    noema_collection *c;
    OK(noema_collection_open(&c, NULL, path, NOEMA_COLLECTION_READONLY, &err));
    assert_int_equal(noema_collection_get_info(c)->n_dropped, NM_SEG_BLOCK);
    assert_non_null(strstr(noema_collection_get_info(c)->notes, "64 rows do not match their checksum"));
    assert_int_equal(served(c, 300), 300 - NM_SEG_BLOCK);
    FAILS(noema_collection_check(c, &err), NOEMA_E_FORMAT, "damaged");
    float v[DIM];
    FAILS(noema_collection_vector(c, 101, v, &err), NOEMA_E_FORMAT, "damaged");
    noema_collection_free(c);
    /* The writer puts the damaged ones back; compaction removes the damaged rows. */
    OK(noema_collection_open(&c, NULL, path, 0, &err));
    OK(add_range(c, 64, 128, &err));
    assert_int_equal(served(c, 300), 300);
    OK(noema_collection_compact(c, &err));
    OK(noema_collection_check(c, &err));
    noema_collection_free(c);
    OK(noema_collection_open(&c, NULL, path, NOEMA_COLLECTION_READONLY, &err));
    assert_string_equal(noema_collection_get_info(c)->notes, "");
    expect_exactly(c, 300);
    noema_collection_free(c);
}

/* Appending must not give a damaged last block a fresh checksum. */
static void test_flipped_bit_in_last_block(void **state)
{
    (void)state;
    const char *path = make("last", 70);
    flip(file_of(path, "vectors-000001.seg"), NM_SEG_DATA_AT + 69 * DIM * 4);
    noema_collection *c;
    OK(noema_collection_open(&c, NULL, path, 0, &err));
    OK(add_range(c, 70, 80, &err));
    assert_int_equal(served(c, 80), 74);
    noema_collection_free(c);
    OK(noema_collection_open(&c, NULL, path, 0, &err));
    assert_int_equal(noema_collection_get_info(c)->n_dropped, 6);
    assert_int_equal(served(c, 80), 74);
    OK(noema_collection_compact(c, &err)); /* the six items go: their vectors are lost */
    assert_int_equal(noema_collection_get_info(c)->n_items, 74);
    OK(noema_collection_check(c, &err));
    noema_collection_free(c);
}

static void test_cut_missing_foreign_segments(void **state)
{
    (void)state;
    const char *path = make("cut", 200);
    noema_collection *c;
    assert_int_equal(truncate(file_of(path, "vectors-000001.seg"), NM_SEG_DATA_AT + 130 * DIM * 4 + 7), 0);
    OK(noema_collection_open(&c, NULL, path, NOEMA_COLLECTION_READONLY, &err));
    assert_non_null(strstr(noema_collection_get_info(c)->notes, "expected 200 rows, got 130"));
    assert_int_equal(served(c, 200), 128); /* the block that was cut goes with its rest */
    noema_collection_free(c);
    assert_int_equal(truncate(file_of(path, "vectors-000001.seg"), 17), 0);
    OK(noema_collection_open(&c, NULL, path, NOEMA_COLLECTION_READONLY, &err));
    assert_int_equal(served(c, 200), 0);
    noema_collection_free(c);
    assert_int_equal(unlink(file_of(path, "vectors-000001.seg")), 0);
    OK(noema_collection_open(&c, NULL, path, 0, &err));
    assert_non_null(strstr(noema_collection_get_info(c)->notes, "No such file"));
    OK(add_range(c, 0, 200, &err)); /* and all comes back */
    assert_int_equal(served(c, 200), 200);
    noema_collection_free(c);

    const char *other = make("other", 200);
    char cmd[1200];
    snprintf(cmd, sizeof cmd, "cp %s/vectors-000001.seg %s/vectors-000002.seg", other, path);
    assert_int_equal(system(cmd), 0);
    OK(noema_collection_open(&c, NULL, path, NOEMA_COLLECTION_READONLY, &err));
    assert_non_null(strstr(noema_collection_get_info(c)->notes, "expected segment 2 of collection"));
    assert_int_equal(served(c, 200), 0);
    noema_collection_free(c);
    flip(file_of(other, "vectors-000001.seg"), 17);
    OK(noema_collection_open(&c, NULL, other, NOEMA_COLLECTION_READONLY, &err));
    assert_non_null(strstr(noema_collection_get_info(c)->notes, "header does not match its checksum"));
    noema_collection_free(c);
}

/* Bytes behind the committed rows, and files of a commit that never was, do not count. */
static void test_uncommitted_rests(void **state)
{
    (void)state;
    const char *path = make("rests", 100);
    char cmd[1200];
    snprintf(cmd, sizeof cmd, "head -c 5000 /dev/zero >> %s/vectors-000001.seg; cp %s/vectors-000001.seg %s/vectors-000007.seg", path, path, path);
    assert_int_equal(system(cmd), 0);
    noema_collection *c;
    OK(noema_collection_open(&c, NULL, path, 0, &err));
    assert_string_equal(noema_collection_get_info(c)->notes, "");
    assert_int_not_equal(access(file_of(path, "vectors-000007.seg"), F_OK), 0);
    OK(add_range(c, 100, 140, &err));
    OK(noema_collection_check(c, &err));
    expect_exactly(c, 140);
    noema_collection_free(c);
}

static void test_foreign_catalogues(void **state)
{
    (void)state;
    noema_collection *c;
    char cmd[1200];
    const char *path = make("noise", 5);
    snprintf(cmd, sizeof cmd, "head -c 20000 /dev/urandom > %s/catalog.sqlite", path);
    assert_int_equal(system(cmd), 0);
    FAILS(noema_collection_open(&c, NULL, path, 0, &err), NOEMA_E_FORMAT, "not a database");
    FAILS(noema_collection_open(&c, NULL, path, NOEMA_COLLECTION_CREATE, &err), NOEMA_E_FORMAT, "not a database");
    assert_int_equal(truncate(file_of(path, "catalog.sqlite"), 0), 0);
    FAILS(noema_collection_open(&c, NULL, path, 0, &err), NOEMA_E_FORMAT, "an empty file");
    FAILS(noema_collection_open(&c, NULL, path, NOEMA_COLLECTION_CREATE, &err), NOEMA_E_FORMAT, "restore catalog.sqlite");
    assert_int_equal(access(file_of(path, "vectors-000001.seg"), F_OK), 0);
    assert_int_equal(truncate(file_of(path, "catalog.sqlite"), 0), 0);
    sql(path, "CREATE TABLE pets(name)");
    FAILS(noema_collection_open(&c, NULL, path, NOEMA_COLLECTION_CREATE, &err), NOEMA_E_FORMAT, "another SQLite database");

    path = make("future", 5);
    sql(path, "PRAGMA user_version = 2");
    FAILS(noema_collection_open(&c, NULL, path, 0, &err), NOEMA_E_UNSUPPORTED, "a later release");

    path = make("trap", 5);
    sql(path, "CREATE TRIGGER trap AFTER INSERT ON items BEGIN DELETE FROM items; END");
    FAILS(noema_collection_open(&c, NULL, path, 0, &err), NOEMA_E_FORMAT, "nothing else");
    path = make("trap2", 5);
    sql(path, "CREATE TRIGGER names_x AFTER INSERT ON items BEGIN DELETE FROM items; END");
    FAILS(noema_collection_open(&c, NULL, path, 0, &err), NOEMA_E_FORMAT, "nothing else");
    path = make("view", 5);
    sql(path, "ALTER TABLE items RENAME TO old; CREATE VIEW items AS SELECT * FROM old");
    FAILS(noema_collection_open(&c, NULL, path, 0, &err), NOEMA_E_FORMAT, "nothing else");

    path = make("full-folder", 5);
    snprintf(cmd, sizeof cmd, "mv %s/catalog.sqlite %s/holiday.jpg", path, path);
    assert_int_equal(system(cmd), 0);
    FAILS(noema_collection_open(&c, NULL, path, NOEMA_COLLECTION_CREATE, &err), NOEMA_E_ARGUMENT, "holiday.jpg");
}

/* Values that SQLite lets through but that make no sense. */
static void test_lying_catalogues(void **state)
{
    (void)state;
    static const struct { const char *sql; noema_status open, check; } t[] = {
        { "UPDATE meta SET value = '99999999' WHERE key = 'dim'", NOEMA_E_FORMAT, 0 },
        { "UPDATE meta SET value = '-1' WHERE key = 'dim'", NOEMA_E_FORMAT, 0 },
        { "UPDATE meta SET value = 'f64' WHERE key = 'dtype'", NOEMA_E_FORMAT, 0 },
        { "DELETE FROM meta WHERE key = 'uid'", NOEMA_E_FORMAT, 0 },
        { "DELETE FROM meta", NOEMA_E_FORMAT, 0 },
        { "UPDATE segments SET rows = 1000000000000", NOEMA_E_FORMAT, 0 },
        { "UPDATE segments SET rows = -1", NOEMA_E_FORMAT, 0 },
        { "UPDATE segments SET rows = 65536", NOEMA_E_FORMAT, 0 },
        { "UPDATE segments SET checksums = x'00'", NOEMA_E_FORMAT, 0 },
        { "UPDATE segments SET deleted = x'0000'", NOEMA_E_FORMAT, 0 },
        { "UPDATE segments SET id = -5", NOEMA_E_FORMAT, 0 },
        { "UPDATE segments SET id = 1000000000", NOEMA_E_FORMAT, 0 },
        { "UPDATE segments SET rows = 'many'", NOEMA_E_FORMAT, 0 },
        { "UPDATE items SET row = row + 1000", NOEMA_OK, NOEMA_E_FORMAT },
        { "UPDATE items SET row = -1 - row", NOEMA_OK, NOEMA_E_FORMAT },
        { "UPDATE items SET segment = 9", NOEMA_OK, NOEMA_E_FORMAT },
        { "UPDATE items SET hash = x'00'", NOEMA_OK, NOEMA_OK },
        { "UPDATE items SET path = x'00ff' || id", NOEMA_OK, NOEMA_OK },
        { "DELETE FROM items WHERE id = 50", NOEMA_OK, NOEMA_E_FORMAT },
        { "UPDATE segments SET deleted = zeroblob(8192); UPDATE segments SET rows = 64, checksums = substr(checksums, 1, 8)", NOEMA_OK, NOEMA_E_FORMAT },
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        char name[16];
        snprintf(name, sizeof name, "lie%zu", i);
        const char *path = make(name, 100);
        sql(path, t[i].sql);
        noema_collection *c;
        err = (noema_error)NOEMA_ERROR_INIT;
        noema_status s = noema_collection_open(&c, NULL, path, i % 2 ? 0 : NOEMA_COLLECTION_READONLY, &err);
        if (s != t[i].open)
            print_error("%s: %d %s\n", t[i].sql, (int)s, err.message);
        assert_int_equal(s, t[i].open);
        if (s != NOEMA_OK)
            continue;
        s = noema_collection_check(c, &err);
        if (s != t[i].check)
            print_error("%s: %d %s\n", t[i].sql, (int)s, err.message);
        assert_int_equal(s, t[i].check);
        float q[DIM], v[DIM];
        noema_match m[200];
        size_t n;
        noema_search_options o;
        noema_search_options_default(&o);
        o.kind = NOEMA_ITEM_IMAGE;
        vector(1, q);
        noema_collection_search(c, 1, q, 200, NULL, m, &n, NULL); /* any answer, no crash */
        noema_collection_search(c, 1, q, 200, &o, m, &n, NULL);
        for (int64_t id = 0; id < 102; id++)
            noema_collection_vector(c, id, v, NULL);
        noema_item item = { 0 };
        while (noema_collection_next(c, item.id, &item, NULL) == NOEMA_OK)
            assert_non_null(item.path);
        noema_collection_remove(c, 1, (int64_t[]){ 3 }, NULL);
        noema_collection_compact(c, NULL);
        noema_collection_free(c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_flipped_bit),       cmocka_unit_test(test_flipped_bit_in_last_block),
        cmocka_unit_test(test_cut_missing_foreign_segments), cmocka_unit_test(test_uncommitted_rests),
        cmocka_unit_test(test_foreign_catalogues), cmocka_unit_test(test_lying_catalogues),
    };
    return cmocka_run_group_tests(tests, make_tmp, drop_tmp);
}
