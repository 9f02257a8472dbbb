/* test_mask.c - Alpha-CLIP's masks through the geometry of their pictures, against torchvision (tests/golden/media/masks, our own
 * figures; torchvision 0.29, f32). Tolerance 1e-5 for alpha (other summation order), 0.016 = one grey level for RGB, of which the
 * values here are exact in practice. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "media/preprocess.h"
#include "weights/weights.h"

#define MEDIA NOEMA_SOURCE_DIR "/tests/golden/media"
enum { S = 32 };

static void check(const nm_weights *w, const char *image, const char *variant, const float *got, int channels, float tolerance)
{
    char key[128];
    snprintf(key, sizeof key, "%s.%s", image, variant);
    const nm_wview *v = nm_weights_find(w, key);
    assert_non_null(v);
    float worst = 0;
    for (int i = 0; i < channels * S * S; i++) {
        float d = fabsf(((const float *)v->data)[i] - got[i]);
        worst = d > worst ? d : worst;
    }
    if (worst > tolerance)
        print_error("%s: differs by %g\n", key, (double)worst);
    assert_true(worst <= tolerance);
}

static void normalise(float *a)
{
    for (int i = 0; i < S * S; i++)
        a[i] = (a[i] - 0.5f) / 0.26f;
}

static void test_masks(void **state)
{
    (void)state;
    static const char *const names[] = { "wide", "tall", "square", "down", "othersize", "rgb3", "rgba" };
    static const struct { nm_fit fit; const char *variant; } fits[] = { { NM_FIT_SQUASH, "alpha_readme" }, { NM_FIT_SHORTEST, "alpha_crop" },
                                                                         { NM_FIT_PAD, "alpha_grit" } };
    noema_error err = NOEMA_ERROR_INIT;
    nm_weights *w = NULL;
    static float out[3 * S * S];
    assert_int_equal(nm_weights_open(&w, MEDIA "/masks.safetensors", &err), NOEMA_OK);
    nm_preprocess_scratch *s = nm_preprocess_scratch_new();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        bool own = !strcmp(names[i], "rgba");
        char path[512];
        nm_image im = { 0 };
        snprintf(path, sizeof path, MEDIA "/masks/%s%s.png", names[i], own ? "" : "_mask");
        assert_int_equal(nm_image_open(&im, path, NULL, &err), NOEMA_OK);
        float *mask = malloc((size_t)im.width * (size_t)im.height * 4);
        if (own)
            nm_mask_from_alpha(mask, &im);
        else
            nm_mask_from_image(mask, &im);
        for (size_t f = 0; f < 3; f++) {
            nm_preprocess p;
            if (fits[f].fit == NM_FIT_PAD && !strcmp(names[i], "othersize"))
                continue; /* not in the reference */
            assert_int_equal(nm_preprocess_named(&p, "openai", S, S, &err), NOEMA_OK);
            p.fit = fits[f].fit;
            p.order = NM_RGB_FIRST;
            assert_int_equal(nm_preprocess_mask(&p, s, mask, im.width, im.height, out, &err), NOEMA_OK);
            normalise(out);
            check(w, names[i], fits[f].variant, out, 1, 1e-5f);
        }
        free(mask);
        nm_image_free(&im);
    }
    /* the colours of a picture with alpha are taken as stored, before any resize */
    static const struct { const char *image, *variant; nm_fit fit; } rgb[] = { { "rgba", "rgb_crop", NM_FIT_SHORTEST },
        { "rgba", "rgb_squash", NM_FIT_SQUASH }, { "down", "rgb_squash", NM_FIT_SQUASH } };
    for (size_t i = 0; i < 3; i++) {
        nm_preprocess p;
        const nm_image *im;
        char path[512];
        assert_int_equal(nm_preprocess_named(&p, "openai", S, S, &err), NOEMA_OK);
        p.fit = rgb[i].fit;
        p.order = NM_RGB_FIRST;
        snprintf(path, sizeof path, MEDIA "/masks/%s.png", rgb[i].image);
        assert_int_equal(nm_preprocess_load(&p, s, path, NULL, &im, &err), NOEMA_OK);
        assert_int_equal(nm_preprocess_run(&p, s, im, out, &err), NOEMA_OK);
        check(w, rgb[i].image, rgb[i].variant, out, 3, 1e-5f);
    }
    nm_preprocess_scratch_free(s);
    nm_weights_close(w);
}

static void test_box_and_pad(void **state)
{
    (void)state;
    static float mask[6 * 4], out[8 * 8];
    noema_error err = NOEMA_ERROR_INIT;
    nm_preprocess p;
    nm_preprocess_scratch *s = nm_preprocess_scratch_new();
    nm_mask_from_box(mask, 6, 4, 1, 1, 3, 9);
    float sum = 0;
    for (int i = 0; i < 24; i++)
        sum += mask[i];
    assert_true(sum == 6);
    assert_true(mask[6 + 1] == 1 && mask[6 + 3] == 0 && mask[1] == 0);
    assert_int_equal(nm_preprocess_named(&p, "openai", 8, 8, &err), NOEMA_OK);
    p.fit = NM_FIT_PAD;
    nm_mask_from_box(mask, 6, 4, 0, 0, 6, 4);
    assert_int_equal(nm_preprocess_mask(&p, s, mask, 6, 4, out, &err), NOEMA_OK);
    assert_true(out[0] == 0 && out[8 * 4 + 4] == 1 && out[63] == 0); /* rows above and below the picture */
    /* the picture itself: black where it is padded */
    nm_image im = { 0 };
    static unsigned char u8[8 * 8 * 3];
    assert_int_equal(nm_image_reset(&im, NM_MODE_RGB, 6, 4, &err), NOEMA_OK);
    memset(im.data, 255, im.stride * 4);
    assert_int_equal(nm_preprocess_run_u8(&p, s, &im, u8, &err), NOEMA_OK);
    assert_true(u8[0] == 0 && u8[3 * (8 * 4 + 4)] == 255 && u8[8 * 8 * 3 - 1] == 0);
    nm_image_free(&im);
    nm_preprocess_scratch_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_masks), cmocka_unit_test(test_box_and_pad) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
