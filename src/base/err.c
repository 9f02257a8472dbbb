/* err.c - error objects: see err.h. */
#include "base/err.h"

#include <stdio.h>
#include <string.h>

const char *noema_status_name(noema_status code)
{
    switch (code) {
    case NOEMA_OK: return "ok";
    case NOEMA_E_ARGUMENT: return "argument";
    case NOEMA_E_MEMORY: return "memory";
    case NOEMA_E_IO: return "io";
    case NOEMA_E_FORMAT: return "format";
    case NOEMA_E_LIMIT: return "limit";
    case NOEMA_E_UNSUPPORTED: return "unsupported";
    case NOEMA_E_MISSING: return "missing";
    case NOEMA_E_MISMATCH: return "mismatch";
    case NOEMA_E_CANCELLED: return "cancelled";
    case NOEMA_E_INTERNAL: return "internal";
    }
    return "unknown";
}

noema_status nm_failv(noema_error *err, noema_status code, const char *fmt, va_list ap)
{
    if (err && err->code == NOEMA_OK) {
        err->code = code;
        vsnprintf(err->message, sizeof err->message, fmt, ap);
    }
    return code;
}

noema_status nm_fail(noema_error *err, noema_status code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    nm_failv(err, code, fmt, ap);
    va_end(ap);
    return code;
}

noema_status nm_fail_prefix(noema_error *err, const char *prefix)
{
    if (!err)
        return NOEMA_E_INTERNAL;
    char tail[sizeof err->message];
    memcpy(tail, err->message, sizeof tail);
    snprintf(err->message, sizeof err->message, "%.400s: %.600s", prefix, tail);
    return err->code;
}
