/* test_ops.c - operators and their gradients against PyTorch's figures (tests/golden/train/ops): forward, gradients of every input
 * and parameter, with the tolerance that each case states. What is stored in 16 bits is computed and compared in f32:
 * the tolerance of lowp.json is less than a rounding of the result to 16 bits. Every case of every family runs; families that are no one operator (probabilities of attention,
 * contrastive losses) are written with several, and compared with the fused or closed forms that models and the trainer use. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/json.h"
#include "models/t5.h"
#include "models/transformer.h"
#include "nn/ops.h"
#include "tensor/tape.h"
#include "train/loss.h"
#include "weights/weights.h"

#define MOST 12

typedef struct golden_case {
    nm_run *r;
    const json_t *json;
    const char *name;
    const nm_weights *file;
    nm_weight w[MOST]; /* parameters, their gradients and names */
    nm_grad g[MOST];
    const char *w_name[MOST];
    int n_w;
    nm_weight *held[MOST]; /* copies of them in layers: what is packed there goes with the case */
    int n_held;
    nm_tensor x[MOST]; /* differentiable inputs */
    const char *x_name[MOST];
    int n_x;
    nm_tensor y[2]; /* outputs */
    const char *y_name[2];
    int n_y;
} golden_case;

static const json_t *attr(const golden_case *c, const char *name) { return nm_json_get(nm_json_get(c->json, "attrs"), name); }

static const nm_wview *find(const golden_case *c, const char *part, const char *name)
{
    char full[256];
    snprintf(full, sizeof full, "%s.%s.%s", c->name, part, name);
    return nm_weights_find(c->file, full);
}

static nm_shape shape_of(const nm_wview *v)
{
    nm_shape s = { .ndim = v->ndim };
    memcpy(s.dim, v->shape, sizeof s.dim);
    return s;
}

/* A constant, as f32. */
static nm_tensor constant(golden_case *c, const char *name)
{
    const nm_wview *v = find(c, "in", name);
    assert_non_null(v);
    nm_tensor t = nm_new(c->r, NM_F32, shape_of(v));
    nm_wview_copy_f32(v, t.data);
    return t;
}

/* A differentiable input. Stored in 16 bits it stays so, and is widened by an operator: its gradient comes through that. */
static nm_tensor input(golden_case *c, const char *name)
{
    const nm_wview *v = find(c, "in", name);
    assert_non_null(v);
    nm_tensor t = constant(c, name);
    if (v->dtype != NM_F32) {
        t = nm_new(c->r, v->dtype, shape_of(v));
        memcpy(t.data, v->data, (size_t)nm_numel(&t) * 2);
    }
    nm_want_grad(c->r, &t);
    c->x[c->n_x] = t;
    c->x_name[c->n_x++] = name;
    return t.dtype == NM_F32 ? t : nm_cast(c->r, t, NM_F32);
}

/* A trained parameter, in its stored type; NULL when the case has none. */
static nm_weight *param(golden_case *c, const char *name)
{
    const nm_wview *v = find(c, "in", name);
    if (!v)
        return NULL;
    nm_weight *w = &c->w[c->n_w];
    *w = (nm_weight){ .shape = shape_of(v), .n_parts = 1, .part = { { .dtype = v->dtype, .ndim = v->ndim, .data = (void *)(uintptr_t)v->data } } };
    memcpy(w->part[0].shape, v->shape, sizeof v->shape);
    memcpy(w->part[0].stride, v->stride, sizeof v->stride);
    assert_true(nm_weight_make_f32(w));
    w->grad = &c->g[c->n_w];
    c->w_name[c->n_w++] = name;
    return w;
}

/* Layers are structs of weights, in the arena so that they outlive the backward; a field is a copy of the case's parameter and collects its gradient.
 * Absent where the case has none. */
static void hold(golden_case *c, nm_weight *field, const char *name)
{
    const nm_weight *w = name ? param(c, name) : NULL;
    *field = w ? *w : (nm_weight){ 0 };
    c->held[c->n_held++] = field;
}

static void output(golden_case *c, const char *name, nm_tensor y)
{
    c->y[c->n_y] = y;
    c->y_name[c->n_y++] = name;
}

static void compare(golden_case *c, const char *part, const char *name, const float *got)
{
    char key[64];
    snprintf(key, sizeof key, "%s.%s", part, name);
    const json_t *tol = nm_json_get(nm_json_get(c->json, "tolerance"), key);
    const nm_wview *v = find(c, part, name);
    assert_non_null(v);
    assert_non_null(tol);
    assert_int_equal(v->dtype, NM_F64);
    double abs_tol = nm_json_num(tol, "abs", 0), rel = nm_json_num(tol, "rel", 0);
    for (int64_t i = 0; i < nm_wview_numel(v); i++) {
        double want = ((const double *)v->data)[i], g = got ? (double)got[i] : 0;
        if (!(fabs(g - want) <= abs_tol + rel * fabs(want))) {
            print_error("%s %s[%lld]: want %.9g got %.9g (tolerance %g + %g |want|)\n", c->name, key, (long long)i, want, g, abs_tol, rel);
            fail();
        }
    }
}

/* Pictures lie NCHW in the files, NHWC in the operators. */
static nm_tensor to_nhwc(golden_case *c, nm_tensor x) { return nm_permute(c->r, x, (const int[]){ 0, 2, 3, 1 }); }
static nm_tensor to_nchw(golden_case *c, nm_tensor x) { return nm_permute(c->r, x, (const int[]){ 0, 3, 1, 2 }); }

