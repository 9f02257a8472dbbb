/* tfresize.h - TensorFlow's bicubic resize (ResizeBicubicOp): four taps without antialias, fractions rounded to 1/1024, f32, no clipping. */
#ifndef NM_MEDIA_TFRESIZE_H
#define NM_MEDIA_TFRESIZE_H

#include <stdbool.h>
#include <stddef.h>

typedef enum nm_tf_cubic {
    NM_TF1_LEGACY,     /* source = i * scale, a = -0.75, indices held at the border */
    NM_TF2_HALF_PIXEL  /* source = (i + 0.5) * scale - 0.5, a = -0.5, taps outside dropped and the rest brought to sum 1 */
} nm_tf_cubic;

/* One output sample of an axis: source samples and their weights. */
typedef struct nm_tf_tap { int index[4]; float weight[4]; } nm_tf_tap;
void nm_tf_taps(nm_tf_cubic kind, int in, int out, nm_tf_tap *taps);

/* src u8 RGB [.., in_w, 3] with stride -> dst f32 [out_h, out_w, 3] on the 0..255 scale; first along y, then along x.
 * row: [in_w * 3] floats of working memory. */
void nm_tf_resize(const unsigned char *src, size_t stride, int in_w, float *dst, int out_w, int out_h, const nm_tf_tap *x, const nm_tf_tap *y,
                  float *row);

#endif
