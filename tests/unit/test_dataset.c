/* test_dataset.c - the notation of sources, keys of tar members, rows of Parquet as a data set, captions from class names, the order of epochs,
 * and the colour rules of the training transform against Pillow's numbers. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "data/dataset.h"
#include "data/expand.h"
#include "data/tar.h"
#include "train/augment.h"

#define PARQUET NOEMA_SOURCE_DIR "/tests/golden/parquet/"

static void expands(const char *source, const char *const *want)
{
    nm_paths p = { 0 };
    noema_error err = NOEMA_ERROR_INIT;
    size_t n = 0;
    assert_int_equal(nm_paths_expand(&p, source, &err), NOEMA_OK);
    while (want[n])
        n++;
    assert_int_equal(p.n, n);
    for (size_t i = 0; i < n; i++)
        assert_string_equal(p.path[i], want[i]);
    nm_paths_free(&p);
}

static void test_sources(void **state)
{
    (void)state;
    expands("a.tar", (const char *[]){ "a.tar", NULL });
    expands("s-{0008..0011}.tar", (const char *[]){ "s-0008.tar", "s-0009.tar", "s-0010.tar", "s-0011.tar", NULL });
    expands("s-{8..10}.tar::x", (const char *[]){ "s-8.tar", "s-9.tar", "s-10.tar", "x", NULL });
    expands("{a,b}/{0..1}", (const char *[]){ "a/0", "a/1", "b/0", "b/1", NULL });
    expands("a{b}c", (const char *[]){ "a{b}c", NULL });
    nm_paths p = { 0 };
    noema_error err = NOEMA_ERROR_INIT;
    assert_int_equal(nm_paths_expand(&p, "a::", &err), NOEMA_E_ARGUMENT);
    nm_paths_free(&p);
    err = (noema_error)NOEMA_ERROR_INIT;
    assert_int_equal(nm_paths_expand(&p, "{0..999999999}", &err), NOEMA_E_ARGUMENT);
    nm_paths_free(&p);
}

/* webdataset's expression ^((?:.*\/|)[^.]+)[.]([^/]*)$ */
static void test_keys(void **state)
{
    static const struct { const char *name, *key; } cases[] = {
        { "a.jpg", "a" }, { "./a.jpg", "./a" }, { "d/a.seg.png", "d/a" }, { "a.b/c.jpg", "a.b/c" }, { "a.b/c", NULL }, { ".hidden", NULL }, { "noext", NULL },
        { "__meta__", NULL }, { "__meta__.json", NULL }, { "__x/a.jpg", "__x/a" }, { "dir/.x", "dir/" }, { "a.b/.x", NULL }, { "d/e/.x", "d/e/" }, { "./.x", NULL },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t n = 0;
        bool is = nm_tar_key(cases[i].name, &n);
        if (is != (cases[i].key != NULL) || (is && (n != strlen(cases[i].key) || strncmp(cases[i].name, cases[i].key, n) != 0)))
            fail_msg("%s: key of %zu bytes", cases[i].name, n);
    }
}

static nm_dataset *open_set(const char *source, const nm_dataset_options *o)
{
    noema_error err = NOEMA_ERROR_INIT;
    nm_dataset *d;
    if (nm_dataset_open(&d, source, o, &err) != NOEMA_OK)
        fail_msg("%s", err.message);
    return d;
}

static void test_parquet_rows(void **state)
{
    (void)state;
    nm_dataset *d = open_set(PARQUET "codec_zstd.parquet::" PARQUET "plain_v2.parquet", NULL);
    noema_error err = NOEMA_ERROR_INIT;
    nm_row row = { 0 };
    assert_int_equal(nm_dataset_count(d), 600);
    assert_int_equal(nm_dataset_classes(d), 3);
    assert_string_equal(nm_dataset_label_name(d, 2), "한국");
    for (int64_t i = 0; i < 600; i += 7) {
        int64_t r = i % 300;
        bool picture = r % 13 != 5 && (r % 17 > 0 || r % 3 == 0);
        err = (noema_error)NOEMA_ERROR_INIT;
        assert_int_equal(nm_dataset_read(d, i, &row, &err), picture ? NOEMA_OK : NOEMA_E_MISSING);
        assert_int_equal(row.label, r % 3);
        assert_int_equal(nm_dataset_label(d, i), r % 3);
        assert_int_equal(row.n_titles, r % 7 != 3);
        if (picture && r % 17 > 0)
            assert_int_equal(row.n_bytes, r % 17);
        else if (picture)
            assert_non_null(strstr(row.path, ".png"));
    }
    nm_row_release(&row);
    nm_dataset_free(d);
    d = open_set(PARQUET "delta_bytes_v2.parquet", &(nm_dataset_options){ .caption_key = "tags" });
    assert_int_equal(nm_dataset_read(d, 7, &row, &err), NOEMA_OK);
    assert_int_equal(row.n_titles, 2);
    assert_memory_equal(row.title[1].p, "t7.1", 4);
    nm_row_release(&row);
    nm_dataset_free(d);
}

