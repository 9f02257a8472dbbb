/* embedding.c - token embedding, patch embedding and positions, each beside its backward: see nn.h. */
#include <string.h>

#include "nn/ops.h"

/* ---- token embedding ---- */

typedef struct embedding_saved { nm_tensor y; const nm_weight *table, *position; const int32_t *ids, *pos; int64_t n, width, padding; } embedding_saved;

/* Rows are added in token order: repeated ids give the same bits on any number of threads. */
static void embedding_backward(nm_run *r, void *saved)
{
    embedding_saved *s = saved;
    const float *dy = nm_grad_read(&s->y);
    float *dt = nm_trains(r, s->table) ? nm_weight_grad(r, s->table) : NULL, *dp = nm_trains(r, s->position) ? nm_weight_grad(r, s->position) : NULL;
    for (int64_t i = 0; i < s->n; i++, dy += s->width) {
        int64_t row = s->ids[i], at = s->pos ? s->pos[i] : i;
        if (dt && row != s->padding)
            r->kn->elementwise.add(s->width, dt + row * s->width, dy, dt + row * s->width);
        if (dp)
            r->kn->elementwise.add(s->width, dp + at * s->width, dy, dp + at * s->width);
    }
}

static bool add_row(nm_run *r, float *dst, const nm_weight *w, int64_t row, bool add, float *tmp)
{
    int64_t width = w->shape.dim[w->shape.ndim - 1], rows = nm_shape_numel(w->shape) / width;
    if (row < 0 || row >= rows) {
        nm_run_fail(r, NOEMA_E_MISMATCH, "token or position %lld is outside a table of %lld rows", (long long)row, (long long)rows);
        return false;
    }
    const nm_tensor *t = &w->part[0];
    const float *src = NULL;
    if (w->f32)
        src = w->f32 + row * width;
    else if (t->stride[1] == 1 && (t->dtype == NM_F32 || t->dtype == NM_F16 || t->dtype == NM_BF16)) {
        const char *p = (const char *)t->data + (size_t)(row * t->stride[0]) * nm_dtype_size(t->dtype);
        r->kn->elementwise.cast(width, p, t->dtype, tmp, NM_F32);
        src = tmp;
    } else {
        nm_weight one = { .shape = NM_SHAPE(1, width), .n_parts = 1, .part = { nm_rows(*t, row, row + 1) } };
        nm_weight_copy_f32(&one, tmp);
        src = tmp;
    }
    if (add)
        r->kn->elementwise.add(width, dst, src, dst);
    else
        memcpy(dst, src, (size_t)width * sizeof *dst);
    return true;
}

static nm_tensor embed(nm_run *r, const int32_t *ids, int64_t n, const nm_weight *table, const int32_t *pos, const nm_weight *position, int64_t padding)
{
    if (!nm_run_ok(r))
        return (nm_tensor){ 0 };
    int64_t width = nm_has(table) && table->shape.ndim > 0 ? table->shape.dim[table->shape.ndim - 1] : 0;
    if (width < 1 || (table->shape.ndim != 2 && !table->f32) || (position && (position->shape.ndim != 2 || position->shape.dim[1] != width)))
        return nm_run_fail(r, NOEMA_E_INTERNAL, "embedding: expected tables of one width");
    nm_tensor y = nm_new(r, NM_F32, NM_SHAPE(n, width));
    float *tmp = nm_scratch(r, (size_t)width * sizeof *tmp);
    for (int64_t i = 0; y.data && tmp && i < n; i++) {
        float *dst = (float *)y.data + i * width;
        if (!add_row(r, dst, table, ids[i], false, tmp) || (position && !add_row(r, dst, position, pos ? pos[i] : i, true, tmp)))
            return (nm_tensor){ 0 };
    }
    if (nm_trains(r, table) || nm_trains(r, position)) {
        const int32_t *keep = nm_save_(r, ids, (size_t)n * sizeof *ids), *keep_pos = pos ? nm_save_(r, pos, (size_t)n * sizeof *pos) : NULL;
        NM_RECORD(r, y, embedding_backward, embedding_saved, y, table, position, keep, keep_pos, n, width, padding);
    }
    return y;
}

nm_tensor nm_embedding(nm_run *r, const int32_t *ids, int64_t n, const nm_weight *table, const int32_t *pos, const nm_weight *position)
{
    return embed(r, ids, n, table, pos, position, -1);
}

nm_tensor nm_embedding_padded(nm_run *r, const int32_t *ids, int64_t n, const nm_weight *table, int32_t padding)
{
    return embed(r, ids, n, table, NULL, NULL, padding);
}

/* ---- patch embedding ---- */

typedef struct patch_job { nm_run *r; const float *pixels; char *rows; nm_dtype dtype; int64_t c, h, w, ph, pw, grid; const nm_keep *keep; } patch_job;

