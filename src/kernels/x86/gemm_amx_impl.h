/* gemm_amx_impl.h - products on tile registers: up to 32 rows by a panel of 32 columns, 64 bytes of k per step. Included by
 * gemm_amx.c, and by tests/kernels/test_gemm_amx_emulated.c with the tile instructions written out in C.
 *
 * Registers: sums 0 1 / 2 3 (16 x 16 each: rows below / from 16, columns below / from 16), A 4 / 5, B 6 7. A tile of B is 16
 * units of k by 16 columns, which is how panels lie: rows of 64 bytes, 128 bytes apart. */

/* Palette 1, Intel SDM volume 1, 18.2: bytes per row from byte 16, rows from byte 48. */
typedef struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config;

/* gcc 12's tile intrinsics do not say that they read memory: what they will read is to be in memory from here on. */
NM_INLINE void written(const void *p) { __asm__ volatile("" : : "r"(p) : "memory"); }

static void amx_configure(int rows)
{
    int top = rows < 16 ? rows : 16, bottom = rows - top;
    _Alignas(64) tile_config c = { .palette = 1 };
    const int of[8] = { top, top, bottom, bottom, top, bottom, 16, 16 };
    for (int i = 0; i < 8; i++) {
        c.rows[i] = (uint8_t)of[i];
        c.row_bytes[i] = of[i] ? 64 : 0;
    }
    written(&c);
    _tile_loadconfig(&c);
}

static void amx_release(void) { _tile_release(); }

#define STEP_BYTES 64                  /* of a row of A */
#define PANEL_STEP (16 * 32 * 4)       /* bytes of a panel per step */
/* The tile intrinsics are statements: hence braces. */
#define TOP(a, b, stride, dp) \
    { \
        _tile_loadd(4, a, stride); \
        _tile_loadd(6, b, 128); \
        _tile_loadd(7, (b) + 64, 128); \
        dp(0, 4, 6); \
        dp(1, 4, 7); \
    }
#define BOTTOM(a, stride, dp) \
    { \
        _tile_loadd(5, a, stride); \
        dp(2, 5, 6); \
        dp(3, 5, 7); \
    }

NM_INLINE void prefetch_next(const char **next, int64_t step)
{
    for (int i = 0; i < 16; i++, *next += step)
        _mm_prefetch(*next, _MM_HINT_T1);
}

/* The bytes of A beyond the last whole step, with zeros behind: B's are zeros there, but A's memory may hold anything. */
NM_INLINE void copy_last(const nm_gemm_tile *t, int64_t at, int64_t bytes, char last[32 * STEP_BYTES])
{
    memset(last, 0, 32 * STEP_BYTES);
    for (int r = 0; r < t->rows; r++)
        memcpy(last + r * STEP_BYTES, t->a + r * t->a_stride + at, (size_t)bytes);
    written(last);
}

#define DEFINE_TILE(name, element_bytes, dp) \
    static void name(const nm_gemm_tile *t) \
    { \
        _Alignas(64) char last[32 * STEP_BYTES]; \
        int64_t bytes = t->k * element_bytes, whole = bytes / STEP_BYTES * STEP_BYTES, low = 16 * t->a_stride; \
        const char *b = t->panel, *next = t->next; \
        bool two = t->rows > 16; \
        _tile_zero(0); \
        _tile_zero(1); \
        if (two) { \
            _tile_zero(2); \
            _tile_zero(3); \
        } \
        for (int64_t at = 0; at < whole; at += STEP_BYTES, b += PANEL_STEP) { \
            prefetch_next(&next, t->next_step); \
            TOP(t->a + at, b, t->a_stride, dp) \
            if (two) \
                BOTTOM(t->a + low + at, t->a_stride, dp) \
        } \
        if (bytes > whole) { \
            copy_last(t, whole, bytes - whole, last); \
            TOP(last, b, STEP_BYTES, dp) \
            if (two) \
                BOTTOM(last + 16 * STEP_BYTES, STEP_BYTES, dp) \
        } \
        _tile_stored(0, t->acc, 128); \
        _tile_stored(1, (char *)t->acc + 64, 128); \
        if (two) { \
            _tile_stored(2, (char *)t->acc + 16 * 128, 128); \
            _tile_stored(3, (char *)t->acc + 16 * 128 + 64, 128); \
        } \
    }

DEFINE_TILE(amx_tile_bf16, 2, _tile_dpbf16ps)
DEFINE_TILE(amx_tile_i8, 1, _tile_dpbssd)
