/* noema/inspect.h - looking inside: what tokenizers, preprocessing, checkpoints and forwards do, step by step. */
#ifndef NOEMA_INSPECT_H
#define NOEMA_INSPECT_H

#include <stddef.h>
#include <stdint.h>

#include "noema/model.h"
#include "noema/status.h"
#include "noema/tokenizer.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- tokens ---- */

/* A tokenizer with what a model configuration says of it (open_clip's text_cfg, a Hugging Face text_config); config NULL: none. */
NOEMA_API noema_status noema_tokenizer_open_config(noema_tokenizer **t, const char *path, const char *config, noema_error *err);

/* ---- pixels ---- */

/* A preprocessing pipeline: picture file to the tensor that a model gets. Used by one thread at a time. */
typedef struct noema_preprocess noema_preprocess;

/* `what`: a file (open_clip's with preprocess_cfg, a preprocessor_config.json) or a name (openai, hf4_clip, hf5_clip, hf5_siglip,
 * hf5_blip, blip, none). height, width: size of the result; 0: the file's own. */
NOEMA_API noema_status noema_preprocess_open(noema_preprocess **p, const char *what, int height, int width, noema_error *err);
/* What a model does with its pictures; NOEMA_E_UNSUPPORTED for one without an image tower. */
NOEMA_API noema_status noema_preprocess_of_model(noema_preprocess **p, const noema_model *m, noema_error *err);
NOEMA_API void noema_preprocess_free(noema_preprocess *p);
/* One line that says everything that changes the numbers; valid as long as p. */
NOEMA_API const char *noema_preprocess_identity(const noema_preprocess *p);

typedef struct noema_plane { const void *data; size_t size; /* bytes */ int height, width; } noema_plane;

/* u8 0: f32 [3, H, W], normalised; u8 1: the pixels before normalisation, [H, W, 3]. out->data is p's until its next use. */
NOEMA_API noema_status noema_preprocess_file(noema_preprocess *p, const char *path, int u8, noema_plane *out, noema_error *err);

/* ---- checkpoints ---- */

/* The tensors of a checkpoint in any container that noema reads: the file is mapped, nothing is loaded or executed. */
typedef struct noema_checkpoint noema_checkpoint;

typedef struct noema_tensor_info {
    const char *name;  /* valid as long as the checkpoint */
    const char *dtype; /* "f32", "bf16", "f16", ... */
    int ndim;
    int64_t shape[6];
    int64_t n_elements;
} noema_tensor_info;

/* A file, an *.index.json of shards or a folder. verify: also the checksums that its container stores (reads all of it). */
NOEMA_API noema_status noema_checkpoint_open(noema_checkpoint **c, const char *path, int verify, noema_error *err);
NOEMA_API void noema_checkpoint_free(noema_checkpoint *c);
NOEMA_API const char *noema_checkpoint_format(const noema_checkpoint *c); /* "safetensors", "torchscript", ... */
NOEMA_API size_t noema_checkpoint_count(const noema_checkpoint *c);
/* Tensor i in the order of the file. */
NOEMA_API void noema_checkpoint_tensor(const noema_checkpoint *c, size_t i, noema_tensor_info *info);
/* SHA-256 over names, types, shapes and elements: the same for the same weights in another container. */
NOEMA_API noema_status noema_checkpoint_sha256(const noema_checkpoint *c, char hex[65], noema_error *err);

/* An f32 tensor in memory, contiguous, row-major. */
typedef struct noema_f32_tensor { const char *name; int ndim; int64_t shape[6]; const float *data; } noema_f32_tensor;
/* Writes a safetensors file (atomically: a reader sees the old file or the whole new one). */
NOEMA_API noema_status noema_safetensors_write(const char *path, size_t n, const noema_f32_tensor *tensors, noema_error *err);

/* SHA-256 of data[0..size) in lower-case hex. */
NOEMA_API void noema_sha256(const void *data, size_t size, char hex[65]);

#ifdef __cplusplus
}
#endif
#endif
