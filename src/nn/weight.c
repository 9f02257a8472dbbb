/* weight.c - see weight.h. */
#include "nn/weight.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/half.h"

static float load_f32(const void *p, nm_dtype t, int64_t i)
{
    switch (t) {
    case NM_F32: return ((const float *)p)[i];
    case NM_BF16: return nm_bf16_to_f32(((const nm_bf16 *)p)[i]);
    case NM_F16: return nm_f16_to_f32(((const nm_f16 *)p)[i]);
    case NM_F64: return (float)((const double *)p)[i];
    case NM_I8: return ((const int8_t *)p)[i];
    case NM_U8: return ((const uint8_t *)p)[i];
    case NM_I16: return ((const int16_t *)p)[i];
    case NM_I32: return (float)((const int32_t *)p)[i];
    case NM_I64: return (float)((const int64_t *)p)[i];
    case NM_BOOL: return ((const uint8_t *)p)[i] != 0;
    default: return 0;
    }
}

static bool copy_contiguous(const nm_tensor *t, int64_t n, float *dst)
{
    if (!nm_is_contiguous(t))
        return false;
    if (t->dtype == NM_F32)
        memcpy(dst, t->data, (size_t)n * sizeof *dst);
    else if (t->dtype == NM_BF16)
        for (int64_t i = 0; i < n; i++)
            dst[i] = nm_bf16_to_f32(((const nm_bf16 *)t->data)[i]);
    else if (t->dtype == NM_F16)
        for (int64_t i = 0; i < n; i++)
            dst[i] = nm_f16_to_f32(((const nm_f16 *)t->data)[i]);
    else
        return false;
    return true;
}

/* Walks t in row-major order with an odometer; dst contiguous. */
static void copy_strided(const nm_tensor *t, float *dst)
{
    int64_t n = nm_numel(t), idx[NM_MAX_DIMS] = { 0 }, at = 0;
    if (copy_contiguous(t, n, dst))
        return;
    for (int64_t i = 0; i < n; i++) {
        dst[i] = load_f32(t->data, t->dtype, at);
        for (int d = t->ndim - 1; d >= 0; d--) {
            at += t->stride[d];
            if (++idx[d] < t->shape[d])
                break;
            at -= t->stride[d] * t->shape[d];
            idx[d] = 0;
        }
    }
}

void nm_weight_copy_f32(const nm_weight *w, float *dst)
{
    for (int i = 0; i < w->n_parts; i++) {
        nm_tensor t = w->part[i];
        if (w->transposed && t.ndim == 2) {
            int64_t s = t.stride[0], n = t.shape[0];
            t.stride[0] = t.stride[1], t.stride[1] = s;
            t.shape[0] = t.shape[1], t.shape[1] = n;
        }
        copy_strided(&t, dst);
        dst += nm_numel(&t);
    }
}

bool nm_weight_make_f32(nm_weight *w)
{
    if (w->f32 || !nm_has(w))
        return true;
    float *p = nm_alloc((size_t)nm_shape_numel(w->shape) * sizeof *p);
    if (!p)
        return false;
    nm_weight_copy_f32(w, p);
    w->f32 = p;
    return true;
}

static pthread_mutex_t pack_lock = PTHREAD_MUTEX_INITIALIZER;

/* A stored matrix that nm_gemm_pack reads in place: two dimensions, unit stride along rows, a float dtype it knows. */
static bool in_place(const nm_weight *w, int64_t n, int64_t k)
{
    const nm_tensor *t = &w->part[0];
    if (w->n_parts != 1 || (t->dtype != NM_F32 && t->dtype != NM_F16 && t->dtype != NM_BF16))
        return false;
    return nm_is_contiguous(t) && nm_numel(t) == n * k;
}

