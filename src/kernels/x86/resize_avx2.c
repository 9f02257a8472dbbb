/* resize_avx2.c - resize.h with AVX2. A weight is w = 4096 w1 + w0 with w0 in [-2048, 2047]; vpmaddwd adds two 16-bit
 * samples times two such halves, and 4096 s1 + s0 is the exact sum modulo 2^32.
 *
 * Horizontal, 3 or 4 channels: one register holds four taps of one output: taps 0, 1 of each channel (one dword each) in
 * the low lane, taps 2, 3 in the high lane. */
#include "kernels/resize.h"

#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>

#define TARGET __attribute__((target("avx2")))
#define LOW_BITS 12

static inline void split(int32_t w, int16_t part[2])
{
    int32_t low = w & ((1 << LOW_BITS) - 1);
    if (low >= 1 << (LOW_BITS - 1))
        low -= 1 << LOW_BITS;
    part[0] = (int16_t)low;
    part[1] = (int16_t)((w - low) / (1 << LOW_BITS));
}

static size_t packed_bytes(int n_out, int taps, int channels)
{
    return channels < 3 ? 0 : (size_t)n_out * (size_t)(taps / 4) * 16;
}

/* Per output and four taps: w0 of taps 0..3, then w1 of taps 0..3, as int16. */
static void pack(void *packed, const nm_resize_axis *a, int channels)
{
    int16_t *p = packed;
    if (channels < 3)
        return;
    for (size_t i = 0, n = (size_t)a->n_out * (size_t)a->taps; i < n; i += 4, p += 8)
        for (int k = 0; k < 4; k++) {
            int16_t part[2];
            split(a->weight[i + (size_t)k], part);
            p[k] = part[0];
            p[4 + k] = part[1];
        }
}

TARGET static inline __m128i finish(__m128i s0, __m128i s1)
{
    __m128i s = _mm_add_epi32(_mm_add_epi32(_mm_slli_epi32(s1, LOW_BITS), s0), _mm_set1_epi32(1 << (NM_RESIZE_BITS - 1)));
    return _mm_srai_epi32(s, NM_RESIZE_BITS);
}

TARGET static inline __m128i fold(__m256i v)
{
    return _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
}

TARGET static inline __m256i taps4(const unsigned char *s, __m256i shuffle)
{
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128((const void *)s)), shuffle);
}

/* Two rows at once share the weights. */
TARGET static void rows_pixels(unsigned char *d0, unsigned char *d1, const unsigned char *s0, const unsigned char *s1,
                               const nm_resize_axis *a, int channels)
{
    const char n = -1;
    const __m256i rgb = _mm256_setr_epi8(0, n, 3, n, 1, n, 4, n, 2, n, 5, n, n, n, n, n,
                                         6, n, 9, n, 7, n, 10, n, 8, n, 11, n, n, n, n, n);
    const __m256i rgba = _mm256_setr_epi8(0, n, 4, n, 1, n, 5, n, 2, n, 6, n, 3, n, 7, n,
                                          8, n, 12, n, 9, n, 13, n, 10, n, 14, n, 11, n, 15, n);
    const __m256i shuffle = channels == 3 ? rgb : rgba;
    const int64_t *p = a->packed;
    const __m256i spread = _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1);
    for (int x = 0; x < a->n_out; x++) {
        const unsigned char *q0 = s0 + a->start[x] * channels, *q1 = s1 + a->start[x] * channels;
        __m256i a0 = _mm256_setzero_si256(), a1 = a0, b0 = a0, b1 = a0;
        for (int t = 0; t < a->taps; t += 4, p += 2, q0 += 4 * channels, q1 += 4 * channels) {
            __m256i w = _mm256_castsi128_si256(_mm_loadu_si128((const void *)p));
            __m256i w0 = _mm256_permutevar8x32_epi32(w, spread);
            __m256i w1 = _mm256_permutevar8x32_epi32(w, _mm256_add_epi32(spread, _mm256_set1_epi32(2)));
            __m256i v = taps4(q0, shuffle);
            a0 = _mm256_add_epi32(a0, _mm256_madd_epi16(v, w0));
            a1 = _mm256_add_epi32(a1, _mm256_madd_epi16(v, w1));
            v = taps4(q1, shuffle);
            b0 = _mm256_add_epi32(b0, _mm256_madd_epi16(v, w0));
            b1 = _mm256_add_epi32(b1, _mm256_madd_epi16(v, w1));
        }
        __m128i r = _mm_packs_epi32(finish(fold(a0), fold(a1)), finish(fold(b0), fold(b1)));
        uint64_t out = (uint64_t)_mm_cvtsi128_si64(_mm_packus_epi16(r, r));
        uint32_t ra = (uint32_t)out, rb = (uint32_t)(out >> 32);
        memcpy(d0 + x * channels, &ra, (size_t)channels);
        memcpy(d1 + x * channels, &rb, (size_t)channels);
    }
}

