/* gemm.c - blocking, threads and conversions around the tiles of gemm_kernels.h.
 *
 * C is cut into tasks of a block of rows by one or more panels. The rows of a block (of A) stay in the second-level cache
 * while the panels of B pass by; a panel stays there for all tiles of the block. k is never cut, so that the order of
 * additions is that of tile(), whatever the blocking is. */
#include "kernels/gemm.h"

#include <string.h>

#include "base/cpu.h"
#include "base/mem.h"
#include "kernels/gemm_ref.h"
#include "kernels/kernels.h"
#include "kernels/x86/gemm.h"

#define BLOCK_BYTES (384 * 1024) /* of A per block */
#define MAX_BLOCK_ROWS 192
#define MIN_BLOCK_ROWS 48 /* fewer would wait for B, which each block reads once */
#define COLLIDING_BYTES 4096
#define TASKS_PER_WORKER 8
#define STREAM_BYTES (8 << 20) /* packed weights beyond this are not read again soon enough to keep them in the caches */

static inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static inline int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }

static const nm_gemm_variant *variant_of(const struct nm_kernels *kn, nm_dtype compute)
{
    switch (compute) {
    case NM_F32: return kn->gemm.f32;
    case NM_BF16: return kn->gemm.bf16;
    case NM_I8: return kn->gemm.i8;
    default: return NULL;
    }
}

bool nm_gemm_has(const struct nm_kernels *kn, nm_dtype compute)
{
    const nm_gemm_variant *v = variant_of(kn, compute);
    return v && v->fast;
}

/* ---- packed weights ---- */

static size_t panel_bytes(const nm_gemm_variant *v, int64_t k) { return (size_t)nm_gemm_units(v->compute, k) * (size_t)v->nr * 4; }

/* Bytes of panels, and of the whole block with scale and sum; false when they do not fit size_t. */
static bool packed_sizes(const nm_gemm_variant *v, int64_t n, int64_t k, size_t *panels, size_t *all)
{
    if (n < 0 || k < 0 || k > INT64_MAX / 256 || n > INT64_MAX / 256 || (v->compute == NM_I8 && k > NM_GEMM_MAX_K_I8))
        return false;
    size_t count = (size_t)ceil_div(n, v->nr), factors = v->compute == NM_I8 ? count * (size_t)v->nr * 8 : 0;
    return nm_mul_size(count, panel_bytes(v, k), panels) && nm_add_size(*panels, factors, all);
}

static void set_factors(nm_packed *p, const nm_gemm_variant *v, size_t panels)
{
    if (v->compute != NM_I8)
        return;
    p->scale = (float *)(void *)((char *)p->data + panels);
    p->sum = (int32_t *)(void *)(p->scale + ceil_div(p->n, v->nr) * v->nr);
}

size_t nm_packed_bytes(const struct nm_kernels *kn, nm_dtype compute, int64_t n, int64_t k)
{
    const nm_gemm_variant *v = variant_of(kn, compute);
    size_t panels, all;
    return v && packed_sizes(v, n, k, &panels, &all) ? all : 0;
}

uint32_t nm_packed_layout(const struct nm_kernels *kn, nm_dtype compute)
{
    const nm_gemm_variant *v = variant_of(kn, compute);
    return v ? nm_gemm_layout(v->compute, v->nr) : 0;
}

bool nm_packed_from_mapped(const struct nm_kernels *kn, nm_packed *p, nm_dtype compute, uint32_t layout, int64_t n, int64_t k, const void *data,
                           size_t bytes)
{
    const nm_gemm_variant *v = variant_of(kn, compute);
    size_t panels, all;
    if (!v || layout != nm_gemm_layout(v->compute, v->nr) || !packed_sizes(v, n, k, &panels, &all) || bytes != all || (uintptr_t)data % 64)
        return false;
    *p = (nm_packed){ .compute = compute, .layout = layout, .n = n, .k = k, .bytes = bytes, .data = (void *)(uintptr_t)data, .owned = false };
    set_factors(p, v, panels);
    return true;
}

typedef struct pack_job {
    const nm_gemm_variant *v;
    nm_packed *p;
    const void *w;
    nm_dtype dtype;
    int64_t row_step, k_step;
    size_t panel_bytes;
} pack_job;

