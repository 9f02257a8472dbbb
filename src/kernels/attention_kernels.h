/* attention_kernels.h - the table that x86/ fills; included by attention.h only.
 *
 * A variant computes a range of query rows of one sequence and head; attention.c cuts the work into such ranges, always at
 * multiples of row_block, so that a row is grouped with the same neighbours whatever the number of threads is. */
typedef struct nm_attn_variant {
    int row_block;                                             /* query rows that the variant computes together */
    size_t (*scratch)(const nm_attn *a, int64_t max_keys);     /* bytes of one worker */
    void (*head)(const nm_attn *a, int64_t seq, int head, int64_t q_begin, int64_t q_end, void *scratch); /* rows within seq */
    size_t (*packed)(const nm_attn *a, int64_t keys);          /* bytes of one head of `keys` keys; NULL: keys and values are read in place */
    void (*pack)(const nm_attn *a, int64_t seq, int head, void *to);
} nm_attn_variant;

struct nm_attention_kernels {
    nm_attn_variant f32, bf16; /* by nm_attn.dtype */
};

/* Where the packed form has one head: offsets of the sequences stand in front. */
static inline char *nm_attn_packed_head(const void *packed, int64_t seq, int head, size_t head_bytes)
{
    return (char *)(uintptr_t)packed + ((const size_t *)packed)[seq] + (size_t)head * head_bytes;
}

void nm_attention_kernels_init(nm_attention_kernels *k, uint32_t features);

/* How many keys query row i of a sequence sees. */
static inline int64_t nm_attn_visible(const nm_attn *a, int64_t n_queries, int64_t n_keys, int64_t i)
{
    int64_t n = a->causal ? i + n_keys - n_queries + 1 : n_keys;
    return n < 0 ? 0 : n > n_keys ? n_keys : n;
}
