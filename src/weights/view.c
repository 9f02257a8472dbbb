/* view.c - shapes, strides and element conversion of views. */
#include <string.h>

#include "base/half.h"
#include "weights/container.h"

bool nm_shape_product(int ndim, const int64_t *shape, int64_t *numel)
{
    int64_t n = 1;
    bool empty = false;
    for (int i = 0; i < ndim; i++) {
        if (shape[i] < 0)
            return false;
        if (shape[i] == 0)
            empty = true;
        else if (__builtin_mul_overflow(n, shape[i], &n) || n > NM_WVIEW_MAX_NUMEL)
            return false;
    }
    *numel = empty ? 0 : n;
    return true;
}

int64_t nm_wview_numel(const nm_wview *v)
{
    int64_t n = 1;
    for (int i = 0; i < v->ndim; i++)
        n *= v->shape[i];
    return n;
}

void nm_wview_set_contiguous(nm_wview *v)
{
    int64_t step = 1;
    for (int i = v->ndim - 1; i >= 0; i--) {
        v->stride[i] = step;
        if (v->shape[i] > 0)
            step *= v->shape[i];
    }
}

bool nm_wview_contiguous(const nm_wview *v)
{
    int64_t step = 1;
    for (int i = v->ndim - 1; i >= 0; i--) {
        if (v->shape[i] == 0)
            return true;
        if (v->shape[i] != 1 && v->stride[i] != step)
            return false;
        step *= v->shape[i];
    }
    return true;
}

bool nm_view_in_storage(const nm_wview *v, int64_t offset, int64_t n_elements)
{
    int64_t last = offset;
    if (offset < 0 || offset > n_elements)
        return false;
    for (int i = 0; i < v->ndim; i++) {
        int64_t reach;
        if (v->stride[i] < 0)
            return false;
        if (v->shape[i] == 0)
            return true;
        if (__builtin_mul_overflow(v->shape[i] - 1, v->stride[i], &reach) || __builtin_add_overflow(last, reach, &last))
            return false;
    }
    return last < n_elements;
}

/* Eight lanes of f16 at a time through integer shifts and one multiplication, which compilers vectorise: exponent and mantissa
 * shifted into place are the value times 2^-112; infinities and NaN get their exponent back. */
static void f16_to_f32(float *dst, const uint16_t *src, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        uint32_t h = src[i], em = h & 0x7FFF, u = em << 13;
        float f;
        memcpy(&f, &u, 4);
        f *= 0x1p112f;
        memcpy(&u, &f, 4);
        u |= (h & 0x8000) << 16 | (em >= 0x7C00 ? 0x7F800000u : 0);
        memcpy(&dst[i], &u, 4);
    }
}

/* n elements, `step` apart, as f32. */
static void row_f32(float *dst, nm_dtype t, const void *src, int64_t n, int64_t step)
{
#define LOOP(type, expr)                                                                                                                   \
    do {                                                                                                                                   \
        const type *p = src;                                                                                                               \
        for (int64_t i = 0; i < n; i++, p += step)                                                                                         \
            dst[i] = (float)(expr);                                                                                                        \
    } while (0)
    switch (t) {
    case NM_F32:
        if (step == 1)
            memcpy(dst, src, (size_t)n * 4);
        else
            LOOP(float, *p);
        break;
    case NM_BF16: LOOP(uint16_t, nm_bf16_to_f32(*p)); break;
    case NM_F16:
        if (step == 1)
            f16_to_f32(dst, src, n);
        else
            LOOP(uint16_t, nm_f16_to_f32(*p));
        break;
    case NM_F64: LOOP(double, *p); break;
    case NM_I8: LOOP(int8_t, *p); break;
    case NM_U8: LOOP(uint8_t, *p); break;
    case NM_I16: LOOP(int16_t, *p); break;
    case NM_I32: LOOP(int32_t, *p); break;
    case NM_I64: LOOP(int64_t, *p); break;
    case NM_BOOL: LOOP(uint8_t, *p != 0); break;
    case NM_DTYPES: break;
    }
#undef LOOP
}

/* n elements, `step` apart, unchanged. */
static void row_raw(void *dst, size_t size, const void *src, int64_t n, int64_t step)
{
    if (step == 1)
        memcpy(dst, src, (size_t)n * size);
    else
        for (int64_t i = 0; i < n; i++)
            memcpy((char *)dst + (size_t)i * size, (const char *)src + (size_t)(i * step) * size, size);
}

/* Calls a row copy for each run along the innermost dimensions; trailing dimensions that are contiguous merge into one row. */
static void copy(const nm_wview *v, void *dst, bool f32)
{
    size_t size = nm_dtype_size(v->dtype), out = f32 ? 4 : size;
    int inner = v->ndim;
    int64_t n = 1, step = 1, at[NM_WVIEW_DIMS] = { 0 };
    if (nm_wview_numel(v) == 0)
        return;
    while (inner > 0 && (v->shape[inner - 1] == 1 || v->stride[inner - 1] == n))
        n *= v->shape[--inner];
    if (inner > 0 && n == 1) { /* the last dimension is strided */
        inner--;
        n = v->shape[inner];
        step = v->stride[inner];
    }
    const char *src = v->data;
    for (char *d = dst;; d += (size_t)n * out) {
        if (f32)
            row_f32((float *)(void *)d, v->dtype, src, n, step);
        else
            row_raw(d, size, src, n, step);
        int i = inner - 1;
        for (; i >= 0; i--) {
            src += (size_t)v->stride[i] * size;
            if (++at[i] < v->shape[i])
                break;
            src -= (size_t)(v->stride[i] * v->shape[i]) * size;
            at[i] = 0;
        }
        if (i < 0)
            return;
    }
}

void nm_wview_copy_f32(const nm_wview *v, float *dst) { copy(v, dst, true); }
void nm_wview_copy_raw(const nm_wview *v, void *dst) { copy(v, dst, false); }

double nm_wview_first(const nm_wview *v)
{
    switch (v->dtype) {
    case NM_F64: return *(const double *)v->data;
    case NM_I64: return (double)*(const int64_t *)v->data;
    case NM_I32: return *(const int32_t *)v->data;
    default: {
        float f = 0;
        row_f32(&f, v->dtype, v->data, 1, 1);
        return f;
    }
    }
}