/* The pixels of one patch as a row of the product. */
static void one_patch(const patch_job *j, const float *image, int64_t patch, char *row)
{
    int64_t across = j->w / j->pw, y0 = patch / across * j->ph, x0 = patch % across * j->pw;
    size_t bytes = (size_t)j->pw * nm_dtype_size(j->dtype);
    for (int64_t c = 0; c < j->c; c++)
        for (int64_t y = 0; y < j->ph; y++, row += bytes)
            j->r->kn->elementwise.cast(j->pw, image + (c * j->h + y0 + y) * j->w + x0, NM_F32, row, j->dtype);
}

static void patch_images(void *arg, int64_t b, int64_t e, int worker)
{
    const patch_job *j = arg;
    (void)worker;
    for (int64_t i = b; j->keep && i < e; i++)
        for (int64_t t = 0; t < j->keep->n; t++)
            one_patch(j, j->pixels + i * j->c * j->h * j->w, j->keep->patch[i * j->keep->n + t],
                      j->rows + (size_t)((i * j->keep->n + t) * j->c * j->ph * j->pw) * nm_dtype_size(j->dtype));
    for (int64_t i = b; !j->keep && i < e; i++)
        j->r->kn->elementwise.patchify(j->pixels + i * j->c * j->h * j->w, j->c, j->h, j->w, j->ph, j->pw,
                                       j->rows + (size_t)(i * j->grid * j->c * j->ph * j->pw) * nm_dtype_size(j->dtype), j->dtype);
}

/* Pixels want no gradient: only the weight and the bias collect. */
typedef struct patch_saved { nm_tensor rows, x; const nm_linear_w *conv; int64_t m, k, width; } patch_saved;

static void patch_backward(nm_run *r, void *saved)
{
    patch_saved *s = saved;
    const float *dy = nm_grad_read(&s->x);
    nm_linear_gradients(r, &s->conv->weight, &s->conv->bias, s->m, s->width, s->k, dy, s->width, s->rows.data, s->rows.dtype, s->k);
}

static bool patches_inside(nm_run *r, const nm_keep *keep, int64_t n, int64_t grid)
{
    for (int64_t i = 0; keep && i < n * keep->n; i++)
        if (keep->patch[i] < 0 || keep->patch[i] >= grid) {
            nm_run_fail(r, NOEMA_E_ARGUMENT, "patch %d to keep is outside a grid of %lld", keep->patch[i], (long long)grid);
            return false;
        }
    return true;
}

nm_tensor nm_patch_embed_kept(nm_run *r, nm_tensor pixels, const nm_linear_w *conv, const nm_keep *keep)
{
    if (!pixels.data || !nm_run_ok(r))
        return (nm_tensor){ 0 };
    const nm_shape *s = &conv->weight.shape;
    if (pixels.ndim != 4 || s->ndim != 4 || pixels.shape[1] != s->dim[1] || pixels.dtype != NM_F32 || !nm_is_contiguous(&pixels) ||
        pixels.shape[2] < s->dim[2] || pixels.shape[3] < s->dim[3])
        return nm_run_fail(r, NOEMA_E_ARGUMENT, "patch embedding: expected f32 images [n, channels, height, width] of at least one patch");
    int64_t n = pixels.shape[0], width = s->dim[0], ph = s->dim[2], pw = s->dim[3];
    int64_t grid = pixels.shape[2] / ph * (pixels.shape[3] / pw), k = s->dim[1] * ph * pw;
    if (!patches_inside(r, keep, n, grid))
        return (nm_tensor){ 0 };
    if (keep)
        grid = keep->n; /* from here on: rows per image */
    nm_tensor x = nm_new(r, NM_F32, NM_SHAPE(n, grid, width));
    bool trains = nm_trains(r, &conv->weight) || nm_trains(r, &conv->bias);
    nm_arena_mark mark = nm_arena_get_mark(r->arena);
    nm_tensor rows = nm_new(r, r->act, NM_SHAPE(n * grid, k));
    nm_arena_mark packing = nm_arena_get_mark(r->arena);
    nm_packed room;
    /* int8 would round the 8-bit pixels a second time: the first product stays in the activations' dtype */
    const nm_packed *b = nm_packed_for(r, &conv->weight, r->act == NM_BF16 ? NM_BF16 : NM_F32, &room);
    if (!rows.data || !b)
        return (nm_tensor){ 0 };
    patch_job j = { r, pixels.data, rows.data, rows.dtype, s->dim[1], pixels.shape[2], pixels.shape[3], ph, pw, grid, keep };
    nm_parallel_for(r->pool, n, 1, patch_images, &j);
    nm_gemm g = { .m = n * grid, .a = rows.data, .a_dtype = rows.dtype, .lda = k, .b = b, .c = x.data, .c_dtype = NM_F32, .ldc = width, .alpha = 1,
                  .bias = nm_has(&conv->bias) ? conv->bias.f32 : NULL };
    nm_product(r, &g);
    nm_arena_rewind(r->arena, packing);
    if (trains)
        NM_RECORD(r, x, patch_backward, patch_saved, rows, x, conv, n * grid, k, width);
    else
        nm_arena_rewind(r->arena, mark);
    return nm_run_ok(r) ? x : (nm_tensor){ 0 };
}

