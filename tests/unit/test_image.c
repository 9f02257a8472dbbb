/* test_image.c - broken and hostile image files, limits, content sniffing, orientation, BMP variants made here. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/rng.h"
#include "media/image.h"

#define MEDIA NOEMA_SOURCE_DIR "/tests/golden/media"

static double seconds(void)
{
    struct timespec t;
    timespec_get(&t, TIME_UTC);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* bad/expected.json says what Pillow does: where it refuses we must, where it accepts we may refuse or give its pixels. */
static void test_bad_files(void **state)
{
    (void)state;
    noema_error err = NOEMA_ERROR_INIT;
    json_t *j = nm_json_load(MEDIA "/images/bad/expected.json", &err), *v;
    assert_non_null(j);
    const char *name;
    int n = 0;
    json_object_foreach(j, name, v) {
        char path[512], hex[65];
        snprintf(path, sizeof path, MEDIA "/images/bad/%s", name);
        nm_image im = { 0 }, rgb = { 0 };
        nm_err_clear(&err);
        double t = seconds();
        noema_status st = nm_image_open(&im, path, NULL, &err);
        assert_true(seconds() - t < 1.0);
        if (st == NOEMA_OK) {
            assert_string_equal(nm_json_str(v, "pillow", ""), "accepted");
            assert_int_equal(nm_image_to_rgb(&rgb, &im, &err), NOEMA_OK);
            nm_sha256_hex(rgb.data, rgb.stride * (size_t)rgb.height, hex);
            assert_string_equal(hex, nm_json_str(v, "rgb_sha256", ""));
        } else {
            assert_int_equal(st, err.code);
            assert_non_null(strstr(err.message, name)); /* the message names the file */
            assert_int_equal(im.mode, NM_MODE_NONE);
            assert_true(im.cap < 1 << 20); /* nothing of the declared size was allocated */
            if (!strcmp(nm_json_str(v, "kind", ""), "DecompressionBombError"))
                assert_int_equal(st, NOEMA_E_LIMIT);
        }
        nm_image_free(&im);
        nm_image_free(&rgb);
        n++;
    }
    assert_true(n >= 20);
    json_decref(j);
}

static void test_limit(void **state)
{
    (void)state;
    noema_error err = NOEMA_ERROR_INIT;
    nm_image im = { 0 };
    nm_image_options o = { .max_pixels = 224 * 224 - 1 };
    assert_int_equal(nm_image_open(&im, MEDIA "/images/syn_exact_size.png", &o, &err), NOEMA_E_LIMIT);
    assert_non_null(strstr(err.message, "50175"));
    assert_non_null(strstr(err.message, "224 x 224"));
    nm_err_clear(&err);
    o.max_pixels++;
    assert_int_equal(nm_image_open(&im, MEDIA "/images/syn_exact_size.png", &o, &err), NOEMA_OK);
    assert_int_equal(nm_image_open(&im, MEDIA "/no such file.png", &o, &err), NOEMA_E_MISSING);
    nm_image_free(&im);
}

static void test_sniff(void **state)
{
    (void)state;
    static const struct { const char *file, *format; } rows[] = {
        { "syn_png_named.jpg", "PNG" }, { "syn_gray.jpg", "JPEG" }, { "syn_lossy.webp", "WebP" }, { "syn_animated.gif", "GIF" },
        { "syn_24bit.bmp", "BMP" },
    };
    noema_error err = NOEMA_ERROR_INIT;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char path[512];
        nm_map m;
        snprintf(path, sizeof path, MEDIA "/images/%s", rows[i].file);
        assert_int_equal(nm_map_file(&m, path, &err), NOEMA_OK);
        assert_string_equal(nm_image_sniff(m.data, m.size), rows[i].format);
        for (size_t n = 0; n < 20; n++)
            nm_image_sniff(m.data, n);
        nm_unmap(&m);
    }
    assert_null(nm_image_sniff("hello, world, hello, world", 26));
}

