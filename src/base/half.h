/* half.h - bit conversions between f32 and the 16-bit floats; round to nearest even, NaN stays NaN. */
#ifndef NM_HALF_H
#define NM_HALF_H

#include <stdint.h>
#include <string.h>

typedef uint16_t nm_bf16;
typedef uint16_t nm_f16;

static inline float nm_bf16_to_f32(nm_bf16 h)
{
    uint32_t u = (uint32_t)h << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}

static inline nm_bf16 nm_f32_to_bf16(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    if ((u & 0x7FFFFFFF) > 0x7F800000)
        return (nm_bf16)(u >> 16 | 0x40);
    return (nm_bf16)((u + 0x7FFF + (u >> 16 & 1)) >> 16);
}

static inline float nm_f16_to_f32(nm_f16 h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exp = h >> 10 & 31, man = h & 0x3FF, u;
    if (exp == 31)
        u = sign | 0x7F800000 | man << 13;
    else if (exp)
        u = sign | (exp + 112) << 23 | man << 13;
    else {
        float f = (float)man * 0x1p-24f; /* subnormals and zero: exact */
        memcpy(&u, &f, 4);
        u |= sign;
    }
    float f;
    memcpy(&f, &u, 4);
    return f;
}

static inline nm_f16 nm_f32_to_f16(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    uint32_t sign = u >> 16 & 0x8000, a = u & 0x7FFFFFFF;
    if (a > 0x7F800000)
        return (nm_f16)(sign | 0x7E00);
    if (a >= 0x477FF000) /* rounds to infinity */
        return (nm_f16)(sign | 0x7C00);
    if (a < 0x38800000) { /* subnormal result: let the FPU round */
        float t;
        memcpy(&t, &a, 4);
        t += 0.5f; /* ulp(0.5) == 2^-24 == one f16 subnormal step */
        memcpy(&u, &t, 4);
        return (nm_f16)(sign | (u - 0x3F000000));
    }
    return (nm_f16)(sign | ((a - 0x38000000 + 0xFFF + (a >> 13 & 1)) >> 13));
}

#endif