typedef struct position_job {
    const nm_run *r;
    const float *tokens, *first, *positions;
    float *out;
    int64_t n, extra, width;
    const int32_t *patch; /* [images, n], or NULL */
} position_job;

static void position_images(void *arg, int64_t b, int64_t e, int worker)
{
    const position_job *j = arg;
    (void)worker;
    for (int64_t i = b; i < e; i++) {
        float *o = j->out + i * (j->extra + j->n) * j->width;
        const float *t = j->tokens + i * j->n * j->width;
        size_t head = (size_t)(j->extra * j->width), body = (size_t)(j->n * j->width);
        if (!j->positions) {
            if (head)
                memcpy(o, j->first, head * sizeof *o);
            memcpy(o + head, t, body * sizeof *o);
            continue;
        }
        if (head)
            j->r->kn->elementwise.add((int64_t)head, j->first, j->positions, o);
        if (!j->patch)
            j->r->kn->elementwise.add((int64_t)body, t, j->positions + head, o + head);
        for (int64_t k = 0; j->patch && k < j->n; k++)
            j->r->kn->elementwise.add(j->width, t + k * j->width, j->positions + head + j->patch[i * j->n + k] * j->width, o + head + k * j->width);
    }
}

typedef struct position_saved { nm_tensor tokens, x; const nm_weight *first, *positions; int64_t batch, n, extra, width; const int32_t *patch; } position_saved;

static void positions_backward(nm_run *r, void *saved)
{
    position_saved *s = saved;
    const float *dy = nm_grad_read(&s->x);
    float *dt = nm_grad_data(r, &s->tokens), *df = nm_trains(r, s->first) ? nm_weight_grad(r, s->first) : NULL,
          *dp = nm_trains(r, s->positions) ? nm_weight_grad(r, s->positions) : NULL;
    int64_t head = s->extra * s->width, body = s->n * s->width;
    for (int64_t i = 0; i < s->batch; i++, dy += head + body) {
        if (df)
            r->kn->elementwise.add(head, df, dy, df);
        if (dp)
            r->kn->elementwise.add(s->patch ? head : head + body, dp, dy, dp);
        for (int64_t k = 0; dp && s->patch && k < s->n; k++) {
            float *row = dp + head + s->patch[i * s->n + k] * s->width;
            r->kn->elementwise.add(s->width, row, dy + head + k * s->width, row);
        }
        if (dt)
            r->kn->elementwise.add(body, dt + i * body, dy + head, dt + i * body);
    }
}

nm_tensor nm_add_positions_kept(nm_run *r, nm_tensor tokens, const nm_weight *first, const nm_weight *positions, const nm_keep *keep)
{
    if (!tokens.data || !nm_run_ok(r))
        return (nm_tensor){ 0 };
    int64_t width = tokens.shape[tokens.ndim - 1], extra = first && nm_has(first) ? nm_shape_numel(first->shape) / width : 0;
    bool table = positions && nm_has(positions);
    if (tokens.ndim != 3 || tokens.dtype != NM_F32 || !nm_is_contiguous(&tokens) || (extra && !first->f32) ||
        (table && (!positions->f32 || (!keep && nm_shape_numel(positions->shape) != (extra + tokens.shape[1]) * width))) ||
        (keep && keep->n != tokens.shape[1]))
        return nm_run_fail(r, NOEMA_E_INTERNAL, "positions: expected f32 tokens [batch, n, width] and a table of their rows");
    if (table && !patches_inside(r, keep, tokens.shape[0], nm_shape_numel(positions->shape) / width - extra))
        return (nm_tensor){ 0 };
    nm_tensor x = nm_new(r, NM_F32, NM_SHAPE(tokens.shape[0], extra + tokens.shape[1], width));
    position_job j = { r, tokens.data, extra ? first->f32 : NULL, table ? positions->f32 : NULL, x.data, tokens.shape[1], extra, width,
                       keep ? keep->patch : NULL };
    if (x.data)
        nm_parallel_for(r->pool, tokens.shape[0], 1, position_images, &j);
    if (nm_wants(r, &tokens) || nm_trains(r, first) || nm_trains(r, positions))
        NM_RECORD(r, x, positions_backward, position_saved, tokens, x, first, positions, tokens.shape[0], tokens.shape[1], extra, width,
                  keep ? nm_save_(r, keep->patch, (size_t)(tokens.shape[0] * keep->n) * sizeof *keep->patch) : NULL);
    return x;
}
