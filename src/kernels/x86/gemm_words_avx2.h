/* gemm_words_avx2.h - more words for the gemm templates, 8 lanes; after vec_avx2.h. */
#define PACK_PREFETCH 512 /* bytes ahead in each of the rows that are packed */

NM_INLINE vf vf_of_vi(vi x) { return _mm256_cvtepi32_ps(x); }
NM_INLINE vi vi_of_round(vf x) { return _mm256_cvtps_epi32(x); } /* to nearest even */
NM_INLINE vi vi_sub(vi a, vi b) { return _mm256_sub_epi32(a, b); }
NM_INLINE vi vi_times_128(vi x) { return _mm256_slli_epi32(x, 7); }
NM_INLINE void vi_stream(void *p, vi x) { _mm256_stream_si256((__m256i *)p, x); }

/* 2 VL values rounded to bf16, in order. */
NM_INLINE vi vi_halves(vf low, vf high) { return _mm256_set_m128i(vf_to_bf16(high), vf_to_bf16(low)); }

NM_INLINE vi vi_low_byte(vi x) { return _mm256_and_si256(x, _mm256_set1_epi32(255)); }

/* The low bytes of 4 VL integers, in order: packs work within 128-bit halves, the permutation puts the pieces right. */
NM_INLINE vi vi_bytes(vi a, vi b, vi c, vi d)
{
    vi low = _mm256_packus_epi32(vi_low_byte(a), vi_low_byte(b)), high = _mm256_packus_epi32(vi_low_byte(c), vi_low_byte(d));
    return _mm256_permutevar8x32_epi32(_mm256_packus_epi16(low, high), _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

NM_INLINE vi vi_xor_bytes_128(vi x) { return _mm256_xor_si256(x, _mm256_set1_epi8(-128)); } /* int8 + 128 as u8 */
NM_INLINE vi vi_bf16_bits(vf x) { return _mm256_cvtepu16_epi32(vf_to_bf16(x)); }
NM_INLINE vi vi_or_shifted(vi low, vi high, int bits) { return _mm256_or_si256(low, _mm256_slli_epi32(high, bits)); }

/* The two bf16 of each unit as f32. */
NM_INLINE vf vf_low_half(vi x) { return _mm256_castsi256_ps(_mm256_slli_epi32(x, 16)); }
NM_INLINE vf vf_high_half(vi x) { return _mm256_castsi256_ps(_mm256_and_si256(x, _mm256_set1_epi32((int)0xFFFF0000))); }