/* One number, or one per axis. */
static void pair(const json_t *j, int fallback, int out[2])
{
    for (int i = 0; i < 2; i++)
        out[i] = !j ? fallback : json_is_array(j) ? (int)json_integer_value(json_array_get(j, (size_t)i)) : (int)json_integer_value(j);
}

/* ---- operators: from the case's inputs to its outputs ---- */

static nm_tensor apply_linear(golden_case *c, nm_tensor x, const char *w, const char *b)
{
    nm_linear_w *l = nm_scratch(c->r, sizeof *l);
    hold(c, &l->weight, w);
    hold(c, &l->bias, b);
    return nm_linear(c->r, x, l, (nm_epilogue){ .f32 = true });
}

static void op_linear(golden_case *c) { output(c, "y", apply_linear(c, input(c, "x"), "w", "b")); }

static void op_matmul(golden_case *c)
{
    if (find(c, "in", "p")) { /* a projection stored [in, out] */
        nm_tensor x = input(c, "x");
        output(c, "y", nm_matmul(c->r, x, input(c, "p"), false, 1));
    } else if (find(c, "in", "q")) {
        nm_tensor q = input(c, "q");
        output(c, "y", nm_matmul(c->r, q, input(c, "k"), true, 1 / sqrtf((float)q.shape[q.ndim - 1])));
    } else {
        nm_tensor a = input(c, "a");
        output(c, "y", nm_matmul(c->r, a, input(c, "b"), false, 1));
    }
}

static void op_activation(golden_case *c)
{
    static const struct { const char *name; nm_act act; } acts[] = {
        { "gelu_exact", NM_ACT_GELU }, { "gelu_tanh", NM_ACT_GELU_TANH }, { "quick_gelu", NM_ACT_QUICK_GELU },
        { "silu", NM_ACT_SILU },       { "relu", NM_ACT_RELU },           { "tanh", NM_ACT_TANH },
    };
    const char *op = nm_json_str(c->json, "op", "");
    nm_tensor x = input(c, "x");
    for (size_t i = 0; i < sizeof acts / sizeof *acts; i++)
        if (strcmp(op, acts[i].name) == 0)
            output(c, "y", nm_activation(c->r, x, acts[i].act));
}

static void op_sigmoid(golden_case *c) { output(c, "y", nm_sigmoid(c->r, input(c, "x"))); }
static void op_hard_sigmoid(golden_case *c) { output(c, "y", nm_hard_sigmoid(c->r, input(c, "x"))); }

static void op_gated_gelu(golden_case *c)
{
    nm_tensor x = input(c, "x"), gate = nm_activation(c->r, apply_linear(c, x, "wi0", NULL), NM_ACT_GELU_TANH);
    output(c, "y", apply_linear(c, nm_mul(c->r, gate, apply_linear(c, x, "wi1", NULL)), "wo", NULL));
}

static nm_norm_w *norm_w(golden_case *c)
{
    nm_norm_w *n = nm_scratch(c->r, sizeof *n);
    hold(c, &n->weight, "w");
    hold(c, &n->bias, "b");
    return n;
}

static void op_layernorm(golden_case *c)
{
    nm_tensor x = input(c, "x");
    output(c, "y", nm_layernorm_f32(c->r, x, norm_w(c), (float)nm_json_num(nm_json_get(c->json, "attrs"), "eps", 1e-5)));
}

static void op_rmsnorm(golden_case *c)
{
    nm_tensor x = input(c, "x");
    output(c, "y", nm_rmsnorm_f32(c->r, x, &norm_w(c)->weight, 1e-6f));
}

static void op_groupnorm(golden_case *c)
{
    nm_tensor x = to_nhwc(c, input(c, "x"));
    output(c, "y", to_nchw(c, nm_groupnorm(c->r, x, norm_w(c), 4, 1e-5f)));
}

static void op_batchnorm(golden_case *c)
{
    nm_tensor x = to_nhwc(c, input(c, "x"));
    nm_batchnorm_w *bn = nm_scratch(c->r, sizeof *bn);
    memset(bn, 0, sizeof *bn);
    hold(c, &bn->weight, "w");
    hold(c, &bn->bias, "b");
    nm_tensor mean = constant(c, "mean"), var = constant(c, "var");
    bn->running_mean = (nm_weight){ .shape = NM_SHAPE(6), .n_parts = 1, .f32 = mean.data };
    bn->running_var = (nm_weight){ .shape = NM_SHAPE(6), .n_parts = 1, .f32 = var.data };
    c->r->training = json_is_true(attr(c, "training"));
    output(c, "y", to_nchw(c, nm_batchnorm(c->r, x, bn, 1e-5f, NULL, false)));
    if (!c->r->training)
        return;
    compare(c, "out", "running_mean", mean.data);
    compare(c, "out", "running_var", var.data);
}

static void op_normalize(golden_case *c)
{
    static const int axes[] = { 0, 2, 1 };
    nm_tensor x = input(c, "x");
    bool middle = attr(c, "dim") != NULL;
    nm_tensor y = nm_normalize(c->r, middle ? nm_permute(c->r, x, axes) : x, 1e-12f);
    output(c, "y", middle ? nm_permute(c->r, y, axes) : y);
}

