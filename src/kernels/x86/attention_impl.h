/* attention_impl.h - attention of one head as two register-blocked products with an exact softmax between them. A template:
 * included inside a target region after a vec_*.h, with MR (rows of the register block), and
 *   DOT_BF16 0: products in f32 (bf16 inputs are widened while packing)  1: bf16 pairs with 32-bit sums (vdpbf16ps).
 *
 * Both products are C[mr, 2 VL] += A B with A read by broadcast and B packed in panels of 2 VL columns. A "unit" is 32 bits
 * of the inner dimension: one f32, or two neighbouring bf16.
 *   K is packed as [panel of 2 VL keys][unit of head_dim][2 VL]   (a transposition), once per head,
 *   V is packed as [panel of 2 VL columns][unit of keys][2 VL],   once per head,
 *   for each block of MR query rows:  S = Q K^T [MR, keys] -> P = exp(S - max) -> O = P V -> out = O / sum.
 * When the last panel has at most VL columns it is VL wide. More than CHUNK keys are taken CHUNK at a time with running maximum
 * and sum (Milakov & Gimelshein 2018, "Online normalizer calculation for softmax"). S and P of a block stay in the first
 * caches. Each score and output element is one chain of additions in index order, whatever block it is computed in. */
#define CHUNK 1024
#define S_STRIDE (CHUNK + 16) /* not a multiple of a page, so that rows fall into different cache sets */
#define W (2 * VL)
#define UNIT (DOT_BF16 ? 2 : 1) /* elements */
#define LOG2E 1.44269504088896341f

typedef struct head_buffers {
    uint32_t *k, *v, *q; /* packed; q [MR, q_stride] */
    float *s;            /* [MR, S_STRIDE] */
    uint16_t *p;         /* [MR, S_STRIDE], DOT_BF16 only: in f32, P overwrites S */
    float *o;            /* [MR, columns] */
    float *max, *sum;    /* [MR] */
} head_buffers;

typedef struct head_dims {
    int64_t keys, key_units, dim_units, columns; /* columns: head_dim rounded up to VL */
    int64_t q_stride;                            /* units between the copied query rows */
    int head_dim;
} head_dims;

static int64_t up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

static head_dims dims_of(const nm_attn *a, int64_t keys)
{
    return (head_dims){ keys, up(keys, UNIT) / UNIT, up(a->head_dim, UNIT) / UNIT, up(a->head_dim, VL),
                        up(up(a->head_dim, UNIT) / UNIT, VL), a->head_dim };
}

static size_t k_bytes(const head_dims *d) { return (size_t)up(up(d->keys, VL) * d->dim_units * 4, 64); }
static size_t v_bytes(const head_dims *d) { return (size_t)up(d->key_units * d->columns * 4, 64); }

/* Carves the buffers from `base`, or only measures when it is NULL. */
static size_t carve(head_buffers *b, const head_dims *d, bool packed, char *base)
{
    size_t at = 0, n[8] = { packed ? 0 : k_bytes(d), packed ? 0 : v_bytes(d), (size_t)(MR * d->q_stride) * 4, MR * S_STRIDE * 4,
                            DOT_BF16 ? MR * S_STRIDE * 2 : 0, (size_t)(MR * d->columns) * 4, MR * 4, MR * 4 };
    void *p[8];
    for (int i = 0; i < 8; i++) {
        p[i] = base ? base + at : NULL;
        at += (n[i] + 63) / 64 * 64;
    }
    if (b)
        *b = (head_buffers){ p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7] };
    return at;
}

/* ---- packing ---- */

/* VL units of a row from unit u on; units past `units` are 0. `row` is element 0 of the head in this row. */
NM_INLINE vi load_units(const void *row, nm_dtype dtype, const head_dims *d, int64_t u)
{
    int64_t n = d->head_dim - u * UNIT; /* elements left */
    if (dtype == NM_F32)
        return n >= VL ? vi_load((const float *)row + u) : vi_load_n((const float *)row + u, n);
#if DOT_BF16
    const uint16_t *p = (const uint16_t *)row + 2 * u;
    return n >= 2 * VL ? vi_load(p) : _mm512_maskz_loadu_epi16((__mmask32)((1ull << n) - 1), p);
#else
    const uint16_t *p = (const uint16_t *)row + u;
    return vi_of_f(n >= VL ? vf_of_bf16(p) : vf_of_bf16_n(p, n));
#endif
}

