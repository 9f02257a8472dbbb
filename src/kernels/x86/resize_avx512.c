/* resize_avx512.c - resize.h with AVX-512 VNNI. A 23-bit weight is three signed bytes, w = 65536 w2 + 256 w1 + w0, so
 * that vpdpbusd adds four samples times four weights at once, and 65536 s2 + 256 s1 + s0 is the exact sum modulo 2^32.
 *
 * Horizontal, 3 or 4 channels: one register holds four outputs (a 128-bit lane each, its samples loaded from where that
 * output starts), each lane its channels (one dword each) of four taps. One channel: 16 outputs, one dword of taps each. */
#include "kernels/resize.h"

#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>

#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")))

static inline void split(int32_t w, signed char part[3])
{
    part[0] = (signed char)(w & 0xFF);
    w = (w - part[0]) / 256;
    part[1] = (signed char)(w & 0xFF);
    part[2] = (signed char)((w - part[1]) / 256);
}

/* Outputs per register. */
static int group(int channels) { return channels == 1 ? 16 : 4; }

static size_t packed_bytes(int n_out, int taps, int channels)
{
    size_t groups = ((size_t)n_out + (size_t)group(channels) - 1) / (size_t)group(channels);
    return channels == 2 ? 0 : groups * (size_t)(taps / 4) * 192 + groups * 64;
}

/* Per group of outputs: 16 dwords of start offsets in bytes, then per four taps three registers of weights (w0, w1, w2).
 * The outputs of the last group past n_out repeat the last output's start with zero weights. */
static void pack(void *packed, const nm_resize_axis *a, int channels)
{
    if (channels == 2)
        return;
    unsigned char *p = packed;
    int g = group(channels), lane = 64 / g; /* bytes per output */
    for (int x = 0; x < a->n_out; x += g) {
        int32_t at[16] = { 0 };
        for (int o = 0; o < g; o++)
            at[o] = a->start[x + o < a->n_out ? x + o : a->n_out - 1] * channels;
        memcpy(p, at, 64);
        p += 64;
        for (int t = 0; t < a->taps; t += 4, p += 192)
            for (int o = 0; o < g; o++)
                for (int i = 0; i < 4; i++) {
                    signed char part[3] = { 0 };
                    if (x + o < a->n_out)
                        split(a->weight[(size_t)(x + o) * (size_t)a->taps + (size_t)(t + i)], part);
                    for (int k = 0; k < 3; k++)
                        for (int c = 0; c < lane / 4; c++)
                            p[64 * k + o * lane + 4 * c + i] = (unsigned char)part[k];
                }
    }
}

TARGET static inline __m512i finish(__m512i s0, __m512i s1, __m512i s2)
{
    __m512i s = _mm512_add_epi32(_mm512_slli_epi32(s2, 16), _mm512_slli_epi32(s1, 8));
    s = _mm512_add_epi32(_mm512_add_epi32(s, s0), _mm512_set1_epi32(1 << (NM_RESIZE_BITS - 1)));
    return _mm512_srai_epi32(s, NM_RESIZE_BITS);
}

TARGET static inline __m128i clip8(__m512i v)
{
    return _mm512_cvtusepi32_epi8(_mm512_max_epi32(v, _mm512_setzero_si512()));
}

TARGET static inline __m512i load4(const unsigned char *s, const int32_t *at)
{
    __m512i v = _mm512_castsi128_si512(_mm_loadu_si128((const void *)(s + at[0])));
    v = _mm512_mask_broadcast_i32x4(v, 0x00F0, _mm_loadu_si128((const void *)(s + at[1])));
    v = _mm512_mask_broadcast_i32x4(v, 0x0F00, _mm_loadu_si128((const void *)(s + at[2])));
    return _mm512_mask_broadcast_i32x4(v, 0xF000, _mm_loadu_si128((const void *)(s + at[3])));
}