static void op_softmax(golden_case *c)
{
    static const int axes[] = { 0, 2, 1 };
    bool middle = attr(c, "dim") != NULL, log = strcmp(nm_json_str(c->json, "op", ""), "log_softmax") == 0;
    nm_tensor x = input(c, "x");
    if (find(c, "in", "mask"))
        x = nm_add(c->r, x, constant(c, "mask"));
    x = middle ? nm_permute(c->r, x, axes) : x;
    nm_tensor y = log ? nm_log_probs(c->r, x) : nm_softmax(c->r, x);
    output(c, "y", middle ? nm_permute(c->r, y, axes) : y);
}

static void op_embedding(golden_case *c)
{
    nm_weight *table = param(c, "table"), *pos = param(c, "pos");
    const nm_wview *ids = find(c, "in", "ids");
    int32_t id[512], at[512];
    int64_t n = nm_wview_numel(ids), len = ids->shape[1];
    assert_true(n <= 512);
    for (int64_t i = 0; i < n; i++) {
        id[i] = (int32_t)((const int64_t *)ids->data)[i];
        at[i] = (int32_t)(i % len);
    }
    if (attr(c, "padding_idx"))
        output(c, "y", nm_embedding_padded(c->r, id, n, table, (int32_t)json_integer_value(attr(c, "padding_idx"))));
    else
        output(c, "y", nm_embedding(c->r, id, n, table, pos ? at : NULL, pos));
}

static void op_conv(golden_case *c)
{
    nm_tensor x = to_nhwc(c, input(c, "x"));
    nm_weight *w = param(c, "w");
    nm_conv o = { .bias = param(c, "b"), .groups = (int)nm_json_num(nm_json_get(c->json, "attrs"), "groups", 1) };
    pair(attr(c, "stride"), 1, o.stride);
    pair(attr(c, "padding"), 0, o.pad);
    pair(attr(c, "dilation"), 1, o.dilation);
    nm_tensor y = nm_conv2d(c->r, x, w, o);
    output(c, "y", attr(c, "output") ? nm_reshape(y, NM_SHAPE(y.shape[0], y.shape[1] * y.shape[2], y.shape[3])) : to_nchw(c, y));
}

/* Frames in pairs become channels: kernel and stride are the same in time. */
static void op_conv3d(golden_case *c)
{
    nm_tensor x = input(c, "x"); /* [1, 3, 4, 8, 8] */
    x = nm_permute(c->r, nm_reshape(x, NM_SHAPE(3, 2, 2, 64)), (const int[]){ 1, 3, 0, 2 }); /* [pairs, pixels, channels, 2] */
    nm_weight *w = param(c, "w");
    w->shape = NM_SHAPE(4, 6, 4, 4);
    nm_tensor y = nm_conv2d(c->r, nm_reshape(x, NM_SHAPE(2, 8, 8, 6)), w, (nm_conv){ .stride = { 4, 4 } });
    output(c, "y", nm_permute(c->r, nm_reshape(y, NM_SHAPE(1, 2, 2, 2, 4)), (const int[]){ 0, 4, 1, 2, 3 }));
}

static void op_deform(golden_case *c)
{
    nm_tensor x = to_nhwc(c, input(c, "x")), off = to_nhwc(c, input(c, "off")), mask = nm_sigmoid(c->r, to_nhwc(c, input(c, "mask")));
    nm_weight *w = param(c, "w");
    output(c, "y", to_nchw(c, nm_deform_conv2d(c->r, x, off, mask, w, param(c, "b"), 2, 1)));
}

static void op_pool(golden_case *c)
{
    const char *op = nm_json_str(c->json, "op", "");
    nm_tensor x = to_nhwc(c, input(c, "x"));
    nm_pooling p = { .max = strcmp(op, "max_pool2d") == 0, .adaptive = strcmp(op, "adaptive_avg_pool2d") == 0 };
    int out[2];
    pair(attr(c, "kernel"), 1, p.kernel);
    pair(attr(c, "stride"), 1, p.stride);
    pair(attr(c, "padding"), 0, p.pad);
    pair(attr(c, "output"), 1, out);
    p.out[0] = out[0], p.out[1] = out[1];
    bool plain = !p.max && !p.adaptive && p.pad[0] == 0;
    output(c, "y", to_nchw(c, plain ? nm_avgpool2d(c->r, x, p.kernel[0]) : nm_pool2d(c->r, x, p)));
}

static void op_mean(golden_case *c) { output(c, "y", nm_mean_tokens(c->r, input(c, "x"), 1)); }

static void op_resize(golden_case *c)
{
    int from[2], to[2];
    pair(attr(c, "old_grid"), 0, from);
    pair(attr(c, "new_grid"), 0, to);
    nm_interp how = json_is_true(attr(c, "antialias")) ? NM_INTERP_BICUBIC_AA : NM_INTERP_BICUBIC;
    output(c, "y", nm_resize_rows(c->r, input(c, "pos"), 1, from[0], from[1], to[0], to[1], how));
}

static void op_dropout(golden_case *c) { output(c, "y", nm_keep_where(c->r, input(c, "x"), constant(c, "keep").data, 1, 0.3f)); }

static void op_drop_path(golden_case *c)
{
    nm_tensor x = input(c, "x");
    output(c, "y", nm_add(c->r, input(c, "r"), nm_keep_where(c->r, x, constant(c, "keep").data, 15, 0.25f)));
}

/* ---- attention ---- */

/* [n, tokens, width] -> [n, heads, tokens, head_dim] and back. */
static nm_tensor split_heads(golden_case *c, nm_tensor x, int heads)
{
    x = nm_reshape(x, NM_SHAPE(x.shape[0], x.shape[1], heads, x.shape[2] / heads));
    return nm_permute(c->r, x, (const int[]){ 0, 2, 1, 3 });
}

