/* gemm_kernels.h - the variants of the product, one per compute dtype; included by gemm.h only.
 *
 * Packed weights. A panel is nr neighbouring columns of C, i.e. nr rows of w, zeros beyond n. Along k it is cut into units of
 * 32 bits: 1 f32, 2 bf16 or 4 int8 values, zeros beyond k. A panel holds [units][nr] units, units rounded up to 16 (64 bytes of
 * a row: the step of a tile register), so that one vector load gives nr columns at one unit of k:
 *     f32 [n/nr][k][nr]      bf16 [n/nr][k/2][nr][2]      int8 [n/nr][k/4][nr][4]
 * After the panels, int8 has scale f32 [n rounded up to nr] and sum i32 [the same].
 *
 * A variant gives the loops of one tile, mr rows by one panel; gemm.c gives blocking, threads and conversions of A. */
#define NM_GEMM_MAX_MR 32
#define NM_GEMM_MAX_NR 32
#define NM_GEMM_MAX_K_I8 65536 /* 65536 * 255 * 127 < 2^31: int8 sums are exact */

/* One tile of accumulators: acc[r][j] = sum over k of A[r][.] * panel column j. Tiles of a panel share the work of bringing the
 * next panel into the second-level cache: each unit of k prefetches the two lines at `next`, which moves by next_step bytes. */
typedef struct nm_gemm_tile {
    int rows, cols;   /* accumulators of columns beyond cols may be left as they are */
    int64_t k;
    const char *a;
    int64_t a_stride; /* bytes */
    const char *panel;
    void *acc;        /* [rows][nr] f32 or (int8) i32 */
    const char *next;
    int64_t next_step;
} nm_gemm_tile;

/* Where a tile of accumulators goes: rows x cols of C from (row, col); acc is [rows][nr], f32 or (int8) i32. */
typedef struct nm_gemm_out {
    const nm_gemm *g;
    int64_t row, col;
    int rows, cols;
    const void *acc;
    const float *row_scale; /* int8: [m], the factor of each row of A */
    int32_t offset;         /* int8: what was added to the quantised A, 0 or 128 */
} nm_gemm_out;

/* Rows of a weight that become one panel: cols <= nr of them, element (j, i) at w[j * row_step + i * k_step]. */
typedef struct nm_gemm_panel {
    const void *w;
    nm_dtype dtype; /* NM_F32, NM_F16 or NM_BF16 */
    int64_t row_step, k_step, k;
    int cols;
    bool stream;    /* write past the caches: the weight is larger than they are */
    void *data;     /* the panel */
    float *scale;   /* int8: [nr] */
    int32_t *sum;   /* int8: [nr] */
} nm_gemm_panel;

typedef struct nm_gemm_variant {
    nm_dtype compute;
    nm_dtype a_dtype; /* how tile() reads A: NM_F32, NM_BF16, NM_I8, or NM_U8 (quantised + 128) */
    int nr, mr;       /* columns of a panel, most rows of a tile */
    int row_step;     /* rows are cheapest in multiples of this */
    bool always_convert; /* rows of a_dtype need convert() too */
    bool fast;        /* beats f32 on this instruction set */
    void (*tile)(const nm_gemm_tile *t);
    void (*finish)(const nm_gemm_out *o);
    /* One row of A as tile() reads it, from f32 or bf16; returns the row's factor (1 where not quantised). dst has room for
     * k elements rounded up to 64 bytes. */
    float (*convert)(int64_t k, const void *src, nm_dtype src_dtype, void *dst);
    void (*pack)(const nm_gemm_panel *p);
    void (*configure)(int rows); /* tile registers, on this thread, before tiles of that many rows; NULL where not needed */
    void (*release)(void);
} nm_gemm_variant;

struct nm_gemm_kernels {
    const nm_gemm_variant *f32, *bf16, *i8; /* by compute dtype */
};

void nm_gemm_kernels_init(nm_gemm_kernels *k, uint32_t features);

/* The layout number that nm_packed.layout and pack files carry: a new number whenever the bytes of a layout change. */
#define NM_GEMM_LAYOUT_VERSION 1u
static inline uint32_t nm_gemm_layout(nm_dtype compute, int nr)
{
    return NM_GEMM_LAYOUT_VERSION << 16 | (uint32_t)compute << 8 | (uint32_t)nr;
}

static inline int nm_gemm_per_unit(nm_dtype compute) { return compute == NM_F32 ? 1 : compute == NM_BF16 ? 2 : 4; }

/* Units of k in a packed panel. */
static inline int64_t nm_gemm_units(nm_dtype compute, int64_t k)
{
    int64_t per = nm_gemm_per_unit(compute);
    return ((k + per - 1) / per + 15) & ~(int64_t)15;
}