static void pack_panels(void *arg, int64_t begin, int64_t end, int worker)
{
    const pack_job *j = arg;
    (void)worker;
    for (int64_t i = begin; i < end; i++) {
        int64_t col = i * j->v->nr;
        j->v->pack(&(nm_gemm_panel){
            .w = (const char *)j->w + (size_t)(col * j->row_step) * nm_dtype_size(j->dtype), .dtype = j->dtype, .row_step = j->row_step,
            .k_step = j->k_step, .k = j->p->k, .cols = (int)min64(j->v->nr, j->p->n - col), .stream = j->p->bytes > STREAM_BYTES, .data = (char *)j->p->data + (size_t)i * j->panel_bytes,
            .scale = j->p->scale ? j->p->scale + col : NULL, .sum = j->p->sum ? j->p->sum + col : NULL });
    }
}

bool nm_gemm_pack_into(const struct nm_kernels *kn, nm_packed *p, nm_dtype compute, const void *w, nm_dtype w_dtype, int64_t ldw, bool transposed,
                       int64_t n, int64_t k, nm_pool *pool, void *data)
{
    const nm_gemm_variant *v = variant_of(kn, compute);
    size_t panels, all;
    if (!v || (w_dtype != NM_F32 && w_dtype != NM_F16 && w_dtype != NM_BF16) || !packed_sizes(v, n, k, &panels, &all))
        return false;
    *p = (nm_packed){ .compute = compute, .layout = nm_gemm_layout(compute, v->nr), .n = n, .k = k, .bytes = all, .data = data };
    set_factors(p, v, panels);
    pack_job j = { v, p, w, w_dtype, transposed ? 1 : ldw, transposed ? ldw : 1, panel_bytes(v, k) };
    int64_t count = ceil_div(n, v->nr);
    nm_parallel_for(pool, count, ceil_div(count, (int64_t)nm_pool_size(pool) * TASKS_PER_WORKER), pack_panels, &j);
    return true;
}

bool nm_gemm_pack(const struct nm_kernels *kn, nm_packed *p, nm_dtype compute, const void *w, nm_dtype w_dtype, int64_t ldw, bool transposed,
                  int64_t n, int64_t k, nm_pool *pool)
{
    size_t bytes = nm_packed_bytes(kn, compute, n, k);
    void *data = bytes || n == 0 || k == 0 ? nm_alloc(bytes ? bytes : 64) : NULL;
    if (!data || !nm_gemm_pack_into(kn, p, compute, w, w_dtype, ldw, transposed, n, k, pool, data)) {
        nm_free(data);
        return false;
    }
    p->owned = true;
    return true;
}

void nm_gemm_pack_free(nm_packed *p)
{
    if (p && p->owned)
        nm_free(p->data);
    if (p)
        memset(p, 0, sizeof *p);
}

/* ---- rows of A in the form that the tiles read ---- */

/* Bytes between converted rows: whole units, and not a multiple of 4096, where the rows of a tile would share a cache set. */
static int64_t converted_stride(const nm_gemm_variant *v, int64_t k)
{
    int64_t bytes = ((int64_t)nm_dtype_size(v->a_dtype) * ((k + 3) & ~(int64_t)3) + 63) & ~(int64_t)63;
    return bytes % 1024 ? bytes : bytes + 64;
}

static bool converts(const nm_gemm_variant *v, const nm_gemm *g) { return v->always_convert || v->a_dtype != g->a_dtype; }

/* Rows a multiple of 4096 bytes apart fall into one set of the first-level cache, which has 8 to 12 ways: the lines that the
 * rows of a tile are at would drive each other out. Such blocks are copied, once per worker: 1600 x 3072 x 768 in f32 goes
 * from 88 % to 93 % of peak by that. Two sets (2048 bytes) cost less than a copy. */
static bool collides(const nm_gemm *g)
{
    return (g->lda * (int64_t)nm_dtype_size(g->a_dtype)) % COLLIDING_BYTES == 0 && g->m >= 6 && g->b->n >= 256;
}