/* The probabilities are an output too: written out with products and a softmax. mask [n or 1, 1, lq or 1, lk] is added to the scores. */
static nm_tensor written_out(golden_case *c, nm_tensor q, nm_tensor k, nm_tensor v, int heads, const nm_tensor *mask, nm_tensor *probs)
{
    nm_run *r = c->r;
    int64_t n = q.shape[0], lq = q.shape[1], lk = k.shape[1], width = q.shape[2];
    nm_tensor scores = nm_matmul(r, split_heads(c, q, heads), split_heads(c, k, heads), true, 1 / sqrtf((float)(width / heads)));
    nm_tensor add = nm_new(r, NM_F32, NM_SHAPE(n, heads, lq, lk));
    for (int64_t i = 0; mask && i < n * heads * lq * lk; i++) {
        int64_t image = mask->shape[0] > 1 ? i / (heads * lq * lk) : 0, row = mask->shape[2] > 1 ? i / lk % lq : 0;
        ((float *)add.data)[i] = ((const float *)mask->data)[(image * mask->shape[2] + row) * lk + i % lk];
    }
    *probs = nm_softmax(r, mask ? nm_add(r, scores, add) : scores);
    nm_tensor y = nm_permute(r, nm_matmul(r, *probs, split_heads(c, v, heads), false, 1), (const int[]){ 0, 2, 1, 3 });
    return nm_reshape(y, NM_SHAPE(n, lq, width));
}

/* The fused operator gives the same, and the same gradients of q, k and v where only the result has one (a random one, read in both). */
static void same_as_fused(golden_case *c, nm_tensor q, nm_tensor k, nm_tensor v, int heads, const nm_tensor *mask)
{
    double loose = find(c, "in", "keep") ? 5e-3 : 2e-6; /* -10000 added to scores rounds them to 1/1024 */
    nm_tensor y[2], leaf[2][3], from[] = { q, k, v }, probs;
    nm_tape *outer = c->r->tape;
    nm_mask m = { .bias = mask ? mask->data : NULL, .bias_row = mask && mask->shape[2] > 1 ? k.shape[1] : 0,
                  .bias_seq = mask && mask->shape[0] > 1 ? mask->shape[2] * k.shape[1] : 0 };
    for (int form = 0; form < 2; form++) {
        c->r->tape = nm_tape_new();
        for (int i = 0; i < 3; i++) {
            leaf[form][i] = nm_new(c->r, NM_F32, (nm_shape){ 3, { from[i].shape[0], from[i].shape[1], from[i].shape[2] } });
            for (int64_t e = 0; e < nm_numel(&from[i]); e++) {
                int64_t w = from[i].shape[2], t = e / w % from[i].shape[1], b = e / (w * from[i].shape[1]);
                ((float *)leaf[form][i].data)[e] = ((const float *)from[i].data)[b * from[i].stride[0] + t * from[i].stride[1] + e % w];
            }
            nm_want_grad(c->r, &leaf[form][i]);
        }
        y[form] = form ? nm_attention(c->r, leaf[1][0], leaf[1][1], leaf[1][2], heads, &m)
                       : written_out(c, leaf[0][0], leaf[0][1], leaf[0][2], heads, mask, &probs);
        float *dy = nm_grad_data(c->r, &y[form]);
        for (int64_t i = 0; i < nm_numel(&y[form]); i++)
            dy[i] = (float)(i * 37 % 11) / 11 - 0.4f;
        nm_backward(c->r);
        for (int i = 0; form == 1 && i < 3; i++)
            for (int64_t e = 0; e < nm_numel(&from[i]); e++)
                assert_true(fabs((double)nm_grad_read(&leaf[0][i])[e] - (double)nm_grad_read(&leaf[1][i])[e]) < 3e-5 + 10 * loose);
        if (form == 0) { /* the tape's gradients go with it */
            for (int i = 0; i < 3; i++) {
                float *copy = nm_scratch(c->r, (size_t)nm_numel(&from[i]) * sizeof *copy);
                memcpy(copy, nm_grad_read(&leaf[0][i]), (size_t)nm_numel(&from[i]) * sizeof *copy);
                leaf[0][i].grad = nm_save_(c->r, &(nm_grad){ .data = copy, .base = leaf[0][i].data }, sizeof(nm_grad));
            }
        } else
            for (int64_t i = 0; i < nm_numel(&y[0]); i++)
                assert_true(fabs((double)((float *)y[0].data)[i] - (double)((float *)y[1].data)[i]) < loose);
        nm_tape_free(c->r->tape);
    }
    c->r->tape = outer;
}

/* The mask of a case, [n or 1, 1, lq or 1, lk], added to scores; empty: none. */
static nm_tensor mask_of(golden_case *c, int64_t n, int64_t lq, int64_t lk)
{
    const json_t *kind = attr(c, "mask");
    nm_tensor m = { 0 };
    if (find(c, "in", "attn_mask"))
        return nm_reshape(constant(c, "attn_mask"), NM_SHAPE(1, 1, lq, lk));
    if (find(c, "in", "kpm") || find(c, "in", "keep")) {
        bool padding = find(c, "in", "kpm") != NULL;
        m = nm_reshape(constant(c, padding ? "kpm" : "keep"), NM_SHAPE(n, 1, 1, lk));
        for (int64_t i = 0; i < n * lk; i++) {
            float *v = (float *)m.data + i;
            *v = padding ? (*v != 0 ? -INFINITY : 0) : (1 - *v) * -10000;
        }
    } else if (kind) { /* causal */
        m = nm_new(c->r, NM_F32, NM_SHAPE(1, 1, lq, lk));
        for (int64_t i = 0; i < lq * lk; i++)
            ((float *)m.data)[i] = i % lk > i / lk ? -INFINITY : 0;
    }
    return m;
}

