/* test_write.c - PNG and JPEG out and in again, thumbnails, contact sheets, drawing, and pictures from emoji fonts. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "media/cbdt.h"
#include "media/draw.h"
#include "media/write.h"

#define MEDIA NOEMA_SOURCE_DIR "/tests/golden/media"
#define FONTS NOEMA_SOURCE_DIR "/tests/fuzz/corpus/cbdt"

static void test_png_round_trip(void **state)
{
    (void)state;
    static const char *const files[] = { "images/syn_rgb_interlaced.png", "images/syn_rgba_interlaced.png", "images/syn_la.png",
                                         "images/syn_gray2.png", "images/syn_palette_trns.png", "images/syn_palette8.bmp", "more/I16.tif",
                                         "images/syn_1bit.png", "images/syn_cmyk.jpg", "images/syn_rgb_trns_key.png" };
    noema_error err = NOEMA_ERROR_INIT;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        nm_image a = { 0 }, b = { 0 }, wa = { 0 }, wb = { 0 };
        nm_buf out = { 0 };
        char path[512];
        snprintf(path, sizeof path, MEDIA "/%s", files[i]);
        assert_int_equal(nm_image_open(&a, path, NULL, &err), NOEMA_OK);
        assert_int_equal(nm_png_encode(&out, &a, &err), NOEMA_OK);
        assert_int_equal(nm_image_decode(&b, out.data, out.len, "png", NULL, &err), NOEMA_OK);
        assert_int_equal(nm_image_has_alpha(&a), nm_image_has_alpha(&b));
        assert_int_equal(nm_image_to_rgba(&wa, &a, &err), NOEMA_OK);
        assert_int_equal(nm_image_to_rgba(&wb, &b, &err), NOEMA_OK);
        assert_memory_equal(wa.data, wb.data, wa.stride * (size_t)wa.height);
        nm_buf_free(&out);
        nm_image_free(&a);
        nm_image_free(&b);
        nm_image_free(&wa);
        nm_image_free(&wb);
    }
}

static void test_jpeg(void **state)
{
    (void)state;
    noema_error err = NOEMA_ERROR_INIT;
    nm_image a = { 0 }, b = { 0 };
    nm_buf out = { 0 };
    assert_int_equal(nm_image_open(&a, MEDIA "/images/syn_exact_size.png", NULL, &err), NOEMA_OK);
    assert_int_equal(nm_jpeg_encode(&out, &a, 95, &err), NOEMA_OK);
    assert_int_equal(nm_image_decode(&b, out.data, out.len, "jpeg", NULL, &err), NOEMA_OK);
    assert_int_equal(b.mode, NM_MODE_RGB);
    assert_int_equal(b.width, a.width);
    size_t high = out.len;
    out.len = 0;
    assert_int_equal(nm_jpeg_encode(&out, &a, 20, &err), NOEMA_OK);
    assert_true(out.len < high / 2);
    nm_buf_free(&out);
    nm_image_free(&a);
    nm_image_free(&b);
}

static void test_thumbnail_and_sheet(void **state)
{
    (void)state;
    static const unsigned char grey[3] = { 40, 41, 42 };
    noema_error err = NOEMA_ERROR_INIT;
    nm_image a = { 0 }, small = { 0 }, t = { 0 }, sheet = { 0 };
    assert_int_equal(nm_image_open(&a, MEDIA "/images/syn_7x300.png", NULL, &err), NOEMA_OK);
    assert_int_equal(nm_thumbnail(&t, &a, 100, &err), NOEMA_OK);
    assert_int_equal(t.height, 100);
    assert_int_equal(t.width, 2);
    assert_int_equal(nm_image_open(&small, MEDIA "/images/syn_1x1.png", NULL, &err), NOEMA_OK);
    assert_int_equal(nm_thumbnail(&t, &small, 100, &err), NOEMA_OK);
    assert_int_equal(t.width, 1); /* not enlarged */
    const nm_image *list[5] = { &a, &small, NULL, &a, &small };
    assert_int_equal(nm_contact_sheet(&sheet, list, 5, 3, 50, 4, grey, &err), NOEMA_OK);
    assert_int_equal(sheet.width, 3 * 54 + 4);
    assert_int_equal(sheet.height, 2 * 54 + 4);
    assert_memory_equal(sheet.data, grey, 3);
    /* the one pixel of the second picture is in the middle of its cell */
    assert_memory_equal(sheet.data + (size_t)(4 + 24) * sheet.stride + 3 * (4 + 54 + 24), small.data, 3);
    assert_int_equal(nm_contact_sheet(&sheet, list, 5, 1, 4096, 4096, grey, &err), NOEMA_E_LIMIT);
    nm_err_clear(&err);
    assert_int_equal(nm_contact_sheet(&sheet, list, 0, 1, 50, 4, grey, &err), NOEMA_E_ARGUMENT);
    nm_image_free(&a);
    nm_image_free(&small);
    nm_image_free(&t);
    nm_image_free(&sheet);
}

