/* attention.c - cuts attention into (sequence, head, query rows) tasks for the pool; the arithmetic is in the variants. */
#include "kernels/attention.h"

#include "base/cpu.h"
#include "kernels/attention_ref.h"
#include "kernels/kernels.h"
#include "kernels/x86/attention.h"

#define TASKS_PER_WORKER 4 /* enough pieces that the last one does not leave workers idle for long */
#define SMALL_PAIR 1024    /* scores */
#define MIN_ROWS 96        /* queries per task: keys and values are packed again for each */

typedef struct attn_job {
    const nm_attn *a;
    nm_attn_variant variant;
    int64_t blocks, block_rows; /* query ranges per (sequence, head) */
    char *scratch;
    size_t worker_bytes;
} attn_job;

static int64_t longest(const int64_t *offsets, int64_t n)
{
    int64_t max = 0;
    for (int64_t i = 0; i < n; i++)
        max = offsets[i + 1] - offsets[i] > max ? offsets[i + 1] - offsets[i] : max;
    return max;
}

static nm_attn_variant variant_of(const struct nm_kernels *kn, const nm_attn *a)
{
    return a->dtype == NM_BF16 ? kn->attention.bf16 : kn->attention.f32;
}

static size_t worker_bytes(const nm_attn *a, nm_attn_variant v)
{
    return (v.scratch(a, longest(a->k_offsets, a->n_seq)) + 63) & ~(size_t)63;
}

size_t nm_attention_scratch(const struct nm_kernels *kn, const nm_attn *a, int workers)
{
    return worker_bytes(a, variant_of(kn, a)) * (size_t)workers;
}

/* Task t is query range t % blocks of pair t / blocks; pairs count heads fastest, so that neighbours share cache lines. */
static void run_tasks(void *arg, int64_t begin, int64_t end, int worker)
{
    const attn_job *j = arg;
    for (int64_t t = begin; t < end; t++) {
        int64_t pair = t / j->blocks, seq = pair / j->a->heads;
        int64_t queries = j->a->q_offsets[seq + 1] - j->a->q_offsets[seq];
        int64_t q_begin = t % j->blocks * j->block_rows, q_end = q_begin + j->block_rows;
        if (q_begin < queries)
            j->variant.head(j->a, seq, (int)(pair % j->a->heads), q_begin, q_end < queries ? q_end : queries,
                            j->scratch + (size_t)worker * j->worker_bytes);
    }
}

void nm_attention_run(const struct nm_kernels *kn, const nm_attn *a, nm_pool *pool, void *scratch)
{
    int64_t pairs = a->n_seq * a->heads, queries = longest(a->q_offsets, a->n_seq);
    if (pairs == 0 || queries == 0)
        return;
    attn_job j = { .a = a, .variant = variant_of(kn, a), .blocks = 1, .scratch = scratch };
    j.worker_bytes = worker_bytes(a, j.variant);
    int64_t wanted = (int64_t)nm_pool_size(pool) * TASKS_PER_WORKER;
    if (nm_pool_size(pool) > 1 && pairs < wanted)
        j.blocks = (wanted + pairs - 1) / pairs;
    if (j.blocks > (queries + MIN_ROWS - 1) / MIN_ROWS)
        j.blocks = (queries + MIN_ROWS - 1) / MIN_ROWS;
    j.block_rows = (queries + j.blocks - 1) / j.blocks;
    j.block_rows += (j.variant.row_block - j.block_rows % j.variant.row_block) % j.variant.row_block;
    int64_t work = queries * longest(a->k_offsets, a->n_seq); /* of a pair: small ones are handed out together */
    nm_parallel_for(pool, pairs * j.blocks, work <= SMALL_PAIR ? 8 : 1, run_tasks, &j);
}

/* Offsets of the sequences (written where `to` is given), then their heads one after another; -> bytes of everything. */
static size_t lay_out(const nm_attn *a, nm_attn_variant v, size_t *to)
{
    size_t at = ((size_t)a->n_seq * sizeof *to + 63) & ~(size_t)63;
    for (int64_t s = 0; s < a->n_seq; s++) {
        if (to)
            to[s] = at;
        at += (size_t)a->heads * v.packed(a, a->k_offsets[s + 1] - a->k_offsets[s]);
    }
    return at;
}

size_t nm_attention_packed_bytes(const struct nm_kernels *kn, const nm_attn *a)
{
    nm_attn_variant v = variant_of(kn, a);
    return v.packed ? lay_out(a, v, NULL) : 0;
}

typedef struct pack_job { const nm_attn *a; nm_attn_variant variant; void *packed; } pack_job;

static void pack_heads(void *arg, int64_t begin, int64_t end, int worker)
{
    const pack_job *j = arg;
    (void)worker;
    for (int64_t t = begin; t < end; t++) {
        int64_t seq = t / j->a->heads, keys = j->a->k_offsets[seq + 1] - j->a->k_offsets[seq];
        int head = (int)(t % j->a->heads);
        j->variant.pack(j->a, seq, head, nm_attn_packed_head(j->packed, seq, head, j->variant.packed(j->a, keys)));
    }
}

void nm_attention_pack(const struct nm_kernels *kn, const nm_attn *a, nm_pool *pool, void *packed)
{
    pack_job j = { .a = a, .variant = variant_of(kn, a), .packed = packed };
    if (!j.variant.packed)
        return;
    lay_out(a, j.variant, packed);
    nm_parallel_for(pool, a->n_seq * a->heads, 1, pack_heads, &j);
}

void nm_attention_kernels_init(nm_attention_kernels *k, uint32_t features)
{
    k->f32 = k->bf16 = (nm_attn_variant){ .row_block = 1, .scratch = nm_attention_scratch_ref, .head = nm_attention_head_ref };
#if defined(__x86_64__)
    if (features & NM_CPU_AVX2)
        k->f32 = k->bf16 = nm_attn_avx2;
    if (features & NM_CPU_AVX512)
        k->f32 = k->bf16 = nm_attn_avx512;
    if (features & NM_CPU_AVX512_BF16)
        k->bf16 = nm_attn_avx512_bf16;
#else
    (void)features;
#endif
}