static void finish_attention(golden_case *c, nm_tensor q, nm_tensor k, nm_tensor v, nm_tensor mask, const char *w, const char *b)
{
    nm_tensor probs, a = written_out(c, q, k, v, 3, mask.data ? &mask : NULL, &probs);
    output(c, "y", apply_linear(c, a, w, b));
    if (find(c, "out", "probs"))
        output(c, "probs", probs);
    same_as_fused(c, q, k, v, 3, mask.data ? &mask : NULL);
}

/* A row of its own at the end of each sequence. */
static nm_tensor append_row(golden_case *c, nm_tensor x, const char *name)
{
    int64_t n = x.shape[0], len = x.shape[1], width = x.shape[2], rows[64];
    for (int64_t i = 0; i < n * (len + 1); i++)
        rows[i] = i % (len + 1) == len ? n * len : i / (len + 1) * len + i % (len + 1);
    nm_tensor row = nm_reshape(input(c, name), NM_SHAPE(1, width));
    return nm_reshape(nm_join_rows(c->r, nm_flatten(x, 2), row, rows, n * (len + 1)), NM_SHAPE(n, len + 1, width));
}

/* Rows of a packed projection: its gradients are added up in the packed one. */
static nm_tensor project(golden_case *c, nm_tensor x, const nm_tensor *w, const nm_tensor *b, int part)
{
    int64_t width = w->shape[1];
    int64_t rows[64];
    nm_tensor y = nm_matmul(c->r, x, nm_rows(*w, part * width, (part + 1) * width), true, 1);
    for (int64_t i = 0; i < x.shape[0] * x.shape[1]; i++)
        rows[i] = part;
    nm_tensor bias = nm_gather_rows(c->r, nm_reshape(*b, NM_SHAPE(3, width)), rows, x.shape[0] * x.shape[1]);
    return nm_add(c->r, y, nm_reshape(bias, NM_SHAPE(x.shape[0], x.shape[1], width)));
}

static void op_mha(golden_case *c)
{
    nm_tensor q = input(c, "q"), kv = find(c, "in", "kv") ? input(c, "kv") : q, w = input(c, "in_w"), b = input(c, "in_b");
    nm_tensor k = project(c, kv, &w, &b, 1), v = project(c, kv, &w, &b, 2);
    q = project(c, q, &w, &b, 0);
    if (find(c, "in", "bias_k")) {
        k = append_row(c, k, "bias_k");
        v = append_row(c, v, "bias_v");
    }
    finish_attention(c, q, k, v, mask_of(c, q.shape[0], q.shape[1], k.shape[1]), "out_w", "out_b");
}

static void op_bert_attention(golden_case *c)
{
    nm_tensor x = input(c, "q"), kv = input(c, "kv");
    nm_tensor q = apply_linear(c, x, "wq", "bq"), k = apply_linear(c, kv, "wk", "bk"), v = apply_linear(c, kv, "wv", "bv");
    finish_attention(c, q, k, v, mask_of(c, 2, 5, 7), "wo", "bo");
}

static void op_window_attention(golden_case *c)
{
    nm_tensor x = input(c, "x");
    nm_window_w *w = nm_scratch(c->r, sizeof *w);
    hold(c, &w->qkv.weight, "qkv_w");
    hold(c, &w->qkv.bias, "qkv_b");
    hold(c, &w->proj.weight, "proj_w");
    hold(c, &w->proj.bias, "proj_b");
    hold(c, &w->table, "table");
    output(c, "y", nm_window_attention(c->r, x, w, 2, 3, (int)json_integer_value(attr(c, "shift"))));
}

static void op_t5_attention(golden_case *c)
{
    nm_tensor x = input(c, "x");
    nm_tensor q = apply_linear(c, x, "wq", NULL), k = apply_linear(c, x, "wk", NULL), v = apply_linear(c, x, "wv", NULL);
    bool both = json_is_true(attr(c, "bidirectional"));
    int32_t rows[17 * 17];
    for (int i = 0; i < 17 * 17; i++)
        rows[i] = nm_t5_bucket(i % 17 - i / 17, both, 8, 12);
    nm_tensor bias = nm_bias_table(c->r, param(c, "table"), rows, 17, 17, 1, NULL, 0);
    nm_mask m = { .causal = !both, .bias_tensor = &bias, .scale = 1 };
    output(c, "y", apply_linear(c, nm_attention(c->r, q, k, v, 3, &m), "wo", NULL));
}

/* ---- losses ---- */

static const int64_t *labels_of(const golden_case *c) { return find(c, "in", "t")->data; }

