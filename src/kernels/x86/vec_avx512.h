/* vec_avx512.h - the vector words that the templates of this folder are written in, 16 lanes. Included inside a target region,
 * after immintrin.h. `_n` forms touch the first n lanes only (0 <= n <= VL) and read the others as 0. */
#define VL 16
typedef __m512 vf;
typedef __m512i vi; /* VL units of 32 bits */

NM_INLINE __mmask16 lanes(int64_t n) { return (__mmask16)((1u << n) - 1); }
NM_INLINE vf vf_set1(float x) { return _mm512_set1_ps(x); }
NM_INLINE vf vf_zero(void) { return _mm512_setzero_ps(); }
NM_INLINE vf vf_load(const float *p) { return _mm512_loadu_ps(p); }
NM_INLINE vf vf_load_n(const float *p, int64_t n) { return _mm512_maskz_loadu_ps(lanes(n), p); }
NM_INLINE void vf_store(float *p, vf x) { _mm512_storeu_ps(p, x); }
NM_INLINE void vf_store_n(float *p, vf x, int64_t n) { _mm512_mask_storeu_ps(p, lanes(n), x); }
/* lanes n.. become v */
NM_INLINE vf vf_fill(vf x, int64_t n, float v) { return _mm512_mask_mov_ps(_mm512_set1_ps(v), lanes(n), x); }
NM_INLINE vf vf_add(vf a, vf b) { return _mm512_add_ps(a, b); }
NM_INLINE vf vf_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
NM_INLINE vf vf_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
NM_INLINE vf vf_sqrt(vf a) { return _mm512_sqrt_ps(a); }
NM_INLINE vf vf_div(vf a, vf b) { return _mm512_div_ps(a, b); }
NM_INLINE vf vf_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
NM_INLINE vf vf_max(vf a, vf b) { return _mm512_max_ps(a, b); } /* b when either is NaN */
NM_INLINE vf vf_where_positive(vf x, vf y) { return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_GT_OQ), y); } /* y where x > 0, else 0 */

/* Halves are added to halves: the tree of the references. */
NM_INLINE float vf_sum(vf x)
{
    __m256 h = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}

NM_INLINE float vf_hmax(vf x)
{
    __m256 h = _mm256_max_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
    __m128 q = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    q = _mm_max_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_max_ss(q, _mm_movehdup_ps(q)));
}

NM_INLINE vf vf_round(vf x) { return _mm512_roundscale_ps(x, 8); }     /* to the nearest integer, ties to even */
NM_INLINE vf vf_scale2(vf x, vf n) { return _mm512_scalef_ps(x, n); } /* x 2^n, n an integer, -200 <= n <= 200 */

NM_INLINE vi vi_load(const void *p) { return _mm512_loadu_si512(p); }
NM_INLINE vi vi_load_n(const void *p, int64_t n) { return _mm512_maskz_loadu_epi32(lanes(n), p); }
NM_INLINE void vi_store(void *p, vi x) { _mm512_storeu_si512(p, x); }
NM_INLINE vi vi_zero(void) { return _mm512_setzero_si512(); }
NM_INLINE vi vi_of_f(vf x) { return _mm512_castps_si512(x); }

NM_INLINE vf vf_of_bf16(const uint16_t *p)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16));
}

NM_INLINE vf vf_of_bf16_n(const uint16_t *p, int64_t n)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes(n), p)), 16));
}

/* Round to nearest even as nm_f32_to_bf16, subnormals and NaN included. */
NM_INLINE __m256i vf_to_bf16(vf x)
{
    __m512i u = _mm512_castps_si512(x);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    __m512i r = _mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF)));
    r = _mm512_mask_or_epi32(r, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), u, _mm512_set1_epi32(0x400000));
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(r, 16));
}

NM_INLINE void vf_store_bf16(uint16_t *p, vf x) { _mm256_storeu_si256((__m256i *)p, vf_to_bf16(x)); }
NM_INLINE void vf_store_bf16_n(uint16_t *p, vf x, int64_t n) { _mm256_mask_storeu_epi16(p, lanes(n), vf_to_bf16(x)); }

/* As nm_f16_to_f32: the hardware would make signalling NaN quiet. */
NM_INLINE vf widen_f16(__m256i h)
{
    vf x = _mm512_cvtph_ps(h);
    __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    if (__builtin_expect(nan == 0, 1))
        return x;
    vi u = _mm512_cvtepu16_epi32(h), sign = _mm512_slli_epi32(_mm512_and_si512(u, _mm512_set1_epi32(0x8000)), 16);
    vi man = _mm512_slli_epi32(_mm512_and_si512(u, _mm512_set1_epi32(0x3FF)), 13);
    vi bits = _mm512_or_si512(_mm512_or_si512(sign, man), _mm512_set1_epi32(0x7F800000));
    return _mm512_castsi512_ps(_mm512_mask_mov_epi32(_mm512_castps_si512(x), nan, bits));
}

NM_INLINE vf vf_of_f16(const uint16_t *p) { return widen_f16(_mm256_loadu_si256((const __m256i *)p)); }
NM_INLINE vf vf_of_f16_n(const uint16_t *p, int64_t n) { return widen_f16(_mm256_maskz_loadu_epi16(lanes(n), p)); }

/* As nm_f32_to_f16: every NaN becomes sign | 0x7E00. */
NM_INLINE __m256i vf_to_f16(vf x)
{
    __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    vi u = _mm512_castps_si512(x), quiet = _mm512_or_si512(_mm512_and_si512(u, _mm512_set1_epi32(INT32_MIN)), _mm512_set1_epi32(0x7FC00000));
    return _mm512_cvtps_ph(_mm512_castsi512_ps(_mm512_mask_mov_epi32(u, nan, quiet)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

NM_INLINE void vf_store_f16(uint16_t *p, vf x) { _mm256_storeu_si256((__m256i *)p, vf_to_f16(x)); }
NM_INLINE void vf_store_f16_n(uint16_t *p, vf x, int64_t n) { _mm256_mask_storeu_epi16(p, lanes(n), vf_to_f16(x)); }

NM_INLINE vf vf_of_i8(const int8_t *p) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p))); }
NM_INLINE vf vf_of_i8_n(const int8_t *p, int64_t n) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(lanes(n), p))); }

/* VL rows of VL units become VL columns, in registers. */
NM_INLINE void vi_transpose(vi r[VL])
{
    vi t[VL];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xDD);
        t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xDD);
    }
    for (int i = 0; i < 4; i++) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
        r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xDD);
        r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xDD);
    }
}