static void test_class_captions(void **state)
{
    const char *const names[] = { "고양이", "개", "새" }, *const templates[] = { "a photo of a {}.", "{} 사진", "nothing" };
    nm_dataset_options o = { .class_names = names, .n_class_names = 3, .templates = templates, .n_templates = 3, .caption_key = "image.path" };
    nm_dataset *d = open_set(PARQUET "codec_none.parquet", &o);
    noema_error err = NOEMA_ERROR_INIT;
    nm_row row = { 0 };
    nm_bytes text;
    char buf[64];
    (void)state;
    assert_int_equal(nm_dataset_read(d, 1, &row, &err), NOEMA_OK); /* no caption of its own */
    assert_int_equal(nm_row_titles(&row), 3);
    assert_true(nm_row_title(&row, 4, &text, buf, sizeof buf));
    assert_string_equal(buf, "개 사진");
    assert_int_equal(nm_dataset_read(d, 3, &row, &err), NOEMA_OK);
    assert_true(nm_row_title(&row, 4, &text, buf, sizeof buf));
    assert_int_equal(text.n, 6);
    assert_memory_equal(text.p, "p3.png", 6);
    nm_row_release(&row);
    nm_dataset_free(d);
    o.n_class_names = 2; /* label 2 has no name */
    assert_int_equal(nm_dataset_open(&d, PARQUET "codec_none.parquet", &o, &err), NOEMA_E_FORMAT);
    assert_non_null(strstr(err.message, "2 class names"));
}

static void is_permutation(const int64_t *order, int64_t n)
{
    char *seen = calloc((size_t)n, 1);
    for (int64_t i = 0; i < n; i++) {
        assert_true(order[i] >= 0 && order[i] < n && !seen[order[i]]);
        seen[order[i]] = 1;
    }
    free(seen);
}

static void test_order(void **state)
{
    int64_t a[600], b[600];
    (void)state;
    for (int blocks = 0; blocks < 2; blocks++) {
        nm_dataset *d = open_set(PARQUET "plain_v1.parquet::" PARQUET "plain_v2.parquet", &(nm_dataset_options){ .cache_bytes = blocks ? 1 : 0 });
        assert_int_equal(nm_dataset_scattered(d), !blocks);
        nm_dataset_order(d, 5, 0, a);
        is_permutation(a, 600);
        nm_dataset_order(d, 5, 0, b);
        assert_memory_equal(a, b, sizeof a);
        nm_dataset_order(d, 5, 1, b);
        assert_memory_not_equal(a, b, sizeof a);
        is_permutation(b, 600);
        nm_dataset_order(d, 6, 0, b);
        assert_memory_not_equal(a, b, sizeof a);
        nm_dataset_free(d);
    }
}

/* Pillow 12: ImageEnhance.{Brightness,Contrast,Color}, convert("HSV") turned as torchvision's adjust_hue does. */
#include "dataset_colours.inc"

static void test_colours(void **state)
{
    unsigned char rgb[COLOURS * 3];
    (void)state;
    for (size_t i = 0; i < sizeof colour_cases / sizeof *colour_cases; i++) {
        memcpy(rgb, colours, sizeof rgb);
        switch (colour_cases[i].kind) {
        case 'b': nm_adjust_brightness(rgb, COLOURS, colour_cases[i].factor); break;
        case 'c': nm_adjust_contrast(rgb, COLOURS, colour_cases[i].factor); break;
        case 's': nm_adjust_saturation(rgb, COLOURS, colour_cases[i].factor); break;
        case 'h': nm_adjust_hue(rgb, COLOURS, colour_cases[i].factor); break;
        default: nm_to_gray(rgb, COLOURS);
        }
        assert_memory_equal(rgb, colour_cases[i].want, sizeof rgb);
    }
}

static void test_augment_options(void **state)
{
    static const char *const bad[] = { "scale=2,3", "scale=0.5", "hflip=2", "pad_crop=1.5", "zoom=1", "color_jitter_prob=0.8", "hflip", "ratio=0,1" };
    nm_augment a;
    (void)state;
    nm_augment_default(&a);
    noema_error err = NOEMA_ERROR_INIT;
    assert_int_equal(nm_augment_parse(&a, "scale=0.5,1 hflip=0.5;pad_crop=4 color_jitter=0.4,0.4,0.4,0.1 color_jitter_prob=0.8", &err), NOEMA_OK);
    assert_true(a.scale[0] == 0.5 && a.hflip == 0.5 && a.pad_crop == 4 && a.jitter[3] == 0.1 && a.jitter_prob == 0.8 && a.ratio[0] == 0.75);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        nm_augment_default(&a);
        err = (noema_error)NOEMA_ERROR_INIT;
        assert_int_equal(nm_augment_parse(&a, bad[i], &err), NOEMA_E_ARGUMENT);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sources), cmocka_unit_test(test_keys),   cmocka_unit_test(test_parquet_rows),    cmocka_unit_test(test_class_captions),
        cmocka_unit_test(test_order),   cmocka_unit_test(test_colours), cmocka_unit_test(test_augment_options),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