static void test_draw(void **state)
{
    (void)state;
    static const unsigned char red[3] = { 255, 0, 0 }, black[3] = { 0, 0, 0 };
    noema_error err = NOEMA_ERROR_INIT;
    nm_image im = { 0 };
    assert_int_equal(nm_image_reset(&im, NM_MODE_RGB, 40, 30, &err), NOEMA_OK);
    nm_draw_fill(&im, -5, -5, 1000, 1000, black);
    nm_draw_rect(&im, 5, 5, 20, 15, 2, red);
    int n = 0;
    for (int i = 0; i < 40 * 30; i++)
        n += im.data[3 * i] == 255;
    assert_int_equal(n, 15 * 10 - 11 * 6);
    nm_draw_rect(&im, -10, -10, 500, 500, 3, red); /* clipped: draws nothing inside */
    nm_draw_fill(&im, 0, 0, 40, 30, black);
    nm_draw_text(&im, 0, 0, 1, "I", red); /* two serifs of three dots, a stem of seven */
    n = 0;
    for (int i = 0; i < 40 * 30; i++)
        n += im.data[3 * i] == 255;
    assert_int_equal(n, 7 + 4);
    assert_int_equal(nm_text_width("abc", 2), 34);
    assert_int_equal(nm_text_width("", 2), 0);
    nm_draw_label(&im, 35, 2, 1, "out of the picture \xF0\x9F\x98\x80 \xFF", red);
    nm_image_free(&im);
}

static void test_emoji(void **state)
{
    (void)state;
    static const char *const fonts[] = { "index1.ttf", "index3.ttf", "index4.ttf", "index5.ttf" };
    noema_error err = NOEMA_ERROR_INIT;
    for (size_t k = 0; k < 4; k++) {
        char path[512], name[160];
        nm_map m;
        nm_emoji *list = NULL;
        size_t n = 0;
        snprintf(path, sizeof path, FONTS "/%s", fonts[k]);
        assert_int_equal(nm_map_file(&m, path, &err), NOEMA_OK);
        assert_int_equal(nm_emoji_list(&list, &n, m.data, m.size, path, &err), NOEMA_OK);
        assert_int_equal(n, 5); /* three faces, the joined one, and that mirrored */
        assert_int_equal(list[0].cp[0], 0x1F600);
        nm_emoji_file_name(&list[3], name);
        assert_string_equal(name, "emoji_u1f600_200d_1f601.png");
        nm_emoji_file_name(&list[4], name);
        assert_string_equal(name, "emoji_u1f601_200d_1f600.png");
        assert_ptr_equal(list[3].png, list[4].png);
        nm_image im = { 0 };
        assert_int_equal(nm_image_decode(&im, list[1].png, list[1].png_size, name, NULL, &err), NOEMA_OK);
        static const unsigned char green[3] = { 0, 255, 0 };
        assert_memory_equal(im.data, green, 3);
        nm_image_free(&im);
        free(list);
        nm_unmap(&m);
    }
    static const unsigned char nothing[16] = { 0, 1, 0, 0, 0, 9 };
    nm_emoji *list = NULL;
    size_t n = 0;
    assert_int_equal(nm_emoji_list(&list, &n, nothing, sizeof nothing, "x.ttf", &err), NOEMA_E_FORMAT);
    assert_non_null(strstr(err.message, "x.ttf"));
}

static void test_emoji_extract(void **state)
{
    (void)state;
    noema_error err = NOEMA_ERROR_INIT;
    char dir[] = "/tmp/noema_emoji_XXXXXX";
    size_t n = 0;
    assert_non_null(mkdtemp(dir));
    assert_int_equal(nm_emoji_extract(FONTS "/index1.ttf", dir, 2, NULL, NULL, &n, &err), NOEMA_OK);
    assert_int_equal(n, 2);
    char *a = nm_path_join(dir, "emoji_u1f600.png"), *b = nm_path_join(dir, "emoji_u1f601.png");
    assert_true(nm_file_exists(a) && nm_file_exists(b));
    unlink(a);
    unlink(b);
    rmdir(dir);
    free(a);
    free(b);
    static const char font[] = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf";
    if (!nm_file_exists(font)) {
        print_message("SKIPPED: %s is not here\n", font);
        return;
    }
    nm_map m;
    nm_emoji *list = NULL;
    assert_int_equal(nm_map_file(&m, font, &err), NOEMA_OK);
    assert_int_equal(nm_emoji_list(&list, &n, m.data, m.size, font, &err), NOEMA_OK);
    assert_true(n > 3000);
    nm_image im = { 0 };
    for (size_t i = 0; i < n; i += 97) {
        assert_int_equal(nm_image_decode(&im, list[i].png, list[i].png_size, "emoji", NULL, &err), NOEMA_OK);
        assert_true(im.width > 100 && im.height > 100);
    }
    nm_image_free(&im);
    free(list);
    nm_unmap(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_png_round_trip), cmocka_unit_test(test_jpeg),  cmocka_unit_test(test_thumbnail_and_sheet),
        cmocka_unit_test(test_draw),           cmocka_unit_test(test_emoji), cmocka_unit_test(test_emoji_extract),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