/* A second image of another size into the same object reuses its memory. */
static void test_reuse(void **state)
{
    (void)state;
    noema_error err = NOEMA_ERROR_INIT;
    nm_image im = { 0 };
    assert_int_equal(nm_image_open(&im, MEDIA "/images/syn_exact_size.png", NULL, &err), NOEMA_OK);
    unsigned char *data = im.data;
    assert_int_equal(nm_image_open(&im, MEDIA "/images/syn_gray.jpg", NULL, &err), NOEMA_OK);
    assert_ptr_equal(im.data, data);
    assert_int_equal(im.mode, NM_MODE_L);
    nm_image_free(&im);
}

static void test_orientation(void **state)
{
    (void)state;
    noema_error err = NOEMA_ERROR_INIT;
    nm_image im = { 0 }, turned = { 0 };
    nm_image_options o = { .apply_orientation = true };
    assert_int_equal(nm_image_open(&im, MEDIA "/images/syn_exif_orient6.jpg", NULL, &err), NOEMA_OK);
    assert_int_equal(im.orientation, 6);
    assert_int_equal(nm_image_open(&turned, MEDIA "/images/syn_exif_orient6.jpg", &o, &err), NOEMA_OK);
    assert_int_equal(turned.orientation, 1);
    assert_int_equal(turned.width, im.height);
    /* orientation 6: the stored first row is the right edge */
    assert_memory_equal(turned.data + 3 * (size_t)(turned.width - 1), im.data, 3);
    assert_memory_equal(turned.data + 5 * turned.stride + 3 * (size_t)(turned.width - 1), im.data + 15, 3);
    /* each orientation and its inverse */
    static const int inverse[] = { 1, 1, 2, 3, 4, 5, 8, 7, 6 };
    for (int k = 2; k <= 8; k++) {
        nm_image a = { 0 };
        assert_int_equal(nm_image_to_rgb(&a, &im, &err), NOEMA_OK);
        assert_int_equal(nm_image_transpose(&a, k, &err), NOEMA_OK);
        assert_memory_not_equal(a.data, im.data, im.stride);
        assert_int_equal(nm_image_transpose(&a, inverse[k], &err), NOEMA_OK);
        assert_memory_equal(a.data, im.data, im.stride * (size_t)im.height);
        nm_image_free(&a);
    }
    nm_image_free(&im);
    nm_image_free(&turned);
}

static void fixed_window(void *arg, nm_mode mode, int width, int height, nm_rect *need)
{
    (void)mode, (void)width, (void)height;
    *need = *(nm_rect *)arg;
}

/* Inside the window a partial decode equals the whole one, for every subsampling, restart markers and progressive scans. */
static int check_windows(const char *path, int n_windows, nm_rng *r)
{
    noema_error err = NOEMA_ERROR_INIT;
    nm_image whole = { 0 }, part = { 0 };
    int bad = 0;
    assert_int_equal(nm_image_open(&whole, path, NULL, &err), NOEMA_OK);
    for (int k = 0; k < n_windows; k++) {
        nm_rect w;
        w.x0 = (int)nm_rng_below(r, (uint64_t)whole.width);
        w.y0 = (int)nm_rng_below(r, (uint64_t)whole.height);
        w.x1 = w.x0 + 1 + (int)nm_rng_below(r, (uint64_t)(whole.width - w.x0));
        w.y1 = w.y0 + 1 + (int)nm_rng_below(r, (uint64_t)(whole.height - w.y0));
        nm_image_options o = { .window = fixed_window, .window_arg = &w };
        if (part.data)
            memset(part.data, 0xEE, part.cap);
        assert_int_equal(nm_image_open(&part, path, &o, &err), NOEMA_OK);
        size_t b = (size_t)nm_mode_bytes(whole.mode);
        for (int y = w.y0; y < w.y1; y++)
            bad += memcmp(part.data + (size_t)y * part.stride + (size_t)w.x0 * b, whole.data + (size_t)y * whole.stride + (size_t)w.x0 * b,
                          (size_t)(w.x1 - w.x0) * b) != 0;
        if (bad) {
            print_error("%s: window %d..%d x %d..%d: %d rows differ\n", path, w.x0, w.x1, w.y0, w.y1, bad);
            break;
        }
    }
    nm_image_free(&whole);
    nm_image_free(&part);
    return bad;
}

