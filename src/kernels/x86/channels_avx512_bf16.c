/* channels_avx512_bf16.c - the gradient of a convolution's weight by 512-bit bf16 dot products: two rows at a time. */
#if defined(__x86_64__)
#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "kernels/channels.h"
#include "kernels/x86/target.h"

NM_TARGET_PUSH(NM_ISA_AVX512_BF16)
#include "kernels/x86/vec_avx512.h"

#define MR 12
#define PAIRS 128 /* of rows at a time: a panel of b is 16 KiB */
#define CHUNK 120 /* rows of c whose columns of a are copied together: 60 KiB */

/* (p[i], q[i]) side by side; q NULL: zeros. */
NM_INLINE vi pairs(const uint16_t *p, const uint16_t *q, int64_t n)
{
    vi low = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes(n), p));
    return q ? _mm512_or_si512(low, _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes(n), q)), 16)) : low;
}

/* Columns [0, n) of rows [0, k) as [pairs][width] units of 32 bits; n <= width <= 32, beyond n anything up to the next 16. */
NM_INLINE void pair_rows(int64_t k, int64_t n, const uint16_t *x, int64_t ld, uint32_t *dst, const int64_t width)
{
    int64_t n0 = n < VL ? n : VL, n1 = n - n0;
    for (int64_t t = 0; t < k; t += 2, x += 2 * ld, dst += width) {
        const uint16_t *q = t + 1 < k ? x + ld : NULL;
        if (width == 2 * VL) {
            vi_store(dst, pairs(x, q, n0));
            vi_store(dst + VL, pairs(x + (n1 ? VL : 0), q ? q + (n1 ? VL : 0) : NULL, n1));
        } else
            _mm512_mask_storeu_epi32(dst, lanes(width), pairs(x, q, n));
    }
}

NM_INLINE __m512bh unit(const uint32_t *p) { return (__m512bh)_mm512_set1_epi32((int32_t)*p); }

NM_INLINE void add_to(float *c, vf x, int64_t n) { vf_store_n(c, vf_add(vf_load_n(c, n), x), n); }

/* a: [count][MR] units, panel: [count][32]. */
NM_INLINE void tile_rows(const int rows, const bool wide, int64_t count, const uint32_t *a, const uint32_t *panel, float *c, int64_t ldc, int64_t cols)
{
    vf acc[MR][2];
    UNROLL for (int r = 0; r < rows; r++)
        acc[r][0] = acc[r][1] = vf_zero();
    for (int64_t t = 0; t < count; t++, a += MR, panel += 2 * VL) {
        __m512bh b0 = (__m512bh)vi_load(panel), b1 = wide ? (__m512bh)vi_load(panel + VL) : b0;
        UNROLL for (int r = 0; r < rows; r++) {
            __m512bh x = unit(a + r);
            acc[r][0] = _mm512_dpbf16_ps(acc[r][0], x, b0);
            if (wide)
                acc[r][1] = _mm512_dpbf16_ps(acc[r][1], x, b1);
        }
    }
    UNROLL for (int r = 0; r < rows; r++) {
        add_to(c + r * ldc, acc[r][0], cols < VL ? cols : VL);
        if (wide)
            add_to(c + r * ldc + VL, acc[r][1], cols - VL);
    }
}

#define CASE(n) case n: tile_rows(n, wide, count, a, panel, c, ldc, cols); break;
NM_INLINE void tile_any(int rows, const bool wide, int64_t count, const uint32_t *a, const uint32_t *panel, float *c, int64_t ldc, int64_t cols)
{
    switch (rows) {
    CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12)
    }
}
#undef CASE

void nm_outer_bf16_avx512_bf16(int64_t k, int64_t m, int64_t n, const uint16_t *a, int64_t lda, const uint16_t *b, int64_t ldb, float *c, int64_t ldc)
{
    _Alignas(64) uint32_t panel[PAIRS * 2 * VL];
    _Alignas(64) uint32_t columns[CHUNK / MR][PAIRS * MR];
    for (int64_t k0 = 0; k0 < k; k0 += 2 * PAIRS) {
        int64_t kk = k - k0 < 2 * PAIRS ? k - k0 : 2 * PAIRS, count = (kk + 1) / 2;
        for (int64_t m0 = 0; m0 < m; m0 += CHUNK) {
            int64_t mm = m - m0 < CHUNK ? m - m0 : CHUNK, tiles = (mm + MR - 1) / MR;
            for (int64_t t = 0; t < tiles; t++) /* rows shared out evenly, as in nm_outer */
                pair_rows(kk, mm * (t + 1) / tiles - mm * t / tiles, a + k0 * lda + m0 + mm * t / tiles, lda, columns[t], MR);
            for (int64_t j = 0; j < n; j += 2 * VL) {
                int64_t cols = n - j < 2 * VL ? n - j : 2 * VL;
                pair_rows(kk, cols, b + k0 * ldb + j, ldb, panel, 2 * VL);
                for (int64_t t = 0; t < tiles; t++) {
                    int64_t i = mm * t / tiles, rows = mm * (t + 1) / tiles - i;
                    float *to = c + (m0 + i) * ldc + j;
                    if (cols > VL)
                        tile_any((int)rows, true, count, columns[t], panel, to, ldc, cols);
                    else
                        tile_any((int)rows, false, count, columns[t], panel, to, ldc, cols);
                }
            }
        }
    }
}
NM_TARGET_POP
#else
typedef int nm_no_channels_avx512_bf16;
#endif