/* Two rows at once share the weights. `shuffle` brings the samples of a lane from pixels to channels: r0 r1 r2 r3 g0 ... */
TARGET static void rows_pixels(unsigned char *d0, unsigned char *d1, const unsigned char *s0, const unsigned char *s1,
                               const nm_resize_axis *a, int channels)
{
    const unsigned char *p = a->packed;
    const __m128i order = channels == 3 ? _mm_setr_epi8(0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11, -1, -1, -1, -1)
                                        : _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m512i shuffle = _mm512_broadcast_i32x4(order);
    const __m128i squeeze = _mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1);
    for (int x = 0; x < a->n_out; x += 4) {
        const int32_t *at = (const int32_t *)(const void *)p;
        __m512i a0 = _mm512_setzero_si512(), a1 = a0, a2 = a0, b0 = a0, b1 = a0, b2 = a0;
        const unsigned char *q0 = s0, *q1 = s1;
        p += 64;
        for (int t = 0; t < a->taps; t += 4, p += 192, q0 += 4 * channels, q1 += 4 * channels) {
            __m512i w0 = _mm512_load_si512(p), w1 = _mm512_load_si512(p + 64), w2 = _mm512_load_si512(p + 128);
            __m512i v = _mm512_shuffle_epi8(load4(q0, at), shuffle);
            a0 = _mm512_dpbusd_epi32(a0, v, w0);
            a1 = _mm512_dpbusd_epi32(a1, v, w1);
            a2 = _mm512_dpbusd_epi32(a2, v, w2);
            v = _mm512_shuffle_epi8(load4(q1, at), shuffle);
            b0 = _mm512_dpbusd_epi32(b0, v, w0);
            b1 = _mm512_dpbusd_epi32(b1, v, w1);
            b2 = _mm512_dpbusd_epi32(b2, v, w2);
        }
        __m128i ra = clip8(finish(a0, a1, a2)), rb = clip8(finish(b0, b1, b2));
        if (channels == 3)
            ra = _mm_shuffle_epi8(ra, squeeze), rb = _mm_shuffle_epi8(rb, squeeze);
        int left = (a->n_out - x) * channels, full = 4 * channels;
        __mmask16 m = (__mmask16)((1u << (left < full ? left : full)) - 1);
        _mm_mask_storeu_epi8(d0 + x * channels, m, ra);
        _mm_mask_storeu_epi8(d1 + x * channels, m, rb);
    }
}

TARGET static void rows_grey(unsigned char *d0, unsigned char *d1, const unsigned char *s0, const unsigned char *s1,
                             const nm_resize_axis *a)
{
    const unsigned char *p = a->packed;
    for (int x = 0; x < a->n_out; x += 16) {
        __m512i at = _mm512_load_si512(p), a0 = _mm512_setzero_si512(), a1 = a0, a2 = a0, b0 = a0, b1 = a0, b2 = a0;
        const unsigned char *q0 = s0, *q1 = s1;
        p += 64;
        for (int t = 0; t < a->taps; t += 4, p += 192, q0 += 4, q1 += 4) {
            __m512i w0 = _mm512_load_si512(p), w1 = _mm512_load_si512(p + 64), w2 = _mm512_load_si512(p + 128);
            __m512i v = _mm512_i32gather_epi32(at, q0, 1);
            a0 = _mm512_dpbusd_epi32(a0, v, w0);
            a1 = _mm512_dpbusd_epi32(a1, v, w1);
            a2 = _mm512_dpbusd_epi32(a2, v, w2);
            v = _mm512_i32gather_epi32(at, q1, 1);
            b0 = _mm512_dpbusd_epi32(b0, v, w0);
            b1 = _mm512_dpbusd_epi32(b1, v, w1);
            b2 = _mm512_dpbusd_epi32(b2, v, w2);
        }
        int left = a->n_out - x;
        __mmask16 m = (__mmask16)(left < 16 ? (1u << left) - 1 : 0xFFFF);
        _mm_mask_storeu_epi8(d0 + x, m, clip8(finish(a0, a1, a2)));
        _mm_mask_storeu_epi8(d1 + x, m, clip8(finish(b0, b1, b2)));
    }
}

