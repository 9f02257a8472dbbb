/* dtype.h - element types of tensors, in memory and in checkpoints. */
#ifndef NM_DTYPE_H
#define NM_DTYPE_H

#include <stddef.h>

typedef enum nm_dtype { NM_F32, NM_BF16, NM_F16, NM_F64, NM_I8, NM_U8, NM_I16, NM_I32, NM_I64, NM_BOOL, NM_DTYPES } nm_dtype;

static inline size_t nm_dtype_size(nm_dtype t)
{
    static const unsigned char size[NM_DTYPES] = { 4, 2, 2, 8, 1, 1, 2, 4, 8, 1 };
    return size[t];
}

static inline const char *nm_dtype_name(nm_dtype t)
{
    static const char *const name[NM_DTYPES] = { "f32", "bf16", "f16", "f64", "i8", "u8", "i16", "i32", "i64", "bool" };
    return name[t];
}

#endif
