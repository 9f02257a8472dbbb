/* noema/model.h - open a checkpoint, embed texts and pictures.
 *
 * A model is immutable once open and may be shared by threads; a session holds the working memory of one caller at a time.
 * Vectors are f32, row-major, [n, embed_dim]. Results do not depend on batch size, neighbours in the batch or threads. */
#ifndef NOEMA_MODEL_H
#define NOEMA_MODEL_H

#include <stddef.h>
#include <stdint.h>

#include "noema/context.h"
#include "noema/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct noema_model noema_model;
typedef struct noema_session noema_session;

typedef enum noema_dtype {
    NOEMA_DTYPE_AUTO = 0, /* bf16 where the CPU has bf16 dot products, else f32 */
    NOEMA_DTYPE_F32 = 1,
    NOEMA_DTYPE_BF16 = 2,
    NOEMA_DTYPE_F16 = 3,  /* stored as f16, computed in f32 */
    NOEMA_DTYPE_INT8 = 4  /* int8 weights and activations in the transformer blocks */
} noema_dtype;

typedef struct noema_model_options {
    size_t struct_size;
    noema_dtype dtype;
    const char *tokenizer;    /* file or folder; NULL: beside the checkpoint */
    const char *config;       /* JSON file; NULL: beside the checkpoint, from the tensors' shapes, or the published name */
    const char *preprocess;   /* file or name that replaces the model's own image preprocessing; NULL: the model's */
    int image_height, image_width; /* another input size (the position table is resized as the reference does); 0: the model's */
    int activation;           /* 0: by config or identity; 1: QuickGELU; 2: GELU - for checkpoints that do not say */
    int offline;              /* 1: never open a socket (also HF_HUB_OFFLINE) */
    const char *vision;       /* BLIP-2: file of the image encoder; NULL: in the checkpoint or beside it */
    const char *language_model; /* BLIP-2: folder of the language model and its tokenizer; NULL: in the checkpoint */
    int weights;              /* 0: 1 where the packed copies fit into memory, else 2; 1: packed for the products at first use; 2: read
                               * from the mapped file in each product: slower, little memory, the same numbers */
    void *reserved[13];
} noema_model_options;

NOEMA_API void noema_model_options_default(noema_model_options *o);

/* The model that comes with noema (docs/models/noema-mini.md), as a name. It is looked for in $NOEMA_DATA_DIR, beside the installed library
 * or command (share/noema) and in the source tree. */
#define NOEMA_BUILTIN_MODEL "noema-mini"
/* The one that writes captions (docs/models/noema-mini-caption.md), in the same places; not every copy of noema has it. */
#define NOEMA_BUILTIN_CAPTIONER "noema-mini-caption"
NOEMA_API int noema_builtin_there(const char *name); /* whether a built-in model is found */

/* `name`: a file, a folder (Hugging Face layout), a built-in or registered name, "ViT-B-32/laion2b_s34b_b79k" (open_clip),
 * "ViT-B/32" (OpenAI) or "hf-hub:org/name[@rev]". `o` may be NULL. */
NOEMA_API noema_status noema_model_open(noema_model **model, noema_context *ctx, const char *name, const noema_model_options *o, noema_error *err);
NOEMA_API void noema_model_free(noema_model *model); /* after its sessions; NULL is fine */

typedef struct noema_model_info {
    size_t struct_size;
    const char *name;           /* as given */
    const char *family;         /* "clip", "siglip", "coca", "bert", ... */
    const char *format;         /* of the file: "safetensors", "torchscript", ... */
    const char *identity;       /* 64 hex digits: content of the weights */
    const char *space;          /* identity of the vectors: weights, preprocessing and compute dtype; never mix spaces */
    const char *preprocess;     /* one line: how pictures become tensors; NULL without an image tower */
    noema_dtype dtype;          /* what AUTO became */
    int64_t n_params;
    int embed_dim;
    int has_image, has_text;
    int image_height, image_width;
    int context_length;
    double logit_scale;         /* exp of the stored parameter; 1 where the model has none */
    double logit_bias;
    int has_logit_bias;         /* SigLIP: probabilities are sigmoids of logits */
    int image_vectors;          /* BLIP-2: vectors of one picture, [image_vectors, embed_dim]; else 1 */
} noema_model_info;

/* Valid as long as the model. */
NOEMA_API const noema_model_info *noema_model_get_info(const noema_model *model);

/* Working memory; grows to the largest batch seen and then allocates nothing. One thread at a time. */
NOEMA_API noema_status noema_session_create(noema_session **s, noema_model *model, noema_error *err);
NOEMA_API void noema_session_free(noema_session *s);

enum {
    NOEMA_NORMALIZE = 1, /* divide each vector by its length */
    NOEMA_FEATURES = 2,  /* pictures: the tower's output before the projection, [n, noema_model_feature_dim()] instead of [n, embed_dim] */
    NOEMA_ALL_VECTORS = 4 /* pictures: [n, image_vectors, embed_dim]; needed where a model has more than one vector per picture */
};

/* Of NOEMA_FEATURES: a transformer's width (its pooled token after the last norm), a ModifiedResNet's embed_dim (its attention pool ends
 * in the projection); 0 where the model has no such features. */
NOEMA_API int noema_model_feature_dim(const noema_model *model);

/* texts: n UTF-8 strings; lengths in bytes or NULL (NUL-terminated). out: [n, embed_dim]. */
NOEMA_API noema_status noema_embed_texts(noema_session *s, size_t n, const char *const *texts, const size_t *lengths, unsigned flags, float *out,
                                         noema_error *err);

/* One picture in memory: 8-bit RGB (channels 3) or RGBA (4), rows of `stride` bytes. */
typedef struct noema_pixels { const uint8_t *data; int width, height, channels; size_t stride; } noema_pixels;

/* Preprocesses as the model's reference does, then embeds. out: [n, embed_dim]. */
NOEMA_API noema_status noema_embed_pixels(noema_session *s, size_t n, const noema_pixels *pictures, unsigned flags, float *out, noema_error *err);

/* Pictures in files (JPEG, PNG, WebP, GIF, BMP, TIFF, PNM). A file that cannot be read fails alone: its errors[i] is filled and its
 * row is NaN; the call then still returns NOEMA_OK. errors: [n], or NULL (then the first bad file fails the call). */
NOEMA_API noema_status noema_embed_image_files(noema_session *s, size_t n, const char *const *paths, unsigned flags, float *out, noema_error *errors,
                                               noema_error *err);

/* Tensors as the model gets them: f32 [n, 3, image_height, image_width], contiguous. */
NOEMA_API noema_status noema_embed_tensors(noema_session *s, size_t n, const float *tensors, unsigned flags, float *out, noema_error *err);

/* Class vectors for zero-shot classification: for each label the template embeddings ("{}" is the label) normalised, averaged and
 * normalised again. templates NULL or n_templates 0: the label alone. out: [n_labels, embed_dim]. */
NOEMA_API noema_status noema_class_vectors(noema_session *s, size_t n_labels, const char *const *labels, size_t n_templates,
                                           const char *const *templates, float *out, noema_error *err);

/* probs[i, j] = softmax over j of scale * <images[i], classes[j]>; CLIP's zero-shot code uses scale 100. probs: [n, n_labels]. */
NOEMA_API noema_status noema_classify(size_t n, const float *images, size_t n_labels, const float *classes, size_t embed_dim, float scale, float *probs,
                                      noema_error *err);

#ifdef __cplusplus
}
#endif
#endif
