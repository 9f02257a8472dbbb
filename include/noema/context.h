/* noema/context.h - threads and logging, shared by everything that is made from it. */
#ifndef NOEMA_CONTEXT_H
#define NOEMA_CONTEXT_H

#include <stddef.h>

#include "noema/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct noema_context noema_context;

typedef enum noema_log_level { NOEMA_LOG_DEBUG, NOEMA_LOG_INFO, NOEMA_LOG_WARNING } noema_log_level;

/* Called for messages that are not errors; any thread; the text is valid during the call. */
typedef void noema_log_fn(void *user, noema_log_level level, const char *text);

typedef struct noema_context_options {
    size_t struct_size;     /* sizeof(noema_context_options) */
    int n_threads;          /* 0: one per processor that this process may use */
    noema_log_fn *log;      /* NULL: silent */
    void *log_user;
    void *reserved[8];      /* zeros */
} noema_context_options;

NOEMA_API void noema_context_options_default(noema_context_options *o);

/* `o` may be NULL. The context owns the thread pool; free it after everything made from it. Thread safe to share. */
NOEMA_API noema_status noema_context_create(noema_context **ctx, const noema_context_options *o, noema_error *err);
NOEMA_API void noema_context_free(noema_context *ctx);
NOEMA_API int noema_context_threads(const noema_context *ctx);
/* The instruction set in use: "ref", "avx2", "avx512", "avx512_bf16" or "amx". */
NOEMA_API const char *noema_context_cpu(const noema_context *ctx);

#ifdef __cplusplus
}
#endif
#endif
