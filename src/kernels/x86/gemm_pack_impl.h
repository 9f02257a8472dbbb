/* gemm_pack_impl.h - rows of A in the form that tiles read, and panels of B: see gemm_kernels.h. A template, included after
 * vec_*.h inside a target region. A panel is 2 VL columns. Panels are written past the caches when `stream` says so. */

NM_INLINE vf load_vf(const char *p, nm_dtype t, int64_t i)
{
    return t == NM_F32 ? vf_load((const float *)p + i) : t == NM_BF16 ? vf_of_bf16((const uint16_t *)p + i) : vf_of_f16((const uint16_t *)p + i);
}

NM_INLINE vf load_vf_n(const char *p, nm_dtype t, int64_t i, int64_t n)
{
    uint16_t b[VL] = { 0 };
    if (t == NM_F32)
        return vf_load_n((const float *)p + i, n);
    memcpy(b, (const uint16_t *)p + i, (size_t)n * 2);
    return load_vf((const char *)b, t, 0);
}

/* Elements i.. of a row of k, zeros beyond it. */
NM_INLINE vf load_row(const char *p, nm_dtype t, int64_t i, int64_t k)
{
    return i + VL <= k ? load_vf(p, t, i) : i < k ? load_vf_n(p, t, i, k - i) : vf_zero();
}

/* ---- quantisation: the rules and bits of gemm_ref.c ---- */

NM_INLINE float inverse_scale(float max) { return max < 0x1p-100f ? 0 : 127 / max; }
NM_INLINE float scale_of(float max) { return max < 0x1p-100f ? 0 : max / 127; }

NM_INLINE float row_max(int64_t k, const char *src, const nm_dtype t)
{
    vf max0 = vf_zero(), max1 = vf_zero(), poison0 = vf_zero(), poison1 = vf_zero();
    for (int64_t i = 0; i < k; i += 2 * VL) {
        vf x = load_row(src, t, i, k), y = load_row(src, t, i + VL, k);
        max0 = vf_max(max0, vf_abs(x));
        max1 = vf_max(max1, vf_abs(y));
        poison0 = vf_fma(x, vf_zero(), poison0);
        poison1 = vf_fma(y, vf_zero(), poison1);
    }
    return vf_hmax(vf_max(max0, max1)) + vf_sum(vf_add(poison0, poison1));
}

/* 4 VL quantised values from i on. */
NM_INLINE vi quantised(const char *src, const nm_dtype t, int64_t i, int64_t k, vf inv)
{
    return vi_bytes(vi_of_round(vf_mul(load_row(src, t, i, k), inv)), vi_of_round(vf_mul(load_row(src, t, i + VL, k), inv)),
                    vi_of_round(vf_mul(load_row(src, t, i + 2 * VL, k), inv)), vi_of_round(vf_mul(load_row(src, t, i + 3 * VL, k), inv)));
}

NM_INLINE float quantise_row(int64_t k, const char *src, const nm_dtype t, const bool plus128, char *dst)
{
    float max = row_max(k, src, t);
    vf inv = vf_set1(inverse_scale(max));
    for (int64_t i = 0; i < k; i += 4 * VL) { /* rows of converted A have room for whole vectors */
        vi q = quantised(src, t, i, k, inv);
        vi_store(dst + i, plus128 ? vi_xor_bytes_128(q) : q);
    }
    return scale_of(max);
}

/* ---- panels from rows: VL units of VL rows are transposed in registers ---- */

/* VL units of a row, from element i on. */
NM_INLINE vi load_units(const char *row, const nm_dtype t, const nm_dtype compute, int64_t i, int64_t k, vf inv)
{
    if (compute == NM_F32)
        return vi_of_f(load_row(row, t, i, k));
    if (compute == NM_I8)
        return quantised(row, t, i, k, inv);
    if (t == NM_BF16 && i + 2 * VL <= k)
        return vi_load(row + 2 * i);
    return vi_halves(load_row(row, t, i, k), load_row(row, t, i + VL, k));
}

NM_INLINE void store_unit(uint32_t *dst, vi x, bool stream)
{
    if (stream)
        vi_stream(dst, x);
    else
        vi_store(dst, x);
}

NM_INLINE void pack_rows(const nm_gemm_panel *p, const nm_dtype t, const nm_dtype compute)
{
    int per = nm_gemm_per_unit(compute);
    int64_t units = nm_gemm_units(compute, p->k), step = p->row_step * (int64_t)nm_dtype_size(t);
    vf inv[2 * VL];
    for (int j = 0; compute == NM_I8 && j < 2 * VL; j++) {
        float max = j < p->cols ? row_max(p->k, (const char *)p->w + j * step, t) : 0;
        inv[j] = vf_set1(inverse_scale(max));
        p->scale[j] = scale_of(max);
    }
    for (int64_t u = 0; u < units; u += VL)
        for (int h = 0; h < 2; h++) {
            uint32_t *dst = (uint32_t *)p->data + u * 2 * VL + h * VL;
            vi x[VL];
            for (int j = 0; j < VL; j++) {
                const char *row = (const char *)p->w + (h * VL + j) * step;
                _mm_prefetch(row + (u * per) * (int64_t)nm_dtype_size(t) + PACK_PREFETCH, _MM_HINT_T0);
                x[j] = h * VL + j < p->cols ? load_units(row, t, compute, u * per, p->k, compute == NM_I8 ? inv[h * VL + j] : vf_zero()) : vi_zero();
            }
            vi_transpose(x);
            for (int i = 0; i < VL; i++)
                store_unit(dst + i * 2 * VL, x[i], p->stream);
        }
}

