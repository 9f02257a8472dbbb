/* err.h - first-error-wins messages; the library never prints and never exits. */
#ifndef NM_ERR_H
#define NM_ERR_H

#include <stdarg.h>

#include "noema/status.h"

/* Sets *err (unless it already holds an error, or is NULL) and returns `code`, so that callers write
 * `return nm_fail(err, NOEMA_E_FORMAT, "%s: expected ..., got ...", path, ...);`. */
noema_status nm_fail(noema_error *err, noema_status code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
noema_status nm_failv(noema_error *err, noema_status code, const char *fmt, va_list ap);

/* Puts "prefix: " in front of the message that is there, when an outer layer knows more (a file's name). */
noema_status nm_fail_prefix(noema_error *err, const char *prefix);

static inline void nm_err_clear(noema_error *err)
{
    if (err) {
        err->code = NOEMA_OK;
        err->message[0] = 0;
    }
}

#endif
