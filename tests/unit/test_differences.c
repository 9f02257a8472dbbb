/* test_differences.c - the gradient of every operator against central differences. A case builds a result from leaves and weights of small
 * random values; the objective is the sum of the result times fixed numbers. Differences in f32 with a step of 2^-7 are good to about 1e-3 of
 * the objective's size; where a ReLU or a maximum turns inside the step they are not, so cases draw values whose steps stay on one side. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "nn/ops.h"

#define MOST 8
#define STEP 0x1p-7f

typedef struct bed {
    nm_run r;
    nm_rng rng;
    int n_x, n_w;
    nm_tensor x[MOST];
    nm_weight w[MOST];
    nm_grad g[MOST];
    int n_held;
    nm_weight *held[2 * MOST]; /* copies in layers: what is packed in them goes after each run */
} bed;

typedef nm_tensor build_fn(bed *b);

static void draw(bed *b, float *p, int64_t n, float scale)
{
    for (int64_t i = 0; i < n; i++)
        p[i] = scale * (2 * nm_rng_uniform(&b->rng) - 1);
}

/* The next leaf: made in the first run, the same memory in the others. */
static nm_tensor leaf(bed *b, nm_shape s)
{
    nm_tensor *x = &b->x[b->n_x++];
    if (!x->data) {
        *x = nm_view(nm_alloc((size_t)nm_shape_numel(s) * sizeof(float)), NM_F32, s);
        draw(b, x->data, nm_numel(x), 1);
    }
    x->grad = NULL;
    nm_want_grad(&b->r, x);
    return *x;
}

static nm_weight *weight(bed *b, nm_shape s)
{
    nm_weight *w = &b->w[b->n_w];
    if (!nm_has(w)) {
        float *p = nm_alloc((size_t)nm_shape_numel(s) * sizeof *p);
        draw(b, p, nm_shape_numel(s), 0.6f);
        nm_weight_set(w, p, s);
        w->grad = &b->g[b->n_w];
    }
    b->n_w++;
    return w;
}

/* A copy of the next weight in a layer's struct. */
static void put(bed *b, nm_weight *field, nm_shape s)
{
    *field = *weight(b, s);
    b->held[b->n_held++] = field;
}

static nm_linear_w *linear_of(bed *b, nm_shape w)
{
    nm_linear_w *l = nm_scratch(&b->r, sizeof *l);
    put(b, &l->weight, w);
    put(b, &l->bias, NM_SHAPE(w.dim[0]));
    return l;
}

static nm_norm_w *norm_of(bed *b, int64_t n)
{
    nm_norm_w *w = nm_scratch(&b->r, sizeof *w);
    put(b, &w->weight, NM_SHAPE(n));
    put(b, &w->bias, NM_SHAPE(n));
    return w;
}

static nm_batchnorm_w *batchnorm_of(bed *b, int64_t n)
{
    nm_batchnorm_w *w = nm_scratch(&b->r, sizeof *w);
    memset(w, 0, sizeof *w);
    put(b, &w->weight, NM_SHAPE(n));
    put(b, &w->bias, NM_SHAPE(n));
    float *mean = nm_scratch(&b->r, (size_t)(2 * n) * sizeof *mean);
    for (int64_t i = 0; i < n; i++) {
        mean[i] = 0.1f * (float)i;
        mean[n + i] = 1 + 0.2f * (float)i;
    }
    w->running_mean = (nm_weight){ .shape = NM_SHAPE(n), .n_parts = 1, .f32 = mean };
    w->running_var = (nm_weight){ .shape = NM_SHAPE(n), .n_parts = 1, .f32 = mean + n };
    return w;
}

/* ---- cases ---- */

static nm_tensor linear_case(bed *b)
{
    nm_tensor x = leaf(b, NM_SHAPE(3, 5)), res = leaf(b, NM_SHAPE(3, 4));
    nm_linear_w *l = linear_of(b, NM_SHAPE(4, 5));
    return nm_linear(&b->r, x, l, (nm_epilogue){ .act = NM_ACT_GELU, .gamma = weight(b, NM_SHAPE(4)), .residual = &res });
}

