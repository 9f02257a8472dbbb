/* identity.c - SHA-256 of a checkpoint's content: see nm_weights_sha256. The bytes hashed per tensor, in byte order of names:
 * name, NUL, dtype name, NUL, ndim and shape as int64 little-endian, then elements in row-major order. */
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "weights/container.h"

#define RUNS 5
#define RUN_ELEMENTS 64
#define CHUNK 8192 /* elements gathered at a time */

static int by_name(const void *a, const void *b)
{
    const nm_wview *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

/* Elements [at, at + n) of the row-major order. */
static void hash_run(nm_sha256 *h, const nm_wview *v, int64_t at, int64_t n, char *buf)
{
    size_t size = nm_dtype_size(v->dtype);
    if (nm_wview_contiguous(v)) {
        nm_sha256_update(h, (const char *)v->data + (size_t)at * size, (size_t)n * size);
        return;
    }
    while (n) {
        int64_t take = n < CHUNK ? n : CHUNK;
        for (int64_t k = 0; k < take; k++) {
            int64_t rest = at + k, offset = 0;
            for (int i = v->ndim - 1; i >= 0; i--) {
                offset += rest % v->shape[i] * v->stride[i];
                rest /= v->shape[i];
            }
            memcpy(buf + (size_t)k * size, (const char *)v->data + (size_t)offset * size, size);
        }
        nm_sha256_update(h, buf, (size_t)take * size);
        at += take;
        n -= take;
    }
}

static void hash_view(nm_sha256 *h, const nm_wview *v, nm_identity kind, char *buf)
{
    const char *dtype = nm_dtype_name(v->dtype);
    int64_t numel = nm_wview_numel(v);
    unsigned char dims[8 * (1 + NM_WVIEW_DIMS)];
    nm_sha256_update(h, v->name, strlen(v->name) + 1);
    nm_sha256_update(h, dtype, strlen(dtype) + 1);
    for (int i = 0; i <= v->ndim; i++)
        for (int k = 0; k < 8; k++)
            dims[8 * i + k] = (unsigned char)((uint64_t)(i ? v->shape[i - 1] : v->ndim) >> 8 * k);
    nm_sha256_update(h, dims, 8 * (size_t)(1 + v->ndim));
    if (kind == NM_IDENTITY_FULL || numel <= RUNS * RUN_ELEMENTS) {
        if (numel)
            hash_run(h, v, 0, numel, buf);
        return;
    }
    for (int i = 0; i < RUNS; i++)
        hash_run(h, v, (numel - RUN_ELEMENTS) / (RUNS - 1) * i, RUN_ELEMENTS, buf);
}

noema_status nm_weights_sha256(const nm_weights *w, nm_identity kind, char hex[65], noema_error *err)
{
    const nm_wview **order = nm_malloc_array(w->n ? w->n : 1, sizeof *order);
    char *buf = malloc(CHUNK * sizeof(int64_t));
    if (!order || !buf) {
        free(order);
        free(buf);
        return nm_fail(err, NOEMA_E_MEMORY, "out of memory");
    }
    for (size_t i = 0; i < w->n; i++)
        order[i] = &w->view[i];
    qsort(order, w->n, sizeof *order, by_name);
    nm_sha256 h;
    unsigned char digest[32];
    nm_sha256_init(&h);
    for (size_t i = 0; i < w->n; i++)
        hash_view(&h, order[i], kind, buf);
    nm_sha256_final(&h, digest);
    nm_hex(digest, 32, hex);
    free(order);
    free(buf);
    return NOEMA_OK;
}