static void op_cross_entropy(golden_case *c)
{
    nm_tensor x = input(c, "x");
    float smoothing = (float)nm_json_num(nm_json_get(c->json, "attrs"), "label_smoothing", 0);
    if (find(c, "in", "t")->dtype == NM_F32)
        output(c, "y", nm_soft_cross_entropy(c->r, x, constant(c, "t").data));
    else if (attr(c, "shift")) { /* rows 0..3 of each sequence against labels 1..4 */
        int64_t rows[8], labels[8];
        for (int i = 0; i < 8; i++) {
            rows[i] = i / 4 * 5 + i % 4;
            labels[i] = labels_of(c)[rows[i] + 1];
        }
        output(c, "y", nm_cross_entropy(c->r, nm_gather_rows(c->r, nm_flatten(x, 2), rows, 8), labels, smoothing));
    } else
        output(c, "y", nm_cross_entropy(c->r, x, labels_of(c), smoothing));
}

/* Both directions of logits against the diagonal, or against soft targets. */
static nm_tensor both_directions(golden_case *c, nm_tensor logits, const float *t, const float *t_back)
{
    int64_t labels[16];
    nm_tensor back = nm_permute(c->r, logits, (const int[]){ 1, 0 });
    for (int i = 0; i < 16; i++)
        labels[i] = i;
    nm_tensor a = t ? nm_soft_cross_entropy(c->r, logits, t) : nm_cross_entropy(c->r, logits, labels, 0);
    nm_tensor b = t ? nm_soft_cross_entropy(c->r, back, t_back) : nm_cross_entropy(c->r, back, labels, 0);
    return nm_times(c->r, nm_add(c->r, a, b), 0.5f);
}

/* The trainer's closed form must say the same as the operators: value and gradients for an upstream of 1. */
static void same_as_closed_form(golden_case *c, nm_tensor img, nm_tensor txt, double s, const float *bias, double want)
{
    float d[2][64] = { { 0 } };
    int64_t n = img.shape[0], dim = img.shape[1];
    nm_pair_loss l = bias ? nm_siglip_loss(c->r, n, dim, img.data, txt.data, s, (double)*bias, d[0], d[1])
                          : nm_clip_loss(c->r, n, dim, img.data, txt.data, s, 0, n, d[0], d[1]);
    assert_true(fabs(l.loss - want) < 1e-5 * (1 + fabs(want)));
}

static void op_clip_loss(golden_case *c)
{
    nm_tensor img = input(c, "img"), txt = input(c, "txt"), s = find(c, "in", "s") ? input(c, "s") : nm_new(c->r, NM_F32, NM_SCALAR);
    if (!find(c, "in", "s"))
        ((float *)s.data)[0] = logf(100); /* stated in the case's attrs */
    img = nm_normalize(c->r, img, 1e-12f);
    txt = nm_normalize(c->r, txt, 1e-12f);
    nm_tensor y = both_directions(c, nm_temperature(c->r, nm_matmul(c->r, img, txt, true, 1), s, NM_TIMES_EXP), NULL, NULL);
    output(c, "y", y);
    same_as_closed_form(c, img, txt, (double)((float *)s.data)[0], NULL, (double)((float *)y.data)[0]);
}

/* The sum of softplus is a mean of binary cross entropies times the number of columns. */
static void op_siglip_loss(golden_case *c)
{
    nm_tensor img = nm_normalize(c->r, input(c, "img"), 1e-12f), txt = nm_normalize(c->r, input(c, "txt"), 1e-12f), s = input(c, "s"), b = input(c, "b");
    int64_t n = img.shape[0], zero[64] = { 0 };
    nm_tensor z = nm_temperature(c->r, nm_matmul(c->r, img, txt, true, 1), s, NM_TIMES_EXP);
    nm_tensor bias = nm_reshape(nm_gather_rows(c->r, nm_reshape(b, NM_SHAPE(1, 1)), zero, n * n), NM_SHAPE(n, n));
    float diagonal[64] = { 0 };
    for (int64_t i = 0; i < n; i++)
        diagonal[i * n + i] = 1;
    nm_tensor y = nm_times(c->r, nm_bce_logits(c->r, nm_add(c->r, z, bias), diagonal), (float)n);
    output(c, "y", y);
    same_as_closed_form(c, img, txt, (double)((float *)s.data)[0], b.data, (double)((float *)y.data)[0]);
}

static void op_focal(golden_case *c)
{
    nm_tensor x = input(c, "x");
    uint8_t keep[64];
    const nm_wview *m = find(c, "in", "m");
    for (int i = 0; m && i < 60; i++)
        keep[i] = ((const int64_t *)m->data)[i / 20 * 5 + i % 5] > 0;
    output(c, "y", nm_focal_loss(c->r, x, constant(c, "t").data, m ? keep : NULL, 0.25f, 2, !m));
}

static void op_bce(golden_case *c) { output(c, "y", nm_bce_logits(c->r, input(c, "x"), constant(c, "t").data)); }
static void op_kl(golden_case *c) { output(c, "y", nm_distillation(c->r, input(c, "x"), constant(c, "t").data, 3)); }
static void op_giou(golden_case *c) { output(c, "y", nm_giou_loss(c->r, input(c, "p"), constant(c, "t").data, 1e-7f)); }
static void op_smooth_l1(golden_case *c) { output(c, "y", nm_smooth_l1(c->r, input(c, "p"), constant(c, "t").data, 1.0f / 9, false)); }

static nm_tensor unit(golden_case *c, const char *name) { return nm_normalize(c->r, constant(c, name), 1e-12f); }