static nm_tensor matmul_case(bed *b)
{
    nm_tensor x = leaf(b, NM_SHAPE(2, 3, 4)), y = nm_matmul(&b->r, x, leaf(b, NM_SHAPE(2, 5, 4)), true, 0.5f);
    return nm_matmul(&b->r, y, leaf(b, NM_SHAPE(5, 3)), false, 1);
}

static nm_tensor elementwise_case(bed *b)
{
    nm_tensor a = leaf(b, NM_SHAPE(3, 4)), c = leaf(b, NM_SHAPE(3, 4)), s = leaf(b, NM_SCALAR);
    nm_tensor y = nm_mul(&b->r, nm_sigmoid(&b->r, nm_add(&b->r, a, c)), nm_times(&b->r, nm_activation(&b->r, c, NM_ACT_SILU), 1.5f));
    y = nm_temperature(&b->r, nm_beside(&b->r, y, nm_hard_sigmoid(&b->r, a)), s, NM_TIMES_EXP);
    return nm_temperature(&b->r, y, leaf(b, NM_SCALAR), NM_DIVIDED_BY);
}

static nm_tensor activations_case(bed *b)
{
    nm_tensor x = leaf(b, NM_SHAPE(2, 5));
    const nm_act acts[] = { NM_ACT_QUICK_GELU, NM_ACT_GELU, NM_ACT_GELU_TANH, NM_ACT_TANH };
    for (int i = 0; i < 4; i++)
        x = nm_activation(&b->r, x, acts[i]);
    return x;
}

static nm_tensor rows_case(bed *b)
{
    static const int64_t pick[] = { 2, 0, 2, 5 }, offsets[] = { 0, 1, 4 };
    nm_tensor x = leaf(b, NM_SHAPE(3, 4)), y = leaf(b, NM_SHAPE(3, 4));
    nm_tensor j = nm_join_rows(&b->r, nm_gather_rows(&b->r, x, (const int64_t[]){ 1, 1, 2 }, 3), y, pick, 4);
    nm_tensor tokens = nm_prepend(&b->r, nm_mean_rows(&b->r, j, offsets, 2), nm_reshape(nm_cast(&b->r, j, NM_F32), NM_SHAPE(2, 2, 4)));
    return nm_permute(&b->r, tokens, (const int[]){ 2, 0, 1 });
}

static nm_tensor norms_case(bed *b)
{
    nm_tensor x = leaf(b, NM_SHAPE(2, 3, 8));
    x = nm_layernorm_f32(&b->r, x, norm_of(b, 8), 1e-5f);
    x = nm_rmsnorm_f32(&b->r, x, weight(b, NM_SHAPE(8)), 1e-6f);
    x = nm_groupnorm(&b->r, x, norm_of(b, 8), 2, 1e-5f);
    return nm_normalize(&b->r, x, 1e-12f);
}

static nm_tensor softmax_case(bed *b)
{
    return nm_log_probs(&b->r, nm_times(&b->r, nm_softmax(&b->r, leaf(b, NM_SHAPE(3, 6))), 3));
}

static nm_tensor batchnorm_case(bed *b)
{
    nm_tensor x = leaf(b, NM_SHAPE(9, 4)), res = leaf(b, NM_SHAPE(9, 4));
    return nm_batchnorm(&b->r, x, batchnorm_of(b, 4), 1e-5f, &res, false);
}

static nm_tensor conv_of(bed *b, nm_shape x, nm_shape w, nm_conv c)
{
    nm_tensor in = leaf(b, x);
    nm_weight *k = weight(b, w);
    c.bias = weight(b, NM_SHAPE(w.dim[0]));
    return nm_conv2d(&b->r, in, k, c);
}

