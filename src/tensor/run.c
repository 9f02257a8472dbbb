/* run.c - see run.h. */
#include "tensor/run.h"

#include <stdio.h>
#include <string.h>

#include "base/cpu.h"

void nm_run_init(nm_run *r, const nm_kernels *kn, nm_pool *pool, nm_arena *arena, nm_dtype compute)
{
    memset(r, 0, sizeof *r);
    r->kn = kn;
    r->pool = pool;
    r->arena = arena;
    r->compute = compute;
    r->act = compute != NM_F32 && nm_gemm_has(kn, NM_BF16) ? NM_BF16 : NM_F32;
    nm_rng_init(&r->rng, 0, 0);
}

nm_tensor nm_run_fail(nm_run *r, noema_status code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    nm_failv(&r->err, code, fmt, ap);
    va_end(ap);
    return (nm_tensor){ 0 };
}

void *nm_scratch(nm_run *r, size_t bytes)
{
    if (!nm_run_ok(r) || bytes == 0)
        return NULL;
    void *p = nm_arena_alloc(r->arena, bytes);
    if (!p)
        nm_run_fail(r, NOEMA_E_MEMORY, "out of memory: %zu bytes of activations", bytes);
    return p;
}

nm_tensor nm_new(nm_run *r, nm_dtype dtype, nm_shape shape)
{
    int64_t n = nm_shape_numel(shape);
    size_t bytes;
    if (!nm_run_ok(r))
        return (nm_tensor){ 0 };
    if (n < 0 || !nm_mul_size((size_t)n, nm_dtype_size(dtype), &bytes))
        return nm_run_fail(r, NOEMA_E_LIMIT, "activation shape is too large");
    return nm_view(nm_scratch(r, bytes ? bytes : 1), dtype, shape);
}

void nm_observe(nm_run *r, nm_tensor t, const char *fmt, ...)
{
    if (!r->observe || !t.data || !nm_run_ok(r))
        return;
    char name[192];
    size_t n = strlen(r->observe_prefix);
    memcpy(name, r->observe_prefix, n);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name + n, sizeof name - n, fmt, ap);
    va_end(ap);
    r->observe(r->observe_user, name, &t);
}

nm_observe_mark nm_observe_enter(nm_run *r, const char *module)
{
    nm_observe_mark mark;
    memcpy(mark.prefix, r->observe_prefix, sizeof mark.prefix);
    size_t n = strlen(r->observe_prefix);
    snprintf(r->observe_prefix + n, sizeof r->observe_prefix - n, "%s", module);
    return mark;
}

void nm_observe_leave(nm_run *r, nm_observe_mark mark) { memcpy(r->observe_prefix, mark.prefix, sizeof mark.prefix); }
