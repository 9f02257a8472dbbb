/* test_parquet.c - the Parquet reader on what pyarrow wrote: the same rows in every codec, encoding and page version (the formulas are those
 * of parquet/generate.py), the golden files of img2dataset, and damaged files. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "data/parquet.h"

#define FOLDER NOEMA_SOURCE_DIR "/tests/golden/parquet/"
#define N 300

static nm_parquet *open_file(const char *path)
{
    noema_error err = NOEMA_ERROR_INIT;
    nm_parquet *p;
    if (nm_parquet_open(&p, path, &err) != NOEMA_OK)
        fail_msg("%s", err.message);
    return p;
}

static bool is_text(const nm_bytes *b, const char *s)
{
    return s ? b->p && b->n == strlen(s) && memcmp(b->p, s, b->n) == 0 : !b->p;
}

typedef void check_fn(const nm_parquet_values *v, int64_t i, int64_t row);

/* Every row of a column through `check`, which gets its place in the unit and its number. */
static void each(nm_parquet *p, const char *column, check_fn *check)
{
    noema_error err = NOEMA_ERROR_INIT;
    nm_parquet_unit *u;
    int64_t n, row = 0;
    int c = nm_parquet_find(p, column);
    if (c < 0)
        fail_msg("no column %s", column);
    if (nm_parquet_units(p, c, &u, &n, &err) != NOEMA_OK)
        fail_msg("%s", err.message);
    for (int64_t k = 0; k < n; k++) {
        nm_parquet_values v;
        assert_int_equal(u[k].first, row);
        if (nm_parquet_read(p, &u[k], &v, &err) != NOEMA_OK)
            fail_msg("%s", err.message);
        for (int64_t i = 0; i < v.n_rows; i++)
            check(&v, i, row++);
        nm_parquet_values_free(&v);
    }
    assert_int_equal(row, nm_parquet_rows(p));
    free(u);
}

static void id(const nm_parquet_values *v, int64_t i, int64_t r) { assert_true(v->ints[i] == r * 7 - 3); }
static void label(const nm_parquet_values *v, int64_t i, int64_t r) { assert_true(v->ints[i] == r % 3); }
static void flag(const nm_parquet_values *v, int64_t i, int64_t r) { assert_true(v->ints[i] == (r % 3 == 1)); }
static void whole(const nm_parquet_values *v, int64_t i, int64_t r) { assert_true(v->ints[i] == ((int64_t)1 << 31) + r); }
static void real(const nm_parquet_values *v, int64_t i, int64_t r) { assert_true(v->reals[i] == (double)r / 8); }

static void small(const nm_parquet_values *v, int64_t i, int64_t r)
{
    assert_int_equal(v->valid[i], r % 5 != 0);
    assert_true(r % 5 == 0 || v->ints[i] == r * r - 500);
}

static void single(const nm_parquet_values *v, int64_t i, int64_t r)
{
    assert_int_equal(v->valid[i], r % 4 != 1);
    assert_true(r % 4 == 1 || v->reals[i] == -(double)r / 4);
}

static void title(const nm_parquet_values *v, int64_t i, int64_t r)
{
    char s[64];
    snprintf(s, sizeof s, "row %lld 한글", (long long)(r / 2));
    assert_true(is_text(&v->bytes[i], r % 7 == 3 ? NULL : s));
}

static void every_title(const nm_parquet_values *v, int64_t i, int64_t r)
{
    char s[64];
    snprintf(s, sizeof s, "row %lld 한글", (long long)(r / 2));
    assert_true(is_text(&v->bytes[i], s));
}

static void fixed(const nm_parquet_values *v, int64_t i, int64_t r)
{
    const unsigned char want[3] = { (unsigned char)r, (unsigned char)(r >> 8), 7 };
    assert_int_equal(v->bytes[i].n, 3);
    assert_memory_equal(v->bytes[i].p, want, 3);
}

