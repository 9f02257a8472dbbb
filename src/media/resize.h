/* resize.h - Pillow's Image.resize, bit for bit, restricted to the part of the result that survives a crop. */
#ifndef NM_MEDIA_RESIZE_H
#define NM_MEDIA_RESIZE_H

#include <stdbool.h>

#include "base/err.h"
#include "kernels/resize.h"
#include "media/image.h"

/* Numbers as in Pillow and in preprocessor_config.json. */
typedef enum nm_filter { NM_NEAREST = 0, NM_LANCZOS = 1, NM_BILINEAR = 2, NM_BICUBIC = 3, NM_BOX = 4, NM_HAMMING = 5 } nm_filter;

const char *nm_filter_name(nm_filter f);
bool nm_filter_from_name(const char *name, nm_filter *f);

/* One axis: `in` samples become `out`, of which [crop0, crop1) are wanted. */
typedef struct nm_resize_span { int in; int64_t out, crop0, crop1; } nm_resize_span;

/* Everything that depends on sizes only: weights and the source rectangle. Kept for the next picture of equal sizes. */
typedef struct nm_resize_plan {
    nm_filter filter;
    int channels;              /* 1..4 samples of 8 bit; 0: one sample of 16 bit */
    nm_resize_span span[2];    /* x, y */
    const nm_resize_kernels *kernels;
    bool pass[2];              /* an axis whose size does not change is copied, not filtered */
    bool vertical_first;       /* see resize.c */
    nm_rect need;              /* the part of the source that is read */
    nm_resize_axis axis[2];
    double *wide[2];           /* 16 bit: [n_out, taps] unrounded weights */
    int *map[2];               /* nearest: source sample of each output */
    void *mem[2], *packed, *tmp; /* grown, never shrunk */
    size_t mem_cap[2], packed_cap, tmp_cap;
} nm_resize_plan;

/* A plan starts as zeros. Does nothing when it is already for these arguments. kernels NULL: the best of this machine. */
noema_status nm_resize_plan_set(nm_resize_plan *p, const nm_resize_kernels *kernels, nm_filter filter, int channels,
                                nm_resize_span x, nm_resize_span y, noema_error *err);
void nm_resize_plan_free(nm_resize_plan *p);

/* dst [crop_h, crop_w * channels] <- src, a whole picture of which only plan->need is read (NM_RESIZE_OVERREAD bytes past
 * it must be readable). */
noema_status nm_resize_run(nm_resize_plan *p, unsigned char *dst, size_t dst_stride, const unsigned char *src,
                           size_t src_stride, noema_error *err);

/* Image.resize for whole pictures in any mode, with Pillow's rules: P and 1 nearest, LA and RGBA premultiplied. */
noema_status nm_image_resize(nm_image *dst, const nm_image *src, int width, int height, nm_filter filter, noema_error *err);

/* Pillow's premultiplication (Convert.c: rgba2rgbA, rgbA2rgba) on n pixels of 4 (RGBA) or 2 (LA) channels. */
void nm_premultiply(unsigned char *dst, const unsigned char *src, int n, int channels);
void nm_unpremultiply(unsigned char *p, int n, int channels);

#endif
