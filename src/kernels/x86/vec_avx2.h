/* vec_avx2.h - the words of vec_avx512.h with 8 lanes (AVX2, FMA, F16C). */
#define VL 8
typedef __m256 vf;
typedef __m256i vi; /* VL units of 32 bits */

static const int32_t lane_masks[16] = { -1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0 };

NM_INLINE vi lanes(int64_t n) { return _mm256_loadu_si256((const vi *)(lane_masks + 8 - n)); }
NM_INLINE vf vf_set1(float x) { return _mm256_set1_ps(x); }
NM_INLINE vf vf_zero(void) { return _mm256_setzero_ps(); }
NM_INLINE vf vf_load(const float *p) { return _mm256_loadu_ps(p); }
NM_INLINE vf vf_load_n(const float *p, int64_t n) { return _mm256_maskload_ps(p, lanes(n)); }
NM_INLINE void vf_store(float *p, vf x) { _mm256_storeu_ps(p, x); }
NM_INLINE void vf_store_n(float *p, vf x, int64_t n) { _mm256_maskstore_ps(p, lanes(n), x); }
NM_INLINE vf vf_fill(vf x, int64_t n, float v) { return _mm256_blendv_ps(_mm256_set1_ps(v), x, _mm256_castsi256_ps(lanes(n))); }
NM_INLINE vf vf_add(vf a, vf b) { return _mm256_add_ps(a, b); }
NM_INLINE vf vf_sub(vf a, vf b) { return _mm256_sub_ps(a, b); }
NM_INLINE vf vf_mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
NM_INLINE vf vf_sqrt(vf a) { return _mm256_sqrt_ps(a); }
NM_INLINE vf vf_div(vf a, vf b) { return _mm256_div_ps(a, b); }
NM_INLINE vf vf_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
NM_INLINE vf vf_max(vf a, vf b) { return _mm256_max_ps(a, b); } /* b when either is NaN */
NM_INLINE vf vf_where_positive(vf x, vf y) { return _mm256_and_ps(_mm256_cmp_ps(x, _mm256_setzero_ps(), _CMP_GT_OQ), y); } /* y where x > 0, else 0 */

NM_INLINE float vf_sum(vf x)
{
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}

NM_INLINE float vf_hmax(vf x)
{
    __m128 q = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    q = _mm_max_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_max_ss(q, _mm_movehdup_ps(q)));
}

NM_INLINE vf vf_round(vf x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

/* x 2^n for x in [0.5, 2], n an integer, -200 <= n <= 127: two factors, so that subnormal results come out rounded once. */
NM_INLINE vf vf_scale2(vf x, vf n)
{
    vi k = _mm256_cvtps_epi32(n), h = _mm256_srai_epi32(k, 1), bias = _mm256_set1_epi32(127);
    vf a = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(h, bias), 23));
    vf b = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(k, h), bias), 23));
    return _mm256_mul_ps(_mm256_mul_ps(x, a), b);
}

NM_INLINE vi vi_load(const void *p) { return _mm256_loadu_si256(p); }
NM_INLINE vi vi_load_n(const void *p, int64_t n) { return _mm256_maskload_epi32(p, lanes(n)); }
NM_INLINE void vi_store(void *p, vi x) { _mm256_storeu_si256(p, x); }
NM_INLINE vi vi_zero(void) { return _mm256_setzero_si256(); }
NM_INLINE vi vi_of_f(vf x) { return _mm256_castps_si256(x); }

NM_INLINE __m128i load_u16_n(const uint16_t *p, int64_t n)
{
    uint16_t t[8] = { 0 };
    for (int64_t i = 0; i < n; i++)
        t[i] = p[i];
    return _mm_loadu_si128((const __m128i *)t);
}

NM_INLINE void store_u16_n(uint16_t *p, __m128i x, int64_t n)
{
    uint16_t t[8];
    _mm_storeu_si128((__m128i *)t, x);
    for (int64_t i = 0; i < n; i++)
        p[i] = t[i];
}