static const void *row_of(const void *base, nm_dtype dtype, int64_t row, int64_t stride, int64_t column)
{
    return (const char *)base + (row * stride + column) * (int64_t)nm_dtype_size(dtype);
}

/* Where columns g*VL.. of a packed matrix with `depth` units start, and the width of their panel. */
NM_INLINE uint32_t *panel_at(uint32_t *packed, int64_t g, int64_t groups, int64_t depth, int64_t *width)
{
    int64_t first = g & ~(int64_t)1;
    *width = first + 1 < groups ? W : VL;
    return packed + first * VL * depth + (g - first) * VL;
}

static void pack_k(const nm_attn *a, const head_dims *d, int64_t row0, int64_t column, uint32_t *packed)
{
    int64_t groups = up(d->keys, VL) / VL, width;
    for (int64_t g = 0; g < groups; g++) {
        uint32_t *dst = panel_at(packed, g, groups, d->dim_units, &width);
        for (int64_t u = 0; u < d->dim_units; u += VL) {
            vi r[VL];
            for (int64_t i = 0; i < VL; i++)
                r[i] = g * VL + i < d->keys ? load_units(row_of(a->k, a->dtype, row0 + g * VL + i, a->k_stride, column), a->dtype, d, u)
                                            : vi_zero();
            vi_transpose(r);
            for (int64_t i = 0; i < VL && u + i < d->dim_units; i++)
                vi_store(dst + (u + i) * width, r[i]);
        }
    }
}

static void pack_v(const nm_attn *a, const head_dims *d, int64_t row0, int64_t column, uint32_t *packed)
{
    int64_t groups = d->columns / VL, width;
    for (int64_t j = 0; j < d->key_units; j++) {
        const void *row = row_of(a->v, a->dtype, row0 + j * UNIT, a->v_stride, column);
        for (int64_t g = 0; g < groups; g++) {
            uint32_t *dst = panel_at(packed, g, groups, d->key_units, &width) + j * width;
#if DOT_BF16
            int64_t n = d->head_dim - g * VL;
            __mmask16 m = n >= VL ? 0xFFFF : lanes(n);
            const uint16_t *p0 = (const uint16_t *)row + g * VL, *p1 = p0 + a->v_stride;
            __m512i lo = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(m, p0));
            __m512i hi = 2 * j + 1 < d->keys ? _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(m, p1)) : vi_zero();
            vi_store(dst, _mm512_or_si512(lo, _mm512_slli_epi32(hi, 16)));
#else
            vi_store(dst, load_units(row, a->dtype, d, g * VL));
#endif
        }
    }
}

/* Rows of a projection lie a multiple of 4 KiB apart in common widths, all in the same few sets of the first cache: the block's
 * queries are copied together. */
static void copy_q(const nm_attn *a, const head_dims *d, int64_t row0, int64_t column, int mr, uint32_t *q)
{
    for (int r = 0; r < mr; r++, q += d->q_stride)
        for (int64_t u = 0; u < d->dim_units; u += VL)
            vi_store(q + u, load_units(row_of(a->q, a->dtype, row0 + r, a->q_stride, column), a->dtype, d, u));
}

/* Asks for n rows of one head ahead of their use. Into the second cache: in the first they would push each other out. */
NM_INLINE void prefetch_rows(const void *base, nm_dtype dtype, int64_t row0, int64_t n, int64_t stride, int64_t column, int head_dim)
{
    int64_t bytes = head_dim * (int64_t)nm_dtype_size(dtype);
    for (int64_t r = 0; r < n; r++) {
        const char *p = row_of(base, dtype, row0 + r, stride, column);
        for (int64_t i = 0; i < bytes; i += 64)
            _mm_prefetch(p + i, _MM_HINT_T1);
    }
}

/* ---- the register block ---- */

