/* augment.h - pictures of a training batch as open_clip's training transform makes them (open_clip transform.py, image_transform with
 * is_train), with torchvision's rules: random resized crop, colour jitter, grey; and two for small pictures: padded crop, mirror.
 * Everything drawn comes from one stream of random numbers, so that a row's picture depends on seed, step and place alone. */
#ifndef NM_AUGMENT_H
#define NM_AUGMENT_H

#include "base/rng.h"
#include "media/preprocess.h"

typedef struct nm_augment {
    double scale[2], ratio[2]; /* of the random resized crop: share of the area, width / height */
    double jitter[4];          /* brightness, contrast, saturation: factor in [1 - x, 1 + x]; hue: turn in [-x, x] of a circle; 0: off */
    double jitter_prob, gray_prob, hflip;
    int pad_crop;              /* > 0: the picture at its size, padded by so many pixels and cropped, in place of the resized crop */
} nm_augment;

void nm_augment_default(nm_augment *a); /* open_clip's: scale 0.9..1, ratio 3/4..4/3, nothing else */
/* "scale=0.5,1 ratio=0.75,1.33 color_jitter=0.4,0.4,0.4,0.1 color_jitter_prob=0.8 gray_scale_prob=0.2 hflip=0.5 pad_crop=4", separated by
 * blanks or ";"; what is not named keeps its value. */
noema_status nm_augment_parse(nm_augment *a, const char *text, noema_error *err);

/* Memory of one thread. */
typedef struct nm_augment_scratch { nm_image crop; unsigned char *pixels; size_t cap; } nm_augment_scratch;
void nm_augment_scratch_free(nm_augment_scratch *s);

/* picture -> f32 [3, size_h, size_w] of the rule, whose filter and normalisation count. */
noema_status nm_augment_run(const nm_augment *a, const nm_preprocess *rule, nm_preprocess_scratch *p, nm_augment_scratch *s, const nm_image *picture,
                            nm_rng *r, float *out, noema_error *err);

/* A window of drawn area and shape; false: ten of them did not fit. */
bool nm_augment_crop(const nm_augment *a, nm_rng *r, int width, int height, nm_rect *crop);

/* For the tests: torchvision's adjust_* on u8 RGB [n, 3], in place. */
void nm_adjust_brightness(unsigned char *rgb, size_t n, double factor);
void nm_adjust_contrast(unsigned char *rgb, size_t n, double factor);
void nm_adjust_saturation(unsigned char *rgb, size_t n, double factor);
void nm_adjust_hue(unsigned char *rgb, size_t n, double turn);
void nm_to_gray(unsigned char *rgb, size_t n);

#endif