TARGET static void horizontal(unsigned char *dst, size_t dst_stride, const unsigned char *src, size_t src_stride, int n_rows,
                              const nm_resize_axis *a, int channels)
{
    if (channels < 3) {
        nm_resize_ref.horizontal(dst, dst_stride, src, src_stride, n_rows, a, channels);
        return;
    }
    for (int y = 0; y < n_rows; y += 2) {
        size_t step = y + 1 < n_rows; /* a last single row is done twice */
        unsigned char *d = dst + (size_t)y * dst_stride;
        const unsigned char *s = src + (size_t)y * src_stride;
        if (channels == 3)
            rows_pixels(d, d + step * dst_stride, s, s + step * src_stride, a, 3);
        else
            rows_pixels(d, d + step * dst_stride, s, s + step * src_stride, a, 4);
    }
}

/* 16 columns: two rows interleaved to pairs of 16 bit. */
TARGET static void columns16(unsigned char *dst, const unsigned char *src, size_t stride, const int32_t *weight, int count)
{
    __m256i s0 = _mm256_setzero_si256(), s1 = s0, t0 = s0, t1 = s0;
    for (int i = 0; i < count; i += 2) {
        int16_t wa[2], wb[2] = { 0, 0 };
        split(weight[i], wa);
        __m128i ra = _mm_loadu_si128((const void *)(src + (size_t)i * stride)), rb = _mm_setzero_si128();
        if (i + 1 < count) {
            split(weight[i + 1], wb);
            rb = _mm_loadu_si128((const void *)(src + (size_t)(i + 1) * stride));
        }
        __m256i w0 = _mm256_set1_epi32((int)((uint32_t)(uint16_t)wa[0] | (uint32_t)(uint16_t)wb[0] << 16));
        __m256i w1 = _mm256_set1_epi32((int)((uint32_t)(uint16_t)wa[1] | (uint32_t)(uint16_t)wb[1] << 16));
        __m256i lo = _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(ra, rb)), hi = _mm256_cvtepu8_epi16(_mm_unpackhi_epi8(ra, rb));
        s0 = _mm256_add_epi32(s0, _mm256_madd_epi16(lo, w0));
        s1 = _mm256_add_epi32(s1, _mm256_madd_epi16(lo, w1));
        t0 = _mm256_add_epi32(t0, _mm256_madd_epi16(hi, w0));
        t1 = _mm256_add_epi32(t1, _mm256_madd_epi16(hi, w1));
    }
    const __m256i half = _mm256_set1_epi32(1 << (NM_RESIZE_BITS - 1));
    s0 = _mm256_add_epi32(_mm256_add_epi32(_mm256_slli_epi32(s1, LOW_BITS), s0), half);
    t0 = _mm256_add_epi32(_mm256_add_epi32(_mm256_slli_epi32(t1, LOW_BITS), t0), half);
    /* packs works per lane: s holds columns 0-7, t 8-15; after packs the quarters are s.lo t.lo s.hi t.hi */
    __m256i r = _mm256_packs_epi32(_mm256_srai_epi32(s0, NM_RESIZE_BITS), _mm256_srai_epi32(t0, NM_RESIZE_BITS));
    r = _mm256_permute4x64_epi64(r, 0xD8);
    _mm_storeu_si128((void *)dst, _mm_packus_epi16(_mm256_castsi256_si128(r), _mm256_extracti128_si256(r, 1)));
}

TARGET static void vertical(unsigned char *dst, const unsigned char *src, size_t stride, const int32_t *weight, int count, size_t n)
{
    size_t x = 0;
    for (; x + 16 <= n; x += 16)
        columns16(dst + x, src + x, stride, weight, count);
    if (x < n && n >= 16)
        columns16(dst + n - 16, src + n - 16, stride, weight, count);
    else if (x < n)
        nm_resize_ref.vertical(dst + x, src + x, stride, weight, count, n - x);
}

const nm_resize_kernels nm_resize_avx2 = { "avx2", packed_bytes, pack, horizontal, vertical };
#else
typedef int nm_resize_avx2_empty;
#endif
