/* tensor.h - views: a dtype, a shape, strides in elements, and memory that somebody else owns. */
#ifndef NM_TENSOR_H
#define NM_TENSOR_H

#include <stdbool.h>
#include <stdint.h>

#include "base/dtype.h"

#define NM_MAX_DIMS 6

struct nm_grad;

typedef struct nm_tensor {
    nm_dtype dtype;
    int ndim;
    int64_t shape[NM_MAX_DIMS];
    int64_t stride[NM_MAX_DIMS]; /* in elements */
    void *data;                  /* NULL: the empty tensor that a failed operator returns */
    struct nm_grad *grad;        /* set by a tape */
} nm_tensor;

typedef struct nm_shape {
    int ndim;
    int64_t dim[NM_MAX_DIMS];
} nm_shape;

#define NM_COUNT_(...) ((int)(sizeof((int64_t[]){ __VA_ARGS__ }) / sizeof(int64_t)))
#define NM_SHAPE(...) ((nm_shape){ NM_COUNT_(__VA_ARGS__), { __VA_ARGS__ } })
#define NM_SCALAR ((nm_shape){ 0, { 0 } })

nm_tensor nm_view(void *data, nm_dtype dtype, nm_shape shape); /* contiguous, row-major */
int64_t nm_numel(const nm_tensor *t);
int64_t nm_shape_numel(nm_shape s); /* -1 when a dimension is negative or the product overflows */
bool nm_is_contiguous(const nm_tensor *t);
bool nm_same_shape(const nm_tensor *a, const nm_tensor *b);
/* [d0, d1, ...] with the leading n dimensions flattened into one; t must be contiguous. */
nm_tensor nm_flatten(nm_tensor t, int n);
nm_tensor nm_reshape(nm_tensor t, nm_shape shape); /* empty when the counts differ or t is not contiguous */
/* Rows [begin, end) along dimension 0; columns [begin, end) along the last dimension: views. */
nm_tensor nm_rows(nm_tensor t, int64_t begin, int64_t end);
nm_tensor nm_cols(nm_tensor t, int64_t begin, int64_t end);
/* "[32, 50, 768]" into buf. */
const char *nm_shape_text(int ndim, const int64_t *shape, char buf[128]);

#endif
