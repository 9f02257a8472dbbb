/* noema/status.h - result codes and the error object that every fallible call fills. */
#ifndef NOEMA_STATUS_H
#define NOEMA_STATUS_H

#if defined(_WIN32)
#define NOEMA_API
#elif defined(__GNUC__)
#define NOEMA_API __attribute__((visibility("default")))
#else
#define NOEMA_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Zero is success; everything else is negative. */
typedef enum noema_status {
    NOEMA_OK = 0,
    NOEMA_E_ARGUMENT = -1,    /* the caller's argument makes no sense */
    NOEMA_E_MEMORY = -2,      /* an allocation failed */
    NOEMA_E_IO = -3,          /* the operating system refused: open, read, write, rename */
    NOEMA_E_FORMAT = -4,      /* a file is not what it claims to be, truncated or corrupt */
    NOEMA_E_LIMIT = -5,       /* a file asks for more than the limits allow */
    NOEMA_E_UNSUPPORTED = -6, /* well-formed, but outside what noema (or this build) can do */
    NOEMA_E_MISSING = -7,     /* a file, tensor or part that is needed is not there */
    NOEMA_E_MISMATCH = -8,    /* two things that must agree do not (shape, space, identity) */
    NOEMA_E_CANCELLED = -9,   /* the caller asked to stop */
    NOEMA_E_INTERNAL = -10    /* a bug in noema */
} noema_status;

/* Filled on failure with what, where, expected and got; untouched on success. Lives in the caller's memory.
 * Initialise with NOEMA_ERROR_INIT (or zeros). Only the first failure is kept until the caller clears it. */
typedef struct noema_error {
    noema_status code;
    char message[1020];
} noema_error;

#define NOEMA_ERROR_INIT { NOEMA_OK, { 0 } }

/* A short English name of a code ("format", "missing", ...). Never NULL; static storage. */
NOEMA_API const char *noema_status_name(noema_status code);

#ifdef __cplusplus
}
#endif
#endif