#if DOT_BF16
NM_INLINE vf dot(vf acc, uint32_t a, vi b) { return _mm512_dpbf16_ps(acc, (__m512bh)_mm512_set1_epi32((int)a), (__m512bh)b); }
#else
NM_INLINE vf dot(vf acc, uint32_t a, vi b)
{
    float f;
    memcpy(&f, &a, 4);
    return vf_fma(vf_set1(f), (vf)b, acc);
}
#endif

/* c[mr, ng VL] (+)= a[mr, depth] b[depth, ng VL]. Rows are reached from a pointer for every third, which saves registers. */
NM_INLINE void block(const int mr, const int ng, int64_t depth, const uint32_t *a, int64_t lda, const uint32_t *b, float *c, int64_t ldc, bool add)
{
    vf acc[MR][2];
    NM_UNROLL
    for (int r = 0; r < mr; r++)
        acc[r][0] = acc[r][1] = vf_zero();
    const uint32_t *a0 = a, *a3 = a + 3 * lda, *a6 = a + 6 * lda, *a9 = a + 9 * lda;
    for (int64_t u = 0; u < depth; u++, b += ng * VL) {
        vi b0 = vi_load(b), b1 = ng > 1 ? vi_load(b + VL) : b0;
        NM_UNROLL
        for (int r = 0; r < mr; r++) {
            const uint32_t *p = r < 3 ? a0 : r < 6 ? a3 : r < 9 ? a6 : a9;
            uint32_t x = p[r % 3 * lda + u];
            acc[r][0] = dot(acc[r][0], x, b0);
            if (ng > 1)
                acc[r][1] = dot(acc[r][1], x, b1);
        }
    }
    NM_UNROLL
    for (int r = 0; r < mr; r++, c += ldc) {
        vf_store(c, add ? vf_add(vf_load(c), acc[r][0]) : acc[r][0]);
        if (ng > 1)
            vf_store(c + VL, add ? vf_add(vf_load(c + VL), acc[r][1]) : acc[r][1]);
    }
}

typedef void block_fn(int64_t depth, const uint32_t *a, int64_t lda, const uint32_t *b, float *c, int64_t ldc, bool add);
#define BLOCK(mr) \
    static void block_##mr##_1(int64_t depth, const uint32_t *a, int64_t lda, const uint32_t *b, float *c, int64_t ldc, bool add) \
    { block(mr, 1, depth, a, lda, b, c, ldc, add); } \
    static void block_##mr##_2(int64_t depth, const uint32_t *a, int64_t lda, const uint32_t *b, float *c, int64_t ldc, bool add) \
    { block(mr, 2, depth, a, lda, b, c, ldc, add); }
BLOCK(1) BLOCK(2) BLOCK(3) BLOCK(4) BLOCK(5) BLOCK(6)
#if MR == 12
BLOCK(7) BLOCK(8) BLOCK(9) BLOCK(10) BLOCK(11) BLOCK(12)
#endif

static block_fn *const blocks[MR][2] = {
    { block_1_1, block_1_2 }, { block_2_1, block_2_2 }, { block_3_1, block_3_2 },
    { block_4_1, block_4_2 }, { block_5_1, block_5_2 }, { block_6_1, block_6_2 },
#if MR == 12
    { block_7_1, block_7_2 }, { block_8_1, block_8_2 }, { block_9_1, block_9_2 },
    { block_10_1, block_10_2 }, { block_11_1, block_11_2 }, { block_12_1, block_12_2 },
#endif
};

/* ---- softmax ---- */

/* 2^x to 1 ulp (bf16: 3e-6, its result is rounded to 8 bits). 2^f - 1 = f q(f) on [-1/2, 1/2], q fitted for relative error. */
NM_INLINE vf exp2v(vf x)
{
    x = vf_max(vf_set1(-150), x); /* keeps NaN; -inf becomes a number whose power is 0 */
    vf n = vf_round(x), f = vf_sub(x, n), q;
#if DOT_BF16
    q = vf_fma(vf_set1(0x1.3a02ccp-7f), f, vf_set1(0x1.c9fc46p-5f));
    q = vf_fma(q, f, vf_set1(0x1.ec0378p-3f));
    q = vf_fma(q, f, vf_set1(0x1.62e12cp-1f));
#else
    q = vf_fma(vf_set1(0x1.41fbbcp-13f), f, vf_set1(0x1.5f3e52p-10f));
    q = vf_fma(q, f, vf_set1(0x1.3b2d4cp-7f));
    q = vf_fma(q, f, vf_set1(0x1.c6aee8p-5f));
    q = vf_fma(q, f, vf_set1(0x1.ebfbdcp-3f));
    q = vf_fma(q, f, vf_set1(0x1.62e430p-1f));
#endif
    return vf_scale2(vf_fma(q, f, vf_set1(1)), n);
}

