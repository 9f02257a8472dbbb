/* resize_ref.c - see resize.h: the specification of the two passes, and the selection. */
#include "kernels/resize.h"

#include "base/cpu.h"

static size_t packed_bytes(int n_out, int taps, int channels)
{
    (void)n_out, (void)taps, (void)channels;
    return 0;
}

static void pack(void *packed, const nm_resize_axis *axis, int channels) { (void)packed, (void)axis, (void)channels; }

static void horizontal(unsigned char *dst, size_t dst_stride, const unsigned char *src, size_t src_stride, int n_rows,
                       const nm_resize_axis *a, int channels)
{
    for (int y = 0; y < n_rows; y++, dst += dst_stride, src += src_stride)
        for (int x = 0; x < a->n_out; x++) {
            const int32_t *w = a->weight + (size_t)x * (size_t)a->taps + (a->first[x] - a->start[x]);
            const unsigned char *s = src + (size_t)a->first[x] * (size_t)channels;
            for (int c = 0; c < channels; c++) {
                uint32_t sum = 1u << (NM_RESIZE_BITS - 1);
                for (int i = 0; i < a->count[x]; i++)
                    sum += (uint32_t)s[i * channels + c] * (uint32_t)w[i];
                dst[x * channels + c] = nm_resize_clip8(sum);
            }
        }
}

static void vertical(unsigned char *dst, const unsigned char *src, size_t stride, const int32_t *weight, int count, size_t n)
{
    for (size_t x = 0; x < n; x++) {
        uint32_t sum = 1u << (NM_RESIZE_BITS - 1);
        for (int i = 0; i < count; i++)
            sum += (uint32_t)src[(size_t)i * stride + x] * (uint32_t)weight[i];
        dst[x] = nm_resize_clip8(sum);
    }
}

const nm_resize_kernels nm_resize_ref = { "ref", packed_bytes, pack, horizontal, vertical };

const nm_resize_kernels *nm_resize_select(uint32_t features)
{
#if defined(__x86_64__)
    if ((features & NM_CPU_AVX512) && (features & NM_CPU_AVX512_VNNI))
        return &nm_resize_avx512;
    if (features & NM_CPU_AVX2)
        return &nm_resize_avx2;
#endif
    (void)features;
    return &nm_resize_ref;
}