static void image(const nm_parquet_values *v, int64_t i, int64_t r)
{
    const nm_bytes *b = &v->bytes[i];
    assert_true((b->p == NULL) == (r % 13 == 5));
    if (!b->p)
        return;
    assert_int_equal(b->n, r % 17);
    for (int64_t k = 0; k < b->n; k++)
        assert_int_equal(b->p[k], (r * k) & 255);
}

static void path(const nm_parquet_values *v, int64_t i, int64_t r)
{
    char s[64];
    snprintf(s, sizeof s, "p%lld.png", (long long)r);
    assert_true(is_text(&v->bytes[i], r % 13 == 5 || r % 3 ? NULL : s));
}

static void tags(const nm_parquet_values *v, int64_t i, int64_t r)
{
    int64_t n = r % 11 == 0 ? 0 : r % 4 == 3 ? 2 : r % 4, at = v->row[i]; /* the null among three is left out */
    char s[64];
    assert_int_equal(v->row[i + 1] - at, n);
    for (int64_t k = 0; k < n; k++) {
        snprintf(s, sizeof s, "t%lld.%lld", (long long)r, (long long)k);
        assert_true(is_text(&v->bytes[at + k], s));
    }
}

static void marks(const nm_parquet_values *v, int64_t i, int64_t r)
{
    assert_int_equal(v->row[i + 1] - v->row[i], r % 3);
    for (int64_t k = 0; k < r % 3; k++)
        assert_true(v->ints[v->row[i] + k] == r + k);
}

static const struct { const char *column; check_fn *check; } columns[] = {
    { "id", id }, { "small", small }, { "unsigned", whole }, { "real", real }, { "single", single }, { "flag", flag }, { "title", title }, { "fixed", fixed },
    { "image.bytes", image }, { "image.path", path }, { "tags", tags }, { "tags.list.element", tags }, { "marks", marks }, { "label", label },
};

static void test_rows(void **state)
{
    static const char *const files[] = { "codec_none", "codec_snappy", "codec_gzip", "codec_zstd", "codec_lz4", "codec_brotli", "v2_dictionary", "plain_v1",
                                         "plain_v2", "delta_length_v1", "delta_length_v2", "delta_bytes_v1", "delta_bytes_v2", "split_ints" };
    (void)state;
    for (size_t f = 0; f < sizeof files / sizeof *files; f++) {
        char file[512];
        snprintf(file, sizeof file, FOLDER "%s.parquet", files[f]);
        nm_parquet *p = open_file(file);
        assert_int_equal(nm_parquet_rows(p), N);
        assert_int_equal(nm_parquet_groups(p), 3);
        assert_int_equal(nm_parquet_group_rows(p, 2), 60);
        assert_non_null(strstr(nm_parquet_meta(p, "huggingface"), "한국"));
        for (size_t k = 0; k < sizeof columns / sizeof *columns; k++)
            each(p, columns[k].column, columns[k].check);
        assert_int_equal(nm_parquet_find(p, "image"), -1); /* two leaves: no list */
        nm_parquet_close(p);
    }
}

static void test_required_and_empty(void **state)
{
    (void)state;
    nm_parquet *p = open_file(FOLDER "required.parquet");
    assert_int_equal(nm_parquet_column_at(p, 1)->max_def, 0);
    assert_true(nm_parquet_column_at(p, 1)->is_text);
    each(p, "id", id);
    each(p, "title", every_title);
    nm_parquet_close(p);
    p = open_file(FOLDER "no_rows.parquet");
    each(p, "title", title);
    assert_int_equal(nm_parquet_rows(p), 0);
    nm_parquet_close(p);
}

/* ---- files of img2dataset (golden/eval/shards/expected.json) ---- */

static nm_buf joined;

static void join(const nm_parquet_values *v, int64_t i, int64_t r)
{
    if (r)
        nm_buf_putc(&joined, '\n');
    nm_buf_append(&joined, v->bytes[i].p, v->bytes[i].n);
}