/* Scales n scores, adds the biases (both by log2 e, for exp2) and stores them. */
static void add_biases(float *s, int64_t n, float scale, const float *bias, const float *key_bias)
{
    vf c = vf_set1(scale * LOG2E), l = vf_set1(LOG2E);
    for (int64_t j = 0; j < n; j += VL) {
        int64_t left = n - j < VL ? n - j : VL;
        vf t = vf_mul(vf_load(s + j), c);
        if (bias)
            t = vf_fma(vf_load_n(bias + j, left), l, t);
        if (key_bias)
            t = vf_fma(vf_load_n(key_bias + j, left), l, t);
        vf_store(s + j, t);
    }
}

static float row_max(const float *s, int64_t n)
{
    vf m = vf_set1(-INFINITY), m2 = m;
    int64_t j = 0;
    for (; j + W <= n; j += W) {
        m = vf_max(m, vf_load(s + j));
        m2 = vf_max(m2, vf_load(s + j + VL));
    }
    for (; j < n; j += VL)
        m = vf_max(m, vf_fill(vf_load(s + j), n - j < VL ? n - j : VL, -INFINITY));
    return vf_hmax(vf_max(m, m2));
}

NM_INLINE void store_p(float *s, uint16_t *p, int64_t j, vf e)
{
#if DOT_BF16
    (void)s;
    _mm256_storeu_si256((__m256i *)(p + j), (__m256i)_mm512_cvtneps_pbh(e));
#else
    (void)p;
    vf_store(s + j, e);
#endif
}

/* P[j] = 2^(c (S[j] - m)) for j < n, zeros up to `to`; returns the sum. Two chains: even and odd vectors. */
static float row_exp(float *s, uint16_t *p, int64_t n, int64_t to, float c, float m)
{
    vf cv = vf_set1(c), mv = vf_set1(m), sum = vf_zero(), sum2 = sum;
    int64_t j = 0;
    for (; j + W <= n; j += W) {
        vf e = exp2v(vf_mul(vf_sub(vf_load(s + j), mv), cv)), e2 = exp2v(vf_mul(vf_sub(vf_load(s + j + VL), mv), cv));
        sum = vf_add(sum, e);
        sum2 = vf_add(sum2, e2);
        store_p(s, p, j, e);
        store_p(s, p, j + VL, e2);
    }
    for (bool odd = false; j < n; j += VL, odd = true) {
        vf e = vf_fill(exp2v(vf_mul(vf_sub(vf_load(s + j), mv), cv)), n - j < VL ? n - j : VL, 0);
        if (odd)
            sum2 = vf_add(sum2, e);
        else
            sum = vf_add(sum, e);
        store_p(s, p, j, e);
    }
    for (; j < to; j += VL)
        store_p(s, p, j, vf_zero());
    return vf_sum(vf_add(sum, sum2));
}

/* ---- one block of query rows ---- */

typedef struct row_block {
    const nm_attn *a;
    const head_dims *d;
    const head_buffers *b;
    int64_t seq, head, i0, queries; /* rows i0 .. i0 + mr of the sequence */
    int mr;
} row_block;

/* Unbiased scores keep their own unit until the power is taken: the difference to the maximum is then exact or small, however
 * large both are. Softmax of keys [j0, j0 + n) that row r sees of this chunk; rescales O and the sum when the maximum grows. */