typedef struct run_job {
    const nm_gemm_variant *v;
    const nm_gemm *g;
    const char *a;
    int64_t a_stride; /* bytes */
    float *row_scale;
    int64_t blocks, block_rows, panels, panels_per_task, tasks_per_block;
    size_t panel_bytes;
    nm_packed own;     /* of weights without packed data: the factors of int8 */
    char *panel_room;  /* per worker: one panel; NULL where B is packed */
    char *copies;      /* per worker: the number of the block, and from byte 64 its rows; NULL where A is read in place */
    size_t copy_bytes; /* of a worker */
    int64_t copy_stride;
} run_job;

static void plan(run_job *j, const nm_gemm *g, const nm_gemm_variant *v, int workers);

static size_t scales_bytes(const nm_gemm *g) { return ((size_t)g->m * sizeof(float) + 63) & ~(size_t)63; }

int64_t nm_gemm_panel_rows(const struct nm_kernels *kn, nm_dtype compute) { return variant_of(kn, compute)->nr; }

static size_t rows_bytes(const nm_gemm_variant *v, const nm_gemm *g, int workers)
{
    run_job j;
    if (converts(v, g))
        return scales_bytes(g) + (size_t)(g->m * converted_stride(v, g->b->k));
    plan(&j, g, v, workers);
    return collides(g) ? j.copy_bytes * (size_t)workers : 0;
}

static size_t factor_count(const nm_gemm_variant *v, const nm_gemm *g) { return (size_t)(ceil_div(g->b->n, v->nr) * v->nr); }

/* Panels of weights without packed data, and the factors of all of them. */
static size_t parts_bytes(const nm_gemm_variant *v, const nm_gemm *g, int workers)
{
    if (!g->parts)
        return 0;
    return panel_bytes(v, g->b->k) * (size_t)workers + (v->compute == NM_I8 ? factor_count(v, g) * 8 : 0);
}

size_t nm_gemm_scratch(const struct nm_kernels *kn, const nm_gemm *g, int workers)
{
    const nm_gemm_variant *v = variant_of(kn, g->b->compute);
    return ((rows_bytes(v, g, workers) + 63) & ~(size_t)63) + parts_bytes(v, g, workers);
}

/* Panel number `panel` of B packed for this worker. */
static const char *packed_panel(const run_job *j, int64_t panel, int worker)
{
    const nm_gemm_variant *v = j->v;
    const nm_gemm *g = j->g;
    int64_t col = panel * v->nr, row = col;
    const nm_gemm_part *p = g->parts;
    while (p + 1 < g->parts + g->n_parts && row >= p->rows)
        row -= p++->rows;
    char *room = j->panel_room + (size_t)worker * j->panel_bytes;
    int64_t row_step = p->transposed ? 1 : p->ldw, k_step = p->transposed ? p->ldw : 1;
    v->pack(&(nm_gemm_panel){ .w = (const char *)p->w + (size_t)(row * row_step) * nm_dtype_size(p->dtype), .dtype = p->dtype, .row_step = row_step,
                              .k_step = k_step, .k = g->b->k, .cols = (int)min64(v->nr, p->rows - row), .data = room,
                              .scale = g->b->scale ? g->b->scale + col : NULL, .sum = g->b->sum ? g->b->sum + col : NULL });
    return room;
}

static void convert_rows(void *arg, int64_t begin, int64_t end, int worker)
{
    const run_job *j = arg;
    const nm_gemm *g = j->g;
    (void)worker;
    for (int64_t r = begin; r < end; r++)
        j->row_scale[r] = j->v->convert(g->b->k, (const char *)g->a + (size_t)(r * g->lda) * nm_dtype_size(g->a_dtype), g->a_dtype,
                                        (char *)(uintptr_t)j->a + r * j->a_stride);
}

/* ---- the product ---- */

/* The lines of C (and of the residual) that a tile will write: they arrive while the tile is computed. */
static void prefetch_result(const nm_gemm *g, int64_t row, int rows, int64_t col, int cols)
{
    int64_t size = (int64_t)nm_dtype_size(g->c_dtype), bytes = cols * size;
    for (int r = 0; r < rows; r++) {
        const char *c = (const char *)g->c + ((row + r) * g->ldc + col) * size;
        for (int64_t i = 0; i < bytes; i += 64)
            __builtin_prefetch(c + i, 1);
        if (g->residual && (const void *)g->residual != g->c)
            for (int i = 0; i < cols; i += 16)
                __builtin_prefetch(g->residual + (row + r) * g->ldr + col + i);
    }
}

