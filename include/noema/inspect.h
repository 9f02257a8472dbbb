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

/* The tokenizer of a model, valid as long as the model; NULL (and err) when it has none. */
NOEMA_API const noema_tokenizer *noema_model_tokenizer(noema_model *m, noema_error *err);

/* ---- pixels ---- */

/* A preprocessing pipeline: picture file to the tensor that a model gets. Used by one thread at a time. */
typedef struct noema_preprocess noema_preprocess;

/* `what`: a file (open_clip's with preprocess_cfg, a preprocessor_config.json) or a name (openai, hf4_clip, hf5_clip, hf5_siglip,
 * hf5_blip, blip, flip, none). height, width: size of the result; 0: the file's own. */
NOEMA_API noema_status noema_preprocess_open(noema_preprocess **p, const char *what, int height, int width, noema_error *err);
/* What a model does with its pictures; NOEMA_E_UNSUPPORTED for one without an image tower. */
NOEMA_API noema_status noema_preprocess_of_model(noema_preprocess **p, noema_model *m, noema_error *err);
NOEMA_API void noema_preprocess_free(noema_preprocess *p);
/* One line that says everything that changes the numbers; valid as long as p. */
NOEMA_API const char *noema_preprocess_identity(const noema_preprocess *p);

typedef struct noema_plane { const void *data; size_t size; /* bytes */ int height, width; } noema_plane;

/* u8 0: f32 [3, H, W], normalised; u8 1: the pixels before normalisation, [H, W, 3]. out->data is p's until its next use. */
NOEMA_API noema_status noema_preprocess_file(noema_preprocess *p, const char *path, int u8, noema_plane *out, noema_error *err);

/* The same for the bytes of a picture file; `name` is for messages. */
NOEMA_API noema_status noema_preprocess_bytes(noema_preprocess *p, const void *bytes, size_t size, const char *name, int u8, noema_plane *out,
                                              noema_error *err);

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

/* ---- models ---- */

/* As noema_checkpoint_open, for whatever noema_model_open takes as a name. o may be NULL. */
NOEMA_API noema_status noema_checkpoint_of_model(noema_checkpoint **c, const char *name, const noema_model_options *o, int verify, noema_error *err);

/* How a checkpoint filled a model: tensors taken, declared but absent (optional ones), in the file but not used. */
typedef struct noema_load_summary {
    size_t n_tensors, n_missing, n_unused;
    const char *text; /* a line each for the missing and the unused; valid as long as the model */
} noema_load_summary;
NOEMA_API void noema_model_load_summary(const noema_model *m, noema_load_summary *s);

/* Published checkpoints that noema_model_open knows by name, in a fixed order. */
typedef struct noema_published {
    char name[128];    /* "ViT-B-32/laion2b_s34b_b79k" */
    const char *source; /* "hf-hub:org/name" or "openai"; static */
    char path[1024];   /* where the cache has it, "" when it has to be fetched */
} noema_published;
NOEMA_API size_t noema_published_count(void);
NOEMA_API void noema_published_at(size_t i, noema_published *p);

/* A new model of an architecture ("ViT-B-32") or of a configuration file (open_clip's form), its weights drawn by seed. o (may be
 * NULL): dtype and tokenizer count. */
NOEMA_API noema_status noema_model_new(noema_model **m, noema_context *ctx, const char *arch, const char *config, uint64_t seed,
                                       const noema_model_options *o, noema_error *err);
typedef enum noema_layout {
    NOEMA_LAYOUT_OPEN_CLIP = 0,   /* open_clip_model.safetensors, open_clip_config.json */
    NOEMA_LAYOUT_TRANSFORMERS = 1 /* model.safetensors, config.json, preprocessor_config.json; sentence encoders always */
} noema_layout;

/* Writes a model into a folder (made when absent): safetensors with the official names, configuration, tokenizer files, so that the
 * layout's own program opens it. Matrices are stored as dtype (AUTO: f32), vectors as f32. NOEMA_E_UNSUPPORTED: the layout has no
 * such model. */
NOEMA_API noema_status noema_model_save(noema_model *m, const char *folder, noema_layout layout, noema_dtype dtype, noema_error *err);

/* Writes the weighted mean of n models of one architecture into a folder, as noema_model_save does: every parameter is
 * sum(weights[i] * model i), in f32; weights NULL: 1 / n each (model soup, arXiv 2203.05482); {1 - alpha, alpha} of a zero-shot and a
 * fine-tuned model is WiSE-FT (arXiv 2109.01903). A head.safetensors beside every model is averaged likewise; beside some only, it
 * is left out with a warning to the log. NOEMA_E_MISMATCH for parameters that differ in name or shape. o may be NULL. */
NOEMA_API noema_status noema_models_average(noema_context *ctx, size_t n, const char *const *names, const double *weights, const noema_model_options *o,
                                            const char *folder, noema_layout layout, noema_dtype dtype, noema_error *err);

/* ---- activations ---- */

/* Called with every named intermediate of a forward: f32, contiguous, valid during the call. */
typedef void noema_observe_fn(void *user, const char *name, int ndim, const int64_t *shape, const float *data);
/* Watches the session's forwards; fn NULL: no longer. */
NOEMA_API void noema_session_observe(noema_session *s, noema_observe_fn *fn, void *user);

/* ---- speed ---- */

/* Multiply-adds from registers only, all threads of the context together, in operations per second (two per multiply-add), for
 * products of dtype: what no program on this machine can exceed. Takes some milliseconds. */
NOEMA_API double noema_context_peak(noema_context *ctx, noema_dtype dtype);
/* Operations of the products of one picture and of one text of n_tokens ids; 0 for towers that are not counted (ResNet, BERT). */
NOEMA_API void noema_model_operations(const noema_model *m, int n_tokens, double *image, double *text);

/* SHA-256 of data[0..size) in lower-case hex. */
NOEMA_API void noema_sha256(const void *data, size_t size, char hex[65]);

#ifdef __cplusplus
}
#endif
#endif
