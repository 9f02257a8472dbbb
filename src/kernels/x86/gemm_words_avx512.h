/* gemm_words_avx512.h - more words for the gemm templates, 16 lanes; after vec_avx512.h. */
#define PACK_PREFETCH 512 /* bytes ahead in each of the rows that are packed */

NM_INLINE vf vf_of_vi(vi x) { return _mm512_cvtepi32_ps(x); }
NM_INLINE vi vi_of_round(vf x) { return _mm512_cvtps_epi32(x); } /* to nearest even */
NM_INLINE vi vi_sub(vi a, vi b) { return _mm512_sub_epi32(a, b); }
NM_INLINE vi vi_times_128(vi x) { return _mm512_slli_epi32(x, 7); }
NM_INLINE void vi_stream(void *p, vi x) { _mm512_stream_si512(p, x); }

NM_INLINE vi join256(__m256i low, __m256i high) { return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1); }

/* 2 VL values rounded to bf16, in order. */
NM_INLINE vi vi_halves(vf low, vf high) { return join256(vf_to_bf16(low), vf_to_bf16(high)); }

/* The low bytes of 4 VL integers, in order. */
NM_INLINE vi vi_bytes(vi a, vi b, vi c, vi d)
{
    return join256(_mm256_set_m128i(_mm512_cvtepi32_epi8(b), _mm512_cvtepi32_epi8(a)), _mm256_set_m128i(_mm512_cvtepi32_epi8(d), _mm512_cvtepi32_epi8(c)));
}

NM_INLINE vi vi_xor_bytes_128(vi x) { return _mm512_xor_si512(x, _mm512_set1_epi8(-128)); } /* int8 + 128 as u8 */
NM_INLINE vi vi_low_byte(vi x) { return _mm512_and_si512(x, _mm512_set1_epi32(255)); }
NM_INLINE vi vi_bf16_bits(vf x) { return _mm512_cvtepu16_epi32(vf_to_bf16(x)); }
NM_INLINE vi vi_or_shifted(vi low, vi high, int bits) { return _mm512_or_si512(low, _mm512_slli_epi32(high, (unsigned)bits)); }

/* The two bf16 of each unit as f32. */
NM_INLINE vf vf_low_half(vi x) { return _mm512_castsi512_ps(_mm512_slli_epi32(x, 16)); }
NM_INLINE vf vf_high_half(vi x) { return _mm512_castsi512_ps(_mm512_and_si512(x, _mm512_set1_epi32((int)0xFFFF0000))); }