/* Rows begin..end of C by one panel, in equal tiles of at most mr rows; `a` is row `begin`. */
static void run_panel(const run_job *j, const char *a, int64_t a_stride, int64_t begin, int64_t end, int64_t panel, int worker, int *configured)
{
    const nm_gemm_variant *v = j->v;
    _Alignas(64) float acc[NM_GEMM_MAX_MR * NM_GEMM_MAX_NR];
    int64_t tiles = ceil_div(end - begin, v->mr), step = ceil_div(ceil_div(end - begin, tiles), v->row_step) * v->row_step, col = panel * v->nr;
    int cols = (int)min64(v->nr, j->g->b->n - col);
    const char *packed = j->panel_room ? packed_panel(j, panel, worker) : (const char *)j->g->b->data + (size_t)panel * j->panel_bytes;
    nm_gemm_tile t = { .cols = cols, .k = j->g->b->k, .a_stride = a_stride, .panel = packed, .acc = acc };
    t.next = t.panel;
    if (tiles > 1 && panel + 1 < j->panels && !j->panel_room) { /* with one tile the loop's own prefetches run into the next panel */
        t.next = t.panel + j->panel_bytes;
        t.next_step = ceil_div(v->nr * 4, tiles);
    }
    for (int64_t row = begin; row < end; row += step) {
        t.rows = (int)min64(step, end - row);
        t.a = a + (row - begin) * a_stride;
        if (v->configure && t.rows != *configured)
            v->configure(*configured = t.rows);
        prefetch_result(j->g, row, t.rows, col, cols);
        v->tile(&t);
        v->finish(&(nm_gemm_out){ .g = j->g, .row = row, .col = col, .rows = t.rows, .cols = cols, .acc = acc, .row_scale = j->row_scale,
                                  .offset = v->a_dtype == NM_U8 ? 128 : 0 });
        t.next += t.next_step * nm_gemm_units(v->compute, t.k);
    }
}

/* The worker's copy of a block of rows, made when it comes to the block. */
static const char *copied_block(const run_job *j, int64_t block, int64_t begin, int64_t end, int worker)
{
    char *mine = j->copies + (size_t)worker * j->copy_bytes;
    int64_t *held = (int64_t *)(void *)mine, bytes = j->g->b->k * (int64_t)nm_dtype_size(j->g->a_dtype);
    for (int64_t r = begin; *held != block && r < end; r++)
        memcpy(mine + 64 + (r - begin) * j->copy_stride, j->a + r * j->a_stride, (size_t)bytes);
    *held = block;
    return mine + 64;
}

/* Task t is panels from (t % tasks_per_block) of row block t / tasks_per_block: neighbours share rows of A. */
static void run_tasks(void *arg, int64_t begin, int64_t end, int worker)
{
    const run_job *j = arg;
    int configured = 0;
    for (int64_t t = begin; t < end; t++) {
        int64_t block = t / j->tasks_per_block, row = block * j->block_rows, row_end = min64(row + j->block_rows, j->g->m);
        int64_t panel = t % j->tasks_per_block * j->panels_per_task, panel_end = min64(panel + j->panels_per_task, j->panels);
        const char *a = j->copies ? copied_block(j, block, row, row_end, worker) : j->a + row * j->a_stride;
        for (; panel < panel_end; panel++)
            run_panel(j, a, j->copies ? j->copy_stride : j->a_stride, row, row_end, panel, worker, &configured);
    }
    if (j->v->release && configured)
        j->v->release();
}