static void test_window(void **state)
{
    (void)state;
    static const char *const files[] = { "syn_gray.jpg", "syn_444.jpg", "syn_422_restart.jpg", "syn_420_odd_low_quality.jpg",
                                         "syn_progressive_420.jpg", "syn_cmyk.jpg", "syn_trailing_garbage.jpg" };
    nm_rng r;
    nm_rng_init(&r, 11, 0);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char path[512];
        snprintf(path, sizeof path, MEDIA "/images/%s", files[i]);
        assert_int_equal(check_windows(path, 60, &r), 0);
    }
    DIR *d = opendir(NOEMA_SHARED_DIR "/data/coco256/images");
    if (!d) {
        print_message("SKIPPED: windows of photographs (%s is not here)\n", NOEMA_SHARED_DIR "/data/coco256");
        return;
    }
    int n = 0;
    for (struct dirent *e; (e = readdir(d));)
        if (e->d_name[0] != '.') {
            char path[1024];
            snprintf(path, sizeof path, NOEMA_SHARED_DIR "/data/coco256/images/%s", e->d_name);
            assert_int_equal(check_windows(path, 2, &r), 0);
            n++;
        }
    closedir(d);
    assert_true(n >= 200);
}

static void put32(unsigned char *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (unsigned char)(v >> 8 * i);
}

/* A bitmap of 5 x 3 with a 40-byte header; returns its size. */
static size_t make_bmp(unsigned char *p, int bits, uint32_t compression, int height, const void *pixels, size_t n)
{
    size_t palette = bits <= 8 ? (size_t)4 << bits : 0;
    memset(p, 0, 54 + palette);
    p[0] = 'B', p[1] = 'M';
    put32(p + 10, (uint32_t)(54 + palette));
    put32(p + 14, 40);
    put32(p + 18, 5);
    put32(p + 22, (uint32_t)height);
    p[26] = 1, p[28] = (unsigned char)bits;
    put32(p + 30, compression);
    for (size_t i = 0; i < palette / 4; i++)
        p[54 + 4 * i] = (unsigned char)i, p[55 + 4 * i] = (unsigned char)(2 * i), p[56 + 4 * i] = (unsigned char)(255 - i);
    memcpy(p + 54 + palette, pixels, n);
    return 54 + palette + n;
}