static nm_tensor conv_case(bed *b) { return conv_of(b, NM_SHAPE(2, 5, 4, 3), NM_SHAPE(5, 3, 3, 3), (nm_conv){ .pad = { 1, 1 } }); }
static nm_tensor conv_1x1_case(bed *b) { return conv_of(b, NM_SHAPE(3, 2, 2, 5), NM_SHAPE(7, 5, 1, 1), (nm_conv){ 0 }); }

static nm_tensor conv_strided_case(bed *b)
{
    return conv_of(b, NM_SHAPE(2, 6, 5, 4), NM_SHAPE(6, 2, 3, 2), (nm_conv){ .stride = { 2, 1 }, .pad = { 1, 0 }, .dilation = { 1, 2 }, .groups = 2 });
}

/* Smooth: the ReLU is in the kernels' tests. */
static nm_tensor conv_batchnorm_case(bed *b)
{
    nm_tensor x = leaf(b, NM_SHAPE(3, 4, 4, 3)), res = leaf(b, NM_SHAPE(3, 4, 4, 5));
    nm_weight *w = weight(b, NM_SHAPE(5, 3, 3, 3));
    return nm_conv2d(&b->r, x, w, (nm_conv){ .pad = { 1, 1 }, .bn = batchnorm_of(b, 5), .eps = 1e-5f, .residual = &res });
}

static nm_tensor pools_case(bed *b)
{
    nm_tensor x = leaf(b, NM_SHAPE(2, 5, 6, 3));
    nm_tensor a = nm_pool2d(&b->r, x, (nm_pooling){ .kernel = { 3, 2 }, .stride = { 2, 2 }, .pad = { 1, 0 } });
    return nm_add(&b->r, nm_pool2d(&b->r, a, (nm_pooling){ .adaptive = true, .out = { 2, 2 } }), nm_pool2d(&b->r, nm_avgpool2d(&b->r, x, 2),
                                                                                                       (nm_pooling){ .adaptive = true, .out = { 2, 2 } }));
}

static nm_tensor deform_case(bed *b)
{
    nm_tensor x = leaf(b, NM_SHAPE(1, 4, 5, 3)), off = nm_times(&b->r, leaf(b, NM_SHAPE(1, 4, 5, 18)), 0.4f), mask = leaf(b, NM_SHAPE(1, 4, 5, 9));
    nm_tensor away = nm_new(&b->r, NM_F32, NM_SHAPE(1, 4, 5, 18)); /* places between pixels: the bilinear form bends at them */
    for (int i = 0; i < 360; i++)
        ((float *)away.data)[i] = 0.5f;
    nm_weight *w = weight(b, NM_SHAPE(2, 3, 3, 3));
    return nm_deform_conv2d(&b->r, x, nm_add(&b->r, off, away), mask, w, weight(b, NM_SHAPE(2)), 1, 1);
}

static nm_tensor attention_case(bed *b)
{
    nm_tensor q = leaf(b, NM_SHAPE(2, 3, 8)), kv = leaf(b, NM_SHAPE(2, 4, 16)), bias = leaf(b, NM_SHAPE(2, 2, 3, 4));
    float keys[8] = { 0, 0, 0, -INFINITY, 0, 0.5f, 0, 0 };
    nm_mask m = { .causal = true, .key_bias = nm_save_(&b->r, keys, sizeof keys), .bias_tensor = &bias };
    return nm_attention(&b->r, q, nm_cols(kv, 0, 8), nm_cols(kv, 8, 16), 2, &m);
}

static nm_tensor window_case(bed *b)
{
    nm_window_w *w = nm_scratch(&b->r, sizeof *w);
    put(b, &w->qkv.weight, NM_SHAPE(12, 4));
    put(b, &w->qkv.bias, NM_SHAPE(12));
    put(b, &w->proj.weight, NM_SHAPE(4, 4));
    put(b, &w->proj.bias, NM_SHAPE(4));
    put(b, &w->table, NM_SHAPE(9, 2));
    return nm_window_attention(&b->r, leaf(b, NM_SHAPE(1, 3, 4, 4)), w, 2, 2, 1);
}

