/* pair_ranks.c - see pair_ranks.h. Scores are made a tile at a time. A pair's own score comes from the product of the very tile in which it is
 * compared with others, so that it has the same bits. */
#include "train/pair_ranks.h"

#include <math.h>
#include <string.h>

#include "nn/ops.h"

enum { ROWS = 256, COLS = 4096 }; /* COLS is a multiple of ROWS: a tile's own pairs lie in one tile */

typedef struct tile {
    float *s; /* [rows, cols] */
    int64_t row, rows, col, cols;
    const float *own; /* [n] */
    int64_t *image_rank, *text_rank;
} tile;

static void count_rows(void *arg, int64_t b, int64_t e, int worker)
{
    const tile *t = arg;
    (void)worker;
    for (int64_t i = t->row + b; i < t->row + e; i++) {
        const float *s = t->s + (i - t->row) * t->cols, own = t->own[i];
        int64_t n = 0;
        for (int64_t c = 0; c < t->cols; c++)
            n += s[c] > own || (s[c] == own && t->col + c < i);
        t->image_rank[i] += n;
    }
}

static void count_columns(void *arg, int64_t b, int64_t e, int worker)
{
    const tile *t = arg;
    (void)worker;
    for (int64_t i = t->row; i < t->row + t->rows; i++) {
        const float *s = t->s + (i - t->row) * t->cols;
        for (int64_t c = b; c < e; c++)
            t->text_rank[t->col + c] += s[c] > t->own[t->col + c] || (s[c] == t->own[t->col + c] && i < t->col + c);
    }
}

static void score(nm_run *r, tile *t, int64_t n, int64_t dim, const float *images, const float *texts)
{
    t->rows = n - t->row < ROWS ? n - t->row : ROWS;
    t->cols = n - t->col < COLS ? n - t->col : COLS;
    nm_gradient_product(r, t->rows, t->cols, dim, images + t->row * dim, NM_F32, dim, texts + t->col * dim, NM_F32, dim, false, t->s, t->cols, false);
}

void nm_pair_ranks(nm_run *r, int64_t n, int64_t dim, const float *images, const float *texts, int64_t *image_rank, int64_t *text_rank)
{
    float *own = nm_scratch(r, (size_t)n * sizeof *own);
    tile t = { .s = nm_scratch(r, (size_t)ROWS * COLS * sizeof(float)), .own = own, .image_rank = image_rank, .text_rank = text_rank };
    memset(image_rank, 0, (size_t)n * sizeof *image_rank);
    memset(text_rank, 0, (size_t)n * sizeof *text_rank);
    for (t.row = 0; t.row < n && nm_run_ok(r); t.row += ROWS) {
        t.col = t.row / COLS * COLS;
        score(r, &t, n, dim, images, texts);
        for (int64_t i = t.row; nm_run_ok(r) && i < t.row + t.rows; i++)
            own[i] = t.s[(i - t.row) * t.cols + i - t.col];
    }
    for (t.col = 0; t.col < n; t.col += COLS)
        for (t.row = 0; t.row < n && nm_run_ok(r); t.row += ROWS) {
            score(r, &t, n, dim, images, texts);
            nm_parallel_for(r->pool, t.rows, 16, count_rows, &t);
            nm_parallel_for(r->pool, t.cols, 256, count_columns, &t);
        }
    for (int64_t i = 0; i < n && nm_run_ok(r); i++)
        if (!isfinite(own[i])) /* no comparison with it is true */
            image_rank[i] = text_rank[i] = n - 1;
}
