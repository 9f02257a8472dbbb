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

#ifdef __cplusplus
}
#endif
#endif