static void softmax_row(const row_block *rb, int r, int64_t j0, int64_t visible, int64_t to)
{
    const nm_attn *a = rb->a;
    const head_buffers *b = rb->b;
    float *s = b->s + r * S_STRIDE, c = a->scale * LOG2E;
    int64_t n = visible - j0 < 0 ? 0 : visible - j0 < to ? visible - j0 : to;
    if (a->bias || a->key_bias || c <= 0) {
        add_biases(s, n, a->scale,
                   a->bias ? a->bias + rb->seq * a->bias_seq + rb->head * a->bias_head + (rb->i0 + r) * a->bias_row + j0 : NULL,
                   a->key_bias ? a->key_bias + a->k_offsets[rb->seq] + j0 : NULL);
        c = 1;
    }
    float m = row_max(s, n);
    if (j0 > 0 && b->max[r] > m)
        m = b->max[r];
    float used = m == -INFINITY ? 0 : m; /* nothing visible yet: all powers become 0 */
    float sum = row_exp(s, b->p ? b->p + r * S_STRIDE : NULL, n, to, c, used);
    if (j0 > 0) {
        vf shrink = exp2v(vf_set1((b->max[r] - used) * c));
        float *o = b->o + r * rb->d->columns, f[VL];
        for (int64_t i = 0; i < rb->d->columns; i += VL)
            vf_store(o + i, vf_mul(vf_load(o + i), shrink));
        vf_store(f, shrink);
        sum += b->sum[r] * f[0];
    }
    b->max[r] = m;
    b->sum[r] = sum;
}

/* C[mr, columns] of all panels of a packed matrix: panels of `depth` units, of which units [u0, u0 + n) are used. */
static void product(int mr, int64_t groups, int64_t depth, int64_t u0, int64_t n, const uint32_t *a, int64_t lda, const uint32_t *packed,
                    float *c, int64_t ldc, bool add)
{
    for (int64_t g = 0; g < groups; g += 2) {
        int ng = g + 1 < groups ? 2 : 1;
        blocks[mr - 1][ng - 1](n, a, lda, packed + g * VL * depth + u0 * ng * VL, c + g * VL, ldc, add);
    }
}

/* Scores of keys [j0, j0 + n) into S. */
static void score_block(const row_block *rb, int64_t j0, int64_t n)
{
    const head_dims *d = rb->d;
    int64_t all = up(d->keys, VL) / VL, end = up(j0 + n, VL) / VL;
    for (int64_t g = j0 / VL; g < end; g += 2) {
        int ng = g + 1 < all ? 2 : 1; /* the width the panel was packed with */
        blocks[rb->mr - 1][ng - 1](d->dim_units, rb->b->q, d->q_stride, rb->b->k + g * VL * d->dim_units, rb->b->s + g * VL - j0, S_STRIDE, false);
    }
}

static void store_rows(const row_block *rb, int64_t row0, int64_t column)
{
    const nm_attn *a = rb->a;
    for (int r = 0; r < rb->mr; r++) {
        const float *o = rb->b->o + r * rb->d->columns;
        vf inv = vf_set1(rb->b->sum[r] == 0 ? 0 : 1 / rb->b->sum[r]);
        int64_t at = (row0 + r) * a->out_stride + column;
        for (int64_t i = 0; i < a->head_dim; i += VL) {
            int64_t n = a->head_dim - i < VL ? a->head_dim - i : VL;
            vf y = vf_mul(vf_load(o + i), inv);
            if (a->dtype == NM_F32)
                vf_store_n((float *)a->out + at + i, y, n);
            else
                vf_store_bf16_n((uint16_t *)a->out + at + i, y, n);
        }
    }
}