static nm_tensor tokens_case(bed *b)
{
    static const int32_t ids[] = { 1, 3, 1, 0, 2, 4 }, pos[] = { 0, 1, 2, 0, 1, 2 };
    nm_tensor x = nm_embedding(&b->r, ids, 6, weight(b, NM_SHAPE(5, 4)), pos, weight(b, NM_SHAPE(3, 4)));
    x = nm_reshape(x, NM_SHAPE(2, 3, 4));
    nm_weight *first = weight(b, NM_SHAPE(1, 4));
    return nm_scale_columns(&b->r, nm_add_positions(&b->r, x, first, weight(b, NM_SHAPE(4, 4))), weight(b, NM_SHAPE(4)));
}

static nm_tensor padded_case(bed *b) { return nm_embedding_padded(&b->r, (const int32_t[]){ 1, 3, 1 }, 3, weight(b, NM_SHAPE(5, 4)), 7); }

static nm_tensor patches_case(bed *b)
{
    static const float pixels[2 * 3 * 4 * 4] = { 0.5f, -1, 2, 0.25f, 1, [40] = 3, [70] = -2 };
    return nm_patch_embed(&b->r, nm_view((void *)(uintptr_t)pixels, NM_F32, NM_SHAPE(2, 3, 4, 4)), linear_of(b, NM_SHAPE(4, 3, 2, 2)));
}

static nm_tensor resize_case(bed *b) { return nm_resize_rows(&b->r, leaf(b, NM_SHAPE(10, 2)), 1, 3, 3, 5, 2, NM_INTERP_BICUBIC_AA); }

static nm_tensor keep_case(bed *b)
{
    static const float keep[] = { 1, 0, 1 };
    return nm_keep_where(&b->r, leaf(b, NM_SHAPE(3, 4)), keep, 4, 0.25f);
}

/* Losses of one input, beside each other. */
static nm_tensor losses_case(bed *b)
{
    static const int64_t labels[] = { 2, -100, 0 };
    static const float soft[] = { 0.1f, 0.7f, 0.2f, 0, 1, 0, 0.5f, 0.5f, 0.3f, 0.2f, 0.2f, 0.6f };
    nm_run *r = &b->r;
    nm_tensor x = leaf(b, NM_SHAPE(3, 4)), y[] = { nm_cross_entropy(r, x, labels, 0.1f), nm_soft_cross_entropy(r, x, soft), nm_distillation(r, x, soft, 2),
                                                   nm_bce_logits(r, x, soft), nm_focal_loss(r, x, soft, NULL, 0.25f, 2, true), nm_smooth_l1(r, x, soft, 4, true) };
    nm_tensor sum = y[0];
    for (int i = 1; i < 6; i++)
        sum = nm_add(r, sum, y[i]);
    return sum;
}

static nm_tensor giou_case(bed *b)
{
    static const float want[] = { -0.5f, -0.5f, 1.4f, 1.6f, 4, 4, 5, 6 }, base[] = { -1, -1, 2.1f, 1, 0, 0, 2, 2 };
    nm_tensor x = nm_times(&b->r, leaf(b, NM_SHAPE(2, 4)), 0.1f), start = nm_view((void *)(uintptr_t)base, NM_F32, NM_SHAPE(2, 4));
    return nm_giou_loss(&b->r, nm_add(&b->r, x, start), want, 1e-7f);
}

/* ---- differences ---- */

static void forget_packed(bed *b)
{
    for (int i = 0; i < b->n_held; i++)
        nm_weight_changed(b->held[i]);
    for (int i = 0; i < MOST; i++)
        nm_weight_changed(&b->w[i]);
    b->n_held = 0;
}

static double objective(bed *b, build_fn *build)
{
    b->n_x = b->n_w = 0;
    nm_arena_reset(b->r.arena);
    nm_tensor y = build(b);
    forget_packed(b);
    assert_string_equal(b->r.err.message, "");
    double sum = 0;
    for (int64_t i = 0, n = nm_numel(&y); i < n; i++)
        sum += (double)((float *)y.data)[i] * (double)((i * 7 % 5) - 1.7);
    return sum;
}

