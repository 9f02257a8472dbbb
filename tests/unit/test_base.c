/* test_base.c - base: half floats over every bit pattern, UTF-8, SHA-256, Philox, arena, pool, numbers in JSON, CSV. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/csv.h"
#include "base/half.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/pool.h"
#include "base/rng.h"
#include "base/utf8.h"

static void test_half_round_trip(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        float f = nm_f16_to_f32((nm_f16)h);
        if (!isnan(f))
            assert_int_equal(nm_f32_to_f16(f), h);
        else
            assert_true(isnan(nm_f16_to_f32(nm_f32_to_f16(f))));
        f = nm_bf16_to_f32((nm_bf16)h);
        if (!isnan(f))
            assert_int_equal(nm_f32_to_bf16(f), h);
    }
    assert_int_equal(nm_f32_to_f16(65520.0f), 0x7C00);
    assert_int_equal(nm_f32_to_f16(65519.996f), 0x7BFF);
    assert_int_equal(nm_f32_to_f16(0x1p-25f), 0);      /* tie to even */
    assert_int_equal(nm_f32_to_f16(0x1.8p-25f), 1);
    assert_int_equal(nm_f32_to_f16(1.0f + 0x1p-11f), 0x3C00);
    assert_int_equal(nm_f32_to_bf16(1.0f + 0x1p-8f), 0x3F80);
}

static void test_utf8(void **state)
{
    (void)state;
    assert_true(nm_utf8_valid("한국어 😀", strlen("한국어 😀")));
    assert_int_equal(nm_utf8_count("한국어 😀", strlen("한국어 😀")), 5);
    assert_false(nm_utf8_valid("\xC0\x80", 2));
    assert_false(nm_utf8_valid("\xED\xA0\x80", 3));
    assert_false(nm_utf8_valid("\xF4\x90\x80\x80", 4));
    assert_false(nm_utf8_valid("\xE1\x80", 2));
    for (uint32_t cp = 0; cp < 0x110000; cp++) {
        char t[4];
        uint32_t back;
        if (cp >= 0xD800 && cp < 0xE000)
            continue;
        int n = nm_utf8_encode(cp, t);
        assert_int_equal(nm_utf8_decode(t, (size_t)n, &back), n);
        assert_int_equal(back, cp);
    }
}

static void test_sha256(void **state)
{
    (void)state;
    char hex[65];
    nm_sha256_hex("abc", 3, hex); /* FIPS 180-2, appendix B.1 */
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    char *a = malloc(1000000);
    memset(a, 'a', 1000000);
    nm_sha256_hex(a, 1000000, hex); /* appendix B.3 */
    assert_string_equal(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    nm_sha256_hex(a, 55, hex);
    assert_string_equal(hex, "9f4390f8d30c2dd92ec9f095b65e2b9ae9b0a925a5258e241c9f1e910f734318");
    free(a);
}

static void test_rng(void **state)
{
    (void)state;
    nm_rng r; /* Random123 kat_vectors: philox4x32-10, counter and key zero */
    nm_rng_init(&r, 0, 0);
    assert_int_equal(nm_rng_u32(&r), 0x6627e8d5);
    assert_int_equal(nm_rng_u32(&r), 0xe169c58d);
    assert_int_equal(nm_rng_u32(&r), 0xbc57ac4c);
    assert_int_equal(nm_rng_u32(&r), 0x9b00dbd8);
}

static void test_arena(void **state)
{
    (void)state;
    nm_arena *a = nm_arena_new(0);
    for (int pass = 0; pass < 4; pass++) {
        nm_arena_mark m = nm_arena_get_mark(a);
        for (int i = 0; i < 100; i++) {
            char *p = nm_arena_alloc(a, 100000);
            assert_non_null(p);
            assert_int_equal((uintptr_t)p % NM_ALIGN, 0);
            memset(p, i, 100000);
        }
        nm_arena_rewind(a, m);
        nm_arena_reset(a);
    }
    size_t n = nm_arena_mallocs(a);
    for (int i = 0; i < 100; i++)
        assert_non_null(nm_arena_alloc(a, 100000));
    assert_int_equal(nm_arena_mallocs(a), n);
    assert_null(nm_arena_alloc(a, SIZE_MAX - 3));
    nm_arena_free(a);
}

typedef struct sum_arg { nm_pool *pool; int64_t *cells; } sum_arg;
static void nested(void *p, int64_t b, int64_t e, int w)
{
    (void)w;
    for (int64_t i = b; i < e; i++)
        ((int64_t *)p)[i]++;
}
static void outer(void *p, int64_t b, int64_t e, int w)
{
    sum_arg *a = p;
    assert_true(w >= 0 && w < nm_pool_size(a->pool));
    for (int64_t i = b; i < e; i++)
        nm_parallel_for(a->pool, 10, 3, nested, a->cells + 10 * i);
}

static void test_pool(void **state)
{
    (void)state;
    for (int threads = 1; threads <= 5; threads++) {
        nm_pool *p = nm_pool_new(threads);
        int64_t *cells = calloc(1000, sizeof *cells);
        sum_arg a = { p, cells };
        for (int rep = 0; rep < 200; rep++)
            nm_parallel_for(p, 100, 1 + rep % 7, outer, &a);
        for (int i = 0; i < 1000; i++)
            assert_int_equal(cells[i], 200);
        free(cells);
        nm_pool_free(p);
    }
}

static void test_json_numbers(void **state)
{
    (void)state;
    nm_rng r;
    nm_rng_init(&r, 1, 2);
    for (int i = 0; i < 100000; i++) {
        uint32_t u = nm_rng_u32(&r);
        float f;
        memcpy(&f, &u, 4);
        if (!isfinite(f))
            continue;
        nm_buf b = { 0 };
        nm_json_put_f32(&b, f);
        float g = strtof(b.data, NULL);
        assert_memory_equal(&f, &g, 4);
        nm_buf_free(&b);
    }
}

static void test_csv(void **state)
{
    (void)state;
    static const char text[] = "a,\"b, \"\"c\"\"\nd\",\r\n\"x\"y,,\"\r\n\"\n끝\r";
    static const struct { const char *field; int end; int64_t line; } want[] = { { "a", ',', 1 },    { "b, \"c\"\nd", ',', 2 }, { "", '\n', 3 }, { "xy", ',', 3 },
                                                                                 { "", ',', 3 },     { "\r\n", '\n', 5 },       { "끝", 0, 5 } };
    nm_csv c = { .p = text, .end = text + sizeof text - 1, .sep = ',', .line = 1 };
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        assert_int_equal(nm_csv_field(&c), want[i].end);
        assert_string_equal(c.field.data, want[i].field);
        assert_int_equal(c.line, want[i].line);
    }
    assert_ptr_equal(c.p, c.end);
    nm_csv open = { .p = "\"a,b\n", .sep = ',', .line = 1 };
    open.end = open.p + 5;
    assert_int_equal(nm_csv_field(&open), 0); /* quotes that stay open: all of it */
    assert_string_equal(open.field.data, "a,b\n");
    nm_buf_free(&c.field);
    nm_buf_free(&open.field);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_half_round_trip), cmocka_unit_test(test_utf8), cmocka_unit_test(test_sha256), cmocka_unit_test(test_rng),
        cmocka_unit_test(test_arena), cmocka_unit_test(test_pool), cmocka_unit_test(test_json_numbers), cmocka_unit_test(test_csv),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
