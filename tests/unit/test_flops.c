/* nm_run.flops against counts by hand: convolutions in both directions, and whole image towers. Multiply-adds below, two operations each. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/json.h"
#include "models/model.h"
#include "tensor/tape.h"

static nm_run run;

static nm_tensor filled(nm_shape shape)
{
    nm_tensor x = nm_new(&run, NM_F32, shape);
    assert_non_null(x.data);
    for (int64_t i = 0; i < nm_numel(&x); i++)
        ((float *)x.data)[i] = (float)(i % 17) * 0.125f - 1;
    return x;
}

/* Forward, then forward and both gradients, of 2 pictures of 8x8 with 4 channels. */
static void test_convolutions(void **state)
{
    (void)state;
    static const struct { int64_t out, k; int stride, groups; double adds; } cases[] = {
        { 6, 1, 1, 1, 2 * 64 * 4 * 6 },              /* pixels x in x out */
        { 6, 3, 1, 1, 2 * 64 * 9 * 4 * 6 },          /* ... x 3 x 3 */
        { 6, 3, 2, 1, 2 * 16 * 9 * 4 * 6 },          /* a quarter of the pixels */
        { 6, 3, 1, 2, 2 * 64 * 9 * (4 / 2) * 6 },    /* every output sees half of the channels */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        nm_tape *tape = nm_tape_new();
        nm_grad g = { 0 };
        nm_shape shape = NM_SHAPE(cases[i].out, 4 / cases[i].groups, cases[i].k, cases[i].k);
        nm_tensor x = filled(NM_SHAPE(2, 8, 8, 4)), values = filled(shape);
        nm_weight w = { .shape = shape, .n_parts = 1, .part = { values } };
        nm_conv c = { .stride = { cases[i].stride, cases[i].stride }, .pad = { cases[i].k == 3, cases[i].k == 3 }, .groups = cases[i].groups };
        run.flops = 0;
        assert_non_null(nm_conv2d(&run, x, &w, c).data);
        assert_true(run.flops == 2 * cases[i].adds);
        for (int inner = 0; inner < 2; inner++) { /* a first layer's pixels want no gradient */
            run.tape = tape;
            w.grad = &g;
            if (inner)
                nm_want_grad(&run, &x);
            run.flops = 0;
            nm_tensor y = nm_conv2d(&run, x, &w, c);
            float *dy = nm_grad_data(&run, &y);
            assert_non_null(dy);
            dy[0] = 1;
            nm_backward(&run);
            assert_true(nm_run_ok(&run));
            assert_true(run.flops == 2 * (inner ? 3 : 2) * cases[i].adds);
            nm_tape_clear(tape);
        }
        run.tape = NULL;
        nm_weight_free(&w);
        nm_free(g.data);
        nm_tape_free(tape);
    }
}

/* Operations of the image tower on one picture. */
static double tower(const char *config_text)
{
    noema_error err = NOEMA_ERROR_INIT;
    json_t *config = json_loads(config_text, 0, NULL);
    nm_model *m = NULL;
    assert_non_null(config);
    assert_int_equal(nm_family_clip.create(&m, NULL, config, 1, &err), NOEMA_OK);
    run.flops = 0;
    assert_non_null(nm_family_clip.encode_image(&run, m, filled(NM_SHAPE(1, 3, m->image_height, m->image_width))).data);
    m->family->free(m);
    json_decref(config);
    return run.flops;
}

#define TEXT "\"text_cfg\": {\"context_length\": 8, \"vocab_size\": 64, \"width\": 32, \"heads\": 2, \"layers\": 1}}"

static void test_resnet(void **state)
{
    (void)state;
    double adds = 16 * 16 * 9 * (3 * 8 + 8 * 8 + 8 * 16); /* stem at half of 32 */
    double in = 16, pixels = 8 * 8;                       /* then pooled; a stage's stride comes after its 3x3 */
    for (int s = 0; s < 4; s++) {
        double planes = 16 << s, small = s ? pixels / 4 : pixels;
        adds += pixels * in * planes + pixels * 9 * planes * planes + small * planes * 4 * planes + small * in * 4 * planes;
        in = 4 * planes;
        pixels = small;
    }
    double c = 512, tokens = 2;                                     /* one pixel and the mean, which alone asks */
    adds += (1 + 2 * tokens) * c * c + 2 * tokens * c + c * 24;
    assert_true(tower("{\"embed_dim\": 24, \"vision_cfg\": {\"image_size\": 32, \"layers\": [1, 1, 1, 1], \"width\": 16}, " TEXT) == 2 * adds);
}

static void test_vit(void **state)
{
    (void)state;
    double w = 32, tokens = 10, adds = 9 * (3 * 8 * 8) * w;
    for (int i = 0; i < 2; i++)
        adds += tokens * w * 3 * w + 2 * tokens * tokens * w + tokens * w * w + 2 * tokens * w * 4 * w;
    adds += w * 16;
    assert_true(tower("{\"embed_dim\": 16, \"vision_cfg\": {\"image_size\": 24, \"layers\": 2, \"width\": 32, \"head_width\": 8, \"patch_size\": 8}, " TEXT) ==
                2 * adds);
}

int main(void)
{
    nm_pool *pool = nm_pool_new(2);
    nm_arena *arena = nm_arena_new(1 << 16);
    nm_run_init(&run, nm_kernels_get(), pool, arena, NM_F32);
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_convolutions), cmocka_unit_test(test_resnet), cmocka_unit_test(test_vit) };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    nm_arena_free(arena);
    nm_pool_free(pool);
    return failed;
}