static void check_values(bed *b, build_fn *build, const char *name, float *value, const float *got, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        float was = value[i];
        value[i] = was + STEP;
        double up = objective(b, build);
        value[i] = was - STEP;
        double down = objective(b, build), want = (up - down) / (2 * (double)STEP), g = got ? (double)got[i] : 0;
        value[i] = was;
        if (!(fabs(g - want) <= 4e-3 * (1 + fabs(want)) + 1e-5 * fabs(up)))
            fail_msg("%s, element %lld: gradient %g, differences say %g", name, (long long)i, g, want);
    }
}

static void check(const char *name, build_fn *build, bool training)
{
    bed b = { 0 };
    nm_pool *pool = nm_pool_new(2);
    nm_arena *arena = nm_arena_new(1 << 16);
    nm_run_init(&b.r, nm_kernels_get(), pool, arena, NM_F32);
    nm_rng_init(&b.rng, 3, 1);
    nm_tape *tape = b.r.tape = nm_tape_new();
    b.r.training = training;
    nm_tensor y = build(&b);
    assert_string_equal(b.r.err.message, "");
    float *dy = nm_grad_data(&b.r, &y), *dx[MOST] = { NULL };
    assert_non_null(dy);
    for (int64_t i = 0; i < nm_numel(&y); i++)
        dy[i] = (float)((i * 7 % 5) - 1.7);
    nm_backward(&b.r);
    int n_x = b.n_x, n_w = b.n_w;
    for (int k = 0; k < n_x; k++) {
        size_t bytes = (size_t)nm_numel(&b.x[k]) * sizeof(float);
        dx[k] = nm_alloc(bytes);
        const float *g = nm_grad_read(&b.x[k]);
        if (g)
            memcpy(dx[k], g, bytes);
        else
            memset(dx[k], 0, bytes);
    }
    forget_packed(&b);
    b.r.tape = NULL;
    for (int k = 0; k < n_x; k++)
        check_values(&b, build, name, b.x[k].data, dx[k], nm_numel(&b.x[k]));
    for (int k = 0; k < n_w; k++)
        check_values(&b, build, name, b.w[k].f32, b.g[k].data, nm_shape_numel(b.w[k].shape));
    for (int k = 0; k < MOST; k++) {
        nm_free(dx[k]);
        nm_free(b.x[k].data);
        nm_free(b.g[k].data);
        nm_weight_free(&b.w[k]);
    }
    nm_tape_free(tape);
    nm_arena_free(arena);
    nm_pool_free(pool);
}

static void test_operators(void **state)
{
    static const struct { const char *name; build_fn *build; bool training; } cases[] = {
        { "linear", linear_case, false },       { "matmul", matmul_case, false },           { "elementwise", elementwise_case, false },
        { "activations", activations_case, false }, { "rows", rows_case, false },           { "norms", norms_case, false },
        { "softmax", softmax_case, false },     { "batchnorm", batchnorm_case, false },     { "batchnorm, training", batchnorm_case, true },
        { "conv", conv_case, false },           { "conv 1x1", conv_1x1_case, false },       { "conv, strided, groups", conv_strided_case, false },
        { "conv with batchnorm", conv_batchnorm_case, false }, { "conv with batchnorm, training", conv_batchnorm_case, true },
        { "pools", pools_case, false },         { "deform", deform_case, false },           { "attention", attention_case, false },
        { "window attention", window_case, false }, { "tokens", tokens_case, false },       { "padded embedding", padded_case, false },
        { "patches", patches_case, false },     { "resize", resize_case, false },           { "keep", keep_case, false },
        { "losses", losses_case, false },       { "giou", giou_case, false },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check(cases[i].name, cases[i].build, cases[i].training);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_operators) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
