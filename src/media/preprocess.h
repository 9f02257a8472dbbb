/* preprocess.h - from a decoded image to the tensor that a model gets, equal to the reference pipelines bit for bit.
 *
 * A pipeline is data: resize rule, interpolation, where the conversion to RGB happens, crop rounding, normalisation. The
 * named ones are in presets.c; open_clip and Hugging Face configuration files are read by preprocess_json.c. */
#ifndef NM_PREPROCESS_H
#define NM_PREPROCESS_H

#include <jansson.h>

#include "media/image.h"
#include "media/resize.h"

typedef enum nm_fit {
    NM_FIT_NONE,     /* no resize; cropped if size is set */
    NM_FIT_SHORTEST, /* shortest edge to `edge` (or so that size is covered), then centre crop */
    NM_FIT_LONGEST,  /* inside size, padded to it */
    NM_FIT_SQUASH,   /* straight to size */
    NM_FIT_CROP_TF,  /* the centre square cut out first, then TensorFlow 1's bicubic in f32, not rounded: FLIP */
    NM_FIT_PAD       /* padded with black to a square, floor(d / 2) before, then squashed: Alpha-CLIP's training */
} nm_fit;

typedef enum nm_colour_order {
    NM_OWN_MODE,    /* resize in the file's own mode, RGB afterwards: OpenAI, open_clip */
    NM_RGB_FIRST,   /* RGB first, alpha dropped: transformers 4, BLIP's authors */
    NM_RGB_ON_WHITE /* RGB first, transparency over white: transformers 5 */
} nm_colour_order;

typedef enum nm_crop_rule {
    NM_CROP_HALF_EVEN, /* torchvision: round((n - size) / 2) to even; a pad's odd pixel goes right, bottom */
    NM_CROP_FLOOR      /* transformers: floor; a pad's odd pixel goes left, top */
} nm_crop_rule;

typedef enum nm_scale_rule {
    NM_SCALE_TORCH,     /* (v / 255 - mean) / std in f32 */
    NM_SCALE_HF,        /* f32 of (double)v * rescale, then (x - mean) / std in f32 */
    NM_SCALE_HF_FUSED   /* (v - mean * 255) / (std * 255) in f32: transformers' torchvision backend */
} nm_scale_rule;

typedef struct nm_preprocess {
    nm_fit fit;
    int size_h, size_w;   /* of the result; 0, 0: that of the resized picture */
    int squash_h, squash_w; /* squash: the resized size when a smaller centre is cut out of it; 0, 0: size */
    int edge;             /* shortest: the edge's new length; 0 = cover size_h x size_w (open_clip) */
    nm_filter filter;
    nm_colour_order order;
    nm_crop_rule crop;
    int fill;             /* pad sample, in the mode that is resized */
    nm_scale_rule scale;
    double rescale;       /* NM_SCALE_HF: usually 1/255 */
    bool normalise;       /* false: scaled only */
    float mean[3], std[3];
} nm_preprocess;

/* "openai", "hf4_clip", "hf5_clip", "hf5_siglip", "hf5_blip", "blip", "flip", "none". An unknown name lists the known ones. */
noema_status nm_preprocess_named(nm_preprocess *p, const char *name, int size_h, int size_w, noema_error *err);
const char *nm_preprocess_names(void); /* "openai, hf4_clip, ..." */

/* Constants that several families' model files share. */
extern const float nm_mean_openai[3], nm_std_openai[3], nm_mean_imagenet[3], nm_std_imagenet[3];

/* An open_clip configuration (an object with preprocess_cfg; `size` from model_cfg.vision_cfg.image_size when absent), or a
 * Hugging Face preprocessor_config.json (read as transformers 5 with its PIL backend). `name` is for messages. */
noema_status nm_preprocess_from_json(nm_preprocess *p, const json_t *config, const char *name, noema_error *err);
noema_status nm_preprocess_from_file(nm_preprocess *p, const char *path, noema_error *err);

/* A canonical text of everything that changes the numbers; equal texts, equal tensors. For embedding files. Returns its
 * length; at most 511 bytes. */
int nm_preprocess_identity(const nm_preprocess *p, char text[512]);

/* Scratch memory and cached weights of one thread; reused from call to call, so that a warm call allocates nothing. */
typedef struct nm_preprocess_scratch nm_preprocess_scratch;
nm_preprocess_scratch *nm_preprocess_scratch_new(void);
void nm_preprocess_scratch_free(nm_preprocess_scratch *s);

/* The geometry of one picture: what is resized, which part of that is kept (span), and where it goes in the result. */
typedef struct nm_placement { nm_resize_span span[2]; int at[2], out[2]; } nm_placement; /* x, y */
noema_status nm_preprocess_place(const nm_preprocess *p, int width, int height, nm_placement *g, noema_error *err);

/* Size of the result for a picture of that size. */
noema_status nm_preprocess_size(const nm_preprocess *p, int width, int height, int *out_h, int *out_w, noema_error *err);

/* u8: [H, W, 3] before normalisation; f32: [3, H, W]. */
noema_status nm_preprocess_run_u8(const nm_preprocess *p, nm_preprocess_scratch *s, const nm_image *im, unsigned char *out,
                                  noema_error *err);
noema_status nm_preprocess_run(const nm_preprocess *p, nm_preprocess_scratch *s, const nm_image *im, float *out,
                               noema_error *err);

/* NM_FIT_CROP_TF: a window of the picture through TensorFlow 2's bicubic, mirrored on demand, normalised: f32 [3, size_h, size_w]. FLIP's
 * training pictures. */
noema_status nm_preprocess_run_window(const nm_preprocess *p, nm_preprocess_scratch *s, const nm_image *im, nm_rect window, bool mirror, float *out,
                                      noema_error *err);

/* Decodes only what the pipeline reads, into the scratch; *im stays valid until the next load. Its size and mode are those
 * of the file; pixels that the pipeline does not read are undefined. */
noema_status nm_preprocess_load(const nm_preprocess *p, nm_preprocess_scratch *s, const char *path, const nm_image_options *o,
                                const nm_image **im, noema_error *err);
noema_status nm_preprocess_load_bytes(const nm_preprocess *p, nm_preprocess_scratch *s, const void *bytes, size_t n,
                                      const char *name, const nm_image_options *o, const nm_image **im, noema_error *err);

/* A mask f32 [h, w] through the geometry of a pipeline: out f32 [H, W] as for a picture of that size, bilinear with antialias
 * in f32 whatever the pipeline's filter is, edges fractional; 0 where the picture is padded. */
noema_status nm_preprocess_mask(const nm_preprocess *p, nm_preprocess_scratch *s, const float *mask, int w, int h, float *out,
                                noema_error *err);

/* Masks f32 [height, width] of 0 and 1: pixels whose channel 0 (of the RGB conversion) or alpha is 255; a filled box, pixels
 * x0 <= x < x1, clipped. */
void nm_mask_from_image(float *mask, const nm_image *im);
void nm_mask_from_alpha(float *mask, const nm_image *im);
void nm_mask_from_box(float *mask, int width, int height, int x0, int y0, int x1, int y1);

/* Normalised value of every byte, [3, 256]. */
void nm_preprocess_lut(const nm_preprocess *p, float lut[3][256]);

#endif