/* ---- panels from columns: w is stored [k, n], so a vector has neighbouring columns already ---- */

NM_INLINE vf load_columns(const nm_gemm_panel *p, const nm_dtype t, int64_t i, int h)
{
    int n = p->cols - h * VL;
    if (i >= p->k || n <= 0)
        return vf_zero();
    const char *row = (const char *)p->w + i * p->k_step * (int64_t)nm_dtype_size(t);
    return n >= VL ? load_vf(row, t, h * VL) : load_vf_n(row, t, h * VL, n);
}

NM_INLINE vf column_max(const nm_gemm_panel *p, const nm_dtype t, int h)
{
    vf max = vf_zero(), poison = vf_zero();
    for (int64_t i = 0; i < p->k; i++) {
        vf x = load_columns(p, t, i, h);
        max = vf_max(max, vf_abs(x));
        poison = vf_fma(x, vf_zero(), poison);
    }
    return vf_add(max, poison);
}

NM_INLINE void pack_columns(const nm_gemm_panel *p, const nm_dtype t, const nm_dtype compute)
{
    int64_t units = nm_gemm_units(compute, p->k);
    for (int h = 0; h < 2; h++) {
        uint32_t *dst = (uint32_t *)p->data + h * VL;
        float inv[VL];
        if (compute == NM_I8) {
            vf_store(inv, column_max(p, t, h));
            for (int j = 0; j < VL; j++) {
                p->scale[h * VL + j] = scale_of(inv[j]);
                inv[j] = inverse_scale(inv[j]);
            }
        }
        for (int64_t u = 0; u < units; u++, dst += 2 * VL) {
            vi x;
            if (compute == NM_F32)
                x = vi_of_f(load_columns(p, t, u, h));
            else if (compute == NM_BF16)
                x = vi_or_shifted(vi_bf16_bits(load_columns(p, t, 2 * u, h)), vi_bf16_bits(load_columns(p, t, 2 * u + 1, h)), 16);
            else {
                vi q[4];
                for (int i = 0; i < 4; i++)
                    q[i] = vi_low_byte(vi_of_round(vf_mul(load_columns(p, t, 4 * u + i, h), vf_load(inv))));
                x = vi_or_shifted(vi_or_shifted(q[0], q[1], 8), vi_or_shifted(q[2], q[3], 8), 16);
            }
            store_unit(dst, x, p->stream);
        }
    }
}

/* ---- by stored type ---- */

static void column_sums(const nm_gemm_panel *p)
{
    const int8_t *b = p->data;
    int32_t sum[2 * VL] = { 0 };
    for (int64_t u = 0; u < nm_gemm_units(NM_I8, p->k); u++)
        for (int j = 0; j < 2 * VL; j++, b += 4)
            sum[j] += b[0] + b[1] + b[2] + b[3];
    memcpy(p->sum, sum, sizeof sum);
}

NM_INLINE void pack_any(const nm_gemm_panel *p, const nm_dtype compute)
{
    switch (p->dtype) {
#define CASE(t) case t: if (p->k_step == 1) pack_rows(p, t, compute); else pack_columns(p, t, compute); break;
    CASE(NM_F32) CASE(NM_BF16) CASE(NM_F16)
#undef CASE
    default: break;
    }
    if (p->stream)
        _mm_sfence();
    if (compute == NM_I8)
        column_sums(p);
}

/* ---- rows of A, f32 or bf16 ---- */

NM_INLINE float rows_f32(int64_t k, const void *src, nm_dtype t, void *dst)
{
    for (int64_t i = 0; i < k; i += VL)
        vf_store((float *)dst + i, t == NM_F32 ? load_row(src, NM_F32, i, k) : load_row(src, NM_BF16, i, k));
    return 1;
}

NM_INLINE float rows_bf16(int64_t k, const void *src, nm_dtype t, void *dst)
{
    for (int64_t i = 0; i < k; i += VL)
        vf_store_bf16((uint16_t *)dst + i, t == NM_F32 ? load_row(src, NM_F32, i, k) : load_row(src, NM_BF16, i, k));
    return 1;
}

/* f32 rows with the values that bf16 rows would have. */
NM_INLINE float rows_f32_rounded(int64_t k, const void *src, nm_dtype t, void *dst)
{
    uint16_t b[VL];
    for (int64_t i = 0; i < k; i += VL) {
        vf_store_bf16(b, t == NM_F32 ? load_row(src, NM_F32, i, k) : load_row(src, NM_BF16, i, k));
        vf_store((float *)dst + i, vf_of_bf16(b));
    }
    return 1;
}

NM_INLINE float rows_i8(int64_t k, const void *src, nm_dtype t, void *dst, const bool plus128)
{
    return t == NM_F32 ? quantise_row(k, src, NM_F32, plus128, dst) : quantise_row(k, src, NM_BF16, plus128, dst);
}
