/* context.c - noema_context: the thread pool, the kernel table, the log. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpu.h"
#include "models/handle.h"

void noema_context_options_default(noema_context_options *o)
{
    memset(o, 0, sizeof *o);
    o->struct_size = sizeof *o;
}

noema_status noema_context_create(noema_context **out, const noema_context_options *o, noema_error *err)
{
    if (!out)
        return nm_fail(err, NOEMA_E_ARGUMENT, "noema_context_create: no place for the result");
    int threads = o ? o->n_threads : 0;
    if (threads < 0 || threads > 4096)
        return nm_fail(err, NOEMA_E_ARGUMENT, "threads: expected 0 to 4096, got %d", threads);
    noema_context *c = calloc(1, sizeof *c);
    if (c && (c->pool = nm_pool_new(threads))) {
        c->kn = nm_kernels_get();
        c->log = o ? o->log : NULL;
        c->log_user = o ? o->log_user : NULL;
        *out = c;
        return NOEMA_OK;
    }
    free(c);
    return nm_fail(err, NOEMA_E_MEMORY, "cannot start %d threads", threads);
}

void noema_context_free(noema_context *c)
{
    if (c)
        nm_pool_free(c->pool);
    free(c);
}

int noema_context_threads(const noema_context *c) { return nm_pool_size(c->pool); }
const char *noema_context_cpu(const noema_context *c) { return nm_cpu_level_name(c->kn->features); }

void nm_log(const noema_context *c, noema_log_level level, const char *fmt, ...)
{
    if (!c->log)
        return;
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    c->log(c->log_user, level, text);
}