/* While a block of rows is computed: its output lines, the next queries, and the same rows of the next head. */
NM_INLINE void prefetch_next(const row_block *rb, int64_t row0, int64_t column)
{
    const nm_attn *a = rb->a;
    int64_t bytes = a->head_dim * (int64_t)nm_dtype_size(a->dtype);
    for (int r = 0; r < rb->mr; r++) {
        char *p = (char *)a->out + ((row0 + r) * a->out_stride + column) * (int64_t)nm_dtype_size(a->dtype);
        for (int64_t i = 0; i < bytes; i += 64)
            __builtin_prefetch(p + i, 1);
    }
    int64_t more = rb->queries - rb->i0 - rb->mr;
    prefetch_rows(a->q, a->dtype, row0 + rb->mr, more < MR ? more : MR, a->q_stride, column, a->head_dim);
    if (rb->head + 1 == a->heads || a->packed)
        return;
    int64_t k0 = rb->i0 * rb->d->keys / rb->queries, k1 = (rb->i0 + rb->mr) * rb->d->keys / rb->queries;
    prefetch_rows(a->k, a->dtype, a->k_offsets[rb->seq] + k0, k1 - k0, a->k_stride, column + a->head_dim, a->head_dim);
    prefetch_rows(a->v, a->dtype, a->k_offsets[rb->seq] + k0, k1 - k0, a->v_stride, column + a->head_dim, a->head_dim);
    prefetch_rows(a->q, a->dtype, row0, rb->mr, a->q_stride, column + a->head_dim, a->head_dim);
}

static void attend_rows(const row_block *rb, int64_t column)
{
    const head_buffers *b = rb->b;
    const head_dims *d = rb->d;
    int64_t row0 = rb->a->q_offsets[rb->seq] + rb->i0;
    copy_q(rb->a, d, row0, column, rb->mr, b->q);
    prefetch_next(rb, row0, column);
    int64_t keys = nm_attn_visible(rb->a, rb->queries, d->keys, rb->i0 + rb->mr - 1); /* of the row that sees most */
    int64_t j0 = 0;
    do {
        int64_t n = keys - j0 < CHUNK ? keys - j0 : CHUNK, to = up(n, UNIT);
        score_block(rb, j0, n);
        for (int r = 0; r < rb->mr; r++)
            softmax_row(rb, r, j0, nm_attn_visible(rb->a, rb->queries, d->keys, rb->i0 + r), to);
        product(rb->mr, d->columns / VL, d->key_units, j0 / UNIT, to / UNIT, DOT_BF16 ? (const uint32_t *)b->p : (const uint32_t *)b->s,
                S_STRIDE / UNIT, b->v, b->o, d->columns, j0 > 0);
        j0 += CHUNK;
    } while (j0 < keys);
    store_rows(rb, row0, column);
}

static size_t head_scratch(const nm_attn *a, int64_t max_keys)
{
    head_dims d = dims_of(a, max_keys);
    return carve(NULL, &d, a->packed != NULL, NULL);
}

static size_t packed_head(const nm_attn *a, int64_t keys)
{
    head_dims d = dims_of(a, keys);
    return k_bytes(&d) + v_bytes(&d);
}

static void pack_head(const nm_attn *a, int64_t seq, int head, void *to)
{
    head_dims d = dims_of(a, a->k_offsets[seq + 1] - a->k_offsets[seq]);
    int64_t column = (int64_t)head * a->head_dim;
    pack_k(a, &d, a->k_offsets[seq], column, to);
    pack_v(a, &d, a->k_offsets[seq], column, (uint32_t *)(void *)((char *)to + k_bytes(&d)));
}

static void attend_head(const nm_attn *a, int64_t seq, int head, int64_t q_begin, int64_t q_end, void *scratch)
{
    head_dims d = dims_of(a, a->k_offsets[seq + 1] - a->k_offsets[seq]);
    head_buffers b;
    carve(&b, &d, a->packed != NULL, scratch);
    if (!DOT_BF16)
        b.p = NULL;
    int64_t column = (int64_t)head * a->head_dim;
    if (a->packed) {
        char *at = nm_attn_packed_head(a->packed, seq, head, packed_head(a, d.keys));
        b.k = (uint32_t *)(void *)at;
        b.v = (uint32_t *)(void *)(at + k_bytes(&d));
    } else {
        pack_k(a, &d, a->k_offsets[seq], column, b.k);
        pack_v(a, &d, a->k_offsets[seq], column, b.v);
    }
    row_block rb = { a, &d, &b, seq, head, 0, a->q_offsets[seq + 1] - a->q_offsets[seq], 0 };
    for (int64_t i = q_begin; i < q_end; i += MR) {
        rb.i0 = i;
        rb.mr = q_end - i < MR ? (int)(q_end - i) : MR;
        attend_rows(&rb, column);
    }
}
