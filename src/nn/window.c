/* window.c - biases of attention from trained tables, and Swin's attention inside windows: see nn.h. */
#include <string.h>

#include "nn/ops.h"

/* ---- bias[s, h, i, j] = table[rows[i, j], h] + mask[s][i, j] ---- */

typedef struct bias_saved { nm_tensor y; const nm_weight *table; const int32_t *rows; int64_t sets, heads, cells; } bias_saved;

static void bias_backward(nm_run *r, void *saved)
{
    bias_saved *s = saved;
    const float *dy = nm_grad_read(&s->y);
    float *dt = nm_weight_grad(r, s->table);
    for (int64_t i = 0; dt && i < s->sets * s->heads * s->cells; i++)
        dt[s->rows[i % s->cells] * s->heads + i / s->cells % s->heads] += dy[i];
}

nm_tensor nm_bias_table(nm_run *r, const nm_weight *table, const int32_t *rows, int64_t lq, int64_t lk, int64_t sets, const float *mask, int64_t n_masks)
{
    if (!nm_run_ok(r))
        return (nm_tensor){ 0 };
    if (table->shape.ndim != 2 || !table->f32)
        return nm_run_fail(r, NOEMA_E_INTERNAL, "attention bias: expected a table [rows, heads] with its f32 form made");
    int64_t heads = table->shape.dim[1], cells = lq * lk;
    nm_tensor y = nm_new(r, NM_F32, NM_SHAPE(sets, heads, lq, lk));
    for (int64_t i = 0; i < cells; i++)
        if (rows[i] < 0 || rows[i] >= table->shape.dim[0])
            return nm_run_fail(r, NOEMA_E_INTERNAL, "attention bias: row %d of %lld", rows[i], (long long)table->shape.dim[0]);
    for (int64_t i = 0; y.data && i < sets * heads * cells; i++) {
        float v = table->f32[rows[i % cells] * heads + i / cells % heads];
        ((float *)y.data)[i] = v + (mask ? mask[i / (cells * heads) % n_masks * cells + i % cells] : 0);
    }
    if (nm_trains(r, table))
        NM_RECORD(r, y, bias_backward, bias_saved, y, table, nm_save_(r, rows, (size_t)cells * sizeof *rows), sets, heads, cells);
    return y;
}

/* ---- windows ---- */

typedef struct windows { int64_t n, h, w, rows, cols, window, shift_y, shift_x; } windows; /* rows x cols windows in each padded picture */

/* An axis that one window covers is not shifted. */
static windows cut(const nm_tensor *x, int window, int shift)
{
    windows g = { .n = x->shape[0], .h = x->shape[1], .w = x->shape[2], .window = window };
    g.rows = (g.h + window - 1) / window;
    g.cols = (g.w + window - 1) / window;
    g.shift_y = g.rows > 1 ? shift : 0;
    g.shift_x = g.cols > 1 ? shift : 0;
    return g;
}

/* The padded, rolled picture's pixel that token t of window v is, in rows of x; -1 for padding. */
static int64_t pixel_of(const windows *g, int64_t v, int64_t t)
{
    int64_t per = g->rows * g->cols, ph = g->rows * g->window, pw = g->cols * g->window;
    int64_t y = (v % per / g->cols * g->window + t / g->window + g->shift_y) % ph, x = (v % g->cols * g->window + t % g->window + g->shift_x) % pw;
    return y < g->h && x < g->w ? (v / per * g->h + y) * g->w + x : -1;
}

/* Which of the three stretches of a rolled axis a place is in: [0, n - window), [n - window, n - shift), [n - shift, n). */
static int stretch(int64_t at, int64_t n, int64_t window, int64_t shift) { return shift == 0 ? 0 : at < n - window ? 0 : at < n - shift ? 1 : 2; }

