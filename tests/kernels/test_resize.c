/* test_resize.c - every resize kernel set against the plain C one: sizes around the register widths, up- and downscaling,
 * every channel count, single and odd rows, guard bytes. Sums are exact, so results must be equal. `--bench` times them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/cpu.h"
#include "base/mem.h"
#include "base/rng.h"
#include "kernels/resize.h"
#include "media/resize.h"

static const char *const levels[] = { "ref", "avx2", "avx512" };

static const nm_resize_kernels *level(const char *name)
{
    return nm_resize_select(nm_cpu_detect() & nm_cpu_mask(name));
}

static void fill(nm_rng *r, unsigned char *p, size_t n, int extremes)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t v = nm_rng_u32(r);
        p[i] = (unsigned char)(extremes ? (v & 1 ? 255 : 0) : v);
    }
}

/* One geometry through nm_resize_run with each set. */
static void check(nm_rng *r, int w, int h, int ow, int oh, nm_filter filter, int channels, int extremes)
{
    size_t stride = (size_t)w * (size_t)channels + nm_rng_below(r, 5), out = (size_t)ow * (size_t)channels + 3;
    unsigned char *src = nm_alloc(stride * (size_t)h + NM_IMAGE_PAD), *want = nm_alloc(out * (size_t)oh), *got = nm_alloc(out * (size_t)oh);
    nm_resize_span x = { w, ow, 0, ow }, y = { h, oh, 0, oh };
    noema_error err = NOEMA_ERROR_INIT;
    fill(r, src, stride * (size_t)h + NM_IMAGE_PAD, extremes);
    if (nm_rng_u32(r) % 2 && ow > 3) /* cropped */
        x.crop0 = ow / 3, x.crop1 = ow - ow / 4;
    for (size_t k = 0; k < 3; k++) {
        nm_resize_plan p = { 0 };
        unsigned char *d = k ? got : want;
        memset(d, 0x5A, out * (size_t)oh);
        assert_int_equal(nm_resize_plan_set(&p, level(levels[k]), filter, channels, x, y, &err), NOEMA_OK);
        assert_int_equal(nm_resize_run(&p, d, out, src, stride, &err), NOEMA_OK);
        if (k && memcmp(want, got, out * (size_t)oh)) {
            print_error("%s: %d x %d -> %d x %d, %s, %d channels\n", level(levels[k])->name, w, h, ow, oh, nm_filter_name(filter), channels);
            fail();
        }
        nm_resize_plan_free(&p);
    }
    nm_free(src);
    nm_free(want);
    nm_free(got);
}

static void test_grid(void **state)
{
    (void)state;
    static const int sizes[] = { 1, 2, 3, 4, 5, 7, 15, 16, 17, 21, 33, 64, 65, 130 };
    enum { N = sizeof sizes / sizeof *sizes };
    static const nm_filter filters[] = { NM_BICUBIC, NM_BILINEAR, NM_LANCZOS };
    nm_rng r;
    nm_rng_init(&r, 7, 0);
    print_message("sets:");
    for (size_t k = 0; k < 3; k++)
        print_message(" %s", level(levels[k])->name);
    print_message("\n");
    for (int c = 1; c <= 4; c++)
        for (int i = 0; i < N; i++)
            for (int o = 0; o < N; o++) {
                int h = sizes[nm_rng_below(&r, N)], oh = sizes[nm_rng_below(&r, N)];
                check(&r, sizes[i], h, sizes[o], oh, filters[nm_rng_below(&r, 3)], c, (int)(nm_rng_u32(&r) % 3 == 0));
            }
    check(&r, 3000, 3, 5, 3, NM_LANCZOS, 3, 1); /* thousands of taps */
    check(&r, 5, 3000, 5, 2, NM_BICUBIC, 3, 1);
    check(&r, 640, 427, 224, 224, NM_BICUBIC, 3, 0);
}

/* The masked sets really are different code where the machine has them. */
static void test_selection(void **state)
{
    (void)state;
    assert_string_equal(nm_resize_select(0)->name, "ref");
#if defined(__x86_64__)
    assert_string_equal(nm_resize_select(NM_CPU_AVX2)->name, "avx2");
    assert_string_equal(nm_resize_select(NM_CPU_AVX2 | NM_CPU_AVX512)->name, "avx2"); /* needs VNNI */
    assert_string_equal(nm_resize_select(NM_CPU_AVX2 | NM_CPU_AVX512 | NM_CPU_AVX512_VNNI)->name, "avx512");
#endif
}

static double seconds(void)
{
    struct timespec t;
    timespec_get(&t, TIME_UTC);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int bench(void)
{
    enum { W = 640, H = 427, OW = 335, OH = 224 };
    static unsigned char src[W * H * 4 + NM_IMAGE_PAD], dst[OH * OH * 4];
    noema_error err = NOEMA_ERROR_INIT;
    for (int c = 1; c <= 4; c++)
        for (size_t k = 0; k < 3; k++) {
            nm_resize_plan p = { 0 };
            nm_resize_span x = { W, OW, 56, 280 }, y = { H, OH, 0, OH };
            double best = 1;
            if (nm_resize_plan_set(&p, level(levels[k]), NM_BICUBIC, c, x, y, &err) != NOEMA_OK)
                return 1;
            for (int i = 0; i < 30; i++) {
                double t = seconds();
                if (nm_resize_run(&p, dst, (size_t)OH * (size_t)c, src, (size_t)W * (size_t)c, &err) != NOEMA_OK)
                    return 1;
                t = seconds() - t;
                best = t < best ? t : best;
            }
            printf("%d channels %-6s %.3f ms\n", c, level(levels[k])->name, 1e3 * best);
            nm_resize_plan_free(&p);
        }
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_grid), cmocka_unit_test(test_selection) };
    if (argc > 1 && !strcmp(argv[1], "--bench"))
        return bench();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