/* ALBEF and BLIP: both directions against alpha softmax(momentum similarities) + (1 - alpha) the diagonal, queues behind the batch. */
static nm_tensor itc_direction(golden_case *c, nm_tensor x, const char *own_m, const char *other_m, const float *queue, nm_tensor temp)
{
    nm_tensor all = nm_new(c->r, NM_F32, NM_SHAPE(9, 6)), other = unit(c, other_m), mine = unit(c, own_m);
    memcpy(all.data, other.data, 30 * sizeof(float));
    for (int i = 0; i < 24; i++)
        ((float *)all.data)[30 + i] = queue[i % 6 * 4 + i / 6];
    nm_tensor t = nm_softmax(c->r, nm_temperature(c->r, nm_matmul(c->r, mine, all, true, 1), nm_view(temp.data, NM_F32, NM_SCALAR), NM_DIVIDED_BY));
    for (int i = 0; i < 45; i++)
        ((float *)t.data)[i] = 0.4f * ((float *)t.data)[i] + (i / 9 == i % 9 ? 0.6f : 0);
    return nm_soft_cross_entropy(c->r, nm_temperature(c->r, nm_matmul(c->r, x, all, true, 1), temp, NM_DIVIDED_BY), t.data);
}

static void op_itc(golden_case *c)
{
    nm_tensor img = nm_normalize(c->r, input(c, "img"), 1e-12f), txt = nm_normalize(c->r, input(c, "txt"), 1e-12f), temp = input(c, "temp");
    const float *queue = constant(c, "queue").data;
    nm_tensor a = itc_direction(c, img, "img_m", "txt_m", queue + 24, temp), b = itc_direction(c, txt, "txt_m", "img_m", queue, temp);
    output(c, "y", nm_times(c->r, nm_add(c->r, a, b), 0.5f));
}

static void op_distill(golden_case *c)
{
    nm_tensor img = nm_normalize(c->r, input(c, "img"), 1e-12f), txt = nm_normalize(c->r, input(c, "txt"), 1e-12f);
    nm_tensor z = nm_temperature(c->r, nm_matmul(c->r, img, txt, true, 1), input(c, "s"), NM_TIMES_EXP);
    nm_tensor t = nm_temperature(c->r, nm_matmul(c->r, unit(c, "ti"), unit(c, "tt"), true, 1), constant(c, "ts"), NM_TIMES_EXP);
    nm_tensor rows = nm_softmax(c->r, t), cols = nm_softmax(c->r, nm_permute(c->r, t, (const int[]){ 1, 0 }));
    output(c, "contrastive", both_directions(c, z, NULL, NULL));
    output(c, "distill", both_directions(c, z, rows.data, cols.data));
}

static const struct { const char *name; void (*run)(golden_case *c); } operators[] = {
    { "linear", op_linear },           { "matmul", op_matmul },                     { "gelu_exact", op_activation },   { "gelu_tanh", op_activation },
    { "quick_gelu", op_activation },   { "silu", op_activation },                   { "relu", op_activation },         { "tanh", op_activation },
    { "sigmoid", op_sigmoid },         { "hard_sigmoid", op_hard_sigmoid },         { "gated_gelu", op_gated_gelu },   { "layer_norm", op_layernorm },
    { "rms_norm", op_rmsnorm },        { "group_norm", op_groupnorm },              { "batch_norm", op_batchnorm },    { "l2_normalize", op_normalize },
    { "softmax", op_softmax },         { "log_softmax", op_softmax },               { "embedding", op_embedding },     { "conv2d", op_conv },
    { "conv3d", op_conv3d },           { "deform_conv2d", op_deform },              { "avg_pool2d", op_pool },         { "max_pool2d", op_pool },
    { "adaptive_avg_pool2d", op_pool }, { "mean", op_mean },                        { "resize_pos_embed", op_resize }, { "dropout", op_dropout },
    { "drop_path", op_drop_path },     { "mha", op_mha },                           { "bert_attention", op_bert_attention },
    { "window_attention", op_window_attention }, { "t5_attention", op_t5_attention }, { "cross_entropy", op_cross_entropy }, { "clip_loss", op_clip_loss },
    { "siglip_loss", op_siglip_loss }, { "sigmoid_focal_loss", op_focal },          { "bce_with_logits", op_bce },     { "giou_loss", op_giou },
    { "smooth_l1", op_smooth_l1 },     { "itc_loss", op_itc },                      { "distill_clip_loss", op_distill }, { "kl_div", op_kl },
};

static void dispatch(golden_case *c)
{
    const char *op = nm_json_str(c->json, "op", "");
    for (size_t i = 0; i < sizeof operators / sizeof *operators; i++)
        if (strcmp(op, operators[i].name) == 0) {
            operators[i].run(c);
            return;
        }
    fail_msg("%s: there is no operator %s", c->name, op);
}

static void run_case(const json_t *json, const nm_weights *file, int threads)
{
    nm_pool *pool = nm_pool_new(threads);
    nm_arena *arena = nm_arena_new(1 << 20);
    nm_run r;
    nm_run_init(&r, nm_kernels_get(), pool, arena, NM_F32);
    r.tape = nm_tape_new();
    golden_case c = { .r = &r, .json = json, .name = nm_json_str(json, "name", ""), .file = file };
    dispatch(&c);
    assert_string_equal(r.err.message, "");
    for (int i = 0; i < c.n_y; i++) {
        assert_non_null(c.y[i].data);
        compare(&c, "out", c.y_name[i], c.y[i].data);
        float *dy = nm_grad_data(&r, &c.y[i]);
        assert_non_null(dy);
        nm_wview_copy_f32(find(&c, "gout", c.y_name[i]), dy);
    }
    nm_backward(&r);
    assert_string_equal(r.err.message, "");
    for (int i = 0; i < c.n_x; i++)
        compare(&c, "grad", c.x_name[i], nm_grad_read(&c.x[i]));
    for (int i = 0; i < c.n_w; i++)
        compare(&c, "grad", c.w_name[i], c.g[i].data);
    for (int i = 0; i < c.n_held; i++)
        nm_weight_changed(c.held[i]);
    for (int i = 0; i < c.n_w; i++) {
        nm_free(c.g[i].data);
        nm_weight_free(&c.w[i]);
    }
    nm_tape_free(r.tape);
    nm_arena_free(arena);
    nm_pool_free(pool);
}

