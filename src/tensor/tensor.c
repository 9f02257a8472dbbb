/* tensor.c - see tensor.h. */
#include "tensor/tensor.h"

#include <stdio.h>
#include <string.h>

nm_tensor nm_view(void *data, nm_dtype dtype, nm_shape s)
{
    nm_tensor t = { .dtype = dtype, .ndim = s.ndim, .data = data };
    int64_t step = 1;
    for (int i = s.ndim - 1; i >= 0; i--) {
        t.shape[i] = s.dim[i];
        t.stride[i] = step;
        step *= s.dim[i];
    }
    return t;
}

int64_t nm_numel(const nm_tensor *t)
{
    int64_t n = 1;
    for (int i = 0; i < t->ndim; i++)
        n *= t->shape[i];
    return n;
}

int64_t nm_shape_numel(nm_shape s)
{
    int64_t n = 1;
    for (int i = 0; i < s.ndim; i++)
        if (s.dim[i] < 0 || __builtin_mul_overflow(n, s.dim[i], &n))
            return -1;
    return n;
}

bool nm_is_contiguous(const nm_tensor *t)
{
    int64_t step = 1;
    for (int i = t->ndim - 1; i >= 0; i--) {
        if (t->shape[i] != 1 && t->stride[i] != step)
            return false;
        step *= t->shape[i];
    }
    return true;
}

bool nm_same_shape(const nm_tensor *a, const nm_tensor *b)
{
    return a->ndim == b->ndim && memcmp(a->shape, b->shape, (size_t)a->ndim * sizeof a->shape[0]) == 0;
}

nm_tensor nm_reshape(nm_tensor t, nm_shape s)
{
    if (!t.data || !nm_is_contiguous(&t) || nm_shape_numel(s) != nm_numel(&t))
        return (nm_tensor){ 0 };
    nm_tensor r = nm_view(t.data, t.dtype, s);
    r.grad = t.grad;
    return r;
}

nm_tensor nm_flatten(nm_tensor t, int n)
{
    nm_shape s = { .ndim = t.ndim - n + 1 };
    s.dim[0] = 1;
    for (int i = 0; i < n; i++)
        s.dim[0] *= t.shape[i];
    for (int i = n; i < t.ndim; i++)
        s.dim[i - n + 1] = t.shape[i];
    return nm_reshape(t, s);
}

static nm_tensor narrow(nm_tensor t, int dim, int64_t begin, int64_t end)
{
    if (!t.data)
        return t;
    t.data = (char *)t.data + (size_t)(begin * t.stride[dim]) * nm_dtype_size(t.dtype);
    t.shape[dim] = end - begin;
    return t;
}

nm_tensor nm_rows(nm_tensor t, int64_t begin, int64_t end) { return narrow(t, 0, begin, end); }
nm_tensor nm_cols(nm_tensor t, int64_t begin, int64_t end) { return narrow(t, t.ndim - 1, begin, end); }

const char *nm_shape_text(int ndim, const int64_t *shape, char buf[128])
{
    size_t n = (size_t)snprintf(buf, 128, "[");
    for (int i = 0; i < ndim && n < 100; i++)
        n += (size_t)snprintf(buf + n, 128 - n, "%s%lld", i ? ", " : "", (long long)shape[i]);
    snprintf(buf + n, 128 - n, "]");
    return buf;
}
