/* gemm_finish_impl.h - the epilogue of a tile on vectors: see nm_gemm for the order of its steps. A template, included after
 * vec_*.h and math_*.h inside a target region. The tile is [rows][2 VL]. */

/* int8: the exact sum without the offset, times both factors. */
NM_INLINE vf dequantise(const void *acc, vi offset_sum, vf scale)
{
    return vf_mul(vf_of_vi(vi_sub(vi_load(acc), offset_sum)), scale);
}

typedef struct finish_columns { vf bias[2], gamma[2], scale[2]; vi offset_sum[2]; } finish_columns;

NM_INLINE void finish_vector(const nm_gemm_out *o, const finish_columns *f, int r, int v, const nm_act act, const bool i8, const bool whole)
{
    const nm_gemm *g = o->g;
    int64_t row = o->row + r, col = o->col + v * VL, n = whole ? VL : o->cols - v * VL < VL ? o->cols - v * VL : VL;
    const float *acc = (const float *)o->acc + (r * 2 + v) * VL;
    vf t = i8 ? dequantise(acc, f->offset_sum[v], vf_mul(vf_set1(o->row_scale[row]), f->scale[v])) : vf_load(acc);
    t = vf_mul(t, vf_set1(g->alpha));
    if (g->bias)
        t = vf_add(t, f->bias[v]);
    t = vf_activate(t, act);
    if (g->gamma)
        t = vf_mul(t, f->gamma[v]);
    if (g->residual) {
        const float *p = g->residual + row * g->ldr + col;
        t = vf_add(t, whole ? vf_load(p) : vf_load_n(p, n));
    }
    if (g->c_dtype == NM_F32) {
        float *c = (float *)g->c + row * g->ldc + col;
        if (whole)
            vf_store(c, t);
        else
            vf_store_n(c, t, n);
    } else {
        uint16_t *c = (uint16_t *)g->c + row * g->ldc + col;
        if (whole)
            vf_store_bf16(c, t);
        else
            vf_store_bf16_n(c, t, n);
    }
}

NM_INLINE void finish_tile(const nm_gemm_out *o, const nm_act act, const bool i8, const bool whole)
{
    const nm_gemm *g = o->g;
    finish_columns f;
    for (int v = 0; v < 2 && v * VL < o->cols; v++) {
        int64_t col = o->col + v * VL, n = o->cols - v * VL < VL ? o->cols - v * VL : VL;
        f.bias[v] = g->bias ? vf_load_n(g->bias + col, n) : vf_zero();
        f.gamma[v] = g->gamma ? vf_load_n(g->gamma + col, n) : vf_zero();
        f.scale[v] = i8 ? vf_load(g->b->scale + col) : vf_zero();
        f.offset_sum[v] = i8 && o->offset ? vi_times_128(vi_load(g->b->sum + col)) : vi_zero();
    }
    for (int r = 0; r < o->rows; r++)
        for (int v = 0; v < 2; v++)
            if (whole || v * VL < o->cols)
                finish_vector(o, &f, r, v, act, i8, whole);
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