/* [windows of a picture][tokens][tokens]: -100 between tokens of different regions. */
static float *region_mask(nm_run *r, const windows *g)
{
    int64_t per = g->rows * g->cols, t = g->window * g->window, ph = g->rows * g->window, pw = g->cols * g->window;
    float *m = nm_scratch(r, (size_t)(per * t * t) * sizeof *m);
    for (int64_t i = 0; m && i < per * t * t; i++) {
        int region[2];
        for (int k = 0; k < 2; k++) {
            int64_t token = k ? i % t : i / t % t, v = i / (t * t);
            region[k] = 3 * stretch(v / g->cols * g->window + token / g->window, ph, g->window, g->shift_y) +
                        stretch(v % g->cols * g->window + token % g->window, pw, g->window, g->shift_x);
        }
        m[i] = region[0] == region[1] ? 0 : -100;
    }
    return m;
}

/* Row of the table for query i and key j: (dy + window - 1) (2 window - 1) + dx + window - 1. */
static int32_t *distance_rows(nm_run *r, int64_t window)
{
    int64_t t = window * window;
    int32_t *rows = nm_scratch(r, (size_t)(t * t) * sizeof *rows);
    for (int64_t i = 0; rows && i < t * t; i++) {
        int64_t q = i / t, k = i % t, dy = q / window - k / window, dx = q % window - k % window;
        rows[i] = (int32_t)((dy + window - 1) * (2 * window - 1) + dx + window - 1);
    }
    return rows;
}

nm_tensor nm_window_attention(nm_run *r, nm_tensor x, const nm_window_w *w, int heads, int window, int shift)
{
    if (!x.data || !nm_run_ok(r))
        return (nm_tensor){ 0 };
    if (x.ndim != 4 || x.dtype != NM_F32 || !nm_is_contiguous(&x) || window < 1 || shift < 0 || shift >= window)
        return nm_run_fail(r, NOEMA_E_INTERNAL, "window attention: expected contiguous f32 [n, h, w, width]");
    windows g = cut(&x, window, shift);
    int64_t t = (int64_t)window * window, count = g.n * g.rows * g.cols, pixels = g.n * g.h * g.w, width = x.shape[3];
    int64_t *to = nm_scratch(r, (size_t)(count * t) * sizeof *to), *back = nm_scratch(r, (size_t)pixels * sizeof *back);
    float *zero = nm_scratch(r, (size_t)width * sizeof *zero);
    int32_t *rows = distance_rows(r, window);
    bool shifted = g.shift_y || g.shift_x;
    float *mask = shifted ? region_mask(r, &g) : NULL;
    if (!nm_run_ok(r))
        return (nm_tensor){ 0 };
    memset(zero, 0, (size_t)width * sizeof *zero);
    for (int64_t i = 0; i < count * t; i++) {
        int64_t p = pixel_of(&g, i / t, i % t);
        to[i] = p < 0 ? pixels : p; /* the row after the pixels is the padding */
        if (p >= 0)
            back[p] = i;
    }
    nm_tensor tokens = nm_join_rows(r, nm_flatten(x, 3), nm_view(zero, NM_F32, NM_SHAPE(1, width)), to, count * t);
    nm_tensor qkv = nm_linear(r, nm_reshape(tokens, NM_SHAPE(count, t, width)), &w->qkv, (nm_epilogue){ 0 });
    nm_tensor bias = nm_bias_table(r, &w->table, rows, t, t, shifted ? count : 1, mask, g.rows * g.cols);
    nm_mask m = { .bias_tensor = &bias };
    nm_tensor a = nm_attention(r, nm_cols(qkv, 0, width), nm_cols(qkv, width, 2 * width), nm_cols(qkv, 2 * width, 3 * width), heads, &m);
    nm_tensor y = nm_linear(r, a, &w->proj, (nm_epilogue){ .f32 = true });
    return nm_reshape(nm_gather_rows(r, nm_flatten(y, 2), back, pixels), NM_SHAPE(g.n, g.h, g.w, width));
}
