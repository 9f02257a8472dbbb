/* noema/noema.h - the whole public API.
 *
 *     noema_context *ctx;  noema_model *model;  noema_session *s;  noema_error err = NOEMA_ERROR_INIT;
 *     noema_context_create(&ctx, NULL, &err);
 *     noema_model_open(&model, ctx, "ViT-B-32/openai", NULL, &err);
 *     noema_session_create(&s, model, &err);
 *     float *v = malloc(noema_model_get_info(model)->embed_dim * sizeof *v);
 *     const char *text = "a photo of a cat";
 *     noema_embed_texts(s, 1, &text, NULL, NOEMA_NORMALIZE, v, &err);
 */
#ifndef NOEMA_NOEMA_H
#define NOEMA_NOEMA_H

#include "noema/capfilt.h"
#include "noema/collection.h"
#include "noema/context.h"
#include "noema/data.h"
#include "noema/generate.h"
#include "noema/model.h"
#include "noema/status.h"
#include "noema/tokenizer.h"
#include "noema/version.h"

#endif
