/* gemm_finish_impl.h - the epilogue of a tile on vectors: see nm_gemm for the order of its steps. A template, included after
 * vec_*.h and math_*.h inside a target region. The tile is [rows][2 VL]. */

/* int8: the exact sum without the offset, times both factors. */
NM_INLINE vf dequantise(const void *acc, vi offset_sum, vf scale)
{
    return vf_mul(vf_of_vi(vi_sub(vi_load(acc), offset_sum)), scale);
}

/* What stays the same down the rows, by vector of columns. */
typedef struct finish_columns { vf bias[2], gamma[2], scale[2]; vi offset_sum[2]; } finish_columns;

NM_INLINE finish_columns load_columns_of(const nm_gemm_out *o, const bool i8)
{
    const nm_gemm *g = o->g;
    finish_columns f;
    UNROLL for (int v = 0; v < 2; v++) {
        int64_t col = o->col + v * VL, n = o->cols - v * VL;
        n = n < 0 ? 0 : n < VL ? n : VL;
        f.bias[v] = g->bias ? vf_load_n(g->bias + col, n) : vf_zero();
        f.gamma[v] = g->gamma ? vf_load_n(g->gamma + col, n) : vf_zero();
        f.scale[v] = i8 ? vf_load(g->b->scale + col) : vf_zero();
        f.offset_sum[v] = i8 && o->offset ? vi_times_128(vi_load(g->b->sum + col)) : vi_zero();
    }
    return f;
}

NM_INLINE void store_result(char *c, nm_dtype t, int64_t i, vf x, int64_t n, const bool whole)
{
    if (t == NM_F32)
        whole ? vf_store((float *)(void *)c + i, x) : vf_store_n((float *)(void *)c + i, x, n);
    else
        whole ? vf_store_bf16((uint16_t *)(void *)c + i, x) : vf_store_bf16_n((uint16_t *)(void *)c + i, x, n);
}

NM_INLINE void finish_tile(const nm_gemm_out *o, const nm_act act, const bool i8, const bool whole)
{
    const nm_gemm g = *o->g; /* a copy: stores through c cannot change it, so that it stays in registers */
    const finish_columns f = load_columns_of(o, i8);
    const float *acc = o->acc, *residual = g.residual ? g.residual + o->row * g.ldr + o->col : NULL, *row_scale = i8 ? o->row_scale + o->row : NULL;
    const int64_t c_row = g.ldc * (int64_t)nm_dtype_size(g.c_dtype), rows = o->rows, cols = o->cols;
    char *c = (char *)g.c + o->row * c_row + o->col * (int64_t)nm_dtype_size(g.c_dtype);
    const bool bias = g.bias, gamma = g.gamma;
    for (int64_t r = 0; r < rows; r++, acc += 2 * VL, c += c_row) {
        UNROLL for (int v = 0; v < 2; v++) {
            int64_t n = cols - v * VL;
            if (!whole && n <= 0)
                break;
            n = n < VL ? n : VL;
            vf t = i8 ? dequantise(acc + v * VL, f.offset_sum[v], vf_mul(vf_set1(row_scale[r]), f.scale[v])) : vf_load(acc + v * VL);
            t = vf_mul(t, vf_set1(g.alpha));
            if (bias)
                t = vf_add(t, f.bias[v]);
            t = vf_activate(t, act);
            if (gamma)
                t = vf_mul(t, f.gamma[v]);
            if (residual)
                t = vf_add(t, whole ? vf_load(residual + v * VL) : vf_load_n(residual + v * VL, n));
            store_result(c, g.c_dtype, v * VL, t, n, whole);
        }
        residual = residual ? residual + g.ldr : NULL;
    }
}

NM_INLINE void finish_any(const nm_gemm_out *o, const bool i8)
{
    switch (o->g->act) {
#define CASE(a) case a: if (o->cols == 2 * VL) finish_tile(o, a, i8, true); else finish_tile(o, a, i8, false); break;
    CASE(NM_ACT_NONE) CASE(NM_ACT_QUICK_GELU) CASE(NM_ACT_GELU) CASE(NM_ACT_GELU_TANH) CASE(NM_ACT_RELU) CASE(NM_ACT_SILU) CASE(NM_ACT_TANH)
#undef CASE
    default: break;
    }
}