static void test_family(void **state)
{
    const char *family = *state;
    char path[512];
    noema_error err = NOEMA_ERROR_INIT;
    snprintf(path, sizeof path, "%s/tests/golden/train/ops/%s.json", NOEMA_SOURCE_DIR, family);
    json_t *j = nm_json_load(path, &err);
    assert_non_null(j);
    snprintf(path, sizeof path, "%s/tests/golden/train/ops/%s.safetensors", NOEMA_SOURCE_DIR, family);
    nm_weights *w;
    assert_int_equal(nm_weights_open(&w, path, &err), NOEMA_OK);
    size_t i;
    json_t *c;
    assert_true(json_array_size(nm_json_get(j, "cases")) > 0);
    json_array_foreach(nm_json_get(j, "cases"), i, c)
        run_case(c, w, 1 + (int)(i % 2));
    nm_weights_close(w);
    json_decref(j);
}

/* Pictures that want no gradient go another way in. */
static void test_patch_embed(void **state)
{
    (void)state;
    char path[512];
    noema_error err = NOEMA_ERROR_INIT;
    nm_weights *w;
    snprintf(path, sizeof path, "%s/tests/golden/train/ops/conv.safetensors", NOEMA_SOURCE_DIR);
    assert_int_equal(nm_weights_open(&w, path, &err), NOEMA_OK);
    nm_arena *arena = nm_arena_new(1 << 20);
    nm_run r;
    nm_run_init(&r, nm_kernels_get(), NULL, arena, NM_F32);
    r.tape = nm_tape_new();
    golden_case c = { .r = &r, .name = "patch_conv_nobias", .file = w };
    nm_tensor x = constant(&c, "x");
    nm_linear_w conv = { 0 };
    hold(&c, &conv.weight, "w");
    nm_tensor y = nm_patch_embed(&r, x, &conv);
    const double *out = find(&c, "out", "y")->data, *dw = find(&c, "grad", "w")->data;
    nm_wview_copy_f32(find(&c, "gout", "y"), nm_grad_data(&r, &y));
    for (int64_t i = 0; i < nm_numel(&y); i++)
        assert_true(fabs((double)((float *)y.data)[i] - out[i]) < 1e-5);
    nm_backward(&r);
    for (int64_t i = 0; i < 5 * 48; i++)
        assert_true(fabs((double)c.g[0].data[i] - dw[i]) < 2e-5);
    nm_free(c.g[0].data);
    nm_weight_changed(&conv.weight);
    nm_weight_free(&c.w[0]);
    nm_tape_free(r.tape);
    nm_arena_free(arena);
    nm_weights_close(w);
}

static void test_resize_positions(void **state)
{
    (void)state;
    char path[512];
    noema_error err = NOEMA_ERROR_INIT;
    nm_weights *w;
    snprintf(path, sizeof path, "%s/tests/golden/train/ops/resize.safetensors", NOEMA_SOURCE_DIR);
    assert_int_equal(nm_weights_open(&w, path, &err), NOEMA_OK);
    static const struct { const char *name; int h, w; nm_interp how; } cases[] = {
        { "pos_embed_up_bicubic", 7, 5, NM_INTERP_BICUBIC },
        { "pos_embed_up_bicubic_antialias", 7, 5, NM_INTERP_BICUBIC_AA },
        { "pos_embed_down_bicubic", 3, 2, NM_INTERP_BICUBIC },
        { "pos_embed_down_bicubic_antialias", 3, 2, NM_INTERP_BICUBIC_AA },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        golden_case c = { .name = cases[i].name, .file = w };
        const nm_wview *in = find(&c, "in", "pos"), *out = find(&c, "out", "y");
        float pos[17 * 3], got[36 * 3];
        nm_wview_copy_f32(in, pos);
        assert_true(nm_resize_positions(pos, 1, 4, 4, got, cases[i].h, cases[i].w, 3, cases[i].how));
        for (int64_t k = 0; k < nm_wview_numel(out); k++)
            assert_true(fabs((double)got[k] - ((const double *)out->data)[k]) < 1e-6);
    }
    nm_weights_close(w);
}

int main(void)
{
    static char *const families[] = { "activations", "attention", "batchnorm", "conv",   "dropout",   "embedding", "groupnorm", "layernorm", "linear",
                                      "losses",      "lowp",      "matmul",    "normalize", "pool",   "resize",    "rmsnorm",   "softmax" };
    enum { FAMILIES = sizeof families / sizeof *families };
    struct CMUnitTest tests[FAMILIES + 2] = { cmocka_unit_test(test_resize_positions), cmocka_unit_test(test_patch_embed) };
    for (int i = 0; i < FAMILIES; i++)
        tests[i + 2] = (struct CMUnitTest){ families[i], test_family, NULL, NULL, families[i] };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
