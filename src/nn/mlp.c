/* mlp.c - the two products of a transformer block's second half as one operator: see nn.h. The backward keeps the input of the activation
 * alone, in the dtype of activations: the widest tensor of a block is stored once instead of twice, and nothing as wide has a gradient
 * buffer of its own. */
#include "nn/ops.h"

typedef struct mlp_saved { nm_tensor x, pre, y, residual; const nm_linear_w *fc, *proj; nm_act act; int64_t rows, width, mlp, out; } mlp_saved;
typedef struct act_job { const nm_run *r; const char *x; char *y; nm_dtype dtype; nm_act act; float *dy; } act_job; /* x, y of dtype */

enum { GRAIN = 8 << 10, PIECE = 1 << 10 };

static void act_part(void *arg, int64_t b, int64_t e, int worker)
{
    const act_job *j = arg;
    const nm_elementwise_kernels *k = &j->r->kn->elementwise;
    size_t size = nm_dtype_size(j->dtype);
    float t[PIECE];
    (void)worker;
    for (int64_t n; b < e; b += n) {
        n = e - b < PIECE ? e - b : PIECE;
        k->cast(n, j->x + (size_t)b * size, j->dtype, t, NM_F32);
        k->act(n, t, j->act, t);
        k->cast(n, t, NM_F32, j->y + (size_t)b * size, j->dtype);
    }
}

/* act(pre) in the dtype of activations, from the arena. */
static nm_tensor activated(nm_run *r, nm_tensor pre, nm_act act)
{
    nm_tensor y = nm_new(r, r->act, nm_shape_of(&pre));
    act_job j = { r, pre.data, y.data, y.dtype, act, NULL };
    if (y.data)
        nm_parallel_for(r->pool, nm_numel(&pre), GRAIN, act_part, &j);
    return y;
}

static void slope_part(void *arg, int64_t b, int64_t e, int worker)
{
    const act_job *j = arg;
    float t[PIECE];
    (void)worker;
    for (int64_t n; b < e; b += n) {
        n = e - b < PIECE ? e - b : PIECE;
        j->r->kn->elementwise.cast(n, j->x + (size_t)b * nm_dtype_size(j->dtype), j->dtype, t, NM_F32);
        j->r->kn->gradient.act_back(n, t, j->act, j->dy + b, j->dy + b, false);
    }
}

static void mlp_backward(nm_run *r, void *saved)
{
    mlp_saved *s = saved;
    const float *dy = nm_grad_read(&s->y);
    nm_arena_mark mark = nm_arena_get_mark(r->arena);
    if (nm_trains(r, &s->proj->weight) || nm_trains(r, &s->proj->bias)) {
        nm_tensor h = activated(r, s->pre, s->act);
        if (h.data)
            nm_linear_gradients(r, &s->proj->weight, &s->proj->bias, s->rows, s->out, s->mlp, dy, s->out, h.data, h.dtype, s->mlp);
        nm_arena_rewind(r->arena, mark);
    }
    float *d = nm_scratch(r, (size_t)(s->rows * s->mlp) * sizeof *d);
    if (!d)
        return;
    nm_input_gradient(r, &s->proj->weight, s->rows, s->out, s->mlp, dy, s->out, d, s->mlp, false);
    nm_grad_pass(r, &s->y, &s->residual);
    act_job j = { r, s->pre.data, NULL, s->pre.dtype, s->act, d };
    nm_parallel_for(r->pool, s->rows * s->mlp, GRAIN, slope_part, &j);
    nm_linear_gradients(r, &s->fc->weight, &s->fc->bias, s->rows, s->mlp, s->width, d, s->mlp, s->x.data, s->x.dtype, s->width);
    bool add;
    float *dx = s->x.grad ? nm_grad_out(r, &s->x, &add) : NULL;
    if (dx)
        nm_input_gradient(r, &s->fc->weight, s->rows, s->mlp, s->width, d, s->mlp, dx, s->width, add);
}

nm_tensor nm_mlp(nm_run *r, nm_tensor x, const nm_linear_w *fc, nm_act act, const nm_linear_w *proj, nm_epilogue e)
{
    bool wants = r->tape && (nm_wants(r, &x) || nm_trains(r, &fc->weight) || nm_trains(r, &fc->bias) || nm_trains(r, &proj->weight) || nm_trains(r, &proj->bias));
    bool plain = x.data && e.act == NM_ACT_NONE && !(e.gamma && nm_has(e.gamma)) && e.residual && nm_is_contiguous(&x);
    if (!wants || !plain || !nm_run_ok(r))
        return nm_linear(r, nm_linear(r, x, fc, (nm_epilogue){ .act = act }), proj, e);
    nm_tensor pre = nm_new(r, r->act, nm_with_last(&x, fc->weight.shape.dim[0])), y = nm_new(r, NM_F32, nm_shape_of(e.residual));
    nm_arena_mark mark = nm_arena_get_mark(r->arena);
    if (pre.data && y.data)
        nm_product_into(r, x, &fc->weight, &fc->bias, (nm_epilogue){ 0 }, pre);
    nm_tensor h = nm_run_ok(r) ? activated(r, pre, act) : (nm_tensor){ 0 };
    if (h.data)
        nm_product_into(r, h, &proj->weight, &proj->bias, (nm_epilogue){ .residual = e.residual }, y);
    nm_arena_rewind(r->arena, mark);
    if (!nm_run_ok(r))
        return (nm_tensor){ 0 };
    int64_t width = x.shape[x.ndim - 1], mlp = pre.shape[pre.ndim - 1], out = y.shape[y.ndim - 1];
    NM_RECORD(r, y, mlp_backward, mlp_saved, x, pre, y, *e.residual, fc, proj, act, nm_numel(&x) / width, width, mlp, out);
    return y;
}