static void test_img2dataset(void **state)
{
    static const struct { const char *column, *sha256; size_t bytes; } want[] = {
        { "URL", "5a0b13aabb775c5dcd4848b51044f3ee4f43794487a07f893664e435b664c8f7", 99768 },
        { "TEXT", "f34e11de918d76ca610e9ec27163e7b1d2f1f5dce601ed19959e217994121e4c", 57877 },
    };
    const char *file = NOEMA_SHARED_DIR "/golden/eval/shards/test_1000.parquet";
    (void)state;
    if (!nm_file_exists(file)) {
        fprintf(stderr, "SKIPPED: %s is not here\n", file);
        skip();
    }
    nm_parquet *p = open_file(file);
    assert_int_equal(nm_parquet_rows(p), 1000);
    for (size_t k = 0; k < sizeof want / sizeof *want; k++) {
        char hex[65];
        joined.len = 0;
        each(p, want[k].column, join);
        assert_int_equal(joined.len, want[k].bytes);
        nm_sha256_hex(joined.data, joined.len, hex);
        assert_string_equal(hex, want[k].sha256);
    }
    nm_buf_free(&joined);
    nm_parquet_close(p);
}

/* ---- damage ---- */

/* Reads everything of a file in memory; NOEMA_OK or the first error. */
static noema_status read_all(const unsigned char *data, size_t size, noema_error *err)
{
    unsigned char *copy = malloc(size ? size : 1);
    nm_parquet *p;
    memcpy(copy, data, size);
    noema_status s = nm_parquet_open_memory(&p, copy, size, "x.parquet", (size_t)16 << 20, err);
    for (int c = 0; s == NOEMA_OK && c < nm_parquet_columns(p); c++) {
        nm_parquet_unit *u;
        int64_t n;
        s = nm_parquet_units(p, c, &u, &n, err);
        for (int64_t k = 0; s == NOEMA_OK && k < n; k++) {
            nm_parquet_values v;
            if ((s = nm_parquet_read(p, &u[k], &v, err)) == NOEMA_OK)
                nm_parquet_values_free(&v);
        }
        free(u);
    }
    nm_parquet_close(p);
    free(copy);
    return s;
}

static void test_damage(void **state)
{
    char *data;
    size_t size;
    noema_error err = NOEMA_ERROR_INIT;
    (void)state;
    assert_int_equal(nm_read_file(&data, &size, FOLDER "plain_v1.parquet", 1 << 20, &err), NOEMA_OK);
    assert_int_equal(read_all((unsigned char *)data, size, &err), NOEMA_OK);
    for (size_t n = 0; n < size; n += 97) { /* every truncation is refused */
        err = (noema_error)NOEMA_ERROR_INIT;
        assert_int_not_equal(read_all((unsigned char *)data, n, &err), NOEMA_OK);
        assert_true(strlen(err.message) > 10 && strstr(err.message, "x.parquet"));
    }
    int refused = 0, tried = 0;
    uint32_t footer;
    memcpy(&footer, data + size - 8, 4);
    for (size_t at = 4; at < size - 8 - footer; at += 41, tried++) { /* a flipped bit in a page is seen by its checksum */
        data[at] ^= 16;
        err = (noema_error)NOEMA_ERROR_INIT;
        refused += read_all((unsigned char *)data, size, &err) != NOEMA_OK;
        data[at] ^= 16;
    }
    assert_true(refused > tried * 9 / 10); /* the rest are bits of headers that nothing depends on (statistics) */
    for (size_t at = size - 8 - footer; at < size; at++) {
        data[at] ^= 4;
        err = (noema_error)NOEMA_ERROR_INIT;
        read_all((unsigned char *)data, size, &err); /* whatever comes, no crash */
        data[at] ^= 4;
    }
    free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_required_and_empty),
        cmocka_unit_test(test_img2dataset),
        cmocka_unit_test(test_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