int nm_weight_parts(const nm_run *r, const nm_weight *w, nm_dtype compute, nm_gemm_part part[NM_MAX_PARTS])
{
    int64_t n = w->shape.dim[0], k = n ? nm_shape_numel(w->shape) / n : 0, whole = nm_gemm_panel_rows(r->kn, compute);
    for (int i = 0; i < w->n_parts; i++) {
        const nm_tensor *t = &w->part[i];
        int64_t rows = k ? nm_numel(t) / k : 0;
        if ((t->dtype != NM_F32 && t->dtype != NM_F16 && t->dtype != NM_BF16) || !nm_is_contiguous(t) || (i + 1 < w->n_parts && rows % whole))
            return 0;
        part[i] = (nm_gemm_part){ .w = t->data, .dtype = t->dtype, .ldw = w->transposed ? rows : k, .rows = rows, .transposed = w->transposed };
    }
    return w->n_parts;
}

/* The pages of a file that a weight was packed from are not needed again soon. */
static void release_pages(const nm_weight *w)
{
    for (int i = 0; i < w->n_parts && !w->owned_part; i++)
        if (nm_is_contiguous(&w->part[i]))
            nm_map_release(w->part[i].data, (size_t)nm_numel(&w->part[i]) * nm_dtype_size(w->part[i].dtype));
}

static nm_packed *pack_now(nm_run *r, const nm_weight *w, nm_dtype compute)
{
    int64_t n = w->shape.dim[0], k = n ? nm_shape_numel(w->shape) / n : 0;
    nm_packed *p = calloc(1, sizeof *p);
    bool ok = false;
    if (p && in_place(w, n, k))
        ok = nm_gemm_pack(r->kn, p, compute, w->part[0].data, w->part[0].dtype, w->transposed ? n : k, w->transposed, n, k, r->pool);
    else if (p) {
        float *tmp = nm_alloc((size_t)(n * k) * sizeof *tmp);
        if (tmp) {
            nm_weight_copy_f32(w, tmp);
            ok = nm_gemm_pack(r->kn, p, compute, tmp, NM_F32, k, false, n, k, r->pool);
            nm_free(tmp);
        }
    }
    if (!ok) {
        free(p);
        nm_run_fail(r, NOEMA_E_MEMORY, "out of memory: packing a [%lld, %lld] weight", (long long)n, (long long)k);
        return NULL;
    }
    release_pages(w);
    return p;
}

const nm_packed *nm_weight_packed(nm_run *r, const nm_weight *cw, nm_dtype compute)
{
    nm_weight *w = (nm_weight *)(uintptr_t)cw; /* the cache is the one mutable part of a loaded model */
    nm_packed *p = atomic_load_explicit(&w->packed[compute], memory_order_acquire);
    if (p || !nm_run_ok(r))
        return p;
    pthread_mutex_lock(&pack_lock);
    p = atomic_load_explicit(&w->packed[compute], memory_order_relaxed);
    if (!p && (p = pack_now(r, w, compute)))
        atomic_store_explicit(&w->packed[compute], p, memory_order_release);
    pthread_mutex_unlock(&pack_lock);
    return p;
}

static void drop_packed(nm_weight *w)
{
    for (int i = 0; i < NM_DTYPES; i++) {
        nm_packed *p = atomic_exchange(&w->packed[i], NULL);
        if (p) {
            nm_gemm_pack_free(p);
            free(p);
        }
    }
}

void nm_weight_changed(nm_weight *w)
{
    drop_packed(w);
    for (int i = 0; i < NM_MAX_PARTS; i++)
        if (w->shown[i])
            drop_packed(w->shown[i]);
}

static int64_t row_numbers(const nm_weight *w) { return w->shape.dim[0] ? nm_shape_numel(w->shape) / w->shape.dim[0] : 0; }

/* Everything but the links between a weight and its rows. */
static void release_value(nm_weight *w)
{
    bool borrowed = w->whole && w->whole->f32 && w->f32 == w->whole->f32 + w->first * row_numbers(w);
    drop_packed(w);
    if (w->f32 && !borrowed && !(w->owned_part && w->f32 == w->part[0].data))
        nm_free(w->f32);
    if (w->owned_part)
        nm_free(w->part[0].data);
    nm_weight links = { .whole = w->whole, .first = w->first };
    memcpy(links.shown, w->shown, sizeof links.shown);
    *w = links;
}

