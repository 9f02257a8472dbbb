/* scan.c - exact top-k on top of the inner-product kernels: rows in blocks, a heap per worker and query, merged at the end.
 *
 * Hits are totally ordered (higher score first, then smaller row), so that the k best are the same set whichever worker saw
 * which block. A NaN score is never a hit. */
#include "kernels/scan.h"

#include <stdbool.h>

#include "base/cpu.h"
#include "kernels/kernels.h"
#include "kernels/scan_variants.h"

#define SCORES 16384   /* floats of one worker's block of scores: 64 KiB, stays in L2 */
#define MAX_BLOCK 1024 /* rows */
#define TASK_ROWS 4096

static int64_t block_rows(int64_t nq)
{
    int64_t n = SCORES / (nq > 0 ? nq : 1);
    return n < 64 ? 64 : n > MAX_BLOCK ? MAX_BLOCK : n;
}

static size_t round64(size_t n) { return (n + 63) & ~(size_t)63; }

static size_t heap_bytes(int64_t nq, int64_t k) { return round64((size_t)(nq * k) * sizeof(nm_hit)); }

static size_t worker_bytes(int64_t nq, int64_t k)
{
    return heap_bytes(nq, k) + round64((size_t)(nq * block_rows(nq)) * sizeof(float));
}

size_t nm_scan_scratch(int64_t nq, int64_t k, int workers)
{
    return worker_bytes(nq, k) * (size_t)workers;
}

typedef struct scan_job {
    nm_dots_fn *dots;
    int64_t nq, n_rows, dim, stride, k, block;
    const float *queries, *row_scale;
    const void *rows;
    nm_dtype dtype;
    const uint64_t *skip;
    char *scratch;
    size_t worker_bytes;
} scan_job;

/* Is a a worse hit than b? Unused places (row -1) are worst. */
static inline bool worse(nm_hit a, nm_hit b)
{
    if (a.row < 0 || b.row < 0)
        return a.row < 0 && b.row >= 0;
    return a.score < b.score || (a.score == b.score && a.row > b.row);
}

/* heap[0] is the worst of the k kept; replaces it by h and restores the order. */
static void replace_worst(nm_hit *heap, int64_t k, nm_hit h)
{
    int64_t i = 0;
    for (;;) {
        int64_t c = 2 * i + 1;
        if (c >= k)
            break;
        if (c + 1 < k && worse(heap[c + 1], heap[c]))
            c++;
        if (!worse(heap[c], h))
            break;
        heap[i] = heap[c];
        i = c;
    }
    heap[i] = h;
}

/* Whether any of n <= GROUP scores may be a hit: most groups have none once the heap is full. */
#define GROUP 16
static inline bool any_reaches(const float *scores, int64_t n, float worst)
{
    int any = 0;
    if (n == GROUP)
        for (int i = 0; i < GROUP; i++) /* a constant count: becomes a few vector compares */
            any |= scores[i] >= worst;
    else
        for (int64_t i = 0; i < n; i++)
            any |= scores[i] >= worst;
    return any;
}

static inline bool skipped(const uint64_t *skip, int64_t row) { return skip && (skip[row >> 6] >> (row & 63) & 1); }

static void collect(const scan_job *j, nm_hit *heap, const float *scores, int64_t row0, int64_t n)
{
    for (int64_t g = 0; g < n; g += GROUP) {
        int64_t count = n - g < GROUP ? n - g : GROUP;
        if (heap[0].row >= 0 && !any_reaches(scores + g, count, heap[0].score))
            continue;
        for (int64_t r = g; r < g + count; r++) {
            nm_hit h = { scores[r], row0 + r };
            if (h.score == h.score && worse(heap[0], h) && !skipped(j->skip, h.row))
                replace_worst(heap, j->k, h);
        }
    }
}

/* Rows of one task, in blocks whose scores fit the cache. */
static void scan_rows(void *arg, int64_t begin, int64_t end, int worker)
{
    const scan_job *j = arg;
    char *mine = j->scratch + (size_t)worker * j->worker_bytes;
    nm_hit *heaps = (nm_hit *)mine;
    float *scores = (float *)(mine + heap_bytes(j->nq, j->k));
    for (int64_t row0 = begin; row0 < end; row0 += j->block) {
        int64_t n = end - row0 < j->block ? end - row0 : j->block;
        const char *rows = (const char *)j->rows + (size_t)(row0 * j->stride) * nm_dtype_size(j->dtype);
        j->dots(j->nq, j->queries, n, j->dim, rows, j->dtype, j->stride, j->row_scale ? j->row_scale + row0 : NULL, scores, j->block);
        for (int64_t q = 0; q < j->nq; q++)
            collect(j, heaps + q * j->k, scores + q * j->block, row0, n);
    }
}

/* Sorts a heap in place, best first: takes the worst off the top again and again. */
static void heap_sort(nm_hit *heap, int64_t k)
{
    for (int64_t n = k - 1; n > 0; n--) {
        nm_hit worst = heap[0], last = heap[n];
        replace_worst(heap, n, last);
        heap[n] = worst;
    }
}

void nm_scan_topk(const struct nm_kernels *kn, int64_t nq, const float *queries, int64_t n_rows, int64_t dim, const void *rows, nm_dtype dtype,
                  int64_t stride, const float *row_scale, const uint64_t *skip, int64_t k, nm_hit *hits, nm_pool *pool, void *scratch)
{
    if (nq <= 0 || k <= 0)
        return;
    scan_job j = { kn->scan.dots, nq, n_rows, dim, stride, k, block_rows(nq), queries, row_scale, rows, dtype, skip, scratch, worker_bytes(nq, k) };
    int workers = nm_pool_size(pool);
    for (int w = 0; w < workers; w++)
        for (int64_t i = 0; i < nq * k; i++)
            ((nm_hit *)(j.scratch + (size_t)w * j.worker_bytes))[i] = (nm_hit){ 0, -1 };
    nm_parallel_for(pool, n_rows, TASK_ROWS, scan_rows, &j);
    nm_hit *first = scratch;
    for (int w = 1; w < workers; w++) {
        nm_hit *other = (nm_hit *)(j.scratch + (size_t)w * j.worker_bytes);
        for (int64_t i = 0; i < nq * k; i++)
            if (worse(first[i / k * k], other[i]))
                replace_worst(first + i / k * k, k, other[i]);
    }
    for (int64_t q = 0; q < nq; q++) {
        heap_sort(first + q * k, k);
        for (int64_t i = 0; i < k; i++)
            hits[q * k + i] = first[q * k + i];
    }
}

void nm_scan_kernels_init(nm_scan_kernels *k, uint32_t features)
{
    k->dots = nm_dots_ref;
#if defined(__x86_64__)
    if (features & NM_CPU_AVX2)
        k->dots = nm_dots_avx2;
    if (features & NM_CPU_AVX512)
        k->dots = nm_dots_avx512;
#else
    (void)features;
#endif
}