NM_INLINE vf widen_bf16(__m128i h) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16)); }
NM_INLINE vf vf_of_bf16(const uint16_t *p) { return widen_bf16(_mm_loadu_si128((const __m128i *)p)); }
NM_INLINE vf vf_of_bf16_n(const uint16_t *p, int64_t n) { return widen_bf16(load_u16_n(p, n)); }

/* The low 16 bits of 8 units; each unit is below 2^16. */
NM_INLINE __m128i narrow_u16(vi x) { return _mm_packus_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1)); }

/* Round to nearest even as nm_f32_to_bf16, subnormals and NaN included. */
NM_INLINE __m128i vf_to_bf16(vf x)
{
    vi u = _mm256_castps_si256(x), odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
    vi r = _mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF)));
    vi nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    r = _mm256_blendv_epi8(r, _mm256_or_si256(u, _mm256_set1_epi32(0x400000)), nan);
    return narrow_u16(_mm256_srli_epi32(r, 16));
}

NM_INLINE void vf_store_bf16(uint16_t *p, vf x) { _mm_storeu_si128((__m128i *)p, vf_to_bf16(x)); }
NM_INLINE void vf_store_bf16_n(uint16_t *p, vf x, int64_t n) { store_u16_n(p, vf_to_bf16(x), n); }

/* As nm_f16_to_f32: the hardware would make signalling NaN quiet. */
NM_INLINE vf widen_f16(__m128i h)
{
    vf x = _mm256_cvtph_ps(h), nan = _mm256_cmp_ps(x, x, _CMP_UNORD_Q);
    if (__builtin_expect(_mm256_movemask_ps(nan) == 0, 1))
        return x;
    vi u = _mm256_cvtepu16_epi32(h), sign = _mm256_slli_epi32(_mm256_and_si256(u, _mm256_set1_epi32(0x8000)), 16);
    vi man = _mm256_slli_epi32(_mm256_and_si256(u, _mm256_set1_epi32(0x3FF)), 13);
    vi bits = _mm256_or_si256(_mm256_or_si256(sign, man), _mm256_set1_epi32(0x7F800000));
    return _mm256_blendv_ps(x, _mm256_castsi256_ps(bits), nan);
}

NM_INLINE vf vf_of_f16(const uint16_t *p) { return widen_f16(_mm_loadu_si128((const __m128i *)p)); }
NM_INLINE vf vf_of_f16_n(const uint16_t *p, int64_t n) { return widen_f16(load_u16_n(p, n)); }

/* As nm_f32_to_f16: every NaN becomes sign | 0x7E00. */
NM_INLINE __m128i vf_to_f16(vf x)
{
    vf nan = _mm256_cmp_ps(x, x, _CMP_UNORD_Q), one = _mm256_castsi256_ps(_mm256_set1_epi32(0x7FC00000)); /* the NaN without payload */
    vf sign = _mm256_and_ps(x, _mm256_set1_ps(-0.0f));
    return _mm256_cvtps_ph(_mm256_blendv_ps(x, _mm256_or_ps(one, sign), nan), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

NM_INLINE void vf_store_f16(uint16_t *p, vf x) { _mm_storeu_si128((__m128i *)p, vf_to_f16(x)); }
NM_INLINE void vf_store_f16_n(uint16_t *p, vf x, int64_t n) { store_u16_n(p, vf_to_f16(x), n); }

NM_INLINE vf vf_of_i8(const int8_t *p) { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p))); }

NM_INLINE vf vf_of_i8_n(const int8_t *p, int64_t n)
{
    int8_t t[8] = { 0 };
    for (int64_t i = 0; i < n; i++)
        t[i] = p[i];
    return vf_of_i8(t);
}

/* VL rows of VL units become VL columns, in registers. */
NM_INLINE void vi_transpose(vi r[VL])
{
    vi t[VL];
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        r[i] = _mm256_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm256_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm256_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm256_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm256_permute2x128_si256(r[i], r[i + 4], 0x20);
        t[i + 4] = _mm256_permute2x128_si256(r[i], r[i + 4], 0x31);
    }
    for (int i = 0; i < 8; i++)
        r[i] = t[i];
}