void nm_weight_free(nm_weight *w)
{
    for (int i = 0; i < NM_MAX_PARTS; i++) {
        if (w->shown[i]) {
            release_value(w->shown[i]);
            w->shown[i]->whole = NULL;
        }
        if (w->whole && w->whole->shown[i] == w)
            w->whole->shown[i] = NULL;
    }
    release_value(w);
    *w = (nm_weight){ 0 };
}

/* ---- rows of a weight ---- */

static void cut_rows(nm_weight *dst, const nm_weight *src, int64_t begin, int64_t end)
{
    dst->shape = src->shape;
    dst->transposed = src->transposed;
    if (!nm_has(src))
        return;
    dst->shape.dim[0] = end - begin;
    int64_t row = 0;
    for (int i = 0; i < src->n_parts; i++) {
        nm_tensor t = src->part[i];
        int dim = src->transposed && t.ndim == 2 ? 1 : 0; /* the stored dimension that counts rows */
        int64_t n = t.shape[dim], b = begin > row ? begin - row : 0, e = end - row < n ? end - row : n;
        row += n;
        if (b >= e)
            continue;
        t.data = (char *)t.data + (size_t)(b * t.stride[dim]) * nm_dtype_size(t.dtype);
        t.shape[dim] = e - b;
        dst->part[dst->n_parts++] = t;
    }
}

bool nm_weight_row_view(nm_weight *dst, const nm_weight *src, int64_t begin, int64_t end)
{
    nm_weight_free(dst);
    cut_rows(dst, src, begin, end);
    return dst->shape.ndim > 1 || nm_weight_make_f32(dst);
}

static bool show_rows(nm_weight *dst, int64_t rows)
{
    const nm_weight *src = dst->whole;
    cut_rows(dst, src, dst->first, dst->first + rows);
    if (src->f32)
        dst->f32 = src->f32 + dst->first * row_numbers(src);
    return dst->f32 || dst->shape.ndim > 1 || nm_weight_make_f32(dst);
}

bool nm_weight_rows_of(nm_weight *dst, nm_weight *src, int64_t begin, int64_t end)
{
    int k = 0;
    nm_weight_free(dst);
    while (k < NM_MAX_PARTS && src->shown[k])
        k++;
    if (k == NM_MAX_PARTS)
        return false;
    src->shown[k] = dst;
    dst->whole = src;
    dst->first = begin;
    return show_rows(dst, end - begin);
}

void nm_weight_set(nm_weight *w, float *data, nm_shape shape)
{
    int64_t rows[NM_MAX_PARTS] = { 0 };
    for (int i = 0; i < NM_MAX_PARTS; i++)
        if (w->shown[i]) {
            rows[i] = w->shown[i]->shape.dim[0];
            release_value(w->shown[i]);
        }
    release_value(w);
    w->shape = shape;
    w->n_parts = 1;
    w->part[0] = nm_view(data, NM_F32, shape);
    w->owned_part = true;
    w->f32 = data;
    for (int i = 0; i < NM_MAX_PARTS; i++)
        if (w->shown[i])
            (void)show_rows(w->shown[i], rows[i]); /* w->f32 is there: nothing to allocate */
}

bool nm_weight_own(nm_weight *w)
{
    const nm_tensor *t = &w->part[0];
    if (nm_has(w) && w->owned_part && w->n_parts == 1 && !w->transposed && t->dtype == NM_F32 && nm_is_contiguous(t) && (!w->f32 || w->f32 == t->data)) {
        w->f32 = t->data; /* it is already */
        return true;
    }
    nm_shape shape = nm_has(w) ? w->shape : NM_SCALAR;
    float *value = nm_alloc(((size_t)nm_shape_numel(shape) + 1) * sizeof *value);
    if (!value)
        return false;
    value[0] = 0;
    nm_weight_copy_f32(w, value);
    nm_weight_set(w, value, shape);
    return true;
}