/* Equal blocks of rows, whole tiles each, that fit BLOCK_BYTES; then panels per task so that every worker gets several. */
static void plan(run_job *j, const nm_gemm *g, const nm_gemm_variant *v, int workers)
{
    int64_t row_bytes = (int64_t)nm_dtype_size(v->a_dtype) * g->b->k, most = min64(MAX_BLOCK_ROWS, BLOCK_BYTES / (row_bytes + 1)) / v->mr * v->mr;
    int64_t least = ceil_div(MIN_BLOCK_ROWS, v->mr) * v->mr;
    *j = (run_job){ .v = v, .g = g, .a = g->a, .a_stride = g->lda * (int64_t)nm_dtype_size(g->a_dtype), .panel_bytes = panel_bytes(v, g->b->k) };
    j->blocks = ceil_div(g->m, most < least ? least : most);
    j->block_rows = j->blocks == 1 ? g->m : ceil_div(ceil_div(g->m, j->blocks), v->mr) * v->mr;
    j->blocks = ceil_div(g->m, j->block_rows);
    j->panels = ceil_div(g->b->n, v->nr);
    int64_t per_task = j->blocks * j->panels / ((int64_t)workers * TASKS_PER_WORKER);
    j->panels_per_task = per_task < 1 ? 1 : min64(per_task, 8);
    j->tasks_per_block = ceil_div(j->panels, j->panels_per_task);
    j->copy_stride = ((row_bytes + 63) & ~(int64_t)63) + 64 * (row_bytes % 128 == 0);
    j->copy_bytes = 64 + (size_t)(j->block_rows * j->copy_stride);
}

void nm_gemm_run(const struct nm_kernels *kn, const nm_gemm *g, nm_pool *pool, void *scratch)
{
    const nm_gemm_variant *v = variant_of(kn, g->b->compute);
    int workers = nm_pool_size(pool);
    run_job j;
    nm_gemm with_factors;
    if (g->m <= 0 || g->b->n <= 0)
        return;
    plan(&j, g, v, workers);
    if (g->parts) {
        j.panel_room = (char *)scratch + ((rows_bytes(v, g, workers) + 63) & ~(size_t)63);
        j.own = *g->b;
        if (v->compute == NM_I8) {
            j.own.scale = (float *)(void *)(j.panel_room + j.panel_bytes * (size_t)workers);
            j.own.sum = (int32_t *)(void *)(j.own.scale + factor_count(v, g));
        }
        with_factors = *g;
        with_factors.b = &j.own;
        j.g = g = &with_factors;
    }
    if (converts(v, g)) {
        j.row_scale = scratch;
        j.a = (const char *)scratch + scales_bytes(g);
        j.a_stride = converted_stride(v, g->b->k);
        nm_parallel_for(pool, g->m, ceil_div(g->m, (int64_t)workers * TASKS_PER_WORKER), convert_rows, &j);
    } else if (collides(g)) {
        j.copies = scratch;
        for (int w = 0; w < workers; w++)
            *(int64_t *)(void *)(j.copies + (size_t)w * j.copy_bytes) = -1;
    }
    nm_parallel_for(pool, j.blocks * j.tasks_per_block, 1, run_tasks, &j);
}

void nm_gemm_kernels_init(nm_gemm_kernels *k, uint32_t features)
{
    *k = (nm_gemm_kernels){ &nm_gemm_f32_ref, &nm_gemm_bf16_ref, &nm_gemm_i8_ref };
#if defined(__x86_64__)
    if (features & NM_CPU_AVX2)
        *k = (nm_gemm_kernels){ &nm_gemm_f32_avx2, &nm_gemm_bf16_avx2, &nm_gemm_i8_avx2 };
    if (features & NM_CPU_AVX512) {
        k->f32 = &nm_gemm_f32_avx512;
        k->bf16 = &nm_gemm_bf16_avx512;
    }
    if ((features & NM_CPU_AVX512_BF16) && (features & NM_CPU_AVX512))
        k->bf16 = &nm_gemm_bf16_avx512_bf16;
    if ((features & NM_CPU_AVX512_VNNI) && (features & NM_CPU_AVX512))
        k->i8 = &nm_gemm_i8_avx512_vnni;
    if ((features & NM_CPU_AMX_BF16) && (features & NM_CPU_AVX512))
        k->bf16 = &nm_gemm_bf16_amx;
    if ((features & NM_CPU_AMX_INT8) && (features & NM_CPU_AVX512))
        k->i8 = &nm_gemm_i8_amx;
#else
    (void)features;
#endif
}