static void test_bmp(void **state)
{
    (void)state;
    static unsigned char file[4096];
    noema_error err = NOEMA_ERROR_INIT;
    nm_image im = { 0 };
    /* 16 bit, 5-5-5, top-down: 0x7FFF white, 0x7C00 red */
    static const unsigned char p555[3 * 12] = { 0xFF, 0x7F, 0x00, 0x7C, 0xE0, 0x03, 0x1F, 0x00 };
    size_t n = make_bmp(file, 16, 0, -3, p555, sizeof p555);
    assert_int_equal(nm_image_decode(&im, file, n, "b", NULL, &err), NOEMA_OK);
    assert_int_equal(im.mode, NM_MODE_RGB);
    static const unsigned char want[12] = { 255, 255, 255, 255, 0, 0, 0, 255, 0, 0, 0, 255 };
    assert_memory_equal(im.data, want, 12);
    /* RLE8: 3 x 7, end of line, absolute 1 2 3 4 5 (padded), end of bitmap; bottom-up */
    static const unsigned char rle[] = { 3, 7, 0, 0, 0, 5, 1, 2, 3, 4, 5, 0, 0, 1 };
    n = make_bmp(file, 8, 1, 3, rle, sizeof rle);
    assert_int_equal(nm_image_decode(&im, file, n, "b", NULL, &err), NOEMA_OK);
    assert_int_equal(im.mode, NM_MODE_P);
    static const unsigned char rows[15] = { 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 7, 7, 7, 0, 0 };
    assert_memory_equal(im.data, rows, 15);
    assert_int_equal(im.palette[7][0], 248);
    /* RLE4: 5 pixels alternating 1 2 */
    static const unsigned char rle4[] = { 5, 0x12, 0, 1 };
    n = make_bmp(file, 4, 2, 3, rle4, sizeof rle4);
    assert_int_equal(nm_image_decode(&im, file, n, "b", NULL, &err), NOEMA_OK);
    static const unsigned char row4[5] = { 1, 2, 1, 2, 1 };
    assert_memory_equal(im.data + 10, row4, 5);
    /* one byte short */
    n = make_bmp(file, 16, 0, -3, p555, sizeof p555 - 1);
    assert_int_equal(nm_image_decode(&im, file, n, "b", NULL, &err), NOEMA_E_FORMAT);
    nm_image_free(&im);
}

/* A progressive picture whose last scan is repeated 20,000 times must not take minutes. */
static void test_many_scans(void **state)
{
    (void)state;
    noema_error err = NOEMA_ERROR_INIT;
    nm_image im = { 0 };
    nm_map m;
    assert_int_equal(nm_map_file(&m, MEDIA "/images/syn_progressive_420.jpg", &err), NOEMA_OK);
    size_t scan = m.size - 2;
    while (scan > 2 && !(m.data[scan] == 0xFF && m.data[scan + 1] == 0xDA)) /* the last start of scan */
        scan--;
    assert_true(scan > 2);
    size_t n = m.size - 2 - scan, copies = 20000, at = scan;
    unsigned char *big = malloc(scan + copies * n + 2);
    memcpy(big, m.data, scan);
    for (size_t i = 0; i < copies; i++, at += n)
        memcpy(big + at, m.data + scan, n);
    big[at] = 0xFF, big[at + 1] = 0xD9;
    double t = seconds();
    assert_int_equal(nm_image_decode(&im, big, at + 2, "scans.jpg", NULL, &err), NOEMA_E_FORMAT);
    assert_true(seconds() - t < 5.0);
    free(big);
    nm_unmap(&m);
    nm_image_free(&im);
}

/* Every prefix of a small file of each kind is an error or a picture, never a crash (sanitizer builds see overreads). */
static void test_prefixes(void **state)
{
    (void)state;
    static const char *const files[] = { "syn_1x1.png", "syn_trailing_garbage.jpg", "syn_transparent.gif", "syn_animated.webp" };
    noema_error err = NOEMA_ERROR_INIT;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char path[512];
        nm_map m;
        snprintf(path, sizeof path, MEDIA "/images/%s", files[i]);
        assert_int_equal(nm_map_file(&m, path, &err), NOEMA_OK);
        nm_image im = { 0 };
        int ok = 0;
        for (size_t n = 0; n <= m.size; n++) {
            unsigned char *copy = malloc(n + 1);
            memcpy(copy, m.data, n);
            nm_err_clear(&err);
            ok += nm_image_decode(&im, copy, n, files[i], NULL, &err) == NOEMA_OK;
            free(copy);
        }
        assert_true(ok >= 1 && ok < (int)m.size);
        nm_image_free(&im);
        nm_unmap(&m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_files), cmocka_unit_test(test_limit),       cmocka_unit_test(test_sniff),
        cmocka_unit_test(test_reuse),     cmocka_unit_test(test_orientation), cmocka_unit_test(test_bmp),
        cmocka_unit_test(test_prefixes),  cmocka_unit_test(test_window),  cmocka_unit_test(test_many_scans),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