TARGET static void horizontal(unsigned char *dst, size_t dst_stride, const unsigned char *src, size_t src_stride, int n_rows,
                              const nm_resize_axis *a, int channels)
{
    if (channels == 2) {
        nm_resize_ref.horizontal(dst, dst_stride, src, src_stride, n_rows, a, channels);
        return;
    }
    for (int y = 0; y < n_rows; y += 2) {
        size_t step = y + 1 < n_rows; /* a last single row is done twice */
        unsigned char *d = dst + (size_t)y * dst_stride;
        const unsigned char *s = src + (size_t)y * src_stride;
        if (channels == 1)
            rows_grey(d, d + step * dst_stride, s, s + step * src_stride, a);
        else if (channels == 3)
            rows_pixels(d, d + step * dst_stride, s, s + step * src_stride, a, 3);
        else
            rows_pixels(d, d + step * dst_stride, s, s + step * src_stride, a, 4);
    }
}

/* 64 columns at once: four rows are interleaved to dwords of four taps; packing back undoes the interleaving order. */
TARGET static void vertical(unsigned char *dst, const unsigned char *src, size_t stride, const int32_t *weight, int count, size_t n)
{
    for (size_t x = 0; x < n; x += 64) {
        __mmask64 m = n - x < 64 ? ((__mmask64)1 << (n - x)) - 1 : ~(__mmask64)0;
        __m512i s[4][3];
        for (int j = 0; j < 4; j++)
            s[j][0] = s[j][1] = s[j][2] = _mm512_setzero_si512();
        for (int i = 0; i < count; i += 4) {
            signed char part[4][3] = { { 0 } };
            __m512i r[4];
            for (int k = 0; k < 4; k++) {
                r[k] = _mm512_setzero_si512();
                if (i + k < count) {
                    split(weight[i + k], part[k]);
                    r[k] = _mm512_maskz_loadu_epi8(m, src + (size_t)(i + k) * stride + x);
                }
            }
            __m512i lo01 = _mm512_unpacklo_epi8(r[0], r[1]), hi01 = _mm512_unpackhi_epi8(r[0], r[1]);
            __m512i lo23 = _mm512_unpacklo_epi8(r[2], r[3]), hi23 = _mm512_unpackhi_epi8(r[2], r[3]);
            __m512i v[4] = { _mm512_unpacklo_epi16(lo01, lo23), _mm512_unpackhi_epi16(lo01, lo23),
                             _mm512_unpacklo_epi16(hi01, hi23), _mm512_unpackhi_epi16(hi01, hi23) };
            for (int k = 0; k < 3; k++) {
                __m512i w = _mm512_set1_epi32((int)((uint32_t)(unsigned char)part[0][k] | (uint32_t)(unsigned char)part[1][k] << 8 |
                                                    (uint32_t)(unsigned char)part[2][k] << 16 | (uint32_t)(unsigned char)part[3][k] << 24));
                for (int j = 0; j < 4; j++)
                    s[j][k] = _mm512_dpbusd_epi32(s[j][k], v[j], w);
            }
        }
        __m512i o[4];
        for (int j = 0; j < 4; j++)
            o[j] = finish(s[j][0], s[j][1], s[j][2]);
        __m512i lo = _mm512_packs_epi32(o[0], o[1]), hi = _mm512_packs_epi32(o[2], o[3]);
        _mm512_mask_storeu_epi8(dst + x, m, _mm512_packus_epi16(lo, hi));
    }
}

const nm_resize_kernels nm_resize_avx512 = { "avx512", packed_bytes, pack, horizontal, vertical };
#else
typedef int nm_resize_avx512_empty;
#endif
