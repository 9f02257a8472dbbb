/* resize.h - the two passes of Pillow's 8-bit resampling (libImaging/Resample.c), as kernels.
 *
 * Contract: result = clip8((2^21 + sum of sample * weight) >> 22), sums modulo 2^32, so every path gives the same bits.
 * The weights of one output are `taps` consecutive integers, zero outside its real support. Kernels may read up to
 * NM_RESIZE_OVERREAD bytes past the samples that they need. */
#ifndef NM_KERNELS_RESIZE_H
#define NM_KERNELS_RESIZE_H

#include <stddef.h>
#include <stdint.h>

#define NM_RESIZE_OVERREAD 32
#define NM_RESIZE_BITS 22 /* fraction bits of the weights */

typedef struct nm_resize_axis {
    int n_out;             /* outputs */
    int taps;              /* weights per output, a multiple of 4 */
    const int32_t *start;  /* [n_out] source sample of weight 0 */
    const int32_t *first;  /* [n_out] first sample with weight, >= start */
    const int32_t *count;  /* [n_out] samples with weight */
    const int32_t *weight; /* [n_out, taps] */
    const void *packed;    /* the weights once more as the kernels' pack function laid them out; horizontal only */
} nm_resize_axis;

typedef struct nm_resize_kernels {
    const char *name;
    /* Bytes of axis->packed, and filling it (64-byte aligned). */
    size_t (*packed_bytes)(int n_out, int taps, int channels);
    void (*pack)(void *packed, const nm_resize_axis *axis, int channels);
    /* dst [n_rows, n_out * channels] <- src [n_rows, columns * channels]; channels 1, 2, 3 or 4. */
    void (*horizontal)(unsigned char *dst, size_t dst_stride, const unsigned char *src, size_t src_stride, int n_rows,
                       const nm_resize_axis *axis, int channels);
    /* dst [n] <- sum over i < count of src[i * stride + x] * weight[i]. */
    void (*vertical)(unsigned char *dst, const unsigned char *src, size_t stride, const int32_t *weight, int count, size_t n);
} nm_resize_kernels;

/* The best set that `features` (nm_cpu_features, or a mask in tests) allows. */
const nm_resize_kernels *nm_resize_select(uint32_t features);

extern const nm_resize_kernels nm_resize_ref;
#if defined(__x86_64__)
extern const nm_resize_kernels nm_resize_avx2, nm_resize_avx512;
#endif

static inline unsigned char nm_resize_clip8(uint32_t sum)
{
    int v = (int32_t)sum >> NM_RESIZE_BITS;
    return (unsigned char)(v < 0 ? 0 : v > 255 ? 255 : v);
}

#endif
