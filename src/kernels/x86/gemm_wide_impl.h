/* gemm_wide_impl.h - bf16 panels times f32 rows (of bf16 values): B is widened in registers. A template like gemm_tile_impl.h;
 * MR and the accumulators are those of f32. Half the memory of f32 weights, which is what few rows wait for. */

NM_INLINE void wide_rows(const int rows, const bool wide, const nm_gemm_tile *t)
{
    const char *b = t->panel, *next = t->next;
    (void)wide;
    int64_t k = t->k, stride = t->a_stride;
    vf c[MR][2];
    const char *p[(MR + 2) / 3];
    UNROLL for (int r = 0; r < rows; r++)
        c[r][0] = c[r][1] = vf_zero();
    UNROLL for (int r = 0; r < rows; r += 3)
        p[r / 3] = t->a + r * stride;
    for (int64_t i = 0; i < k; i += 2, b += 8 * VL) {
        vf b0 = vf_low_half(vi_load(b)), b1 = vf_low_half(vi_load(b + 4 * VL));
        _mm_prefetch(b + TILE_PREFETCH, _MM_HINT_T0);
        _mm_prefetch(next, _MM_HINT_T1);
        next += t->next_step;
        UNROLL for (int r = 0; r < rows; r++) {
            vf x = vf_set1(*(const float *)(ROW(r) + 4 * i));
            c[r][0] = vf_fma(x, b0, c[r][0]);
            c[r][1] = vf_fma(x, b1, c[r][1]);
        }
        if (i + 1 == k)
            break;
        b0 = vf_high_half(vi_load(b)), b1 = vf_high_half(vi_load(b + 4 * VL));
        UNROLL for (int r = 0; r < rows; r++) {
            vf x = vf_set1(*(const float *)(ROW(r) + 4 * i + 4));
            c[r][0] = vf_fma(x, b0, c[r][0]);
            c[r][1] = vf_fma(x, b1, c[r][1]);
        }
    }
    float *out = t->acc;
    UNROLL for (int r = 0; r < rows; r++) {
        vf_store(out + r * 2 * VL, c[r][0]);
        vf_store(out + r * 2 * VL + VL, c[r][1]);
    }
}

static void WIDE_TILE(const nm_gemm_tile *t)
{
    const bool wide = true;
    BY_ROWS(wide_rows)
}
